//! Settings of canisters: what a caller asks for, whether it may have it, and putting it into effect.
//!
//! Enters: settings off the wire, the canister, what the subnet has left. Leaves: changed settings. Never here: a change before all
//! of it has been checked.

use super::error::ManagementError;
use super::resources::{self, SubnetUse};
use super::wire::{self, ic};
use crate::{CanisterMut, SubnetConfig, charge};
use cyclotron_types::Principal;
use cyclotron_types::canister::{Settings, Visibility};
use cyclotron_types::limits;
use cyclotron_types::units::{Bytes, Cycles, Seconds};
use std::collections::{BTreeMap, BTreeSet};

/// `wasm_memory_limit` and `wasm_memory_threshold` end here. Spec: #ic-create_canister.
const WASM_MEMORY_SETTING_MAX: u64 = 1 << 48;

/// Settings to change; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsUpdate {
    /// Who manages it.
    pub controllers: Option<BTreeSet<Principal>>,
    /// In percent.
    pub compute_allocation: Option<u64>,
    /// In bytes.
    pub memory_allocation: Option<Bytes>,
    /// How long the balance must last.
    pub freezing_threshold: Option<Seconds>,
    /// Most that may be reserved.
    pub reserved_cycles_limit: Option<Cycles>,
    /// Least that a call must carry.
    pub minimum_incoming_canister_call_cycles: Option<Cycles>,
    /// Most of the heap.
    pub wasm_memory_limit: Option<Bytes>,
    /// Heap left when the hook runs.
    pub wasm_memory_threshold: Option<Bytes>,
    /// Bytes of log kept.
    pub log_memory_limit: Option<Bytes>,
    /// Readers of the log.
    pub log_visibility: Option<Visibility>,
    /// Readers of snapshots.
    pub snapshot_visibility: Option<Visibility>,
    /// Readers of the status.
    pub status_visibility: Option<Visibility>,
    /// Environment variables, all of them.
    pub environment_variables: Option<BTreeMap<String, String>>,
}

fn in_u64(
    setting: &'static str,
    number: &candid::Nat,
    max: u64,
    max_text: &'static str,
) -> Result<u64, ManagementError> {
    wire::nat_to_u64(number).filter(|&value| value <= max).ok_or_else(|| ManagementError::SettingOutOfRange {
        setting,
        min: "0",
        max: max_text,
        given: wire::describe_nat(number),
    })
}

fn in_u128(setting: &'static str, number: &candid::Nat) -> Result<Cycles, ManagementError> {
    wire::nat_to_u128(number).map(Cycles).ok_or_else(|| ManagementError::SettingOutOfRange {
        setting,
        min: "0",
        max: "2^128-1",
        given: wire::describe_nat(number),
    })
}

fn viewers(list: &[Principal], setting: &str) -> Result<Visibility, ManagementError> {
    if list.len() > limits::VIEWERS_MAX {
        return Err(ManagementError::InvalidSettings(format!(
            "'{setting}' lists {} viewers, more than {}",
            list.len(),
            limits::VIEWERS_MAX
        )));
    }
    Ok(Visibility::AllowedViewers(list.iter().copied().collect()))
}

fn controllers(list: &[Principal]) -> Result<BTreeSet<Principal>, ManagementError> {
    if list.len() > limits::CONTROLLERS_MAX {
        return Err(ManagementError::InvalidSettings(format!(
            "Invalid settings: 'controllers' length exceeds maximum size allowed of {}.",
            limits::CONTROLLERS_MAX
        )));
    }
    Ok(list.iter().copied().collect())
}

fn environment(list: &[ic::EnvironmentVariable]) -> Result<BTreeMap<String, String>, ManagementError> {
    let invalid = |why: String| Err(ManagementError::InvalidEnvironment(why));
    if list.len() > limits::ENVIRONMENT_VARIABLES_MAX {
        let max = limits::ENVIRONMENT_VARIABLES_MAX;
        return invalid(format!("Too many environment variables: {} (max: {max})", list.len()));
    }
    let max = limits::ENVIRONMENT_VARIABLE_BYTES_MAX;
    let mut variables = BTreeMap::new();
    for variable in list {
        if variable.name.len() > max {
            return invalid(format!("Environment variable name exceeds the maximum allowed length of {max}."));
        }
        if variable.value.len() > max {
            return invalid(format!(
                "Environment variable value of \"{}\" exceeds the maximum allowed length of {max}.",
                variable.name
            ));
        }
        if variables.insert(variable.name.clone(), variable.value.clone()).is_some() {
            return invalid(format!("Duplicate environment variable \"{}\".", variable.name));
        }
    }
    Ok(variables)
}

impl SettingsUpdate {
    /// Reads settings off the wire: every number in its range, every list within its limit.
    pub fn parse(settings: &ic::CanisterSettings) -> Result<Self, ManagementError> {
        let u64_max = |setting, number| in_u64(setting, number, u64::MAX, "2^64-1");
        let u48_max = |setting, number| in_u64(setting, number, WASM_MEMORY_SETTING_MAX, "2^48");
        let wire_viewers = |list: &Option<ic::LogVisibility>| match list {
            None => Ok(None),
            Some(ic::LogVisibility::Controllers) => Ok(Some(Visibility::Controllers)),
            Some(ic::LogVisibility::Public) => Ok(Some(Visibility::Public)),
            Some(ic::LogVisibility::AllowedViewers(list)) => viewers(list, "log_visibility").map(Some),
        };
        Ok(Self {
            controllers: settings.controllers.as_deref().map(controllers).transpose()?,
            compute_allocation: (settings.compute_allocation.as_ref())
                .map(|number| in_u64("ComputeAllocation", number, 100, "100"))
                .transpose()?,
            memory_allocation: (settings.memory_allocation.as_ref())
                .map(|number| u64_max("MemoryAllocation", number).map(Bytes))
                .transpose()?,
            freezing_threshold: (settings.freezing_threshold.as_ref())
                .map(|number| u64_max("Freezing threshold", number).map(Seconds))
                .transpose()?,
            reserved_cycles_limit: (settings.reserved_cycles_limit.as_ref())
                .map(|number| in_u128("Reserved cycles limit", number))
                .transpose()?,
            minimum_incoming_canister_call_cycles: (settings.minimum_incoming_canister_call_cycles.as_ref())
                .map(|number| in_u128("Minimum incoming canister call cycles", number))
                .transpose()?,
            wasm_memory_limit: (settings.wasm_memory_limit.as_ref())
                .map(|number| u48_max("Wasm memory limit", number).map(Bytes))
                .transpose()?,
            wasm_memory_threshold: (settings.wasm_memory_threshold.as_ref())
                .map(|number| u48_max("Wasm memory threshold", number).map(Bytes))
                .transpose()?,
            log_memory_limit: settings.log_memory_limit.as_ref().map(log_limit).transpose()?,
            log_visibility: wire_viewers(&settings.log_visibility)?,
            snapshot_visibility: match &settings.snapshot_visibility {
                None => None,
                Some(ic::SnapshotVisibility::Controllers) => Some(Visibility::Controllers),
                Some(ic::SnapshotVisibility::Public) => Some(Visibility::Public),
                Some(ic::SnapshotVisibility::AllowedViewers(list)) => Some(viewers(list, "snapshot_visibility")?),
            },
            status_visibility: match &settings.status_visibility {
                None => None,
                Some(ic::StatusVisibility::Controllers) => Some(Visibility::Controllers),
                Some(ic::StatusVisibility::Public) => Some(Visibility::Public),
                Some(ic::StatusVisibility::AllowedViewers(list)) => Some(viewers(list, "status_visibility")?),
            },
            environment_variables: settings.environment_variables.as_deref().map(environment).transpose()?,
        })
    }

    /// Reads settings that may be absent.
    pub fn parse_optional(settings: Option<&ic::CanisterSettings>) -> Result<Self, ManagementError> {
        settings.map_or_else(|| Ok(Self::default()), Self::parse)
    }
}

fn log_limit(number: &candid::Nat) -> Result<Bytes, ManagementError> {
    let range = limits::LOG_BYTES_DEFAULT.0..=limits::LOG_BYTES_MAX.0;
    wire::nat_to_u64(number)
        .filter(|bytes| range.contains(bytes))
        .map(Bytes)
        .ok_or_else(|| ManagementError::InvalidLogLimit { given: wire::describe_nat(number) })
}

/// What the canister holds as the checks need it: a canister to be created holds nothing but its balance.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// Its settings so far.
    pub settings: &'a Settings,
    /// Memory that it uses.
    pub memory: Bytes,
    /// Cycles that it can spend.
    pub balance: Cycles,
    /// Cycles reserved.
    pub reserved: Cycles,
}

/// Checks the update against the canister and the subnet. Returns the cycles to move to the reserved balance.
///
/// Errors: the first of: memory or compute oversubscribed, allocation that would freeze the canister, reservation beyond its limit.
/// Spec: abstract-behavior "Changing settings" and "Canister creation".
pub fn check(
    update: &SettingsUpdate,
    standing: &Standing<'_>,
    subnet: SubnetUse,
    config: &SubnetConfig,
) -> Result<Cycles, ManagementError> {
    let old = standing.settings;
    let memory_allocation = update.memory_allocation.unwrap_or(old.memory_allocation);
    let compute_allocation = update.compute_allocation.unwrap_or(old.compute_allocation);
    let old_bytes = old.memory_allocation.max(standing.memory);
    let new_bytes = memory_allocation.max(standing.memory);
    let available = config.limits.subnet_memory.saturating_sub(subnet.memory).saturating_add(old_bytes);
    if new_bytes > available {
        return Err(ManagementError::MemoryOversubscribed { requested: new_bytes, available });
    }
    if let Some(requested) = update.compute_allocation {
        // Lowering is always possible, and one percent always stays free.
        let available =
            limits::COMPUTE_ALLOCATION_TOTAL_MAX.saturating_sub(subnet.compute).saturating_add(old.compute_allocation);
        if requested > available {
            return Err(ManagementError::ComputeOversubscribed { requested, available });
        }
    }
    let reservation = resources::reservation(config, subnet.memory, new_bytes.saturating_sub(old_bytes));
    let limit = update.reserved_cycles_limit.unwrap_or(old.reserved_cycles_limit);
    if standing.reserved > limit {
        return Err(ManagementError::ReservationLimitTooLow { reserved: standing.reserved, limit });
    }
    let reserved = standing.reserved.saturating_add(reservation);
    if reserved > limit {
        let excess = reserved.saturating_sub(limit);
        return Err(ManagementError::AllocationBeyondReservation { requested: memory_allocation, limit, excess });
    }
    let new = Settings {
        compute_allocation,
        memory_allocation,
        freezing_threshold: update.freezing_threshold.unwrap_or(old.freezing_threshold),
        ..Settings::default()
    };
    let threshold = charge::freezing_threshold(&config.fees, &new, standing.memory, reserved);
    let needed = threshold.saturating_add(reservation);
    // Only growing allocations must be paid for: a threshold may be raised until the canister is frozen.
    if standing.balance < needed {
        let missing = needed.saturating_sub(standing.balance);
        if compute_allocation > old.compute_allocation {
            return Err(ManagementError::ComputeAllocationUnpaid { requested: compute_allocation, missing });
        }
        if memory_allocation > old.memory_allocation || reservation > Cycles::ZERO {
            return Err(ManagementError::MemoryAllocationUnpaid { requested: memory_allocation, missing });
        }
    }
    Ok(reservation)
}

/// Puts a checked update into effect, `reservation` of the balance included.
///
/// Panics: when the balance does not hold the reservation, which [`check`] has established.
pub fn apply(canister: &mut CanisterMut<'_>, update: &SettingsUpdate, reservation: Cycles) {
    if let Some(controllers) = &update.controllers {
        canister.controllers.0 = controllers.into();
    }
    let balance = canister.balance.0.checked_sub(reservation).expect("the reservation was checked against the balance");
    canister.balance.0 = balance;
    canister.reserved.0 = canister.reserved.0.saturating_add(reservation);
    let mut settings = Settings::clone(canister.settings);
    fn set<T: Clone>(setting: &mut T, new: &Option<T>) {
        if let Some(new) = new {
            *setting = new.clone();
        }
    }
    set(&mut settings.compute_allocation, &update.compute_allocation);
    set(&mut settings.memory_allocation, &update.memory_allocation);
    set(&mut settings.freezing_threshold, &update.freezing_threshold);
    set(&mut settings.reserved_cycles_limit, &update.reserved_cycles_limit);
    set(&mut settings.minimum_incoming_canister_call_cycles, &update.minimum_incoming_canister_call_cycles);
    set(&mut settings.wasm_memory_limit, &update.wasm_memory_limit);
    set(&mut settings.wasm_memory_threshold, &update.wasm_memory_threshold);
    set(&mut settings.log_memory_limit, &update.log_memory_limit);
    set(&mut settings.log_visibility, &update.log_visibility);
    set(&mut settings.snapshot_visibility, &update.snapshot_visibility);
    set(&mut settings.status_visibility, &update.status_visibility);
    set(&mut settings.environment_variables, &update.environment_variables);
    if settings != **canister.settings {
        *canister.settings = settings.into();
    }
    canister.log.trim(canister.settings.log_memory_limit);
}

/// The settings as `canister_status` shows them.
pub fn to_wire(settings: &Settings, controllers: impl Iterator<Item = Principal>) -> ic::DefiniteCanisterSettings {
    let list = |viewers: &BTreeSet<Principal>| viewers.iter().copied().collect::<Vec<_>>();
    ic::DefiniteCanisterSettings {
        controllers: controllers.collect(),
        compute_allocation: wire::nat(settings.compute_allocation),
        memory_allocation: wire::nat(settings.memory_allocation.0),
        freezing_threshold: wire::nat(settings.freezing_threshold.0),
        reserved_cycles_limit: wire::nat(settings.reserved_cycles_limit.0),
        minimum_incoming_canister_call_cycles: wire::nat(settings.minimum_incoming_canister_call_cycles.0),
        log_visibility: match &settings.log_visibility {
            Visibility::Controllers => ic::LogVisibility::Controllers,
            Visibility::Public => ic::LogVisibility::Public,
            Visibility::AllowedViewers(viewers) => ic::LogVisibility::AllowedViewers(list(viewers)),
        },
        log_memory_limit: wire::nat(settings.log_memory_limit.0),
        snapshot_visibility: match &settings.snapshot_visibility {
            Visibility::Controllers => ic::SnapshotVisibility::Controllers,
            Visibility::Public => ic::SnapshotVisibility::Public,
            Visibility::AllowedViewers(viewers) => ic::SnapshotVisibility::AllowedViewers(list(viewers)),
        },
        status_visibility: match &settings.status_visibility {
            Visibility::Controllers => ic::StatusVisibility::Controllers,
            Visibility::Public => ic::StatusVisibility::Public,
            Visibility::AllowedViewers(viewers) => ic::StatusVisibility::AllowedViewers(list(viewers)),
        },
        wasm_memory_limit: wire::nat(settings.wasm_memory_limit.0),
        wasm_memory_threshold: wire::nat(settings.wasm_memory_threshold.0),
        environment_variables: (settings.environment_variables.iter())
            .map(|(name, value)| ic::EnvironmentVariable { name: name.clone(), value: value.clone() })
            .collect(),
    }
}
