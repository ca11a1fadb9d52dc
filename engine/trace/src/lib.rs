//! What people see of a running node: metrics and log lines.
//!
//! Enters: counts, durations, events. Leaves: the Prometheus page, lines on standard error. It may read a clock; nobody in the node
//! ever reads any of it back.
#![forbid(unsafe_code)]

mod log;
mod metrics;

pub use log::{LogFormat, init_log};
pub use metrics::{Metrics, Outcome, Stage, StageClock};
pub use tracing::{debug, error, info, warn};
