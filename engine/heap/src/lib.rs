//! Memory of canisters: heaps and stable memories at rest, seats that put a heap where JIT code can reach it, undo, views.
//!
//! Enters: sizes, stores (as card marks, page faults or host copies), the verdict of a message. Leaves: bytes, the number of pages that a
//! message changed, which pages changed since they were last hashed. Never here: a protocol rule beyond sizes, a clock, a thread but those that copy pages.
//!
//! # The pieces
//!
//! - [`Arena`]: two sparse files in memory. [`Heap`] and [`StableMemory`] are plain handles to a slot in them, with a committed size.
//! - [`SeatPool`] and [`Seat`]: a bounded number of reserved address ranges laid out as [`layout`] says. A message on a heap is
//!   `take -> begin_message -> (stores, grow) -> finish -> commit | rollback -> put`.
//! - [`SeatPtr`]: what JIT code's slow paths and the signal handler call.
//! - [`StablePool`] and [`StableAccess`]: the same for stable memories, which only the host reads and writes.
//! - [`Version`]: what views show, while messages go on writing: the memory as it was when it was last published. See `version`.
//! - [`Committed`]: the state before a suspended message, for hashing.
//! - [`PageStore`]: where a checkpoint keeps pages. Those of a memory that lies there are fetched into the arena in blocks, when somebody looks at them: a seat
//!   shows nothing of a block of which pages are missing. See `shut`.
//!
//! # Between messages and inside one
//!
//! The bytes of a slot are the message's as soon as it stores them; the handle ([`Memory`]) keeps the size and the dirty set of the last commit.
//! At most one message at a time is in progress on a memory ([`HeapError::Busy`]). A suspended message keeps its seat and its undo log, over
//! rounds if need be; a hash reads around it through its pre-images. Any number of views read the published version meanwhile; neither they nor
//! messages wait for each other.
//!
//! # What the kernel must allow
//!
//! - `vm.max_map_count` (65,530): a seat takes 3 to 5 mappings, an undo log 2, a stable memory in use 1 or 2; a seat under
//!   [`Tracking::Protect`] up to about 1,600 more while a message dirties scattered pages; all seats together some 8,000 for heaps of which pages
//!   are missing.
//! - 47 bits of address space: 8 GiB a seat, 10 GiB an undo log in use or kept for views, a stable memory in use its size. `RLIMIT_AS` must be unlimited: below what is mapped
//!   already it refuses even to replace a mapping.
//! - `vm.overcommit_memory` 0 or 1: with 2 the kernel counts reservations as use and refuses undo logs ([`HeapError::Os`], ENOMEM).
//! - Files in memory may be as large as the machine's memory; they are never swapped to a disk without swap space. When memory runs out at
//!   a store, the kernel kills the process: the sum of memories is the caller's to bound.

mod arena;
mod copying;
mod error;
pub mod layout;
mod nearby;
mod page_set;
mod pool;
mod seat;
mod shut;
mod stable;
mod store;
mod sys;
mod track;
mod undo;
mod version;

pub use arena::{Arena, Committed, Heap, Memory, MemoryId, MemoryKind, OfHeap, OfStable, StableMemory};
pub use error::HeapError;
pub use nearby::Nearby;
pub use page_set::{PageIx, PageSet};
pub use pool::{SeatPool, StablePool};
pub use seat::{DirtyReport, Seat, SeatMemory, SeatPtr, Tracking};
pub use stable::StableAccess;
pub use store::{PageAt, PageRun, PageStore, merge_runs};
pub use track::Fault;
pub use undo::PreImage;
pub use version::{HeapVersion, StableVersion, Version};
