//! Admission threads: requests from the HTTP queue, checked many at a time, and answered or handed on.

use super::Shared;
use super::gather::Next;
use crossbeam::channel::Receiver;
use cyclotron_admission::{
    AdmissionError, Admitted, AdmittedCall, AdmittedQuery, AdmittedReadState, Condition, RequestBytes, admit_batch,
};
use cyclotron_certification::{ReadError, Reader};
use cyclotron_crypto::Part;
use cyclotron_net::{Reply, Request, Response};
use cyclotron_queries::{CertifiedState, Query, answer_in_full, inspect_ingress};
use cyclotron_trace::{Outcome, SignatureBatch, Stage, StageClock, zone};
use cyclotron_types::ids::MessageId;
use cyclotron_types::reject::Reject;
use cyclotron_wire::{
    ApiVersion, NodeSignature, QueryAnswer, Rejection, Route, Status, Target, encode_call_certificate,
    encode_query_response, encode_read_state, encode_rejection_async, encode_rejection_sync, encode_status,
    query_signature_payload,
};
use std::sync::atomic::Ordering;

/// What a refused client is told to do.
const RETRY_LATER: &str = "The node has no room for this message now. Try again later.";

/// Answers requests until the node stops or the server is gone.
pub fn run(shared: &Shared, requests: &Receiver<Request>) {
    let mut batch = Vec::new();
    let mut results = Vec::new();
    while !shared.stopping.load(Ordering::Acquire) {
        match shared.gathering.next(requests, &mut batch) {
            Next::Admit => admit(shared, &mut batch, &mut results),
            Next::Answer(admitted, reply) => answer(shared, admitted, reply),
            Next::Idle => shared.certified.tidy(),
            Next::Gone => return,
        }
    }
}

/// Whether nobody waits for the answer, which is counted.
fn is_abandoned(shared: &Shared, reply: &Reply) -> bool {
    let abandoned = reply.is_abandoned();
    if abandoned {
        shared.metrics.count_request(Outcome::Abandoned);
    }
    abandoned
}

/// Empties `batch`: what is refused is answered here, what is admitted by whichever thread has time, the last of it here.
fn admit(shared: &Shared, batch: &mut Vec<Request>, results: &mut Vec<Result<Admitted, AdmissionError>>) {
    batch.retain(|request| match request.route {
        Route::Status | Route::Query(..) | Route::ReadState(..) => !is_abandoned(shared, &request.reply),
        // A call may be meant even though nobody waits for its answer.
        Route::Call(..) => true,
    });
    let mut clock = StageClock::start();
    let zone = zone!("admit requests");
    let checked: Vec<_> = batch
        .iter()
        .filter(|request| request.route != Route::Status)
        .map(|request| RequestBytes { route: request.route, body: &request.body })
        .collect();
    let parts = admit_batch(&checked, shared.now(), &shared.admission, results);
    drop(zone);
    shared.metrics.mark(&mut clock, Stage::Admit);
    for Part { scheme, backend, signatures, valid, elapsed } in parts {
        let (scheme, backend) = (scheme.name(), backend.name());
        shared.metrics.count_signatures(&SignatureBatch { scheme, backend, signatures, valid, elapsed });
    }
    let mut last = None;
    let mut results = results.drain(..);
    for Request { route, reply, .. } in batch.drain(..) {
        if route == Route::Status {
            reply.send(status(shared));
            continue;
        }
        match results.next().expect("one result a request") {
            Err(error) => {
                shared.metrics.count_request(Outcome::Refused);
                reply.send(refusal(shared, error, route));
            }
            Ok(admitted) => {
                if let Some((admitted, reply)) = last.replace((admitted, reply)) {
                    shared.gathering.leave(admitted, reply);
                }
            }
        }
    }
    if let Some((admitted, reply)) = last {
        answer(shared, admitted, reply);
    }
}

fn answer(shared: &Shared, admitted: Admitted, reply: Reply) {
    match admitted {
        Admitted::Call(call) => {
            let _zone = zone!("answer a call");
            let outcome = answer_call(shared, call, reply);
            shared.metrics.count_request(outcome);
        }
        Admitted::ReadState(read) => {
            shared.metrics.count_request(Outcome::Accepted);
            let mut clock = StageClock::start();
            let _zone = zone!("answer read_state");
            let answer = answer_read_state(&shared.certified.read(), &read);
            // Before it is sent: who has the answer finds it counted.
            shared.metrics.mark(&mut clock, Stage::ReadState);
            reply.send(answer);
        }
        Admitted::Query(query) => {
            // Those before it took their time, and its client may not have waited.
            if is_abandoned(shared, &reply) {
                return;
            }
            shared.metrics.count_request(Outcome::Accepted);
            let mut clock = StageClock::start();
            let _zone = zone!("answer a query");
            let answer = answer_query(shared, query);
            shared.metrics.queries.inc();
            shared.metrics.mark(&mut clock, Stage::Query);
            reply.send(answer);
        }
    }
}

fn version_of(route: Route) -> ApiVersion {
    match route {
        Route::Call(version, _) | Route::Query(version, _) | Route::ReadState(version, _) => version,
        Route::Status => ApiVersion::V2,
    }
}

/// The answer to a request that is not admitted.
fn refusal(shared: &Shared, error: AdmissionError, route: Route) -> Response {
    match error {
        AdmissionError::Rejected { id, reject } => match route {
            Route::Query(..) => signed_answer(shared, id, &Err(reject)),
            _ => rejection(&reject, version_of(route)),
        },
        error => Response::text(error.http_status(), error.to_string()),
    }
}

/// A call that is rejected before it enters the subnet: HTTP 200, the reject as the body.
fn rejection(reject: &Reject, version: ApiVersion) -> Response {
    let error_code = reject.error_code().to_string();
    let body = body_of(reject, &error_code);
    Response::cbor(
        200,
        match version {
            ApiVersion::V2 => encode_rejection_async(&body),
            ApiVersion::V3 | ApiVersion::V4 => encode_rejection_sync(&body),
        },
    )
}

fn body_of<'a>(reject: &'a Reject, error_code: &'a str) -> Rejection<'a> {
    Rejection { reject_code: reject.code as u8, reject_message: &reject.message, error_code: Some(error_code) }
}

fn status(shared: &Shared) -> Response {
    let height = shared.height.load(Ordering::Acquire);
    let status = Status {
        root_key: &shared.root_key,
        impl_version: env!("CARGO_PKG_VERSION"),
        replica_health_status: if height == 0 { "starting" } else { "healthy" },
        certified_height: Some(height),
    };
    Response::cbor(200, encode_status(&status))
}

/// Submits a call, or joins those who wait for it.
fn answer_call(shared: &Shared, call: AdmittedCall, reply: Reply) -> Outcome {
    let AdmittedCall { version, ingress, .. } = call;
    let id = ingress.id;
    {
        let state = shared.certified.read();
        if state.height().0 == 0 {
            reply.send(unavailable(&ReadError::NotCertified));
            return Outcome::Overloaded;
        }
        if state.requests.contains_key(&id) {
            join(shared, &state, id, version, reply);
            return Outcome::Accepted;
        }
    }
    if let Err(reject) = inspect_ingress(&shared.certified, &ingress) {
        reply.send(rejection(&reject, version));
        return Outcome::Refused;
    }
    if !shared.submissions.submit(ingress) {
        reply.send(Response::text(503, RETRY_LATER));
        return Outcome::Overloaded;
    }
    shared.wake();
    join(shared, &shared.certified.read(), id, version, reply);
    Outcome::Accepted
}

/// Answers a call whose message is on its way, or leaves that to the round that answers the message. The state is held throughout: no round can
/// answer the message between the look at its status and the place among the waiting.
fn join(shared: &Shared, state: &CertifiedState, id: MessageId, version: ApiVersion, reply: Reply) {
    match (version, state.requests.get(&id)) {
        (ApiVersion::V2, _) => reply.send(Response::empty(202)),
        (_, Some(request)) if request.answered => reply.send(certificate_of(state, id)),
        _ => shared.calls.wait(id, reply),
    }
}

/// The answer to a synchronous call whose message is answered.
pub fn certificate_of(state: &CertifiedState, id: MessageId) -> Response {
    match state.status_certificate(id) {
        Ok(certificate) => Response::cbor(200, encode_call_certificate(&certificate)),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &ReadError) -> Response {
    match error {
        ReadError::NotCertified => Response::text(503, "Nothing is certified yet. Try again in a second."),
        error => Response::text(400, error.to_string()),
    }
}

fn answer_query(shared: &Shared, query: AdmittedQuery) -> Response {
    let AdmittedQuery { id, sender, receiver, method, arg, .. } = query;
    if shared.height.load(Ordering::Acquire) == 0 {
        return unavailable(&ReadError::NotCertified);
    }
    let query = Query { sender, receiver, method, arg };
    let answered = answer_in_full(&shared.certified, &query);
    let response = signed_answer(shared, id, &answered.outcome);
    if let Some(recorder) = &shared.queries {
        recorder.note(query, answered);
    }
    response
}

/// The answer to the query `id`, with this node's signature.
///
/// Spec: ic-interface-spec #http-query. A query that is rejected before it runs is answered like any other.
fn signed_answer(shared: &Shared, id: MessageId, outcome: &Result<Vec<u8>, Reject>) -> Response {
    let error_code;
    let answer = match outcome {
        Ok(bytes) => QueryAnswer::Replied(bytes),
        Err(reject) => {
            error_code = reject.error_code().to_string();
            QueryAnswer::Rejected(body_of(reject, &error_code))
        }
    };
    let timestamp = shared.now().0;
    let payload = query_signature_payload(&answer, timestamp, &id.0);
    let signature = NodeSignature {
        timestamp,
        signature: shared.node_key.sign(&payload).to_vec(),
        identity: shared.node_key.node_id(),
    };
    Response::cbor(200, encode_query_response(&answer, &[signature]))
}

fn answer_read_state(state: &CertifiedState, read: &AdmittedReadState) -> Response {
    for condition in &read.conditions {
        if !holds(state, condition) {
            let error = condition.refusal();
            return Response::text(error.http_status(), error.to_string());
        }
    }
    let reader = Reader { target: read.target, version: read.version };
    match state.read_state(&reader, &read.paths) {
        Ok(certificate) => Response::cbor(200, encode_read_state(&certificate)),
        Err(error) => unavailable(&error),
    }
}

fn holds(state: &CertifiedState, condition: &Condition) -> bool {
    match condition {
        Condition::OwnRequest { id, sender, target, callees } => {
            let Some(request) = state.requests.get(id) else { return true };
            let target_matches = match target {
                Target::Canister(id) => request.effective_canister.is_none_or(|effective| effective.principal() == *id),
                Target::Subnet(_) => request.effective_canister.is_none(),
            };
            let callee_matches =
                callees.as_ref().is_none_or(|callees| callees.binary_search(&request.receiver).is_ok());
            request.sender == *sender && target_matches && callee_matches
        }
        Condition::ReadableMetadata { canister, name, sender } => state.may_read_metadata(*canister, name, sender),
    }
}
