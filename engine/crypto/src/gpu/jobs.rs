//! Signatures as kernels take them.

use crate::ed25519;
use crate::hash::{sha256_batch, sha512_batch};
use crate::key::PublicKey;
use crate::verify::SignatureTask;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use cyclotron_shaders::{BASE_MULTIPLES, EcdsaJob, Ed25519Job};
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::sec1::ToEncodedPoint;

/// A job for each signature that has the right length and a canonical `S`. Returns their places; the others are invalid.
pub(super) fn ed25519(tasks: &[SignatureTask<'_>], jobs: &mut Vec<Ed25519Job>) -> Vec<usize> {
    let mut places = Vec::with_capacity(tasks.len());
    let mut signed = Vec::with_capacity(tasks.len());
    let (mut hashed, mut ends): (Vec<u8>, Vec<usize>) = (Vec::new(), Vec::with_capacity(tasks.len()));
    for (at, SignatureTask { key, message, signature }) in tasks.iter().enumerate() {
        let PublicKey::Ed25519(key) = key else { continue };
        let Some((r, s)) = ed25519::parts(signature) else { continue };
        [&r[..], key, message].iter().for_each(|part| hashed.extend_from_slice(part));
        ends.push(hashed.len());
        places.push(at);
        signed.push((key, r, s));
    }
    let mut begin = 0;
    let messages: Vec<&[u8]> = ends.iter().map(|end| &hashed[std::mem::replace(&mut begin, *end)..*end]).collect();
    let mut digests = vec![[0; 64]; messages.len()];
    sha512_batch(&messages, &mut digests);
    jobs.extend(signed.into_iter().zip(&digests).map(|((key, r, s), digest)| {
        Ed25519Job::new(*key, *r, s.to_bytes(), Scalar::from_bytes_mod_order_wide(digest).to_bytes())
    }));
    places
}

/// The negatives of 0, 1, 2 and so on times the base point.
pub(super) fn ed25519_table() -> Vec<Ed25519Job> {
    let multiples = std::iter::successors(Some(EdwardsPoint::identity()), |last| Some(last - ED25519_BASEPOINT_POINT));
    let job = |point: EdwardsPoint| Ed25519Job { key: point.compress().to_bytes(), ..Ed25519Job::default() };
    multiples.take(BASE_MULTIPLES).map(job).collect()
}

/// Big-endian bytes the other way round.
fn reversed(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes.reverse();
    bytes
}

/// Whether big-endian bytes are a number below another.
fn is_below(bytes: &[u8; 32], bound: &[u8; 32]) -> bool {
    bytes < bound
}

/// `r` and, if that is below the prime, `r + order`; else `r` again: numbers modulo the prime that are `r` modulo the order. All big-endian.
fn candidates(r: [u8; 32], order: &[u8; 32], prime: &[u8; 32]) -> [[u8; 32]; 2] {
    let (mut sum, mut carry) = (r, false);
    for (byte, order) in sum.iter_mut().zip(order).rev() {
        (*byte, carry) = byte.carrying_add(*order, carry);
    }
    let other = if !carry && is_below(&sum, prime) { sum } else { r };
    [reversed(r), reversed(other)]
}

/// What both curves have, each by the crate that defines its verdicts.
macro_rules! curve {
    ($module:ident, $krate:ident, $key:ident, $prime:expr, $order:expr) => {
        pub(super) mod $module {
            use super::*;
            use $krate::{ProjectivePoint, Scalar};

            const PRIME: [u8; 32] = $prime;
            const ORDER: [u8; 32] = $order;

            /// A job for each signature whose numbers are in range, of a key whose coordinates are. Returns their places; the others are invalid.
            pub(in crate::gpu) fn jobs(tasks: &[SignatureTask<'_>], jobs: &mut Vec<EcdsaJob>) -> Vec<usize> {
                let mut places = Vec::with_capacity(tasks.len());
                let (mut keys, mut messages, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
                for (at, SignatureTask { key, message, signature }) in tasks.iter().enumerate() {
                    let PublicKey::$key(key) = key else { continue };
                    let ([x, y], [], 4) = (key[1..].as_chunks::<32>().0, key[1..].as_chunks::<32>().1, key[0]) else {
                        continue;
                    };
                    let Ok(signature) = $krate::ecdsa::Signature::from_slice(signature) else { continue };
                    if is_below(x, &PRIME) && is_below(y, &PRIME) {
                        keys.push((*x, *y));
                        messages.push(*message);
                        signatures.push(signature.split_scalars());
                        places.push(at);
                    }
                }
                let mut hashes = vec![[0; 32]; messages.len()];
                sha256_batch(&messages, &mut hashes);
                // All of `s` are inverted by one inversion: each by the product of all, of those before it and of those behind it.
                let mut product = Scalar::ONE;
                let before: Vec<Scalar> = signatures
                    .iter()
                    .map(|(_, s)| {
                        let before = product;
                        product *= s.as_ref();
                        before
                    })
                    .collect();
                let Some(mut inverse) = Option::<Scalar>::from(product.invert()) else { return Vec::new() };
                let begin = jobs.len();
                jobs.resize(begin + places.len(), EcdsaJob::default());
                for (at, (r, s)) in signatures.iter().enumerate().rev() {
                    let s_inverse = inverse * before[at];
                    inverse *= s.as_ref();
                    let hash = <Scalar as Reduce<$krate::U256>>::reduce_bytes(&hashes[at].into());
                    let (u1, u2) = (hash * s_inverse, *r.as_ref() * s_inverse);
                    let (x, y) = keys[at];
                    jobs[begin + at] = EcdsaJob::new(
                        reversed(x),
                        reversed(y),
                        candidates(r.to_bytes().into(), &ORDER, &PRIME),
                        reversed(u1.to_bytes().into()),
                        reversed(u2.to_bytes().into()),
                    );
                }
                places
            }

            /// 0, 1, 2 and so on times the generator.
            pub(in crate::gpu) fn table() -> Vec<EcdsaJob> {
                let multiples = std::iter::successors(Some(ProjectivePoint::IDENTITY), |last| {
                    Some(*last + ProjectivePoint::GENERATOR)
                });
                let job = |point: ProjectivePoint| {
                    let point = point.to_affine().to_encoded_point(false);
                    let coordinate =
                        |bytes: Option<&$krate::FieldBytes>| bytes.map_or([0; 32], |bytes| reversed((*bytes).into()));
                    EcdsaJob { x: coordinate(point.x()), y: coordinate(point.y()), ..EcdsaJob::default() }
                };
                multiples.take(BASE_MULTIPLES).map(job).collect()
            }

            #[cfg(test)]
            mod tests {
                use super::*;

                #[test]
                fn candidates_are_what_is_r_modulo_the_order() {
                    // The order is minus one and one more.
                    let mut minus_one: [u8; 32] = (-Scalar::ONE).to_bytes().into();
                    minus_one[31] += 1;
                    assert_eq!(minus_one, ORDER);
                    let small = |number: u8| {
                        let mut bytes = [0; 32];
                        bytes[31] = number;
                        bytes
                    };
                    let [first, other] = candidates(small(5), &ORDER, &PRIME);
                    assert_eq!(first, reversed(small(5)));
                    assert_eq!(
                        <Scalar as Reduce<$krate::U256>>::reduce_bytes(&reversed(other).into()),
                        Scalar::from(5u64)
                    );
                    assert_ne!(first, other);
                    // The largest for which both are below the prime, and one more.
                    let mut gap = PRIME;
                    let mut borrow = false;
                    for (byte, order) in gap.iter_mut().zip(&ORDER).rev() {
                        (*byte, borrow) = byte.borrowing_sub(*order, borrow);
                    }
                    let [first, other] = candidates(gap, &ORDER, &PRIME);
                    assert_eq!(first, other);
                    gap[31] -= 1;
                    let [first, other] = candidates(gap, &ORDER, &PRIME);
                    assert_ne!(first, other);
                }
            }
        }
    };
}

curve!(
    on_p256,
    p256,
    EcdsaP256,
    bytes("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
    bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
);
curve!(
    on_secp256k1,
    k256,
    EcdsaSecp256k1,
    bytes("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"),
    bytes("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
);

/// Bytes of a constant. Panics: if it has no 64 hexadecimal digits.
const fn bytes(hex: &str) -> [u8; 32] {
    let hex = hex.as_bytes();
    assert!(hex.len() == 64, "32 bytes");
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 64 {
        let digit = match hex[at] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("a hexadecimal digit"),
        };
        bytes[at / 2] = bytes[at / 2] << 4 | digit;
        at += 1;
    }
    bytes
}
