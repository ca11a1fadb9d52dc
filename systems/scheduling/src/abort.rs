//! Suspended messages at the end of a round: a few may stay, at a checkpoint none.

use crate::order::{Cores, Installing, rank_long};
use cyclotron_execution::management::PendingInstall;
use cyclotron_execution::{CanisterData, CanisterMut, Paused, abort};
use cyclotron_routing::{ActiveSet, Directory, Input};
use cyclotron_types::canister::Priority;
use cyclotron_types::ids::CanisterId;
use cyclotron_world::prelude::*;

/// Aborts suspended messages and installations: all of them if the batch asks for a checkpoint, otherwise those of each kind beyond the
/// limit, last in rank first. An aborted message runs again from its start, at the same charge.
pub fn abort_suspended(
    input: Res<Input>,
    cores: Res<Cores>,
    active: Res<ActiveSet>,
    installing: Res<Installing>,
    directory: Res<Directory>,
    mut canisters: Query<(CanisterData, &Priority)>,
) {
    let mut suspended = Vec::new();
    for (id, _) in active.iter() {
        let Some((data, priority)) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) else { continue };
        if matches!(CanisterMut::from(data).paused, Paused::Suspended(_)) {
            suspended.push(rank_long(id, priority));
        }
    }
    suspended.sort_unstable();
    let keep = if input.0.checkpoint { 0 } else { cores.paused_max };
    let beyond = suspended.into_iter().skip(keep).map(|(_, _, id)| id);
    let mut installs: Vec<_> = installing.0.values().map(PendingInstall::rank).collect();
    installs.sort_unstable();
    let installs = installs.into_iter().skip(keep).map(|(_, id)| id);
    let aborted: Vec<CanisterId> = beyond.chain(installs).collect();
    for id in aborted {
        let data = directory.entity(id).and_then(|e| canisters.get_mut(e).ok());
        let (data, _) = data.expect("a canister with a suspended message exists");
        abort(&mut CanisterMut::from(data));
    }
}
