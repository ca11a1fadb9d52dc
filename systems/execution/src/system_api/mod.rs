//! The System API: what `ic0.*` means to one message.
//!
//! Enters: everything of one message, moved in when its Wasm starts. Leaves: the same struct with what the Wasm asked for; whether it
//! holds is for [`crate::message`] to decide. Never here: a borrow of the canister, so that a suspended message keeps its own copy; a
//! change of any component.
//!
//! Spec: ic-interface-spec 0.66 `canister-interface.md`.

mod calls;
mod context;
mod cycles;
mod info;
mod reply;
mod stable;
mod state;
mod touched;

pub use context::{Entry, may_call};
pub(crate) use state::{Answer, Calls, Funds, Identity, MadeCall, MemoryBook, Message, Written};
pub use state::{CallerInfo, Rates, SystemApi};
pub(crate) use touched::TouchedPages;

use crate::reject::Failure;
use context::ROWS;
use cyclotron_types::host_costs::LogRoom;
use cyclotron_types::imports::{Ic0, ImportSupport};
use cyclotron_types::units::{Instructions, WasmPages};
use cyclotron_wasm::runtime::{Caller, Host, HostFn, HostTrap, SliceVerdict};

/// Why a host function stops the Wasm.
#[derive(Debug)]
pub(crate) enum Stop {
    /// For a reason in terms of the System API.
    Failure(Box<Failure>),
    /// For a reason that the engine knows: the heap's bounds, the instruction limit.
    Engine(HostTrap),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

impl From<HostTrap> for Stop {
    fn from(trap: HostTrap) -> Self {
        Self::Engine(trap)
    }
}

/// A result word, or why the Wasm stops.
pub(crate) type Answered<T = u64> = Result<T, Stop>;

/// What a function without a result returns.
const NOTHING: Answered = Ok(0);

/// Bytes `[src, src + len)` of the heap; `what` names the function and its buffer in the error.
#[inline]
pub(crate) fn take<'a>(caller: &'a Caller<'_>, what: &str, src: u64, len: u64) -> Answered<&'a [u8]> {
    match caller.read(src, len) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(outside(what, src, len, caller.heap_bytes())),
    }
}

/// Copies `bytes` to the heap at `dst`.
#[inline]
pub(crate) fn put(caller: &mut Caller<'_>, what: &str, dst: u64, bytes: &[u8]) -> Answered<()> {
    match caller.copy_in(dst, bytes) {
        Ok(()) => Ok(()),
        Err(_) => Err(outside(what, dst, bytes.len() as u64, caller.heap_bytes())),
    }
}

/// The `*_copy` idiom: `blob[offset..offset + size]` to the heap at `dst`.
#[inline]
pub(crate) fn copy_out(caller: &mut Caller<'_>, what: &str, args: &[u64], blob: &[u8]) -> Answered {
    let [dst, offset, size] = *args else { return Err(arguments(what)) };
    let end = offset.checked_add(size).filter(|end| *end <= blob.len() as u64);
    let Some(end) = end else { return Err(outside(what, offset, size, blob.len() as u64)) };
    put(caller, what, dst, &blob[offset as usize..end as usize])?;
    NOTHING
}

#[cold]
fn outside(what: &str, at: u64, len: u64, size: u64) -> Stop {
    Failure::toolchain(format!("ic0.{what}: src={at} + length={len} exceeds the slice size={size}")).into()
}

/// The engine passed another number of arguments than the import table says; compiled code is checked against it, so this cannot happen.
#[cold]
fn arguments(what: &str) -> Stop {
    Failure::Engine(format!("ic0.{what}: wrong number of arguments")).into()
}

/// Boxed: it moves into the execution and out again, and is large.
impl Host for Box<SystemApi> {
    #[inline]
    fn call(&mut self, caller: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap> {
        let row = &ROWS[function.0 as usize];
        let charge = if row.by_the_byte { row.cost.charge(args, self.log_room()) } else { row.cost.fixed };
        caller.charge(charge)?;
        if !row.allows(self.identity.entry) {
            return Err(self.refuse(row.import));
        }
        match self.perform(caller, row.import, args) {
            Ok(word) => Ok(word),
            Err(stop) => Err(self.stop(stop)),
        }
    }

    fn memory_grow(&mut self, old: WasmPages, new: WasmPages) -> Result<bool, HostTrap> {
        match self.grow_heap(old, new) {
            Ok(grown) => Ok(grown),
            Err(stop) => Err(self.stop(stop)),
        }
    }

    fn out_of_instructions(&mut self, _used: Instructions) -> SliceVerdict {
        SliceVerdict::Suspend
    }
}

impl SystemApi {
    #[cold]
    fn stop(&mut self, stop: Stop) -> HostTrap {
        match stop {
            Stop::Failure(failure) => {
                self.failure = Some(failure);
                HostTrap::Failed
            }
            Stop::Engine(trap) => trap,
        }
    }

    #[cold]
    fn refuse(&mut self, import: Ic0) -> HostTrap {
        let failure = if matches!(import.row().support, ImportSupport::NotYet) {
            Failure::NotSupported(import.name())
        } else {
            Failure::Contract {
                error: format!("\"ic0_{}\" cannot be executed in {} mode", import.name(), self.identity.entry.name()),
                blame: crate::reject::Blame::Author(
                    "Check the ICP documentation to make sure APIs are being called in the correct message types.",
                    "calling-a-system-api-from-the-wrong-mode",
                ),
            }
        };
        self.stop(failure.into())
    }

    fn log_room(&self) -> LogRoom {
        self.written.log_room
    }

    /// The function itself: its charge is paid and its caller may call it.
    #[inline]
    fn perform(&mut self, caller: &mut Caller<'_>, import: Ic0, args: &[u64]) -> Answered {
        let arg = |ix: usize| args.get(ix).copied().unwrap_or(0);
        let (identity, message) = (&self.identity, &self.message);
        match import {
            Ic0::MsgCallerSize => Ok(identity.caller.as_slice().len() as u64),
            Ic0::MsgCallerCopy => copy_out(caller, "msg_caller_copy", args, identity.caller.as_slice()),
            Ic0::MsgArgDataSize => Ok(message.arg.len() as u64),
            Ic0::MsgArgDataCopy => copy_out(caller, "msg_arg_data_copy", args, &message.arg),
            Ic0::MsgReplyDataAppend => self.reply_data_append(caller, arg(0), arg(1)),
            Ic0::MsgReply => self.reply(),
            Ic0::MsgReject => self.reject(caller, arg(0), arg(1)),
            Ic0::Time => Ok(identity.time.0),
            Ic0::PerformanceCounter => self.performance_counter(caller, arg(0)),
            Ic0::Stable64Size => Ok(self.stable_pages()),
            Ic0::StableSize => self.stable_size_32(),
            Ic0::Stable64Read => self.stable_read(caller, arg(0), arg(1), arg(2)),
            Ic0::Stable64Write => self.stable_write(caller, arg(0), arg(1), arg(2)),
            Ic0::StableRead => self.stable_read_32(caller, arg(0), arg(1), arg(2)),
            Ic0::StableWrite => self.stable_write_32(caller, arg(0), arg(1), arg(2)),
            Ic0::Stable64Grow => self.stable_grow(arg(0)),
            Ic0::StableGrow => self.stable_grow_32(arg(0)),
            Ic0::MsgCallerInfoDataSize => Ok(message.info_data().len() as u64),
            Ic0::MsgCallerInfoDataCopy => copy_out(caller, "msg_caller_info_data_copy", args, message.info_data()),
            Ic0::MsgCallerInfoSignerSize => Ok(message.info_signer().len() as u64),
            Ic0::MsgCallerInfoSignerCopy => {
                copy_out(caller, "msg_caller_info_signer_copy", args, message.info_signer())
            }
            Ic0::MsgRejectCode => Ok(u64::from(message.reject_code())),
            Ic0::MsgRejectMsgSize => Ok(message.reject_text().len() as u64),
            Ic0::MsgRejectMsgCopy => copy_out(caller, "msg_reject_msg_copy", args, message.reject_text().as_bytes()),
            Ic0::MsgDeadline => Ok(message.deadline.0),
            Ic0::MsgMethodNameSize => Ok(message.method.len() as u64),
            Ic0::MsgMethodNameCopy => copy_out(caller, "msg_method_name_copy", args, message.method.as_bytes()),
            Ic0::AcceptMessage => self.accept_message(),
            Ic0::CallNew => self.call_new(caller, args),
            Ic0::CallOnCleanup => self.call_on_cleanup(arg(0), arg(1)),
            Ic0::CallDataAppend => self.call_data_append(caller, arg(0), arg(1)),
            Ic0::CallWithBestEffortResponse => self.call_with_best_effort_response(arg(0)),
            Ic0::CallCyclesAdd => self.call_cycles_add("call_cycles_add", u128::from(arg(0))),
            Ic0::CallCyclesAdd128 => self.call_cycles_add("call_cycles_add128", wide(arg(0), arg(1))),
            Ic0::CallPerform => self.call_perform(),
            Ic0::MsgCyclesAvailable => self.narrow(self.funds.available),
            Ic0::MsgCyclesAvailable128 => put_cycles(caller, "msg_cycles_available128", arg(0), self.funds.available),
            Ic0::MsgCyclesRefunded => self.narrow(self.funds.refunded),
            Ic0::MsgCyclesRefunded128 => put_cycles(caller, "msg_cycles_refunded128", arg(0), self.funds.refunded),
            Ic0::MsgCyclesAccept => Ok(self.accept_cycles(u128::from(arg(0))).0 as u64),
            Ic0::MsgCyclesAccept128 => self.accept_cycles_128(caller, wide(arg(0), arg(1)), arg(2)),
            Ic0::CyclesBurn128 => self.burn_cycles(caller, wide(arg(0), arg(1)), arg(2)),
            Ic0::CanisterCycleBalance => self.narrow(self.funds.balance),
            Ic0::CanisterCycleBalance128 => put_cycles(caller, "canister_cycle_balance128", arg(0), self.funds.balance),
            Ic0::CanisterLiquidCycleBalance128 => {
                put_cycles(caller, "canister_liquid_cycle_balance128", arg(0), self.funds.liquid())
            }
            Ic0::CanisterSelfSize => Ok(identity.canister.as_slice().len() as u64),
            Ic0::CanisterSelfCopy => copy_out(caller, "canister_self_copy", args, identity.canister.as_slice()),
            Ic0::CanisterStatus => Ok(u64::from(identity.status)),
            Ic0::CanisterVersion => Ok(identity.version),
            Ic0::SubnetSelfSize => Ok(self.subnet.subnet.as_slice().len() as u64),
            Ic0::SubnetSelfCopy => copy_out(caller, "subnet_self_copy", args, self.subnet.subnet.as_slice()),
            Ic0::SubnetSelfNodeCount => Ok(self.subnet.fees.nodes),
            Ic0::RootKeySize => Ok(self.subnet.root_key.len() as u64),
            Ic0::RootKeyCopy => copy_out(caller, "root_key_copy", args, &self.subnet.root_key),
            Ic0::CertifiedDataSet => self.certified_data_set(caller, arg(0), arg(1)),
            Ic0::DataCertificatePresent => Ok(u64::from(message.certificate.is_some())),
            Ic0::DataCertificateSize => self.data_certificate_size(),
            Ic0::DataCertificateCopy => self.data_certificate_copy(caller, args),
            Ic0::GlobalTimerSet => Ok(self.global_timer_set(arg(0))),
            Ic0::IsController => self.is_controller(caller, arg(0), arg(1)),
            Ic0::InReplicatedExecution => Ok(u64::from(identity.entry.is_replicated())),
            Ic0::CostCall => self.cost_call(caller, arg(0), arg(1), arg(2)),
            Ic0::CostCreateCanister => {
                put_cycles(caller, "cost_create_canister", arg(0), self.subnet.fees.canister_creation)
            }
            Ic0::CostHttpRequest => self.cost_http_request(caller, arg(0), arg(1), arg(2)),
            Ic0::EnvVarCount => Ok(self.environment().len() as u64),
            Ic0::EnvVarNameSize => self.env_var_name_size(arg(0)),
            Ic0::EnvVarNameCopy => self.env_var_name_copy(caller, args),
            Ic0::EnvVarNameExists => self.env_var_name_exists(caller, arg(0), arg(1)),
            Ic0::EnvVarValueSize => self.env_var_value_size(caller, arg(0), arg(1)),
            Ic0::EnvVarValueCopy => self.env_var_value_copy(caller, args),
            Ic0::DebugPrint => self.debug_print(caller, arg(0), arg(1)),
            Ic0::Trap => self.trap(caller, arg(0), arg(1)),
            Ic0::CostHttpRequestV2
            | Ic0::CostSignWithEcdsa
            | Ic0::CostSignWithSchnorr
            | Ic0::CostVetkdDeriveKey
            | Ic0::MintCycles
            | Ic0::MintCycles128 => Err(Failure::NotSupported(import.name()).into()),
        }
    }
}

/// The 128-bit number of two words.
const fn wide(high: u64, low: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

/// Copies a 128-bit amount to the heap, little-endian.
fn put_cycles(caller: &mut Caller<'_>, what: &str, dst: u64, amount: cyclotron_types::units::Cycles) -> Answered {
    put(caller, what, dst, &amount.0.to_le_bytes())?;
    NOTHING
}
