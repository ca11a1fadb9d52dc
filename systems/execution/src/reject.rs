//! Why a message failed, and what its caller reads of it: the one place where failures become error codes and text.
//!
//! Enters: failures of canisters and of the system, with the numbers of both sides. Leaves: [`Reject`]. Never here: a decision.
//!
//! The sentences follow those of dfinity/ic (`rs/interfaces/src/execution_environment/errors.rs`), because people and tools search for them.

use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Bytes, Cycles, Instructions};
use std::fmt;

const DOCS: &str = "http://internetcomputer.org/docs/current/references/execution-errors#";

/// A balance that does not cover what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfCycles {
    /// Whose balance.
    pub canister: CanisterId,
    /// What it holds.
    pub available: Cycles,
    /// What was asked for.
    pub requested: Cycles,
    /// What must remain.
    pub threshold: Cycles,
    /// Whether the reader may know how much is missing.
    pub reveal: bool,
}

impl fmt::Display for OutOfCycles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canister {} is out of cycles", self.canister)?;
        if self.reveal {
            let missing = self.threshold.saturating_add(self.requested).saturating_sub(self.available);
            write!(f, ": please top up the canister with at least {missing} additional cycles")?;
        }
        Ok(())
    }
}

/// What kind of entry point was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// `canister_update`.
    Update,
    /// `canister_query`.
    Query,
    /// `canister_composite_query`.
    CompositeQuery,
    /// A system method.
    System,
}

impl MethodKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Query => "query",
            Self::CompositeQuery => "composite_query",
            Self::System => "system",
        }
    }
}

/// Who is to blame for a broken contract, and what to read about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The compiler or CDK.
    Toolchain,
    /// The canister's author: a suggestion and a section of the documentation.
    Author(&'static str, &'static str),
}

/// Why Wasm did not come to its end, or never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A callback is not in the table or has another type.
    FunctionNotFound {
        /// Its index in table 0.
        function: u64,
    },
    /// The module exports no such method.
    MethodNotFound {
        /// Which kind was looked for.
        kind: MethodKind,
        /// Its name.
        name: String,
    },
    /// The System API was used against its rules.
    Contract {
        /// How.
        error: String,
        /// Whose fault it probably is.
        blame: Blame,
    },
    /// The System API function is not built yet.
    NotSupported(&'static str),
    /// The message took more instructions than it may.
    InstructionLimit(Instructions),
    /// A Wasm trap.
    Trapped {
        /// Why.
        reason: String,
        /// The functions that were active, innermost first.
        backtrace: Vec<String>,
    },
    /// `ic0.trap`.
    CalledTrap {
        /// Its argument.
        message: String,
        /// The functions that were active, innermost first.
        backtrace: Vec<String>,
    },
    /// No module is installed.
    NoModule,
    /// Memory cannot grow.
    OutOfMemory,
    /// Bytes that are no principal.
    InvalidPrincipal,
    /// Too few cycles to attach to a call.
    InsufficientCycles(OutOfCycles),
    /// A callback failed, and then its cleanup too.
    Cleanup {
        /// The callback's failure.
        callback: Box<Failure>,
        /// The cleanup's failure.
        cleanup: Box<Failure>,
    },
    /// More stable memory was touched than one message may.
    StableAccessLimit {
        /// What may be touched.
        limit: Bytes,
    },
    /// Growing memory would freeze the canister.
    InsufficientCyclesInMemoryGrow {
        /// By how much it should grow.
        bytes: Bytes,
        /// What the canister holds.
        available: Cycles,
        /// What it must hold.
        threshold: Cycles,
        /// Whether the reader may know how much is missing.
        reveal: bool,
    },
    /// Growing memory would reserve more cycles than the canister allows.
    ReservedCyclesLimit {
        /// By how much it should grow.
        bytes: Bytes,
        /// What would be reserved.
        requested: Cycles,
        /// What may be.
        limit: Cycles,
    },
    /// `wasm_memory_limit` was reached.
    WasmMemoryLimit {
        /// What would be used.
        bytes: Bytes,
        /// What may be.
        limit: Bytes,
    },
    /// The engine or the kernel failed.
    Engine(String),
}

fn missing(reveal: bool, threshold: Cycles, available: Cycles) -> String {
    if reveal {
        format!(" At least {} additional cycles are required.", threshold.saturating_sub(available))
    } else {
        String::new()
    }
}

fn write_backtrace(f: &mut fmt::Formatter<'_>, backtrace: &[String]) -> fmt::Result {
    if backtrace.is_empty() {
        return Ok(());
    }
    f.write_str("\nCanister Backtrace:\n")?;
    backtrace.iter().try_for_each(|frame| writeln!(f, "{frame}"))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FunctionNotFound { function } => {
                write!(f, "Canister requested to invoke a non-existent Wasm function {function} from table 0")
            }
            Self::MethodNotFound { kind, name } => write!(f, "Canister has no {} method '{name}'.", kind.text()),
            Self::Contract { error, .. } => write!(f, "Canister violated contract: {error}"),
            Self::NotSupported(name) => write!(f, "Canister violated contract: not supported yet: {name}"),
            Self::InstructionLimit(limit) => {
                write!(f, "Canister exceeded the limit of {limit} instructions for single message execution.")
            }
            Self::Trapped { reason, backtrace } => {
                write!(f, "Canister trapped: {reason}")?;
                write_backtrace(f, backtrace)
            }
            Self::CalledTrap { message, backtrace } => {
                write!(f, "Canister called `ic0.trap` with message: {message}")?;
                write_backtrace(f, backtrace)
            }
            Self::NoModule => f.write_str("Attempted to execute a message, but the canister contains no Wasm module."),
            Self::OutOfMemory => f.write_str("Canister exceeded its allowed memory allocation."),
            Self::InvalidPrincipal => f.write_str("Canister provided invalid principal id"),
            Self::InsufficientCycles(error) => error.fmt(f),
            Self::Cleanup { callback, cleanup } => {
                write!(f, "{callback}\n\ncall_on_cleanup also failed:\n\n{cleanup}")
            }
            Self::StableAccessLimit { limit } => write!(
                f,
                "Canister exceeded memory access limits: Exceeded the limit for the number of accessed pages in the stable memory \
                 in a single message execution: limit: {} KB.",
                limit.0 / 1024
            ),
            Self::InsufficientCyclesInMemoryGrow { bytes, available, threshold, reveal } => write!(
                f,
                "Canister cannot grow memory by {bytes} bytes due to insufficient cycles.{}",
                missing(*reveal, *threshold, *available)
            ),
            Self::ReservedCyclesLimit { bytes, requested, limit } => write!(
                f,
                "Canister cannot grow memory by {bytes} bytes due to its reserved cycles limit. The current limit ({limit}) would be \
                 exceeded by {}.",
                requested.saturating_sub(*limit)
            ),
            Self::WasmMemoryLimit { bytes, limit } => write!(
                f,
                "Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory usage was {bytes} bytes. \
                 If the canister reaches 4GiB, then it may stop functioning and may become unrecoverable. Please reach out to the \
                 canister owner to investigate the reason for the increased memory usage. It might be necessary to move data from \
                 the Wasm memory to the stable memory. If such high Wasm memory usage is expected and safe, then the developer can \
                 increase the Wasm memory limit in the canister settings."
            ),
            Self::Engine(error) => write!(f, "Canister encountered a Wasm engine error: {error}"),
        }
    }
}

impl Failure {
    /// A broken contract that the toolchain is blamed for.
    pub(crate) fn toolchain(error: impl Into<String>) -> Self {
        Self::Contract { error: error.into(), blame: Blame::Toolchain }
    }

    /// The error code that clients see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::FunctionNotFound { .. } => ErrorCode::CanisterFunctionNotFound,
            Self::MethodNotFound { .. } => ErrorCode::CanisterMethodNotFound,
            Self::Contract { .. } | Self::NotSupported(_) | Self::InvalidPrincipal | Self::InsufficientCycles(_) => {
                ErrorCode::CanisterContractViolation
            }
            Self::InstructionLimit(_) => ErrorCode::CanisterInstructionLimitExceeded,
            Self::Trapped { .. } => ErrorCode::CanisterTrapped,
            Self::CalledTrap { .. } => ErrorCode::CanisterCalledTrap,
            Self::NoModule => ErrorCode::CanisterWasmModuleNotFound,
            Self::OutOfMemory => ErrorCode::CanisterOutOfMemory,
            Self::Cleanup { callback, .. } => callback.code(),
            Self::StableAccessLimit { .. } => ErrorCode::CanisterMemoryAccessLimitExceeded,
            Self::InsufficientCyclesInMemoryGrow { .. } => ErrorCode::InsufficientCyclesInMemoryGrow,
            Self::ReservedCyclesLimit { .. } => ErrorCode::ReservedCyclesLimitExceededInMemoryGrow,
            Self::WasmMemoryLimit { .. } => ErrorCode::CanisterWasmMemoryLimitExceeded,
            Self::Engine(_) => ErrorCode::CanisterWasmEngineError,
        }
    }

    /// What to do about it, and where to read on.
    const fn help(&self) -> (&'static str, &'static str) {
        match self {
            Self::MethodNotFound { .. } => {
                ("Check that the method being called is exported by the target canister.", "method-not-found")
            }
            Self::InstructionLimit(_) => (
                "Try optimizing this method to consume fewer instructions or split the work across multiple messages.",
                "instruction-limit-exceeded",
            ),
            Self::Trapped { .. } => (
                "Consider gracefully handling failures from this canister or altering the canister to handle exceptions.",
                "trapped",
            ),
            Self::CalledTrap { .. } => (
                "Consider gracefully handling failures from this canister or altering the canister to handle exceptions.",
                "trapped-explicitly",
            ),
            Self::NoModule => ("Please install code to this canister before calling it.", "wasm-module-not-found"),
            Self::OutOfMemory => (
                "Check the canister's memory usage against its allocation and the system wide limits to determine why more memory \
                 cannot be allocated.",
                "out-of-memory",
            ),
            Self::StableAccessLimit { .. } => (
                "Try optimizing the use of stable memory so that individual messages don't need to access as much stable memory.",
                "memory-access-limit-exceeded",
            ),
            Self::InsufficientCyclesInMemoryGrow { .. } => {
                ("Try topping up the canister.", "insufficient-cycles-in-memory-grow")
            }
            Self::ReservedCyclesLimit { .. } => (
                "Try increasing the canister's reserved cycles limit.",
                "reserved-cycles-limit-exceeded-in-memory-grow",
            ),
            Self::WasmMemoryLimit { .. } => (
                "Try checking the canister for a possible memory leak or modifying it to use more stable memory instead of Wasm memory.",
                "wasm-memory-limit-exceeded",
            ),
            Self::Contract { blame: Blame::Author(suggestion, section), .. } => (suggestion, section),
            _ => ("", ""),
        }
    }

    /// The rejection that callers of `canister` see.
    pub fn reject(&self, canister: CanisterId) -> Reject {
        let toolchain = matches!(
            self,
            Self::FunctionNotFound { .. } | Self::Contract { blame: Blame::Toolchain, .. } | Self::InvalidPrincipal
        );
        let (suggestion, section) = self.help();
        let text = if toolchain {
            format!(
                "Error from Canister {canister}: {self}.\nThis is likely an error with the compiler/CDK toolchain being used to build the \
                 canister. Please report the error to IC devs on the forum: https://forum.dfinity.org and include which language/CDK was \
                 used to create the canister."
            )
        } else if suggestion.is_empty() {
            format!("Error from Canister {canister}: {self}")
        } else {
            format!("Error from Canister {canister}: {self}.\n{suggestion} See documentation: {DOCS}{section}")
        };
        Reject::new(self.code(), text)
    }

    /// The line that the canister's log keeps of it, if any.
    pub fn log_line(&self) -> Option<String> {
        let with = |text: &str, backtrace: &[String]| {
            let mut line = format!("[TRAP]: {text}");
            if !backtrace.is_empty() {
                line.push_str("\nCanister Backtrace:\n");
                backtrace.iter().for_each(|frame| {
                    line.push_str(frame);
                    line.push('\n');
                });
            }
            line
        };
        match self {
            Self::Trapped { reason, backtrace } => Some(with(reason, backtrace)),
            Self::CalledTrap { message, backtrace } => {
                Some(with(if message.is_empty() { "(no message)" } else { message }, backtrace))
            }
            _ => None,
        }
    }

    /// The same without the names of functions, for readers who may not see them.
    pub fn without_backtrace(mut self) -> Self {
        match &mut self {
            Self::Trapped { backtrace, .. } | Self::CalledTrap { backtrace, .. } => backtrace.clear(),
            Self::Cleanup { callback, cleanup } => {
                return Self::Cleanup {
                    callback: Box::new(std::mem::replace(&mut **callback, Self::NoModule).without_backtrace()),
                    cleanup: Box::new(std::mem::replace(&mut **cleanup, Self::NoModule).without_backtrace()),
                };
            }
            _ => {}
        }
        self
    }
}

/// The callee is stopped or stopping.
pub fn not_running(canister: CanisterId, stopped: bool) -> Reject {
    let code = if stopped { ErrorCode::CanisterStopped } else { ErrorCode::CanisterStopping };
    Reject::new(code, format!("Canister {canister} is not running"))
}

/// There is no such canister on the subnet.
pub fn no_such_canister(canister: CanisterId) -> Reject {
    Reject::new(ErrorCode::CanisterNotFound, format!("Canister {canister} not found"))
}

/// The ingress message expired before it started.
pub fn ingress_timed_out(id: MessageId) -> Reject {
    Reject::new(ErrorCode::IngressMessageTimeout, format!("Ingress message {id} timed out waiting to start executing."))
}

/// The callee cannot pay for the message.
pub fn out_of_cycles(error: OutOfCycles) -> Reject {
    Reject::new(ErrorCode::CanisterOutOfCycles, error.to_string())
}

/// The callee returned, and nothing is left that could answer.
pub fn did_not_reply(canister: CanisterId) -> Reject {
    Reject::new(ErrorCode::CanisterDidNotReply, format!("Canister {canister} did not reply to the call"))
}

/// A composite query was called as an update.
pub fn composite_in_replicated_mode() -> Reject {
    Reject::new(
        ErrorCode::CompositeQueryCalledInReplicatedMode,
        "Composite query cannot be called in replicated mode".to_string(),
    )
}

/// The call carries fewer cycles than the callee demands.
pub fn too_few_cycles_attached(canister: CanisterId, attached: Cycles, minimum: Cycles) -> Reject {
    Reject::new(
        ErrorCode::InsufficientCyclesInCall,
        format!(
            "Canister {canister} accepts only calls with at least {minimum} cycles attached, but the call carried {attached}"
        ),
    )
}

/// The callee was uninstalled before it answered.
pub fn uninstalled(canister: CanisterId, by_exhaustion: bool) -> Reject {
    let message = if by_exhaustion {
        format!("Canister {canister} ran out of cycles and was uninstalled")
    } else {
        "Canister has been uninstalled.".to_string()
    };
    Reject::by_canister(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn failures_read_as_clients_know_them() {
        let id = CanisterId::from_u64(1);
        let trap = Failure::CalledTrap { message: "boom".into(), backtrace: vec![] };
        expect![[r#"
            IC0503: Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister called `ic0.trap` with message: boom.
            Consider gracefully handling failures from this canister or altering the canister to handle exceptions. See documentation: http://internetcomputer.org/docs/current/references/execution-errors#trapped-explicitly"#]]
        .assert_eq(&trap.reject(id).to_string());
        let cleanup = Failure::Cleanup {
            callback: Box::new(trap),
            cleanup: Box::new(Failure::Trapped { reason: "unreachable".into(), backtrace: vec!["f".into()] }),
        };
        expect![[r#"
            IC0503: Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister called `ic0.trap` with message: boom

            call_on_cleanup also failed:

            Canister trapped: unreachable"#]]
        .assert_eq(&cleanup.without_backtrace().reject(id).to_string());
    }

    #[test]
    fn missing_cycles_are_told_to_controllers_only() {
        let mut error = OutOfCycles {
            canister: CanisterId::from_u64(1),
            available: Cycles(10),
            requested: Cycles(7),
            threshold: Cycles(5),
            reveal: false,
        };
        expect!["Canister rrkah-fqaaa-aaaaa-aaaaq-cai is out of cycles"].assert_eq(&error.to_string());
        error.reveal = true;
        expect!["Canister rrkah-fqaaa-aaaaa-aaaaq-cai is out of cycles: please top up the canister with at least 2 additional cycles"]
            .assert_eq(&error.to_string());
    }
}
