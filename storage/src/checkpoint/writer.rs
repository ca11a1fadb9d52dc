//! Writing a checkpoint.

use crate::StorageError;
use crate::checkpoint::{HEAD_BYTES, Header, PAGE_BYTES, PAGES, PAGES_MAGIC, STATE, STATE_MAGIC, file};
use crate::directory::{FILE_MODE, free_temporary, io};
use crate::frame::{FRAME_BYTES_MAX, FrameKind, encode_frame};
use crate::input::CHUNK;
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::{Path, PathBuf};

/// Bytes of a record beyond which it takes several frames.
const PART_BYTES: usize = 16 << 20;

const _: () = assert!(PART_BYTES < FRAME_BYTES_MAX);

/// A checkpoint on its way to disk. It exists once [`CheckpointWriter::commit`] has returned, and not at all before.
pub struct CheckpointWriter<'a, D: Disk> {
    disk: &'a D,
    directory: PathBuf,
    height: u64,
    state: Output<D::File>,
    pages: Output<D::File>,
    /// Checksums of the pages.
    table: Vec<u8>,
}

/// A file that is written from its head on, behind a page for the header.
struct Output<F> {
    path: PathBuf,
    temporary: PathBuf,
    file: F,
    at: u64,
    buffer: Vec<u8>,
}

impl<F: DiskFile> Output<F> {
    fn create<D: Disk<File = F>>(disk: &D, path: PathBuf) -> Result<Self, StorageError> {
        let temporary = free_temporary(disk, &path)?;
        let file = disk.open(&temporary, Access::Create(FILE_MODE)).map_err(io("create", &temporary))?;
        Ok(Self { path, temporary, file, at: HEAD_BYTES, buffer: Vec::with_capacity(CHUNK) })
    }

    fn write_full(&mut self) -> Result<(), StorageError> {
        if self.buffer.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.file.write_at(self.at, &self.buffer).map_err(io("write", &self.temporary))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the header, makes all of it last, and gives the file its name.
    fn finish<D: Disk>(&mut self, disk: &D, header: Header, magic: &[u8; 8]) -> Result<(), StorageError> {
        self.write()?;
        self.file.write_at(0, &header.encode(magic)).map_err(io("write", &self.temporary))?;
        self.file.sync().map_err(io("flush", &self.temporary))?;
        disk.rename(&self.temporary, &self.path).map_err(io("rename into place", &self.path))
    }
}

impl<'a, D: Disk> CheckpointWriter<'a, D> {
    /// Begins the checkpoint of a height in a directory.
    pub fn create(disk: &'a D, directory: &Path, height: u64) -> Result<Self, StorageError> {
        Ok(Self {
            disk,
            directory: directory.to_owned(),
            height,
            state: Output::create(disk, file(directory, height, STATE))?,
            pages: Output::create(disk, file(directory, height, PAGES))?,
            table: Vec::new(),
        })
    }

    /// Adds a page; returns its index among the checkpoint's pages.
    pub fn page(&mut self, content: &[u8; PAGE_BYTES]) -> Result<u64, StorageError> {
        let index = (self.table.len() / 4) as u64;
        self.table.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
        self.pages.buffer.extend_from_slice(content);
        self.pages.write_full()?;
        Ok(index)
    }

    /// Adds a record of any length: one frame, or several.
    pub fn record(&mut self, kind: FrameKind, content: &[u8]) -> Result<(), StorageError> {
        let mut rest = content;
        while let Some((part, behind)) = rest.split_at_checked(PART_BYTES).filter(|(_, behind)| !behind.is_empty()) {
            self.frame(FrameKind::Part, part)?;
            rest = behind;
        }
        self.frame(kind, rest)
    }

    fn frame(&mut self, kind: FrameKind, content: &[u8]) -> Result<(), StorageError> {
        encode_frame(kind, self.height, &mut self.state.buffer, |out| out.extend_from_slice(content));
        self.state.write_full()
    }

    /// Makes all of it last, then makes it exist.
    pub fn commit(mut self) -> Result<(), StorageError> {
        let header =
            Header { height: self.height, pages: (self.table.len() / 4) as u64, table: crc32fast::hash(&self.table) };
        self.pages.write()?;
        self.pages.buffer.append(&mut self.table);
        self.pages.finish(self.disk, header, PAGES_MAGIC)?;
        let (disk, directory) = (self.disk, self.directory.clone());
        let sync = || disk.sync_directory(&directory).map_err(io("flush the directory", &directory));
        // The name of the state is the checkpoint: its pages must be there whenever it is.
        sync()?;
        self.frame(FrameKind::End, &[])?;
        self.state.finish(self.disk, header, STATE_MAGIC)?;
        sync()
    }
}
