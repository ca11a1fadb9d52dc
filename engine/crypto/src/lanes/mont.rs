//! Arithmetic modulo a prime that is given as constants, in Montgomery's form: limbs of up to 29 bits for words that multiply by halves, of 52 bits for words
//! that multiply by so many.
//!
//! Bounds. A number that is *w wide* is below w times 2^b, where b is the number of the prime's bits. A product of numbers that are f and g wide is below
//! `prime + f · g · 2^2b / R`, where R = 2^(limbs · bits of a limb). Every result has carried: no limb but the last has more bits than it should, or less
//! than twice the greatest number of so many bits where halves multiply.
//!
//! A prime may know a shorter way than Montgomery's (`reduce32`, `reduce52`), and how to take off what is above 2^b (`fold32`, `fold52`).

#![allow(clippy::absurd_extreme_comparisons, reason = "places are constants, 0 among them")]

use crate::lanes::LANES_MAX;
use crate::lanes::word::{Madd52, Mul32, Word};
use std::marker::PhantomData;

/// A number of up to 448 bits, lowest word first.
pub(crate) type Number = [u64; WORDS];
const WORDS: usize = 7;

/// Most limbs that [`each`] goes through.
const LIMBS_MAX: usize = 14;

/// Does something for each place below a number known to the compiler, without a loop: limbs that a loop counts would stay in memory.
macro_rules! each {
    ($at:ident < 2 * $end:ident $body:block) => {
        each!(@ $at (2 * $end) $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27)
    };
    ($at:ident < $end:ident $body:block) => { each!(@ $at ($end) $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
    (@ $at:ident ($end:expr) $body:block $($n:literal)*) => {
        $({
            const $at: usize = $n;
            // A constant, so that what is beyond never reaches the code generator.
            if const { $at < $end } $body
        })*
    };
}

pub(crate) use each;

/// A prime, and what is known of it that makes arithmetic shorter.
pub(crate) trait Modulus: Copy {
    /// The prime.
    const PRIME: Number;
    /// Whether products are not divided by R.
    const IS_PLAIN: bool = false;

    /// The carried product from its columns.
    #[inline(always)]
    fn reduce32<W: Mul32, const N: usize, const BITS: i32>(columns: impl Columns<W>) -> [W; N] {
        montgomery32::<Self, W, N, BITS>(columns)
    }

    /// The carried product from its columns.
    #[inline(always)]
    fn reduce52<W: Madd52, const N: usize>(columns: impl Columns<W>) -> [W; N] {
        montgomery52::<Self, W, N>(columns)
    }

    /// Takes multiples of the prime off a number that has not carried, whose limbs have bits to spare: then it is little more than 1 wide. A prime far
    /// below R has no need of it.
    #[inline(always)]
    fn fold32<W: Mul32, const N: usize, const BITS: i32>(_: &mut [W; N]) {}

    /// The same for limbs of 52 bits.
    #[inline(always)]
    fn fold52<W: Madd52, const N: usize>(_: &mut [W; N]) {}
}

/// The one form of a number that is few times the prime.
pub(crate) fn canonical<M: Modulus>(mut number: Number) -> Number {
    while !is_less(&number, &M::PRIME) {
        number = minus(&number, &M::PRIME).0;
    }
    number
}

pub(crate) const fn is_less(a: &Number, b: &Number) -> bool {
    minus(a, b).1
}

/// The difference, and whether it is negative.
const fn minus(a: &Number, b: &Number) -> (Number, bool) {
    let (mut difference, mut word, mut borrow) = ([0; WORDS], 0, 0);
    while word < WORDS {
        borrow += a[word] as i128 - b[word] as i128;
        difference[word] = borrow as u64;
        borrow >>= 64;
        word += 1;
    }
    (difference, borrow < 0)
}

pub(crate) const fn plus(a: &Number, b: &Number) -> Number {
    let (mut sum, mut word, mut carry) = ([0; WORDS], 0, 0);
    while word < WORDS {
        carry += a[word] as u128 + b[word] as u128;
        sum[word] = carry as u64;
        carry >>= 64;
        word += 1;
    }
    sum
}

/// So many bits from one on.
const fn bits(number: &Number, from: usize, count: usize) -> u64 {
    let (word, shift) = (from / 64, from % 64);
    let low = if word < WORDS { number[word] >> shift } else { 0 };
    let high = if shift > 0 && word + 1 < WORDS { number[word + 1] << (64 - shift) } else { 0 };
    (low | high) & ((1 << count) - 1)
}

/// What is known of a prime in so many limbs of so many bits.
struct Limbs<M, const N: usize, const BITS: i32>(PhantomData<M>);

impl<M: Modulus, const N: usize, const BITS: i32> Limbs<M, N, BITS> {
    const MASK: u64 = (1 << BITS) - 1;
    const PRIME: [u64; N] = Self::split(&M::PRIME);
    /// R, and its square, modulo the prime.
    const R: Number = Self::power_of_r(1);
    const R2: Number = Self::power_of_r(2);

    const fn split(number: &Number) -> [u64; N] {
        let (mut limbs, mut at) = ([0; N], 0);
        while at < N {
            limbs[at] = bits(number, at * BITS as usize, BITS as usize);
            at += 1;
        }
        limbs
    }

    const fn power_of_r(exponent: usize) -> Number {
        let (mut power, mut doubled): (Number, usize) = ([1, 0, 0, 0, 0, 0, 0], 0);
        while doubled < exponent * N * BITS as usize && !M::IS_PLAIN {
            power = plus(&power, &power);
            if !is_less(&power, &M::PRIME) {
                power = minus(&power, &M::PRIME).0;
            }
            doubled += 1;
        }
        power
    }

    /// -1 / prime modulo 2^BITS, by Newton's iteration: each doubles the bits that are right, three at first.
    const MINUS_INVERSE: u64 = {
        let (mut inverse, mut step) = (M::PRIME[0], 0);
        while step < 5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(M::PRIME[0].wrapping_mul(inverse)));
            step += 1;
        }
        inverse.wrapping_neg() & Self::MASK
    };
}

/// Spare bits of the limbs that a difference begins with: what is taken off may have as many more than it should.
const SPARE_BITS: i32 = 4;

/// A multiple of the prime, with a borrowed amount in each limb but the last.
struct Multiple<M, const N: usize, const BITS: i32, const K: u64>(PhantomData<M>);

impl<M: Modulus, const N: usize, const BITS: i32, const K: u64> Multiple<M, N, BITS, K> {
    const LIMBS: [u64; N] = {
        let (mut number, mut times) = ([0; WORDS], 0);
        while times < K {
            number = plus(&number, &M::PRIME);
            times += 1;
        }
        let mut limbs = Limbs::<M, N, BITS>::split(&number);
        // The last has all that is above.
        limbs[N - 1] = bits(&number, (N - 1) * BITS as usize, 63);
        let mut at = 0;
        while at + 1 < N {
            limbs[at] = limbs[at].wrapping_add(1 << (BITS + SPARE_BITS));
            at += 1;
            limbs[at] = limbs[at].wrapping_sub(1 << SPARE_BITS);
        }
        limbs
    };
}

/// Sums of products of limbs, by the limb they count for, that have not carried.
pub(crate) trait Columns<W> {
    /// The column of this number, from 0 to twice the limbs.
    fn at<const AT: usize>(&self) -> W;
}

/// The columns of a product and of a square where halves multiply.
struct Product32<'a, W, const N: usize>(&'a [W; N], &'a [W; N]);
struct Square32<'a, W, const N: usize>(&'a [W; N], [W; N]);
/// The same where 52 bits do.
struct Product52<'a, W, const N: usize>(&'a [W; N], &'a [W; N]);
struct Square52<'a, W, const N: usize>(&'a [W; N]);

impl<W: Mul32, const N: usize> Columns<W> for Product32<'_, W, N> {
    #[inline(always)]
    fn at<const AT: usize>(&self) -> W {
        let mut sum = W::splat(0);
        each!(I < N {
            if const { AT.wrapping_sub(I) < N } {
                sum = sum.add(self.0[I].mul32(self.1[AT.wrapping_sub(I)]));
            }
        });
        sum
    }
}

impl<W: Mul32, const N: usize> Columns<W> for Square32<'_, W, N> {
    #[inline(always)]
    fn at<const AT: usize>(&self) -> W {
        // The second has twice the limbs of the first.
        let mut sum = W::splat(0);
        each!(I < N {
            if const { AT.wrapping_sub(I) < I } {
                sum = sum.add(self.0[I].mul32(self.1[AT.wrapping_sub(I)]));
            }
            if const { AT == 2 * I } {
                sum = sum.add(self.0[I].mul32(self.0[I]));
            }
        });
        sum
    }
}

impl<W: Madd52, const N: usize> Columns<W> for Product52<'_, W, N> {
    #[inline(always)]
    fn at<const AT: usize>(&self) -> W {
        let (mut low, mut high) = (W::splat(0), W::splat(0));
        each!(I < N {
            if const { AT.wrapping_sub(I) < N } {
                low = low.madd52_low(self.0[I], self.1[AT.wrapping_sub(I)]);
            }
            // Upper halves count for the next column.
            if const { AT.wrapping_sub(I + 1) < N } {
                high = high.madd52_high(self.0[I], self.1[AT.wrapping_sub(I + 1)]);
            }
        });
        low.add(high)
    }
}

impl<W: Madd52, const N: usize> Columns<W> for Square52<'_, W, N> {
    #[inline(always)]
    fn at<const AT: usize>(&self) -> W {
        let (mut low, mut high) = (W::splat(0), W::splat(0));
        each!(I < N {
            if const { AT.wrapping_sub(I) < I } {
                low = low.madd52_low(self.0[I], self.0[AT.wrapping_sub(I)]);
            }
            if const { AT.wrapping_sub(I + 1) < I } {
                high = high.madd52_high(self.0[I], self.0[AT.wrapping_sub(I + 1)]);
            }
        });
        let mut sum = low.add(high).shl::<1>();
        if const { AT / 2 < N } {
            sum = match AT % 2 {
                0 => sum.madd52_low(self.0[AT / 2], self.0[AT / 2]),
                _ => sum.madd52_high(self.0[AT / 2], self.0[AT / 2]),
            };
        }
        sum
    }
}

/// Column by column from the lowest: a multiple of the prime makes it 0 up to what is carried.
///
/// A column has up to N products of the factors' limbs and N of the prime's, so N · (f · g + 1) + 1 < 2^(64 - 2 · BITS) for limbs that are f and g times as
/// large as they should be.
#[inline(always)]
#[allow(unused_assignments, reason = "the last column does not carry")]
fn montgomery32<M: Modulus, W: Mul32, const N: usize, const BITS: i32>(columns: impl Columns<W>) -> [W; N] {
    let prime = Limbs::<M, N, BITS>::PRIME.map(W::splat);
    let (mask, minus_inverse) = (W::splat(Limbs::<M, N, BITS>::MASK), W::splat(Limbs::<M, N, BITS>::MINUS_INVERSE));
    let (mut multiples, mut product, mut carry) = ([W::splat(0); N], [W::splat(0); N], W::splat(0));
    each!(AT < 2 * N {
        let mut sum = columns.at::<AT>();
        each!(I < N {
            if const { I > 0 && AT.wrapping_sub(I) < N } {
                sum = sum.add(multiples[AT.wrapping_sub(I)].mul32(prime[I]));
            }
        });
        // Last, for all else is known before.
        sum = sum.add(carry);
        if const { AT < N } {
            multiples[AT] = sum.mul32(minus_inverse).and(mask);
            carry = sum.add(multiples[AT].mul32(prime[0])).shr::<BITS>();
        } else if const { AT + 1 < 2 * N } {
            product[AT.wrapping_sub(N)] = sum.and(mask);
            carry = sum.shr::<BITS>();
        } else {
            product[AT.wrapping_sub(N)] = sum;
        }
    });
    product
}

/// The same with 52 bits.
#[inline(always)]
#[allow(unused_assignments, reason = "the last column does not carry")]
fn montgomery52<M: Modulus, W: Madd52, const N: usize>(columns: impl Columns<W>) -> [W; N] {
    let prime = Limbs::<M, N, 52>::PRIME.map(W::splat);
    let (mask, minus_inverse) = (W::splat(Limbs::<M, N, 52>::MASK), W::splat(Limbs::<M, N, 52>::MINUS_INVERSE));
    let (mut multiples, mut product, mut carry) = ([W::splat(0); N], [W::splat(0); N], W::splat(0));
    each!(AT < 2 * N {
        let (mut sum, mut high) = (columns.at::<AT>(), W::splat(0));
        each!(I < N {
            if const { I > 0 && AT.wrapping_sub(I) < N } {
                sum = sum.madd52_low(multiples[AT.wrapping_sub(I)], prime[I]);
            }
            if const { AT.wrapping_sub(I + 1) < N } {
                high = high.madd52_high(multiples[AT.wrapping_sub(I + 1)], prime[I]);
            }
        });
        sum = sum.add(high).add(carry);
        if const { AT < N } {
            multiples[AT] = W::splat(0).madd52_low(sum, minus_inverse);
            carry = sum.madd52_low(multiples[AT], prime[0]).shr::<52>();
        } else if const { AT + 1 < 2 * N } {
            product[AT.wrapping_sub(N)] = sum.and(mask);
            carry = sum.shr::<52>();
        } else {
            product[AT.wrapping_sub(N)] = sum;
        }
    });
    product
}

/// Carries from each limb to the next; the last one keeps all.
#[inline(always)]
pub(super) fn carry<W: Word, const N: usize, const BITS: i32>(mut limbs: [W; N]) -> [W; N] {
    each!(AT < N {
        if const { AT + 1 < N } {
            limbs[AT + 1] = limbs[AT + 1].add(limbs[AT].shr::<BITS>());
            limbs[AT] = limbs[AT].and(W::splat((1 << BITS) - 1));
        }
    });
    limbs
}

/// `f + multiple - times · g`, which has not carried.
#[inline(always)]
fn difference<W: Word, const N: usize>(f: &[W; N], g: &[W; N], multiple: &[u64; N], times: u64) -> [W; N] {
    let mut difference = *f;
    each!(AT < N {
        difference[AT] = f[AT].add(W::splat(multiple[AT])).sub(scaled(g[AT], times));
    });
    difference
}

/// A limb so many times. Panics: where nobody needs it.
#[inline(always)]
fn scaled<W: Word>(limb: W, times: u64) -> W {
    match times {
        1 => limb,
        2 => limb.add(limb),
        3 => limb.add(limb).add(limb),
        4 => limb.shl::<2>(),
        8 => limb.shl::<3>(),
        _ => unreachable!("a factor that is not used"),
    }
}

/// Numbers modulo a prime, one in each lane. See the module's head for widths; a prime that folds has differences 1 wide and little more.
pub(crate) trait PrimeField: Copy {
    /// Numbers in one value.
    const LANES: usize;
    /// One number between kernels. Only the same field understands it.
    type Stored: Copy;
    /// What stands for 1, and what a number is multiplied by to stand for itself.
    const ONE: Number;
    const TO_FORM: Number;

    /// From a number below R, as it is.
    fn pack(number: &Number) -> Self::Stored;
    /// The number, as it is.
    fn unpack(stored: &Self::Stored) -> Number;
    /// A number for each lane; what is beyond the lanes is not looked at.
    fn collect(numbers: &[&Self::Stored; LANES_MAX]) -> Self;
    /// The numbers; what is beyond the lanes stays.
    fn store(self, numbers: &mut [Self::Stored; LANES_MAX]);
    /// As wide as both together, which is less than R.
    fn add(self, other: Self) -> Self;
    /// So many times: 2, 3, 4 or 8.
    fn times<const TIMES: u64>(self) -> Self;
    /// A sum that has not carried where halves multiply: as large limbs as both together. A product takes limbs 2 times as large as they should be on both
    /// sides, a difference up to 16 times.
    #[inline(always)]
    fn add_loose(self, other: Self) -> Self {
        self.add(other)
    }
    /// So many times, and as `add_loose`.
    #[inline(always)]
    fn times_loose<const TIMES: u64>(self) -> Self {
        self.times::<TIMES>()
    }
    /// `self - TIMES · other + K · prime`; `TIMES · other` is at most `K - 1` wide. `TIMES` is 1 or as above.
    fn sub_times<const TIMES: u64, const K: u64>(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn square(self) -> Self;
    /// The other where `which` says so.
    fn select(self, other: Self, which: &[bool; LANES_MAX]) -> Self;

    #[inline(always)]
    fn sub<const K: u64>(self, other: Self) -> Self {
        self.sub_times::<1, K>(other)
    }

    /// 1 wide and little more, of a prime that folds.
    #[inline(always)]
    fn folded(self) -> Self {
        self.sub::<1>(Self::splat(&[0; WORDS]))
    }

    /// The negative of a number that is 2 wide.
    #[inline(always)]
    fn negative(self) -> Self {
        Self::splat(&[0; WORDS]).sub::<3>(self)
    }

    /// One number in all lanes, as it is.
    #[inline(always)]
    fn splat(number: &Number) -> Self {
        let stored = Self::pack(number);
        Self::collect(&[&stored; LANES_MAX])
    }
}

/// Numbers modulo M in lanes of words that multiply by halves: N limbs of up to 29 bits.
#[derive(Clone, Copy)]
pub(crate) struct Mont32<M, W, const N: usize, const BITS: i32>([W; N], PhantomData<M>);

/// Numbers modulo M in lanes of words that multiply by 52 bits: N limbs of so many.
#[derive(Clone, Copy)]
pub(crate) struct Mont52<M, W, const N: usize>([W; N], PhantomData<M>);

/// The reduced product, for [`Mul32::mont_product`].
#[inline(always)]
pub(super) fn product32<M: Modulus, W: Mul32, const N: usize, const BITS: i32>(f: &[W; N], g: &[W; N]) -> [W; N] {
    M::reduce32::<W, N, BITS>(Product32(f, g))
}

/// The reduced square, for [`Mul32::mont_square`].
#[inline(always)]
pub(super) fn square32<M: Modulus, W: Mul32, const N: usize, const BITS: i32>(f: &[W; N]) -> [W; N] {
    let mut twice = *f;
    each!(AT < N {
        twice[AT] = f[AT].add(f[AT]);
    });
    M::reduce32::<W, N, BITS>(Square32(f, twice))
}

/// The reduced product, for [`Madd52::mont_product`].
#[inline(always)]
pub(super) fn product52<M: Modulus, W: Madd52, const N: usize>(f: &[W; N], g: &[W; N]) -> [W; N] {
    M::reduce52::<W, N>(Product52(f, g))
}

/// The reduced square, for [`Madd52::mont_square`].
#[inline(always)]
pub(super) fn square52<M: Modulus, W: Madd52, const N: usize>(f: &[W; N]) -> [W; N] {
    M::reduce52::<W, N>(Square52(f))
}

/// Sums up limbs of so many bits, which may have more.
fn join(limbs: impl Iterator<Item = u64>, bits: usize) -> Number {
    let mut number = [0; WORDS];
    for (at, limb) in limbs.enumerate() {
        let (word, shift) = (at * bits / 64, at * bits % 64);
        let mut carry = u128::from(limb) << shift;
        for word in &mut number[word..] {
            carry += u128::from(*word);
            *word = carry as u64;
            carry >>= 64;
        }
    }
    number
}

/// All bits where it is so.
#[inline(always)]
fn mask<W: Word>(which: &[bool; LANES_MAX]) -> W {
    W::gather(|lane| u64::from(which[lane]).wrapping_neg())
}

impl<M: Modulus, W: Mul32, const N: usize, const BITS: i32> PrimeField for Mont32<M, W, N, BITS> {
    const LANES: usize = W::LANES;
    type Stored = [u32; N];
    const ONE: Number = Limbs::<M, N, BITS>::R;
    const TO_FORM: Number = Limbs::<M, N, BITS>::R2;

    #[inline(always)]
    fn pack(number: &Number) -> [u32; N] {
        const { assert!(N <= LIMBS_MAX && BITS <= 29) };
        std::array::from_fn(|at| bits(number, at * BITS as usize, BITS as usize) as u32)
    }

    #[inline(always)]
    fn unpack(stored: &[u32; N]) -> Number {
        join(stored.iter().map(|limb| u64::from(*limb)), BITS as usize)
    }

    #[inline(always)]
    fn collect(numbers: &[&[u32; N]; LANES_MAX]) -> Self {
        let mut limbs = [W::splat(0); N];
        // Two at a time: they lie side by side.
        each!(AT < N {
            if const { AT % 2 == 1 } {
                let both = W::gather(|lane| {
                    let number = numbers[lane];
                    u64::from(number[AT.wrapping_sub(1)]) | u64::from(number[AT]) << 32
                });
                limbs[AT.wrapping_sub(1)] = both.and(W::splat(0xffff_ffff));
                limbs[AT] = both.shr::<32>();
            } else if const { AT + 1 == N } {
                limbs[AT] = W::gather(|lane| u64::from(numbers[lane][AT]));
            }
        });
        Self(limbs, PhantomData)
    }

    #[inline(always)]
    fn store(self, numbers: &mut [[u32; N]; LANES_MAX]) {
        each!(AT < N {
            let mut words = [0; LANES_MAX];
            self.0[AT].store(&mut words);
            for lane in 0..W::LANES {
                numbers[lane][AT] = words[lane] as u32;
            }
        });
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(carry::<W, N, BITS>(self.add_loose(other).0), PhantomData)
    }

    #[inline(always)]
    fn times<const TIMES: u64>(self) -> Self {
        Self(carry::<W, N, BITS>(self.times_loose::<TIMES>().0), PhantomData)
    }

    #[inline(always)]
    fn add_loose(mut self, other: Self) -> Self {
        each!(AT < N {
            self.0[AT] = self.0[AT].add(other.0[AT]);
        });
        self
    }

    #[inline(always)]
    fn times_loose<const TIMES: u64>(mut self) -> Self {
        each!(AT < N {
            self.0[AT] = scaled(self.0[AT], TIMES);
        });
        self
    }

    #[inline(always)]
    fn sub_times<const TIMES: u64, const K: u64>(self, other: Self) -> Self {
        let mut limbs = difference(&self.0, &other.0, &Multiple::<M, N, BITS, K>::LIMBS, TIMES);
        M::fold32::<W, N, BITS>(&mut limbs);
        Self(carry::<W, N, BITS>(limbs), PhantomData)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(W::mont_product::<M, N, BITS>(&self.0, &other.0), PhantomData)
    }

    #[inline(always)]
    fn square(self) -> Self {
        Self(W::mont_square::<M, N, BITS>(&self.0), PhantomData)
    }

    #[inline(always)]
    fn select(mut self, other: Self, which: &[bool; LANES_MAX]) -> Self {
        let mask = mask(which);
        each!(AT < N {
            self.0[AT] = self.0[AT].select(other.0[AT], mask);
        });
        self
    }
}

impl<M: Modulus, W: Madd52, const N: usize> PrimeField for Mont52<M, W, N> {
    const LANES: usize = W::LANES;
    type Stored = [u64; N];
    const ONE: Number = Limbs::<M, N, 52>::R;
    const TO_FORM: Number = Limbs::<M, N, 52>::R2;

    #[inline(always)]
    fn pack(number: &Number) -> [u64; N] {
        const { assert!(N <= LIMBS_MAX) };
        std::array::from_fn(|at| bits(number, at * 52, 52))
    }

    #[inline(always)]
    fn unpack(stored: &[u64; N]) -> Number {
        join(stored.iter().copied(), 52)
    }

    #[inline(always)]
    fn collect(numbers: &[&[u64; N]; LANES_MAX]) -> Self {
        let mut limbs = [W::splat(0); N];
        each!(AT < N {
            limbs[AT] = W::gather(|lane| numbers[lane][AT]);
        });
        Self(limbs, PhantomData)
    }

    #[inline(always)]
    fn store(self, numbers: &mut [[u64; N]; LANES_MAX]) {
        each!(AT < N {
            let mut words = [0; LANES_MAX];
            self.0[AT].store(&mut words);
            for lane in 0..W::LANES {
                numbers[lane][AT] = words[lane];
            }
        });
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        each!(AT < N {
            self.0[AT] = self.0[AT].add(other.0[AT]);
        });
        Self(carry::<W, N, 52>(self.0), PhantomData)
    }

    #[inline(always)]
    fn times<const TIMES: u64>(mut self) -> Self {
        each!(AT < N {
            self.0[AT] = scaled(self.0[AT], TIMES);
        });
        Self(carry::<W, N, 52>(self.0), PhantomData)
    }

    #[inline(always)]
    fn sub_times<const TIMES: u64, const K: u64>(self, other: Self) -> Self {
        let mut limbs = difference(&self.0, &other.0, &Multiple::<M, N, 52, K>::LIMBS, TIMES);
        M::fold52::<W, N>(&mut limbs);
        Self(carry::<W, N, 52>(limbs), PhantomData)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(W::mont_product::<M, N>(&self.0, &other.0), PhantomData)
    }

    #[inline(always)]
    fn square(self) -> Self {
        Self(W::mont_square::<M, N>(&self.0), PhantomData)
    }

    #[inline(always)]
    fn select(mut self, other: Self, which: &[bool; LANES_MAX]) -> Self {
        let mask = mask(which);
        each!(AT < N {
            self.0[AT] = self.0[AT].select(other.0[AT], mask);
        });
        self
    }
}

#[cfg(test)]
mod tests;
