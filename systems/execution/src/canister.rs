//! A canister as the kernel sees it: its components, borrowed together.
//!
//! Enters: components of `cyclotron_types::canister` and those defined here. Leaves: [`CanisterMut`]. Never here: the world.

use crate::job::{INSTALLATION, JobName};
use crate::machine::Installed;
use crate::management::history_memory;
use crate::message::install::Installing;
use crate::message::{Aborted, Suspended};
use bevy_ecs::component::Component;
use bevy_ecs::query::QueryData;
use cyclotron_heap::StableMemory;
use cyclotron_types::canister::{
    CallContexts, CanisterHistory, CanisterLog, CanisterVersion, CertifiedData, ChunkStore, Controllers, CyclesBalance,
    GlobalTimer, PaidUntil, ReservedBalance, RunState, SharedSettings,
};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::CHUNK_BYTES_MAX;
use cyclotron_types::units::Bytes;
use cyclotron_wasm::decode::SystemMethod;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The code of a canister and its memories.
#[derive(Debug, Default, Component)]
pub enum Program {
    /// No code.
    #[default]
    Empty,
    /// Code installed.
    Installed(Box<Installed>),
}

impl Program {
    /// Bytes of heap, stable memory and module.
    pub fn memory_used(&self) -> Bytes {
        match self {
            Self::Empty => Bytes::ZERO,
            Self::Installed(installed) => installed.memory_used(),
        }
    }

    /// Starts a new account of the pages that change in the memories.
    pub fn forget_dirty_pages(&mut self) {
        if let Self::Installed(installed) = self {
            let (heap, stable) = installed.memories_mut();
            heap.take_dirty();
            stable.map(StableMemory::take_dirty);
        }
    }

    /// Gives the memory of pages back that a checkpoint keeps. False when there was none to give.
    pub fn release_memory(&mut self) -> bool {
        let Self::Installed(installed) = self else { return false };
        let (heap, stable) = installed.memories_mut();
        // Both are asked.
        heap.release() | stable.is_some_and(StableMemory::release)
    }

    /// The module at work, if there is one.
    pub fn installed(&self) -> Option<&Installed> {
        match self {
            Self::Empty => None,
            Self::Installed(installed) => Some(installed),
        }
    }

    /// SHA-256 of the module as it was given.
    pub fn module_hash(&self) -> Option<&[u8; 32]> {
        self.installed().map(|installed| &installed.module_hash)
    }

    /// Whether the module exports `canister_heartbeat`.
    pub fn has_heartbeat(&self) -> bool {
        self.installed().is_some_and(|installed| installed.system_method(SystemMethod::Heartbeat).is_some())
    }

    /// Whether the module exports `canister_global_timer`.
    pub fn has_global_timer(&self) -> bool {
        self.installed().is_some_and(|installed| installed.system_method(SystemMethod::GlobalTimer).is_some())
    }
}

/// A message that did not fit into its slice.
#[derive(Debug, Default, Component)]
pub enum Paused {
    /// None.
    #[default]
    None,
    /// Suspended in the middle; the next slice continues.
    Suspended(Box<Suspended>),
    /// Aborted; the next slice starts over, at the same charge.
    Aborted(Box<Aborted>),
    /// Code is being put in, suspended or aborted.
    Installing(Box<Installing>),
}

impl Paused {
    /// What of the canister the unfinished message runs; none for an installation, which is the management canister's.
    pub fn name(&self) -> Option<JobName> {
        match self {
            Self::None | Self::Installing(_) => None,
            Self::Suspended(suspended) => Some(suspended.name()),
            Self::Aborted(aborted) => Some(aborted.job.name()),
        }
    }

    /// The same as text; of an installation too.
    pub fn label(&self) -> &str {
        match self {
            Self::None => "",
            Self::Installing(_) => INSTALLATION,
            Self::Suspended(suspended) => suspended.label(),
            Self::Aborted(aborted) => aborted.job.label(),
        }
    }
}

/// Calls made and not yet answered, by callee. Derived from [`CallContexts`]; kept apart so that a message can carry it along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Component)]
pub struct OpenCalls(Option<Arc<BTreeMap<CanisterId, u32>>>);

impl OpenCalls {
    /// How many calls to `callee` are open.
    pub fn to(&self, callee: CanisterId) -> u32 {
        self.0.as_ref().and_then(|open| open.get(&callee).copied()).unwrap_or(0)
    }

    /// A call is made.
    pub fn open(&mut self, callee: CanisterId) {
        *Arc::make_mut(self.0.get_or_insert_default()).entry(callee).or_default() += 1;
    }

    /// A call has been answered. Who has made none holds no memory for it.
    pub fn close(&mut self, callee: CanisterId) {
        let Some(open) = &mut self.0 else { return };
        let open = Arc::make_mut(open);
        if let Some(count) = open.get_mut(&callee) {
            *count -= 1;
            if *count == 0 {
                open.remove(&callee);
            }
        }
        if open.is_empty() {
            self.0 = None;
        }
    }
}

impl serde::Serialize for OpenCalls {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        static NONE: BTreeMap<CanisterId, u32> = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE).serialize(serializer)
    }
}

/// Whether `canister_on_low_wasm_memory` is to run. Spec: #rule-on-low-wasm-memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component, serde::Serialize, serde::Deserialize)]
pub enum LowMemoryHook {
    /// There is memory enough.
    #[default]
    NotSatisfied,
    /// The threshold has been crossed; it runs before the next message.
    Ready,
    /// It ran; it will not run again before there was memory enough.
    Executed,
}

/// All components of one canister, borrowed mutably. Made from [`CanisterData`] or field by field.
#[derive(Debug)]
pub struct CanisterMut<'a> {
    /// Its name.
    pub id: CanisterId,
    /// Who manages it.
    pub controllers: &'a mut Controllers,
    /// Its cycles.
    pub balance: &'a mut CyclesBalance,
    /// Cycles reserved for storage.
    pub reserved: &'a mut ReservedBalance,
    /// Its version.
    pub version: &'a mut CanisterVersion,
    /// What it certifies.
    pub certified_data: &'a mut CertifiedData,
    /// Its timer.
    pub timer: &'a mut GlobalTimer,
    /// How far storage is paid.
    pub paid_until: &'a mut PaidUntil,
    /// Whether it takes messages.
    pub run_state: &'a mut RunState,
    /// Its settings.
    pub settings: &'a mut SharedSettings,
    /// Calls served and made.
    pub contexts: &'a mut CallContexts,
    /// Calls made, by callee.
    pub open_calls: &'a mut OpenCalls,
    /// Its log.
    pub log: &'a mut CanisterLog,
    /// Its chunks.
    pub chunks: &'a mut ChunkStore,
    /// Its history.
    pub history: &'a mut CanisterHistory,
    /// Its low-memory hook.
    pub low_memory: &'a mut LowMemoryHook,
    /// Its code.
    pub program: &'a mut Program,
    /// Its unfinished message.
    pub paused: &'a mut Paused,
}

impl CanisterMut<'_> {
    /// Bytes that the canister stores: heap, stable memory, module, history, chunks. Spec: the memory_usage_* functions.
    ///
    /// Cost: O(history), at most [`cyclotron_types::limits::HISTORY_MAX`] entries.
    pub fn memory_used(&self) -> Bytes {
        memory_used(self.program, self.chunks, self.history)
    }
}

fn memory_used(program: &Program, chunks: &ChunkStore, history: &CanisterHistory) -> Bytes {
    let chunks = chunks.0.len() as u64 * CHUNK_BYTES_MAX as u64;
    Bytes(program.memory_used().0 + chunks + history_memory(history).0)
}

/// What a bevy query must fetch for a [`CanisterMut`].
#[derive(QueryData)]
#[query_data(mutable)]
pub struct CanisterData {
    id: &'static CanisterId,
    controllers: &'static mut Controllers,
    balance: &'static mut CyclesBalance,
    reserved: &'static mut ReservedBalance,
    version: &'static mut CanisterVersion,
    certified_data: &'static mut CertifiedData,
    timer: &'static mut GlobalTimer,
    paid_until: &'static mut PaidUntil,
    run_state: &'static mut RunState,
    settings: &'static mut SharedSettings,
    contexts: &'static mut CallContexts,
    open_calls: &'static mut OpenCalls,
    log: &'static mut CanisterLog,
    chunks: &'static mut ChunkStore,
    history: &'static mut CanisterHistory,
    low_memory: &'static mut LowMemoryHook,
    program: &'static mut Program,
    paused: &'static mut Paused,
}

impl<'a> From<CanisterDataItem<'a, '_>> for CanisterMut<'a> {
    /// Does not touch bevy's change ticks: who writes a canister lists it as touched.
    fn from(item: CanisterDataItem<'a, '_>) -> Self {
        fn plain<'a, T: ?Sized>(m: bevy_ecs::change_detection::Mut<'a, T>) -> &'a mut T {
            m.into_inner()
        }
        Self {
            id: *item.id,
            controllers: plain(item.controllers),
            balance: plain(item.balance),
            reserved: plain(item.reserved),
            version: plain(item.version),
            certified_data: plain(item.certified_data),
            timer: plain(item.timer),
            paid_until: plain(item.paid_until),
            run_state: plain(item.run_state),
            settings: plain(item.settings),
            contexts: plain(item.contexts),
            open_calls: plain(item.open_calls),
            log: plain(item.log),
            chunks: plain(item.chunks),
            history: plain(item.history),
            low_memory: plain(item.low_memory),
            program: plain(item.program),
            paused: plain(item.paused),
        }
    }
}

/// The components that a new canister's entity carries besides [`CanisterId`] and what other systems add.
#[derive(Debug, Default, bevy_ecs::bundle::Bundle)]
pub struct CanisterBundle {
    /// Who manages it.
    pub controllers: Controllers,
    /// Its cycles.
    pub balance: CyclesBalance,
    /// Cycles reserved for storage.
    pub reserved: ReservedBalance,
    /// Its version.
    pub version: CanisterVersion,
    /// What it certifies.
    pub certified_data: CertifiedData,
    /// Its timer.
    pub timer: GlobalTimer,
    /// How far storage is paid.
    pub paid_until: PaidUntil,
    /// Whether it takes messages.
    pub run_state: RunState,
    /// Its settings.
    pub settings: SharedSettings,
    /// Calls served and made.
    pub contexts: CallContexts,
    /// Calls made, by callee.
    pub open_calls: OpenCalls,
    /// Its log.
    pub log: CanisterLog,
    /// Its chunks.
    pub chunks: ChunkStore,
    /// Its history.
    pub history: CanisterHistory,
    /// Its low-memory hook.
    pub low_memory: LowMemoryHook,
    /// Its code.
    pub program: Program,
    /// Its unfinished message.
    pub paused: Paused,
}

impl CanisterBundle {
    /// Borrows the components, as outside of a world.
    pub fn borrow(&mut self, id: CanisterId) -> CanisterMut<'_> {
        CanisterMut {
            id,
            controllers: &mut self.controllers,
            balance: &mut self.balance,
            reserved: &mut self.reserved,
            version: &mut self.version,
            certified_data: &mut self.certified_data,
            timer: &mut self.timer,
            paid_until: &mut self.paid_until,
            run_state: &mut self.run_state,
            settings: &mut self.settings,
            contexts: &mut self.contexts,
            open_calls: &mut self.open_calls,
            log: &mut self.log,
            chunks: &mut self.chunks,
            history: &mut self.history,
            low_memory: &mut self.low_memory,
            program: &mut self.program,
            paused: &mut self.paused,
        }
    }
}
