//! Loads and stores over 8 MiB: in order, then in strides that change page with every step.

const WORDS: usize = 1 << 20;
/// An odd number of words, a little over a page: every step is on another page, every word is met once.
const STRIDE: usize = 521;

/// `n` times over all words, in order and in strides.
pub fn run(n: u32) -> u64 {
    let mut words: Vec<u64> = (0..WORDS as u64).collect();
    for pass in 0..u64::from(n) {
        let mut last = pass;
        for word in &mut words {
            last = word.wrapping_add(last >> 3);
            *word = last;
        }
        let mut at = 0;
        for _ in 0..WORDS {
            words[at] ^= last;
            last = last.wrapping_add(words[at]);
            at = (at + STRIDE) & (WORDS - 1);
        }
    }
    words.iter().fold(0, |sum, word| crate::fold(sum, *word))
}
