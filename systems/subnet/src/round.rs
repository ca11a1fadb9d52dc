//! One round on one page.
//!
//! ```text
//! Batch -> time_out -> induct -> [ manage -> share memory -> schedule -> execute -> induct_local ]* -> (checkpoint) -> sync -> certify -> CertifiedView
//! ```

use crate::observe::{show_logs, show_runs, stage_ended};
use crate::{actions, certify, management, totals};
use cyclotron_routing as routing;
use cyclotron_scheduling as scheduling;
use cyclotron_world::prelude::*;

/// The schedule of the Replicated world, run once for each batch.
#[derive(ScheduleLabel, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Round;

/// The part of a round that repeats until nobody has work or budget left.
#[derive(ScheduleLabel, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InnerRound;

/// The stages of a round, in their order.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoundSet {
    /// What waits no longer: old statuses, best-effort calls, stops, unpaid canisters.
    TimeOut,
    /// The batch enters: operator actions, ingress, heartbeats and timers.
    Induct,
    /// Canisters run, and what they send each other is delivered, until nothing is left to do in this round.
    Execute,
    /// At a checkpoint height suspended executions are aborted, otherwise only those beyond the limit.
    Checkpoint,
    /// What is kept about canisters outside of them follows what changed.
    Sync,
    /// What the outside sees takes up what changed, and the state tree's root is signed.
    Certify,
}

/// Builds the schedule of a round.
pub fn round() -> Schedule {
    use RoundSet::{Certify, Checkpoint, Execute, Induct, Sync, TimeOut};
    let mut schedule = round_schedule(Round);
    schedule.configure_sets((TimeOut, Induct, Execute, Checkpoint, Sync, Certify).chain());
    schedule.add_systems(
        (
            routing::forget_statuses,
            routing::reserve_slots,
            routing::time_out_calls,
            management::time_out_stops,
            management::settle_due,
        )
            .chain()
            .in_set(TimeOut),
    );
    schedule.add_systems(
        (actions::apply_actions, routing::induct_ingress, scheduling::queue_due_tasks).chain().in_set(Induct),
    );
    schedule.add_systems((scheduling::begin_round, run_inner_rounds, scheduling::end_round).chain().in_set(Execute));
    schedule.add_systems((totals::sync_touched, scheduling::free_seats, show_logs, show_runs).chain().in_set(Sync));
    schedule.add_systems(scheduling::abort_suspended.in_set(Checkpoint));
    schedule.add_systems((certify::note_changes, certify::certify).chain().in_set(Certify));
    schedule.add_systems((
        stage_ended::<0>.after(TimeOut).before(Induct),
        stage_ended::<1>.after(Induct).before(Execute),
        stage_ended::<2>.after(Execute).before(Checkpoint),
        stage_ended::<3>.after(Checkpoint).before(Sync),
        stage_ended::<4>.after(Sync).before(Certify),
        stage_ended::<5>.after(Certify),
    ));
    schedule
}

/// Builds the schedule that repeats.
pub fn inner_round() -> Schedule {
    let mut schedule = round_schedule(InnerRound);
    schedule.add_systems(
        (
            management::run_management,
            totals::share_memory,
            scheduling::choose_canisters,
            scheduling::execute_canisters,
            scheduling::fold_results,
            routing::reserve_slots,
            routing::deliver_outbox,
        )
            .chain(),
    );
    schedule
}

/// Repeats [`InnerRound`] until no canister was chosen and nothing is on its way.
fn run_inner_rounds(world: &mut World) {
    loop {
        world.run_schedule(InnerRound);
        let ran = world.resource::<scheduling::Cores>().chosen.iter().any(|core| !core.is_empty());
        let management = world.resource::<management::ManagementRound>().left > 0;
        let calls = management && !world.resource::<routing::ManagementInbox>().0.is_empty();
        let stopping = !world.resource::<routing::Stopping>().0.is_empty();
        if !ran && !calls && !stopping {
            return;
        }
    }
}
