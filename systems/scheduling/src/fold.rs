//! Results of a step folded into the world, in the scheduler's order.

use crate::order::Cores;
use crate::run::{Profile, Results};
use cyclotron_routing::{
    ActiveSet, Answered, CurrentRound, Directory, IngressHistory, Outbox, Stopping, Tally, Touched,
};
use cyclotron_types::canister::RunState;
use cyclotron_types::message::{IngressStatus, Message};
use cyclotron_world::prelude::*;

/// Writes what canisters left to the resources of the round: messages to send, statuses, cycles burned, timers, canisters that became idle.
#[allow(clippy::too_many_arguments)]
pub fn fold_results(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    mut results: ResMut<Results>,
    mut cores: ResMut<Cores>,
    mut outbox: ResMut<Outbox>,
    mut history: ResMut<IngressHistory>,
    mut answered: ResMut<Answered>,
    mut active: ResMut<ActiveSet>,
    mut tally: ResMut<Tally>,
    mut touched: ResMut<Touched>,
    mut stopping: ResMut<Stopping>,
    mut pool: ResMut<Pool<Message>>,
    mut profile: ResMut<Profile>,
    canisters: Query<&RunState>,
) {
    let now = round.0.time;
    for mut result in results.0.drain(..) {
        let id = result.id;
        let entity = directory.entity(id).expect("a canister that ran exists");
        let run_state = canisters.get(entity).expect("a canister that ran has a run state");
        result.take_freed().into_iter().for_each(|slot| pool.release(slot.0));
        if result.suspended {
            cores.rested.insert(id);
        }
        profile.ran.append(&mut result.ran);
        tally.executed += result.effects.len() as u64;
        for effects in result.effects.drain(..) {
            outbox.0.extend(effects.outgoing);
            tally.burned = tally.burned.saturating_add(effects.burned);
            if effects.memory_taken > 0 {
                cores.grown.insert(id);
            }
            if effects.idle && matches!(run_state, RunState::Stopping(_)) {
                stopping.0.insert(id);
            }
            result.ingress.extend(effects.ingress);
        }
        for (id, status) in result.ingress.drain(..) {
            if status != IngressStatus::Processing {
                answered.0.push(id);
            }
            history.set(id, status, now);
        }
        touched.0.insert(id);
        if !result.has_work {
            active.remove(id);
        }
    }
}
