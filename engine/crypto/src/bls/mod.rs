//! BLS12-381 signatures with the signature in G1 and the key in G2.
//!
//! Enters: compressed keys and signatures from anywhere. Leaves: verdicts, signatures put together from shares. A key or signature outside the
//! groups of prime order is refused, and so is the identity as a key (the draft's KeyValidate).
//!
//! A share of 40 on one message takes, in us on one core, by known keys:
//!
//! | | measured on a Zen 3 of 2.45 GHz, each part alone | AVX-512 IFMA at 3 GHz, by counting |
//! | --- | --- | --- |
//! | a root, for y | 17, blst | 3, `lanes` |
//! | the check of the group | 49, blst | 7, `lanes` |
//! | its part of the sum in G1 | 16, `sums` | 13 |
//! | its part of the sum in G2 | 22, `sums` | 18 |
//! | a fortieth of two pairings and the hash | 25, blst | 20 |
//! | all | 129 (137 in `bench crypto`; 1,140 one by one) | 61 |
//!
//! The goal is 50 with IFMA. What is missing are the sums in lanes: a point of G1 takes 240 products there and one of G2 400, each of 21 cycles, with the
//! collecting of points 6 us of the 31.
//!
//! Spec: ic-interface-spec #certificate; draft-irtf-cfrg-bls-signature-04, ciphersuites below; dfinity/ic
//! `rs/crypto/internal/crypto_lib/{threshold_sig,multi_sig}/bls12_381`.

mod batch;
mod field;
mod kernel;
mod lanes;
mod pairs;
mod shares;
mod sums;

pub(crate) use batch::verify_batch_by;
pub use batch::{BlsTask, verify_batch};
pub use shares::{CombineError, aggregate, combine_shares};

use crate::cache::Cache;
use crate::sign::BlsSecretKey;
use crate::verify::Verdict;
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use group::prime::PrimeCurveAffine;
use pairs::Pairs;
use std::borrow::Cow;

/// What is signed, and how: signatures of one suite mean nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Certificates, and shares of threshold signatures: the draft's basic scheme.
    Basic,
    /// Multi-signatures by nodes whose keys come with proofs of possession.
    Multi,
    /// The proofs of possession of these keys; the message is the key.
    Possession,
}

/// What precedes the key in a proof of possession: its own length, then this.
const POSSESSION_CONTEXT: &[u8] = b"\x19ic-multi-sig-bls12381-pop";

const _: () = assert!(POSSESSION_CONTEXT.len() == 1 + POSSESSION_CONTEXT[0] as usize);

impl Suite {
    /// Domain separation tag of hashing to G1.
    const fn tag(self) -> &'static [u8] {
        match self {
            Suite::Basic => b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_",
            Suite::Multi => b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_",
            Suite::Possession => b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_",
        }
    }

    pub(crate) fn hash(self, message: &[u8]) -> G1Projective {
        let message = match self {
            Suite::Basic | Suite::Multi => Cow::Borrowed(message),
            Suite::Possession => Cow::Owned([POSSESSION_CONTEXT, message].concat()),
        };
        G1Projective::hash_to_curve(&message, self.tag(), &[])
    }
}

/// Keys that were valid lately. A node knows the keys of its peers and of subnets: some hundreds.
static KEYS: Cache<[u8; 96], G2Affine> = Cache::new(2_048);

/// The point of a key; `None` if it is none of the group, or the identity.
fn key_point(key: &[u8; 96]) -> Option<G2Affine> {
    KEYS.get_or_insert(key, || {
        let point = Option::<G2Affine>::from(G2Affine::from_compressed(key))?;
        (!bool::from(point.is_identity())).then_some(point)
    })
}

/// The point of a signature; `None` if it is none of the group. The identity is one, though no message has it for a signature.
fn signature_point(signature: &[u8]) -> Option<G1Affine> {
    let signature = <&[u8; 48]>::try_from(signature).ok()?;
    Option::from(G1Affine::from_compressed(signature))
}

/// Checks one signature: e(signature, -g2) · e(hash, key) = 1.
pub(crate) fn verify(suite: Suite, key: &[u8; 96], message: &[u8], signature: &[u8]) -> bool {
    let Some(signature) = signature_point(signature) else { return false };
    let Some(key) = key_point(key) else { return false };
    holds(&signature, [(&G1Affine::from(suite.hash(message)), &key)])
}

/// e(signature, -g2) · Π e(hash, key) = 1.
fn holds<'a>(signature: &G1Affine, claims: impl IntoIterator<Item = (&'a G1Affine, &'a G2Affine)>) -> bool {
    let mut pairs = Pairs::default();
    pairs.push(signature, &-G2Affine::generator());
    claims.into_iter().for_each(|(hash, key)| pairs.push(hash, key));
    pairs.product_is_one()
}

/// Checks a multi-signature: the sum of signatures by all these keys on one message.
///
/// The keys' possession must have been proved: without that, one signer can choose a key that cancels out the others'. No keys at all, or keys whose
/// sum is the identity, have no valid signature.
pub fn verify_multi(keys: &[&[u8; 96]], message: &[u8], signature: &[u8]) -> Verdict {
    let valid = || {
        let signature = signature_point(signature)?;
        let mut sum = G2Projective::from(G2Affine::identity());
        for key in keys {
            sum += key_point(key)?;
        }
        let sum = G2Affine::from(sum);
        let hash = G1Affine::from(Suite::Multi.hash(message));
        Some(!bool::from(sum.is_identity()) && holds(&signature, [(&hash, &sum)]))
    };
    Verdict::from(valid().unwrap_or(false))
}

/// Checks an aggregate: the sum of a signature by each key on its own message.
///
/// In the basic suite no message may occur twice, as the draft demands: keys come without proofs of possession there. No claims at all have no valid
/// signature.
pub fn verify_aggregate(suite: Suite, claims: &[(&[u8; 96], &[u8])], signature: &[u8]) -> Verdict {
    let valid = || {
        let signature = signature_point(signature)?;
        if suite == Suite::Basic {
            let mut messages: Vec<&[u8]> = claims.iter().map(|(_, message)| *message).collect();
            messages.sort_unstable();
            if messages.windows(2).any(|pair| pair[0] == pair[1]) {
                return None;
            }
        }
        let points: Vec<(G1Affine, G2Affine)> = claims
            .iter()
            .map(|(key, message)| Some((suite.hash(message).into(), key_point(key)?)))
            .collect::<Option<_>>()?;
        Some(!points.is_empty() && holds(&signature, points.iter().map(|(hash, key)| (hash, key))))
    };
    Verdict::from(valid().unwrap_or(false))
}

/// Proves that whoever publishes the key holds its secret.
pub fn prove_possession(secret: &BlsSecretKey) -> [u8; 48] {
    secret.sign_in(Suite::Possession, secret.public_bytes())
}

/// Checks a proof of possession.
pub fn verify_possession(key: &[u8; 96], proof: &[u8]) -> Verdict {
    Verdict::from(verify(Suite::Possession, key, key, proof))
}
