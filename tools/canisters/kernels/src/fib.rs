//! Calls only: the recursive definition.

/// The `n`th Fibonacci number.
pub fn run(n: u32) -> u64 {
    u64::from(fib(n))
}

#[inline(never)]
fn fib(n: u32) -> u32 {
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}
