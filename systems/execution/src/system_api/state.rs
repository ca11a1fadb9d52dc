//! The struct that a message carries through its Wasm.

use super::Entry;
use super::touched::TouchedPages;
use crate::canister::OpenCalls;
use crate::config::SubnetConfig;
use crate::reject::Failure;
use cyclotron_heap::StableAccess;
use cyclotron_types::Principal;
use cyclotron_types::canister::{Settings, SharedSettings, WasmClosure};
use cyclotron_types::host_costs::LogRoom;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::{CERTIFIED_DATA_BYTES_MAX, CONTROLLERS_MAX};
use cyclotron_types::message::{CallKind, ResponsePayload};
use cyclotron_types::reject::RejectCode;
use cyclotron_types::units::{Bytes, Cycles, Instructions, Seconds, Time};
use std::sync::Arc;

/// Everything of one message.
#[derive(Debug)]
pub struct SystemApi {
    /// Who runs, for whom, when.
    pub(crate) identity: Identity,
    /// Why the Wasm was stopped by a host function.
    pub(crate) failure: Option<Box<Failure>>,
    /// What came in.
    pub(crate) message: Message,
    /// What goes out.
    pub(crate) answer: Answer,
    /// Reply data not yet replied.
    pub(crate) reply_data: Vec<u8>,
    /// Cycles.
    pub(crate) funds: Funds,
    /// Calls made and being made.
    pub(crate) calls: Calls,
    /// Memory taken.
    pub(crate) memory: MemoryBook,
    /// What the message wrote besides memory.
    pub(crate) written: Written,
    /// Stable memory, when the module uses it.
    pub(crate) stable: Option<Box<StableAccess>>,
    /// The subnet.
    pub(crate) subnet: Arc<SubnetConfig>,
}

/// Who runs, for whom, when.
#[derive(Debug)]
pub(crate) struct Identity {
    pub entry: Entry,
    /// 1 running, 2 stopping, 3 stopped.
    pub status: u8,
    pub wasm64: bool,
    pub controllers_len: u8,
    pub caller: Principal,
    pub canister: CanisterId,
    pub version: u64,
    pub time: Time,
    /// Instructions of the call context's earlier messages.
    pub context_instructions: Instructions,
    pub controllers: [Principal; CONTROLLERS_MAX],
    pub environment: Option<Arc<[(String, String)]>>,
}

impl Identity {
    pub fn controllers(&self) -> &[Principal] {
        &self.controllers[..usize::from(self.controllers_len)]
    }

    pub fn caller_is_controller(&self) -> bool {
        self.controllers().contains(&self.caller)
    }
}

/// What a canister signature said about the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerInfo {
    /// The canister's statement.
    pub data: Vec<u8>,
    /// The canister.
    pub signer: Option<Principal>,
}

/// What came in.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub arg: Vec<u8>,
    /// The rejection that a reject callback handles.
    pub reject: Option<(RejectCode, String)>,
    /// Method name, for `canister_inspect_message` alone.
    pub method: String,
    /// When the caller may stop waiting; zero is never.
    pub deadline: Time,
    pub info: Option<Box<CallerInfo>>,
    pub certificate: Option<Arc<[u8]>>,
}

impl Message {
    pub fn info_data(&self) -> &[u8] {
        self.info.as_ref().map_or(&[], |info| &info.data)
    }
    pub fn info_signer(&self) -> &[u8] {
        self.info.as_ref().and_then(|info| info.signer.as_ref()).map_or(&[], |signer| signer.as_slice())
    }
    pub fn reject_code(&self) -> u32 {
        self.reject.as_ref().map_or(0, |(code, _)| *code as u32)
    }
    pub fn reject_text(&self) -> &str {
        self.reject.as_ref().map_or("", |(_, text)| text)
    }
}

/// The answer to the call that the message belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not given yet.
    Owed,
    /// Given in an earlier message, or nobody asked.
    NotOwed,
    /// Given now.
    Given(ResponsePayload),
}

/// The canister's cycles as the message sees them.
#[derive(Debug)]
pub(crate) struct Funds {
    /// Main balance.
    pub balance: Cycles,
    /// Reserved for storage.
    pub reserved: Cycles,
    /// What must remain of the main balance.
    pub threshold: Cycles,
    /// Of the call's payment, not yet accepted.
    pub available: Cycles,
    /// Given back with the answer.
    pub refund: Cycles,
    /// What the response brought back, for callbacks.
    pub refunded: Cycles,
    /// Burned by `cycles_burn128`, or lost because the balance could not hold it.
    pub burned: Cycles,
    /// Fees of the calls made, gone for good.
    pub call_fees: Cycles,
    /// Moved from the balance to the reserved balance.
    pub newly_reserved: Cycles,
}

impl Funds {
    pub fn liquid(&self) -> Cycles {
        self.balance.saturating_sub(self.threshold)
    }

    /// Adds to the balance; what it cannot hold is burned.
    pub fn credit(&mut self, amount: Cycles) {
        let lost = self.balance.put(amount);
        self.burned = self.burned.saturating_add(lost);
    }
}

/// A call under construction.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub callee: Principal,
    pub method: String,
    pub arg: Vec<u8>,
    pub payment: Cycles,
    pub timeout: Option<Seconds>,
    pub on_reply: WasmClosure,
    pub on_reject: WasmClosure,
    pub on_cleanup: Option<WasmClosure>,
}

/// A call that `call_perform` has taken.
#[derive(Debug)]
pub(crate) struct MadeCall {
    pub callee: CanisterId,
    pub method: String,
    pub arg: Vec<u8>,
    pub payment: Cycles,
    pub kind: CallKind,
    pub on_reply: WasmClosure,
    pub on_reject: WasmClosure,
    pub on_cleanup: Option<WasmClosure>,
    pub prepaid_execution: Cycles,
    pub prepaid_wasm64: bool,
    pub prepaid_transmission: Cycles,
}

/// Calls of this message.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub pending: Option<Box<PendingCall>>,
    pub made: Vec<MadeCall>,
    /// Calls open before this message, by callee; the callback that is running does not count.
    pub open: OpenCalls,
    /// The callee whose callback is running.
    pub answered_by: Option<CanisterId>,
}

/// What of the settings decides storage costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Percent.
    pub compute_allocation: u64,
    /// Bytes reserved.
    pub memory_allocation: Bytes,
    /// How long the balance must last.
    pub freezing_threshold: Seconds,
}

impl From<&Settings> for Rates {
    fn from(settings: &Settings) -> Self {
        Self {
            compute_allocation: settings.compute_allocation,
            memory_allocation: settings.memory_allocation,
            freezing_threshold: settings.freezing_threshold,
        }
    }
}

impl From<&SharedSettings> for Rates {
    fn from(settings: &SharedSettings) -> Self {
        Self::from(&**settings)
    }
}

/// Memory that the canister uses and may take.
#[derive(Debug)]
pub(crate) struct MemoryBook {
    pub rates: Rates,
    pub wasm_memory_limit: Bytes,
    pub reserved_cycles_limit: Cycles,
    /// All of the canister's memory now.
    pub used: Bytes,
    /// What the subnet can still give.
    pub available: Bytes,
    /// What all canisters used at the start of the round.
    pub subnet_used: Bytes,
    /// Taken from the subnet in this message.
    pub taken: Bytes,
    /// Stable memory that the message may touch, to read or to write.
    pub stable_limit: Bytes,
    /// Pages of it touched so far.
    pub stable_touched: TouchedPages,
}

/// What the message wrote besides memory.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Certified data: its length and bytes.
    pub certified_data: Option<(u8, [u8; CERTIFIED_DATA_BYTES_MAX])>,
    /// Timer set.
    pub timer: Option<Time>,
    /// Timer before, as `global_timer_set` returns it.
    pub timer_now: Time,
    /// Log lines.
    pub log: Vec<Vec<u8>>,
    /// Room in the log.
    pub log_room: LogRoom,
    /// Whether `accept_message` was called.
    pub accepted: bool,
    /// Whether the data certificate was read.
    pub certificate_seen: bool,
}
