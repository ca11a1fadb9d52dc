//! The Replicated world as checkpoints keep it: what changed since the one before is written, beside the rounds that follow, and the world is made
//! again from that.
//!
//! Enters: the world after a round that named a checkpoint, in which suspended messages were aborted. Leaves: records and pages; and from them
//! a world that does what the first one would have done. What follows from something else is not kept: counts, sums, the state tree.
//! Never here: bytes of files (`storage/FORMAT.md`).
//!
//! # How
//!
//! A checkpoint is an index: for each canister and module where its record is, in one of the files of pages that checkpoints share. The record of a
//! canister says where the pages of its memories are.
//!
//! 1. [`capture`]: while no round runs, records of the canisters that changed are made on all threads, and their changed pages are copied. Places are known by
//!    counting.
//! 2. A thread writes what was copied to a new file of pages, and writes the state file, beside the rounds that follow. It shares the index and
//!    the statuses with the world, and makes bytes of them.
//! 3. Once the state file has its name, the memories are told where their pages are; or, if it failed, that they are to be kept next time.
//! 4. The thread makes the manifest, and removes what is no longer needed. Only then another checkpoint may begin.
//!
//! A file of pages of which checkpoints use less than half, or of which there are too many, is left: what is used of it goes to the new file.

mod capture;
mod checkpointer;
mod kept;
mod record;
mod release;

pub(crate) use capture::Saved;
pub use checkpointer::{CHECKPOINTS_KEPT, Checkpointer, Made, Retention, Step};
pub(crate) use kept::Kept;
pub use record::Position;
pub(crate) use record::{EnvOf, Restored, settle};
pub(crate) use release::{Search, release};

use cyclotron_types::ids::CanisterId;
use cyclotron_world::prelude::*;
use std::collections::BTreeSet;

/// Which canisters changed since the last checkpoint, came or went.
#[derive(Resource, Default)]
pub struct Changed {
    ids: BTreeSet<CanisterId>,
    /// Whether anybody makes checkpoints. Before the first one nothing is noted: it takes all.
    kept: bool,
}

impl Changed {
    /// Notes that canisters may have changed, come or gone.
    pub fn note(&mut self, ids: impl IntoIterator<Item = CanisterId>) {
        if self.kept {
            self.ids.extend(ids);
        }
    }
}
