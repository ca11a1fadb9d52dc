//! One call that hashes many messages.
//!
//! Kernels by what was measured: sixteen lanes of AVX-512; else SHA-256 by the processor's instructions for it, two messages at a time; else eight (SHA-512:
//! four) lanes of AVX2; else, and for few messages, the crate `sha2`.

mod sha2;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::hash::sha2::{Function, LANES_MAX, Lane, Word, compress};
use ::sha2::{Digest, Sha224, Sha256, Sha512};

/// Hashes every message into the same place in `digests`. Panics: if the slices differ in length.
pub fn sha256_batch(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    assert_eq!(messages.len(), digests.len(), "one digest a message");
    Kernel::of_sha256(messages.len()).sha256(messages, digests);
}

/// Hashes every message into the same place in `digests`. Panics: if the slices differ in length.
pub fn sha224_batch(messages: &[&[u8]], digests: &mut [[u8; 28]]) {
    assert_eq!(messages.len(), digests.len(), "one digest a message");
    Kernel::of_sha256(messages.len()).sha224(messages, digests);
}

/// Hashes every message into the same place in `digests`. Panics: if the slices differ in length.
pub fn sha512_batch(messages: &[&[u8]], digests: &mut [[u8; 64]]) {
    assert_eq!(messages.len(), digests.len(), "one digest a message");
    Kernel::of_sha512(messages.len()).sha512(messages, digests);
}

/// One level of a Merkle tree: each parent is the SHA-256 of `prefix` and its two children.
///
/// Panics: if there are not twice as many children as parents.
pub fn merkle_level(prefix: &[u8], children: &[[u8; 32]], parents: &mut [[u8; 32]]) {
    assert_eq!(children.len(), 2 * parents.len(), "two children a parent");
    let length = prefix.len() + 64;
    let mut bytes = Vec::with_capacity(length * parents.len());
    for pair in children.as_chunks::<2>().0 {
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(pair.as_flattened());
    }
    let messages: Vec<&[u8]> = bytes.chunks_exact(length).collect();
    sha256_batch(&messages, parents);
}

/// What a hash begins with.
type Initial<T> = [T; 8];

const SHA256: Initial<u32> =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const SHA224: Initial<u32> =
    [0xc105_9ed8, 0x367c_d507, 0x3070_dd17, 0xf70e_5939, 0xffc0_0b31, 0x6858_1511, 0x64f9_8fa7, 0xbefa_4fa4];
const SHA512: Initial<u64> = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// One message after the other, by the crate `sha2`.
    Crate,
    /// What lanes compute, on arrays.
    #[cfg_attr(not(test), expect(dead_code, reason = "the definition that tests hold the others to"))]
    Twin,
    /// The processor's instructions for SHA-256, two messages at a time.
    ShaNi,
    /// Eight or four lanes.
    Avx2,
    /// Sixteen or eight lanes.
    Avx512,
}

impl Kernel {
    /// Whether this machine can run it.
    fn is_available(self) -> bool {
        match self {
            Self::Crate | Self::Twin => true,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi => {
                is_x86_feature_detected!("sha")
                    && is_x86_feature_detected!("sse4.1")
                    && is_x86_feature_detected!("ssse3")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::ShaNi | Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The first of these that is available and has at least so many messages to win.
    fn fastest(count: usize, from: &[(Self, usize)]) -> Self {
        let wins = |(kernel, least): &&(Self, usize)| count >= *least && kernel.is_available();
        from.iter().find(wins).map_or(Self::Crate, |(kernel, _)| *kernel)
    }

    fn of_sha256(count: usize) -> Self {
        Self::fastest(count, &[(Self::Avx512, 12), (Self::ShaNi, 2), (Self::Avx2, 4)])
    }

    fn of_sha512(count: usize) -> Self {
        Self::fastest(count, &[(Self::Avx512, 4), (Self::Avx2, 3)])
    }

    fn sha256(self, messages: &[&[u8]], digests: &mut [[u8; 32]]) {
        if self == Self::Crate {
            return each(messages, digests, |message| Sha256::digest(message).into());
        }
        self.words32(SHA256, messages, |place, words| {
            digests[place].as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_be_bytes());
        });
    }

    fn sha224(self, messages: &[&[u8]], digests: &mut [[u8; 28]]) {
        if self == Self::Crate {
            return each(messages, digests, |message| Sha224::digest(message).into());
        }
        self.words32(SHA224, messages, |place, words| {
            digests[place].as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_be_bytes());
        });
    }

    fn sha512(self, messages: &[&[u8]], digests: &mut [[u8; 64]]) {
        if matches!(self, Self::Crate | Self::ShaNi) {
            return each(messages, digests, |message| Sha512::digest(message).into());
        }
        self.words64(messages, |place, words| {
            digests[place].as_chunks_mut::<8>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_be_bytes());
        });
    }

    #[allow(unsafe_code)]
    fn words32(self, initial: Initial<u32>, messages: &[&[u8]], out: impl FnMut(usize, [u32; 8])) {
        assert!(self.is_available(), "{self:?} is not available on this machine");
        match self {
            Self::Twin => hash_lanes::<Twin<u32, 4>, sha2::Sha256>(initial, messages, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted to be available.
            Self::ShaNi => unsafe { x86::sha256_sha_ni(initial, messages, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted to be available.
            Self::Avx2 => unsafe { x86::sha256_avx2(initial, messages, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted to be available.
            Self::Avx512 => unsafe { x86::sha256_avx512(initial, messages, out) },
            _ => unreachable!("it has no words"),
        }
    }

    #[allow(unsafe_code)]
    fn words64(self, messages: &[&[u8]], out: impl FnMut(usize, [u64; 8])) {
        assert!(self.is_available(), "{self:?} is not available on this machine");
        match self {
            Self::Twin => hash_lanes::<Twin<u64, 2>, sha2::Sha512>(SHA512, messages, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted to be available.
            Self::Avx2 => unsafe { x86::sha512_avx2(SHA512, messages, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted to be available.
            Self::Avx512 => unsafe { x86::sha512_avx512(SHA512, messages, out) },
            _ => unreachable!("it has no words"),
        }
    }
}

fn each<const N: usize>(messages: &[&[u8]], digests: &mut [[u8; N]], hash: impl Fn(&[u8]) -> [u8; N]) {
    messages.iter().zip(digests).for_each(|(message, digest)| *digest = hash(message));
}

/// A word from big-endian bytes.
trait FromBytes: Copy + Default {
    fn from_bytes(bytes: &[u8]) -> Self;
}

impl FromBytes for u32 {
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_be_bytes(*bytes.as_array().expect("four bytes"))
    }
}

impl FromBytes for u64 {
    #[inline(always)]
    fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_be_bytes(*bytes.as_array().expect("eight bytes"))
    }
}

/// Hashes messages in lanes; `out` takes a message's place and its last state.
#[inline(always)]
fn hash_lanes<W: Word<Single: FromBytes>, F: Function<W>>(
    initial: Initial<W::Single>,
    messages: &[&[u8]],
    mut out: impl FnMut(usize, [W::Single; 8]),
) {
    let word_bytes = size_of::<W::Single>();
    let mut waiting = messages.iter().enumerate();
    let mut lanes: [Option<Lane<'_>>; LANES_MAX] = [const { None }; LANES_MAX];
    // By word, then by lane.
    let mut state = [[W::Single::default(); LANES_MAX]; 8];
    let mut words = [[W::Single::default(); LANES_MAX]; 16];
    loop {
        // Lanes whose message has ended take the next; how far all can go.
        let mut steps = usize::MAX;
        for at in 0..W::LANES {
            if let Some(lane) = &lanes[at]
                && lane.left() == 0
            {
                out(lane.place, std::array::from_fn(|word| state[word][at]));
                lanes[at] = None;
            }
            if lanes[at].is_none()
                && let Some((place, message)) = waiting.next()
            {
                lanes[at] = Some(Lane::new(place, message, 16 * word_bytes));
                (0..8).for_each(|word| state[word][at] = initial[word]);
            }
            if let Some(lane) = &lanes[at] {
                steps = steps.min(lane.left());
            }
        }
        if steps == usize::MAX {
            return;
        }
        let mut registers = [W::splat(W::Single::default()); 8];
        for word in 0..8 {
            registers[word] = W::load(&state[word]);
        }
        for _ in 0..steps {
            for (at, lane) in lanes[..W::LANES].iter_mut().enumerate() {
                if let Some(lane) = lane {
                    let block = lane.next();
                    for word in 0..16 {
                        words[word][at] = W::Single::from_bytes(&block[word * word_bytes..][..word_bytes]);
                    }
                }
            }
            let mut block = registers[0];
            let mut blocks = [block; 16];
            for word in 0..16 {
                block = W::load(&words[word]);
                blocks[word] = block;
            }
            compress::<W, F>(&mut registers, blocks);
        }
        for word in 0..8 {
            registers[word].store(&mut state[word]);
        }
    }
}

/// Words in an array: what the registers compute.
#[derive(Clone, Copy)]
struct Twin<T, const N: usize>([T; N]);

macro_rules! twin {
    ($single:ident) => {
        impl<const N: usize> Word for Twin<$single, N> {
            type Single = $single;
            const LANES: usize = N;
            fn splat(word: $single) -> Self {
                Self([word; N])
            }
            fn load(words: &[$single; LANES_MAX]) -> Self {
                Self(std::array::from_fn(|lane| words[lane]))
            }
            fn store(self, words: &mut [$single; LANES_MAX]) {
                words[..N].copy_from_slice(&self.0);
            }
            fn add(self, other: Self) -> Self {
                Self(std::array::from_fn(|lane| self.0[lane].wrapping_add(other.0[lane])))
            }
            fn xor(self, second: Self, third: Self) -> Self {
                Self(std::array::from_fn(|lane| self.0[lane] ^ second.0[lane] ^ third.0[lane]))
            }
            fn choose(self, yes: Self, no: Self) -> Self {
                Self(std::array::from_fn(|lane| self.0[lane] & yes.0[lane] | !self.0[lane] & no.0[lane]))
            }
            fn majority(self, second: Self, third: Self) -> Self {
                Self(std::array::from_fn(|lane| {
                    let (a, b, c) = (self.0[lane], second.0[lane], third.0[lane]);
                    a & b | b & c | c & a
                }))
            }
            fn turn<const BITS: i32>(self) -> Self {
                Self(self.0.map(|word| word.rotate_right(BITS as u32)))
            }
            fn shift<const BITS: i32>(self) -> Self {
                Self(self.0.map(|word| word >> BITS))
            }
        }
    };
}

twin!(u32);
twin!(u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_standard() {
        // FIPS 180-4, section 4.2.3: the first and the last.
        assert_eq!(sha2::CONSTANTS[0], 0x428a_2f98_d728_ae22);
        assert_eq!(sha2::CONSTANTS[79], 0x6c44_198c_4a47_5817);
    }

    /// Every length, in batches of every shape.
    fn check(kernel: Kernel) {
        assert!(kernel.is_available());
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(5_000).collect();
        let mut batches: Vec<Vec<&[u8]>> = vec![
            (0..=300).map(|length| &bytes[..length]).collect(),
            // Long beside short, and ends at different times.
            (0..40).map(|n| &bytes[n..n * n * 3 + n]).collect(),
        ];
        batches.extend((0..20).map(|count| vec![&bytes[..100]; count]));
        for messages in &batches {
            let (mut short, mut usual, mut long) =
                (vec![[0; 28]; messages.len()], vec![[0; 32]; messages.len()], vec![[0; 64]; messages.len()]);
            kernel.sha224(messages, &mut short);
            kernel.sha256(messages, &mut usual);
            kernel.sha512(messages, &mut long);
            for (at, message) in messages.iter().enumerate() {
                assert_eq!(short[at][..], Sha224::digest(message)[..], "{kernel:?}, {at} of {}", messages.len());
                assert_eq!(usual[at][..], Sha256::digest(message)[..], "{kernel:?}, {at} of {}", messages.len());
                assert_eq!(long[at][..], Sha512::digest(message)[..], "{kernel:?}, {at} of {}", messages.len());
            }
        }
    }

    #[test]
    fn arrays_hash_as_the_standard_says() {
        check(Kernel::Crate);
        check(Kernel::Twin);
    }

    #[test]
    #[cfg_attr(not(host_sha), ignore = "this processor has no instructions for SHA-256")]
    fn the_processors_instructions_hash_as_the_standard_says() {
        check(Kernel::ShaNi);
    }

    #[test]
    #[cfg_attr(not(host_avx2), ignore = "this processor has no AVX2")]
    fn lanes_of_avx2_hash_as_the_standard_says() {
        check(Kernel::Avx2);
    }

    #[test]
    #[cfg_attr(not(host_avx512), ignore = "this processor has no AVX-512")]
    fn lanes_of_avx512_hash_as_the_standard_says() {
        check(Kernel::Avx512);
    }
}
