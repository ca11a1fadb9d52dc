//! How long a piece of work takes, for those who look at rounds.

use std::time::{Duration, Instant};

/// Does `work`, and says how long it took if that is `wanted`; else the clock is not read.
pub fn timed<R>(wanted: bool, work: impl FnOnce() -> R) -> (R, Duration) {
    let began = wanted.then(Instant::now);
    let result = work();
    (result, began.map_or(Duration::ZERO, |began| began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_taken_only_where_it_is_wanted() {
        let nap = || std::thread::sleep(Duration::from_millis(2));
        assert!(timed(true, nap).1 >= Duration::from_millis(2));
        assert_eq!(timed(false, || 7), (7, Duration::ZERO));
    }
}
