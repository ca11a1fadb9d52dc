//! Checkpoints: the state after a round, as a list of what is kept where, and files of pages that several checkpoints share.
//!
//! Enters: pages, through a [`PageWriter`], and frames, through a [`StateWriter`]. Leaves: the same, through [`PageFiles`] and a [`StateReader`].
//! Never here: what they mean; their hashes, which are in a manifest of its own ([`crate::manifest`]).

pub(crate) mod frames;
mod pages;
mod place;
mod state;

pub use pages::{PageFiles, PageWriter};
pub use place::place;
pub(crate) use place::{Opened, Source, place_file};
pub use state::{
    Entry, FileUse, Places, RecordAt, StateReader, StateWriter, decode_entries, decode_places, encode_entry,
    encode_places,
};

use crate::StorageError;
use crate::directory::{FILE_MODE, free_temporary, io};
use cyclotron_heap::layout::PAGE;
use cyclotron_ports::{Access, Disk, DiskFile};
use cyclotron_trace::{sums, zone};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Version of all three kinds of file.
const VERSION: u32 = 4;
/// Magic, version, zero, number or height, count, checksum of the header. It takes a page.
const HEADER_BYTES: usize = 36;
const HEAD_BYTES: u64 = PAGE as u64;

/// The state of the checkpoint of a height. Names sort as heights do.
pub(crate) fn state_path(directory: &Path, height: u64) -> PathBuf {
    directory.join(format!("{height:016x}.state"))
}

/// The manifest of the checkpoint of a height.
pub(crate) fn manifest_path(directory: &Path, height: u64) -> PathBuf {
    directory.join(format!("{height:016x}.manifest"))
}

/// A file of pages.
fn pages_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.pages"))
}

fn number_of<const DIGITS: usize>(name: &str, extension: &str) -> Option<u64> {
    let stem = name.strip_suffix(extension).filter(|stem| stem.len() == DIGITS)?;
    u64::from_str_radix(stem, 16).ok()
}

fn names<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<String>, StorageError> {
    disk.list(directory).map_err(io("list", directory))
}

/// Heights of the checkpoints in a directory, ascending.
pub fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<u64>, StorageError> {
    Ok(names(disk, directory)?.iter().filter_map(|name| number_of::<16>(name, ".state")).collect())
}

/// The newest checkpoint below a height that has its manifest.
pub fn newest_with_manifest<D: Disk>(disk: &D, directory: &Path, below: u64) -> Result<Option<u64>, StorageError> {
    let with = |extension| -> Result<BTreeSet<u64>, StorageError> {
        Ok(names(disk, directory)?.iter().filter_map(|name| number_of::<16>(name, extension)).collect())
    };
    let manifests = with(".manifest")?;
    Ok(with(".state")?.range(..below).rfind(|height| manifests.contains(height)).copied())
}

/// Removes the manifest of a height, if there is one, lastingly: the checkpoint is about to be another.
pub fn remove_manifest<D: Disk>(disk: &D, directory: &Path, height: u64) -> Result<(), StorageError> {
    let path = manifest_path(directory, height);
    match disk.remove(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        outcome => outcome.map_err(io("remove", &path))?,
    }
    disk.sync_directory(directory).map_err(io("flush the directory", directory))
}

/// A number that no file of pages in the directory has, nor any with a higher one.
pub fn next_number<D: Disk>(disk: &D, directory: &Path) -> Result<u32, StorageError> {
    let last = names(disk, directory)?.iter().filter_map(|name| number_of::<8>(name, ".pages")).max();
    Ok(last.map_or(1, |last| (last as u32).saturating_add(1)))
}

/// Removes what is no part of the newest `kept` checkpoints: older ones, files of pages that they alone name, and what was left of one that was not
/// finished. Returns the numbers of the files that are left.
///
/// Errors: also when a checkpoint that stays cannot be read; nothing is removed then.
pub fn prune<D: Disk>(disk: &D, directory: &Path, kept: usize) -> Result<BTreeSet<u32>, StorageError> {
    let heights = list(disk, directory)?;
    let (old, stay) = heights.split_at(heights.len().saturating_sub(kept));
    remove(disk, directory, old, stay)
}

/// Removes checkpoints until `kept` are left, at least two: the oldest and the newest stay, and of the others those that lie farthest apart.
///
/// Errors: as [`prune`].
pub fn thin<D: Disk>(disk: &D, directory: &Path, kept: usize) -> Result<BTreeSet<u32>, StorageError> {
    let mut stay = list(disk, directory)?;
    let mut gone = Vec::new();
    while stay.len() > kept.max(2) {
        let apart = |at: &usize| stay[at + 1] - stay[at - 1];
        let between = (1..stay.len() - 1).min_by_key(apart).expect("one lies between the first and the last");
        gone.push(stay.remove(between));
    }
    remove(disk, directory, &gone, &stay)
}

/// Removes some checkpoints, and what those that stay do not name. Returns the numbers of the files that are left.
fn remove<D: Disk>(disk: &D, directory: &Path, old: &[u64], stay: &[u64]) -> Result<BTreeSet<u32>, StorageError> {
    let mut used = BTreeSet::new();
    for height in stay {
        let mut reader = StateReader::open(disk, directory, *height)?;
        used.extend(reader.files()?.iter().map(|file| file.number));
    }
    let remove = |path: PathBuf| disk.remove(&path).map_err(io("remove", &path));
    for height in old {
        remove(state_path(directory, *height))?;
    }
    // Lastingly, the states go before the manifests and the pages that they are about.
    disk.sync_directory(directory).map_err(io("flush the directory", directory))?;
    for name in names(disk, directory)? {
        let is_needed = |name: &str| {
            let pages = number_of::<8>(name, ".pages").map(|number| used.contains(&(number as u32)));
            let manifest = number_of::<16>(name, ".manifest").map(|height| stay.contains(&height));
            pages.or(manifest).or(number_of::<16>(name, ".state").map(|_| true))
        };
        // What has no number is not ours.
        let unfinished = name.strip_suffix(".new").is_some_and(|name| is_needed(name).is_some());
        if unfinished || is_needed(&name) == Some(false) {
            remove(directory.join(name))?;
        }
    }
    disk.sync_directory(directory).map_err(io("flush the directory", directory))?;
    Ok(used)
}

/// The page that a header is in.
fn encode_header(magic: &[u8; 8], number: u64, count: u64) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    bytes[0..8].copy_from_slice(magic);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes[24..32].copy_from_slice(&count.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..32]);
    bytes[32..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What a header says: its number, which must be `number`, and its count.
fn decode_header(bytes: &[u8; HEADER_BYTES], magic: &[u8; 8], number: u64, path: &Path) -> Result<u64, StorageError> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let damaged = |what| Err(StorageError::Damaged { path: path.to_owned(), at: 0, what });
    if !bytes.starts_with(magic) {
        return Err(StorageError::Foreign { path: path.to_owned(), expected: "a checkpoint" });
    }
    // The version comes first: what a header of another one looks like is not known.
    if word(8) != VERSION {
        return Err(StorageError::Version { path: path.to_owned(), version: word(8), known: VERSION });
    }
    if crc32fast::hash(&bytes[..32]) != word(32) {
        return damaged("the checksum of its header is wrong");
    }
    if long(16) != number {
        return damaged("its name is not that of its header");
    }
    Ok(long(24))
}

/// A file that is written from its head on, behind a page for the header, under a temporary name.
#[derive(Debug)]
struct Output<F> {
    path: PathBuf,
    temporary: PathBuf,
    file: F,
    at: u64,
}

impl<F: DiskFile> Output<F> {
    fn create<D: Disk<File = F>>(disk: &D, path: PathBuf) -> Result<Self, StorageError> {
        let temporary = free_temporary(disk, &path)?;
        let file = disk.open(&temporary, Access::Create(FILE_MODE)).map_err(io("create", &temporary))?;
        Ok(Self { path, temporary, file, at: HEAD_BYTES })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let _zone = zone!("write a checkpoint");
        sums::BYTES_WRITTEN.add(|| bytes.len() as u64);
        self.file.write_at(self.at, bytes).map_err(io("write", &self.temporary))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes the header, makes all of it last, gives the file its name, and makes that last.
    fn finish<D: Disk>(&mut self, disk: &D, header: &[u8; PAGE]) -> Result<(), StorageError> {
        let _zone = zone!("flush a checkpoint");
        self.file.write_at(0, header).map_err(io("write", &self.temporary))?;
        self.file.sync().map_err(io("flush", &self.temporary))?;
        disk.rename(&self.temporary, &self.path).map_err(io("rename into place", &self.path))?;
        crate::directory::sync_parent(disk, &self.path)
    }

    /// Removes what was written. Whether or not that works: the next start discards what is left.
    fn discard<D: Disk>(&self, disk: &D) {
        let _ = disk.remove(&self.temporary);
    }
}
