//! The state directory of one node.

use crate::StorageError;
use crate::checkpoint;
use crate::key_file::{self, KEY_FILE_BYTES, KeyKind};
use crate::log::{self, LOG_FILE_BYTES, LogReader, LogWriter};
use cyclotron_crypto::{BlsSecretKey, NodeKey};
use cyclotron_ports::{Disk, Entropy, LockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(crate) const LAYOUT: &[u8] = b"cyclotron state 2\n";
/// Keys alone: the state was in memory.
const LAYOUT_WITHOUT_LOG: &[u8] = b"cyclotron state 1\n";
/// More than any layout line needs; what is read of an unknown one.
const LAYOUT_BYTES_MAX: u64 = 64;
/// Folder of the log of batches.
pub(crate) const LOG: &str = "log";
/// Folder of checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// Folder of keys.
pub(crate) const KEYS: &str = "keys";
/// Folder of compiled code.
const MODULE_CACHE: &str = "module-cache";
/// Keys are secret, and what users sent is nobody else's.
pub(crate) const FILE_MODE: u32 = 0o600;
const OTHERS_MODE: u32 = 0o077;

/// The secrets of a node.
#[derive(Debug)]
pub struct NodeKeys {
    /// Signs the state tree's root.
    pub root: BlsSecretKey,
    /// Signs query answers.
    pub node: NodeKey,
}

/// A state directory in the use of this process, until it is dropped.
#[derive(Debug)]
pub struct StateDirectory<D: Disk> {
    disk: Arc<D>,
    path: PathBuf,
    keys: NodeKeys,
    created: bool,
    _lock: D::Lock,
}

/// How far a directory has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// Its first start was not finished, or never begun.
    Unfinished,
    /// Of the version before this one.
    WithoutLog,
    /// Of this version.
    Whole,
}

impl<D: Disk> StateDirectory<D> {
    /// Opens the state directory at `path`, creating it with fresh keys, and a log of the `genesis` made for them, when there is none.
    ///
    /// 1. Look whether the directory is ours, or empty: another's is left as it is.
    /// 2. Take the lock.
    /// 3. Read `format`, now that nobody else writes: is the directory ours, and was the first start finished?
    /// 4. Read the keys; on the first start make those that are missing.
    /// 5. On the first start, or the first one with a log, begin the log.
    /// 6. Then write `format`.
    /// 7. Discard what an earlier process did not finish.
    ///
    /// A start interrupted at any point is continued by the next one.
    pub fn open(
        disk: &Arc<D>,
        path: &Path,
        entropy: &dyn Entropy,
        process: u32,
        genesis: impl FnOnce(&NodeKeys) -> Vec<u8>,
    ) -> Result<Self, StorageError> {
        let shared = disk;
        let disk = &**disk;
        disk.create_directory(path).map_err(io("create the directory", path))?;
        read_layout(disk, path)?;
        let lock = take_lock(disk, path, process)?;
        let layout = read_layout(disk, path)?;
        let started_before = layout != Layout::Unfinished;
        let keys_path = path.join(KEYS);
        // What an earlier start renamed but failed to flush must last before anything relies on it.
        if started_before {
            disk.sync_directory(path).map_err(io("flush the directory", path))?;
        } else {
            disk.create_directory(&keys_path).map_err(io("create the directory", &keys_path))?;
        }
        let source = KeySource { disk, entropy, may_create: !started_before };
        let root = source.root(&keys_path.join("root.key"))?;
        let node = source.node(&keys_path.join("node.key"))?;
        if !started_before {
            disk.sync_directory(&keys_path).map_err(io("flush the directory", &keys_path))?;
        }
        let keys = NodeKeys { root, node };
        if layout != Layout::Whole {
            let log_path = path.join(LOG);
            disk.create_directory(&log_path).map_err(io("create the directory", &log_path))?;
            if log::heights(disk, &log_path)?.is_empty() {
                LogWriter::create(shared.clone(), &log_path, 1, &genesis(&keys), LOG_FILE_BYTES)?;
            }
            disk.sync_directory(&log_path).map_err(io("flush the directory", &log_path))?;
            write_file(disk, &path.join("format"), LAYOUT)?;
        }
        // Whoever removed all checkpoints may have removed their folder.
        let checkpoints = path.join(CHECKPOINTS);
        disk.create_directory(&checkpoints).map_err(io("create the directory", &checkpoints))?;
        discard_unfinished(disk, &checkpoints)?;
        match discard_unfinished(disk, &path.join(LOG)) {
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
        Ok(Self { disk: shared.clone(), path: path.to_owned(), keys, created: !started_before, _lock: lock })
    }

    /// Opens the log of batches where the batch of height `from` is, or comes next.
    pub fn log(&self, from: u64) -> Result<LogReader<D>, StorageError> {
        Self::log_of(&self.disk, &self.path, Some(from))
    }

    /// Opens the log of batches in the state directory at `path`, which another process may use: where the batch of height `from` is, or comes next;
    /// at its beginning if none is named.
    pub fn log_of(disk: &Arc<D>, path: &Path, from: Option<u64>) -> Result<LogReader<D>, StorageError> {
        if layout(&**disk, path)? == Layout::Unfinished {
            return Err(StorageError::Foreign { path: path.to_owned(), expected: "a state directory" });
        }
        let (disk, log) = (disk.clone(), path.join(LOG));
        match from {
            Some(from) => LogReader::open(disk, &log, from),
            None => LogReader::open_first(disk, &log),
        }
    }

    /// Folder of the log of batches.
    pub fn log_folder(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        Self::checkpoints_of(&self.path)
    }

    /// Folder of checkpoints in the state directory at `path`.
    pub fn checkpoints_of(path: &Path) -> PathBuf {
        path.join(CHECKPOINTS)
    }

    /// Folder of compiled code, for a [`ModuleCache`](crate::module_cache::ModuleCache).
    pub fn module_cache(&self) -> PathBuf {
        self.path.join(MODULE_CACHE)
    }

    /// Height of the newest checkpoint, if there is one.
    pub fn newest_checkpoint(&self) -> Result<Option<u64>, StorageError> {
        Ok(checkpoint::list(&*self.disk, &self.checkpoints())?.pop())
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the node's keys.
    pub fn keys(&self) -> &NodeKeys {
        &self.keys
    }

    /// Tells whether this start made the directory.
    pub fn is_created(&self) -> bool {
        self.created
    }
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    move |source| StorageError::Io { action, path: path.to_owned(), source }
}

/// Takes the lock of a state directory for this process.
pub(crate) fn take_lock<D: Disk>(disk: &D, directory: &Path, process: u32) -> Result<D::Lock, StorageError> {
    let path = directory.join("lock");
    disk.lock(&path, &format!("{process}\n")).map_err(|error| match error {
        LockError::Held { holder } => {
            StorageError::Locked { directory: directory.to_owned(), holder: holder.trim().parse().ok() }
        }
        LockError::Io(source) => io("lock", &path)(source),
    })
}

/// Tells how far the directory has come. Errors: also when it is another's.
fn read_layout<D: Disk>(disk: &D, directory: &Path) -> Result<Layout, StorageError> {
    let found = layout(disk, directory)?;
    if found == Layout::Unfinished {
        let names = disk.list(directory).map_err(io("list", directory))?;
        let ours = ["lock", KEYS, LOG, CHECKPOINTS, "format.new"];
        if let Some(name) = names.into_iter().find(|name| !ours.contains(&&name[..])) {
            return Err(StorageError::NotAStateDirectory { directory: directory.to_owned(), name });
        }
    }
    Ok(found)
}

/// What the directory's `format` says.
pub(crate) fn layout<D: Disk>(disk: &D, directory: &Path) -> Result<Layout, StorageError> {
    let path = directory.join("format");
    match disk.read(&path, LAYOUT_BYTES_MAX) {
        Ok(content) if content.bytes == LAYOUT => Ok(Layout::Whole),
        Ok(content) if content.bytes == LAYOUT_WITHOUT_LOG => Ok(Layout::WithoutLog),
        Ok(content) => {
            let found = String::from_utf8_lossy(&content.bytes).trim().to_owned();
            Err(StorageError::UnknownLayout { path, found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Layout::Unfinished),
        Err(error) => Err(io("read", &path)(error)),
    }
}

/// The name under which a file is written before it gets its own; what an earlier process left there is removed.
pub(crate) fn free_temporary<D: Disk>(disk: &D, path: &Path) -> Result<PathBuf, StorageError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", &temporary)(error)),
        _ => Ok(temporary),
    }
}

/// Puts a file in place, whole and lasting; one that is there is replaced.
pub(crate) fn write_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let new = free_temporary(disk, path)?;
    if let Err(error) = disk.write_new(&new, bytes, FILE_MODE) {
        // Whether or not this works: the next start discards what is left.
        let _ = disk.remove(&new);
        return Err(io("write", &new)(error));
    }
    disk.rename(&new, path).map_err(io("rename into place", path))?;
    sync_parent(disk, path)
}

/// Makes the name of a file last.
pub(crate) fn sync_parent<D: Disk>(disk: &D, path: &Path) -> Result<(), StorageError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    disk.sync_directory(directory).map_err(io("flush the directory", directory))
}

/// Removes what an earlier process left on its way to its name.
fn discard_unfinished<D: Disk>(disk: &D, directory: &Path) -> Result<(), StorageError> {
    for name in disk.list(directory).map_err(io("list", directory))? {
        if name.ends_with(".new") {
            let path = directory.join(name);
            disk.remove(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

struct KeySource<'a, D> {
    disk: &'a D,
    entropy: &'a dyn Entropy,
    may_create: bool,
}

impl<D: Disk> KeySource<'_, D> {
    fn root(&self, path: &Path) -> Result<BlsSecretKey, StorageError> {
        let secret = self.read_or_create(KeyKind::Root, path, |seed| BlsSecretKey::from_seed(seed).to_bytes())?;
        BlsSecretKey::from_bytes(&secret)
            .ok_or(StorageError::KeyDamaged { path: path.to_owned(), what: "its number is not a secret key" })
    }

    fn node(&self, path: &Path) -> Result<NodeKey, StorageError> {
        let secret = self.read_or_create(KeyKind::Node, path, |seed| Zeroizing::new(*seed))?;
        Ok(NodeKey::from_seed(&secret))
    }

    /// Returns the secret at `path`; makes one from entropy if there is none and this is the first start.
    fn read_or_create(
        &self,
        kind: KeyKind,
        path: &Path,
        make: impl FnOnce(&[u8; 32]) -> Zeroizing<[u8; 32]>,
    ) -> Result<Zeroizing<[u8; 32]>, StorageError> {
        if let Some(secret) = self.read(kind, path)? {
            return Ok(secret);
        }
        if !self.may_create {
            return Err(StorageError::KeyMissing { path: path.to_owned() });
        }
        let mut seed = Zeroizing::new([0; 32]);
        self.entropy.fill(&mut *seed).map_err(io("draw entropy for", path))?;
        let secret = make(&seed);
        write_file(self.disk, path, &*key_file::encode(kind, &secret))?;
        // What will be read next time is what is used now.
        match self.read(kind, path)? {
            Some(read) if *read == *secret => Ok(read),
            _ => {
                Err(StorageError::KeyDamaged { path: path.to_owned(), what: "it reads otherwise than it was written" })
            }
        }
    }

    fn read(&self, kind: KeyKind, path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, StorageError> {
        let content = match self.disk.read(path, KEY_FILE_BYTES as u64 + 1) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", path)(error)),
        };
        let bytes = Zeroizing::new(content.bytes);
        if content.mode & OTHERS_MODE != 0 {
            return Err(StorageError::KeyPermissions { path: path.to_owned(), mode: content.mode });
        }
        key_file::decode(kind, path, &bytes).map(Some)
    }
}
