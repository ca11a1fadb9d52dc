//! ECDSA over SHA-256 on P-256 and secp256k1; signatures are `r || s`, 32 bytes each, big-endian.
//!
//! `s` may lie in either half of its range on both curves, as in dfinity/ic (`rs/crypto/ecdsa_secp256r1`, and
//! `verify_ecdsa_signature_prehashed_with_malleability` of `rs/crypto/secp256k1`, which its user-signature check calls):
//! request ids do not depend on signatures, so a second valid signature gains nothing.
//!
//! The crates `p256` and `k256` define what is valid. What is faster takes no care of secrets, of which a signature has none: libsecp256k1, and for P-256 one
//! chain of doublings for both products, `u·G + v·key`, by digits that are odd or zero. Fastest are many signatures in lanes (`lanes`).

mod batch;
mod kernel;
mod lanes;
mod point;

pub(crate) use batch::{
    Equation, Signed, number, p256_equations, p256_multiples, secp256k1_equations, secp256k1_multiples,
    verify_p256_batch, verify_secp256k1_batch,
};

use p256::ecdsa::signature::Verifier;
use p256::elliptic_curve::Group;
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::elliptic_curve::point::AffineCoordinates;
use p256::{AffinePoint, ProjectivePoint, Scalar};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

pub(crate) fn verify_p256(key: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = p256::ecdsa::VerifyingKey::from_sec1_bytes(key) else { return false };
    let Ok(signature) = p256::ecdsa::Signature::from_slice(signature) else { return false };
    key.verify(message, &signature).is_ok()
}

pub(crate) fn verify_secp256k1(key: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = k256::ecdsa::VerifyingKey::from_sec1_bytes(key) else { return false };
    let Ok(signature) = k256::ecdsa::Signature::from_slice(signature) else { return false };
    // The k256 crate refuses a high `s`; its negative is valid for the same message.
    let signature = signature.normalize_s().unwrap_or(signature);
    key.verify(message, &signature).is_ok()
}

/// The same verdicts as [`verify_secp256k1`].
pub(crate) fn verify_secp256k1_fast(key: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    // The library also takes the hybrid form, which begins with 6 or 7.
    if key[0] != 4 {
        return false;
    }
    let key = secp256k1::PublicKey::from_slice(key);
    let signature = secp256k1::ecdsa::Signature::from_compact(signature);
    let (Ok(key), Ok(mut signature)) = (key, signature) else { return false };
    signature.normalize_s();
    let digest = secp256k1::Message::from_digest(Sha256::digest(message).into());
    secp256k1::ecdsa::verify(&signature, digest, &key).is_ok()
}

/// The same verdicts as [`verify_p256`].
pub(crate) fn verify_p256_fast(key: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = p256::ecdsa::VerifyingKey::from_sec1_bytes(key) else { return false };
    let Ok(signature) = p256::ecdsa::Signature::from_slice(signature) else { return false };
    let (r, s) = signature.split_scalars();
    let hash = Scalar::reduce_bytes(&Sha256::digest(message));
    let s_inverse: Scalar = *s.invert_vartime();
    let sum = base_and_point(&(hash * s_inverse), &(*r * s_inverse), key.as_affine());
    // The neutral element has x = 0 here, which no r is.
    *r == Scalar::reduce_bytes(&sum.to_affine().x())
}

/// Bits of a digit of the base point's number, and of the other point's: 64 multiples are kept, 8 made for each.
const BASE_DIGIT_BITS: u32 = 8;
const POINT_DIGIT_BITS: u32 = 5;

/// `u · G + v · point`.
fn base_and_point(u: &Scalar, v: &Scalar, point: &AffinePoint) -> ProjectivePoint {
    static BASE: OnceLock<Vec<AffinePoint>> = OnceLock::new();
    let of_base = BASE.get_or_init(|| {
        let multiples = odd_multiples(ProjectivePoint::GENERATOR, 1 << (BASE_DIGIT_BITS - 2));
        multiples.iter().map(ProjectivePoint::to_affine).collect()
    });
    let of_point = odd_multiples(ProjectivePoint::from(*point), 1 << (POINT_DIGIT_BITS - 2));
    let (u, v) = (digits(u, BASE_DIGIT_BITS), digits(v, POINT_DIGIT_BITS));
    let mut sum = ProjectivePoint::IDENTITY;
    for (u, v) in u.into_iter().zip(v).rev() {
        sum = sum.double();
        match multiple(u) {
            Some((at, false)) => sum += of_base[at],
            Some((at, true)) => sum -= of_base[at],
            None => {}
        }
        match multiple(v) {
            Some((at, false)) => sum += of_point[at],
            Some((at, true)) => sum -= of_point[at],
            None => {}
        }
    }
    sum
}

/// The place of a digit's amount among the odd multiples, and whether it is negative.
fn multiple(digit: i8) -> Option<(usize, bool)> {
    (digit != 0).then(|| (usize::from(digit.unsigned_abs() / 2), digit < 0))
}

/// 1, 3, 5 and so on times the point.
fn odd_multiples(point: ProjectivePoint, count: usize) -> Vec<ProjectivePoint> {
    let twice = point.double();
    std::iter::successors(Some(point), |last| Some(*last + twice)).take(count).collect()
}

/// A number as digits for powers of two, the lowest first: zero, or odd and below 2^(bits - 1); after one, `bits - 1` zeros at least.
fn digits(number: &Scalar, bits: u32) -> [i8; 257] {
    let bytes: [u8; 32] = number.to_bytes().into();
    // Lowest first; a digit that is taken off may carry beyond 256 bits.
    let mut words = [0u64; 5];
    for (word, bytes) in words.iter_mut().zip(bytes.rchunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    let mut digits = [0; 257];
    for digit in &mut digits {
        if words[0] & 1 == 1 {
            let low = (words[0] & ((1 << bits) - 1)) as i16;
            let odd = if low >= 1 << (bits - 1) { low - (1 << bits) } else { low };
            *digit = odd as i8;
            if odd > 0 {
                // Its bits are those below: nothing is borrowed.
                words[0] -= odd as u64;
            } else {
                let mut carry = u64::from(odd.unsigned_abs());
                for word in &mut words {
                    let (sum, over) = word.overflowing_add(carry);
                    (*word, carry) = (sum, u64::from(over));
                }
            }
        }
        for at in 0..4 {
            words[at] = words[at] >> 1 | words[at + 1] << 63;
        }
        words[4] >>= 1;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_add_up_to_the_number() {
        let edges =
            [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, -Scalar::from(2u64), Scalar::from(0xffff_ffff_ffff_ffffu64)];
        let powers = std::iter::successors(Some(Scalar::from(0x1234_5678_9abc_def1u64)), |last| {
            Some(last.square() + Scalar::ONE)
        });
        for number in edges.into_iter().chain(powers.take(200)) {
            for bits in [BASE_DIGIT_BITS, POINT_DIGIT_BITS] {
                let digits = digits(&number, bits);
                let mut sum = Scalar::ZERO;
                for digit in digits.iter().rev() {
                    let amount = Scalar::from(u64::from(digit.unsigned_abs()));
                    sum = sum.double() + if *digit < 0 { -amount } else { amount };
                    assert!(*digit == 0 || digit % 2 != 0 && i16::from(*digit).abs() < 1 << (bits - 1));
                }
                assert_eq!(sum, number);
            }
        }
    }

    #[test]
    fn both_products_are_added() {
        let key = (ProjectivePoint::GENERATOR * Scalar::from(77u64)).to_affine();
        let values = [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from(1u64 << 40), -Scalar::from(77u64).square()];
        for u in values {
            for v in values {
                let expected = ProjectivePoint::GENERATOR * u + ProjectivePoint::from(key) * v;
                assert_eq!(base_and_point(&u, &v, &key), expected);
            }
        }
    }
}
