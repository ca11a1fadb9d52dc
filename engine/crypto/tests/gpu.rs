//! What a GPU computes, beside what defines it: on Vulkan's software driver with limbs for 32-bit and for 64-bit integers, and on hardware if there is some.
//! What is not there is reported as skipped; with CYCLOTRON_REQUIRE_VULKAN=1 it is a failure, but for hardware.
//!
//! `CRYPTO_CASES=10000 cargo test --release -p cyclotron-crypto --test gpu` checks so many made-up signatures of each scheme; `CRYPTO_SEED` chooses others.
#![allow(clippy::unwrap_used, reason = "a test: a failure is a panic")]

mod common;
#[path = "common/published.rs"]
mod published;
#[path = "common/random.rs"]
mod random;
#[path = "../../../tools/fuzz/checks/signatures.rs"]
#[allow(dead_code, reason = "each test takes its part")]
mod signatures;

use common::{Vector, check_batches_of};
use cyclotron_crypto::gpu::{Choice, Gpu};
use cyclotron_crypto::{Backend, PublicKey, Scheme, SignatureTask, Verdict, merkle_level};
use ed25519_dalek::Signer;
use published::small_order_encodings;
use random::{Random, number};
use std::time::Duration;

/// One test: its name, and what it shows on a device.
type Test = (&'static str, fn(Backend));

const TESTS: [Test; 9] = [
    ("levels_of_a_merkle_tree_are_those_of_the_processor", levels),
    ("published_vectors_of_ed25519_have_their_verdicts", ed25519_vectors),
    ("points_of_small_order_are_taken_as_zip_215_says", small_order),
    ("published_vectors_of_secp256k1_have_their_verdicts", secp256k1_vectors),
    ("published_vectors_of_p256_have_their_verdicts", p256_vectors),
    ("exceptional_sums_of_ecdsa_are_right", exceptional_sums),
    ("verdicts_are_those_of_other_crates", differential),
    ("a_device_is_measured_only_if_its_verdicts_are_right", measured),
    ("a_device_that_goes_away_in_the_middle_of_a_batch_loses_no_verdict", loses_its_device),
];

/// Runs the tests one by one on each device; a panic ends the process with a failure. Names in the arguments choose, as in the standard harness.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let required = std::env::var("CYCLOTRON_REQUIRE_VULKAN").is_ok_and(|value| value == "1");
    for (name, test) in TESTS {
        if !names.is_empty() && !names.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
            continue;
        }
        for backend in [Backend::GpuTwin32, Backend::GpuTwin64, Backend::Gpu] {
            match backend.device().expect("it stands for a device") {
                Ok(gpu) => {
                    let start = std::time::Instant::now();
                    test(backend);
                    println!("test {name}, {backend:?} on {} ... ok, {:.1?}", gpu.device().name(), start.elapsed());
                }
                Err(reason) if required && backend != Backend::Gpu => panic!("{name}, {backend:?}: {reason}"),
                Err(reason) => println!("test {name}, {backend:?} ... SKIPPED, nothing was shown: {reason}"),
            }
        }
    }
}

fn gpu(backend: Backend) -> &'static Gpu {
    backend.device().unwrap().unwrap()
}

/// The device must have checked all of it: a processor in its place would show nothing.
fn all_by_the_device(backend: Backend, run: impl FnOnce() -> usize) {
    let before = gpu(backend).checked();
    let count = run();
    assert_eq!(gpu(backend).checked() - before, count as u64, "{backend:?}");
}

fn levels(backend: Backend) {
    let mut random = Random(7);
    for count in [0usize, 1, 2, 7, 8, 9, 63, 64, 65, 1_000] {
        let children: Vec<[u8; 32]> = (0..2 * count).map(|_| random.bytes(32).try_into().expect("32 bytes")).collect();
        // Every alignment, and messages of two and three blocks.
        for prefix in [0usize, 1, 2, 3, 4, 17, 46, 47, 54, 55, 56, 61, 63] {
            let prefix = random.bytes(prefix + 8)[..prefix].to_vec();
            let (mut expected, mut found) = (vec![[0; 32]; count], vec![[1; 32]; count]);
            merkle_level(&prefix, &children, &mut expected);
            gpu(backend).merkle_level(&prefix, &children, &mut found).unwrap();
            assert_eq!(found, expected, "{count} parents, a prefix of {} bytes", prefix.len());
        }
    }
    assert!(gpu(backend).merkle_level(&[0; 64], &[[0; 32]; 2], &mut [[0; 32]]).is_err());
}

/// All of them in batches of each size that matters; on software all of them once, unless many cases are asked for, and an eighth in each of the smaller sizes.
fn check_vectors(backend: Backend, vectors: &[Vector]) {
    let is_whole = backend == Backend::Gpu || number("CRYPTO_CASES", 0) >= 10_000;
    for (n, size) in common::SIZES.into_iter().enumerate() {
        let some: Vec<Vector> = match is_whole || size > 100 {
            true => vectors.to_vec(),
            false => vectors.iter().skip(n).step_by(8).cloned().collect(),
        };
        all_by_the_device(backend, || check_batches_of(&[backend], &some, size));
    }
}

fn ed25519_vectors(backend: Backend) {
    check_vectors(backend, &published::wycheproof_ed25519());
    check_vectors(backend, &published::rfc_8032());
}

fn secp256k1_vectors(backend: Backend) {
    check_vectors(backend, &published::wycheproof_secp256k1());
}

fn p256_vectors(backend: Backend) {
    check_vectors(backend, &published::wycheproof_p256());
}

/// Keys that are small multiples of the generator, and their negatives, with numbers that make the sums of `u1·G + u2·Q` meet equal points, opposite ones, and
/// zero: the processor says what comes of them.
fn exceptional_sums(backend: Backend) {
    let mut vectors = Vec::new();
    let mut tried = 0;
    macro_rules! on {
        ($krate:ident, $key:ident, $scheme:expr) => {{
            use $krate::elliptic_curve::ops::Reduce;
            use $krate::elliptic_curve::sec1::ToEncodedPoint;
            use $krate::{ProjectivePoint, Scalar};
            use sha2::Digest;
            let message = b"exceptional".to_vec();
            let hash = <Scalar as Reduce<$krate::U256>>::reduce_bytes(&sha2::Sha256::digest(&message));
            let small = |number: i64| match number < 0 {
                true => -Scalar::from(number.unsigned_abs()),
                false => Scalar::from(number as u64),
            };
            let numbers = [1, 2, 3, 7, 8, 9, 127, 128, 129, 255, 256, 257, -1, -2, -8, -128];
            for of_key in [1, 2, 3, 8, 128, -1, -2, -128] {
                let point = ProjectivePoint::GENERATOR * small(of_key);
                let key: [u8; 65] = point.to_affine().to_encoded_point(false).as_bytes().try_into().unwrap();
                for u2 in numbers {
                    // With r chosen, u2 = r / s says what s is, and u1 = hash / s what the sum is. Whatever x it has, r is as good as that.
                    for r in [Scalar::ONE, small(u2) * hash * small(of_key).invert().unwrap(), -(small(u2) * hash) * small(of_key).invert().unwrap()] {
                        let s = r * small(u2).invert().unwrap();
                        let Ok(signature) = $krate::ecdsa::Signature::from_scalars(r.to_bytes(), s.to_bytes()) else { continue };
                        vectors.push((PublicKey::$key(key), message.clone(), signature.to_bytes().to_vec()));
                        tried += 1;
                    }
                }
            }
        }};
    }
    on!(k256, EcdsaSecp256k1, Scheme::EcdsaSecp256k1);
    on!(p256, EcdsaP256, Scheme::EcdsaP256);
    assert!(tried > 500, "{tried}");
    let tasks: Vec<_> =
        vectors.iter().map(|(key, message, signature)| SignatureTask { key, message, signature }).collect();
    all_by_the_device(backend, || {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        backend.verify(&tasks, &mut found);
        Backend::Scalar.verify(&tasks, &mut expected);
        assert_eq!(found, expected);
        found.len()
    });
}

fn small_order(backend: Backend) {
    let encodings = small_order_encodings();
    assert_eq!(encodings.len(), 14, "ZIP 215 lists 8 canonical and 6 other encodings");
    let pairs = encodings.iter().flat_map(|key| {
        encodings
            .iter()
            .map(|r| Vector::new(PublicKey::Ed25519(*key), b"Zcash".to_vec(), [&r[..], &[0; 32]].concat(), true))
    });
    let mut vectors: Vec<Vector> = pairs.collect();
    // A key or an R that is no point: y = 2 is on none.
    let mut none = [0; 32];
    none[0] = 2;
    for (key, r) in [(none, encodings[0]), (encodings[0], none), (none, none)] {
        let signature = [&r[..], &[0; 32]].concat();
        vectors.push(Vector::new(PublicKey::Ed25519(key), b"Zcash".to_vec(), signature, false));
    }
    let tasks: Vec<_> = vectors
        .iter()
        .map(|Vector { key, message, signature, .. }| SignatureTask { key, message, signature })
        .collect();
    all_by_the_device(backend, || {
        let mut verdicts = Vec::new();
        backend.verify(&tasks, &mut verdicts);
        vectors.iter().zip(&verdicts).for_each(|(vector, verdict)| assert_eq!(vector.expected, *verdict, "{vector:?}"));
        verdicts.len()
    });
}

fn differential(backend: Backend) {
    let count = number("CRYPTO_CASES", 300);
    let schemes = [signatures::Scheme::Ed25519, signatures::Scheme::Secp256k1, signatures::Scheme::P256];
    for (salt, scheme) in (1..).zip(schemes) {
        let mut random = Random(number("CRYPTO_SEED", 1) ^ (salt << 40));
        let (mut valid, mut done) = (0, 0);
        for size in [1u64, 2, 7, 8, 9, 63, 64, 65, 1_000].into_iter().cycle() {
            let size = size.min(count - done) as usize;
            all_by_the_device(backend, || {
                let (of_valid, of) = signatures::check_batch_on(&[backend], &[scheme], size, &random.bytes(size * 80));
                (valid, done) = (valid + of_valid as u64, done + of as u64);
                of
            });
            if done >= count {
                break;
            }
        }
        // Both verdicts must be frequent, or this compares nothing.
        assert!(valid * 10 > done * 3 && valid * 10 < done * 9, "{valid} of {done} are valid");
        println!("{scheme:?}: {done} signatures, {valid} of them valid");
    }
}

/// Stopped behind the comparison of verdicts: a software driver would take minutes to lose, and wins nowhere then.
fn measured(backend: Backend) {
    let before = gpu(backend).checked();
    let learned = cyclotron_crypto::gpu::measure(gpu(backend), || true).unwrap();
    assert_eq!(learned.device, gpu(backend).device().name());
    assert_eq!(learned.from, [Scheme::Ed25519, Scheme::EcdsaP256, Scheme::EcdsaSecp256k1].map(|scheme| (scheme, None)));
    assert_eq!(gpu(backend).checked() - before, 3 * 128);
    println!("{learned}");
}

/// Takes a device of its own away while a batch is on it: that batch fails, so does every one after it, and a backend finds the verdicts elsewhere.
fn loses_its_device(backend: Backend) {
    let choice = if backend == Backend::Gpu { Choice::Hardware } else { Choice::Software };
    let own = Gpu::open(choice, Some(gpu(backend).device().width())).unwrap();
    let (keys, signed): (Vec<_>, Vec<_>) = (0..2_000u32)
        .map(|n| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[n as u8; 32]);
            let mut signature = key.sign(&n.to_le_bytes()).to_bytes();
            signature[40] ^= u8::from(n % 3 == 0);
            (PublicKey::Ed25519(key.verifying_key().to_bytes()), (n.to_le_bytes(), signature))
        })
        .unzip();
    let pairs = keys.iter().zip(&signed);
    let tasks: Vec<SignatureTask<'_>> =
        pairs.map(|(key, (message, signature))| SignatureTask { key, message, signature }).collect();
    let mut valid = vec![false; tasks.len()];
    own.verify(Scheme::Ed25519, &tasks[..1], &mut valid[..1]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            own.device().destroy();
        });
        if choice == Choice::Software {
            let failed = own.verify(Scheme::Ed25519, &tasks, &mut valid);
            println!("{}", failed.unwrap_err());
        }
    });
    own.verify(Scheme::Ed25519, &tasks[..1], &mut valid[..1]).unwrap_err();
    own.verify(Scheme::Ed25519, &tasks[..1], &mut valid[..1]).unwrap_err();

    // The backend's own device, last of all.
    let mut verdicts = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            gpu(backend).device().destroy();
        });
        backend.verify(&tasks, &mut verdicts);
    });
    for _ in 0..2 {
        for (n, verdict) in verdicts.iter().enumerate() {
            assert_eq!(*verdict, Verdict::from(n % 3 != 0), "{n}");
        }
        backend.verify(&tasks, &mut verdicts);
    }
    gpu(backend).merkle_level(&[], &[[0; 32]; 2], &mut [[0; 32]]).unwrap_err();
}
