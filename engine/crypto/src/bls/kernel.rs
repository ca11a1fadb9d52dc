//! The kernel of a batch, for each kind of lanes.

use crate::bls::lanes::{Prime, points};
use crate::ed25519::Kernel;
use crate::lanes::Twin;
use crate::lanes::mont::{Mont32, Mont52};

/// Fourteen limbs of 28 bits; eight of 52.
type Field28<W> = Mont32<Prime, W, 14, 28>;
type Field52<W> = Mont52<Prime, W, 8>;

/// The points of the group, but the identity, that signatures are encodings of. Panics: if the kernel is not available.
pub(super) fn signature_points(kernel: Kernel, encodings: &[&[u8; 48]], found: &mut [Option<[u8; 96]>]) {
    kernel.assert_available();
    match kernel {
        Kernel::Single => points::<Field52<Twin<1>>>(encodings, found),
        Kernel::Avx2Twin => points::<Field28<Twin<4>>>(encodings, found),
        Kernel::IfmaTwin => points::<Field52<Twin<8>>>(encodings, found),
        Kernel::Avx2 => x86::points_avx2(encodings, found),
        Kernel::Ifma => x86::points_ifma(encodings, found),
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::*;
    use crate::lanes::{Avx2, Avx512};

    #[target_feature(enable = "avx2")]
    fn points_in_avx2(encodings: &[&[u8; 48]], found: &mut [Option<[u8; 96]>]) {
        points::<Field28<Avx2>>(encodings, found);
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn points_in_ifma(encodings: &[&[u8; 48]], found: &mut [Option<[u8; 96]>]) {
        points::<Field52<Avx512>>(encodings, found);
    }

    pub(super) fn points_avx2(encodings: &[&[u8; 48]], found: &mut [Option<[u8; 96]>]) {
        // SAFETY: the caller has asserted that the processor has AVX2.
        unsafe { points_in_avx2(encodings, found) }
    }

    pub(super) fn points_ifma(encodings: &[&[u8; 48]], found: &mut [Option<[u8; 96]>]) {
        // SAFETY: the caller has asserted that the processor has AVX-512 F and IFMA.
        unsafe { points_in_ifma(encodings, found) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    pub(super) fn points_avx2(_: &[&[u8; 48]], _: &mut [Option<[u8; 96]>]) {
        unreachable!("asserted to be available");
    }

    pub(super) fn points_ifma(_: &[&[u8; 48]], _: &mut [Option<[u8; 96]>]) {
        unreachable!("asserted to be available");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bls::lanes::Z;
    use blstrs::{G1Affine, G1Projective, Scalar};
    use group::Group;
    use group::ff::Field;
    use group::prime::PrimeCurveAffine;

    /// Signatures, and all that is none.
    fn encodings() -> Vec<[u8; 48]> {
        let point = |n: u64| G1Affine::from(G1Projective::generator() * Scalar::from(n));
        let mut all: Vec<[u8; 48]> =
            (1..24).flat_map(|n| [point(n), -point(n * n + 77)]).map(|p| p.to_compressed()).collect();
        all.push(G1Affine::identity().to_compressed());
        // Every x from 0 on: no points, points outside of the group; with each of the eight flags.
        for x in 0..16 {
            for flags in 0..8u8 {
                let mut bytes = [0; 48];
                (bytes[0], bytes[47]) = (flags << 5, x);
                all.push(bytes);
            }
        }
        let outside: Vec<G1Projective> = all
            .iter()
            .filter_map(|bytes| Option::<G1Affine>::from(G1Affine::from_compressed_unchecked(bytes)))
            .filter(|point| !bool::from(point.is_torsion_free()))
            .map(G1Projective::from)
            .collect();
        assert!(outside.len() > 5);
        for point in outside {
            // A point of the cofactor's order, and of divisors of it: 3, 11 and others of (z - 1)² / 3. Sums with points of the group.
            let small = point * -Scalar::ONE + point;
            for divisor in [1, 3, 11, 10_177, 11 * 10_177, 3 * 11 * 10_177, 859_267, 52_437_899] {
                // The rest of z - 1 leaves one of the divisor's order, or the identity.
                let point = small * Scalar::from((Z + 1) / divisor);
                all.extend([point, point + G1Projective::generator()].map(|p| G1Affine::from(p).to_compressed()));
            }
        }
        // x at the prime and above, and the same flagged.
        for add in 0..4u8 {
            let mut bytes = *b"\x9a\x01\x11\xea\x39\x7f\xe6\x9a\x4b\x1b\xa7\xb6\x43\x4b\xac\xd7\x64\x77\x4b\x84\xf3\x85\x12\xbf\x67\x30\xd2\xa0\xf6\xb0\xf6\x24\x1e\xab\xff\xfe\xb1\x53\xff\xff\xb9\xfe\xff\xff\xff\xff\xaa\xaa";
            bytes[47] += add;
            all.push(bytes);
            bytes[0] |= 0x20;
            all.push(bytes);
        }
        all.extend([[0xff; 48], [0x9f; 48], [0xbf; 48]]);
        all
    }

    fn check(kernel: Kernel) {
        let all = encodings();
        let expected: Vec<Option<[u8; 96]>> = all
            .iter()
            .map(|bytes| {
                let point = Option::<G1Affine>::from(G1Affine::from_compressed(bytes))?;
                (!bool::from(point.is_identity())).then(|| point.to_uncompressed())
            })
            .collect();
        assert!(expected.iter().flatten().count() > 40);
        for size in [0, 1, 2, 7, 8, 9, 63, 64, 65, all.len()] {
            let encodings: Vec<&[u8; 48]> = all.iter().rev().cycle().take(size).collect();
            let mut found = vec![Some([1; 96]); size];
            signature_points(kernel, &encodings, &mut found);
            for (at, (found, expected)) in found.iter().zip(expected.iter().rev().cycle()).enumerate() {
                assert_eq!(found, expected, "{kernel:?}, {:02x?}", encodings[at]);
            }
        }
    }

    #[test]
    fn points_are_those_of_blst() {
        [Kernel::Single, Kernel::Avx2Twin, Kernel::IfmaTwin].into_iter().for_each(check);
    }

    #[test]
    #[cfg_attr(not(host_avx2), ignore = "this processor has no AVX2")]
    fn points_in_lanes_of_avx2_are_those_of_blst() {
        check(Kernel::Avx2);
    }

    #[test]
    #[cfg_attr(not(host_ifma), ignore = "this processor has no AVX-512 IFMA")]
    fn points_in_lanes_of_avx512_are_those_of_blst() {
        check(Kernel::Ifma);
    }

    /// x of the generator of G1 and of its first multiples.
    const MULTIPLES: [&str; 9] = [
        "17f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb",
        "0572cbea904d67468808c8eb50a9450c9721db309128012543902d0ac358a62ae28f75bb8f1c7c42c39a8c5529bf0f4e",
        "09ece308f9d1f0131765212deca99697b112d61f9be9a5f1f3780a51335b3ff981747a0b2ca2179b96d2c0c9024e5224",
        "0c9b60d5afcbd5663a8a44b7c5a02f19e9a77ab0a35bd65809bb5c67ec582c897feb04decc694b13e08587f3ff9b5b60",
        "10e7791fb972fe014159aa33a98622da3cdc98ff707965e536d8636b5fcc5ac7a91a8c46e59a00dca575af0f18fb13dc",
        "06e82f6da4520f85c5d27d8f329eccfa05944fd1096b20734c894966d12a9e2a9a9744529d7212d33883113a0cadb909",
        "1928f3beb93519eecf0145da903b40a4c97dca00b21f12ac0df3be9116ef2ef27b2ae6bcd4c5bc2d54ef5a70627efcb7",
        "085ae765588126f5e860d019c0e26235f567a9c0c0b2d8ff30f3e8d436b1082596e5e7462d20f5be3764fd473e57f9cf",
        "19cdf3807146e68e041314ca93e1fee0991224ec2a74beb2866816fd0826ce7b6263ee31e953a86d1b72cc2215a57793",
    ];

    #[test]
    #[cfg_attr(not(host_ifma), ignore = "this processor has no AVX-512 IFMA")]
    fn points_in_lanes_of_avx512_are_those_of_their_twins() {
        let multiples = MULTIPLES.map(|x| <[u8; 48]>::try_from(hex::decode(x).unwrap()).unwrap());
        // Between them, seeded ones: half are on the curve, none in the group.
        let mut state = 5u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for size in [1, 2, 7, 8, 9, 63, 64, 65] {
            let all: Vec<[u8; 48]> = (0..size)
                .map(|at| {
                    let mut bytes = if at % 3 == 0 { multiples[at / 3 % 9] } else { std::array::from_fn(|_| random()) };
                    bytes[0] = bytes[0] & 0x1f | if at % 2 == 0 { 0x80 } else { 0xa0 };
                    bytes
                })
                .collect();
            let encodings: Vec<&[u8; 48]> = all.iter().collect();
            let (mut found, mut expected) = (vec![None; size], vec![None; size]);
            signature_points(Kernel::Ifma, &encodings, &mut found);
            signature_points(Kernel::IfmaTwin, &encodings, &mut expected);
            assert_eq!(found, expected);
            assert!((0..size).all(|at| found[at].is_some() == (at % 3 == 0)), "{size}");
        }
    }
}
