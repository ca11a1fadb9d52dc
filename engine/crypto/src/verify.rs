//! One call that checks many signatures.

use crate::bls::{BlsTask, Suite};
use crate::ed25519::{Kernel, Signed};
use crate::key::PublicKey;
use crate::{bls, ecdsa, ed25519};

/// One signature to check.
#[derive(Clone, Copy, Debug)]
pub struct SignatureTask<'a> {
    /// Who is said to have signed.
    pub key: &'a PublicKey,
    /// What is said to be signed, domain separator included.
    pub message: &'a [u8],
    /// The signature: 64 bytes `R || S` (Ed25519) or `r || s` big-endian (ECDSA over SHA-256), 48 bytes compressed G1 (BLS).
    pub signature: &'a [u8],
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The key's holder signed the message.
    Valid,
    /// Not so, for whatever reason: wrong length, no point on the curve, wrong signature.
    Invalid,
}

impl From<bool> for Verdict {
    fn from(valid: bool) -> Self {
        if valid { Self::Valid } else { Self::Invalid }
    }
}

/// The machinery that a batch runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// One signature after the other on this thread; defines what is valid.
    Scalar,
    /// Ed25519 and BLS signatures by one random linear combination of each kind, on this thread; the others one after the other, by what is faster.
    Combined,
    /// As `Combined`, Ed25519 by our own arithmetic, without lanes.
    Portable,
    /// As `Combined`, Ed25519 in four lanes of AVX2.
    Avx2,
    /// What `Avx2` computes, on arrays: for tests.
    Avx2Twin,
    /// As `Combined`, Ed25519 in eight lanes of AVX-512 IFMA.
    Ifma,
    /// What `Ifma` computes, on arrays: for tests.
    IfmaTwin,
}

impl Backend {
    const ALL: [Self; 7] =
        [Self::Scalar, Self::Combined, Self::Portable, Self::Avx2Twin, Self::Avx2, Self::IfmaTwin, Self::Ifma];

    /// Those that this machine can run; the first defines what is valid.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|backend| backend.kernel().is_none_or(Kernel::is_available)).collect()
    }

    /// What sums up Ed25519 signatures, if not curve25519-dalek.
    fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Scalar | Self::Combined => None,
            Self::Portable => Some(Kernel::Single),
            Self::Avx2 => Some(Kernel::Avx2),
            Self::Avx2Twin => Some(Kernel::Avx2Twin),
            Self::Ifma => Some(Kernel::Ifma),
            Self::IfmaTwin => Some(Kernel::IfmaTwin),
        }
    }

    /// Checks every task and writes its verdict to the same place in `verdicts`, whose former content is dropped. Panics: if it is not available.
    pub fn verify(self, tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        match self {
            Self::Scalar => verdicts.extend(tasks.iter().map(verify_scalar)),
            _ => verify_combined(self.kernel(), tasks, verdicts),
        }
        assert_eq!(verdicts.len(), tasks.len(), "one verdict a task");
    }

    /// The fastest for so many Ed25519 signatures.
    fn fastest(count: usize) -> Self {
        let from = |backend: Self, least: usize| {
            (count >= least && backend.kernel().is_none_or(Kernel::is_available)).then_some(backend)
        };
        from(Self::Ifma, IFMA_FROM).or(from(Self::Avx2, AVX2_FROM)).unwrap_or(Self::Combined)
    }
}

/// Signatures from which lanes win: with AVX2 by `examples/measure.rs` on a Zen 3. IFMA has not been measured.
const AVX2_FROM: usize = 24;
const IFMA_FROM: usize = 32;

fn verify_scalar(task: &SignatureTask<'_>) -> Verdict {
    let SignatureTask { key, message, signature } = *task;
    Verdict::from(match key {
        PublicKey::Ed25519(key) => ed25519::verify(&Signed { key, message, signature }),
        PublicKey::EcdsaP256(key) => ecdsa::verify_p256(key, message, signature),
        PublicKey::EcdsaSecp256k1(key) => ecdsa::verify_secp256k1(key, message, signature),
        PublicKey::Bls12381(key) => bls::verify(Suite::Basic, key, message, signature),
    })
}

fn verify_combined(kernel: Option<Kernel>, tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
    let (mut ed25519, mut ed25519_places) = (Vec::new(), Vec::new());
    let (mut bls, mut bls_places) = (Vec::new(), Vec::new());
    for (place, task) in tasks.iter().enumerate() {
        let SignatureTask { key, message, signature } = *task;
        verdicts.push(match key {
            PublicKey::Ed25519(key) => {
                ed25519.push(Signed { key, message, signature });
                ed25519_places.push(place);
                Verdict::Invalid
            }
            PublicKey::Bls12381(key) => {
                bls.push(BlsTask { key, message, signature });
                bls_places.push(place);
                Verdict::Invalid
            }
            PublicKey::EcdsaP256(key) => ecdsa::verify_p256_fast(key, message, signature).into(),
            PublicKey::EcdsaSecp256k1(key) => ecdsa::verify_secp256k1_fast(key, message, signature).into(),
        });
    }
    let mut valid = vec![false; ed25519.len()];
    ed25519::verify_batch(kernel, &ed25519, &mut valid);
    for (place, valid) in ed25519_places.into_iter().zip(valid) {
        verdicts[place] = valid.into();
    }
    let mut found = Vec::new();
    bls::verify_batch(Suite::Basic, &bls, &mut found);
    for (place, verdict) in bls_places.into_iter().zip(found) {
        verdicts[place] = verdict;
    }
}

/// Checks a batch on the backend that is fastest for it.
pub fn verify(tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
    let ed25519 = tasks.iter().filter(|task| matches!(task.key, PublicKey::Ed25519(_))).count();
    Backend::fastest(ed25519).verify(tasks, verdicts);
}
