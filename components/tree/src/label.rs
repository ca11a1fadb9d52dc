//! The order of labels, as bit positions.
//!
//! A label is read as a string of 9-bit symbols, one per byte: a 1 for "there is a byte here", then the byte's bits, most
//! significant first; past its end it reads as zeros. Comparing two such strings at their first differing bit gives the
//! lexicographic order of the labels, and no label is a prefix of another, so one bit position tells two subtrees apart.

/// Longest label a tree holds.
pub const LABEL_BYTES_MAX: usize = 1 << 20;

/// Bits a label's symbol takes per byte.
const SYMBOL_BITS: u32 = 9;

/// Returns bit `position` of `label`.
#[inline]
pub(crate) fn bit(label: &[u8], position: u32) -> bool {
    let (byte, offset) = (position / SYMBOL_BITS, position % SYMBOL_BITS);
    match label.get(byte as usize) {
        None => false,
        Some(_) if offset == 0 => true,
        Some(value) => value >> (SYMBOL_BITS - 1 - offset) & 1 == 1,
    }
}

/// Returns the first bit position at which `a` and `b` differ, or `None` when they are equal.
#[inline]
pub(crate) fn first_difference(a: &[u8], b: &[u8]) -> Option<u32> {
    let common = a.iter().zip(b).position(|(x, y)| x != y);
    match common {
        // Both lengths are at most LABEL_BYTES_MAX: the index fits.
        Some(at) => Some(at as u32 * SYMBOL_BITS + 1 + (a[at] ^ b[at]).leading_zeros()),
        None if a.len() == b.len() => None,
        None => Some(a.len().min(b.len()) as u32 * SYMBOL_BITS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_bit_decides_the_lexicographic_order() {
        let labels: Vec<Vec<u8>> = vec![
            vec![],
            vec![0],
            vec![0, 0],
            vec![0, 1],
            vec![1],
            vec![1, 255],
            vec![2],
            vec![127],
            vec![128],
            vec![255],
            vec![255, 0],
            vec![255, 255],
        ];
        for (i, a) in labels.iter().enumerate() {
            assert_eq!(first_difference(a, a), None);
            for b in &labels[i + 1..] {
                let at = first_difference(a, b).unwrap();
                assert_eq!(first_difference(b, a), Some(at));
                assert!(!bit(a, at) && bit(b, at), "{a:?} < {b:?} at {at}");
                assert!((0..at).all(|before| bit(a, before) == bit(b, before)));
            }
        }
    }
}
