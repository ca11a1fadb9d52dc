//! The labelled hash tree that a subnet certifies.
//!
//! Enters: paths of labels with values at their ends, changed in place. Leaves: the root digest, and witnesses, which are the
//! same tree pruned to asked paths, as CBOR. Never here: what the paths mean, a signature, or the hash function itself, which
//! the caller passes in as a [`TreeHasher`].
//!
//! The content of a tree is a prefix-free map from paths to values; an inner node exists as long as something is below it.
//! The children of each inner node form a crit-bit trie over their labels: a fork stands at the first bit in which the labels
//! below it differ. Its shape is therefore a function of the set of labels alone, whatever the history, and needs neither
//! rotations nor priorities: an insertion adds one fork, a removal takes one away. Depth is log2 n for canister ids, which are
//! consecutive, and for request ids, which are digests; it never exceeds the number of bits in which the labels can differ.
//! A treap over hashed labels, the other candidate, is as deep, needs a hash per label and two more words per entry, and
//! rotates on the way, so that more digests go stale per change.
//!
//! Nodes are 12 bytes in one arena plus a 32-byte cached digest in another; a change marks the path to the root as stale,
//! and [`LabeledTree::rehash`] computes each stale digest once, level by level, handing whole levels to the hasher.

#![forbid(unsafe_code)]

mod blobs;
mod label;
mod rehash;
mod tree;
mod witness;

pub use label::LABEL_BYTES_MAX;
pub use rehash::{HashJob, TreeHasher};
pub use tree::{LabeledTree, Lookup, PathError};
pub use witness::{CborWitness, WitnessSink};

/// A digest of a tree or of a part of one.
pub type Digest = [u8; 32];
