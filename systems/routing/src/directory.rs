//! The canisters of the subnet by their protocol name.

use bevy_ecs::entity::Entity;
use bevy_ecs::resource::Resource;
use cyclotron_types::ids::{CanisterId, CanisterIx};
use cyclotron_world::Rows;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Finds a canister's row and entity.
#[derive(Debug, Default, Resource)]
pub struct Directory {
    rows: Rows,
    by_id: BTreeMap<CanisterId, CanisterIx>,
}

impl Directory {
    /// Adds a canister.
    ///
    /// Panics: when the id is taken.
    pub fn insert(&mut self, id: CanisterId, entity: Entity) -> CanisterIx {
        let ix = CanisterIx(self.rows.insert(entity));
        let before = self.by_id.insert(id, ix);
        assert!(before.is_none(), "canister {id} exists already");
        ix
    }

    /// Removes a canister and returns its entity.
    pub fn remove(&mut self, id: CanisterId) -> Option<Entity> {
        let ix = self.by_id.remove(&id)?;
        self.rows.remove(ix.0)
    }

    /// The canister's row.
    pub fn ix(&self, id: CanisterId) -> Option<CanisterIx> {
        self.by_id.get(&id).copied()
    }

    /// The canister's entity.
    pub fn entity(&self, id: CanisterId) -> Option<Entity> {
        self.rows.get(self.ix(id)?.0)
    }

    /// The entity in a row.
    pub fn entity_at(&self, ix: CanisterIx) -> Option<Entity> {
        self.rows.get(ix.0)
    }

    /// All canisters in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (CanisterId, CanisterIx)> + '_ {
        self.by_id.iter().map(|(&id, &ix)| (id, ix))
    }

    /// The canisters in a range of ids, ascending, and their entities.
    pub fn range(&self, ids: impl RangeBounds<CanisterId>) -> impl Iterator<Item = (CanisterId, Entity)> + '_ {
        self.by_id.range(ids).filter_map(|(&id, ix)| Some((id, self.rows.get(ix.0)?)))
    }

    /// Number of canisters.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
