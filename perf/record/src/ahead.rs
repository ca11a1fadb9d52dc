//! Queries of a recording by the height of the state that they ran on.
//!
//! Enters: a recording, read a second time, ahead of its batches: a query stands where its answer came, and others ran meanwhile. Leaves: all queries of
//! a height. Never here: more of them in memory than came in [`LATE_MAX`] of block time.

use cyclotron_ports::Disk;
use cyclotron_storage::log::{LogReader, time_of_batch};
use cyclotron_storage::{Frame, FrameKind, StorageError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Nanoseconds of block time that a query may come behind the end of its height: longer than the longest takes.
const LATE_MAX: u64 = 10_000_000_000;

/// Whether a recording is one that queries were recorded in.
pub(crate) fn has_queries<D: Disk>(disk: &Arc<D>, path: &Path) -> Result<bool, StorageError> {
    let mut log = LogReader::open_file(disk.clone(), path)?;
    loop {
        match log.next_frame()?.map(|frame| frame.kind) {
            Some(FrameKind::QueriesLeftOut) => return Ok(true),
            Some(FrameKind::Batch) | None => return Ok(false),
            Some(_) => {}
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ahead<D: Disk> {
    /// `None` when it has nothing more.
    log: Option<LogReader<D>>,
    /// Block time of the last batch that was read.
    time: u64,
    by_height: BTreeMap<u64, Vec<Frame>>,
    /// Height of the state that the run begins with, and the lowest of those that are still to come.
    first: u64,
    next: u64,
    late: u64,
    /// Whether the last height was taken.
    ended: bool,
}

impl<D: Disk> Ahead<D> {
    /// For a run from the state of this height on.
    pub fn open(disk: &Arc<D>, path: &Path, height: u64) -> Result<Self, StorageError> {
        let log = Some(LogReader::open_file(disk.clone(), path)?);
        Ok(Self { log, time: 0, by_height: BTreeMap::new(), first: height, next: height, late: 0, ended: false })
    }

    /// The queries on the state of a height, at whose end a batch of block time `next` follows; without it the recording ends. Heights ascend.
    pub fn take(&mut self, height: u64, next: Option<u64>) -> Vec<Frame> {
        let until = next.map_or(u64::MAX, |next| next.saturating_add(LATE_MAX));
        while self.time <= until
            && let Some(log) = &mut self.log
        {
            match log.next_frame() {
                Ok(Some(frame)) => self.take_up(frame),
                // Who reads the batches comes to the same place, and says what is wrong there.
                Ok(None) | Err(_) => self.log = None,
            }
        }
        (self.next, self.ended) = (height + 1, next.is_none());
        self.by_height.remove(&height).unwrap_or_default()
    }

    fn take_up(&mut self, frame: Frame) {
        match frame.kind {
            FrameKind::Batch => self.time = time_of_batch(&frame.content).unwrap_or(self.time),
            FrameKind::Query if frame.height >= self.next => {
                self.by_height.entry(frame.height).or_default().push(frame);
            }
            FrameKind::Query => self.late += u64::from(frame.height >= self.first),
            _ => {}
        }
    }

    /// Queries that came too late, and at the end those of heights that never came.
    pub fn missed(&self) -> u64 {
        let left: usize = self.by_height.values().map(Vec::len).sum();
        self.late + if self.ended { left as u64 } else { 0 }
    }
}
