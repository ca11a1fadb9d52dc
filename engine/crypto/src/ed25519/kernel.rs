//! The two kernels of a batch, for each kind of lanes.

use crate::ed25519::decompress::decompress;
use crate::ed25519::point::Addend;
use crate::ed25519::sum::{Product, sum_is_small_order};
use crate::lanes::{Field25, Field51, Pair, Single, Twin};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// One number after the other.
    Single,
    /// Four lanes of AVX2.
    Avx2,
    /// What AVX2 computes, on arrays.
    Avx2Twin,
    /// Eight lanes of AVX-512 IFMA.
    Ifma,
    /// What AVX-512 IFMA computes, on arrays.
    IfmaTwin,
}

impl Kernel {
    /// Whether this machine can run it.
    pub(crate) fn is_available(self) -> bool {
        match self {
            Self::Single | Self::Avx2Twin | Self::IfmaTwin => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Ifma => false,
        }
    }

    /// Panics: if it is not available.
    pub(crate) fn assert_available(self) {
        assert!(self.is_available(), "{self:?} is not available on this machine");
    }

    /// The negatives of the encoded points.
    pub(super) fn decompress(self, encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
        self.assert_available();
        match self {
            Self::Single => decompress::<Single>(encodings, points, valid),
            Self::Avx2Twin => decompress::<Pair<Field25<Twin<4>>>>(encodings, points, valid),
            Self::IfmaTwin => decompress::<Field51<Twin<8>>>(encodings, points, valid),
            Self::Avx2 => x86::decompress_avx2(encodings, points, valid),
            Self::Ifma => x86::decompress_ifma(encodings, points, valid),
        }
    }

    /// Whether eight times the sum of the products is the neutral element.
    pub(super) fn sum_is_small_order(self, points: &[Addend], products: &[Product]) -> bool {
        self.assert_available();
        match self {
            Self::Single => sum_is_small_order::<Single>(points, products),
            Self::Avx2Twin => sum_is_small_order::<Field25<Twin<4>>>(points, products),
            Self::IfmaTwin => sum_is_small_order::<Field51<Twin<8>>>(points, products),
            Self::Avx2 => x86::sum_avx2(points, products),
            Self::Ifma => x86::sum_ifma(points, products),
        }
    }

    /// An addend of this kernel from limbs of 51 bits.
    pub(super) fn pack(self, point: &Addend) -> Addend {
        use crate::lanes::Field;
        match self {
            Self::Avx2 | Self::Avx2Twin => point.map(Field25::<Twin<4>>::pack),
            Self::Single | Self::Ifma | Self::IfmaTwin => *point,
        }
    }

    /// The inverse of [`Kernel::pack`], up to limbs of some bits more.
    pub(super) fn unpack(self, point: &Addend) -> Addend {
        use crate::lanes::Field;
        match self {
            Self::Avx2 | Self::Avx2Twin => std::array::from_fn(|at| Field25::<Twin<4>>::unpack(&point[at])),
            Self::Single | Self::Ifma | Self::IfmaTwin => *point,
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::*;
    use crate::lanes::{Avx2, Avx512};

    #[target_feature(enable = "avx2")]
    fn decompress_in_avx2(encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
        decompress::<Pair<Field25<Avx2>>>(encodings, points, valid);
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn decompress_in_ifma(encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
        decompress::<Field51<Avx512>>(encodings, points, valid);
    }

    #[target_feature(enable = "avx2")]
    fn sum_in_avx2(points: &[Addend], products: &[Product]) -> bool {
        sum_is_small_order::<Field25<Avx2>>(points, products)
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn sum_in_ifma(points: &[Addend], products: &[Product]) -> bool {
        sum_is_small_order::<Field51<Avx512>>(points, products)
    }

    pub(super) fn decompress_avx2(encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
        // SAFETY: the caller has asserted that the processor has AVX2.
        unsafe { decompress_in_avx2(encodings, points, valid) }
    }

    pub(super) fn decompress_ifma(encodings: &[&[u8; 32]], points: &mut [Addend], valid: &mut [bool]) {
        // SAFETY: the caller has asserted that the processor has AVX-512 F and IFMA.
        unsafe { decompress_in_ifma(encodings, points, valid) }
    }

    pub(super) fn sum_avx2(points: &[Addend], products: &[Product]) -> bool {
        // SAFETY: the caller has asserted that the processor has AVX2.
        unsafe { sum_in_avx2(points, products) }
    }

    pub(super) fn sum_ifma(points: &[Addend], products: &[Product]) -> bool {
        // SAFETY: the caller has asserted that the processor has AVX-512 F and IFMA.
        unsafe { sum_in_ifma(points, products) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    use super::*;

    pub(super) fn decompress_avx2(_: &[&[u8; 32]], _: &mut [Addend], _: &mut [bool]) {
        unreachable!("asserted to be available");
    }

    pub(super) fn decompress_ifma(_: &[&[u8; 32]], _: &mut [Addend], _: &mut [bool]) {
        unreachable!("asserted to be available");
    }

    pub(super) fn sum_avx2(_: &[Addend], _: &[Product]) -> bool {
        unreachable!("asserted to be available");
    }

    pub(super) fn sum_ifma(_: &[Addend], _: &[Product]) -> bool {
        unreachable!("asserted to be available");
    }
}
