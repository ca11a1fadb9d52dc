//! Versions of a memory: views read it as it was when it was last published, while messages go on writing to it.
//!
//! Enters: publications, records of messages' undo logs, commits, readers. Leaves: pre-images for readers that begin; for those at work, pages of
//! their own. Never here: a wait of a message for a reader, or of a reader for a message, longer than it takes to copy what the one has changed.
//!
//! # How
//!
//! A view maps the memory's file privately, so it reads the bytes of the message in progress unless it has a private copy of the page.
//! - Pages that changed between the publication and the view's begin are copied into it from the undo logs: that of the message in progress,
//!   and those of the messages committed since, of which each page is kept once.
//! - A page that changes while the view is at work is copied by the kernel: before a message's first store to a page, [`Versions::saved`] writes
//!   to that page of every view without changing it, which ends its sharing.
//!
//! Both happen under one lock a memory, which a message takes at its begin, at its end and at its first store to each page.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cyclotron_types::units::WasmPages;

use crate::arena::{MemoryId, MemoryKind, OfHeap, OfStable, Slot};
use crate::error::HeapError;
use crate::page_set::{PageIx, PageSet};
use crate::sys;
use crate::undo::{PreImageMap, RecordKind, Records, UndoLog};

/// Pages that are copied out of a message's undo log when it commits; a log with more of them is kept as it is, and the next message gets another.
/// A round's instructions pay for some 16 million pages in all, hence for some 4,000 such logs: 40 of the 128 TiB of address space.
const COPIED_PAGES_MAX: usize = 4_096;

/// A memory as it was when it was published, for views. A later publication outdates it.
#[derive(Debug)]
pub struct Version<K: MemoryKind> {
    slot: Arc<Slot>,
    number: u64,
    size: WasmPages,
    maximum: WasmPages,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// A heap as it was when it was published.
pub type HeapVersion = Version<OfHeap>;
/// A stable memory as it was when it was published.
pub type StableVersion = Version<OfStable>;

impl<K: MemoryKind> Version<K> {
    pub(crate) fn new(slot: &Arc<Slot>, number: u64, size: WasmPages, maximum: WasmPages) -> Self {
        Self { slot: Arc::clone(slot), number, size, maximum, kind: std::marker::PhantomData }
    }

    /// Which memory this is a version of.
    pub fn id(&self) -> MemoryId {
        self.slot.id()
    }

    /// Its size.
    pub const fn size(&self) -> WasmPages {
        self.size
    }

    /// Its size in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size.0 * WasmPages::BYTES
    }

    /// Largest size that growing may reach.
    pub const fn maximum(&self) -> WasmPages {
        self.maximum
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

/// What a memory's readers need of its past.
#[derive(Debug, Default)]
pub(crate) struct Versions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Publications so far. Before the first there are no readers, and nothing is kept for them.
    number: u64,
    /// Size at the last publication. Pages beyond it are nobody's to read.
    bytes: u64,
    /// Saved pages of messages committed since the publication, oldest first.
    kept: Vec<Kept>,
    /// Pages kept in full, and pages of which the head is kept.
    full: PageSet,
    heads: PageSet,
    /// Whether a message is in progress.
    busy: bool,
    /// Whether a message could not be undone: nobody knows what the bytes are.
    broken: bool,
    /// What the message in progress has saved. Its log is reset only after this is `None`.
    running: Option<Records>,
    readers: Vec<Reader>,
}

// SAFETY: the records' log and the readers' mappings outlive their entries here (contracts of `saved` and `enter`), and neither is tied to a thread.
unsafe impl Send for State {}

/// Saved pages of a committed message.
#[derive(Debug)]
enum Kept {
    /// A few, copied: page and length of each, and the bytes in one piece.
    Pages(Vec<(PageIx, usize)>, Vec<u8>),
    /// The message's log.
    Log(UndoLog),
}

/// A view.
#[derive(Debug)]
struct Reader {
    state: Arc<ReaderState>,
    base: *mut u8,
    /// Bytes mapped at `base`.
    bytes: u64,
    /// Whether its pages are read-only until its own first store to them.
    protected: bool,
    /// Pages that it has copies of because a message wrote to them.
    copied: Vec<PageIx>,
}

/// Whether a view is at work. It may rest between two queries; a message does not keep up a view that rests, it gives it up.
#[derive(Debug, Default)]
pub(crate) struct ReaderState(AtomicU8);

impl ReaderState {
    const AT_WORK: u8 = 0;
    const RESTS: u8 = 1;
    const GIVEN_UP: u8 = 2;

    /// The view's query is over.
    pub(crate) fn rest(&self) {
        self.0.store(Self::RESTS, Ordering::Release);
    }

    /// The view's next query begins; false when it has been given up, and shows no version any more.
    pub(crate) fn resume(&self) -> bool {
        let resumed = self.0.compare_exchange(Self::RESTS, Self::AT_WORK, Ordering::AcqRel, Ordering::Acquire);
        resumed.is_ok()
    }

    /// Gives the view up if it rests; tells whether it is given up.
    fn give_up(&self) -> bool {
        let given_up = self.0.compare_exchange(Self::RESTS, Self::GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        given_up != Err(Self::AT_WORK)
    }
}

/// A view that begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// Where byte 0 of the memory is mapped privately.
    pub(crate) base: *mut u8,
    /// Bytes mapped there.
    pub(crate) bytes: u64,
    /// Whether they are read-only.
    pub(crate) protected: bool,
}

impl Versions {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic stops the node.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.state().busy
    }

    /// Claims the memory for one message.
    pub(crate) fn begin_message(&self) -> Result<(), HeapError> {
        let mut state = self.state();
        if state.busy {
            return Err(HeapError::Busy);
        }
        state.busy = true;
        Ok(())
    }

    /// Notes that the message in progress has saved `page`, and gives each reader its own copy. The store comes after this. Async-signal-safe as far as
    /// the interrupted thread does not hold the lock: it runs JIT code.
    ///
    /// # Safety
    /// `records` is a log that is neither reset nor dropped before [`Versions::commit`] or [`Versions::end_message`].
    #[inline]
    pub(crate) unsafe fn saved(&self, page: PageIx, records: Records) {
        let mut state = self.state();
        state.running = Some(records);
        for reader in &mut state.readers {
            if page.address() < reader.bytes && !reader.state.give_up() {
                reader.copied.push(page);
                // SAFETY: the page is mapped at `base` by the contract of `enter`.
                unsafe { unshare(reader.base.add(page.address() as usize), reader.protected) };
            }
        }
    }

    /// Ends the message in progress, which has been undone, or could not be and leaves the memory busy for ever.
    pub(crate) fn end_message(&self, undone: bool) {
        let mut state = self.state();
        state.running = None;
        state.busy = !undone;
        state.broken |= !undone;
    }

    /// Ends the message in progress, whose effects hold: `changed` lists the pages that are not as they were, ascending. Gives the log back unless
    /// readers need it.
    pub(crate) fn commit(&self, log: UndoLog, changed: &[PageIx]) -> Option<UndoLog> {
        let mut state = self.state();
        state.running = None;
        state.busy = false;
        if state.number == 0 { Some(log) } else { state.keep(log, changed) }
    }

    /// Ends a message that has saved nothing.
    pub(crate) fn commit_nothing(&self) {
        self.state().busy = false;
    }

    /// Hands over what the memory held before the message in progress, wherever that has saved pages.
    pub(crate) fn with_running<R>(&self, look: impl FnOnce(&PreImageMap<'_>) -> R) -> R {
        let state = self.state();
        let mut map = PreImageMap::new();
        if let Some(records) = state.running {
            // SAFETY: as in `pre_images`: the lock is held.
            unsafe { records.each() }.for_each(|(page, _, bytes)| map.add(page, bytes));
        }
        look(&map)
    }

    /// Makes the memory as it is between messages, or was before the message in progress, the version that views show. Returns its number, and the
    /// logs that were kept for the version before.
    pub(crate) fn publish(&self, bytes: u64) -> (u64, Vec<UndoLog>) {
        let mut state = self.state();
        state.number += 1;
        state.bytes = bytes;
        state.full.clear();
        state.heads.clear();
        let logs = state.kept.drain(..).filter_map(|kept| match kept {
            Kept::Log(log) => Some(log),
            Kept::Pages(..) => None,
        });
        let logs = logs.collect();
        (state.number, logs)
    }

    /// Lets a view in: `overlay` copies into it what has changed since its version was published; what changes from now on is kept from it.
    ///
    /// Errors: `Outdated`; `Busy` when the memory is unusable for ever; what `overlay` fails with.
    ///
    /// # Safety
    /// The mapping is private, of this memory, writable unless protected, and stays so until [`Versions::leave`].
    pub(crate) unsafe fn enter(
        &self,
        number: u64,
        mapping: Mapping,
        overlay: impl FnOnce(&PreImageMap<'_>) -> Result<(), HeapError>,
    ) -> Result<Arc<ReaderState>, HeapError> {
        let mut state = self.state();
        if state.broken {
            return Err(HeapError::Busy);
        }
        if state.number != number {
            return Err(HeapError::Outdated);
        }
        overlay(&state.pre_images())?;
        let reader = Arc::<ReaderState>::default();
        let Mapping { base, bytes, protected } = mapping;
        state.readers.push(Reader { state: Arc::clone(&reader), base, bytes, protected, copied: Vec::new() });
        Ok(reader)
    }

    /// Lets a view go. Returns the pages that it was given copies of while it was at work.
    pub(crate) fn leave(&self, reader: &Arc<ReaderState>) -> Vec<PageIx> {
        let mut state = self.state();
        match state.readers.iter().position(|entered| Arc::ptr_eq(&entered.state, reader)) {
            Some(at) => state.readers.swap_remove(at).copied,
            None => Vec::new(),
        }
    }
}

impl State {
    /// What the published version held wherever that may have changed.
    fn pre_images(&self) -> PreImageMap<'_> {
        let mut map = PreImageMap::new();
        let mut add = |page: PageIx, bytes| {
            if page.address() < self.bytes {
                map.add(page, bytes);
            }
        };
        for kept in &self.kept {
            match kept {
                Kept::Log(log) => log.oldest_first().for_each(|(page, _, bytes)| add(page, bytes)),
                Kept::Pages(pages, bytes) => {
                    let mut start = 0;
                    for &(page, length) in pages {
                        add(page, &bytes[start..start + length]);
                        start += length;
                    }
                }
            }
        }
        if let Some(records) = self.running {
            // SAFETY: the log is not reset while `running` names it, and whoever ends that needs the lock that lends `self`.
            unsafe { records.each() }.for_each(|(page, _, bytes)| add(page, bytes));
        }
        map
    }

    /// Keeps what a committed message saved of the published version.
    fn keep(&mut self, log: UndoLog, changed: &[PageIx]) -> Option<UndoLog> {
        let mut news = Vec::new();
        for (page, kind, bytes) in log.oldest_first() {
            let readable = !bytes.is_empty() && page.address() < self.bytes;
            if readable && changed.binary_search(&page).is_ok() && self.note(page, kind) {
                news.push((page, bytes));
            }
        }
        match news.len() {
            0 => Some(log),
            1..=COPIED_PAGES_MAX => {
                let (pages, bytes): (Vec<_>, Vec<_>) =
                    news.into_iter().map(|(page, bytes)| ((page, bytes.len()), bytes)).unzip();
                self.kept.push(Kept::Pages(pages, bytes.concat()));
                Some(log)
            }
            _ => {
                self.kept.push(Kept::Log(log));
                None
            }
        }
    }

    /// Whether the record says something that those kept before do not.
    fn note(&mut self, page: PageIx, kind: RecordKind) -> bool {
        match kind {
            RecordKind::Head => !self.full.contains(page) && self.heads.insert(page),
            _ => self.full.insert(page),
        }
    }
}

/// Gives a private mapping its own copy of the page at `at`, which keeps its contents: the kernel copies when it is written to.
///
/// # Safety
/// The page is mapped, writable unless `protected`, and stays so meanwhile.
unsafe fn unshare(at: *mut u8, protected: bool) {
    if protected {
        // The reader's first store there goes unnoticed then, which nobody counts: the page is discarded with those listed as copied.
        sys::make_page_writable(at);
    }
    // SAFETY: mapped and writable by contract. The reader's own stores come from compiled code, of one byte or more at a time; an atomic exchange of a
    // byte for itself never undoes one of them.
    let byte = unsafe { AtomicU8::from_ptr(at) };
    let mut value = byte.load(Ordering::Relaxed);
    while let Err(now) = byte.compare_exchange_weak(value, value, Ordering::Relaxed, Ordering::Relaxed) {
        value = now;
    }
}
