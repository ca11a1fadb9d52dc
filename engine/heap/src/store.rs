//! Pages at rest: where the last checkpoint keeps a memory's pages, and which of them are in memory.
//!
//! Enters: runs of pages in a [`PageStore`], from a checkpoint that was made or loaded. Leaves: their bytes in the arena, before anybody looks at them.
//! Invariants owned here: a page that a run names and that is not in the arena is a hole there, and is filled before its first use, under the
//! lock; a page that changed since the checkpoint is in the arena. Never here: a file; what a page holds; who looks at it (see `shut`).
//!
//! Who asks for some pages gets those of the blocks around them too, and of a larger block once a quarter of it has been asked for: who goes through a
//! heap from one end to the other soon reads 4 MiB at a time, and who needs a page here and there reads at most four times what was asked for.
//!
//! Pages are copied into the arena, not mapped from their files: each is to be compared with its checksum before anybody looks at it, which reads it
//! anyway; a mapped file that is damaged or cut off ends the process with SIGBUS; and a memory of scattered pages would take a mapping for each.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::copying::Copying;
use crate::error::HeapError;
use crate::layout::{BLOCK_PAGES, PAGE};
use crate::page_set::{PageIx, PageSet};

/// Pages that are read from the store at once.
const BATCH: u32 = 64;
/// Pages of the larger blocks, the largest first.
const LARGER_BLOCKS: [u32; 3] = [1_024, 256, 64];
/// A larger block is read if that takes at most one read for so many of its pages.
const PAGES_A_READ: u32 = 32;

/// Where a page is in a [`PageStore`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PageAt {
    /// Number of its file.
    pub file: u32,
    /// Its index in the file.
    pub index: u32,
}

/// Pages of a memory that follow on each other, in it and in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// The first in the memory.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The first in the store.
    pub at: PageAt,
}

impl PageRun {
    /// The page behind the last.
    pub const fn end(&self) -> u32 {
        self.first + self.count
    }

    /// The part of it in `[from, to)`, if there is one.
    pub fn part(&self, from: u32, to: u32) -> Option<Self> {
        let (first, end) = (self.first.max(from), self.end().min(to));
        let at = PageAt { file: self.at.file, index: self.at.index + (first.saturating_sub(self.first)) };
        (first < end).then(|| Self { first, count: end - first, at })
    }

    /// Adds a run behind others, as part of the last one if it goes on there.
    pub fn push(runs: &mut Vec<Self>, run: Self) {
        match runs.last_mut() {
            Some(last)
                if last.end() == run.first
                    && (last.at.file, last.at.index + last.count) == (run.at.file, run.at.index) =>
            {
                last.count += run.count;
            }
            _ => runs.push(run),
        }
    }
}

/// Where pages are kept. What it gives out has been compared with a checksum.
pub trait PageStore: Send + Sync + fmt::Debug {
    /// Reads pages that follow on each other; `into` is as long as they are.
    ///
    /// Errors: they are damaged or cannot be read; which, in words, with file and place.
    fn read(&self, at: PageAt, into: &mut [u8]) -> Result<(), String>;

    /// Lets a file stay as long as what is returned does: a memory has pages there.
    fn hold(&self, file: u32) -> Arc<()>;
}

/// Room for pages on their way from a store into the arena.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where the pages go: pages of the memory that follow on each other in the store.
    parts: Vec<Range<u32>>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH as usize * PAGE], parts: Vec::with_capacity(BATCH as usize) }
    }
}

/// In place of how many pages are missing: some are being copied.
const COPYING: u64 = u64::MAX;

/// What is known of a slot's pages at rest.
#[derive(Debug, Default)]
pub(crate) struct AtRest {
    /// How many pages are missing in the arena, or [`COPYING`].
    absent: AtomicU64,
    /// How often pages were given back.
    releases: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    store: Option<Arc<dyn PageStore>>,
    /// Ascending.
    runs: Box<[PageRun]>,
    /// Keeps the files of the runs.
    _holds: Box<[Arc<()>]>,
    /// Pages of the runs that are in the arena, if it lacks some; otherwise all are, and this is empty.
    present: PageSet,
    /// How many of the runs' pages are not.
    absent: u64,
    /// What brings other pages, which nobody has waited for yet, or which has failed.
    copying: Option<Arc<Copying>>,
}

impl State {
    /// Counts anew what is absent, given `present`. Cost: O(runs + present).
    fn count_absent(&mut self) {
        let named: u64 = self.runs.iter().map(|run| u64::from(run.count)).sum();
        let mut runs = self.runs.iter().peekable();
        let is_named = |page: &PageIx| {
            while runs.next_if(|run| run.end() <= page.0).is_some() {}
            runs.peek().is_some_and(|run| run.first <= page.0)
        };
        self.absent = named - self.present.iter().filter(is_named).count() as u64;
    }

    /// Errors: why pages could not be copied.
    fn check_copied(&self) -> Result<(), HeapError> {
        self.copying.as_ref().map_or(Ok(()), |copying| copying.wait())
    }

    /// The parts of runs in `[from, to)`.
    fn parts(&self, from: u32, to: u32) -> impl Iterator<Item = PageRun> + '_ {
        let behind = self.runs.partition_point(|run| run.end() <= from);
        self.runs[behind..].iter().map_while(move |run| run.part(from, to))
    }

    /// The first pages of `[from, to)` that are absent and follow on each other, in the memory and in the store.
    fn first_absent(&self, from: u32, to: u32) -> Option<PageRun> {
        self.parts(from, to).find_map(|part| {
            let gap = self.present.first_gap(part.first, part.end())?;
            part.part(gap.start, gap.end)
        })
    }

    /// The blocks to be fetched for `[first, end)`; more than those that are there already only if some are not.
    fn blocks_for(&self, first: u32, end: u32) -> Range<u32> {
        let around = |size: u32| first & !(size - 1)..end.next_multiple_of(size);
        let least = around(BLOCK_PAGES as u32);
        let is_there = self.first_absent(least.start, least.end).is_none();
        let worthwhile = |block: &Range<u32>| {
            if is_there {
                return self.first_absent(block.start, block.end).is_none();
            }
            let (mut named, mut there, mut reads, mut next) = (0, 0, 0, None);
            for part in self.parts(block.start, block.end) {
                named += u64::from(part.count);
                there += self.present.count(part.first, part.end());
                reads += u32::from(next != Some(part.at));
                next = Some(PageAt { index: part.at.index + part.count, ..part.at });
            }
            named <= 4 * there && reads * PAGES_A_READ <= block.len() as u32
        };
        let larger = LARGER_BLOCKS.into_iter().map(around);
        let mut larger = larger.filter(|block| block.len() <= LARGER_BLOCKS[0] as usize);
        larger.find(worthwhile).unwrap_or(least)
    }

    /// Fetches what is absent of `[from, to)`.
    fn fetch(
        &mut self,
        from: u32,
        to: u32,
        batch: &mut Batch,
        mut write: impl FnMut(u64, &[u8]) -> Result<(), HeapError>,
    ) -> Result<(), HeapError> {
        // With nothing absent `present` is not kept.
        let Some(store) = self.store.clone().filter(|_| self.absent > 0) else { return Ok(()) };
        let mut from = from;
        while let Some(first) = self.first_absent(from, to) {
            // As many as one read brings.
            batch.parts.clear();
            let (mut count, mut next) = (0, Some(first));
            while let Some(part) = next.take() {
                let taken = part.count.min(BATCH - count);
                batch.parts.push(part.first..part.first + taken);
                count += taken;
                from = part.first + taken;
                if count < BATCH {
                    let goes_on = PageAt { index: first.at.index + count, ..first.at };
                    next = self.first_absent(from, to).filter(|part| part.at == goes_on);
                }
            }
            let bytes = &mut batch.bytes[..count as usize * PAGE];
            store.read(first.at, bytes).map_err(|words| lost(&words))?;
            let mut bytes = &*bytes;
            for part in &batch.parts {
                let (now, later) = bytes.split_at(part.len() * PAGE);
                write(PageIx(part.start).address(), now)?;
                self.present.insert_range(part.start, part.end);
                self.absent -= part.len() as u64;
                bytes = later;
            }
        }
        Ok(())
    }
}

impl AtRest {
    /// What is known once nothing is being copied.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.locked();
        if self.absent.load(Ordering::Acquire) == COPYING {
            state.copying.take_if(|copying| copying.wait().is_ok());
            self.note_absent(&mut state);
        }
        state
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic stops the node.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages are being copied into the arena, which those of the runs that are there include.
    pub(crate) fn wait_for(&self, copying: Arc<Copying>) {
        let mut state = self.locked();
        state.copying = Some(copying);
        self.absent.store(COPYING, Ordering::Release);
    }

    /// Number of pages that are in the store and not in the arena; at least one where pages could not be copied, which whoever fetches is told.
    pub(crate) fn absent(&self) -> u64 {
        match self.absent.load(Ordering::Acquire) {
            COPYING => {
                drop(self.state());
                self.absent.load(Ordering::Acquire)
            }
            absent => absent,
        }
    }

    /// How often pages were given back. It does not change while a message is in progress or a view is at work.
    pub(crate) fn releases(&self) -> u64 {
        self.releases.load(Ordering::Acquire)
    }

    /// Where its pages are.
    pub(crate) fn runs(&self) -> Vec<PageRun> {
        self.state().runs.to_vec()
    }

    /// Whether some of the runs' pages are in the arena.
    pub(crate) fn has_present(&self) -> bool {
        let state = self.state();
        state.runs.iter().map(|run| u64::from(run.count)).sum::<u64>() > state.absent
    }

    /// The store, and where in it.
    pub(crate) fn place(&self) -> Option<(Arc<dyn PageStore>, Vec<PageRun>)> {
        let state = self.state();
        Some((Arc::clone(state.store.as_ref()?), state.runs.to_vec()))
    }

    /// The pages are in `store` from now on; those of `present` are in the arena too, or all of them if it is `None`.
    pub(crate) fn lie_in(&self, store: &Arc<dyn PageStore>, runs: Vec<PageRun>, present: Option<PageSet>) {
        self.place_in(&mut self.state(), store, runs, present);
    }

    /// After a checkpoint: the pages `saved` are where `runs` say, as are all others.
    pub(crate) fn move_to(&self, store: &Arc<dyn PageStore>, runs: Vec<PageRun>, saved: &PageSet) {
        // Under one lock: views fetch pages meanwhile.
        let mut state = self.state();
        let present = (state.absent > 0).then(|| {
            let mut present = std::mem::take(&mut state.present);
            present.union(saved);
            present
        });
        self.place_in(&mut state, store, runs, present);
    }

    fn place_in(&self, state: &mut State, store: &Arc<dyn PageStore>, runs: Vec<PageRun>, present: Option<PageSet>) {
        debug_assert!(runs.is_sorted_by(|a, b| a.end() <= b.first));
        let all_present = present.is_none();
        let files: BTreeSet<u32> = runs.iter().map(|run| run.at.file).collect();
        let holds = files.into_iter().map(|file| store.hold(file)).collect();
        let (store, runs, present) = (Some(Arc::clone(store)), runs.into(), present.unwrap_or_default());
        *state = State { store, runs, _holds: holds, present, absent: 0, copying: state.copying.take() };
        if !all_present {
            state.count_absent();
        }
        self.note_absent(state);
    }

    fn note_absent(&self, state: &mut State) {
        if state.absent == 0 {
            state.present.clear();
        }
        self.absent.store(state.absent.max(u64::from(state.copying.is_some())), Ordering::Release);
    }

    /// Keeps those of the runs' pages in the arena that `kept` names; `drop_others` makes holes of all others meanwhile. Nobody looks at them.
    pub(crate) fn keep_only(
        &self,
        kept: &PageSet,
        drop_others: impl FnOnce() -> Result<(), HeapError>,
    ) -> Result<(), HeapError> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.present = kept.clone();
        state.count_absent();
        self.note_absent(state);
        self.releases.fetch_add(1, Ordering::Release);
        // A page that is a hole for no reason is fetched in vain; one that is not although it should be has the same bytes.
        drop_others()
    }

    /// Sees to it that the pages of `[from, to)` are in the arena, where `write` puts the bytes of pages.
    ///
    /// Errors: `PageLost`, `Os`.
    pub(crate) fn fetch(
        &self,
        from: u64,
        to: u64,
        batch: &mut Batch,
        write: impl FnMut(u64, &[u8]) -> Result<(), HeapError>,
    ) -> Result<(), HeapError> {
        let [from, to] = [from, to].map(|page| page.min(u64::from(u32::MAX)) as u32);
        let mut state = self.state();
        state.check_copied()?;
        let fetched = state.fetch(from, to, batch, write);
        self.note_absent(&mut state);
        fetched
    }

    /// Sees to it that the pages of `[first, end)` and of blocks around them are in the arena. Returns which: all that exist once none is missing any more.
    ///
    /// Errors: as [`AtRest::fetch`].
    pub(crate) fn fetch_blocks(
        &self,
        first: u32,
        end: u32,
        batch: &mut Batch,
        write: impl FnMut(u64, &[u8]) -> Result<(), HeapError>,
    ) -> Result<Range<u32>, HeapError> {
        let mut state = self.state();
        state.check_copied()?;
        if state.absent == 0 {
            return Ok(0..u32::MAX);
        }
        let blocks = state.blocks_for(first, end);
        let fetched = state.fetch(blocks.start, blocks.end, batch, write);
        self.note_absent(&mut state);
        fetched.map(|()| if state.absent == 0 { 0..u32::MAX } else { blocks })
    }

    /// The first absent pages of `[from, to)` that follow on each other.
    pub(crate) fn first_absent(&self, from: u32, to: u32) -> Option<Range<u32>> {
        let state = self.state();
        let run = state.first_absent(from, to).filter(|_| state.absent > 0)?;
        Some(run.first..run.end())
    }

    /// Reads pages, what is in the arena by `read`, the others from the store, without bringing them into the arena.
    ///
    /// Errors: `PageLost`, `Os`.
    pub(crate) fn read_through(
        &self,
        first: u32,
        into: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<(), HeapError>,
    ) -> Result<(), HeapError> {
        // Held throughout: nobody fetches a page between the two.
        let state = self.state();
        read(into)?;
        let Some(store) = state.store.as_ref().filter(|_| state.absent > 0) else { return Ok(()) };
        let (mut from, end) = (first, first + (into.len() / PAGE) as u32);
        while let Some(run) = state.first_absent(from, end) {
            let bytes = (run.first - first) as usize * PAGE..(run.end() - first) as usize * PAGE;
            store.read(run.at, &mut into[bytes]).map_err(|words| lost(&words))?;
            from = run.end();
        }
        Ok(())
    }
}

/// Says which page is lost: the error that goes up carries no words.
fn lost(words: &str) -> HeapError {
    eprintln!("a page of a canister's memory is lost: {words}");
    HeapError::PageLost
}

/// Where pages are after a checkpoint: `old`, but for the pages `saved`, which are where `new` says, or are zero and in neither. Both ascending.
pub fn merge_runs(old: &[PageRun], saved: &PageSet, new: &[PageRun]) -> Vec<PageRun> {
    let mut merged = Vec::with_capacity(old.len() + new.len());
    let mut kept = Vec::with_capacity(old.len());
    let mut changed = saved.iter().map(|page| page.0).peekable();
    for run in old {
        let mut from = run.first;
        while changed.next_if(|page| *page < from).is_some() {}
        while let Some(page) = changed.next_if(|page| *page < run.end()) {
            kept.extend(run.part(from, page));
            from = page + 1;
        }
        kept.extend(run.part(from, run.end()));
    }
    let (mut kept, mut new) = (kept.into_iter().peekable(), new.iter().copied().peekable());
    loop {
        let next = match (kept.peek(), new.peek()) {
            (Some(a), Some(b)) if a.first < b.first => kept.next(),
            (Some(_), None) => kept.next(),
            _ => new.next(),
        };
        match next {
            Some(run) => PageRun::push(&mut merged, run),
            None => return merged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(runs: &[PageRun], page: u32) -> Option<&PageRun> {
        runs.iter().find(|run| (run.first..run.end()).contains(&page))
    }

    fn run(first: u32, count: u32, file: u32, index: u32) -> PageRun {
        PageRun { first, count, at: PageAt { file, index } }
    }

    #[test]
    fn merged_runs_name_each_page_where_it_was_last_saved() {
        let old = [run(0, 10, 1, 0), run(20, 5, 1, 10), run(100, 1, 2, 7)];
        let saved: PageSet = [0, 3, 4, 21, 24, 50, 100].into_iter().map(PageIx).collect();
        // Page 4 and page 100 have become zero.
        let new = [run(0, 1, 3, 0), run(3, 1, 3, 1), run(21, 1, 3, 2), run(24, 1, 3, 3), run(50, 1, 3, 4)];
        let merged = merge_runs(&old, &saved, &new);
        let place = |page| run_of(&merged, page).map(|run| (run.at.file, run.at.index + page - run.first));
        for page in 0..120 {
            let expected = match page {
                0 => Some((3, 0)),
                3 => Some((3, 1)),
                21 => Some((3, 2)),
                24 => Some((3, 3)),
                50 => Some((3, 4)),
                4 | 100 => None,
                1..10 => Some((1, page)),
                20..25 => Some((1, page - 10)),
                _ => None,
            };
            assert_eq!(place(page), expected, "{page}");
        }
        assert!(merged.is_sorted_by(|a, b| a.end() <= b.first));
    }

    #[test]
    fn who_looks_at_pages_that_could_not_be_copied_is_told_again_and_again() {
        let error = HeapError::Os { operation: "write", errno: libc::ENOMEM };
        let at_rest = AtRest::default();
        at_rest.wait_for(Arc::new(Copying::ended(Err(error))));
        for _ in 0..2 {
            assert_eq!(at_rest.absent(), 1);
            let mut batch = Batch::default();
            assert_eq!(at_rest.fetch(0, 0, &mut batch, |_, _| Ok(())), Err(error));
            assert_eq!(at_rest.fetch_blocks(0, 1, &mut batch, |_, _| Ok(())), Err(error));
        }
        let copied = AtRest::default();
        copied.wait_for(Arc::new(Copying::ended(Ok(()))));
        assert_eq!((copied.absent(), copied.fetch(0, 0, &mut Batch::default(), |_, _| Ok(()))), (0, Ok(())));
    }

    #[test]
    fn runs_that_go_on_become_one() {
        let merged = merge_runs(&[run(0, 2, 1, 0)], &PageSet::new(), &[run(2, 2, 1, 2), run(4, 1, 1, 9)]);
        assert_eq!(merged, [run(0, 4, 1, 0), run(4, 1, 1, 9)]);
    }
}
