//! Recordings of a subnet: made while it runs, shown, and run again as fast as the machine can.
//!
//! Enters: batches, as a sink of the subnet, and queries; or a recording, which is a log (`storage/FORMAT.md`), of a file or of a state directory, and the
//! checkpoints that belong to it.
//! Leaves: a recording; or a report of what its rounds did here; flame graphs. Never here: a batch that was not recorded.
#![forbid(unsafe_code)]

mod ahead;
mod candidate;
mod changes;
mod charged;
mod compare;
mod flame;
mod page;
mod queries;
mod query_recorder;
mod recorder;
mod replayer;
mod report;
mod settled;
mod source;
mod stacks;

pub use candidate::{Candidate, CandidateReport, MethodChange, Taken, try_candidate};
pub use changes::{Change, Changes};
pub use compare::{Compared, Comparison, Row, compare};
pub use flame::flame_graph;
pub use page::page;
pub use queries::QueryReport;
pub use query_recorder::QueryRecorder;
pub use recorder::Recorder;
pub use replayer::{Progress, ReplayFailed, Replayer};
pub use report::{CanisterTotals, Contents, Kind, MethodTotals, Report, RoundFacts, StageTimes, Totals};
pub use source::{OpenFailed, Recording, Started, checkpoints_beside, open};
pub use stacks::{Place, Stacks};
