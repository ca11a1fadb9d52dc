//! A canister as readers see it: its components, borrowed together and unchanged.

use super::method::Guarded;
use crate::{CanisterMut, Program};
use cyclotron_types::canister::{
    CanisterHistory, CanisterLog, CanisterVersion, ChunkStore, Controllers, CyclesBalance, ReservedBalance, RunState,
    Settings,
};
use cyclotron_types::ids::CanisterId;

/// All components that the read-only methods look at.
#[derive(Clone, Copy, Debug)]
pub struct CanisterView<'a> {
    /// Its name.
    pub id: CanisterId,
    /// Who manages it.
    pub controllers: &'a Controllers,
    /// Its settings.
    pub settings: &'a Settings,
    /// Its cycles.
    pub balance: CyclesBalance,
    /// Cycles reserved for storage.
    pub reserved: ReservedBalance,
    /// Its version.
    pub version: CanisterVersion,
    /// Whether it takes messages.
    pub run_state: &'a RunState,
    /// Its log.
    pub log: &'a CanisterLog,
    /// Its chunks.
    pub chunks: &'a ChunkStore,
    /// Its history.
    pub history: &'a CanisterHistory,
    /// Its code.
    pub program: &'a Program,
}

impl CanisterView<'_> {
    /// What the caller rules look at.
    pub fn guarded(&self) -> Guarded<'_> {
        Guarded { id: self.id, controllers: self.controllers, settings: self.settings }
    }
}

impl<'a> From<&'a CanisterMut<'_>> for CanisterView<'a> {
    fn from(canister: &'a CanisterMut<'_>) -> Self {
        Self {
            id: canister.id,
            controllers: canister.controllers,
            settings: canister.settings,
            balance: *canister.balance,
            reserved: *canister.reserved,
            version: *canister.version,
            run_state: canister.run_state,
            log: canister.log,
            chunks: canister.chunks,
            history: canister.history,
            program: canister.program,
        }
    }
}
