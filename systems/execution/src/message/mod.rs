//! The life of a message: paid for, run slice by slice, answered or failed, settled.
//!
//! Enters: a job and its canister. Leaves: a [`Step`]. The parts: `call` (updates, replicated queries, tasks), `response` (callbacks and
//! their cleanup), `setup` (what the System API starts with), `finish` (contexts, cycles, effects), `query` (what keeps nothing),
//! `install` (code put in). Never here: the order of messages; a change of the canister before the message has ended, except that its
//! execution is prepaid and a timer that fires is off.

mod call;
mod finish;
pub mod install;
pub mod query;
mod response;
mod setup;

pub use call::affords_message;
pub use finish::{append_log, check_low_memory};

use crate::canister::{CanisterMut, Paused, Program};
use crate::charge;
use crate::config::RoundEnv;
use crate::costs::SliceCosts;
use crate::job::{CALLBACK, Job, JobName, Outcome, Step, message_label, task_label};
use crate::machine::{Desk, Installed, missing_resource, take_apart};
use crate::reject::Failure;
use crate::system_api::SystemApi;
use cyclotron_trace::sums;
use cyclotron_types::Principal;
use cyclotron_types::canister::Callback;
use cyclotron_types::ids::{CallContextId, CallbackId};
use cyclotron_types::message::{Message, Response, ResponsePayload, SystemTask};
use cyclotron_types::units::{Cycles, Instructions};
use cyclotron_wasm::runtime::{Entry as WasmEntry, Execution, Instance, Outcome as WasmOutcome, Value};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A suspended message: its coroutine and how to end it.
pub struct Suspended {
    // A coroutine is not `Sync`; who looks at it locks it.
    execution: Mutex<Execution<Box<SystemApi>>>,
    run: Run,
}

impl fmt::Debug for Suspended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspended").field("run", &self.run).finish_non_exhaustive()
    }
}

impl Suspended {
    /// The message or task that is suspended.
    pub fn job(&self) -> Job {
        let mut execution = self.execution.lock().unwrap_or_else(PoisonError::into_inner);
        self.run.job(execution.host().message.arg.clone())
    }

    /// What of the canister it runs.
    pub fn name(&self) -> JobName {
        match &self.run.kind {
            Kind::Task { task, .. } => JobName::Task(*task),
            Kind::Call { message, .. } => JobName::of(message),
            Kind::Callback(_) => JobName::Callback,
        }
    }

    /// The same as text.
    pub fn label(&self) -> &str {
        match &self.run.kind {
            Kind::Task { task, .. } => task_label(*task),
            Kind::Call { message, .. } => message_label(message),
            Kind::Callback(_) => CALLBACK,
        }
    }

    /// What starting it has done to the canister.
    pub fn prior(&self) -> Prior {
        Prior::of(&self.run)
    }

    /// The canister's instance as it was before the message.
    pub(crate) fn instance_before(&self) -> Instance {
        self.execution.lock().unwrap_or_else(PoisonError::into_inner).seated().instance_before()
    }

    /// Instructions used so far.
    pub fn instructions_used(&self) -> Instructions {
        let execution = self.execution.lock().unwrap_or_else(PoisonError::into_inner);
        self.run.used_before.saturating_add(execution.instructions_used())
    }
}

/// A message that was aborted and will start over.
#[derive(Debug)]
pub struct Aborted {
    /// The message or task.
    pub job: Job,
    /// What has been paid for it.
    prior: Prior,
}

impl Aborted {
    /// A message that starts over, and what has been paid for it.
    pub(crate) fn of(job: Job, prior: Prior) -> Self {
        Self { job, prior }
    }

    /// What has been paid for it.
    pub fn prior(&self) -> &Prior {
        &self.prior
    }
}

impl From<Job> for Aborted {
    /// A message that starts over without anything having been paid for it.
    fn from(job: Job) -> Self {
        Self { job, prior: Prior::default() }
    }
}

/// What an earlier start of the same message has already done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Prior {
    /// Prepaid execution, taken from the balance.
    prepaid: Cycles,
    /// Its call context's number.
    context: Option<CallContextId>,
    /// Burned and not yet reported.
    burned: Cycles,
}

impl Prior {
    fn of(run: &Run) -> Self {
        let context = (!matches!(run.kind, Kind::Callback(_))).then(|| run.context());
        Self { prepaid: run.prepaid, context, burned: run.burned }
    }
}

impl Paused {
    /// Cycles that the unfinished message holds: prepaid execution, the payment or refund that it carries, burned cycles not yet reported.
    pub fn cycles(&self) -> Cycles {
        let of_job = |job: &Job| match job {
            Job::Message(Message::Request(request)) => request.payment,
            Job::Message(Message::Response(response)) => response.refund,
            _ => Cycles::ZERO,
        };
        match self {
            Self::None => Cycles::ZERO,
            Self::Suspended(suspended) => suspended.run.held(),
            Self::Aborted(aborted) => {
                of_job(&aborted.job).saturating_add(aborted.prior.prepaid).saturating_add(aborted.prior.burned)
            }
            Self::Installing(install) => install.cycles(),
        }
    }
}

/// What kind of message runs.
#[derive(Debug)]
enum Kind {
    /// An update or replicated query: the message without its argument, which the System API holds.
    Call {
        message: Message,
        context: CallContextId,
        /// Keeps no change of state.
        query: bool,
    },
    /// A task.
    Task { task: SystemTask, context: CallContextId },
    /// A callback.
    Callback(Box<CallbackRun>),
}

#[derive(Debug)]
struct CallbackRun {
    id: CallbackId,
    callback: Callback,
    /// Without its reply, which the System API holds.
    response: Response,
    /// Cycles that come back with it, at most what was sent.
    refund: Cycles,
    /// What is left of the prepaid transmission.
    transmission_refund: Cycles,
    /// The callback's failure, once its cleanup runs.
    failure: Option<Failure>,
}

/// A message between its start and its end.
#[derive(Debug)]
struct Run {
    kind: Kind,
    /// Who sees a failure.
    caller: Principal,
    /// Instructions of the whole message.
    limit: Instructions,
    /// Instructions of the part that runs now.
    stage_limit: Instructions,
    /// Instructions of the parts before.
    used_before: Instructions,
    /// Prepaid execution that this run holds; a callback's is held by the callback.
    prepaid: Cycles,
    /// The balance that the System API started with.
    initial_balance: Cycles,
    /// What of it has not been added to the canister's balance yet.
    incoming: Cycles,
    /// Freezing threshold at the start.
    threshold: Cycles,
    /// Log lines of the parts before.
    log: Vec<Vec<u8>>,
    /// Burned and not yet reported.
    burned: Cycles,
}

impl Run {
    /// The job, with its argument put back.
    fn job(&self, arg: Vec<u8>) -> Job {
        match &self.kind {
            Kind::Task { task, .. } => Job::Task(*task),
            Kind::Call { message, .. } => {
                let mut message = message.clone();
                match &mut message {
                    Message::Ingress(ingress) => ingress.arg = arg,
                    Message::Request(request) => request.arg = arg,
                    Message::Vacant | Message::Response(_) => unreachable!("a call is an ingress message or a request"),
                }
                Job::Message(message)
            }
            Kind::Callback(callback) => {
                let mut response = callback.response.clone();
                if let ResponsePayload::Reply(data) = &mut response.payload {
                    *data = arg;
                }
                Job::Message(Message::Response(response))
            }
        }
    }

    fn context(&self) -> CallContextId {
        match &self.kind {
            Kind::Call { context, .. } | Kind::Task { context, .. } => *context,
            Kind::Callback(callback) => callback.callback.context,
        }
    }

    fn held(&self) -> Cycles {
        let carried = match &self.kind {
            Kind::Call { message: Message::Request(request), .. } => request.payment,
            Kind::Callback(callback) => callback.response.refund,
            Kind::Call { .. } | Kind::Task { .. } => Cycles::ZERO,
        };
        carried.saturating_add(self.prepaid).saturating_add(self.burned)
    }
}

/// What starting came to. One lives at a time, on the stack.
#[allow(clippy::large_enum_variant)]
enum Started {
    /// Wasm is ready to run.
    Running(Execution<Box<SystemApi>>, Run),
    /// It ended before any Wasm ran.
    Ended(Outcome),
}

/// What ending a part of a message came to. One lives at a time, on the stack.
#[allow(clippy::large_enum_variant)]
enum Ended {
    /// The cleanup of a failed callback is to run.
    Cleanup(Execution<Box<SystemApi>>, Run),
    /// The message has ended.
    Message(Outcome),
}

/// Starts a message and runs its first slice. Storage is settled up to the round's time before.
///
/// Panics: while another message of the canister is suspended or aborted; for `Message::Vacant`.
pub fn start(env: &RoundEnv, canister: &mut CanisterMut<'_>, job: Job) -> Step {
    assert!(matches!(canister.paused, Paused::None), "one message at a time runs on a canister");
    let settled = charge::settle(&env.subnet.fees, canister, env.time);
    begin(env, canister, job, Prior { burned: settled.burned, ..Prior::default() })
}

/// Runs the next slice of the canister's suspended message, or starts its aborted one over.
///
/// Panics: when there is none, or when it is an installation.
pub fn resume(env: &RoundEnv, canister: &mut CanisterMut<'_>) -> Step {
    match std::mem::take(canister.paused) {
        Paused::None => panic!("no message is suspended"),
        Paused::Installing(_) => panic!("an installation is resumed by itself"),
        Paused::Aborted(aborted) => {
            let mut prior = aborted.prior;
            let settled = charge::settle(&env.subnet.fees, canister, env.time);
            prior.burned = prior.burned.saturating_add(settled.burned);
            begin(env, canister, aborted.job, prior)
        }
        Paused::Suspended(suspended) => {
            let Suspended { execution, run } = *suspended;
            drive(env, canister, execution.into_inner().unwrap_or_else(PoisonError::into_inner), run)
        }
    }
}

/// Gives a suspended message up; it starts over, at the same charge, with the next [`resume`]. Nothing happens when there is none.
pub fn abort(canister: &mut CanisterMut<'_>) {
    match std::mem::take(canister.paused) {
        Paused::Suspended(suspended) => {
            let Suspended { execution, run } = *suspended;
            let execution = execution.into_inner().unwrap_or_else(PoisonError::into_inner);
            let (seated, mut host) = execution.abort();
            if let Some(installed) = installed(canister) {
                installed.rollback(Desk { seated, stable: host.stable.take() });
            }
            // A cleanup that was interrupted starts with its callback again, whose reply it kept.
            let arg = std::mem::take(&mut host.message.arg);
            let prior = Prior::of(&run);
            *canister.paused = Paused::Aborted(Box::new(Aborted { job: run.job(arg), prior }));
        }
        Paused::Installing(install) => *canister.paused = Paused::Installing(install::abort(canister, install)),
        other => *canister.paused = other,
    }
}

fn installed<'a>(canister: &'a mut CanisterMut<'_>) -> Option<&'a mut Installed> {
    match canister.program {
        Program::Installed(installed) => Some(installed),
        Program::Empty => None,
    }
}

fn begin(env: &RoundEnv, canister: &mut CanisterMut<'_>, job: Job, prior: Prior) -> Step {
    let started = match job {
        Job::Message(Message::Response(response)) => response::begin(env, canister, response, prior),
        Job::Message(message) => call::begin_call(env, canister, message, prior),
        Job::Task(task) => call::begin_task(env, canister, task, prior),
    };
    match started {
        Started::Running(execution, run) => drive(env, canister, execution, run),
        Started::Ended(outcome) => Step::Done(outcome),
    }
}

/// Runs one slice.
fn drive(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut execution: Execution<Box<SystemApi>>,
    mut run: Run,
) -> Step {
    let slice =
        if matches!(run.kind, Kind::Call { query: true, .. }) { run.limit } else { env.subnet.limits.message.slice };
    let (mut used, mut costs) = (Instructions::ZERO, SliceCosts::default());
    loop {
        let before = execution.instructions_used();
        let left = slice.saturating_sub(used).max(Instructions(1));
        match execution.resume(left) {
            WasmOutcome::Suspended(mut suspended) => {
                costs.suspended(&mut suspended);
                used = used.saturating_add(suspended.instructions_used().saturating_sub(before));
                *canister.paused = Paused::Suspended(Box::new(Suspended { execution: Mutex::new(suspended), run }));
                return Step::Suspended { used, costs };
            }
            WasmOutcome::Finished(mut finished) => {
                sums::DIRTY_PAGES.add(|| finished.dirty_pages);
                let charged = costs.finished(&mut finished, run.stage_limit);
                used = used.saturating_add(charged.saturating_sub(before));
                match finish::end_stage(env, canister, run, finished, charged) {
                    Ended::Cleanup(next, next_run) => (execution, run) = (next, next_run),
                    Ended::Message(mut outcome) => {
                        (outcome.used, outcome.costs) = (used, costs);
                        return Step::Done(outcome);
                    }
                }
            }
        }
    }
}

/// Starts Wasm on the canister's own memories.
fn launch(
    installed: &mut Installed,
    mut api: Box<SystemApi>,
    entry: WasmEntry<'_>,
    env_arg: Option<u64>,
    limit: Instructions,
) -> Result<Execution<Box<SystemApi>>, Failure> {
    let Desk { seated, stable } = installed.begin()?;
    api.stable = stable;
    let arg = env_arg.map(|env| closure_arg(env, api.identity.wasm64));
    Ok(Execution::start(seated, entry, arg.as_slice(), api, limit)
        .unwrap_or_else(|refused| missing_resource(refused.error)))
}

/// The argument of a callback: an address-sized integer.
fn closure_arg(env: u64, wasm64: bool) -> Value {
    if wasm64 { Value::I64(env as i64) } else { Value::I32(env as u32 as i32) }
}
