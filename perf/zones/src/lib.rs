//! What a program with zones in it tells the Tracy profiler, read without the profiler.
//!
//! Enters: the address of a program that was built with the feature `tracy`. Leaves: its zones by name with how often and how long they were
//! open, its plots, frames and threads. Never here: events that are neither zone, plot nor frame mark; they are skipped by their length.
//!
//! Tracy's protocol has a version, and no compatibility from one to the next: this is [`PROTOCOL`], the one of the client library in the
//! workspace.
#![forbid(unsafe_code)]

mod capture;
mod events;
mod protocol;
mod stream;
mod totals;

pub use capture::Capture;
pub use events::Events;
pub use protocol::{PROTOCOL, Welcome};
pub use totals::{PlaceTotals, PlotTotals, Totals};

use std::fmt;
use std::io;

/// Why nothing, or no more, was read.
#[derive(Debug)]
pub enum CaptureError {
    /// The connection failed, or ended.
    Connection(io::Error),
    /// The program speaks another version of the protocol.
    OtherVersion,
    /// The program has a profiler, or wants none.
    Refused(u8),
    /// What it sent is not what the protocol says.
    Malformed(&'static str),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "no connection to the profiled program: {error}"),
            Self::OtherVersion => write!(f, "the profiled program does not speak version {PROTOCOL} of the protocol"),
            Self::Refused(status) => write!(f, "the profiled program takes no profiler now (status {status})"),
            Self::Malformed(what) => write!(f, "the profiled program sent what the protocol does not have: {what}"),
        }
    }
}

impl std::error::Error for CaptureError {}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}
