//! Files of pages, each with its checksum: written once, from the first page to the last, then only read.
//!
//! Invariant owned here: a page is handed out only if it is what was written.

use crate::StorageError;
use crate::checkpoint::{HEAD_BYTES, HEADER_BYTES, Output, RecordAt, decode_header, encode_header, pages_path};
use crate::directory::io;
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageStore};
use cyclotron_ports::{Access, Disk, DiskFile};
use cyclotron_trace::zone;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const MAGIC: &[u8; 8] = b"CYCLPAG\0";
/// Pages behind one page of checksums.
const GROUP: usize = 1_020;
/// Where in a page of checksums its own is.
const OWN_CHECKSUM: usize = PAGE - 4;

const _: () = assert!(GROUP * 4 <= OWN_CHECKSUM);

/// Where a group begins: its checksums, then its pages.
const fn group_at(group: u64) -> u64 {
    HEAD_BYTES + group * ((GROUP as u64 + 1) * PAGE as u64)
}

/// A file of pages on its way to disk. It exists once [`PageWriter::finish`] has returned.
#[derive(Debug)]
pub struct PageWriter<F> {
    number: u32,
    output: Output<F>,
    /// Of the group that is not written yet: room for its checksums, then its pages.
    group: Vec<u8>,
    pages: u32,
}

impl<F: DiskFile> PageWriter<F> {
    /// Begins a file in a directory.
    pub fn create<D: Disk<File = F>>(disk: &D, directory: &Path, number: u32) -> Result<Self, StorageError> {
        let output = Output::create(disk, pages_path(directory, number))?;
        let mut group = Vec::with_capacity((GROUP + 1) * PAGE);
        group.resize(PAGE, 0);
        Ok(Self { number, output, group, pages: 0 })
    }

    /// The number of the file.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How many pages there are so far.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Adds pages, one behind the other. Panics: when `pages` is not a whole number of them.
    pub fn append(&mut self, pages: &[u8]) -> Result<(), StorageError> {
        let (mut pages, rest) = pages.as_chunks::<PAGE>();
        assert!(rest.is_empty(), "{} bytes behind the last page", rest.len());
        while !pages.is_empty() {
            let room = GROUP + 1 - self.group.len() / PAGE;
            let (now, later) = pages.split_at(room.min(pages.len()));
            for page in now {
                let at = (self.group.len() / PAGE - 1) * 4;
                self.group[at..at + 4].copy_from_slice(&crc32fast::hash(page).to_le_bytes());
                self.group.extend_from_slice(page);
            }
            self.pages += now.len() as u32;
            pages = later;
            if self.group.len() == (GROUP + 1) * PAGE {
                self.write_group()?;
            }
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), StorageError> {
        let checksum = crc32fast::hash(&self.group[..OWN_CHECKSUM]);
        self.group[OWN_CHECKSUM..PAGE].copy_from_slice(&checksum.to_le_bytes());
        self.output.write(&self.group)?;
        self.group.truncate(PAGE);
        self.group.fill(0);
        Ok(())
    }

    /// Makes all of it last under its name.
    pub fn finish<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        let finished = self.end(disk);
        if finished.is_err() {
            self.discard(disk);
            // It may have its name already; nobody names it yet.
            self.discard_finished(disk);
        }
        finished
    }

    fn end<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        if self.group.len() > PAGE {
            self.write_group()?;
        }
        self.output.finish(disk, &encode_header(MAGIC, u64::from(self.number), u64::from(self.pages)))
    }

    /// Removes the file that was finished, since nothing names it. Whether or not that works: the next checkpoint removes what nobody names.
    pub fn discard_finished<D: Disk<File = F>>(&self, disk: &D) {
        let _ = disk.remove(&self.output.path);
    }

    /// Removes what was written.
    pub fn discard<D: Disk<File = F>>(&self, disk: &D) {
        self.output.discard(disk);
    }
}

/// An open file.
#[derive(Debug)]
struct PageFile<F> {
    path: PathBuf,
    file: F,
    pages: u32,
    /// The checksums that were used last, and of which group they are.
    checksums: Mutex<Option<(u64, Box<[u8; PAGE]>)>>,
    /// Cloned by each memory that has pages in it.
    held: Arc<()>,
}

impl<F: DiskFile> PageFile<F> {
    fn open<D: Disk<File = F>>(disk: &D, directory: &Path, number: u32) -> Result<Self, StorageError> {
        let path = pages_path(directory, number);
        let file = disk.open(&path, Access::Read).map_err(io("open", &path))?;
        let mut header = [0; HEADER_BYTES];
        let read = file.read_at(0, &mut header).map_err(io("read", &path))?;
        let damaged = |at, what| Err(StorageError::Damaged { path: path.clone(), at, what });
        if read < HEADER_BYTES {
            return damaged(0, "it is truncated");
        }
        let pages = decode_header(&header, MAGIC, u64::from(number), &path)?;
        let size = file.size().map_err(io("read", &path))?;
        let Ok(pages) = u32::try_from(pages) else { return damaged(24, "it has more pages than a file may") };
        let end = match u64::from(pages).checked_sub(1) {
            None => HEAD_BYTES,
            Some(last) => group_at(last / GROUP as u64) + (last % GROUP as u64 + 2) * PAGE as u64,
        };
        if size < end {
            return damaged(size, "it is truncated");
        }
        Ok(Self { path, file, pages, checksums: Mutex::default(), held: Arc::default() })
    }

    fn damaged(&self, at: u64, what: &'static str) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), at, what }
    }

    fn exact(&self, at: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let read = self.file.read_at(at, into).map_err(io("read", &self.path))?;
        if read < into.len() { Err(self.damaged(at + read as u64, "it is truncated")) } else { Ok(()) }
    }

    fn read(&self, mut index: u32, mut into: &mut [u8]) -> Result<(), StorageError> {
        let _zone = zone!("read pages");
        assert!(into.len().is_multiple_of(PAGE), "whole pages are read");
        if u64::from(index) + (into.len() / PAGE) as u64 > u64::from(self.pages) {
            return Err(self.damaged(0, "a page is not in it that a checkpoint names"));
        }
        while !into.is_empty() {
            let (group, first) = (u64::from(index) / GROUP as u64, index as usize % GROUP);
            let count = (GROUP - first).min(into.len() / PAGE);
            let (now, later) = into.split_at_mut(count * PAGE);
            let at = group_at(group) + (first as u64 + 1) * PAGE as u64;
            self.exact(at, now)?;
            let checksums = self.checksums(group)?;
            for (n, page) in now.as_chunks::<PAGE>().0.iter().enumerate() {
                let checksum = &checksums[(first + n) * 4..(first + n + 1) * 4];
                if crc32fast::hash(page).to_le_bytes() != checksum {
                    return Err(self.damaged(at + (n * PAGE) as u64, "the checksum of a page is wrong"));
                }
            }
            *self.checksums.lock().unwrap_or_else(PoisonError::into_inner) = Some((group, checksums));
            index += count as u32;
            into = later;
        }
        Ok(())
    }

    fn checksums(&self, group: u64) -> Result<Box<[u8; PAGE]>, StorageError> {
        let last = self.checksums.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((_, checksums)) = last.filter(|(of, _)| *of == group) {
            return Ok(checksums);
        }
        let mut checksums = Box::new([0; PAGE]);
        self.exact(group_at(group), &mut *checksums)?;
        if crc32fast::hash(&checksums[..OWN_CHECKSUM]).to_le_bytes() != checksums[OWN_CHECKSUM..] {
            return Err(self.damaged(group_at(group), "the checksum of a page of checksums is wrong"));
        }
        Ok(checksums)
    }
}

/// The files of pages of a directory, as far as they are open.
#[derive(Debug)]
pub struct PageFiles<F>(RwLock<BTreeMap<u32, Arc<PageFile<F>>>>);

impl<F> Default for PageFiles<F> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<F: DiskFile> PageFiles<F> {
    /// Opens a file unless it is open. Returns the number of its pages.
    pub fn open<D: Disk<File = F>>(&self, disk: &D, directory: &Path, number: u32) -> Result<u32, StorageError> {
        if let Some(file) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(file.pages);
        }
        let file = PageFile::open(disk, directory, number)?;
        let pages = file.pages;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(file));
        Ok(pages)
    }

    /// Closes a file.
    pub fn close(&self, number: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Closes all files but some.
    pub fn keep(&self, numbers: &BTreeSet<u32>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|number, _| numbers.contains(number));
    }

    /// Whether a record lies in a file that is open, as far as its place and length say.
    pub fn holds(&self, at: &RecordAt) -> bool {
        let files = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let pages = files.get(&at.page.file).map_or(0, |file| u64::from(file.pages));
        let behind = u64::from(at.page.index) * PAGE as u64 + u64::from(at.offset);
        at.offset < PAGE as u32 && behind.checked_add(at.length).is_some_and(|end| end <= pages * PAGE as u64)
    }

    /// Whether a memory has pages in a file.
    pub fn is_held(&self, number: u32) -> bool {
        let files = self.0.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&number).is_some_and(|file| Arc::strong_count(&file.held) > 1)
    }

    /// Reads pages that follow on each other; `into` is as long as they are.
    ///
    /// Errors: they are damaged, cannot be read, or are of a file that is not open.
    pub fn pages(&self, at: PageAt, into: &mut [u8]) -> Result<(), StorageError> {
        let file = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&at.file).cloned();
        match file {
            Some(file) => file.read(at.index, into),
            None => Err(StorageError::PagesMissing { number: at.file }),
        }
    }

    /// All checksums of a file, one behind the other: they stand for its content.
    pub(super) fn checksums(&self, number: u32) -> Result<Vec<u8>, StorageError> {
        let file = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let Some(file) = file else { return Err(StorageError::PagesMissing { number }) };
        let mut all = file.pages.to_le_bytes().to_vec();
        for group in 0..file.pages.div_ceil(GROUP as u32) {
            all.extend_from_slice(&file.checksums(u64::from(group))?[..]);
        }
        Ok(all)
    }

    /// Reads every page of a file.
    pub fn verify(&self, number: u32) -> Result<(), StorageError> {
        let file = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let Some(file) = file else { return Err(StorageError::PagesMissing { number }) };
        let mut buffer = vec![0; GROUP * PAGE];
        let mut index = 0;
        while index < file.pages {
            let count = (file.pages - index).min(GROUP as u32);
            file.read(index, &mut buffer[..count as usize * PAGE])?;
            index += count;
        }
        Ok(())
    }
}

impl<F: DiskFile> PageStore for PageFiles<F> {
    fn read(&self, at: PageAt, into: &mut [u8]) -> Result<(), String> {
        self.pages(at, into).map_err(|error| error.to_string())
    }

    fn hold(&self, file: u32) -> Arc<()> {
        let files = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // Of a file that is not open nothing can be read, whoever holds it.
        files.get(&file).map(|file| Arc::clone(&file.held)).unwrap_or_default()
    }
}
