//! The primes of P-256 and secp256k1, which have shorter ways than Montgomery's.

#![allow(clippy::absurd_extreme_comparisons, reason = "places are constants, 0 among them")]

use crate::lanes::mont::{Columns, Modulus, Mont32, Mont52, Number, each};
use crate::lanes::word::{Madd52, Mul32};

/// 2^256 - 2^224 + 2^192 + 2^96 - 1. It is -1 modulo 2^96: what makes a column zero is the column itself, and has three terms to add elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct P256;

/// 2^256 - 2^32 - 977: what is above 2^256 comes back times 2^32 + 977, without Montgomery.
#[derive(Clone, Copy)]
pub(crate) struct Secp256k1;

/// Nine limbs of 29 bits, of which the last has 24 below 2^256; five limbs of 52, of which the last has 48.
pub(crate) type Field29<M, W> = Mont32<M, W, 9, 29>;
pub(crate) type Field52<M, W> = Mont52<M, W, 5>;

const MASK_29: u64 = (1 << 29) - 1;
const MASK_24: u64 = (1 << 24) - 1;
const MASK_52: u64 = (1 << 52) - 1;
const MASK_48: u64 = (1 << 48) - 1;

impl Modulus for P256 {
    const PRIME: Number = [u64::MAX, 0xffff_ffff, 0, 0xffff_ffff_0000_0001, 0, 0, 0];

    #[inline(always)]
    #[allow(unused_assignments, reason = "the last column does not carry")]
    fn reduce32<W: Mul32, const N: usize, const BITS: i32>(columns: impl Columns<W>) -> [W; N] {
        const { assert!(N == 9 && BITS == 29) };
        let mask = W::splat(MASK_29);
        let (mut multiples, mut product, mut carry) = ([W::splat(0); N], [W::splat(0); N], W::splat(0));
        each!(AT < 2 * N {
            let mut sum = columns.at::<AT>();
            // 2^96 is bit 9 of the third limb from here, 2^192 bit 18 of the sixth; 2^256 - 2^224 is 2^29 - 2^21 of the seventh and 2^24 - 1 of the eighth.
            if const { AT.wrapping_sub(3) < N } {
                sum = sum.add(multiples[AT.wrapping_sub(3)].shl::<9>());
            }
            if const { AT.wrapping_sub(6) < N } {
                sum = sum.add(multiples[AT.wrapping_sub(6)].shl::<18>());
            }
            if const { AT.wrapping_sub(7) < N } {
                sum = sum.add(multiples[AT.wrapping_sub(7)].mul32(W::splat((1 << 29) - (1 << 21))));
            }
            if const { AT.wrapping_sub(8) < N } {
                sum = sum.add(multiples[AT.wrapping_sub(8)].mul32(W::splat(MASK_24)));
            }
            // Last, for all else is known before.
            sum = sum.add(carry);
            if const { AT < N } {
                multiples[AT] = sum.and(mask);
                carry = sum.shr::<29>();
            } else if const { AT + 1 < 2 * N } {
                product[AT.wrapping_sub(N)] = sum.and(mask);
                carry = sum.shr::<29>();
            } else {
                product[AT.wrapping_sub(N)] = sum;
            }
        });
        product
    }

    #[inline(always)]
    #[allow(unused_assignments, reason = "the last column does not carry")]
    fn reduce52<W: Madd52, const N: usize>(columns: impl Columns<W>) -> [W; N] {
        const { assert!(N == 5) };
        let mask = W::splat(MASK_52);
        let (first, third, fourth) = (W::splat(1 << 44), W::splat(1 << 36), W::splat((1 << 48) - (1 << 16)));
        // A multiple has what is carried above its 52 bits: the multiplier does not look at it.
        let (mut multiples, mut product, mut carry) = ([W::splat(0); N], [W::splat(0); N], W::splat(0));
        each!(AT < 2 * N {
            let (mut low, mut high) = (columns.at::<AT>(), W::splat(0));
            // 2^96 is bit 44 of the next limb, 2^192 bit 36 of the third from here, 2^256 - 2^224 is 2^48 - 2^16 of the fourth.
            if const { AT.wrapping_sub(1) < N } {
                low = low.madd52_low(multiples[AT.wrapping_sub(1)], first);
            }
            if const { AT.wrapping_sub(2) < N } {
                high = high.madd52_high(multiples[AT.wrapping_sub(2)], first);
            }
            if const { AT.wrapping_sub(3) < N } {
                low = low.madd52_low(multiples[AT.wrapping_sub(3)], third);
            }
            if const { AT.wrapping_sub(4) < N } {
                high = high.madd52_high(multiples[AT.wrapping_sub(4)], third);
                low = low.madd52_low(multiples[AT.wrapping_sub(4)], fourth);
            }
            if const { AT.wrapping_sub(5) < N } {
                high = high.madd52_high(multiples[AT.wrapping_sub(5)], fourth);
            }
            let sum = low.add(high).add(carry);
            if const { AT < N } {
                multiples[AT] = sum;
                carry = sum.shr::<52>();
            } else if const { AT + 1 < 2 * N } {
                product[AT.wrapping_sub(N)] = sum.and(mask);
                carry = sum.shr::<52>();
            } else {
                product[AT.wrapping_sub(N)] = sum;
            }
        });
        product
    }

    #[inline(always)]
    fn fold32<W: Mul32, const N: usize, const BITS: i32>(limbs: &mut [W; N]) {
        const { assert!(N == 9 && BITS == 29) };
        let above = limbs[8].shr::<24>();
        limbs[0] = limbs[0].add(above);
        limbs[3] = limbs[3].sub(above.shl::<9>());
        limbs[6] = limbs[6].sub(above.shl::<18>());
        limbs[7] = limbs[7].add(above.shl::<21>());
        limbs[8] = limbs[8].and(W::splat(MASK_24));
    }

    #[inline(always)]
    fn fold52<W: Madd52, const N: usize>(limbs: &mut [W; N]) {
        const { assert!(N == 5) };
        let above = limbs[4].shr::<48>();
        limbs[0] = limbs[0].add(above);
        limbs[1] = limbs[1].sub(above.shl::<44>());
        limbs[3] = limbs[3].sub(above.shl::<36>());
        limbs[4] = limbs[4].and(W::splat(MASK_48)).add(above.shl::<16>());
    }
}

impl Modulus for Secp256k1 {
    const PRIME: Number = [0xffff_fffe_ffff_fc2f, u64::MAX, u64::MAX, u64::MAX, 0, 0, 0];
    const IS_PLAIN: bool = true;

    /// Factors may be 64 wide together: then the highest limb has 25 bits.
    #[inline(always)]
    #[allow(unused_assignments, reason = "the last column does not carry")]
    fn reduce32<W: Mul32, const N: usize, const BITS: i32>(columns: impl Columns<W>) -> [W; N] {
        const { assert!(N == 9 && BITS == 29) };
        let mask = W::splat(MASK_29);
        let (mut high, mut carry) = ([W::splat(0); N], W::splat(0));
        each!(AT < 2 * N {
            if const { AT >= N } {
                let sum = columns.at::<AT>().add(carry);
                high[AT.wrapping_sub(N)] = if const { AT + 1 < 2 * N } { sum.and(mask) } else { sum };
                carry = sum.shr::<29>();
            }
        });
        // 2^261 comes back as 2^37 + 31264: bit 8 of the next limb, and a factor.
        let factor = W::splat(31_264);
        let mut product = [W::splat(0); N];
        carry = W::splat(0);
        each!(AT < N {
            let mut sum = columns.at::<AT>().add(high[AT].mul32(factor));
            if const { AT > 0 } {
                sum = sum.add(high[AT.wrapping_sub(1)].shl::<8>());
            }
            sum = sum.add(carry);
            product[AT] = if const { AT + 1 < N } { sum.and(mask) } else { sum };
            carry = sum.shr::<29>();
        });
        // What is above 2^256, and what the highest limb has there, has up to 39 bits, too many to multiply: 977 = 1024 - 32 - 16 + 1.
        let above = product[8].shr::<24>().add(high[8].shl::<13>());
        let low = above.shl::<10>().sub(above.shl::<5>()).sub(above.shl::<4>()).add(above).add(product[0]);
        let next = product[1].add(above.shl::<3>()).add(low.shr::<29>());
        product[0] = low.and(mask);
        product[1] = next.and(mask);
        product[2] = product[2].add(next.shr::<29>());
        product[8] = product[8].and(W::splat(MASK_24));
        product
    }

    /// Factors may be 256 wide together: then the highest limb has 52 bits.
    #[inline(always)]
    #[allow(unused_assignments, reason = "the last column does not carry")]
    fn reduce52<W: Madd52, const N: usize>(columns: impl Columns<W>) -> [W; N] {
        const { assert!(N == 5) };
        // Above 52 bits is what is carried: the multiplier does not look at it.
        let (mut high, mut carry) = ([W::splat(0); N], W::splat(0));
        each!(AT < 2 * N {
            if const { AT >= N } {
                high[AT.wrapping_sub(N)] = columns.at::<AT>().add(carry);
                carry = high[AT.wrapping_sub(N)].shr::<52>();
            }
        });
        // 2^260 comes back as 2^36 + 15632, 2^256 as 2^32 + 977.
        let factor = W::splat(0x10_0000_3d10);
        let mut product = [W::splat(0); N];
        each!(AT < N {
            product[AT] = columns.at::<AT>().madd52_low(high[AT], factor);
            if const { AT > 0 } {
                product[AT] = product[AT].madd52_high(high[AT.wrapping_sub(1)], factor);
            }
        });
        let above = W::splat(0).madd52_high(high[N - 1], factor);
        product[0] = product[0].madd52_low(above, factor);
        product[1] = product[1].madd52_high(above, factor);
        Self::fold52::<W, N>(&mut product);
        crate::lanes::mont::carry::<W, N, 52>(product)
    }

    #[inline(always)]
    fn fold32<W: Mul32, const N: usize, const BITS: i32>(limbs: &mut [W; N]) {
        const { assert!(N == 9 && BITS == 29) };
        let above = limbs[8].shr::<24>();
        limbs[0] = limbs[0].add(above.mul32(W::splat(977)));
        limbs[1] = limbs[1].add(above.shl::<3>());
        limbs[8] = limbs[8].and(W::splat(MASK_24));
    }

    #[inline(always)]
    fn fold52<W: Madd52, const N: usize>(limbs: &mut [W; N]) {
        const { assert!(N == 5) };
        let above = limbs[4].shr::<48>();
        limbs[0] = limbs[0].madd52_low(above, W::splat(0x1_0000_03d1));
        limbs[4] = limbs[4].and(W::splat(MASK_48));
    }
}
