//! The walk over a composite query's calls.

use crate::{Certified, CertifiedState, Query, management, nothing_certified};
use cyclotron_execution::query::{QueryCall, QueryRequest, QuerySession, QueryStep};
use cyclotron_execution::reject::did_not_reply;
use cyclotron_execution::{PublishedProgram, RoundEnv};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::{COMPOSITE_QUERY_DEPTH_MAX, QUERY_CALL_OVERHEAD};
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Height, Instructions};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is left for the whole tree of calls.
struct Budget {
    /// Instructions of all queries together.
    left: Instructions,
    /// Those of a single entry.
    each: Instructions,
}

impl Budget {
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

/// How often a query that has seen two states starts over before it holds on to one.
const RESTARTS_MAX: usize = 2;

/// Runs a query method with all the calls that it makes, all of them on one state.
///
/// A view, once open, lasts; but a call made after the next round has ended finds the state of that. Such a query starts over, and after
/// [`RESTARTS_MAX`] times it lets no round end before it has.
pub fn run(certified: &Certified, query: &Query) -> Result<Vec<u8>, Reject> {
    for _ in 0..RESTARTS_MAX {
        match Walk::new(certified, None).ask(query, 0) {
            Err(Stop::Moved) => {}
            Err(Stop::Failed(reject)) => return Err(reject),
            Ok(answer) => return Ok(answer),
        }
    }
    let state = certified.read();
    Walk::new(certified, Some(&state)).ask(query, 0).map_err(|stop| match stop {
        Stop::Failed(reject) => reject,
        Stop::Moved => unreachable!("the state is held"),
    })
}

/// Why a query has no answer.
enum Stop {
    /// It failed.
    Failed(Reject),
    /// A round has ended since it began.
    Moved,
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Self {
        Self::Failed(reject)
    }
}

/// A query and the calls of its tree.
struct Walk<'a> {
    certified: &'a Certified,
    /// The state, if it is held; else each call looks anew, and rounds may end between two of them.
    held: Option<&'a CertifiedState>,
    /// Height of the state that it has seen.
    height: Option<Height>,
    budget: Budget,
}

impl<'a> Walk<'a> {
    fn new(certified: &'a Certified, held: Option<&'a CertifiedState>) -> Self {
        Self { certified, held, height: None, budget: Budget { left: Instructions::ZERO, each: Instructions::ZERO } }
    }

    /// Looks at the state that the walk has seen from its beginning.
    fn look<R>(&mut self, look: impl FnOnce(&CertifiedState, &Arc<RoundEnv>) -> Result<R, Reject>) -> Result<R, Stop> {
        let guard;
        let state = match self.held {
            None => {
                guard = self.certified.read();
                &*guard
            }
            Some(state) => state,
        };
        let env = state.env.as_ref().ok_or_else(nothing_certified)?;
        match self.height {
            None => {
                let limits = &env.subnet.limits;
                self.budget = Budget { left: limits.composite_query.max(limits.query), each: limits.query };
                self.height = Some(env.height);
            }
            Some(height) if height != env.height => return Err(Stop::Moved),
            Some(_) => {}
        }
        Ok(look(state, env)?)
    }

    /// Runs a query and its calls. `depth` is the number of queries that wait for this one.
    fn ask(&mut self, query: &Query, depth: usize) -> Result<Vec<u8>, Stop> {
        let (id, certified) = (query.receiver, self.certified);
        let opened = self.look(|state, env| {
            if state.is_management(id) {
                return management::answer(state, query).map(Opened::Answered);
            }
            if depth >= COMPOSITE_QUERY_DEPTH_MAX {
                return Err(Reject::new(
                    ErrorCode::QueryCallGraphTooDeep,
                    format!("Composite query calls are at most {COMPOSITE_QUERY_DEPTH_MAX} deep."),
                ));
            }
            let canister = state.canister(id)?;
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
            certified.open(env, canister, call).map(Opened::Session)
        })?;
        let mut session = match opened {
            Opened::Answered(answer) => return Ok(answer),
            Opened::Session(session) => session,
        };
        let step = session.run(self.budget.next()?);
        let mut calls = VecDeque::new();
        let mut answer = self.take_up(step, &mut calls)?;
        if depth > 0 {
            self.budget.left = self.budget.left.saturating_sub(QUERY_CALL_OVERHEAD);
        }
        while answer.is_none() {
            let Some(request) = calls.pop_front() else { break };
            let callback = request.callback;
            let payload = self.call_out(id, request, depth)?;
            let step = session.callback(&callback, payload, self.budget.next()?);
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
        calls.extend(step.calls);
        match step.failure {
            Some(reject) => Err(reject),
            None => Ok(step.answer),
        }
    }

    fn call_out(&mut self, caller: CanisterId, request: QueryRequest, depth: usize) -> Result<ResponsePayload, Stop> {
        let QueryRequest { callee, method, arg, .. } = request;
        match self.ask(&Query { sender: caller.principal(), receiver: callee, method, arg }, depth + 1) {
            Ok(bytes) => Ok(ResponsePayload::Reply(bytes)),
            Err(Stop::Failed(reject)) => Ok(ResponsePayload::Reject(reject)),
            Err(Stop::Moved) => Err(Stop::Moved),
        }
    }
}

/// What a look at the state has led to.
enum Opened {
    /// The management canister answers at once.
    Answered(Vec<u8>),
    /// A canister's query can run.
    Session(Box<QuerySession>),
}
