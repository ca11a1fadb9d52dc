//! Encodings to points, in lanes.

use crate::ed25519::point::{Addend, D, MINUS_ONE, ONE, SQRT_MINUS_ONE, ZERO, neutral};
use crate::lanes::{Field, LANES_MAX, Packed, canonical, limbs};

/// Writes the negative of each encoded point to the same place in `points`, and whether there is one to `valid`; where there is none, the neutral
/// element. Encodings need not be canonical: y is taken modulo the prime, and x = 0 may have its sign set (ZIP 215).
///
/// x² = (y² - 1) / (d·y² + 1) = u / v; the root is u·v³·(u·v⁷)^((p-5)/8), times a root of -1 if its square is -u / v.
#[inline(always)]
pub(super) fn decompress<F: Field>(encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
    assert!(encodings.len() == points.len() && encodings.len() == valid.len(), "one place an encoding");
    for ((encodings, points), valid) in
        encodings.chunks(F::LANES).zip(points.chunks_mut(F::LANES)).zip(valid.chunks_mut(F::LANES))
    {
        decompress_lanes::<F>(encodings, points, valid);
    }
}

#[inline(always)]
fn decompress_lanes<F: Field>(encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
    let count = encodings.len();
    let one = F::splat(ONE);
    let mut packed: [Packed; LANES_MAX] = [F::pack(ONE); LANES_MAX];
    for lane in 0..count {
        packed[lane] = F::pack(limbs(encodings[lane]));
    }
    let y = collect::<F>(&packed);
    let yy = y.square();
    let u = yy.sub_reduced(one);
    // The sum is 2 wide; made reduced.
    let v = yy.mul(F::splat(D)).add(one).sub_reduced(F::splat(ZERO));
    let v3 = v.square().mul(v);
    let v7 = v3.square().mul(v);
    let x = u.mul(v3).mul(power(u.mul(v7)));
    let xxv = x.square().mul(v);
    let (mut same, mut opposite, mut root) = ([ZERO; LANES_MAX], [ZERO; LANES_MAX], [ZERO; LANES_MAX]);
    xxv.sub_reduced(u).store(&mut same);
    xxv.add(u).sub_reduced(F::splat(ZERO)).store(&mut opposite);
    // Each lane has its own factor: 1, or the root of -1.
    let mut factor: [Packed; LANES_MAX] = [F::pack(ONE); LANES_MAX];
    for lane in 0..count {
        let is_same = canonical(F::unpack(&same[lane])) == ZERO;
        valid[lane] = is_same || canonical(F::unpack(&opposite[lane])) == ZERO;
        if !is_same {
            factor[lane] = F::pack(SQRT_MINUS_ONE);
        }
    }
    let x = x.mul(collect::<F>(&factor));
    x.store(&mut root);
    // The point's x has the parity that the encoding names; its negative's the other one.
    let mut sign: [Packed; LANES_MAX] = [F::pack(ONE); LANES_MAX];
    for lane in 0..count {
        let is_odd = canonical(F::unpack(&root[lane]))[0] & 1;
        if is_odd == u64::from(encodings[lane][31] >> 7) {
            sign[lane] = F::pack(MINUS_ONE);
        }
    }
    let x = x.mul(collect::<F>(&sign));
    let mut coordinates = [[ZERO; LANES_MAX]; 4];
    let t2d = x.mul(y).mul(F::splat(D));
    y.add(x).sub_reduced(F::splat(ZERO)).store(&mut coordinates[0]);
    y.sub_reduced(x).store(&mut coordinates[1]);
    let t2d = t2d.add(t2d).sub_reduced(F::splat(ZERO));
    t2d.store(&mut coordinates[2]);
    F::splat(ZERO).sub_reduced(t2d).store(&mut coordinates[3]);
    for lane in 0..count {
        points[lane] = if valid[lane] { std::array::from_fn(|at| coordinates[at][lane]) } else { neutral::<F>() };
    }
}

#[inline(always)]
fn collect<F: Field>(numbers: &[Packed; LANES_MAX]) -> F {
    let [a, b, c, d, e, f, g, h] = numbers;
    F::collect(&[a, b, c, d, e, f, g, h])
}

#[inline(always)]
fn square_times<F: Field>(number: F, times: usize) -> F {
    let mut number = [number];
    F::square_times(&mut number, times);
    number[0]
}

/// The power (p - 5) / 8 = 2^252 - 3. Cost: 252 squares, 11 products.
#[inline(always)]
fn power<F: Field>(number: F) -> F {
    // Names say the exponent: `e5` is 2^5 - 1.
    let two = number.square();
    let nine = square_times(two, 2).mul(number);
    let eleven = nine.mul(two);
    let e5 = eleven.square().mul(nine);
    // Each step: the exponent of so many ones, moved up and filled with as many ones of an earlier one.
    let e10 = square_times(e5, 5).mul(e5);
    let e20 = square_times(e10, 10).mul(e10);
    let e40 = square_times(e20, 20).mul(e20);
    let e50 = square_times(e40, 10).mul(e10);
    let e100 = square_times(e50, 50).mul(e50);
    let e200 = square_times(e100, 100).mul(e100);
    let e250 = square_times(e200, 50).mul(e50);
    square_times(e250, 2).mul(number)
}
