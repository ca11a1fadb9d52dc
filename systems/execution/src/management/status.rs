//! What the management canister tells about a canister: status, information, metadata, logs.
//!
//! Enters: a canister's components, borrowed for reading. Leaves: answers. Never here: a change.

use super::error::ManagementError;
use super::method::{Guard, Guarded, Method};
use super::resources::MemoryUse;
use super::wire::{self, ic};
use super::{CanisterView, code, history, settings};
use crate::{PublishedCanister, SubnetConfig, charge};
use cyclotron_types::Principal;
use cyclotron_types::canister::{CanisterLog, LogRecord, RunState};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits;
use cyclotron_types::reject::Reject;
use cyclotron_types::units::Cycles;

/// What the status of a canister is made of.
pub struct StatusFacts<'a> {
    guarded: Guarded<'a>,
    run_state: &'a RunState,
    version: u64,
    module_hash: Option<&'a [u8; 32]>,
    memory: MemoryUse,
    log_bytes: u64,
    balance: Cycles,
    reserved: Cycles,
    /// Whether no message waits in the canister's queues, in or out.
    quiet: bool,
}

impl<'a> StatusFacts<'a> {
    /// Of a canister in a round. `quiet` says that no message waits in its queues, in or out.
    pub fn of(canister: &CanisterView<'a>, quiet: bool) -> Self {
        Self {
            guarded: Guarded { id: canister.id, controllers: canister.controllers, settings: canister.settings },
            run_state: canister.run_state,
            version: canister.version.0,
            module_hash: canister.program.module_hash(),
            memory: MemoryUse::of(canister),
            log_bytes: canister.log.bytes,
            balance: canister.balance.0,
            reserved: canister.reserved.0,
            quiet,
        }
    }
}

impl<'a> From<&'a PublishedCanister> for StatusFacts<'a> {
    fn from(canister: &'a PublishedCanister) -> Self {
        Self {
            guarded: canister.guarded(),
            run_state: &canister.run_state,
            version: canister.version,
            module_hash: canister.program.as_ref().map(|program| &program.module_hash),
            memory: canister.memory,
            log_bytes: canister.log.bytes,
            balance: canister.balance,
            reserved: canister.reserved,
            quiet: canister.quiet,
        }
    }
}

/// The answer of `canister_status`.
pub fn canister_status(facts: &StatusFacts<'_>, config: &SubnetConfig) -> ic::CanisterStatusResult {
    let memory = facts.memory;
    let total = memory.total();
    let Guarded { controllers, settings, .. } = facts.guarded;
    ic::CanisterStatusResult {
        status: match facts.run_state {
            RunState::Running => ic::CanisterStatusType::Running,
            RunState::Stopping(_) => ic::CanisterStatusType::Stopping,
            RunState::Stopped => ic::CanisterStatusType::Stopped,
        },
        ready_for_migration: *facts.run_state == RunState::Stopped && facts.quiet,
        version: facts.version,
        settings: settings::to_wire(settings, controllers.0.iter().copied()),
        module_hash: facts.module_hash.map(|hash| hash.to_vec()),
        memory_size: wire::nat(total.0),
        memory_metrics: ic::MemoryMetrics {
            wasm_memory_size: wire::nat(memory.heap.0),
            stable_memory_size: wire::nat(memory.stable.0),
            global_memory_size: wire::nat(memory.globals.0),
            wasm_binary_size: wire::nat(memory.module.0),
            custom_sections_size: wire::nat(memory.custom_sections.0),
            canister_history_size: wire::nat(memory.history.0),
            wasm_chunk_store_size: wire::nat(memory.chunks.0),
            snapshots_size: wire::nat(0u64),
            log_memory_store_size: wire::nat(facts.log_bytes),
        },
        cycles: wire::nat(facts.balance.0),
        reserved_cycles: wire::nat(facts.reserved.0),
        idle_cycles_burned_per_day: wire::nat(charge::idle_cycles_burned_per_day(&config.fees, settings, total).0),
        // Queries run outside of the replicated state and are not counted yet.
        query_stats: ic::QueryStats {
            num_calls_total: wire::nat(0u64),
            num_instructions_total: wire::nat(0u64),
            request_payload_bytes_total: wire::nat(0u64),
            response_payload_bytes_total: wire::nat(0u64),
        },
    }
}

/// The answer of `canister_info`.
pub fn canister_info(canister: &CanisterView<'_>, requested: u64) -> wire::CanisterInfoResult {
    history::info(
        canister.history,
        requested,
        canister.program.module_hash().copied(),
        canister.controllers.0.iter().copied(),
    )
}

/// The answer of `canister_metadata`: public sections for everyone, private ones for controllers.
///
/// Errors: no module, or no such section that the caller may see.
pub fn canister_metadata(
    canister: &CanisterView<'_>,
    caller: &Principal,
    name: &str,
) -> Result<ic::CanisterMetadataResult, ManagementError> {
    if canister.program.installed().is_none() {
        return Err(ManagementError::NoMetadata(canister.id));
    }
    let private = canister.controllers.0.contains(caller);
    let value = code::metadata(canister, name, private).ok_or_else(|| ManagementError::NoSuchMetadata {
        canister: canister.id,
        name: name.chars().take(100).collect(),
    })?;
    Ok(ic::CanisterMetadataResult { value: value.to_vec() })
}

/// The answer of `fetch_canister_logs`, oldest line first, at most the bytes of a query's reply.
fn fetch_canister_logs(log: &CanisterLog, filter: Option<&ic::CanisterLogFilter>) -> ic::FetchCanisterLogsResult {
    let shown = |idx: u64, time: u64| match filter {
        None => true,
        Some(ic::CanisterLogFilter::ByIdx { start, end }) => (*start..*end).contains(&idx),
        Some(ic::CanisterLogFilter::ByTimestampNanos { start, end }) => (*start..*end).contains(&time),
    };
    let canister_log_records = (log.records.iter())
        .filter(|record| shown(record.index, record.time.0))
        .map(|record| ic::CanisterLogRecord {
            idx: record.index,
            timestamp_nanos: record.time.0,
            content: record.content.clone(),
        })
        .collect();
    ic::FetchCanisterLogsResult { canister_log_records }
}

// A whole log fits into a query's reply: Candid frames a record with two numbers of 8 bytes and a length of at most 4, less than it counts
// for, and the list with less than a KiB.
const _: () = assert!(8 + 8 + 4 <= LogRecord::OVERHEAD);
const _: () = assert!(limits::LOG_BYTES_MAX.0 + 1_024 <= limits::QUERY_REPLY_BYTES_MAX.0);

/// A management method called as a query, its argument read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementQuery {
    /// Which method.
    pub method: Method,
    /// The canister that it is about, which must be of this subnet; `None`: about the subnet.
    pub canister: Option<CanisterId>,
    filter: Option<ic::CanisterLogFilter>,
}

impl ManagementQuery {
    /// Reads a query of the management canister.
    ///
    /// Errors: methods that do not exist or cannot be called as queries, and arguments that cannot be read.
    pub fn parse(name: &str, arg: &[u8]) -> Result<Self, Reject> {
        let method = Method::from_name(name).filter(|method| method.is_query()).ok_or_else(|| {
            let shown: String = name.chars().take(100).collect();
            Reject::new(
                cyclotron_types::reject::ErrorCode::CanisterMethodNotFound,
                format!("Query method {shown} not found."),
            )
        })?;
        let named = |principal| Some(CanisterId::from_principal(principal));
        let (canister, filter) = match method {
            Method::ListCanisters => {
                wire::decode_nothing(arg)?;
                (None, None)
            }
            Method::FetchCanisterLogs => {
                let args: ic::FetchCanisterLogsArgs = wire::decode(arg)?;
                (named(args.canister_id), args.filter)
            }
            _ => (named(wire::decode::<wire::CanisterIdArgs>(arg)?.canister_id), None),
        };
        Ok(Self { method, canister, filter })
    }

    /// Answers the query. `canister` is the one that [`Self::canister`] names, `None` if there is none.
    pub fn answer(
        &self,
        caller: &Principal,
        canister: Option<&PublishedCanister>,
        config: &SubnetConfig,
    ) -> Result<Vec<u8>, Reject> {
        Ok(self.try_answer(caller, canister, config)?)
    }

    fn try_answer(
        &self,
        caller: &Principal,
        canister: Option<&PublishedCanister>,
        config: &SubnetConfig,
    ) -> Result<Vec<u8>, ManagementError> {
        let denied = ManagementError::NotReader { caller: *caller, method: self.method.name() };
        if self.method.guard() == Guard::Admins {
            return Err(denied);
        }
        let canister = canister.ok_or(ManagementError::NotFound(self.canister.unwrap_or(CanisterId::MANAGEMENT)))?;
        if !canister.guarded().admits(self.method.guard(), caller) {
            return Err(denied);
        }
        match self.method {
            Method::CanisterStatus => Ok(wire::encode(&canister_status(&canister.into(), config))),
            Method::FetchCanisterLogs => Ok(wire::encode(&fetch_canister_logs(&canister.log, self.filter.as_ref()))),
            method => Err(ManagementError::NotBuilt(method.name())),
        }
    }
}
