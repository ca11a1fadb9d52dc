//! What people see of a running node: metrics, log lines, and what a profiler shows.
//!
//! Enters: counts, durations, events, zones. Leaves: the Prometheus page, lines on standard error, events to a profiler. It may read a
//! clock; nobody in the node ever reads any of it back.
#![cfg_attr(not(feature = "tracy"), forbid(unsafe_code))]

mod log;
mod metrics;
mod profiler;
mod timed;

pub use log::{LogFormat, init_log};
pub use metrics::{Metrics, Outcome, SignatureBatch, Stage, StageClock};
pub use profiler::*;
pub use timed::timed;
pub use tracing::{debug, error, info, warn};
