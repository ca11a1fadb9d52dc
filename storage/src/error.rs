//! What goes wrong with a disk, in words for the operator.

use crate::KeyKind;
use std::path::PathBuf;
use std::{fmt, io};

/// Why the state directory, or a log, cannot be used. Each message names the path, and what to do where there is something to do.
#[derive(Debug)]
pub enum StorageError {
    /// The operating system refused.
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Another process uses the directory.
    Locked {
        /// The directory.
        directory: PathBuf,
        /// That process's id, when it has noted one.
        holder: Option<u32>,
    },
    /// The directory holds something else.
    NotAStateDirectory {
        /// The directory.
        directory: PathBuf,
        /// A name in it that is not ours.
        name: String,
    },
    /// A directory that is to be made holds something.
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory's layout is of another version.
    UnknownLayout {
        /// The `format` file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A key file is gone although the node has been started before.
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A key file may be read by others.
    KeyPermissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file is not as long as its version says.
    KeyLength {
        /// The file.
        path: PathBuf,
        /// Its length, or the most that was read of it.
        bytes: usize,
        /// What it should be.
        expected: usize,
    },
    /// A key file is of a version this program does not know.
    KeyVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A key file holds another kind of key.
    KeyKindMismatch {
        /// The file.
        path: PathBuf,
        /// What it says it holds.
        found: u32,
        /// What it should hold.
        expected: KeyKind,
    },
    /// A key file is damaged.
    KeyDamaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        what: &'static str,
    },
    /// A file that is to be made exists.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what its name says.
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A log or a checkpoint is of a version that this program does not know.
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The one that this program knows.
        known: u32,
    },
    /// A file holds a frame of a kind that this program does not know.
    UnknownFrame {
        /// The file.
        path: PathBuf,
        /// Where in it the frame begins.
        at: u64,
        /// The kind.
        number: u16,
    },
    /// A log or a checkpoint is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// In what way.
        what: &'static str,
    },
    /// A checkpoint is whole, but this program makes another state of it.
    Unfaithful {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint is asked for that is not there, or no longer.
    CheckpointGone {
        /// The folder of checkpoints.
        directory: PathBuf,
        /// Its height.
        height: u64,
    },
    /// A checkpoint is not what its manifest says.
    ManifestDiffers {
        /// The manifest.
        path: PathBuf,
        /// The first file in it that is another, or none, in the checkpoint.
        file: String,
    },
    /// A page is asked for of a file that is not open.
    PagesMissing {
        /// The file's number.
        number: u32,
    },
    /// A part of the log is gone.
    LogMissing {
        /// The log's directory.
        directory: PathBuf,
        /// The height that comes next and is not there.
        height: u64,
    },
    /// The log begins later than it is needed from.
    LogBegins {
        /// The log's directory.
        directory: PathBuf,
        /// Height of its first batch.
        first: u64,
        /// The height that it is needed from.
        needed: u64,
    },
    /// The disk failed to flush a log: what was written since is not known to last.
    LogFailedBefore {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// Whether the operating system refused something, rather than bytes being what they should not be.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() != io::ErrorKind::NotFound)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const RESTORE: &str = "restore it from a backup; it is never overwritten";
        match self {
            Self::Io { action, path, source } => {
                let path = path.display();
                match source.kind() {
                    io::ErrorKind::StorageFull => write!(f, "cannot {action} {path}: no space left on the disk"),
                    io::ErrorKind::PermissionDenied => write!(f, "cannot {action} {path}: permission denied"),
                    io::ErrorKind::ReadOnlyFilesystem => write!(f, "cannot {action} {path}: the disk is read-only"),
                    _ => write!(f, "cannot {action} {path}: {source}"),
                }
            }
            Self::Locked { directory, holder: Some(pid) } => {
                write!(f, "the state directory {} is in use by process {pid}", directory.display())
            }
            Self::Locked { directory, holder: None } => {
                write!(f, "the state directory {} is in use by another process", directory.display())
            }
            Self::NotAStateDirectory { directory, name } => write!(
                f,
                "{} holds {name:?} and is not a state directory; give an empty or a new one",
                directory.display()
            ),
            Self::NotEmpty { directory } => {
                write!(f, "{} is not empty; name a directory that is, or none yet", directory.display())
            }
            Self::UnknownLayout { path, found } => {
                write!(f, "{} says {found:?}, which this program does not know; a newer one may", path.display())
            }
            Self::KeyMissing { path } => write!(
                f,
                "the key file {} is missing although this node was started before; restore it from a backup, or start with a new state directory",
                path.display()
            ),
            Self::KeyPermissions { path, mode } => write!(
                f,
                "the key file {} has mode {mode:04o}, so others may have read it; if they cannot have, run chmod 600 on it",
                path.display()
            ),
            Self::KeyLength { path, bytes, expected } if bytes < expected => {
                write!(f, "the key file {} is truncated: {bytes} bytes of {expected}; {RESTORE}", path.display())
            }
            Self::KeyLength { path, expected, .. } => {
                write!(f, "the key file {} is longer than {expected} bytes; {RESTORE}", path.display())
            }
            Self::KeyVersion { path, version } => {
                write!(f, "the key file {} is of version {version}; this program knows version 1", path.display())
            }
            Self::KeyKindMismatch { path, found, expected } => {
                write!(
                    f,
                    "the key file {} holds a key of kind {found}, not the {expected} (kind {})",
                    path.display(),
                    expected.number()
                )
            }
            Self::KeyDamaged { path, what } => {
                write!(f, "the key file {} is damaged: {what}; {RESTORE}", path.display())
            }
            Self::Exists { path } => write!(f, "{} exists already; it is not overwritten", path.display()),
            Self::Foreign { path, expected } => write!(f, "{} is not {expected} of Cyclotron", path.display()),
            Self::Version { path, version, known } if version < known => write!(
                f,
                "{} is of version {version}, and this program knows version {known}: go on with the program that wrote it, or remove it; as far as the log goes back, that brings the same state back",
                path.display()
            ),
            Self::Version { path, version, known } => write!(
                f,
                "{} is of version {version}; this program knows version {known}, a newer one may know it",
                path.display()
            ),
            Self::UnknownFrame { path, at, number } => write!(
                f,
                "{} holds a frame of kind {number} at byte {at}, which this program does not know; a newer one may",
                path.display()
            ),
            Self::Damaged { path, at, what } => write!(
                f,
                "{} is damaged at byte {at}: {what}; restore it from a backup; nothing behind that place is used, and nothing is overwritten",
                path.display()
            ),
            Self::Unfaithful { path } => write!(
                f,
                "{} is whole, but its state does not come to the certified root that it names: it was written by a program that does not do what this one does, or is of another subnet",
                path.display()
            ),
            Self::CheckpointGone { directory, height } => write!(
                f,
                "the checkpoint of height {height} is not in {}, or no longer: newer ones may have taken its place",
                directory.display()
            ),
            Self::ManifestDiffers { path, file } => write!(
                f,
                "{} is not the manifest of its checkpoint: they differ in {file}; one of the two was changed, or written by a program that does not do what this one does",
                path.display()
            ),
            Self::PagesMissing { number } => write!(f, "the file of pages {number:08x} is not open"),
            Self::LogMissing { directory, height } => write!(
                f,
                "the log in {} goes on at height {height}, but no file there begins with it; restore the file from a backup",
                directory.display()
            ),
            Self::LogBegins { directory, first, needed } => write!(
                f,
                "the log in {} begins at height {first}, and is needed from height {needed} on: what was before is kept by checkpoints alone, and none of height {} or higher is here; restore one, or the files of the log, from a backup",
                directory.display(),
                first - 1
            ),
            Self::LogFailedBefore { path } => write!(
                f,
                "the log {} could not be flushed before, and what was written since is not known to last; start the node again",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
