//! Who takes note of what enters the Replicated world: the input log, a recorder.
//!
//! Enters: each batch before it does anything. Leaves: leave to show what it did. Never here: a change to the batch or to the world.

use crate::program::Program;
use cyclotron_storage::StorageError;
use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::units::Height;
use cyclotron_world::prelude::*;

/// Takes note of batches. When one of them fails, the subnet goes on no more: what the batch did is not shown, and may be lost.
pub trait BatchSink: Send + Sync {
    /// The next batch is about to enter.
    fn batch(&mut self, batch: &Batch) -> Result<(), StorageError>;
    /// What the batch of this height did is about to be shown. A sink that must not lose it returns when it cannot be lost any more.
    fn before_shown(&mut self, height: Height) -> Result<(), StorageError>;
    /// The round is over, and this is what it left.
    fn round_ended(&mut self, view: &CertifiedView) -> Result<(), StorageError>;
    /// From now on this program makes the rounds.
    fn program(&mut self, height: Height, program: &Program) -> Result<(), StorageError>;
    /// The state hash after the round of this height was computed.
    fn state_hash(&mut self, height: Height, hash: &[u8; 32]) -> Result<(), StorageError>;
}

/// All sinks of a subnet.
#[derive(Default, Resource)]
pub struct Sinks(pub Vec<Box<dyn BatchSink>>);

impl Sinks {
    /// Tells all of them, until one fails.
    pub fn each(
        &mut self,
        tell: impl FnMut(&mut Box<dyn BatchSink>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.0.iter_mut().try_for_each(tell)
    }
}
