//! The state file of a checkpoint: which files of pages it needs, the records of the subnet, and where those of canisters and modules are.

use crate::StorageError;
use crate::checkpoint::frames::{FrameReader, FrameWriter};
use crate::checkpoint::{pages_path, state_path};
use crate::directory::io;
use crate::frame::{Frame, FrameKind};
use cyclotron_heap::{PageAt, PageRun};
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::Path;

const MAGIC: &[u8; 8] = b"CYCLSTA\0";
/// Bytes of an entry behind its name, and of a file in the list of them.
const ENTRY_BYTES: usize = 20;
const FILE_BYTES: usize = 16;

/// Where a record is: on pages that follow on each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordAt {
    /// The page that it begins on.
    pub page: PageAt,
    /// Where on that page, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u64,
}

/// A file of pages that a checkpoint needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileUse {
    /// Its number.
    pub number: u32,
    /// Its pages.
    pub pages: u32,
    /// Bytes of it that the checkpoint uses.
    pub used: u64,
}

/// The name of a record, and where it is.
pub type Entry<'a> = (&'a [u8], RecordAt);

/// Appends an entry. Panics: when the name is longer than 255 bytes.
pub fn encode_entry((name, at): Entry<'_>, out: &mut Vec<u8>) {
    out.push(u8::try_from(name.len()).expect("names are short"));
    out.extend_from_slice(name);
    for word in [at.page.file, at.page.index, at.offset] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&at.length.to_le_bytes());
}

/// The entries of a frame; `None` behind those that are whole.
pub fn decode_entries(mut content: &[u8]) -> impl Iterator<Item = Option<Entry<'_>>> {
    std::iter::from_fn(move || {
        let (&length, rest) = content.split_first()?;
        let Some((name, (words, rest))) = rest
            .split_at_checked(usize::from(length))
            .and_then(|(name, rest)| Some((name, rest.split_at_checked(ENTRY_BYTES)?)))
        else {
            content = &[];
            return Some(None);
        };
        content = rest;
        let word = |n: usize| u32::from_le_bytes(words[n * 4..n * 4 + 4].try_into().expect("four bytes"));
        let page = PageAt { file: word(0), index: word(1) };
        let length = u64::from_le_bytes(words[12..].try_into().expect("eight bytes"));
        Some(Some((name, RecordAt { page, offset: word(2), length })))
    })
}

/// Bytes of a record before its runs, and of a run.
const RUNS_BYTES: usize = 8;
const RUN_BYTES: usize = 16;

/// Where the pages of two memories are.
pub type Places = [Vec<PageRun>; 2];

/// Appends the head of a canister's record: where the pages of its memories are. Behind it comes the content, which names no place.
///
/// Panics: when there are more than 2^32 runs.
pub fn encode_places(places: &Places, out: &mut Vec<u8>) {
    for runs in places {
        let count = u32::try_from(runs.len()).expect("a memory has fewer pages");
        out.extend_from_slice(&count.to_le_bytes());
    }
    for run in places.iter().flatten() {
        for word in [run.first, run.count, run.at.file, run.at.index] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// Reads the head of a record, and gives the content behind it; `None`: it is cut off.
pub fn decode_places(record: &[u8]) -> Option<(Places, &[u8])> {
    let (counts, rest) = record.split_at_checked(RUNS_BYTES)?;
    let word = |bytes: &[u8], n: usize| u32::from_le_bytes(bytes[n * 4..n * 4 + 4].try_into().expect("four bytes"));
    let [heap, stable] = [word(counts, 0) as usize, word(counts, 1) as usize];
    let (runs, content) = rest.split_at_checked((heap + stable).checked_mul(RUN_BYTES)?)?;
    let run = |bytes: &[u8]| PageRun {
        first: word(bytes, 0),
        count: word(bytes, 1),
        at: PageAt { file: word(bytes, 2), index: word(bytes, 3) },
    };
    let (heap, stable) = runs.split_at(heap * RUN_BYTES);
    let runs = |bytes: &[u8]| bytes.chunks_exact(RUN_BYTES).map(run).collect();
    Some(([runs(heap), runs(stable)], content))
}

/// The state of a checkpoint on its way to disk. The checkpoint exists once [`StateWriter::commit`] has returned, and not at all before.
#[derive(Debug)]
pub struct StateWriter<F>(FrameWriter<F>);

impl<F: DiskFile> StateWriter<F> {
    /// Begins the state of a height, which needs these files of pages.
    ///
    /// Errors: also when one of them is not there.
    pub fn create<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        height: u64,
        files: &[FileUse],
    ) -> Result<Self, StorageError> {
        let mut list = Vec::with_capacity(files.len() * FILE_BYTES);
        for file in files {
            list.extend_from_slice(&file.number.to_le_bytes());
            list.extend_from_slice(&file.pages.to_le_bytes());
            list.extend_from_slice(&file.used.to_le_bytes());
        }
        for file in files {
            let path = pages_path(directory, file.number);
            disk.open(&path, Access::Read).map_err(io("open", &path))?;
        }
        let mut frames = FrameWriter::create(disk, state_path(directory, height), MAGIC, height)?;
        match frames.record(FrameKind::Files, &list) {
            Ok(()) => Ok(Self(frames)),
            Err(error) => {
                frames.discard(disk);
                Err(error)
            }
        }
    }

    /// Adds a record of any length: one frame, or several.
    pub fn record(&mut self, kind: FrameKind, content: &[u8]) -> Result<(), StorageError> {
        self.0.record(kind, content)
    }

    /// Makes it last, then makes it exist. The files that it needs are there already.
    pub fn commit<D: Disk<File = F>>(self, disk: &D) -> Result<(), StorageError> {
        self.0.commit(disk)
    }

    /// Removes what was written.
    pub fn discard<D: Disk<File = F>>(&self, disk: &D) {
        self.0.discard(disk);
    }
}

/// Reads the state file of a height. Every byte that it hands out has been compared with its checksum.
#[derive(Debug)]
pub struct StateReader<F>(FrameReader<F>);

impl<F: DiskFile> StateReader<F> {
    /// Opens the checkpoint of a height.
    pub fn open<D: Disk<File = F>>(disk: &D, directory: &Path, height: u64) -> Result<Self, StorageError> {
        Ok(Self(FrameReader::open(disk, &state_path(directory, height), MAGIC, height)?))
    }

    /// The files of pages that it needs: its first record.
    pub fn files(&mut self) -> Result<Vec<FileUse>, StorageError> {
        let Some(frame) = self.next_record()?.filter(|frame| frame.kind == FrameKind::Files) else {
            return Err(self.malformed("it does not begin with the files that it needs"));
        };
        let (files, rest) = frame.content.as_chunks::<FILE_BYTES>();
        if !rest.is_empty() {
            return Err(self.malformed("a file is cut off in the list of those that it needs"));
        }
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        Ok(files
            .iter()
            .map(|file| FileUse {
                number: word(&file[..4]),
                pages: word(&file[4..8]),
                used: u64::from_le_bytes(file[8..].try_into().expect("eight bytes")),
            })
            .collect())
    }

    /// The next record, put together from its frames; none behind the last.
    pub fn next_record(&mut self) -> Result<Option<Frame>, StorageError> {
        self.0.next_record()
    }

    /// An error: the records are of another version.
    pub fn other_version(&self, version: u32, known: u32) -> StorageError {
        StorageError::Version { path: self.0.path().to_owned(), version, known }
    }

    /// An error: every byte is as it was written, and yet this program makes something else of it.
    pub fn unfaithful(&self) -> StorageError {
        StorageError::Unfaithful { path: self.0.path().to_owned() }
    }

    /// An error about what was read last, or what that names: it is not what its kind says.
    pub fn malformed(&self, what: &'static str) -> StorageError {
        self.0.malformed(what)
    }
}
