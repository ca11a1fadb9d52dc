//! Writing a log.

use crate::StorageError;
use crate::directory::io;
use crate::frame::{FRAME_HEADER_BYTES, FrameKind, encode_block, encode_frame};
use crate::log::file_name;
use crate::log::segment::{self, Segment};
use cyclotron_ports::{Disk, DiskFile};
use cyclotron_trace::{sums, zone};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where frames are appended.
#[derive(Debug)]
pub struct LogWriter<D: Disk> {
    pub(super) place: Place<D>,
    pub(super) segment: Arc<Segment<D::File>>,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Height of the newest batch.
    pub(super) height: u64,
    /// Encoded, not written.
    pub(super) frames: Vec<u8>,
    /// Batches among them.
    pub(super) batches: u64,
}

/// Where the files of a log are, and what they are for.
#[derive(Debug)]
pub(super) enum Place<D> {
    /// In a directory: a new one is begun when one is full.
    Directory {
        disk: Arc<D>,
        path: PathBuf,
        configuration: Vec<u8>,
        /// Bytes of a file beyond which the next one is begun.
        file_bytes: u64,
    },
    /// In one file: a recording.
    File,
}

/// Frames that the operating system has, and that may be lost until they are made lasting.
#[derive(Debug)]
pub struct Written<F> {
    segment: Arc<Segment<F>>,
    end: u64,
    height: u64,
}

impl<F: DiskFile> Written<F> {
    /// Height of the newest batch among them.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Makes these frames, and all before them, last through a loss of power. On any thread, while others are written.
    /// Errors: when the disk refuses; no frame that was written since the last success may then be relied on, and none comes to last any
    /// more.
    pub fn make_lasting(&self) -> Result<(), StorageError> {
        let _zone = zone!("flush the log");
        self.segment.make_lasting(self.end, false)
    }
}

/// Bytes of a file of the input log beyond which the next one is begun.
pub const LOG_FILE_BYTES: u64 = 64 << 20;

impl<D: Disk> LogWriter<D> {
    /// Makes a log in an empty directory. It lasts when this returns.
    pub fn create(
        disk: Arc<D>,
        directory: &Path,
        first_height: u64,
        configuration: &[u8],
        file_bytes: u64,
    ) -> Result<Self, StorageError> {
        let (segment, end) =
            segment::create(&*disk, &directory.join(file_name(first_height)), first_height, configuration)?;
        let (path, configuration) = (directory.to_owned(), configuration.to_vec());
        let place = Place::Directory { disk, path, configuration, file_bytes };
        Ok(Self { place, segment: Arc::new(segment), end, height: first_height - 1, frames: Vec::new(), batches: 0 })
    }

    /// Makes a log in one file. Errors: also when the file exists.
    pub fn create_file(disk: &D, path: &Path, first_height: u64, configuration: &[u8]) -> Result<Self, StorageError> {
        let (segment, end) = segment::create_in_place(disk, path, first_height, configuration)?;
        let (place, segment) = (Place::File, Arc::new(segment));
        Ok(Self { place, segment, end, height: first_height - 1, frames: Vec::new(), batches: 0 })
    }

    /// Adds a frame to what is to be written next; `content` appends its content.
    ///
    /// Panics: when a batch is not the next one: its caller makes them in order.
    pub fn append(&mut self, kind: FrameKind, height: u64, content: impl FnOnce(&mut Vec<u8>)) {
        if kind == FrameKind::Batch {
            assert_eq!(height, self.height + 1, "batches are logged in order");
            self.height = height;
            self.batches += 1;
        }
        encode_frame(kind, height, &mut self.frames, content);
    }

    /// Height of the newest batch that was added.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// An error: the disk has refused what was written before.
    pub fn failed_before(&self) -> StorageError {
        StorageError::LogFailedBefore { path: self.segment.path.clone() }
    }

    /// Bytes that are to be written next.
    pub fn pending_bytes(&self) -> usize {
        self.frames.len()
    }

    /// Hands what was added to the operating system.
    pub fn write(&mut self) -> Result<Written<D::File>, StorageError> {
        let _zone = zone!("write the log");
        sums::BYTES_WRITTEN.add(|| self.frames.len() as u64);
        self.begin_next_file()?;
        self.segment.file.write_at(self.end, &self.frames).map_err(io("write", &self.segment.path))?;
        self.end += self.frames.len() as u64;
        self.frames.clear();
        self.batches = 0;
        Ok(Written { segment: self.segment.clone(), end: self.end, height: self.height })
    }

    /// Hands what was added to the operating system in compressed form.
    pub fn write_compressed(&mut self) -> Result<Written<D::File>, StorageError> {
        if !self.frames.is_empty() {
            let _zone = zone!("compress the log");
            let mut block = Vec::new();
            encode_block(self.height, &self.frames, &mut block);
            self.frames = block;
        }
        self.write()
    }

    /// Hands a frame that is encoded already to the operating system, before what is to be written next: for a thread that compresses what no batch
    /// waits for.
    ///
    /// Panics: when the log is no recording: the files of a directory are filled in order.
    pub fn write_encoded(&mut self, frame: &[u8]) -> Result<(), StorageError> {
        assert!(matches!(self.place, Place::File), "only recordings have frames out of order");
        sums::BYTES_WRITTEN.add(|| frame.len() as u64);
        self.segment.file.write_at(self.end, frame).map_err(io("write", &self.segment.path))?;
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Goes on in another file when this one is full.
    fn begin_next_file(&mut self) -> Result<(), StorageError> {
        let Place::Directory { disk, path, configuration, file_bytes } = &self.place else { return Ok(()) };
        let empty = self.end == segment::FRAMES_AT + (FRAME_HEADER_BYTES + configuration.len()) as u64;
        if empty || self.end + self.frames.len() as u64 <= *file_bytes {
            return Ok(());
        }
        self.segment.make_lasting(self.end, false)?;
        let next = self.height + 1 - self.batches;
        let (segment, end) = segment::create(&**disk, &path.join(file_name(next)), next, configuration)?;
        self.segment.make_lasting(self.end, true)?;
        (self.segment, self.end) = (Arc::new(segment), end);
        Ok(())
    }
}
