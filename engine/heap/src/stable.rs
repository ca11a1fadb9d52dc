//! Access to stable memories: host reads and writes with bounds, undo and dirty pages.
//!
//! Enters: offsets and bytes from host functions. Leaves: bytes, the number of pages a message wrote to. A memory is mapped when it is first
//! touched and stays mapped between messages.
//! Invariants owned here: `last_dirty` is a page that is mapped, inside the size, and saved; a page whose bit is set in `bits` is in `dirtied` and,
//! when it existed before the message and is shared, in the undo log; outside of messages no bit is set.
//! Never here: addresses handed to JIT code.

use std::sync::Arc;

use cyclotron_types::units::WasmPages;

use crate::arena::{MemoryId, Slot, StableMemory};
use crate::error::HeapError;
use crate::layout::{PAGE, PAGE_SHIFT};
use crate::page_set::PageIx;
use crate::sys::{Access, Region, Sharing};
use crate::undo::{PreImage, PreImageMap, RecordKind, UndoLog, UndoPool};
use crate::version::{Mapping, ReaderState, StableVersion};

/// Value of `last_dirty` that no page has: offsets are below 2^64, so pages are below 2^52.
const NO_PAGE: u64 = u64::MAX;

/// `log2` of the pages that one block of dirty bits covers: 4 KiB of bits for 128 MiB.
const BLOCK_SHIFT: u32 = 15;
type Block = [u64; 1 << (BLOCK_SHIFT - 6)];

/// What the accesses of a pool share.
#[derive(Debug, Default)]
pub(crate) struct StableShared {
    pub(crate) undo: UndoPool,
}

/// One bit a page; blocks are made when they are first needed and kept.
#[derive(Debug, Default)]
struct DirtyBits {
    blocks: Vec<Option<Box<Block>>>,
}

impl DirtyBits {
    fn get(&self, page: u64) -> bool {
        match self.blocks.get((page >> BLOCK_SHIFT) as usize) {
            Some(Some(block)) => block[Self::word(page)] >> (page & 63) & 1 == 1,
            _ => false,
        }
    }

    fn set(&mut self, page: u64) {
        let at = (page >> BLOCK_SHIFT) as usize;
        if at >= self.blocks.len() {
            self.blocks.resize_with(at + 1, || None);
        }
        let block = self.blocks[at].get_or_insert_with(|| Box::new([0; 1 << (BLOCK_SHIFT - 6)]));
        block[Self::word(page)] |= 1 << (page & 63);
    }

    /// Clears the page's whole word: its neighbours are to be cleared too.
    fn clear_word(&mut self, page: u64) {
        if let Some(Some(block)) = self.blocks.get_mut((page >> BLOCK_SHIFT) as usize) {
            block[Self::word(page)] = 0;
        }
    }

    const fn word(page: u64) -> usize {
        (page >> 6) as usize & ((1 << (BLOCK_SHIFT - 6)) - 1)
    }
}

/// A message in progress.
#[derive(Debug)]
struct StableMessage {
    slot: Arc<Slot>,
    /// Taken at the first write to a page that existed before.
    undo: Option<UndoLog>,
    /// Of a view: its place among the memory's readers, once it has one.
    reader: Option<Arc<ReaderState>>,
    begin_bytes: u64,
    maximum: WasmPages,
}

/// Reads and writes one stable memory. Dropping one with a message in progress rolls the message back.
#[derive(Debug)]
pub struct StableAccess {
    id: MemoryId,
    sharing: Sharing,
    /// The file's bytes from 0; of a view never beyond `begin_bytes`.
    map: Option<Region>,
    /// Zeros that a view has grown by, from `begin_bytes`.
    grown: Option<Region>,
    /// Size in bytes while a message is in progress, else 0.
    size: u64,
    /// The page last written to, or [`NO_PAGE`].
    last_dirty: u64,
    bits: DirtyBits,
    dirtied: Vec<PageIx>,
    /// Pages of a view into which pre-images were copied.
    overlay: Vec<PageIx>,
    message: Option<StableMessage>,
    shared: Arc<StableShared>,
}

impl Drop for StableAccess {
    fn drop(&mut self) {
        if self.message.is_some() {
            // On failure the memory stays Busy: nobody reads what could not be undone.
            let _ = self.rollback();
        }
    }
}

impl StableAccess {
    pub(crate) fn new(shared: Arc<StableShared>, id: MemoryId, sharing: Sharing) -> Self {
        Self {
            id,
            sharing,
            map: None,
            grown: None,
            size: 0,
            last_dirty: NO_PAGE,
            bits: DirtyBits::default(),
            dirtied: Vec::new(),
            overlay: Vec::new(),
            message: None,
            shared,
        }
    }

    pub(crate) fn key(&self) -> (MemoryId, Sharing) {
        (self.id, self.sharing)
    }

    /// Address space that this access takes; zero until the memory is first touched.
    pub fn mapped_bytes(&self) -> u64 {
        self.map.as_ref().map_or(0, |m| m.length() as u64)
    }

    /// Whether a message is in progress here.
    pub fn is_busy(&self) -> bool {
        self.message.is_some()
    }

    /// Begins a message. Cost: no system call.
    ///
    /// Errors: `Busy` when a message is in progress on the memory. Panics: when this access is for another memory, or is a view.
    pub fn begin_message(&mut self, stable: &StableMemory) -> Result<(), HeapError> {
        assert!(self.key() == (stable.id(), Sharing::Shared), "this access is not for that memory");
        if self.message.is_some() {
            return Err(HeapError::Busy);
        }
        stable.slot().versions.begin_message()?;
        self.start(stable.slot(), stable.size_bytes(), stable.maximum());
        Ok(())
    }

    /// Begins a query in the state that was published; messages may run on the memory meanwhile. Ends with [`StableAccess::rollback`].
    ///
    /// Cost: a page copied for each that changed since. Errors: `Os`, `Busy`, `Outdated`. Panics: when this access is for another memory, or is not a view.
    pub fn begin_view(&mut self, stable: &StableVersion) -> Result<(), HeapError> {
        assert!(self.key() == (stable.id(), Sharing::Private), "this access is not for that memory");
        if self.message.is_some() {
            return Err(HeapError::Busy);
        }
        self.start(stable.slot(), stable.size_bytes(), stable.maximum());
        let begun = self.enter(stable);
        if begun.is_err() {
            let _ = self.rollback();
        }
        begun
    }

    /// Keeps this view for another query. False when it cannot be kept, having written: it is to be rolled back.
    pub fn rest_view(&mut self) -> bool {
        let Some(message) = &self.message else { return false };
        if self.sharing != Sharing::Private || !self.dirtied.is_empty() || self.size != message.begin_bytes {
            return false;
        }
        if let Some(reader) = &message.reader {
            reader.rest();
        }
        true
    }

    /// Begins another query on a view that rests. False when a message has written meanwhile: the view shows nothing any more and is to be rolled back.
    pub fn resume_view(&mut self) -> bool {
        self.message.as_ref().is_some_and(|message| message.reader.as_ref().is_none_or(|reader| reader.resume()))
    }

    /// Becomes a reader of the memory; there is nothing to read of an empty one.
    fn enter(&mut self, stable: &StableVersion) -> Result<(), HeapError> {
        if self.size == 0 {
            return Ok(());
        }
        self.ensure_mapped()?;
        let mapping = Mapping { base: self.byte(0), bytes: self.size, protected: false, shutters: None };
        // SAFETY: the file is mapped privately at byte 0, writable, and is not mapped anew before `rollback`, which leaves: a view's file bytes stay
        // as many as they are.
        let (reader, past) = unsafe { stable.slot().versions.enter(stable.number(), mapping) }?;
        if let Some(message) = &mut self.message {
            message.reader = Some(reader);
        }
        self.overlay(&past.pre_images());
        Ok(())
    }

    fn overlay(&mut self, before: &PreImageMap<'_>) {
        for page in before.pages() {
            assert!(page.address() < self.size);
            self.overlay.push(page);
            // SAFETY: the page is inside the size (asserted), hence mapped and writable; the bytes are private to this access.
            let bytes = unsafe { std::slice::from_raw_parts_mut(self.byte(page.address()), PAGE) };
            before.restore(page.address(), bytes);
        }
    }

    fn start(&mut self, slot: &Arc<Slot>, bytes: u64, maximum: WasmPages) {
        self.size = bytes;
        self.message =
            Some(StableMessage { slot: Arc::clone(slot), undo: None, reader: None, begin_bytes: bytes, maximum });
    }

    /// Size of the memory; zero without a message in progress.
    pub const fn size(&self) -> WasmPages {
        WasmPages(self.size / WasmPages::BYTES)
    }

    /// Grows the memory; returns the size before. New bytes are zero. Cost: no system call.
    ///
    /// Errors: `BeyondMaximum`. Panics: when no message is in progress.
    pub fn grow(&mut self, delta: WasmPages) -> Result<WasmPages, HeapError> {
        let Some(message) = &self.message else { panic!("no message is in progress") };
        let (old, requested) = (self.size(), self.size().saturating_add(delta));
        if requested > message.maximum {
            return Err(HeapError::BeyondMaximum { requested, maximum: message.maximum });
        }
        self.size = requested.to_bytes().0;
        Ok(old)
    }

    fn check(&self, offset: u64, length: u64) -> Result<u64, HeapError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(end),
            _ => Err(HeapError::OutOfBounds { address: offset, length, size: self.size }),
        }
    }

    /// Number of pages that a write of this range would add to [`StableAccess::dirtied_pages`].
    ///
    /// Errors: `OutOfBounds`. Cost: in proportion to the pages of the range.
    pub fn pages_to_dirty(&self, offset: u64, length: u64) -> Result<u64, HeapError> {
        let end = self.check(offset, length)?;
        if length == 0 {
            return Ok(0);
        }
        let new = (offset >> PAGE_SHIFT..=(end - 1) >> PAGE_SHIFT).filter(|&page| !self.bits.get(page));
        Ok(new.count() as u64)
    }

    /// Pages written to since the message began. A page counts when it is written to, whether or not its bytes change.
    pub fn dirtied_pages(&self) -> u64 {
        self.dirtied.len() as u64
    }

    /// Copies bytes out. Errors: `OutOfBounds`; `Os` when the memory cannot be mapped.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), HeapError> {
        let length = into.len() as u64;
        self.check(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        self.fetch(offset, length)?;
        self.ensure_mapped()?;
        let split = self.split(offset, length);
        let (low, high) = into.split_at_mut(split);
        // SAFETY: the range is inside the size (checked) and mapped; `byte` is contiguous on each side of the split; `into` is the caller's.
        unsafe {
            std::ptr::copy_nonoverlapping(self.byte_if(offset, low), low.as_mut_ptr(), low.len());
            std::ptr::copy_nonoverlapping(self.byte_if(offset + split as u64, high), high.as_mut_ptr(), high.len());
        }
        Ok(())
    }

    /// Copies bytes in and notes their pages.
    ///
    /// Errors: `OutOfBounds`; `Os` when the memory cannot be mapped; `UndoLogFull`. No byte has changed then.
    /// Cost: a copy, when the page is the one last written to.
    #[inline]
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), HeapError> {
        if offset >> PAGE_SHIFT == self.last_dirty && (offset as usize & (PAGE - 1)) + bytes.len() <= PAGE {
            // SAFETY: `last_dirty` is mapped, inside the size and saved (module invariant), and the range lies in that page.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.byte(offset), bytes.len()) };
            return Ok(());
        }
        self.write_slow(offset, bytes)
    }

    fn write_slow(&mut self, offset: u64, bytes: &[u8]) -> Result<(), HeapError> {
        let end = self.check(offset, bytes.len() as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.fetch(offset, bytes.len() as u64)?;
        self.ensure_mapped()?;
        let (first, last) = (offset >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT);
        for page in first..=last {
            if !self.bits.get(page) {
                self.dirty(page)?;
            }
        }
        self.last_dirty = last;
        let (low, high) = bytes.split_at(self.split(offset, bytes.len() as u64));
        // SAFETY: the range is inside the size (checked), mapped and saved; `byte` is contiguous on each side of the split; `bytes` is the caller's.
        unsafe {
            std::ptr::copy_nonoverlapping(low.as_ptr(), self.byte_if(offset, low), low.len());
            std::ptr::copy_nonoverlapping(high.as_ptr(), self.byte_if(offset + low.len() as u64, high), high.len());
        }
        Ok(())
    }

    /// Notes a page that is about to be written to, and saves it when it must be restored by a rollback.
    fn dirty(&mut self, page: u64) -> Result<(), HeapError> {
        let at = self.byte(page << PAGE_SHIFT);
        let Some(message) = &mut self.message else { return Ok(()) };
        let page_ix = PageIx(page as u32);
        if self.sharing == Sharing::Shared && page << PAGE_SHIFT < message.begin_bytes {
            let undo = match &mut message.undo {
                Some(undo) => undo,
                empty => empty.insert(self.shared.undo.take()?),
            };
            // SAFETY: the page is inside the size and mapped (the caller has seen to it); the undo log is elsewhere.
            unsafe { undo.push(page_ix, RecordKind::Full, at)? };
            // SAFETY: the message ends (`commit`, `rollback`) with the versions being told before its log goes.
            unsafe { message.slot.versions.saved(page_ix, undo.records()) };
        }
        self.bits.set(page);
        self.dirtied.push(page_ix);
        Ok(())
    }

    /// Length of the part of a range that lies in the file's mapping: all of it unless this is a view that has grown.
    fn split(&self, offset: u64, length: u64) -> usize {
        self.file_bytes().saturating_sub(offset).min(length) as usize
    }

    /// Bytes of the memory that the file holds.
    fn file_bytes(&self) -> u64 {
        match (&self.message, self.sharing) {
            (Some(message), Sharing::Private) => message.begin_bytes,
            _ => self.size,
        }
    }

    /// Address of a byte inside the size, once `ensure_mapped` has succeeded for that size.
    #[inline]
    fn byte(&self, offset: u64) -> *mut u8 {
        let in_file = self.map.as_ref().filter(|m| offset < m.length() as u64);
        let (region, at) = match (in_file, &self.grown, &self.message) {
            (Some(map), _, _) => (map, offset as usize),
            (None, Some(grown), Some(message)) => (grown, (offset - message.begin_bytes) as usize),
            _ => panic!("stable memory is not mapped"),
        };
        assert!(at < region.length());
        // SAFETY: at < region.length(), asserted.
        unsafe { region.base().add(at) }
    }

    /// As `byte`, for a range that may be empty and then at the end of the memory.
    fn byte_if(&self, offset: u64, range: &[u8]) -> *mut u8 {
        if range.is_empty() { std::ptr::NonNull::dangling().as_ptr() } else { self.byte(offset) }
    }

    /// Sees to it that a range inside the size is in the arena.
    #[inline]
    fn fetch(&self, offset: u64, length: u64) -> Result<(), HeapError> {
        self.message.as_ref().map_or(Ok(()), |message| message.slot.fetch(offset, length))
    }

    /// Maps what the memory has and is not mapped yet.
    fn ensure_mapped(&mut self) -> Result<(), HeapError> {
        let Some(message) = &self.message else { return Ok(()) };
        let file_bytes = self.file_bytes() as usize;
        let mapped = self.map.as_ref().map_or(0, Region::length);
        if mapped < file_bytes {
            match &mut self.map {
                Some(map) => map.extend(file_bytes, "mremap of a stable memory")?,
                None => {
                    let (file, offset) = (message.slot.file(), message.slot.offset());
                    let what = "mmap of a stable memory";
                    self.map = Some(Region::map_file(file, offset, file_bytes, Access::ReadWrite, self.sharing, what)?);
                }
            }
        }
        let grown_bytes = self.size as usize - file_bytes;
        let grown = self.grown.as_ref().map_or(0, Region::length);
        if grown < grown_bytes {
            let what = "mmap of a view's growth";
            match &mut self.grown {
                Some(region) => region.extend(grown_bytes, what)?,
                None => self.grown = Some(Region::reserve(grown_bytes, Access::ReadWrite, what)?),
            }
        }
        Ok(())
    }

    /// Pages written to since the message began, in the order of their first write.
    pub fn dirtied(&self) -> &[PageIx] {
        &self.dirtied
    }

    /// Pre-images of the message in progress, in the order in which they must be applied.
    pub fn pre_images(&self) -> impl Iterator<Item = PreImage<'_>> + '_ {
        self.message.iter().flat_map(|m| &m.undo).flat_map(UndoLog::pre_images)
    }

    /// Keeps what the message did. Panics: when no message of this memory is in progress here, or on a view.
    pub fn commit(&mut self, stable: &mut StableMemory) {
        assert!(self.sharing == Sharing::Shared, "a view has nothing to keep");
        let message = self.message.take().expect("no message is in progress");
        assert!(message.slot.id() == stable.id(), "this access is not for that memory");
        stable.accept(self.size(), self.dirtied.iter().copied());
        let StableMessage { slot, undo, .. } = message;
        let undo = match undo {
            None => {
                slot.versions.commit_nothing();
                None
            }
            Some(undo) => {
                let mut dirtied = self.dirtied.clone();
                dirtied.sort_unstable();
                slot.versions.commit(undo, &dirtied)
            }
        };
        self.end(undo);
    }

    /// Undoes what the message did: its bytes and its growth. On a view, drops its private pages.
    ///
    /// Errors: `Os` when growth could not be given back; the memory is [`HeapError::Busy`] for ever then. Panics: when no message is in progress.
    pub fn rollback(&mut self) -> Result<(), HeapError> {
        assert!(self.message.is_some(), "no message is in progress");
        for PreImage { page, bytes } in self.pre_images() {
            // SAFETY: a saved page is mapped and inside the size; the record lies in the undo log.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.byte(page.address()), bytes.len()) };
        }
        let Some(message) = self.message.take() else { return Ok(()) };
        let undone = match self.sharing {
            Sharing::Shared if self.size > message.begin_bytes && self.map.is_some() => {
                message.slot.punch(message.begin_bytes, self.size)
            }
            Sharing::Shared => Ok(()),
            Sharing::Private => {
                self.grown = None;
                if let Some(reader) = message.reader {
                    self.overlay.extend(message.slot.versions.leave(&reader));
                }
                self.discard_private(message.begin_bytes)
            }
        };
        let undo = match self.sharing {
            Sharing::Shared => message.slot.versions.end_message(message.undo, undone.is_ok()),
            Sharing::Private => message.undo,
        };
        self.end(undo);
        undone
    }

    /// Makes private pages read the file again; drops the mapping when that is refused.
    fn discard_private(&mut self, begin_bytes: u64) -> Result<(), HeapError> {
        let Some(map) = &mut self.map else { return Ok(()) };
        let mut pages: Vec<u32> = self.dirtied.iter().chain(&self.overlay).map(|p| p.0).collect();
        pages.retain(|&p| PageIx(p).address() < begin_bytes);
        pages.sort_unstable();
        pages.dedup();
        for run in pages.chunk_by(|a, b| a + 1 == *b) {
            let discarded = map.discard(PageIx(run[0]).address() as usize, run.len() * PAGE);
            if discarded.is_err() {
                self.map = None;
                return discarded;
            }
        }
        Ok(())
    }

    fn end(&mut self, undo: Option<UndoLog>) {
        for page in &self.dirtied {
            self.bits.clear_word(u64::from(page.0));
        }
        self.dirtied.clear();
        self.overlay.clear();
        self.size = 0;
        self.last_dirty = NO_PAGE;
        if let Some(undo) = undo {
            self.shared.undo.put(undo);
        }
    }
}
