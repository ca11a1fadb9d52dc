//! Sums of points, each times a coefficient.
//!
//! 1. A coefficient is two numbers a and b of 64 bits and stands for a + b·z², where z is the parameter of the curves. In both groups `(x, y)` times z² is
//!    `(f·x, -y)`, f a cube root of 1: so a coefficient takes 64 doublings, not 128. No two coefficients stand for the same modulo the order: a is below
//!    z², and a + b·z² below the order.
//! 2. Each point has a table of its odd multiples, and of these times z². That of a key is kept.
//! 3. a and b have signed odd digits with zeros between them. What is of one place, of all points, is added first, then places from the highest with one
//!    doubling of the sum between them.
//! 4. Additions of one place are of affine points, in pairs, in rounds: a round, of all places together, has one inversion, and six products a pair.
//!
//! Products of the field for each point of 40: in G1, with a table of 4 odd multiples, 29 for the table, 154 for 26 additions, 30 for its part of the
//! last step; in G2, where a key's table of 16 is there, 110 for 18 additions and 30, of a field whose products cost three of the other.

use crate::cache::Cache;
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use group::Group;
use group::ff::Field;
use group::prime::PrimeCurveAffine;
use std::ops::AddAssign;
use std::sync::{Arc, LazyLock};

/// Affine coordinates of a point of the groups, not the identity: so it is not its own negative, nor is y 0.
type Point<F> = (F, F);

/// Bits of the digits of what points are multiplied by: where tables are made for one sum, and where they are kept.
const WIDTH_ONCE: u32 = 4;
const WIDTH_KEPT: u32 = 6;

/// Places of digits of a number of 64 bits.
const PLACES: usize = 65;

/// The parameter of the curves, without its sign.
const Z: u64 = 0xd201_0000_0001_0000;

fn z_squared() -> Scalar {
    Scalar::from(Z) * Scalar::from(Z)
}

/// Tables of keys, each of 6 KiB: those of the committees of some subnets.
static TABLES: Cache<[u8; 96], Arc<[G2Affine]>> = Cache::new(TABLES_KEPT);
const TABLES_KEPT: usize = 512;

/// The sum of points of G1, none the identity, each times its coefficient.
pub(crate) fn sum_g1(points: &[G1Affine], coefficients: &[u128]) -> G1Affine {
    // The field has no name outside of its crate: its constants are kept in what has coordinates.
    static FACTOR: LazyLock<G1Affine> = LazyLock::new(|| {
        let (one, many) = (G1Affine::generator(), G1Affine::from(G1Projective::generator() * z_squared()));
        let factor = quotient(many.x(), one.x());
        G1Affine::from_raw_unchecked(factor, factor, false)
    });
    assert_eq!(points.len(), coefficients.len(), "one coefficient a point");
    let points: Vec<_> = points.iter().map(|point| (point.x(), point.y())).collect();
    let tables = tables(&points, FACTOR.x(), WIDTH_ONCE);
    let places = sums_of_places(coefficients, WIDTH_ONCE, |at, entry| tables[at][entry]);
    let affine = |(x, y)| G1Affine::from_raw_unchecked(x, y, false);
    sum_of_places::<G1Projective, _>(places.into_iter().map(|place| place.map(affine))).into()
}

/// The sum of keys, none the identity, each times its coefficient. Keys come as bytes, to find their tables, and as points.
pub(crate) fn sum_g2(keys: &[(&[u8; 96], G2Affine)], coefficients: &[u128]) -> G2Affine {
    static FACTOR: LazyLock<G2Affine> = LazyLock::new(|| {
        let (one, many) = (G2Affine::generator(), G2Affine::from(G2Projective::generator() * z_squared()));
        let factor = quotient(many.x(), one.x());
        G2Affine::from_raw_unchecked(factor, factor, false)
    });
    assert_eq!(keys.len(), coefficients.len(), "one coefficient a key");
    let affine = |(x, y)| G2Affine::from_raw_unchecked(x, y, false);
    if keys.len() > TABLES_KEPT / 2 {
        // They would drive out one another.
        let points: Vec<_> = keys.iter().map(|(_, key)| (key.x(), key.y())).collect();
        let tables = tables(&points, FACTOR.x(), WIDTH_ONCE);
        let places = sums_of_places(coefficients, WIDTH_ONCE, |at, entry| tables[at][entry]);
        return sum_of_places::<G2Projective, _>(places.into_iter().map(|place| place.map(affine))).into();
    }
    let mut kept: Vec<Option<Arc<[G2Affine]>>> = keys.iter().map(|(bytes, _)| TABLES.get(bytes)).collect();
    let new: Vec<usize> = (0..keys.len()).filter(|at| kept[*at].is_none()).collect();
    let points: Vec<_> = new.iter().map(|at| (keys[*at].1.x(), keys[*at].1.y())).collect();
    for (at, table) in new.into_iter().zip(tables(&points, FACTOR.x(), WIDTH_KEPT)) {
        let table: Arc<[G2Affine]> = table.into_iter().map(affine).collect();
        TABLES.insert(keys[at].0, Arc::clone(&table));
        kept[at] = Some(table);
    }
    let tables: Vec<Arc<[G2Affine]>> = kept.into_iter().flatten().collect();
    let places = sums_of_places(coefficients, WIDTH_KEPT, |at, entry| (tables[at][entry].x(), tables[at][entry].y()));
    sum_of_places::<G2Projective, _>(places.into_iter().map(|place| place.map(affine))).into()
}

fn quotient<F: Field>(above: F, below: F) -> F {
    above * Option::<F>::from(below.invert()).expect("the generator's x is not 0")
}

/// For each point its odd multiples below 2^(width - 1), each followed by the same times z².
fn tables<F: Field>(points: &[Point<F>], factor: F, width: u32) -> Vec<Vec<Point<F>>> {
    let add_each = |a: &[Point<F>], b: &[Point<F>]| -> Vec<Point<F>> {
        let mut pairs: Vec<Vec<Point<F>>> = a.iter().zip(b).map(|(a, b)| vec![*a, *b]).collect();
        add_pairs(&mut pairs);
        pairs.into_iter().flatten().collect()
    };
    let mut tables = vec![Vec::new(); points.len()];
    let doubled = add_each(points, points);
    let mut multiples = points.to_vec();
    for entry in 0..1 << (width - 2) {
        if entry > 0 {
            multiples = add_each(&multiples, &doubled);
        }
        for (table, (x, y)) in tables.iter_mut().zip(&multiples) {
            table.extend([(*x, *y), (*x * factor, -*y)]);
        }
    }
    tables
}

/// Signed odd digits of a number from the lowest: below 2^(width - 1), and after each at least width - 1 places without any.
fn digits(number: u64, width: u32) -> impl Iterator<Item = (usize, i64)> {
    let (mut rest, mut place) = (i128::from(number), 0);
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        place += rest.trailing_zeros();
        rest >>= rest.trailing_zeros();
        let low = (rest & ((1 << width) - 1)) as i64;
        let digit = if low < 1 << (width - 1) { low } else { low - (1 << width) };
        rest -= i128::from(digit);
        Some((place as usize, digit))
    })
}

/// For each place of digits the sum of what the coefficients have there; `entry` gives an entry of a point's table.
fn sums_of_places<F: Field>(
    coefficients: &[u128],
    width: u32,
    entry: impl Fn(usize, usize) -> Point<F>,
) -> Vec<Option<Point<F>>> {
    let mut places = vec![Vec::new(); PLACES];
    for (at, coefficient) in coefficients.iter().enumerate() {
        for (half, number) in [*coefficient as u64, (coefficient >> 64) as u64].into_iter().enumerate() {
            for (place, digit) in digits(number, width) {
                let (x, y) = entry(at, digit.unsigned_abs() as usize / 2 * 2 + half);
                places[place].push((x, if digit < 0 { -y } else { y }));
            }
        }
    }
    while places.iter().any(|place| place.len() > 1) {
        add_pairs(&mut places);
    }
    places.into_iter().map(|place| place.first().copied()).collect()
}

/// Each place's sum times 2 to the power of the place.
fn sum_of_places<P: Group + AddAssign<A>, A>(places: impl DoubleEndedIterator<Item = Option<A>>) -> P {
    let mut sum = P::identity();
    for place in places.rev() {
        sum = sum.double();
        if let Some(place) = place {
            sum += place;
        }
    }
    sum
}

/// Puts the sum of the first two points of each list in their place, of the next two, and so on. Pairs that cancel out leave nothing.
fn add_pairs<F: Field>(lists: &mut [Vec<Point<F>>]) {
    let mut inverses: Vec<F> = Vec::new();
    for list in &*lists {
        inverses.extend(list.as_chunks::<2>().0.iter().map(|[(x1, y1), (x2, y2)]| match x1 == x2 {
            false => *x2 - x1,
            true if y1 == y2 => y1.double(),
            true => F::ONE,
        }));
    }
    invert_all(&mut inverses);
    let mut inverses = inverses.into_iter();
    for list in lists {
        let mut sums = 0;
        for at in (0..list.len()).step_by(2) {
            list[sums] = list[at];
            if let (Some((x2, y2)), (x1, y1)) = (list.get(at + 1).copied(), list[at]) {
                let inverse = inverses.next().expect("one for each pair");
                let slope = match x1 == x2 {
                    false => (y2 - y1) * inverse,
                    true if y1 == y2 => (x1.square().double() + x1.square()) * inverse,
                    true => continue,
                };
                let x = slope.square() - x1 - x2;
                list[sums] = (x, slope * (x1 - x) - y1);
            }
            sums += 1;
        }
        list.truncate(sums);
    }
}

/// Puts the inverse of each number in its place; none is 0.
fn invert_all<F: Field>(numbers: &mut [F]) {
    let mut product = F::ONE;
    let mut before = Vec::with_capacity(numbers.len());
    for number in &*numbers {
        before.push(product);
        product *= number;
    }
    let mut inverse = Option::<F>::from(product.invert()).expect("no factor is 0");
    for (number, before) in numbers.iter_mut().zip(before).rev() {
        (*number, inverse) = (inverse * before, inverse * *number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a coefficient stands for.
    fn scalar(coefficient: u128) -> Scalar {
        Scalar::from(coefficient as u64) + Scalar::from((coefficient >> 64) as u64) * z_squared()
    }

    fn check(factors: &[Scalar], coefficients: &[u128]) {
        let expected: Scalar = coefficients.iter().zip(factors).map(|(number, factor)| scalar(*number) * factor).sum();
        let g1: Vec<G1Affine> = factors.iter().map(|factor| (G1Projective::generator() * factor).into()).collect();
        let g2: Vec<G2Affine> = factors.iter().map(|factor| (G2Projective::generator() * factor).into()).collect();
        let bytes: Vec<[u8; 96]> = g2.iter().map(G2Affine::to_compressed).collect();
        let keys: Vec<_> = bytes.iter().zip(g2).collect();
        let count = factors.len();
        assert_eq!(sum_g1(&g1, coefficients), G1Affine::from(G1Projective::generator() * expected), "{count}");
        // Tables are made the first time, found the second.
        for _ in 0..2 {
            assert_eq!(sum_g2(&keys, coefficients), G2Affine::from(G2Projective::generator() * expected), "{count}");
        }
    }

    #[test]
    fn sums_are_those_of_each_point_times_its_coefficient() {
        for count in [0u64, 1, 2, 7, 8, 9, 31, 40, 65, 1 + TABLES_KEPT as u64 / 2] {
            let coefficients: Vec<u128> = (0..count)
                .map(|n| (u128::MAX / (u128::from(n) * 7 + 1)) ^ u128::from(n) ^ (u128::from(n) << 77))
                .collect();
            let factors: Vec<Scalar> = (0..count).map(|n| Scalar::from(n * n + 3)).collect();
            check(&factors, &coefficients);
        }
        for coefficient in [0, 1, 2, 1 << 63, 1 << 64, 1 << 127, u128::MAX, u128::from(u64::MAX), 0x7fff << 64] {
            check(&[Scalar::from(5)], &[coefficient]);
        }
    }

    #[test]
    fn points_that_are_equal_or_cancel_out_are_added_as_all_others() {
        let (one, five) = (Scalar::ONE, Scalar::from(5));
        for coefficient in [1u128, 5, 0xffff_ffff, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, u128::MAX] {
            // Twice, three times, with its negative, its own multiples, and times z² beside the same by the coefficient.
            check(&[one, one], &[coefficient; 2]);
            check(&[one, one, one], &[coefficient; 3]);
            check(&[one, -one], &[coefficient; 2]);
            check(&[one, -one, five, -one, one], &[coefficient; 5]);
            check(&[one, five, -five], &[5 * (coefficient >> 3), coefficient >> 3, 1]);
            check(&[z_squared(), one], &[1, 1 << 64]);
            check(&[z_squared(), -one], &[1, 1 << 64]);
        }
    }

    #[test]
    fn digits_add_up_to_the_number() {
        for width in [WIDTH_ONCE, WIDTH_KEPT] {
            for number in [0, 1, 2, 7, 8, 9, 31, 33, u64::MAX, u64::MAX - 1, 1 << 63, 0x0123_4567_89ab_cdef] {
                let mut sum = 0i128;
                let mut free_from = 0;
                for (place, digit) in digits(number, width) {
                    assert!(digit % 2 != 0 && digit.abs() < 1 << (width - 1) && place >= free_from && place < PLACES);
                    free_from = place + width as usize;
                    sum += i128::from(digit) << place;
                }
                assert_eq!(sum, i128::from(number));
            }
        }
    }
}
