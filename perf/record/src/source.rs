//! Where recordings are found, and the states that they can be run from.

use crate::ahead::{Ahead, has_queries};
use crate::replayer::ReplayFailed;
use cyclotron_ports::{Disk, SystemDisk};
use cyclotron_storage::log::{LogReader, time_of_batch};
use cyclotron_storage::{Frame, FrameKind, StateDirectory, StorageError, checkpoint};
use cyclotron_subnet::{Checkpointer, Genesis, Subnet, SubnetOptions};
use cyclotron_types::units::Height;
use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
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

/// The folder of checkpoints that belongs to a recording: beside it, under its name.
pub fn checkpoints_beside(file: &Path) -> PathBuf {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".checkpoints");
    PathBuf::from(folder)
}

/// A recording, or the log of a state directory, and the checkpoints that belong to it.
#[derive(Debug)]
pub struct Recording<D: Disk> {
    disk: Arc<D>,
    /// What its subnet was made with.
    pub genesis: Genesis,
    /// Its frames, from the first one on.
    pub log: LogReader<D>,
    /// As it was named.
    path: PathBuf,
    /// Whether that is a state directory.
    is_state: bool,
    /// Where its checkpoints are, if it has any.
    folder: PathBuf,
    /// Height of its first batch.
    first_height: u64,
    /// Whether its queries are run too, if it has any.
    queries: bool,
}

/// Opens a recording, one file of an input log, or the input log of a state directory. A node may be writing it: it is then read as far as
/// it is whole.
pub fn open(path: &Path) -> Result<Recording<SystemDisk>, OpenFailed> {
    let is_state = path.is_dir();
    Recording::open(Arc::new(SystemDisk), path, is_state)
}

impl<D: Disk<File: 'static> + 'static> Recording<D> {
    /// Opens a recording, one file of an input log, or with `is_state` the input log of a state directory.
    pub fn open(disk: Arc<D>, path: &Path, is_state: bool) -> Result<Self, OpenFailed> {
        let log =
            if is_state { StateDirectory::log_of(&disk, path, None) } else { LogReader::open_file(disk.clone(), path) };
        let log = log.map_err(OpenFailed::Storage)?;
        let genesis = Genesis::decode(log.configuration()).map_err(OpenFailed::Genesis)?;
        let first_height = log.next_height();
        let folder = if is_state { StateDirectory::<D>::checkpoints_of(path) } else { checkpoints_beside(path) };
        Ok(Self { disk, genesis, log, path: path.to_owned(), is_state, folder, first_height, queries: true })
    }

    /// Leaves its queries out.
    #[must_use]
    pub fn without_queries(mut self) -> Self {
        self.queries = false;
        self
    }

    /// The folder of its checkpoints, which need not be there.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Heights of the checkpoints that its batches follow on, ascending.
    pub fn checkpoints(&self) -> Result<Vec<u64>, StorageError> {
        match checkpoint::list(&*self.disk, &self.folder) {
            Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            heights => Ok(heights?.into_iter().filter(|height| height + 1 >= self.first_height).collect()),
        }
    }

    /// What is missing if nothing of it can be run: it begins behind a state that no checkpoint holds.
    pub fn missing(&self) -> Result<Option<String>, StorageError> {
        let first = self.first_height;
        if first == 1 || !self.checkpoints()?.is_empty() {
            return Ok(None);
        }
        let (path, folder) = (self.path.display(), self.folder.display());
        Ok(Some(if self.is_state {
            format!(
                "the log in {path} begins at height {first}, and no checkpoint of height {} or higher is there",
                first - 1
            )
        } else {
            format!(
                "{path} begins behind the state of height {}, and no checkpoint of it is in {folder}: that folder goes along with the file; if this is one file of a state directory's log, give the directory",
                first - 1
            )
        }))
    }

    /// Goes to the state that rounds from height `from` on are best run from: the newest checkpoint before it, or the first round. Without a height:
    /// the oldest state that there is.
    ///
    /// Errors: there is none so old; a state cannot be read.
    pub fn start(self, from: Option<u64>) -> Result<Started<D>, ReplayFailed> {
        let storage = ReplayFailed::Storage;
        if let Some(missing) = self.missing().map_err(storage)? {
            return Err(ReplayFailed::Subnet(missing));
        }
        let (first, checkpoints) = (self.first_height, self.checkpoints().map_err(storage)?);
        let before = |from: u64| checkpoints.iter().rev().find(|height| **height < from).copied();
        let checkpoint = match from {
            None if first == 1 => None,
            None => checkpoints.first().copied(),
            Some(from) => match before(from) {
                None if first > 1 => {
                    let oldest = checkpoints.first().map_or(first, |height| height + 1);
                    let path = self.path.display();
                    let error = format!("{path} can be run from height {oldest} on at the earliest, not from {from}");
                    return Err(ReplayFailed::Subnet(error));
                }
                found => found,
            },
        };
        let Self { disk, genesis, mut log, path, is_state, folder, queries, .. } = self;
        if let Some(height) = checkpoint.filter(|_| is_state) {
            log = StateDirectory::log_of(&disk, &path, Some(height + 1)).map_err(storage)?;
        }
        let height = checkpoint.unwrap_or(0);
        let queries = queries && !is_state && has_queries(&disk, &path).map_err(storage)?;
        let ahead = queries.then(|| Ahead::open(&disk, &path, height)).transpose().map_err(storage)?;
        Ok(Started { disk, genesis, log, folder, checkpoint, ahead, due: VecDeque::new(), at: height })
    }
}

/// A recording and a state to run it from.
pub struct Started<D: Disk> {
    disk: Arc<D>,
    genesis: Genesis,
    log: LogReader<D>,
    folder: PathBuf,
    /// The checkpoint that holds the state; none: that of a new subnet.
    checkpoint: Option<u64>,
    /// Its queries, if they are run.
    ahead: Option<Ahead<D>>,
    /// Frames that come next.
    due: VecDeque<Frame>,
    /// Height of the last batch.
    at: u64,
}

impl<D: Disk<File: 'static> + 'static> Started<D> {
    /// Height of the state; 0: that of a new subnet.
    pub fn height(&self) -> u64 {
        self.checkpoint.unwrap_or(0)
    }

    /// A subnet in this state, to run on so many threads; they change no result.
    pub fn subnet(&self, threads: usize) -> Result<Subnet, ReplayFailed> {
        self.subnet_with(SubnetOptions::unsigned(self.genesis.clone(), threads))
    }

    /// The same on code that reports its calls.
    pub fn subnet_reporting_calls(&self, threads: usize) -> Result<Subnet, ReplayFailed> {
        self.subnet_with(SubnetOptions::unsigned_reporting_calls(self.genesis.clone(), threads))
    }

    fn subnet_with(&self, options: Result<SubnetOptions, String>) -> Result<Subnet, ReplayFailed> {
        let options = options.map_err(ReplayFailed::Subnet)?;
        let mut subnet = Subnet::new(options)
            .map_err(|error| ReplayFailed::Subnet(format!("cannot start worker threads: {error}")))?;
        if let Some(height) = self.checkpoint {
            let checkpointer = Checkpointer::new(self.disk.clone(), &self.folder);
            let restored = checkpointer.and_then(|mut from| from.restore(&mut subnet, Height(height)));
            restored.map_err(ReplayFailed::Storage)?;
        }
        Ok(subnet)
    }

    /// The next frame that follows on the state; hashes of the state itself are among them. Queries come behind all else that is of their state, and
    /// before the next batch.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StorageError> {
        let height = self.height();
        loop {
            if let Some(frame) = self.due.pop_front() {
                return Ok(Some(frame));
            }
            let frame = match self.log.next_frame()? {
                Some(frame) if frame.height < height || frame.height == height && frame.kind == FrameKind::Batch => {
                    continue;
                }
                Some(frame) if frame.kind == FrameKind::Query => continue,
                frame => frame,
            };
            let ends = frame.as_ref().is_none_or(|frame| frame.kind == FrameKind::Batch);
            if let Some(ahead) = self.ahead.as_mut().filter(|_| ends) {
                let next = frame.as_ref().and_then(|batch| time_of_batch(&batch.content));
                self.due.extend(ahead.take(self.at, next));
            }
            self.at = frame.as_ref().filter(|_| ends).map_or(self.at, |batch| batch.height);
            if self.due.is_empty() {
                return Ok(frame);
            }
            self.due.extend(frame);
        }
    }

    /// Queries that came too late to be run, or of states that the recording does not come to: as far as it was read.
    pub fn queries_missed(&self) -> u64 {
        self.ahead.as_ref().map_or(0, Ahead::missed)
    }

    /// The log that they are of.
    pub fn log(&self) -> &LogReader<D> {
        &self.log
    }
}
