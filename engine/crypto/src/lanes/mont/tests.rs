//! Montgomery fields beside big-integer arithmetic, of the twins and, where the processor has them, of the instructions.

use super::*;
use crate::lanes::tests::Random;
use crate::lanes::{Field29, Field52, P256, Secp256k1, Twin};

/// The prime of BLS12-381, by the general way.
#[derive(Clone, Copy)]
struct Bls;
impl Modulus for Bls {
    const PRIME: Number = [
        0xb9fe_ffff_ffff_aaab,
        0x1eab_fffe_b153_ffff,
        0x6730_d2a0_f6b0_f624,
        0x6477_4b84_f385_12bf,
        0x4b1b_a7b6_434b_acd7,
        0x1a01_11ea_397f_e69a,
        0,
    ];
}

/// Big-integer arithmetic bit by bit: slow, and nothing like the fields.
mod plain {
    use super::*;

    pub(super) fn mul(a: &Number, b: &Number) -> [u64; 2 * WORDS] {
        let mut product = [0; 2 * WORDS];
        for (i, a) in a.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in b.iter().enumerate() {
                carry += u128::from(product[i + j]) + u128::from(*a) * u128::from(*b);
                product[i + j] = carry as u64;
                carry >>= 64;
            }
            product[i + WORDS] = carry as u64;
        }
        product
    }

    pub(super) fn modulo(number: &[u64], prime: &Number) -> Number {
        let mut rest = [0; WORDS];
        for bit in (0..number.len() * 64).rev() {
            rest = plus(&rest, &rest);
            rest[0] |= number[bit / 64] >> (bit % 64) & 1;
            let (less, is_less) = minus(&rest, prime);
            rest = if is_less { rest } else { less };
        }
        rest
    }
}

/// Random, or at the edges: below the prime.
pub(crate) fn number<M: Modulus>(random: &mut Random) -> Number {
    let kind = random.next() % 8;
    let mut number: Number = std::array::from_fn(|word| match kind {
        0 => 0,
        1 | 2 => M::PRIME[word],
        3 => [0, u64::MAX][random.next() as usize % 2],
        _ => random.next(),
    });
    match kind {
        0 => number[0] = random.next() % 3,
        1 => number[0] -= 1 + random.next() % 3,
        2 => number[0] = number[0].wrapping_add(random.next() % 4).wrapping_sub(2),
        _ => {}
    }
    plain::modulo(&number, &M::PRIME)
}

/// All operations as wide as they may be, in all lanes. A prime without room has products of numbers that are 2 wide at most.
pub(crate) fn check<M: Modulus, F: PrimeField>(has_room: bool) {
    let mut random = Random(F::LANES as u64);
    let prime = &M::PRIME;
    for _ in 0..300 {
        let [a, b, c]: [[Number; LANES_MAX]; 3] =
            std::array::from_fn(|_| std::array::from_fn(|_| number::<M>(&mut random)));
        let pick = |numbers: &[Number; LANES_MAX]| {
            let stored = numbers.map(|number| F::pack(&number));
            F::collect(&std::array::from_fn(|lane| &stored[lane]))
        };
        let to_form = F::splat(&F::TO_FORM);
        let [fa, fb, fc] = [&a, &b, &c].map(|numbers| pick(numbers).mul(to_form));
        let which: [bool; LANES_MAX] = std::array::from_fn(|_| random.next().is_multiple_of(2));
        let sum = fa.add(fb);
        let found = [
            fa.mul(fb),
            fa.square(),
            sum,
            sum.mul(fa.add(fc)),
            sum.square(),
            fa.sub::<3>(fb),
            fa.sub::<3>(fb).mul(fb.sub::<3>(fa)),
            fa.sub_times::<8, 12>(fb),
            fa.sub_times::<8, 12>(fb).square(),
            fa.sub_times::<2, 4>(fc),
            fa.times::<3>(),
            fa.add_loose(fb).mul(fa.times_loose::<2>()),
            fa.times_loose::<2>().square(),
            fa.times_loose::<8>().sub::<6>(fb.times_loose::<2>().add_loose(fc)),
            fa.times::<8>(),
            fa.times::<4>().sub::<6>(fb.times::<3>()),
            if has_room { sum.times::<4>().mul(fb.times::<8>()) } else { fa },
            F::splat(&F::ONE).sub::<3>(fa),
            fa.select(fb, &which),
        ];
        let found = found.map(|value| {
            let zero = [0; WORDS];
            let mut stored = [F::pack(&zero); LANES_MAX];
            value.mul(F::splat(&[1, 0, 0, 0, 0, 0, 0])).store(&mut stored);
            stored.map(|number| canonical::<M>(F::unpack(&number)))
        });
        for lane in 0..F::LANES {
            let [a, b, c] = [a[lane], b[lane], c[lane]];
            let mul = |a: Number, b: Number| plain::modulo(&plain::mul(&a, &b), prime);
            let times = |a: Number, times: u64| mul(a, [times, 0, 0, 0, 0, 0, 0]);
            let add = |a: Number, b: Number| plain::modulo(&plus(&a, &b), prime);
            let sub = |a: Number, b: Number| plain::modulo(&plus(&a, &minus(prime, &b).0), prime);
            let sum = add(a, b);
            let expected = [
                mul(a, b),
                mul(a, a),
                sum,
                mul(sum, add(a, c)),
                mul(sum, sum),
                sub(a, b),
                mul(sub(a, b), sub(b, a)),
                sub(a, times(b, 8)),
                mul(sub(a, times(b, 8)), sub(a, times(b, 8))),
                sub(a, times(c, 2)),
                times(a, 3),
                mul(sum, times(a, 2)),
                mul(times(a, 2), times(a, 2)),
                sub(times(a, 8), add(times(b, 2), c)),
                times(a, 8),
                sub(times(a, 4), times(b, 3)),
                if has_room { mul(times(sum, 4), times(b, 8)) } else { a },
                sub([1, 0, 0, 0, 0, 0, 0], a),
                if which[lane] { b } else { a },
            ];
            for (which, expected) in expected.into_iter().enumerate() {
                assert_eq!(found[which][lane], expected, "operation {which}, lane {lane} of {}", F::LANES);
            }
        }
    }
}

#[test]
fn limbs_where_halves_multiply_compute_modulo_every_prime() {
    check::<Bls, Mont32<Bls, Twin<4>, 14, 28>>(true);
    check::<P256, Field29<P256, Twin<4>>>(false);
    check::<Secp256k1, Field29<Secp256k1, Twin<4>>>(false);
}

#[test]
fn limbs_of_52_bits_compute_modulo_every_prime() {
    check::<Bls, Mont52<Bls, Twin<8>, 8>>(true);
    check::<Bls, Mont52<Bls, Twin<1>, 8>>(true);
    check::<P256, Field52<P256, Twin<8>>>(false);
    check::<Secp256k1, Field52<Secp256k1, Twin<8>>>(false);
}

#[cfg(target_arch = "x86_64")]
#[test]
#[cfg_attr(not(host_avx2), ignore = "this processor has no AVX2")]
fn avx2_computes_modulo_every_prime() {
    use crate::lanes::Avx2;
    assert!(is_x86_feature_detected!("avx2"));
    check::<Bls, Mont32<Bls, Avx2, 14, 28>>(true);
    check::<P256, Field29<P256, Avx2>>(false);
    check::<Secp256k1, Field29<Secp256k1, Avx2>>(false);
}

#[cfg(target_arch = "x86_64")]
#[test]
#[cfg_attr(not(host_ifma), ignore = "this processor has no AVX-512 IFMA")]
fn ifma_computes_modulo_every_prime() {
    use crate::lanes::Avx512;
    assert!(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma"));
    check::<Bls, Mont52<Bls, Avx512, 8>>(true);
    check::<P256, Field52<P256, Avx512>>(false);
    check::<Secp256k1, Field52<Secp256k1, Avx512>>(false);
}
