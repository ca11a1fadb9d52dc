//! Heartbeats and timers: tasks of the system, queued when they are due, never by a scan over idle canisters.

use cyclotron_routing::{ActiveSet, CurrentRound, Directory, Timers};
use cyclotron_types::canister::{InputQueue, RunState};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::SystemTask;
use cyclotron_world::prelude::*;
use std::collections::BTreeSet;

/// Canisters whose module exports `canister_heartbeat`.
#[derive(Clone, Debug, Default, Resource)]
pub struct Heartbeats(pub BTreeSet<CanisterId>);

/// Queues a heartbeat for every running canister that has one, and the timers that are due.
/// Cost: O(heartbeats + due timers).
///
/// Spec: ic-interface-spec #heartbeat, #global-timer.
pub fn queue_due_tasks(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    heartbeats: Res<Heartbeats>,
    mut timers: ResMut<Timers>,
    mut active: ResMut<ActiveSet>,
    mut queues: Query<(&mut InputQueue, &RunState)>,
) {
    let mut queue = |id: CanisterId, task: SystemTask| {
        let Some(ix) = directory.ix(id) else { return };
        let Some((mut queue, state)) = directory.entity(id).and_then(|e| queues.get_mut(e).ok()) else { return };
        // Nobody waits for a task: one that is still queued is enough, and a canister that is not running has none.
        if *state == RunState::Running && !queue.tasks.contains(&task) {
            queue.tasks.push_back(task);
            active.insert(id, ix);
        }
    };
    for &id in &heartbeats.0 {
        queue(id, SystemTask::Heartbeat);
    }
    while let Some(id) = timers.0.pop_due(round.0.time) {
        queue(id, SystemTask::GlobalTimer);
    }
}
