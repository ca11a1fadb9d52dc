//! Running canisters: the System API, the life of a message, cycles, and the management canister.
//!
//! Enters: one canister's components, one job, the round's environment. Leaves: changed components and effects to route.
//! Never here: a view of the world, a clock, the order of messages (that is the scheduler's).
//!
//! A kernel call runs one message for one slice: [`start`] or [`resume`], until [`Step::Done`]. Everything of the message that is
//! not yet final lives in the suspended execution; the canister's components keep their state of before it, except that
//! its execution has been prepaid.
#![forbid(unsafe_code)]

mod canister;
pub mod charge;
mod config;
mod costs;
mod job;
mod machine;
pub mod management;
mod message;
mod published;
pub mod record;
pub mod reject;
mod system_api;
#[cfg(test)]
mod tests;

pub use canister::{
    CanisterBundle, CanisterData, CanisterDataItem, CanisterMut, LowMemoryHook, OpenCalls, Paused, Program,
};
pub use charge::{charge_ingress, due, settle};
pub use config::{ExecutionLimits, InstructionLimits, RoundEnv, SubnetConfig};
pub use costs::SliceCosts;
pub use job::{Effects, Job, JobName, Outcome, Outgoing, Step, Verdict};
pub use machine::{Installed, Machine, PublishedProgram};
pub use message::install;
pub use message::query;
pub use message::{Aborted, Prior, Suspended, abort, affords_message, append_log, check_low_memory, resume, start};
pub use published::PublishedCanister;
pub use system_api::{CallerInfo, Entry, SystemApi, may_call};
