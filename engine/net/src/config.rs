//! What one server takes.

use cyclotron_wire::limits::BODY_BYTES_MAX;
use std::time::Duration;

/// Bounds of one server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once; one more is told 503.
    pub connections_max: usize,
    /// Requests waiting in the queue; one more is told 429.
    pub queue_max: usize,
    /// Bytes of one body; a longer one is told 413.
    pub body_bytes_max: usize,
    /// Bytes of all bodies between arrival and answer; more are told 429.
    pub body_bytes_total_max: usize,
    /// Bytes of a request's line and headers; more are told 431.
    pub header_bytes_max: usize,
    /// Headers of a request; more are told 431.
    pub headers_max: usize,
    /// Time for the headers to arrive, and for a kept connection to stay idle.
    pub header_timeout: Duration,
    /// Time for a body to arrive; a slower one is told 408.
    pub body_timeout: Duration,
    /// Bytes of all answers between the queue's reader and the client; an answer over them is replaced by 503.
    pub answer_bytes_total_max: usize,
    /// Connections of the metrics page.
    pub metrics_connections_max: usize,
    /// Time for a client to take any part of what is written to it; a slower one is cut off.
    pub write_timeout: Duration,
    /// Time for the queue's reader to answer; after it the client is told 504. Longer than the 10 s that a synchronous call waits.
    pub reply_timeout: Duration,
    /// Time that open connections get to finish at shutdown.
    pub shutdown_timeout: Duration,
    /// What `Retry-After` says. Units: s.
    pub retry_after_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            queue_max: 4_096,
            body_bytes_max: BODY_BYTES_MAX,
            // 51 bodies of 5 MiB, or a full queue of bodies of 64 KiB.
            body_bytes_total_max: 256 << 20,
            // 85 answers of 3 MiB, the largest of a query.
            answer_bytes_total_max: 256 << 20,
            metrics_connections_max: 16,
            // 1,024 connections hold 16 MiB of headers at most.
            header_bytes_max: 16 << 10,
            headers_max: 64,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            reply_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(5),
            retry_after_seconds: 1,
        }
    }
}
