//! Which entry point may call which import.
//!
//! Enters: the table of ic-interface-spec 0.66 #system-api-imports. Leaves: [`Row`], one per import, dense by its index.
//! Never here: what the imports do.

use cyclotron_types::host_costs::{ByteCharge, HostCost, host_cost};
use cyclotron_types::imports::{IMPORTS, Ic0, ImportSupport};
use cyclotron_types::message::SystemTask;

/// From where the System API is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Entry {
    /// `(start)`.
    Start,
    /// `canister_init` or `canister_post_upgrade`.
    Init,
    /// `canister_pre_upgrade`.
    PreUpgrade,
    /// `canister_update`.
    Update,
    /// `canister_query` in replicated mode.
    ReplicatedQuery,
    /// `canister_query` in non-replicated mode.
    Query,
    /// `canister_query` as the transform of an HTTPS outcall.
    TransformQuery,
    /// `canister_composite_query`.
    CompositeQuery,
    /// A reply callback.
    Reply,
    /// A reject callback.
    Reject,
    /// A reply callback in a composite query.
    CompositeReply,
    /// A reject callback in a composite query.
    CompositeReject,
    /// A cleanup callback.
    Cleanup,
    /// A cleanup callback in a composite query.
    CompositeCleanup,
    /// `canister_inspect_message`.
    Inspect,
    /// `canister_heartbeat`.
    Heartbeat,
    /// `canister_global_timer`.
    GlobalTimer,
    /// `canister_on_low_wasm_memory`.
    OnLowWasmMemory,
}

impl Entry {
    /// All of them, in order.
    pub const ALL: [Self; 18] = [
        Self::Start,
        Self::Init,
        Self::PreUpgrade,
        Self::Update,
        Self::ReplicatedQuery,
        Self::Query,
        Self::TransformQuery,
        Self::CompositeQuery,
        Self::Reply,
        Self::Reject,
        Self::CompositeReply,
        Self::CompositeReject,
        Self::Cleanup,
        Self::CompositeCleanup,
        Self::Inspect,
        Self::Heartbeat,
        Self::GlobalTimer,
        Self::OnLowWasmMemory,
    ];

    /// The entry of a task.
    pub const fn of_task(task: SystemTask) -> Self {
        match task {
            SystemTask::Heartbeat => Self::Heartbeat,
            SystemTask::GlobalTimer => Self::GlobalTimer,
            SystemTask::OnLowWasmMemory => Self::OnLowWasmMemory,
        }
    }

    /// Whether the result goes through consensus.
    pub const fn is_replicated(self) -> bool {
        !matches!(
            self,
            Self::Query
                | Self::TransformQuery
                | Self::CompositeQuery
                | Self::CompositeReply
                | Self::CompositeReject
                | Self::CompositeCleanup
                | Self::Inspect
        )
    }

    /// Whether what it does to memory can outlast it.
    pub const fn keeps_memory(self) -> bool {
        self.is_replicated() && !matches!(self, Self::ReplicatedQuery)
    }

    /// Whether the entry belongs to `install_code`.
    pub const fn is_install(self) -> bool {
        matches!(self, Self::Start | Self::Init | Self::PreUpgrade)
    }

    /// Whether growing memory must leave the canister unfrozen (A `system_api/src/sandbox_safe_system_state.rs`: responses must go
    /// through, queries keep nothing, `install_code` checks at its end).
    pub const fn checks_freezing(self) -> bool {
        matches!(self, Self::Update | Self::Heartbeat | Self::GlobalTimer | Self::OnLowWasmMemory)
    }

    /// Whether `wasm_memory_limit` holds.
    pub const fn checks_wasm_memory_limit(self) -> bool {
        matches!(self, Self::Update | Self::Start | Self::Init)
    }

    /// How error messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Init => "init",
            Self::PreUpgrade => "pre upgrade",
            Self::Update => "update",
            Self::ReplicatedQuery => "replicated query",
            Self::Query | Self::TransformQuery => "non replicated query",
            Self::CompositeQuery => "composite query",
            Self::Reply => "replicated reply callback",
            Self::Reject => "replicated reject callback",
            Self::CompositeReply => "non-replicated reply callback",
            Self::CompositeReject => "non-replicated reject callback",
            Self::Cleanup | Self::CompositeCleanup => "cleanup",
            Self::Inspect => "inspect message",
            Self::Heartbeat => "heartbeat",
            Self::GlobalTimer => "global timer",
            Self::OnLowWasmMemory => "on low Wasm memory",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The letters of the specification.
mod letters {
    use super::Entry;

    pub const S: u32 = Entry::Start.bit();
    pub const I: u32 = Entry::Init.bit();
    pub const G: u32 = Entry::PreUpgrade.bit();
    pub const U: u32 = Entry::Update.bit();
    pub const RQ: u32 = Entry::ReplicatedQuery.bit();
    pub const NRQ: u32 = Entry::Query.bit();
    pub const TQ: u32 = Entry::TransformQuery.bit();
    pub const CQ: u32 = Entry::CompositeQuery.bit();
    pub const RY: u32 = Entry::Reply.bit();
    pub const RT: u32 = Entry::Reject.bit();
    pub const CRY: u32 = Entry::CompositeReply.bit();
    pub const CRT: u32 = Entry::CompositeReject.bit();
    pub const C: u32 = Entry::Cleanup.bit();
    pub const CC: u32 = Entry::CompositeCleanup.bit();
    pub const F: u32 = Entry::Inspect.bit();
    pub const T: u32 = Entry::Heartbeat.bit() | Entry::GlobalTimer.bit() | Entry::OnLowWasmMemory.bit();
    /// `*`: everything but `(start)`.
    pub const ALL: u32 = I | G | U | RQ | NRQ | TQ | CQ | RY | RT | CRY | CRT | C | CC | F | T;
}

const fn contexts(import: Ic0) -> u32 {
    use letters::*;
    match import {
        Ic0::MsgArgDataSize | Ic0::MsgArgDataCopy => I | U | RQ | NRQ | TQ | CQ | RY | CRY | F,
        Ic0::MsgCallerInfoDataSize
        | Ic0::MsgCallerInfoDataCopy
        | Ic0::MsgCallerInfoSignerSize
        | Ic0::MsgCallerInfoSignerCopy => U | RQ | NRQ | CQ | RY | RT | CRY | CRT | C | CC | F,
        Ic0::MsgRejectCode => RY | RT | CRY | CRT | C,
        Ic0::MsgRejectMsgSize | Ic0::MsgRejectMsgCopy => RT | CRT,
        Ic0::MsgDeadline => U | RQ | NRQ | TQ | CQ | RY | RT | CRY | CRT,
        Ic0::MsgReplyDataAppend | Ic0::MsgReply | Ic0::MsgReject => U | RQ | NRQ | TQ | CQ | RY | RT | CRY | CRT,
        Ic0::MsgCyclesAvailable | Ic0::MsgCyclesAvailable128 | Ic0::MsgCyclesAccept | Ic0::MsgCyclesAccept128 => {
            U | RQ | RT | RY
        }
        Ic0::MsgCyclesRefunded | Ic0::MsgCyclesRefunded128 => RT | RY,
        Ic0::CyclesBurn128 => I | G | U | RQ | RY | RT | C | T,
        Ic0::MsgMethodNameSize | Ic0::MsgMethodNameCopy | Ic0::AcceptMessage => F,
        Ic0::CallNew
        | Ic0::CallOnCleanup
        | Ic0::CallDataAppend
        | Ic0::CallWithBestEffortResponse
        | Ic0::CallPerform => U | CQ | RY | RT | CRY | CRT | T,
        Ic0::CallCyclesAdd | Ic0::CallCyclesAdd128 => U | RY | RT | T,
        Ic0::RootKeySize | Ic0::RootKeyCopy => I | G | U | RQ | RY | RT | C | T,
        Ic0::CertifiedDataSet => I | G | U | RY | RT | T,
        Ic0::DataCertificateSize | Ic0::DataCertificateCopy => NRQ | CQ,
        Ic0::GlobalTimerSet => I | G | U | RY | RT | C | T,
        Ic0::Stable64Size
        | Ic0::Stable64Grow
        | Ic0::Stable64Write
        | Ic0::Stable64Read
        | Ic0::StableSize
        | Ic0::StableGrow
        | Ic0::StableWrite
        | Ic0::StableRead
        | Ic0::PerformanceCounter
        | Ic0::IsController
        | Ic0::InReplicatedExecution
        | Ic0::CostCall
        | Ic0::CostCreateCanister
        | Ic0::CostHttpRequest
        | Ic0::CostHttpRequestV2
        | Ic0::CostSignWithEcdsa
        | Ic0::CostSignWithSchnorr
        | Ic0::CostVetkdDeriveKey
        | Ic0::DebugPrint
        | Ic0::Trap => ALL | S,
        // Only on the cycles minting canister; refused inside.
        Ic0::MintCycles | Ic0::MintCycles128 => U | RY | RT | T,
        Ic0::MsgCallerSize
        | Ic0::MsgCallerCopy
        | Ic0::CanisterSelfSize
        | Ic0::CanisterSelfCopy
        | Ic0::CanisterCycleBalance
        | Ic0::CanisterCycleBalance128
        | Ic0::CanisterLiquidCycleBalance128
        | Ic0::CanisterStatus
        | Ic0::CanisterVersion
        | Ic0::SubnetSelfSize
        | Ic0::SubnetSelfCopy
        | Ic0::SubnetSelfNodeCount
        | Ic0::DataCertificatePresent
        | Ic0::Time
        | Ic0::EnvVarCount
        | Ic0::EnvVarNameSize
        | Ic0::EnvVarNameCopy
        | Ic0::EnvVarNameExists
        | Ic0::EnvVarValueSize
        | Ic0::EnvVarValueCopy => ALL,
    }
}

/// What a host call needs to know of its import, in one line of cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Which it is.
    pub import: Ic0,
    /// A bit for each [`Entry`] that may call it; none when it is not built yet.
    allowed: u32,
    /// What it costs.
    pub cost: HostCost,
    /// Whether the cost depends on the arguments.
    pub by_the_byte: bool,
}

impl Row {
    #[inline]
    pub const fn allows(&self, entry: Entry) -> bool {
        self.allowed & entry.bit() != 0
    }
}

/// Facts of every import, by its number in the engine's table.
pub(crate) static ROWS: [Row; Ic0::COUNT] = {
    let mut rows = [Row { import: Ic0::Trap, allowed: 0, cost: host_cost(Ic0::Trap), by_the_byte: false }; Ic0::COUNT];
    let mut ix = 0;
    while ix < Ic0::COUNT {
        let import = IMPORTS[ix].import;
        let cost = host_cost(import);
        let built = matches!(IMPORTS[ix].support, ImportSupport::Built);
        let allowed = if built { contexts(import) } else { 0 };
        rows[ix] = Row { import, allowed, cost, by_the_byte: !matches!(cost.bytes, ByteCharge::None) };
        ix += 1;
    }
    rows
};

/// Whether `entry` may call `import`, built or not.
pub const fn may_call(entry: Entry, import: Ic0) -> bool {
    contexts(import) & entry.bit() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comment column of the specification, as printed there.
    const SPEC: &[(&str, &str)] = &[
        ("msg_arg_data_size", "I U RQ NRQ TQ CQ Ry CRy F"),
        ("msg_arg_data_copy", "I U RQ NRQ TQ CQ Ry CRy F"),
        ("msg_caller_size", "*"),
        ("msg_caller_copy", "*"),
        ("msg_caller_info_data_size", "U RQ NRQ CQ Ry Rt CRy CRt C CC F"),
        ("msg_caller_info_data_copy", "U RQ NRQ CQ Ry Rt CRy CRt C CC F"),
        ("msg_caller_info_signer_size", "U RQ NRQ CQ Ry Rt CRy CRt C CC F"),
        ("msg_caller_info_signer_copy", "U RQ NRQ CQ Ry Rt CRy CRt C CC F"),
        ("msg_reject_code", "Ry Rt CRy CRt C"),
        ("msg_reject_msg_size", "Rt CRt"),
        ("msg_reject_msg_copy", "Rt CRt"),
        ("msg_deadline", "U Q CQ Ry Rt CRy CRt"),
        ("msg_reply_data_append", "U RQ NRQ TQ CQ Ry Rt CRy CRt"),
        ("msg_reply", "U RQ NRQ TQ CQ Ry Rt CRy CRt"),
        ("msg_reject", "U RQ NRQ TQ CQ Ry Rt CRy CRt"),
        ("msg_cycles_available128", "U RQ Rt Ry"),
        ("msg_cycles_refunded128", "Rt Ry"),
        ("msg_cycles_accept128", "U RQ Rt Ry"),
        ("cycles_burn128", "I G U RQ Ry Rt C T"),
        ("canister_self_size", "*"),
        ("canister_self_copy", "*"),
        ("canister_cycle_balance128", "*"),
        ("canister_liquid_cycle_balance128", "*"),
        ("canister_status", "*"),
        ("canister_version", "*"),
        ("subnet_self_size", "*"),
        ("subnet_self_copy", "*"),
        ("msg_method_name_size", "F"),
        ("msg_method_name_copy", "F"),
        ("accept_message", "F"),
        ("call_new", "U CQ Ry Rt CRy CRt T"),
        ("call_on_cleanup", "U CQ Ry Rt CRy CRt T"),
        ("call_data_append", "U CQ Ry Rt CRy CRt T"),
        ("call_with_best_effort_response", "U CQ Ry Rt CRy CRt T"),
        ("call_cycles_add128", "U Ry Rt T"),
        ("call_perform", "U CQ Ry Rt CRy CRt T"),
        ("stable64_size", "* s"),
        ("stable64_grow", "* s"),
        ("stable64_write", "* s"),
        ("stable64_read", "* s"),
        ("root_key_size", "I G U RQ Ry Rt C T"),
        ("root_key_copy", "I G U RQ Ry Rt C T"),
        ("certified_data_set", "I G U Ry Rt T"),
        ("data_certificate_present", "*"),
        ("data_certificate_size", "NRQ CQ"),
        ("data_certificate_copy", "NRQ CQ"),
        ("time", "*"),
        ("global_timer_set", "I G U Ry Rt C T"),
        ("performance_counter", "* s"),
        ("is_controller", "* s"),
        ("in_replicated_execution", "* s"),
        ("cost_call", "* s"),
        ("cost_create_canister", "* s"),
        ("cost_http_request", "* s"),
        ("cost_sign_with_ecdsa", "* s"),
        ("cost_sign_with_schnorr", "* s"),
        ("cost_vetkd_derive_key", "* s"),
        ("env_var_count", "*"),
        ("env_var_name_size", "*"),
        ("env_var_name_copy", "*"),
        ("env_var_name_exists", "*"),
        ("env_var_value_size", "*"),
        ("env_var_value_copy", "*"),
        ("debug_print", "* s"),
        ("trap", "* s"),
        ("msg_cycles_available", "U RQ Rt Ry"),
        ("msg_cycles_refunded", "Rt Ry"),
        ("msg_cycles_accept", "U RQ Rt Ry"),
        ("canister_cycle_balance", "*"),
        ("call_cycles_add", "U Ry Rt T"),
        ("stable_size", "* s"),
        ("stable_grow", "* s"),
        ("stable_write", "* s"),
        ("stable_read", "* s"),
    ];

    fn letter(entry: Entry) -> &'static [&'static str] {
        match entry {
            Entry::Start => &["s"],
            Entry::Init => &["I", "*"],
            Entry::PreUpgrade => &["G", "*"],
            Entry::Update => &["U", "*"],
            Entry::ReplicatedQuery => &["RQ", "Q", "*"],
            Entry::Query => &["NRQ", "Q", "*"],
            Entry::TransformQuery => &["TQ", "Q", "*"],
            Entry::CompositeQuery => &["CQ", "*"],
            Entry::Reply => &["Ry", "*"],
            Entry::Reject => &["Rt", "*"],
            Entry::CompositeReply => &["CRy", "*"],
            Entry::CompositeReject => &["CRt", "*"],
            Entry::Cleanup => &["C", "*"],
            Entry::CompositeCleanup => &["CC", "*"],
            Entry::Inspect => &["F", "*"],
            Entry::Heartbeat | Entry::GlobalTimer | Entry::OnLowWasmMemory => &["T", "*"],
        }
    }

    #[test]
    fn the_table_is_the_specification_s() {
        for (name, column) in SPEC {
            let import = Ic0::from_name(name).unwrap();
            for entry in Entry::ALL {
                let expected = column.split(' ').any(|c| letter(entry).contains(&c));
                assert_eq!(may_call(entry, import), expected, "{name} from {entry:?}");
            }
        }
        // What is not in the specification's list is listed here on purpose.
        let beyond: Vec<_> =
            IMPORTS.iter().filter(|row| !SPEC.iter().any(|(name, _)| *name == row.name)).map(|row| row.name).collect();
        assert_eq!(beyond, ["subnet_self_node_count", "cost_http_request_v2", "mint_cycles", "mint_cycles128"]);
    }

    #[test]
    fn entries_are_numbered_in_order() {
        for (ix, entry) in Entry::ALL.into_iter().enumerate() {
            assert_eq!(entry as usize, ix);
        }
    }
}
