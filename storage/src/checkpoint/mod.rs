//! Checkpoints: the whole state after a round, in two files: frames, and the pages of memories.
//!
//! Enters: frames and pages, through a [`CheckpointWriter`]. Leaves: the same, through a [`CheckpointReader`]. Never here: what they mean.

mod reader;
mod writer;

pub use reader::CheckpointReader;
pub use writer::CheckpointWriter;

use crate::StorageError;
use crate::directory::io;
use cyclotron_ports::Disk;
use std::path::{Path, PathBuf};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4_096;
/// Bytes before the first frame, and before the first page.
const HEAD_BYTES: u64 = 4_096;
const STATE_MAGIC: &[u8; 8] = b"CYCLSTA\0";
const PAGES_MAGIC: &[u8; 8] = b"CYCLPAG\0";
const VERSION: u32 = 1;
/// Magic, version, zero, height, pages, checksum of the table, checksum of the header.
const HEADER_BYTES: usize = 40;
const STATE: &str = "state";
const PAGES: &str = "pages";

/// A file of the checkpoint of a height. Names sort as heights do.
fn file(directory: &Path, height: u64, extension: &str) -> PathBuf {
    directory.join(format!("{height:016x}.{extension}"))
}

/// Heights of the checkpoints in a directory, ascending.
pub fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<u64>, StorageError> {
    let names = disk.list(directory).map_err(io("list", directory))?;
    let height =
        |name: &String| u64::from_str_radix(name.strip_suffix(".state").filter(|hex| hex.len() == 16)?, 16).ok();
    Ok(names.iter().filter_map(height).collect())
}

/// Removes what is no part of the newest `kept` checkpoints: older ones, and what a crash left of one that was not finished.
pub fn prune<D: Disk>(disk: &D, directory: &Path, kept: usize) -> Result<(), StorageError> {
    let heights = list(disk, directory)?;
    let keep: Vec<String> = heights.iter().rev().take(kept).map(|height| format!("{height:016x}")).collect();
    let names = disk.list(directory).map_err(io("list", directory))?;
    // Lastingly, the state goes before the pages that it is about.
    for end in [".state", ".pages", ".new"] {
        for name in &names {
            let Some(stem) = name.strip_suffix(end) else { continue };
            let stem = stem.trim_end_matches(".state").trim_end_matches(".pages");
            let kept = end != ".new" && keep.iter().any(|height| height == stem);
            if u64::from_str_radix(stem, 16).is_ok() && stem.len() == 16 && !kept {
                let path = directory.join(name);
                disk.remove(&path).map_err(io("remove", &path))?;
            }
        }
        disk.sync_directory(directory).map_err(io("flush the directory", directory))?;
    }
    Ok(())
}

/// The header of either file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    height: u64,
    /// Pages in the pages file.
    pages: u64,
    /// CRC-32 of the table of the pages file.
    table: u32,
}

impl Header {
    /// The page that it is in.
    fn encode(self, magic: &[u8; 8]) -> [u8; HEAD_BYTES as usize] {
        let mut bytes = [0; HEAD_BYTES as usize];
        bytes[0..8].copy_from_slice(magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.height.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.pages.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.table.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..36]);
        bytes[36..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], magic: &[u8; 8], path: &Path) -> Result<Self, StorageError> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if !bytes.starts_with(magic) {
            return Err(StorageError::Foreign { path: path.to_owned(), expected: "a checkpoint" });
        }
        if crc32fast::hash(&bytes[..36]) != word(36) {
            let what = "the checksum of its header is wrong";
            return Err(StorageError::Damaged { path: path.to_owned(), at: 0, what });
        }
        if word(8) != VERSION {
            return Err(StorageError::Version { path: path.to_owned(), version: word(8) });
        }
        Ok(Self { height: number(16), pages: number(24), table: word(32) })
    }
}
