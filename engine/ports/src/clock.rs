//! The wall clock.

use cyclotron_types::units::Time;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time of day, which may jump either way.
pub trait Clock: Send + Sync {
    /// Returns the time now.
    fn now(&self) -> Time;
}

/// The operating system's clock.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// Returns the time now; a clock set before 1970 reads as 1970, one past the year 2554 as that.
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still unless told otherwise.
#[derive(Default, Debug)]
pub struct SimClock(AtomicU64);

impl SimClock {
    /// Makes a clock that shows `now`.
    pub fn new(now: Time) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Sets the clock, forwards or backwards.
    pub fn set(&self, now: Time) {
        self.0.store(now.0, Ordering::Release);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_shows_this_century() {
        let now = SystemClock.now();
        assert!(now.to_seconds() > 1_700_000_000 && now.to_seconds() < 4_102_444_800, "{now}");
    }

    #[test]
    fn a_simulated_clock_shows_what_it_was_set_to() {
        let clock = SimClock::new(Time(5));
        assert_eq!(clock.now(), Time(5));
        clock.set(Time(3));
        assert_eq!(clock.now(), Time(3));
    }
}
