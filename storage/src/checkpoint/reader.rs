//! Reading a checkpoint.

use crate::StorageError;
use crate::checkpoint::{HEAD_BYTES, HEADER_BYTES, Header, PAGE_BYTES, PAGES, PAGES_MAGIC, STATE, STATE_MAGIC, file};
use crate::directory::io;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, Header as FrameHeader};
use crate::input::Input;
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::Path;

/// Reads the checkpoint of a height. Every byte that it hands out has been compared with its checksum.
#[derive(Debug)]
pub struct CheckpointReader<F> {
    height: u64,
    state: Input<F>,
    pages: Input<F>,
    /// Where the next frame begins.
    at: u64,
    /// CRC-32 of each page.
    table: Vec<u32>,
}

/// Opens one of the two files; returns it and its header.
fn open<D: Disk>(disk: &D, path: &Path, magic: &[u8; 8]) -> Result<(Input<D::File>, Header), StorageError> {
    let mut input = Input::new(path, disk.open(path, Access::Read).map_err(io("open", path))?)?;
    let Some(header) = input.bytes(0, HEADER_BYTES)? else { return Err(input.damaged(0, "it is truncated")) };
    let header: [u8; HEADER_BYTES] = header.try_into().expect("as many as asked for");
    let header = Header::decode(&header, magic, path)?;
    Ok((input, header))
}

impl<F: DiskFile> CheckpointReader<F> {
    /// Opens the checkpoint of a height.
    pub fn open<D: Disk<File = F>>(disk: &D, directory: &Path, height: u64) -> Result<Self, StorageError> {
        let (state, header) = open(disk, &file(directory, height, STATE), STATE_MAGIC)?;
        let (mut pages, of_pages) = open(disk, &file(directory, height, PAGES), PAGES_MAGIC)?;
        if header.height != height {
            return Err(state.damaged(0, "its name is not of the height in its header"));
        }
        if of_pages != header {
            return Err(pages.damaged(0, "it is of another checkpoint"));
        }
        let table_at = header.pages.checked_mul(PAGE_BYTES as u64).and_then(|bytes| bytes.checked_add(HEAD_BYTES));
        let end = table_at.and_then(|at| at.checked_add(header.pages.checked_mul(4)?));
        let Some((table_at, end)) = table_at.zip(end).filter(|(_, end)| *end <= pages.size) else {
            return Err(pages.damaged(pages.size, "it is truncated"));
        };
        let Some(table) = pages.bytes(table_at, (end - table_at) as usize)? else {
            return Err(pages.damaged(pages.size, "it is truncated"));
        };
        if crc32fast::hash(table) != header.table {
            return Err(pages.damaged(table_at, "the checksum of its table is wrong"));
        }
        let table = table.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Ok(Self { height, state, pages, at: HEAD_BYTES, table })
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.table.len() as u64
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
        let Some(decoded) = FrameHeader::decode(&header) else {
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

    /// An error about the record that was read last: its content is not what its kind says.
    pub fn malformed(&self, what: &'static str) -> StorageError {
        self.state.damaged(self.at, what)
    }

    /// Reads a page by its index.
    pub fn page(&mut self, index: u64, into: &mut [u8; PAGE_BYTES]) -> Result<(), StorageError> {
        let checksum = usize::try_from(index).ok().and_then(|index| self.table.get(index).copied());
        let Some(checksum) = checksum else {
            return Err(self.state.damaged(self.at, "a page is not in the pages file"));
        };
        let at = HEAD_BYTES + index * PAGE_BYTES as u64;
        let Some(page) = self.pages.bytes(at, PAGE_BYTES)? else {
            return Err(self.pages.damaged(at, "it is truncated"));
        };
        if crc32fast::hash(page) != checksum {
            return Err(self.pages.damaged(at, "the checksum of a page is wrong"));
        }
        into.copy_from_slice(page);
        Ok(())
    }
}
