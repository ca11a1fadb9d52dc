//! Where the bytes of a manifest's files are.

use crate::StorageError;
use crate::checkpoint::{PageFiles, Places, RecordAt, decode_places};
use crate::manifest::{CHUNK_BYTES, FILE_BYTES_MAX};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageRun};
use cyclotron_ports::DiskFile;

/// Pages of a chunk.
pub(super) const CHUNK_PAGES: u32 = (CHUNK_BYTES / PAGE) as u32;
const _: () = assert!(CHUNK_BYTES.is_multiple_of(PAGE));

/// Bytes of a record that are read first: the places of most memories.
const HEAD_BYTES: u64 = 512;

/// The bytes of a file.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    /// Pages of a memory; what they leave out is zero.
    Memory(Vec<PageRun>),
    /// A record from this byte on.
    Record(RecordAt, u64),
    /// One behind the other.
    Frames(Vec<&'a [u8]>),
}

impl Source<'_> {
    /// Reads from a byte of the file on; `into` is zero, and as long as what is wanted.
    pub fn read<F: DiskFile>(
        &self,
        files: &PageFiles<F>,
        offset: u64,
        mut into: &mut [u8],
    ) -> Result<(), StorageError> {
        match self {
            Source::Memory(runs) => {
                let first = (offset / PAGE as u64) as u32;
                for run in clip(runs, first, first + CHUNK_PAGES) {
                    let from = (run.first - first) as usize * PAGE;
                    files.pages(run.at, &mut into[from..from + run.count as usize * PAGE])?;
                }
                Ok(())
            }
            Source::Record(at, skip) => read_record(files, at, *skip + offset, into),
            Source::Frames(frames) => {
                let mut skip = offset;
                for frame in frames {
                    let start = skip.min(frame.len() as u64) as usize;
                    skip -= start as u64;
                    let part = &frame[start..];
                    let now = part.len().min(into.len());
                    into[..now].copy_from_slice(&part[..now]);
                    into = &mut into[now..];
                }
                assert!(into.is_empty(), "a file is as long as it says");
                Ok(())
            }
        }
    }
}

/// The parts of runs in `[from, to)`, as few as can be.
pub(super) fn clip(runs: &[PageRun], from: u32, to: u32) -> Vec<PageRun> {
    let behind = runs.partition_point(|run| run.end() <= from);
    let mut parts = Vec::new();
    for part in runs[behind..].iter().map_while(|run| run.part(from, to)) {
        PageRun::push(&mut parts, part);
    }
    parts
}

fn read_record<F: DiskFile>(
    files: &PageFiles<F>,
    at: &RecordAt,
    from: u64,
    into: &mut [u8],
) -> Result<(), StorageError> {
    let start = u64::from(at.offset) + from;
    let skip = (start % PAGE as u64) as usize;
    // A page that no file has is refused where pages are read.
    let index = u64::from(at.page.index) + start / PAGE as u64;
    let page = PageAt { index: u32::try_from(index).unwrap_or(u32::MAX), ..at.page };
    let mut pages = vec![0; (skip + into.len()).next_multiple_of(PAGE)];
    files.pages(page, &mut pages)?;
    into.copy_from_slice(&pages[skip..skip + into.len()]);
    Ok(())
}

/// Where the pages of a canister's memories are, and where in its record the content begins; `None`: there is no record, or it says nothing of the kind.
pub(super) fn places<F: DiskFile>(files: &PageFiles<F>, at: &RecordAt) -> Result<Option<(Places, u64)>, StorageError> {
    if !files.holds(at) {
        return Ok(None);
    }
    let mut length = at.length.min(HEAD_BYTES);
    loop {
        let mut head = vec![0; length as usize];
        read_record(files, at, 0, &mut head)?;
        if let Some((places, rest)) = decode_places(&head) {
            let fits = places.iter().all(|runs| are_pages_of_a_memory(runs));
            return Ok(fits.then(|| (places, length - rest.len() as u64)));
        }
        if length == at.length {
            return Ok(None);
        }
        length = at.length.min(length.saturating_mul(8));
    }
}

fn are_pages_of_a_memory(runs: &[PageRun]) -> bool {
    let mut end = 0;
    runs.iter().all(|run| {
        let in_order = u64::from(run.first) >= end && run.count > 0;
        end = u64::from(run.first) + u64::from(run.count);
        let last = u64::from(run.at.index) + u64::from(run.count);
        in_order && end * PAGE as u64 <= FILE_BYTES_MAX && last <= u64::from(u32::MAX)
    })
}
