//! What host calls, dirtied pages and compilation cost, in instructions.
//!
//! Enters: an import and its arguments. Leaves: the charge. Never here: operators of Wasm ([`crate::weights`]).
//!
//! Sources, all dfinity/ic: fixed costs from `rs/embedders/src/wasmtime_embedder/system_api_complexity.rs` as quoted in
//! 2026; which argument is charged by the byte from `linker.rs` beside it (sources of 2025-26); stable memory from
//! `rs/embedders/src/wasm_utils/system_api_replacements.rs`, which meters reads and writes with the `overhead_native` numbers
//! and leaves the two size functions free; pages from `rs/config/src/subnet_config.rs` (`DEFAULT_DIRTY_PAGE_OVERHEAD`);
//! compilation from `rs/config/src/embedders.rs` (`DEFAULT_COST_TO_COMPILE_WASM_INSTRUCTION`).
//! `mint_cycles128` and `subnet_self_node_count` have no entry there: the first is indeed free, the second is taken to cost
//! what its neighbours do.

use crate::imports::Ic0;
use crate::units::Instructions;

/// Charged for each 4 KiB heap page whose bytes differ after the message, also when it trapped.
pub const HEAP_DIRTY_PAGE: Instructions = Instructions(1_000);

/// Charged for each 4 KiB stable-memory page that the message dirties for the first time, when it does.
pub const STABLE_DIRTY_PAGE: Instructions = Instructions(1_000);

/// Charged when a module is compiled, for each Wasm operator of its functions (their `end` included) and for two operators
/// for each global.
pub const COMPILE_PER_OPERATOR: Instructions = Instructions(6_000);

/// Operators that compilation counts for each global: its initialiser and the `end`.
pub const COMPILE_OPERATORS_PER_GLOBAL: u64 = 2;

/// Instructions for each byte that a host function moves within the canister.
pub const PER_BYTE: u64 = 1;

/// Instructions for each byte that leaves the canister: replies, rejects, call payloads and log records.
pub const PER_BYTE_TRANSMITTED: u64 = 50;

/// Instructions for each byte that is kept in the canister's log: one for the new record, one for the record it evicts.
pub const PER_BYTE_LOGGED: u64 = 2;

/// How a host call is charged by the byte, on top of its fixed cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCharge {
    /// It is not.
    None,
    /// The sum of these arguments, [`PER_BYTE`] each.
    Moved(&'static [usize]),
    /// This argument, [`PER_BYTE_TRANSMITTED`] each.
    Transmitted(usize),
    /// This argument is the length of a log record: see [`log_charge`].
    Logged(usize),
    /// Like `Logged`, and the length itself once more: the message of a trap.
    LoggedAndMoved(usize),
}

/// The charge for one host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCost {
    /// For the call as such.
    pub fixed: Instructions,
    /// For the bytes it handles.
    pub bytes: ByteCharge,
}

const fn cost(fixed: u64, bytes: ByteCharge) -> HostCost {
    HostCost { fixed: Instructions(fixed), bytes }
}

/// The charge for a call of this import.
pub const fn host_cost(import: Ic0) -> HostCost {
    use ByteCharge::{Logged, LoggedAndMoved, Moved, None, Transmitted};
    match import {
        // `(dst, offset, size)`: the size.
        Ic0::MsgArgDataCopy
        | Ic0::MsgCallerCopy
        | Ic0::MsgCallerInfoDataCopy
        | Ic0::MsgCallerInfoSignerCopy
        | Ic0::MsgRejectMsgCopy
        | Ic0::MsgMethodNameCopy
        | Ic0::CanisterSelfCopy
        | Ic0::SubnetSelfCopy
        | Ic0::RootKeyCopy
        | Ic0::DataCertificateCopy => cost(500, Moved(&[2])),
        // `(src, size, ..)`: the size.
        Ic0::CertifiedDataSet | Ic0::CostSignWithEcdsa | Ic0::CostSignWithSchnorr | Ic0::CostVetkdDeriveKey => {
            cost(500, Moved(&[1]))
        }
        Ic0::IsController => cost(1_000, Moved(&[1])),
        Ic0::EnvVarNameCopy => cost(500, Moved(&[3])),
        Ic0::EnvVarValueCopy => cost(500, Moved(&[4])),
        // `(callee_src, callee_size, name_src, name_size, ..)`: both sizes.
        Ic0::CallNew => cost(1_500, Moved(&[1, 3])),
        Ic0::MsgReplyDataAppend | Ic0::MsgReject | Ic0::CallDataAppend => cost(500, Transmitted(1)),
        Ic0::DebugPrint => cost(100, Logged(1)),
        Ic0::Trap => cost(500, LoggedAndMoved(1)),
        Ic0::CallPerform => cost(5_000, None),
        Ic0::PerformanceCounter => cost(200, None),
        Ic0::CostHttpRequestV2 => cost(10_000, None),
        Ic0::StableSize | Ic0::Stable64Size | Ic0::MintCycles128 => cost(0, None),
        Ic0::StableGrow | Ic0::Stable64Grow => cost(100, None),
        // Newly dirtied pages come on top of writes: [`STABLE_DIRTY_PAGE`].
        Ic0::StableRead | Ic0::StableWrite | Ic0::Stable64Read | Ic0::Stable64Write => cost(20, Moved(&[2])),
        Ic0::MsgArgDataSize
        | Ic0::MsgCallerSize
        | Ic0::MsgCallerInfoDataSize
        | Ic0::MsgCallerInfoSignerSize
        | Ic0::MsgRejectCode
        | Ic0::MsgRejectMsgSize
        | Ic0::MsgDeadline
        | Ic0::MsgReply
        | Ic0::MsgCyclesAvailable128
        | Ic0::MsgCyclesRefunded128
        | Ic0::MsgCyclesAccept128
        | Ic0::CyclesBurn128
        | Ic0::CanisterSelfSize
        | Ic0::CanisterCycleBalance128
        | Ic0::CanisterLiquidCycleBalance128
        | Ic0::CanisterStatus
        | Ic0::CanisterVersion
        | Ic0::SubnetSelfSize
        | Ic0::SubnetSelfNodeCount
        | Ic0::MsgMethodNameSize
        | Ic0::AcceptMessage
        | Ic0::CallOnCleanup
        | Ic0::CallWithBestEffortResponse
        | Ic0::CallCyclesAdd128
        | Ic0::RootKeySize
        | Ic0::DataCertificatePresent
        | Ic0::DataCertificateSize
        | Ic0::Time
        | Ic0::GlobalTimerSet
        | Ic0::InReplicatedExecution
        | Ic0::CostCall
        | Ic0::CostCreateCanister
        | Ic0::CostHttpRequest
        | Ic0::EnvVarCount
        | Ic0::EnvVarNameSize
        | Ic0::EnvVarNameExists
        | Ic0::EnvVarValueSize
        | Ic0::MsgCyclesAvailable
        | Ic0::MsgCyclesRefunded
        | Ic0::MsgCyclesAccept
        | Ic0::CanisterCycleBalance
        | Ic0::CallCyclesAdd
        | Ic0::MintCycles => cost(500, None),
    }
}

/// The canister's log as [`log_charge`] needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRoom {
    /// Bytes that the log can hold.
    pub capacity: u64,
    /// Bytes that this message may still add to it.
    pub remaining: u64,
}

/// The charge for a log record of `len` bytes.
pub const fn log_charge(len: u64, room: LogRoom) -> Instructions {
    let kept = if len < room.capacity { len } else { room.capacity };
    let sent = if len < room.remaining { len } else { room.remaining };
    Instructions(PER_BYTE_LOGGED.saturating_mul(kept).saturating_add(PER_BYTE_TRANSMITTED.saturating_mul(sent)))
}

impl HostCost {
    /// The whole charge for a call with these arguments (addresses of 32-bit modules zero-extended). Saturates, as the
    /// source does. A missing argument counts as zero.
    pub fn charge(&self, args: &[u64], room: LogRoom) -> Instructions {
        let arg = |ix: usize| args.get(ix).copied().unwrap_or(0);
        let bytes = match self.bytes {
            ByteCharge::None => 0,
            ByteCharge::Moved(sizes) => {
                sizes.iter().fold(0u64, |sum, &ix| sum.saturating_add(PER_BYTE.saturating_mul(arg(ix))))
            }
            ByteCharge::Transmitted(size) => PER_BYTE_TRANSMITTED.saturating_mul(arg(size)),
            ByteCharge::Logged(size) => log_charge(arg(size), room).0,
            ByteCharge::LoggedAndMoved(size) => {
                log_charge(arg(size), room).0.saturating_add(PER_BYTE.saturating_mul(arg(size)))
            }
        };
        self.fixed.saturating_add(Instructions(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imports::IMPORTS;

    #[test]
    fn every_charged_argument_exists() {
        for row in IMPORTS {
            let last = match host_cost(row.import).bytes {
                ByteCharge::None => continue,
                ByteCharge::Moved(sizes) => sizes.iter().copied().max().unwrap(),
                ByteCharge::Transmitted(ix) | ByteCharge::Logged(ix) | ByteCharge::LoggedAndMoved(ix) => ix,
            };
            assert!(last < row.params.len(), "{}", row.name);
        }
    }

    #[test]
    fn golden_charges_per_host_call() {
        let room = LogRoom { capacity: 4_096, remaining: 10 };
        // Every argument is 100: what each import charges.
        let args = [100u64; 8];
        let mut text = String::new();
        for row in IMPORTS {
            text.push_str(&format!("{} {}\n", row.name, host_cost(row.import).charge(&args, room)));
        }
        expect_test::expect_file!["../golden/host_charges.txt"].assert_eq(&text);
    }

    #[test]
    fn charges_saturate() {
        let charge = host_cost(Ic0::MsgReject).charge(&[0, u64::MAX], LogRoom::default());
        assert_eq!(charge, Instructions(u64::MAX));
        assert_eq!(host_cost(Ic0::CallNew).charge(&[u64::MAX; 8], LogRoom::default()), Instructions(u64::MAX));
    }
}
