//! The end of a message: what holds, what is rolled back, who is answered, what it cost.
//!
//! Enters: a finished execution. Leaves: changed components and effects. Cycles are conserved here: what leaves the canister is in
//! an effect, a call context, a callback, or burned.

use super::call::is_wasm64;
use super::response::after_failure;
use super::{CallbackRun, Ended, Kind, Run, installed, take_apart};
use crate::canister::{CanisterMut, LowMemoryHook, Program};
use crate::config::RoundEnv;
use crate::job::{Effects, Outcome, Outgoing, Verdict as WasmVerdict};
use crate::machine::backtrace;
use crate::management::sender_canister_version;
use crate::reject::{self, Failure, OutOfCycles};
use crate::system_api::{Answer, MadeCall, SystemApi};
use cyclotron_types::canister::{CallContext, CallOrigin, Callback, CanisterLog, Visibility};
use cyclotron_types::ids::{CallContextId, CallbackId, CanisterId};
use cyclotron_types::limits::{HEAP_BYTES_MAX_32, HEAP_BYTES_MAX_64};
use cyclotron_types::message::{IngressStatus, Message, Request, Response, ResponsePayload, SystemTask};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Bytes, Cycles, Instructions, Time};
use cyclotron_wasm::abi::TrapCode;
use cyclotron_wasm::decode::SystemMethod;
use cyclotron_wasm::runtime::{Finished, Trap, describe};

/// How a message ended.
pub(super) enum Verdict {
    /// The Wasm returned and what it did holds.
    Returned(Box<SystemApi>),
    /// It failed, and this is what its caller is told unless another callback may still answer.
    Failed(Reject),
    /// Its call context is gone with an uninstalled module.
    Deleted,
}

/// Why the Wasm stopped, in the System API's terms.
pub(super) fn explain(api: &mut SystemApi, trap: &Trap, limit: Instructions, callback: Option<u64>) -> Failure {
    let missing =
        matches!(trap.code, TrapCode::TableOutOfBounds | TrapCode::IndirectCallToNull | TrapCode::BadSignature);
    if let (Some(function), true, true) = (callback, missing, trap.frames.is_empty()) {
        return Failure::FunctionNotFound { function };
    }
    let frames = backtrace(trap);
    match trap.code {
        TrapCode::Host => match api.failure.take().map(|failure| *failure) {
            Some(Failure::CalledTrap { message, .. }) => Failure::CalledTrap { message, backtrace: frames },
            Some(Failure::Trapped { reason, .. }) => Failure::Trapped { reason, backtrace: frames },
            Some(other) => other,
            None => Failure::Engine("a host function failed without a reason".into()),
        },
        TrapCode::InstructionLimit => Failure::InstructionLimit(limit),
        TrapCode::IntegerDivisionByZero => {
            Failure::Trapped { reason: "integer division by 0".into(), backtrace: frames }
        }
        code => Failure::Trapped { reason: describe(code).into(), backtrace: frames },
    }
}

/// A failure as the message's caller may see it: names of functions are for readers of the log.
pub(super) fn visible(canister: &CanisterMut<'_>, run: &Run, failure: Failure) -> Failure {
    let reader = match &canister.settings.log_visibility {
        Visibility::Public => true,
        Visibility::Controllers => canister.controllers.0.contains(&run.caller),
        Visibility::AllowedViewers(viewers) => {
            viewers.contains(&run.caller) || canister.controllers.0.contains(&run.caller)
        }
    };
    if reader { failure } else { failure.without_backtrace() }
}

/// Ends the part of a message whose Wasm has finished.
pub(super) fn end_stage(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut run: Run,
    finished: Finished<Box<SystemApi>>,
    charged: Instructions,
) -> Ended {
    let used = run.used_before.saturating_add(charged);
    let (desk, mut api, result) = take_apart(finished);
    api.discard_pending();
    let closure = match &run.kind {
        Kind::Callback(callback) => Some(match (&callback.failure, &callback.response.payload) {
            (Some(_), _) => callback.callback.on_cleanup.map_or(0, |closure| closure.function),
            (None, ResponsePayload::Reply(_)) => callback.callback.on_reply.function,
            (None, ResponsePayload::Reject(_)) => callback.callback.on_reject.function,
        }),
        Kind::Call { .. } | Kind::Task { .. } => None,
    };
    let failure = result.err().map(|trap| explain(&mut api, &trap, run.limit, closure));
    // Nobody is told why a task failed: the log is where it can be seen.
    let task = matches!(run.kind, Kind::Task { .. });
    let line = failure.as_ref().and_then(|f| f.log_line().or_else(|| task.then(|| format!("[TRAP]: {f}"))));
    if let Some(line) = line {
        api.written.add_line(line.as_bytes());
    }
    run.log.append(&mut api.written.log);
    let query = matches!(run.kind, Kind::Call { query: true, .. });
    let Some(installed) = installed(canister) else { unreachable!("it has just run") };
    if let Some(failure) = failure {
        installed.rollback(desk);
        return match run.kind {
            Kind::Callback(_) => {
                let message = std::mem::take(&mut api.message);
                after_failure(env, canister, run, failure, message, used)
            }
            _ => {
                let reject = visible(canister, &run, failure).reject(canister.id);
                Ended::Message(conclude(env, canister, run, Verdict::Failed(reject), used))
            }
        };
    }
    // While it was suspended others may have taken what it counted on.
    let refused = if !query && api.memory.taken > env.memory_available {
        Some((Failure::OutOfMemory, Failure::OutOfMemory.reject(canister.id)))
    } else {
        overdrawn(canister, &run, &api).map(|error| (Failure::InsufficientCycles(error), reject::out_of_cycles(error)))
    };
    if let Some((failure, reject)) = refused {
        installed_mut(canister).rollback(desk);
        return match run.kind {
            Kind::Callback(_) => {
                let message = std::mem::take(&mut api.message);
                after_failure(env, canister, run, failure, message, used)
            }
            _ => Ended::Message(conclude(env, canister, run, Verdict::Failed(reject), used)),
        };
    }
    let installed = installed_mut(canister);
    if query {
        installed.rollback(desk)
    } else {
        installed.commit(desk)
    }
    Ended::Message(conclude(env, canister, run, Verdict::Returned(api), used))
}

fn installed_mut<'a>(canister: &'a mut CanisterMut<'_>) -> &'a mut crate::machine::Installed {
    match canister.program {
        Program::Installed(installed) => installed,
        Program::Empty => unreachable!("it has just run"),
    }
}

/// What the message adds to the balance that it saw, and what it takes out of it; one of them is zero.
fn change(run: &Run, api: &SystemApi) -> (Cycles, Cycles) {
    let (before, after) = (run.initial_balance, api.funds.balance);
    (after.saturating_sub(before), before.saturating_sub(after))
}

/// Whether the balance has shrunk so far while the message was suspended (fees for ingress, storage) that it cannot pay for what it did.
fn overdrawn(canister: &CanisterMut<'_>, run: &Run, api: &SystemApi) -> Option<OutOfCycles> {
    let available = canister.balance.0.saturating_add(run.incoming);
    if available >= run.initial_balance {
        return None;
    }
    let threshold = if matches!(run.kind, Kind::Callback(_)) { Cycles::ZERO } else { run.threshold };
    let (added, requested) = change(run, api);
    (available.saturating_add(added) < requested.saturating_add(threshold)).then(|| OutOfCycles {
        canister: canister.id,
        available,
        requested,
        threshold,
        reveal: canister.controllers.0.contains(&run.caller),
    })
}

/// Settles a message that has ended: cycles, written data, calls, the call context, the log.
pub(super) fn conclude(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut run: Run,
    verdict: Verdict,
    used: Instructions,
) -> Outcome {
    let mut effects = Effects { burned: run.burned, ..Effects::default() };
    append_log(canister.log, canister.settings.log_memory_limit, env.time, std::mem::take(&mut run.log));
    // A response is run at the price at which it was prepaid, whatever module is there by now.
    let (callback, prepaid, wasm64) = match &run.kind {
        Kind::Callback(run) => {
            let callback = &run.callback;
            (Some((run.id, callback.callee)), callback.prepaid_execution, callback.prepaid_wasm64)
        }
        Kind::Call { .. } | Kind::Task { .. } => (None, run.prepaid, is_wasm64(canister)),
    };
    let mut balance = canister.balance.0;
    let mut lost = balance.put(run.incoming);
    let mut stage = Stage::default();
    match verdict {
        Verdict::Returned(api) => {
            effects.verdict = WasmVerdict::Returned;
            let (added, removed) = change(&run, &api);
            lost = lost.saturating_add(balance.put(added));
            // `overdrawn` has checked it; without a suspension it holds because the System API checked it.
            balance = balance.checked_sub(removed).expect("the balance covers what the message takes out of it");
            stage = keep(canister, &run, *api, &mut effects);
            if let Kind::Callback(callback) = &run.kind {
                // A cleanup that returned: its effects hold, the answer is why the callback failed.
                let failure = callback.failure.clone();
                stage.failure = failure.map(|failure| visible(canister, &run, failure).reject(canister.id));
            }
        }
        Verdict::Failed(reject) => {
            effects.verdict = if used == Instructions::ZERO { WasmVerdict::NotRun } else { WasmVerdict::Trapped };
            stage.failure = Some(reject);
        }
        Verdict::Deleted => {}
    }
    let deleted = matches!((&stage.failure, effects.verdict), (None, WasmVerdict::NotRun));
    // Spec: a response to a deleted context gives back all that was set aside for it.
    let cost = if deleted { Cycles::ZERO } else { env.subnet.fees.execution(used, wasm64).min(prepaid) };
    effects.burned = effects.burned.saturating_add(cost);
    if let Kind::Callback(callback) = &run.kind {
        let transmission = Cycles(callback.callback.prepaid_transmission.0 - callback.transmission_refund.0);
        let never_returned = Cycles(callback.response.refund.0 - callback.refund.0);
        effects.burned = effects.burned.saturating_add(transmission).saturating_add(never_returned);
    }
    lost = lost.saturating_add(balance.put(Cycles(prepaid.0 - cost.0)));
    effects.burned = effects.burned.saturating_add(lost);
    canister.balance.0 = balance;
    if let Some((id, callee)) = callback {
        canister.contexts.take_callback(id);
        canister.open_calls.close(callee);
    }
    end_context(canister, run, stage, used, env.time, &mut effects);
    effects.idle = canister.contexts.contexts.is_empty();
    Outcome { total: used, effects, ..Outcome::default() }
}

/// What a message left for its call context.
#[derive(Default)]
struct Stage {
    answer: Option<(ResponsePayload, Cycles)>,
    /// Left of the payment.
    available: Option<Cycles>,
    failure: Option<Reject>,
    /// Calls made, and why the system answers one at once instead of sending it.
    calls: Vec<(MadeCall, Option<Reject>)>,
}

/// Writes what a message that returned has written.
fn keep(canister: &mut CanisterMut<'_>, run: &Run, api: SystemApi, effects: &mut Effects) -> Stage {
    let SystemApi { identity, subnet, answer, funds, calls, memory, written, .. } = api;
    effects.burned = effects.burned.saturating_add(funds.burned).saturating_add(funds.call_fees);
    let answer = match answer {
        Answer::Given(payload) => Some((payload, funds.refund)),
        Answer::Owed | Answer::NotOwed => None,
    };
    let is_management = |id: CanisterId| id == CanisterId::MANAGEMENT || id.principal() == subnet.subnet;
    let refused = |call: &MadeCall| {
        is_management(call.callee).then(|| refuse_version(&call.method, &call.arg, identity.version)).flatten()
    };
    let calls = calls.made.into_iter().map(|call| {
        let refused = refused(&call);
        (call, refused)
    });
    let calls = calls.collect();
    let stage = Stage { answer, available: Some(funds.available), failure: None, calls };
    if matches!(run.kind, Kind::Call { query: true, .. }) {
        return stage;
    }
    canister.reserved.0 = canister.reserved.0.saturating_add(funds.newly_reserved);
    canister.version.0 += 1;
    effects.memory_taken = memory.taken.0;
    if let Some((len, data)) = written.certified_data {
        canister.certified_data.0.clear();
        canister.certified_data.0.extend_from_slice(&data[..usize::from(len)]);
    }
    if let Some(at) = written.timer {
        canister.timer.0 = at;
    }
    effects.low_memory = check_low_memory(canister);
    stage
}

/// Notes whether the heap has come close to its limit; returns whether the hook became due.
///
/// Called after every message and after each management call that changes limits or memory. Spec: #rule-on-low-wasm-memory.
pub fn check_low_memory(canister: &mut CanisterMut<'_>) -> bool {
    let Program::Installed(installed) = &*canister.program else { return false };
    let limit = match canister.settings.wasm_memory_limit {
        Bytes::ZERO if installed.is_wasm64() => HEAP_BYTES_MAX_64,
        Bytes::ZERO => HEAP_BYTES_MAX_32,
        limit => limit,
    };
    let low = limit < installed.heap_bytes().saturating_add(canister.settings.wasm_memory_threshold);
    match (*canister.low_memory, low) {
        (_, false) => *canister.low_memory = LowMemoryHook::NotSatisfied,
        (LowMemoryHook::NotSatisfied, true) if installed.system_method(SystemMethod::OnLowWasmMemory).is_some() => {
            *canister.low_memory = LowMemoryHook::Ready;
            return true;
        }
        (_, true) => {}
    }
    false
}

/// The rejection of a call to the management canister that gives another version than the canister's for its own.
///
/// Source: dfinity/ic `system_api/src/sandbox_safe_system_state.rs`, `validate_sender_canister_version`.
fn refuse_version(method: &str, arg: &[u8], own: u64) -> Option<Reject> {
    let given = sender_canister_version(method, arg).filter(|given| *given != own)?;
    Some(Reject::new(
        ErrorCode::CanisterContractViolation,
        format!(
            "Management canister call payload includes sender canister version {given} that does not match the actual sender canister \
             version {own}."
        ),
    ))
}

/// Registers calls: their callbacks, their requests.
fn send_calls(
    canister: &mut CanisterMut<'_>,
    context: CallContextId,
    calls: Vec<(MadeCall, Option<Reject>)>,
    effects: &mut Effects,
) {
    for (call, refused) in calls {
        let id = CallbackId(canister.contexts.next_callback);
        canister.contexts.next_callback += 1;
        canister.open_calls.open(call.callee);
        canister.contexts.callbacks.insert(
            id,
            Callback {
                context,
                callee: call.callee,
                payment: call.payment,
                prepaid_execution: call.prepaid_execution,
                prepaid_wasm64: call.prepaid_wasm64,
                prepaid_transmission: call.prepaid_transmission,
                on_reply: call.on_reply,
                on_reject: call.on_reject,
                on_cleanup: call.on_cleanup,
                kind: call.kind,
            },
        );
        if let Some(reject) = refused {
            effects.outgoing.push(Outgoing::Response(Response {
                originator: canister.id,
                respondent: call.callee,
                callback: id,
                refund: call.payment,
                payload: ResponsePayload::Reject(reject),
                kind: call.kind,
            }));
            continue;
        }
        effects.outgoing.push(Outgoing::Request(Request {
            sender: canister.id,
            receiver: call.callee,
            callback: id,
            method: call.method,
            arg: call.arg,
            payment: call.payment,
            kind: call.kind,
        }));
    }
}

/// The origin of a message that starts a call context, and the payment that came with it.
fn origin_of(kind: Kind) -> (CallOrigin, Cycles) {
    match kind {
        Kind::Task { task, .. } => (CallOrigin::Task(task), Cycles::ZERO),
        Kind::Call { message: Message::Ingress(m), .. } => {
            (CallOrigin::Ingress { id: m.id, sender: m.sender, method: m.method }, Cycles::ZERO)
        }
        Kind::Call { message: Message::Request(m), .. } => {
            (CallOrigin::Canister { caller: m.sender, callback: m.callback, kind: m.kind, method: m.method }, m.payment)
        }
        Kind::Call { .. } | Kind::Callback(_) => unreachable!("only calls and tasks start call contexts"),
    }
}

/// Carries the call context on: creates it if it must outlive its first message, answers, ends it when nothing is outstanding.
fn end_context(
    canister: &mut CanisterMut<'_>,
    run: Run,
    stage: Stage,
    used: Instructions,
    now: Time,
    effects: &mut Effects,
) {
    let id = run.context();
    let mut context = match run.kind {
        Kind::Callback(callback) => {
            let CallbackRun { callback, .. } = *callback;
            let Some(mut context) = canister.contexts.take_context(callback.context) else { return };
            context.outstanding -= 1;
            context
        }
        kind => {
            let (origin, payment) = origin_of(kind);
            let responded = matches!(origin, CallOrigin::Task(_));
            CallContext {
                origin,
                responded,
                available: payment,
                outstanding: 0,
                instructions: Instructions::ZERO,
                created: now,
                deleted: false,
            }
        }
    };
    if let Some(available) = stage.available {
        context.available = available;
    }
    context.instructions = context.instructions.saturating_add(used);
    context.outstanding += stage.calls.len() as u32;
    send_calls(canister, id, stage.calls, effects);
    if let Some((payload, refund)) = stage.answer {
        context.responded = true;
        respond(canister.id, &context.origin, payload, refund, effects);
    } else if !context.responded && context.outstanding == 0 {
        context.responded = true;
        let reject = stage.failure.unwrap_or_else(|| reject::did_not_reply(canister.id));
        let refund = std::mem::take(&mut context.available);
        respond(canister.id, &context.origin, ResponsePayload::Reject(reject), refund, effects);
    } else if let (false, CallOrigin::Ingress { id, .. }) = (context.responded, &context.origin) {
        effects.ingress = Some((*id, IngressStatus::Processing));
    }
    if context.outstanding > 0 {
        canister.contexts.contexts.insert(id, context);
    }
}

fn respond(canister: CanisterId, origin: &CallOrigin, payload: ResponsePayload, refund: Cycles, effects: &mut Effects) {
    match origin {
        CallOrigin::Ingress { id, .. } => {
            assert_eq!(refund, Cycles::ZERO, "an ingress message carries no cycles");
            let status = match payload {
                ResponsePayload::Reply(data) => IngressStatus::Replied(data),
                ResponsePayload::Reject(reject) => IngressStatus::Rejected(reject),
            };
            effects.ingress = Some((*id, status));
        }
        CallOrigin::Canister { caller, callback, kind, .. } => effects.outgoing.push(Outgoing::Response(Response {
            originator: *caller,
            respondent: canister,
            callback: *callback,
            refund,
            payload,
            kind: *kind,
        })),
        CallOrigin::Task(SystemTask::Heartbeat | SystemTask::GlobalTimer | SystemTask::OnLowWasmMemory) => {
            unreachable!("nobody waits for a task")
        }
    }
}

/// Adds lines to a canister's log, dropping the oldest beyond its limit. Returns how many were added.
pub fn append_log(log: &mut CanisterLog, limit: Bytes, now: Time, lines: Vec<Vec<u8>>) -> usize {
    let added = lines.len();
    lines.into_iter().for_each(|content| log.push(now, content));
    log.trim(limit);
    added
}
