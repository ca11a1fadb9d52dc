//! When requests leave: an open loop, at equal distances, whatever becomes of those before.
//!
//! Never here: a clock. Times are durations since the first request's.

use std::time::Duration;

/// How often, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Requests a second.
    pub rate: u32,
    /// Seconds.
    pub seconds: u32,
}

const NANOS: u64 = 1_000_000_000;

impl Plan {
    /// Requests in all.
    pub const fn requests(self) -> u64 {
        self.rate as u64 * self.seconds as u64
    }

    /// The whole time.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds as u64)
    }

    /// When the request of this number leaves. Panics: of a rate of zero, which has no requests.
    pub const fn departure(self, number: u64) -> Duration {
        let rate = self.rate as u64;
        // The rest of a second is below the rate, and a product with 10^9 fits: 2^32 * 2^30 < 2^64.
        Duration::new(number / rate, (number % rate * NANOS / rate) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_leave_at_equal_distances_and_the_last_before_the_end() {
        for plan in [
            Plan { rate: 1, seconds: 3 },
            Plan { rate: 3, seconds: 2 },
            Plan { rate: 1_000_000, seconds: 1 },
            Plan { rate: u32::MAX, seconds: u32::MAX },
        ] {
            assert_eq!(plan.departure(0), Duration::ZERO);
            assert_eq!(plan.departure(u64::from(plan.rate)), Duration::from_secs(1));
            assert!(plan.departure(plan.requests() - 1) < plan.duration());
        }
        assert_eq!(Plan { rate: 3, seconds: 1 }.departure(1), Duration::from_nanos(333_333_333));
    }
}
