//! Versions of a memory: views read it as it was when it was last published, while messages go on writing to it.
//!
//! Enters: publications, records of messages' undo logs, commits, readers. Leaves: pre-images for readers that begin; for those at work, pages of
//! their own. Never here: a wait of a message for a reader that copies, or of a reader for a message that runs.
//!
//! # How
//!
//! A view maps the memory's file privately, so it reads the bytes of the message in progress unless it has a private copy of the page.
//! - Pages that changed between the publication and the view's begin are copied into it from the undo logs: that of the message in progress,
//!   and those of the messages committed since, of which each page is kept once.
//! - A page that changes while the view is at work is copied by the kernel: before a message's first store to a page, [`Versions::saved`] writes
//!   to that page of every view without changing it, which ends its sharing.
//!
//! One lock a memory orders the two; a message takes it at its begin, at its end and at its first store to each page. A view that begins is let in
//! under the lock and copies after that: a page that is unshared meanwhile gets the version's bytes a moment later.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cyclotron_types::units::WasmPages;

use crate::arena::{MemoryId, MemoryKind, OfHeap, OfStable, Slot};
use crate::copying::Copying;
use crate::error::HeapError;
use crate::layout::PAGE;
use crate::page_set::{PageIx, PageSet};
use crate::shut::Shutters;
use crate::sys::{self, Access};
use crate::undo::{PreImageMap, RecordKind, Records, UndoLog};

/// Pages that are copied out of a message's undo log when it commits; a log with more of them is kept as it is, and the next message gets another.
/// A round's instructions pay for some 16 million changed pages in all, hence for some 4,000 such logs: 40 of the 128 TiB of address space.
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
    /// Whether a message is in progress.
    busy: bool,
    /// Whether a message could not be undone: nobody knows what the bytes are.
    broken: bool,
    /// What copies pages of the memory as they are now.
    copied_by: Option<Arc<Copying>>,
    /// What the message in progress has saved. Its log is reset only after this is `None`, and nobody holds its pin.
    running: Option<Records>,
    /// What there is only while something is kept for views, or views are at work.
    for_views: Option<Box<ForViews>>,
}

/// What is kept for views that may come, and the views that are there.
#[derive(Debug, Default)]
struct ForViews {
    /// Saved pages of messages committed since the publication, oldest first.
    kept: Vec<Arc<Kept>>,
    /// Pages kept in full, and pages of which the head is kept.
    full: PageSet,
    heads: PageSet,
    /// Held by those who read the records of the message in progress without the lock.
    pin: Option<Pin>,
    /// Logs of messages that ended while somebody held their pin; they go when another log comes.
    pinned: Vec<(Pin, UndoLog)>,
    readers: Vec<Reader>,
}

// SAFETY: the records' log and the readers' mappings outlive their entries here (contracts of `saved` and `enter`), and neither is tied to a thread.
unsafe impl Send for State {}

/// Keeps a log from being reset while a clone is held.
type Pin = Arc<()>;

fn is_held(pin: &mut Pin) -> bool {
    // Not by its count: this also orders what the holders read before what comes now.
    Arc::get_mut(pin).is_none()
}

/// Saved pages of a committed message.
#[derive(Debug)]
enum Kept {
    /// Copied: page and length of each, and the bytes in one piece.
    Pages(Vec<(PageIx, usize)>, Vec<u8>),
    /// The message's log, and its pin if somebody held that when the message ended.
    Log(UndoLog, Option<Pin>),
}

/// What the published version held wherever that may have changed before a view was let in.
pub(crate) struct Past {
    bytes: u64,
    kept: Vec<Arc<Kept>>,
    running: Option<(Records, Pin)>,
}

impl Past {
    /// By page.
    pub(crate) fn pre_images(&self) -> PreImageMap<'_> {
        let mut map = PreImageMap::new();
        let mut add = |page: PageIx, bytes| {
            if page.address() < self.bytes {
                map.add(page, bytes);
            }
        };
        for kept in &self.kept {
            match &**kept {
                Kept::Log(log, _) => log.oldest_first().for_each(|(page, _, bytes)| add(page, bytes)),
                Kept::Pages(pages, bytes) => {
                    let mut start = 0;
                    for &(page, length) in pages {
                        add(page, &bytes[start..start + length]);
                        start += length;
                    }
                }
            }
        }
        if let Some((records, _pin)) = &self.running {
            // SAFETY: the log is not reset while its pin is held.
            unsafe { records.each() }.for_each(|(page, _, bytes)| add(page, bytes));
        }
        map
    }
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
    /// What it shows, if pages are missing.
    shutters: Option<Arc<Shutters>>,
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
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Where byte 0 of the memory is mapped privately.
    pub(crate) base: *mut u8,
    /// Bytes mapped there.
    pub(crate) bytes: u64,
    /// Whether they are read-only.
    pub(crate) protected: bool,
    /// Which of them allow nothing, if any do.
    pub(crate) shutters: Option<Arc<Shutters>>,
}

impl Versions {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic stops the node.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.state().busy
    }

    pub(crate) fn is_published(&self) -> bool {
        self.state().number > 0
    }

    /// Claims the memory for one message, once it may change.
    pub(crate) fn begin_message(&self) -> Result<(), HeapError> {
        let mut state = self.state();
        if state.busy {
            return Err(HeapError::Busy);
        }
        state.busy = true;
        drop(state);
        self.wait_for_copy();
        Ok(())
    }

    /// The memory does not change before this is done.
    pub(crate) fn let_copy(&self, copying: Arc<Copying>) {
        self.wait_for_copy();
        self.state().copied_by = Some(copying);
    }

    /// Lets the memory change.
    pub(crate) fn wait_for_copy(&self) {
        let copied_by = self.state().copied_by.take();
        if let Some(copying) = copied_by {
            // Whether it succeeded is for the copy.
            let _ = copying.wait();
        }
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
        for reader in state.readers() {
            if page.address() < reader.bytes && !reader.state.give_up() {
                reader.copied.push(page);
                // SAFETY: the page is mapped at `base` by the contract of `enter`.
                unsafe { reader.unshare(page) };
            }
        }
    }

    /// Ends the message in progress, which has been undone, or could not be and leaves the memory busy for ever. Gives the log back unless
    /// somebody reads it.
    pub(crate) fn end_message(&self, log: Option<UndoLog>, undone: bool) -> Option<UndoLog> {
        let mut state = self.state();
        state.running = None;
        state.busy = !undone;
        state.broken |= !undone;
        let pin = state.take_pin();
        state.retire(log?, pin)
    }

    /// Ends the message in progress, whose effects hold: `changed` lists the pages that are not as they were, ascending. Gives the log back unless
    /// readers need it.
    pub(crate) fn commit(&self, log: UndoLog, changed: &[PageIx]) -> Option<UndoLog> {
        let mut state = self.state();
        state.running = None;
        state.busy = false;
        let pin = state.take_pin();
        if state.number == 0 { state.retire(log, pin) } else { state.keep(log, pin, changed) }
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
            // SAFETY: the log is not reset while `running` names it, and whoever ends that needs the lock that is held.
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
        let Some(for_views) = &mut state.for_views else { return (state.number, Vec::new()) };
        for_views.full.clear();
        for_views.heads.clear();
        let kept = std::mem::take(&mut for_views.kept);
        // What a view holds that is being let in goes with that.
        let logs = kept.into_iter().filter_map(|kept| match Arc::try_unwrap(kept) {
            Ok(Kept::Log(log, pin)) => for_views.retire(log, pin),
            Ok(Kept::Pages(..)) | Err(_) => None,
        });
        let logs = logs.collect();
        state.drop_unneeded();
        (state.number, logs)
    }

    /// Lets a view in: what changes from now on is kept from it. What has changed since its version was published is its own to copy, before it
    /// shows anything.
    ///
    /// Errors: `Outdated`; `Busy` when the memory is unusable for ever.
    ///
    /// # Safety
    /// The mapping is private, of this memory, writable unless protected or shut, and stays so until [`Versions::leave`]; it is opened under the lock
    /// ([`Versions::locked`]).
    pub(crate) unsafe fn enter(&self, number: u64, mapping: Mapping) -> Result<(Arc<ReaderState>, Past), HeapError> {
        let mut state = self.state();
        if state.broken {
            return Err(HeapError::Busy);
        }
        if state.number != number {
            return Err(HeapError::Outdated);
        }
        let (bytes, records) = (state.bytes, state.running);
        let for_views = state.for_views.get_or_insert_default();
        let running = records.map(|records| (records, Arc::clone(for_views.pin.get_or_insert_default())));
        let past = Past { bytes, kept: for_views.kept.clone(), running };
        let reader = Arc::<ReaderState>::default();
        let Mapping { base, bytes, protected, shutters } = mapping;
        for_views.readers.push(Reader {
            state: Arc::clone(&reader),
            base,
            bytes,
            protected,
            shutters,
            copied: Vec::new(),
        });
        Ok((reader, past))
    }

    /// Does something while no message saves a page, and no view is let in or goes.
    pub(crate) fn locked<R>(&self, act: impl FnOnce() -> R) -> R {
        let _state = self.state();
        act()
    }

    /// Does what no message in progress and no view at work allows; views that rest are given up. False when there are such, or when it failed.
    pub(crate) fn while_unused(&self, act: impl FnOnce() -> Result<(), HeapError>) -> bool {
        let mut state = self.state();
        !state.busy && state.readers().all(|reader| reader.state.give_up()) && act().is_ok()
    }

    /// Lets a view go. Returns the pages that it was given copies of while it was at work.
    pub(crate) fn leave(&self, reader: &Arc<ReaderState>) -> Vec<PageIx> {
        let mut state = self.state();
        let Some(for_views) = &mut state.for_views else { return Vec::new() };
        let at = for_views.readers.iter().position(|entered| Arc::ptr_eq(&entered.state, reader));
        let copied = at.map(|at| for_views.readers.swap_remove(at).copied);
        state.drop_unneeded();
        copied.unwrap_or_default()
    }
}

impl State {
    fn readers(&mut self) -> impl Iterator<Item = &mut Reader> {
        self.for_views.iter_mut().flat_map(|for_views| &mut for_views.readers)
    }

    fn take_pin(&mut self) -> Option<Pin> {
        self.for_views.as_mut().and_then(|for_views| for_views.pin.take())
    }

    /// A memory at rest, of which a million are in this process, keeps nothing for views.
    fn drop_unneeded(&mut self) {
        self.for_views.take_if(|for_views| for_views.is_empty());
    }

    /// Takes a log out of use: gives it back, or keeps it as long as its pin is held.
    fn retire(&mut self, log: UndoLog, pin: Option<Pin>) -> Option<UndoLog> {
        match &mut self.for_views {
            Some(for_views) => for_views.retire(log, pin),
            // Who holds a pin was let in.
            None => Some(log),
        }
    }

    /// Keeps what a committed message saved of the published version and is kept nowhere else. What is kept in all is at most twice the pages that
    /// have changed since the publication.
    fn keep(&mut self, log: UndoLog, pin: Option<Pin>, changed: &[PageIx]) -> Option<UndoLog> {
        let for_views = self.for_views.get_or_insert_default();
        let mut news = Vec::new();
        for (page, kind, bytes) in log.oldest_first() {
            let readable = !bytes.is_empty() && page.address() < self.bytes;
            if readable && changed.binary_search(&page).is_ok() && for_views.note(page, kind) {
                news.push((page, bytes));
            }
        }
        if news.len() > COPIED_PAGES_MAX && news.len() * 2 >= log.records().len() {
            for_views.kept.push(Arc::new(Kept::Log(log, pin)));
            return None;
        }
        if !news.is_empty() {
            let (pages, bytes): (Vec<_>, Vec<_>) =
                news.into_iter().map(|(page, bytes)| ((page, bytes.len()), bytes)).unzip();
            for_views.kept.push(Arc::new(Kept::Pages(pages, bytes.concat())));
        }
        for_views.retire(log, pin)
    }
}

impl ForViews {
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.pin.is_none() && self.pinned.is_empty() && self.readers.is_empty()
    }

    fn retire(&mut self, log: UndoLog, pin: Option<Pin>) -> Option<UndoLog> {
        self.pinned.retain_mut(|(pin, _)| is_held(pin));
        let Some(mut pin) = pin else { return Some(log) };
        if !is_held(&mut pin) {
            return Some(log);
        }
        self.pinned.push((pin, log));
        None
    }

    /// Whether the record says something that those kept before do not.
    fn note(&mut self, page: PageIx, kind: RecordKind) -> bool {
        match kind {
            RecordKind::Head => !self.full.contains(page) && self.heads.insert(page),
            _ => self.full.insert(page),
        }
    }
}

/// A view protects its pages once, when it begins: more than two tries mean that the kernel does not do what it is asked for.
const PROTECTED_TRIES_MAX: usize = 1_000;

impl Reader {
    /// Gives the view its own copy of a page, which keeps its contents: the kernel copies when the page is written to.
    ///
    /// # Safety
    /// The page is mapped and stays so meanwhile.
    unsafe fn unshare(&self, page: PageIx) {
        // SAFETY: inside the mapping by contract.
        let at = unsafe { self.base.add(page.address() as usize) };
        let is_shut = self.shutters.as_ref().is_some_and(|shutters| !shutters.shows(page.0 as usize));
        if is_shut {
            // The page is in the arena: a message is about to store to it. Nobody opens the view's block meanwhile.
            // SAFETY: the page is the view's, which has no access to it.
            let made = unsafe { sys::allow(at, PAGE, Access::ReadWrite) };
            made.unwrap_or_else(|error| panic!("the kernel gives a view no page of its own: {error}"));
        } else if self.protected {
            return self.unshare_protected(at);
        }
        // SAFETY: mapped and writable by contract. Others write there without synchronization: compiled code and host copies of the view's own
        // query. The exchange of a byte for itself is one instruction; it never undoes a store and is never seen.
        let byte = unsafe { AtomicU8::from_ptr(at) };
        let mut value = byte.load(Ordering::Relaxed);
        while let Err(now) = byte.compare_exchange_weak(value, value, Ordering::Relaxed, Ordering::Relaxed) {
            value = now;
        }
        if is_shut {
            // SAFETY: as above.
            let made = unsafe { sys::allow(at, PAGE, Access::None) };
            made.unwrap_or_else(|error| panic!("the kernel does not shut a page of a view: {error}"));
        }
    }

    /// Likewise for a page that may be read-only. The view's own first store there goes unnoticed then, which nobody counts: the page is discarded with
    /// those listed as copied.
    fn unshare_protected(&self, at: *mut u8) {
        for _ in 0..PROTECTED_TRIES_MAX {
            // When the kernel is out of mappings, all of the view becomes one, unless pages of it are missing.
            if !sys::make_writable(at, PAGE) && self.shutters.is_none() {
                sys::make_writable(self.base, self.bytes as usize);
            }
            // Between the two the view may have protected its pages: it is tried again.
            if sys::write_fault(at) {
                return;
            }
        }
        panic!("the kernel gives a view no page of its own: it is older than 5.14, or out of memory");
    }
}
