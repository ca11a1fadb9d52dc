//! A window on rounds for people: when stages end, and what canisters print.
//!
//! Enters: nothing. Leaves: calls of a [`RoundObserver`], which may read a clock. Never here: an effect on the round; nothing that an
//! observer does is ever read back.

use crate::pool::IngressPool;
use crate::round::RoundSet;
use crate::totals::Totals;
use cyclotron_routing::{ActiveSet, Directory, IngressHistory, ManagementInbox, Touched};
use cyclotron_scheduling::{Profile, Ran};
use cyclotron_trace::plot;
use cyclotron_types::canister::{CanisterLog, LogRecord};
use cyclotron_types::ids::CanisterId;
use cyclotron_world::prelude::*;
use std::collections::BTreeMap;

/// Watches rounds: metrics, the console.
pub trait RoundObserver: Send + Sync {
    /// A round begins, and with it its first stage.
    fn round_begun(&mut self);
    /// A stage has ended; the next one begins.
    fn stage_ended(&mut self, stage: RoundSet);
    /// Whether to be told what ran: noting it costs a little for each message.
    fn wants_profile(&self) -> bool {
        false
    }
    /// A slice of a message has run. Those of one round come in the order in which their effects were taken up.
    fn message_ran(&mut self, _: Ran) {}
    /// A canister has printed a line, or trapped. Lines of one round come in the order of the canisters' ids.
    fn canister_logged(&mut self, canister: CanisterId, line: &LogRecord);
}

/// Ends a profiler's frame, and shows it what waits now, and for how much memory canisters stand. Cost: nothing while none is connected.
pub fn end_frame(world: &World, pool: &IngressPool) {
    plot!("ingress pool, messages", || pool.len() as u64);
    plot!("ingress history, messages", || world.resource::<IngressHistory>().len() as u64);
    plot!("canisters with work", || world.resource::<ActiveSet>().len() as u64);
    plot!("management calls waiting", || world.resource::<ManagementInbox>().0.len() as u64);
    plot!("memory of canisters, bytes", || world.resource::<Totals>().0.memory.0);
    cyclotron_trace::end_frame();
}

/// The stages in their order; [`stage_ended`] names one by its place.
const STAGES: [RoundSet; 6] =
    [RoundSet::TimeOut, RoundSet::Induct, RoundSet::Execute, RoundSet::Checkpoint, RoundSet::Sync, RoundSet::Certify];

/// Who watches, if anybody does. Local to the process: no part of the state.
#[derive(Default, Resource)]
pub struct Observer {
    watcher: Option<Box<dyn RoundObserver>>,
    /// The next line of each canister that has not been shown.
    shown: BTreeMap<CanisterId, u64>,
}

impl Observer {
    /// Tells the watcher that a round begins.
    pub fn round_begun(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.round_begun();
        }
    }
}

/// Lets `watcher` watch from now on; what canisters printed before is not shown. Cost: O(canisters).
pub fn observe(world: &mut World, watcher: Box<dyn RoundObserver>) {
    let directory = world.resource::<Directory>();
    let next_line = |id| Some(world.get::<CanisterLog>(directory.entity(id)?)?.next_index);
    let shown = directory.iter().filter_map(|(id, _)| Some((id, next_line(id).filter(|next| *next > 0)?))).collect();
    world.resource_mut::<Profile>().wanted = watcher.wants_profile();
    world.insert_resource(Observer { watcher: Some(watcher), shown });
}

/// Tells the watcher that the stage at place `STAGE` has ended.
pub fn stage_ended<const STAGE: usize>(mut observer: ResMut<Observer>) {
    if let Some(watcher) = &mut observer.watcher {
        watcher.stage_ended(STAGES[STAGE]);
    }
}

/// Tells the watcher what ran. Cost: O(slices), nothing if it does not want to know.
pub fn show_runs(mut observer: ResMut<Observer>, mut profile: ResMut<Profile>) {
    let ran = std::mem::take(&mut profile.ran);
    if let Some(watcher) = &mut observer.watcher {
        ran.into_iter().for_each(|ran| watcher.message_ran(ran));
    }
}

/// Shows the watcher what touched canisters printed since it last looked. Cost: O(touched), nothing without a watcher.
pub fn show_logs(
    directory: Res<Directory>,
    touched: Res<Touched>,
    mut observer: ResMut<Observer>,
    canisters: Query<&CanisterLog>,
) {
    let Observer { watcher: Some(watcher), shown } = &mut *observer else { return };
    for &id in &touched.0 {
        let Some(log) = directory.entity(id).and_then(|entity| canisters.get(entity).ok()) else {
            shown.remove(&id);
            continue;
        };
        let next = shown.get(&id).copied().unwrap_or(0);
        if next == log.next_index {
            continue;
        }
        for record in log.records.iter().filter(|record| record.index >= next) {
            watcher.canister_logged(id, record);
        }
        shown.insert(id, log.next_index);
    }
}
