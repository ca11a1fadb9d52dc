//! Ed25519 verification by the rule of ZIP 215, which the IC follows (dfinity/ic `rs/crypto/ed25519`): key and `R` may be
//! any encoding that decompresses, `S` must be canonical, and the equation is checked times the cofactor. Unlike RFC 8032's
//! looser rules it leaves nothing to the implementation, and single and batch verification agree.

mod batch;
mod decompress;
mod kernel;
mod lanes;
mod point;
mod scalar;
mod sum;

pub(crate) use batch::verify_batch;
pub(crate) use kernel::Kernel;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};

/// A signature to check.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub key: &'a [u8; 32],
    pub message: &'a [u8],
    pub signature: &'a [u8],
}

/// What a signature claims: `[8](s·B - k·A - R) = 0`, with the point of the key's encoding as `A`.
struct Equation {
    minus_a: EdwardsPoint,
    minus_r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
}

impl Equation {
    /// `None`: wrong length, `S` not canonical, or `R` no point.
    fn of(signed: &Signed<'_>, minus_a: EdwardsPoint) -> Option<Self> {
        let (r, s) = parts(signed.signature)?;
        let minus_r = minus_point(r)?;
        Some(Self { minus_a, minus_r, s, k: challenge(r, signed.key, signed.message) })
    }

    fn holds(&self) -> bool {
        let sum = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, &self.minus_a, &self.s) + self.minus_r;
        sum.mul_by_cofactor().is_identity()
    }
}

/// Checks one signature.
pub(crate) fn verify(signed: &Signed<'_>) -> bool {
    minus_point(signed.key).and_then(|minus_a| Equation::of(signed, minus_a)).is_some_and(|equation| equation.holds())
}

/// The encoding of R, and S; `None`: wrong length, or `S` not canonical.
pub(crate) fn parts(signature: &[u8]) -> Option<(&[u8; 32], Scalar)> {
    let ([r, s], []) = signature.as_chunks::<32>() else { return None };
    Some((r, Option::from(Scalar::from_canonical_bytes(*s))?))
}

/// The negative of the point that a key or R encodes.
fn minus_point(encoding: &[u8; 32]) -> Option<EdwardsPoint> {
    CompressedEdwardsY(*encoding).decompress().map(|point| -point)
}

/// Hashes the encodings as they came, canonical or not.
fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}
