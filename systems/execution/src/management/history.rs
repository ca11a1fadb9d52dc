//! The history of a canister: who changed what, and how `canister_info` shows it.

use super::wire::{self, ic};
use cyclotron_types::Principal;
use cyclotron_types::canister::{CanisterHistory, Change, ChangeDetails, ChangeOrigin, InstallMode};
use cyclotron_types::limits;
use cyclotron_types::units::{Bytes, Time};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Memory that one change counts for, apart from its list of controllers. Fixed by this protocol, not by Rust's layout.
pub const CHANGE_BYTES: u64 = 160;
/// Memory that one controller in a change counts for: 29 bytes and a length.
pub const CONTROLLER_BYTES: u64 = 30;

/// Appends a change and drops the oldest beyond the limit.
pub fn record(history: &mut CanisterHistory, time: Time, version: u64, origin: ChangeOrigin, details: ChangeDetails) {
    if history.changes.len() >= limits::HISTORY_MAX {
        history.changes.pop_front();
    }
    match details {
        ChangeDetails::Creation { .. } => history.created = Some(time),
        ChangeDetails::CodeDeployment { .. } => history.installed = Some(time),
        ChangeDetails::CodeUninstall => history.installed = None,
        ChangeDetails::ControllersChange { .. } | ChangeDetails::SettingsChange { .. } => {}
    }
    history.changes.push_back(Change { time, version, origin, details });
    // It changes seldom and stays: no room for more.
    history.changes.shrink_to_fit();
    history.total = history.total.saturating_add(1);
}

/// Memory that the history counts for.
pub fn memory(history: &CanisterHistory) -> Bytes {
    let bytes = history.changes.iter().map(|change| {
        let controllers = match &change.details {
            ChangeDetails::Creation { controllers, .. } | ChangeDetails::ControllersChange { controllers } => {
                controllers.len()
            }
            ChangeDetails::SettingsChange { controllers, .. } => controllers.as_ref().map_or(0, Vec::len),
            ChangeDetails::CodeUninstall | ChangeDetails::CodeDeployment { .. } => 0,
        };
        CHANGE_BYTES + CONTROLLER_BYTES * controllers as u64
    });
    Bytes(bytes.sum())
}

/// Representation-independent hash of environment variables.
///
/// Spec: https-interface #hash-of-map.
pub fn environment_hash(variables: &BTreeMap<String, String>) -> [u8; 32] {
    let hash = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
    let mut pairs: Vec<[[u8; 32]; 2]> = variables.iter().map(|(name, value)| [hash(name), hash(value)]).collect();
    pairs.sort_unstable();
    let mut all = Sha256::new();
    for [name, value] in pairs {
        all.update(name);
        all.update(value);
    }
    all.finalize().into()
}

fn origin_to_wire(origin: &ChangeOrigin) -> ic::ChangeOrigin {
    match origin {
        ChangeOrigin::User(user_id) => ic::ChangeOrigin::FromUser(ic::FromUserRecord { user_id: *user_id }),
        ChangeOrigin::Canister { id, version } => ic::ChangeOrigin::FromCanister(ic::FromCanisterRecord {
            canister_id: id.principal(),
            canister_version: *version,
        }),
    }
}

/// The details as the interface shows them; `None` for changes that it has no word for.
fn details_to_wire(details: &ChangeDetails) -> Option<ic::ChangeDetails> {
    Some(match details {
        ChangeDetails::Creation { controllers, environment_hash } => ic::ChangeDetails::Creation(ic::CreationRecord {
            controllers: controllers.clone(),
            environment_variables_hash: environment_hash.map(|hash| hash.to_vec()),
        }),
        ChangeDetails::CodeUninstall => ic::ChangeDetails::CodeUninstall,
        ChangeDetails::CodeDeployment { mode, module_hash } => {
            ic::ChangeDetails::CodeDeployment(ic::CodeDeploymentRecord {
                mode: match mode {
                    InstallMode::Install => ic::CodeDeploymentMode::Install,
                    InstallMode::Reinstall => ic::CodeDeploymentMode::Reinstall,
                    InstallMode::Upgrade => ic::CodeDeploymentMode::Upgrade,
                },
                module_hash: module_hash.to_vec(),
            })
        }
        ChangeDetails::ControllersChange { controllers } => {
            ic::ChangeDetails::ControllersChange(ic::ControllersChangeRecord { controllers: controllers.clone() })
        }
        ChangeDetails::SettingsChange { controllers, .. } => {
            let controllers = controllers.clone()?;
            ic::ChangeDetails::ControllersChange(ic::ControllersChangeRecord { controllers })
        }
    })
}

/// The answer of `canister_info` with at most `requested` of the newest changes.
pub fn info(
    history: &CanisterHistory,
    requested: u64,
    module_hash: Option<[u8; 32]>,
    controllers: impl Iterator<Item = Principal>,
) -> wire::CanisterInfoResult {
    let shown = usize::try_from(requested).unwrap_or(usize::MAX).min(history.changes.len());
    let recent_changes = history
        .changes
        .iter()
        .skip(history.changes.len() - shown)
        .filter_map(|change| {
            Some(wire::Change {
                timestamp_nanos: change.time.0,
                canister_version: change.version,
                origin: origin_to_wire(&change.origin),
                details: details_to_wire(&change.details)?,
            })
        })
        .collect();
    wire::CanisterInfoResult {
        total_num_changes: history.total,
        recent_changes,
        module_hash: module_hash.map(|hash| serde_bytes::ByteBuf::from(hash.to_vec())),
        controllers: controllers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uninstall(history: &mut CanisterHistory, version: u64) {
        record(
            history,
            Time(version),
            version,
            ChangeOrigin::User(Principal::anonymous()),
            ChangeDetails::CodeUninstall,
        );
    }

    #[test]
    fn the_history_keeps_the_newest_changes_and_counts_all() {
        let mut history = CanisterHistory::default();
        (0..25).for_each(|version| uninstall(&mut history, version));
        assert_eq!((history.changes.len(), history.total), (limits::HISTORY_MAX, 25));
        assert_eq!(history.changes.front().map(|c| c.version), Some(5));
        assert_eq!(memory(&history), Bytes(CHANGE_BYTES * 20));
        let shown = |requested| -> Vec<u64> {
            let info = info(&history, requested, None, [].into_iter());
            info.recent_changes.iter().map(|c| c.canister_version).collect()
        };
        assert_eq!(shown(0), Vec::<u64>::new());
        assert_eq!(shown(2), [23, 24]);
        assert_eq!(shown(u64::MAX).len(), 20);
    }

    #[test]
    fn the_environment_hash_is_the_hash_of_the_map() {
        // SHA-256 over nothing, and independent of what sorts first by name.
        assert_eq!(environment_hash(&BTreeMap::new())[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        let one = BTreeMap::from([("A".to_string(), "1".to_string())]);
        let pair = [Sha256::digest("A"), Sha256::digest("1")].concat();
        assert_eq!(environment_hash(&one)[..], Sha256::digest(pair)[..]);
    }
}
