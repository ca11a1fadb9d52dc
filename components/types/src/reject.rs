//! How a call fails: the six reject codes of the specification, and the finer error codes that clients print.

use crate::limits::REJECT_MESSAGE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Spec: ic-interface-spec #reject-codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum RejectCode {
    /// Fatal system error; a retry is unlikely to help.
    SysFatal = 1,
    /// Transient system error; a retry might help.
    SysTransient = 2,
    /// Destination does not exist or refuses.
    DestinationInvalid = 3,
    /// The canister rejected explicitly.
    CanisterReject = 4,
    /// The canister failed: trapped, gave no answer.
    CanisterError = 5,
    /// A best-effort call whose outcome is not known.
    SysUnknown = 6,
}

impl RejectCode {
    /// The code with this number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::SysFatal,
            2 => Self::SysTransient,
            3 => Self::DestinationInvalid,
            4 => Self::CanisterReject,
            5 => Self::CanisterError,
            6 => Self::SysUnknown,
            _ => return None,
        })
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $reject:ident,)*) => {
        /// Error codes as dfinity/ic numbers them (`rs/types/error_types`); shown as `IC0` and three digits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// The reject code that a caller sees for this error.
            pub const fn reject_code(self) -> RejectCode {
                match self { $(Self::$name => RejectCode::$reject,)* }
            }
        }
    };
}

error_codes! {
    /// The subnet's compute or memory allocation is taken.
    SubnetOversubscribed = 101 => SysFatal,
    /// No more canisters fit on the subnet.
    MaxNumberOfCanistersReached = 102 => SysFatal,
    /// A queue between two canisters is full.
    CanisterQueueFull = 201 => SysTransient,
    /// The ingress message expired before it ran.
    IngressMessageTimeout = 202 => SysTransient,
    /// The canister still has messages waiting.
    CanisterQueueNotEmpty = 203 => SysTransient,
    /// Too many ingress messages are remembered.
    IngressHistoryFull = 204 => SysTransient,
    /// There is already a canister with this id.
    CanisterIdAlreadyExists = 205 => SysTransient,
    /// Stopping took too long.
    StopCanisterRequestTimeout = 206 => SysTransient,
    /// The canister cannot pay for the message.
    CanisterOutOfCycles = 207 => SysTransient,
    /// No certified state is at hand.
    CertifiedStateUnavailable = 208 => SysTransient,
    /// Too many instructions went into installing code lately.
    CanisterInstallCodeRateLimited = 209 => SysTransient,
    /// The heap changed too much lately.
    CanisterHeapDeltaRateLimited = 210 => SysTransient,
    /// No such canister.
    CanisterNotFound = 301 => DestinationInvalid,
    /// No such snapshot.
    CanisterSnapshotNotFound = 305 => DestinationInvalid,
    /// The memory allocation is below what is used.
    InsufficientMemoryAllocation = 402 => CanisterReject,
    /// Too few cycles for the creation fee.
    InsufficientCyclesForCreateCanister = 403 => CanisterReject,
    /// No such subnet.
    SubnetNotFound = 404 => CanisterReject,
    /// The canister lives on another subnet.
    CanisterNotHostedBySubnet = 405 => CanisterReject,
    /// A canister rejected: explicitly, or its `canister_inspect_message` did not accept the message.
    CanisterRejectedMessage = 406 => CanisterReject,
    /// The management canister has no such method.
    UnknownManagementMessage = 407 => CanisterReject,
    /// The management canister could not decode or does not accept the argument.
    InvalidManagementPayload = 408 => CanisterReject,
    /// The canister trapped.
    CanisterTrapped = 502 => CanisterError,
    /// The canister trapped explicitly with `ic0.trap`.
    CanisterCalledTrap = 503 => CanisterError,
    /// The canister broke the System API's contract.
    CanisterContractViolation = 504 => CanisterError,
    /// The module is not valid.
    CanisterInvalidWasm = 505 => CanisterError,
    /// The canister returned with no call left that could answer.
    CanisterDidNotReply = 506 => CanisterError,
    /// No memory is left.
    CanisterOutOfMemory = 507 => CanisterError,
    /// The canister is stopped.
    CanisterStopped = 508 => CanisterError,
    /// The canister is stopping.
    CanisterStopping = 509 => CanisterError,
    /// The canister must be stopped first.
    CanisterNotStopped = 510 => CanisterError,
    /// A start ended the pending stop.
    CanisterStoppingCancelled = 511 => CanisterError,
    /// The caller is not a controller.
    CanisterInvalidController = 512 => CanisterError,
    /// A callback is not in the table, or has the wrong type.
    CanisterFunctionNotFound = 513 => CanisterError,
    /// The canister must hold no module for this.
    CanisterNonEmpty = 514 => CanisterError,
    /// Queries called each other in a loop.
    QueryCallGraphLoopDetected = 517 => CanisterError,
    /// The call attached more cycles than are liquid.
    InsufficientCyclesInCall = 520 => CanisterError,
    /// The engine failed.
    CanisterWasmEngineError = 521 => CanisterError,
    /// The message took more instructions than it may.
    CanisterInstructionLimitExceeded = 522 => CanisterError,
    /// The message touched more stable memory than it may.
    CanisterMemoryAccessLimitExceeded = 524 => CanisterError,
    /// Composite queries called each other too deeply.
    QueryCallGraphTooDeep = 525 => CanisterError,
    /// A composite query took too many instructions in all.
    QueryCallGraphTotalInstructionLimitExceeded = 526 => CanisterError,
    /// A composite query cannot run in replicated mode.
    CompositeQueryCalledInReplicatedMode = 527 => CanisterError,
    /// A composite query took too long.
    QueryTimeLimitExceeded = 528 => CanisterError,
    /// Evaluating a composite query failed.
    QueryCallGraphInternal = 529 => CanisterError,
    /// The compute allocation would freeze the canister.
    InsufficientCyclesInComputeAllocation = 530 => CanisterError,
    /// The memory allocation would freeze the canister.
    InsufficientCyclesInMemoryAllocation = 531 => CanisterError,
    /// Growing memory would freeze the canister.
    InsufficientCyclesInMemoryGrow = 532 => CanisterError,
    /// The memory allocation would reserve more cycles than the limit.
    ReservedCyclesLimitExceededInMemoryAllocation = 533 => CanisterError,
    /// Growing memory would reserve more cycles than the limit.
    ReservedCyclesLimitExceededInMemoryGrow = 534 => CanisterError,
    /// Growing message memory would freeze the canister.
    InsufficientCyclesInMessageMemoryGrow = 535 => CanisterError,
    /// The module exports no such method.
    CanisterMethodNotFound = 536 => CanisterError,
    /// The canister holds no module.
    CanisterWasmModuleNotFound = 537 => CanisterError,
    /// There is already a canister installed.
    CanisterAlreadyInstalled = 538 => CanisterError,
    /// `wasm_memory_limit` was reached.
    CanisterWasmMemoryLimitExceeded = 539 => CanisterError,
    /// More cycles are reserved than the new limit.
    ReservedCyclesLimitIsTooLow = 540 => CanisterError,
    /// The deadline of a best-effort call passed.
    DeadlineExpired = 601 => SysUnknown,
    /// The response to a best-effort call was dropped.
    ResponseDropped = 602 => SysUnknown,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IC{:04}", *self as u16)
    }
}

/// A rejected call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Spec code.
    pub code: RejectCode,
    /// Finer code; absent when a canister rejected explicitly.
    pub error: Option<ErrorCode>,
    /// Text for people, at most what the limits allow.
    pub message: String,
}

impl Reject {
    /// A rejection by the system.
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: error.reject_code(), error: Some(error), message: shortened(message.into()) }
    }

    /// The error code that clients see. A canister's own reject has one too, as in dfinity/ic.
    pub fn error_code(&self) -> ErrorCode {
        self.error.unwrap_or(ErrorCode::CanisterRejectedMessage)
    }

    /// A rejection by a canister, or in its name: without a finer code.
    pub fn by_canister(message: impl Into<String>) -> Self {
        Self { code: RejectCode::CanisterReject, error: None, message: shortened(message.into()) }
    }
}

/// Takes the middle out of a message that is too long: three quarters of what fits are its beginning.
/// Source: dfinity/ic `types/src/messages/inter_canister.rs`, `RejectContext::new`.
fn shortened(message: String) -> String {
    const ELLIPSIS: &str = "...";
    if message.len() <= REJECT_MESSAGE_BYTES_MAX {
        return message;
    }
    let head = REJECT_MESSAGE_BYTES_MAX * 75 / 100;
    let tail = REJECT_MESSAGE_BYTES_MAX - ELLIPSIS.len() - head;
    let (head, tail) = (message.floor_char_boundary(head), message.ceil_char_boundary(message.len() - tail));
    format!("{}{ELLIPSIS}{}", &message[..head], &message[tail..])
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            Some(error) => write!(f, "{error}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let fits = "x".repeat(REJECT_MESSAGE_BYTES_MAX);
        assert_eq!(Reject::by_canister(fits.clone()).message, fits);
        let message = Reject::by_canister(format!("first {fits} last")).message;
        assert_eq!(message.len(), REJECT_MESSAGE_BYTES_MAX);
        assert!(message.starts_with("first ") && message.ends_with(" last") && message.contains("x...x"));
        // No character is cut in two.
        let message = Reject::new(ErrorCode::CanisterTrapped, "\u{10348}".repeat(5_000)).message;
        assert!(message.len() <= REJECT_MESSAGE_BYTES_MAX && message.len() > REJECT_MESSAGE_BYTES_MAX - 8);
    }
}
