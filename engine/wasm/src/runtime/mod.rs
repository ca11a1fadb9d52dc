//! Running compiled code: instances, executions, host calls, traps, suspension.
//!
//! Enters: a module and a seat. Leaves: outcomes. The parts: `instance` (what persists), `execution` (a message as a coroutine), `host` (the
//! border to Rust), `libcalls` (what compiled code calls), `signals` (faults become traps), `stack` (native stacks), `samples` (where a thread is, for
//! a profiler), `activation` (the
//! record that ties them together), `arch` (all that depends on the processor). Never here: what host functions mean.

mod activation;
mod arch;
mod execution;
mod host;
mod instance;
mod libcalls;
pub(crate) mod samples;
mod shape;
mod signals;
mod stack;
mod trap;
mod value;

pub use execution::{Entry, Execution, Finished, Outcome, StartError};
pub use host::{Caller, Host, HostTrap, SliceVerdict};
pub use instance::{Instance, InstantiateError, Seated};
pub use shape::*;
pub use stack::{HOST_STACK_BYTES, STACK_SLOTS_MAX, StackNeeded, stacks_mapped};
pub use trap::{FRAMES_MAX, Frame, Trap, describe};
pub use value::{ValType, Value};
pub(crate) use value::{extern_reference, extern_word};
