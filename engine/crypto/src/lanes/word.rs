//! What the fields need of a vector of 64-bit words, and its twin on arrays, which says what each operation does.

use crate::lanes::mont::{self, Modulus, each};
use crate::lanes::{LANES_MAX, Packed, field25, field51};

/// Several words of 64 bits.
pub(crate) trait Word: Copy {
    /// Words in one value.
    const LANES: usize;
    /// The same word in all lanes.
    fn splat(word: u64) -> Self;
    /// What is said of each lane.
    fn gather(word: impl Fn(usize) -> u64) -> Self;
    /// Writes the first words.
    fn store(self, words: &mut [u64; LANES_MAX]);
    /// Sums modulo 2^64.
    fn add(self, other: Self) -> Self;
    /// Differences modulo 2^64.
    fn sub(self, other: Self) -> Self;
    /// Bits that both have.
    fn and(self, other: Self) -> Self;
    /// Bits that one has.
    fn or(self, other: Self) -> Self;
    /// Shifts to higher bits.
    fn shl<const BITS: i32>(self) -> Self;
    /// Shifts to lower bits.
    fn shr<const BITS: i32>(self) -> Self;
    /// The other where the mask has all bits; elsewhere it has none.
    fn select(self, other: Self, mask: Self) -> Self;

    /// The same limb of each number.
    #[inline(always)]
    fn collect(numbers: &[&Packed; LANES_MAX], limb: usize) -> Self {
        Self::gather(|lane| numbers[lane][limb])
    }
}

/// Words that multiply by halves.
pub(crate) trait Mul32: Word {
    /// Products of the lower 32 bits of each.
    fn mul32(self, other: Self) -> Self;
    /// `field25::product`, once in the program.
    fn product(f: &[Self; 10], g: &[Self; 10]) -> [Self; 10];
    /// `field25::square_times`, once in the program.
    fn square_times(values: &mut [&mut [Self; 10]], times: usize);
    /// `mont::product32`, once for each prime.
    fn mont_product<M: Modulus, const N: usize, const BITS: i32>(f: &[Self; N], g: &[Self; N]) -> [Self; N];
    /// `mont::square32`, once for each prime.
    fn mont_square<M: Modulus, const N: usize, const BITS: i32>(f: &[Self; N]) -> [Self; N];
}

/// Words that multiply by 52 bits.
pub(crate) trait Madd52: Word {
    /// Adds the lower 52 bits of the products of the lower 52 bits of each.
    fn madd52_low(self, a: Self, b: Self) -> Self;
    /// Adds the bits from the 52nd on of these products.
    fn madd52_high(self, a: Self, b: Self) -> Self;
    /// `field51::product`, once in the program.
    fn product(f: &[Self; 5], g: &[Self; 5]) -> [Self; 5];
    /// `field51::square_times`, once in the program.
    fn square_times(values: &mut [&mut [Self; 5]], times: usize);
    /// `mont::product52`, once for each prime.
    fn mont_product<M: Modulus, const N: usize>(f: &[Self; N], g: &[Self; N]) -> [Self; N];
    /// `mont::square52`, once for each prime.
    fn mont_square<M: Modulus, const N: usize>(f: &[Self; N]) -> [Self; N];
}

/// Words in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Twin<const N: usize>(pub(crate) [u64; N]);

impl<const N: usize> Twin<N> {
    /// What is said of each lane. Not a loop: a product has hundreds of these, and the compiler would look at each of so many loops again and again.
    #[inline(always)]
    fn lanes(word: impl Fn(usize) -> u64) -> Self {
        let mut words = [0; N];
        each!(LANE < N {
            words[LANE] = word(LANE);
        });
        Self(words)
    }

    #[inline(always)]
    fn each(self, other: Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        Self::lanes(|lane| operation(self.0[lane], other.0[lane]))
    }
}

impl<const N: usize> Word for Twin<N> {
    const LANES: usize = N;
    #[inline(always)]
    fn splat(word: u64) -> Self {
        Self([word; N])
    }
    #[inline(always)]
    fn gather(word: impl Fn(usize) -> u64) -> Self {
        Self::lanes(word)
    }
    #[inline(always)]
    fn store(self, words: &mut [u64; LANES_MAX]) {
        words[..N].copy_from_slice(&self.0);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.each(other, u64::wrapping_add)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.each(other, u64::wrapping_sub)
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.each(other, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.each(other, |a, b| a | b)
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self) -> Self {
        self.each(self, |word, _| word << BITS)
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        self.each(self, |word, _| word >> BITS)
    }
    #[inline(always)]
    fn select(self, other: Self, mask: Self) -> Self {
        Self::lanes(|lane| (self.0[lane] & !mask.0[lane]) | (other.0[lane] & mask.0[lane]))
    }
}

impl Mul32 for Twin<4> {
    #[inline(always)]
    fn mul32(self, other: Self) -> Self {
        self.each(other, |a, b| u64::from(a as u32) * u64::from(b as u32))
    }
    #[inline(never)]
    fn product(f: &[Self; 10], g: &[Self; 10]) -> [Self; 10] {
        field25::product(f, g)
    }
    #[inline(never)]
    fn square_times(values: &mut [&mut [Self; 10]], times: usize) {
        field25::square_times(values, times);
    }
    #[inline(never)]
    fn mont_product<M: Modulus, const N: usize, const BITS: i32>(f: &[Self; N], g: &[Self; N]) -> [Self; N] {
        mont::product32::<M, Self, N, BITS>(f, g)
    }
    #[inline(never)]
    fn mont_square<M: Modulus, const N: usize, const BITS: i32>(f: &[Self; N]) -> [Self; N] {
        mont::square32::<M, Self, N, BITS>(f)
    }
}

/// The product of the lower 52 bits of each.
#[inline(always)]
fn product52(a: u64, b: u64) -> u128 {
    u128::from(a & ((1 << 52) - 1)) * u128::from(b & ((1 << 52) - 1))
}

impl<const L: usize> Madd52 for Twin<L> {
    #[inline(always)]
    fn madd52_low(self, a: Self, b: Self) -> Self {
        self.add(a.each(b, |a, b| product52(a, b) as u64 & ((1 << 52) - 1)))
    }
    #[inline(always)]
    fn madd52_high(self, a: Self, b: Self) -> Self {
        self.add(a.each(b, |a, b| (product52(a, b) >> 52) as u64))
    }
    #[inline(never)]
    fn product(f: &[Self; 5], g: &[Self; 5]) -> [Self; 5] {
        field51::product(f, g)
    }
    #[inline(never)]
    fn square_times(values: &mut [&mut [Self; 5]], times: usize) {
        field51::square_times(values, times);
    }
    #[inline(never)]
    fn mont_product<M: Modulus, const N: usize>(f: &[Self; N], g: &[Self; N]) -> [Self; N] {
        mont::product52::<M, Self, N>(f, g)
    }
    #[inline(never)]
    fn mont_square<M: Modulus, const N: usize>(f: &[Self; N]) -> [Self; N] {
        mont::square52::<M, Self, N>(f)
    }
}
