//! One request of the client API, from its headers to its answer.

use crate::config::Limits;
use crate::request::{Reply, Request, Response};
use crate::server::Counters;
use bytes::Bytes;
use crossbeam::channel::{Sender, TrySendError};
use cyclotron_wire::{Method, Route, RouteError};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

pub(crate) type Answer = hyper::Response<Full<Bytes>>;

/// What all connections of a server share.
pub(crate) struct Shared {
    pub limits: Limits,
    pub queue: Sender<Request>,
    pub body_budget: Arc<Semaphore>,
    pub answer_budget: Arc<Semaphore>,
    pub counters: Arc<Counters>,
}

/// A request that is answered here already.
struct Refusal {
    status: u16,
    text: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), header: None }
    }
}

pub(crate) async fn handle(request: hyper::Request<Incoming>, shared: &Shared) -> Answer {
    shared.counters.requests.fetch_add(1, Relaxed);
    if request.method() == hyper::Method::OPTIONS {
        return preflight(request.uri().path());
    }
    let (response, header) = match answer(request, shared).await {
        Ok(response) => (response, None),
        Err(Refusal { status, text, header }) => {
            shared.counters.refused.fetch_add(1, Relaxed);
            (Response::text(status, text), header)
        }
    };
    let mut answer = match take_answer_budget(shared, &response) {
        Ok(budget) => build(response, Some(budget)),
        Err(Refusal { status, text, .. }) => {
            shared.counters.refused.fetch_add(1, Relaxed);
            build(Response::text(status, text), None)
        }
    };
    if let Some((name, value)) = header {
        answer.headers_mut().insert(name, value);
    }
    if matches!(answer.status().as_u16(), 429 | 503) {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(shared.limits.retry_after_seconds));
    }
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    answer
}

/// An answer's bytes and their share of the budget, given back when they are written or the connection is gone.
struct Budgeted {
    bytes: Vec<u8>,
    _budget: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn take_answer_budget(shared: &Shared, response: &Response) -> Result<OwnedSemaphorePermit, Refusal> {
    take(&shared.answer_budget, response.body.len())
        .ok_or_else(|| Refusal::new(503, "The node is busy: too many bytes of answers are on their way"))
}

fn take(budget: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    u32::try_from(bytes).ok().and_then(|permits| Arc::clone(budget).try_acquire_many_owned(permits).ok())
}

pub(crate) fn build(response: Response, budget: Option<OwnedSemaphorePermit>) -> Answer {
    let Response { status, content_type, body } = response;
    let status = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let body = match budget {
        Some(budget) => Bytes::from_owner(Budgeted { bytes: body, _budget: budget }),
        None => Bytes::from(body),
    };
    let mut answer = Answer::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Tells a browser that any page may send requests: the API knows no ambient credentials, each request is signed.
fn preflight(path: &str) -> Answer {
    let mut answer = build(Response::empty(if path.starts_with("/api/") { 204 } else { 404 }), None);
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, authorization, content-type, x-requested-with"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in allowed {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer
}

async fn answer(request: hyper::Request<Incoming>, shared: &Shared) -> Result<Response, Refusal> {
    let method = match *request.method() {
        hyper::Method::GET => Method::Get,
        hyper::Method::POST => Method::Post,
        _ => Method::Other,
    };
    let route = Route::parse(method, request.uri().path()).map_err(refuse_route)?;
    let (body, budget) = if method == Method::Post {
        check_content_type(request.headers())?;
        let (body, budget) = timeout(shared.limits.body_timeout, read_body(request.into_body(), shared))
            .await
            .map_err(|_| Refusal::new(408, "The body took too long"))??;
        (body, Some(budget))
    } else {
        (Vec::new(), None)
    };
    let (slot, answer) = oneshot::channel();
    let request = Request { route, body, reply: Reply::new(slot, budget) };
    shared.queue.try_send(request).map_err(|error| match error {
        TrySendError::Full(_) => Refusal::new(429, "The node is busy: too many requests are waiting"),
        TrySendError::Disconnected(_) => Refusal::new(503, "The node is shutting down"),
    })?;
    match timeout(shared.limits.reply_timeout, answer).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(Refusal::new(503, "The node gave up on the request")),
        Err(_) => Err(Refusal::new(504, "The node took too long to answer")),
    }
}

fn refuse_route(error: RouteError) -> Refusal {
    let header = match error {
        RouteError::MethodNotAllowed { allow } => Some((header::ALLOW, HeaderValue::from_static(allow))),
        _ => None,
    };
    Refusal { status: error.status(), text: error.to_string(), header }
}

/// Takes `application/cbor` with or without parameters; dfinity/ic answers 400 to anything else.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(Response::CBOR) {
        return Ok(());
    }
    Err(Refusal::new(400, "The content type must be application/cbor"))
}

/// Collects a body; each piece is paid from the budget when it is there, so that an announced length costs nothing.
async fn read_body(mut body: Incoming, shared: &Shared) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let max = shared.limits.body_bytes_max;
    let too_large = || Refusal::new(413, format!("The body may have at most {max} bytes"));
    let mut budget = take_budget(shared, 0)?;
    let mut bytes = Vec::new();
    if hyper::body::Body::size_hint(&body).lower() > max as u64 {
        return Err(too_large());
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new(400, "The body broke off"))?;
        let Ok(piece) = frame.into_data() else { continue };
        if piece.len() > max - bytes.len() {
            return Err(too_large());
        }
        budget.merge(take_budget(shared, piece.len())?);
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, budget))
}

fn take_budget(shared: &Shared, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    take(&shared.body_budget, bytes).ok_or_else(|| Refusal::new(429, "The node is busy: too many bytes are waiting"))
}
