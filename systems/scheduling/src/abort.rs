//! Suspended messages at the end of a round: a few may stay, at a checkpoint none.

use crate::order::{Cores, Installing};
use cyclotron_execution::{CanisterData, CanisterMut, Paused, abort};
use cyclotron_routing::{ActiveSet, Directory, Input};
use cyclotron_types::ids::CanisterId;
use cyclotron_world::prelude::*;

/// Aborts suspended messages: all of them if the batch asks for a checkpoint, otherwise those beyond the limit, so that the canisters that
/// come first in the order of their ids keep theirs. An aborted message runs again from its start, at the same charge.
pub fn abort_suspended(
    input: Res<Input>,
    cores: Res<Cores>,
    active: Res<ActiveSet>,
    installing: Res<Installing>,
    directory: Res<Directory>,
    mut canisters: Query<CanisterData>,
) {
    let keep = if input.0.checkpoint { 0 } else { cores.paused_max };
    let mut suspended = 0;
    let candidates: Vec<CanisterId> = active.iter().map(|(id, _)| id).chain(installing.0.keys().copied()).collect();
    for id in candidates {
        let Some(data) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) else { continue };
        let mut canister = CanisterMut::from(data);
        if matches!(canister.paused, Paused::Suspended(_)) {
            suspended += 1;
            if suspended > keep {
                abort(&mut canister);
            }
        }
    }
}
