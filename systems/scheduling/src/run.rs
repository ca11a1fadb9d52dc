//! One step of a round: the chosen canisters run, core by core.

use crate::order::Cores;
use cyclotron_execution::reject::ingress_timed_out;
use cyclotron_execution::{
    CanisterData, CanisterMut, Effects, Job, JobName, LowMemoryHook, Paused, RoundEnv, SliceCosts, Step, resume, start,
};
use cyclotron_routing::{CurrentRound, Directory, dequeue, place_of};
use cyclotron_trace::{execution_zone, sums, timed};
use cyclotron_types::canister::{InputQueue, Priority, RunState};
use cyclotron_types::ids::{CanisterId, MessageId, MessageIx};
use cyclotron_types::message::{IngressStatus, Message, SystemTask};
use cyclotron_types::units::{Bytes, Instructions};
use cyclotron_world::prelude::*;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

/// Messages of one canister that are fetched for one step; what does not run goes back.
const FETCH_MAX: usize = 256;

/// The threads that run cores. How many there are changes no result.
#[derive(Debug, Resource)]
pub struct Workers(pub rayon::ThreadPool);

/// Which permutation of the cores is run: zero for the one in which they were dealt, anything else is a seed. Changes no result; tests
/// shuffle what only threads would otherwise.
#[derive(Clone, Copy, Debug, Default, Resource)]
pub struct RunOrder(pub u64);

/// What ran in this round, if anybody wants to know: no part of the state, and no system reads it back.
#[derive(Debug, Default, Resource)]
pub struct Profile {
    /// Whether anybody does.
    pub wanted: bool,
    /// Slices, in the order in which they were folded.
    pub ran: Vec<Ran>,
}

/// One slice of a message or task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Who ran; the management canister for its own calls.
    pub canister: CanisterId,
    /// What of it.
    pub name: JobName,
    /// Instructions of this slice.
    pub instructions: Instructions,
    /// Whether the message starts over with it: its slices before were given up, and are not charged.
    pub again: bool,
    /// Whether the message has ended with it.
    pub finished: bool,
    /// How long it took here: no part of what replicas agree on.
    pub time: Duration,
    /// What the instructions went into.
    pub costs: SliceCosts,
}

/// What the step left, in the scheduler's order.
#[derive(Debug, Default, Resource)]
pub struct Results(pub Vec<CanisterResult>);

/// What one canister's messages left.
#[derive(Debug)]
pub struct CanisterResult {
    /// The canister.
    pub id: CanisterId,
    /// Effects of each finished message, in order.
    pub effects: Vec<Effects>,
    /// Ingress messages that were started and are not answered yet, or expired in the queue.
    pub ingress: Vec<(MessageId, IngressStatus)>,
    /// What ran, if anybody wants to know.
    pub ran: Vec<Ran>,
    /// Slots of the messages that ran.
    freed: Vec<MessageIx>,
    /// Whether its message was suspended: it has had its slice of this round.
    pub suspended: bool,
    /// Whether it has work left, now or in the next round.
    pub has_work: bool,
}

impl CanisterResult {
    fn new(id: CanisterId) -> Self {
        Self {
            id,
            effects: Vec::new(),
            ingress: Vec::new(),
            ran: Vec::new(),
            freed: Vec::new(),
            suspended: false,
            has_work: true,
        }
    }
    /// Slots to free, once.
    pub(crate) fn take_freed(&mut self) -> Vec<MessageIx> {
        std::mem::take(&mut self.freed)
    }
}

struct Work<'w> {
    canister: CanisterMut<'w>,
    queue: &'w mut InputQueue,
    priority: &'w mut Priority,
    /// The oldest messages of the queue, fetched.
    messages: VecDeque<Message>,
    result: CanisterResult,
    /// It has had its turn; else the core's budget was spent before.
    ran: bool,
    /// Nothing more to do in this step.
    finished: bool,
    /// The low-memory hook has had its turn in this step: a canister that cannot run it now keeps it for later.
    hook_tried: bool,
    /// Whether to note what runs.
    profiled: bool,
}

/// Runs the chosen canisters. Cores run in parallel; the order of their results does not depend on it.
#[allow(clippy::too_many_arguments)]
pub fn execute_canisters(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    workers: Res<Workers>,
    order: Res<RunOrder>,
    profile: Res<Profile>,
    mut cores: ResMut<Cores>,
    mut results: ResMut<Results>,
    pool: Res<Pool<Message>>,
    mut slots: Query<&mut Message>,
    mut canisters: Query<(CanisterData, &mut InputQueue, &mut Priority)>,
) {
    let cores = &mut *cores;
    let overhead = i64::try_from(cores.message_overhead.0).unwrap_or(i64::MAX);
    let listed: Vec<Entity> = cores
        .chosen
        .iter()
        .flatten()
        .map(|&(_, ix)| directory.entity_at(ix).expect("a chosen canister exists"))
        .collect();
    let mut items = canisters.iter_many_unique_mut(unique(listed));
    let mut work: Vec<Vec<Work<'_>>> = Vec::with_capacity(cores.count);
    for (chosen, &left) in cores.chosen.iter().zip(&cores.left) {
        let mut of_core = Vec::with_capacity(chosen.len());
        // Messages that fit into the core's budget: each counts for its overhead at least.
        let mut room = usize::try_from(left / overhead.max(1)).unwrap_or(0).saturating_add(1);
        for &(id, _) in chosen {
            let (data, queue, priority) =
                items.next().and_then(Result::ok).expect("a chosen canister has its components");
            let (queue, priority) = (queue.into_inner(), priority.into_inner());
            let slots_of = queue.messages.iter().take(room.min(FETCH_MAX));
            room -= slots_of.len();
            let messages: VecDeque<Message> =
                slots_of.map(|slot| pool.swap(&mut slots, slot.0, Message::Vacant)).collect();
            of_core.push(Work {
                canister: data.into(),
                queue,
                priority,
                messages,
                result: CanisterResult::new(id),
                ran: false,
                finished: false,
                hook_tried: false,
                profiled: profile.wanted,
            });
        }
        work.push(of_core);
    }

    let env = &RoundEnv { memory_available: cores.memory_each, ..round.0.clone() };
    let busy = work.iter().filter(|w| !w.is_empty()).count();
    let mut runs: Vec<_> = cores.left.iter_mut().zip(&mut work).collect();
    shuffle(&mut runs, *order);
    if busy > 1 && workers.0.current_num_threads() > 1 {
        workers.0.install(|| {
            let each = runs.into_par_iter().with_max_len(1);
            each.for_each(|(left, of_core)| run_core(env.clone(), overhead, left, of_core));
        });
    } else {
        runs.into_iter().for_each(|(left, of_core)| run_core(env.clone(), overhead, left, of_core));
    }

    for mut work in work.into_iter().flatten() {
        // What did not run goes back to its slot.
        for (slot, message) in work.queue.messages.iter().zip(work.messages.drain(..)) {
            pool.swap(&mut slots, slot.0, message);
        }
        if !work.ran {
            continue;
        }
        let idle = work.queue.messages.is_empty() && work.queue.tasks.is_empty();
        let hook = work.hook_is_due();
        work.result.has_work = !idle || hook || !matches!(work.canister.paused, Paused::None);
        results.0.push(work.result);
    }
}

/// Permutes by the seed.
fn shuffle<T>(items: &mut [T], RunOrder(mut seed): RunOrder) {
    if seed == 0 {
        return;
    }
    for last in (1..items.len()).rev() {
        // Knuth's linear congruential generator; its high bits are the good ones.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (seed >> 33) as usize % (last + 1));
    }
}

/// Runs a core's canisters on its budget. What of the subnet's memory one message takes is not there for the next.
fn run_core(mut env: RoundEnv, overhead: i64, left: &mut i64, of_core: &mut [Work<'_>]) {
    for work in of_core {
        while *left > 0 && !work.finished {
            let used = work.step(&mut env);
            *left = left.saturating_sub_unsigned(used.0).saturating_sub(overhead);
        }
    }
}

impl Work<'_> {
    /// Runs one slice of one message, and sets `finished` when there is nothing more to do in this step.
    fn step(&mut self, env: &mut RoundEnv) -> Instructions {
        self.ran = true;
        let resumed = !matches!(self.canister.paused, Paused::None);
        let again = matches!(self.canister.paused, Paused::Aborted(_));
        let mut name = self.canister.paused.name().filter(|_| self.profiled);
        let profiled = self.profiled;
        let (ingress, (mut step, time)) = match self.canister.paused {
            Paused::None => match self.next_job(env) {
                Some(job) => {
                    let ingress = match &job {
                        Job::Message(Message::Ingress(ingress)) => Some(ingress.id),
                        _ => None,
                    };
                    name = self.profiled.then(|| job.name());
                    let _zone = execution_zone(|| (self.result.id, job.label()));
                    (ingress, timed(profiled, || start(env, &mut self.canister, job)))
                }
                None => {
                    self.finished = true;
                    // Messages may wait that were not fetched: they are in the next step.
                    if self.queue.messages.is_empty() {
                        self.priority.last_full_round = env.height.0;
                    }
                    return Instructions::ZERO;
                }
            },
            _ => {
                let _zone = execution_zone(|| (self.result.id, self.canister.paused.label()));
                (None, timed(profiled, || resume(env, &mut self.canister)))
            }
        };
        sums::EXECUTIONS.add(|| 1);
        sums::INSTRUCTIONS.add(|| match &step {
            Step::Suspended { used, .. } => used.0,
            Step::Done(outcome) => outcome.used.0,
        });
        if let Some(name) = name {
            let (instructions, costs, finished) = match &mut step {
                Step::Suspended { used, costs } => (*used, costs, false),
                Step::Done(outcome) => (outcome.used, &mut outcome.costs, true),
            };
            let (canister, costs) = (self.result.id, std::mem::take(costs));
            self.result.ran.push(Ran { canister, name, instructions, again, finished, time, costs });
        }
        match step {
            Step::Suspended { used, .. } => {
                // One slice a round: the others have their turn.
                self.result.ingress.extend(ingress.map(|id| (id, IngressStatus::Processing)));
                self.finished = true;
                self.result.suspended = true;
                if self.priority.long_since == 0 {
                    self.priority.long_since = env.height.0;
                }
                self.priority.last_full_round = env.height.0;
                used
            }
            Step::Done(outcome) => {
                let answered = outcome.effects.ingress.as_ref().map(|(id, _)| *id);
                let unanswered = ingress.filter(|id| Some(*id) != answered);
                self.result.ingress.extend(unanswered.map(|id| (id, IngressStatus::Processing)));
                let taken = Bytes(outcome.effects.memory_taken);
                env.memory_available = env.memory_available.saturating_sub(taken);
                self.priority.long_since = 0;
                self.hook_tried &= !outcome.effects.low_memory;
                // Between a long message and the next the management canister has its turn: a canister that is never idle can be stopped.
                self.finished = resumed;
                self.result.effects.push(outcome.effects);
                outcome.used
            }
        }
    }

    fn hook_is_due(&self) -> bool {
        *self.canister.low_memory == LowMemoryHook::Ready
            && *self.canister.run_state == RunState::Running
            && !self.hook_tried
    }

    fn next_job(&mut self, env: &RoundEnv) -> Option<Job> {
        // It runs before the next message. Spec: #on-low-wasm-memory.
        if self.hook_is_due() {
            self.hook_tried = true;
            return Some(Job::Task(SystemTask::OnLowWasmMemory));
        }
        if let Some(task) = self.queue.tasks.pop_front() {
            return Some(Job::Task(task));
        }
        while let Some(message) = self.messages.pop_front() {
            self.result.freed.push(dequeue(self.queue, place_of(&message)));
            match message {
                Message::Ingress(ingress) if ingress.expiry < env.time => {
                    let reject = ingress_timed_out(ingress.id);
                    self.result.ingress.push((ingress.id, IngressStatus::Rejected(reject)));
                }
                message => return Some(Job::Message(message)),
            }
        }
        None
    }
}
