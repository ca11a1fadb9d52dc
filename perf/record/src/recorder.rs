//! Recording what a subnet is given.

use crate::query_recorder::{QueryRecorder, QueryWriter, encode_left_out};
use cyclotron_ports::Disk;
use cyclotron_storage::FrameKind;
use cyclotron_storage::StorageError;
use cyclotron_storage::log::{Beginning, LogWriter, encode_batch};
use cyclotron_subnet::{BatchSink, Program};
use cyclotron_trace::error;
use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::units::Height;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of frames that are compressed together, at most.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Time that frames wait to be compressed with others, at most: who looks into a recording wants to see the end.
const BLOCK_TIME: Duration = Duration::from_secs(1);

/// Where frames go; `None` once the recording was given up.
pub(crate) type SharedLog<D> = Arc<Mutex<Option<LogWriter<D>>>>;

pub(crate) fn lock<D: Disk>(log: &SharedLog<D>) -> MutexGuard<'_, Option<LogWriter<D>>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn give_up<D: Disk>(log: &mut Option<LogWriter<D>>, failed: &StorageError) {
    error!("the recording ends here, and the node goes on: {failed}");
    *log = None;
}

/// Writes batches to a file in compressed blocks, and queries if they are wanted. Dropping it writes the last block and makes all of them last.
///
/// A recording that fails, of a full disk say, is given up, and the subnet goes on: what was written of it can be replayed.
pub struct Recorder<D: Disk> {
    log: SharedLog<D>,
    /// When a block of batches was last written.
    written: Instant,
    /// How long frames wait at most.
    block_time: Duration,
    queries: Option<QueryWriter>,
}

impl<D: Disk> Recorder<D> {
    /// Begins a recording whose first batch has this height. Errors: also when the file exists.
    pub fn create(disk: &D, path: &Path, first_height: u64, configuration: &[u8]) -> Result<Self, StorageError> {
        let log = LogWriter::create_file(disk, path, first_height, configuration)?;
        let log = Arc::new(Mutex::new(Some(log)));
        Ok(Self { log, written: Instant::now(), block_time: BLOCK_TIME, queries: None })
    }

    /// Begins a recording behind the state of a height, a checkpoint of which belongs beside it. Errors: as [`Recorder::create`].
    pub fn create_behind(
        disk: &D,
        path: &Path,
        height: Height,
        beginning: &Beginning,
        configuration: &[u8],
    ) -> Result<Self, StorageError> {
        let recorder = Self::create(disk, path, height.0 + 1, configuration)?;
        if let Some(log) = &mut *lock(&recorder.log) {
            log.append(FrameKind::Beginning, height.0, |out| beginning.encode(out));
            // At once: without it the batches that follow are of no use.
            log.write()?;
        }
        Ok(recorder)
    }

    /// Writes blocks when they are large enough, however long that takes: the same batches are the same bytes then.
    #[must_use]
    pub fn by_size_alone(mut self) -> Self {
        self.block_time = Duration::MAX;
        self
    }

    fn add(&mut self, kind: FrameKind, height: Height, content: impl FnOnce(&mut Vec<u8>)) {
        let mut shared = lock(&self.log);
        let Some(log) = &mut *shared else { return };
        log.append(kind, height.0, content);
        if log.pending_bytes() < BLOCK_BYTES && self.written.elapsed() < self.block_time {
            return;
        }
        self.written = Instant::now();
        if let Err(failed) = log.write_compressed() {
            give_up(&mut shared, &failed);
        }
    }
}

impl<D: Disk<File: 'static> + 'static> Recorder<D> {
    /// Records queries too: those that what this returns is told of, as long as the recorder is there. Before the first batch.
    ///
    /// Errors: no thread can be started; the recording cannot be written.
    pub fn record_queries(&mut self) -> io::Result<QueryRecorder> {
        if let Some(log) = &mut *lock(&self.log) {
            let mut none_yet = Vec::new();
            encode_left_out(Height(log.height()), 0, &mut none_yet);
            log.write_encoded(&none_yet).map_err(io::Error::other)?;
        }
        let queries = QueryWriter::start(self.log.clone(), self.block_time)?;
        let recorder = queries.recorder();
        self.queries = Some(queries);
        Ok(recorder)
    }
}

impl<D: Disk> BatchSink for Recorder<D> {
    fn batch(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.add(FrameKind::Batch, batch.height, |out| encode_batch(batch, out));
        Ok(())
    }

    fn before_shown(&mut self, _: Height) -> Result<(), StorageError> {
        Ok(())
    }

    fn round_ended(&mut self, view: &CertifiedView) -> Result<(), StorageError> {
        self.add(FrameKind::Root, view.height, |out| out.extend_from_slice(&view.root));
        Ok(())
    }

    fn program(&mut self, height: Height, program: &Program) -> Result<(), StorageError> {
        self.add(FrameKind::Program, height, |out| out.extend_from_slice(&program.encode()));
        Ok(())
    }

    fn state_hash(&mut self, height: Height, hash: &[u8; 32]) -> Result<(), StorageError> {
        self.add(FrameKind::StateHash, height, |out| out.extend_from_slice(hash));
        Ok(())
    }
}

impl<D: Disk> Drop for Recorder<D> {
    fn drop(&mut self) {
        // It writes its last.
        self.queries = None;
        let mut shared = lock(&self.log);
        let Some(log) = &mut *shared else { return };
        if let Err(failed) = log.write_compressed().and_then(|written| written.make_lasting()) {
            give_up(&mut shared, &failed);
        }
    }
}
