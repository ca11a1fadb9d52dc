//! A disk in memory that fails on request.
//!
//! It separates what a process sees from what a loss of power leaves: bytes last once written through, names once their
//! directory is synced; what was not yet lasting survives in part, as the seed decides: of writes to a file any of their sectors, in any
//! order. Directories themselves always last.

use crate::disk::{Access, Disk, DiskFile, FileContent, LockError};
use crate::entropy::SimEntropy;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Permission bits of a lock file, as the system's disk makes it.
const LOCK_MODE: u32 = 0o600;

/// What survives a loss of power whole or not at all.
const SECTOR: usize = 512;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space is left; a write leaves its first bytes.
    Full,
    /// The medium fails; a write leaves its first bytes, and a sync any part of what was to last.
    Medium,
    /// Permission is denied; nothing happens.
    Denied,
    /// Power is lost in the middle of it: every later operation fails until [`SimDisk::restart`].
    PowerLoss,
}

#[derive(Clone, Debug)]
struct Inode {
    /// What processes see.
    bytes: Vec<u8>,
    /// What is on the medium for certain.
    lasting: Vec<u8>,
    /// What is not, oldest first.
    pending: Vec<ByteChange>,
    mode: u32,
}

#[derive(Clone, Debug)]
enum ByteChange {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl ByteChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Resize(size) => content.resize(*size, 0),
        }
    }

    /// Its parts that survive whole or not at all.
    fn sectors(self) -> Vec<Self> {
        let Self::Write { at, bytes } = self else { return vec![self] };
        let mut parts = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min(((at + from) / SECTOR + 1) * SECTOR - at);
            parts.push(Self::Write { at: at + from, bytes: bytes[from..to].to_vec() });
            from = to;
        }
        parts
    }
}

impl Inode {
    fn new(mode: u32) -> Self {
        Self { bytes: Vec::new(), lasting: Vec::new(), pending: Vec::new(), mode }
    }

    fn change(&mut self, change: ByteChange) {
        change.apply(&mut self.bytes);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.lasting);
        }
    }

    /// Lets only those parts of what is pending last that `survives` chooses; processes go on seeing the rest.
    fn lose(&mut self, mut survives: impl FnMut() -> bool) {
        for part in std::mem::take(&mut self.pending).into_iter().flat_map(ByteChange::sectors) {
            if survives() {
                part.apply(&mut self.lasting);
            }
        }
    }
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
    /// Folders whose files are on file systems of their own.
    mounts: BTreeSet<PathBuf>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    off: bool,
    /// Losses of power so far: a file opened before one is of a process that is gone.
    restarts: usize,
}

impl State {
    /// The folder that the file system of a path is mounted at.
    fn file_system<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.ancestors().find(|folder| self.mounts.contains(*folder))
    }

    /// Gives a new file its name.
    fn link(&mut self, path: &Path, file: Inode) -> usize {
        let inode = self.inodes.len();
        self.inodes.push(file);
        self.names.insert(path.to_owned(), inode);
        self.pending.push(NameChange::Link { path: path.to_owned(), inode });
        inode
    }
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

/// An open file of a simulated disk.
#[derive(Clone, Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
    restarts: usize,
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

    /// Puts what is in a folder on a file system of its own.
    pub fn mount(&self, folder: &Path) {
        self.state().mounts.insert(folder.to_owned());
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
        for inode in inodes {
            // None of them, some, or nearly all.
            let chance = self.below(4);
            inode.lose(|| self.below(4) < chance + self.below(2));
            inode.bytes.clone_from(&inode.lasting);
        }
        state.restarts += 1;
        state.names = state.lasting.clone();
        state.locks.clear();
        state.fault = None;
        state.off = false;
    }

    /// Changes a file's bytes behind everyone's back; what was not lasting is then.
    /// Panics: when there is no such file.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        change(&mut inode.bytes);
        inode.pending.clear();
        inode.lasting = inode.bytes.clone();
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

impl SimFile {
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let (state, fault) = self.disk.begin()?;
        if state.restarts != self.restarts {
            return Err(io::Error::other("the power was off since the file was opened"));
        }
        Ok((state, fault))
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let (state, fault) = self.begin()?;
        fault.map_or_else(|| Ok(state.inodes[self.inode].bytes.len() as u64), |fault| Err(error_of(fault)))
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (state, fault) = self.begin()?;
        if let Some(fault) = fault {
            return Err(error_of(fault));
        }
        let bytes = &state.inodes[self.inode].bytes;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if fault == Some(Fault::Denied) {
            return Err(error_of(Fault::Denied));
        }
        let length = if fault.is_some() { self.disk.below(bytes.len() + 1) } else { bytes.len() };
        let at = usize::try_from(at).map_err(io::Error::other)?;
        state.inodes[self.inode].change(ByteChange::Write { at, bytes: bytes[..length].to_vec() });
        fault.map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if let Some(fault) = fault {
            return Err(error_of(fault));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        state.inodes[self.inode].change(ByteChange::Resize(size));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        match fault {
            None => {
                state.inodes[self.inode].sync();
                Ok(())
            }
            Some(fault) => {
                if fault != Fault::Denied {
                    state.inodes[self.inode].lose(|| self.disk.below(2) == 0);
                }
                Err(error_of(fault))
            }
        }
    }
}

impl Disk for SimDisk {
    type Lock = SimLock;
    type File = SimFile;

    fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let (mut state, outcome) = self.whole()?;
        let inode = match (state.names.get(path), access) {
            (Some(_), Access::Create(_)) => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            (Some(&inode), _) => inode,
            (None, Access::Create(mode)) => {
                if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
                    return Err(not_found());
                }
                state.link(path, Inode::new(mode))
            }
            (None, _) => return Err(not_found()),
        };
        outcome.map(|()| SimFile { disk: self.clone(), inode, restarts: state.restarts })
    }

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
        let mut inode = Inode::new(mode);
        inode.change(ByteChange::Write { at: 0, bytes: bytes[..length].to_vec() });
        if fault.is_none() {
            inode.sync();
        }
        state.link(path, inode);
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

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.whole()?;
        let inode = *state.names.get(from).ok_or_else(not_found)?;
        if !to.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(not_found());
        }
        if state.names.contains_key(to) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        if state.file_system(from) != state.file_system(to) {
            return Err(io::Error::from(io::ErrorKind::CrossesDevices));
        }
        state.names.insert(to.to_owned(), inode);
        state.pending.push(NameChange::Link { path: to.to_owned(), inode });
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
            None => state.link(path, Inode::new(LOCK_MODE)),
        };
        outcome.map_err(LockError::Io)?;
        state.inodes[inode].change(ByteChange::Resize(0));
        state.inodes[inode].change(ByteChange::Write { at: 0, bytes: holder.as_bytes().to_vec() });
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
        assert_eq!(disk.link(&file, &file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.link(&other, &other).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.link(&file, &root.join("nowhere/file")).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.link(&file, &other).unwrap();
        assert_eq!(disk.list(&directory).unwrap(), ["file", "other"]);
        disk.open(&other, Access::Write).unwrap().write_at(0, b"both").unwrap();
        assert_eq!(disk.read(&file, 10).unwrap().bytes, b"bothr");
        disk.remove(&file).unwrap();
        assert_eq!(disk.read(&other, 10).unwrap(), FileContent { bytes: b"bothr".to_vec(), mode: 0o600 });
        disk.remove(&other).unwrap();
        assert_eq!(disk.remove(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(disk.list(&directory).unwrap().is_empty());

        assert_eq!(disk.open(&file, Access::Write).unwrap_err().kind(), io::ErrorKind::NotFound);
        let nowhere = root.join("nowhere/file");
        assert_eq!(disk.open(&nowhere, Access::Create(0o600)).unwrap_err().kind(), io::ErrorKind::NotFound);
        let open = disk.open(&file, Access::Create(0o640)).unwrap();
        assert_eq!(disk.open(&file, Access::Create(0o640)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        open.write_at(3, b"world").unwrap();
        open.write_at(0, b"a").unwrap();
        open.sync().unwrap();
        let mut buffer = [0xff; 10];
        let read = disk.open(&file, Access::Read).unwrap();
        assert_eq!((read.size().unwrap(), read.read_at(0, &mut buffer).unwrap()), (8, 8));
        assert_eq!(&buffer, b"a\0\0world\xff\xff");
        assert_eq!((read.read_at(6, &mut buffer).unwrap(), read.read_at(100, &mut buffer).unwrap()), (2, 0));
        open.set_size(4).unwrap();
        disk.open(&file, Access::Write).unwrap().set_size(6).unwrap();
        assert_eq!(disk.read(&file, 10).unwrap(), FileContent { bytes: b"a\0\0w\0\0".to_vec(), mode: 0o640 });
        disk.remove(&file).unwrap();

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
    fn a_second_name_lasts_with_its_directory_and_does_not_leave_its_file_system() {
        let (here, there) = (Path::new("/d/file"), Path::new("/e/file"));
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..32 {
            let disk = SimDisk::new(seed);
            for directory in ["/d", "/e", "/far"] {
                disk.create_directory(Path::new(directory)).unwrap();
            }
            disk.write_new(here, b"lasting", 0o600).unwrap();
            disk.sync_directory(Path::new("/d")).unwrap();
            disk.link(here, there).unwrap();
            disk.remove(here).unwrap();
            if seed % 2 == 0 {
                disk.sync_directory(Path::new("/e")).unwrap();
            }
            disk.restart();
            let names = [here, there].map(|path| disk.read(path, 10).map(|content| content.bytes == b"lasting"));
            assert!(names.iter().flatten().all(|same| *same), "seed {seed}");
            assert!(names[1].is_ok() || seed % 2 == 1 && names[0].is_ok(), "seed {seed}");
            (kept, lost) = if names[1].is_ok() { (kept + 1, lost) } else { (kept, lost + 1) };
            disk.mount(Path::new("/far"));
            let from = if names[0].is_ok() { here } else { there };
            let far = disk.link(from, Path::new("/far/file"));
            assert_eq!(far.unwrap_err().kind(), io::ErrorKind::CrossesDevices);
        }
        assert!(kept > 16 && lost > 0, "{kept} kept, {lost} lost");
    }

    #[test]
    fn of_what_was_not_synced_any_sectors_survive() {
        let directory = Path::new("/d");
        let path = directory.join("file");
        let (mut seen, mut reordered) = (BTreeSet::new(), 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            disk.create_directory(directory).unwrap();
            let file = disk.open(&path, Access::Create(0o600)).unwrap();
            file.write_at(0, &[1; 2 * SECTOR]).unwrap();
            file.sync().unwrap();
            disk.sync_directory(directory).unwrap();
            file.write_at(SECTOR as u64 - 10, &[2; 20]).unwrap();
            file.write_at(2 * SECTOR as u64, &[3; 10]).unwrap();
            disk.restart();
            assert!(file.size().is_err(), "its process is gone");
            let bytes = disk.read(&path, 4_096).unwrap().bytes;
            assert_eq!(bytes[..SECTOR - 10], [1; SECTOR - 10], "what was synced lasts");
            let parts = (bytes[SECTOR - 1] == 2, bytes[SECTOR] == 2, bytes.len() > 2 * SECTOR);
            seen.insert(parts);
            reordered += usize::from(parts.2 && !parts.0);
        }
        assert_eq!(seen.len(), 8, "every combination");
        assert!(reordered > 0);
    }

    #[test]
    fn a_sync_that_failed_is_not_made_good_by_the_next() {
        let lost = (0..64).filter(|&seed| {
            let disk = SimDisk::new(seed);
            disk.create_directory(Path::new("/d")).unwrap();
            let path = Path::new("/d/file");
            let file = disk.open(path, Access::Create(0o600)).unwrap();
            disk.sync_directory(Path::new("/d")).unwrap();
            file.write_at(0, b"content").unwrap();
            disk.fail_after(0, Fault::Medium);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            assert_eq!(disk.read(path, 10).unwrap().bytes, b"content", "processes see it");
            disk.restart();
            disk.read(path, 10).unwrap().bytes.is_empty()
        });
        assert!((1..64).contains(&lost.count()));
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
