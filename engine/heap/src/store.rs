//! Pages at rest: where the last checkpoint keeps a memory's pages, and which of them are in memory.
//!
//! Enters: runs of pages in a [`PageStore`], from a checkpoint that was made or loaded. Leaves: their bytes in the arena, before anybody looks at them.
//! Invariants owned here: a page that a run names and that is not in the arena is a hole there, and is filled before its first use, under the
//! lock; a page that changed since the checkpoint is in the arena. Never here: a file; what a page holds.
//!
//! Pages are copied into the arena, not mapped from their files: each is to be compared with its checksum before anybody looks at it, which reads it
//! anyway; a mapped file that is damaged or cut off ends the process with SIGBUS; and a memory of scattered pages would take a mapping for each.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::HeapError;
use crate::layout::PAGE;
use crate::page_set::{PageIx, PageSet};

/// Pages that are read from the store at once.
const BATCH: usize = 64;

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
}

/// What is known of a slot's pages at rest.
#[derive(Debug, Default)]
pub(crate) struct AtRest {
    /// Whether some page may be missing in the arena.
    lacks: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    store: Option<Arc<dyn PageStore>>,
    /// Ascending.
    runs: Vec<PageRun>,
    /// Pages of the runs that are in the arena, if it lacks some; otherwise all are, and this is empty.
    present: PageSet,
    /// How many of the runs' pages are not.
    absent: u64,
}

impl AtRest {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic stops the node.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether some page may be missing in the arena.
    pub(crate) fn lacks_pages(&self) -> bool {
        self.lacks.load(Ordering::Acquire)
    }

    /// Where its pages are.
    pub(crate) fn runs(&self) -> Vec<PageRun> {
        self.state().runs.clone()
    }

    /// Whether some of the runs' pages are in the arena.
    pub(crate) fn has_present(&self) -> bool {
        let state = self.state();
        state.runs.iter().map(|run| u64::from(run.count)).sum::<u64>() > state.absent
    }

    /// The store, and where in it.
    pub(crate) fn place(&self) -> Option<(Arc<dyn PageStore>, Vec<PageRun>)> {
        let state = self.state();
        Some((Arc::clone(state.store.as_ref()?), state.runs.clone()))
    }

    /// Number of pages that are in the store and not in the arena.
    pub(crate) fn absent(&self) -> u64 {
        self.state().absent
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
        let all = runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
        let (present, absent) = match present {
            None => (PageSet::new(), 0),
            Some(present) => {
                let there = present.iter().filter(|page| run_of(&runs, page.0).is_some()).count();
                (present, all - there as u64)
            }
        };
        *state = State { store: Some(Arc::clone(store)), runs, present, absent };
        self.lacks.store(absent > 0, Ordering::Release);
    }

    /// Keeps those of the runs' pages in the arena that `kept` names; `drop_others` makes holes of all others meanwhile.
    pub(crate) fn keep_only(
        &self,
        kept: &PageSet,
        drop_others: impl FnOnce() -> Result<(), HeapError>,
    ) -> Result<(), HeapError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let there = kept.iter().filter(|page| run_of(&state.runs, page.0).is_some()).count();
        state.absent = state.runs.iter().map(|run| u64::from(run.count)).sum::<u64>() - there as u64;
        state.present = kept.clone();
        self.lacks.store(state.absent > 0, Ordering::Release);
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
        mut write: impl FnMut(u64, &[u8]) -> Result<(), HeapError>,
    ) -> Result<(), HeapError> {
        if !self.lacks_pages() {
            return Ok(());
        }
        let (from, to) = (from.min(u64::from(u32::MAX)) as u32, to.min(u64::from(u32::MAX)) as u32);
        let mut guard = self.state();
        let state = &mut *guard;
        if state.absent == 0 {
            // Somebody fetched the last one while this waited for the lock; `present` is not kept any more.
            return Ok(());
        }
        let Some(store) = state.store.clone() else { return Ok(()) };
        let mut buffer = Vec::new();
        let behind = state.runs.partition_point(|run| run.end() <= from);
        for run in state.runs[behind..].iter().take_while(|run| run.first < to) {
            let Some(part) = run.part(from, to) else { continue };
            let mut page = part.first;
            while page < part.end() {
                let is_absent = |page: u32| !state.present.contains(PageIx(page));
                if !is_absent(page) {
                    page += 1;
                    continue;
                }
                let limit = part.end().min(page + BATCH as u32);
                let end = (page..limit).find(|page| !is_absent(*page)).unwrap_or(limit);
                buffer.resize((end - page) as usize * PAGE, 0);
                let at = PageAt { file: part.at.file, index: part.at.index + (page - part.first) };
                store.read(at, &mut buffer).map_err(|words| lost(&words))?;
                write(PageIx(page).address(), &buffer)?;
                for page in page..end {
                    state.present.insert(PageIx(page));
                }
                state.absent -= u64::from(end - page);
                page = end;
            }
        }
        if state.absent == 0 {
            state.present.clear();
            self.lacks.store(false, Ordering::Release);
        }
        Ok(())
    }
}

/// Says which page is lost: the error that goes up carries no words.
fn lost(words: &str) -> HeapError {
    eprintln!("a page of a canister's memory is lost: {words}");
    HeapError::PageLost
}

/// The run that names a page.
pub(crate) fn run_of(runs: &[PageRun], page: u32) -> Option<&PageRun> {
    runs.get(runs.partition_point(|run| run.end() <= page)).filter(|run| run.first <= page)
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
    fn runs_that_go_on_become_one() {
        let merged = merge_runs(&[run(0, 2, 1, 0)], &PageSet::new(), &[run(2, 2, 1, 2), run(4, 1, 1, 9)]);
        assert_eq!(merged, [run(0, 4, 1, 0), run(4, 1, 1, 9)]);
    }
}
