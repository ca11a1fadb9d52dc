//! The ports through which a node meets what no replica agrees on: the clock, entropy and the disk.
//!
//! Each port is a trait with a system implementation and a simulated one; the simulated ones are functions of their seed and
//! of the calls made, so that a test that failed once fails again. Never here: anything of the Replicated world, which sees
//! time and randomness through its batches alone.

#![forbid(unsafe_code)]

mod clock;
mod disk;
mod entropy;
mod sim_disk;

pub use clock::{Clock, SimClock, SystemClock};
pub use disk::{Access, Disk, DiskFile, FileContent, LockError, SystemDisk};
pub use entropy::{Entropy, SimEntropy, SystemEntropy};
pub use sim_disk::{Fault, SimDisk, SimFile};
