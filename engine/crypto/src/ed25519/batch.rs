//! Many signatures at once: one random linear combination of their equations instead of each.
//!
//! 1. Equations are put in the order of their keys. A key is decompressed once, and its terms become one.
//! 2. Each equation gets a coefficient `z` of 128 random bits. If all equations hold, so does their sum
//!    `[8](Σzs·B - Σzk·A - Σz·R) = 0`; if one does not, the sum does with a probability of 2^-128: times the cofactor all points are in a group
//!    of prime order.
//! 3. If the sum does not hold, both halves are tried. Where the left half holds the right one cannot: their sums add up to the whole.
//! 4. Once twice the batch was summed up in vain, the rest is checked one by one. So one bad signature costs one to two sums of the batch more, and a batch
//!    that is poisoned everywhere at most three sums and each signature alone.
//!
//! Coefficients come from a secret of this process: nobody who chooses signatures can know them.

use crate::ed25519::{Equation, Signed, minus_point};
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use sha2::{Digest, Sha512};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Terms that may be summed up in vain, for each of the batch.
const IN_VAIN_MAX: usize = 2;

/// Checks every signature; writes to the same place in `valid`. Both are of one length.
pub(crate) fn verify_batch(signed: &[Signed<'_>], valid: &mut [bool]) {
    assert_eq!(signed.len(), valid.len(), "one verdict a signature");
    valid.fill(false);
    let mut order: Vec<u32> = (0..signed.len()).map(|at| at as u32).collect();
    order.sort_unstable_by_key(|at| signed[*at as usize].key);
    let mut batch = Batch { valid, terms: Vec::with_capacity(signed.len()), in_vain: 0 };
    let mut last: Option<(&[u8; 32], Option<EdwardsPoint>)> = None;
    let mut keys = 0;
    for at in order {
        let signed = &signed[at as usize];
        let minus_a = match last {
            Some((key, minus_a)) if key == signed.key => minus_a,
            _ => {
                keys += 1;
                last.insert((signed.key, minus_point(signed.key))).1
            }
        };
        if let Some(equation) = minus_a.and_then(|minus_a| Equation::of(signed, minus_a)) {
            batch.terms.push(Term { at, key: keys, z: Scalar::ZERO, equation });
        }
    }
    let count = batch.terms.len();
    match secret() {
        Some(secret) if count > 1 => {
            draw_coefficients(secret, &mut batch.terms);
            batch.settle(0, count, false);
        }
        // Without a secret nothing can be summed up.
        _ => batch.check_each(0, count),
    }
}

/// An equation and its coefficient.
struct Term {
    /// Where its verdict goes.
    at: u32,
    /// Equal for equal keys.
    key: u32,
    z: Scalar,
    equation: Equation,
}

struct Batch<'a> {
    valid: &'a mut [bool],
    terms: Vec<Term>,
    /// Terms of sums that did not hold.
    in_vain: usize,
}

impl Batch<'_> {
    /// Finds the verdicts of `[from, to)`; `is_poisoned`: their sum is known not to hold. Returns whether all are valid.
    fn settle(&mut self, from: usize, to: usize, is_poisoned: bool) -> bool {
        let count = to - from;
        if count <= 1 || self.in_vain > IN_VAIN_MAX * self.terms.len() {
            self.check_each(from, to);
            return self.terms[from..to].iter().all(|term| self.valid[term.at as usize]);
        }
        if !is_poisoned && sum_holds(&self.terms[from..to]) {
            self.terms[from..to].iter().for_each(|term| self.valid[term.at as usize] = true);
            return true;
        }
        if !is_poisoned {
            self.in_vain += count;
        }
        let middle = from + count / 2;
        let left_holds = self.settle(from, middle, false);
        self.settle(middle, to, left_holds);
        false
    }

    fn check_each(&mut self, from: usize, to: usize) {
        for Term { at, equation, .. } in &self.terms[from..to] {
            self.valid[*at as usize] = equation.holds();
        }
    }
}

/// Whether the sum of equations holds, each times its coefficient.
fn sum_holds(terms: &[Term]) -> bool {
    let mut base = Scalar::ZERO;
    let (mut scalars, mut points) = (Vec::with_capacity(2 * terms.len() + 1), Vec::with_capacity(2 * terms.len() + 1));
    for of_key in terms.chunk_by(|a, b| a.key == b.key) {
        let mut sum = Scalar::ZERO;
        for Term { z, equation, .. } in of_key {
            base += z * equation.s;
            sum += z * equation.k;
            scalars.push(*z);
            points.push(equation.minus_r);
        }
        scalars.push(sum);
        points.push(of_key[0].equation.minus_a);
    }
    scalars.push(base);
    points.push(ED25519_BASEPOINT_POINT);
    EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity()
}

/// The secret of this process, if the operating system has given one.
fn secret() -> Option<&'static [u8; 32]> {
    static SECRET: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    let draw = || {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).is_ok().then_some(secret)
    };
    SECRET.get_or_init(draw).as_ref()
}

/// Gives each term 128 bits that nobody outside can know, and that are never used again.
fn draw_coefficients(secret: &[u8; 32], terms: &mut [Term]) {
    static BATCHES: AtomicU64 = AtomicU64::new(0);
    let batch = BATCHES.fetch_add(1, Ordering::Relaxed);
    for (block, terms) in (0_u64..).zip(terms.chunks_mut(4)) {
        let numbers = [batch.to_le_bytes(), block.to_le_bytes()];
        let bits: [u8; 64] = Sha512::new().chain_update(secret).chain_update(numbers.as_flattened()).finalize().into();
        for (term, bits) in terms.iter_mut().zip(bits.as_chunks::<16>().0) {
            term.z = Scalar::from(u128::from_le_bytes(*bits));
        }
    }
}
