//! Registers only: shifts and xors in one long dependency chain.

/// `n` thousand steps.
pub fn run(n: u32) -> u64 {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..u64::from(n) * 1_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}
