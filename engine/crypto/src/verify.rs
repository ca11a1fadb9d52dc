//! One call that checks many signatures, and one that hashes many messages.

use crate::ed25519::Signed;
use crate::key::PublicKey;
use crate::{bls, ecdsa, ed25519};
use sha2::{Digest as _, Sha256};

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
    /// Ed25519 signatures by one random linear combination of them, on this thread; the others one after the other.
    #[default]
    Combined,
}

impl Backend {
    /// All of them; the first defines what is valid.
    pub const ALL: [Self; 2] = [Self::Scalar, Self::Combined];
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
        PublicKey::Bls12381(key) => bls::verify(key, message, signature),
    })
}

fn verify_combined(tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
    let mut signed = Vec::with_capacity(tasks.len());
    let mut places = Vec::with_capacity(tasks.len());
    for (place, task) in tasks.iter().enumerate() {
        let SignatureTask { key, message, signature } = *task;
        match key {
            PublicKey::Ed25519(key) => {
                signed.push(Signed { key, message, signature });
                places.push(place);
                verdicts.push(Verdict::Invalid);
            }
            _ => verdicts.push(verify_scalar(task)),
        }
    }
    let mut valid = vec![false; signed.len()];
    ed25519::verify_batch(&signed, &mut valid);
    for (place, valid) in places.into_iter().zip(valid) {
        verdicts[place] = valid.into();
    }
}

/// Checks a batch on the default backend.
pub fn verify(tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
    Backend::default().verify(tasks, verdicts);
}

/// Hashes every message into the same place in `digests`.
///
/// Panics: if the slices differ in length.
pub fn sha256_batch(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    assert_eq!(messages.len(), digests.len(), "one digest a message");
    for (message, digest) in messages.iter().zip(digests) {
        *digest = Sha256::digest(message).into();
    }
}
