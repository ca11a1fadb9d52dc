//! Arithmetic modulo a prime on several numbers at once, each in a lane of vector registers: 2^255 - 19 here, others in [`mont`] and [`primes`].
//!
//! An algorithm is written once, over [`Field`] or [`mont::PrimeField`]. A field is written once too, over the few operations of [`word`]: its twin on arrays says what
//! they do, `x86` has them as instructions. So all of it but those few lines is tested on every machine.
//!
//! # 2^255 - 19
//!
//! Instructions of one product, all lanes together, and cycles of one lane if nothing but the ports for vectors limits:
//!
//! | | AVX2, 10 limbs | AVX-512 IFMA, 5 limbs |
//! | --- | --- | --- |
//! | products | 100 `vpmuludq` (a square: 55), 90 additions (45) | 25 `vpmadd52luq`, 25 `vpmadd52huq` (a square: 15 each) |
//! | 19 times what is above 2^255 | 9 `vpmuludq` (5), 5 additions (8) | 10 shifts, 15 additions |
//! | weight of the high halves | - | 9 shifts, 9 additions (a square: 14 shifts more) |
//! | carries | 12 shifts, 12 masks, 14 additions | 5 shifts, 5 masks, 8 additions |
//! | all | 242 (151), 4 lanes | 111 (105), 8 lanes |
//! | ports for vectors | 3 a cycle: 20 cycles a lane (13) | 2 a cycle: 7 cycles a lane |
//!
//! Measured on a Zen 3 whose other threads were busy: 25 cycles a lane for a product, 13 for a square. IFMA has not been measured: it has only run in an
//! emulator (`emulated/run`), which says that it is right, not how fast it is.
//!
//! A signature of a large batch with distinct keys takes 510 squares and 360 products: to decompress its key and R (255 and 20 each), 7 products for
//! each of the 39 additions of points to buckets (13 windows of 10 bits for R, 26 for the key), 50 for its part of summing up the buckets. A known
//! key saves 275 of these, a repeated one 200 more. By the table that is 6,100 cycles with IFMA, 490,000 a second at 3 GHz, and 14,000 with AVX2,
//! 175,000 a second at 2.45 GHz.
//!
//! That Zen 3 reaches 100,000, 24,500 cycles: by its profile a third are products, a quarter squares, a fifth additions and the collecting of points,
//! the rest arithmetic modulo the group's order, hashing, sorting and fresh memory. Those are what must become lanes, or be shared, next.
//!
//! # The primes of ECDSA
//!
//! The same of P-256 | secp256k1, as the compiler makes them:
//!
//! | | AVX2, 9 limbs of 29 bits | AVX-512 IFMA, 5 limbs of 52 bits |
//! | --- | --- | --- |
//! | products | 81 `vpmuludq` (a square: 45), 72 additions (45) | 25 `vpmadd52luq`, 25 `vpmadd52huq` (a square: 15 each), 9 additions (18) |
//! | back below the prime | 18 factors, 18 shifts, 45 additions; 12, 11, 29 | 30 `vpmadd52`, 6 additions; 13, 2 |
//! | carries | 17 shifts, 17 masks, 17 additions; 20, 19, 20 | 8 shifts, 4 masks, 9 additions; 9, 5, 9 |
//! | all | 276 (212); 244 (180), 4 lanes | 116 (102); 93 (85), 8 lanes |
//! | ports for vectors | 23 cycles a lane (18); 20 (15) | 7 (6); 6 (5) |
//! | a difference, which carries | 52 | 30 |
//!
//! A signature with a key of its own takes, on P-256 | secp256k1:
//!
//! | | products | squares |
//! | --- | --- | --- |
//! | 255 doublings; 125, for halves of the key's number need half as many and have no a | 1,020; 375 | 1,020; 500 |
//! | 79 additions: 52 digits of the key's number, 26 of the base point's, what sums began with | 632 | 237 |
//! | 16 multiples of the key, z = 1 | 132; 148 | 47 |
//! | whether the key is a point; r; its part of an inversion | 25 | 11 |
//! | all | 1,809; 1,180 | 1,315; 795 |
//! | instructions with AVX2, 4 lanes; 4 and 5 differences a doubling, 6 and what is collected an addition | 877,000; 490,000 | |
//! | with IFMA, 8 lanes | 417,000; 221,000 | |
//!
//! By the ports that is 73,000 and 41,000 cycles with AVX2: 33,000 and 60,000 a second at 2.45 GHz. With IFMA it is 26,000 and 14,000, and 2,000 for numbers
//! modulo the order: 107,000 and 187,000 a second at 3 GHz. The Zen 3 above takes 76,000 to 85,000 and
//! 49,000 to 60,000 of a large batch, by what else runs; libsecp256k1 there 91,000 to 100,000.

#![allow(clippy::needless_range_loop, reason = "an index says which lane or limb it is, of several arrays")]

mod field25;
mod field51;
pub(crate) mod mont;
mod pair;
mod primes;
mod word;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use field25::Field25;
pub(crate) use field51::{Field51, Single, canonical, limbs};
pub(crate) use pair::Pair;
pub(crate) use primes::{Field29, Field52, P256, Secp256k1};
pub(crate) use word::Twin;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Lanes of the widest field.
pub(crate) const LANES_MAX: usize = 8;

/// One number between kernels: what a field stores and collects. Only the same field understands it.
pub(crate) type Packed = [u64; 5];

/// Numbers modulo 2^255 - 19, one in each lane.
///
/// A product is *reduced*. `add` and `sub` carry nothing, which saves a third of their time, so they widen: reduced numbers are 1 wide, sums as wide as
/// both parts, differences 2 wider than the first part. What is given must not be wider than each operation says.
pub(crate) trait Field: Copy {
    /// Numbers in one value.
    const LANES: usize;
    /// From five limbs of 51 bits.
    fn pack(limbs: [u64; 5]) -> Packed;
    /// To five limbs of 51 bits or little more.
    fn unpack(packed: &Packed) -> [u64; 5];
    /// A number for each lane; what is beyond the lanes is not looked at.
    fn collect(numbers: &[&Packed; LANES_MAX]) -> Self;
    /// The numbers, reduced if they are; what is beyond the lanes stays.
    fn store(self, numbers: &mut [Packed; LANES_MAX]);
    /// At most 5 wide together.
    fn add(self, other: Self) -> Self;
    /// `other` must be reduced.
    fn sub(self, other: Self) -> Self;
    /// A reduced difference; `other` may be 3 wide.
    fn sub_reduced(self, other: Self) -> Self;
    /// `self` may be 5 wide, `other` 3.
    fn mul(self, other: Self) -> Self;
    /// `self` may be 3 wide.
    fn square(self) -> Self;

    /// Squares reduced values so many times, all of them before the next time.
    #[inline(always)]
    fn square_times(values: &mut [Self], times: usize) {
        for _ in 0..times {
            values.iter_mut().for_each(|value| *value = value.square());
        }
    }

    /// One number in all lanes, from five limbs of 51 bits.
    #[inline(always)]
    fn splat(limbs: [u64; 5]) -> Self {
        let packed = Self::pack(limbs);
        Self::collect(&[&packed; LANES_MAX])
    }
}

/// [`Field::square_times`] by what squares limbs: of one value or two at the same time, of more one after the other.
#[inline(always)]
fn square_limbs<F, L>(values: &mut [F], limbs: impl Fn(&mut F) -> &mut L, square_times: impl Fn(&mut [&mut L])) {
    match values {
        [one, two] => square_times(&mut [limbs(one), limbs(two)]),
        _ => values.iter_mut().for_each(|value| square_times(&mut [limbs(value)])),
    }
}

/// Squares limbs so many times, all of them before the next time.
#[inline(always)]
fn repeat_square<W: Copy, const N: usize>(
    values: &mut [&mut [W; N]],
    times: usize,
    square: impl Fn(&[W; N]) -> [W; N],
) {
    for _ in 0..times {
        for value in &mut *values {
            let square = square(value);
            value.iter_mut().zip(square).for_each(|(to, word)| *to = word);
        }
    }
}

#[cfg(test)]
mod tests;
