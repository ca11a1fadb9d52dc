//! Verdicts of every backend beside those of crates that others wrote, on signatures made and spoiled by seeded bytes.
//!
//! `CRYPTO_CASES=10000000 cargo test --release -p cyclotron-crypto --test differential` checks so many Ed25519 signatures, a tenth of that ECDSA by each
//! curve, and a hundredth BLS. `CRYPTO_SEED` chooses others, `CRYPTO_BACKEND=ifma` one backend for all.

#[path = "common/random.rs"]
mod random;
#[path = "../../../tools/fuzz/checks/signatures.rs"]
mod signatures;

use random::{Random, number};
use signatures::{Scheme, check, check_batch};
use std::path::Path;

/// Batches of every size that kernels treat differently, until so many signatures were checked.
fn differ(schemes: &[Scheme], count: u64, salt: u64) {
    let mut random = Random(number("CRYPTO_SEED", 1) ^ salt);
    let (mut valid, mut done) = (0, 0);
    for size in [1usize, 2, 7, 8, 9, 63, 64, 65, 1_000].into_iter().cycle() {
        // A case takes 20 bytes at most, most of them 8; a batch never has fewer than it could.
        let size = size.min((count - done) as usize);
        let (of_valid, of) = check_batch(schemes, size, &random.bytes(size * 80));
        valid += of_valid as u64;
        done += of as u64;
        if done >= count {
            break;
        }
    }
    // Both verdicts must be frequent, or this compares nothing.
    assert!(valid * 10 > done * 3 && valid * 10 < done * 9, "{valid} of {done} are valid");
    println!("{schemes:?}: {done} signatures, {valid} of them valid");
}

#[test]
fn ed25519_verdicts_are_those_of_zebra() {
    differ(&[Scheme::Ed25519], number("CRYPTO_CASES", 3_000), 1 << 32);
}

#[test]
fn secp256k1_verdicts_are_those_of_libsecp256k1() {
    differ(&[Scheme::Secp256k1], number("CRYPTO_CASES", 10_000) / 10, 2 << 32);
}

#[test]
fn p256_verdicts_are_those_of_p256() {
    differ(&[Scheme::P256], number("CRYPTO_CASES", 10_000) / 10, 3 << 32);
}

#[test]
fn bls_verdicts_are_those_of_blst() {
    differ(&[Scheme::Bls], number("CRYPTO_CASES", 20_000) / 100, 4 << 32);
}

#[test]
fn mixed_batches_have_the_same_verdicts() {
    let schemes = [Scheme::Ed25519, Scheme::P256, Scheme::Secp256k1, Scheme::Ed25519, Scheme::Ed25519, Scheme::Bls];
    differ(&schemes, number("CRYPTO_CASES", 20_000) / 100, 5 << 32);
}

#[test]
fn corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus/signatures");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("corpus folder").map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the corpus is gone");
    files.iter().for_each(|file| check(&std::fs::read(file).expect("corpus file")));
}
