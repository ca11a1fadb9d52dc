//! The manifest of a checkpoint: a list of files that stand for the whole state, with the hashes of their chunks; and one hash of all of it.
//!
//! Enters: a checkpoint as it is on the disk, and the one before with its manifest. Leaves: `HEIGHT.manifest` and the root. Never here: what a record
//! means; a look at the world; anything that two nodes with the same state may see differently: which file of pages a page lies in, what was
//! written when, how many threads hashed.
//!
//! # How
//!
//! The files are virtual: `FORMAT.md` says which there are, in the order of their paths. Places where pages lie tell what has changed: files of
//! pages are never written again, so two chunks whose pages lie in the same places are the same. Only the others are read and hashed.
//!
//! 1. The new list of canisters is walked beside that of the checkpoint before, and beside its manifest; all are in the order of their paths.
//! 2. A canister whose record lies where it did is taken over. Of another the places of its pages are compared, chunk by chunk.
//! 3. What has to be hashed is read and hashed on several threads, some 256 canisters at a time, and the new manifest is written meanwhile.
//!
//! The root follows from the manifest as it was written, for who asks.

mod disk;
mod file;
mod make;
mod source;
mod tables;

pub use disk::{ManifestReader, ManifestWriter, manifest_root};
pub use file::{ManifestFile, decode_files, encode_file};
pub use make::{Checkpoint, Copied, Making};
pub use tables::{Chunk, Tables, chunk_hash, chunks_of, file_hash};

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a chunk; the last one of a file may have fewer.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The rules by which manifests are hashed: `StateSyncVersion::V3` of the Internet Computer.
pub const VERSION: u32 = 3;
/// Bytes of a file at most: a terabyte, twice the largest memory.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// What a manifest comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestRoot {
    /// By which rules it was hashed.
    pub version: u32,
    /// The hash of all of it.
    pub hash: Hash,
}

/// A SHA-256.
pub type Hash = [u8; 32];

/// Items that a thread takes at a time; it holds a chunk of each.
const GROUP: usize = 8;

/// Lets `work` turn items into results on up to so many threads; the results are in the order of the items.
fn on_threads<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&[T]) -> Vec<R> + Sync) -> Vec<R> {
    let groups = items.len().div_ceil(GROUP);
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            let from = group * GROUP;
            if from >= items.len() {
                return done;
            }
            done.push((group, work(&items[from..items.len().min(from + GROUP)])));
        }
    };
    let mut done = match threads.min(groups) {
        0 | 1 => take(),
        // This thread is one of them.
        threads => std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
            let mut done = take();
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        }),
    };
    done.sort_unstable_by_key(|(group, _)| *group);
    done.into_iter().flat_map(|(_, results)| results).collect()
}
