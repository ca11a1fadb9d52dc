//! The numbers that a seed stands for. Never here: a number from anywhere else; a change, since recordings are named by their seeds.

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed, of so many sequences that differ.
    pub fn new(seed: u64, sequence: u64) -> Self {
        // The sequences begin at places that have nothing to do with each other.
        let mut places = Self(seed);
        let first = places.number();
        let mut random = Self(first ^ sequence.wrapping_mul(0xd134_2543_de82_ef95));
        random.number();
        random
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not zero; its bias is below `end` in 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.number()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// One of them. Panics: of none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len() as u64);
        &of[usize::try_from(at).unwrap_or(0)]
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_the_same_numbers_for_ever() {
        let mut random = Random(0);
        assert_eq!([random.number(), random.number()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        let first = |seed, sequence| Random::new(seed, sequence).number();
        assert_eq!(first(7, 1), first(7, 1));
        assert!(first(7, 1) != first(7, 2) && first(7, 1) != first(8, 1));
    }

    #[test]
    fn a_number_is_below_its_bound() {
        let mut random = Random::new(1, 1);
        for end in [1, 2, 3, 1_000, u64::MAX] {
            assert!((0..100).all(|_| random.below(end) < end));
        }
        let mut seen = [false; 4];
        (0..100).for_each(|_| seen[*random.pick(&[0_usize, 1, 2, 3])] = true);
        assert_eq!(seen, [true; 4]);
    }
}
