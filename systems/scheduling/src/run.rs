//! One step of a round: the chosen canisters run, core by core.

use crate::order::Cores;
use cyclotron_execution::{CanisterData, CanisterMut, Effects, Job, Paused, RoundEnv, Step, resume, start};
use cyclotron_routing::{CurrentRound, Directory, dequeue, place_of};
use cyclotron_types::canister::{InputQueue, Priority};
use cyclotron_types::ids::{CanisterId, MessageId, MessageIx};
use cyclotron_types::message::{IngressStatus, Message};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::Instructions;
use cyclotron_world::prelude::*;
use rayon::prelude::*;
use std::collections::VecDeque;

/// Messages of one canister that are fetched for one step; what does not run goes back.
const FETCH_MAX: usize = 4_096;

/// The threads that run cores. How many there are changes no result.
#[derive(Debug, Resource)]
pub struct Workers(pub rayon::ThreadPool);

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
    /// Slots of the messages that ran.
    freed: Vec<MessageIx>,
    /// Whether its message was suspended: it has had its slice of this round.
    pub suspended: bool,
    /// Whether it has work left, now or in the next round.
    pub has_work: bool,
}

impl CanisterResult {
    fn new(id: CanisterId) -> Self {
        Self { id, effects: Vec::new(), ingress: Vec::new(), freed: Vec::new(), suspended: false, has_work: true }
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
    /// Nothing more to do in this step.
    finished: bool,
}

/// Runs the chosen canisters. Cores run in parallel; the order of their results does not depend on it.
#[allow(clippy::too_many_arguments)]
pub fn execute_canisters(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    workers: Res<Workers>,
    mut cores: ResMut<Cores>,
    mut results: ResMut<Results>,
    pool: Res<Pool<Message>>,
    mut slots: Query<&mut Message>,
    mut canisters: Query<(CanisterData, &mut InputQueue, &mut Priority)>,
) {
    let cores = &mut *cores;
    let listed: Vec<Entity> = cores
        .chosen
        .iter()
        .flatten()
        .map(|&(_, ix)| directory.entity_at(ix).expect("a chosen canister exists"))
        .collect();
    let mut items = canisters.iter_many_unique_mut(unique(listed));
    let mut work: Vec<Vec<Work<'_>>> = Vec::with_capacity(cores.count);
    for chosen in &cores.chosen {
        let mut of_core = Vec::with_capacity(chosen.len());
        for &(id, _) in chosen {
            let (data, queue, priority) =
                items.next().and_then(Result::ok).expect("a chosen canister has its components");
            let (queue, priority) = (queue.into_inner(), priority.into_inner());
            let slots_of = queue.messages.iter().take(FETCH_MAX);
            let messages = slots_of.map(|slot| pool.swap(&mut slots, slot.0, Message::Vacant)).collect();
            of_core.push(Work {
                canister: data.into(),
                queue,
                priority,
                messages,
                result: CanisterResult::new(id),
                finished: false,
            });
        }
        work.push(of_core);
    }

    let env = &round.0;
    let overhead = i64::try_from(cores.message_overhead.0).unwrap_or(i64::MAX);
    let busy = work.iter().filter(|w| !w.is_empty()).count();
    if busy > 1 && workers.0.current_num_threads() > 1 {
        workers.0.install(|| {
            let each = cores.left.par_iter_mut().zip(work.par_iter_mut()).with_max_len(1);
            each.for_each(|(left, of_core)| run_core(env, overhead, left, of_core));
        });
    } else {
        cores.left.iter_mut().zip(&mut work).for_each(|(left, of_core)| run_core(env, overhead, left, of_core));
    }

    for mut work in work.into_iter().flatten() {
        // What did not run goes back to its slot.
        for (slot, message) in work.queue.messages.iter().zip(work.messages.drain(..)) {
            pool.swap(&mut slots, slot.0, message);
        }
        let idle = work.queue.messages.is_empty() && work.queue.tasks.is_empty();
        work.result.has_work = !idle || !matches!(work.canister.paused, Paused::None);
        results.0.push(work.result);
    }
}

fn run_core(env: &RoundEnv, overhead: i64, left: &mut i64, of_core: &mut [Work<'_>]) {
    for work in of_core {
        while *left > 0 && !work.finished {
            let used = work.step(env);
            *left = left.saturating_sub_unsigned(used.0).saturating_sub(overhead);
        }
    }
}

impl Work<'_> {
    /// Runs one slice of one message, and sets `finished` when there is nothing more to do in this step.
    fn step(&mut self, env: &RoundEnv) -> Instructions {
        let (ingress, step) = match self.canister.paused {
            Paused::None => match self.next_job(env) {
                Some(Job::Message(Message::Ingress(ingress))) => {
                    let id = ingress.id;
                    (Some(id), start(env, &mut self.canister, Job::Message(Message::Ingress(ingress))))
                }
                Some(job) => (None, start(env, &mut self.canister, job)),
                None => {
                    self.finished = true;
                    self.priority.last_full_round = env.height.0;
                    return Instructions::ZERO;
                }
            },
            _ => (None, resume(env, &mut self.canister)),
        };
        match step {
            Step::Suspended { used } => {
                // One slice a round: the others have their turn.
                self.result.ingress.extend(ingress.map(|id| (id, IngressStatus::Processing)));
                self.finished = true;
                self.result.suspended = true;
                self.priority.last_full_round = env.height.0;
                used
            }
            Step::Done(outcome) => {
                let answered = outcome.effects.ingress.as_ref().map(|(id, _)| *id);
                let unanswered = ingress.filter(|id| Some(*id) != answered);
                self.result.ingress.extend(unanswered.map(|id| (id, IngressStatus::Processing)));
                self.result.effects.push(outcome.effects);
                outcome.used
            }
        }
    }

    fn next_job(&mut self, env: &RoundEnv) -> Option<Job> {
        if let Some(task) = self.queue.tasks.pop_front() {
            return Some(Job::Task(task));
        }
        while let Some(message) = self.messages.pop_front() {
            self.result.freed.push(dequeue(self.queue, place_of(&message)));
            match message {
                Message::Ingress(ingress) if ingress.expiry < env.time => {
                    let reject = Reject::new(
                        ErrorCode::IngressMessageTimeout,
                        format!("Ingress message {} timed out waiting to start executing.", ingress.id),
                    );
                    self.result.ingress.push((ingress.id, IngressStatus::Rejected(reject)));
                }
                message => return Some(Job::Message(message)),
            }
        }
        None
    }
}
