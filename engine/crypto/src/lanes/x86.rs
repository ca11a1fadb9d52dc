//! The words as vector registers of x86-64.
//!
//! Invariant of this module: a value of [`Avx2`] is made and used only in functions that run where the processor has AVX2, one of [`Avx512`] only where it
//! has AVX-512 F and IFMA. Who calls such a function has asked the processor (`ed25519::kernel`, `hash`, the tests).
//!
//! All of it is inlined into functions that enable these instructions; elsewhere it would be slow, not wrong.
#![allow(unsafe_code)]

use crate::lanes::mont::{self, Modulus};
use crate::lanes::word::{Madd52, Mul32, Word};
use crate::lanes::{LANES_MAX, field25, field51};
use std::arch::x86_64::*;
use std::hint::black_box;

type Product<W, const N: usize> = unsafe fn(&[W; N], &[W; N]) -> [W; N];
type Square<W, const N: usize> = unsafe fn(&[W; N]) -> [W; N];
type SquareTimes<W, const N: usize> = unsafe fn(&mut [&mut [W; N]], usize);

/// The function, which the compiler does not see through. In programs of the whole workspace it has inlined ones that are said never to be, a dozen
/// products each keeping the others' numbers from registers: a batch took a quarter longer.
#[inline(always)]
fn apart<F>(function: F) -> F {
    black_box(function)
}

/// Four words.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256i);

/// Eight words.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512i);

impl Word for Avx2 {
    const LANES: usize = 4;
    #[inline(always)]
    fn splat(word: u64) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_set1_epi64x(word as i64) })
    }
    #[inline(always)]
    fn gather(word: impl Fn(usize) -> u64) -> Self {
        let [a, b, c, d] = [word(0) as i64, word(1) as i64, word(2) as i64, word(3) as i64];
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_set_epi64x(d, c, b, a) })
    }
    #[inline(always)]
    fn store(self, words: &mut [u64; LANES_MAX]) {
        // SAFETY: the processor has AVX2, by the invariant above; 32 bytes are written, unaligned, to the 64 of `words`.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_add_epi64(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_sub_epi64(self.0, other.0) })
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_and_si256(self.0, other.0) })
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_or_si256(self.0, other.0) })
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_slli_epi64::<BITS>(self.0) })
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_srli_epi64::<BITS>(self.0) })
    }
    #[inline(always)]
    fn select(self, other: Self, mask: Self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_blendv_epi8(self.0, other.0, mask.0) })
    }
}

impl Mul32 for Avx2 {
    #[inline(always)]
    fn mul32(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2, by the invariant above.
        Self(unsafe { _mm256_mul_epu32(self.0, other.0) })
    }
    #[inline(always)]
    fn product(f: &[Self; 10], g: &[Self; 10]) -> [Self; 10] {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn product(f: &[Avx2; 10], g: &[Avx2; 10]) -> [Avx2; 10] {
            field25::product(f, g)
        }
        // SAFETY: the processor has AVX2, by the invariant above.
        unsafe { apart(product as Product<Self, 10>)(f, g) }
    }
    #[inline(always)]
    fn square_times(values: &mut [&mut [Self; 10]], times: usize) {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn square_times(values: &mut [&mut [Avx2; 10]], times: usize) {
            field25::square_times(values, times);
        }
        // SAFETY: the processor has AVX2, by the invariant above.
        unsafe { apart(square_times as SquareTimes<Self, 10>)(values, times) }
    }
    #[inline(always)]
    fn mont_product<M: Modulus, const N: usize, const BITS: i32>(f: &[Self; N], g: &[Self; N]) -> [Self; N] {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn product<M: Modulus, const N: usize, const BITS: i32>(f: &[Avx2; N], g: &[Avx2; N]) -> [Avx2; N] {
            mont::product32::<M, Avx2, N, BITS>(f, g)
        }
        // SAFETY: the processor has AVX2, by the invariant above.
        unsafe { apart(product::<M, N, BITS> as Product<Self, N>)(f, g) }
    }
    #[inline(always)]
    fn mont_square<M: Modulus, const N: usize, const BITS: i32>(f: &[Self; N]) -> [Self; N] {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn square<M: Modulus, const N: usize, const BITS: i32>(f: &[Avx2; N]) -> [Avx2; N] {
            mont::square32::<M, Avx2, N, BITS>(f)
        }
        // SAFETY: the processor has AVX2, by the invariant above.
        unsafe { apart(square::<M, N, BITS> as Square<Self, N>)(f) }
    }
}

impl Word for Avx512 {
    const LANES: usize = 8;
    #[inline(always)]
    fn splat(word: u64) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_set1_epi64(word as i64) })
    }
    #[inline(always)]
    fn gather(word: impl Fn(usize) -> u64) -> Self {
        let [a, b, c, d] = [word(0) as i64, word(1) as i64, word(2) as i64, word(3) as i64];
        let [e, f, g, h] = [word(4) as i64, word(5) as i64, word(6) as i64, word(7) as i64];
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_set_epi64(h, g, f, e, d, c, b, a) })
    }
    #[inline(always)]
    fn store(self, words: &mut [u64; LANES_MAX]) {
        // SAFETY: the processor has AVX-512 F, by the invariant above; 64 bytes are written, unaligned, to the 64 of `words`.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_add_epi64(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_sub_epi64(self.0, other.0) })
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self) -> Self {
        // The immediate's type is another here; the compiler makes one of the constant.
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_sllv_epi64(self.0, _mm512_set1_epi64(BITS.into())) })
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_srlv_epi64(self.0, _mm512_set1_epi64(BITS.into())) })
    }
    #[inline(always)]
    fn select(self, other: Self, mask: Self) -> Self {
        // SAFETY: the processor has AVX-512 F, by the invariant above.
        Self(unsafe { _mm512_or_si512(_mm512_andnot_si512(mask.0, self.0), _mm512_and_si512(mask.0, other.0)) })
    }
}

impl Madd52 for Avx512 {
    #[inline(always)]
    fn madd52_low(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor has AVX-512 F and IFMA, by the invariant above.
        Self(unsafe { _mm512_madd52lo_epu64(self.0, a.0, b.0) })
    }
    #[inline(always)]
    fn madd52_high(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor has AVX-512 F and IFMA, by the invariant above.
        Self(unsafe { _mm512_madd52hi_epu64(self.0, a.0, b.0) })
    }
    #[inline(always)]
    fn product(f: &[Self; 5], g: &[Self; 5]) -> [Self; 5] {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn product(f: &[Avx512; 5], g: &[Avx512; 5]) -> [Avx512; 5] {
            field51::product(f, g)
        }
        // SAFETY: the processor has AVX-512 F and IFMA, by the invariant above.
        unsafe { apart(product as Product<Self, 5>)(f, g) }
    }
    #[inline(always)]
    fn square_times(values: &mut [&mut [Self; 5]], times: usize) {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn square_times(values: &mut [&mut [Avx512; 5]], times: usize) {
            field51::square_times(values, times);
        }
        // SAFETY: the processor has AVX-512 F and IFMA, by the invariant above.
        unsafe { apart(square_times as SquareTimes<Self, 5>)(values, times) }
    }
    #[inline(always)]
    fn mont_product<M: Modulus, const N: usize>(f: &[Self; N], g: &[Self; N]) -> [Self; N] {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn product<M: Modulus, const N: usize>(f: &[Avx512; N], g: &[Avx512; N]) -> [Avx512; N] {
            mont::product52::<M, Avx512, N>(f, g)
        }
        // SAFETY: the processor has AVX-512 F and IFMA, by the invariant above.
        unsafe { apart(product::<M, N> as Product<Self, N>)(f, g) }
    }
    #[inline(always)]
    fn mont_square<M: Modulus, const N: usize>(f: &[Self; N]) -> [Self; N] {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn square<M: Modulus, const N: usize>(f: &[Avx512; N]) -> [Avx512; N] {
            mont::square52::<M, Avx512, N>(f)
        }
        // SAFETY: the processor has AVX-512 F and IFMA, by the invariant above.
        unsafe { apart(square::<M, N> as Square<Self, N>)(f) }
    }
}
