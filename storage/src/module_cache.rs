//! The module cache: compiled code on disk, by key. Losing any of it loses time.
//!
//! Enters: bytes and the key that they are found under. Leaves: the same bytes, or nothing. Never here: what the bytes mean, or whether
//! they are whole (who reads them checks); a flush; an error that stops anything.
//!
//! A file's name is the number of its last use and its key, so that the oldest use is the first name, and a use is a rename.

use crate::StorageError;
use crate::directory::{FILE_MODE, io};
use cyclotron_ports::{Access, Disk, DiskFile};
use cyclotron_trace::{sums, zone};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a key: 32 of the module's hash, 16 of the fingerprint of what made its code.
pub const KEY_BYTES: usize = 48;
/// Ending of a file's name.
const ENDING: &str = ".code";
/// Ending of a file on its way to its name.
const UNFINISHED: &str = ".new";

/// What a file is found under.
pub type ModuleCacheKey = [u8; KEY_BYTES];

/// A folder of files, none of which is needed, with a limit to their bytes together. When it would be exceeded, the files go whose last use
/// is the longest ago. Threads share it; nobody waits for who reads or writes a file.
#[derive(Debug)]
pub struct ModuleCache<D: Disk> {
    disk: Arc<D>,
    folder: PathBuf,
    bytes_max: u64,
    index: Mutex<Index>,
}

/// What is in the folder.
#[derive(Debug, Default)]
struct Index {
    /// Number of the last use, and bytes.
    files: BTreeMap<ModuleCacheKey, (u64, u64)>,
    by_use: BTreeSet<(u64, ModuleCacheKey)>,
    /// Of the files, and of those that are being written.
    bytes: u64,
    /// The last number of a use.
    used: u64,
}

impl Index {
    fn note(&mut self, key: ModuleCacheKey, used: u64, bytes: u64) {
        self.files.insert(key, (used, bytes));
        self.by_use.insert((used, key));
        self.bytes += bytes;
        self.used = self.used.max(used);
    }

    /// Number of the last use of what is no longer under the key.
    fn forget(&mut self, key: &ModuleCacheKey) -> Option<u64> {
        let (used, bytes) = self.files.remove(key)?;
        self.by_use.remove(&(used, *key));
        self.bytes -= bytes;
        Some(used)
    }

    fn next_use(&mut self) -> u64 {
        self.used = self.used.saturating_add(1);
        self.used
    }
}

impl<D: Disk> ModuleCache<D> {
    /// Opens the folder, which is made if it is not there, and removes what is too much in it, or was not finished.
    ///
    /// Errors: it cannot be made or listed. What cannot be removed is left.
    pub fn open(disk: Arc<D>, folder: &Path, bytes_max: u64) -> Result<Self, StorageError> {
        disk.create_directory(folder).map_err(io("create the directory", folder))?;
        let names = disk.list(folder).map_err(io("list", folder))?;
        let cache = Self { disk, folder: folder.to_owned(), bytes_max, index: Mutex::default() };
        let mut index = cache.index();
        for name in names {
            let path = cache.folder.join(&name);
            let Some((used, key)) = parse(&name) else {
                if name.ends_with(UNFINISHED) {
                    cache.discard(&path);
                }
                continue;
            };
            match cache.disk.open(&path, Access::Read).and_then(|file| file.size()) {
                Ok(bytes) => {
                    // Names come in the order of use: an older file of the same key is of no use.
                    cache.remove_from(&mut index, &key);
                    index.note(key, used, bytes);
                }
                Err(_) => cache.discard(&path),
            }
        }
        cache.make_room(&mut index, 0);
        drop(index);
        Ok(cache)
    }

    /// The bytes under a key, which has been used with that. `None`: there are none, or they cannot be read.
    pub fn load(&self, key: &ModuleCacheKey) -> Option<Vec<u8>> {
        let (used, bytes) = *self.index().files.get(key)?;
        let _zone = zone!("read compiled code");
        let path = self.path(used, key);
        let content = self.disk.read(&path, bytes);
        let mut index = self.index();
        if index.files.get(key).is_some_and(|file| file.0 == used) {
            if content.is_err() {
                self.remove_from(&mut index, key);
            } else {
                let now = index.next_use();
                if self.disk.rename(&path, &self.path(now, key)).is_ok() {
                    index.forget(key);
                    index.note(*key, now, bytes);
                }
            }
        }
        content.ok().map(|content| content.bytes)
    }

    /// Keeps bytes under a key, in the place of those that were there. More bytes than the cache may have are not kept.
    ///
    /// Errors: they cannot be written. Nothing is left of them, and what else is there stays.
    pub fn store(&self, key: &ModuleCacheKey, bytes: &[u8]) -> Result<(), StorageError> {
        let count = bytes.len() as u64;
        if count > self.bytes_max {
            return Ok(());
        }
        let used = {
            let mut index = self.index();
            self.remove_from(&mut index, key);
            self.make_room(&mut index, count);
            index.bytes += count;
            index.next_use()
        };
        let path = self.path(used, key);
        let mut new = path.clone().into_os_string();
        new.push(UNFINISHED);
        let new = PathBuf::from(new);
        let written = self.write(&new, bytes).and_then(|()| {
            let renamed = self.disk.rename(&new, &path);
            renamed.map_err(io("rename into place", &path))
        });
        let mut index = self.index();
        index.bytes -= count;
        match written {
            Ok(()) => {
                // Two at once: the later one stays.
                self.remove_from(&mut index, key);
                index.note(*key, used, count);
            }
            Err(_) => {
                self.discard(&new);
                self.discard(&path);
            }
        }
        written
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let _zone = zone!("write compiled code");
        sums::BYTES_WRITTEN.add(|| bytes.len() as u64);
        let file = self.disk.open(path, Access::Create(FILE_MODE)).map_err(io("create", path))?;
        // Not flushed: a file that a loss of power tears is found to be damaged, and made again.
        file.write_at(0, bytes).map_err(io("write", path))
    }

    /// Removes what is under a key.
    pub fn remove(&self, key: &ModuleCacheKey) {
        self.remove_from(&mut self.index(), key);
    }

    /// Where the bytes under a key are.
    pub fn path_of(&self, key: &ModuleCacheKey) -> Option<PathBuf> {
        self.index().files.get(key).map(|(used, _)| self.path(*used, key))
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.index().files.len()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.index().bytes
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // It is consistent between statements that can panic (none do).
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_from(&self, index: &mut Index, key: &ModuleCacheKey) {
        if let Some(used) = index.forget(key) {
            self.discard(&self.path(used, key));
        }
    }

    /// Removes a file. One that stays is found again by the next start.
    fn discard(&self, path: &Path) {
        let _stays_if_it_must = self.disk.remove(path);
    }

    fn make_room(&self, index: &mut Index, count: u64) {
        while index.bytes.saturating_add(count) > self.bytes_max {
            let Some((_, key)) = index.by_use.first().copied() else { return };
            self.remove_from(index, &key);
        }
    }

    fn path(&self, used: u64, key: &ModuleCacheKey) -> PathBuf {
        let mut name = format!("{used:016x}-");
        for (at, byte) in key.iter().enumerate() {
            let dash = if at == 32 { "-" } else { "" };
            let _never_fails = write!(name, "{dash}{byte:02x}");
        }
        self.folder.join(name + ENDING)
    }
}

/// Number of the last use, and key, of a file with this name.
fn parse(name: &str) -> Option<(u64, ModuleCacheKey)> {
    let (used, rest) = name.strip_suffix(ENDING)?.split_once('-')?;
    let (module, fingerprint) = rest.split_once('-')?;
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digits(used, 16) || !digits(module, 64) || !digits(fingerprint, 32) {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        let (text, at) = if at < 32 { (module, at) } else { (fingerprint, at - 32) };
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((u64::from_str_radix(used, 16).ok()?, key))
}
