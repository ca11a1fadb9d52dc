//! Random bytes for keys.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Gives bytes that nobody can predict.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    /// Errors: when the source fails; `bytes` must not be used then.
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// The operating system's random number generator.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::from)
    }
}

/// Bytes that are a function of a seed: for tests, predictable by anyone.
#[derive(Debug)]
pub struct SimEntropy(AtomicU64);

impl SimEntropy {
    /// Makes a source from a seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns the next number.
    pub fn next_u64(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_entropy_fills_every_size_and_differs_each_time() {
        for size in [0, 1, 7, 8, 9, 63, 64, 65] {
            SystemEntropy.fill(&mut vec![0; size]).unwrap();
        }
        let (mut a, mut b) = ([0; 32], [0; 32]);
        SystemEntropy.fill(&mut a).unwrap();
        SystemEntropy.fill(&mut b).unwrap();
        assert_ne!(a, b);
    }

    #[test]
    fn simulated_entropy_is_a_function_of_its_seed() {
        let draw = |seed| {
            let (entropy, mut bytes) = (SimEntropy::new(seed), [0; 13]);
            entropy.fill(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
