//! Synthetic workloads: what many users ask of canisters, the same for the same seed, to a node over HTTP or into a recording.
//!
//! Enters: a mix, a seed, a rate; a node's URL or the name of a file. Leaves: latencies and errors of an open loop; or a recording that
//! `cyclotron replay` runs. Never here: a verdict on what a node answers, a number that the seed does not decide, times apart.
#![forbid(unsafe_code)]

mod error;
mod fleet;
mod http;
mod ledger;
mod mix;
mod plan;
mod random;
mod recording;
mod tally;
mod user;

pub use error::LoadFailed;
pub use fleet::{Fleet, Role, SetUp, SetUpCall, Workload};
pub use http::{DriveOptions, Endpoint, Versions, versions};
pub use mix::{Kind, Mix, Request, Requests};
pub use plan::Plan;
pub use recording::{Recorded, RecordingOptions, genesis, record};
pub use tally::{KindReport, LATE, Report, Tally, Times};
pub use user::{Asked, Signed, Users};
