//! BLS12-381 signatures with the signature in G1 and the key in G2.
//!
//! Spec: ic-interface-spec #certificate; draft-irtf-cfrg-bls-signature-04, ciphersuite below.

use blstrs::{Bls12, G1Affine, G1Projective, G2Affine, G2Prepared, Gt};
use group::Group;
use group::prime::PrimeCurveAffine;
use pairing::{MillerLoopResult, MultiMillerLoop};

/// Domain separation tag of hashing to G1.
const CIPHERSUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

pub(crate) fn hash_to_g1(message: &[u8]) -> G1Projective {
    G1Projective::hash_to_curve(message, CIPHERSUITE, &[])
}

/// Refuses points outside the prime-order groups and the identity as a key (the draft's KeyValidate).
pub(crate) fn verify(key: &[u8; 96], message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = <&[u8; 48]>::try_from(signature) else { return false };
    let Some(signature) = Option::<G1Affine>::from(G1Affine::from_compressed(signature)) else { return false };
    let Some(key) = Option::<G2Affine>::from(G2Affine::from_compressed(key)) else { return false };
    if bool::from(key.is_identity()) {
        return false;
    }
    let hash = G1Affine::from(hash_to_g1(message));
    // e(signature, -g2) · e(hash, key) = 1
    let negated_generator = G2Prepared::from(-G2Affine::generator());
    let product = Bls12::multi_miller_loop(&[(&signature, &negated_generator), (&hash, &G2Prepared::from(key))]);
    product.final_exponentiation() == Gt::identity()
}
