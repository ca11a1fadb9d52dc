//! When checkpoints are made, and when memory is given back that they keep too.
//!
//! Enters: the subnet after each round. Leaves: files in the state directory, written beside the rounds. Never here: a reason for the node to stop: the
//! last checkpoint and the log behind it bring the state back.

use super::control::Calls;
use cyclotron_ports::SystemDisk;
use cyclotron_storage::StorageError;
use cyclotron_subnet::{Checkpointer, Made, Subnet};
use cyclotron_trace::{error, info, warn};
use cyclotron_types::units::Bytes;
use std::time::{Duration, Instant};

/// Rounds without any message after which a checkpoint is made all the same: the log behind it is run again at a start.
const IDLE_ROUNDS: u64 = 500;
/// The beginning of a checkpoint holds rounds up: it may take one part of so many of the time.
const SHARE: u32 = 20;
/// Time from one checkpoint to the next when memory is short, at least.
const SHORT_EVERY: Duration = Duration::from_secs(5);
/// Canisters that are looked at for memory between two rounds: about a millisecond.
const RELEASED_MAX: usize = 500;

/// Makes checkpoints of one subnet.
pub struct Checkpoints {
    checkpointer: Checkpointer<SystemDisk>,
    /// Time from one to the next, at least.
    every: Duration,
    /// Bytes that memories may take before those are given back that a checkpoint keeps.
    memory_max: Bytes,
    /// When the last one was begun, and how long that took.
    last: Instant,
    took: Duration,
    /// Height and messages executed then.
    height: u64,
    executed: u64,
}

impl Checkpoints {
    /// None made yet by this process.
    pub fn new(checkpointer: Checkpointer<SystemDisk>, every: Duration, memory_max: Bytes, subnet: &Subnet) -> Self {
        let (height, executed) = (subnet.height().0, subnet.statistics().executed);
        Self { checkpointer, every, memory_max, last: Instant::now(), took: Duration::ZERO, height, executed }
    }

    /// Whether the next batch should name one, which somebody may have asked for.
    pub fn is_due(&self, subnet: &Subnet, asked_for: bool) -> bool {
        if asked_for {
            return !self.checkpointer.is_making();
        }
        let worthwhile = subnet.statistics().executed > self.executed || subnet.height().0 >= self.height + IDLE_ROUNDS;
        // What changed since the last one can be given back only after the next.
        let every = if subnet.memory_taken() > self.memory_max { self.every.min(SHORT_EVERY) } else { self.every };
        worthwhile && !self.checkpointer.is_making() && self.last.elapsed() >= every.max(self.took * SHARE)
    }

    /// Whether anything would be gained by one at the end.
    pub fn is_worthwhile(&self, subnet: &Subnet) -> bool {
        subnet.height().0 > self.height
    }

    /// Begins one of the last round, whose batch named it.
    pub fn begin(&mut self, subnet: &mut Subnet, calls: &mut Calls) {
        calls.checkpoint_begun();
        let began = Instant::now();
        let begun = self.checkpointer.begin(subnet);
        (self.last, self.took) = (began, began.elapsed());
        (self.height, self.executed) = (subnet.height().0, subnet.statistics().executed);
        if let Err(error) = begun {
            self.ended(Err(error), calls);
        }
    }

    /// What is to be done after each round: ends a checkpoint that is written, and gives memory back when it is short.
    pub fn after_round(&mut self, subnet: &mut Subnet, calls: &mut Calls) {
        if let Some(made) = self.checkpointer.poll(subnet) {
            self.ended(made, calls);
        }
        if subnet.memory_taken() > self.memory_max {
            subnet.release_memory(RELEASED_MAX);
        }
    }

    /// Waits for the one that is being made.
    pub fn finish(&mut self, subnet: &mut Subnet, calls: &mut Calls) {
        if let Some(made) = self.checkpointer.finish(subnet) {
            self.ended(made, calls);
        }
    }

    fn ended(&mut self, made: Result<Made, StorageError>, calls: &mut Calls) {
        calls.checkpoint_ended(made.as_ref().map(|made| made.height).map_err(ToString::to_string));
        match made {
            Ok(made) => {
                info!("checkpoint of height {} made in {:.1} s", made.height, self.last.elapsed().as_secs_f64());
                if let Some(error) = made.not_removed {
                    warn!("files of old checkpoints, or of the log behind them, are still there: {error}");
                }
                if let Some(error) = made.not_placed {
                    warn!("the recording goes on without this checkpoint: {error}");
                }
                let removed = made.log_removed;
                if removed.files > 0 {
                    info!(
                        "{} files of the log went, {} MiB: checkpoints keep what was in them",
                        removed.files,
                        removed.bytes >> 20
                    );
                }
            }
            Err(error) => {
                error!("no checkpoint, and the log goes on: {error}");
                // Another one is worthwhile as soon as it may be.
                (self.height, self.executed) = (0, 0);
            }
        }
    }
}
