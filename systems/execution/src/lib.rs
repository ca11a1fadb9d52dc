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
mod job;
mod machine;
pub mod management;
pub mod reject;

pub use canister::{
    CanisterBundle, CanisterData, CanisterDataItem, CanisterMut, Installed, LowMemoryHook, OpenCalls, Paused, Program,
    Suspended,
};
pub use config::{ExecutionLimits, InstructionLimits, RoundEnv, SubnetConfig};
pub use job::{Effects, Job, Outcome, Outgoing, Step, Verdict};
pub use machine::Machine;

// The kernel's entry points, in the making:
//   fn start(env: &RoundEnv, canister: &mut CanisterMut<'_>, job: Job) -> Step
//   fn resume(env: &RoundEnv, canister: &mut CanisterMut<'_>) -> Step
//   fn abort(canister: &mut CanisterMut<'_>)
