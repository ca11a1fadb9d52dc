//! A file that is read from its beginning on, in large pieces.

use crate::StorageError;
use crate::directory::io;
use cyclotron_ports::DiskFile;
use std::path::{Path, PathBuf};

/// Bytes read or written at once.
pub(crate) const CHUNK: usize = 1 << 20;

/// The file, and the piece of it that was read last.
#[derive(Debug)]
pub(crate) struct Input<F> {
    pub path: PathBuf,
    pub size: u64,
    file: F,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<F: DiskFile> Input<F> {
    /// A file that has now so many bytes; if it becomes longer, that is not seen.
    pub fn new(path: &Path, file: F) -> Result<Self, StorageError> {
        let size = file.size().map_err(io("read", path))?;
        Ok(Self { path: path.to_owned(), size, file, chunk: Vec::new(), chunk_at: 0 })
    }

    /// An error about a place in it.
    pub fn damaged(&self, at: u64, what: &'static str) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), at, what }
    }

    /// The bytes from `at` on. `None`: the file has not so many.
    pub fn bytes(&mut self, at: u64, count: usize) -> Result<Option<&[u8]>, StorageError> {
        if at.checked_add(count as u64).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let held = at >= self.chunk_at && at + count as u64 <= self.chunk_at + self.chunk.len() as u64;
        if !held {
            let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
            self.chunk.resize(count.max(CHUNK).min(left), 0);
            self.chunk_at = at;
            let read = self.file.read_at(at, &mut self.chunk).map_err(io("read", &self.path))?;
            self.chunk.truncate(read);
            if read < count {
                return Ok(None);
            }
        }
        let from = (at - self.chunk_at) as usize;
        Ok(Some(&self.chunk[from..from + count]))
    }
}
