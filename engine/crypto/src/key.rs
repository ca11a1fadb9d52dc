//! Public keys in their DER form (`SubjectPublicKeyInfo`).
//!
//! The IC takes each key in one encoding only, so a supported key is a fixed prefix and a raw key of fixed length. Anything
//! else is walked just far enough to name the scheme it asks for.
//!
//! Spec: ic-interface-spec #signatures; dfinity/ic refuses any key whose re-encoding differs
//! (`rs/crypto/internal/crypto_lib/basic_sig/*/src/api.rs`), compressed points among them.

use std::fmt;

const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const SECP256K1_PREFIX: [u8; 23] = [
    0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x0a, 0x03, 0x42, 0x00,
];
// 1.3.6.1.4.1.44668.5.3.1.2.1 and .5.3.2.1. Spec: ic-interface-spec #certification-delegation.
const BLS_PREFIX: [u8; 37] = [
    0x30, 0x81, 0x82, 0x30, 0x1d, 0x06, 0x0d, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x01, 0x02,
    0x01, 0x06, 0x0c, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x02, 0x01, 0x03, 0x61, 0x00,
];

const OID_COSE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x01];
const OID_CANISTER_SIGNATURE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x02];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const OID_BLS: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x01, 0x02, 0x01];

const DER_SEQUENCE: u8 = 0x30;
const DER_OID: u8 = 0x06;
/// First byte of an uncompressed point. SEC 1, section 2.3.3.
const UNCOMPRESSED: u8 = 0x04;

/// A public key, taken apart but not yet put on its curve: a key that is no point makes every signature invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublicKey {
    /// Compressed point.
    Ed25519([u8; 32]),
    /// Uncompressed point, `04` first.
    EcdsaP256([u8; 65]),
    /// Uncompressed point, `04` first.
    EcdsaSecp256k1([u8; 65]),
    /// Compressed G2 point.
    Bls12381([u8; 96]),
}

/// A scheme that the IC knows and this node does not verify yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// A COSE key, as WebAuthn signs with.
    WebAuthn,
    /// A canister's key.
    CanisterSignature,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebAuthn => "not supported yet: WebAuthn signatures",
            Self::CanisterSignature => "not supported yet: canister signatures",
        })
    }
}

/// Why bytes are not a public key that can be verified with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublicKeyError {
    /// Not the one DER encoding that the IC takes.
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// A scheme to come.
    Unsupported(Unsupported),
}

impl fmt::Display for PublicKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { reason } => write!(f, "malformed public key: {reason}"),
            Self::Unsupported(scheme) => scheme.fmt(f),
        }
    }
}

impl std::error::Error for PublicKeyError {}

fn raw<const N: usize>(der: &[u8], prefix: &[u8]) -> Option<[u8; N]> {
    der.strip_prefix(prefix)?.try_into().ok()
}

impl PublicKey {
    /// Takes a DER key apart. Errors: a scheme to come is named, everything else is malformed.
    pub fn from_der(der: &[u8]) -> Result<Self, PublicKeyError> {
        if let Some(key) = raw(der, &ED25519_PREFIX) {
            return Ok(Self::Ed25519(key));
        }
        if let Some(key) = raw::<65>(der, &P256_PREFIX).filter(|key| key[0] == UNCOMPRESSED) {
            return Ok(Self::EcdsaP256(key));
        }
        if let Some(key) = raw::<65>(der, &SECP256K1_PREFIX).filter(|key| key[0] == UNCOMPRESSED) {
            return Ok(Self::EcdsaSecp256k1(key));
        }
        if let Some(key) = raw(der, &BLS_PREFIX) {
            return Ok(Self::Bls12381(key));
        }
        Err(refusal(der))
    }

    /// The key's DER form.
    pub fn to_der(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [&ED25519_PREFIX[..], key].concat(),
            Self::EcdsaP256(key) => [&P256_PREFIX[..], key].concat(),
            Self::EcdsaSecp256k1(key) => [&SECP256K1_PREFIX[..], key].concat(),
            Self::Bls12381(key) => [&BLS_PREFIX[..], key].concat(),
        }
    }
}

/// The content of the DER element at the front of `der` if it has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

fn algorithm(der: &[u8]) -> Option<&[u8]> {
    let (info, trailing) = element(der, DER_SEQUENCE)?;
    let (algorithm, _) = element(info, DER_SEQUENCE)?;
    let (oid, _) = element(algorithm, DER_OID)?;
    trailing.is_empty().then_some(oid)
}

/// Says why a key that is none of the supported ones is refused.
fn refusal(der: &[u8]) -> PublicKeyError {
    let reason = match algorithm(der) {
        Some(OID_COSE) => return PublicKeyError::Unsupported(Unsupported::WebAuthn),
        Some(OID_CANISTER_SIGNATURE) => return PublicKeyError::Unsupported(Unsupported::CanisterSignature),
        Some(OID_RSA) => "RSA is not allowed outside WebAuthn",
        Some(OID_EC) => "an EC key must be an uncompressed point of P-256 or secp256k1 in canonical DER",
        Some(OID_ED25519) => "an Ed25519 key must be 32 bytes in canonical DER",
        Some(OID_BLS) => "a BLS key must be 96 bytes in canonical DER",
        Some(_) => "unknown algorithm",
        None => "not a DER SubjectPublicKeyInfo",
    };
    PublicKeyError::Malformed { reason }
}
