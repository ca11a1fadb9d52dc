//! Points of edwards25519, `-x² + y² = 1 + d·x²·y²`, one in each lane.
//!
//! Spec: Hisil, Wong, Carter, Dawson, "Twisted Edwards Curves Revisited", the formulas for a = -1. They are complete: no pair of points is a special case.

use crate::lanes::{Field, LANES_MAX, Packed, canonical};

/// d = -121665 / 121666.
pub(super) const D: [u64; 5] = [0x34dca135978a3, 0x1a8283b156ebd, 0x5e7a26001c029, 0x739c663a03cbb, 0x52036cee2b6ff];
/// A square root of -1.
pub(super) const SQRT_MINUS_ONE: [u64; 5] =
    [0x61b274a0ea0b0, 0x0d5a5fc8f189d, 0x7ef5e9cbd0c60, 0x78595a6804c9e, 0x2b8324804fc1d];
pub(super) const ONE: [u64; 5] = [1, 0, 0, 0, 0];
pub(super) const ZERO: [u64; 5] = [0; 5];
pub(super) const MINUS_ONE: [u64; 5] =
    [0x7ffffffffffec, 0x7ffffffffffff, 0x7ffffffffffff, 0x7ffffffffffff, 0x7ffffffffffff];

/// A point to add, with z = 1: y + x, y - x, 2d·x·y, and the negative of that. The first two in turn and the other last one are its negative.
pub(super) type Addend = [Packed; 4];

/// The neutral element as an addend.
pub(super) fn neutral<F: Field>() -> Addend {
    [F::pack(ONE), F::pack(ONE), F::pack(ZERO), F::pack(ZERO)]
}

/// A point in each lane: x = X / Z, y = Y / Z, x·y = T / Z. All reduced.
#[derive(Clone, Copy)]
pub(super) struct Point<F> {
    pub x: F,
    pub y: F,
    pub z: F,
    pub t: F,
}

/// A point as the other side of an addition: Y + X, Y - X, 2Z, 2d·T. All reduced.
pub(super) type Stored = [Packed; 4];

impl<F: Field> Point<F> {
    #[inline(always)]
    pub(super) fn neutral() -> Self {
        Self { x: F::splat(ZERO), y: F::splat(ONE), z: F::splat(ONE), t: F::splat(ZERO) }
    }

    /// From A, B, C, D of the paper: D may be 2 wide, the others are reduced.
    #[inline(always)]
    fn finish(a: F, b: F, c: F, d: F) -> Self {
        let (e, f, g, h) = (b.sub(a), d.sub(c), d.add(c), b.add(a));
        Self { x: f.mul(e), y: g.mul(h), z: f.mul(g), t: e.mul(h) }
    }

    /// Adds points with z = 1, given by y + x, y - x and 2d·x·y. Cost: 7 products.
    #[inline(always)]
    pub(super) fn add_affine(self, y_plus_x: F, y_minus_x: F, t2d: F) -> Self {
        let a = self.y.sub(self.x).mul(y_minus_x);
        let b = self.y.add(self.x).mul(y_plus_x);
        let c = self.t.mul(t2d);
        Self::finish(a, b, c, self.z.add(self.z))
    }

    /// Adds what [`Point::store`] wrote. Cost: 8 products.
    #[inline(always)]
    pub(super) fn add_stored(self, y_plus_x: F, y_minus_x: F, z2: F, t2d: F) -> Self {
        let a = self.y.sub(self.x).mul(y_minus_x);
        let b = self.y.add(self.x).mul(y_plus_x);
        let c = self.t.mul(t2d);
        let d = self.z.mul(z2);
        Self::finish(a, b, c, d)
    }

    /// Y + X, Y - X, 2Z, 2d·T, reduced. Cost: 1 product and 3 others.
    #[inline(always)]
    pub(super) fn to_add(self, d2: F) -> [F; 4] {
        let zero = F::splat(ZERO);
        [
            self.y.add(self.x).sub_reduced(zero),
            self.y.sub_reduced(self.x),
            self.z.add(self.z).sub_reduced(zero),
            self.t.mul(d2),
        ]
    }

    /// Cost: 9 products.
    #[inline(always)]
    pub(super) fn add(self, other: Self, d2: F) -> Self {
        let [y_plus_x, y_minus_x, z2, t2d] = other.to_add(d2);
        self.add_stored(y_plus_x, y_minus_x, z2, t2d)
    }

    /// Cost: 4 products and 4 squares. All four results have the other sign, which is the same point.
    #[inline(always)]
    pub(super) fn double(self) -> Self {
        let (a, b, zz) = (self.x.square(), self.y.square(), self.z.square());
        let h = a.add(b);
        let e = self.x.add(self.y).square().sub_reduced(h);
        let g = b.sub_reduced(a);
        let f = zz.add(zz).sub(g);
        Self { x: f.mul(e), y: g.mul(h), z: f.mul(g), t: e.mul(h) }
    }

    /// The coordinates of each lane; `to[coordinate][lane]`.
    #[inline(always)]
    pub(super) fn store(self, to: &mut [[Packed; LANES_MAX]; 4]) {
        let [x, y, z, t] = to;
        self.x.store(x);
        self.y.store(y);
        self.z.store(z);
        self.t.store(t);
    }
}

/// Whether eight times the point is the neutral element, in the first lane.
pub(super) fn is_small_order<F: Field>(point: Point<F>) -> bool {
    let mut coordinates = [[ZERO; LANES_MAX]; 4];
    point.double().double().double().store(&mut coordinates);
    let [x, y, z, _] = coordinates.map(|of| canonical(F::unpack(&of[0])));
    x == ZERO && y == z
}
