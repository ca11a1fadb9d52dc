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
    let mut answer = build(response);
    if let Some((name, value)) = header {
        answer.headers_mut().insert(name, value);
    }
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    answer
}

pub(crate) fn build(response: Response) -> Answer {
    let Response { status, content_type, body } = response;
    let status = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = Answer::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Tells a browser that any page may send requests: the API knows no ambient credentials, each request is signed.
fn preflight(path: &str) -> Answer {
    let mut answer = build(Response::empty(if path.starts_with("/api/") { 204 } else { 404 }));
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
        TrySendError::Full(_) => busy(shared, 429, "The node is busy: too many requests are waiting"),
        TrySendError::Disconnected(_) => busy(shared, 503, "The node is shutting down"),
    })?;
    match timeout(shared.limits.reply_timeout, answer).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(busy(shared, 503, "The node gave up on the request")),
        Err(_) => Err(Refusal::new(504, "The node took too long to answer")),
    }
}

fn busy(shared: &Shared, status: u16, text: &str) -> Refusal {
    let seconds = HeaderValue::from(shared.limits.retry_after_seconds);
    Refusal { status, text: text.to_owned(), header: Some((header::RETRY_AFTER, seconds)) }
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
    u32::try_from(bytes)
        .ok()
        .and_then(|permits| Arc::clone(&shared.body_budget).try_acquire_many_owned(permits).ok())
        .ok_or_else(|| busy(shared, 429, "The node is busy: too many bytes are waiting"))
}
