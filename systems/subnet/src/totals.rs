//! What all canisters hold of the subnet together, kept as a running sum over those that changed.

use cyclotron_execution::management::SubnetUse;
use cyclotron_execution::{CanisterData, CanisterMut};
use cyclotron_routing::{Directory, Touched};
use cyclotron_types::units::Bytes;
use cyclotron_world::prelude::*;

/// What a canister was last counted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Component)]
pub struct Counted(pub SubnetUse);

/// The sum over all canisters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Resource)]
pub struct Totals(pub SubnetUse);

impl Totals {
    /// Takes up that a canister holds `now` instead of what it was counted with.
    pub fn recount(&mut self, counted: &mut Counted, now: SubnetUse) {
        let sum = &mut self.0;
        sum.memory = Bytes(sum.memory.0 - counted.0.memory.0 + now.memory.0);
        sum.compute = sum.compute - counted.0.compute + now.compute;
        counted.0 = now;
    }
}

/// Counts the canisters that were touched in this round anew. Cost: O(touched).
pub fn count_touched(
    directory: Res<Directory>,
    touched: Res<Touched>,
    mut totals: ResMut<Totals>,
    mut canisters: Query<(CanisterData, &mut Counted)>,
) {
    for &id in &touched.0 {
        let Some((data, mut counted)) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) else { continue };
        totals.recount(&mut counted, SubnetUse::of(&CanisterMut::from(data)));
    }
}
