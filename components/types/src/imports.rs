//! The functions that a canister may import from module `ic0`, with their types.
//!
//! Enters: nothing. Leaves: [`Ic0`], one variant per import, and [`ImportRow`], its facts. Never here: what the functions do
//! (`systems/execution`), what they cost ([`crate::host_costs`]).
//!
//! Source: ic-interface-spec 0.66 `canister-interface.md` #system-api-imports for names, types and the list of those that
//! exist for 32-bit memories only; dfinity/ic `rs/embedders/src/wasmtime_embedder/linker.rs` (sources of 2025-26) for
//! `cost_http_request_v2` and `mint_cycles128`; ic0 crate 1.1 for `subnet_self_node_count`; dfinity/ic of October 2024
//! for `mint_cycles`.

/// Whether a module's memory, and so its addresses, is 32 or 64 bits wide. A module without a memory counts as 32-bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Addresses are `i32`.
    #[default]
    Wasm32,
    /// Addresses are `i64`.
    Wasm64,
}

/// Type of a parameter or result of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportType {
    /// Always `i32`.
    I32,
    /// Always `i64`.
    I64,
    /// The specification's `I`: `i32` or `i64`, as the module's memory is.
    I,
}

impl ImportType {
    /// Whether the type is 64 bits wide in a module of this kind.
    pub const fn is_64(self, memory: MemoryKind) -> bool {
        match self {
            Self::I32 => false,
            Self::I64 => true,
            Self::I => matches!(memory, MemoryKind::Wasm64),
        }
    }
}

/// Which modules may import a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportScope {
    /// Modules of either kind.
    Any,
    /// Only modules whose memory is 32-bit (or that have none).
    Wasm32Only,
}

/// Whether this node implements an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportSupport {
    /// It does what the specification says.
    Built,
    /// Modules may import it; a call traps with `not supported yet: NAME`.
    NotYet,
}

/// The facts about one import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportRow {
    /// Which import this is.
    pub import: Ic0,
    /// Name within module `ic0`.
    pub name: &'static str,
    /// Types of the parameters.
    pub params: &'static [ImportType],
    /// Type of the result, if there is one.
    pub result: Option<ImportType>,
    /// Which modules may import it.
    pub scope: ImportScope,
    /// Whether it is implemented.
    pub support: ImportSupport,
}

/// The module name of every import of a canister.
pub const IC0_MODULE: &str = "ic0";

macro_rules! result {
    (()) => {
        None
    };
    (($ty:ident)) => {
        Some(ImportType::$ty)
    };
}

macro_rules! imports {
    ($($variant:ident = $name:literal ($($param:ident),*) -> $result:tt $scope:ident $support:ident;)*) => {
        /// A function of the System API. The discriminant indexes [`IMPORTS`]; it is never encoded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Ic0 {
            $(#[doc = concat!("`ic0.", $name, "`")] $variant,)*
        }

        /// Every import, in the order of [`Ic0`].
        pub static IMPORTS: &[ImportRow] = &[
            $(ImportRow {
                import: Ic0::$variant,
                name: $name,
                params: &[$(ImportType::$param),*],
                result: result!($result),
                scope: ImportScope::$scope,
                support: ImportSupport::$support,
            },)*
        ];

        impl Ic0 {
            /// Number of imports.
            pub const COUNT: usize = [$($name),*].len();

            /// The import of this name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

impl Ic0 {
    /// The facts about this import.
    pub fn row(self) -> &'static ImportRow {
        &IMPORTS[self as usize]
    }

    /// Its name within module `ic0`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

imports! {
    MsgArgDataSize = "msg_arg_data_size" () -> (I) Any Built;
    MsgArgDataCopy = "msg_arg_data_copy" (I, I, I) -> () Any Built;
    MsgCallerSize = "msg_caller_size" () -> (I) Any Built;
    MsgCallerCopy = "msg_caller_copy" (I, I, I) -> () Any Built;
    MsgCallerInfoDataSize = "msg_caller_info_data_size" () -> (I) Any Built;
    MsgCallerInfoDataCopy = "msg_caller_info_data_copy" (I, I, I) -> () Any Built;
    MsgCallerInfoSignerSize = "msg_caller_info_signer_size" () -> (I) Any Built;
    MsgCallerInfoSignerCopy = "msg_caller_info_signer_copy" (I, I, I) -> () Any Built;
    MsgRejectCode = "msg_reject_code" () -> (I32) Any Built;
    MsgRejectMsgSize = "msg_reject_msg_size" () -> (I) Any Built;
    MsgRejectMsgCopy = "msg_reject_msg_copy" (I, I, I) -> () Any Built;
    MsgDeadline = "msg_deadline" () -> (I64) Any Built;
    MsgReplyDataAppend = "msg_reply_data_append" (I, I) -> () Any Built;
    MsgReply = "msg_reply" () -> () Any Built;
    MsgReject = "msg_reject" (I, I) -> () Any Built;
    MsgCyclesAvailable128 = "msg_cycles_available128" (I) -> () Any Built;
    MsgCyclesRefunded128 = "msg_cycles_refunded128" (I) -> () Any Built;
    MsgCyclesAccept128 = "msg_cycles_accept128" (I64, I64, I) -> () Any Built;
    CyclesBurn128 = "cycles_burn128" (I64, I64, I) -> () Any Built;
    CanisterSelfSize = "canister_self_size" () -> (I) Any Built;
    CanisterSelfCopy = "canister_self_copy" (I, I, I) -> () Any Built;
    CanisterCycleBalance128 = "canister_cycle_balance128" (I) -> () Any Built;
    CanisterLiquidCycleBalance128 = "canister_liquid_cycle_balance128" (I) -> () Any Built;
    CanisterStatus = "canister_status" () -> (I32) Any Built;
    CanisterVersion = "canister_version" () -> (I64) Any Built;
    SubnetSelfSize = "subnet_self_size" () -> (I) Any Built;
    SubnetSelfCopy = "subnet_self_copy" (I, I, I) -> () Any Built;
    SubnetSelfNodeCount = "subnet_self_node_count" () -> (I32) Any Built;
    MsgMethodNameSize = "msg_method_name_size" () -> (I) Any Built;
    MsgMethodNameCopy = "msg_method_name_copy" (I, I, I) -> () Any Built;
    AcceptMessage = "accept_message" () -> () Any Built;
    CallNew = "call_new" (I, I, I, I, I, I, I, I) -> () Any Built;
    CallOnCleanup = "call_on_cleanup" (I, I) -> () Any Built;
    CallDataAppend = "call_data_append" (I, I) -> () Any Built;
    CallWithBestEffortResponse = "call_with_best_effort_response" (I32) -> () Any Built;
    CallCyclesAdd128 = "call_cycles_add128" (I64, I64) -> () Any Built;
    CallPerform = "call_perform" () -> (I32) Any Built;
    Stable64Size = "stable64_size" () -> (I64) Any Built;
    Stable64Grow = "stable64_grow" (I64) -> (I64) Any Built;
    Stable64Write = "stable64_write" (I64, I64, I64) -> () Any Built;
    Stable64Read = "stable64_read" (I64, I64, I64) -> () Any Built;
    RootKeySize = "root_key_size" () -> (I) Any Built;
    RootKeyCopy = "root_key_copy" (I, I, I) -> () Any Built;
    CertifiedDataSet = "certified_data_set" (I, I) -> () Any Built;
    DataCertificatePresent = "data_certificate_present" () -> (I32) Any Built;
    DataCertificateSize = "data_certificate_size" () -> (I) Any Built;
    DataCertificateCopy = "data_certificate_copy" (I, I, I) -> () Any Built;
    Time = "time" () -> (I64) Any Built;
    GlobalTimerSet = "global_timer_set" (I64) -> (I64) Any Built;
    PerformanceCounter = "performance_counter" (I32) -> (I64) Any Built;
    IsController = "is_controller" (I, I) -> (I32) Any Built;
    InReplicatedExecution = "in_replicated_execution" () -> (I32) Any Built;
    CostCall = "cost_call" (I64, I64, I) -> () Any Built;
    CostCreateCanister = "cost_create_canister" (I) -> () Any Built;
    CostHttpRequest = "cost_http_request" (I64, I64, I) -> () Any Built;
    CostHttpRequestV2 = "cost_http_request_v2" (I, I, I) -> () Any NotYet;
    CostSignWithEcdsa = "cost_sign_with_ecdsa" (I, I, I32, I) -> (I32) Any NotYet;
    CostSignWithSchnorr = "cost_sign_with_schnorr" (I, I, I32, I) -> (I32) Any NotYet;
    CostVetkdDeriveKey = "cost_vetkd_derive_key" (I, I, I32, I) -> (I32) Any NotYet;
    EnvVarCount = "env_var_count" () -> (I) Any Built;
    EnvVarNameSize = "env_var_name_size" (I) -> (I) Any Built;
    EnvVarNameCopy = "env_var_name_copy" (I, I, I, I) -> () Any Built;
    EnvVarNameExists = "env_var_name_exists" (I, I) -> (I32) Any Built;
    EnvVarValueSize = "env_var_value_size" (I, I) -> (I) Any Built;
    EnvVarValueCopy = "env_var_value_copy" (I, I, I, I, I) -> () Any Built;
    DebugPrint = "debug_print" (I, I) -> () Any Built;
    Trap = "trap" (I, I) -> () Any Built;
    MsgCyclesAvailable = "msg_cycles_available" () -> (I64) Wasm32Only Built;
    MsgCyclesRefunded = "msg_cycles_refunded" () -> (I64) Wasm32Only Built;
    MsgCyclesAccept = "msg_cycles_accept" (I64) -> (I64) Wasm32Only Built;
    CanisterCycleBalance = "canister_cycle_balance" () -> (I64) Wasm32Only Built;
    CallCyclesAdd = "call_cycles_add" (I64) -> () Wasm32Only Built;
    StableSize = "stable_size" () -> (I32) Wasm32Only Built;
    StableGrow = "stable_grow" (I32) -> (I32) Wasm32Only Built;
    StableWrite = "stable_write" (I32, I32, I32) -> () Wasm32Only Built;
    StableRead = "stable_read" (I32, I32, I32) -> () Wasm32Only Built;
    MintCycles = "mint_cycles" (I64) -> (I64) Any NotYet;
    MintCycles128 = "mint_cycles128" (I64, I64, I) -> () Any NotYet;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_import_and_names_lead_back() {
        assert_eq!(IMPORTS.len(), Ic0::COUNT);
        for (ix, row) in IMPORTS.iter().enumerate() {
            assert_eq!(row.import as usize, ix);
            assert_eq!(Ic0::from_name(row.name), Some(row.import));
        }
        assert_eq!(Ic0::from_name("msg_reply "), None);
    }

    #[test]
    fn imports_of_small_modules_only_have_no_address_type() {
        for row in IMPORTS.iter().filter(|r| r.scope == ImportScope::Wasm32Only) {
            assert!(row.params.iter().chain(row.result.iter()).all(|t| *t != ImportType::I), "{}", row.name);
        }
    }
}
