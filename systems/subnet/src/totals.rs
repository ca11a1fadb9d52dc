//! What all canisters hold of the subnet together, kept as a running sum over those that changed.

use cyclotron_execution::management::SubnetUse;
use cyclotron_execution::{CanisterData, CanisterMut, RoundEnv, affords_message, due};
use cyclotron_routing::{CurrentRound, Directory, Dues, StopDeadlines, Timers, Touched};
use cyclotron_scheduling::{Cores, Heartbeats};
use cyclotron_types::canister::{RunState, StopWaiter};
use cyclotron_types::limits::STOP_TIMEOUT;
use cyclotron_types::units::{Bytes, Seconds, Time};
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
        sum.state = Bytes(sum.state.0 - counted.0.state.0 + now.state.0);
        sum.compute = sum.compute - counted.0.compute + now.compute;
        counted.0 = now;
    }
}

/// What a canister holds of the subnet: allocations count in full.
pub fn use_of(canister: &CanisterMut<'_>) -> SubnetUse {
    let state = canister.memory_used();
    SubnetUse {
        memory: state.max(canister.settings.memory_allocation),
        state,
        compute: canister.settings.compute_allocation,
    }
}

/// Splits the subnet's free memory among the cores of the next step, what the last one took deducted. Cost: O(canisters that grew).
pub fn share_memory(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    mut cores: ResMut<Cores>,
    mut totals: ResMut<Totals>,
    mut canisters: Query<(CanisterData, &mut Counted)>,
) {
    for id in std::mem::take(&mut cores.grown) {
        if let Some((data, mut counted)) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) {
            totals.recount(&mut counted, use_of(&CanisterMut::from(data)));
        }
    }
    let free = round.0.subnet.limits.subnet_memory.saturating_sub(totals.0.memory);
    cores.memory_each = Bytes(free.0 / cores.count as u64);
}

/// Takes up everything that is kept about canisters outside of them: what they hold of the subnet, when their timers fire, when
/// they can no longer pay, who waits for them to stop, whether they have a heartbeat. Cost: O(touched log n).
#[allow(clippy::too_many_arguments)]
pub fn sync_touched(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    touched: Res<Touched>,
    mut totals: ResMut<Totals>,
    mut timers: ResMut<Timers>,
    mut dues: ResMut<Dues>,
    mut stops: ResMut<StopDeadlines>,
    mut heartbeats: ResMut<Heartbeats>,
    mut canisters: Query<(CanisterData, &mut Counted)>,
) {
    for &id in &touched.0 {
        let Some((data, mut counted)) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) else {
            timers.0.set(id, None);
            dues.0.set(id, None);
            stops.0.set(id, None);
            heartbeats.0.remove(&id);
            continue;
        };
        let canister = CanisterMut::from(data);
        totals.recount(&mut counted, use_of(&canister));
        timers.0.set(id, alarm(&round.0, &canister));
        dues.0.set(id, due(&round.0.subnet.fees, &canister));
        stops.0.set(id, stop_deadline(canister.run_state));
        if canister.program.has_heartbeat() {
            heartbeats.0.insert(id);
        } else {
            heartbeats.0.remove(&id);
        }
    }
}

/// When the canister's timer fires: never while there is no function to run. One that is due and that the canister cannot pay for is tried
/// again after a second of block time.
fn alarm(env: &RoundEnv, canister: &CanisterMut<'_>) -> Option<Time> {
    let at = canister.timer.0;
    let never = at == Time::ZERO || !canister.program.has_global_timer() || *canister.run_state != RunState::Running;
    match at {
        _ if never => None,
        at if at <= env.time && !affords_message(env, canister) => Some(env.time.plus(Seconds(1))),
        at => Some(at),
    }
}

/// When the one who has waited longest for the canister to stop gives up.
fn stop_deadline(state: &RunState) -> Option<Time> {
    let RunState::Stopping(waiters) = state else { return None };
    let since = waiters.iter().map(|waiter| match waiter {
        StopWaiter::Ingress { since, .. } | StopWaiter::Canister { since, .. } => *since,
    });
    since.min().map(|since| since.plus(STOP_TIMEOUT))
}
