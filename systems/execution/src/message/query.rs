//! What keeps nothing: queries, composite queries and their callbacks, message inspection.
//!
//! Enters: a published canister, a call. Leaves: an answer, calls to make (composite queries), log lines. Never here: the walk over
//! a composite query's calls (`systems/queries`); a change of the canister.
//!
//! A [`QuerySession`] holds a private view of the canister's memories for one query; a composite query's callbacks continue in it.
//! Once it is open it shows what was published then, whatever messages and publications follow.

use super::setup::{Facts, Setup, system_api};
use super::{closure_arg, take_apart};
use crate::charge;
use crate::config::{RoundEnv, SubnetConfig};
use crate::machine::{Desk, PublishedProgram, engine_failure};
use crate::published::PublishedCanister;
use crate::reject::{self, Failure, MethodKind, OutOfCycles};
use crate::system_api::{Answer, CallerInfo, Entry, Message as ApiMessage};
use cyclotron_heap::HeapError;
use cyclotron_types::Principal;
use cyclotron_types::canister::{RunState, WasmClosure};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Cycles, Instructions, Time};
use cyclotron_wasm::decode;
use cyclotron_wasm::runtime::{Entry as WasmEntry, Execution, Outcome as WasmOutcome};
use std::sync::Arc;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryStep {
    /// The answer, if it was given now.
    pub answer: Option<ResponsePayload>,
    /// Calls to make, in order; only composite queries make any.
    pub calls: Vec<QueryRequest>,
    /// Whether the message under inspection was accepted.
    pub accepted: bool,
    /// Whether it has read the data certificate.
    pub certificate_seen: bool,
    /// Why it failed; the session is over then.
    pub failure: Option<Reject>,
    /// Instructions used.
    pub used: Instructions,
    /// Log lines. They are shown to the operator and not kept.
    pub log: Vec<Vec<u8>>,
}

/// Why a query did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// The canister has been published again: who looks it up anew finds it.
    Outdated,
    /// It is refused.
    Rejected(Reject),
}

impl From<Reject> for Unopened {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

/// A query in progress on one canister: a private view of its memories, given back to the pools at the end.
pub struct QuerySession {
    env: Arc<RoundEnv>,
    canister: Arc<PublishedCanister>,
    desk: Option<Desk>,
    /// The environment's subnet, while nothing runs here.
    subnet: Option<Arc<SubnetConfig>>,
    /// What runs first, until it does.
    first: Option<First>,
    caller: Principal,
    info: Option<Box<CallerInfo>>,
    answered: bool,
    used: Instructions,
}

/// The first entry of a query: as what, which function, with what.
type First = (Entry, u32, ApiMessage);

impl std::fmt::Debug for QuerySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuerySession").field("caller", &self.caller).field("used", &self.used).finish_non_exhaustive()
    }
}

impl Drop for QuerySession {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            self.end_view(desk);
        }
    }
}

/// Whether the canister takes queries: it runs, and it is not frozen.
fn check_canister(env: &RoundEnv, canister: &PublishedCanister) -> Result<(), Reject> {
    match canister.run_state {
        RunState::Running => {}
        RunState::Stopping(_) => return Err(reject::not_running(canister.id, false)),
        RunState::Stopped => return Err(reject::not_running(canister.id, true)),
    }
    let fees = &env.subnet.fees;
    let threshold = charge::freezing_threshold(fees, &canister.settings, canister.memory.total(), canister.reserved);
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

impl QuerySession {
    /// Opens a view of the canister for a query method, which [`QuerySession::run`] runs.
    ///
    /// Errors: the canister takes no queries, it has no such method, it has been published again. Cost: a page copied for each that has changed since
    /// the publication.
    pub fn open(env: &Arc<RoundEnv>, canister: &Arc<PublishedCanister>, call: QueryCall) -> Result<Self, Unopened> {
        let (caller, info) = (call.caller, call.info.clone());
        Self::open_view(env, canister, Self::first(env, canister, call)?, caller, info)
    }

    /// Keeps the session's view for another query on the same canister as it was published; false when that cannot be.
    pub fn rest(&mut self) -> bool {
        self.desk.as_mut().is_some_and(PublishedProgram::rest_view)
    }

    /// The canister asked.
    pub fn canister(&self) -> CanisterId {
        self.canister.id
    }

    /// The state that it runs on.
    pub fn env(&self) -> &Arc<RoundEnv> {
        &self.env
    }

    /// Whether the session is for this publication of the canister.
    pub fn is_of(&self, canister: &Arc<PublishedCanister>) -> bool {
        Arc::ptr_eq(&self.canister, canister)
    }

    /// Takes up a session that rests. False when its view shows nothing any more.
    pub fn resume(&mut self) -> bool {
        self.desk.as_mut().is_some_and(PublishedProgram::resume_view)
    }

    /// As [`QuerySession::open`], with the view of a session that has been resumed.
    pub fn reopen(&mut self, env: &Arc<RoundEnv>, call: QueryCall) -> Result<(), Reject> {
        if !Arc::ptr_eq(&self.env, env) {
            self.env = Arc::clone(env);
            self.subnet = None;
        }
        self.caller = call.caller.unwrap_or_else(Principal::anonymous);
        self.info = call.info.clone();
        let first = Self::first(&self.env, &self.canister, call)?;
        self.first = Some(first);
        self.answered = false;
        self.used = Instructions::ZERO;
        Ok(())
    }

    /// What a query method begins with.
    fn first(env: &RoundEnv, canister: &PublishedCanister, call: QueryCall) -> Result<First, Reject> {
        check_canister(env, canister)?;
        let program = canister.program.as_ref().ok_or_else(|| Failure::NoModule.reject(canister.id))?;
        let (entry, function) = match program.module().shape().entry_points.methods.get(&call.method) {
            Some((decode::MethodKind::Query, function)) => (Entry::Query, *function),
            Some((decode::MethodKind::CompositeQuery, function)) if call.composite => {
                (Entry::CompositeQuery, *function)
            }
            _ => {
                let missing = Failure::MethodNotFound { kind: MethodKind::Query, name: call.method };
                return Err(missing.reject(canister.id));
            }
        };
        let message =
            ApiMessage { arg: call.arg, info: call.info, certificate: call.certificate, ..ApiMessage::default() };
        Ok((entry, function, message))
    }

    /// Opens a view for `canister_inspect_message`, which [`QuerySession::run`] runs; `None` when the module has no such function.
    ///
    /// Errors: as [`QuerySession::open`].
    pub fn open_inspect(
        env: &Arc<RoundEnv>,
        canister: &Arc<PublishedCanister>,
        call: QueryCall,
    ) -> Result<Option<Self>, Unopened> {
        check_canister(env, canister)?;
        let program = canister.program.as_ref().ok_or_else(|| Failure::NoModule.reject(canister.id))?;
        let entry_points = &program.module().shape().entry_points;
        let Some(&function) = entry_points.system.get(&decode::SystemMethod::InspectMessage) else { return Ok(None) };
        let message = ApiMessage {
            arg: call.arg,
            method: call.method,
            info: call.info.clone(),
            deadline: Time::ZERO,
            ..ApiMessage::default()
        };
        Self::open_view(env, canister, (Entry::Inspect, function, message), call.caller, call.info).map(Some)
    }

    fn open_view(
        env: &Arc<RoundEnv>,
        canister: &Arc<PublishedCanister>,
        first: First,
        caller: Option<Principal>,
        info: Option<Box<CallerInfo>>,
    ) -> Result<Self, Unopened> {
        let program = canister.program.as_ref().ok_or_else(|| Failure::NoModule.reject(canister.id))?;
        let desk = program.begin_view().map_err(|error| match error {
            HeapError::Outdated => Unopened::Outdated,
            error => Unopened::Rejected(engine_failure(error).reject(canister.id)),
        })?;
        Ok(Self {
            env: Arc::clone(env),
            canister: Arc::clone(canister),
            desk: Some(desk),
            subnet: None,
            first: Some(first),
            caller: caller.unwrap_or_else(Principal::anonymous),
            info,
            answered: false,
            used: Instructions::ZERO,
        })
    }

    fn end_view(&self, desk: Desk) {
        if let Some(program) = &self.canister.program {
            program.end_view(desk);
        }
    }

    /// Runs the method that the session was opened for, once. Unless it fails the session can take callbacks, and rest after that.
    pub fn run(&mut self, limit: Instructions) -> QueryStep {
        match self.first.take() {
            Some((entry, function, message)) => self.enter(entry, WasmEntry::Function(function), None, message, limit),
            None => self.ended(),
        }
    }

    fn ended(&self) -> QueryStep {
        QueryStep::failed(Failure::Engine("the query has ended".into()).reject(self.canister.id))
    }

    /// Runs the callback of a call that the composite query made.
    pub fn callback(&mut self, callback: &QueryCallback, payload: ResponsePayload, limit: Instructions) -> QueryStep {
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
        self.enter(entry, WasmEntry::TableElement(closure.function), Some(closure), message, limit)
    }

    fn enter(
        &mut self,
        entry: Entry,
        function: WasmEntry<'_>,
        closure: Option<WasmClosure>,
        message: ApiMessage,
        limit: Instructions,
    ) -> QueryStep {
        let (Some(program), Some(Desk { seated, stable })) = (&self.canister.program, self.desk.take()) else {
            return self.ended();
        };
        let wasm64 = program.is_wasm64();
        let owes = !self.answered && entry != Entry::Inspect;
        let setup = Setup {
            answer: if owes { Answer::Owed } else { Answer::NotOwed },
            context_instructions: self.used,
            subnet: self.subnet.take(),
            ..Setup::plain(entry, self.caller, message)
        };
        let mut api = system_api(&self.env, facts(&self.canister, wasm64), None, setup);
        api.stable = stable;
        let arg = closure.map(|closure| closure_arg(closure.env, wasm64));
        let execution = match Execution::start(seated, function, arg.as_slice(), api, limit) {
            Ok(execution) => execution,
            Err(mut refused) => {
                self.end_view(Desk { seated: refused.seated, stable: refused.host.stable.take() });
                let failure = Failure::Engine(refused.error.to_string());
                return QueryStep::failed(failure.reject(self.canister.id));
            }
        };
        let finished = match execution.resume(limit) {
            WasmOutcome::Finished(finished) => finished,
            WasmOutcome::Suspended(suspended) => {
                // The slice is the whole limit; a host call may end exactly at it.
                let (seated, mut host) = suspended.abort();
                self.end_view(Desk { seated, stable: host.stable.take() });
                return QueryStep::failed(Failure::InstructionLimit(limit).reject(self.canister.id));
            }
        };
        let used = finished.instructions.0;
        let (desk, mut api, result) = take_apart(finished);
        let used = Instructions(used).min(limit);
        self.used = self.used.saturating_add(used);
        let certificate_seen = api.written.certificate_seen;
        let mut step = QueryStep { used, certificate_seen, ..QueryStep::default() };
        if let Err(trap) = result {
            let failure = super::finish::explain(&mut api, &trap, limit, closure.map(|closure| closure.function));
            if let Some(line) = failure.log_line() {
                api.written.add_line(line.as_bytes());
            }
            self.desk = Some(desk);
            step.log = api.written.log;
            step.failure = Some(failure.without_backtrace().reject(self.canister.id));
            return step;
        }
        step.log = api.written.log;
        step.accepted = api.written.accepted;
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
        self.subnet = Some(api.subnet);
        self.desk = Some(desk);
        step
    }
}

impl QueryStep {
    fn failed(reject: Reject) -> Self {
        Self { failure: Some(reject), ..Self::default() }
    }
}

fn facts(canister: &PublishedCanister, wasm64: bool) -> Facts<'_> {
    Facts {
        id: canister.id,
        controllers: &canister.controllers,
        balance: canister.balance,
        reserved: canister.reserved,
        version: canister.version,
        timer: canister.timer,
        run_state: &canister.run_state,
        settings: &canister.settings,
        memory_used: canister.memory.total(),
        wasm64,
    }
}

/// The answer of a query that makes no calls. Spec: #query-call.
pub fn query(env: &Arc<RoundEnv>, canister: &Arc<PublishedCanister>, call: QueryCall) -> Result<Vec<u8>, Reject> {
    let mut session = QuerySession::open(env, canister, call).map_err(|unopened| match unopened {
        Unopened::Rejected(reject) => reject,
        Unopened::Outdated => engine_failure(HeapError::Outdated).reject(canister.id),
    })?;
    let step = session.run(env.subnet.limits.query);
    match (step.failure, step.answer) {
        (Some(reject), _) | (None, Some(ResponsePayload::Reject(reject))) => Err(reject),
        (None, Some(ResponsePayload::Reply(data))) => Ok(data),
        (None, None) => Err(reject::did_not_reply(canister.id)),
    }
}

/// Asks the canister whether it takes an ingress message. Spec: #system-api-inspect-message.
///
/// Errors: the rejection that the client sees at once; the message is not admitted.
pub fn inspect(session: Option<QuerySession>) -> Result<(), Reject> {
    let Some(mut session) = session else { return Ok(()) };
    let step = session.run(session.env.subnet.limits.inspect);
    match step.failure {
        Some(reject) => Err(reject),
        None if step.accepted => Ok(()),
        None => Err(Reject::new(
            ErrorCode::CanisterRejectedMessage,
            format!("Error from Canister {}: Canister rejected the message", session.canister.id),
        )),
    }
}
