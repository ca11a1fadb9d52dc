//! The composition: both worlds, their schedules, and the one type that every driver shares.
//!
//! Enters: a [`Batch`](cyclotron_types::batch::Batch) a round, admitted ingress, queries. Leaves: a
//! [`CertifiedView`](cyclotron_types::batch::CertifiedView) a round, certificates, answers to queries.
//! Never here: a rule of the protocol (those live in the rooms), a socket, a clock.
#![forbid(unsafe_code)]

mod actions;
mod candidate;
mod certify;
mod checkpoint;
mod conservation;
mod genesis;
mod log_sink;
mod management;
mod module_cache;
mod observe;
mod page;
mod perturb;
mod pool;
mod program;
mod replay;
mod round;
mod sink;
mod state_hash;
mod subnet;
mod totals;

pub use candidate::{NotTaken, TakeOver};
pub use checkpoint::{CHECKPOINTS_KEPT, Checkpointer, Made, Retention, Step};
pub use conservation::Unbalanced;
pub use cyclotron_execution::{JobName, SliceCosts};
pub use cyclotron_scheduling::Ran;
pub use genesis::{Genesis, NODES_MAX};
pub use log_sink::LogSink;
pub use module_cache::CodeOnDisk;
pub use observe::RoundObserver;
pub use pool::{IngressPool, POOL_BYTES_MAX, POOL_MESSAGES_MAX, PoolFull, PoolLoad, PoolTick, ingress_bytes};
pub use program::Program;
pub use replay::{ReplayError, Replayed, Unsigned};
pub use round::{InnerRound, Round, RoundSet};
pub use sink::BatchSink;
pub use subnet::{SchedulingOptions, Statistics, Subnet, SubnetOptions};
