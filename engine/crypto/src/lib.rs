//! Signatures and hashes in batches.
//!
//! Enters: keys, messages and signatures as bytes from anywhere. Leaves: one verdict for each, in order; what it took; signatures by this
//! node's own keys. Never here: what a message means, who may sign it, randomness in keys (they come from bytes
//! the caller drew) or verdicts (that of a batch's coefficients changes none), a panic on outside bytes.
//!
//! All backends give the same verdict on the same bytes, the scalar one being the definition. Unsafe code is that of vector instructions, and calls of
//! blst.
#![deny(unsafe_code)]

pub mod bls;
mod cache;
mod combined;
mod ecdsa;
mod ed25519;
pub mod gpu;
mod hash;
mod key;
mod lanes;
mod principal;
mod sign;
mod verify;

pub use hash::{merkle_level, sha224_batch, sha256_batch, sha512_batch};
pub use key::{PublicKey, PublicKeyError, Unsupported};
pub use principal::self_authenticating;
pub use sign::{BlsSecretKey, NodeKey, RootSigner};
pub use verify::{Backend, Part, Scheme, SignatureTask, Verdict, verify};
