//! When checkpoints are made, and when memory is given back that they keep too.
//!
//! Enters: the subnet after each round. Leaves: files in the state directory, written beside the rounds. Never here: a reason for the node to stop: the
//! last checkpoint and the log behind it bring the state back.

use super::control::Calls;
use cyclotron_ports::SystemDisk;
use cyclotron_storage::StorageError;
use cyclotron_subnet::{Checkpointer, Made, Step, Subnet};
use cyclotron_trace::{error, info, warn};
use cyclotron_types::units::Bytes;
use cyclotron_types::units::Height;
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
    /// The newest one that lasts, as far as was said.
    announced: Option<Height>,
}

impl Checkpoints {
    /// None made yet by this process.
    pub fn new(checkpointer: Checkpointer<SystemDisk>, every: Duration, memory_max: Bytes, subnet: &Subnet) -> Self {
        let (height, executed) = (subnet.height().0, subnet.statistics().executed);
        Self {
            checkpointer,
            every,
            memory_max,
            last: Instant::now(),
            took: Duration::ZERO,
            height,
            executed,
            announced: None,
        }
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
            self.failed(&error, calls);
        }
    }

    /// What is to be done after each round: goes on with a checkpoint that is being made, and gives memory back when it is short.
    pub fn after_round(&mut self, subnet: &mut Subnet, calls: &mut Calls) {
        match self.checkpointer.poll(subnet) {
            Some(Ok(Step::Lasts(height))) => self.lasts(height, calls),
            Some(Ok(Step::Done(made))) => report(&made),
            Some(Err(error)) => self.failed(&error, calls),
            None => {}
        }
        if subnet.memory_taken() > self.memory_max {
            subnet.release_memory(RELEASED_MAX);
        }
    }

    /// Waits for the one that is being made, and all that follows from it.
    pub fn finish(&mut self, subnet: &mut Subnet, calls: &mut Calls) {
        match self.checkpointer.finish(subnet) {
            Some(Ok(made)) => {
                self.lasts(made.height, calls);
                report(&made);
            }
            Some(Err(error)) => self.failed(&error, calls),
            None => {}
        }
    }

    fn lasts(&mut self, height: Height, calls: &mut Calls) {
        if self.announced < Some(height) {
            self.announced = Some(height);
            info!("checkpoint of height {height} made in {:.1} s", self.last.elapsed().as_secs_f64());
            calls.checkpoint_ended(Ok(height));
        }
    }

    fn failed(&mut self, error: &StorageError, calls: &mut Calls) {
        error!("no checkpoint, and the log goes on: {error}");
        calls.checkpoint_ended(Err(error.to_string()));
        // Another one is worthwhile as soon as it may be.
        (self.height, self.executed) = (0, 0);
    }
}

/// Says what followed from a checkpoint.
fn report(made: &Made) {
    if let Some(error) = &made.not_hashed {
        warn!("the checkpoint of height {} is whole, but has no manifest: {error}", made.height);
    }
    if let Some(error) = &made.not_removed {
        warn!("files of old checkpoints, or of the log behind them, are still there: {error}");
    }
    if let Some(error) = &made.not_placed {
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
