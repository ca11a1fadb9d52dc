//! Many claims at once: one random linear combination of their equations instead of each.
//!
//! 1. Each claim gets a coefficient of 128 random bits. If all claims hold, so does their sum; if one does not, the sum does with a
//!    probability of 2^-128, since its points are in groups of prime order by then.
//! 2. If the sum does not hold, both halves are tried. Where the left half holds the right one cannot: their sums add up to the whole.
//! 3. Once twice the batch was summed up in vain, the rest is checked one by one. So one bad claim costs one to two sums of the batch
//!    more, and a batch that is poisoned everywhere at most three sums and each claim alone.
//!
//! Coefficients come from a secret of this process: nobody who chooses signatures can know them.

use sha2::{Digest, Sha512};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Claims that may be summed up in vain, for each of the batch.
const IN_VAIN_MAX: usize = 2;

/// Claims with coefficients, that can be checked alone or as a sum.
pub(crate) trait Claims {
    /// Whether the sum of these holds, each times its coefficient.
    fn sum_holds(&mut self, range: Range<usize>) -> bool;
    /// Whether one of them holds, alone.
    fn holds(&mut self, at: usize) -> bool;
}

/// What it took to find the verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Claims in sums, each as often as it was in one.
    pub summed: usize,
    /// Claims checked alone.
    pub alone: usize,
}

/// Finds out which claims hold; `valid` has a place for each.
pub(crate) fn settle(claims: &mut impl Claims, valid: &mut [bool]) -> Work {
    let count = valid.len();
    let mut search = Search { claims, valid, in_vain: 0, work: Work::default() };
    search.settle(0..count, false);
    search.work
}

/// Checks each claim alone.
pub(crate) fn check_each(claims: &mut impl Claims, valid: &mut [bool]) {
    valid.iter_mut().enumerate().for_each(|(at, valid)| *valid = claims.holds(at));
}

struct Search<'a, C> {
    claims: &'a mut C,
    valid: &'a mut [bool],
    /// Claims of sums that did not hold.
    in_vain: usize,
    work: Work,
}

impl<C: Claims> Search<'_, C> {
    /// `is_poisoned`: the sum of the range is known not to hold. Returns whether all of it is valid.
    fn settle(&mut self, range: Range<usize>, is_poisoned: bool) -> bool {
        let count = range.len();
        if count <= 1 || self.in_vain > IN_VAIN_MAX * self.valid.len() {
            self.work.alone += count;
            range.clone().for_each(|at| self.valid[at] = self.claims.holds(at));
            return self.valid[range].iter().all(|valid| *valid);
        }
        if !is_poisoned {
            self.work.summed += count;
            if self.claims.sum_holds(range.clone()) {
                self.valid[range].fill(true);
                return true;
            }
            self.in_vain += count;
        }
        let middle = range.start + count / 2;
        let left_holds = self.settle(range.start..middle, false);
        self.settle(middle..range.end, left_holds);
        false
    }
}

/// A number of coefficients that nobody outside can know and that are never used again; `None` if the operating system gave no secret.
pub(crate) fn draw_coefficients(count: usize) -> Option<Vec<u128>> {
    static BATCHES: AtomicU64 = AtomicU64::new(0);
    let secret = secret()?;
    let batch = BATCHES.fetch_add(1, Ordering::Relaxed);
    let mut coefficients = Vec::with_capacity(count.next_multiple_of(4));
    for block in 0..count.div_ceil(4) as u64 {
        let numbers = [batch.to_le_bytes(), block.to_le_bytes()];
        let bits: [u8; 64] = Sha512::new().chain_update(secret).chain_update(numbers.as_flattened()).finalize().into();
        coefficients.extend(bits.as_chunks::<16>().0.iter().map(|bits| u128::from_le_bytes(*bits)));
    }
    coefficients.truncate(count);
    Some(coefficients)
}

/// The secret of this process, if the operating system has given one.
pub(crate) fn secret() -> Option<&'static [u8; 32]> {
    static SECRET: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    let draw = || {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).is_ok().then_some(secret)
    };
    SECRET.get_or_init(draw).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims that are known to hold or not.
    struct Known(Vec<bool>);

    impl Claims for Known {
        fn sum_holds(&mut self, range: Range<usize>) -> bool {
            assert!(range.len() > 1, "a sum of one is a check of one");
            self.0[range].iter().all(|holds| *holds)
        }
        fn holds(&mut self, at: usize) -> bool {
            self.0[at]
        }
    }

    fn work(claims: Vec<bool>) -> Work {
        let mut valid = vec![false; claims.len()];
        let mut known = Known(claims);
        let work = settle(&mut known, &mut valid);
        assert_eq!(valid, known.0);
        work
    }

    #[test]
    fn a_clean_batch_is_summed_once() {
        assert_eq!(work(vec![]), Work { summed: 0, alone: 0 });
        assert_eq!(work(vec![true]), Work { summed: 0, alone: 1 });
        for count in [2, 3, 64, 1_000] {
            assert_eq!(work(vec![true; count]), Work { summed: count, alone: 0 });
        }
    }

    #[test]
    fn one_bad_claim_costs_at_most_two_sums_more_and_three_checks() {
        for count in [2usize, 3, 7, 8, 9, 63, 64, 65, 1_000] {
            for bad in 0..count {
                let mut claims = vec![true; count];
                claims[bad] = false;
                let Work { summed, alone } = work(claims);
                assert!(summed <= 3 * count && alone <= 3, "{bad} of {count}: {summed} summed, {alone} alone");
            }
        }
    }

    #[test]
    fn a_poisoned_batch_costs_at_most_four_sums_and_each_claim_alone() {
        // In every pattern of period up to 9, and in seeded random ones of every density.
        let mut state = 7u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for count in [2usize, 8, 9, 63, 64, 65, 1_000] {
            for period in 1..10 {
                check(count, (0..count).map(|at| at % period != 0).collect());
            }
            for density in [2, 3, 5, 10, 30, 100] {
                check(count, (0..count).map(|_| random() % density != 0).collect());
            }
        }
        fn check(count: usize, claims: Vec<bool>) {
            let Work { summed, alone } = work(claims);
            assert!(summed <= 4 * count && alone <= count, "{count}: {summed} summed, {alone} alone");
        }
    }

    #[test]
    fn coefficients_are_never_drawn_twice() {
        let drawn: Vec<u128> = (0..20).flat_map(|count| draw_coefficients(count).unwrap()).collect();
        assert_eq!(drawn.len(), 190);
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), drawn.len());
    }
}
