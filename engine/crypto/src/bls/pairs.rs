//! Products of pairings, and sums of points each times a number.

use blst::{MultiPoint, blst_fp12, blst_p1_affine, blst_p2_affine};
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use group::Group;
use group::prime::PrimeCurveAffine;

/// Pairs of points whose pairings are multiplied; one final exponentiation and one chain of squarings for all.
#[derive(Default)]
pub(crate) struct Pairs {
    g1: Vec<blst_p1_affine>,
    g2: Vec<blst_p2_affine>,
}

impl Pairs {
    /// Adds a pair. The pairing of an identity is one, so it adds nothing.
    pub(crate) fn push(&mut self, g1: &G1Affine, g2: &G2Affine) {
        if !bool::from(g1.is_identity() | g2.is_identity()) {
            self.g1.push(*g1.as_ref());
            self.g2.push(*g2.as_ref());
        }
    }

    /// Whether the pairings multiply to one.
    pub(crate) fn product_is_one(&self) -> bool {
        // The kernel takes no empty product.
        self.g1.is_empty() || blst_fp12::miller_loop_n(&self.g2, &self.g1).final_exp() == blst_fp12::default()
    }
}

/// Bits of a coefficient.
const COEFFICIENT_BITS: usize = 128;

fn little_endian(numbers: &[u128]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The sum of points of G1, none the identity, each times its number.
pub(crate) fn sum_g1(points: &[G1Affine], numbers: &[u128]) -> G1Affine {
    assert_eq!(points.len(), numbers.len(), "one number a point");
    let points: Vec<blst_p1_affine> = points.iter().map(|point| *point.as_ref()).collect();
    let mut sum = G1Projective::identity();
    if !points.is_empty() {
        *sum.as_mut() = points.mult(&little_endian(numbers), COEFFICIENT_BITS);
    }
    sum.into()
}

/// The sum of points of G2, none the identity, each times its number.
pub(crate) fn sum_g2(points: &[G2Affine], numbers: &[u128]) -> G2Affine {
    assert_eq!(points.len(), numbers.len(), "one number a point");
    let points: Vec<blst_p2_affine> = points.iter().map(|point| *point.as_ref()).collect();
    let mut sum = G2Projective::identity();
    if !points.is_empty() {
        *sum.as_mut() = points.mult(&little_endian(numbers), COEFFICIENT_BITS);
    }
    sum.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use blstrs::Scalar;

    #[test]
    fn sums_are_those_of_each_point_times_its_number() {
        for count in [0u64, 1, 2, 7, 31, 32, 33, 70] {
            let numbers: Vec<u128> =
                (0..count).map(|n| (u128::MAX / (u128::from(n) * 7 + 1)) ^ u128::from(n)).collect();
            let scalar = |number: &u128| {
                let shift = Scalar::from(1 << 32) * Scalar::from(1 << 32);
                Scalar::from((number >> 64) as u64) * shift + Scalar::from(*number as u64)
            };
            let factors: Vec<Scalar> = (0..count).map(|n| Scalar::from(n * n + 3)).collect();
            let expected: Scalar = numbers.iter().zip(&factors).map(|(number, factor)| scalar(number) * factor).sum();
            let g1: Vec<G1Affine> = factors.iter().map(|factor| (G1Projective::generator() * factor).into()).collect();
            let g2: Vec<G2Affine> = factors.iter().map(|factor| (G2Projective::generator() * factor).into()).collect();
            assert_eq!(sum_g1(&g1, &numbers), G1Affine::from(G1Projective::generator() * expected), "{count}");
            assert_eq!(sum_g2(&g2, &numbers), G2Affine::from(G2Projective::generator() * expected), "{count}");
        }
    }

    #[test]
    fn pairings_of_opposites_cancel_out() {
        let (p, q) = (G1Affine::generator(), G2Affine::generator());
        let product = |pairs: &[(G1Affine, G2Affine)]| {
            let mut all = Pairs::default();
            pairs.iter().for_each(|(g1, g2)| all.push(g1, g2));
            all.product_is_one()
        };
        assert!(product(&[]));
        assert!(!product(&[(p, q)]));
        assert!(product(&[(p, q), (-p, q)]));
        assert!(product(&[(p, q), (p, -q), (G1Affine::identity(), q), (p, G2Affine::identity())]));
        let twice = G1Affine::from(G1Projective::from(p).double());
        assert!(product(&[(p, q), (p, q), (twice, -q)]));
        assert!(!product(&[(p, q), (p, q), (twice, q)]));
    }
}
