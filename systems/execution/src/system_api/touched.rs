//! Which pages of stable memory a message has touched, for the limit on them.
//!
//! Enters: ranges of bytes. Leaves: how many pages of 4 KiB they cover together. Never here: what the pages hold.

use std::collections::BTreeMap;

/// Bytes of a page, as a power of two.
const PAGE_SHIFT: u32 = 12;
/// Pages of one block of the set, as a power of two: 16 MiB of memory in 512 bytes.
const BLOCK_SHIFT: u32 = 12;
const WORDS: usize = (1 << BLOCK_SHIFT) / 64;

/// A set of pages. Cost: O(log blocks) a page touched, nothing for the page touched last.
#[derive(Debug, Default)]
pub(crate) struct TouchedPages {
    blocks: BTreeMap<u64, Box<[u64; WORDS]>>,
    count: u64,
    /// One more than the page touched last.
    after_last: u64,
}

impl TouchedPages {
    /// Adds the pages of `size` bytes at `offset` and returns how many there are now. The range lies in 64 bits.
    #[inline]
    pub fn touch(&mut self, offset: u64, size: u64) -> u64 {
        let first = offset >> PAGE_SHIFT;
        let last = offset.saturating_add(size.saturating_sub(1)) >> PAGE_SHIFT;
        if size > 0 && (first != last || first + 1 != self.after_last) {
            (first..=last).for_each(|page| self.add(page));
            self.after_last = last + 1;
        }
        self.count
    }

    fn add(&mut self, page: u64) {
        let block = self.blocks.entry(page >> BLOCK_SHIFT).or_insert_with(|| Box::new([0; WORDS]));
        let at = (page & ((1 << BLOCK_SHIFT) - 1)) as usize;
        let (word, bit) = (&mut block[at / 64], 1 << (at % 64));
        self.count += u64::from(*word & bit == 0);
        *word |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_counts_once() {
        let mut pages = TouchedPages::default();
        let mut check = |offset, size, count| assert_eq!(pages.touch(offset, size), count, "{offset} {size}");
        check(5, 0, 0);
        check(0, 1, 1);
        check(4_095, 1, 1);
        check(4_095, 2, 2);
        check(0, 1 << 24, 4_096);
        check((1 << 24) - 1, 2, 4_097);
        check(1 << 38, 8, 4_098);
        check(1 << 38, 8, 4_098);
        check(0, 5 << 12, 4_098);
    }
}
