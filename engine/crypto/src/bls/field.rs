//! The fields of coordinates in G1 and G2, with blst's arithmetic.
#![allow(unsafe_code)]

use blst::*;

/// A number of a field.
pub(super) trait Coordinate: Copy + PartialEq {
    fn plus(&self, other: &Self) -> Self;
    fn minus(&self, other: &Self) -> Self;
    fn times(&self, other: &Self) -> Self;
    fn square(&self) -> Self;
    fn negative(&self) -> Self;
    /// 0 of 0.
    fn inverse(&self) -> Self;
}

macro_rules! coordinate {
    ($field:ty, $add:ident, $sub:ident, $mul:ident, $sqr:ident, $cneg:ident, $inverse:ident) => {
        impl Coordinate for $field {
            #[inline]
            fn plus(&self, other: &Self) -> Self {
                let mut sum = Self::default();
                // SAFETY: all point to numbers, of which the first is written, here and below.
                unsafe { $add(&mut sum, self, other) };
                sum
            }
            #[inline]
            fn minus(&self, other: &Self) -> Self {
                let mut difference = Self::default();
                // SAFETY: as above.
                unsafe { $sub(&mut difference, self, other) };
                difference
            }
            #[inline]
            fn times(&self, other: &Self) -> Self {
                let mut product = Self::default();
                // SAFETY: as above.
                unsafe { $mul(&mut product, self, other) };
                product
            }
            #[inline]
            fn square(&self) -> Self {
                let mut square = Self::default();
                // SAFETY: as above.
                unsafe { $sqr(&mut square, self) };
                square
            }
            #[inline]
            fn negative(&self) -> Self {
                let mut negative = Self::default();
                // SAFETY: as above.
                unsafe { $cneg(&mut negative, self, true) };
                negative
            }
            #[inline]
            fn inverse(&self) -> Self {
                let mut inverse = Self::default();
                // SAFETY: as above.
                unsafe { $inverse(&mut inverse, self) };
                inverse
            }
        }
    };
}

coordinate!(blst_fp, blst_fp_add, blst_fp_sub, blst_fp_mul, blst_fp_sqr, blst_fp_cneg, blst_fp_eucl_inverse);
coordinate!(blst_fp2, blst_fp2_add, blst_fp2_sub, blst_fp2_mul, blst_fp2_sqr, blst_fp2_cneg, blst_fp2_eucl_inverse);
