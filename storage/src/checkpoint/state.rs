//! The state file of a checkpoint: which files of pages it needs, the records of the subnet, and where those of canisters and modules are.

use crate::StorageError;
use crate::checkpoint::{HEAD_BYTES, HEADER_BYTES, Output, decode_header, encode_header, state_path};
use crate::directory::io;
use crate::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Frame, FrameKind, Header, encode_frame};
use crate::input::{CHUNK, Input};
use cyclotron_heap::PageAt;
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::Path;

const MAGIC: &[u8; 8] = b"CYCLSTA\0";
/// Bytes of a record beyond which it takes several frames.
const PART_BYTES: usize = 16 << 20;
/// Bytes of an entry behind its name, and of a file in the list of them.
const ENTRY_BYTES: usize = 16;
const FILE_BYTES: usize = 16;

const _: () = assert!(PART_BYTES < FRAME_BYTES_MAX);

/// Where a record is: on pages that follow on each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordAt {
    /// The page that it begins on.
    pub page: PageAt,
    /// Where on that page, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
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
    for word in [at.page.file, at.page.index, at.offset, at.length] {
        out.extend_from_slice(&word.to_le_bytes());
    }
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
        Some(Some((name, RecordAt { page, offset: word(2), length: word(3) })))
    })
}

/// The state of a checkpoint on its way to disk. The checkpoint exists once [`StateWriter::commit`] has returned, and not at all before.
#[derive(Debug)]
pub struct StateWriter<F> {
    height: u64,
    output: Output<F>,
    buffer: Vec<u8>,
}

impl<F: DiskFile> StateWriter<F> {
    /// Begins the state of a height, which needs these files.
    pub fn create<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        height: u64,
        files: &[FileUse],
    ) -> Result<Self, StorageError> {
        let output = Output::create(disk, state_path(directory, height))?;
        let mut list = Vec::with_capacity(files.len() * FILE_BYTES);
        for file in files {
            list.extend_from_slice(&file.number.to_le_bytes());
            list.extend_from_slice(&file.pages.to_le_bytes());
            list.extend_from_slice(&file.used.to_le_bytes());
        }
        let mut writer = Self { height, output, buffer: Vec::with_capacity(CHUNK) };
        match writer.record(FrameKind::Files, &list) {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.discard(disk);
                Err(error)
            }
        }
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

    /// Makes it last, then makes it exist. The files that it needs are there already.
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
        self.output.finish(disk, &encode_header(MAGIC, self.height, 0))
    }

    /// Removes what was written.
    pub fn discard<D: Disk<File = F>>(&self, disk: &D) {
        self.output.discard(disk);
    }
}

/// Reads the state file of a height. Every byte that it hands out has been compared with its checksum.
#[derive(Debug)]
pub struct StateReader<F> {
    height: u64,
    state: Input<F>,
    /// Where the next frame begins.
    at: u64,
}

impl<F: DiskFile> StateReader<F> {
    /// Opens the checkpoint of a height.
    pub fn open<D: Disk<File = F>>(disk: &D, directory: &Path, height: u64) -> Result<Self, StorageError> {
        let path = state_path(directory, height);
        let mut state = Input::new(&path, disk.open(&path, Access::Read).map_err(io("open", &path))?)?;
        let Some(header) = state.bytes(0, HEADER_BYTES)? else { return Err(state.damaged(0, "it is truncated")) };
        decode_header(header.try_into().expect("as many as asked for"), MAGIC, height, &path)?;
        Ok(Self { height, state, at: HEAD_BYTES })
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
        let Some(header) = self.state.bytes(at, FRAME_HEADER_BYTES)? else {
            return Err(self.state.damaged(at, "it is cut off"));
        };
        let header: [u8; FRAME_HEADER_BYTES] = header.try_into().expect("as many as asked for");
        let Some(decoded) = Header::decode(&header) else {
            return Err(self.state.damaged(at, "a frame has a wrong header"));
        };
        let Some(content) = self.state.bytes(at + FRAME_HEADER_BYTES as u64, decoded.length)? else {
            return Err(self.state.damaged(at, "a frame is cut off"));
        };
        if !decoded.fits(&header, content) {
            return Err(self.state.damaged(at, "the checksum of a frame is wrong"));
        }
        let content = content.to_vec();
        let frame = decoded.into_frame(content, &self.state.path, at)?;
        if frame.height != self.height {
            return Err(self.state.damaged(at, "a frame is of another height"));
        }
        if frame.kind == FrameKind::End {
            let is_last = frame.content.is_empty() && at + FRAME_HEADER_BYTES as u64 == self.state.size;
            return if is_last { Ok(None) } else { Err(self.state.damaged(at, "its end is not at its end")) };
        }
        self.at = at + (FRAME_HEADER_BYTES + decoded.length) as u64;
        Ok(Some(frame))
    }

    /// An error: the records are of another version.
    pub fn other_version(&self, version: u32) -> StorageError {
        StorageError::Version { path: self.state.path.clone(), version }
    }

    /// An error: every byte is as it was written, and yet this program makes something else of it.
    pub fn unfaithful(&self) -> StorageError {
        StorageError::Unfaithful { path: self.state.path.clone() }
    }

    /// An error about what was read last, or what that names: it is not what its kind says.
    pub fn malformed(&self, what: &'static str) -> StorageError {
        self.state.damaged(self.at, what)
    }
}
