//! From which batch size on a device wins, found out by measuring when a node starts.

use crate::gpu::{Failed, Gpu};
use crate::key::PublicKey;
use crate::verify::{Backend, Scheme, SignatureTask};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Schemes that there are kernels for.
const SCHEMES: [Scheme; 3] = [Scheme::Ed25519, Scheme::EcdsaP256, Scheme::EcdsaSecp256k1];
/// Sizes that are tried, from the largest down: where the device loses, smaller ones need not be.
const SIZES: [usize; 11] = [16_384, 8_192, 4_096, 2_048, 1_024, 512, 256, 128, 64, 32, 16];
/// Signatures that are made for it; larger batches have them more than once, and take the processor as long as so many smaller ones.
const SIGNATURES: usize = 1_024;
/// Signatures whose verdicts are compared before anything is measured.
const COMPARED: usize = 128;
/// Each size is measured so often, and the least time counts.
const ROUNDS: usize = 3;
/// A device must be faster by this much, so that a batch is not sent there and back for nothing.
const ADVANTAGE: f64 = 1.25;
/// Time after which a scheme is given up, on its way through the sizes.
const SCHEME_TIME: Duration = Duration::from_secs(3);

/// Signatures of each scheme from which batches go to the device: none before [`learn`], and none if it does not win.
static FROM: [AtomicUsize; SCHEMES.len()] = [const { AtomicUsize::new(usize::MAX) }; SCHEMES.len()];

fn place(scheme: Scheme) -> Option<usize> {
    SCHEMES.iter().position(|of| *of == scheme)
}

/// Whether so many signatures go to the device.
pub(crate) fn wins(scheme: Scheme, count: usize) -> bool {
    place(scheme).is_some_and(|place| count >= FROM[place].load(Ordering::Relaxed))
}

/// The device is gone: nothing more goes there.
pub(crate) fn forget() {
    FROM.iter().for_each(|from| from.store(usize::MAX, Ordering::Relaxed));
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// As its driver calls it.
    pub device: String,
    /// Signatures of a batch from which the device wins; `None`: it does not.
    pub from: Vec<(Scheme, Option<usize>)>,
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        for (scheme, from) in &self.from {
            match from {
                Some(from) => write!(f, ", {} from {from} signatures", scheme.name())?,
                None => write!(f, ", {} never", scheme.name())?,
            }
        }
        Ok(())
    }
}

/// Measures the hardware beside the processor, and has [`crate::verify`] use it from then on where it wins. Cost: seconds, on this thread and the device.
///
/// `is_over`: somebody ends the program, and nothing is learned. Errors: there is no hardware, or it failed, or found another verdict than the processor.
pub fn learn(is_over: impl Fn() -> bool) -> Result<Learned, Failed> {
    let learned = measure(Gpu::hardware().map_err(Failed::clone)?, is_over)?;
    for (scheme, from) in &learned.from {
        if let Some(place) = place(*scheme) {
            FROM[place].store(from.unwrap_or(usize::MAX), Ordering::Relaxed);
        }
    }
    Ok(learned)
}

/// As [`learn`], on any device, and nothing is used because of it.
pub fn measure(gpu: &Gpu, is_over: impl Fn() -> bool) -> Result<Learned, Failed> {
    let mut from = Vec::with_capacity(SCHEMES.len());
    for scheme in SCHEMES {
        from.push((scheme, measure_scheme(gpu, scheme, &is_over)?));
    }
    Ok(Learned { device: gpu.device().name().to_owned(), from })
}

fn measure_scheme(gpu: &Gpu, scheme: Scheme, is_over: &impl Fn() -> bool) -> Result<Option<usize>, Failed> {
    let samples = Samples::new(scheme);
    let on_processor = Backend::fastest_on_processor(scheme, SIGNATURES);
    // Compiles, and compares: a device that finds another verdict is not one to trust.
    samples.check(|tasks, valid| gpu.verify(scheme, tasks, valid))?;
    let begin = Instant::now();
    let mut least = None;
    for size in SIZES {
        if is_over() || begin.elapsed() > SCHEME_TIME {
            break;
        }
        let tasks = samples.tasks(size);
        let mut valid = vec![false; size];
        let processor = {
            let part = size.min(SIGNATURES);
            let took = time(|| {
                on_processor.verify_one_scheme(scheme, &tasks[..part], &mut valid[..part]);
                Ok(())
            })?;
            took * (size / part) as f64
        };
        let device = time(|| gpu.verify(scheme, &tasks, &mut valid))?;
        if device * ADVANTAGE > processor {
            break;
        }
        least = Some(size);
    }
    Ok(least)
}

/// The least of some times. Units: s.
fn time(mut run: impl FnMut() -> Result<(), Failed>) -> Result<f64, Failed> {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        run()?;
        least = least.min(begin.elapsed().as_secs_f64());
    }
    Ok(least)
}

/// Signatures by as many keys; every seventh is spoiled.
struct Samples(Vec<(PublicKey, [u8; 8], Vec<u8>)>);

impl Samples {
    fn new(scheme: Scheme) -> Self {
        let sample = |n: usize| {
            let message = n.to_le_bytes();
            let mut seed = [0x5a; 32];
            seed[..8].copy_from_slice(&message);
            let (key, mut signature) = sign(scheme, &seed, &message);
            signature[40] ^= u8::from(n % 7 == 3);
            (key, message, signature)
        };
        Self((0..SIGNATURES).map(sample).collect())
    }

    fn tasks(&self, count: usize) -> Vec<SignatureTask<'_>> {
        let task = |(key, message, signature)| SignatureTask { key, message, signature };
        self.0
            .iter()
            .cycle()
            .take(count)
            .map(|(key, message, signature)| (key, &message[..], &signature[..]))
            .map(task)
            .collect()
    }

    fn check(
        &self,
        verify: impl FnOnce(&[SignatureTask<'_>], &mut [bool]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let mut valid = [false; COMPARED];
        verify(&self.tasks(COMPARED), &mut valid)?;
        match valid.iter().enumerate().all(|(n, valid)| *valid == (n % 7 != 3)) {
            true => Ok(()),
            false => Err(Failed("it finds other verdicts than the processor".to_owned())),
        }
    }
}

fn sign(scheme: Scheme, seed: &[u8; 32], message: &[u8]) -> (PublicKey, Vec<u8>) {
    use p256::ecdsa::signature::Signer;
    match scheme {
        Scheme::EcdsaP256 => {
            let key = p256::ecdsa::SigningKey::from_slice(seed).expect("far below the order");
            let signature: p256::ecdsa::Signature = key.sign(message);
            let point = key.verifying_key().to_encoded_point(false);
            (PublicKey::EcdsaP256(point.as_bytes().try_into().expect("65 bytes")), signature.to_bytes().to_vec())
        }
        Scheme::EcdsaSecp256k1 => {
            let key = k256::ecdsa::SigningKey::from_slice(seed).expect("far below the order");
            let signature: k256::ecdsa::Signature = key.sign(message);
            let point = key.verifying_key().to_encoded_point(false);
            (PublicKey::EcdsaSecp256k1(point.as_bytes().try_into().expect("65 bytes")), signature.to_bytes().to_vec())
        }
        Scheme::Ed25519 | Scheme::Bls12381 => {
            let key = ed25519_dalek::SigningKey::from_bytes(seed);
            (PublicKey::Ed25519(key.verifying_key().to_bytes()), key.sign(message).to_bytes().to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Verdict, verify};

    #[test]
    fn a_device_that_was_chosen_and_is_gone_is_forgotten_and_the_processor_finds_the_verdicts() {
        if Gpu::hardware().is_ok() {
            println!("SKIPPED: the device is there");
            return;
        }
        let samples = Samples::new(Scheme::Ed25519);
        let mut verdicts = Vec::new();
        FROM[0].store(2, Ordering::Relaxed);
        assert!(wins(Scheme::Ed25519, 2) && !wins(Scheme::Ed25519, 1) && !wins(Scheme::Bls12381, 2));
        let parts = verify(&samples.tasks(70), &mut verdicts);
        assert!(verdicts.iter().enumerate().all(|(n, verdict)| (*verdict == Verdict::Valid) == (n % 7 != 3)));
        assert_eq!(parts.iter().map(|part| (part.signatures, part.valid)).collect::<Vec<_>>(), [(70, 60)]);
        assert_ne!(parts[0].backend, Backend::Gpu, "metrics say what found the verdicts");
        assert!(!wins(Scheme::Ed25519, 70), "it is not asked again");
    }
}
