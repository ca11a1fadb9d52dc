//! What crosses the queue.

use cyclotron_wire::Route;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A request of a known endpoint, its body whole.
#[derive(Debug)]
pub struct Request {
    /// Its endpoint.
    pub route: Route,
    /// Its body; empty for [`Route::Status`].
    pub body: Vec<u8>,
    /// Where the answer goes.
    pub reply: Reply,
}

/// The place of one answer. Dropping it unused tells the client 503.
#[derive(Debug)]
pub struct Reply {
    slot: oneshot::Sender<Response>,
    /// The body's share of the budget, given back when the answer is there.
    _budget: Option<OwnedSemaphorePermit>,
}

impl Reply {
    pub(crate) fn new(slot: oneshot::Sender<Response>, budget: Option<OwnedSemaphorePermit>) -> Self {
        Self { slot, _budget: budget }
    }

    /// Answers; from any thread, without waiting. An answer that nobody waits for any more is dropped.
    pub fn send(self, response: Response) {
        drop(self.slot.send(response));
    }

    /// Whether the client has gone, or has been told that time ran out.
    pub fn is_abandoned(&self) -> bool {
        self.slot.is_closed()
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// Media type of every body that is not a text.
    pub const CBOR: &'static str = "application/cbor";
    /// Media type of errors.
    pub const TEXT: &'static str = "text/plain; charset=utf-8";

    /// CBOR with this status.
    pub const fn cbor(status: u16, body: Vec<u8>) -> Self {
        Self { status, content_type: Self::CBOR, body }
    }
    /// A text with this status.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, content_type: Self::TEXT, body: text.into().into_bytes() }
    }
    /// No body, as a 202 has it.
    pub const fn empty(status: u16) -> Self {
        Self { status, content_type: Self::TEXT, body: Vec::new() }
    }
}
