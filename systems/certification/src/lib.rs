//! What a subnet certifies: the content of the state tree, its root's signature, and certificates for those who ask.
//!
//! Enters: facts about canisters, requests and the subnet, as plain data, each when it changes. Leaves: the root, signed, and
//! certificates. Work is in proportion to what changed: a round in which nothing did costs the path of `/time` and a signature.
//! Never here: who may read which path (admission decides), when a request status expires (routing does), or a clock.
//!
//! The round changes facts with `set_*`, `upsert_*` and `remove_*`, then calls [`StateTree::certify`]; between that and the next
//! change, any number of readers take certificates.

#![forbid(unsafe_code)]

mod certificate;
mod hasher;
mod leaves;
mod state_tree;

pub use certificate::{Certified, Delegation, ReadError, Reader, root_message};
pub use hasher::StateHasher;
pub use leaves::SubnetMetrics;
pub use state_tree::{CanisterFacts, CodeFacts, StateTree, SubnetFacts};
