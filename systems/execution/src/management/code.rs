//! Putting code into canisters: what is checked and paid before the kernel's transaction ([`crate::install`]), and what follows it.
//!
//! Enters: `install_code` and `install_chunked_code`. Leaves: a canister with the new code and one more change in its history, or as it
//! was, less fees and with the log lines of what ran. Never here: the hooks themselves.

use super::call::{ManagementCall, ManagementContext, ManagementEffects, ManagementStep, Running, payload};
use super::error::ManagementError;
use super::method::Method;
use super::wire::{self, ic};
use super::{CanisterView, check_guard, chunks, finish, history};
use crate::costs::ASSEMBLY;
use crate::install::{self, Install, InstallOutcome, InstallStep, Mode};
use crate::machine::missing_resource;
use crate::{CanisterMut, Program, RoundEnv, charge};
use cyclotron_types::canister::{ChangeDetails, InstallMode};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Bytes, Cycles, Height, Instructions};
use cyclotron_wasm::Module;
use cyclotron_wasm::engine::EngineError;
use serde::{Deserialize, Serialize};

/// Modules with this private section know how to go on with the heap of an earlier version.
const PERSISTENCE_SECTION: &str = "enhanced-orthogonal-persistence";

/// What the kernel does not remember of a suspended installation. Replicated state; kept by the caller of [`super::execute_management`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingInstall {
    /// The call, without its argument.
    pub call: ManagementCall,
    terms: Terms,
}

/// On which terms an installation runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    canister: CanisterId,
    mode: InstallMode,
    module_hash: [u8; 32],
    sender_version: Option<u64>,
    wasm64: bool,
    prepaid: Cycles,
    since: Height,
}

impl PendingInstall {
    pub(super) fn new(mut call: ManagementCall, terms: Terms) -> Self {
        call.arg = Vec::new();
        Self { call, terms }
    }

    /// The canister.
    pub fn canister(&self) -> CanisterId {
        self.terms.canister
    }

    /// Its rank among installations: the oldest goes first.
    pub fn rank(&self) -> (Height, CanisterId) {
        (self.terms.since, self.terms.canister)
    }

    /// Cycles that it holds: the call's payment. The prepaid instructions are held by the canister's [`crate::Paused::Installing`].
    pub fn cycles(&self) -> Cycles {
        self.call.payment
    }
}

/// What an installation call asks for.
struct Wanted {
    canister: CanisterId,
    mode: ic::CanisterInstallMode,
    module: Vec<u8>,
    /// Charged for putting the module together: an instruction a byte, as if all chunks were full.
    assembly: Instructions,
    arg: Vec<u8>,
    sender_version: Option<u64>,
}

/// What the first slice came to.
pub(super) enum Started {
    Done(Vec<u8>),
    Suspended(Terms),
}

/// `install_code`.
pub(super) fn install_code(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Started, ManagementError> {
    let args: wire::InstallCodeArgs = wire::decode(&run.call.arg)?;
    let wanted = Wanted {
        canister: CanisterId::from_principal(args.canister_id),
        mode: args.mode,
        module: args.wasm_module,
        assembly: Instructions::ZERO,
        arg: args.arg,
        sender_version: args.sender_canister_version,
    };
    install(context, run, wanted, Method::InstallCode)
}

/// `install_chunked_code`.
pub(super) fn install_chunked_code(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Started, ManagementError> {
    let args: ic::InstallChunkedCodeArgs = wire::decode(&run.call.arg)?;
    let target = CanisterId::from_principal(args.target_canister);
    let store_id = args.store_canister.map_or(target, CanisterId::from_principal);
    // A missing target reads better as itself than as its own missing store.
    let missing = match args.store_canister {
        Some(_) => ManagementError::StoreNotFound { store: store_id, target },
        None => ManagementError::NotFound(target),
    };
    let store = context.canisters.get(store_id).ok_or(missing)?;
    // Who may upload chunks may use them.
    let guard = if args.store_canister.is_some() { Method::UploadChunk } else { Method::InstallChunkedCode };
    check_guard(&store, run, guard)?;
    let module = chunks::assemble(store.chunks, &args.chunk_hashes_list, &args.wasm_module_hash)?;
    let chunk_bytes = args.chunk_hashes_list.len() as u64 * limits::CHUNK_BYTES_MAX as u64;
    let wanted = Wanted {
        canister: target,
        mode: args.mode,
        module,
        assembly: Instructions(chunk_bytes),
        arg: args.arg,
        sender_version: args.sender_canister_version,
    };
    install(context, run, wanted, Method::InstallChunkedCode)
}

fn install(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
    wanted: Wanted,
    method: Method,
) -> Result<Started, ManagementError> {
    let env = &context.env_now();
    let mut canister = context.find(run, wanted.canister)?;
    check_guard(&canister, run, method)?;
    check_mode(&canister, wanted.mode)?;
    // Compiling takes the node's time: who could not pay for it in any case is told first.
    check_funds(env, &canister, false)?;
    let compiled = {
        let _zone = cyclotron_trace::zone!("compile a module");
        env.machine.engine.compile(&wanted.module)
    };
    let module = match compiled {
        Ok(module) => module,
        Err(error) => return Err(refuse_module(env, &mut canister, run, &wanted, &error)),
    };
    check_persistence(&canister, wanted.mode, &module)?;
    let wasm64 = module.shape().memory.is_some_and(|memory| memory.is_64);
    let prepaid = check_funds(env, &canister, wasm64)?;
    canister.balance.0 = canister.balance.0.saturating_sub(prepaid);
    let terms = Terms {
        canister: wanted.canister,
        mode: match wanted.mode {
            ic::CanisterInstallMode::Install => InstallMode::Install,
            ic::CanisterInstallMode::Reinstall => InstallMode::Reinstall,
            ic::CanisterInstallMode::Upgrade(_) => InstallMode::Upgrade,
        },
        module_hash: *module.hash(),
        sender_version: wanted.sender_version,
        wasm64,
        prepaid,
        since: env.height,
    };
    let install = Install {
        mode: kernel_mode(wanted.mode),
        module_hash: terms.module_hash,
        module_bytes: Bytes(wanted.module.len() as u64),
        caller: run.caller(),
        arg: wanted.arg,
        limit: env.subnet.limits.install.message,
        used: wanted.assembly.saturating_add(module.compile_cost()),
        held: prepaid,
        module,
    };
    match install::start_install(env, &mut canister, install) {
        InstallStep::Suspended { used, costs } => {
            run.effects.used = run.effects.used.saturating_add(used);
            run.effects.costs = costs;
            Ok(Started::Suspended(terms))
        }
        InstallStep::Done(outcome) => settle(env, &mut canister, run, &terms, outcome).map(Started::Done),
    }
}

fn kernel_mode(mode: ic::CanisterInstallMode) -> Mode {
    match mode {
        ic::CanisterInstallMode::Install | ic::CanisterInstallMode::Reinstall => Mode::Fresh,
        ic::CanisterInstallMode::Upgrade(flags) => {
            let flags = flags.unwrap_or_default();
            Mode::Upgrade {
                skip_pre_upgrade: flags.skip_pre_upgrade.unwrap_or(false),
                keep_heap: flags.wasm_memory_persistence == Some(ic::WasmMemoryPersistence::Keep),
            }
        }
    }
}

/// Whether the canister holds code or not, as the mode wants it.
fn check_mode(canister: &CanisterMut<'_>, mode: ic::CanisterInstallMode) -> Result<(), ManagementError> {
    match (mode, &*canister.program) {
        (ic::CanisterInstallMode::Install, Program::Installed(_)) => Err(ManagementError::NotEmpty(canister.id)),
        (ic::CanisterInstallMode::Upgrade(_), Program::Empty) => Err(ManagementError::NoModule(canister.id)),
        _ => Ok(()),
    }
}

/// An upgrade must say what becomes of a heap that is made to be kept, and must not keep one for code that cannot go on with it.
///
/// Spec: abstract-behavior "Code upgrade".
fn check_persistence(
    canister: &CanisterMut<'_>,
    mode: ic::CanisterInstallMode,
    new: &Module,
) -> Result<(), ManagementError> {
    let ic::CanisterInstallMode::Upgrade(flags) = mode else { return Ok(()) };
    let persists =
        |module: &Module| module.shape().metadata.get(PERSISTENCE_SECTION).is_some_and(|(public, _)| !public);
    match flags.and_then(|flags| flags.wasm_memory_persistence) {
        None => match &*canister.program {
            Program::Installed(old) if persists(old.module()) => Err(ManagementError::MissingUpgradeOption),
            _ => Ok(()),
        },
        Some(ic::WasmMemoryPersistence::Keep) if !persists(new) => Err(ManagementError::InvalidUpgradeOption),
        Some(_) => Ok(()),
    }
}

/// What the longest installation costs, if the canister can pay it now and is not frozen then.
fn check_funds(env: &RoundEnv, canister: &CanisterMut<'_>, wasm64: bool) -> Result<Cycles, ManagementError> {
    let cost = env.subnet.fees.execution(env.subnet.limits.install.message, wasm64);
    let threshold = charge::threshold_of(&env.subnet.fees, canister);
    // The caller is a controller: it may know what is missing.
    charge::withdraw(canister.id, &mut canister.balance.0.clone(), cost, threshold, true)
        .map_err(ManagementError::InstallUnpaid)?;
    Ok(cost)
}

/// The canister pays the base fee and the assembly for a module that is none.
fn refuse_module(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    run: &mut Running<'_>,
    wanted: &Wanted,
    error: &EngineError,
) -> ManagementError {
    if let EngineError::Code(error) = error {
        missing_resource(error);
    }
    let cost = canister.balance.0.take(env.subnet.fees.execution(wanted.assembly, false));
    run.burn(cost);
    run.effects.used = run.effects.used.saturating_add(wanted.assembly);
    run.effects.costs.add(env, ASSEMBLY, wanted.assembly);
    let text = format!("Error from Canister {}: Canister's Wasm module is not valid: {error}", canister.id);
    Reject::new(ErrorCode::CanisterInvalidWasm, text).into()
}

/// Charges for what ran, gives the rest back, and writes the history.
fn settle(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    run: &mut Running<'_>,
    terms: &Terms,
    outcome: InstallOutcome,
) -> Result<Vec<u8>, ManagementError> {
    let cost = env.subnet.fees.execution(outcome.total, terms.wasm64).min(terms.prepaid);
    let lost = canister.balance.0.put(terms.prepaid.saturating_sub(cost));
    run.burn(lost);
    run.burn(cost);
    run.burn(outcome.burned);
    run.effects.used = run.effects.used.saturating_add(outcome.used);
    run.effects.costs = outcome.costs;
    run.effects.low_memory = outcome.low_memory.then_some(canister.id);
    if let Err(failure) = outcome.result {
        return Err(failure.reject(canister.id).into());
    }
    if terms.mode == InstallMode::Reinstall {
        // The log begins with what the new code wrote. Spec: #ic-fetch_canister_logs.
        canister.log.keep_newest(outcome.logged);
    }
    let details = ChangeDetails::CodeDeployment { mode: terms.mode, module_hash: terms.module_hash };
    let origin = run.call.origin.change_origin(terms.sender_version);
    history::record(canister.history, env.time, canister.version.0, origin, details);
    Ok(wire::encode_nothing())
}

/// Runs the next slice of a suspended or aborted installation.
///
/// Panics: when the canister is not there or installs nothing: whoever holds the [`PendingInstall`] keeps calls that would change
/// that away, as [`super::execute_management`] does.
pub fn resume_install(context: &mut ManagementContext<'_>, pending: PendingInstall) -> ManagementStep {
    let PendingInstall { mut call, terms } = pending;
    let env = &context.env_now();
    let mut run = Running { call: &mut call, effects: ManagementEffects::default() };
    let found = context.find(&mut run, terms.canister);
    let mut canister = found.unwrap_or_else(|error| panic!("an installing canister is there: {error:?}"));
    let result = match install::resume_install(env, &mut canister) {
        InstallStep::Suspended { used, costs } => {
            run.effects.used = run.effects.used.saturating_add(used);
            run.effects.costs = costs;
            let effects = run.effects;
            return ManagementStep::Suspended { pending: Box::new(PendingInstall { call, terms }), effects };
        }
        InstallStep::Done(outcome) => settle(env, &mut canister, &mut run, &terms, outcome),
    };
    finish(run, payload(result))
}

/// What [`CanisterView`] shows of a program's metadata to this reader: private sections to controllers alone.
pub(super) fn metadata<'a>(canister: &CanisterView<'a>, name: &str, private: bool) -> Option<&'a [u8]> {
    let (public, content) = canister.program.installed()?.metadata(name)?;
    (public || private).then_some(content)
}
