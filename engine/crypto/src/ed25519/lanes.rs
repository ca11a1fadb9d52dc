//! The equations of a batch in lanes: see `batch` for what is summed up.

use crate::cache::Cache;
use crate::combined::Claims;
use crate::ed25519::kernel::Kernel;
use crate::ed25519::point::Addend;
use crate::ed25519::scalar::{Sum, Words, is_canonical, words};
use crate::ed25519::sum::Product;
use crate::ed25519::{Equation, Signed, minus_point};
use crate::hash::sha512_batch;
use curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED;
use curve25519_dalek::scalar::Scalar;
use std::ops::Range;

/// Negatives of keys that were valid lately, in limbs of 51 bits: a decompressed key takes an eighth of a signature's time.
static KEYS: Cache<[u8; 32], Addend> = Cache::new(16_384);

/// Bits of a coefficient, and of a number modulo the group's order.
const COEFFICIENT_BITS: u32 = 128;
const SCALAR_BITS: u32 = 253;

/// A signature's equation, by places of points.
pub(super) struct Term {
    /// Where its verdict goes.
    pub at: usize,
    /// The place of its key's negative; of equal keys the same.
    key: u32,
    /// The place of its R's negative.
    r: u32,
    s: Words,
    k: Words,
    pub z: u128,
}

/// Equations in the order of their keys.
pub(super) struct LaneEquations<'a> {
    signed: &'a [Signed<'a>],
    kernel: Kernel,
    /// The base point, negatives of keys, negatives of Rs.
    points: Vec<Addend>,
    pub terms: Vec<Term>,
}

/// The base point's place.
const BASE: u32 = 0;

impl<'a> LaneEquations<'a> {
    /// Leaves out signatures that state no equation: their verdict is known.
    pub(super) fn of(signed: &'a [Signed<'a>], kernel: Kernel) -> Self {
        let mut terms = Vec::with_capacity(signed.len());
        let mut encodings = Vec::with_capacity(signed.len());
        let mut hashed: Vec<u8> = Vec::new();
        let mut ends = Vec::with_capacity(signed.len());
        // The order of keys, as whole numbers compare: the first eight bytes decide nearly always.
        let mut order: Vec<(u64, u32)> =
            (0..).zip(signed).map(|(at, signed)| (u64::from_le_bytes(signed.key.as_chunks::<8>().0[0]), at)).collect();
        order.sort_unstable_by(|(a, at), (b, bt)| {
            a.cmp(b).then_with(|| signed[*at as usize].key.cmp(signed[*bt as usize].key))
        });
        let mut keys: Vec<&[u8; 32]> = Vec::new();
        for (_, at) in order {
            let at = at as usize;
            let ([r, s], []) = signed[at].signature.as_chunks::<32>() else { continue };
            let s = words(s);
            if !is_canonical(&s) {
                continue;
            }
            if keys.last() != Some(&signed[at].key) {
                keys.push(signed[at].key);
            }
            [&r[..], signed[at].key, signed[at].message].iter().for_each(|part| hashed.extend_from_slice(part));
            ends.push(hashed.len());
            encodings.push(r);
            terms.push(Term { at, key: keys.len() as u32, r: 0, s, k: [0; 4], z: 0 });
        }
        let mut points = vec![[[0; 5]; 4]; 1 + keys.len() + encodings.len()];
        let mut valid = vec![true; points.len()];
        kernel.decompress(&[&ED25519_BASEPOINT_COMPRESSED.0], &mut points[..1], &mut valid[..1]);
        let [y_plus_x, y_minus_x, t2d, minus_t2d] = points[BASE as usize];
        points[BASE as usize] = [y_minus_x, y_plus_x, minus_t2d, t2d];
        let (of_keys, of_r) = points[1..].split_at_mut(keys.len());
        let (valid_keys, valid_r) = valid[1..].split_at_mut(keys.len());
        decompress_keys(kernel, &keys, of_keys, valid_keys);
        kernel.decompress(&encodings, of_r, valid_r);
        let mut begin = 0;
        let messages: Vec<&[u8]> = ends.iter().map(|end| &hashed[std::mem::replace(&mut begin, *end)..*end]).collect();
        let mut digests = vec![[0; 64]; messages.len()];
        sha512_batch(&messages, &mut digests);
        for (at, (term, digest)) in terms.iter_mut().zip(&digests).enumerate() {
            term.r = (1 + keys.len() + at) as u32;
            term.k = words(Scalar::from_bytes_mod_order_wide(digest).as_bytes());
        }
        terms.retain(|term| valid[term.key as usize] && valid[term.r as usize]);
        Self { signed, kernel, points, terms }
    }
}

/// Looks keys up, and decompresses and keeps those that are not known.
fn decompress_keys(kernel: Kernel, keys: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
    let mut unknown = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        match KEYS.get(key) {
            Some(point) => points[at] = kernel.pack(&point),
            None => unknown.push(at),
        }
    }
    let encodings: Vec<&[u8; 32]> = unknown.iter().map(|at| keys[*at]).collect();
    let (mut found, mut found_valid) = (vec![[[0; 5]; 4]; unknown.len()], vec![false; unknown.len()]);
    kernel.decompress(&encodings, &mut found, &mut found_valid);
    for ((at, point), is_valid) in unknown.into_iter().zip(found).zip(found_valid) {
        (points[at], valid[at]) = (point, is_valid);
        if is_valid {
            KEYS.insert(keys[at], kernel.unpack(&point));
        }
    }
}

impl Claims for LaneEquations<'_> {
    fn sum_holds(&mut self, range: Range<usize>) -> bool {
        let terms = &self.terms[range];
        let mut base = Sum::default();
        let mut products = Vec::with_capacity(2 * terms.len() + 1);
        for of_key in terms.chunk_by(|a, b| a.key == b.key) {
            let mut sum = Sum::default();
            for term in of_key {
                base.add_product(term.z, &term.s);
                sum.add_product(term.z, &term.k);
                let number = [term.z as u64, (term.z >> 64) as u64, 0, 0];
                products.push(Product { point: term.r, number, bits: COEFFICIENT_BITS });
            }
            let number = words(sum.reduced().as_bytes());
            products.push(Product { point: of_key[0].key, number, bits: SCALAR_BITS });
        }
        let number = words(base.reduced().as_bytes());
        products.push(Product { point: BASE, number, bits: SCALAR_BITS });
        self.kernel.sum_is_small_order(&self.points, &products)
    }

    fn holds(&mut self, at: usize) -> bool {
        let signed = &self.signed[self.terms[at].at];
        minus_point(signed.key)
            .and_then(|minus_a| Equation::of(signed, minus_a))
            .is_some_and(|equation| equation.holds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_cache_as_they_went_in() {
        for kernel in [Kernel::Single, Kernel::Avx2Twin, Kernel::IfmaTwin] {
            let keys: Vec<[u8; 32]> =
                (1..20u8).map(|n| (curve25519_dalek::EdwardsPoint::mul_base(&Scalar::from(n))).compress().0).collect();
            let keys: Vec<&[u8; 32]> = keys.iter().collect();
            let mut first = (vec![[[0; 5]; 4]; 19], vec![true; 19]);
            let mut again = first.clone();
            decompress_keys(kernel, &keys, &mut first.0, &mut first.1);
            decompress_keys(kernel, &keys, &mut again.0, &mut again.1);
            assert_eq!(first.1, [true; 19]);
            let canonical = |points: &[Addend]| -> Vec<Addend> {
                points.iter().map(|point| kernel.unpack(point).map(crate::lanes::canonical)).collect()
            };
            assert_eq!(canonical(&first.0), canonical(&again.0));
        }
    }
}
