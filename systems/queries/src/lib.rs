//! Queries and message inspection over the last certified state.
//!
//! Enters: the Replicated world between rounds, unchanged, and calls. Leaves: answers. Never here: a change of the world; an effect of one
//! query on another.
//!
//! A query runs on a private view of its canister's memories. A composite query may call other canisters' queries; the walk over its
//! calls is here: depth first, in the order in which they were made, under one budget of instructions for the whole tree.
#![forbid(unsafe_code)]

mod composite;
mod management;

use cyclotron_certification::StateTree;
use cyclotron_execution::management::{Guarded, check_ingress_sender, effective_canister, ingress_allowed};
use cyclotron_execution::query::{QueryCall, inspect};
use cyclotron_execution::reject::no_such_canister;
use cyclotron_execution::{CanisterRef, CanisterRefData, Installed, RoundEnv};
use cyclotron_routing::{Directory, IngressHistory};
use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::Ingress;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_world::prelude::*;
use rayon::prelude::*;

/// One query call, admitted.
#[derive(Clone, Debug)]
pub struct Query {
    /// Who asks.
    pub sender: Principal,
    /// The canister asked, or the management canister.
    pub receiver: CanisterId,
    /// Its method.
    pub method: String,
    /// The argument.
    pub arg: Vec<u8>,
}

/// What queries read: the world as the last round certified it.
#[derive(Clone, Copy)]
pub struct QueryView<'w> {
    /// The round whose state it is; queries see its time.
    pub env: &'w RoundEnv,
    /// The Replicated world.
    pub world: &'w World,
    /// Its certified tree.
    pub tree: &'w StateTree,
}

impl<'w> QueryView<'w> {
    /// The canister of this id.
    /// Errors: there is none.
    pub fn canister(&self, id: CanisterId) -> Result<CanisterRef<'w>, Reject> {
        let entity = self.world.resource::<Directory>().entity(id);
        let data = entity.and_then(|e| self.world.entity(e).get_components::<CanisterRefData>().ok());
        data.map(CanisterRef::from).ok_or_else(|| no_such_canister(id))
    }

    fn is_management(&self, id: CanisterId) -> bool {
        id == CanisterId::MANAGEMENT || id.principal() == self.env.subnet.subnet
    }
}

/// Answers many queries, on as many threads as the current rayon pool has; answers are in the order of the queries.
pub fn answer_batch(view: QueryView<'_>, queries: Vec<Query>) -> Vec<Result<Vec<u8>, Reject>> {
    if let [_] = queries.as_slice() {
        return queries.into_iter().map(|query| answer(view, query)).collect();
    }
    queries.into_par_iter().map(|query| answer(view, query)).collect()
}

/// Answers one query.
///
/// Spec: ic-interface-spec #query-call.
pub fn answer(view: QueryView<'_>, query: Query) -> Result<Vec<u8>, Reject> {
    if view.is_management(query.receiver) {
        return management::answer(view, &query);
    }
    // The certificate is there for the query's own target alone, and made only for a module that can ask for it.
    // Spec: #system-api-certified-data.
    let target = view.canister(query.receiver)?;
    let asks = target.program.installed().is_some_and(Installed::uses_certificate);
    let certificate = if asks { view.tree.data_certificate(query.receiver).ok().map(Into::into) } else { None };
    let call = QueryCall {
        caller: Some(query.sender),
        method: query.method,
        arg: query.arg,
        certificate,
        composite: true,
        ..QueryCall::default()
    };
    composite::run(view, query.receiver, call)
}

/// Asks whether an ingress message would be taken, before it is submitted: the management canister's rules, or the canister's own
/// `canister_inspect_message`.
///
/// Spec: ic-interface-spec #http-call-overview, #system-api-inspect-message. Errors: what the client is told at once.
pub fn inspect_ingress(view: QueryView<'_>, ingress: &Ingress) -> Result<(), Reject> {
    if view.world.resource::<IngressHistory>().is_full() {
        return Err(Reject::new(ErrorCode::IngressHistoryFull, "Ingress history is full"));
    }
    if view.is_management(ingress.receiver) {
        let method = ingress_allowed(&ingress.method)?;
        let effective = effective_canister(&ingress.method, &ingress.arg)?;
        let canister = effective.named.and_then(|id| view.canister(id).ok());
        let guarded = canister.as_ref().map(|c| Guarded { id: c.id, controllers: c.controllers, settings: c.settings });
        return check_ingress_sender(method, &ingress.sender, effective, guarded);
    }
    let call = QueryCall {
        caller: Some(ingress.sender),
        method: ingress.method.clone(),
        arg: ingress.arg.clone(),
        ..QueryCall::default()
    };
    inspect(view.env, &view.canister(ingress.receiver)?, call)
}
