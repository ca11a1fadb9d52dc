//! The node's own keys.

use crate::bls::Suite;
use crate::key::PublicKey;
use crate::principal::self_authenticating;
use blstrs::{G1Affine, G2Affine, G2Projective, Scalar};
use ed25519_dalek::Signer;
use group::ff::Field;
use group::prime::PrimeCurveAffine;
use ic_principal::Principal;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// Signs the roots of state trees: one secret key now, a threshold of shares once nodes are many.
pub trait RootSigner: Send + Sync {
    /// DER form of the key that verifies the signatures.
    fn public_key_der(&self) -> Vec<u8>;
    /// Signs a message, domain separator included: a compressed G1 point.
    fn sign(&self, message: &[u8]) -> [u8; 48];
}

/// A BLS12-381 secret key that is whole in this process.
pub struct BlsSecretKey {
    /// Big-endian, below the group's order, not zero.
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 96],
}

impl fmt::Debug for BlsSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlsSecretKey(..)")
    }
}

/// Names the use of the seed, so that the same seed elsewhere gives another key.
const BLS_SEED_DOMAIN: &[u8] = b"cyclotron-bls12381-secret-key";

impl BlsSecretKey {
    /// Derives a key from 32 bytes of entropy; uniform over the secret keys if they are.
    ///
    /// Cost: about 2.2 hashes, since 45 % of the 255-bit numbers lie below the group's order.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        for attempt in 0u64.. {
            let hasher = Sha256::new().chain_update(BLS_SEED_DOMAIN).chain_update(seed);
            let mut bytes = Zeroizing::new(<[u8; 32]>::from(hasher.chain_update(attempt.to_be_bytes()).finalize()));
            bytes[0] &= 0x7f;
            if let Some(key) = Self::from_bytes(&bytes) {
                return key;
            }
        }
        unreachable!("SHA-256 gives a number below the order long before 2^64 attempts")
    }

    /// Takes a key as [`Self::to_bytes`] gives it; `None` if the number is zero or not below the group's order.
    pub fn from_bytes(secret: &[u8; 32]) -> Option<Self> {
        let scalar = Option::<Scalar>::from(Scalar::from_bytes_be(secret)).filter(|s| !bool::from(s.is_zero()))?;
        let public = G2Affine::from(G2Projective::from(G2Affine::generator()) * scalar).to_compressed();
        Some(Self { secret: Zeroizing::new(*secret), public })
    }

    /// The key as 32 bytes, big-endian, for storing.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// The key that verifies.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::Bls12381(self.public)
    }

    /// The key that verifies: a compressed G2 point.
    pub fn public_bytes(&self) -> &[u8; 96] {
        &self.public
    }

    /// Signs a message in a suite: a compressed G1 point.
    pub fn sign_in(&self, suite: Suite, message: &[u8]) -> [u8; 48] {
        let scalar = Option::<Scalar>::from(Scalar::from_bytes_be(&self.secret)).expect("checked by from_bytes");
        G1Affine::from(suite.hash(message) * scalar).to_compressed()
    }
}

impl RootSigner for BlsSecretKey {
    fn public_key_der(&self) -> Vec<u8> {
        self.public_key().to_der()
    }

    fn sign(&self, message: &[u8]) -> [u8; 48] {
        self.sign_in(Suite::Basic, message)
    }
}

/// A node's Ed25519 key, by which it signs query answers.
pub struct NodeKey {
    key: ed25519_dalek::SigningKey,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.node_id())
    }
}

impl NodeKey {
    /// Takes 32 bytes of entropy as the secret. Spec: RFC 8032, section 5.1.5.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: ed25519_dalek::SigningKey::from_bytes(seed) }
    }
    /// The secret, for storing.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }
    /// The key that verifies.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::Ed25519(self.key.verifying_key().to_bytes())
    }
    /// DER form of the key that verifies.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.public_key().to_der()
    }
    /// The node's name.
    pub fn node_id(&self) -> Principal {
        self_authenticating(&self.public_key_der())
    }
    /// Signs a message, domain separator included.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}
