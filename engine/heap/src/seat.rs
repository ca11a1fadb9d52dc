//! Seats: reserved address ranges in which JIT code finds a heap, its card table and its VM context.
//!
//! Enters: heaps at rest, the beginning and the verdict of a message. Leaves: addresses for JIT code, bytes for host functions.
//! Invariants owned here: the heap's bytes below `mapped` are mapped at heap byte 0 and nothing beyond is accessible; a message in progress holds
//! its slot, so a slot is never given out again under it; outside of messages all cards are zero, and under [`Tracking::Protect`] all heap pages are
//! read-only. Never here: what a store does to the undo log, see `track`; pages that are missing, see `shut`.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cyclotron_types::units::WasmPages;

use crate::arena::{Heap, MemoryId, Slot};
use crate::error::HeapError;
use crate::layout::{CARD_TABLE_BYTES, HEAP_OFFSET, PAGE, PAGE_SHIFT, SEAT_RESERVED_BYTES, UNDO_HEAD};
use crate::page_set::PageIx;
use crate::shut::Shutters;
use crate::sys::{Access, Region, Sharing};
use crate::undo::{PreImage, PreImageMap, RecordKind, UndoLog, UndoPool};
use crate::version::{HeapVersion, Mapping, Past, ReaderState};

/// Offset of heap byte 0 in the seat's region.
pub(crate) const HEAP_START: usize = CARD_TABLE_BYTES + HEAP_OFFSET;
const _: () = assert!(HEAP_START + crate::layout::HEAP_RESERVED_BYTES == SEAT_RESERVED_BYTES);

/// Runs of pages that a view discards one by one; with more of them it discards all of its memory at once.
const VIEW_DISCARD_RUNS_MAX: usize = 64;

/// Pages that a query has stored to, and private pages from before, with which a view may rest; one with more of either is ended.
const RESTING_PAGES_MAX: usize = 64;

/// How stores of JIT code are noticed. Both give the same counts and the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracking {
    /// JIT code tests the page's card before a store and calls [`SeatMemory::mark_store`] when it is zero.
    Cards,
    /// Pages are read-only until the first store faults into [`SeatPtr::handle_fault`].
    Protect,
}

impl Tracking {
    /// What pages allow when no store has been noticed yet.
    pub(crate) fn access(self) -> Access {
        match self {
            Self::Cards => Access::ReadWrite,
            Self::Protect => Access::Read,
        }
    }
}

/// What a message changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyReport {
    /// Pages with at least one byte that differs from before the message; pages that are new count when a byte is not zero.
    pub pages_changed: u64,
    /// Pages and heads of pages that were saved before stores. Depends on [`Tracking`]: never to be charged for.
    pub saved: u64,
}

/// The heap that a seat maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attachment {
    pub(crate) id: MemoryId,
    pub(crate) sharing: Sharing,
    pub(crate) tracking: Tracking,
}

/// A message in progress.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) slot: Arc<Slot>,
    pub(crate) undo: UndoLog,
    /// Of a view: its place among the memory's readers, once it has one.
    reader: Option<Arc<ReaderState>>,
    /// Bytes of the heap before the message.
    pub(crate) begin_bytes: usize,
    maximum: WasmPages,
    /// Protection faults handled so far.
    pub(crate) faults: u32,
    /// Whether the kernel refused to make a saved page writable.
    pub(crate) protect_failed: bool,
    /// Under `Protect`, unless this is a view: one of those that the pool counts.
    _protected: Option<ProtectedMessage>,
}

/// Counts a message that may tear its heap into many mappings.
#[derive(Debug)]
struct ProtectedMessage(Arc<SeatShared>);

impl ProtectedMessage {
    fn new(shared: &Arc<SeatShared>) -> Self {
        shared.protected.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for ProtectedMessage {
    fn drop(&mut self) {
        self.0.protected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is at a seat: the heap of the message in progress. Reached through [`Seat`], or through [`SeatPtr`] from JIT code.
#[derive(Debug)]
pub struct SeatMemory {
    pub(crate) region: Region,
    /// Heap bytes mapped; the heap's size while a message is in progress.
    pub(crate) mapped: usize,
    pub(crate) attached: Option<Attachment>,
    pub(crate) message: Option<Message>,
    /// Pages of a view into which pre-images were copied.
    overlay: Vec<PageIx>,
    /// Which of the heap's blocks can be accessed, if pages of it are missing.
    pub(crate) shutters: Option<Arc<Shutters>>,
    /// How often pages of the heap had been given back when the seat last showed what was there.
    pub(crate) releases: u64,
    pub(crate) shared: Arc<SeatShared>,
}

/// What the seats of a pool share.
#[derive(Debug, Default)]
pub(crate) struct SeatShared {
    pub(crate) undo: UndoPool,
    /// Seats alive, in the pool or out of it.
    pub(crate) alive: AtomicUsize,
    /// Messages in progress under `Protect`.
    pub(crate) protected: AtomicUsize,
    /// Runs of open blocks among others that are shut, of all seats.
    pub(crate) regions: AtomicUsize,
}

/// A seat, owned. Dropping one with a message in progress rolls the message back.
#[derive(Debug)]
pub struct Seat {
    memory: NonNull<SeatMemory>,
}

// SAFETY: a seat owns its memory, which is tied to no thread; JIT code that holds a SeatPtr runs on the thread that owns the seat.
unsafe impl Send for Seat {}

/// The address of a seat's memory, to be kept in the VM context. Dangling once the [`Seat`] is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct SeatPtr(NonNull<SeatMemory>);

impl SeatPtr {
    /// The same address, untyped.
    pub const fn as_ptr(self) -> *mut SeatMemory {
        self.0.as_ptr()
    }

    /// The address that [`SeatPtr::as_ptr`] gave; `None` for a null pointer.
    pub const fn from_ptr(ptr: *mut SeatMemory) -> Option<Self> {
        match NonNull::new(ptr) {
            Some(ptr) => Some(Self(ptr)),
            None => None,
        }
    }

    /// The seat's memory.
    ///
    /// # Safety
    /// The seat is alive and nobody else uses a reference to its memory while the result lives: the caller is a libcall on the thread that runs this
    /// seat's message.
    pub unsafe fn as_mut<'a>(self) -> &'a mut SeatMemory {
        // SAFETY: alive and unaliased by contract.
        unsafe { &mut *self.0.as_ptr() }
    }
}

impl Deref for Seat {
    type Target = SeatMemory;
    fn deref(&self) -> &SeatMemory {
        // SAFETY: `memory` came from a Box that lives until `drop`; the borrow of `self` keeps it unaliased by `deref_mut`.
        unsafe { self.memory.as_ref() }
    }
}

impl DerefMut for Seat {
    fn deref_mut(&mut self) -> &mut SeatMemory {
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive.
        unsafe { self.memory.as_mut() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.message.is_some() {
            // On failure the memory stays Busy: nobody reads what could not be undone.
            let _ = self.rollback();
        }
        self.shared.alive.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: `memory` came from Box::leak in `new` and is dropped once, here.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

impl Seat {
    pub(crate) fn new(shared: Arc<SeatShared>) -> Result<Self, HeapError> {
        let mut region = Region::reserve(SEAT_RESERVED_BYTES, Access::None, "mmap of a seat's address space")?;
        // A huge page for cards would cost 2 MiB a seat.
        region.avoid_huge_pages();
        region.protect(0, HEAP_START, Access::ReadWrite)?;
        let memory = SeatMemory {
            region,
            mapped: 0,
            attached: None,
            message: None,
            overlay: Vec::new(),
            shutters: None,
            releases: 0,
            shared,
        };
        memory.shared.alive.fetch_add(1, Ordering::Relaxed);
        Ok(Self { memory: NonNull::from(Box::leak(Box::new(memory))) })
    }

    /// The address to hand to JIT code's libcalls and to the signal handler.
    pub fn as_seat_ptr(&self) -> SeatPtr {
        SeatPtr(self.memory)
    }

    /// Whether a message is in progress here.
    pub fn is_busy(&self) -> bool {
        self.message.is_some()
    }

    /// Whether this heap is mapped here, to be written.
    pub fn is_attached_to(&self, heap: &Heap) -> bool {
        self.attached.is_some_and(|a| a.id == heap.id() && a.sharing == Sharing::Shared)
    }

    /// Maps a heap so that stores reach it. Cost: nothing when it is mapped already, else one or two system calls. Fetches nothing.
    ///
    /// Errors: `Os`; the seat maps nothing then. Panics: while a message is in progress.
    pub fn attach(&mut self, heap: &Heap, tracking: Tracking) -> Result<(), HeapError> {
        self.map(heap.slot(), heap.size_bytes() as usize, Sharing::Shared, tracking)
    }

    /// Maps a heap so that stores stay private to this seat. As [`Seat::attach`].
    pub fn attach_view(&mut self, heap: &HeapVersion, tracking: Tracking) -> Result<(), HeapError> {
        self.map(heap.slot(), heap.size_bytes() as usize, Sharing::Private, tracking)
    }

    fn map(&mut self, slot: &Slot, want: usize, sharing: Sharing, tracking: Tracking) -> Result<(), HeapError> {
        assert!(self.message.is_none(), "a message is in progress on this seat");
        let now = Attachment { id: slot.id(), sharing, tracking };
        let before = self.attached.take();
        // Until this succeeds the seat counts as unattached, with `mapped` covering whatever may be mapped.
        let mapped = self.mapped;
        if before == Some(now) && mapped == want {
            self.attached = before;
            return Ok(());
        }
        self.mapped = mapped.max(want);
        let kept = match before {
            Some(b) if b.id == now.id && b.sharing == now.sharing => mapped.min(want),
            _ => 0,
        };
        if self.shutters.take().is_some() || before.is_some_and(|b| b.tracking != tracking) {
            self.region.protect(HEAP_START, kept, tracking.access())?;
        }
        let (file, offset) = (slot.file(), slot.offset() + kept as u64);
        self.region.place_file(HEAP_START + kept, want - kept, file, offset, tracking.access(), sharing)?;
        if mapped > want {
            self.region.place_anonymous(HEAP_START + want, mapped - want, Access::None)?;
        }
        self.mapped = want;
        self.attached = Some(now);
        Ok(())
    }

    /// Unmaps the heap. Panics: while a message is in progress.
    pub fn detach(&mut self) -> Result<(), HeapError> {
        assert!(self.message.is_none(), "a message is in progress on this seat");
        self.attached = None;
        self.shutters = None;
        let mapped = self.mapped;
        self.region.place_anonymous(HEAP_START, mapped, Access::None)?;
        self.mapped = 0;
        Ok(())
    }

    /// Begins a message on the attached heap.
    ///
    /// Errors: `Busy` when a message is in progress on the heap, here or elsewhere; `Os` when no undo log can be had; `PageLost`.
    /// Panics: when the heap is not attached here with its present size.
    pub fn begin_message(&mut self, heap: &Heap) -> Result<(), HeapError> {
        self.check_attached(heap.id(), heap.size_bytes(), Sharing::Shared);
        if self.message.is_some() {
            return Err(HeapError::Busy);
        }
        let undo = self.shared.undo.take()?;
        let versions = &heap.slot().versions;
        let begun = versions.begin_message().and_then(|()| {
            // From now on no page is given back.
            self.match_pages(heap.slot()).inspect_err(|_| versions.commit_nothing())
        });
        if let Err(error) = begun {
            self.shared.undo.put(undo);
            return Err(error);
        }
        self.start(heap.slot(), heap.maximum(), undo);
        Ok(())
    }

    /// Begins a query on the attached view, in the state that was published; messages may run on the heap meanwhile. Ends with [`Seat::rollback`].
    ///
    /// Cost: a page copied for each that changed since. Errors: `Os`, `Busy`, `Outdated`, `PageLost`. Panics: as [`Seat::begin_message`].
    pub fn begin_view(&mut self, heap: &HeapVersion) -> Result<(), HeapError> {
        self.check_attached(heap.id(), heap.size_bytes(), Sharing::Private);
        if self.message.is_some() {
            return Err(HeapError::Busy);
        }
        let past = loop {
            self.match_pages(heap.slot())?;
            if let Some(past) = self.enter(heap)? {
                break past;
            }
        };
        let begun = self.overlay(&past.pre_images());
        if begun.is_err() {
            let _ = self.rollback();
        }
        begun
    }

    /// Becomes a reader of the heap; `None` when pages were given back before that, and the seat may show some of them.
    fn enter(&mut self, heap: &HeapVersion) -> Result<Option<Past>, HeapError> {
        let undo = self.shared.undo.take()?;
        self.start(heap.slot(), heap.maximum(), undo);
        let protected = self.attached.is_some_and(|a| a.tracking == Tracking::Protect);
        let shutters = self.shutters.clone();
        let mapping = Mapping { base: self.heap_base(), bytes: heap.size_bytes(), protected, shutters };
        // SAFETY: the heap is attached here privately (checked) and stays so until `rollback`, which leaves; see `shut` for what is opened.
        let entered = unsafe { heap.slot().versions.enter(heap.number(), mapping) };
        let (reader, past) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                let _ = self.rollback();
                return Err(error);
            }
        };
        if let Some(message) = &mut self.message {
            message.reader = Some(reader);
        }
        if heap.slot().at_rest().releases() == self.releases {
            return Ok(Some(past));
        }
        self.rollback()?;
        Ok(None)
    }

    fn check_attached(&self, id: MemoryId, bytes: u64, sharing: Sharing) {
        let attached = self.attached.is_some_and(|a| a.id == id && a.sharing == sharing);
        assert!(attached && self.mapped as u64 == bytes, "the heap is not attached to this seat");
    }

    fn start(&mut self, slot: &Arc<Slot>, maximum: WasmPages, undo: UndoLog) {
        self.message = Some(Message {
            slot: Arc::clone(slot),
            undo,
            reader: None,
            begin_bytes: self.mapped,
            maximum,
            faults: 0,
            protect_failed: false,
            _protected: self
                .attached
                .is_some_and(|a| a.tracking == Tracking::Protect && a.sharing == Sharing::Shared)
                .then(|| ProtectedMessage::new(&self.shared)),
        });
    }

    /// Undoes what the query on this view has done, and keeps the view for another query. False when it cannot be kept: it is to be rolled back.
    pub fn rest_view(&mut self) -> bool {
        let (Some(Attachment { sharing: Sharing::Private, tracking: Tracking::Cards, .. }), Some(message)) =
            (self.attached, &self.message)
        else {
            return false;
        };
        let private = message.undo.records().len().max(self.overlay.len());
        if message.begin_bytes != self.mapped || private > RESTING_PAGES_MAX {
            return false;
        }
        self.clear_cards();
        if self.restore_bytes().is_err() {
            return false;
        }
        let seat = &mut **self;
        let Some(message) = &mut seat.message else { return false };
        // They are private from now on, to be discarded in the end.
        for page in message.undo.pages() {
            if !seat.overlay.contains(&page) {
                seat.overlay.push(page);
            }
        }
        message.undo.reset();
        let Some(reader) = &message.reader else { return false };
        reader.rest();
        true
    }

    /// Begins another query on a view that rests. False when a message has written meanwhile: the view shows nothing any more and is to be rolled back.
    pub fn resume_view(&mut self) -> bool {
        self.message.as_ref().and_then(|message| message.reader.as_ref()).is_some_and(|reader| reader.resume())
    }

    fn overlay(&mut self, before: &PreImageMap<'_>) -> Result<(), HeapError> {
        let Some(Attachment { tracking, .. }) = self.attached else { return Ok(()) };
        if before.pages().next().is_none() {
            return Ok(());
        }
        if self.shutters.is_some() {
            return self.overlay_shut(before);
        }
        let mapped = self.mapped;
        if tracking == Tracking::Protect {
            self.region.protect(HEAP_START, mapped, Access::ReadWrite)?;
        }
        for page in before.pages() {
            assert!(page.address() < mapped as u64);
            self.overlay.push(page);
            // SAFETY: the page is mapped (asserted) and writable (Cards, or protected so above); `&mut self` excludes other references.
            let bytes = unsafe { std::slice::from_raw_parts_mut(self.heap_byte(page.address() as usize), PAGE) };
            before.restore(page.address(), bytes);
        }
        if tracking == Tracking::Protect {
            self.region.protect(HEAP_START, mapped, Access::Read)?;
        }
        Ok(())
    }

    /// As `overlay`, where pages are missing: opens none for good.
    fn overlay_shut(&mut self, before: &PreImageMap<'_>) -> Result<(), HeapError> {
        for page in before.pages() {
            assert!(page.address() < self.mapped as u64);
            match &self.message {
                Some(message) if !before.covers(page) => message.slot.fetch(page.address(), PAGE as u64)?,
                _ => {}
            }
            self.overlay.push(page);
            let at = self.heap_byte(page.address() as usize);
            self.with_writable(page.0 as usize, || {
                // SAFETY: the page is mapped (asserted), and writable meanwhile; `&mut self` excludes other references.
                let bytes = unsafe { std::slice::from_raw_parts_mut(at, PAGE) };
                before.restore(page.address(), bytes);
            })?;
        }
        Ok(())
    }

    /// Compares what was saved with what is there now. The message's last look at its memory: a verdict follows.
    ///
    /// Cost: up to 4 KiB compared for each page stored to. Panics: when no message is in progress.
    pub fn finish(&mut self) -> DirtyReport {
        if let Some(message) = &mut self.message {
            message.undo.counted = false;
        }
        self.count_changed();
        let saved = self.message.as_ref().map_or(0, |message| message.undo.records().len());
        DirtyReport { pages_changed: self.changed_pages().len() as u64, saved: saved as u64 }
    }

    /// Pages that changed, ascending; known after [`Seat::finish`], empty before.
    pub fn changed_pages(&self) -> &[PageIx] {
        self.message.as_ref().map_or(&[], |m| &m.undo.changed)
    }

    /// Pre-images of the message in progress, in the order in which they must be applied (newest first).
    pub fn pre_images(&self) -> impl Iterator<Item = PreImage<'_>> + '_ {
        self.message.iter().flat_map(|m| m.undo.pre_images())
    }

    /// Keeps what the message did: its bytes, its growth, and its changed pages in the heap's dirty set.
    ///
    /// Cost: in proportion to pages stored to. Panics: when no message of this heap is in progress here, or on a view.
    pub fn commit(&mut self, heap: &mut Heap) {
        self.check_message(heap);
        self.count_changed();
        self.clear_cards();
        let Some(message) = self.message.take() else { return };
        heap.accept(WasmPages(self.mapped as u64 / WasmPages::BYTES), message.undo.changed.iter().copied());
        self.protect_again(message.protect_failed);
        self.give_regions_up();
        let Message { slot, mut undo, .. } = message;
        let changed = std::mem::take(&mut undo.changed);
        if let Some(mut undo) = slot.versions.commit(undo, &changed) {
            undo.changed = changed;
            self.shared.undo.put(undo);
        }
    }

    fn check_message(&self, heap: &Heap) {
        assert!(self.attached.is_some_and(|a| a.sharing == Sharing::Shared), "a view has nothing to keep");
        assert!(
            self.message.as_ref().is_some_and(|m| m.slot.id() == heap.id()),
            "no message of this heap is in progress"
        );
    }

    /// Undoes what the message did: its bytes and its growth. On a view, drops its private pages.
    ///
    /// Errors: `Os` when growth could not be given back; the heap is [`HeapError::Busy`] for ever then.
    /// Panics: when no message is in progress.
    pub fn rollback(&mut self) -> Result<(), HeapError> {
        let attached = self.attached.expect("no message is in progress: the seat is not attached");
        assert!(self.message.is_some(), "no message is in progress");
        self.clear_cards();
        let undone = match attached.sharing {
            Sharing::Shared => self.restore_bytes(),
            Sharing::Private => self.discard_private(),
        };
        let Some(message) = self.message.take() else { return Ok(()) };
        let undone = undone.and_then(|()| self.shrink(&message, attached.sharing));
        self.protect_again(message.protect_failed);
        self.give_regions_up();
        let Message { slot, undo, .. } = message;
        let undo = match attached.sharing {
            Sharing::Shared => slot.versions.end_message(Some(undo), undone.is_ok()),
            Sharing::Private => Some(undo),
        };
        if let Some(undo) = undo {
            self.shared.undo.put(undo);
        }
        if undone.is_err() {
            self.attached = None;
        }
        undone
    }

    fn restore_bytes(&mut self) -> Result<(), HeapError> {
        let seat = &mut **self;
        let mapped = seat.mapped;
        let Some(message) = &seat.message else { return Ok(()) };
        if message.protect_failed {
            seat.region.protect(HEAP_START, mapped, Access::ReadWrite)?;
        }
        for PreImage { page, bytes } in message.undo.pre_images() {
            assert!(page.address() as usize + PAGE <= mapped);
            // SAFETY: the page is mapped (asserted), and writable: under Cards always, under Protect because it was saved and so unprotected.
            // The record lies in the undo log, not in the heap.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), seat.heap_byte(page.address() as usize), bytes.len())
            };
        }
        Ok(())
    }

    fn discard_private(&mut self) -> Result<(), HeapError> {
        let seat = &mut **self;
        let Some(message) = &mut seat.message else { return Ok(()) };
        let pages = message.begin_bytes >> PAGE_SHIFT;
        let copied = message.reader.take().map(|reader| message.slot.versions.leave(&reader)).unwrap_or_default();
        let overlaid = seat.overlay.drain(..).chain(copied);
        let mut dirty: Vec<u32> = message.undo.pages().chain(overlaid).map(|p| p.0).collect();
        dirty.retain(|&p| (p as usize) < pages);
        dirty.sort_unstable();
        dirty.dedup();
        let runs = dirty.chunk_by(|a, b| a + 1 == *b);
        let whole = [(0, pages)];
        let few: Vec<_>;
        let ranges: &[(usize, usize)] = if runs.clone().nth(VIEW_DISCARD_RUNS_MAX).is_some() {
            &whole
        } else {
            few = runs.map(|run| (run[0] as usize, run.len())).collect();
            &few
        };
        for &(first, count) in ranges {
            seat.region.discard(HEAP_START + first * PAGE, count * PAGE)?;
        }
        Ok(())
    }

    fn shrink(&mut self, message: &Message, sharing: Sharing) -> Result<(), HeapError> {
        let (old, grown) = (message.begin_bytes, self.mapped);
        if grown > old {
            self.region.place_anonymous(HEAP_START + old, grown - old, Access::None)?;
            self.mapped = old;
            if sharing == Sharing::Shared {
                message.slot.punch(old as u64, grown as u64)?;
            }
        }
        Ok(())
    }

    /// Makes pages read-only again under `Protect`: those that are open, or all if `any` may be writable. A refusal costs the attachment, not the message.
    fn protect_again(&mut self, any: bool) {
        if self.attached.is_some_and(|a| a.tracking == Tracking::Protect) && self.protect_open(any).is_err() {
            self.attached = None;
        }
    }
}

impl SeatMemory {
    /// The address that JIT code receives as `vmctx`. The [`HEAP_OFFSET`] bytes from here are engine/wasm's; what they hold when a seat is
    /// attached is left over from earlier messages.
    pub fn vmctx(&self) -> *mut u8 {
        // SAFETY: CARD_TABLE_BYTES lies inside the region.
        unsafe { self.region.base().add(CARD_TABLE_BYTES) }
    }

    /// Address of heap byte 0.
    pub fn heap_base(&self) -> *mut u8 {
        self.heap_byte(0)
    }

    /// Address of heap byte `at`.
    pub(crate) fn heap_byte(&self, at: usize) -> *mut u8 {
        assert!(at <= SEAT_RESERVED_BYTES - HEAP_START);
        // SAFETY: HEAP_START + at is inside the region, or its end, asserted above.
        unsafe { self.region.base().add(HEAP_START + at) }
    }

    /// Size of the heap of the message in progress; zero without one.
    pub fn size(&self) -> WasmPages {
        WasmPages(self.size_bytes() / WasmPages::BYTES)
    }

    /// Size of the heap of the message in progress in bytes; zero without one.
    pub fn size_bytes(&self) -> u64 {
        if self.message.is_some() { self.mapped as u64 } else { 0 }
    }

    /// Grows the heap; returns the size before, as `memory.grow` does. New bytes are zero.
    ///
    /// Errors: `BeyondMaximum`; `Os`. Nothing has changed then. Cost: a system call. Panics: when no message is in progress.
    pub fn grow(&mut self, delta: WasmPages) -> Result<WasmPages, HeapError> {
        let old = self.size();
        let (Some(attached), Some(message)) = (self.attached, &mut self.message) else {
            panic!("no message is in progress")
        };
        let requested = old.saturating_add(delta);
        if requested > message.maximum {
            return Err(HeapError::BeyondMaximum { requested, maximum: message.maximum });
        }
        if delta == WasmPages::ZERO {
            return Ok(old);
        }
        let (start, length) = (self.mapped, delta.to_bytes().0 as usize);
        let access = attached.tracking.access();
        match attached.sharing {
            Sharing::Shared => {
                let offset = message.slot.offset() + start as u64;
                self.region.place_file(
                    HEAP_START + start,
                    length,
                    message.slot.file(),
                    offset,
                    access,
                    Sharing::Shared,
                )?;
            }
            // The file's bytes there may be a suspended message's.
            Sharing::Private => self.region.place_anonymous(HEAP_START + start, length, access)?,
        }
        self.mapped += length;
        self.mark_grown(start >> PAGE_SHIFT, attached.tracking);
        Ok(old)
    }

    /// Whether bytes of the heap may have to be fetched before they are looked at: only then [`SeatMemory::show`] does something.
    #[inline]
    pub fn may_lack_pages(&self) -> bool {
        self.shutters.is_some()
    }

    /// Sees to it that bytes of the heap can be looked at: fetches those that are missing.
    ///
    /// Errors: `OutOfBounds`, always so without a message in progress; `PageLost`; `Os`.
    #[inline]
    pub fn show(&self, address: u64, length: u64) -> Result<(), HeapError> {
        self.check(address, length)?;
        if !self.may_lack_pages() || length == 0 {
            return Ok(());
        }
        self.open((address >> PAGE_SHIFT) as usize, (address + length).div_ceil(PAGE as u64) as usize)
    }

    /// Bytes of the heap. Errors: as [`SeatMemory::show`].
    pub fn slice(&self, address: u64, length: u64) -> Result<&[u8], HeapError> {
        self.show(address, length)?;
        // SAFETY: [address, address + length) is below `mapped`, checked, hence mapped, and readable since `show`; every store goes through this seat's message,
        // which `&self` holds still (Busy keeps others off; views are private).
        Ok(unsafe { std::slice::from_raw_parts(self.heap_byte(address as usize), length as usize) })
    }

    /// Bytes of the heap, to be overwritten; their pages are saved first.
    ///
    /// Errors: `OutOfBounds`; `PageLost`; `Os`. Nothing has changed then.
    pub fn slice_mut(&mut self, address: u64, length: u64) -> Result<&mut [u8], HeapError> {
        self.mark(address, length)?;
        // SAFETY: as in `slice`; `mark` has made the pages writable, and `&mut self` is exclusive.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.heap_byte(address as usize), length as usize) })
    }

    /// Copies bytes into the heap. Errors: as [`SeatMemory::slice_mut`].
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HeapError> {
        self.slice_mut(address, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Sets bytes, as `memory.fill` does. Errors: as [`SeatMemory::slice_mut`].
    pub fn fill(&mut self, address: u64, value: u8, length: u64) -> Result<(), HeapError> {
        self.slice_mut(address, length)?.fill(value);
        Ok(())
    }

    /// Moves bytes that may overlap, as `memory.copy` does. Errors: as [`SeatMemory::slice_mut`], for either range.
    pub fn copy(&mut self, to: u64, from: u64, length: u64) -> Result<(), HeapError> {
        self.show(from, length)?;
        self.mark(to, length)?;
        // SAFETY: both ranges are mapped (checked in `show` and `mark`), the source is readable since `show`, the target is writable since `mark`; ranges may overlap.
        unsafe { std::ptr::copy(self.heap_byte(from as usize), self.heap_byte(to as usize), length as usize) };
        Ok(())
    }

    pub(crate) fn check(&self, address: u64, length: u64) -> Result<(), HeapError> {
        let size = self.size_bytes();
        match address.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(HeapError::OutOfBounds { address, length, size }),
        }
    }

    /// A page may have been marked when the one after it did not exist yet: it is the message's now, and so is its head.
    fn mark_grown(&mut self, first_new: usize, tracking: Tracking) {
        if tracking == Tracking::Cards && first_new > 0 && self.card(first_new - 1) != 0 {
            self.record(first_new, RecordKind::FreshHead);
        }
    }
}

const _: () = assert!(UNDO_HEAD < PAGE);
