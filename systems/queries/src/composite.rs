//! The walk over a composite query's calls.

use crate::{Query, QueryView, management};
use cyclotron_execution::query::{QueryCall, QueryRequest, QuerySession, QueryStep};
use cyclotron_execution::reject::did_not_reply;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::{COMPOSITE_QUERY_DEPTH_MAX, QUERY_CALL_OVERHEAD};
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::Instructions;
use std::collections::VecDeque;

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

/// Runs a query method with all the calls that it makes.
pub fn run(view: QueryView<'_>, canister: CanisterId, call: QueryCall) -> Result<Vec<u8>, Reject> {
    let limits = &view.env.subnet.limits;
    let mut budget = Budget { left: limits.composite_query.max(limits.query), each: limits.query };
    run_at(view, canister, call, &mut budget, 0)
}

fn run_at(
    view: QueryView<'_>,
    id: CanisterId,
    call: QueryCall,
    budget: &mut Budget,
    depth: usize,
) -> Result<Vec<u8>, Reject> {
    if depth >= COMPOSITE_QUERY_DEPTH_MAX {
        return Err(Reject::new(
            ErrorCode::QueryCallGraphTooDeep,
            format!("Composite query calls are at most {COMPOSITE_QUERY_DEPTH_MAX} deep."),
        ));
    }
    let canister = view.canister(id)?;
    let (mut session, step) = QuerySession::start(view.env, &canister, call, budget.next()?);
    let mut calls = VecDeque::new();
    let mut answer = take_up(step, budget, &mut calls);
    if depth > 0 {
        budget.left = budget.left.saturating_sub(QUERY_CALL_OVERHEAD);
    }
    while let Ok(None) = answer {
        let Some(request) = calls.pop_front() else { break };
        let payload = call_out(view, id, &request, budget, depth);
        answer = budget.next().and_then(|limit| {
            let step = session.callback(view.env, &canister, &request.callback, payload, limit);
            take_up(step, budget, &mut calls)
        });
    }
    session.close(&canister);
    match answer? {
        Some(ResponsePayload::Reply(bytes)) => Ok(bytes),
        Some(ResponsePayload::Reject(reject)) => Err(reject),
        None => Err(did_not_reply(id)),
    }
}

/// Takes up what one entry did: its calls are queued, its answer or failure is the result.
fn take_up(
    step: QueryStep,
    budget: &mut Budget,
    calls: &mut VecDeque<QueryRequest>,
) -> Result<Option<ResponsePayload>, Reject> {
    budget.left = budget.left.saturating_sub(step.used);
    calls.extend(step.calls);
    match step.failure {
        Some(reject) => Err(reject),
        None => Ok(step.answer),
    }
}

fn call_out(
    view: QueryView<'_>,
    caller: CanisterId,
    request: &QueryRequest,
    budget: &mut Budget,
    depth: usize,
) -> ResponsePayload {
    let (sender, receiver) = (caller.principal(), request.callee);
    let (method, arg) = (request.method.clone(), request.arg.clone());
    let result = if view.is_management(receiver) {
        management::answer(view, &Query { sender, receiver, method, arg })
    } else {
        let call = QueryCall { caller: Some(sender), method, arg, composite: true, ..QueryCall::default() };
        run_at(view, receiver, call, budget, depth + 1)
    };
    match result {
        Ok(bytes) => ResponsePayload::Reply(bytes),
        Err(reject) => ResponsePayload::Reject(reject),
    }
}
