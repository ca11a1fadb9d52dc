//! Components of a canister entity: nouns, plain data, one fact each.
//!
//! What a module and its memories are belongs to the engine and is a component of `systems/execution`.

use crate::PrincipalSet;
use crate::ids::{CallContextId, CallbackId, CanisterId, MessageId, MessageIx};
use crate::message::{CallKind, SystemTask};
use crate::units::{Bytes, Cycles, Instructions, Seconds, Time};
use bevy_ecs::component::Component;
use ic_principal::Principal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Principals that may manage the canister, at most `limits::CONTROLLERS_MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct Controllers(pub PrincipalSet);

/// Cycles that the canister can spend, subject to freezing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct CyclesBalance(pub Cycles);

/// Cycles set aside for future storage payments; they cannot be spent otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct ReservedBalance(pub Cycles);

/// Counts every change of settings, code, run state and memory, as the specification lists them.
///
/// Spec: ic-interface-spec #system-api-canister-version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct CanisterVersion(pub u64);

/// Up to 32 bytes that the canister has certified; empty until it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct CertifiedData(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// When the global timer fires; zero is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct GlobalTimer(pub Time);

/// Until when storage and compute have been paid; idle canisters are settled only when touched or listed as due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct PaidUntil(pub Time);

/// Everyone who asked for the canister to stop, to be answered when it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopWaiter {
    /// A user, by ingress message.
    Ingress {
        /// The message to answer.
        id: MessageId,
        /// When the wait began; it ends after `limits::STOP_TIMEOUT`.
        since: Time,
    },
    /// A canister, by call.
    Canister {
        /// Who called.
        caller: CanisterId,
        /// Its callback.
        callback: CallbackId,
        /// Cycles to refund.
        payment: Cycles,
        /// Guaranteed or best-effort.
        kind: CallKind,
        /// When the wait began.
        since: Time,
    },
}

/// Whether the canister takes messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub enum RunState {
    /// Takes calls and responses.
    #[default]
    Running,
    /// Takes only responses; becomes stopped when no call context is left.
    Stopping(Vec<StopWaiter>),
    /// Takes nothing.
    Stopped,
}

/// Who may read a canister's logs (or other guarded information).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Controllers alone.
    #[default]
    Controllers,
    /// Anyone.
    Public,
    /// Controllers and these, at most `limits::VIEWERS_MAX`.
    AllowedViewers(BTreeSet<Principal>),
}

/// What `update_settings` sets, besides the controllers.
///
/// Spec: ic-interface-spec #ic-canister_settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Percent of one scheduler core, 0 to 100.
    pub compute_allocation: u64,
    /// Bytes reserved; zero is best effort.
    pub memory_allocation: Bytes,
    /// The balance must last for this long, or the canister freezes.
    pub freezing_threshold: Seconds,
    /// At most this much may be reserved for storage.
    pub reserved_cycles_limit: Cycles,
    /// Wasm heap beyond which update calls fail; zero is no limit.
    pub wasm_memory_limit: Bytes,
    /// Remaining heap below which `canister_on_low_wasm_memory` runs; zero is never.
    pub wasm_memory_threshold: Bytes,
    /// Readers of the log.
    pub log_visibility: Visibility,
    /// Readers and takers of snapshots.
    pub snapshot_visibility: Visibility,
    /// Readers of the status.
    pub status_visibility: Visibility,
    /// Least cycles that a call from another canister must carry.
    pub minimum_incoming_canister_call_cycles: Cycles,
    /// Bytes of log kept.
    pub log_memory_limit: Bytes,
    /// Environment variables that the canister can read.
    pub environment_variables: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            compute_allocation: 0,
            memory_allocation: Bytes::ZERO,
            freezing_threshold: crate::limits::FREEZING_THRESHOLD_DEFAULT,
            reserved_cycles_limit: crate::limits::RESERVED_CYCLES_LIMIT_DEFAULT,
            wasm_memory_limit: crate::limits::WASM_MEMORY_LIMIT_DEFAULT,
            wasm_memory_threshold: Bytes::ZERO,
            log_visibility: Visibility::Controllers,
            snapshot_visibility: Visibility::Controllers,
            status_visibility: Visibility::Controllers,
            minimum_incoming_canister_call_cycles: Cycles::ZERO,
            log_memory_limit: crate::limits::LOG_BYTES_DEFAULT,
            environment_variables: BTreeMap::new(),
        }
    }
}

/// The settings of a canister. Copies share one piece, and so do canisters that were given the same settings lately: most have the same.
#[derive(Clone, Debug, PartialEq, Eq, Component)]
pub struct SharedSettings(Arc<Settings>);

/// Settings that somebody was given lately, the newest last.
static RECENT: Mutex<VecDeque<Arc<Settings>>> = Mutex::new(VecDeque::new());
const RECENT_MAX: usize = 16;

impl Default for SharedSettings {
    fn default() -> Self {
        Settings::default().into()
    }
}

impl From<Settings> for SharedSettings {
    fn from(settings: Settings) -> Self {
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = recent.iter().find(|recent| ***recent == settings) {
            return Self(Arc::clone(same));
        }
        let new = Arc::new(settings);
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&new));
        Self(new)
    }
}

impl Deref for SharedSettings {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.0
    }
}

/// Who changes a setting has settings of its own from then on.
impl DerefMut for SharedSettings {
    fn deref_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.0)
    }
}

/// Messages waiting for the canister, oldest first, and the system's tasks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component)]
pub struct InputQueue {
    /// Pooled message entities, in the order of induction.
    pub messages: VecDeque<MessageIx>,
    /// Tasks due, each at most once.
    pub tasks: VecDeque<SystemTask>,
    /// Requests that wait here, by caller; at most `limits::QUEUE_SLOTS_MAX` each.
    pub requests: BTreeMap<CanisterId, u32>,
    /// Ingress messages that wait here, at most `limits::INGRESS_QUEUE_MAX`.
    pub ingress: u32,
}

/// A function of the canister's table and the environment to call it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmClosure {
    /// Index in table 0.
    pub function: u64,
    /// Passed to it.
    pub env: u64,
}

/// Who waits for a call context's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallOrigin {
    /// A user's update call.
    Ingress {
        /// The message to answer.
        id: MessageId,
        /// The user.
        sender: Principal,
        /// Method called.
        method: String,
    },
    /// A canister's call.
    Canister {
        /// Who called.
        caller: CanisterId,
        /// Its callback.
        callback: CallbackId,
        /// Guaranteed or best-effort.
        kind: CallKind,
        /// Method called.
        method: String,
    },
    /// Nobody: a heartbeat, timer or other task.
    Task(SystemTask),
}

/// A call being served, from its start until it is answered and no calls of its own are outstanding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// Who waits.
    pub origin: CallOrigin,
    /// Whether it has been answered.
    pub responded: bool,
    /// Cycles that came with the call and were not yet accepted.
    pub available: Cycles,
    /// Callbacks not yet run.
    pub outstanding: u32,
    /// Instructions of all messages so far (performance counter 1).
    pub instructions: Instructions,
    /// Block time at the start.
    pub created: Time,
    /// Set when the canister was uninstalled: responses are dropped.
    pub deleted: bool,
}

/// What runs when a response comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// The call context it belongs to.
    pub context: CallContextId,
    /// The canister called.
    pub callee: CanisterId,
    /// Cycles attached to the call.
    pub payment: Cycles,
    /// Prepaid for the response's execution, refunded when less is used.
    pub prepaid_execution: Cycles,
    /// Whether that was at the price of a 64-bit module.
    pub prepaid_wasm64: bool,
    /// Prepaid for the response's transmission, likewise.
    pub prepaid_transmission: Cycles,
    /// On a reply.
    pub on_reply: WasmClosure,
    /// On a reject.
    pub on_reject: WasmClosure,
    /// If the chosen one traps.
    pub on_cleanup: Option<WasmClosure>,
    /// Guaranteed or best-effort.
    pub kind: CallKind,
}

/// A canister's open calls, served and made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct CallContexts {
    /// Being served.
    pub contexts: BTreeMap<CallContextId, CallContext>,
    /// Made, response not yet run.
    pub callbacks: BTreeMap<CallbackId, Callback>,
    /// Next context's number.
    pub next_context: u64,
    /// Next callback's number.
    pub next_callback: u64,
}

impl CallContexts {
    /// Takes a context out. A canister that serves nothing holds no memory for it.
    pub fn take_context(&mut self, id: CallContextId) -> Option<CallContext> {
        take(&mut self.contexts, &id)
    }

    /// Takes a callback out, likewise.
    pub fn take_callback(&mut self, id: CallbackId) -> Option<Callback> {
        take(&mut self.callbacks, &id)
    }

    /// Drops the contexts that wait for no callback.
    pub fn drop_finished(&mut self) {
        self.contexts.retain(|_, context| context.outstanding > 0);
        free_if_empty(&mut self.contexts);
    }
}

/// Takes an entry out of a map, and frees the map's memory with the last: a tree that has held something keeps room for eleven entries.
pub fn take<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K) -> Option<V> {
    let taken = map.remove(key);
    free_if_empty(map);
    taken
}

fn free_if_empty<K, V>(map: &mut BTreeMap<K, V>) {
    if map.is_empty() {
        *map = BTreeMap::new();
    }
}

/// One line of a canister's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Counts up and is never reused.
    pub index: u64,
    /// Block time.
    pub time: Time,
    /// Bytes as printed.
    #[serde(with = "serde_bytes")]
    pub content: Vec<u8>,
}

impl LogRecord {
    /// Bytes that a record counts for besides its content: two numbers and a list, so that empty lines are not free.
    /// Source: dfinity/ic `types/src/canister_log.rs`, which counts the size of the record in memory.
    pub const OVERHEAD: u64 = 40;

    /// Bytes that a record with such a content counts for.
    pub const fn counted(content: &[u8]) -> u64 {
        Self::OVERHEAD + content.len() as u64
    }
}

/// The canister's newest log lines, oldest first, within its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct CanisterLog {
    /// Kept lines.
    pub records: VecDeque<LogRecord>,
    /// Next line's number.
    pub next_index: u64,
    /// Bytes that the kept lines count for: [`LogRecord::counted`].
    pub bytes: u64,
}

impl CanisterLog {
    /// Adds a line. The caller trims the log when it has added all.
    pub fn push(&mut self, time: Time, content: Vec<u8>) {
        self.bytes += LogRecord::counted(&content);
        self.records.push_back(LogRecord { index: self.next_index, time, content });
        self.next_index += 1;
    }

    /// Drops the oldest lines beyond `limit`.
    pub fn trim(&mut self, limit: Bytes) {
        while self.bytes > limit.0 && self.drop_oldest() {}
    }

    /// Drops all but the newest `count` lines.
    pub fn keep_newest(&mut self, count: usize) {
        while self.records.len() > count && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(record) = self.records.pop_front() else { return false };
        self.bytes -= LogRecord::counted(&record.content);
        true
    }
}

/// Chunks of Wasm waiting for `install_chunked_code`, by SHA-256.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct ChunkStore(#[serde(with = "chunks")] pub BTreeMap<[u8; 32], Vec<u8>>);

/// Bytes as bytes, not as lists of numbers.
mod chunks {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::{ByteArray, ByteBuf, Bytes};
    use std::collections::BTreeMap;

    pub fn serialize<S: Serializer>(chunks: &BTreeMap<[u8; 32], Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(chunks.iter().map(|(hash, chunk)| (Bytes::new(hash), Bytes::new(chunk))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<[u8; 32], Vec<u8>>, D::Error> {
        let chunks = BTreeMap::<ByteArray<32>, ByteBuf>::deserialize(from)?;
        Ok(chunks.into_iter().map(|(hash, chunk)| (hash.into_array(), chunk.into_vec())).collect())
    }
}

/// Who changed a canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeOrigin {
    /// A user.
    User(Principal),
    /// A canister, at its version if it said so.
    Canister {
        /// The canister.
        id: CanisterId,
        /// `sender_canister_version`.
        version: Option<u64>,
    },
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeDetails {
    /// Created, with these controllers and a hash of environment variables if any were set.
    Creation {
        /// Controllers at creation.
        controllers: Vec<Principal>,
        /// SHA-256 over the variables.
        environment_hash: Option<[u8; 32]>,
    },
    /// Code removed.
    CodeUninstall,
    /// Code put in.
    CodeDeployment {
        /// `install`, `reinstall` or `upgrade`.
        mode: InstallMode,
        /// SHA-256 of the module as given.
        module_hash: [u8; 32],
    },
    /// Controllers changed.
    ControllersChange {
        /// The new ones.
        controllers: Vec<Principal>,
    },
    /// Settings changed, controllers and environment given where they did.
    SettingsChange {
        /// New controllers.
        controllers: Option<Vec<Principal>>,
        /// SHA-256 over the variables.
        environment_hash: Option<[u8; 32]>,
    },
}

/// How code is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallMode {
    /// Into an empty canister.
    Install,
    /// In place of all state.
    Reinstall,
    /// Keeping stable memory, with the upgrade hooks.
    Upgrade,
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Block time.
    pub time: Time,
    /// Version after the change.
    pub version: u64,
    /// By whom.
    pub origin: ChangeOrigin,
    /// What.
    pub details: ChangeDetails,
}

/// The newest changes, oldest first, at most `limits::HISTORY_MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct CanisterHistory {
    /// Kept entries.
    pub changes: VecDeque<Change>,
    /// All changes ever.
    pub total: u64,
    /// When the canister was created.
    pub created: Option<Time>,
    /// When code was last put in; none while there is no code.
    pub installed: Option<Time>,
}

/// What the scheduler remembers of a canister.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, Serialize, Deserialize)]
pub struct Priority {
    /// Grows with the compute allocation each round it waits, falls when it gets a full round.
    pub accumulated: i64,
    /// Height of the last round in which all its messages, or a whole slice, ran.
    pub last_full_round: u64,
    /// Height of the round in which its long message was first suspended; zero when it has none.
    pub long_since: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canisters_with_the_same_settings_share_them_until_one_changes_its_own() {
        let given = || Settings { compute_allocation: 7, ..Settings::default() };
        let (a, mut b) = (SharedSettings::from(given()), SharedSettings::from(given()));
        assert!(Arc::ptr_eq(&a.0, &b.0));
        b.compute_allocation = 8;
        assert_eq!((a.compute_allocation, b.compute_allocation), (7, 8));
        assert_eq!(*SharedSettings::from(given()), given(), "what others are given is what they ask for");
        // However many there are, few are remembered.
        for percent in 0..RECENT_MAX as u64 * 2 {
            let settings = Settings { compute_allocation: percent, ..Settings::default() };
            assert_eq!(*SharedSettings::from(settings.clone()), settings);
        }
        assert_eq!(RECENT.lock().unwrap().len(), RECENT_MAX);
    }
}
