//! Starting, stopping, uninstalling and deleting canisters.
//!
//! Enters: a call and its canister, or a stopping canister at the end of a round. Leaves: changed run states, answers.
//! Never here: a stopped canister with open call contexts.

use super::call::{Answer, ManagementContext, ManagementOrigin, Running, answer_as};
use super::error::ManagementError;
use super::method::Method;
use super::{check_guard, history, wire};
use crate::{CanisterMut, LowMemoryHook, Paused, Program};
use cyclotron_types::canister::{CallOrigin, ChangeDetails, GlobalTimer, RunState, StopWaiter};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits;
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Bytes, Cycles, Time};

fn bump(canister: &mut CanisterMut<'_>) {
    canister.version.0 = canister.version.0.saturating_add(1);
}

fn named(run: &Running<'_>) -> Result<CanisterId, ManagementError> {
    let args: wire::CanisterIdArgs = wire::decode(&run.call.arg)?;
    Ok(CanisterId::from_principal(args.canister_id))
}

/// `start_canister`: ends a pending stop.
pub(super) fn start_canister(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let id = named(run)?;
    let mut canister = context.find(run, id)?;
    check_guard(&canister, run, Method::StartCanister)?;
    bump(&mut canister);
    if let RunState::Stopping(waiters) = std::mem::replace(canister.run_state, RunState::Running) {
        let cancelled =
            Reject::new(ErrorCode::CanisterStoppingCancelled, format!("Canister {id}'s stop request was cancelled."));
        run.effects.answers.extend(waiters.into_iter().map(|waiter| answer_waiter(waiter, reject(&cancelled))));
    }
    Ok(wire::encode_nothing())
}

fn reject(reject: &Reject) -> ResponsePayload {
    ResponsePayload::Reject(reject.clone())
}

fn answer_waiter(waiter: StopWaiter, payload: ResponsePayload) -> Answer {
    match waiter {
        StopWaiter::Ingress { id, .. } => {
            // The sender of an ingress message does not matter to its answer.
            let origin = ManagementOrigin::Ingress { id, sender: cyclotron_types::Principal::anonymous() };
            origin.answer(payload, Cycles::ZERO)
        }
        StopWaiter::Canister { caller, callback, payment, kind, .. } => {
            ManagementOrigin::Canister { caller, callback, kind }.answer(payload, payment)
        }
    }
}

/// Whether a stop is answered now or waits.
pub(super) enum Stop {
    Answered(Vec<u8>),
    Waiting,
}

/// `stop_canister`: takes the call's payment along when it has to wait.
pub(super) fn stop_canister(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Stop, ManagementError> {
    let id = named(run)?;
    let since = context.env.time;
    let mut canister = context.find(run, id)?;
    check_guard(&canister, run, Method::StopCanister)?;
    bump(&mut canister);
    if *canister.run_state == RunState::Stopped {
        return Ok(Stop::Answered(wire::encode_nothing()));
    }
    let waiter = match &run.call.origin {
        ManagementOrigin::Ingress { id, .. } => StopWaiter::Ingress { id: *id, since },
        ManagementOrigin::Canister { caller, callback, kind } => StopWaiter::Canister {
            caller: *caller,
            callback: *callback,
            payment: std::mem::take(&mut run.call.payment),
            kind: *kind,
            since,
        },
    };
    match &mut *canister.run_state {
        RunState::Stopping(waiters) => waiters.push(waiter),
        state => *state = RunState::Stopping(vec![waiter]),
    }
    run.effects.answers.extend(finish_stopping(&mut canister));
    Ok(Stop::Waiting)
}

/// Stops a stopping canister that has nothing left to wait for, and answers everyone who asked. Otherwise does nothing.
///
/// To be called after a stopping canister has executed a message; the methods here that leave one idle call it themselves.
/// Spec: abstract-behavior "Stopping a canister".
pub fn finish_stopping(canister: &mut CanisterMut<'_>) -> Vec<Answer> {
    let idle = canister.contexts.contexts.is_empty()
        && canister.contexts.callbacks.is_empty()
        && matches!(canister.paused, Paused::None);
    let RunState::Stopping(waiters) = canister.run_state else { return Vec::new() };
    if !idle {
        return Vec::new();
    }
    let waiters = std::mem::take(waiters);
    *canister.run_state = RunState::Stopped;
    bump(canister);
    waiters.into_iter().map(|waiter| answer_waiter(waiter, ResponsePayload::Reply(wire::encode_nothing()))).collect()
}

/// Rejects the stop requests that have waited for `limits::STOP_TIMEOUT`; the canister keeps stopping.
pub fn expire_stopping(canister: &mut CanisterMut<'_>, now: Time) -> Vec<Answer> {
    let RunState::Stopping(waiters) = canister.run_state else { return Vec::new() };
    let expired = |waiter: &StopWaiter| {
        let (StopWaiter::Ingress { since, .. } | StopWaiter::Canister { since, .. }) = waiter;
        since.plus(limits::STOP_TIMEOUT) <= now
    };
    let (gone, kept) = std::mem::take(waiters).into_iter().partition(expired);
    *waiters = kept;
    let timeout = Reject::new(ErrorCode::StopCanisterRequestTimeout, "Stop canister request timed out");
    let gone: Vec<StopWaiter> = gone;
    gone.into_iter().map(|waiter| answer_waiter(waiter, reject(&timeout))).collect()
}

/// `uninstall_code`.
pub(super) fn uninstall_code(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: super::ic::UninstallCodeArgs = wire::decode(&run.call.arg)?;
    let id = CanisterId::from_principal(args.canister_id);
    let time = context.env.time;
    let mut canister = context.find(run, id)?;
    check_guard(&canister, run, Method::UninstallCode)?;
    let rejects = uninstall(&mut canister);
    run.effects.answers.extend(rejects);
    let origin = run.call.origin.change_origin(args.sender_canister_version);
    history::record(canister.history, time, canister.version.0, origin, ChangeDetails::CodeUninstall);
    // Nobody waits for it any more.
    run.effects.answers.extend(finish_stopping(&mut canister));
    Ok(wire::encode_nothing())
}

/// Takes code and state out of a canister. Returns the rejects for everyone whom it had not answered. Responses to its own calls still
/// bring their cycles back, but run nothing.
///
/// The caller records the change.
/// Spec: abstract-behavior #rule-uninstall.
pub fn uninstall(canister: &mut CanisterMut<'_>) -> Vec<Answer> {
    clear(canister, false)
}

/// Takes code and state out of a canister that could not pay, and its allocations and its history too.
///
/// Spec: abstract-behavior "Canister out of cycles".
pub fn uninstall_exhausted(canister: &mut CanisterMut<'_>) -> Vec<Answer> {
    canister.history.changes.clear();
    canister.settings.compute_allocation = 0;
    canister.settings.memory_allocation = Bytes::ZERO;
    clear(canister, true)
}

fn clear(canister: &mut CanisterMut<'_>, exhausted: bool) -> Vec<Answer> {
    // A message in its middle works on memories that go now: it starts over, and finds no code.
    crate::abort(canister);
    *canister.program = Program::Empty;
    canister.certified_data.0.clear();
    canister.chunks.0.clear();
    canister.log.records.clear();
    canister.log.bytes = 0;
    *canister.timer = GlobalTimer::default();
    *canister.low_memory = LowMemoryHook::NotSatisfied;
    bump(canister);
    let gone = crate::reject::uninstalled(canister.id, exhausted);
    let mut answers = Vec::new();
    for context in canister.contexts.contexts.values_mut() {
        let available = std::mem::take(&mut context.available);
        let owed = !std::mem::replace(&mut context.responded, true);
        context.deleted = true;
        if !owed {
            assert_eq!(available, Cycles::ZERO, "an answered context holds no cycles");
            continue;
        }
        let origin = match &context.origin {
            CallOrigin::Ingress { id, sender, .. } => ManagementOrigin::Ingress { id: *id, sender: *sender },
            CallOrigin::Canister { caller, callback, kind, .. } => {
                ManagementOrigin::Canister { caller: *caller, callback: *callback, kind: *kind }
            }
            CallOrigin::Task(_) => continue,
        };
        answers.push(answer_as(&origin, canister.id, reject(&gone), available));
    }
    // What waits for no callback is over.
    canister.contexts.drop_finished();
    answers
}

/// `delete_canister`: its cycles leave the world.
pub(super) fn delete_canister(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let id = named(run)?;
    if run.caller() == id.principal() {
        return Err(ManagementError::DeletesItself(id));
    }
    let canister = context.find(run, id)?;
    check_guard(&canister, run, Method::DeleteCanister)?;
    if *canister.run_state != RunState::Stopped {
        return Err(ManagementError::NotStopped(id));
    }
    let cycles = canister.balance.0.saturating_add(canister.reserved.0);
    if context.canisters.has_messages(id) {
        return Err(ManagementError::QueuesNotEmpty(id));
    }
    context.canisters.remove(id);
    run.burn(cycles);
    Ok(wire::encode_nothing())
}
