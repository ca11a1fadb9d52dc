//! Responses: callbacks, and cleanup when they fail.
//!
//! 1. What the response gives back is computed: cycles not accepted, and what is left of the transmission that was prepaid.
//! 2. The reply or reject callback runs, on instructions prepaid when the call was made. A part is kept for cleanup.
//! 3. If it fails and a cleanup callback was set, that runs on what is left, from the state before the callback.
//! 4. The callback is forgotten and its call context goes on, or ends (`finish`).

use super::finish::{Verdict, conclude};
use super::setup::{Facts, Setup, caller_of, deadline_of, system_api};
use super::{CallbackRun, Ended, Kind, Prior, Run, Started, installed, launch};
use crate::canister::{CanisterMut, Program};
use crate::config::RoundEnv;
use crate::job::{Effects, Outcome};
use crate::reject::Failure;
use crate::system_api::{Answer, Entry, Message as ApiMessage};
use cyclotron_types::canister::{CallContext, CallOrigin, LogRecord, WasmClosure};
use cyclotron_types::message::{CallKind, Response, ResponsePayload};
use cyclotron_types::units::{Bytes, Cycles, Instructions, Time};
use cyclotron_wasm::runtime::Entry as WasmEntry;

/// Bytes of a response that are charged for.
fn payload_bytes(payload: &ResponsePayload) -> Bytes {
    Bytes(match payload {
        ResponsePayload::Reply(data) => data.len() as u64,
        ResponsePayload::Reject(reject) => reject.to_string().len() as u64,
    })
}

fn deadline(context: &CallContext) -> Time {
    deadline_of(match &context.origin {
        CallOrigin::Canister { kind, .. } => *kind,
        CallOrigin::Ingress { .. } | CallOrigin::Task(_) => CallKind::Guaranteed,
    })
}

pub(super) fn begin(env: &RoundEnv, canister: &mut CanisterMut<'_>, mut response: Response, prior: Prior) -> Started {
    let contexts = &canister.contexts;
    let known = contexts.callbacks.get(&response.callback);
    let known = known.and_then(|callback| Some((callback.clone(), contexts.contexts.get(&callback.context)?)));
    let Some((callback, context)) = known else {
        // Nobody waits for it (any more). Its cycles are the canister's all the same.
        let lost = canister.balance.0.put(response.refund);
        let effects = Effects {
            burned: prior.burned.saturating_add(lost),
            idle: contexts.contexts.is_empty(),
            ..Effects::default()
        };
        return Started::Ended(Outcome { effects, ..Outcome::default() });
    };
    let refund = response.refund.min(callback.payment);
    let cost = env.subnet.fees.transmission(payload_bytes(&response.payload)).min(callback.prepaid_transmission);
    let transmission_refund = Cycles(callback.prepaid_transmission.0 - cost.0);
    let limit = env.subnet.limits.message.message;
    let caller = caller_of(&context.origin);
    let (deleted, context) = (context.deleted, context.clone());
    let (entry, closure, message) = match &mut response.payload {
        ResponsePayload::Reply(data) => {
            let message = ApiMessage { arg: std::mem::take(data), ..ApiMessage::default() };
            (Entry::Reply, callback.on_reply, message)
        }
        ResponsePayload::Reject(reject) => {
            let message = ApiMessage { reject: Some((reject.code, reject.to_string())), ..ApiMessage::default() };
            (Entry::Reject, callback.on_reject, message)
        }
    };
    let message = ApiMessage { deadline: deadline(&context), ..message };
    let kept = match callback.on_cleanup {
        Some(_) => Instructions(limit.0 / 100 * env.subnet.limits.cleanup_percent),
        None => Instructions::ZERO,
    };
    let stage_limit = limit.saturating_sub(kept);
    let incoming = refund.saturating_add(transmission_refund);
    let mut run = Run {
        caller,
        limit,
        stage_limit,
        used_before: Instructions::ZERO,
        prepaid: Cycles::ZERO,
        initial_balance: canister.balance.0.saturating_add(incoming),
        incoming,
        threshold: Cycles::ZERO,
        log: Vec::new(),
        burned: prior.burned,
        kind: Kind::Callback(Box::new(CallbackRun {
            id: response.callback,
            callback,
            response,
            refund,
            transmission_refund,
            failure: None,
        })),
    };
    if deleted || matches!(canister.program, Program::Empty) {
        let verdict = if deleted { Verdict::Deleted } else { Verdict::Failed(Failure::NoModule.reject(canister.id)) };
        return Started::Ended(conclude(env, canister, run, verdict, Instructions::ZERO));
    }
    match launch_stage(env, canister, &mut run, &context, entry, closure, message) {
        Ok(execution) => Started::Running(execution, run),
        Err(failure) => {
            let reject = failure.reject(canister.id);
            Started::Ended(conclude(env, canister, run, Verdict::Failed(reject), Instructions::ZERO))
        }
    }
}

fn launch_stage(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    run: &mut Run,
    context: &CallContext,
    entry: Entry,
    closure: WasmClosure,
    message: ApiMessage,
) -> Result<cyclotron_wasm::runtime::Execution<Box<crate::system_api::SystemApi>>, Failure> {
    let Kind::Callback(callback) = &run.kind else { unreachable!("this is a callback's") };
    let wasm64 = matches!(&*canister.program, Program::Installed(installed) if installed.is_wasm64());
    let setup = Setup {
        entry,
        caller: run.caller,
        message,
        answer: if context.responded || matches!(context.origin, CallOrigin::Task(_)) {
            Answer::NotOwed
        } else {
            Answer::Owed
        },
        available: context.available,
        refunded: callback.refund,
        incoming: run.incoming,
        context_instructions: context.instructions.saturating_add(run.used_before),
        answered_by: Some(callback.callback.callee),
        logged: run.log.iter().map(|line| LogRecord::counted(line)).sum(),
        subnet: None,
    };
    let api = system_api(env, Facts::of(canister, wasm64), Some(canister.open_calls), setup);
    run.initial_balance = api.funds.balance;
    run.threshold = api.funds.threshold;
    let Some(installed) = installed(canister) else { return Err(Failure::NoModule) };
    let entry = WasmEntry::TableElement(closure.function);
    launch(installed, api, entry, Some(closure.env), run.stage_limit)
}

/// Starts the cleanup of a callback that has failed, if it has one; otherwise ends the message.
pub(super) fn after_failure(
    env: &RoundEnv,
    canister: &mut CanisterMut<'_>,
    mut run: Run,
    failure: Failure,
    message: ApiMessage,
    used: Instructions,
) -> Ended {
    let Kind::Callback(callback) = &mut run.kind else { unreachable!("this is a callback's") };
    let cleanup = callback.callback.on_cleanup.filter(|_| callback.failure.is_none());
    let context = canister.contexts.contexts.get(&callback.callback.context).cloned();
    let (Some(cleanup), Some(context)) = (cleanup, context) else {
        let failure = match callback.failure.take() {
            None => failure,
            Some(first) => Failure::Cleanup { callback: Box::new(first), cleanup: Box::new(failure) },
        };
        let reject = super::finish::visible(canister, &run, failure).reject(canister.id);
        return Ended::Message(conclude(env, canister, run, Verdict::Failed(reject), used));
    };
    callback.failure = Some(failure);
    run.used_before = used;
    run.stage_limit = run.limit.saturating_sub(used);
    match launch_stage(env, canister, &mut run, &context, Entry::Cleanup, cleanup, message) {
        Ok(execution) => Ended::Cleanup(execution, run),
        Err(failure) => after_failure(env, canister, run, failure, ApiMessage::default(), used),
    }
}
