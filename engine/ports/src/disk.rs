//! The disk: whole small files, written once and renamed into place; files that are written in place; and a lock.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::{fmt, fs};

/// A file as read: its bytes and its permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// The bytes, up to the limit asked for.
    pub bytes: Vec<u8>,
    /// The nine permission bits.
    pub mode: u32,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another holder has it; `holder` is what it noted in the lock file.
    Held {
        /// The holder's note; empty when it has not written one yet.
        holder: String,
    },
    /// The lock file cannot be opened, locked or written.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { holder } => write!(f, "held by {holder:?}"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It is there, and only read.
    Read,
    /// It is there, and read and written.
    Write,
    /// It is not there: it is made, with these permission bits.
    Create(u32),
}

/// A file that is read and written in place.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads from byte `at` on; returns how many bytes there were, fewer than asked for only at the end of the file.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` from byte `at` on, making the file longer as needed. After an error some of them may be written.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file off, or makes it longer by zeros.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Makes all that was written last through a loss of power. After an error nothing is known of what was written since the last success,
    /// and a later success says nothing of it either.
    fn sync(&self) -> io::Result<()>;
}

/// What storage needs of a file system.
pub trait Disk: Send + Sync {
    /// A lock that is held until it is dropped or the process ends.
    type Lock: Send + Sync + fmt::Debug;

    /// A file that is read and written in place.
    type File: DiskFile;

    /// Opens a file. One that is made lasts once it and its directory are synced.
    /// Errors: when the path exists and the file is to be made, or does not exist and is not.
    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;

    /// Creates a directory and its parents, readable by the owner alone; an existing one is left as it is.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Returns the names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Returns the first `bytes_max` bytes of a file.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent>;

    /// Creates a file with permission bits `mode` and writes `bytes` through to the medium.
    /// Errors: when the path exists; after any other error a partly written file may remain.
    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Moves a file within its directory, replacing one that is there. Lasting once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name; both are the same file from then on. Lasting once the directory of the new name is synced.
    /// Errors: when the new name exists; when it is on another file system, or the file system has no second names.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Lasting once the directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory last through a loss of power.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock at `path`, creating the file if needed, and notes `holder` in it for whoever comes second.
    fn lock(&self, path: &Path, holder: &str) -> Result<Self::Lock, LockError>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemDisk;

/// Longest note read from a lock file.
const HOLDER_BYTES_MAX: u64 = 256;

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for SystemDisk {
    type Lock = File;
    type File = File;

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => {}
            Access::Write => drop(options.write(true)),
            Access::Create(mode) => drop(options.write(true).create_new(true).mode(mode)),
        }
        // To open a pipe would wait for who is at its other end.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        // Each name must last, not the last one alone.
        self.create_directory(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
            _ => self.sync_directory(parent),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(FileContent { bytes, mode: metadata.permissions().mode() & 0o777 })
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        // The process's umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<File, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut note = Vec::new();
                // The note is a courtesy: without it the lock is held all the same.
                let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut note);
                return Err(LockError::Held { holder: String::from_utf8_lossy(&note).trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        file.set_len(0).map_err(LockError::Io)?;
        file.rewind().map_err(LockError::Io)?;
        file.write_all(holder.as_bytes()).map_err(LockError::Io)?;
        Ok(file)
    }
}
