//! Numbers modulo the order of the group, as far as sums of many products need them: products are added up whole, and reduced once.

use curve25519_dalek::scalar::Scalar;

/// A number below 2^256 by words, the lowest first.
pub(super) type Words = [u64; 4];

/// The order of the group, 2^252 + 27742317777372353535851937790883648493.
const ORDER: Words = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];

pub(super) fn words(bytes: &[u8; 32]) -> Words {
    std::array::from_fn(|at| u64::from_le_bytes(bytes.as_chunks::<8>().0[at]))
}

/// Whether a number is below the order: the encodings of S that are valid.
pub(super) fn is_canonical(number: &Words) -> bool {
    number.iter().rev().lt(ORDER.iter().rev())
}

/// A sum of products of 128 and 256 bits each. 2^128 of them fit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum([u64; 8]);

impl Sum {
    pub(super) fn add_product(&mut self, short: u128, number: &Words) {
        for (from, factor) in [short as u64, (short >> 64) as u64].into_iter().enumerate() {
            let mut carry = 0;
            for (at, word) in number.iter().enumerate() {
                // At most (2^64 - 1)^2 + 2 * (2^64 - 1), which is 2^128 - 1.
                let sum = u128::from(factor) * u128::from(*word) + u128::from(self.0[from + at]) + u128::from(carry);
                (self.0[from + at], carry) = (sum as u64, (sum >> 64) as u64);
            }
            for word in &mut self.0[from + 4..] {
                let (sum, over) = word.overflowing_add(carry);
                (*word, carry) = (sum, u64::from(over));
            }
        }
    }

    /// The sum modulo the order.
    pub(super) fn reduced(&self) -> Scalar {
        let mut bytes = [0; 64];
        bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        Scalar::from_bytes_mod_order_wide(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_products_are_those_of_scalars() {
        let edges = [0, 1, u64::MAX.into(), 1 << 64, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210];
        let (mut sum, mut expected) = (Sum::default(), Scalar::ZERO);
        let mut number = Scalar::ZERO - Scalar::ONE;
        for _ in 0..100 {
            for short in edges {
                sum.add_product(short, &words(&number.to_bytes()));
                expected += Scalar::from(short) * number;
                assert_eq!(sum.reduced(), expected);
                number = number * number + Scalar::from(short);
            }
        }
        // The largest that there are: every carry is taken.
        let largest = Scalar::from_bytes_mod_order([u8::MAX; 32]);
        for _ in 0..1_000 {
            sum.add_product(u128::MAX, &[u64::MAX; 4]);
            expected += Scalar::from(u128::MAX) * largest;
        }
        assert_eq!(sum.reduced(), expected);
    }

    #[test]
    fn what_is_canonical_is_below_the_order() {
        let order = (Scalar::ZERO - Scalar::ONE).to_bytes();
        assert!(is_canonical(&words(&order)));
        let mut bytes = order;
        for low in 0..=u8::MAX {
            bytes[0] = low;
            let canonical = Option::<Scalar>::from(Scalar::from_canonical_bytes(bytes)).is_some();
            assert_eq!(is_canonical(&words(&bytes)), canonical, "{low}");
        }
        for at in 0..32 {
            for bit in 0..8 {
                let mut bytes = order;
                bytes[at] ^= 1 << bit;
                let canonical = Option::<Scalar>::from(Scalar::from_canonical_bytes(bytes)).is_some();
                assert_eq!(is_canonical(&words(&bytes)), canonical, "bit {bit} of byte {at}");
            }
        }
        assert!(is_canonical(&[0; 4]) && !is_canonical(&[u64::MAX; 4]));
    }
}
