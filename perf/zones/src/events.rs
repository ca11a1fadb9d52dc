//! What a program sends behind its welcome.

use crate::CaptureError;
use crate::stream::Frames;
use crate::totals::{Reading, Totals};
use std::io::Read;

/// Events, added up as they come.
#[derive(Default)]
pub struct Events {
    frames: Frames,
    reading: Reading,
}

impl Events {
    /// Reads a frame of events.
    ///
    /// Errors: it does not come, or is not what the protocol says; there is no going on then.
    pub fn read(&mut self, from: &mut impl Read) -> Result<(), CaptureError> {
        self.reading.add(self.frames.read(from)?)
    }

    /// Adds the events of a frame as it was before compression. Errors: as [`Events::read`].
    pub fn add(&mut self, frame: &[u8]) -> Result<(), CaptureError> {
        self.reading.add(frame)
    }

    /// What is to be asked of the program, in this order, before more is read.
    pub fn questions(&mut self) -> impl Iterator<Item = [u8; 13]> {
        self.reading.questions.unsent.drain(..)
    }

    /// Whether the program has told all that there is: it said that no events follow, and each question is answered.
    pub fn are_complete(&self) -> bool {
        self.reading.is_complete()
    }

    /// What has been read so far. Cost: O(places and plots).
    pub fn totals(&self, ns_per_tick: f64) -> Totals {
        self.reading.totals(ns_per_tick)
    }
}
