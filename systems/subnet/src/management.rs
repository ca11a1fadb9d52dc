//! The management canister in a round: its calls run one after the other, between the parallel steps; and what time does to canisters
//! outside of any message: stops that took too long, storage that cannot be paid.

use crate::totals::{Counted, Totals, use_of};
use cyclotron_execution::management::{
    Answer, CanisterIds, Canisters, ManagementCall, ManagementContext, ManagementEffects, ManagementStep, NodeFacts,
    PendingInstall, RandomStream, SubnetUse, execute_management, expire_stopping, finish_stopping, resume_install,
    uninstall_exhausted,
};
use cyclotron_execution::{CanisterBundle, CanisterData, CanisterMut, JobName, Outgoing, Paused, settle};
use cyclotron_routing::{
    ActiveSet, Answered, CurrentRound, Directory, Dues, IngressHistory, ManagementInbox, ManagementLines, Outbox,
    StopDeadlines, Stopping, Tally, Touched,
};
use cyclotron_scheduling::{Installing, Profile, Ran};
use cyclotron_trace::timed;
use cyclotron_types::canister::{CallContexts, InputQueue, Priority};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::Message;
use cyclotron_world::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Canister ids of the subnet.
#[derive(Clone, Debug, Resource)]
pub struct Ids(pub CanisterIds);

/// Calls that could not be executed yet, oldest first.
#[derive(Clone, Debug, Default, Resource)]
pub struct Deferred {
    /// They wait for the next round's randomness.
    pub next_round: VecDeque<ManagementCall>,
    /// They wait for a suspended message of their canister: tried again when it has ended.
    pub busy: BTreeMap<CanisterId, VecDeque<ManagementCall>>,
}

/// What the management canister may still do in this round.
#[derive(Debug, Resource)]
pub struct ManagementRound {
    /// Instructions left for its calls; spent when not positive.
    pub left: i64,
    /// The round's random bytes.
    pub random: RandomStream,
    /// What it says of the subnet.
    pub facts: NodeFacts,
    /// Whether the calls that waited for this round have had their turn.
    pub begun: bool,
}

/// The world's canisters, as the management canister sees them.
struct WorldCanisters<'w> {
    world: &'w mut World,
    data: bevy_ecs::query::QueryState<CanisterData>,
}

impl Canisters for WorldCanisters<'_> {
    fn get(&mut self, id: CanisterId) -> Option<CanisterMut<'_>> {
        let entity = self.world.resource::<Directory>().entity(id)?;
        self.data.get_mut(self.world, entity).ok().map(CanisterMut::from)
    }

    fn insert(&mut self, id: CanisterId, canister: CanisterBundle) {
        let parts = (id, canister, InputQueue::default(), Priority::default(), Counted::default());
        let entity = self.world.spawn(parts).id();
        let ix = self.world.resource_mut::<Directory>().insert(id, entity);
        self.world.entity_mut(entity).insert(ix);
        recount(self.world, id);
    }

    fn remove(&mut self, id: CanisterId) {
        let Some(entity) = self.world.resource::<Directory>().entity(id) else { return };
        self.world.resource_scope(|world, mut totals: bevy_ecs::change_detection::Mut<Totals>| {
            if let Some(mut counted) = world.get_mut::<Counted>(entity) {
                totals.recount(&mut counted, SubnetUse::default());
            }
        });
        self.world.resource_mut::<Directory>().remove(id);
        self.world.resource_mut::<ActiveSet>().remove(id);
        self.world.despawn(entity);
    }

    fn has_messages(&self, id: CanisterId) -> bool {
        let Some(entity) = self.world.resource::<Directory>().entity(id) else { return false };
        let queued = self.world.get::<InputQueue>(entity).is_some_and(|queue| !queue.messages.is_empty());
        let open = self.world.get::<CallContexts>(entity).is_some_and(|c| !c.callbacks.is_empty());
        queued || open
    }

    fn subnet_use(&self) -> SubnetUse {
        self.world.resource::<Totals>().0
    }
}

/// Counts one canister anew, at once: the next call of the same round must see what this one took.
fn recount(world: &mut World, id: CanisterId) {
    let Some(entity) = world.resource::<Directory>().entity(id) else { return };
    let mut state = world.query::<(CanisterData, &mut Counted)>();
    world.resource_scope(|world, mut totals: bevy_ecs::change_detection::Mut<Totals>| {
        if let Ok((data, mut counted)) = state.get_mut(world, entity) {
            totals.recount(&mut counted, use_of(&CanisterMut::from(data)));
        }
    });
}

/// Stops canisters that have become idle, continues installs, then executes the waiting calls, oldest first, until the round's
/// instructions for them are spent.
pub fn run_management(world: &mut World) {
    stop_idle(world);
    if !std::mem::replace(&mut world.resource_mut::<ManagementRound>().begun, true) {
        resume_installs(world);
        for call in std::mem::take(&mut world.resource_mut::<Deferred>().next_round) {
            execute(world, call);
        }
    }
    run_busy(world);
    while world.resource::<ManagementRound>().left > 0 {
        let Some(message) = world.resource_mut::<ManagementInbox>().0.pop_front() else { return };
        let call = match message {
            Message::Ingress(ingress) => ManagementCall::from(ingress),
            Message::Request(request) => ManagementCall::from(request),
            Message::Response(_) | Message::Vacant => unreachable!("the management canister makes no calls"),
        };
        execute(world, call);
    }
}

/// Runs a slice of each installation that is under way, the oldest first, as far as the round's instructions go.
fn resume_installs(world: &mut World) {
    let mut ranks: Vec<_> = world.resource::<Installing>().0.values().map(PendingInstall::rank).collect();
    ranks.sort_unstable();
    for (_, id) in ranks {
        if world.resource::<ManagementRound>().left <= 0 {
            return;
        }
        let pending = world.resource_mut::<Installing>().0.remove(&id).expect("it is under way");
        let name = world.resource::<Profile>().wanted.then(|| JobName::Method(pending.call.method.clone()));
        let (mut step, time) = timed(name.is_some(), || in_context(world, |context| resume_install(context, pending)));
        note_run(world, name, &mut step, time);
        settle_step(world, step);
    }
}

/// Executes the calls about canisters whose long message has ended. Cost: O(canisters with such calls), and the calls.
fn run_busy(world: &mut World) {
    let waiting: Vec<CanisterId> = world.resource::<Deferred>().busy.keys().copied().collect();
    for id in waiting {
        while world.resource::<ManagementRound>().left > 0 && !is_paused(world, id) {
            let busy = &mut world.resource_mut::<Deferred>().busy;
            let Some(call) = busy.get_mut(&id).and_then(VecDeque::pop_front) else {
                busy.remove(&id);
                break;
            };
            execute(world, call);
        }
    }
}

fn is_paused(world: &World, id: CanisterId) -> bool {
    let entity = world.resource::<Directory>().entity(id);
    entity.and_then(|e| world.get::<Paused>(e)).is_some_and(|paused| !matches!(paused, Paused::None))
}

fn execute(world: &mut World, call: ManagementCall) {
    let line = call.line();
    let name = world.resource::<Profile>().wanted.then(|| JobName::Method(call.method.clone()));
    let (mut step, time) = timed(name.is_some(), || in_context(world, |context| execute_management(context, call)));
    if !matches!(step, ManagementStep::NextRound(_)) {
        world.resource_mut::<ManagementLines>().leave(line);
    }
    note_run(world, name, &mut step, time);
    settle_step(world, step);
}

/// Notes a slice of a call, if anybody wants to know. A call that could not be executed yet has not run.
fn note_run(world: &mut World, name: Option<JobName>, step: &mut ManagementStep, time: Duration) {
    let (effects, finished) = match step {
        ManagementStep::Done(effects) | ManagementStep::Waiting(effects) => (effects, true),
        ManagementStep::Suspended { effects, .. } => (effects, false),
        ManagementStep::NextRound(_) => return,
    };
    if let Some(name) = name {
        let (instructions, costs) = (effects.used, std::mem::take(&mut effects.costs));
        // Whose installation starts over is not known here: each of its slices counts.
        let ran = Ran { canister: CanisterId::MANAGEMENT, name, instructions, again: false, finished, time, costs };
        world.resource_mut::<Profile>().ran.push(ran);
    }
}

pub(crate) fn in_context<R>(world: &mut World, run: impl FnOnce(&mut ManagementContext<'_>) -> R) -> R {
    let env = world.resource::<CurrentRound>().0.clone();
    world.resource_scope(|world, mut ids: bevy_ecs::change_detection::Mut<Ids>| {
        world.resource_scope(|world, mut round: bevy_ecs::change_detection::Mut<ManagementRound>| {
            let data = world.query::<CanisterData>();
            let mut canisters = WorldCanisters { world, data };
            let ManagementRound { random, facts, .. } = &mut *round;
            run(&mut ManagementContext { env: &env, canisters: &mut canisters, ids: &mut ids.0, random, node: facts })
        })
    })
}

/// Routes what a call did.
fn settle_step(world: &mut World, step: ManagementStep) {
    match step {
        ManagementStep::Done(effects) | ManagementStep::Waiting(effects) => {
            world.resource_mut::<Tally>().executed += 1;
            apply_effects(world, effects);
        }
        ManagementStep::Suspended { pending, effects } => {
            world.resource_mut::<Installing>().0.insert(pending.canister(), *pending);
            apply_effects(world, effects);
        }
        ManagementStep::NextRound(call) if call.deferred => world.resource_mut::<Deferred>().next_round.push_back(call),
        ManagementStep::NextRound(call) => {
            let id = call.disturbs.expect("only a call that would disturb a message waits for its end");
            world.resource_mut::<Deferred>().busy.entry(id).or_default().push_back(call);
        }
    }
}

fn apply_effects(world: &mut World, effects: ManagementEffects) {
    let mut tally = world.resource_mut::<Tally>();
    tally.burned = tally.burned.saturating_add(effects.burned);
    tally.minted = tally.minted.saturating_add(effects.minted);
    let mut round = world.resource_mut::<ManagementRound>();
    round.left = round.left.saturating_sub_unsigned(effects.used.0);
    for id in effects.touched {
        recount(world, id);
        world.resource_mut::<Touched>().0.insert(id);
    }
    if let Some(id) = effects.low_memory {
        // The hook is due: the canister has something to do.
        if let Some(ix) = world.resource::<Directory>().ix(id) {
            world.resource_mut::<ActiveSet>().insert(id, ix);
        }
    }
    route_answers(world, effects.answers);
    stop_idle(world);
}

fn route_answers(world: &mut World, answers: Vec<Answer>) {
    let now = world.resource::<CurrentRound>().0.time;
    for answer in answers {
        match answer {
            Answer::Canister(response) => world.resource_mut::<Outbox>().0.push(Outgoing::Response(response)),
            Answer::Ingress(id, status) => {
                if status.is_final() {
                    world.resource_mut::<Answered>().0.push(id);
                }
                world.resource_mut::<IngressHistory>().set(id, status, now);
            }
        }
    }
}

/// Runs `change` on a canister that exists, routes its answers and lists the canister as touched.
fn change_canister(world: &mut World, id: CanisterId, change: impl FnOnce(&mut CanisterMut<'_>) -> Vec<Answer>) {
    let Some(entity) = world.resource::<Directory>().entity(id) else { return };
    let mut state = world.query::<CanisterData>();
    let Ok(data) = state.get_mut(world, entity) else { return };
    let answers = change(&mut CanisterMut::from(data));
    recount(world, id);
    world.resource_mut::<Touched>().0.insert(id);
    route_answers(world, answers);
}

/// Stops the stopping canisters that have no open call left.
fn stop_idle(world: &mut World) {
    for id in std::mem::take(&mut world.resource_mut::<Stopping>().0) {
        change_canister(world, id, finish_stopping);
    }
}

/// Tells those who have waited too long for a canister to stop.
pub fn time_out_stops(world: &mut World) {
    let now = world.resource::<CurrentRound>().0.time;
    while let Some(id) = world.resource_mut::<StopDeadlines>().0.pop_due(now) {
        change_canister(world, id, |canister| expire_stopping(canister, now));
    }
}

/// Settles the canisters that can no longer pay for their storage, and takes out the code of those that are exhausted.
///
/// Spec: abstract-behavior "Canister out of cycles".
pub fn settle_due(world: &mut World) {
    let env = world.resource::<CurrentRound>().0.clone();
    while let Some(id) = world.resource_mut::<Dues>().0.pop_due(env.time) {
        let mut burned = cyclotron_types::units::Cycles::ZERO;
        change_canister(world, id, |canister| {
            let settled = settle(&env.subnet.fees, canister, env.time);
            burned = settled.burned;
            if !settled.exhausted {
                return Vec::new();
            }
            let mut answers = uninstall_exhausted(canister);
            // It may have been stopping, with nothing left to wait for.
            answers.extend(finish_stopping(canister));
            answers
        });
        let mut tally = world.resource_mut::<Tally>();
        tally.burned = tally.burned.saturating_add(burned);
    }
}
