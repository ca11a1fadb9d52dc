//! BLS beyond one signature by one key: shares, multi-signatures, aggregates, proofs of possession.

use blstrs::{G1Affine, G1Projective, Scalar};
use cyclotron_crypto::bls::{
    BlsTask, CombineError, Suite, aggregate, combine_shares, prove_possession, verify_aggregate, verify_batch,
    verify_multi, verify_possession,
};
use cyclotron_crypto::{Backend, BlsSecretKey, SignatureTask, Verdict};
use group::Group;
use group::ff::Field;

const IDENTITY_KEY: [u8; 96] = {
    let mut bytes = [0; 96];
    bytes[0] = 0xc0;
    bytes
};

fn secret(number: u8) -> BlsSecretKey {
    BlsSecretKey::from_seed(&[number; 32])
}

fn secret_of(scalar: Scalar) -> BlsSecretKey {
    BlsSecretKey::from_bytes(&scalar.to_bytes_be()).expect("not zero")
}

fn verdicts(suite: Suite, tasks: &[BlsTask<'_>]) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Valid; 3];
    verify_batch(suite, tasks, &mut verdicts);
    verdicts
}

/// The secret of a threshold key, and its shares: a polynomial of degree `threshold - 1` at zero, and at one and more.
fn dealt(threshold: usize, shares: u32) -> (BlsSecretKey, Vec<BlsSecretKey>) {
    let coefficients: Vec<Scalar> =
        (0..threshold).map(|n| Scalar::from(n as u64 * 7_919 + 11).square().square()).collect();
    let at = |x: u64| coefficients.iter().rev().fold(Scalar::ZERO, |sum, c| sum * Scalar::from(x) + c);
    (secret_of(at(0)), (1..=shares).map(|x| secret_of(at(x.into()))).collect())
}

#[test]
fn any_threshold_of_shares_makes_the_signature_of_the_secret() {
    for (threshold, count) in [(1, 1), (1, 4), (2, 4), (3, 4), (5, 13), (27, 40)] {
        let (secret, shares) = dealt(threshold, count);
        let message = b"\x0Dic-state-root";
        let signed: Vec<(u32, [u8; 48])> =
            (0..).zip(&shares).map(|(index, share)| (index, share.sign_in(Suite::Basic, message))).collect();
        let expected = secret.sign_in(Suite::Basic, message);
        let reversed: Vec<_> = signed.iter().rev().copied().collect();
        let spread: Vec<_> = signed.iter().step_by(2).chain(signed.iter().skip(1).step_by(2)).copied().collect();
        for shares in [&signed, &reversed, &spread] {
            assert_eq!(combine_shares(threshold, shares), Ok(expected), "{threshold} of {count}");
            assert_eq!(combine_shares(threshold, &shares[..threshold]), Ok(expected), "{threshold} of {count}");
        }
        if threshold > 1 {
            // One too few give another signature, and are refused when the threshold is known.
            let few = &signed[..threshold - 1];
            assert_ne!(combine_shares(threshold - 1, few), Ok(expected));
            let error = CombineError::TooFew { threshold, shares: threshold - 1 };
            assert_eq!(combine_shares(threshold, few), Err(error));
            assert_eq!(error.to_string(), format!("{} shares of the {threshold} that are needed", threshold - 1));
        }
    }
}

#[test]
fn shares_that_cannot_be_combined_are_named() {
    let share = secret(1).sign_in(Suite::Basic, b"m");
    assert_eq!(combine_shares(0, &[(0, share)]), Err(CombineError::Nothing));
    assert_eq!(combine_shares(1, &[(7, share), (3, share), (7, share)]), Err(CombineError::Twice { index: 7 }));
    assert_eq!(combine_shares(2, &[(1, share), (2, [0xff; 48])]), Err(CombineError::NoPoint { at: 1 }));
    assert_eq!(aggregate(&[]), Err(CombineError::Nothing));
    assert_eq!(aggregate(&[share, share, [1; 48]]), Err(CombineError::NoPoint { at: 2 }));
    // The highest index is as good as others.
    assert!(combine_shares(2, &[(u32::MAX, share), (0, share)]).is_ok());
}

#[test]
fn bad_shares_are_found_wherever_they_are() {
    let message = b"one message";
    for count in [1usize, 2, 7, 8, 9, 40, 63, 64, 65, 1_000] {
        // Of a thousand, many are of one signer.
        let secrets: Vec<_> = (0..count).map(|n| secret(n as u8)).collect();
        let good: Vec<[u8; 48]> = secrets.iter().map(|secret| secret.sign_in(Suite::Basic, message)).collect();
        let mut places: Vec<Vec<usize>> = vec![vec![count / 2, count / 3]];
        if count <= 40 {
            places.extend([vec![], vec![0], vec![count - 1], (0..count).step_by(3).collect(), (0..count).collect()]);
        }
        for bad in places {
            let mut signatures = good.clone();
            for at in &bad {
                signatures[*at] = match at % 3 {
                    0 => secrets[*at].sign_in(Suite::Basic, b"another"),
                    1 => [0x80; 48],
                    _ => secrets[*at].sign_in(Suite::Multi, message),
                };
            }
            let tasks: Vec<_> = secrets
                .iter()
                .zip(&signatures)
                .map(|(secret, signature)| BlsTask { key: secret.public_bytes(), message, signature })
                .collect();
            let expected: Vec<_> = (0..count).map(|at| Verdict::from(!bad.contains(&at))).collect();
            assert_eq!(verdicts(Suite::Basic, &tasks), expected, "{count}: {bad:?}");
            let keys: Vec<_> = secrets.iter().map(BlsSecretKey::public_key).collect();
            let tasks: Vec<_> = keys
                .iter()
                .zip(&signatures)
                .map(|(key, signature)| SignatureTask { key, message, signature })
                .collect();
            for backend in Backend::available() {
                let mut verdicts = Vec::new();
                backend.verify(&tasks, &mut verdicts);
                assert_eq!(verdicts, expected, "{backend:?}, {count}: {bad:?}");
            }
        }
    }
}

#[test]
fn errors_that_cancel_out_are_all_found() {
    // Of two shares on one message, of two messages by one key, and with a point that is added here and taken away there.
    let error = G1Projective::generator();
    let moved = |signature: [u8; 48], by: G1Projective| {
        let point = G1Projective::from(G1Affine::from_compressed(&signature).unwrap());
        G1Affine::from(point + by).to_compressed()
    };
    let (one, two) = (secret(1), secret(2));
    for (first, second, messages) in
        [(&one, &two, [b"same", b"same"]), (&one, &one, [b"this", b"that"]), (&one, &two, [b"this", b"that"])]
    {
        let signatures = [
            moved(first.sign_in(Suite::Basic, messages[0]), error),
            moved(second.sign_in(Suite::Basic, messages[1]), -error),
        ];
        let tasks = [
            BlsTask { key: first.public_bytes(), message: messages[0], signature: &signatures[0] },
            BlsTask { key: second.public_bytes(), message: messages[1], signature: &signatures[1] },
        ];
        assert_eq!(verdicts(Suite::Basic, &tasks), [Verdict::Invalid; 2]);
    }
}

#[test]
fn batches_mix_keys_and_messages_in_every_way() {
    // Key by key and message by message: one of each, many of one, all of all; every fifth is bad.
    for (keys, messages, count) in [(1, 1, 5), (1, 9, 9), (9, 1, 9), (3, 3, 9), (4, 5, 20), (7, 2, 30)] {
        let made: Vec<_> = (0..count)
            .map(|n| {
                let secret = secret((n % keys) as u8);
                let message = vec![(n / keys % messages) as u8; 8];
                let valid = n % 5 != 3;
                let signature = if valid { &message[..] } else { b"bad" };
                (*secret.public_bytes(), message.clone(), secret.sign_in(Suite::Multi, signature), valid)
            })
            .collect();
        let tasks: Vec<_> =
            made.iter().map(|(key, message, signature, _)| BlsTask { key, message, signature }).collect();
        let expected: Vec<_> = made.iter().map(|(.., valid)| Verdict::from(*valid)).collect();
        assert_eq!(verdicts(Suite::Multi, &tasks), expected);
        assert_eq!(verdicts(Suite::Basic, &tasks), vec![Verdict::Invalid; count], "another suite");
    }
    assert_eq!(verdicts(Suite::Basic, &[]), []);
}

/// A point of the curve that is in no group of prime order: the first with a small x.
fn outside_the_group() -> [u8; 48] {
    (0..=255)
        .map(|x| {
            let mut bytes = [0; 48];
            (bytes[0], bytes[47]) = (0x80, x);
            bytes
        })
        .find(|bytes| {
            let on_curve: Option<G1Affine> = G1Affine::from_compressed_unchecked(bytes).into();
            on_curve.is_some_and(|point| !bool::from(point.is_torsion_free()))
        })
        .expect("half of all x are on the curve")
}

#[test]
fn points_outside_the_group_are_no_signatures_even_where_errors_cancel_out() {
    // A signature plus a point of small order passes the pairing, since that point's is one to the cofactor: only the check of the group finds it.
    let outside = G1Affine::from_compressed_unchecked(&outside_the_group()).unwrap();
    // Times the group's order leaves a point of the cofactor's order.
    let order_less_one = -Scalar::ONE;
    let small = G1Projective::from(outside) * order_less_one + G1Projective::from(outside);
    assert!(!bool::from(small.is_identity()));
    let secrets = [secret(1), secret(2)];
    let message = b"m";
    let signatures = [small, -small].map(G1Projective::from).into_iter().zip(&secrets).map(|(small, secret)| {
        let point = G1Projective::from(G1Affine::from_compressed(&secret.sign_in(Suite::Basic, message)).unwrap());
        G1Affine::from(point + small).to_compressed()
    });
    let signatures: Vec<_> = signatures.collect();
    let tasks: Vec<_> = secrets
        .iter()
        .zip(&signatures)
        .map(|(secret, signature)| BlsTask { key: secret.public_bytes(), message, signature })
        .collect();
    assert_eq!(verdicts(Suite::Basic, &tasks), [Verdict::Invalid; 2]);
    assert_eq!(aggregate(&[outside_the_group()]), Err(CombineError::NoPoint { at: 0 }));
}

#[test]
fn a_multi_signature_is_valid_for_its_signers_alone() {
    let secrets: Vec<_> = (0..13).map(secret).collect();
    let keys: Vec<&[u8; 96]> = secrets.iter().map(BlsSecretKey::public_bytes).collect();
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign_in(Suite::Multi, b"block")).collect();
    let combined = aggregate(&signatures).unwrap();
    assert_eq!(verify_multi(&keys, b"block", &combined), Verdict::Valid);
    assert_eq!(verify_multi(&keys, b"other", &combined), Verdict::Invalid);
    assert_eq!(verify_multi(&keys[1..], b"block", &combined), Verdict::Invalid);
    assert_eq!(verify_multi(&[&keys[..], &keys[..1]].concat(), b"block", &combined), Verdict::Invalid);
    assert_eq!(verify_multi(&keys, b"block", &aggregate(&signatures[1..]).unwrap()), Verdict::Invalid);
    assert_eq!(verify_multi(&keys, b"block", &combined[..47]), Verdict::Invalid);
    assert_eq!(verify_multi(&[&keys[..], &[&IDENTITY_KEY]].concat(), b"block", &combined), Verdict::Invalid);
    // One signature is a multi-signature, none is none.
    assert_eq!(verify_multi(&keys[..1], b"block", &signatures[0]), Verdict::Valid);
    assert_eq!(verify_multi(&[], b"block", &IDENTITY_KEY[..48]), Verdict::Invalid);
    // Keys that cancel out: anyone could sign for them.
    let negative = secret_of(-Option::<Scalar>::from(Scalar::from_bytes_be(&secrets[0].to_bytes())).unwrap());
    let both = [keys[0], negative.public_bytes()];
    assert_eq!(verify_multi(&both, b"block", &IDENTITY_KEY[..48]), Verdict::Invalid);
}

#[test]
fn an_aggregate_is_valid_for_its_claims_alone() {
    let secrets: Vec<_> = (0..5).map(secret).collect();
    let messages: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 9]).collect();
    for suite in [Suite::Basic, Suite::Multi] {
        let signatures: Vec<_> =
            secrets.iter().zip(&messages).map(|(secret, message)| secret.sign_in(suite, message)).collect();
        let claims: Vec<(&[u8; 96], &[u8])> =
            secrets.iter().zip(&messages).map(|(secret, message)| (secret.public_bytes(), &message[..])).collect();
        let all = aggregate(&signatures).unwrap();
        assert_eq!(verify_aggregate(suite, &claims, &all), Verdict::Valid);
        assert_eq!(verify_aggregate(suite, &claims[1..], &all), Verdict::Invalid);
        let mut swapped = claims.clone();
        (swapped[0].1, swapped[1].1) = (claims[1].1, claims[0].1);
        assert_eq!(verify_aggregate(suite, &swapped, &all), Verdict::Invalid);
        assert_eq!(verify_aggregate(suite, &[], &IDENTITY_KEY[..48]), Verdict::Invalid);
        // One message twice: allowed where possession is proved.
        let twice = [claims[0], (claims[1].0, claims[0].1)];
        let signatures = [0, 1].map(|n: usize| secrets[n].sign_in(suite, &messages[0]));
        let expected = Verdict::from(suite == Suite::Multi);
        assert_eq!(verify_aggregate(suite, &twice, &aggregate(&signatures).unwrap()), expected);
    }
}

#[test]
fn possession_is_proved_for_one_key_alone() {
    let (one, two) = (secret(1), secret(2));
    let proof = prove_possession(&one);
    assert_eq!(verify_possession(one.public_bytes(), &proof), Verdict::Valid);
    assert_eq!(verify_possession(two.public_bytes(), &proof), Verdict::Invalid);
    assert_eq!(verify_possession(&IDENTITY_KEY, &IDENTITY_KEY[..48]), Verdict::Invalid);
    // A signature of the same bytes is no proof, nor is a proof a signature.
    let signature = one.sign_in(Suite::Multi, one.public_bytes());
    assert_eq!(verify_possession(one.public_bytes(), &signature), Verdict::Invalid);
    let proofs: Vec<_> = (0..9).map(|n| (*secret(n).public_bytes(), prove_possession(&secret(n % 8)))).collect();
    let tasks: Vec<_> = proofs.iter().map(|(key, proof)| BlsTask { key, message: key, signature: proof }).collect();
    let expected: Vec<_> = (0..9).map(|n| Verdict::from(n < 8)).collect();
    assert_eq!(verdicts(Suite::Possession, &tasks), expected);
}
