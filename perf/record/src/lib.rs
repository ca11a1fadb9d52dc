//! Recordings of a subnet: made while it runs, shown, and run again as fast as the machine can.
//!
//! Enters: batches, as a sink of the subnet; or a recording, which is a log (`storage/FORMAT.md`), of a file or of a state directory.
//! Leaves: a recording; or a report of what its rounds did here; flame graphs. Never here: a batch that was not recorded.
#![forbid(unsafe_code)]

mod flame;
mod recorder;
mod replayer;
mod report;
mod source;

pub use flame::flame_graph;
pub use recorder::Recorder;
pub use replayer::{Progress, ReplayFailed, Replayer};
pub use report::{Contents, MethodTotals, Report, StageTimes};
pub use source::{OpenFailed, open};
