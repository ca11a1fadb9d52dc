//! SHA-256 and SHA-512 of several messages, one in each lane. The words' twin on arrays says what the registers compute.
//!
//! Spec: FIPS 180-4, sections 4.1, 5.3 and 6.2 to 6.4.

/// One word of each message.
pub(super) trait Word: Copy {
    /// The same hash's word, alone: `u32` or `u64`.
    type Single: Copy + Default;
    /// Messages at a time.
    const LANES: usize;
    /// The same word in all lanes.
    fn splat(word: Self::Single) -> Self;
    /// A word of each lane.
    fn load(words: &[Self::Single; LANES_MAX]) -> Self;
    /// Writes the words of the lanes there are.
    fn store(self, words: &mut [Self::Single; LANES_MAX]);
    /// Sums modulo the word's range.
    fn add(self, other: Self) -> Self;
    /// Bits that an odd number of the three has.
    fn xor(self, second: Self, third: Self) -> Self;
    /// Bits of `yes` where this has ones, of `no` where it has zeros.
    fn choose(self, yes: Self, no: Self) -> Self;
    /// Bits that two or three have.
    fn majority(self, second: Self, third: Self) -> Self;
    /// Turns to lower bits.
    fn turn<const BITS: i32>(self) -> Self;
    /// Shifts to lower bits.
    fn shift<const BITS: i32>(self) -> Self;
}

/// Lanes of the widest words.
pub(super) const LANES_MAX: usize = 16;

/// A hash function of the family, for its words.
pub(super) trait Function<W: Word> {
    /// Rounds of a block: one for each constant.
    const ROUNDS: usize;
    /// The constant of a round.
    fn constant(round: usize) -> W::Single;
    /// Σ0, Σ1, σ0, σ1.
    fn big0(word: W) -> W;
    fn big1(word: W) -> W;
    fn small0(word: W) -> W;
    fn small1(word: W) -> W;
}

/// Takes one block of each message into its state; both word by word.
#[inline(always)]
pub(super) fn compress<W: Word, F: Function<W>>(state: &mut [W; 8], mut block: [W; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    let mut round = 0;
    while round < F::ROUNDS {
        for at in 0..16 {
            if round != 0 {
                let sum = F::small1(block[(at + 14) % 16]).add(block[(at + 9) % 16]);
                block[at] = block[at].add(F::small0(block[(at + 1) % 16])).add(sum);
            }
            let input = h.add(block[at]).add(W::splat(F::constant(round + at)));
            let first = input.add(F::big1(e)).add(e.choose(f, g));
            let second = F::big0(a).add(a.majority(b, c));
            (h, g, f, e) = (g, f, e, d.add(first));
            (d, c, b, a) = (c, b, a, first.add(second));
        }
        round += 16;
    }
    let after = [a, b, c, d, e, f, g, h];
    for at in 0..8 {
        state[at] = state[at].add(after[at]);
    }
}

/// SHA-256, and SHA-224 from another state.
pub(super) struct Sha256;

impl<W: Word<Single = u32>> Function<W> for Sha256 {
    const ROUNDS: usize = 64;
    #[inline(always)]
    fn constant(round: usize) -> u32 {
        // The upper halves of the same fractions.
        (CONSTANTS[round] >> 32) as u32
    }
    #[inline(always)]
    fn big0(word: W) -> W {
        word.turn::<2>().xor(word.turn::<13>(), word.turn::<22>())
    }
    #[inline(always)]
    fn big1(word: W) -> W {
        word.turn::<6>().xor(word.turn::<11>(), word.turn::<25>())
    }
    #[inline(always)]
    fn small0(word: W) -> W {
        word.turn::<7>().xor(word.turn::<18>(), word.shift::<3>())
    }
    #[inline(always)]
    fn small1(word: W) -> W {
        word.turn::<17>().xor(word.turn::<19>(), word.shift::<10>())
    }
}

/// SHA-512.
pub(super) struct Sha512;

impl<W: Word<Single = u64>> Function<W> for Sha512 {
    const ROUNDS: usize = 80;
    #[inline(always)]
    fn constant(round: usize) -> u64 {
        CONSTANTS[round]
    }
    #[inline(always)]
    fn big0(word: W) -> W {
        word.turn::<28>().xor(word.turn::<34>(), word.turn::<39>())
    }
    #[inline(always)]
    fn big1(word: W) -> W {
        word.turn::<14>().xor(word.turn::<18>(), word.turn::<41>())
    }
    #[inline(always)]
    fn small0(word: W) -> W {
        word.turn::<1>().xor(word.turn::<8>(), word.shift::<7>())
    }
    #[inline(always)]
    fn small1(word: W) -> W {
        word.turn::<19>().xor(word.turn::<61>(), word.shift::<6>())
    }
}

/// Messages that lanes take in turns: a lane whose message has ended takes the next.
pub(super) struct Lane<'a> {
    message: &'a [u8],
    /// Which of the messages.
    pub place: usize,
    /// Blocks taken in, of all.
    taken: usize,
    blocks: usize,
    /// The last block or two: the message's rest, a one bit, zeros, its length.
    tail: [u8; 256],
    block_bytes: usize,
}

impl<'a> Lane<'a> {
    pub(super) fn new(place: usize, message: &'a [u8], block_bytes: usize) -> Self {
        // Bytes of the length: an eighth of a block.
        let length_bytes = block_bytes / 8;
        let rest = message.len() % block_bytes;
        let tail_blocks = if rest + 1 + length_bytes > block_bytes { 2 } else { 1 };
        let mut tail = [0; 256];
        tail[..rest].copy_from_slice(&message[message.len() - rest..]);
        tail[rest] = 0x80;
        let end = tail_blocks * block_bytes;
        // Bits of a slice fit in 128 bits, of which at most 16 bytes are written.
        let bits = (message.len() as u128 * 8).to_be_bytes();
        tail[end - length_bytes..end].copy_from_slice(&bits[16 - length_bytes..]);
        Self { message, place, taken: 0, blocks: message.len() / block_bytes + tail_blocks, tail, block_bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.blocks - self.taken
    }

    /// The next block.
    #[inline(always)]
    pub(super) fn next(&mut self) -> &[u8] {
        let whole = self.message.len() / self.block_bytes;
        let (from, at) =
            if self.taken < whole { (self.message, self.taken) } else { (&self.tail[..], self.taken - whole) };
        self.taken += 1;
        &from[at * self.block_bytes..][..self.block_bytes]
    }
}

/// The first 64 bits of the fractions of the cube roots of the first 80 primes.
pub(super) static CONSTANTS: [u64; 80] = constants();

/// Computed, not copied: the root of a prime p times 2^192 cubed is at most p · 2^192 for the largest integer root, in numbers of 256 bits.
const fn constants() -> [u64; 80] {
    let mut constants = [0; 80];
    let (mut found, mut candidate) = (0, 2u64);
    while found < 80 {
        let mut divisor = 2;
        while candidate % divisor != 0 {
            divisor += 1;
        }
        if divisor == candidate {
            constants[found] = cube_root_fraction(candidate);
            found += 1;
        }
        candidate += 1;
    }
    constants
}

/// The lower 64 bits of the cube root of `prime · 2^192`, bit by bit.
const fn cube_root_fraction(prime: u64) -> u64 {
    // The root is below 8 · 2^64.
    let mut root: u128 = 0;
    let mut bit = 67;
    while bit > 0 {
        bit -= 1;
        let candidate = root | 1 << bit;
        if cube_is_at_most(candidate, prime) {
            root = candidate;
        }
    }
    root as u64
}

/// Whether the cube of a number of 67 bits is at most `prime · 2^192`; on digits of 32 bits.
const fn cube_is_at_most(number: u128, prime: u64) -> bool {
    let digits = [number as u32 as u64, (number >> 32) as u32 as u64, (number >> 64) as u64];
    let square = multiply([digits[0], digits[1], digits[2], 0, 0, 0, 0], digits);
    let cube = multiply(square, digits);
    let upper = cube[6] as u128;
    // The seventh digit has what is above 2^192; equal means that all below is zero.
    upper < prime as u128 || (upper == prime as u128 && cube[0] | cube[1] | cube[2] | cube[3] | cube[4] | cube[5] == 0)
}

/// Products on digits of 32 bits; the last digit takes what is above.
const fn multiply(a: [u64; 7], b: [u64; 3]) -> [u64; 7] {
    let mut product = [0u64; 7];
    let mut i = 0;
    while i < 3 {
        let (mut j, mut carry) = (0, 0u64);
        while i + j < 7 {
            let sum = carry + product[i + j] + a[j] * b[i];
            if i + j == 6 {
                product[6] = sum;
            } else {
                product[i + j] = sum & 0xffff_ffff;
                carry = sum >> 32;
            }
            j += 1;
        }
        i += 1;
    }
    product
}
