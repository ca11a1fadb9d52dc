//! Sums in lanes beside those of the scalar crates, at the edges of numbers and keys.

use super::*;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::elliptic_curve::point::AffineCoordinates as _;

/// Those that run on this machine.
fn kernels() -> Vec<Kernel> {
    let all = [Kernel::Single, Kernel::Avx2Twin, Kernel::IfmaTwin, Kernel::Avx2, Kernel::Ifma];
    all.into_iter().filter(|kernel| kernel.is_available()).collect()
}

fn found<C: Ecdsa>(kernel: Kernel, claims: &[Claim]) -> Vec<Found> {
    let mut found = vec![Found::Unknown; claims.len()];
    check_claims::<C>(kernel, C::tables(), C::base_points, claims, &mut found);
    found
}

fn bytes(number: &Number) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.rchunks_exact_mut(8).zip(number).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_be_bytes()));
    bytes
}

/// Tests of one curve by its crate.
macro_rules! tests {
    ($name:ident, $curve:ident, $library:ident) => {
        mod $name {
            use super::*;
            use $library::{AffinePoint, ProjectivePoint, Scalar};

            /// Numbers at the edges, and a few others.
            fn numbers() -> Vec<Scalar> {
                let [two, large] = [Scalar::from(2u64), Scalar::from(u64::MAX).square()];
                let mut numbers = vec![Scalar::ZERO, Scalar::ONE, -Scalar::ONE, two, -two, large, -large.square()];
                // Digits that are all 16, or -16: as large as they may be.
                numbers.push((0..51).fold(Scalar::ZERO, |sum, _| sum * Scalar::from(32u64) + Scalar::from(16u64)));
                numbers.push((0..25).fold(Scalar::ZERO, |sum, _| sum * Scalar::from(1024u64) - Scalar::from(512u64)));
                numbers.push(numbers[8].invert().unwrap());
                numbers
            }

            /// The claim that the x of `u · G + v · point` is a candidate.
            fn claim(u: &Scalar, v: &Scalar, point: &AffinePoint, candidate: Number) -> Claim {
                let encoded = point.to_encoded_point(false);
                let coordinates = encoded.as_bytes()[1..].as_chunks::<32>().0;
                Claim {
                    x: number(&coordinates[0]),
                    y: number(&coordinates[1]),
                    key: <$curve as Ecdsa>::key_digits(v),
                    base: digits(&number(&u.to_repr().into()), BASE_DIGIT_BITS),
                    candidates: [candidate; 2],
                }
            }

            #[test]
            fn sums_have_their_x_at_all_edges() {
                let base = ProjectivePoint::GENERATOR;
                let keys = [1u64, 2, 3, 16, 17, 77].map(|n| base * Scalar::from(n));
                let (mut claims, mut expected) = (Vec::new(), Vec::new());
                for key in keys.into_iter().chain(keys.map(|key| -key)) {
                    for u in numbers() {
                        for v in numbers() {
                            let sum = base * u + key * v;
                            let is_neutral = sum == ProjectivePoint::IDENTITY;
                            let x = number(&sum.to_affine().x().into());
                            claims.push(claim(&u, &v, &key.to_affine(), x));
                            expected.push(if is_neutral { Found::Invalid } else { Found::Valid });
                            claims.push(claim(&u, &v, &key.to_affine(), number(&(u + v).to_repr().into())));
                            expected.push(match claims[claims.len() - 1].candidates[0] == x && !is_neutral {
                                true => Found::Valid,
                                false => Found::Invalid,
                            });
                        }
                    }
                }
                assert!(expected.len() > 2_000 && expected.contains(&Found::Invalid));
                for kernel in kernels() {
                    // All at once, and in parts that leave lanes empty.
                    let count = if kernel == Kernel::Avx2 { claims.len() } else { claims.len() / 3 };
                    assert_eq!(found::<$curve>(kernel, &claims[..count]), expected[..count], "{kernel:?}");
                    for (claims, expected) in claims.chunks(5).zip(expected.chunks(5)).step_by(29) {
                        assert_eq!(found::<$curve>(kernel, claims), expected, "{kernel:?}");
                    }
                }
            }

            #[test]
            fn a_key_off_the_curve_is_invalid_and_its_neighbours_are_not() {
                let (u, v) = (Scalar::from(5u64), Scalar::from(9u64));
                let key = (ProjectivePoint::GENERATOR * Scalar::from(99u64)).to_affine();
                let sum = (ProjectivePoint::GENERATOR * u + ProjectivePoint::from(key) * v).to_affine();
                let good = claim(&u, &v, &key, number(&sum.x().into()));
                for bad in [[0; 7], [1, 0, 0, 0, 0, 0, 0], <$curve as Modulus>::PRIME] {
                    for at in 0..9 {
                        let mut claims = [good; 9];
                        (claims[at].x, claims[at].y) = (bad, [0; 7]);
                        for kernel in kernels() {
                            let found = found::<$curve>(kernel, &claims);
                            for (lane, found) in found.into_iter().enumerate() {
                                assert_eq!(found, if lane == at { Found::Invalid } else { Found::Valid }, "{kernel:?}");
                            }
                        }
                    }
                }
            }

            #[test]
            fn r_may_be_an_x_beyond_the_order() {
                // The first points whose x is not below the order: r is x less the order.
                let order = <$curve as Ecdsa>::ORDER;
                let points = (0u64..200).filter_map(|above| {
                    let x = plus(&order, &[above + 1, 0, 0, 0, 0, 0, 0]);
                    let encoded: Vec<u8> = [&[2][..], &bytes(&x)].concat();
                    let key = $library::PublicKey::from_sec1_bytes(&encoded).ok()?;
                    Some((above + 1, key.to_projective()))
                });
                let (mut parts_of, mut digests, mut keys) = (Vec::new(), Vec::new(), Vec::new());
                for (r, point) in points.take(20) {
                    let (u, v) = (Scalar::from(r + 7), Scalar::from(r + 1_000).square());
                    let key = (point - ProjectivePoint::GENERATOR * u) * v.invert().unwrap();
                    let s = Scalar::from(r) * v.invert().unwrap();
                    let encoded: [u8; 65] = key.to_affine().to_encoded_point(false).as_bytes().try_into().unwrap();
                    let signature = [bytes(&[r, 0, 0, 0, 0, 0, 0]), s.to_repr().into()].concat();
                    let signed = Signed { key: &encoded, message: &[], signature: &signature };
                    let digest: [u8; 32] = (u * s).to_repr().into();
                    // The scalar crate takes it.
                    let verifier = $library::ecdsa::VerifyingKey::from_sec1_bytes(&encoded).unwrap();
                    let signature = $library::ecdsa::Signature::from_slice(&signature).unwrap();
                    let signature = signature.normalize_s().unwrap_or(signature);
                    assert!(verifier.verify_prehash(&digest, &signature).is_ok());
                    parts_of.push(parts::<$curve>(digests.len(), &signed).unwrap());
                    digests.push(digest);
                    keys.push(encoded);
                }
                assert_eq!(digests.len(), 20);
                let claims: Vec<_> =
                    equations_of::<$curve>(&parts_of, &digests).iter().map(super::super::claim::<$curve>).collect();
                let mut spoiled = claims.clone();
                spoiled.iter_mut().for_each(|claim| claim.candidates[1] = claim.candidates[0]);
                for kernel in kernels() {
                    assert_eq!(found::<$curve>(kernel, &claims), [Found::Valid; 20], "{kernel:?}");
                    assert_eq!(found::<$curve>(kernel, &spoiled), [Found::Invalid; 20], "{kernel:?}");
                }
            }

            #[test]
            fn digits_add_up_to_the_number() {
                for scalar in numbers() {
                    let value = number(&scalar.to_repr().into());
                    let sum = |digits: &[i16], bits: u32| {
                        digits.iter().rev().fold(Scalar::ZERO, |sum, digit| {
                            assert!(digit.unsigned_abs() <= 1 << (bits - 1));
                            let amount = Scalar::from(u64::from(digit.unsigned_abs()));
                            sum * Scalar::from(1u64 << bits) + if *digit < 0 { -amount } else { amount }
                        })
                    };
                    assert_eq!(sum(&digits::<KEY_DIGITS>(&value, KEY_DIGIT_BITS), 5), scalar);
                    assert_eq!(sum(&digits::<BASE_DIGITS>(&value, BASE_DIGIT_BITS), 10), scalar);
                }
            }
        }
    };
}

tests!(of_p256, P256, p256);
tests!(of_secp256k1, Secp256k1, k256);

#[test]
fn halves_add_up_to_the_number_and_are_short() {
    use k256::Scalar;
    let mut number = Scalar::from(3u64);
    for edge in [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from_u128(u128::MAX), -Scalar::from_u128(u128::MAX)] {
        assert!(halves(&edge).iter().all(|half| amount(half).or(amount(&-half)).is_some()), "{edge:?}");
    }
    let [a, b] = halves(&number);
    assert_eq!([a, b], [number, Scalar::ZERO], "a short number is its own half");
    let lambda = {
        let [a, b] = halves(&-Scalar::from_u128(u128::MAX).square());
        assert_ne!(b, Scalar::ZERO);
        (-Scalar::from_u128(u128::MAX).square() - a) * b.invert().unwrap()
    };
    assert_eq!(lambda.square() * lambda, Scalar::ONE);
    for _ in 0..1_000 {
        number = number.square() + Scalar::from(11u64);
        let [a, b] = halves(&number);
        assert_eq!(a + b * lambda, number);
        assert!(amount(&a).or(amount(&-a)).is_some() && amount(&b).or(amount(&-b)).is_some());
    }
}

#[test]
fn inverses_are_those_of_each_alone() {
    for count in [0u64, 1, 2, 9] {
        let scalars: Vec<_> = (1..=count).map(p256::Scalar::from).collect();
        let mut inverses = scalars.clone();
        invert_all(&mut inverses);
        assert!(scalars.iter().zip(&inverses).all(|(scalar, inverse)| scalar * inverse == p256::Scalar::ONE));
        assert_eq!(inverses.len() as u64, count);
    }
}
