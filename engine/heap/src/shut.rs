//! What a seat shows of a heap of which pages are missing in the arena: blocks of it, opened when somebody looks at them.
//!
//! Enters: faults of JIT code, ranges that the host is about to look at, pages that were given back. Leaves: pages in the arena, blocks that can be seen.
//! Invariants owned here, of a seat that has [`Shutters`]:
//! - all pages of an open block are in the arena while a message is in progress or a view is at work, and no page of a block that is shut can be
//!   accessed; of one that is shut no page was saved, and none was stored to but by [`Versions`](crate::version), which shuts it again;
//! - during a message blocks are opened and never shut; those of a view are opened under its memory's lock for versions, so that a message that copies
//!   a page for the view knows which are.
//!
//! Without [`Shutters`] nothing is missing, as the seat's last look at the heap's pages says: [`SeatMemory::match_pages`], at the begin of each message.
//!
//! # Mappings
//!
//! Open blocks between others that are shut take the kernel two mappings, of which a process has 65,530. A seat that has many such regions, or has
//! a few when all seats have many, opens what is between a block and its nearest neighbour too; a seat between messages, when all have many, is shut
//! and opened anew, which fetches nothing that is there.
//!
//! # In a signal handler
//!
//! [`SeatMemory::open`] is called by the handler of SIGSEGV for a fault of JIT code. It takes locks, reads files, and may allocate. That is sound: the
//! fault is one of the thread's own instruction, not of another moment, and JIT code holds no lock and is in no allocation; so the thread is
//! as it would be in a call from there. Nothing that holds one of these locks touches a page that is shut.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::arena::Slot;
use crate::error::HeapError;
use crate::layout::{BLOCK_PAGES, PAGE};
use crate::seat::{Attachment, HEAP_START, SeatMemory, SeatShared, Tracking};
use crate::sys::{self, Access, Sharing};

/// A heap that lacks so few pages gets them all before a message: one read costs less than faults.
const FETCHED_WHOLE_MAX: u64 = 64;
/// Regions of one seat.
const SEAT_REGIONS_MAX: usize = 1_024;
/// Regions of all seats beyond which a seat gets no more than [`SEAT_REGIONS_MIN`], and keeps one between messages.
const REGIONS_MAX: usize = 4_096;
/// Regions that a seat may have in any case.
const SEAT_REGIONS_MIN: usize = 16;

/// Which blocks of a seat's heap are open. Blocks beyond those that it knows of are.
#[derive(Debug)]
pub(crate) struct Shutters {
    /// A bit a block. Changed by the seat's thread alone; of a view under the lock.
    open: Box<[AtomicU64]>,
    blocks: usize,
    /// How many are shut.
    shut: AtomicUsize,
    /// Runs of open blocks.
    regions: AtomicUsize,
    shared: Arc<SeatShared>,
}

impl Drop for Shutters {
    fn drop(&mut self) {
        self.shared.regions.fetch_sub(self.regions(), Ordering::Relaxed);
    }
}

impl Shutters {
    /// All shut.
    pub(crate) fn new(blocks: usize, shared: Arc<SeatShared>) -> Self {
        let open = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { open, blocks, shut: AtomicUsize::new(blocks), regions: AtomicUsize::new(0), shared }
    }

    /// Whether the block of a page is open.
    #[inline]
    pub(crate) fn shows(&self, page: usize) -> bool {
        self.is_open(page / BLOCK_PAGES)
    }

    #[inline]
    fn is_open(&self, block: usize) -> bool {
        block >= self.blocks || self.open[block / 64].load(Ordering::Relaxed) >> (block % 64) & 1 == 1
    }

    fn regions(&self) -> usize {
        self.regions.load(Ordering::Relaxed)
    }

    /// The first blocks of a range that are `open`, or are not, and follow on each other.
    fn first_run(&self, range: Range<usize>, open: bool) -> Option<Range<usize>> {
        if !open && self.shut.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut blocks = range.start..range.end.min(self.blocks);
        let first = blocks.find(|block| self.is_open(*block) == open)?;
        let end = blocks.find(|block| self.is_open(*block) != open);
        Some(first..end.unwrap_or(range.end.min(self.blocks)))
    }

    fn runs(&self, range: Range<usize>, open: bool) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut from = range.start;
        std::iter::from_fn(move || {
            let run = self.first_run(from..range.end, open)?;
            from = run.end;
            Some(run)
        })
    }

    /// Runs of pages of open blocks.
    pub(crate) fn open_pages(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.runs(0..self.blocks, true).map(|run| run.start * BLOCK_PAGES..run.end * BLOCK_PAGES)
    }

    fn note_open(&self, range: Range<usize>) {
        let (mut opened, before) = (0, self.runs(range.start.saturating_sub(1)..range.end + 1, true).count());
        for block in range {
            let bit = 1 << (block % 64);
            opened += usize::from(self.open[block / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0);
        }
        self.shut.fetch_sub(opened, Ordering::Relaxed);
        // What was there has become one.
        for regions in [&self.regions, &self.shared.regions] {
            regions.fetch_add(1, Ordering::Relaxed);
            regions.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// A run of blocks that is to be opened, and what is between it and its nearest neighbour if it must not become a region of its own.
    fn with_gap(&self, run: Range<usize>) -> Range<usize> {
        let (regions, all) = (self.regions(), self.shared.regions.load(Ordering::Relaxed));
        if regions < SEAT_REGIONS_MIN || (regions < SEAT_REGIONS_MAX && all < REGIONS_MAX) {
            return run;
        }
        let before = (0..run.start).rev().find(|block| self.is_open(*block)).map(|block| block + 1);
        let behind = (run.end..self.blocks).find(|block| self.is_open(*block));
        match (before, behind) {
            (Some(before), Some(behind)) if behind - run.end < run.start - before => run.start..behind,
            (Some(before), _) => before..run.end,
            (None, Some(behind)) => run.start..behind,
            (None, None) => run,
        }
    }
}

impl SeatMemory {
    /// Whether the page is in a block that is shut.
    #[inline]
    pub(crate) fn is_shut(&self, page: usize) -> bool {
        self.shutters.as_ref().is_some_and(|shutters| !shutters.shows(page))
    }

    /// Sees to it that pages of the heap of the message in progress can be looked at, and stored to once they are saved.
    ///
    /// Errors: `PageLost`, `Os`. Cost: a load when nothing is missing.
    #[inline]
    pub(crate) fn open(&self, first: usize, end: usize) -> Result<(), HeapError> {
        match &self.shutters {
            None => Ok(()),
            Some(shutters) => self.open_blocks(shutters, first / BLOCK_PAGES..end.div_ceil(BLOCK_PAGES)),
        }
    }

    #[cold]
    fn open_blocks(&self, shutters: &Shutters, mut wanted: Range<usize>) -> Result<(), HeapError> {
        let (Some(message), Some(attached)) = (&self.message, self.attached) else { return Ok(()) };
        while let Some(run) = shutters.first_run(wanted.clone(), false) {
            let run = shutters.with_gap(run);
            let there = message.slot.fetch_blocks(run.start * BLOCK_PAGES, run.end * BLOCK_PAGES)?;
            let there = there.start as usize / BLOCK_PAGES..(there.end as usize / BLOCK_PAGES).min(shutters.blocks);
            match attached.sharing {
                Sharing::Shared => self.reveal(shutters, attached, there)?,
                Sharing::Private => message.slot.versions.locked(|| self.reveal(shutters, attached, there))?,
            }
            wanted.start = run.end;
        }
        Ok(())
    }

    /// Opens blocks whose pages are all there.
    fn reveal(&self, shutters: &Shutters, attached: Attachment, blocks: Range<usize>) -> Result<(), HeapError> {
        let shown = match attached.tracking {
            Tracking::Cards => self.allow(blocks.start * BLOCK_PAGES..blocks.end * BLOCK_PAGES, Access::ReadWrite),
            // Those that are open may have pages that can be stored to.
            Tracking::Protect => shutters
                .runs(blocks.clone(), false)
                .try_for_each(|run| self.allow(run.start * BLOCK_PAGES..run.end * BLOCK_PAGES, Access::Read)),
        };
        match (shown, attached.tracking) {
            (Ok(()), _) => shutters.note_open(blocks),
            (Err(_), Tracking::Cards) => self.show_whole(shutters)?,
            (Err(error), Tracking::Protect) => return Err(error),
        }
        Ok(())
    }

    /// When the kernel is out of mappings: fetches all, and makes it one mapping that can be stored to.
    fn show_whole(&self, shutters: &Shutters) -> Result<(), HeapError> {
        let Some(message) = &self.message else { return Ok(()) };
        message.slot.fetch(0, self.mapped as u64)?;
        self.allow(0..self.mapped / PAGE, Access::ReadWrite)?;
        shutters.note_open(0..shutters.blocks);
        Ok(())
    }

    /// As [`SeatMemory::show_whole`], for a seat under `Protect` whose pages are all about to be saved.
    pub(crate) fn open_whole(&self) -> Result<(), HeapError> {
        let (Some(shutters), Some(message), Some(attached)) = (&self.shutters, &self.message, self.attached) else {
            return Ok(());
        };
        match attached.sharing {
            Sharing::Shared => self.show_whole(shutters),
            // A message that saves a page of the view opens it and shuts it again, under this lock.
            Sharing::Private => message.slot.versions.locked(|| self.show_whole(shutters)),
        }
    }

    fn allow(&self, pages: Range<usize>, access: Access) -> Result<(), HeapError> {
        assert!(pages.end * PAGE <= self.mapped);
        let at = self.heap_byte(pages.start * PAGE);
        // SAFETY: the pages are below `mapped`, asserted, hence this seat's own; no reference into pages that were shut can exist, and others lose
        // no access by what callers ask for.
        unsafe { sys::allow(at, pages.len() * PAGE, access) }
    }

    /// Shuts all blocks.
    fn shut_all(&mut self) -> Result<(), HeapError> {
        let mapped = self.mapped;
        if let Err(error) = self.region.protect(HEAP_START, mapped, Access::None) {
            // Part of it may be.
            self.attached = None;
            return Err(error);
        }
        self.shutters = Some(Arc::new(Shutters::new(mapped.div_ceil(BLOCK_PAGES * PAGE), Arc::clone(&self.shared))));
        Ok(())
    }

    /// Brings what the seat shows in line with what the arena has of the heap, before a message. For a view it holds if nothing has been given back by the time
    /// the view is let in.
    ///
    /// Errors: `PageLost`, `Os`. Cost: two loads when nothing is missing, and nothing was when this seat was used last; else a system call.
    pub(crate) fn match_pages(&mut self, slot: &Slot) -> Result<(), HeapError> {
        let (releases, absent) = (slot.at_rest().releases(), slot.at_rest().absent());
        if (1..=FETCHED_WHOLE_MAX).contains(&absent) {
            slot.fetch(0, self.mapped as u64)?;
        }
        match (&self.shutters, slot.at_rest().absent() > 0) {
            (None, false) => {}
            (Some(_), true) if self.releases == releases => {}
            (_, true) => self.shut_all()?,
            (Some(_), false) => {
                let (mapped, access) = (self.mapped, self.attached.map_or(Access::None, |a| a.tracking.access()));
                self.region.protect(HEAP_START, mapped, access)?;
                self.shutters = None;
            }
        }
        self.releases = releases;
        Ok(())
    }

    /// Shuts all blocks, between messages, if all seats have many regions and this one more than one.
    pub(crate) fn give_regions_up(&mut self) {
        let has_some = self.shutters.as_ref().is_some_and(|shutters| shutters.regions() > 1);
        if has_some && self.shared.regions.load(Ordering::Relaxed) > REGIONS_MAX {
            // A refusal costs the attachment.
            let _ = self.shut_all();
        }
    }

    /// Makes the pages of open blocks read-only again, or shuts all if `any` page may be writable.
    pub(crate) fn protect_open(&mut self, any: bool) -> Result<(), HeapError> {
        let Some(shutters) = self.shutters.clone() else {
            let mapped = self.mapped;
            return self.region.protect(HEAP_START, mapped, Access::Read);
        };
        if any {
            return self.shut_all();
        }
        let (known, pages) = (shutters.blocks * BLOCK_PAGES, self.mapped / PAGE);
        let grown = std::iter::once(known..pages);
        shutters.open_pages().chain(grown).try_for_each(|run| self.allow(run, Access::Read))
    }

    /// Lets `act` write to a page of a view, whatever it shows of it; `act` looks at nothing that is missing.
    pub(crate) fn with_writable<R>(&self, page: usize, act: impl FnOnce() -> R) -> Result<R, HeapError> {
        let (Some(shutters), Some(message), Some(attached)) = (&self.shutters, &self.message, self.attached) else {
            return Ok(act());
        };
        message.slot.versions.locked(|| {
            self.allow(page..page + 1, Access::ReadWrite)?;
            let result = act();
            let access = if shutters.shows(page) { attached.tracking.access() } else { Access::None };
            self.allow(page..page + 1, access)?;
            Ok(result)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_counted_as_blocks_are_opened_in_any_order() {
        let shared = Arc::<SeatShared>::default();
        let shutters = Shutters::new(200, Arc::clone(&shared));
        let mut open = [false; 200];
        let mut seed = 1_u64;
        for _ in 0..120 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let first = (seed >> 33) as usize % 200;
            let end = (first + 1 + (seed >> 60) as usize % 4).min(200);
            shutters.note_open(first..end);
            open[first..end].fill(true);
            let regions = open.chunk_by(|a, b| a == b).filter(|run| run[0]).count();
            let shut = open.iter().filter(|open| !**open).count();
            assert_eq!((shutters.regions(), shutters.shut.load(Ordering::Relaxed)), (regions, shut));
            assert_eq!(shared.regions.load(Ordering::Relaxed), regions);
            assert!((0..200).all(|block| shutters.is_open(block) == open[block]) && shutters.is_open(200));
        }
        drop(shutters);
        assert_eq!(shared.regions.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_region_too_many_becomes_part_of_its_nearest_neighbour() {
        let shared = Arc::<SeatShared>::default();
        let shutters = Shutters::new(200, Arc::clone(&shared));
        assert_eq!(shutters.with_gap(3..4), 3..4);
        for block in 0..SEAT_REGIONS_MIN {
            shutters.note_open(block * 10..block * 10 + 1);
        }
        assert_eq!(shutters.with_gap(22..23), 22..23, "a seat alone may have more");
        shared.regions.fetch_add(REGIONS_MAX, Ordering::Relaxed);
        for (run, opened) in [(22..23, 21..23), (28..29, 28..30), (190..199, 151..199), (21..22, 21..22)] {
            assert_eq!(shutters.with_gap(run), opened);
        }
        shared.regions.fetch_sub(REGIONS_MAX, Ordering::Relaxed);
    }
}
