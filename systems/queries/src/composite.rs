//! The walk over a composite query's calls.

use crate::{Answered, Certified, Query, RESTARTS_MAX, always_outdated, management, nothing_certified};
use cyclotron_execution::query::{QueryCall, QueryRequest, QuerySession, QueryStep, Unopened};
use cyclotron_execution::reject::did_not_reply;
use cyclotron_execution::{ExecutionLimits, PublishedProgram, RoundEnv};
use cyclotron_trace::execution_zone;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::{COMPOSITE_QUERY_DEPTH_MAX, QUERY_CALL_OVERHEAD};
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::query::FollowsFrom;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Height, Instructions};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is left for the whole tree of calls.
#[derive(Default)]
struct Budget {
    /// Instructions of all queries together.
    left: Instructions,
    /// Those of a single entry.
    each: Instructions,
}

impl Budget {
    /// Fills it, the first time: what starts over goes on with what is left.
    fn begin(&mut self, limits: &ExecutionLimits) {
        if self.each == Instructions::ZERO {
            *self = Self { left: limits.composite_query.max(limits.query), each: limits.query };
        }
    }

    fn next(&self) -> Result<Instructions, Reject> {
        if self.left == Instructions::ZERO {
            return Err(Reject::new(
                ErrorCode::QueryCallGraphTotalInstructionLimitExceeded,
                "Composite query calls exceeded the instruction limit.",
            ));
        }
        Ok(self.each.min(self.left))
    }
}

/// Runs a query method with all the calls that it makes, all of them on one state.
///
/// A view, once open, lasts; but a call made after the next round has ended finds the state of that. It is the same if the round has not
/// touched the canister called; otherwise the query starts over, on what is left of its instructions. No round waits for it.
///
/// Errors: also `CertifiedStateUnavailable`, when [`RESTARTS_MAX`] times were not enough.
pub fn run(certified: &Certified, query: &Query) -> Answered {
    let mut walk = Walk {
        certified,
        height: Height::ZERO,
        budget: Budget::default(),
        used: Instructions::ZERO,
        follows_from: FollowsFrom::State,
    };
    for _ in 0..=RESTARTS_MAX {
        match walk.ask(query, 0, None) {
            // What has used no instruction has nothing less when it starts over.
            Err(Stop::Moved) if walk.used == Instructions::ZERO => {}
            Err(Stop::Moved) => walk.follows_from = FollowsFrom::Moment,
            Err(Stop::Failed(reject)) => return walk.answered(Err(reject)),
            Ok(reply) => return walk.answered(Ok(reply)),
        }
    }
    walk.follows_from = FollowsFrom::Moment;
    walk.answered(Err(always_outdated()))
}

/// Why a query has no answer.
enum Stop {
    /// It failed.
    Failed(Reject),
    /// A round has changed a canister since it began.
    Moved,
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Self {
        Self::Failed(reject)
    }
}

impl From<Unopened> for Stop {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Outdated => Self::Moved,
            Unopened::Rejected(reject) => Self::Failed(reject),
        }
    }
}

/// A query and the calls of its tree.
struct Walk<'a> {
    certified: &'a Certified,
    /// Height of the state that it has begun with.
    height: Height,
    budget: Budget,
    /// Instructions so far.
    used: Instructions,
    follows_from: FollowsFrom,
}

impl Walk<'_> {
    fn answered(&self, outcome: Result<Vec<u8>, Reject>) -> Answered {
        let Self { height, used, follows_from, .. } = *self;
        Answered { outcome, height, used, follows_from }
    }

    /// Runs a query and its calls. `depth` is the number of queries that wait for this one, the first of which has `begun` on a state.
    fn ask(&mut self, query: &Query, depth: usize, begun: Option<&Arc<RoundEnv>>) -> Result<Vec<u8>, Stop> {
        let (id, certified) = (query.receiver, self.certified);
        // A view is made when the state has been let go: it may take time.
        let found = {
            let state = certified.read();
            let env = begun.or(state.env.as_ref()).ok_or_else(nothing_certified)?;
            if depth == 0 {
                self.height = env.height;
            }
            let is_later = state.height() > self.height;
            if is_later && (state.is_management(id) || state.canisters.get(id).is_none()) {
                // It was perhaps another canister's log, or there was a canister, when the query began.
                self.follows_from = FollowsFrom::Moment;
            }
            if state.is_management(id) {
                return Ok(management::answer(&state, query)?);
            }
            if depth >= COMPOSITE_QUERY_DEPTH_MAX {
                return Err(Stop::Failed(Reject::new(
                    ErrorCode::QueryCallGraphTooDeep,
                    format!("Composite query calls are at most {COMPOSITE_QUERY_DEPTH_MAX} deep."),
                )));
            }
            let canister = state.canister(id)?;
            if depth == 0 {
                self.budget.begin(&env.subnet.limits);
            } else if canister.height > self.height {
                return Err(Stop::Moved);
            }
            // The certificate is there for the client's query alone, and made only for a module that can ask for it.
            // Spec: #system-api-certified-data.
            let asks = depth == 0 && canister.program.as_ref().is_some_and(PublishedProgram::uses_certificate);
            let certificate = if asks { state.tree.data_certificate(id).ok().map(Into::into) } else { None };
            let call = QueryCall {
                caller: Some(query.sender),
                method: query.method.clone(),
                arg: query.arg.clone(),
                certificate,
                composite: true,
                ..QueryCall::default()
            };
            match certified.resting(canister) {
                Some(mut session) => {
                    session.reopen(env, call)?;
                    Ok(session)
                }
                None => Err((Arc::clone(env), Arc::clone(canister), call)),
            }
        };
        let mut session = match found {
            Ok(session) => session,
            Err((env, canister, call)) => Box::new(QuerySession::open(&env, &canister, call)?),
        };
        let run = self.budget.next()?;
        let step = {
            let _zone = execution_zone(|| (id, &query.method));
            session.run(run)
        };
        if step.certificate_seen && self.follows_from == FollowsFrom::State {
            self.follows_from = FollowsFrom::Certificate;
        }
        let mut calls = VecDeque::new();
        let mut answer = self.take_up(step, &mut calls)?;
        if depth > 0 {
            self.budget.left = self.budget.left.saturating_sub(QUERY_CALL_OVERHEAD);
        }
        while answer.is_none() {
            let Some(request) = calls.pop_front() else { break };
            let callback = request.callback;
            let payload = self.call_out(id, request, depth, session.env())?;
            let run = self.budget.next()?;
            let step = {
                let _zone = execution_zone(|| (id, &query.method));
                session.callback(&callback, payload, run)
            };
            answer = self.take_up(step, &mut calls)?;
        }
        certified.rest(session);
        match answer {
            Some(ResponsePayload::Reply(bytes)) => Ok(bytes),
            Some(ResponsePayload::Reject(reject)) => Err(reject.into()),
            None => Err(did_not_reply(id).into()),
        }
    }

    /// Takes up what one entry did: its calls are queued, its answer or failure is the result.
    fn take_up(
        &mut self,
        step: QueryStep,
        calls: &mut VecDeque<QueryRequest>,
    ) -> Result<Option<ResponsePayload>, Reject> {
        self.budget.left = self.budget.left.saturating_sub(step.used);
        self.used = self.used.saturating_add(step.used);
        calls.extend(step.calls);
        match step.failure {
            Some(reject) => Err(reject),
            None => Ok(step.answer),
        }
    }

    fn call_out(
        &mut self,
        caller: CanisterId,
        request: QueryRequest,
        depth: usize,
        begun: &Arc<RoundEnv>,
    ) -> Result<ResponsePayload, Stop> {
        let QueryRequest { callee, method, arg, .. } = request;
        match self.ask(&Query { sender: caller.principal(), receiver: callee, method, arg }, depth + 1, Some(begun)) {
            Ok(bytes) => Ok(ResponsePayload::Reply(bytes)),
            Err(Stop::Failed(reject)) => Ok(ResponsePayload::Reject(reject)),
            Err(Stop::Moved) => Err(Stop::Moved),
        }
    }
}
