//! How management calls fail, and the one place where that becomes reject codes.
//!
//! Texts follow dfinity/ic's where clients print or match them (`rs/execution_environment/src/canister_manager/types.rs`).

use crate::reject::OutOfCycles;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Bytes, Cycles};
use cyclotron_types::{Principal, PrincipalSet, limits};

/// Why a management call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagementError {
    /// There is no such canister here.
    NotFound(CanisterId),
    /// The caller is not a controller.
    NotController {
        /// The canister.
        canister: CanisterId,
        /// Its controllers.
        controllers: PrincipalSet,
        /// The caller.
        caller: Principal,
    },
    /// The caller may not read what it asked for.
    NotReader {
        /// The caller.
        caller: Principal,
        /// What it called.
        method: &'static str,
    },
    /// Part of the interface, but not built.
    NotBuilt(&'static str),
    /// A setting is out of its range.
    SettingOutOfRange {
        /// Which.
        setting: &'static str,
        /// Least.
        min: &'static str,
        /// Most.
        max: &'static str,
        /// What was given.
        given: String,
    },
    /// Settings that do not go together or exceed a list's limit.
    InvalidSettings(String),
    /// Environment variables beyond the limits.
    InvalidEnvironment(String),
    /// `log_memory_limit` out of its range.
    InvalidLogLimit {
        /// What was given.
        given: String,
    },
    /// The subnet has less compute to give.
    ComputeOversubscribed {
        /// Percent asked for.
        requested: u64,
        /// Percent left.
        available: u64,
    },
    /// The subnet has less memory to give.
    MemoryOversubscribed {
        /// Asked for.
        requested: Bytes,
        /// Left.
        available: Bytes,
    },
    /// The allocation would freeze the canister.
    ComputeAllocationUnpaid {
        /// Percent asked for.
        requested: u64,
        /// Cycles missing.
        missing: Cycles,
    },
    /// The allocation would freeze the canister.
    MemoryAllocationUnpaid {
        /// Asked for.
        requested: Bytes,
        /// Cycles missing.
        missing: Cycles,
    },
    /// Growing would freeze the canister.
    MemoryGrowthUnpaid {
        /// By how much.
        bytes: Bytes,
        /// Cycles missing.
        missing: Cycles,
    },
    /// The allocation would reserve more than the limit.
    AllocationBeyondReservation {
        /// Asked for.
        requested: Bytes,
        /// The limit on reserved cycles.
        limit: Cycles,
        /// By how much it would be exceeded.
        excess: Cycles,
    },
    /// Growing would reserve more than the limit.
    GrowthBeyondReservation {
        /// By how much memory.
        bytes: Bytes,
        /// The limit on reserved cycles.
        limit: Cycles,
        /// By how much it would be exceeded.
        excess: Cycles,
    },
    /// More is reserved already than the new limit.
    ReservationLimitTooLow {
        /// Reserved.
        reserved: Cycles,
        /// The new limit.
        limit: Cycles,
    },
    /// The payment does not cover the fee.
    CreationUnpaid {
        /// The payment.
        sent: Cycles,
        /// The fee.
        required: Cycles,
    },
    /// No id is left in the subnet's ranges.
    OutOfIds,
    /// The id asked for is not of this subnet.
    IdNotHosted {
        /// The id.
        id: Principal,
        /// The subnet.
        subnet: Principal,
    },
    /// The id asked for is or was a canister's.
    IdTaken(CanisterId),
    /// There is code already.
    NotEmpty(CanisterId),
    /// There is no code to upgrade.
    NoModule(CanisterId),
    /// The canister cannot pay for the longest installation.
    InstallUnpaid(OutOfCycles),
    /// An upgrade option is missing.
    MissingUpgradeOption,
    /// An upgrade option does not fit the module.
    InvalidUpgradeOption,
    /// The chunk store refused.
    ChunkStore(String),
    /// The chunk store's canister is not here.
    StoreNotFound {
        /// The store.
        store: CanisterId,
        /// The canister to install.
        target: CanisterId,
    },
    /// Not stopped yet.
    NotStopped(CanisterId),
    /// There are messages in its queues.
    QueuesNotEmpty(CanisterId),
    /// A canister cannot delete itself.
    DeletesItself(CanisterId),
    /// There is no module, and so no metadata.
    NoMetadata(CanisterId),
    /// There is no metadata of this name for the caller.
    NoSuchMetadata {
        /// The canister.
        canister: CanisterId,
        /// The name.
        name: String,
    },
    /// The subnet named is not this one.
    SubnetNotFound(Principal),
    /// What the engine or the kernel said.
    Kernel(Reject),
}

impl From<Reject> for ManagementError {
    fn from(reject: Reject) -> Self {
        Self::Kernel(reject)
    }
}

impl From<ManagementError> for Reject {
    fn from(error: ManagementError) -> Self {
        let (code, message) = error.describe();
        match error {
            ManagementError::Kernel(reject) => reject,
            _ => Self::new(code, message),
        }
    }
}

impl ManagementError {
    fn describe(&self) -> (ErrorCode, String) {
        match self {
            Self::Kernel(reject) => (reject.error_code(), reject.message.clone()),
            Self::NotBuilt(method) => (ErrorCode::CanisterRejectedMessage, format!("not supported yet: {method}")),
            Self::SettingOutOfRange { .. }
            | Self::InvalidSettings(_)
            | Self::InvalidEnvironment(_)
            | Self::InvalidLogLimit { .. } => self.describe_settings(),
            Self::ComputeOversubscribed { .. }
            | Self::MemoryOversubscribed { .. }
            | Self::ComputeAllocationUnpaid { .. }
            | Self::MemoryAllocationUnpaid { .. }
            | Self::MemoryGrowthUnpaid { .. }
            | Self::AllocationBeyondReservation { .. }
            | Self::GrowthBeyondReservation { .. }
            | Self::ReservationLimitTooLow { .. } => self.describe_resources(),
            Self::CreationUnpaid { .. } | Self::OutOfIds | Self::IdNotHosted { .. } | Self::IdTaken(_) => {
                self.describe_creation()
            }
            Self::NotEmpty(_)
            | Self::NoModule(_)
            | Self::InstallUnpaid(_)
            | Self::MissingUpgradeOption
            | Self::InvalidUpgradeOption
            | Self::ChunkStore(_)
            | Self::StoreNotFound { .. } => self.describe_code(),
            _ => self.describe_access(),
        }
    }

    fn describe_access(&self) -> (ErrorCode, String) {
        match self {
            Self::NotController { canister, controllers, caller } => {
                let listed: Vec<String> = controllers.iter().map(Principal::to_text).collect();
                (
                    ErrorCode::CanisterInvalidController,
                    format!(
                        "Only the controllers of the canister {canister} can control it.\n\
                         Canister's controllers: {}\nSender's ID: {caller}",
                        listed.join(" ")
                    ),
                )
            }
            Self::NotReader { caller, method } => (
                ErrorCode::CanisterRejectedMessage,
                format!("Caller {caller} is not allowed to query ic00 method {method}"),
            ),
            Self::NotStopped(id) => {
                (ErrorCode::CanisterNotStopped, format!("Canister {id} must be stopped before it is deleted."))
            }
            Self::QueuesNotEmpty(id) => (
                ErrorCode::CanisterQueueNotEmpty,
                format!("Canister {id} has messages in its queues and cannot be deleted now. Please retry later."),
            ),
            Self::DeletesItself(id) => {
                (ErrorCode::CanisterInvalidController, format!("Canister {id} cannot delete itself."))
            }
            Self::NoMetadata(id) => (
                ErrorCode::CanisterRejectedMessage,
                format!("The canister {id} has no Wasm module and hence no metadata is available."),
            ),
            Self::NoSuchMetadata { canister, name } => (
                ErrorCode::CanisterRejectedMessage,
                format!("The canister {canister} has no metadata section with the name {name}."),
            ),
            Self::SubnetNotFound(id) => (ErrorCode::SubnetNotFound, format!("Subnet {id} is not this subnet.")),
            Self::NotFound(id) => (ErrorCode::CanisterNotFound, format!("Canister {id} not found.")),
            _ => unreachable!("described elsewhere: {self:?}"),
        }
    }

    fn describe_settings(&self) -> (ErrorCode, String) {
        match self {
            Self::SettingOutOfRange { setting, min, max, given } => (
                ErrorCode::CanisterContractViolation,
                format!("{setting} expected to be in the range [{min}..{max}], got {given}"),
            ),
            Self::InvalidSettings(why) => {
                (ErrorCode::CanisterContractViolation, format!("Could not validate the settings: {why}"))
            }
            Self::InvalidEnvironment(why) => (ErrorCode::InvalidManagementPayload, why.clone()),
            Self::InvalidLogLimit { given } => (
                ErrorCode::CanisterRejectedMessage,
                format!(
                    "The canister log memory limit {given} must be at least {} and at most {}.",
                    limits::LOG_BYTES_DEFAULT,
                    limits::LOG_BYTES_MAX
                ),
            ),
            _ => unreachable!("described elsewhere: {self:?}"),
        }
    }

    fn describe_resources(&self) -> (ErrorCode, String) {
        match self {
            Self::ComputeOversubscribed { requested, available } => (
                ErrorCode::SubnetOversubscribed,
                format!(
                    "Canister requested a compute allocation of {requested}% which cannot be satisfied because the Subnet's \
                     remaining compute capacity is {available}%."
                ),
            ),
            Self::MemoryOversubscribed { requested, available } => (
                ErrorCode::SubnetOversubscribed,
                format!(
                    "Canister requested {requested} bytes of memory but only {available} bytes are available in the subnet."
                ),
            ),
            Self::ComputeAllocationUnpaid { requested, missing } => (
                ErrorCode::InsufficientCyclesInComputeAllocation,
                format!(
                    "Cannot increase compute allocation to {requested}% due to insufficient cycles. \
                     At least {missing} additional cycles are required."
                ),
            ),
            Self::MemoryAllocationUnpaid { requested, missing } => (
                ErrorCode::InsufficientCyclesInMemoryAllocation,
                format!(
                    "Cannot increase memory allocation to {requested} due to insufficient cycles. \
                     At least {missing} additional cycles are required."
                ),
            ),
            Self::MemoryGrowthUnpaid { bytes, missing } => (
                ErrorCode::InsufficientCyclesInMemoryGrow,
                format!(
                    "Canister cannot grow memory by {bytes} bytes due to insufficient cycles. \
                     At least {missing} additional cycles are required."
                ),
            ),
            Self::AllocationBeyondReservation { requested, limit, excess } => (
                ErrorCode::ReservedCyclesLimitExceededInMemoryAllocation,
                format!(
                    "Cannot increase memory allocation to {requested} due to its reserved cycles limit. \
                     The current limit ({limit}) would be exceeded by {excess}."
                ),
            ),
            Self::GrowthBeyondReservation { bytes, limit, excess } => (
                ErrorCode::ReservedCyclesLimitExceededInMemoryGrow,
                format!(
                    "Canister cannot grow memory by {bytes} bytes due to its reserved cycles limit. \
                     The current limit ({limit}) would be exceeded by {excess}."
                ),
            ),
            Self::ReservationLimitTooLow { reserved, limit } => (
                ErrorCode::ReservedCyclesLimitIsTooLow,
                format!(
                    "Cannot set the reserved cycles limit {limit} below the reserved cycles balance of the canister {reserved}."
                ),
            ),
            _ => unreachable!("described elsewhere: {self:?}"),
        }
    }

    fn describe_creation(&self) -> (ErrorCode, String) {
        match self {
            Self::CreationUnpaid { sent, required } => (
                ErrorCode::InsufficientCyclesForCreateCanister,
                format!(
                    "Creating a canister requires a fee of {required} that is deducted from the canister's initial balance \
                     but only {sent} cycles were received with the create_canister request."
                ),
            ),
            Self::OutOfIds => (
                ErrorCode::SubnetOversubscribed,
                "Could not create canister. Subnet has surpassed its canister ID allocation.".into(),
            ),
            Self::IdNotHosted { id, subnet } => (
                ErrorCode::CanisterNotHostedBySubnet,
                format!(
                    "Unsuccessful validation of specified ID: Specified CanisterId {id} is not hosted by subnet {subnet}."
                ),
            ),
            Self::IdTaken(id) => (ErrorCode::CanisterAlreadyInstalled, format!("Canister {id} is already installed.")),
            _ => unreachable!("described elsewhere: {self:?}"),
        }
    }

    fn describe_code(&self) -> (ErrorCode, String) {
        match self {
            Self::NotEmpty(id) => (
                ErrorCode::CanisterNonEmpty,
                format!(
                    "Canister {id} cannot be installed because the canister is not empty. \
                     Try installing with mode='reinstall' instead."
                ),
            ),
            Self::NoModule(id) => (
                ErrorCode::CanisterWasmModuleNotFound,
                format!("Error from Canister {id}: Attempted to execute a message, but the canister contains no Wasm module."),
            ),
            Self::InstallUnpaid(error) => {
                (ErrorCode::CanisterOutOfCycles, format!("Canister installation failed with `{error}`."))
            }
            Self::MissingUpgradeOption => (
                ErrorCode::CanisterContractViolation,
                "Missing upgrade option: Enhanced orthogonal persistence requires the `wasm_memory_persistence` upgrade option."
                    .into(),
            ),
            Self::InvalidUpgradeOption => (
                ErrorCode::CanisterContractViolation,
                "Invalid upgrade option: The `wasm_memory_persistence: opt Keep` upgrade option requires that the new canister \
                 module supports enhanced orthogonal persistence."
                    .into(),
            ),
            Self::ChunkStore(why) => {
                (ErrorCode::CanisterContractViolation, format!("Error from Wasm chunk store: {why}."))
            }
            Self::StoreNotFound { store, target } => (
                ErrorCode::CanisterNotFound,
                format!(
                    "InstallChunkedCode Error: Store canister {store} was not found on the subnet of target canister {target}"
                ),
            ),
            _ => unreachable!("described elsewhere: {self:?}"),
        }
    }
}
