//! Signatures as kernels take them.

use crate::ed25519;
use crate::hash::sha512_batch;
use crate::key::PublicKey;
use crate::verify::SignatureTask;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use cyclotron_shaders::{ED25519_BASE_MULTIPLES, Ed25519Job};

/// A job for each signature that has the right length and a canonical `S`. Returns their places; the others are invalid.
pub(super) fn ed25519(tasks: &[SignatureTask<'_>], jobs: &mut Vec<Ed25519Job>) -> Vec<usize> {
    let mut places = Vec::with_capacity(tasks.len());
    let mut signed = Vec::with_capacity(tasks.len());
    let (mut hashed, mut ends): (Vec<u8>, Vec<usize>) = (Vec::new(), Vec::with_capacity(tasks.len()));
    for (at, SignatureTask { key, message, signature }) in tasks.iter().enumerate() {
        let PublicKey::Ed25519(key) = key else { continue };
        let Some((r, s)) = ed25519::parts(signature) else { continue };
        [&r[..], key, message].iter().for_each(|part| hashed.extend_from_slice(part));
        ends.push(hashed.len());
        places.push(at);
        signed.push((key, r, s));
    }
    let mut begin = 0;
    let messages: Vec<&[u8]> = ends.iter().map(|end| &hashed[std::mem::replace(&mut begin, *end)..*end]).collect();
    let mut digests = vec![[0; 64]; messages.len()];
    sha512_batch(&messages, &mut digests);
    jobs.extend(signed.into_iter().zip(&digests).map(|((key, r, s), digest)| {
        Ed25519Job::new(*key, *r, s.to_bytes(), Scalar::from_bytes_mod_order_wide(digest).to_bytes())
    }));
    places
}

/// The negatives of 0, 1, 2 and so on times the base point.
pub(super) fn ed25519_table() -> Vec<Ed25519Job> {
    let multiples = std::iter::successors(Some(EdwardsPoint::identity()), |last| Some(last - ED25519_BASEPOINT_POINT));
    let job = |point: EdwardsPoint| Ed25519Job { key: point.compress().to_bytes(), ..Ed25519Job::default() };
    multiples.take(ED25519_BASE_MULTIPLES).map(job).collect()
}
