//! Products of pairings.

use blst::{blst_fp12, blst_p1_affine, blst_p2_affine};
use blstrs::{G1Affine, G2Affine};
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

#[cfg(test)]
mod tests {
    use super::*;
    use blstrs::G1Projective;
    use group::Group;

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
