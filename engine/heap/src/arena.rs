//! Where the bytes of heaps and stable memories live: two sparse files in memory, cut into slots.
//!
//! Enters: requests for memories. Leaves: [`Memory`] handles, which hold neither a mapping nor a file descriptor of their own.
//! Invariants owned here: a slot belongs to one memory; the bytes of a slot at and beyond its memory's size are zero, except
//! for what a message in progress has grown into. Never here: a mapping; see `seat` and `stable`.
//!
//! Memory is taken page by page as bytes are first written (or read through a shared mapping). When the machine has none left the kernel
//! cannot answer a store with an error: it kills a process or sends SIGBUS. Callers bound the sum of memories themselves.

use std::fs::File;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cyclotron_types::units::WasmPages;

use crate::copying::{self, Copying};
use crate::error::HeapError;
use crate::layout::{ARENA_FILE_SHIFT, HEAP_PAGES_MAX_64, HEAP_SLOT_SHIFT, PAGE, STABLE_PAGES_MAX, STABLE_SLOT_SHIFT};
use crate::nearby::Nearby;
use crate::page_set::{PageIx, PageSet};
use crate::store::{AtRest, Batch, PageRun, PageStore};
use crate::sys;
use crate::undo::{PreImageMap, UndoLog};
use crate::version::{Version, Versions};

/// Bytes moved at a time when a memory is copied or scanned.
pub(crate) const COPY_BYTES: usize = 256 << 10;

/// The memories of one subnet.
///
/// Cost: two file descriptors and no memory until a memory is written.
#[derive(Debug)]
pub struct Arena {
    heaps: Arc<SlotFile>,
    stables: Arc<SlotFile>,
}

impl Arena {
    /// Makes an empty arena.
    ///
    /// Errors: `Os` when the kernel refuses a memfd or a sparse file of 2^62 bytes.
    pub fn new() -> Result<Self, HeapError> {
        Ok(Self {
            heaps: Arc::new(SlotFile::new(c"cyclotron-heaps", HEAP_SLOT_SHIFT)?),
            stables: Arc::new(SlotFile::new(c"cyclotron-stable", STABLE_SLOT_SHIFT)?),
        })
    }

    /// A new heap of zeros. Cost: below 1 us, no system call.
    ///
    /// Errors: `BeyondMaximum`, also when `maximum` is above what a slot holds; `SlotsExhausted`.
    pub fn new_heap(&self, size: WasmPages, maximum: WasmPages) -> Result<Heap, HeapError> {
        Memory::new(&self.heaps, size, maximum)
    }

    /// A new stable memory of zeros. As [`Arena::new_heap`].
    pub fn new_stable(&self, size: WasmPages, maximum: WasmPages) -> Result<StableMemory, HeapError> {
        Memory::new(&self.stables, size, maximum)
    }

    /// Bytes of memory that all heaps and all stable memories take now.
    pub fn allocated_bytes(&self) -> Result<(u64, u64), HeapError> {
        Ok((self.heaps.allocated_bytes()?, self.stables.allocated_bytes()?))
    }
}

/// A sparse file cut into equal slots.
#[derive(Debug)]
pub(crate) struct SlotFile {
    file: File,
    shift: u32,
    slots: Mutex<Slots>,
    /// Room for pages that are being fetched.
    batches: Nearby<Batch>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Slots below this number have been given out before.
    next: u32,
    free: Vec<u32>,
    /// Memories given out so far: tells apart two memories that used the same slot.
    generation: u64,
}

impl SlotFile {
    fn new(name: &'static std::ffi::CStr, shift: u32) -> Result<Self, HeapError> {
        let file = sys::sparse_file(name, ARENA_FILE_SHIFT)?;
        Ok(Self { file, shift, slots: Mutex::default(), batches: Nearby::new() })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Every critical section below leaves the table consistent at each step.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>) -> Result<Slot, HeapError> {
        let mut slots = self.slots();
        let index = match slots.free.pop() {
            Some(index) => index,
            None if u64::from(slots.next) < 1 << (ARENA_FILE_SHIFT - self.shift) => {
                slots.next += 1;
                slots.next - 1
            }
            None => return Err(HeapError::SlotsExhausted),
        };
        slots.generation += 1;
        let id = MemoryId { index, generation: slots.generation };
        Ok(Slot { file: Arc::clone(self), id, versions: Versions::default(), at_rest: AtRest::default() })
    }

    fn allocated_bytes(&self) -> Result<u64, HeapError> {
        use std::os::unix::fs::MetadataExt;
        let meta = self.file.metadata().map_err(|_| sys::os_error("fstat of an arena"))?;
        Ok(meta.blocks() * 512)
    }
}

/// Names a memory among all that one arena file ever gave out. Means nothing outside this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemoryId {
    pub(crate) index: u32,
    pub(crate) generation: u64,
}

/// A slot in use. Kept alive by its memory's handle, by its versions and by a seat with a message or view in progress; freed with the last of them.
#[derive(Debug)]
pub(crate) struct Slot {
    file: Arc<SlotFile>,
    id: MemoryId,
    /// Who writes, and what readers need.
    pub(crate) versions: Versions,
    /// Where the last checkpoint keeps its pages.
    at_rest: AtRest,
}

impl Slot {
    /// Sees to it that the pages of a range are in the arena. Cost: one load when the arena lacks nothing.
    ///
    /// Errors: `PageLost`, `Os`.
    #[inline]
    pub(crate) fn fetch(&self, address: u64, length: u64) -> Result<(), HeapError> {
        if self.at_rest.absent() == 0 {
            return Ok(());
        }
        self.fetch_pages(address / PAGE as u64, (address + length).div_ceil(PAGE as u64))
    }

    /// Waits for pages that are being copied here. Errors: they could not be.
    fn check_whole(&self) -> Result<(), HeapError> {
        self.fetch(0, 0)
    }

    #[cold]
    fn fetch_pages(&self, from: u64, to: u64) -> Result<(), HeapError> {
        self.with_batch(|batch| self.at_rest.fetch(from, to, batch, |at, bytes| self.write(at, bytes)))
    }

    /// Sees to it that pages of a heap and of blocks around them are in the arena. Returns which. Errors: as [`Slot::fetch`].
    pub(crate) fn fetch_blocks(&self, first: usize, end: usize) -> Result<Range<u32>, HeapError> {
        let (first, end) = (first as u32, end as u32);
        self.with_batch(|batch| self.at_rest.fetch_blocks(first, end, batch, |at, bytes| self.write(at, bytes)))
    }

    fn with_batch<R>(&self, fetch: impl FnOnce(&mut Batch) -> R) -> R {
        let mut batch = self.file.batches.take_if(|_| true).unwrap_or_default();
        let result = fetch(&mut batch);
        self.file.batches.put(batch);
        result
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), HeapError> {
        sys::write_at(self.file(), self.offset() + at, bytes)
    }

    pub(crate) fn at_rest(&self) -> &AtRest {
        &self.at_rest
    }

    pub(crate) fn id(&self) -> MemoryId {
        self.id
    }

    pub(crate) fn file(&self) -> &File {
        &self.file.file
    }

    /// Offset of the slot's byte 0 in the file.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.id.index) << self.file.shift
    }

    pub(crate) fn punch(&self, from: u64, to: u64) -> Result<(), HeapError> {
        assert!(from <= to && to <= 1 << self.file.shift);
        sys::punch_hole(self.file(), self.offset() + from, to - from)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A slot that could not be emptied is never given out again: its bytes would show up in another memory.
        if self.punch(0, 1 << self.file.shift).is_ok() {
            self.file.slots().free.push(self.id.index);
        }
    }
}

/// What tells a heap from a stable memory.
pub trait MemoryKind: 'static {
    /// Largest size of such a memory.
    const PAGES_MAX: WasmPages;
}

/// A Wasm heap.
#[derive(Debug)]
pub enum OfHeap {}
/// A stable memory.
#[derive(Debug)]
pub enum OfStable {}

impl MemoryKind for OfHeap {
    const PAGES_MAX: WasmPages = HEAP_PAGES_MAX_64;
}
impl MemoryKind for OfStable {
    const PAGES_MAX: WasmPages = STABLE_PAGES_MAX;
}

/// A Wasm heap at rest.
pub type Heap = Memory<OfHeap>;
/// A stable memory at rest.
pub type StableMemory = Memory<OfStable>;

/// A canister's memory at rest: its slot, its committed size, and which of its pages changed since somebody last asked.
///
/// Holds no mapping and no file descriptor; dropping it frees the bytes. While a message runs on a seat, the handle keeps saying the size before
/// the message, but the bytes that [`Memory::read`] returns are the message's: [`Memory::committed`] reads around it.
#[derive(Debug)]
pub struct Memory<K: MemoryKind> {
    slot: Arc<Slot>,
    size: WasmPages,
    maximum: WasmPages,
    /// Pages that changed since somebody last asked; none while nobody has.
    dirty: Option<Box<PageSet>>,
    /// Pages that changed since somebody last began to save them.
    unsaved: PageSet,
    /// Pages that somebody saves now.
    saving: PageSet,
    kind: PhantomData<fn() -> K>,
}

impl<K: MemoryKind> Memory<K> {
    fn new(file: &Arc<SlotFile>, size: WasmPages, maximum: WasmPages) -> Result<Self, HeapError> {
        if maximum > K::PAGES_MAX {
            return Err(HeapError::BeyondMaximum { requested: maximum, maximum: K::PAGES_MAX });
        }
        if size > maximum {
            return Err(HeapError::BeyondMaximum { requested: size, maximum });
        }
        let slot = Arc::new(file.take()?);
        let (unsaved, saving) = (PageSet::new(), PageSet::new());
        Ok(Self { slot, size, maximum, dirty: None, unsaved, saving, kind: PhantomData })
    }

    /// Which memory this is, within this process.
    pub fn id(&self) -> MemoryId {
        self.slot.id()
    }

    /// Committed size.
    pub const fn size(&self) -> WasmPages {
        self.size
    }

    /// Committed size in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size.0 * WasmPages::BYTES
    }

    /// Largest size that growing may reach.
    pub const fn maximum(&self) -> WasmPages {
        self.maximum
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Takes over what a message did.
    pub(crate) fn accept(&mut self, size: WasmPages, changed: impl Iterator<Item = PageIx>) {
        assert!(self.size <= size && size <= self.maximum);
        self.size = size;
        changed.for_each(|page| self.note(page));
    }

    fn note(&mut self, page: PageIx) {
        self.unsaved.insert(page);
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(page);
        }
    }

    /// Makes the memory as it is, without what a message in progress has done, the version that views show; the one before is outdated. Returns
    /// the logs that were kept for that.
    pub(crate) fn publish(&mut self) -> (Version<K>, Vec<UndoLog>) {
        let (number, logs) = self.slot.versions.publish(self.size_bytes());
        (Version::new(&self.slot, number, self.size, self.maximum), logs)
    }

    fn check(&self, address: u64, length: usize) -> Result<(), HeapError> {
        let (length, size) = (length as u64, self.size_bytes());
        match address.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(HeapError::OutOfBounds { address, length, size }),
        }
    }

    fn check_idle(&self) -> Result<(), HeapError> {
        if self.slot.versions.is_busy() { Err(HeapError::Busy) } else { Ok(()) }
    }

    /// Copies bytes out. Holes stay holes.
    ///
    /// Errors: `OutOfBounds`, `Os`. Cost: a system call and a copy.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), HeapError> {
        self.check(address, into.len())?;
        self.slot.fetch(address, into.len() as u64)?;
        sys::read_at(self.slot.file(), self.slot.offset() + address, into)
    }

    /// Lets `look` read the memory as it was before the message in progress, if there is one, which cannot go on meanwhile.
    pub fn committed<R>(&self, look: impl FnOnce(&Committed<'_, K>) -> R) -> R {
        self.slot.versions.with_running(|before| look(&Committed { memory: self, before }))
    }

    /// Writes bytes outside of any message (data segments at install, snapshots) and notes their pages as dirty.
    ///
    /// Errors: `OutOfBounds`; `Busy` while a message is in progress; `Os`. Panics: once the memory has been published, whose views would see it.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HeapError> {
        self.check(address, bytes.len())?;
        self.check_idle()?;
        if bytes.is_empty() {
            return Ok(());
        }
        assert!(!self.slot.versions.is_published(), "views read this memory: only messages write to it");
        self.slot.versions.wait_for_copy();
        self.slot.fetch(address, bytes.len() as u64)?;
        sys::write_at(self.slot.file(), self.slot.offset() + address, bytes)?;
        for page in PageIx::of(address).0..=PageIx::of(address + bytes.len() as u64 - 1).0 {
            self.note(PageIx(page));
        }
        Ok(())
    }

    /// Grows outside of any message; returns the size before. New bytes are zero and not dirty.
    ///
    /// Errors: `BeyondMaximum`; `Busy` while a message is in progress.
    pub fn grow(&mut self, delta: WasmPages) -> Result<WasmPages, HeapError> {
        self.check_idle()?;
        let requested = self.size.saturating_add(delta);
        if requested > self.maximum {
            return Err(HeapError::BeyondMaximum { requested, maximum: self.maximum });
        }
        Ok(std::mem::replace(&mut self.size, requested))
    }

    /// Changes the largest size, at most to what the kind of memory allows and at least to the current size.
    pub fn set_maximum(&mut self, maximum: WasmPages) -> Result<(), HeapError> {
        self.check_idle()?;
        if maximum > K::PAGES_MAX {
            return Err(HeapError::BeyondMaximum { requested: maximum, maximum: K::PAGES_MAX });
        }
        if self.size > maximum {
            return Err(HeapError::BeyondMaximum { requested: self.size, maximum });
        }
        self.maximum = maximum;
        Ok(())
    }

    /// A copy of this memory in a slot of its own, with the same dirty pages; what a checkpoint keeps of it, both share. Pages that changed since are
    /// copied; with many of them that goes on while this returns, and the next message on this memory, or whoever looks at the copy, waits for it.
    /// Cost: in proportion to the pages that changed since, and their copies where they are few.
    ///
    /// Errors: `Busy` while a message is in progress; `SlotsExhausted`; `Os`, with which looks at the copy end where this has returned.
    pub fn fork(&self) -> Result<Self, HeapError> {
        self.check_idle()?;
        self.slot.check_whole()?;
        let copy = Self::new(&self.slot.file, self.size, self.maximum)?;
        let copy = Self { dirty: self.dirty.clone(), unsaved: self.here_alone(), ..copy };
        if let Some((store, runs)) = self.slot.at_rest.place() {
            copy.slot.at_rest.lie_in(&store, runs, Some(copy.unsaved.clone()));
        }
        let pages: Vec<_> = copy.unsaved.iter().collect();
        if pages.len() < copying::SEVERAL {
            copying::copy(&self.slot, &copy.slot, &pages)?;
        } else {
            let copying = Arc::new(Copying::begin(&self.slot, &copy.slot, pages));
            self.slot.versions.let_copy(Arc::clone(&copying));
            copy.slot.at_rest.wait_for(copying);
        }
        Ok(copy)
    }

    /// Bytes of memory that pages below the size take.
    pub fn allocated_bytes(&self) -> Result<u64, HeapError> {
        let (base, mut at, mut sum) = (self.slot.offset(), self.slot.offset(), 0);
        while let Some((start, stop)) = sys::next_data(self.slot.file(), at, base + self.size_bytes())? {
            sum += stop - start;
            at = stop;
        }
        Ok(sum)
    }

    /// Hands over all bytes that may not be zero, ascending, in whole pages. Brings nothing into the arena.
    fn each_piece(&self, buffer: &mut [u8], mut visit: impl FnMut(u64, &mut [u8])) -> Result<(), HeapError> {
        self.slot.check_whole()?;
        let (base, size, mut at) = (self.slot.offset(), self.size_bytes(), 0);
        loop {
            // In this order: what is fetched meanwhile is absent first, or is data then.
            let absent = self.slot.at_rest.first_absent(PageIx::of(at).0, PageIx::of(size).0);
            let absent = absent.map(|pages| (PageIx(pages.start).address(), PageIx(pages.end).address()));
            let data = sys::next_data(self.slot.file(), base + at, base + size)?;
            let data = data.map(|(start, stop)| (start - base, stop - base));
            let Some((start, stop)) = absent.into_iter().chain(data).min() else { return Ok(()) };
            at = stop.min(start + buffer.len() as u64);
            let piece = &mut buffer[..(at - start) as usize];
            let read = |piece: &mut [u8]| sys::read_at(self.slot.file(), base + start, piece);
            self.slot.at_rest.read_through(PageIx::of(start).0, piece, read)?;
            visit(start, piece);
        }
    }

    /// Pages that changed since [`Memory::take_dirty`], by committed messages and by [`Memory::write`]; none before its first call: nobody knows.
    pub fn dirty(&self) -> Option<&PageSet> {
        self.dirty.as_deref()
    }

    /// Pages that changed since the last call of this; the next call starts from here. The first begins the account and returns none.
    pub fn take_dirty(&mut self) -> PageSet {
        std::mem::take(self.dirty.get_or_insert_default())
    }

    /// Pages that changed since [`Memory::begin_save`].
    pub const fn unsaved(&self) -> &PageSet {
        &self.unsaved
    }

    /// Pages that are nowhere but in the arena.
    fn here_alone(&self) -> PageSet {
        let mut pages = self.unsaved.clone();
        pages.union(&self.saving);
        pages
    }

    /// Where the pages are that were saved; pages that changed since are no longer as they are there.
    pub fn runs(&self) -> Vec<PageRun> {
        self.slot.at_rest.runs()
    }

    /// The pages that changed since the last call of this; somebody saves them as they are now, and ends that with [`Memory::saved`] or
    /// [`Memory::not_saved`]. What never ended was not saved.
    pub fn begin_save(&mut self) -> &PageSet {
        self.saving.union(&std::mem::take(&mut self.unsaved));
        &self.saving
    }

    /// The pages that were to be saved are; `runs` say where all of the memory's pages were when that began, and those that no run names were zero.
    pub fn saved(&mut self, store: &Arc<dyn PageStore>, runs: Vec<PageRun>) {
        self.slot.at_rest.move_to(store, runs, &std::mem::take(&mut self.saving));
    }

    /// The pages that were to be saved are not.
    pub fn not_saved(&mut self) {
        self.unsaved.union(&std::mem::take(&mut self.saving));
    }

    /// The pages of a new memory are in a store, from where they are fetched when they are first looked at.
    ///
    /// Panics: when it has been written to.
    pub fn lie_in(&mut self, store: &Arc<dyn PageStore>, runs: Vec<PageRun>) {
        assert!(self.unsaved.is_empty(), "a memory that was written to does not lie in a store");
        self.slot.at_rest.lie_in(store, runs, Some(PageSet::new()));
    }

    /// Number of pages that a checkpoint keeps and the arena does not.
    pub fn absent_pages(&self) -> u64 {
        self.slot.at_rest.absent()
    }

    /// Gives the arena's memory of saved pages back; they are fetched again when somebody looks at them. False when there is none, or that cannot be now: a message is
    /// in progress, a view is at work, or `Os`. Cost: one system call, and one for each page that is not saved.
    pub fn release(&mut self) -> bool {
        if !self.slot.at_rest.has_present() {
            return false;
        }
        self.slot.versions.wait_for_copy();
        // Views see what was published: where that is not what is here now, it is in pre-images, which are kept.
        self.slot.versions.while_unused(|| {
            let kept = self.here_alone();
            self.slot.at_rest.keep_only(&kept, || {
                let (mut from, size) = (0, self.size_bytes());
                for page in kept.iter().map(PageIx::address) {
                    self.slot.punch(from, page)?;
                    from = page + PAGE as u64;
                }
                self.slot.punch(from, size)
            })
        })
    }
}

/// A memory as it was before the message in progress.
#[derive(Debug)]
pub struct Committed<'a, K: MemoryKind> {
    memory: &'a Memory<K>,
    before: &'a PreImageMap<'a>,
}

impl<K: MemoryKind> Committed<'_, K> {
    /// Copies bytes out. Errors and cost: as [`Memory::read`].
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), HeapError> {
        self.memory.read(address, into)?;
        self.before.restore(address, into);
        Ok(())
    }

    /// Calls `visit` for every page that holds a byte other than zero, ascending. The result depends on contents alone, not on which
    /// pages happen to be allocated or missing. Cost: in proportion to pages that are allocated, or missing, which are read and not kept.
    pub fn each_nonzero_page(&self, mut visit: impl FnMut(PageIx, &[u8; PAGE])) -> Result<(), HeapError> {
        // A page that has a pre-image is allocated: saving it has read it through a shared mapping.
        let mut buffer = vec![0; COPY_BYTES];
        self.memory.each_piece(&mut buffer, |at, bytes| {
            self.before.restore(at, bytes);
            for (i, page) in bytes.as_chunks::<PAGE>().0.iter().enumerate() {
                if !is_zero(page) {
                    visit(PageIx::of(at + (i * PAGE) as u64), page);
                }
            }
        })
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|w| w.iter().fold(0, |a, b| a | b) == 0) && rest.iter().all(|&b| b == 0)
}
