//! Updates, replicated queries and tasks: from the message to running Wasm.

use super::setup::{Facts, Setup, deadline_of, system_api};
use super::{Kind, Prior, Run, Started, installed, launch};
use crate::canister::{CanisterMut, LowMemoryHook, Program};
use crate::charge;
use crate::config::RoundEnv;
use crate::job::{Effects, Outcome, Outgoing};
use crate::machine::Installed;
use crate::reject::{self, Failure, MethodKind};
use crate::system_api::{Answer, Entry, Message as ApiMessage};
use cyclotron_types::Principal;
use cyclotron_types::canister::RunState;
use cyclotron_types::ids::CallContextId;
use cyclotron_types::message::{IngressStatus, Message, Response, ResponsePayload, SystemTask};
use cyclotron_types::reject::Reject;
use cyclotron_types::units::{Bytes, Cycles, Instructions, Time};
use cyclotron_wasm::decode;
use cyclotron_wasm::runtime::Entry as WasmEntry;

/// What a method name leads to.
struct Method {
    function: u32,
    entry: Entry,
}

/// What a call carries, whoever makes it.
struct Parts<'a> {
    caller: Principal,
    method: &'a str,
    payment: Cycles,
}

fn parts(message: &Message) -> Parts<'_> {
    match message {
        Message::Ingress(ingress) => Parts { caller: ingress.sender, method: &ingress.method, payment: Cycles::ZERO },
        Message::Request(request) => {
            Parts { caller: request.sender.principal(), method: &request.method, payment: request.payment }
        }
        Message::Vacant | Message::Response(_) => panic!("a call is an ingress message or a request"),
    }
}

fn take_arg(message: &mut Message) -> Vec<u8> {
    match message {
        Message::Ingress(ingress) => std::mem::take(&mut ingress.arg),
        Message::Request(request) => std::mem::take(&mut request.arg),
        Message::Vacant | Message::Response(_) => Vec::new(),
    }
}

/// Rejects a call before any Wasm runs. Its payment goes back.
fn rejected(message: Message, reject: Reject, burned: Cycles, idle: bool) -> Started {
    let mut effects = Effects { burned, idle, ..Effects::default() };
    match message {
        Message::Ingress(ingress) => effects.ingress = Some((ingress.id, IngressStatus::Rejected(reject))),
        Message::Request(request) => effects.outgoing.push(Outgoing::Response(Response {
            originator: request.sender,
            respondent: request.receiver,
            callback: request.callback,
            refund: request.payment,
            payload: ResponsePayload::Reject(reject),
            kind: request.kind,
        })),
        Message::Vacant | Message::Response(_) => {}
    }
    Started::Ended(Outcome { effects, ..Outcome::default() })
}

fn is_idle(canister: &CanisterMut<'_>) -> bool {
    canister.contexts.contexts.is_empty()
}

/// The method that a call runs, or why it cannot.
fn find_method(canister: &CanisterMut<'_>, name: &str) -> Result<Method, Reject> {
    match canister.run_state {
        RunState::Running => {}
        RunState::Stopping(_) => return Err(reject::not_running(canister.id, false)),
        RunState::Stopped => return Err(reject::not_running(canister.id, true)),
    }
    let Program::Installed(installed) = &*canister.program else {
        return Err(Failure::NoModule.reject(canister.id));
    };
    match installed.module().shape().entry_points.methods.get(name) {
        Some((decode::MethodKind::Update, function)) => {
            let (limit, bytes) = (canister.settings.wasm_memory_limit, installed.heap_bytes());
            if limit != Bytes::ZERO && bytes > limit {
                return Err(Failure::WasmMemoryLimit { bytes, limit }.reject(canister.id));
            }
            Ok(Method { function: *function, entry: Entry::Update })
        }
        Some((decode::MethodKind::Query, function)) => {
            Ok(Method { function: *function, entry: Entry::ReplicatedQuery })
        }
        Some((decode::MethodKind::CompositeQuery, _)) => Err(reject::composite_in_replicated_mode()),
        None => Err(Failure::MethodNotFound { kind: MethodKind::Update, name: name.to_string() }.reject(canister.id)),
    }
}

/// Whether the canister can prepay the longest execution now and is not frozen then.
pub fn affords_message(env: &RoundEnv, canister: &CanisterMut<'_>) -> bool {
    let cost = env.subnet.fees.execution(env.subnet.limits.message.message, is_wasm64(canister));
    cost <= charge::liquid_balance(&env.subnet.fees, canister)
}

pub(super) fn is_wasm64(canister: &CanisterMut<'_>) -> bool {
    canister.program.installed().is_some_and(Installed::is_wasm64)
}

/// Prepays the longest execution, unless an earlier start has. Returns what is held, or why the canister cannot pay.
fn prepay(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    prior: &Prior,
    limit: Instructions,
    caller: &Principal,
) -> Result<Cycles, reject::OutOfCycles> {
    if prior.context.is_some() {
        return Ok(prior.prepaid);
    }
    let wasm64 = is_wasm64(canister);
    let cost = env.subnet.fees.execution(limit, wasm64);
    let threshold = charge::threshold_of(&env.subnet.fees, canister);
    let reveal = canister.controllers.0.contains(caller);
    charge::withdraw(canister.id, &mut canister.balance.0, cost, threshold, reveal)?;
    Ok(cost)
}

fn context_id(canister: &mut CanisterMut<'_>, prior: &Prior) -> CallContextId {
    prior.context.unwrap_or_else(|| {
        let id = CallContextId(canister.contexts.next_context);
        canister.contexts.next_context += 1;
        id
    })
}

/// Gives back what was prepaid for an execution that never ran, less the base fee. Returns what is gone.
fn refund_unrun(env: &RoundEnv, canister: &mut CanisterMut<'_>, prepaid: Cycles) -> Cycles {
    let fee = env.subnet.fees.update_base.min(prepaid);
    let lost = canister.balance.0.put(Cycles(prepaid.0 - fee.0));
    fee.saturating_add(lost)
}

pub(super) fn begin_call(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut message: Message,
    prior: Prior,
) -> Started {
    let Parts { caller, method, payment } = parts(&message);
    let limits = &env.subnet.limits;
    let found = find_method(canister, method);
    let query = matches!(found, Ok(Method { entry: Entry::ReplicatedQuery, .. }));
    let limit = if query { limits.query } else { limits.message.message };
    if let Message::Request(request) = &message {
        let minimum = canister.settings.minimum_incoming_canister_call_cycles;
        if request.sender != canister.id && payment < minimum && prior.context.is_none() {
            let reject = reject::too_few_cycles_attached(canister.id, payment, minimum);
            return rejected(message, reject, prior.burned, is_idle(canister));
        }
    }
    let prepaid = match prepay(env, canister, &prior, limit, &caller) {
        Ok(prepaid) => prepaid,
        Err(error) => return rejected(message, reject::out_of_cycles(error), prior.burned, is_idle(canister)),
    };
    let wasm64 = is_wasm64(canister);
    let fail = |canister: &mut CanisterMut<'_>, message, reject| {
        let fee = refund_unrun(env, canister, prepaid);
        rejected(message, reject, prior.burned.saturating_add(fee), is_idle(canister))
    };
    let method = match found {
        Ok(method) => method,
        Err(reject) => return fail(canister, message, reject),
    };
    let context = context_id(canister, &prior);
    let setup = Setup {
        answer: Answer::Owed,
        available: payment,
        ..Setup::plain(
            method.entry,
            caller,
            ApiMessage {
                deadline: match &message {
                    Message::Request(request) if !query => deadline_of(request.kind),
                    _ => Time::ZERO,
                },
                arg: take_arg(&mut message),
                ..ApiMessage::default()
            },
        )
    };
    let api = system_api(env, Facts::of(canister, wasm64), Some(canister.open_calls), setup);
    let run = Run {
        kind: Kind::Call { message, context, query },
        caller,
        limit,
        stage_limit: limit,
        used_before: Instructions::ZERO,
        prepaid,
        initial_balance: api.funds.balance,
        incoming: Cycles::ZERO,
        threshold: api.funds.threshold,
        log: Vec::new(),
        burned: prior.burned,
    };
    let Some(installed) = installed(canister) else { unreachable!("the method was found in it") };
    match launch(installed, api, WasmEntry::Function(method.function), None, limit) {
        Ok(execution) => Started::Running(execution, run),
        Err(failure) => {
            let Kind::Call { message, .. } = run.kind else { unreachable!("it was made above") };
            let reject = failure.reject(canister.id);
            fail(canister, message, reject)
        }
    }
}

pub(super) fn begin_task(env: &RoundEnv, canister: &mut CanisterMut<'_>, task: SystemTask, prior: Prior) -> Started {
    let nothing = |canister: &CanisterMut<'_>, burned| {
        let effects = Effects { burned, idle: is_idle(canister), ..Effects::default() };
        Started::Ended(Outcome { effects, ..Outcome::default() })
    };
    let method = match task {
        SystemTask::Heartbeat => decode::SystemMethod::Heartbeat,
        SystemTask::GlobalTimer => decode::SystemMethod::GlobalTimer,
        SystemTask::OnLowWasmMemory => decode::SystemMethod::OnLowWasmMemory,
    };
    let function = match &*canister.program {
        Program::Installed(installed) if *canister.run_state == RunState::Running => installed.system_method(method),
        _ => None,
    };
    // It may have waited behind a long message that has set it anew, and whoever queued the hook may have thought of other code.
    let due = prior.context.is_some()
        || match task {
            SystemTask::Heartbeat => true,
            SystemTask::GlobalTimer => canister.timer.0 != Time::ZERO && canister.timer.0 <= env.time,
            SystemTask::OnLowWasmMemory => *canister.low_memory == LowMemoryHook::Ready,
        };
    let Some(function) = function.filter(|_| due) else {
        // An aborted task whose module is gone: what was prepaid for it goes back.
        let lost = canister.balance.0.put(prior.prepaid);
        return nothing(canister, prior.burned.saturating_add(lost));
    };
    let limit = env.subnet.limits.message.message;
    let caller = Principal::management_canister();
    let Ok(prepaid) = prepay(env, canister, &prior, limit, &caller) else { return nothing(canister, prior.burned) };
    match task {
        SystemTask::Heartbeat => {}
        // It fires once, whatever becomes of it.
        SystemTask::GlobalTimer => canister.timer.0 = Time::ZERO,
        SystemTask::OnLowWasmMemory => *canister.low_memory = LowMemoryHook::Executed,
    }
    let context = context_id(canister, &prior);
    let wasm64 = is_wasm64(canister);
    let setup = Setup::plain(Entry::of_task(task), caller, ApiMessage::default());
    let api = system_api(env, Facts::of(canister, wasm64), Some(canister.open_calls), setup);
    let run = Run {
        kind: Kind::Task { task, context },
        caller,
        limit,
        stage_limit: limit,
        used_before: Instructions::ZERO,
        prepaid,
        initial_balance: api.funds.balance,
        incoming: Cycles::ZERO,
        threshold: api.funds.threshold,
        log: Vec::new(),
        burned: prior.burned,
    };
    let Some(installed) = installed(canister) else { unreachable!("the function was found in it") };
    match launch(installed, api, WasmEntry::Function(function), None, limit) {
        Ok(execution) => Started::Running(execution, run),
        Err(_) => {
            let fee = refund_unrun(env, canister, prepaid);
            nothing(canister, prior.burned.saturating_add(fee))
        }
    }
}
