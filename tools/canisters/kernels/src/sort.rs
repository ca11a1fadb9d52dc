//! The standard library's sorts: comparisons, swaps, branches that cannot be predicted.

use crate::{Random, fold};

const NUMBERS: usize = 100_000;

/// `n` times: makes as many numbers, sorts them, and sorts pairs by key.
pub fn run(n: u32) -> u64 {
    let mut random = Random::new(7);
    let mut numbers = vec![0_u64; NUMBERS];
    let mut pairs = vec![(0_u32, 0_u64); NUMBERS];
    let mut sum = 0;
    for _ in 0..n {
        for (number, pair) in numbers.iter_mut().zip(&mut pairs) {
            *number = random.next();
            *pair = ((*number >> 40) as u32, *number);
        }
        numbers.sort_unstable();
        pairs.sort_by_key(|pair| pair.0);
        for (number, pair) in numbers.iter().zip(&pairs).step_by(17) {
            sum = fold(fold(sum, *number), pair.1);
        }
    }
    sum
}
