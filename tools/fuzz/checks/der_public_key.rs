// What must hold for every key; shared by the fuzz target and the test that replays its corpus.

use cyclotron_crypto::{PublicKey, SignatureTask, Verdict, verify};

/// Parses `der`; what parses has that one encoding, and a signature of zeros by it is no surprise to the verifier.
pub fn check(der: &[u8]) {
    let Ok(key) = PublicKey::from_der(der) else { return };
    assert_eq!(key.to_der(), der);
    let length = if matches!(key, PublicKey::Bls12381(_)) { 48 } else { 64 };
    let mut verdicts = Vec::new();
    verify(&[SignatureTask { key: &key, message: b"message", signature: &[0; 64][..length] }], &mut verdicts);
    // By the rule of ZIP 215 a key of small order accepts such a signature; no other key does.
    assert!(verdicts == [Verdict::Invalid] || matches!(key, PublicKey::Ed25519(_)));
}
