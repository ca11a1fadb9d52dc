//! Copies of pages from one memory to another, on threads that go on while rounds do.
//!
//! Invariants owned here: none of the bytes that are copied changes before [`Copying::wait`] has returned. Both ends see to that: the memory they come
//! from before it changes (`version`), the one they go to before anybody looks at it (`store`).

use std::mem;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, available_parallelism, scope};

use crate::arena::{COPY_BYTES, Slot, is_zero};
use crate::error::HeapError;
use crate::layout::PAGE;
use crate::page_set::PageIx;
use crate::sys;

/// Pages that are worth the start of a thread.
pub(crate) const SEVERAL: usize = 512;
/// Threads that copy one memory: the kernel takes most of the time, to find memory.
const COPIERS_MAX: usize = 4;

/// Pages that are being copied.
#[derive(Debug)]
pub(crate) struct Copying(Mutex<Progress>);

#[derive(Debug)]
enum Progress {
    Goes(JoinHandle<Result<(), HeapError>>),
    Ended(Result<(), HeapError>),
}

impl Copying {
    /// Begins to copy pages that are in the arena, ascending; where no thread can be had, they are copied when this returns.
    pub(crate) fn begin(from: &Arc<Slot>, to: &Arc<Slot>, pages: Vec<PageIx>) -> Self {
        let (source, target, pages) = (Arc::clone(from), Arc::clone(to), Arc::new(pages));
        let theirs = Arc::clone(&pages);
        let thread = Builder::new().name("copy pages".into()).spawn(move || copy_by_several(&source, &target, &theirs));
        match thread {
            Ok(thread) => Self(Mutex::new(Progress::Goes(thread))),
            Err(_) => Self::ended(copy(from, to, &pages)),
        }
    }

    /// What came of a copy.
    pub(crate) fn ended(ended: Result<(), HeapError>) -> Self {
        Self(Mutex::new(Progress::Ended(ended)))
    }

    /// Waits until they are, or cannot be.
    pub(crate) fn wait(&self) -> Result<(), HeapError> {
        // Whoever else waits does so for the lock. A panic stops the node.
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = match mem::replace(&mut *progress, Progress::Ended(Ok(()))) {
            Progress::Goes(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Progress::Ended(ended) => ended,
        };
        *progress = Progress::Ended(ended);
        ended
    }
}

fn copy_by_several(from: &Slot, to: &Slot, pages: &[PageIx]) -> Result<(), HeapError> {
    let threads = available_parallelism().map_or(1, |cores| cores.get()).min(COPIERS_MAX);
    scope(|scope| {
        let parts = pages.chunks(pages.len().div_ceil(threads).max(SEVERAL));
        let copiers: Vec<_> = parts.map(|part| scope.spawn(move || copy(from, to, part))).collect();
        copiers.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Copies pages that are in the arena, ascending.
pub(crate) fn copy(from: &Slot, to: &Slot, pages: &[PageIx]) -> Result<(), HeapError> {
    let mut buffer = vec![0; COPY_BYTES];
    for run in pages.chunk_by(|a, b| a.0 + 1 == b.0).flat_map(|run| run.chunks(COPY_BYTES / PAGE)) {
        let (mut at, bytes) = (run[0].address(), &mut buffer[..run.len() * PAGE]);
        sys::read_at(from.file(), from.offset() + at, bytes)?;
        for part in bytes.as_chunks::<PAGE>().0.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let part = part.as_flattened();
            // What is all zero stays a hole.
            if !is_zero(part) {
                sys::write_at(to.file(), to.offset() + at, part)?;
            }
            at += part.len() as u64;
        }
    }
    Ok(())
}
