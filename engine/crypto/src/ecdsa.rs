//! ECDSA over SHA-256 on P-256 and secp256k1; signatures are `r || s`, 32 bytes each, big-endian.
//!
//! `s` may lie in either half of its range on both curves, as in dfinity/ic (`rs/crypto/ecdsa_secp256r1`, and
//! `verify_ecdsa_signature_prehashed_with_malleability` of `rs/crypto/secp256k1`, which its user-signature check calls):
//! request ids do not depend on signatures, so a second valid signature gains nothing.

use p256::ecdsa::signature::Verifier;

pub(crate) fn verify_p256(key: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = p256::ecdsa::VerifyingKey::from_sec1_bytes(key) else { return false };
    let Ok(signature) = p256::ecdsa::Signature::from_slice(signature) else { return false };
    key.verify(message, &signature).is_ok()
}

pub(crate) fn verify_secp256k1(key: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = k256::ecdsa::VerifyingKey::from_sec1_bytes(key) else { return false };
    let Ok(signature) = k256::ecdsa::Signature::from_slice(signature) else { return false };
    // The k256 crate refuses a high `s`; its negative is valid for the same message.
    let signature = signature.normalize_s().unwrap_or(signature);
    key.verify(message, &signature).is_ok()
}
