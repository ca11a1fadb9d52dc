//! Suite `crypto`: signatures checked and messages hashed by the batch on one core, beside the crates that others use.
//!
//! Each sample checks one batch as often as takes some milliseconds. A peer without batches does one after the other; keys are bytes for all, as they are
//! when a request comes, but for the shares of BLS, whose signers are known. Ed25519 of dalek follows RFC 8032, ours and zebra's ZIP 215: on these
//! signatures they agree.
//!
//! Ours keeps keys that it took apart. `distinct` checks batch after batch of keys that were not seen for so long that none is kept; `known` has a key for
//! each signature, the same ones again and again; `repeated` has few keys.

#[cfg(feature = "commonware")]
mod commonware;

use crate::report::{Bound, Report};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_crypto::gpu::Gpu;
use cyclotron_crypto::{
    Backend, BlsSecretKey, NodeKey, PublicKey, RootSigner, SignatureTask, Verdict, sha256_batch, verify,
};
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use rand::SeedableRng as _;
use sha2::{Digest as _, Sha256};

const OURS: &str = "cyclotron";
/// Signatures of a batch.
const SIZES: [usize; 8] = [1, 8, 16, 64, 256, 1_024, 4_096, 16_384];
/// Of the slower schemes, which take no advantage of larger ones.
const SMALL_SIZES: [usize; 3] = [1, 64, 1_024];
/// Of the choice of backends.
const BACKEND_SIZES: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 24, 32, 64, 256, 1_024, 4_096];
const BACKENDS: &str = "backends";
/// Shares on one message: the nodes of a large subnet.
const SHARES: usize = 40;
/// Keys where they are repeated.
const REPEATED: usize = 16;
/// What users sign begins with it, its length before it; a hash of 32 bytes follows.
const DOMAIN: &[u8] = b"ic-request";
/// Least time of a sample. Units: s.
const SAMPLE_SECONDS: f64 = 0.02;
/// Domain separation tag of BLS signatures.
const BLS_TAG: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// Signatures of `distinct`: four times as many keys as are kept.
const FRESH: usize = 65_536;

/// Signed messages; all are valid.
struct Signed {
    keys: Vec<PublicKey>,
    messages: Vec<Vec<u8>>,
    signatures: Vec<Vec<u8>>,
}

impl Signed {
    fn make(count: usize, sign: impl Fn(usize, &[u8]) -> (PublicKey, Vec<u8>)) -> Self {
        let messages: Vec<_> = (0..count).map(message).collect();
        let (keys, signatures) = messages.iter().enumerate().map(|(n, message)| sign(n, message)).unzip();
        Self { keys, messages, signatures }
    }

    fn tasks(&self) -> Vec<SignatureTask<'_>> {
        let columns = self.keys.iter().zip(&self.messages).zip(&self.signatures);
        columns.map(|((key, message), signature)| SignatureTask { key, message, signature }).collect()
    }
}

fn message(number: usize) -> Vec<u8> {
    let hash = Sha256::digest(number.to_le_bytes());
    [&[DOMAIN.len() as u8], DOMAIN, &hash[..]].concat()
}

/// As long as a block of SHA-256.
fn padded(number: usize) -> Vec<u8> {
    let mut message = message(number);
    message.resize(64, 0);
    message
}

fn seed(number: usize) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed
}

/// How many of `each` are done in a second; `run` does them once and says whether all are right.
fn rate(runner: &Runner, each: f64, mut run: impl FnMut() -> bool) -> Result<Sample, Failure> {
    let least = if runner.quick { 0.0 } else { SAMPLE_SECONDS };
    let (mut done, mut seconds) = (0.0, 0.0);
    while done == 0.0 || seconds < least {
        let (took, right) = runner.clock.time(&mut run);
        if !right {
            return Err(failed("a good signature is refused, or a hash is another"));
        }
        done += each;
        seconds += took;
    }
    Ok(Sample { value: done / seconds, check: 0 })
}

fn ours<'a>(runner: &'a Runner, signed: &'a Signed) -> Subject<'a> {
    let tasks = signed.tasks();
    let size = tasks.len();
    in_batches(runner, OURS, tasks, size, verify_all)
}

/// The same on a GPU, if there is one. Its time is that of the wall: the processor's says little.
fn on_gpu<'a>(runner: &'a Runner, tasks: Vec<SignatureTask<'a>>, size: usize) -> Option<Subject<'a>> {
    let gpu = Gpu::hardware().ok()?;
    // A handful of names for the whole run.
    let name: &'static str = Box::leak(format!("gpu: {}", gpu.device().name()).into_boxed_str());
    Some(in_batches(runner, name, tasks, size, |tasks| {
        let mut verdicts = Vec::new();
        Backend::Gpu.verify(tasks, &mut verdicts);
        // With the device gone these would be the processor's.
        gpu.device().check().is_ok() && verdicts.iter().all(|verdict| *verdict == Verdict::Valid)
    }))
}

fn verify_all(tasks: &[SignatureTask<'_>]) -> bool {
    let mut verdicts = Vec::new();
    verify(tasks, &mut verdicts);
    verdicts.iter().all(|verdict| *verdict == Verdict::Valid)
}

/// A subject that checks batch after batch of the tasks, and begins again at the end.
fn in_batches<'a>(
    runner: &'a Runner,
    name: &'static str,
    tasks: Vec<SignatureTask<'a>>,
    size: usize,
    verify: impl Fn(&[SignatureTask<'a>]) -> bool + 'a,
) -> Subject<'a> {
    let mut begin = 0;
    Subject::new(name, move || {
        rate(runner, size as f64, || {
            let batch = &tasks[begin..begin + size];
            begin = if begin + 2 * size <= tasks.len() { begin + size } else { 0 };
            verify(batch)
        })
    })
}

/// A peer that checks one after the other.
fn one_by_one<'a>(
    runner: &'a Runner,
    name: &'static str,
    signed: &'a Signed,
    verify: impl Fn(usize, &SignatureTask<'_>) -> bool + 'a,
) -> Subject<'a> {
    let tasks = signed.tasks();
    Subject::new(name, move || {
        rate(runner, tasks.len() as f64, || tasks.iter().enumerate().all(|(n, task)| verify(n, task)))
    })
}

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    report.suite("crypto", "signatures a second on one core, hashes in GB/s; ratios to the first peer");
    for keys in [Keys::Distinct, Keys::Known, Keys::Repeated] {
        ed25519(runner, report, keys)?;
    }
    for size in SMALL_SIZES {
        secp256k1(runner, report, &format!("secp256k1_{size}"), size)?;
        p256(runner, report, &format!("p256_{size}"), size)?;
    }
    backends(runner, report)?;
    bls_shares(runner, report, &format!("bls_share_{SHARES}"))?;
    for size in SIZES {
        sha256(runner, report, &format!("sha256_{size}"), size)?;
    }
    if !cfg!(feature = "commonware") {
        report.note("commonware's Ed25519 is a subject where the feature `commonware` is on");
    }
    if let Err(reason) = Gpu::hardware() {
        report.note(&format!("nothing was measured on a GPU: {reason}"));
    }
    if !has_ifma() {
        report.note("the goals are for AVX-512 IFMA, which this processor does not have");
        return Ok(());
    }
    for (case, bound) in [
        ("ed25519_distinct_4096", 450_000.0),
        ("ed25519_distinct_64", 200_000.0),
        ("ed25519_repeated_4096", 900_000.0),
        ("secp256k1_1024", 150_000.0),
        ("p256_1024", 100_000.0),
        ("bls_share_40", 20_000.0),
        ("sha256_4096", 3.4),
    ] {
        if let Some(value) = report.median(case, OURS) {
            report.goal(case, value, Bound::AtLeast(bound));
        }
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn has_ifma() -> bool {
    std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512ifma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_ifma() -> bool {
    false
}

/// Whose signatures a batch has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// A new key for each.
    Distinct,
    /// A key for each, as in the batch before.
    Known,
    /// Few keys.
    Repeated,
}

fn ed25519(runner: &Runner, report: &mut Report, keys: Keys) -> Result<(), Failure> {
    let name = match keys {
        Keys::Distinct => "distinct",
        Keys::Known => "known",
        Keys::Repeated => "repeated",
    };
    let case = |size: usize| format!("ed25519_{name}_{size}");
    if !SIZES.iter().any(|size| runner.wants(&case(*size))) {
        return Ok(());
    }
    let most = SIZES[SIZES.len() - 1];
    let signer = |n: usize| NodeKey::from_seed(&seed(if keys == Keys::Repeated { n % REPEATED } else { n }));
    let signed = Signed::make(if keys == Keys::Distinct { FRESH } else { most }, |n, message| {
        let signer = signer(n);
        (signer.public_key(), signer.sign(message).to_vec())
    });
    for size in SIZES.into_iter().filter(|size| runner.wants(&case(*size))) {
        let tasks = || {
            let mut tasks = signed.tasks();
            if keys != Keys::Distinct {
                tasks.truncate(size);
            }
            tasks
        };
        let mut subjects = vec![
            in_batches(runner, OURS, tasks(), size, verify_all),
            in_batches(runner, "ed25519-dalek batch", tasks(), size, dalek_batch),
            in_batches(runner, "ed25519-zebra batch", tasks(), size, zebra_batch),
            in_batches(runner, "ed25519-dalek", tasks(), size, |tasks| tasks.iter().all(dalek)),
        ];
        #[cfg(feature = "commonware")]
        subjects.push(in_batches(runner, "commonware batch", tasks(), size, commonware::batch));
        subjects.extend(on_gpu(runner, tasks(), size));
        let measured = runner.measure(&case(size), Unit::SigPerS, subjects)?;
        report.case(&case(size), Unit::SigPerS, "ed25519-dalek batch", &measured);
    }
    Ok(())
}

fn dalek_key(task: &SignatureTask<'_>) -> Option<ed25519_dalek::VerifyingKey> {
    match task.key {
        PublicKey::Ed25519(key) => ed25519_dalek::VerifyingKey::from_bytes(key).ok(),
        _ => None,
    }
}

fn dalek_signature(task: &SignatureTask<'_>) -> Option<ed25519_dalek::Signature> {
    ed25519_dalek::Signature::from_slice(task.signature).ok()
}

fn dalek(task: &SignatureTask<'_>) -> bool {
    let (Some(key), Some(signature)) = (dalek_key(task), dalek_signature(task)) else { return false };
    key.verify(task.message, &signature).is_ok()
}

fn dalek_batch(tasks: &[SignatureTask<'_>]) -> bool {
    let messages: Vec<_> = tasks.iter().map(|task| task.message).collect();
    let keys: Option<Vec<_>> = tasks.iter().map(dalek_key).collect();
    let signatures: Option<Vec<_>> = tasks.iter().map(dalek_signature).collect();
    let (Some(keys), Some(signatures)) = (keys, signatures) else { return false };
    ed25519_dalek::verify_batch(&messages, &signatures, &keys).is_ok()
}

/// On curve25519-dalek 5.
fn zebra_batch(tasks: &[SignatureTask<'_>]) -> bool {
    let mut batch = ed25519_zebra::batch::Verifier::new();
    for task in tasks {
        let PublicKey::Ed25519(key) = *task.key else { return false };
        let Ok(signature) = ed25519_zebra::Signature::from_slice(task.signature) else { return false };
        batch.queue((key.into(), signature, task.message));
    }
    // The measurement needs no secret.
    batch.verify(rand::rngs::StdRng::from_seed(seed(tasks.len()))).is_ok()
}

/// Makes the key of this number and signs a message with it.
type Sign = fn(usize, &[u8]) -> (PublicKey, Vec<u8>);

fn sign_ed25519(n: usize, message: &[u8]) -> (PublicKey, Vec<u8>) {
    let key = NodeKey::from_seed(&seed(n));
    (key.public_key(), key.sign(message).to_vec())
}

fn sign_secp256k1(n: usize, message: &[u8]) -> (PublicKey, Vec<u8>) {
    let key = k256::ecdsa::SigningKey::from_slice(&seed(n + 1)).expect("a seed in range");
    let signature: k256::ecdsa::Signature = key.sign(message);
    let point = key.verifying_key().to_encoded_point(false);
    (PublicKey::EcdsaSecp256k1(point.as_bytes().try_into().expect("65 bytes")), signature.to_bytes().to_vec())
}

fn sign_p256(n: usize, message: &[u8]) -> (PublicKey, Vec<u8>) {
    let key = p256::ecdsa::SigningKey::from_slice(&seed(n + 1)).expect("a seed in range");
    let signature: p256::ecdsa::Signature = key.sign(message);
    let point = key.verifying_key().to_encoded_point(false);
    (PublicKey::EcdsaP256(point.as_bytes().try_into().expect("65 bytes")), signature.to_bytes().to_vec())
}

/// Every backend at every size, for the choice among them: only when asked for by name, for they take long. Keys are known.
fn backends(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    if !runner.filter.as_deref().is_some_and(|filter| filter.contains(BACKENDS)) {
        return Ok(());
    }
    let schemes: [(&str, Sign); 3] = [("ed25519", sign_ed25519), ("secp256k1", sign_secp256k1), ("p256", sign_p256)];
    for (scheme, sign) in schemes {
        for size in BACKEND_SIZES {
            let case = format!("{BACKENDS}_{scheme}_{size}");
            if !runner.wants(&case) {
                continue;
            }
            let signed = Signed::make(size, sign);
            let fast = Backend::available().into_iter().filter(|backend| !backend.is_twin());
            let subject = |backend: Backend| {
                in_batches(runner, backend.name(), signed.tasks(), size, move |tasks| {
                    let mut verdicts = Vec::new();
                    backend.verify(tasks, &mut verdicts);
                    verdicts.iter().all(|verdict| *verdict == Verdict::Valid)
                })
            };
            let measured = runner.measure(&case, Unit::SigPerS, fast.map(subject).collect())?;
            report.case(&case, Unit::SigPerS, Backend::Combined.name(), &measured);
        }
    }
    Ok(())
}

fn secp256k1(runner: &Runner, report: &mut Report, case: &str, size: usize) -> Result<(), Failure> {
    if !runner.wants(case) {
        return Ok(());
    }
    let signed = Signed::make(size, sign_secp256k1);
    let of = |task: &SignatureTask<'_>| match task.key {
        PublicKey::EcdsaSecp256k1(key) => *key,
        _ => [0; 65],
    };
    let library = one_by_one(runner, "libsecp256k1", &signed, |_, task| {
        let hash = secp256k1::Message::from_digest(Sha256::digest(task.message).into());
        let key = secp256k1::PublicKey::from_slice(&of(task));
        let signature = secp256k1::ecdsa::Signature::from_compact(task.signature);
        let (Ok(key), Ok(signature)) = (key, signature) else { return false };
        signature.verify(hash, &key).is_ok()
    });
    let rust = one_by_one(runner, "k256", &signed, |_, task| {
        let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&of(task));
        let signature = k256::ecdsa::Signature::from_slice(task.signature);
        let (Ok(key), Ok(signature)) = (key, signature) else { return false };
        key.verify(task.message, &signature).is_ok()
    });
    let mut subjects = vec![ours(runner, &signed), library, rust];
    subjects.extend(on_gpu(runner, signed.tasks(), size));
    let measured = runner.measure(case, Unit::SigPerS, subjects)?;
    report.case(case, Unit::SigPerS, "libsecp256k1", &measured);
    Ok(())
}

fn p256(runner: &Runner, report: &mut Report, case: &str, size: usize) -> Result<(), Failure> {
    if !runner.wants(case) {
        return Ok(());
    }
    let signed = Signed::make(size, sign_p256);
    let rust = one_by_one(runner, "p256", &signed, |_, task| {
        let PublicKey::EcdsaP256(key) = task.key else { return false };
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key);
        let signature = p256::ecdsa::Signature::from_slice(task.signature);
        let (Ok(key), Ok(signature)) = (key, signature) else { return false };
        key.verify(task.message, &signature).is_ok()
    });
    let mut subjects = vec![ours(runner, &signed), rust];
    subjects.extend(on_gpu(runner, signed.tasks(), size));
    let measured = runner.measure(case, Unit::SigPerS, subjects)?;
    report.case(case, Unit::SigPerS, "p256", &measured);
    Ok(())
}

/// Shares of many signers on one message.
fn bls_shares(runner: &Runner, report: &mut Report, case: &str) -> Result<(), Failure> {
    if !runner.wants(case) {
        return Ok(());
    }
    let mut signed = Signed::make(SHARES, |n, _| {
        let key = BlsSecretKey::from_seed(&seed(n));
        (key.public_key(), key.sign(&message(0)).to_vec())
    });
    signed.messages.fill(message(0));
    let keys: Vec<_> = signed
        .keys
        .iter()
        .map(|key| match key {
            PublicKey::Bls12381(key) => blst::min_sig::PublicKey::from_bytes(key),
            _ => Err(blst::BLST_ERROR::BLST_BAD_ENCODING),
        })
        .collect::<Result<_, _>>()
        .map_err(|error| Failure(format!("{error:?}")))?;
    let peer = one_by_one(runner, "blst", &signed, |n, task| {
        let Ok(signature) = blst::min_sig::Signature::from_bytes(task.signature) else { return false };
        signature.verify(true, task.message, BLS_TAG, &[], &keys[n], false) == blst::BLST_ERROR::BLST_SUCCESS
    });
    let measured = runner.measure(case, Unit::SigPerS, vec![ours(runner, &signed), peer])?;
    report.case(case, Unit::SigPerS, "blst", &measured);
    Ok(())
}

/// Messages of 64 bytes: two digests, as in a hash tree.
fn sha256(runner: &Runner, report: &mut Report, case: &str, size: usize) -> Result<(), Failure> {
    if !runner.wants(case) {
        return Ok(());
    }
    let messages: Vec<Vec<u8>> = (0..size).map(padded).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let expected: Vec<[u8; 32]> = slices.iter().map(|message| Sha256::digest(message).into()).collect();
    let gigabytes = (size * 64) as f64 / 1e9;
    let subject = |name, hash: fn(&[&[u8]], &mut [[u8; 32]])| {
        let (slices, expected) = (&slices, &expected);
        let mut digests = vec![[0; 32]; size];
        Subject::new(name, move || {
            rate(runner, gigabytes, || {
                hash(slices, &mut digests);
                digests == *expected
            })
        })
    };
    let plain = |messages: &[&[u8]], digests: &mut [[u8; 32]]| {
        for (message, digest) in messages.iter().zip(digests) {
            *digest = Sha256::digest(message).into();
        }
    };
    let measured = runner.measure(case, Unit::GbPerS, vec![subject(OURS, sha256_batch), subject("sha2", plain)])?;
    report.case(case, Unit::GbPerS, "sha2", &measured);
    Ok(())
}
