//! One node's API over HTTP/1.1: connections that are kept, requests, answers.
//!
//! Enters: signed envelopes. Leaves: what became of each. Never here: a rate, a retry of what a node may have taken.

use super::answer::{self, Answer};
use crate::mix::Kind;
use bytes::Bytes;
use cyclotron_types::Principal;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anyone waits for one HTTP answer: more than a node keeps a synchronous call.
const HTTP_WAIT: Duration = Duration::from_secs(30);
/// Bytes of an answer at most: a query's reply and its signatures.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// What a request came to instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    NotConnected(String),
    /// The connection ended before the answer did.
    Broken(String),
    /// Nothing came in time.
    TimedOut,
    /// Another HTTP status than a success.
    Http(u16),
    /// The node or the canister rejected it.
    Rejected {
        /// Such as `IC0503`.
        code: String,
        /// For people.
        message: String,
    },
    /// The body is not what it should be.
    Unreadable,
}

impl Failure {
    /// A name under which equal failures are counted.
    pub fn kind(&self) -> String {
        match self {
            Self::NotConnected(_) => "no connection".into(),
            Self::Broken(_) => "connection broken".into(),
            Self::TimedOut => "no answer in time".into(),
            Self::Http(status) => format!("HTTP {status}"),
            Self::Rejected { code, .. } if code.is_empty() => "rejected".into(),
            Self::Rejected { code, .. } => format!("rejected {code}"),
            Self::Unreadable => "unreadable answer".into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(reason) | Self::Broken(reason) => write!(f, "{}: {reason}", self.kind()),
            Self::Rejected { message, .. } => write!(f, "{}: {message}", self.kind()),
            _ => f.write_str(&self.kind()),
        }
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// Connections to one address. Used within one runtime.
#[derive(Debug)]
pub struct Client {
    /// Host and port.
    address: String,
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    /// A client without connections.
    pub fn new(address: &str) -> Self {
        Self { address: address.into(), idle: Mutex::default() }
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connection(&self) -> Result<Connection, Failure> {
        while let Some(mut connection) = self.take_idle() {
            // The node may have closed it meanwhile.
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let failed = |error: &dyn fmt::Display| Failure::NotConnected(error.to_string());
        let stream = TcpStream::connect(&self.address).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        // What goes wrong with it, its request learns.
        tokio::spawn(driver);
        Ok(sender)
    }

    /// Sends a request and waits for the whole answer.
    pub async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        timeout(HTTP_WAIT, self.exchange_at_leisure(method, path, body)).await.map_err(|_| Failure::TimedOut)?
    }

    async fn exchange_at_leisure(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let broken = |error: &dyn fmt::Display| Failure::Broken(error.to_string());
        let mut connection = self.connection().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/cbor")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let answer = connection.send_request(request).await.map_err(|error| broken(&error))?;
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(&error))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok((status, body.to_bytes()))
    }
}

/// Versions of the endpoints that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of calls: `v4` and `v3` answer with the certificate, `v2` at once.
    pub call: &'static str,
    /// Of queries.
    pub query: &'static str,
    /// Of looks at the state.
    pub read_state: &'static str,
}

/// Every way to call, the best first.
pub const VERSIONS: [Versions; 3] = [
    Versions { call: "v4", query: "v3", read_state: "v3" },
    Versions { call: "v3", query: "v2", read_state: "v2" },
    Versions { call: "v2", query: "v2", read_state: "v2" },
];

impl Versions {
    /// The path of a request about a canister.
    pub fn path(&self, kind: Kind, about: Principal) -> String {
        let (version, method) = match kind {
            Kind::Update => (self.call, "call"),
            Kind::Query => (self.query, "query"),
        };
        format!("/api/{version}/canister/{about}/{method}")
    }

    /// The path of a look at a request's status.
    pub fn read_state_path(&self, about: Principal) -> String {
        format!("/api/{}/canister/{about}/read_state", self.read_state)
    }
}

/// Reads the answer to a request.
pub fn read(kind: Kind, id: &[u8; 32], status: StatusCode, body: &[u8]) -> Result<Answer, Failure> {
    match status.as_u16() {
        200 => {
            let read = if kind == Kind::Query { answer::of_query(body) } else { answer::of_update(body, id) };
            read.map_err(|_| Failure::Unreadable)
        }
        202 => Ok(Answer::Pending),
        status => Err(Failure::Http(status)),
    }
}
