//! Signers of every scheme that users have, and what checks vectors on every backend.
// Each test takes its part.
#![allow(dead_code)]

use cyclotron_crypto::{Backend, BlsSecretKey, PublicKey, RootSigner, SignatureTask, Verdict, verify};
use ed25519_dalek::Signer as _;

/// Signs a message.
pub type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A public key in DER form and what signs for it.
pub struct TestSigner {
    pub name: &'static str,
    pub der: Vec<u8>,
    pub sign: Sign,
}

impl TestSigner {
    /// Verifies that the key and the signing function belong together before handing the key out.
    pub fn key(&self) -> PublicKey {
        let key = PublicKey::from_der(&self.der).expect("a supported key");
        let signature = (self.sign)(b"probe");
        let mut verdicts = Vec::new();
        verify(&[SignatureTask { key: &key, message: b"probe", signature: &signature }], &mut verdicts);
        assert_eq!(verdicts, [Verdict::Valid], "{}", self.name);
        key
    }
}

/// One signer of each scheme, made from a seed.
pub fn signers(seed: u8) -> Vec<TestSigner> {
    let bytes = [seed; 32];
    let ed25519 = ed25519_dalek::SigningKey::from_bytes(&bytes);
    let p256 = p256::ecdsa::SigningKey::from_slice(&bytes).expect("in range");
    let k256 = k256::ecdsa::SigningKey::from_slice(&bytes).expect("in range");
    let bls = BlsSecretKey::from_seed(&bytes);
    let ed25519_der = {
        use ed25519_dalek::pkcs8::EncodePublicKey;
        ed25519.verifying_key().to_public_key_der().expect("DER").into_vec()
    };
    let p256_der = {
        use p256::pkcs8::EncodePublicKey;
        p256::PublicKey::from(p256.verifying_key()).to_public_key_der().expect("DER").into_vec()
    };
    let k256_der = {
        use k256::pkcs8::EncodePublicKey;
        k256::PublicKey::from(k256.verifying_key()).to_public_key_der().expect("DER").into_vec()
    };
    let signer = |name, der, sign| TestSigner { name, der, sign };
    vec![
        signer("ed25519", ed25519_der, Box::new(move |m| ed25519.sign(m).to_bytes().to_vec())),
        signer(
            "p256",
            p256_der,
            Box::new(move |m| {
                let signature: p256::ecdsa::Signature = p256.sign(m);
                signature.to_bytes().to_vec()
            }),
        ),
        signer(
            "secp256k1",
            k256_der,
            Box::new(move |m| {
                let signature: k256::ecdsa::Signature = k256.sign(m);
                signature.to_bytes().to_vec()
            }),
        ),
        signer("bls12-381", bls.public_key_der(), Box::new(move |m| bls.sign(m).to_vec())),
    ]
}

/// A signature and what is to come of it.
#[derive(Clone, Debug)]
pub struct Vector {
    pub key: PublicKey,
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
    pub expected: Verdict,
}

impl Vector {
    pub fn new(key: PublicKey, message: Vec<u8>, signature: Vec<u8>, valid: bool) -> Self {
        Self { key, message, signature, expected: valid.into() }
    }
}

/// Batch sizes at which kernels take other paths.
pub const SIZES: [usize; 9] = [1, 2, 7, 8, 9, 63, 64, 65, 1_000];

/// Every backend must find the expected verdicts, in batches of every size, in an order in which valid and invalid ones are mixed.
pub fn check_in_batches(vectors: &[Vector]) {
    // Pairings are slow.
    let is_slow = vectors.iter().any(|vector| matches!(vector.key, PublicKey::Bls12381(_)));
    for size in SIZES.into_iter().filter(|size| !is_slow || *size < 70) {
        check_batches_of(&Backend::available(), vectors, size);
    }
}

/// As [`check_in_batches`], on these backends, in batches of one size. Returns how many signatures each has checked.
pub fn check_batches_of(backends: &[Backend], vectors: &[Vector], size: usize) -> usize {
    assert!(!vectors.is_empty());
    let mut state = size as u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut order: Vec<usize> = (0..vectors.len().max(size)).map(|at| at % vectors.len()).collect();
    (1..order.len()).for_each(|at| order.swap(at, random(at + 1)));
    for batch in order.chunks(size) {
        let tasks: Vec<_> = batch
            .iter()
            .map(|at| {
                let Vector { key, message, signature, .. } = &vectors[*at];
                SignatureTask { key, message, signature }
            })
            .collect();
        for backend in backends {
            let mut verdicts = Vec::new();
            backend.verify(&tasks, &mut verdicts);
            for (verdict, at) in verdicts.iter().zip(batch) {
                assert_eq!(*verdict, vectors[*at].expected, "{backend:?}, {size} at once: {at}, {:?}", vectors[*at]);
            }
        }
    }
    order.len()
}
