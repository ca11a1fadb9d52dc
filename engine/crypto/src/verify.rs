//! One call that checks many signatures.

use crate::bls::{BlsTask, Suite};
use crate::ed25519::Signed;
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

/// The machinery that a batch runs on. A variant exists only where its machinery does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// One signature after the other on this thread; defines what is valid.
    Scalar,
    /// Ed25519 and BLS signatures by one random linear combination of each kind, on this thread; the others one after the other.
    #[default]
    Combined,
}

impl Backend {
    /// Those that this machine can run; the first defines what is valid.
    pub fn available() -> Vec<Self> {
        vec![Self::Scalar, Self::Combined]
    }
}

impl Backend {
    /// Checks every task and writes its verdict to the same place in `verdicts`, whose former content is dropped.
    pub fn verify(self, tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        match self {
            Self::Scalar => verdicts.extend(tasks.iter().map(verify_scalar)),
            Self::Combined => verify_combined(tasks, verdicts),
        }
        assert_eq!(verdicts.len(), tasks.len(), "one verdict a task");
    }
}

fn verify_scalar(task: &SignatureTask<'_>) -> Verdict {
    let SignatureTask { key, message, signature } = *task;
    Verdict::from(match key {
        PublicKey::Ed25519(key) => ed25519::verify(&Signed { key, message, signature }),
        PublicKey::EcdsaP256(key) => ecdsa::verify_p256(key, message, signature),
        PublicKey::EcdsaSecp256k1(key) => ecdsa::verify_secp256k1(key, message, signature),
        PublicKey::Bls12381(key) => bls::verify(Suite::Basic, key, message, signature),
    })
}

fn verify_combined(tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
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
            PublicKey::EcdsaP256(_) | PublicKey::EcdsaSecp256k1(_) => verify_scalar(task),
        });
    }
    let mut valid = vec![false; ed25519.len()];
    ed25519::verify_batch(&ed25519, &mut valid);
    for (place, valid) in ed25519_places.into_iter().zip(valid) {
        verdicts[place] = valid.into();
    }
    let mut found = Vec::new();
    bls::verify_batch(Suite::Basic, &bls, &mut found);
    for (place, verdict) in bls_places.into_iter().zip(found) {
        verdicts[place] = verdict;
    }
}

/// Checks a batch on the default backend.
pub fn verify(tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
    Backend::default().verify(tasks, verdicts);
}
