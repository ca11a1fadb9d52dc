//! `HEIGHT.manifest`: the files of a manifest in the order of their paths.

use crate::StorageError;
use crate::checkpoint::frames::{FrameReader, FrameWriter};
use crate::checkpoint::manifest_path;
use crate::frame::FrameKind;
use crate::manifest::file::{ManifestFile, decode_files, encode_file};
use crate::manifest::tables::Tables;
use crate::manifest::{ManifestRoot, VERSION};
use cyclotron_ports::{Disk, DiskFile};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;

const MAGIC: &[u8; 8] = b"CYCLMAN\0";
/// Bytes of a frame of files beyond which another is begun.
const FRAME_BYTES: usize = 1 << 20;

/// A manifest on its way to disk.
#[derive(Debug)]
pub struct ManifestWriter<F> {
    frames: FrameWriter<F>,
    frame: Vec<u8>,
    before: String,
}

impl<F: DiskFile> ManifestWriter<F> {
    /// Begins the manifest of a height.
    pub fn create<D: Disk<File = F>>(disk: &D, folder: &Path, height: u64) -> Result<Self, StorageError> {
        let frames = FrameWriter::create(disk, manifest_path(folder, height), MAGIC, height)?;
        Ok(Self { frames, frame: Vec::new(), before: String::new() })
    }

    /// Adds a file; they come in the order of their paths.
    pub fn file(&mut self, file: &ManifestFile) -> Result<(), StorageError> {
        encode_file(&self.before, file, &mut self.frame);
        self.before.clear();
        if self.frame.len() < FRAME_BYTES {
            self.before.push_str(file.path());
            return Ok(());
        }
        self.end_frame()
    }

    fn end_frame(&mut self) -> Result<(), StorageError> {
        let frame = std::mem::take(&mut self.frame);
        self.frames.record(FrameKind::ManifestFiles, &frame)
    }

    /// Makes it last under its name.
    pub fn commit<D: Disk<File = F>>(mut self, disk: &D) -> Result<(), StorageError> {
        if let Err(error) = self.end_frame() {
            self.discard(disk);
            return Err(error);
        }
        self.frames.commit(disk)
    }

    /// Removes what was written.
    pub fn discard<D: Disk<File = F>>(&self, disk: &D) {
        self.frames.discard(disk);
    }
}

/// Reads the manifest of a height.
#[derive(Debug)]
pub struct ManifestReader<F> {
    frames: FrameReader<F>,
    /// Of the frame that was read last.
    files: VecDeque<ManifestFile>,
    /// The path of the file that was taken last.
    before: String,
}

impl<F: DiskFile> ManifestReader<F> {
    /// Opens the manifest of a height. None: it is not made yet, or the process ended before it was.
    pub fn open<D: Disk<File = F>>(disk: &D, folder: &Path, height: u64) -> Result<Option<Self>, StorageError> {
        match FrameReader::open(disk, &manifest_path(folder, height), MAGIC, height) {
            Ok(frames) => Ok(Some(Self { frames, files: VecDeque::new(), before: String::new() })),
            Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next file, if it is there.
    pub fn peek(&mut self) -> Result<Option<&ManifestFile>, StorageError> {
        while self.files.is_empty() {
            let Some(frame) = self.frames.next_record()? else { return Ok(None) };
            if frame.kind != FrameKind::ManifestFiles {
                return Err(self.frames.malformed("a frame has no place in a manifest"));
            }
            for file in decode_files(&frame.content) {
                let file = file.ok_or_else(|| self.frames.malformed("a file of a manifest has not its form"))?;
                if *file.path() <= *self.before {
                    return Err(self.frames.malformed("a file of a manifest is not in the order of the paths"));
                }
                file.path().clone_into(&mut self.before);
                self.files.push_back(file);
            }
        }
        Ok(self.files.front())
    }

    /// Takes the next file.
    pub fn next_file(&mut self) -> Result<Option<ManifestFile>, StorageError> {
        self.peek()?;
        Ok(self.files.pop_front())
    }

    /// An error about what was read last.
    pub fn malformed(&self, what: &'static str) -> StorageError {
        self.frames.malformed(what)
    }
}

/// What the manifest of a height comes to, if there is one. Reads it twice: the tables stand one behind the other in what is hashed.
/// Cost: O(files and chunks); memory for 16 MiB.
pub fn manifest_root<D: Disk>(
    disk: &D,
    folder: &Path,
    height: u64,
    threads: usize,
) -> Result<Option<ManifestRoot>, StorageError> {
    let mut tables = Tables::new(VERSION, threads);
    let Some(mut reader) = ManifestReader::open(disk, folder, height)? else { return Ok(None) };
    while let Some(file) = reader.next_file()? {
        tables.file(file.path(), file.size(), &file.hash());
    }
    let Some(mut reader) = ManifestReader::open(disk, folder, height)? else { return Ok(None) };
    let mut index = 0u32;
    while let Some(file) = reader.next_file()? {
        for chunk in file.chunks() {
            tables.chunk(index, &chunk);
        }
        index = index.checked_add(1).ok_or_else(|| reader.malformed("a manifest has too many files"))?;
    }
    Ok(Some(ManifestRoot { version: VERSION, hash: tables.root() }))
}
