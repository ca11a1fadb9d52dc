//! Floating point: products of 128 by 128 matrices of doubles.

use crate::{Random, fold};

const N: usize = 128;
type Matrix = Vec<[f64; N]>;

/// `n` products, each of the last one with a fixed matrix.
pub fn run(n: u32) -> u64 {
    let mut random = Random::new(13);
    let mut make = || -> Matrix {
        (0..N).map(|_| std::array::from_fn(|_| (random.next() >> 11) as f64 / (1_u64 << 53) as f64 - 0.5)).collect()
    };
    let (mut left, right) = (make(), make());
    let mut product: Matrix = vec![[0.0; N]; N];
    for _ in 0..n {
        multiply(&left, &right, &mut product);
        // Keeps the numbers from running away.
        for (row, out) in left.iter_mut().zip(&product) {
            for (cell, value) in row.iter_mut().zip(out) {
                *cell = value / (1.0 + value.abs());
            }
        }
    }
    left.iter().flatten().fold(0, |sum, cell| fold(sum, cell.to_bits()))
}

#[inline(never)]
fn multiply(left: &Matrix, right: &Matrix, product: &mut Matrix) {
    for (row, out) in left.iter().zip(product) {
        *out = [0.0; N];
        for (factor, line) in row.iter().zip(right) {
            for (cell, value) in out.iter_mut().zip(line) {
                *cell += factor * value;
            }
        }
    }
}
