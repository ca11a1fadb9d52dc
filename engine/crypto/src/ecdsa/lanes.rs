//! Whether the x of `u · G + v · key` is one of the candidates, for many signatures in lanes.
//!
//! 1. Each lane has a signature; all take the same steps. Lanes of a key that is no point get another one, and are refused at the end.
//! 2. The first 16 multiples of each key, with a z of their own; 1 / z of all groups by one inversion in each lane (Montgomery's trick).
//! 3. v is written in digits of 5 bits from -16 to 16, on secp256k1 two halves of it for the key and its multiple by the cube root of 1; u in digits of 10 bits
//!    for multiples of G that are known. One chain of doublings serves all digits.
//! 4. The sum begins with a point that nobody outside knows, whose multiple is taken off at the end: nobody can choose a key and numbers for which two
//!    points that are added are the same, opposite or neutral. If it happened, z would be 0, and the signature is checked alone.
//! 5. x = X / Z² is not computed: the candidate times Z² is compared with X.

use crate::ecdsa::point::{Curve, KEY_DIGIT_BITS, KEY_DIGITS, KeyTable, Multiples, Point, find_multiples, to_affine};
use crate::lanes::LANES_MAX;
use crate::lanes::mont::{Modulus, Number, PrimeField, canonical};

/// Bits of a digit of the base point's number, and how many digits there are.
pub(super) const BASE_DIGIT_BITS: usize = 2 * KEY_DIGIT_BITS;
pub(super) const BASE_DIGITS: usize = KEY_DIGITS / 2;
/// Multiples that its digits need.
pub(super) const BASE_MULTIPLES: usize = 1 << (BASE_DIGIT_BITS - 1);

/// Groups of lanes that share an inversion: their multiples take 14 KB each.
const GROUPS_MAX: usize = 32;

/// What a signature claims, and how to find out.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    /// The key's coordinates, below the prime.
    pub x: Number,
    pub y: Number,
    /// The key's number, lowest digit first; with halves, one after the other.
    pub key: [i8; KEY_DIGITS],
    /// The base point's number.
    pub base: [i16; BASE_DIGITS],
    /// What x may be: r, and r and the group's order if that is below the prime.
    pub candidates: [Number; 2],
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Valid,
    Invalid,
    /// Points met that the formulas do not add.
    Unknown,
}

/// What a curve's sums begin with and add, as the field keeps it.
pub(super) struct BaseTable<S> {
    /// For each half of the positions, the multiples of what its lowest digit counts.
    pub multiples: [Vec<[S; 2]>; 2],
    /// Where sums begin, and the negative of what becomes of it.
    pub begin: [S; 2],
    pub end: [S; 2],
}

/// The same as numbers.
pub(super) struct BasePoints {
    pub multiples: [Vec<[Number; 2]>; 2],
    pub begin: [Number; 2],
    pub end: [Number; 2],
}

impl<S: Copy> BaseTable<S> {
    pub(super) fn of<F: PrimeField<Stored = S>>(points: &BasePoints) -> Self {
        let of = |points: &[[Number; 2]]| {
            points.iter().map(|point| point.map(|number| in_form::<F>(&number))).collect::<Vec<_>>()
        };
        Self {
            multiples: points.multiples.each_ref().map(|points| of(points)),
            begin: of(&[points.begin])[0],
            end: of(&[points.end])[0],
        }
    }
}

/// What stands for a number.
fn in_form<F: PrimeField>(number: &Number) -> F::Stored {
    let mut stored = [F::pack(number); LANES_MAX];
    F::splat(number).mul(F::splat(&F::TO_FORM)).store(&mut stored);
    stored[0]
}

#[inline(always)]
fn collect<F: PrimeField>(numbers: &[F::Stored; LANES_MAX]) -> F {
    F::collect(&numbers.each_ref())
}

/// Where a number that is few times wide is a multiple of the prime.
#[inline(always)]
fn zeros<C: Curve, F: PrimeField>(number: F) -> [bool; LANES_MAX] {
    let mut stored = [F::pack(&[0; 7]); LANES_MAX];
    number.store(&mut stored);
    stored.each_ref().map(|number| canonical::<C::Prime>(F::unpack(number)) == [0; 7])
}

/// 1 / number, or 0 of 0: the power prime - 2, four bits at a time.
#[inline(always)]
fn inverse<C: Curve, F: PrimeField>(number: F, one: F) -> F {
    let mut powers = [one; 16];
    for at in 1..16 {
        powers[at] = powers[at - 1].mul(number);
    }
    let mut exponent = C::Prime::PRIME;
    // Odd, and larger than 2: nothing is borrowed beyond a word, for either prime ends in more than 2.
    exponent[0] -= 2;
    let mut power = one;
    for digit in (0..64).rev() {
        for _ in 0..4 {
            power = power.square();
        }
        power = power.mul(powers[(exponent[digit / 16] >> (4 * (digit % 16)) & 15) as usize]);
    }
    power
}

/// The signatures of a group of lanes, the last one repeated.
struct Group<'a>(&'a [Claim]);

impl Group<'_> {
    #[inline(always)]
    fn lane(&self, lane: usize) -> &Claim {
        &self.0[lane.min(self.0.len() - 1)]
    }

    /// What stands for a number of each.
    #[inline(always)]
    fn collect<F: PrimeField>(&self, number: impl Fn(&Claim) -> &Number) -> F {
        let mut stored = [F::pack(&[0; 7]); LANES_MAX];
        for (lane, stored) in stored.iter_mut().enumerate().take(F::LANES) {
            *stored = F::pack(number(self.lane(lane)));
        }
        collect::<F>(&stored).mul(F::splat(&F::TO_FORM))
    }
}

/// A group between its multiples and its sum.
struct Begun<F> {
    /// z of the last multiple.
    z: F,
    /// The product of all z of earlier groups.
    before: F,
    /// Lanes whose key is on the curve.
    is_point: [bool; LANES_MAX],
}

/// Finds out about each claim; `found` has a place for each.
#[inline(always)]
pub(super) fn check<C: Curve, F: PrimeField>(claims: &[Claim], base: &BaseTable<F::Stored>, found: &mut [Found]) {
    assert_eq!(claims.len(), found.len(), "one place a claim");
    let one = F::splat(&F::ONE);
    let groups = claims.len().div_ceil(F::LANES).min(GROUPS_MAX);
    let mut multiples: Vec<Multiples<F>> = vec![[[one; 3]; _]; groups];
    let mut table = Box::new(KeyTable::new(F::pack(&[0; 7])));
    for (claims, found) in claims.chunks(GROUPS_MAX * F::LANES).zip(found.chunks_mut(GROUPS_MAX * F::LANES)) {
        let mut product = one;
        let mut begun = Vec::with_capacity(groups);
        for (claims, multiples) in claims.chunks(F::LANES).zip(&mut multiples) {
            let (z, is_point) = begin::<C, F>(&Group(claims), base, one, multiples);
            begun.push(Begun { z, before: product, is_point });
            product = product.mul(z);
        }
        let mut rest = inverse::<C, F>(product, one);
        let groups = claims.chunks(F::LANES).zip(found.chunks_mut(F::LANES)).zip(begun.iter().zip(&multiples));
        for ((claims, found), (begun, multiples)) in groups.rev() {
            fill_table::<C, F>(multiples, rest.mul(begun.before), &mut table);
            rest = rest.mul(begun.z);
            finish::<C, F>(&Group(claims), base, &table, begun.is_point, found);
        }
    }
}

/// The keys' multiples, z of the last, and which are on the curve.
#[inline(always)]
fn begin<C: Curve, F: PrimeField>(
    group: &Group<'_>,
    base: &BaseTable<F::Stored>,
    one: F,
    multiples: &mut Multiples<F>,
) -> (F, [bool; LANES_MAX]) {
    let (x, y) = (group.collect::<F>(|claim| &claim.x), group.collect::<F>(|claim| &claim.y));
    let b = F::splat(&C::B).mul(F::splat(&F::TO_FORM));
    let factor = if C::A_IS_MINUS_3 { x.square().sub::<4>(one.times::<3>()) } else { x.square() };
    let is_point = zeros::<C, F>(x.mul(factor).add(b).sub::<3>(y.square()));
    let is_none = is_point.map(|is_point| !is_point);
    let [other_x, other_y] = &base.begin;
    let x = x.select(F::collect(&[other_x; LANES_MAX]), &is_none);
    let y = y.select(F::collect(&[other_y; LANES_MAX]), &is_none);
    (find_multiples::<C, F>(x, y, one, multiples), is_point)
}

#[inline(always)]
fn fill_table<C: Curve, F: PrimeField>(multiples: &Multiples<F>, inverse: F, table: &mut KeyTable<F::Stored>) {
    let root = C::CUBE_ROOT.map(|root| F::splat(&root).mul(F::splat(&F::TO_FORM)));
    to_affine(multiples, inverse, |at, x, y| {
        x.store(&mut table.x[0][at]);
        y.store(&mut table.y[at]);
        if let Some(root) = root {
            x.mul(root).store(&mut table.x[1][at]);
        }
    });
}

/// Adds the multiple that each lane's digit says, found by its amount less 1.
#[inline(always)]
fn add_digits<'a, F: PrimeField<Stored: 'a>>(
    sum: Point<F>,
    digit: impl Fn(usize) -> i16,
    multiple: impl Fn(usize, usize) -> (&'a F::Stored, &'a F::Stored),
) -> Point<F> {
    let (mut is_negative, mut is_zero) = ([false; LANES_MAX], [false; LANES_MAX]);
    let points: [_; LANES_MAX] = std::array::from_fn(|lane| {
        // What is beyond the lanes is not looked at.
        let lane = lane % F::LANES;
        let digit = digit(lane);
        (is_negative[lane], is_zero[lane]) = (digit < 0, digit == 0);
        multiple(usize::from(digit.unsigned_abs()).saturating_sub(1), lane)
    });
    let (x, y) = (F::collect(&points.map(|(x, _)| x)), F::collect(&points.map(|(_, y)| y)));
    let (next, _) = sum.add_affine(x, y.select(y.negative(), &is_negative));
    if is_zero[..F::LANES].contains(&true) { next.select(sum, &is_zero) } else { next }
}

/// The sums of a group, and what they say.
#[inline(always)]
fn finish<C: Curve, F: PrimeField>(
    group: &Group<'_>,
    base: &BaseTable<F::Stored>,
    table: &KeyTable<F::Stored>,
    is_point: [bool; LANES_MAX],
    found: &mut [Found],
) {
    let everywhere = |number| F::collect(&[number; LANES_MAX]);
    let mut sum = Point { x: everywhere(&base.begin[0]), y: everywhere(&base.begin[1]), z: F::splat(&F::ONE) };
    for position in (0..C::POSITIONS).rev() {
        if position + 1 < C::POSITIONS {
            for _ in 0..KEY_DIGIT_BITS {
                sum = sum.double::<C>();
            }
        }
        for half in 0..C::HALVES {
            let digit = |lane| i16::from(group.lane(lane).key[half * C::POSITIONS + position]);
            sum = add_digits::<F>(sum, digit, |at, lane| (&table.x[half][at][lane], &table.y[at][lane]));
        }
        if position.is_multiple_of(2) {
            for half in 0..C::HALVES {
                let digit = |lane| group.lane(lane).base[(half * C::POSITIONS + position) / 2];
                let multiples = &base.multiples[half];
                sum = add_digits::<F>(sum, digit, |at, _| {
                    let [x, y] = &multiples[at];
                    (x, y)
                });
            }
        }
    }
    let before = sum;
    let (sum, slope) = sum.add_affine(everywhere(&base.end[0]), everywhere(&base.end[1]));
    let zz = sum.z.square();
    let candidates = [0, 1].map(|which| {
        let candidate = group.collect::<F>(|claim| &claim.candidates[which]);
        zeros::<C, F>(candidate.mul(zz).sub::<3>(sum.x))
    });
    let is_unknown = zeros::<C, F>(sum.z);
    let (was_known, is_neutral) = (zeros::<C, F>(before.z).map(|zero| !zero), zeros::<C, F>(slope).map(|zero| !zero));
    for (lane, found) in found.iter_mut().enumerate() {
        *found = if !is_point[lane] {
            Found::Invalid
        } else if !is_unknown[lane] {
            if candidates[0][lane] || candidates[1][lane] { Found::Valid } else { Found::Invalid }
        } else if was_known[lane] && is_neutral[lane] {
            // What was taken off is all there was: the sum is the neutral element, which has no x.
            Found::Invalid
        } else {
            Found::Unknown
        };
    }
}
