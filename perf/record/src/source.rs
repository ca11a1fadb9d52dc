//! Where recordings are found.

use cyclotron_ports::SystemDisk;
use cyclotron_storage::log::LogReader;
use cyclotron_storage::{StateDirectory, StorageError};
use cyclotron_subnet::Genesis;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Why a recording cannot be opened.
#[derive(Debug)]
pub enum OpenFailed {
    /// It cannot be read.
    Storage(StorageError),
    /// What its subnet was made with cannot be.
    Genesis(String),
}

impl fmt::Display for OpenFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Genesis(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for OpenFailed {}

/// Opens a recording, one file of an input log, or the input log of a state directory. A node may be writing it: it is then read as far as
/// it is whole.
pub fn open(path: &Path) -> Result<(Genesis, LogReader<SystemDisk>), OpenFailed> {
    let disk = Arc::new(SystemDisk);
    let log = if path.is_dir() { StateDirectory::log_of(&disk, path, None) } else { LogReader::open_file(disk, path) };
    let log = log.map_err(OpenFailed::Storage)?;
    let genesis = Genesis::decode(log.configuration()).map_err(OpenFailed::Genesis)?;
    Ok((genesis, log))
}
