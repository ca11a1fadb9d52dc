//! What keeps nothing: queries, composite queries and their callbacks, message inspection.
//!
//! Enters: a canister borrowed unchanged, a call. Leaves: an answer, calls to make (composite queries), log lines. Never here: the walk over
//! a composite query's calls (`systems/queries`); a change of the canister.
//!
//! A [`QuerySession`] holds a private view of the canister's memories for one query; a composite query's callbacks continue in it.
//! A suspended message does not show: the view is of the state before it.

use super::setup::{Facts, Setup, system_api};
use super::{closure_arg, installed_of, take_apart};
use crate::canister::{CanisterRef, Paused, Program};
use crate::charge;
use crate::config::RoundEnv;
use crate::machine::{Desk, Installed};
use crate::reject::{self, Failure, MethodKind, OutOfCycles};
use crate::system_api::{Answer, CallerInfo, Entry, Message as ApiMessage};
use cyclotron_heap::PreImageMap;
use cyclotron_types::Principal;
use cyclotron_types::canister::{RunState, WasmClosure};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Cycles, Instructions, Time};
use cyclotron_wasm::decode;
use cyclotron_wasm::runtime::{Entry as WasmEntry, Execution, Instance, Outcome as WasmOutcome};
use std::sync::{Arc, PoisonError};

/// A query call as it reaches a canister.
#[derive(Clone, Debug, Default)]
pub struct QueryCall {
    /// Who calls.
    pub caller: Option<Principal>,
    /// Method name.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
    /// What a canister signature said about the caller.
    pub info: Option<Box<CallerInfo>>,
    /// Certificate of the canister's certified data; only for the target of a client's query.
    pub certificate: Option<Arc<[u8]>>,
    /// Whether a composite query method may answer.
    pub composite: bool,
}

/// A call that a composite query makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRequest {
    /// Who is called.
    pub callee: CanisterId,
    /// Method name.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
    /// What runs on the answer.
    pub callback: QueryCallback,
}

/// What runs on the answer to a composite query's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryCallback {
    /// On a reply.
    pub on_reply: WasmClosure,
    /// On a reject.
    pub on_reject: WasmClosure,
    /// If the chosen one traps.
    pub on_cleanup: Option<WasmClosure>,
}

/// What one entry into the canister came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryStep {
    /// The answer, if it was given now.
    pub answer: Option<ResponsePayload>,
    /// Calls to make, in order; only composite queries make any.
    pub calls: Vec<QueryRequest>,
    /// Why it failed; the session is over then.
    pub failure: Option<Reject>,
    /// Instructions used.
    pub used: Instructions,
    /// Log lines. They are shown to the operator and not kept.
    pub log: Vec<Vec<u8>>,
}

/// A query in progress on one canister: a private view of its memories. Returned to the pools by [`QuerySession::close`].
pub struct QuerySession {
    desk: Option<Desk>,
    caller: Principal,
    info: Option<Box<CallerInfo>>,
    composite: bool,
    answered: bool,
    used: Instructions,
}

impl std::fmt::Debug for QuerySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuerySession").field("caller", &self.caller).field("used", &self.used).finish_non_exhaustive()
    }
}

/// Whether the canister takes queries: it runs, and it is not frozen.
fn check_canister(env: &RoundEnv, canister: &CanisterRef<'_>) -> Result<(), Reject> {
    match canister.run_state {
        RunState::Running => {}
        RunState::Stopping(_) => return Err(reject::not_running(canister.id, false)),
        RunState::Stopped => return Err(reject::not_running(canister.id, true)),
    }
    let fees = &env.subnet.fees;
    let threshold = charge::freezing_threshold(fees, canister.settings, canister.memory_used(), canister.reserved);
    if canister.balance < threshold {
        return Err(reject::out_of_cycles(OutOfCycles {
            canister: canister.id,
            available: canister.balance,
            requested: Cycles::ZERO,
            threshold,
            reveal: false,
        }));
    }
    Ok(())
}

/// Seats a view of the canister as it was before its suspended message, if there is one.
fn open_view(canister: &CanisterRef<'_>, installed: &Installed) -> Result<Desk, Failure> {
    with_committed(canister, installed, |instance, heap, stable| installed.begin_view(instance, heap, stable))
}

/// Hands over the instance as of the last message that returned, and what its heap and stable memory held wherever a suspended
/// message has written since.
pub fn with_committed<R>(
    canister: &CanisterRef<'_>,
    installed: &Installed,
    look: impl FnOnce(Instance, &PreImageMap<'_>, &PreImageMap<'_>) -> R,
) -> R {
    match canister.paused {
        Paused::Suspended(suspended) => {
            let mut execution = suspended.execution.lock().unwrap_or_else(PoisonError::into_inner);
            let instance = execution.seated().instance_before();
            // The lock is held while pre-images are read; those of the stable memory belong to the host.
            let stable = execution.host().stable.take();
            let heap_before = execution.seated().seat().pre_image_map();
            let stable_before = stable.as_ref().map_or_else(PreImageMap::new, |stable| stable.pre_image_map());
            let result = look(instance, &heap_before, &stable_before);
            drop((heap_before, stable_before));
            execution.host().stable = stable;
            result
        }
        Paused::Installing(install) => install.with_committed(installed, look),
        Paused::None | Paused::Aborted(_) => {
            let Some(instance) = installed.snapshot() else { unreachable!("no message is suspended") };
            look(instance, &PreImageMap::new(), &PreImageMap::new())
        }
    }
}

impl QuerySession {
    /// Runs a query method. The session is open afterwards only if calls are to be made.
    pub fn start(
        env: &RoundEnv,
        canister: &CanisterRef<'_>,
        call: QueryCall,
        limit: Instructions,
    ) -> (Self, QueryStep) {
        let mut session = Self {
            desk: None,
            caller: call.caller.unwrap_or_else(Principal::anonymous),
            info: call.info.clone(),
            composite: false,
            answered: false,
            used: Instructions::ZERO,
        };
        let step = session.enter_method(env, canister, call, limit);
        let step = step.unwrap_or_else(QueryStep::failed);
        (session, step)
    }

    fn enter_method(
        &mut self,
        env: &RoundEnv,
        canister: &CanisterRef<'_>,
        call: QueryCall,
        limit: Instructions,
    ) -> Result<QueryStep, Reject> {
        check_canister(env, canister)?;
        let Program::Installed(installed) = canister.program else {
            return Err(Failure::NoModule.reject(canister.id));
        };
        let (entry, function) = match installed.module().shape().entry_points.methods.get(&call.method) {
            Some((decode::MethodKind::Query, function)) => (Entry::Query, *function),
            Some((decode::MethodKind::CompositeQuery, function)) if call.composite => {
                (Entry::CompositeQuery, *function)
            }
            _ => {
                let missing = Failure::MethodNotFound { kind: MethodKind::Query, name: call.method };
                return Err(missing.reject(canister.id));
            }
        };
        self.composite = entry == Entry::CompositeQuery;
        self.desk = Some(open_view(canister, installed).map_err(|failure| failure.reject(canister.id))?);
        let message =
            ApiMessage { arg: call.arg, info: call.info, certificate: call.certificate, ..ApiMessage::default() };
        Ok(self.enter(env, canister, entry, WasmEntry::Function(function), None, message, limit))
    }

    /// Runs the callback of a call that the composite query made.
    pub fn callback(
        &mut self,
        env: &RoundEnv,
        canister: &CanisterRef<'_>,
        callback: &QueryCallback,
        payload: ResponsePayload,
        limit: Instructions,
    ) -> QueryStep {
        let (entry, closure, message) = match payload {
            ResponsePayload::Reply(arg) => {
                (Entry::CompositeReply, callback.on_reply, ApiMessage { arg, ..ApiMessage::default() })
            }
            ResponsePayload::Reject(reject) => {
                let reject = Some((reject.code, reject.to_string()));
                (Entry::CompositeReject, callback.on_reject, ApiMessage { reject, ..ApiMessage::default() })
            }
        };
        let message = ApiMessage { info: self.info.clone(), ..message };
        let function = WasmEntry::TableElement(closure.function);
        self.enter(env, canister, entry, function, Some(closure), message, limit)
    }

    /// Whether the session can take a callback.
    pub fn is_open(&self) -> bool {
        self.desk.is_some()
    }

    #[allow(clippy::too_many_arguments)]
    fn enter(
        &mut self,
        env: &RoundEnv,
        canister: &CanisterRef<'_>,
        entry: Entry,
        function: WasmEntry<'_>,
        closure: Option<WasmClosure>,
        message: ApiMessage,
        limit: Instructions,
    ) -> QueryStep {
        let installed = installed_of(canister.program);
        let (Some(installed), Some(Desk { seated, stable })) = (installed, self.desk.take()) else {
            return QueryStep::failed(Failure::Engine("the query has ended".into()).reject(canister.id));
        };
        let setup = Setup {
            answer: if self.answered { Answer::NotOwed } else { Answer::Owed },
            context_instructions: self.used,
            ..Setup::plain(entry, self.caller, message)
        };
        let wasm64 = installed.is_wasm64();
        let mut api = system_api(env, facts(canister, wasm64), None, setup);
        api.stable = stable;
        let arg = closure.map(|closure| closure_arg(closure.env, wasm64));
        let execution = match Execution::start(seated, function, arg.as_slice(), api, limit) {
            Ok(execution) => execution,
            Err(mut refused) => {
                installed.end_view(Desk { seated: refused.seated, stable: refused.host.stable.take() });
                let failure = Failure::Engine(refused.error.to_string());
                return QueryStep::failed(failure.reject(canister.id));
            }
        };
        let finished = match execution.resume(limit) {
            WasmOutcome::Finished(finished) => finished,
            WasmOutcome::Suspended(suspended) => {
                // The slice is the whole limit; a host call may end exactly at it.
                let (seated, mut host) = suspended.abort();
                installed.end_view(Desk { seated, stable: host.stable.take() });
                return QueryStep::failed(Failure::InstructionLimit(limit).reject(canister.id));
            }
        };
        let (desk, mut api, result, used, _) = take_apart(finished);
        let used = Instructions(used).min(limit);
        self.used = self.used.saturating_add(used);
        let mut step = QueryStep { used, ..QueryStep::default() };
        if let Err(trap) = result {
            let failure = super::finish::explain(&mut api, &trap, limit, closure.map(|closure| closure.function));
            if let Some(line) = failure.log_line() {
                api.written.add_line(line.as_bytes());
            }
            installed.end_view(desk);
            step.log = api.written.log;
            step.failure = Some(failure.without_backtrace().reject(canister.id));
            return step;
        }
        step.log = api.written.log;
        step.calls = api
            .calls
            .made
            .into_iter()
            .map(|call| QueryRequest {
                callee: call.callee,
                method: call.method,
                arg: call.arg,
                callback: QueryCallback {
                    on_reply: call.on_reply,
                    on_reject: call.on_reject,
                    on_cleanup: call.on_cleanup,
                },
            })
            .collect();
        if let Answer::Given(payload) = api.answer {
            self.answered = true;
            step.answer = Some(payload);
        }
        if self.composite {
            self.desk = Some(desk);
        } else {
            installed.end_view(desk);
        }
        step
    }

    /// Ends the session and returns its view to the pools.
    pub fn close(mut self, canister: &CanisterRef<'_>) {
        if let (Some(desk), Some(installed)) = (self.desk.take(), installed_of(canister.program)) {
            installed.end_view(desk);
        }
    }
}

impl Default for QueryStep {
    fn default() -> Self {
        Self { answer: None, calls: Vec::new(), failure: None, used: Instructions::ZERO, log: Vec::new() }
    }
}

impl QueryStep {
    fn failed(reject: Reject) -> Self {
        Self { failure: Some(reject), ..Self::default() }
    }
}

fn facts<'a>(canister: &CanisterRef<'a>, wasm64: bool) -> Facts<'a> {
    Facts {
        id: canister.id,
        controllers: canister.controllers,
        balance: canister.balance,
        reserved: canister.reserved,
        version: canister.version.0,
        timer: canister.timer.0,
        run_state: canister.run_state,
        settings: canister.settings,
        memory_used: canister.memory_used(),
        wasm64,
    }
}

/// The answer of a query that makes no calls. Spec: #query-call.
pub fn query(env: &RoundEnv, canister: &CanisterRef<'_>, call: QueryCall) -> (Result<Vec<u8>, Reject>, QueryStep) {
    let (session, mut step) = QuerySession::start(env, canister, call, env.subnet.limits.query);
    session.close(canister);
    let result = match (step.failure.take(), step.answer.take()) {
        (Some(reject), _) | (None, Some(ResponsePayload::Reject(reject))) => Err(reject),
        (None, Some(ResponsePayload::Reply(data))) => Ok(data),
        (None, None) => Err(reject::did_not_reply(canister.id)),
    };
    (result, step)
}

/// Asks the canister whether it takes an ingress message. Spec: #system-api-inspect-message.
///
/// Errors: the rejection that the client sees at once; the message is not admitted.
pub fn inspect(env: &RoundEnv, canister: &CanisterRef<'_>, call: QueryCall) -> Result<(), Reject> {
    check_canister(env, canister)?;
    let Program::Installed(installed) = canister.program else {
        return Err(Failure::NoModule.reject(canister.id));
    };
    let Some(function) = installed.system_method(decode::SystemMethod::InspectMessage) else { return Ok(()) };
    let limit = env.subnet.limits.inspect;
    let message = ApiMessage {
        arg: call.arg,
        method: call.method,
        info: call.info,
        deadline: Time::ZERO,
        ..ApiMessage::default()
    };
    let caller = call.caller.unwrap_or_else(Principal::anonymous);
    let setup = Setup::plain(Entry::Inspect, caller, message);
    let failed = |failure: Failure| failure.without_backtrace().reject(canister.id);
    let Desk { seated, stable } = open_view(canister, installed).map_err(failed)?;
    let mut api = system_api(env, facts(canister, installed.is_wasm64()), None, setup);
    api.stable = stable;
    let execution = match Execution::start(seated, WasmEntry::Function(function), &[], api, limit) {
        Ok(execution) => execution,
        Err(mut refused) => {
            installed.end_view(Desk { seated: refused.seated, stable: refused.host.stable.take() });
            return Err(failed(Failure::Engine(refused.error.to_string())));
        }
    };
    let finished = match execution.resume(limit) {
        WasmOutcome::Finished(finished) => finished,
        WasmOutcome::Suspended(suspended) => {
            let (seated, mut host) = suspended.abort();
            installed.end_view(Desk { seated, stable: host.stable.take() });
            return Err(failed(Failure::InstructionLimit(limit)));
        }
    };
    let (desk, mut api, result, _, _) = take_apart(finished);
    installed.end_view(desk);
    match result {
        Err(trap) => Err(failed(super::finish::explain(&mut api, &trap, limit, None))),
        Ok(()) if api.written.accepted => Ok(()),
        Ok(()) => Err(Reject::new(
            ErrorCode::CanisterRejectedMessage,
            format!("Error from Canister {}: Canister rejected the message", canister.id),
        )),
    }
}
