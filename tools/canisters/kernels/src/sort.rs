//! The standard library's sorts: comparisons, swaps, branches that cannot be predicted.

use crate::{Random, fold};

/// Sorts `n` thousand numbers and as many pairs by key.
pub fn run(n: u32) -> u64 {
    let mut random = Random::new(7);
    let mut numbers: Vec<u64> = (0..n * 1_000).map(|_| random.next()).collect();
    let mut pairs: Vec<(u32, u64)> = numbers.iter().map(|number| ((number >> 40) as u32, *number)).collect();
    numbers.sort_unstable();
    pairs.sort_by_key(|pair| pair.0);
    let sum = numbers.iter().fold(0, |sum, number| fold(sum, *number));
    pairs.iter().fold(sum, |sum, pair| fold(sum, pair.1))
}
