//! The HTTP transport: bytes of requests into a bounded queue, bytes of answers out of one-shot slots.
//!
//! Enters: TCP connections. Leaves: [`Request`]s of known endpoints, whole and within their limits; what the queue's reader
//! answers goes back. Never here: the meaning of a body, a thread that waits for the queue's reader, memory that grows with
//! the number of clients. Only home of tokio in the node: its runtime lives and dies with a [`Server`].
//!
//! Beside it a socket in the file system for the node's operator ([`local`]).
//!
//! What bounds memory: connections by count, headers by buffer size, bodies by one budget of bytes that a request holds until
//! it is answered, requests by the queue's length, answers by another budget until they are written. What is over a bound is refused
//! with 429 or 503 and `Retry-After`; a client that does not take its answer is cut off.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod handler;
pub mod local;
mod request;
mod server;
mod timed;

pub use config::Limits;
pub use request::{Reply, Request, Response};
pub use server::{Counters, MetricsPage, Server, ServerConfig, serve};
