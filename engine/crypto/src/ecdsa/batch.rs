//! Many signatures at once, in lanes. ECDSA has no sum over signatures: r is the x of a point, which two points have.
//!
//! What is left for the scalar crates: r and s, numbers modulo the group's order, and signatures that lanes do not know about.

use crate::combined::secret;
use crate::ecdsa::kernel::{Tables, check_claims};
use crate::ecdsa::lanes::{BASE_DIGIT_BITS, BASE_DIGITS, BASE_MULTIPLES, BasePoints, Claim, Found};
use crate::ecdsa::point::{Curve, KEY_DIGIT_BITS, KEY_DIGITS};
use crate::ed25519::Kernel;
use crate::hash::sha256_batch;
use crate::lanes::mont::{Modulus, Number, is_less, plus};
use crate::lanes::{P256, Secp256k1};
use p256::U256;
use p256::elliptic_curve::group::Curve as _;
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::elliptic_curve::{Field, PrimeField};
use sha2::{Digest, Sha256};

/// A signature to check.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub key: &'a [u8; 65],
    pub message: &'a [u8],
    pub signature: &'a [u8],
}

/// Signatures whose hashes, numbers and inversions are made together.
const AT_ONCE: usize = 256;

/// A curve with the crate that defines it.
trait Ecdsa: Curve {
    type Scalar: PrimeField<Repr = p256::FieldBytes> + Reduce<U256, Bytes = p256::FieldBytes>;
    /// The group's order.
    const ORDER: Number;

    fn tables() -> &'static Tables;
    fn base_points() -> BasePoints;
    /// The digits of the key's number.
    fn key_digits(number: &Self::Scalar) -> [i8; KEY_DIGITS];
    /// Checks one signature.
    fn verify(signed: &Signed<'_>) -> bool;
}

/// Checks every signature on P-256; writes to the same place in `valid`. Both are of one length. Without a kernel, one after the other.
pub(crate) fn verify_p256_batch(kernel: Option<Kernel>, signed: &[Signed<'_>], valid: &mut [bool]) {
    verify_batch::<P256>(kernel, signed, valid);
}

/// The same on secp256k1.
pub(crate) fn verify_secp256k1_batch(kernel: Option<Kernel>, signed: &[Signed<'_>], valid: &mut [bool]) {
    verify_batch::<Secp256k1>(kernel, signed, valid);
}

fn verify_batch<C: Ecdsa>(kernel: Option<Kernel>, signed: &[Signed<'_>], valid: &mut [bool]) {
    assert_eq!(signed.len(), valid.len(), "one verdict a signature");
    let Some(kernel) = kernel else {
        valid.iter_mut().zip(signed).for_each(|(valid, signed)| *valid = C::verify(signed));
        return;
    };
    for (signed, valid) in signed.chunks(AT_ONCE).zip(valid.chunks_mut(AT_ONCE)) {
        valid.fill(false);
        let equations = equations::<C>(signed);
        let claims: Vec<Claim> = equations.iter().map(claim::<C>).collect();
        let mut found = vec![Found::Unknown; claims.len()];
        check_claims::<C>(kernel, C::tables(), C::base_points, &claims, &mut found);
        for (Equation { place, .. }, found) in equations.into_iter().zip(found) {
            valid[place] = match found {
                Found::Valid => true,
                Found::Invalid => false,
                Found::Unknown => C::verify(&signed[place]),
            };
        }
    }
}

/// A signature's numbers.
struct Parts<S> {
    place: usize,
    x: Number,
    y: Number,
    r: Number,
    r_scalar: S,
    s: S,
}

/// What a signature says: the x of `u · G + v · key` is one of the candidates.
pub(crate) struct Equation<S> {
    /// The signature's place.
    pub place: usize,
    /// The key's coordinates, below the prime. Nothing is said of its being on the curve.
    pub x: Number,
    /// See `x`.
    pub y: Number,
    /// How often G is in the sum.
    pub u: S,
    /// How often the key is.
    pub v: S,
    /// r and, if that is below the prime, r and the order; else r again.
    pub candidates: [Number; 2],
}

/// What the signatures on P-256 say; those that say nothing are invalid.
pub(crate) fn p256_equations(signed: &[Signed<'_>]) -> Vec<Equation<p256::Scalar>> {
    equations::<P256>(signed)
}

/// The same on secp256k1.
pub(crate) fn secp256k1_equations(signed: &[Signed<'_>]) -> Vec<Equation<k256::Scalar>> {
    equations::<Secp256k1>(signed)
}

/// 1, 2, 3 and so on times the base point of P-256, [`BASE_MULTIPLES`] of them.
pub(crate) fn p256_multiples() -> Vec<[Number; 2]> {
    let [multiples, _] = P256::base_points().multiples;
    multiples
}

/// The same on secp256k1.
pub(crate) fn secp256k1_multiples() -> Vec<[Number; 2]> {
    let [multiples, _] = Secp256k1::base_points().multiples;
    multiples
}

fn equations<C: Ecdsa>(signed: &[Signed<'_>]) -> Vec<Equation<C::Scalar>> {
    let parts: Vec<Parts<C::Scalar>> =
        signed.iter().enumerate().filter_map(|(place, signed)| parts::<C>(place, signed)).collect();
    let messages: Vec<&[u8]> = parts.iter().map(|parts| signed[parts.place].message).collect();
    let mut digests = vec![[0; 32]; messages.len()];
    sha256_batch(&messages, &mut digests);
    equations_of::<C>(&parts, &digests)
}

/// What the signatures say of messages with these hashes.
fn equations_of<C: Ecdsa>(parts: &[Parts<C::Scalar>], digests: &[[u8; 32]]) -> Vec<Equation<C::Scalar>> {
    let mut inverses: Vec<C::Scalar> = parts.iter().map(|parts| parts.s).collect();
    invert_all(&mut inverses);
    let equation = |parts: &Parts<C::Scalar>, digest: &[u8; 32], inverse: &C::Scalar| {
        let hash = <C::Scalar as Reduce<U256>>::reduce_bytes(&(*digest).into());
        let (u, v) = (hash * inverse, parts.r_scalar * inverse);
        let other = plus(&parts.r, &C::ORDER);
        let other = if is_less(&other, &C::Prime::PRIME) { other } else { parts.r };
        Equation { place: parts.place, x: parts.x, y: parts.y, u, v, candidates: [parts.r, other] }
    };
    let of_each = parts.iter().zip(digests).zip(&inverses);
    of_each.map(|((parts, digest), inverse)| equation(parts, digest, inverse)).collect()
}

/// The same as lanes take it.
fn claim<C: Ecdsa>(equation: &Equation<C::Scalar>) -> Claim {
    let Equation { x, y, u, v, candidates, .. } = equation;
    let base = digits::<BASE_DIGITS>(&number(&u.to_repr().into()), BASE_DIGIT_BITS);
    Claim { x: *x, y: *y, key: C::key_digits(v), base, candidates: *candidates }
}

/// `None`: a length or form that is not taken, a coordinate that is not below the prime, r or s zero or not below the order.
fn parts<C: Ecdsa>(place: usize, signed: &Signed<'_>) -> Option<Parts<C::Scalar>> {
    let ([r, s], []) = signed.signature.as_chunks::<32>() else { return None };
    let (4, [x, y]) = (signed.key[0], signed.key[1..].as_chunks::<32>().0) else { return None };
    let (x, y) = (number(x), number(y));
    if !is_less(&x, &C::Prime::PRIME) || !is_less(&y, &C::Prime::PRIME) {
        return None;
    }
    let scalar = |bytes: &[u8; 32]| -> Option<C::Scalar> {
        Option::from(C::Scalar::from_repr((*bytes).into())).filter(|scalar: &C::Scalar| !bool::from(scalar.is_zero()))
    };
    Some(Parts { place, x, y, r: number(r), r_scalar: scalar(r)?, s: scalar(s)? })
}

/// Inverts each of these, which are not zero, by one inversion.
fn invert_all<S: PrimeField>(scalars: &mut [S]) {
    let mut product = S::ONE;
    let before: Vec<S> = scalars
        .iter()
        .map(|scalar| {
            let before = product;
            product *= scalar;
            before
        })
        .collect();
    let mut rest: S = Option::from(product.invert()).unwrap_or(S::ZERO);
    for (scalar, before) in scalars.iter_mut().zip(before).rev() {
        let inverse = rest * before;
        rest *= &*scalar;
        *scalar = inverse;
    }
}

/// Big-endian bytes as a number.
pub(crate) fn number(bytes: &[u8; 32]) -> Number {
    let mut number = [0; 7];
    for (word, bytes) in number.iter_mut().zip(bytes.as_rchunks::<8>().1.iter().rev()) {
        *word = u64::from_be_bytes(*bytes);
    }
    number
}

/// A number as digits of so many bits from -2^(bits - 1) to 2^(bits - 1), the lowest first. The last one must not carry.
fn digits<const N: usize>(number: &Number, bits: usize) -> [i16; N] {
    let mut carry = 0;
    let digits = std::array::from_fn(|at| {
        let (word, shift) = (at * bits / 64, at * bits % 64);
        let high = if shift == 0 { 0 } else { number[word + 1] << (64 - shift) };
        let digit = ((number[word] >> shift | high) & ((1 << bits) - 1)) as i16 + carry;
        carry = i16::from(digit > 1 << (bits - 1));
        digit - (carry << bits)
    });
    assert_eq!(carry, 0, "the last digit takes the carry");
    digits
}

/// The sums' beginnings and the base point's multiples.
macro_rules! base_points {
    ($curve:ty, $library:ident) => {{
        use $library::{AffinePoint, ProjectivePoint, Scalar};
        let coordinates = |points: &[ProjectivePoint]| -> Vec<[Number; 2]> {
            let mut affine = vec![AffinePoint::IDENTITY; points.len()];
            ProjectivePoint::batch_normalize(points, &mut affine);
            let of = |point: &AffinePoint| {
                let encoded = point.to_encoded_point(false);
                let bytes = encoded.as_bytes()[1..].as_chunks::<32>().0;
                [number(&bytes[0]), number(&bytes[1])]
            };
            affine.iter().map(of).collect()
        };
        let power = |exponent: usize| (0..exponent).fold(Scalar::ONE, |power, _| power.double());
        let multiples = |first: ProjectivePoint| {
            let points: Vec<_> =
                std::iter::successors(Some(first), |last| Some(*last + first)).take(BASE_MULTIPLES).collect();
            coordinates(&points)
        };
        let position = |position: usize| power(position * KEY_DIGIT_BITS);
        let positions = <$curve as Curve>::POSITIONS;
        // Without a secret sums begin with a point that others may know: then they can have signatures checked alone.
        let secret = Sha256::new().chain_update("cyclotron ecdsa lanes").chain_update(secret().unwrap_or(&[0; 32]));
        let begin = ProjectivePoint::GENERATOR * <Scalar as Reduce<U256>>::reduce_bytes(&secret.finalize());
        let ends = coordinates(&[begin, -(begin * position(positions - 1))]);
        BasePoints {
            multiples: [
                multiples(ProjectivePoint::GENERATOR),
                multiples(ProjectivePoint::GENERATOR * position(positions)),
            ],
            begin: ends[0],
            end: ends[1],
        }
    }};
}

impl Curve for P256 {
    type Prime = Self;
    const A_IS_MINUS_3: bool = true;
    const B: Number =
        [0x3bce_3c3e_27d2_604b, 0x651d_06b0_cc53_b0f6, 0xb3eb_bd55_7698_86bc, 0x5ac6_35d8_aa3a_93e7, 0, 0, 0];
    const CUBE_ROOT: Option<Number> = None;
}

impl Ecdsa for P256 {
    type Scalar = p256::Scalar;
    const ORDER: Number = [0xf3b9_cac2_fc63_2551, 0xbce6_faad_a717_9e84, u64::MAX, 0xffff_ffff_0000_0000, 0, 0, 0];

    fn tables() -> &'static Tables {
        static TABLES: Tables = Tables::new();
        &TABLES
    }

    fn base_points() -> BasePoints {
        base_points!(Self, p256)
    }

    fn key_digits(key: &p256::Scalar) -> [i8; KEY_DIGITS] {
        digits::<KEY_DIGITS>(&number(&key.to_repr().into()), KEY_DIGIT_BITS).map(|digit| digit as i8)
    }

    fn verify(signed: &Signed<'_>) -> bool {
        super::verify_p256_fast(signed.key, signed.message, signed.signature)
    }
}

impl Curve for Secp256k1 {
    type Prime = Self;
    const A_IS_MINUS_3: bool = false;
    const B: Number = [7, 0, 0, 0, 0, 0, 0];
    const CUBE_ROOT: Option<Number> =
        Some([0xc139_6c28_7195_01ee, 0x9cf0_4975_12f5_8995, 0x6e64_479e_ac34_34e9, 0x7ae9_6a2b_657c_0710, 0, 0, 0]);
}

impl Ecdsa for Secp256k1 {
    type Scalar = k256::Scalar;
    const ORDER: Number = [0xbfd2_5e8c_d036_4141, 0xbaae_dce6_af48_a03b, 0xffff_ffff_ffff_fffe, u64::MAX, 0, 0, 0];

    fn tables() -> &'static Tables {
        static TABLES: Tables = Tables::new();
        &TABLES
    }

    fn base_points() -> BasePoints {
        base_points!(Self, k256)
    }

    fn key_digits(key: &k256::Scalar) -> [i8; KEY_DIGITS] {
        let mut digits = [0; KEY_DIGITS];
        let half = Self::POSITIONS;
        for (digits, number) in digits.chunks_mut(half).zip(halves(key)) {
            let (number, sign) = match amount(&number) {
                Some(amount) => (amount, 1),
                None => (amount(&-number).unwrap_or([0; 7]), -1),
            };
            let of_half: [i16; KEY_DIGITS / 2] = self::digits(&number, KEY_DIGIT_BITS);
            digits.iter_mut().zip(of_half).for_each(|(to, digit)| *to = (sign * digit) as i8);
        }
        digits
    }

    fn verify(signed: &Signed<'_>) -> bool {
        super::verify_secp256k1_fast(signed.key, signed.message, signed.signature)
    }
}

/// A number below 2^128.
fn amount(number: &k256::Scalar) -> Option<Number> {
    let number = self::number(&number.to_repr().into());
    (number[2] == 0 && number[3] == 0).then_some(number)
}

/// Two numbers a and b, below 2^128 or negatives of such, with a + b · λ = number, where λ times a point has its x times the cube root of 1.
///
/// (a1, b1) and (a2, b2) with a + b · λ = 0 are short; the number times b2 and -b1 over the order, rounded, says how often each is taken off (Gallant,
/// Lambert, Vanstone). The quotients come from 2^384 · b2 / order and 2^384 · -b1 / order.
fn halves(number: &k256::Scalar) -> [k256::Scalar; 2] {
    const MINUS_B1: u128 = 0xe443_7ed6_010e_8828_6f54_7fa9_0abf_e4c3;
    const B2: u128 = 0x3086_d221_a7d4_6bcd_e86c_90e4_9284_eb15;
    const QUOTIENT_1: [u64; 4] =
        [0xe893_209a_45db_b031, 0x3daa_8a14_71e8_ca7f, 0xe86c_90e4_9284_eb15, 0x3086_d221_a7d4_6bcd];
    const QUOTIENT_2: [u64; 4] =
        [0x1571_b4ae_8ac4_7f71, 0x2212_08ac_9df5_06c6, 0x6f54_7fa9_0abf_e4c4, 0xe443_7ed6_010e_8828];
    const LAMBDA: U256 = U256::from_be_hex("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72");
    let words = self::number(&number.to_repr().into());
    let times = |quotient, number| short(rounded(&words, quotient)) * short(number);
    let b = times(&QUOTIENT_1, MINUS_B1) - times(&QUOTIENT_2, B2);
    let lambda = <k256::Scalar as Reduce<U256>>::reduce(LAMBDA);
    [*number - b * lambda, b]
}

/// A number of 128 bits: what `PrimeField::from_u128` does by doubling 64 times.
fn short(number: u128) -> k256::Scalar {
    <k256::Scalar as Reduce<U256>>::reduce(U256::from_u128(number))
}

/// The product over 2^384, rounded.
fn rounded(number: &Number, quotient: &[u64; 4]) -> u128 {
    let mut product = [0u64; 8];
    for (i, a) in number[..4].iter().enumerate() {
        let mut carry = 0;
        for (j, b) in quotient.iter().enumerate() {
            carry += u128::from(product[i + j]) + u128::from(*a) * u128::from(*b);
            product[i + j] = carry as u64;
            carry >>= 64;
        }
        product[i + 4] = carry as u64;
    }
    (u128::from(product[6]) | u128::from(product[7]) << 64) + u128::from(product[5] >> 63)
}

#[cfg(test)]
mod tests;
