//! Forks: a canister once more, under another id.
//!
//! Both have the same code, memories, settings, controllers, certified data, chunks, log, timer and cycles from then on; what the copy has of these is minted.
//! Its version is one more than that of the other, and its history begins with the fork.

use super::call::ManagementContext;
use super::history;
use super::ids::IdError;
use crate::{CanisterBundle, CanisterMut, OpenCalls, Paused, Program};
use cyclotron_types::action::ActionRefused;
use cyclotron_types::canister::{
    CallContexts, CanisterHistory, CanisterVersion, ChangeDetails, ChangeOrigin, InstallMode, RunState,
};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits;
use cyclotron_types::units::{Cycles, Time};

/// A copy that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// Its id.
    pub canister: CanisterId,
    /// Cycles that it has, out of nothing.
    pub minted: Cycles,
}

/// Puts a copy of `source` into the subnet, under the id `target` or the next free one. Pages that a checkpoint keeps are shared. The caller touches
/// the copy. Cost: O(pages changed since the last checkpoint, runs of pages), and the canister's plain data.
///
/// Errors: see [`ActionRefused`]; nothing has changed then, no id is used up.
/// Panics: when this machine lacks memory that others have.
pub fn fork_canister(
    context: &mut ManagementContext<'_>,
    source: CanisterId,
    target: Option<CanisterId>,
) -> Result<Forked, ActionRefused> {
    let subnet_use = context.canisters.subnet_use();
    let waiting = context.canisters.has_messages(source);
    let canister = context.canisters.get(source).ok_or(ActionRefused::NoSuchCanister(source))?;
    check_quiet(&canister, waiting)?;
    let required = canister.memory_used().max(canister.settings.memory_allocation);
    let available = context.env.subnet.limits.subnet_memory.saturating_sub(subnet_use.memory);
    if required > available {
        return Err(ActionRefused::OutOfMemory { required, available });
    }
    let required = canister.settings.compute_allocation;
    let available = limits::COMPUTE_ALLOCATION_TOTAL_MAX.saturating_sub(subnet_use.compute);
    if required > available {
        return Err(ActionRefused::OutOfCompute { required, available });
    }
    // Last: an id that was given out is used up.
    let id = match target {
        None => context.ids.allocate(),
        Some(id) => context.ids.allocate_specified(id.principal()),
    };
    let id = id.map_err(|error| match (error, target) {
        (IdError::NotHosted, Some(id)) => ActionRefused::IdNotHosted(id),
        (IdError::Taken, Some(id)) => ActionRefused::IdTaken(id),
        _ => ActionRefused::OutOfIds,
    })?;
    let copy = copy_of(&canister, context.env.time);
    let minted = copy.balance.0.saturating_add(copy.reserved.0);
    context.canisters.insert(id, copy);
    Ok(Forked { canister: id, minted })
}

/// Whether all there is of the canister can be there twice.
fn check_quiet(canister: &CanisterMut<'_>, waiting: bool) -> Result<(), ActionRefused> {
    let (id, CallContexts { contexts, callbacks, .. }) = (canister.id, &*canister.contexts);
    if !matches!(canister.paused, Paused::None) {
        return Err(ActionRefused::Busy(id));
    }
    if !contexts.is_empty() || !callbacks.is_empty() {
        let (serves, made) = (contexts.len() as u64, callbacks.len() as u64);
        return Err(ActionRefused::OpenCalls { canister: id, serves, made });
    }
    if waiting {
        return Err(ActionRefused::MessagesWait(id));
    }
    match canister.run_state {
        RunState::Running | RunState::Stopped => Ok(()),
        RunState::Stopping(_) => Err(ActionRefused::Stopping(id)),
    }
}

fn copy_of(canister: &CanisterMut<'_>, now: Time) -> CanisterBundle {
    let version = CanisterVersion(canister.version.0.saturating_add(1));
    let program = match &*canister.program {
        Program::Empty => Program::Empty,
        Program::Installed(installed) => Program::Installed(Box::new(installed.fork())),
    };
    let origin = ChangeOrigin::Canister { id: canister.id, version: Some(canister.version.0) };
    let variables = &canister.settings.environment_variables;
    let mut changes = vec![ChangeDetails::Creation {
        controllers: canister.controllers.0.iter().copied().collect(),
        environment_hash: (!variables.is_empty()).then(|| history::environment_hash(variables)),
    }];
    if let Some(&module_hash) = program.module_hash() {
        changes.push(ChangeDetails::CodeDeployment { mode: InstallMode::Install, module_hash });
    }
    let mut history = CanisterHistory::default();
    for details in changes {
        history::record(&mut history, now, version.0, origin.clone(), details);
    }
    CanisterBundle {
        controllers: canister.controllers.clone(),
        balance: *canister.balance,
        reserved: *canister.reserved,
        version,
        certified_data: canister.certified_data.clone(),
        timer: *canister.timer,
        paid_until: *canister.paid_until,
        run_state: canister.run_state.clone(),
        settings: canister.settings.clone(),
        // Numbers of calls go on from where they are.
        contexts: canister.contexts.clone(),
        open_calls: OpenCalls::default(),
        log: canister.log.clone(),
        chunks: canister.chunks.clone(),
        history,
        low_memory: *canister.low_memory,
        program,
        paused: Paused::None,
    }
}
