//! Reading a log.

use crate::StorageError;
use crate::directory::io;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, Header, unpack_block};
use crate::input::{CHUNK, Input};
use crate::log::segment::{FRAMES_AT, HEIGHT_MAX, Mark, Segment, read_head};
use crate::log::writer::{LogWriter, Place};
use crate::log::{file_name, height_of_name};
use cyclotron_ports::{Access, Disk, DiskFile};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the frames of a log in their order.
///
/// What the newest mark of a file covers must be whole: anything else is damage, and an error. What lies behind the newest mark of the
/// last file may have been lost in part when a process or the machine ended: it is read as far as it is whole.
#[derive(Debug)]
pub struct LogReader<D: Disk> {
    disk: Arc<D>,
    /// `None`: a single file.
    directory: Option<PathBuf>,
    configuration: Vec<u8>,
    /// Heights of the first batches of the files that were not opened yet.
    files: VecDeque<u64>,
    open: Open<D::File>,
    /// Frames of a block, not yet handed out.
    unpacked: VecDeque<Frame>,
    /// Height of the first batch, and of the next one.
    first_height: u64,
    next_height: u64,
}

/// The file that is being read.
#[derive(Debug)]
struct Open<F> {
    input: Input<F>,
    mark: Mark,
    /// Where the next frame begins.
    at: u64,
}

impl<F: DiskFile> Open<F> {
    /// Opens a file; returns it and the height of its first batch.
    fn new(path: &Path, file: F) -> Result<(Self, u64), StorageError> {
        // In this order: whoever writes the file makes it longer before marking it.
        let (first_height, mark) = read_head(&file, path)?;
        let open = Self { input: Input::new(path, file)?, mark, at: FRAMES_AT };
        if mark.end > open.input.size || mark.end < FRAMES_AT {
            return Err(open.damaged(open.input.size, "it is truncated"));
        }
        Ok((open, first_height))
    }

    fn damaged(&self, at: u64, what: &'static str) -> StorageError {
        self.input.damaged(at, what)
    }

    /// The next frame. `None`: no whole one follows, and none has to.
    fn next(&mut self) -> Result<Option<Frame>, StorageError> {
        let at = self.at;
        let must = at < self.mark.end;
        if !must && self.mark.continued {
            return Ok(None);
        }
        let missing = |open: &Self, what| if must { Err(open.damaged(at, what)) } else { Ok(None) };
        let Some(header) = self.input.bytes(at, FRAME_HEADER_BYTES)? else {
            return missing(self, "a frame is cut off");
        };
        let header: [u8; FRAME_HEADER_BYTES] = header.try_into().expect("as many as asked for");
        let Some(decoded) = Header::decode(&header) else {
            return missing(self, "a frame has a wrong header");
        };
        let Some(content) = self.input.bytes(at + FRAME_HEADER_BYTES as u64, decoded.length)? else {
            return missing(self, "a frame is cut off");
        };
        if !decoded.fits(&header, content) {
            return missing(self, "the checksum of a frame is wrong");
        }
        let frame = decoded.into_frame(content.to_vec(), &self.input.path, at)?;
        self.at = at + (FRAME_HEADER_BYTES + decoded.length) as u64;
        if must && self.at > self.mark.end {
            return Err(self.damaged(at, "a frame reaches beyond the mark"));
        }
        Ok(Some(frame))
    }

    /// The frame that each file begins with.
    fn configuration(&mut self) -> Result<Vec<u8>, StorageError> {
        match self.next()? {
            Some(frame) if frame.kind == FrameKind::Configuration => Ok(frame.content),
            _ => Err(self.damaged(FRAMES_AT, "it does not begin with a configuration")),
        }
    }
}

/// Heights of the first batches of the files in a directory, ascending.
pub(crate) fn heights<D: Disk>(disk: &D, directory: &Path) -> Result<VecDeque<u64>, StorageError> {
    let names = match disk.list(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(io("list", directory))?,
    };
    Ok(names.iter().filter_map(|name| height_of_name(name)).collect())
}

impl<D: Disk> LogReader<D> {
    /// Opens the log in a directory, at the file that holds the batch of height `from`, or would hold it next.
    ///
    /// Errors: also when there is no such file.
    pub fn open(disk: Arc<D>, directory: &Path, from: u64) -> Result<Self, StorageError> {
        let mut files = heights(&*disk, directory)?;
        let Some(before) = files.partition_point(|first| *first <= from).checked_sub(1) else {
            let directory = directory.to_owned();
            return Err(match files.front() {
                Some(first) => StorageError::LogBegins { directory, first: *first, needed: from },
                None => StorageError::LogMissing { directory, height: from },
            });
        };
        files.drain(..before);
        let path = directory.join(file_name(files.pop_front().expect("the file was found")));
        Self::begin(disk, Some(directory.to_owned()), &path, files)
    }

    /// Opens the log in a directory at its first file. Errors: also when there is none.
    pub fn open_first(disk: Arc<D>, directory: &Path) -> Result<Self, StorageError> {
        let first = heights(&*disk, directory)?.front().copied().unwrap_or(1);
        Self::open(disk, directory, first)
    }

    /// Opens a log in one file: a recording, or one file of an input log.
    pub fn open_file(disk: Arc<D>, path: &Path) -> Result<Self, StorageError> {
        Self::begin(disk, None, path, VecDeque::new())
    }

    fn begin(
        disk: Arc<D>,
        directory: Option<PathBuf>,
        path: &Path,
        files: VecDeque<u64>,
    ) -> Result<Self, StorageError> {
        let file = disk.open(path, Access::Read).map_err(io("open", path))?;
        let (mut open, next_height) = Open::new(path, file)?;
        let configuration = open.configuration()?;
        let (first_height, unpacked) = (next_height, VecDeque::new());
        Ok(Self { disk, directory, configuration, files, open, unpacked, first_height, next_height })
    }

    /// What the subnet was made with.
    pub fn configuration(&self) -> &[u8] {
        &self.configuration
    }

    /// Height of the batch that comes next.
    pub fn next_height(&self) -> u64 {
        self.next_height
    }

    /// The file that is being read.
    pub fn path(&self) -> &Path {
        &self.open.input.path
    }

    /// Bytes behind the last whole frame, once all frames were read: of a file that was not finished, or is being written.
    pub fn left_over(&self) -> u64 {
        self.open.input.size - self.open.at
    }

    /// How many bytes of the file that is being read were read, and how many it has.
    pub fn progress(&self) -> (u64, u64) {
        (self.open.at, self.open.input.size)
    }

    /// The next frame; none behind the last.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StorageError> {
        loop {
            if let Some(frame) = self.unpacked.pop_front() {
                return Ok(Some(frame));
            }
            let at = self.open.at;
            let Some(frame) = self.open.next()? else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let frames = match frame.kind {
                FrameKind::Block => unpack_block(&frame.content, &self.open.input.path, at)?,
                _ => vec![frame],
            };
            for frame in &frames {
                self.check_order(frame, at)?;
            }
            self.unpacked.extend(frames);
        }
    }

    fn check_order(&mut self, frame: &Frame, at: u64) -> Result<(), StorageError> {
        match frame.kind {
            FrameKind::Batch if frame.height != self.next_height || frame.height > HEIGHT_MAX => {
                Err(self.open.damaged(at, "a batch is not of the height that comes next"))
            }
            FrameKind::Batch => {
                self.next_height += 1;
                Ok(())
            }
            FrameKind::Root | FrameKind::StateHash if frame.height != self.next_height - 1 => {
                Err(self.open.damaged(at, "a hash is not of the batch before it"))
            }
            FrameKind::Beginning
                if self.directory.is_some()
                    || self.next_height != self.first_height
                    || frame.height != self.first_height - 1 =>
            {
                Err(self.open.damaged(at, "it says behind which state it begins, and not at its beginning"))
            }
            FrameKind::Query | FrameKind::QueriesLeftOut if self.directory.is_some() => {
                Err(self.open.damaged(at, "queries are in recordings alone"))
            }
            FrameKind::Query if frame.height > HEIGHT_MAX || frame.height < self.first_height - 1 => {
                Err(self.open.damaged(at, "a query is of a state that it does not come to"))
            }
            FrameKind::Root
            | FrameKind::StateHash
            | FrameKind::Block
            | FrameKind::Program
            | FrameKind::Beginning
            | FrameKind::Query
            | FrameKind::QueriesLeftOut => Ok(()),
            FrameKind::Configuration
            | FrameKind::Subnet
            | FrameKind::Modules
            | FrameKind::Canisters
            | FrameKind::Files
            | FrameKind::Statuses
            | FrameKind::End
            | FrameKind::Part
            | FrameKind::ManifestFiles => {
                Err(self.open.damaged(at, "a frame comes between batches that has no place there"))
            }
        }
    }

    /// Goes on with the next file; tells whether there is one.
    fn open_next(&mut self) -> Result<bool, StorageError> {
        let Some(directory) = &self.directory else { return Ok(false) };
        let missing = || StorageError::LogMissing { directory: directory.clone(), height: self.next_height };
        if self.files.is_empty() && self.open.mark.continued {
            // A node that goes on writing has begun another since the folder was listed.
            self.files = heights(&*self.disk, directory)?;
            self.files.retain(|first| *first >= self.next_height);
        }
        let Some(first) = self.files.front().copied() else {
            return if self.open.mark.continued { Err(missing()) } else { Ok(false) };
        };
        // The file before lasts in whole once this one has its name, whether or not its mark says that it goes on.
        if self.open.at != self.open.input.size {
            return Err(self.open.damaged(self.open.at, "another file follows, but this one does not end here"));
        }
        if first != self.next_height {
            return Err(missing());
        }
        let path = directory.join(file_name(first));
        let file = self.disk.open(&path, Access::Read).map_err(io("open", &path))?;
        let (mut open, first_height) = Open::new(&path, file)?;
        if first_height != first {
            return Err(open.damaged(0, "its name is not of the height in its header"));
        }
        if open.configuration()? != self.configuration {
            return Err(open.damaged(FRAMES_AT, "its configuration is not that of the files before it"));
        }
        self.files.pop_front();
        self.open = open;
        Ok(true)
    }

    /// Goes on writing where the frames end. What was read lasts from now on; what is left of frames that were lost is cut off.
    ///
    /// Panics: when frames were left unread, or the log is a single file.
    pub fn into_writer(mut self, file_bytes: u64) -> Result<LogWriter<D>, StorageError> {
        assert!(matches!(self.next_frame(), Ok(None)), "a log is written on when it was read to its end");
        let directory = self.directory.expect("a recording is not written on");
        let Open { input: Input { path, size, .. }, mark, at } = self.open;
        let file = self.disk.open(&path, Access::Write).map_err(io("open", &path))?;
        if size > at {
            // Lastingly: what was whole behind the gap must not come back behind what is written into it.
            file.set_size(at).map_err(io("truncate", &path))?;
            file.sync().map_err(io("flush", &path))?;
        }
        // What an earlier process wrote but did not see lasting must last before anything relies on it, its file's name included.
        self.disk.sync_directory(&directory).map_err(io("flush the directory", &directory))?;
        // Frames behind the mark may be known to the operating system alone, and for good if a flush of an earlier process failed: only what
        // is written anew is flushed.
        let mut rest = mark.end;
        let mut buffer = vec![0; CHUNK];
        while rest < at {
            let count = buffer.len().min((at - rest) as usize);
            if file.read_at(rest, &mut buffer[..count]).map_err(io("read", &path))? < count {
                return Err(StorageError::Damaged { path, at: rest, what: "it has become shorter" });
            }
            file.write_at(rest, &buffer[..count]).map_err(io("write", &path))?;
            rest += count as u64;
        }
        let segment = Segment::new(path, file, mark);
        segment.make_lasting(at, false)?;
        Ok(LogWriter {
            place: Place::Directory { disk: self.disk, path: directory, configuration: self.configuration, file_bytes },
            segment: Arc::new(segment),
            end: at,
            height: self.next_height - 1,
            frames: Vec::new(),
            batches: 0,
        })
    }
}
