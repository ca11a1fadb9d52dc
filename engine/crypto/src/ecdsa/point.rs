//! Points of a curve y² = x³ + a·x + b in lanes, in Jacobian coordinates: x = X / Z², y = Y / Z³.
//!
//! None of these formulas holds for the neutral element or where two points that are added have the same x: then Z becomes 0, and stays so for ever. So one
//! look at the last Z finds out.

use crate::lanes::LANES_MAX;
use crate::lanes::mont::{Modulus, Number, PrimeField};

/// What lanes know of a curve.
pub(super) trait Curve {
    /// Coordinates are modulo this.
    type Prime: Modulus;
    /// Whether a = -3; else it is 0.
    const A_IS_MINUS_3: bool;
    /// b.
    const B: Number;
    /// A cube root of 1 that, times x, gives the x of a multiple with the same y, by which a number is split in two halves.
    const CUBE_ROOT: Option<Number>;
    /// Digits of a number, or of each of its halves.
    const POSITIONS: usize = KEY_DIGITS / Self::HALVES;
    /// Halves of a number.
    const HALVES: usize = if Self::CUBE_ROOT.is_some() { 2 } else { 1 };
}

/// Bits of a digit of the key's number, and how many digits there are.
pub(super) const KEY_DIGIT_BITS: usize = 5;
pub(super) const KEY_DIGITS: usize = 52;
/// Multiples that its digits need.
const KEY_MULTIPLES: usize = 1 << (KEY_DIGIT_BITS - 1);

/// A point in each lane. x and y are 1 wide and little more; z is up to 3 wide and may not have carried.
#[derive(Clone, Copy)]
pub(super) struct Point<F> {
    pub x: F,
    pub y: F,
    pub z: F,
}

impl<F: PrimeField> Point<F> {
    /// Cost: 4 products and 4 squares, or one product less without a.
    #[inline(always)]
    pub(super) fn double<C: Curve>(self) -> Self {
        let Self { x, y, z } = self;
        let slope = if C::A_IS_MINUS_3 {
            let zz = z.square();
            x.sub::<3>(zz).mul(x.add_loose(zz))
        } else {
            x.square()
        }
        .times::<3>();
        let yy = y.square();
        let xyy = x.mul(yy);
        let x3 = slope.square().sub_times::<8, 12>(xyy);
        let y3 = slope.mul(xyy.times_loose::<4>().sub::<3>(x3)).sub_times::<8, 12>(yy.square());
        Self { x: x3, y: y3, z: y.mul(z).times_loose::<2>() }
    }

    /// Adds a point with z = 1. The other result is 0 where it was the same point, and not where it was its negative. Cost: 8 products and 3 squares.
    #[inline(always)]
    pub(super) fn add_affine(self, x2: F, y2: F) -> (Self, F) {
        let Self { x, y, z } = self;
        let zz = z.square();
        let dx = x2.mul(zz).sub::<3>(x);
        let dy = y2.mul(z.mul(zz)).sub::<3>(y);
        let dx2 = dx.square();
        let dx3 = dx.mul(dx2);
        let v = x.mul(dx2);
        let x3 = dy.square().sub::<6>(v.times_loose::<2>().add_loose(dx3));
        let y3 = dy.mul(v.sub::<3>(x3)).sub::<3>(y.mul(dx3));
        (Self { x: x3, y: y3, z: z.mul(dx) }, dy)
    }

    #[inline(always)]
    pub(super) fn select(self, other: Self, which: &[bool; LANES_MAX]) -> Self {
        Self { x: self.x.select(other.x, which), y: self.y.select(other.y, which), z: self.z.select(other.z, which) }
    }
}

/// The first multiples of a point, each with a z of its own: x, y, and z in terms of the one before. Of the first z is 1, of the second twice the first y.
pub(super) type Multiples<F> = [[F; 3]; KEY_MULTIPLES];

/// Adds the point again and again, which is kept up to the same z (Meloni): 5 products and 2 squares each. Returns z of the last.
#[inline(always)]
pub(super) fn find_multiples<C: Curve, F: PrimeField>(x: F, y: F, one: F, points: &mut Multiples<F>) -> F {
    let yy = y.square();
    let xyy = x.mul(yy);
    let yyyy = yy.square();
    let slope = if C::A_IS_MINUS_3 { x.square().sub::<2>(one) } else { x.square() }.times::<3>();
    let twice_x = slope.square().sub_times::<8, 12>(xyy);
    let twice_y = slope.mul(xyy.times_loose::<4>().sub::<3>(twice_x)).sub_times::<8, 12>(yyyy);
    let mut z = y.times_loose::<2>();
    points[0] = [x, y, one];
    points[1] = [twice_x, twice_y, z];
    let (mut x1, mut y1) = (xyy.times_loose::<4>().folded(), yyyy.times_loose::<8>().folded());
    for at in 2..KEY_MULTIPLES {
        let [x2, y2, _] = points[at - 1];
        let (dx, dy) = (x2.sub::<3>(x1), y2.sub::<3>(y1));
        let dx2 = dx.square();
        let (moved, other) = (x1.mul(dx2), x2.mul(dx2));
        let x3 = dy.square().sub::<4>(moved.add_loose(other));
        y1 = y1.mul(other.sub::<3>(moved));
        x1 = moved;
        points[at] = [x3, dy.mul(x1.sub::<3>(x3)).sub::<3>(y1), dx];
        z = z.mul(dx);
    }
    z
}

/// x and y of each with z = 1, from 1 / z of the last.
#[inline(always)]
pub(super) fn to_affine<F: PrimeField>(points: &Multiples<F>, mut inverse: F, mut to: impl FnMut(usize, F, F)) {
    for (at, [x, y, step]) in points.iter().enumerate().skip(1).rev() {
        let square = inverse.square();
        to(at, x.mul(square), y.mul(square.mul(inverse)));
        inverse = inverse.mul(*step);
    }
    let [x, y, _] = points[0];
    to(0, x, y);
}

/// Affine multiples of the key in each lane; with halves, also the x of the other half's.
pub(super) struct KeyTable<S> {
    pub x: [[[S; LANES_MAX]; KEY_MULTIPLES]; 2],
    pub y: [[S; LANES_MAX]; KEY_MULTIPLES],
}

impl<S: Copy> KeyTable<S> {
    pub(super) fn new(nothing: S) -> Self {
        Self { x: [[[nothing; LANES_MAX]; KEY_MULTIPLES]; 2], y: [[nothing; LANES_MAX]; KEY_MULTIPLES] }
    }
}
