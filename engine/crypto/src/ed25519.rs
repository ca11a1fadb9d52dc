//! Ed25519 verification by the rule of ZIP 215, which the IC follows (dfinity/ic `rs/crypto/ed25519`): key and `R` may be
//! any encoding that decompresses, `S` must be canonical, and the equation is checked times the cofactor. Unlike RFC 8032's
//! looser rules it leaves nothing to the implementation, and single and batch verification agree.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};

pub(crate) fn verify(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = <&[u8; 64]>::try_from(signature) else { return false };
    let (r_bytes, s_bytes) = split(signature);
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s_bytes)) else { return false };
    let Some(r) = CompressedEdwardsY(r_bytes).decompress() else { return false };
    let Some(a) = CompressedEdwardsY(*key).decompress() else { return false };
    let k = challenge(&r_bytes, key, message);
    // [8](S·B - k·A - R) = 0
    let expected_r = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-a, &s);
    (expected_r - r).mul_by_cofactor().is_identity()
}

fn split(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    (r, s)
}

/// Hashes the encodings as they came, canonical or not.
fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}
