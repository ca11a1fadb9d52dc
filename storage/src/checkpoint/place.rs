//! A checkpoint put into another folder, where it shares its files with the one that it comes from.
//!
//! Files of checkpoints are never written again once they have their names, so that both folders may go on and remove what they no longer need.

use crate::StorageError;
use crate::checkpoint::{FileUse, PageFiles, StateReader, manifest_path, pages_path, remove_manifest, state_path};
use crate::directory::{FILE_MODE, free_temporary, io};
use crate::input::CHUNK;
use cyclotron_ports::{Access, Disk, DiskFile};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Puts the checkpoint of a height, which is in the folder `from`, into the folder `to`, which is made if need be: by second names of its files, or by
/// copies where the file system gives none. It exists there once this returns, lastingly, and not before: the state file comes last. Its manifest comes with it if it is made. Files of pages that `to` has
/// already are taken for the same if all checksums in them are.
/// Cost: O(files); with copies, O(bytes).
///
/// Errors: [`StorageError::CheckpointGone`] when it is not in `from`, or is removed from there before all of its files are open: there may be a newer one;
/// [`StorageError::Exists`] when `to` has a checkpoint of the height, or another file of pages of a number that is needed. After any error what was put
/// into `to` is removed again, as far as the disk lets.
pub fn place<D: Disk>(disk: &D, from: &Path, height: u64, to: &Path) -> Result<(), StorageError> {
    Opened::open(disk, from, height)?.place(disk, to)
}

/// The files of a checkpoint, open: whoever has made it may remove them meanwhile, and they can be read all the same.
pub(crate) struct Opened<F> {
    folder: PathBuf,
    height: u64,
    files: Vec<FileUse>,
    pages: Vec<Source<F>>,
    /// It may not be made yet, or never have been.
    manifest: Option<Source<F>>,
    state: Source<F>,
}

impl<F: DiskFile> Opened<F> {
    /// Errors: [`StorageError::CheckpointGone`].
    pub(crate) fn open<D: Disk<File = F>>(disk: &D, folder: &Path, height: u64) -> Result<Self, StorageError> {
        let open = || {
            let state = Source::open(disk, state_path(folder, height))?;
            let files = needed(disk, folder, height)?;
            let pages = files.iter().map(|file| Source::open(disk, pages_path(folder, file.number)));
            let pages = pages.collect::<Result<_, _>>()?;
            let manifest = match Source::open(disk, manifest_path(folder, height)) {
                Err(error) if is_not_found(&error) => None,
                manifest => Some(manifest?),
            };
            Ok(Self { folder: folder.to_owned(), height, files, pages, manifest, state })
        };
        let gone = || StorageError::CheckpointGone { directory: folder.to_owned(), height };
        open().map_err(|error| if is_not_found(&error) { gone() } else { error })
    }

    /// Puts it into a folder, as [`place`] does.
    pub(crate) fn place<D: Disk<File = F>>(&self, disk: &D, to: &Path) -> Result<(), StorageError> {
        disk.create_directory(to).map_err(io("create the directory", to))?;
        let mut placed = Vec::new();
        let outcome = self.place_files(disk, to, &mut placed);
        if outcome.is_err() {
            for path in placed.iter().rev() {
                // What stays is removed with the next checkpoint there, as nobody names it.
                let _ = disk.remove(path);
            }
        }
        outcome
    }

    fn place_files<D: Disk<File = F>>(
        &self,
        disk: &D,
        to: &Path,
        placed: &mut Vec<PathBuf>,
    ) -> Result<(), StorageError> {
        for (FileUse { number, .. }, source) in self.files.iter().zip(&self.pages) {
            match place_file(disk, source, &pages_path(to, *number), placed) {
                Err(StorageError::Exists { path }) if !is_same(disk, [&self.folder, to], *number)? => {
                    return Err(StorageError::Exists { path });
                }
                Err(StorageError::Exists { .. }) => {}
                outcome => outcome?,
            }
        }
        let sync = || disk.sync_directory(to).map_err(io("flush the directory", to));
        sync()?;
        // A checkpoint that is there already is an error below, and keeps its manifest; one that has gone has left it.
        let there = state_path(to, self.height);
        if disk.open(&there, Access::Read).is_err() {
            remove_manifest(disk, to, self.height)?;
            if let Some(manifest) = &self.manifest {
                place_file(disk, manifest, &manifest_path(to, self.height), placed)?;
                sync()?;
            }
        }
        place_file(disk, &self.state, &there, placed)?;
        // What has the name may be another checkpoint of this height by now.
        if needed(disk, to, self.height)? != self.files {
            return Err(StorageError::CheckpointGone { directory: self.folder.clone(), height: self.height });
        }
        sync()
    }
}

/// A file that is placed elsewhere.
pub(crate) struct Source<F> {
    path: PathBuf,
    file: F,
}

impl<F: DiskFile> Source<F> {
    /// Errors: also when there is no such file.
    pub(crate) fn open<D: Disk<File = F>>(disk: &D, path: PathBuf) -> Result<Self, StorageError> {
        let file = disk.open(&path, Access::Read).map_err(io("open", &path))?;
        Ok(Self { path, file })
    }
}

/// The files of pages that a checkpoint needs.
fn needed<D: Disk>(disk: &D, folder: &Path, height: u64) -> Result<Vec<FileUse>, StorageError> {
    StateReader::open(disk, folder, height)?.files()
}

/// Whether two folders have the same file of pages of a number, as far as checksums say.
fn is_same<D: Disk>(disk: &D, folders: [&Path; 2], number: u32) -> Result<bool, StorageError> {
    let [here, there] = folders.map(|folder| {
        let files = PageFiles::default();
        files.open(disk, folder, number)?;
        files.checksums(number)
    });
    Ok(here? == there?)
}

pub(crate) fn place_file<D: Disk>(
    disk: &D,
    from: &Source<D::File>,
    to: &Path,
    placed: &mut Vec<PathBuf>,
) -> Result<(), StorageError> {
    match disk.link(&from.path, to) {
        Ok(()) => {
            placed.push(to.to_owned());
            Ok(())
        }
        Err(_) if disk.open(to, Access::Read).is_ok() => Err(StorageError::Exists { path: to.to_owned() }),
        // Another file system, or one without second names; or the name has gone. If it is the disk, the copy fails too, and says why.
        Err(_) => copy(disk, from, to, placed),
    }
}

/// Copies a file, which lasts under its name but for its directory.
fn copy<D: Disk>(
    disk: &D,
    Source { path: from, file: source }: &Source<D::File>,
    to: &Path,
    placed: &mut Vec<PathBuf>,
) -> Result<(), StorageError> {
    let size = source.size().map_err(io("read", from))?;
    let temporary = free_temporary(disk, to)?;
    placed.push(temporary.clone());
    let copy = disk.open(&temporary, Access::Create(FILE_MODE)).map_err(io("create", &temporary))?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let count = buffer.len().min((size - at) as usize);
        if source.read_at(at, &mut buffer[..count]).map_err(io("read", from))? < count {
            return Err(StorageError::Damaged { path: from.clone(), at, what: "it has become shorter" });
        }
        copy.write_at(at, &buffer[..count]).map_err(io("write", &temporary))?;
        at += count as u64;
    }
    copy.sync().map_err(io("flush", &temporary))?;
    disk.rename(&temporary, to).map_err(io("rename into place", to))?;
    placed.pop();
    placed.push(to.to_owned());
    Ok(())
}

fn is_not_found(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}
