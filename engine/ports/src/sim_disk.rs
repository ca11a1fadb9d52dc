//! A disk in memory that fails on request.
//!
//! It separates what a process sees from what a loss of power leaves: bytes last once written through, names once their
//! directory is synced; what was not yet lasting survives in part, as the seed decides. Directories themselves always last.

use crate::disk::{Disk, FileContent, LockError};
use crate::entropy::SimEntropy;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Permission bits of a lock file, as the system's disk makes it.
const LOCK_MODE: u32 = 0o600;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space is left; a write leaves its first bytes.
    Full,
    /// The medium fails; a write leaves its first bytes.
    Medium,
    /// Permission is denied; nothing happens.
    Denied,
    /// Power is lost in the middle of it: every later operation fails until [`SimDisk::restart`].
    PowerLoss,
}

#[derive(Clone, Debug)]
struct Inode {
    bytes: Vec<u8>,
    written_through: bool,
    mode: u32,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { path: PathBuf, inode: usize },
    Unlink { path: PathBuf },
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Link { path, .. } | Self::Unlink { path } => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link { path, inode } => drop(names.insert(path.clone(), *inode)),
            Self::Unlink { path } => drop(names.remove(path)),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    directories: BTreeSet<PathBuf>,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    lasting: BTreeMap<PathBuf, usize>,
    /// Name changes that are not lasting yet, oldest first.
    pending: Vec<NameChange>,
    locks: BTreeMap<PathBuf, String>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    off: bool,
}

/// A simulated disk; clones share it, as processes share a disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    entropy: Arc<SimEntropy>,
}

/// A lock on a simulated disk.
#[derive(Debug)]
pub struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).locks.remove(&self.path);
    }
}

impl SimDisk {
    /// Makes an empty disk.
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::default(), entropy: Arc::new(SimEntropy::new(seed)) }
    }

    /// Makes the operation that is `after` operations away fail; one fault at a time.
    pub fn fail_after(&self, after: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + after, fault));
    }

    /// Returns the number of operations so far.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// Loses power, and comes back with what lasts.
    pub fn restart(&self) {
        let mut state = self.state();
        let State { pending, lasting, inodes, .. } = &mut *state;
        let survive = self.below(pending.len() + 1);
        pending.drain(..).take(survive).for_each(|change| change.apply(lasting));
        for inode in inodes.iter_mut().filter(|inode| !inode.written_through) {
            let survive = self.below(inode.bytes.len() + 1);
            inode.bytes.truncate(survive);
            inode.written_through = true;
        }
        state.names = state.lasting.clone();
        state.locks.clear();
        state.fault = None;
        state.off = false;
    }

    /// Changes a file's bytes behind everyone's back.
    /// Panics: when there is no such file.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[path];
        change(&mut state.inodes[inode].bytes);
    }

    /// Changes a file's permission bits.
    /// Panics: when there is no such file.
    pub fn set_mode(&self, path: &Path, mode: u32) {
        let mut state = self.state();
        let inode = state.names[path];
        state.inodes[inode].mode = mode;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below(&self, bound: usize) -> usize {
        (self.entropy.next_u64() % bound as u64) as usize
    }

    /// Counts an operation; returns the fault it meets.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state();
        if state.off {
            return Err(io::Error::other("the power is off"));
        }
        let now = state.operations;
        state.operations += 1;
        let fault = state.fault.take_if(|(at, _)| *at == now).map(|(_, fault)| fault);
        state.off = fault == Some(Fault::PowerLoss);
        Ok((state, fault))
    }

    /// An operation that happens whole or not at all; when power is lost, the seed decides which.
    fn whole(&self) -> io::Result<(MutexGuard<'_, State>, io::Result<()>)> {
        let (state, fault) = self.begin()?;
        match fault {
            None => Ok((state, Ok(()))),
            Some(fault) if fault == Fault::PowerLoss && self.below(2) == 1 => Ok((state, Err(error_of(fault)))),
            Some(fault) => Err(error_of(fault)),
        }
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::Error::from(io::ErrorKind::StorageFull),
        Fault::Medium => io::Error::other("the medium failed"),
        Fault::Denied => io::Error::from(io::ErrorKind::PermissionDenied),
        Fault::PowerLoss => io::Error::other("the power is off"),
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for SimDisk {
    type Lock = SimLock;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.whole()?;
        state.directories.extend(path.ancestors().map(Path::to_path_buf));
        outcome
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let (state, outcome) = self.whole()?;
        if !state.directories.contains(path) {
            return Err(not_found());
        }
        let paths = state.names.keys().chain(&state.directories).filter(|entry| entry.parent() == Some(path));
        let names: BTreeSet<String> =
            paths.filter_map(|entry| Some(entry.file_name()?.to_string_lossy().into_owned())).collect();
        outcome.map(|()| names.into_iter().collect())
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent> {
        let (state, outcome) = self.whole()?;
        let inode = &state.inodes[*state.names.get(path).ok_or_else(not_found)?];
        let length = inode.bytes.len().min(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        outcome.map(|()| FileContent { bytes: inode.bytes[..length].to_vec(), mode: inode.mode })
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if state.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(not_found());
        }
        if fault == Some(Fault::Denied) {
            return Err(error_of(Fault::Denied));
        }
        let length = if fault.is_some() { self.below(bytes.len() + 1) } else { bytes.len() };
        let inode = state.inodes.len();
        state.inodes.push(Inode { bytes: bytes[..length].to_vec(), written_through: fault.is_none(), mode });
        state.names.insert(path.to_owned(), inode);
        state.pending.push(NameChange::Link { path: path.to_owned(), inode });
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.whole()?;
        let inode = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_owned(), inode);
        // Never the unlink alone: a rename does not lose the file.
        state.pending.push(NameChange::Link { path: to.to_owned(), inode });
        state.pending.push(NameChange::Unlink { path: from.to_owned() });
        outcome
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.whole()?;
        state.names.remove(path).ok_or_else(not_found)?;
        state.pending.push(NameChange::Unlink { path: path.to_owned() });
        outcome
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.whole()?;
        let State { pending, lasting, .. } = &mut *state;
        pending.retain(|change| {
            let here = change.path().parent() == Some(path);
            if here {
                change.apply(lasting);
            }
            !here
        });
        outcome
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<SimLock, LockError> {
        let (mut state, outcome) = self.whole().map_err(LockError::Io)?;
        if let Some(holder) = state.locks.get(path) {
            return Err(LockError::Held { holder: holder.clone() });
        }
        if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(LockError::Io(not_found()));
        }
        // The lock file is there from now on, and stays when the lock is dropped; its content is only a note.
        let inode = match state.names.get(path) {
            Some(&inode) => inode,
            None => {
                let inode = state.inodes.len();
                state.inodes.push(Inode { bytes: Vec::new(), written_through: false, mode: LOCK_MODE });
                state.names.insert(path.to_owned(), inode);
                state.pending.push(NameChange::Link { path: path.to_owned(), inode });
                inode
            }
        };
        outcome.map_err(LockError::Io)?;
        state.inodes[inode].bytes = holder.as_bytes().to_vec();
        state.inodes[inode].written_through = false;
        state.locks.insert(path.to_owned(), holder.to_owned());
        Ok(SimLock { state: self.state.clone(), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemDisk;

    /// What both disks do alike.
    fn check_contract<D: Disk>(disk: &D, root: &Path) {
        let (directory, file, other) = (root.join("a/b"), root.join("a/b/file"), root.join("a/b/other"));
        assert_eq!(disk.read(&file, 10).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.list(&directory).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.write_new(&file, b"x", 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.create_directory(&directory).unwrap();
        disk.create_directory(&directory).unwrap();
        disk.write_new(&file, b"hello", 0o640).unwrap();
        assert_eq!(disk.read(&file, 10).unwrap(), FileContent { bytes: b"hello".to_vec(), mode: 0o640 });
        assert_eq!(disk.read(&file, 3).unwrap().bytes, b"hel");
        assert_eq!(disk.write_new(&file, b"x", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.write_new(&other, b"other", 0o600).unwrap();
        assert_eq!(disk.list(&directory).unwrap(), ["file", "other"]);
        disk.rename(&other, &file).unwrap();
        disk.sync_directory(&directory).unwrap();
        assert_eq!(disk.read(&file, 10).unwrap(), FileContent { bytes: b"other".to_vec(), mode: 0o600 });
        assert_eq!(disk.list(&directory).unwrap(), ["file"]);
        assert_eq!(disk.list(root).unwrap(), ["a"]);
        disk.remove(&file).unwrap();
        assert_eq!(disk.remove(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(disk.list(&directory).unwrap().is_empty());

        let lock = directory.join("lock");
        let nowhere = disk.lock(&root.join("nowhere/lock"), "first");
        assert!(matches!(nowhere, Err(LockError::Io(error)) if error.kind() == io::ErrorKind::NotFound));
        let first = disk.lock(&lock, "first").unwrap();
        assert!(matches!(disk.lock(&lock, "second"), Err(LockError::Held { holder }) if holder == "first"));
        drop(first);
        let third = disk.lock(&lock, "3rd").unwrap();
        assert!(matches!(disk.lock(&lock, "second"), Err(LockError::Held { holder }) if holder == "3rd"));
        drop(third);
        // The file is there from the first lock on, with the last holder's note.
        assert_eq!(disk.list(&directory).unwrap(), ["lock"]);
        assert_eq!(disk.read(&lock, 10).unwrap(), FileContent { bytes: b"3rd".to_vec(), mode: 0o600 });
        assert_eq!(disk.write_new(&lock, b"x", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn both_disks_keep_the_contract() {
        check_contract(&SimDisk::new(0), Path::new("/sim"));
        let mut seed = [0; 8];
        crate::Entropy::fill(&crate::SystemEntropy, &mut seed).unwrap();
        let root = std::env::temp_dir().join(format!("cyclotron-ports-{:x}", u64::from_le_bytes(seed)));
        check_contract(&SystemDisk, &root);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_was_synced_survives_a_loss_of_power_and_a_rename_never_loses_the_file() {
        let directory = Path::new("/d");
        let (old, new) = (directory.join("old"), directory.join("new"));
        let (mut renamed, mut kept) = (0, 0);
        for seed in 0..64 {
            let disk = SimDisk::new(seed);
            disk.create_directory(directory).unwrap();
            disk.write_new(&old, b"lasting", 0o600).unwrap();
            disk.sync_directory(directory).unwrap();
            disk.rename(&old, &new).unwrap();
            disk.restart();
            let at = |path| disk.read(path, 10).map(|content| content.bytes);
            match (at(&old), at(&new)) {
                (Ok(bytes), Err(_)) => {
                    assert_eq!(bytes, b"lasting");
                    kept += 1;
                }
                (_, Ok(bytes)) => {
                    assert_eq!(bytes, b"lasting");
                    renamed += 1;
                }
                (Err(_), Err(_)) => panic!("lost, seed {seed}"),
            }
        }
        assert!(renamed > 0 && kept > 0);
    }

    #[test]
    fn a_full_disk_leaves_part_of_the_file() {
        let disk = SimDisk::new(3);
        disk.create_directory(Path::new("/d")).unwrap();
        disk.fail_after(0, Fault::Full);
        let path = Path::new("/d/file");
        assert_eq!(disk.write_new(path, &[1; 100], 0o600).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(disk.read(path, 200).unwrap().bytes.len() <= 100);
        disk.fail_after(1, Fault::PowerLoss);
        disk.list(Path::new("/d")).unwrap();
        assert!(disk.remove(path).is_err());
        assert!(disk.read(path, 200).is_err());
        disk.restart();
        disk.list(Path::new("/d")).unwrap();
    }
}
