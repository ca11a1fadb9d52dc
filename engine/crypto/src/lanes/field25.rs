//! Ten limbs of 26 and 25 bits in turns, for words that multiply by halves.
//!
//! Bounds. A reduced limb is below 2^26 + 2^17 (even) or 2^25 + 2^17 (odd): 1 wide. A product takes limbs up to 5 times that on one side and up to 3 times on
//! the other: 19 · 3 · 2^26 < 2^32, so halves hold all factors; odd limbs of the first side are doubled where both are odd, and ten terms below
//! 2^(28.4 + 31.9) are below 2^63.7.

use crate::lanes::word::Mul32;
use crate::lanes::{Field, LANES_MAX, Packed, repeat_square, square_limbs};

/// Numbers in lanes of words `W`.
#[derive(Clone, Copy)]
pub(crate) struct Field25<W>([W; 10]);

const MASK_26: u64 = (1 << 26) - 1;
const MASK_25: u64 = (1 << 25) - 1;

/// Twice the prime, limb by limb: each is at least as large as a reduced one.
const fn twice_the_prime(limb: usize) -> u64 {
    match limb {
        0 => 2 * (MASK_26 - 18),
        _ if limb.is_multiple_of(2) => 2 * MASK_26,
        _ => 2 * MASK_25,
    }
}

/// An array of what is said of each limb, without a loop.
macro_rules! each_limb {
    (|$limb:ident| $word:expr) => {{
        macro_rules! word {
            ($at:literal) => {{
                const $limb: usize = $at;
                $word
            }};
        }
        [word!(0), word!(1), word!(2), word!(3), word!(4), word!(5), word!(6), word!(7), word!(8), word!(9)]
    }};
}

impl<W: Mul32> Field25<W> {
    /// Carries from limbs of up to 64 bits; the result is reduced.
    #[inline(always)]
    fn carry(mut h: [W; 10]) -> Self {
        let (mask_26, mask_25) = (W::splat(MASK_26), W::splat(MASK_25));
        macro_rules! even {
            ($from:literal) => {
                h[$from + 1] = h[$from + 1].add(h[$from].shr::<26>());
                h[$from] = h[$from].and(mask_26);
            };
        }
        macro_rules! odd {
            ($from:literal) => {
                h[$from + 1] = h[$from + 1].add(h[$from].shr::<25>());
                h[$from] = h[$from].and(mask_25);
            };
        }
        even!(0);
        even!(4);
        odd!(1);
        odd!(5);
        even!(2);
        even!(6);
        odd!(3);
        odd!(7);
        even!(4);
        even!(8);
        // What is above 2^255 comes back 19 times; it may have more than 32 bits.
        let above = h[9].shr::<25>();
        h[0] = h[0].add(above).add(above.shl::<1>()).add(above.shl::<4>());
        h[9] = h[9].and(mask_25);
        even!(0);
        Self(h)
    }
}

impl<W: Mul32> Field for Field25<W> {
    const LANES: usize = W::LANES;

    /// Two limbs a word, the even one below.
    #[inline(always)]
    fn pack(limbs: [u64; 5]) -> Packed {
        limbs.map(|limb| (limb & MASK_26) | (limb >> 26) << 32)
    }

    #[inline(always)]
    fn unpack(packed: &Packed) -> [u64; 5] {
        packed.map(|word| (word & 0xffff_ffff) + ((word >> 32) << 26))
    }

    #[inline(always)]
    fn collect(numbers: &[&Packed; LANES_MAX]) -> Self {
        let low = W::splat(0xffff_ffff);
        let [a, b, c, d, e] = [
            W::collect(numbers, 0),
            W::collect(numbers, 1),
            W::collect(numbers, 2),
            W::collect(numbers, 3),
            W::collect(numbers, 4),
        ];
        let high = |both: W| both.shr::<32>();
        Self([a.and(low), high(a), b.and(low), high(b), c.and(low), high(c), d.and(low), high(d), e.and(low), high(e)])
    }

    #[inline(always)]
    fn store(self, numbers: &mut [Packed; LANES_MAX]) {
        for pair in 0..5 {
            let mut words = [0; LANES_MAX];
            self.0[2 * pair].or(self.0[2 * pair + 1].shl::<32>()).store(&mut words);
            for lane in 0..W::LANES {
                numbers[lane][pair] = words[lane];
            }
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(each_limb!(|LIMB| self.0[LIMB].add(other.0[LIMB])))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(each_limb!(|LIMB| self.0[LIMB].add(W::splat(twice_the_prime(LIMB))).sub(other.0[LIMB])))
    }

    #[inline(always)]
    fn sub_reduced(self, other: Self) -> Self {
        Self::carry(each_limb!(|LIMB| self.0[LIMB].add(W::splat(2 * twice_the_prime(LIMB))).sub(other.0[LIMB])))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(W::product(&self.0, &other.0))
    }

    #[inline(always)]
    fn square(mut self) -> Self {
        W::square_times(&mut [&mut self.0], 1);
        self
    }

    #[inline(always)]
    fn square_times(values: &mut [Self], times: usize) {
        square_limbs(values, |value| &mut value.0, |values| W::square_times(values, times));
    }
}

/// One word of a product or square, without a loop: limbs that a loop counts would stay in memory.
macro_rules! sum {
    ($a:ident * $b:ident $(, $c:ident * $d:ident)*) => { $a.mul32($b)$(.add($c.mul32($d)))* };
}

/// The reduced product, for [`Mul32::product`].
#[inline(always)]
pub(super) fn product<W: Mul32>(f: &[W; 10], g: &[W; 10]) -> [W; 10] {
    let ([f0, f1, f2, f3, f4, f5, f6, f7, f8, f9], [g0, g1, g2, g3, g4, g5, g6, g7, g8, g9]) = (*f, *g);
    // Two odd limbs have half a bit each too many.
    let twice = |word: W| word.add(word);
    let (d1, d3, d5, d7, d9) = (twice(f1), twice(f3), twice(f5), twice(f7), twice(f9));
    // What is above 2^255 comes back 19 times.
    let nineteen = W::splat(19);
    let around = |word: W| word.mul32(nineteen);
    let (h1, h2, h3, h4, h5) = (around(g1), around(g2), around(g3), around(g4), around(g5));
    let (h6, h7, h8, h9) = (around(g6), around(g7), around(g8), around(g9));
    // One limb of `f` after the other: its ten products go to ten sums that stay in registers.
    let mut sums = [W::splat(0); 10];
    macro_rules! row {
        ($($a:ident * $b:ident),*) => {{
            let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = sums;
            let [p0, p1, p2, p3, p4, p5, p6, p7, p8, p9] = [$($a.mul32($b)),*];
            sums = [
                s0.add(p0), s1.add(p1), s2.add(p2), s3.add(p3), s4.add(p4), s5.add(p5), s6.add(p6), s7.add(p7), s8.add(p8),
                s9.add(p9),
            ];
        }};
    }
    row!(f0 * g0, f0 * g1, f0 * g2, f0 * g3, f0 * g4, f0 * g5, f0 * g6, f0 * g7, f0 * g8, f0 * g9);
    row!(d1 * h9, f1 * g0, d1 * g1, f1 * g2, d1 * g3, f1 * g4, d1 * g5, f1 * g6, d1 * g7, f1 * g8);
    row!(f2 * h8, f2 * h9, f2 * g0, f2 * g1, f2 * g2, f2 * g3, f2 * g4, f2 * g5, f2 * g6, f2 * g7);
    row!(d3 * h7, f3 * h8, d3 * h9, f3 * g0, d3 * g1, f3 * g2, d3 * g3, f3 * g4, d3 * g5, f3 * g6);
    row!(f4 * h6, f4 * h7, f4 * h8, f4 * h9, f4 * g0, f4 * g1, f4 * g2, f4 * g3, f4 * g4, f4 * g5);
    row!(d5 * h5, f5 * h6, d5 * h7, f5 * h8, d5 * h9, f5 * g0, d5 * g1, f5 * g2, d5 * g3, f5 * g4);
    row!(f6 * h4, f6 * h5, f6 * h6, f6 * h7, f6 * h8, f6 * h9, f6 * g0, f6 * g1, f6 * g2, f6 * g3);
    row!(d7 * h3, f7 * h4, d7 * h5, f7 * h6, d7 * h7, f7 * h8, d7 * h9, f7 * g0, d7 * g1, f7 * g2);
    row!(f8 * h2, f8 * h3, f8 * h4, f8 * h5, f8 * h6, f8 * h7, f8 * h8, f8 * h9, f8 * g0, f8 * g1);
    row!(d9 * h1, f9 * h2, d9 * h3, f9 * h4, d9 * h5, f9 * h6, d9 * h7, f9 * h8, d9 * h9, f9 * g0);
    Field25::carry(sums).0
}

/// Squares values so many times, for [`Mul32::square_times`].
#[inline(always)]
pub(super) fn square_times<W: Mul32>(values: &mut [&mut [W; 10]], times: usize) {
    repeat_square(values, times, squares);
}

/// The reduced square.
#[inline(always)]
fn squares<W: Mul32>(f: &[W; 10]) -> [W; 10] {
    let [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9] = *f;
    let twice = |word: W| word.add(word);
    let (d0, d1, d2, d3, d4) = (twice(f0), twice(f1), twice(f2), twice(f3), twice(f4));
    let (d5, d6, d7) = (twice(f5), twice(f6), twice(f7));
    // 19 times what is above 2^255, and twice that for odd limbs: they meet odd ones, or come twice.
    let (nineteen, both) = (W::splat(19), W::splat(38));
    let (g6, g8) = (f6.mul32(nineteen), f8.mul32(nineteen));
    let (g5, g7, g9) = (f5.mul32(both), f7.mul32(both), f9.mul32(both));
    Field25::carry([
        sum!(f0 * f0, d1 * g9, d2 * g8, d3 * g7, d4 * g6, f5 * g5),
        sum!(d0 * f1, f2 * g9, d3 * g8, f4 * g7, d5 * g6),
        sum!(d0 * f2, d1 * f1, d3 * g9, d4 * g8, d5 * g7, f6 * g6),
        sum!(d0 * f3, d1 * f2, f4 * g9, d5 * g8, f6 * g7),
        sum!(d0 * f4, d1 * d3, f2 * f2, d5 * g9, d6 * g8, f7 * g7),
        sum!(d0 * f5, d1 * f4, d2 * f3, f6 * g9, d7 * g8),
        sum!(d0 * f6, d1 * d5, d2 * f4, d3 * f3, d7 * g9, f8 * g8),
        sum!(d0 * f7, d1 * f6, d2 * f5, d3 * f4, f8 * g9),
        sum!(d0 * f8, d1 * d7, d2 * f6, d3 * d5, f4 * f4, f9 * g9),
        sum!(d0 * f9, d1 * f8, d2 * f7, d3 * f6, d4 * f5),
    ])
    .0
}
