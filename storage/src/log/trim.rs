//! The end of a log: files that checkpoints made dispensable go, the oldest first.

use crate::StorageError;
use crate::directory::io;
use crate::log::{file_name, heights};
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::Path;

/// What was removed of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trimmed {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Height of the first batch that a log in a directory has, or would have; none: there is no log.
pub fn first_height<D: Disk>(disk: &D, directory: &Path) -> Result<Option<u64>, StorageError> {
    Ok(heights(disk, directory)?.front().copied())
}

/// Removes the oldest files of a log while all of them together have more than `bytes_max` bytes, as far as all their batches are of height `kept`
/// or lower. The newest file always stays. What is left begins lastingly later, without a gap, whenever this is interrupted: one name goes after the
/// other. Somebody may write the newest file meanwhile. Cost: O(files).
pub fn trim<D: Disk>(disk: &D, directory: &Path, kept: u64, bytes_max: u64) -> Result<Trimmed, StorageError> {
    let firsts = Vec::from(heights(disk, directory)?);
    let mut sizes = Vec::with_capacity(firsts.len());
    for first in &firsts {
        let path = directory.join(file_name(*first));
        let size = disk.open(&path, Access::Read).and_then(|file| file.size()).map_err(io("read", &path))?;
        sizes.push(size);
    }
    let mut left: u64 = sizes.iter().sum();
    let mut trimmed = Trimmed::default();
    for (pair, size) in firsts.windows(2).zip(sizes) {
        let [first, next] = [pair[0], pair[1]];
        if left <= bytes_max || next > kept.saturating_add(1) {
            break;
        }
        let path = directory.join(file_name(first));
        disk.remove(&path).map_err(io("remove", &path))?;
        disk.sync_directory(directory).map_err(io("flush the directory", directory))?;
        left -= size;
        trimmed = Trimmed { files: trimmed.files + 1, bytes: trimmed.bytes + size };
    }
    Ok(trimmed)
}
