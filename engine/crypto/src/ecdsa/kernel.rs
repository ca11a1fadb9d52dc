//! The kernel of a batch, for each kind of lanes.

use crate::ecdsa::lanes::{BasePoints, BaseTable, Claim, Found, check};
use crate::ecdsa::point::Curve;
use crate::ed25519::Kernel;
use crate::lanes::{Field29, Field52, Twin};
use std::sync::OnceLock;

/// The multiples of a curve's base point, made for the first batch.
pub(super) struct Tables {
    halves: OnceLock<BaseTable<[u32; 9]>>,
    wide: OnceLock<BaseTable<[u64; 5]>>,
}

impl Tables {
    pub(super) const fn new() -> Self {
        Self { halves: OnceLock::new(), wide: OnceLock::new() }
    }

    fn halves<C: Curve>(&self, points: fn() -> BasePoints) -> &BaseTable<[u32; 9]> {
        self.halves.get_or_init(|| BaseTable::of::<Field29<C::Prime, Twin<4>>>(&points()))
    }

    fn wide<C: Curve>(&self, points: fn() -> BasePoints) -> &BaseTable<[u64; 5]> {
        self.wide.get_or_init(|| BaseTable::of::<Field52<C::Prime, Twin<1>>>(&points()))
    }
}

/// Finds out about each claim. Panics: if the kernel is not available.
pub(super) fn check_claims<C: Curve>(
    kernel: Kernel,
    tables: &Tables,
    points: fn() -> BasePoints,
    claims: &[Claim],
    found: &mut [Found],
) {
    kernel.assert_available();
    match kernel {
        Kernel::Single => check::<C, Field52<C::Prime, Twin<1>>>(claims, tables.wide::<C>(points), found),
        Kernel::Avx2Twin => check::<C, Field29<C::Prime, Twin<4>>>(claims, tables.halves::<C>(points), found),
        Kernel::IfmaTwin => check::<C, Field52<C::Prime, Twin<8>>>(claims, tables.wide::<C>(points), found),
        Kernel::Avx2 => x86::check_avx2::<C>(claims, tables.halves::<C>(points), found),
        Kernel::Ifma => x86::check_ifma::<C>(claims, tables.wide::<C>(points), found),
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::*;
    use crate::lanes::{Avx2, Avx512};

    #[target_feature(enable = "avx2")]
    fn check_in_avx2<C: Curve>(claims: &[Claim], base: &BaseTable<[u32; 9]>, found: &mut [Found]) {
        check::<C, Field29<C::Prime, Avx2>>(claims, base, found);
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn check_in_ifma<C: Curve>(claims: &[Claim], base: &BaseTable<[u64; 5]>, found: &mut [Found]) {
        check::<C, Field52<C::Prime, Avx512>>(claims, base, found);
    }

    pub(super) fn check_avx2<C: Curve>(claims: &[Claim], base: &BaseTable<[u32; 9]>, found: &mut [Found]) {
        // SAFETY: the caller has asserted that the processor has AVX2.
        unsafe { check_in_avx2::<C>(claims, base, found) }
    }

    pub(super) fn check_ifma<C: Curve>(claims: &[Claim], base: &BaseTable<[u64; 5]>, found: &mut [Found]) {
        // SAFETY: the caller has asserted that the processor has AVX-512 F and IFMA.
        unsafe { check_in_ifma::<C>(claims, base, found) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    use super::*;

    pub(super) fn check_avx2<C: Curve>(_: &[Claim], _: &BaseTable<[u32; 9]>, _: &mut [Found]) {
        unreachable!("asserted to be available");
    }

    pub(super) fn check_ifma<C: Curve>(_: &[Claim], _: &BaseTable<[u64; 5]>, _: &mut [Found]) {
        unreachable!("asserted to be available");
    }
}
