//! A file of frames, which ends with a frame that says so: written once, from the first to the last, then only read.
//!
//! Invariant owned here: a frame is handed out only if it is what was written.

use crate::StorageError;
use crate::checkpoint::{HEAD_BYTES, HEADER_BYTES, Output, decode_header, encode_header};
use crate::directory::io;
use crate::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Frame, FrameKind, Header, encode_frame};
use crate::input::{CHUNK, Input};
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::{Path, PathBuf};

/// Bytes of a record beyond which it takes several frames.
const PART_BYTES: usize = 16 << 20;

const _: () = assert!(PART_BYTES < FRAME_BYTES_MAX);

/// A file on its way to disk. It exists once [`FrameWriter::commit`] has returned, and not at all before.
#[derive(Debug)]
pub(crate) struct FrameWriter<F> {
    magic: &'static [u8; 8],
    height: u64,
    output: Output<F>,
    buffer: Vec<u8>,
}

impl<F: DiskFile> FrameWriter<F> {
    /// Begins the file of a height.
    pub fn create<D: Disk<File = F>>(
        disk: &D,
        path: PathBuf,
        magic: &'static [u8; 8],
        height: u64,
    ) -> Result<Self, StorageError> {
        Ok(Self { magic, height, output: Output::create(disk, path)?, buffer: Vec::with_capacity(CHUNK) })
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
        encode_frame(kind, self.height, &mut self.buffer, |out| out.extend_from_slice(content));
        if self.buffer.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.output.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Makes it last, then makes it exist. What it needs is there already.
    pub fn commit<D: Disk<File = F>>(mut self, disk: &D) -> Result<(), StorageError> {
        let committed = self.end(disk);
        if committed.is_err() {
            self.discard(disk);
        }
        committed
    }

    fn end<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        self.frame(FrameKind::End, &[])?;
        self.write()?;
        self.output.finish(disk, &encode_header(self.magic, self.height, 0))
    }

    /// Removes what was written.
    pub fn discard<D: Disk<File = F>>(&self, disk: &D) {
        self.output.discard(disk);
    }
}

/// Reads the file of a height. Every byte that it hands out has been compared with its checksum.
#[derive(Debug)]
pub(crate) struct FrameReader<F> {
    height: u64,
    input: Input<F>,
    /// Where the next frame begins.
    at: u64,
}

impl<F: DiskFile> FrameReader<F> {
    /// Opens the file.
    pub fn open<D: Disk<File = F>>(disk: &D, path: &Path, magic: &[u8; 8], height: u64) -> Result<Self, StorageError> {
        let mut input = Input::new(path, disk.open(path, Access::Read).map_err(io("open", path))?)?;
        let Some(header) = input.bytes(0, HEADER_BYTES)? else { return Err(input.damaged(0, "it is truncated")) };
        decode_header(header.try_into().expect("as many as asked for"), magic, height, path)?;
        Ok(Self { height, input, at: HEAD_BYTES })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.input.path
    }

    /// The next record, put together from its frames; none behind the last.
    pub fn next_record(&mut self) -> Result<Option<Frame>, StorageError> {
        let mut parts = Vec::new();
        loop {
            match self.next_frame()? {
                Some(frame) if frame.kind == FrameKind::Part => parts.extend(frame.content),
                Some(frame) if parts.is_empty() => return Ok(Some(frame)),
                Some(frame) => {
                    parts.extend(frame.content);
                    return Ok(Some(Frame { content: parts, ..frame }));
                }
                None if parts.is_empty() => return Ok(None),
                None => return Err(self.malformed("a record has no end")),
            }
        }
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, StorageError> {
        let at = self.at;
        let Some(header) = self.input.bytes(at, FRAME_HEADER_BYTES)? else {
            return Err(self.input.damaged(at, "it is cut off"));
        };
        let header: [u8; FRAME_HEADER_BYTES] = header.try_into().expect("as many as asked for");
        let Some(decoded) = Header::decode(&header) else {
            return Err(self.input.damaged(at, "a frame has a wrong header"));
        };
        let Some(content) = self.input.bytes(at + FRAME_HEADER_BYTES as u64, decoded.length)? else {
            return Err(self.input.damaged(at, "a frame is cut off"));
        };
        if !decoded.fits(&header, content) {
            return Err(self.input.damaged(at, "the checksum of a frame is wrong"));
        }
        let content = content.to_vec();
        let frame = decoded.into_frame(content, &self.input.path, at)?;
        if frame.height != self.height {
            return Err(self.input.damaged(at, "a frame is of another height"));
        }
        if frame.kind == FrameKind::End {
            let is_last = frame.content.is_empty() && at + FRAME_HEADER_BYTES as u64 == self.input.size;
            return if is_last { Ok(None) } else { Err(self.input.damaged(at, "its end is not at its end")) };
        }
        self.at = at + (FRAME_HEADER_BYTES + decoded.length) as u64;
        Ok(Some(frame))
    }

    /// An error about what was read last, or what that names: it is not what its kind says.
    pub fn malformed(&self, what: &'static str) -> StorageError {
        self.input.damaged(self.at, what)
    }
}
