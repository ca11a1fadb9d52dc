//! When checkpoints are made, and which are kept.
//!
//! Enters: the subnet after a round that named one. Leaves: files in the state directory. Never here: a reason for the node to stop: the
//! log alone brings the state back.

use cyclotron_ports::SystemDisk;
use cyclotron_storage::checkpoint::prune;
use cyclotron_subnet::Subnet;
use cyclotron_trace::{error, info};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Checkpoints kept: should one be damaged, there is another.
const KEPT: usize = 2;
/// Rounds without any message after which a checkpoint is made all the same: the log behind it is run again at a start.
const IDLE_ROUNDS: u64 = 500;
/// A checkpoint holds rounds up: it may take one part of so many of the time.
const SHARE: u32 = 20;

/// Makes checkpoints of one subnet.
pub struct Checkpoints {
    folder: PathBuf,
    /// Time from one to the next, at least.
    every: Duration,
    /// When the last one was made, and how long it took.
    last: Instant,
    took: Duration,
    /// Height and messages executed then.
    height: u64,
    executed: u64,
}

impl Checkpoints {
    /// None made yet by this process.
    pub fn new(folder: PathBuf, every: Duration, subnet: &Subnet) -> Self {
        let (height, executed) = (subnet.height().0, subnet.statistics().executed);
        Self { folder, every, last: Instant::now(), took: Duration::ZERO, height, executed }
    }

    /// Whether the next batch should name one.
    pub fn is_due(&self, subnet: &Subnet) -> bool {
        let worthwhile = subnet.statistics().executed > self.executed || subnet.height().0 >= self.height + IDLE_ROUNDS;
        worthwhile && self.last.elapsed() >= self.every.max(self.took * SHARE)
    }

    /// Whether anything would be gained by one at the end.
    pub fn is_worthwhile(&self, subnet: &Subnet) -> bool {
        subnet.height().0 > self.height
    }

    /// Makes one of the last round, whose batch named it.
    pub fn make(&mut self, subnet: &mut Subnet) {
        let began = Instant::now();
        let height = subnet.height();
        match subnet.checkpoint(&SystemDisk, &self.folder) {
            Ok(()) => info!("checkpoint of height {height} made in {:.1} s", began.elapsed().as_secs_f64()),
            Err(error) => error!("no checkpoint of height {height}, and the log goes on: {error}"),
        }
        // What is left of one that failed goes too.
        if let Err(error) = prune(&SystemDisk, &self.folder, KEPT) {
            error!("old checkpoints are still there: {error}");
        }
        (self.last, self.took) = (Instant::now(), began.elapsed());
        (self.height, self.executed) = (height.0, subnet.statistics().executed);
    }
}
