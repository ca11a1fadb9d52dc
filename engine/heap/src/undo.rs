//! The undo log of one message: what pages held before it, oldest first.
//!
//! Enters: page numbers and the bytes they hold now. Leaves: the same bytes, last in first out, so that where records overlap the oldest wins.
//! Invariant owned here: a record's data lies in `data[..used]`, at the sum of the data sizes of the records before it; neither it nor its
//! index entry changes before the log is reset.
//! Never here: an allocation while a message runs. Space for the largest message is reserved up front and backed by memory as it is
//! first used; a log that comes back keeps [`UNDO_WARM_BYTES`] of it for the next message.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::HeapError;
use crate::layout::{PAGE, UNDO_DATA_BYTES, UNDO_HEAD, UNDO_RECORDS_MAX, UNDO_WARM_BYTES};
use crate::nearby::Nearby;
use crate::page_set::PageIx;
use crate::sys::{Access, Region};

/// What a record says about its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordKind {
    /// All bytes, saved.
    Full,
    /// All bytes, saved after a head record of the same page.
    FullAfterHead,
    /// The first [`UNDO_HEAD`] bytes, saved.
    Head,
    /// The page did not exist when the message began: it was zero and there is nothing to save.
    Fresh,
    /// As `Fresh`, after a fresh head record of the same page.
    FreshAfterHead,
    /// As `Fresh`, but only the first [`UNDO_HEAD`] bytes may have changed.
    FreshHead,
}

impl RecordKind {
    const ALL: [Self; 6] =
        [Self::Full, Self::FullAfterHead, Self::Head, Self::Fresh, Self::FreshAfterHead, Self::FreshHead];

    /// Bytes of data that the record holds.
    pub(crate) const fn data_bytes(self) -> usize {
        match self {
            Self::Full | Self::FullAfterHead => PAGE,
            Self::Head => UNDO_HEAD,
            Self::Fresh | Self::FreshAfterHead | Self::FreshHead => 0,
        }
    }

    /// The bytes of the page that this record alone answers for when pages are compared.
    pub(crate) const fn compared(self) -> std::ops::Range<usize> {
        match self {
            Self::Full | Self::Fresh => 0..PAGE,
            Self::FullAfterHead | Self::FreshAfterHead => UNDO_HEAD..PAGE,
            Self::Head | Self::FreshHead => 0..UNDO_HEAD,
        }
    }
}

/// A record: kind in the low three bits, page above. Stable memory has 2^27 pages.
#[derive(Clone, Copy)]
struct Record(u32);

impl Record {
    const fn new(page: PageIx, kind: RecordKind) -> Self {
        Self(page.0 << 3 | kind as u32)
    }
    const fn page(self) -> PageIx {
        PageIx(self.0 >> 3)
    }
    const fn kind(self) -> RecordKind {
        RecordKind::ALL[(self.0 & 7) as usize]
    }
}

const _: () = assert!(crate::layout::STABLE_SLOT_SHIFT - crate::layout::PAGE_SHIFT <= 29);
const _: () = assert!(UNDO_DATA_BYTES.is_multiple_of(PAGE) && UNDO_WARM_BYTES.is_multiple_of(PAGE));

/// Undo records of one message.
#[derive(Debug)]
pub(crate) struct UndoLog {
    data: Region,
    index: Region,
    /// Bytes of `data` in use.
    used: usize,
    /// Records in `index`.
    records: usize,
    /// Pages whose bytes changed, ascending, once counted. Kept for its capacity.
    pub(crate) changed: Vec<PageIx>,
    /// Whether `changed` says how things are now.
    pub(crate) counted: bool,
}

impl UndoLog {
    fn new() -> Result<Self, HeapError> {
        let mut data = Region::reserve(UNDO_DATA_BYTES, Access::ReadWrite, "mmap of an undo log's data")?;
        data.prefer_huge_pages();
        Ok(Self {
            data,
            index: Region::reserve(UNDO_RECORDS_MAX * 4, Access::ReadWrite, "mmap of an undo log's index")?,
            used: 0,
            records: 0,
            changed: Vec::new(),
            counted: false,
        })
    }

    /// Appends a record; `Err` when the log is full and nothing was appended. Async-signal-safe.
    ///
    /// # Safety
    /// `bytes` is readable for `kind.data_bytes()` bytes and lies outside of this log.
    #[inline]
    pub(crate) unsafe fn push(&mut self, page: PageIx, kind: RecordKind, bytes: *const u8) -> Result<(), HeapError> {
        let length = kind.data_bytes();
        if self.records == UNDO_RECORDS_MAX || self.used + length > UNDO_DATA_BYTES {
            return Err(HeapError::UndoLogFull);
        }
        self.counted = false;
        // SAFETY: used + length is within the data region and records within the index region, both checked above; the regions are
        // writable and owned by this log, and `bytes` is readable and disjoint by contract. The index is 4-byte aligned.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes, self.data.base().add(self.used), length);
            self.index.base().cast::<Record>().add(self.records).write(Record::new(page, kind));
        }
        self.used += length;
        self.records += 1;
        Ok(())
    }

    /// Where the records up to now lie.
    #[inline]
    pub(crate) fn records(&self) -> Records {
        Records { data: self.data.start(), index: self.index.base().cast(), count: self.records }
    }

    /// Pages of all records, oldest first; a page may come twice.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageIx> + '_ {
        // SAFETY: the records are this log's, borrowed.
        unsafe { self.records().each() }.map(|(page, _, _)| page)
    }

    /// All records, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (PageIx, RecordKind, &[u8])> + '_ {
        let (records, mut end) = (self.records(), self.used);
        (0..records.count).rev().map(move |i| {
            // SAFETY: i is below the count of this log's records, borrowed.
            let record = unsafe { records.index.add(i).read() };
            let length = record.kind().data_bytes();
            end -= length;
            // SAFETY: by the module's invariant the record's data is data[end..end + length], below `used`, written by `push`; it is not
            // written again while `self` is borrowed.
            let bytes = unsafe { std::slice::from_raw_parts(records.data.as_ptr().add(end), length) };
            (record.page(), record.kind(), bytes)
        })
    }

    /// All records, oldest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (PageIx, RecordKind, &[u8])> + '_ {
        // SAFETY: the records are this log's, borrowed.
        unsafe { self.records().each() }
    }

    /// Forgets all records.
    pub(crate) fn reset(&mut self) {
        if self.used > UNDO_WARM_BYTES {
            let end = self.used.next_multiple_of(PAGE);
            // A refusal leaves the memory allocated, which costs memory and nothing else.
            let _ = self.data.discard(UNDO_WARM_BYTES, end - UNDO_WARM_BYTES);
        }
        self.used = 0;
        self.records = 0;
        self.changed.clear();
        self.counted = false;
    }
}

/// The first `count` records of a log, which stay what they are until the log is reset: others may read them while its owner appends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records {
    data: NonNull<u8>,
    index: *const Record,
    count: usize,
}

impl Records {
    /// How many there are.
    pub(crate) const fn len(self) -> usize {
        self.count
    }

    /// The records, oldest first.
    ///
    /// # Safety
    /// The log is neither reset nor dropped while the iterator or anything out of it lives.
    pub(crate) unsafe fn each<'a>(self) -> impl Iterator<Item = (PageIx, RecordKind, &'a [u8])> {
        let mut start = 0;
        (0..self.count).map(move |i| {
            // SAFETY: i < count, and `push` has written every record below the count; the log lives by contract.
            let record = unsafe { self.index.add(i).read() };
            let length = record.kind().data_bytes();
            // SAFETY: by the module's invariant the record's data is data[start..start + length]; it was written before the count said so, and
            // it stays until a reset, which does not come by contract.
            let bytes = unsafe { std::slice::from_raw_parts(self.data.as_ptr().add(start), length) };
            start += length;
            (record.page(), record.kind(), bytes)
        })
    }
}

/// Idle undo logs, last returned first given out. A seat holds one only while a message is in progress.
#[derive(Debug, Default)]
pub(crate) struct UndoPool {
    nearby: Nearby<UndoLog>,
    idle: Mutex<Vec<UndoLog>>,
    /// To be put back when there is time.
    aside: Mutex<Vec<UndoLog>>,
}

/// Idle logs kept besides those that threads keep nearby; 32 MiB warm each at most.
const IDLE_LOGS_MAX: usize = 16;

impl UndoPool {
    fn idle(&self) -> MutexGuard<'_, Vec<UndoLog>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Result<UndoLog, HeapError> {
        let warm = self.nearby.take_if(|_| true).or_else(|| self.idle().pop());
        warm.map_or_else(UndoLog::new, Ok)
    }

    /// Takes logs without resetting them, which may take time.
    pub(crate) fn set_aside(&self, mut logs: Vec<UndoLog>) {
        if !logs.is_empty() {
            self.aside.lock().unwrap_or_else(PoisonError::into_inner).append(&mut logs);
        }
    }

    /// Puts back what was set aside.
    pub(crate) fn tidy(&self) {
        let logs = std::mem::take(&mut *self.aside.lock().unwrap_or_else(PoisonError::into_inner));
        logs.into_iter().for_each(|log| self.put(log));
    }

    pub(crate) fn put(&self, mut log: UndoLog) {
        log.reset();
        let Some(log) = self.nearby.put(log) else { return };
        let mut idle = self.idle();
        if idle.len() < IDLE_LOGS_MAX {
            idle.push(log);
        }
    }
}

/// Bytes that a page held before the message: all of it, or its first [`UNDO_HEAD`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreImage<'a> {
    /// The page.
    pub page: PageIx,
    /// What its first bytes were.
    pub bytes: &'a [u8],
}

impl UndoLog {
    /// Pre-images in the order in which they must be applied. Pages that did not exist before the message have none.
    pub(crate) fn pre_images(&self) -> impl Iterator<Item = PreImage<'_>> + '_ {
        self.newest_first().filter(|(_, _, bytes)| !bytes.is_empty()).map(|(page, _, bytes)| PreImage { page, bytes })
    }
}

/// Pre-images by page, for reading a memory as it was.
#[derive(Debug, Default)]
pub(crate) struct PreImageMap<'a> {
    /// Of each page: the full record and the head record, if any. A head record beside a full one is the older and wins.
    pages: BTreeMap<PageIx, [Option<&'a [u8]>; 2]>,
}

impl<'a> PreImageMap<'a> {
    /// No pre-images: the memory is as it is.
    pub(crate) const fn new() -> Self {
        Self { pages: BTreeMap::new() }
    }

    /// Adds a record that is newer than those there already, which win wherever they overlap.
    pub(crate) fn add(&mut self, page: PageIx, bytes: &'a [u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.pages.entry(page).or_default() {
            [Some(_), _] => {}
            [full, _] if bytes.len() == PAGE => *full = Some(bytes),
            [_, head] => *head = head.or(Some(bytes)),
        }
    }

    /// Pages that have a pre-image, ascending.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageIx> + '_ {
        self.pages.keys().copied()
    }

    /// Whether all bytes of a page are known.
    pub(crate) fn covers(&self, page: PageIx) -> bool {
        self.pages.get(&page).is_some_and(|[full, _]| full.is_some())
    }

    /// Overwrites what `bytes`, read at `address`, holds of saved pages.
    pub(crate) fn restore(&self, address: u64, bytes: &mut [u8]) {
        let Some(last) = (bytes.len() as u64).checked_sub(1).map(|l| address + l) else { return };
        for (page, images) in self.pages.range(PageIx::of(address)..=PageIx::of(last)) {
            for image in images.iter().flatten() {
                // The part of the image that lies in [address, address + bytes.len()).
                let start = page.address().max(address);
                let end = (page.address() + image.len() as u64).min(last + 1);
                if start < end {
                    let to = (start - address) as usize..(end - address) as usize;
                    let from = (start - page.address()) as usize..(end - page.address()) as usize;
                    bytes[to].copy_from_slice(&image[from]);
                }
            }
        }
    }
}
