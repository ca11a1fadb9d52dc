//! Published vectors, in batches of every size that kernels treat differently: Wycheproof, RFC 8032, drand's quicknet, the IC's own.

mod common;
#[path = "common/published.rs"]
mod published;

use common::{Vector, check_in_batches};
use cyclotron_crypto::bls::Suite;
use cyclotron_crypto::{BlsSecretKey, PublicKey, Verdict};
use published::bytes;
use sha2::{Digest, Sha256};

#[test]
fn wycheproof_ed25519() {
    check_in_batches(&published::wycheproof_ed25519());
}

#[test]
fn wycheproof_secp256k1() {
    check_in_batches(&published::wycheproof_secp256k1());
}

#[test]
fn wycheproof_p256() {
    check_in_batches(&published::wycheproof_p256());
}

#[test]
fn rfc_8032() {
    check_in_batches(&published::rfc_8032());
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
