//! Who takes note of what enters the Replicated world: the input log, a recorder.
//!
//! Enters: each batch before it does anything. Leaves: leave to show what it did. Never here: a change to the batch or to the world.

use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::units::Height;
use cyclotron_world::prelude::*;
use std::fmt;

/// Why a batch could not be noted. The subnet goes on no more: what it did is not shown, and may be lost.
#[derive(Debug)]
pub struct SinkFailed(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for SinkFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SinkFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Takes note of batches.
pub trait BatchSink: Send + Sync {
    /// The next batch is about to enter.
    fn batch(&mut self, batch: &Batch) -> Result<(), SinkFailed>;
    /// What the batch of this height did is about to be shown. A sink that must not lose it returns when it cannot be lost any more.
    fn before_shown(&mut self, height: Height) -> Result<(), SinkFailed>;
    /// The round is over, and this is what it left.
    fn round_ended(&mut self, view: &CertifiedView) -> Result<(), SinkFailed>;
    /// The state hash after the round of this height was computed.
    fn state_hash(&mut self, height: Height, hash: &[u8; 32]) -> Result<(), SinkFailed>;
}

/// All sinks of a subnet.
#[derive(Default, Resource)]
pub struct Sinks(pub Vec<Box<dyn BatchSink>>);

impl Sinks {
    /// Tells all of them, until one fails.
    pub fn each(
        &mut self,
        tell: impl FnMut(&mut Box<dyn BatchSink>) -> Result<(), SinkFailed>,
    ) -> Result<(), SinkFailed> {
        self.0.iter_mut().try_for_each(tell)
    }
}
