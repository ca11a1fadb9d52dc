//! What the whole must show: the plan of the house, and the behaviour that real clients see.
//!
//! The library is what the end-to-end tests share: a node in a process of its own, the canisters of `tools/canisters`, and packages of
//! the public registries. The tests that need the node's program are under `tools/cyclotron/tests`, because cargo builds it for them.
#![forbid(unsafe_code)]

mod canisters;
mod node;
mod registry;

pub use canisters::canister;
pub use node::{Banner, TestNode, program};
pub use registry::{Package, fetch};

use std::path::PathBuf;

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
