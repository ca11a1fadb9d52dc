//! Every field beside the scalar crate's arithmetic; words beside their twins, where the processor has them.

use super::word::{Madd52, Mul32, Word};
use super::*;
use curve25519_dalek::scalar::Scalar;

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Limbs of 51 bits: random, or at the edges.
    fn number(&mut self) -> [u64; 5] {
        let kind = self.next() % 8;
        std::array::from_fn(|limb| match kind {
            0 => field51::MASK,
            1 => 0,
            2 => u64::from(limb == 0),
            3 if limb == 0 => field51::MASK - 18 - self.next() % 3,
            3 => field51::MASK,
            4 => [0, field51::MASK][self.next() as usize % 2],
            _ => self.next() & field51::MASK,
        })
    }
}

/// Big-integer arithmetic by schoolbook on 32-bit digits: slow, and nothing like the fields.
mod plain {
    pub(super) type Number = Vec<u32>;

    pub(super) fn of(limbs: [u64; 5]) -> Number {
        let mut number = vec![0u32; 17];
        for (limb, value) in limbs.into_iter().enumerate() {
            for bit in (0..64).filter(|bit| value >> bit & 1 == 1) {
                add_bit(&mut number, 51 * limb + bit);
            }
        }
        number
    }

    fn add_bit(number: &mut Number, bit: usize) {
        let (mut digit, mut carry) = (bit / 32, 1u64 << (bit % 32));
        while carry != 0 {
            carry += u64::from(number[digit]);
            number[digit] = carry as u32;
            carry >>= 32;
            digit += 1;
        }
    }

    pub(super) fn mul(a: &Number, b: &Number) -> Number {
        let mut product = vec![0u32; a.len() + b.len() + 1];
        for (i, a) in a.iter().enumerate() {
            let mut carry = 0u64;
            for (j, b) in b.iter().enumerate() {
                carry += u64::from(product[i + j]) + u64::from(*a) * u64::from(*b);
                product[i + j] = carry as u32;
                carry >>= 32;
            }
            product[i + b.len()] = carry as u32;
        }
        product
    }

    /// Modulo 2^255 - 19 as limbs of 51 bits, bit by bit from the top.
    pub(super) fn modulo(number: &Number) -> [u64; 5] {
        // 2r + bit, less the prime where it is not below, on 9 digits.
        let prime: Vec<u32> = std::iter::once(0xffff_ffed).chain([u32::MAX; 6]).chain([0x7fff_ffff, 0]).collect();
        let mut rest = vec![0u32; 9];
        for bit in (0..number.len() * 32).rev() {
            let mut carry = number[bit / 32] >> (bit % 32) & 1;
            for digit in &mut rest {
                let top = *digit >> 31;
                *digit = *digit << 1 | carry;
                carry = top;
            }
            if rest.iter().rev().ge(prime.iter().rev()) {
                let mut borrow = 0i64;
                for (digit, prime) in rest.iter_mut().zip(&prime) {
                    borrow += i64::from(*digit) - i64::from(*prime);
                    *digit = borrow as u32;
                    borrow >>= 32;
                }
            }
        }
        let mut bytes = [0; 32];
        rest[..8]
            .iter()
            .zip(bytes.chunks_mut(4))
            .for_each(|(digit, bytes)| bytes.copy_from_slice(&digit.to_le_bytes()));
        super::limbs(&bytes)
    }
}

fn pick<F: Field>(numbers: &[[u64; 5]; LANES_MAX]) -> F {
    let packed = numbers.map(F::pack);
    F::collect(&std::array::from_fn(|lane| &packed[lane]))
}

fn values<F: Field>(field: F) -> Vec<[u64; 5]> {
    let mut packed = [[0; 5]; LANES_MAX];
    field.store(&mut packed);
    packed[..F::LANES].iter().map(|packed| canonical(F::unpack(packed))).collect()
}

/// All operations at their widest, in all lanes.
fn check_field<F: Field>() {
    let mut random = Random(F::LANES as u64);
    for _ in 0..300 {
        let numbers: [[[u64; 5]; LANES_MAX]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| random.number()));
        let [a, b, c] = numbers;
        let (fa, fb, fc) = (pick::<F>(&a), pick::<F>(&b), pick::<F>(&c));
        // Reduced ones to begin with: what a product is.
        let one = F::splat([1, 0, 0, 0, 0]);
        let (fa, fb, fc) = (fa.mul(one), fb.mul(one), fc.mul(one));
        let five = fa.sub(fb).add(fa.sub(fc));
        let five = if F::LANES == 1 { five } else { fa.sub(fb).add(fa).add(fb) };
        let three = fb.sub(fa);
        let widest = three.mul(three);
        let wide = five.mul(three);
        let results = [
            values(fa.mul(fb)),
            values(fa.square()),
            values(fa.add(fb).mul(one)),
            values(fa.sub(fb).mul(one)),
            values(fa.sub_reduced(fb.add(fc).add(fb))),
            values(wide),
            values(widest),
            values(three.square()),
        ];
        let from = |limbs: [u64; 5]| limbs;
        for lane in 0..F::LANES {
            let [a, b, c] = [a, b, c].map(|numbers| from(numbers[lane]));
            let times = |a: [u64; 5], b: [u64; 5]| plain::modulo(&plain::mul(&plain::of(a), &plain::of(b)));
            let plus = |a: [u64; 5], b: [u64; 5]| plain::modulo(&plain::of(std::array::from_fn(|i| a[i] + b[i])));
            let minus_one = canonical([field51::MASK - 19, field51::MASK, field51::MASK, field51::MASK, field51::MASK]);
            let minus = |a: [u64; 5], b: [u64; 5]| plus(a, times(b, minus_one));
            let b_minus_a = minus(b, a);
            let five = if F::LANES == 1 { plus(minus(a, b), minus(a, c)) } else { plus(minus(a, b), plus(a, b)) };
            let expected = [
                times(a, b),
                times(a, a),
                plus(a, b),
                minus(a, b),
                minus(a, plus(plus(b, c), b)),
                times(five, b_minus_a),
                times(b_minus_a, b_minus_a),
                times(b_minus_a, b_minus_a),
            ];
            for (which, expected) in expected.into_iter().enumerate() {
                assert_eq!(results[which][lane], expected, "operation {which}, lane {lane} of {}", F::LANES);
            }
        }
    }
}

#[test]
fn one_number_alone_computes_modulo_the_prime() {
    check_field::<Single>();
}

#[test]
fn ten_limbs_compute_modulo_the_prime() {
    check_field::<Field25<Twin<4>>>();
    check_field::<Pair<Field25<Twin<4>>>>();
}

#[test]
fn five_limbs_compute_modulo_the_prime() {
    check_field::<Field51<Twin<8>>>();
}

#[test]
fn the_canonical_form_is_below_the_prime() {
    let prime = [field51::MASK - 18, field51::MASK, field51::MASK, field51::MASK, field51::MASK];
    assert_eq!(canonical(prime), [0; 5]);
    assert_eq!(
        canonical([prime[0] - 1, prime[1], prime[2], prime[3], prime[4]]),
        [prime[0] - 1, prime[1], prime[2], prime[3], prime[4]]
    );
    assert_eq!(canonical([field51::MASK; 5]), [18, 0, 0, 0, 0]);
    let mut random = Random(3);
    for _ in 0..1_000 {
        let number = random.number();
        assert_eq!(canonical(number), plain::modulo(&plain::of(number)));
        let wide = number.map(|limb| limb << 12 | 0xfff);
        assert_eq!(canonical(wide), plain::modulo(&plain::of(wide)));
    }
    // Limbs are what bytes say.
    let bytes = (-Scalar::ONE).to_bytes();
    let number = limbs(&bytes);
    assert_eq!(number[0], u64::from_le_bytes(bytes[..8].try_into().unwrap()) & field51::MASK);
    assert_eq!(number[4], u64::from_le_bytes(bytes[24..].try_into().unwrap()) >> 12);
}

/// Every operation of a word beside its twin's.
#[cfg(target_arch = "x86_64")]
fn check_word<W: Word, const N: usize>(
    more: impl Fn(W, W, W) -> Vec<W>,
    twins: impl Fn(Twin<N>, Twin<N>, Twin<N>) -> Vec<Twin<N>>,
) {
    assert_eq!(W::LANES, N);
    let mut random = Random(9);
    for _ in 0..1_000 {
        let numbers: [Packed; LANES_MAX] = std::array::from_fn(|_| {
            std::array::from_fn(|_| match random.next() % 4 {
                0 => u64::MAX,
                1 => random.next() >> 12,
                _ => random.next(),
            })
        });
        let numbers = std::array::from_fn(|lane| &numbers[lane]);
        let [a, b, c] = [0, 1, 2].map(|limb| W::collect(&numbers, limb));
        let [x, y, z] = [0, 1, 2].map(|limb| Twin::<N>::collect(&numbers, limb));
        let mut results =
            vec![a, W::splat(7), a.add(b), a.sub(b), a.and(b), a.or(b), a.shl::<4>(), a.shr::<26>(), b.shr::<51>()];
        let mut expected =
            vec![x, Twin::splat(7), x.add(y), x.sub(y), x.and(y), x.or(y), x.shl::<4>(), x.shr::<26>(), y.shr::<51>()];
        // All bits of a lane, or none.
        let mask: [u64; LANES_MAX] = std::array::from_fn(|lane| u64::from(lane % 3 == 1).wrapping_neg());
        results.push(a.select(b, W::gather(|lane: usize| mask[lane])));
        expected.push(x.select(y, Twin(std::array::from_fn(|lane| mask[lane]))));
        results.extend(more(a, b, c));
        expected.extend(twins(x, y, z));
        for (at, (result, expected)) in results.into_iter().zip(expected).enumerate() {
            let (mut found, mut wanted) = ([1; LANES_MAX], [1; LANES_MAX]);
            result.store(&mut found);
            expected.store(&mut wanted);
            assert_eq!(found, wanted, "operation {at}");
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
#[cfg_attr(not(host_avx2), ignore = "this processor has no AVX2")]
fn words_of_avx2_are_their_twins() {
    assert!(is_x86_feature_detected!("avx2"));
    check_word::<Avx2, 4>(|a, b, _| vec![a.mul32(b)], |a, b, _| vec![a.mul32(b)]);
}

#[cfg(target_arch = "x86_64")]
#[test]
#[cfg_attr(not(host_ifma), ignore = "this processor has no AVX-512 IFMA")]
fn words_of_avx512_are_their_twins() {
    assert!(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma"));
    check_word::<Avx512, 8>(
        |a, b, c| vec![a.madd52_low(b, c), a.madd52_high(b, c)],
        |a, b, c| vec![a.madd52_low(b, c), a.madd52_high(b, c)],
    );
}
