//! Kernels that `bench jit` times: one export a case, `fn(n: u32) -> u64`.
//!
//! Enters: `n`, how much to do. Leaves: a checksum over everything that was computed, so that engines can be compared and nothing is
//! optimised away. Never here: imports, state that outlives a call.

mod btree;
mod fib;
mod interp;
mod json;
mod matmul;
mod memwalk;
mod sha256;
mod sort;
mod xorshift;

/// A generator of numbers that is good enough for test data (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Folds a number into a checksum; order matters.
pub fn fold(sum: u64, number: u64) -> u64 {
    (sum.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

macro_rules! export {
    ($($name:ident),*) => {$(
        #[doc = concat!("See [`", stringify!($name), "::run`].")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(n: u32) -> u64 {
            $name::run(n)
        }
    )*};
}

export!(btree, fib, interp, json, matmul, memwalk, sha256, sort, xorshift);
