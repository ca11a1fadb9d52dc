//! The random bytes of a round.
//!
//! Enters: the batch's randomness. Leaves: a stream of bytes, the same on every node. Never here: entropy of the machine.

use sha2::{Digest, Sha256};

/// Bytes derived from a round's randomness for one use, counted so that none is given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomStream {
    seed: [u8; 32],
    given: u64,
}

impl RandomStream {
    /// The stream for `raw_rand`.
    pub fn for_raw_rand(randomness: &[u8; 32]) -> Self {
        Self::new(b"cyclotron-raw-rand", randomness)
    }

    fn new(domain: &[u8], randomness: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update([domain.len() as u8]);
        hash.update(domain);
        hash.update(randomness);
        Self { seed: hash.finalize().into(), given: 0 }
    }

    /// The next 32 bytes.
    pub fn next_bytes(&mut self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.given.to_be_bytes());
        self.given += 1;
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_by_position_and_by_round_and_repeat_on_every_node() {
        let mut a = RandomStream::for_raw_rand(&[1; 32]);
        let mut same = RandomStream::for_raw_rand(&[1; 32]);
        let mut other = RandomStream::for_raw_rand(&[2; 32]);
        let first = a.next_bytes();
        assert_eq!(first, same.next_bytes());
        assert_ne!(first, other.next_bytes());
        assert_ne!(first, a.next_bytes());
        assert_ne!(first, [1; 32]);
    }
}
