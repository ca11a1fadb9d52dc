//! Queries and message inspection over the last certified state, while the next round runs.
//!
//! Enters: what rounds publish, and calls. Leaves: answers. Never here: the Replicated world; an effect of one query on another; a wait of a
//! round for a query, or of a query for a round, but for a look at [`CertifiedState`] and for its replacement.
//!
//! A query runs on a private view of its canister's memories. A composite query may call other canisters' queries; the walk over its
//! calls is here: depth first, in the order in which they were made, under one budget of instructions for the whole tree.
#![forbid(unsafe_code)]

mod composite;
mod management;
mod state;

use cyclotron_execution::management::{check_ingress_sender, effective_canister, ingress_allowed};
use cyclotron_execution::query::{QueryCall, QuerySession, Unopened, inspect};
use cyclotron_trace::execution_zone;
use cyclotron_types::message::Ingress;
use cyclotron_types::query::FollowsFrom;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Height, Instructions};
use rayon::prelude::*;
use std::sync::Arc;

pub use cyclotron_types::query::Query;
pub use state::{Certified, CertifiedState, KnownRequest};

/// An answer, and what it is an answer of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub outcome: Result<Vec<u8>, Reject>,
    /// Height of the state that the query ran on.
    pub height: Height,
    /// Instructions of the query and of all that it called.
    pub used: Instructions,
    /// Whether whoever has that state gives the same answer.
    pub follows_from: FollowsFrom,
}

/// What message inspection is called where a profiler shows it.
const INSPECTION: &str = "(message inspection)";
/// How often a query starts over when it finds a canister that a round has changed since it looked.
const RESTARTS_MAX: usize = 3;

/// The answer to who has started over too often.
fn always_outdated() -> Reject {
    Reject::new(
        ErrorCode::CertifiedStateUnavailable,
        "The canisters asked changed again and again while the query ran. Try again later.",
    )
}

/// The answer to who comes before the first round.
fn nothing_certified() -> Reject {
    Reject::new(ErrorCode::CertifiedStateUnavailable, "Nothing is certified yet.")
}

/// Answers many queries, on as many threads as the current rayon pool has; answers are in the order of the queries.
pub fn answer_batch(certified: &Certified, queries: &[Query]) -> Vec<Result<Vec<u8>, Reject>> {
    if let [query] = queries {
        return vec![answer(certified, query)];
    }
    queries.par_iter().map(|query| answer(certified, query)).collect()
}

/// Answers one query.
///
/// Spec: ic-interface-spec #query-call.
pub fn answer(certified: &Certified, query: &Query) -> Result<Vec<u8>, Reject> {
    answer_in_full(certified, query).outcome
}

/// Answers one query, and says what the answer is of.
pub fn answer_in_full(certified: &Certified, query: &Query) -> Answered {
    composite::run(certified, query)
}

/// Asks whether an ingress message would be taken, before it is submitted: the management canister's rules, or the canister's own
/// `canister_inspect_message`.
///
/// Spec: ic-interface-spec #http-call-overview, #system-api-inspect-message. Errors: what the client is told at once.
pub fn inspect_ingress(certified: &Certified, ingress: &Ingress) -> Result<(), Reject> {
    for _ in 0..=RESTARTS_MAX {
        let (env, canister) = {
            let state = certified.read();
            if state.history_is_full {
                return Err(Reject::new(ErrorCode::IngressHistoryFull, "Ingress history is full"));
            }
            if state.is_management(ingress.receiver) {
                return inspect_management(&state, ingress);
            }
            let env = state.env.as_ref().ok_or_else(nothing_certified)?;
            (Arc::clone(env), Arc::clone(state.canister(ingress.receiver)?))
        };
        let call = QueryCall {
            caller: Some(ingress.sender),
            method: ingress.method.clone(),
            arg: ingress.arg.clone(),
            ..QueryCall::default()
        };
        match QuerySession::open_inspect(&env, &canister, call) {
            Ok(session) => {
                let _zone = session.as_ref().map(|_| execution_zone(|| (ingress.receiver, INSPECTION)));
                return inspect(session);
            }
            Err(Unopened::Rejected(reject)) => return Err(reject),
            Err(Unopened::Outdated) => {}
        }
    }
    Err(always_outdated())
}

/// The management canister's rules.
fn inspect_management(state: &CertifiedState, ingress: &Ingress) -> Result<(), Reject> {
    let method = ingress_allowed(&ingress.method)?;
    let effective = effective_canister(&ingress.method, &ingress.arg)?;
    let canister = effective.named.and_then(|id| state.canister(id).ok());
    check_ingress_sender(method, &ingress.sender, effective, canister.map(|canister| canister.guarded()))
}
