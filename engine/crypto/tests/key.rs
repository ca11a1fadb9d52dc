//! DER forms of public keys.

mod common;

#[path = "../../../tools/fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../tools/fuzz/checks/der_public_key.rs"]
mod der_public_key;

use common::signers;
use cyclotron_crypto::{PublicKey, PublicKeyError, Unsupported, self_authenticating};
use proptest::prelude::*;
use std::sync::LazyLock;

/// The Internet Computer's root key, and the name of the subnet that holds it. Spec: ic-interface-spec #http-read-state.
const ROOT_KEY: &str = "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100814c0e6ec71fab583b08bd81373c255c3c371b2e84863c98a4f1e08b74235d14fb5d9c0cd546d9685f913a0c0b2cc5341583bf4b4392e467db96d65b9bb4cb717112f8472e0d5a4d14505ffd7484b01291091c5f87b98883463f98091a0baaae";
const ROOT_SUBNET: &str = "tdb26-jop6k-aogll-7ltgs-eruif-6kk7m-qpktf-gdiqx-mxtrf-vb5e6-eqe";

/// The COSE key of the specification's example. Spec: ic-interface-spec #webauthn.
const COSE_KEY: &str = "305e300c060a2b0601040183b8430101034e00a50102032620012158207ffd83632072fd1bfeaf3fbaa43146e0ef95c3f55e3994a41bbf2b5174d771da22582032497eed0a7f6f000928765b8318162cfd80a94e525a6a368c2363063d04e6ed";

#[test]
fn root_key_of_the_internet_computer_names_its_subnet() {
    let der = hex::decode(ROOT_KEY).unwrap();
    let key = PublicKey::from_der(&der).unwrap();
    assert!(matches!(key, PublicKey::Bls12381(_)));
    assert_eq!(key.to_der(), der);
    assert_eq!(self_authenticating(&der).to_text(), ROOT_SUBNET);
}

#[test]
fn keys_of_independent_encoders_parse_to_the_same_bytes() {
    for signer in signers(21) {
        assert_eq!(signer.key().to_der(), signer.der, "{}", signer.name);
    }
}

#[test]
fn schemes_to_come_are_named() {
    let cose = PublicKey::from_der(&hex::decode(COSE_KEY).unwrap()).unwrap_err();
    assert_eq!(cose, PublicKeyError::Unsupported(Unsupported::WebAuthn));
    assert_eq!(cose.to_string(), "not supported yet: WebAuthn signatures");
    let canister = "3019300c060a2b0601040183b84301020309000102030405060708";
    let canister = PublicKey::from_der(&hex::decode(canister).unwrap()).unwrap_err();
    assert_eq!(canister, PublicKeyError::Unsupported(Unsupported::CanisterSignature));
    assert_eq!(canister.to_string(), "not supported yet: canister signatures");
}

#[test]
fn every_other_encoding_of_a_key_is_malformed() {
    for signer in signers(23) {
        for length in 0..signer.der.len() {
            assert!(PublicKey::from_der(&signer.der[..length]).is_err(), "{} cut to {length}", signer.name);
        }
        let longer = [&signer.der[..], &[0]].concat();
        assert!(matches!(PublicKey::from_der(&longer), Err(PublicKeyError::Malformed { .. })), "{}", signer.name);
    }
    let compressed = {
        use k256::elliptic_curve::sec1::ToEncodedPoint;
        let key = k256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
        let point = key.verifying_key().as_affine().to_encoded_point(true);
        let prefix = hex::decode("3036301006072a8648ce3d020106052b8104000a032200").unwrap();
        [&prefix[..], point.as_bytes()].concat()
    };
    let error = PublicKey::from_der(&compressed).unwrap_err();
    assert!(error.to_string().contains("uncompressed"), "{error}");
    let rsa = hex::decode("300d300b06092a864886f70d010101").unwrap();
    assert!(PublicKey::from_der(&rsa).unwrap_err().to_string().contains("RSA"));
}

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("der_public_key"));

#[test]
fn corpus_holds() {
    CORPUS.iter().for_each(|der| der_public_key::check(der));
    let decoded = CORPUS.iter().filter(|der| PublicKey::from_der(der).is_ok()).count();
    assert!(CORPUS.len() >= 8 && decoded >= 4, "{decoded} of {}", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn mutations_hold(which: prop::sample::Index, edits in corpus::edits()) {
        der_public_key::check(&corpus::edited(&CORPUS, which, &edits));
    }
}
