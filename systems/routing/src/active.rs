//! The canisters that have something to do: work in proportion to what changed, never a scan.

use bevy_ecs::resource::Resource;
use cyclotron_types::ids::{CanisterId, CanisterIx};
use std::collections::BTreeMap;

/// Canisters with messages, tasks or a suspended execution, in protocol order.
#[derive(Clone, Debug, Default, Resource)]
pub struct ActiveSet {
    canisters: BTreeMap<CanisterId, CanisterIx>,
}

impl ActiveSet {
    /// Marks a canister as having work.
    pub fn insert(&mut self, id: CanisterId, ix: CanisterIx) {
        self.canisters.insert(id, ix);
    }
    /// The canister has no work left (or is gone).
    pub fn remove(&mut self, id: CanisterId) {
        self.canisters.remove(&id);
    }
    /// Whether the canister has work.
    pub fn contains(&self, id: CanisterId) -> bool {
        self.canisters.contains_key(&id)
    }
    /// All of them, ordered by canister id.
    pub fn iter(&self) -> impl Iterator<Item = (CanisterId, CanisterIx)> + '_ {
        self.canisters.iter().map(|(&id, &ix)| (id, ix))
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.canisters.len()
    }
    /// Whether nobody has work.
    pub fn is_empty(&self) -> bool {
        self.canisters.is_empty()
    }
}
