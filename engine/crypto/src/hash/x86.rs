//! The words of hash functions as vector registers of x86-64, and the processor's own instructions for SHA-256.
//!
//! Invariant of this module: what needs an extension of the processor runs only where it has it. `Kernel::is_available` has asked; the functions that
//! enable the extensions are called from [`super::Kernel`] alone, and words of a register are made nowhere else.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "an index says which lane or word it is, of several arrays")]

use crate::hash::sha2::{CONSTANTS, LANES_MAX, Lane, Sha256, Sha512, Word};
use crate::hash::{Initial, hash_lanes};
use std::arch::x86_64::*;

/// A word type over registers: its lanes, and the operations that differ.
macro_rules! words {
    ($name:ident, $register:ident, $single:ident, $lanes:literal, $splat:expr, $add:ident, $loadu:ident, $storeu:ident,
     xor: $xor:expr, choose: $choose:expr, majority: $majority:expr, turn: $turn:expr, shift: $shift:expr) => {
        #[derive(Clone, Copy)]
        struct $name($register);

        impl Word for $name {
            type Single = $single;
            const LANES: usize = $lanes;
            #[inline(always)]
            fn splat(word: $single) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $splat(word as _) })
            }
            #[inline(always)]
            fn load(words: &[$single; LANES_MAX]) -> Self {
                // SAFETY: the processor has the extension; as many words as the register holds are in the array, and need not be aligned.
                Self(unsafe { $loadu(words.as_ptr().cast()) })
            }
            #[inline(always)]
            fn store(self, words: &mut [$single; LANES_MAX]) {
                // SAFETY: as for `load`.
                unsafe { $storeu(words.as_mut_ptr().cast(), self.0) }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $add(self.0, other.0) })
            }
            #[inline(always)]
            fn xor(self, second: Self, third: Self) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $xor(self.0, second.0, third.0) })
            }
            #[inline(always)]
            fn choose(self, yes: Self, no: Self) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $choose(self.0, yes.0, no.0) })
            }
            #[inline(always)]
            fn majority(self, second: Self, third: Self) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $majority(self.0, second.0, third.0) })
            }
            #[inline(always)]
            fn turn<const BITS: i32>(self) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $turn(self.0, BITS) })
            }
            #[inline(always)]
            fn shift<const BITS: i32>(self) -> Self {
                // SAFETY: the processor has the extension, by the invariant above.
                Self(unsafe { $shift(self.0, BITS) })
            }
        }
    };
}

/// Bits that an odd number of the three has. SAFETY of all four: the processor has AVX2.
#[inline(always)]
unsafe fn xor_avx2(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_xor_si256(_mm256_xor_si256(a, b), c) }
}

#[inline(always)]
unsafe fn choose_avx2(a: __m256i, yes: __m256i, no: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_xor_si256(_mm256_and_si256(_mm256_xor_si256(yes, no), a), no) }
}

#[inline(always)]
unsafe fn majority_avx2(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b))) }
}

// Shifts by constants: the compiler makes immediates of them once all is inlined.
#[inline(always)]
unsafe fn shift32_avx2(a: __m256i, bits: i32) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(bits)) }
}

#[inline(always)]
unsafe fn turn32_avx2(a: __m256i, bits: i32) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_or_si256(shift32_avx2(a, bits), _mm256_sll_epi32(a, _mm_cvtsi32_si128(32 - bits))) }
}

#[inline(always)]
unsafe fn shift64_avx2(a: __m256i, bits: i32) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_srl_epi64(a, _mm_cvtsi32_si128(bits)) }
}

#[inline(always)]
unsafe fn turn64_avx2(a: __m256i, bits: i32) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_or_si256(shift64_avx2(a, bits), _mm256_sll_epi64(a, _mm_cvtsi32_si128(64 - bits))) }
}

words!(Eight32, __m256i, u32, 8, |word| _mm256_set1_epi32(word), _mm256_add_epi32, _mm256_loadu_si256, _mm256_storeu_si256,
    xor: xor_avx2, choose: choose_avx2, majority: majority_avx2, turn: turn32_avx2, shift: shift32_avx2);
words!(Four64, __m256i, u64, 4, |word| _mm256_set1_epi64x(word), _mm256_add_epi64, _mm256_loadu_si256, _mm256_storeu_si256,
    xor: xor_avx2, choose: choose_avx2, majority: majority_avx2, turn: turn64_avx2, shift: shift64_avx2);
// Truth tables: bit number 4a + 2b + c of the immediate.
words!(Sixteen32, __m512i, u32, 16, |word| _mm512_set1_epi32(word), _mm512_add_epi32, _mm512_loadu_si512, _mm512_storeu_si512,
    xor: |a, b, c| _mm512_ternarylogic_epi32::<0x96>(a, b, c),
    choose: |a, b, c| _mm512_ternarylogic_epi32::<0xca>(a, b, c),
    majority: |a, b, c| _mm512_ternarylogic_epi32::<0xe8>(a, b, c),
    turn: |a, bits| _mm512_rorv_epi32(a, _mm512_set1_epi32(bits)),
    shift: |a, bits| _mm512_srlv_epi32(a, _mm512_set1_epi32(bits)));
words!(Eight64, __m512i, u64, 8, |word| _mm512_set1_epi64(word), _mm512_add_epi64, _mm512_loadu_si512, _mm512_storeu_si512,
    xor: |a, b, c| _mm512_ternarylogic_epi64::<0x96>(a, b, c),
    choose: |a, b, c| _mm512_ternarylogic_epi64::<0xca>(a, b, c),
    majority: |a, b, c| _mm512_ternarylogic_epi64::<0xe8>(a, b, c),
    turn: |a, bits| _mm512_rorv_epi64(a, _mm512_set1_epi64(i64::from(bits))),
    shift: |a, bits| _mm512_srlv_epi64(a, _mm512_set1_epi64(i64::from(bits))));

#[target_feature(enable = "avx2")]
pub(super) fn sha256_avx2(initial: Initial<u32>, messages: &[&[u8]], out: impl FnMut(usize, [u32; 8])) {
    hash_lanes::<Eight32, Sha256>(initial, messages, out);
}

#[target_feature(enable = "avx512f")]
pub(super) fn sha256_avx512(initial: Initial<u32>, messages: &[&[u8]], out: impl FnMut(usize, [u32; 8])) {
    hash_lanes::<Sixteen32, Sha256>(initial, messages, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn sha512_avx2(initial: Initial<u64>, messages: &[&[u8]], out: impl FnMut(usize, [u64; 8])) {
    hash_lanes::<Four64, Sha512>(initial, messages, out);
}

#[target_feature(enable = "avx512f")]
pub(super) fn sha512_avx512(initial: Initial<u64>, messages: &[&[u8]], out: impl FnMut(usize, [u64; 8])) {
    hash_lanes::<Eight64, Sha512>(initial, messages, out);
}

/// SHA-256 by the processor's instructions, two messages at a time: each instruction waits for the one before it of the same message, so two messages
/// take little more time than one.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) fn sha256_sha_ni(initial: Initial<u32>, messages: &[&[u8]], mut out: impl FnMut(usize, [u32; 8])) {
    let mut waiting = messages.iter().enumerate();
    let mut next = || waiting.next().map(|(place, message)| (Lane::new(place, message, 64), pair_state(initial)));
    let (mut first, mut second) = (next(), next());
    while let (Some((a, state_a)), Some((b, state_b))) = (&mut first, &mut second) {
        for _ in 0..a.left().min(b.left()) {
            compress_ni([state_a, state_b], [block(a), block(b)]);
        }
        for slot in [&mut first, &mut second] {
            if let Some((lane, state)) = slot
                && lane.left() == 0
            {
                out(lane.place, words(*state));
                *slot = next();
            }
        }
    }
    if let Some((mut lane, mut state)) = first.or(second) {
        while lane.left() > 0 {
            compress_ni([&mut state], [block(&mut lane)]);
        }
        out(lane.place, words(state));
    }
}

fn block<'b>(lane: &'b mut Lane<'_>) -> &'b [u8; 64] {
    lane.next().as_array().expect("a block of 64 bytes")
}

/// The state as the instructions take it: words f, e, b, a and h, g, d, c, the first lowest.
type NiState = [__m128i; 2];

#[target_feature(enable = "sse2")]
fn pair_state([a, b, c, d, e, f, g, h]: [u32; 8]) -> NiState {
    let four = |high: [u32; 4]| {
        let [x, y, z, w] = high.map(|word| word as i32);
        _mm_set_epi32(x, y, z, w)
    };
    [four([a, b, e, f]), four([c, d, g, h])]
}

#[target_feature(enable = "sse2")]
fn words([abef, cdgh]: NiState) -> [u32; 8] {
    let (mut first, mut second) = ([0u32; 4], [0u32; 4]);
    // SAFETY: 16 bytes are written, unaligned, to the 16 of each array.
    unsafe {
        _mm_storeu_si128(first.as_mut_ptr().cast(), abef);
        _mm_storeu_si128(second.as_mut_ptr().cast(), cdgh);
    }
    let ([f, e, b, a], [h, g, d, c]) = (first, second);
    [a, b, c, d, e, f, g, h]
}

/// Takes a block into each state.
#[target_feature(enable = "sha,sse4.1,ssse3")]
#[inline]
fn compress_ni<const N: usize>(states: [&mut NiState; N], blocks: [&[u8; 64]; N]) {
    // Bytes of a word from big-endian.
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let zero = _mm_setzero_si128();
    let (mut abef, mut cdgh) = ([zero; N], [zero; N]);
    let mut words = [[zero; 4]; N];
    for n in 0..N {
        [abef[n], cdgh[n]] = *states[n];
        for four in 0..4 {
            // SAFETY: 16 of the block's 64 bytes are read, unaligned.
            let bytes = unsafe { _mm_loadu_si128(blocks[n].as_ptr().add(16 * four).cast()) };
            words[n][four] = _mm_shuffle_epi8(bytes, order);
        }
    }
    for four in 0..16 {
        // SAFETY: 16 bytes of the 256 are read.
        let constants = unsafe { _mm_loadu_si128(CONSTANTS_32.as_ptr().add(4 * four).cast()) };
        for n in 0..N {
            let [w0, w1, w2, w3] = words[n];
            let input = _mm_add_epi32(w0, constants);
            cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], input);
            abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32::<0x0e>(input));
            // The words that are due in four times four rounds.
            let next = if four < 12 {
                let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                _mm_sha256msg2_epu32(sum, w3)
            } else {
                w0
            };
            words[n] = [w1, w2, w3, next];
        }
    }
    for (state, (abef, cdgh)) in states.into_iter().zip(abef.into_iter().zip(cdgh)) {
        *state = [_mm_add_epi32(state[0], abef), _mm_add_epi32(state[1], cdgh)];
    }
}

/// The constants of SHA-256.
static CONSTANTS_32: [u32; 64] = {
    let mut constants = [0; 64];
    let mut at = 0;
    while at < 64 {
        constants[at] = (CONSTANTS[at] >> 32) as u32;
        at += 1;
    }
    constants
};
