//! What the commands print.

use candid::{Nat, Principal};
use ic_agent::agent::status::Status;
use ic_management_canister_types::{CanisterStatusResult, CanisterStatusType, LogVisibility};

fn lines(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}

/// The node's status.
pub fn node(status: &Status) -> String {
    let height = status.values.get("certified_height").map(|height| format!("{height}")).unwrap_or_default();
    lines(&[
        ("Version", status.impl_version.clone().unwrap_or_default()),
        ("Health", status.replica_health_status.clone().unwrap_or_default()),
        ("Height", height),
        ("Root key", hex::encode(status.root_key.as_deref().unwrap_or_default())),
    ])
}

/// Digits in groups of three, as candid writes them.
fn number(number: &Nat) -> String {
    number.to_string()
}

/// A canister's status.
pub fn canister(id: Principal, status: &CanisterStatusResult) -> String {
    let CanisterStatusResult { settings, memory_metrics: memory, .. } = status;
    let run_state = match status.status {
        CanisterStatusType::Running => "running",
        CanisterStatusType::Stopping => "stopping",
        CanisterStatusType::Stopped => "stopped",
    };
    let principals = |list: &[Principal]| list.iter().map(Principal::to_text).collect::<Vec<_>>().join(" ");
    let log_visibility = match &settings.log_visibility {
        LogVisibility::Controllers => "controllers".into(),
        LogVisibility::Public => "public".into(),
        LogVisibility::AllowedViewers(viewers) => format!("controllers and {}", principals(viewers)),
    };
    lines(&[
        ("Canister", id.to_text()),
        ("Status", run_state.into()),
        ("Module hash", status.module_hash.as_ref().map_or("none".into(), hex::encode)),
        ("Version", status.version.to_string()),
        ("Controllers", principals(&settings.controllers)),
        ("Cycles", number(&status.cycles)),
        ("Cycles reserved", number(&status.reserved_cycles)),
        ("Cycles a day, idle", number(&status.idle_cycles_burned_per_day)),
        ("Memory, bytes", number(&status.memory_size)),
        ("  Wasm heap", number(&memory.wasm_memory_size)),
        ("  stable", number(&memory.stable_memory_size)),
        ("  module", number(&memory.wasm_binary_size)),
        ("  chunk store", number(&memory.wasm_chunk_store_size)),
        ("  snapshots", number(&memory.snapshots_size)),
        ("Compute allocation", format!("{} %", settings.compute_allocation)),
        ("Memory allocation", number(&settings.memory_allocation)),
        ("Freezing threshold", format!("{} s", settings.freezing_threshold)),
        ("Logs visible to", log_visibility),
    ])
}
