//! The Ed25519 batches of commonware's curve25519 crate. What it signs is a namespace behind its length and a message: what users of the IC sign.

use super::{DOMAIN, seed};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::{BatchEntry, BatchVerifier as _};
use commonware_cryptography_curve25519::signing::{Signature, VerifyingKey};
use commonware_parallel::Sequential;
use cyclotron_crypto::{PublicKey, SignatureTask};
use rand::SeedableRng as _;

/// Whether all of a batch are valid.
pub fn batch(tasks: &[SignatureTask<'_>]) -> bool {
    let take = |task: &SignatureTask<'_>| {
        let PublicKey::Ed25519(key) = task.key else { return None };
        Some((VerifyingKey::decode(Copying(key)).ok()?, Signature::decode(Copying(task.signature)).ok()?))
    };
    let Some(taken) = tasks.iter().map(take).collect::<Option<Vec<_>>>() else { return false };
    // The measurement needs no secret.
    let mut random = rand::rngs::StdRng::from_seed(seed(tasks.len()));
    VerifyingKey::verify_batch(
        &mut random,
        &taken,
        |n, (public_key, signature)| BatchEntry {
            namespace: DOMAIN,
            message: &tasks[n].message[1 + DOMAIN.len()..],
            public_key,
            signature,
        },
        &Sequential,
    )
}
