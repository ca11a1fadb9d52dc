//! What all canisters hold of the subnet together, kept as a running sum over those that changed.

use cyclotron_execution::management::SubnetUse;
use cyclotron_execution::{CanisterData, CanisterMut, Program, due};
use cyclotron_routing::{CurrentRound, Directory, Dues, StopDeadlines, Timers, Touched};
use cyclotron_scheduling::Heartbeats;
use cyclotron_types::canister::{RunState, StopWaiter};
use cyclotron_types::limits::STOP_TIMEOUT;
use cyclotron_types::units::{Bytes, Time};
use cyclotron_wasm::decode::SystemMethod;
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

/// What a canister holds of the subnet: allocations count in full.
pub fn use_of(canister: &CanisterMut<'_>) -> SubnetUse {
    SubnetUse {
        memory: canister.memory_used().max(canister.settings.memory_allocation),
        compute: canister.settings.compute_allocation,
    }
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
        timers.0.set(id, (canister.timer.0 != Time::ZERO).then_some(canister.timer.0));
        dues.0.set(id, due(&round.0.subnet.fees, &canister));
        stops.0.set(id, stop_deadline(canister.run_state));
        if has_heartbeat(canister.program) {
            heartbeats.0.insert(id);
        } else {
            heartbeats.0.remove(&id);
        }
    }
}

fn has_heartbeat(program: &Program) -> bool {
    program.installed().is_some_and(|installed| installed.system_method(SystemMethod::Heartbeat).is_some())
}

/// When the one who has waited longest for the canister to stop gives up.
fn stop_deadline(state: &RunState) -> Option<Time> {
    let RunState::Stopping(waiters) = state else { return None };
    let since = waiters.iter().map(|waiter| match waiter {
        StopWaiter::Ingress { since, .. } | StopWaiter::Canister { since, .. } => *since,
    });
    since.min().map(|since| since.plus(STOP_TIMEOUT))
}
