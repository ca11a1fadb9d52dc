//! How a message's stores get into its undo log, and which pages they changed.
//!
//! Enters: marks (from JIT code's card tests, from host copies), protection faults. Leaves: records, cards, the changed pages.
//! Invariants owned here, while a message is in progress:
//! - a card is not zero exactly when its page has a full record;
//! - under `Cards`, when card k is not zero and page k+1 is in the heap, page k+1 has a head record or a full record older than any store through card k;
//! - under `Protect`, a page of the heap is writable exactly when its card is not zero (or the kernel refused, which rolls back);
//! - a page that has a card that is not zero, or a head record, is in an open block (see `shut`).
//!
//! Never here: an allocation in [`SeatMemory::mark_store`] or in [`SeatPtr::handle_fault`], but for pages that are missing.

use crate::arena::is_zero;
use crate::error::HeapError;
use crate::layout::{CARD_TABLE_BYTES, PAGE, PAGE_SHIFT};
use crate::page_set::PageIx;
use crate::seat::{HEAP_START, SeatMemory, SeatPtr, Tracking};
use crate::sys::{Access, Sharing};
use crate::undo::RecordKind;

/// What came of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The access can be tried again.
    Again,
    /// It is not a fault of this seat's heap that the heap knows.
    NotOurs,
    /// The access is to be tried again, and cannot be: the kernel refuses, or a page is lost. It must not be skipped.
    Refused(HeapError),
}

/// Value of a card whose page is saved.
const DIRTY: u8 = 1;
/// Added to a card while changed pages are counted. Never seen by JIT code.
const CHANGED: u8 = 0x80;

/// Faults after which a fault unprotects twice as many pages: it bounds the mappings that a scattered heap is torn into.
const FAULTS_A_STEP: u32 = 64;
/// Doublings at most: 2^11 pages = 8 MiB a fault.
const STEPS_MAX: u32 = 11;
/// A fault saves an aligned block of this many pages if a quarter of them are saved already: a fault costs as much as some twenty copies.
const BLOCKS: [usize; 3] = [64, 16, 4];

impl SeatMemory {
    fn card_address(&self, page: usize) -> *mut u8 {
        assert!(page < CARD_TABLE_BYTES);
        // SAFETY: the card table is the first CARD_TABLE_BYTES of the region.
        unsafe { self.region.base().add(page) }
    }

    pub(crate) fn card(&self, page: usize) -> u8 {
        // SAFETY: cards are mapped for the seat's life.
        unsafe { self.card_address(page).read() }
    }

    fn set_card(&mut self, page: usize, value: u8) {
        // SAFETY: as in `card`; `&mut self` is exclusive.
        unsafe { self.card_address(page).write(value) }
    }

    /// Appends a record of the page as it is now. Async-signal-safe.
    pub(crate) fn record(&mut self, page: usize, kind: RecordKind) {
        let at = self.heap_byte(page << PAGE_SHIFT).cast_const();
        assert!((page + 1) << PAGE_SHIFT <= self.mapped && !self.is_shut(page));
        let Some(message) = &mut self.message else { return };
        // SAFETY: the page is mapped and readable (asserted); the undo log is elsewhere.
        let pushed = unsafe { message.undo.push(PageIx(page as u32), kind, at) };
        // A log has room for a full and a head record of every page that a card exists for, and no page gets two of a kind.
        assert!(pushed.is_ok(), "undo log full");
        if self.attached.is_some_and(|a| a.sharing == Sharing::Shared) {
            // SAFETY: the message ends (`commit`, `rollback`) with the versions being told before its log goes.
            unsafe { message.slot.versions.saved(PageIx(page as u32), message.undo.records()) };
        }
    }

    /// The largest of [`BLOCKS`] around `page` of which a quarter is saved; 1 if there is none. Async-signal-safe.
    fn dense_block(&self, page: usize, pages: usize) -> usize {
        let is_dense = |block: &usize| {
            let first = page & !(block - 1);
            (first..(first + block).min(pages)).filter(|page| self.card(*page) != 0).count() >= block / 4
        };
        BLOCKS.into_iter().find(is_dense).unwrap_or(1)
    }

    /// Saves a page that is not saved yet, and under `Cards` the head of the one after it.
    #[inline]
    fn save(&mut self, page: usize, begin_pages: usize, tracking: Tracking) {
        let heads = tracking == Tracking::Cards;
        let after_head = heads && page > 0 && self.card(page - 1) != 0;
        self.record(
            page,
            match (page < begin_pages, after_head) {
                (true, false) => RecordKind::Full,
                (true, true) => RecordKind::FullAfterHead,
                (false, false) => RecordKind::Fresh,
                (false, true) => RecordKind::FreshAfterHead,
            },
        );
        let next = page + 1;
        if heads && next << PAGE_SHIFT < self.mapped && self.card(next) == 0 {
            self.record(next, if next < begin_pages { RecordKind::Head } else { RecordKind::FreshHead });
        }
        self.set_card(page, DIRTY);
    }

    /// The slow path of JIT code's card test: saves the page of `address`. Does nothing for an address outside of the heap (the store will trap),
    /// for a saved page, without a message in progress, and under `Protect` (the store will fault). Async-signal-safe. Cost: copies 5 KiB.
    ///
    /// Panics: when the page is missing and cannot be had.
    #[inline]
    pub fn mark_store(&mut self, address: u64) {
        let (Some(message), Some(attached)) = (&self.message, self.attached) else { return };
        if address >= self.mapped as u64 || attached.tracking == Tracking::Protect {
            return;
        }
        let (page, begin_pages) = ((address >> PAGE_SHIFT) as usize, message.begin_bytes >> PAGE_SHIFT);
        if self.card(page) == 0 {
            if let Err(error) = self.open(page, page + 2) {
                panic!("a page cannot be saved before a store: {error}");
            }
            self.save(page, begin_pages, attached.tracking);
        }
    }

    /// Saves all pages of a range that the host is about to overwrite and makes them writable. A range of no bytes is checked and saves nothing.
    ///
    /// Errors: `OutOfBounds`; `PageLost`; `Os`.
    pub fn mark(&mut self, address: u64, length: u64) -> Result<(), HeapError> {
        self.check(address, length)?;
        if length == 0 {
            return Ok(());
        }
        let (first, last) = ((address >> PAGE_SHIFT) as usize, ((address + length - 1) >> PAGE_SHIFT) as usize);
        self.mark_pages(first, last)
    }

    /// Saves pages `first..=last`, which are in the heap, and makes them writable.
    fn mark_pages(&mut self, first: usize, last: usize) -> Result<(), HeapError> {
        let (Some(message), Some(attached)) = (&self.message, self.attached) else { return Ok(()) };
        let begin_pages = message.begin_bytes >> PAGE_SHIFT;
        // And the one whose head is saved.
        self.open(first, last + 1 + usize::from(attached.tracking == Tracking::Cards))?;
        let mut saved = false;
        // Downwards: a page that is saved when the one before it is marked needs no head record.
        for page in (first..=last).rev() {
            if self.card(page) == 0 {
                self.save(page, begin_pages, attached.tracking);
                saved = true;
            }
        }
        if saved && attached.tracking == Tracking::Protect {
            self.unprotect(first, last, begin_pages)?;
        }
        Ok(())
    }

    /// Makes saved pages writable. When the kernel is out of mappings, saves the whole heap and makes it writable: one mapping.
    fn unprotect(&mut self, first: usize, last: usize, begin_pages: usize) -> Result<(), HeapError> {
        let mut made = self.region.protect(HEAP_START + first * PAGE, (last + 1 - first) * PAGE, Access::ReadWrite);
        if made.is_err() {
            made = self.open_whole();
            if made.is_ok() {
                for page in 0..self.mapped >> PAGE_SHIFT {
                    if self.card(page) == 0 {
                        self.save(page, begin_pages, Tracking::Protect);
                    }
                }
                let mapped = self.mapped;
                made = self.region.protect(HEAP_START, mapped, Access::ReadWrite);
            }
            if let Some(message) = &mut self.message {
                message.protect_failed = made.is_err();
            }
        }
        made
    }

    /// Fills in `undo.changed`. Each byte is compared by one record: a head record answers for the head of its page.
    pub(crate) fn count_changed(&mut self) {
        let mut message = self.message.take().expect("no message is in progress");
        if !message.undo.counted {
            let mut changed = std::mem::take(&mut message.undo.changed);
            changed.clear();
            for (page, kind, saved) in message.undo.oldest_first() {
                let card = self.card(page.0 as usize);
                if card & CHANGED != 0 {
                    continue;
                }
                let range = kind.compared();
                // SAFETY: records are of pages below `mapped`, which only grows while a message is in progress; nobody stores meanwhile.
                let now = unsafe {
                    std::slice::from_raw_parts(self.heap_byte(page.address() as usize + range.start), range.len())
                };
                let same = if saved.is_empty() { is_zero(now) } else { now == &saved[range] };
                if !same {
                    self.set_card(page.0 as usize, card | CHANGED);
                    changed.push(page);
                }
            }
            for page in &changed {
                let card = self.card(page.0 as usize);
                self.set_card(page.0 as usize, card & !CHANGED);
            }
            changed.sort_unstable();
            message.undo.changed = changed;
            message.undo.counted = true;
        }
        self.message = Some(message);
    }

    /// Sets the cards of all saved pages to zero.
    pub(crate) fn clear_cards(&mut self) {
        let Some(message) = &self.message else { return };
        for page in message.undo.pages() {
            // SAFETY: the card table is mapped for the seat's life; records are of pages that have a card.
            unsafe { self.card_address(page.0 as usize).write(0) };
        }
    }

    /// Whether `address`, an address of this process, is a byte of the heap of the message in progress.
    pub fn heap_address_of(&self, address: usize) -> Option<u64> {
        let at = address.checked_sub(self.heap_base() as usize)?;
        (self.message.is_some() && at < self.mapped).then_some(at as u64)
    }
}

impl SeatPtr {
    /// To be called from the handler of SIGSEGV and SIGBUS with the faulting address. Fetches missing pages that JIT code looks at; under
    /// [`Tracking::Protect`] saves the page of a first store and makes it writable.
    ///
    /// For a page that is not missing async-signal-safe: allocates nothing unless views are at work on the heap, takes a lock that the interrupted code
    /// does not hold, makes one or two mprotect calls. For one that is see `shut`. Keeps `errno`.
    ///
    /// # Safety
    /// The seat is alive and the interrupted code is JIT code, or other code that holds no reference to the seat's memory, no lock, and is in no
    /// allocation, on the thread that runs this seat's message.
    pub unsafe fn handle_fault(self, address: usize) -> Fault {
        // SAFETY: alive and unaliased by contract.
        let seat = unsafe { self.as_mut() };
        let Some(at) = seat.heap_address_of(address) else { return Fault::NotOurs };
        // SAFETY: __errno_location is the calling thread's errno.
        let errno = unsafe { *libc::__errno_location() };
        let page = (at >> PAGE_SHIFT) as usize;
        let made = if seat.is_shut(page) { Some(seat.open(page, page + 1)) } else { seat.save_after_fault(page) };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        match made {
            None => Fault::NotOurs,
            Some(Ok(())) => Fault::Again,
            Some(Err(error)) => Fault::Refused(error),
        }
    }
}

impl SeatMemory {
    /// Saves the page of a store that faulted, and perhaps others around it; `None` if that is not why it did.
    fn save_after_fault(&mut self, page: usize) -> Option<Result<(), HeapError>> {
        if self.attached.is_none_or(|a| a.tracking != Tracking::Protect) || self.card(page) != 0 {
            return None;
        }
        let pages = self.mapped >> PAGE_SHIFT;
        let message = self.message.as_mut()?;
        let step = 1_usize << (message.faults / FAULTS_A_STEP).min(STEPS_MAX);
        message.faults += 1;
        let run = step.max(self.dense_block(page, pages));
        let first = page & !(run - 1);
        let last = (first + run).min(pages) - 1;
        Some(self.mark_pages(first, last))
    }
}
