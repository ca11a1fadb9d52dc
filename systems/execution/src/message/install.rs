//! Putting code into a canister: `(start)`, `canister_init`, `canister_pre_upgrade`, `canister_post_upgrade`, as one transaction.
//!
//! Enters: a compiled module and who installs it. Leaves: the canister with the new program, or as it was. The parts, in order:
//! 1. upgrade: `canister_pre_upgrade` runs in the old program. What it does to stable memory stays open; its heap goes with the old
//!    program, so it is rolled back at once. If the heap is to be kept, it runs on a copy of the heap, and the new program goes on with that.
//! 2. `(start)` of the new program. 3. `canister_init`, or `canister_post_upgrade`.
//! 4. Everything holds, or nothing: until then the canister's components and its old program are untouched.
//!
//! The caller has checked permissions, has prepaid the instructions ([`Install::limit`]) and settles them by [`InstallOutcome::total`]. Never
//! here: fees for instructions, the history, wasm chunk stores.

use super::finish;
use super::setup::{Facts, Setup, system_api};
use crate::canister::{CanisterMut, LowMemoryHook, Paused, Program};
use crate::charge;
use crate::config::RoundEnv;
use crate::costs::{COMPILATION, SliceCosts};
use crate::job::INSTALLATION;
use crate::machine::{Desk, Installed, missing_resource, take_apart};
use crate::reject::Failure;
use crate::system_api::{Entry, Message as ApiMessage, SystemApi, Written};
use cyclotron_heap::StableAccess;
use cyclotron_trace::{execution_zone, sums};
use cyclotron_types::Principal;
use cyclotron_types::canister::LogRecord;
use cyclotron_types::units::{Bytes, Cycles, Instructions, Time};
use cyclotron_wasm::Module;
use cyclotron_wasm::decode::SystemMethod;
use cyclotron_wasm::runtime::{Entry as WasmEntry, Execution, Instance, Outcome as WasmOutcome};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How the new code relates to the old state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// Into an empty canister, or in place of all state.
    Fresh,
    /// Keeps stable memory and certified data, runs the upgrade hooks.
    Upgrade {
        /// Does not run `canister_pre_upgrade`.
        skip_pre_upgrade: bool,
        /// Keeps the heap too (`wasm_memory_persistence = keep`).
        keep_heap: bool,
    },
}

/// An installation to run.
#[derive(Clone)]
pub struct Install {
    /// How.
    pub mode: Mode,
    /// What, compiled.
    pub module: Arc<Module>,
    /// SHA-256 of the module as it was given.
    pub module_hash: [u8; 32],
    /// Size of the module as it was given.
    pub module_bytes: Bytes,
    /// Who installs.
    pub caller: Principal,
    /// Argument of `canister_init` or `canister_post_upgrade`.
    pub arg: Vec<u8>,
    /// Instructions that all hooks may use together.
    pub limit: Instructions,
    /// Of these, used already (compilation); counts into [`InstallOutcome::total`].
    pub used: Instructions,
    /// Whatever the caller wants to find again when the installation resumes; counts as cycles held while it is suspended.
    pub held: Cycles,
}

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install").field("mode", &self.mode).field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// An installation without the compiled module, which its hash stands for: what must be the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InstallTerms {
    mode: Mode,
    module_hash: [u8; 32],
    module_bytes: Bytes,
    caller: Principal,
    #[serde(with = "serde_bytes")]
    arg: Vec<u8>,
    limit: Instructions,
    used: Instructions,
    held: Cycles,
}

impl InstallTerms {
    /// The installation of `module` on these terms.
    pub(crate) fn install(self, module: Arc<Module>) -> Install {
        let Self { mode, module_hash, module_bytes, caller, arg, limit, used, held } = self;
        Install { mode, module, module_hash, module_bytes, caller, arg, limit, used, held }
    }
}

/// What a slice of an installation came to.
#[derive(Debug)]
pub enum InstallStep {
    /// The slice is used up; the canister's `Paused` holds the rest. Continued by [`resume_install`].
    Suspended {
        /// Instructions of this slice.
        used: Instructions,
        /// What they went into.
        costs: SliceCosts,
    },
    /// It has ended.
    Done(InstallOutcome),
}

/// How an installation ended.
#[derive(Debug)]
pub struct InstallOutcome {
    /// The new program works, or why the old one still does.
    pub result: Result<(), Failure>,
    /// Instructions of the last slice.
    pub used: Instructions,
    /// Instructions of all of it, what was used before included; at most the limit.
    pub total: Instructions,
    /// What the instructions of the last slice went into.
    pub costs: SliceCosts,
    /// Burned by `cycles_burn128`.
    pub burned: Cycles,
    /// Whether the low-memory hook became due.
    pub low_memory: bool,
    /// Lines added to the canister's log.
    pub logged: usize,
}

/// An installation that did not fit into its slice.
pub enum Installing {
    /// In the middle.
    Suspended(Box<SuspendedInstall>),
    /// Aborted: starts over with the next slice.
    Aborted(Install),
}

impl fmt::Debug for Installing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspended(suspended) => f.debug_tuple("Suspended").field(&suspended.run.install).finish(),
            Self::Aborted(install) => f.debug_tuple("Aborted").field(install).finish(),
        }
    }
}

/// The middle of an installation.
pub struct SuspendedInstall {
    execution: Mutex<Execution<Box<SystemApi>>>,
    run: Run,
}

impl Installing {
    /// The installation itself.
    pub fn install(&self) -> &Install {
        match self {
            Self::Suspended(suspended) => &suspended.run.install,
            Self::Aborted(install) => install,
        }
    }

    /// Its terms, the argument included, wherever that is now.
    pub fn terms(&self) -> InstallTerms {
        let arg = match self {
            Self::Suspended(suspended) if suspended.run.part == Part::Init => {
                let mut execution = suspended.execution.lock().unwrap_or_else(PoisonError::into_inner);
                execution.host().message.arg.clone()
            }
            _ => self.install().arg.clone(),
        };
        let &Install { mode, module: _, module_hash, module_bytes, caller, arg: _, limit, used, held } = self.install();
        InstallTerms { mode, module_hash, module_bytes, caller, arg, limit, used, held }
    }

    /// Cycles held for it.
    pub fn cycles(&self) -> Cycles {
        self.install().held
    }

    /// Instructions used so far; zero once aborted.
    pub fn instructions_used(&self) -> Instructions {
        match self {
            Self::Suspended(suspended) => {
                let execution = suspended.execution.lock().unwrap_or_else(PoisonError::into_inner);
                suspended.run.used.saturating_add(execution.instructions_used())
            }
            Self::Aborted(_) => Instructions::ZERO,
        }
    }

    /// The old program's instance as it was before the installation, when one of its functions is suspended.
    pub(crate) fn instance_before(&self) -> Instance {
        let Self::Suspended(suspended) = self else { unreachable!("the old program rests") };
        suspended.execution.lock().unwrap_or_else(PoisonError::into_inner).seated().instance_before()
    }
}

/// Which part runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    PreUpgrade,
    Start,
    Init,
}

/// An installation between its parts.
struct Run {
    install: Install,
    part: Part,
    /// Instructions of the parts before, and of compilation.
    used: Instructions,
    /// The copy of the old program on which `canister_pre_upgrade` runs when the heap is kept.
    copy: Option<Installed>,
    /// The new program, once instantiated.
    next: Option<Installed>,
    /// The open stable memory between parts: the old program's in an upgrade, else the new one's.
    stable: Option<Box<StableAccess>>,
    /// What parts before have written.
    written: Written,
    /// Log lines.
    log: Vec<Vec<u8>>,
    /// The balance as the hooks see it: only `cycles_burn128` changes it.
    burned: Cycles,
}

impl Run {
    /// Whether the stable memory in use is the old program's.
    fn stable_is_old(&self) -> bool {
        matches!(self.install.mode, Mode::Upgrade { .. })
    }
}

/// What going on came to.
enum Next {
    /// A part is to run.
    Run(Execution<Box<SystemApi>>),
    /// All parts have run.
    Finished,
    /// The installation fails.
    Failed(Failure),
}

/// Runs the first slice of an installation. Storage must have been settled.
///
/// Panics: while another message of the canister is suspended.
pub fn start_install(env: &RoundEnv, canister: &mut CanisterMut<'_>, install: Install) -> InstallStep {
    assert!(matches!(canister.paused, Paused::None), "one message at a time runs on a canister");
    let _zone = execution_zone(|| (canister.id, INSTALLATION));
    begin(env, canister, install)
}

/// Runs the next slice of the canister's suspended installation, or starts its aborted one over.
///
/// Panics: when there is none.
pub fn resume_install(env: &RoundEnv, canister: &mut CanisterMut<'_>) -> InstallStep {
    let Paused::Installing(installing) = std::mem::take(canister.paused) else {
        panic!("no installation is suspended")
    };
    let _zone = execution_zone(|| (canister.id, INSTALLATION));
    match *installing {
        Installing::Aborted(install) => begin(env, canister, install),
        Installing::Suspended(suspended) => {
            let SuspendedInstall { execution, run } = *suspended;
            let execution = execution.into_inner().unwrap_or_else(PoisonError::into_inner);
            drive(env, canister, run, Next::Run(execution), Instructions::ZERO, SliceCosts::default())
        }
    }
}

/// Gives the middle of an installation up.
pub(super) fn abort(canister: &mut CanisterMut<'_>, installing: Box<Installing>) -> Box<Installing> {
    let Installing::Suspended(suspended) = *installing else { return installing };
    let SuspendedInstall { execution, mut run } = *suspended;
    let (seated, mut host) = execution.into_inner().unwrap_or_else(PoisonError::into_inner).abort();
    run.stable = run.stable.take().or(host.stable.take());
    if run.part == Part::Init {
        run.install.arg = std::mem::take(&mut host.message.arg);
    }
    if let Some(runner) = runner(canister, &mut run) {
        runner.rollback(Desk { seated, stable: None });
    }
    close_stable(canister, &mut run, false);
    Box::new(Installing::Aborted(run.install))
}

/// The program whose memories the current part runs on.
fn runner<'a>(canister: &'a mut CanisterMut<'_>, run: &'a mut Run) -> Option<&'a mut Installed> {
    match run.part {
        Part::PreUpgrade if run.copy.is_some() => run.copy.as_mut(),
        Part::PreUpgrade => super::installed(canister),
        Part::Start | Part::Init => run.next.as_mut(),
    }
}

fn stable_owner<'a>(canister: &'a mut CanisterMut<'_>, run: &'a mut Run) -> Option<&'a mut Installed> {
    if run.stable_is_old() { super::installed(canister) } else { run.next.as_mut() }
}

fn close_stable(canister: &mut CanisterMut<'_>, run: &mut Run, keep: bool) {
    if let Some(stable) = run.stable.take()
        && let Some(owner) = stable_owner(canister, run)
    {
        owner.close_stable(stable, keep);
    }
}

fn begin(env: &RoundEnv, canister: &mut CanisterMut<'_>, install: Install) -> InstallStep {
    let mut run = Run {
        part: Part::PreUpgrade,
        used: install.used.min(install.limit),
        copy: None,
        next: None,
        stable: None,
        written: Written::default(),
        log: Vec::new(),
        burned: Cycles::ZERO,
        install,
    };
    let (used, mut costs) = (run.used, SliceCosts::default());
    costs.add(env, COMPILATION, used);
    let next = if used >= run.install.limit {
        Next::Failed(Failure::InstructionLimit(run.install.limit))
    } else {
        pre_upgrade(env, canister, &mut run).unwrap_or_else(Next::Failed)
    };
    drive(env, canister, run, next, used, costs)
}

/// Starts `canister_pre_upgrade`, or goes on to `(start)` when there is none to run.
fn pre_upgrade(env: &RoundEnv, canister: &mut CanisterMut<'_>, run: &mut Run) -> Result<Next, Failure> {
    let Mode::Upgrade { skip_pre_upgrade, keep_heap } = run.install.mode else {
        return new_program(env, canister, run);
    };
    let Some(old) = super::installed(canister) else { return Err(Failure::NoModule) };
    if keep_heap {
        run.copy = Some(old.fork_heap()?);
    }
    match old.system_method(SystemMethod::PreUpgrade) {
        Some(function) if !skip_pre_upgrade => {
            let caller = run.install.caller;
            launch(env, canister, run, Entry::PreUpgrade, function, ApiMessage::default(), caller)
        }
        _ => new_program(env, canister, run),
    }
}

/// Instantiates the new program and starts `(start)`, or goes on.
fn new_program(env: &RoundEnv, canister: &mut CanisterMut<'_>, run: &mut Run) -> Result<Next, Failure> {
    let Install { module, module_hash, module_bytes, .. } = &run.install;
    let (module, hash, bytes) = (Arc::clone(module), *module_hash, *module_bytes);
    run.next = Some(match run.copy.take() {
        Some(copy) => copy.with_module(module, hash, bytes)?,
        None => Installed::instantiate(&env.machine, module, hash, bytes)?,
    });
    run.part = Part::Start;
    match run.install.module.start() {
        Some(function) => {
            launch(env, canister, run, Entry::Start, function, ApiMessage::default(), Principal::management_canister())
        }
        None => init(env, canister, run),
    }
}

/// Starts `canister_init` or `canister_post_upgrade`, or ends.
fn init(env: &RoundEnv, canister: &mut CanisterMut<'_>, run: &mut Run) -> Result<Next, Failure> {
    run.part = Part::Init;
    let method = match run.install.mode {
        Mode::Fresh => SystemMethod::Init,
        Mode::Upgrade { .. } => SystemMethod::PostUpgrade,
    };
    let function = run.next.as_ref().and_then(|next| next.system_method(method));
    let Some(function) = function else { return Ok(Next::Finished) };
    let message = ApiMessage { arg: std::mem::take(&mut run.install.arg), ..ApiMessage::default() };
    let caller = run.install.caller;
    launch(env, canister, run, Entry::Init, function, message, caller)
}

fn launch(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    run: &mut Run,
    entry: Entry,
    function: u32,
    message: ApiMessage,
    caller: Principal,
) -> Result<Next, Failure> {
    // Stable memory first: it stays open over all parts.
    let wants_stable = runner(canister, run).is_some_and(|runner| runner.uses_stable());
    if wants_stable && run.stable.is_none() {
        run.stable = stable_owner(canister, run).map(Installed::open_stable).transpose()?;
    }
    let wasm64 = runner(canister, run).is_some_and(|runner| runner.is_wasm64());
    let mut facts = Facts::of(canister, wasm64);
    facts.balance = facts.balance.saturating_sub(run.burned);
    facts.memory_used = memory_with(canister, run);
    if run.part == Part::Init {
        facts.version += 1;
    }
    facts.timer = run.written.timer.unwrap_or(if run.part == Part::PreUpgrade { facts.timer } else { Time::ZERO });
    let setup = Setup {
        logged: run.log.iter().map(|line| LogRecord::counted(line)).sum(),
        ..Setup::plain(entry, caller, message)
    };
    let mut api = system_api(env, facts, None, setup);
    let limit = run.install.limit.saturating_sub(run.used);
    let stable = if wants_stable { run.stable.take() } else { None };
    let Some(runner) = runner(canister, run) else { return Err(Failure::NoModule) };
    let seated = match runner.begin_heap() {
        Ok(seated) => seated,
        Err(failure) => {
            run.stable = run.stable.take().or(stable);
            return Err(failure);
        }
    };
    api.stable = stable;
    let execution = Execution::start(seated, WasmEntry::Function(function), &[], api, limit);
    Ok(Next::Run(execution.unwrap_or_else(|refused| missing_resource(refused.error))))
}

/// The canister's memory if the new program were in place (the old one's, before there is a new one).
fn memory_with(canister: &CanisterMut<'_>, run: &Run) -> Bytes {
    let all = canister.memory_used().0;
    let Some(next) = &run.next else { return Bytes(all) };
    let old = canister.program.memory_used().0;
    let stable = match (&canister.program, run.stable_is_old(), &run.stable) {
        (_, _, Some(open)) => open.size().to_bytes().0,
        (Program::Installed(old), true, None) => old.stable_bytes().0,
        _ => next.stable_bytes().0,
    };
    Bytes(all - old + next.memory_used().0 - next.stable_bytes().0 + stable)
}

fn drive(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut run: Run,
    mut next: Next,
    mut used: Instructions,
    mut costs: SliceCosts,
) -> InstallStep {
    loop {
        let execution = match next {
            Next::Run(execution) => execution,
            Next::Finished => return InstallStep::Done(succeed(env, canister, run, used, costs)),
            Next::Failed(failure) => return InstallStep::Done(fail(env, canister, run, failure, used, costs)),
        };
        let before = execution.instructions_used();
        let left = env.subnet.limits.install.slice.saturating_sub(used).max(Instructions(1));
        let mut finished = match execution.resume(left) {
            WasmOutcome::Finished(finished) => finished,
            WasmOutcome::Suspended(mut suspended) => {
                costs.suspended(&mut suspended);
                used = used.saturating_add(suspended.instructions_used().saturating_sub(before));
                let suspended = SuspendedInstall { execution: Mutex::new(suspended), run };
                *canister.paused = Paused::Installing(Box::new(Installing::Suspended(Box::new(suspended))));
                return InstallStep::Suspended { used, costs };
            }
        };
        sums::DIRTY_PAGES.add(|| finished.dirty_pages);
        let charged = costs.finished(&mut finished, run.install.limit.saturating_sub(run.used));
        let (desk, mut api, result) = take_apart(finished);
        used = used.saturating_add(charged.saturating_sub(before));
        run.used = run.used.saturating_add(charged);
        let Desk { seated, stable } = desk;
        run.stable = run.stable.take().or(stable);
        let failure = result.err().map(|trap| finish::explain(&mut api, &trap, run.install.limit, None));
        if let Some(line) = failure.as_ref().and_then(Failure::log_line) {
            api.written.add_line(line.as_bytes());
        }
        run.log.append(&mut api.written.log);
        let desk = Desk { seated, stable: None };
        // Without a copy, the old heap is not needed after `canister_pre_upgrade`, or it must be as it was.
        let keep = failure.is_none() && (run.part != Part::PreUpgrade || run.copy.is_some());
        let Some(runner) = runner(canister, &mut run) else { unreachable!("it has just run") };
        if keep {
            runner.commit(desk)
        } else {
            runner.rollback(desk)
        }
        next = match failure {
            Some(failure) => Next::Failed(failure),
            None => {
                run.burned = run.burned.saturating_add(api.funds.burned);
                run.written.certified_data = api.written.certified_data.or(run.written.certified_data);
                let kept_timer = if run.part == Part::PreUpgrade { None } else { api.written.timer };
                run.written.timer = kept_timer.or(run.written.timer);
                let going_on = match run.part {
                    Part::PreUpgrade => new_program(env, canister, &mut run),
                    Part::Start => init(env, canister, &mut run),
                    Part::Init => Ok(Next::Finished),
                };
                going_on.unwrap_or_else(Next::Failed)
            }
        };
    }
}

fn fail(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut run: Run,
    failure: Failure,
    used: Instructions,
    costs: SliceCosts,
) -> InstallOutcome {
    close_stable(canister, &mut run, false);
    let logged = finish::append_log(canister.log, canister.settings.log_memory_limit, env.time, run.log);
    InstallOutcome {
        result: Err(failure),
        used,
        total: run.used,
        costs,
        burned: Cycles::ZERO,
        low_memory: false,
        logged,
    }
}

/// Checks that the canister can hold what it has become, and puts it in place.
fn succeed(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut run: Run,
    used: Instructions,
    costs: SliceCosts,
) -> InstallOutcome {
    let (before, after) = (canister.memory_used(), memory_with(canister, &run));
    let reservation = match afford(env, canister, &run, before, after) {
        Ok(cost) => cost,
        Err(failure) => return fail(env, canister, run, failure, used, costs),
    };
    close_stable(canister, &mut run, true);
    let Some(mut next) = run.next.take() else { unreachable!("all parts have run") };
    if let (Program::Installed(old), true) = (&mut *canister.program, run.stable_is_old()) {
        next.swap_stable(old);
    }
    let fresh = run.install.mode == Mode::Fresh;
    *canister.program = Program::Installed(Box::new(next));
    if fresh {
        canister.certified_data.0.clear();
    }
    if let Some((len, data)) = run.written.certified_data {
        canister.certified_data.0 = data[..usize::from(len)].to_vec();
    }
    canister.timer.0 = run.written.timer.unwrap_or(Time::ZERO);
    canister.version.0 += 1;
    canister.balance.0 = canister.balance.0.saturating_sub(run.burned).saturating_sub(reservation);
    canister.reserved.0 = canister.reserved.0.saturating_add(reservation);
    *canister.low_memory = LowMemoryHook::NotSatisfied;
    let low_memory = finish::check_low_memory(canister);
    let logged = finish::append_log(canister.log, canister.settings.log_memory_limit, env.time, run.log);
    InstallOutcome { result: Ok(()), used, total: run.used, costs, burned: run.burned, low_memory, logged }
}

/// Cycles to reserve for growing from `before` to `after` bytes, if the subnet has the memory and the canister the cycles.
fn afford(
    env: &RoundEnv,
    canister: &CanisterMut<'_>,
    run: &Run,
    before: Bytes,
    after: Bytes,
) -> Result<Cycles, Failure> {
    let allocation = canister.settings.memory_allocation;
    let taken = after.max(allocation).saturating_sub(before.max(allocation));
    if taken > env.memory_available {
        return Err(Failure::OutOfMemory);
    }
    let (fees, limits) = (&env.subnet.fees, &env.subnet.limits);
    let bytes = after.saturating_sub(before);
    let reservation = match taken {
        Bytes::ZERO => Cycles::ZERO,
        taken => charge::reservation(fees, taken, env.memory_used, limits.reservation_from, limits.subnet_memory),
    };
    let requested = canister.reserved.0.saturating_add(reservation);
    let limit = canister.settings.reserved_cycles_limit;
    if reservation > Cycles::ZERO && requested > limit {
        return Err(Failure::ReservedCyclesLimit { bytes, requested, limit });
    }
    // What is prepaid and not used comes back.
    let available = canister.balance.0.saturating_add(run.install.held).saturating_sub(run.burned);
    let threshold = charge::freezing_threshold(fees, &*canister.settings, after, requested).saturating_add(reservation);
    let short = available < threshold || run.burned.saturating_add(reservation) > canister.balance.0;
    if short && (bytes > Bytes::ZERO || run.burned > Cycles::ZERO) {
        let reveal = canister.controllers.0.contains(&run.install.caller);
        return Err(Failure::InsufficientCyclesInMemoryGrow { bytes, available, threshold, reveal });
    }
    Ok(reservation)
}
