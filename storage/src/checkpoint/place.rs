//! A checkpoint put into another folder, where it shares its files with the one that it comes from.
//!
//! Files of checkpoints are never written again once they have their names, so that both folders may go on and remove what they no longer need.

use crate::StorageError;
use crate::checkpoint::{FileUse, PageFiles, StateReader, manifest_path, pages_path, state_path};
use crate::directory::{FILE_MODE, free_temporary, io};
use crate::input::CHUNK;
use cyclotron_ports::{Access, Disk, DiskFile};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Puts the checkpoint of a height, which is in the folder `from`, into the folder `to`, which is made if need be: by second names of its files, or by
/// copies where the file system gives none. It exists there once this returns, lastingly, and not before: the state file comes last. Files of pages that `to` has
/// already are taken for the same if all checksums in them are.
/// Cost: O(files); with copies, O(bytes).
///
/// Errors: [`StorageError::CheckpointGone`] when it is not in `from`, or is removed from there meanwhile: there may be a newer one;
/// [`StorageError::Exists`] when `to` has a checkpoint of the height, or another file of pages of a number that is needed. After any error what was put
/// into `to` is removed again, as far as the disk lets.
pub fn place<D: Disk>(disk: &D, from: &Path, height: u64, to: &Path) -> Result<(), StorageError> {
    let gone = || StorageError::CheckpointGone { directory: from.to_owned(), height };
    let files = needed(disk, from, height).map_err(|error| if is_not_found(&error) { gone() } else { error })?;
    disk.create_directory(to).map_err(io("create the directory", to))?;
    let mut placed = Vec::new();
    let outcome = place_files(disk, (from, to), height, &files, &mut placed);
    if outcome.is_err() {
        for path in placed.iter().rev() {
            // What stays is removed with the next checkpoint there, as nobody names it.
            let _ = disk.remove(path);
        }
    }
    outcome.map_err(|error| if is_not_found(&error) { gone() } else { error })
}

fn place_files<D: Disk>(
    disk: &D,
    (from, to): (&Path, &Path),
    height: u64,
    files: &[FileUse],
    placed: &mut Vec<PathBuf>,
) -> Result<(), StorageError> {
    for FileUse { number, .. } in files {
        let [here, there] = [from, to].map(|folder| pages_path(folder, *number));
        match place_file(disk, &here, &there, placed) {
            Err(StorageError::Exists { path }) if !is_same(disk, [from, to], *number)? => {
                return Err(StorageError::Exists { path });
            }
            Err(StorageError::Exists { .. }) => {}
            outcome => outcome?,
        }
    }
    let sync = || disk.sync_directory(to).map_err(io("flush the directory", to));
    sync()?;
    let [here, there] = [from, to].map(|folder| manifest_path(folder, height));
    match place_file(disk, &here, &there, placed) {
        // Of a checkpoint that is there already, which is an error below; or of one that was not finished.
        Err(StorageError::Exists { .. }) if disk.open(&state_path(to, height), Access::Read).is_ok() => {}
        Err(StorageError::Exists { .. }) => {
            disk.remove(&there).map_err(io("remove", &there))?;
            place_file(disk, &here, &there, placed)?;
        }
        outcome => outcome?,
    }
    sync()?;
    place_file(disk, &state_path(from, height), &state_path(to, height), placed)?;
    // What has the name may be another checkpoint of this height by now.
    if needed(disk, to, height)? != files {
        return Err(StorageError::CheckpointGone { directory: from.to_owned(), height });
    }
    sync()
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
    from: &Path,
    to: &Path,
    placed: &mut Vec<PathBuf>,
) -> Result<(), StorageError> {
    match disk.link(from, to) {
        Ok(()) => {
            placed.push(to.to_owned());
            Ok(())
        }
        Err(_) if disk.open(to, Access::Read).is_ok() => Err(StorageError::Exists { path: to.to_owned() }),
        // Another file system, or one without second names: if it is the disk, the copy fails too, and says why.
        Err(_) => copy(disk, from, to, placed),
    }
}

/// Copies a file, which lasts under its name but for its directory.
fn copy<D: Disk>(disk: &D, from: &Path, to: &Path, placed: &mut Vec<PathBuf>) -> Result<(), StorageError> {
    let source = disk.open(from, Access::Read).map_err(io("open", from))?;
    let size = source.size().map_err(io("read", from))?;
    let temporary = free_temporary(disk, to)?;
    placed.push(temporary.clone());
    let copy = disk.open(&temporary, Access::Create(FILE_MODE)).map_err(io("create", &temporary))?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let count = buffer.len().min((size - at) as usize);
        if source.read_at(at, &mut buffer[..count]).map_err(io("read", from))? < count {
            return Err(StorageError::Damaged { path: from.to_owned(), at, what: "it has become shorter" });
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
