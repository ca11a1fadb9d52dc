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

use crate::bls::field::Coordinate;
use crate::bls::lanes::Z;
use crate::cache::Cache;
use blst::{blst_fp, blst_fp2, blst_p1_affine, blst_p2_affine};
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use group::Group;
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

fn z_squared() -> Scalar {
    Scalar::from(Z) * Scalar::from(Z)
}

/// Entries of a table: odd multiples of a point, each followed by the same times z².
type Table<F> = Arc<[Point<F>]>;

/// Tables of keys, each of 6 KiB: those of the committees of some subnets.
static TABLES: Cache<[u8; 96], Table<blst_fp2>> = Cache::new(TABLES_KEPT);
const TABLES_KEPT: usize = 512;

fn coordinates_g1(point: &G1Affine) -> Point<blst_fp> {
    let blst_p1_affine { x, y } = *point.as_ref();
    (x, y)
}

fn coordinates_g2(point: &G2Affine) -> Point<blst_fp2> {
    let blst_p2_affine { x, y } = *point.as_ref();
    (x, y)
}

/// The sum of points of G1, none the identity, each times its coefficient.
pub(crate) fn sum_g1(points: &[G1Affine], coefficients: &[u128]) -> G1Affine {
    static FACTOR: LazyLock<blst_fp> = LazyLock::new(|| {
        let many = G1Affine::from(G1Projective::generator() * z_squared());
        coordinates_g1(&many).0.times(&coordinates_g1(&G1Affine::generator()).0.inverse())
    });
    assert_eq!(points.len(), coefficients.len(), "one coefficient a point");
    let tables = tables(&points.iter().map(coordinates_g1).collect::<Vec<_>>(), &FACTOR, WIDTH_ONCE);
    let point = |(x, y)| {
        let mut point = G1Affine::identity();
        *point.as_mut() = blst_p1_affine { x, y };
        point
    };
    sum_of_places::<G1Projective, _, _>(sums_of_places(&tables, coefficients, WIDTH_ONCE), point).into()
}

/// The sum of keys, none the identity, each times its coefficient. Keys come as bytes, to find their tables, and as points.
pub(crate) fn sum_g2(keys: &[(&[u8; 96], G2Affine)], coefficients: &[u128]) -> G2Affine {
    static FACTOR: LazyLock<blst_fp2> = LazyLock::new(|| {
        let many = G2Affine::from(G2Projective::generator() * z_squared());
        coordinates_g2(&many).0.times(&coordinates_g2(&G2Affine::generator()).0.inverse())
    });
    assert_eq!(keys.len(), coefficients.len(), "one coefficient a key");
    let new_tables = |keys: &[&G2Affine], width: u32| {
        tables(&keys.iter().map(|key| coordinates_g2(key)).collect::<Vec<_>>(), &FACTOR, width)
    };
    let point = |(x, y)| {
        let mut point = G2Affine::identity();
        *point.as_mut() = blst_p2_affine { x, y };
        point
    };
    if keys.len() > TABLES_KEPT / 2 {
        // They would drive out one another.
        let tables = new_tables(&keys.iter().map(|(_, key)| key).collect::<Vec<_>>(), WIDTH_ONCE);
        return sum_of_places::<G2Projective, _, _>(sums_of_places(&tables, coefficients, WIDTH_ONCE), point).into();
    }
    let mut found: Vec<Option<Table<blst_fp2>>> = keys.iter().map(|(bytes, _)| TABLES.get(bytes)).collect();
    let new: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
    let made = new_tables(&new.iter().map(|at| &keys[*at].1).collect::<Vec<_>>(), WIDTH_KEPT);
    for (at, table) in new.into_iter().zip(made) {
        TABLES.insert(keys[at].0, Arc::clone(&table));
        found[at] = Some(table);
    }
    let tables: Vec<Table<blst_fp2>> = found.into_iter().flatten().collect();
    sum_of_places::<G2Projective, _, _>(sums_of_places(&tables, coefficients, WIDTH_KEPT), point).into()
}

/// For each point its odd multiples below 2^(width - 1), and these times z².
fn tables<F: Coordinate>(points: &[Point<F>], factor: &F, width: u32) -> Vec<Table<F>> {
    let add_each = |a: &[Point<F>], b: &[Point<F>]| {
        let mut pairs = [a.iter().zip(b).flat_map(|(a, b)| [*a, *b]).collect::<Vec<_>>()];
        add_pairs(&mut pairs);
        let [sums] = pairs;
        sums
    };
    let doubled = add_each(points, points);
    let mut multiples = vec![points.to_vec()];
    for before in 0..(1 << (width - 2)) - 1 {
        multiples.push(add_each(&multiples[before], &doubled));
    }
    let table = |at: usize| {
        multiples.iter().flat_map(move |multiples| {
            let (x, y) = &multiples[at];
            [(*x, *y), (x.times(factor), y.negative())]
        })
    };
    (0..points.len()).map(|at| table(at).collect()).collect()
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

/// For each place of digits the sum of what the coefficients have there.
fn sums_of_places<F: Coordinate>(tables: &[Table<F>], coefficients: &[u128], width: u32) -> Vec<Option<Point<F>>> {
    let mut places: Vec<Vec<Point<F>>> = (0..PLACES).map(|_| Vec::with_capacity(coefficients.len())).collect();
    for (table, coefficient) in tables.iter().zip(coefficients) {
        for (half, number) in [*coefficient as u64, (coefficient >> 64) as u64].into_iter().enumerate() {
            for (place, digit) in digits(number, width) {
                let (x, y) = &table[digit.unsigned_abs() as usize / 2 * 2 + half];
                places[place].push((*x, if digit < 0 { y.negative() } else { *y }));
            }
        }
    }
    while places.iter().any(|place| place.len() > 1) {
        add_pairs(&mut places);
    }
    places.into_iter().map(|place| place.first().copied()).collect()
}

/// Each place's sum times 2 to the power of the place.
fn sum_of_places<P: Group + AddAssign<A>, F, A>(places: Vec<Option<Point<F>>>, point: impl Fn(Point<F>) -> A) -> P {
    let mut sum = P::identity();
    for place in places.into_iter().rev() {
        sum = sum.double();
        if let Some(place) = place {
            sum += point(place);
        }
    }
    sum
}

/// Puts the sum of the first two points of each list in the first place, of the next two in the second, and so on. Pairs that cancel out leave nothing.
fn add_pairs<F: Coordinate>(lists: &mut [Vec<Point<F>>]) {
    let mut inverses: Vec<F> = Vec::with_capacity(lists.iter().map(|list| list.len() / 2).sum());
    for list in &*lists {
        inverses.extend(list.as_chunks::<2>().0.iter().map(|[(x1, y1), (x2, y2)]| match x1 == x2 {
            false => x2.minus(x1),
            true if y1 == y2 => y1.plus(y1),
            // None is needed: whatever is not 0.
            true => *y1,
        }));
    }
    invert_all(&mut inverses);
    let mut inverses = inverses.into_iter();
    for list in lists {
        let mut sums = 0;
        for at in (0..list.len()).step_by(2) {
            let first = list[at];
            list[sums] = first;
            if let Some((x2, y2)) = list.get(at + 1) {
                let (x1, y1) = &first;
                let inverse = inverses.next().expect("one for each pair");
                let rise = match x1 == x2 {
                    false => y2.minus(y1),
                    true if y1 == y2 => {
                        let square = x1.square();
                        square.plus(&square).plus(&square)
                    }
                    true => continue,
                };
                let slope = rise.times(&inverse);
                let x = slope.square().minus(x1).minus(x2);
                list[sums] = (x, slope.times(&x1.minus(&x)).minus(y1));
            }
            sums += 1;
        }
        list.truncate(sums);
    }
}

/// Puts the inverse of each number in its place; none is 0.
fn invert_all<F: Coordinate>(numbers: &mut [F]) {
    let Some((first, rest)) = numbers.split_first_mut() else { return };
    let mut product = *first;
    let mut before = Vec::with_capacity(rest.len());
    for number in &*rest {
        before.push(product);
        product = product.times(number);
    }
    let mut inverse = product.inverse();
    for (number, before) in rest.iter_mut().zip(before).rev() {
        let inverse_of_this = inverse.times(&before);
        inverse = inverse.times(number);
        *number = inverse_of_this;
    }
    *first = inverse;
}

#[cfg(test)]
mod tests {
    use super::*;
    use group::ff::Field;

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
