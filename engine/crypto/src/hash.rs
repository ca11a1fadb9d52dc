//! One call that hashes many messages.

use sha2::{Digest, Sha224, Sha256, Sha512};

/// Hashes every message into the same place in `digests`. Panics: if the slices differ in length.
pub fn sha256_batch(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    each(messages, digests, |message| Sha256::digest(message).into());
}

/// Hashes every message into the same place in `digests`. Panics: if the slices differ in length.
pub fn sha224_batch(messages: &[&[u8]], digests: &mut [[u8; 28]]) {
    each(messages, digests, |message| Sha224::digest(message).into());
}

/// Hashes every message into the same place in `digests`. Panics: if the slices differ in length.
pub fn sha512_batch(messages: &[&[u8]], digests: &mut [[u8; 64]]) {
    each(messages, digests, |message| Sha512::digest(message).into());
}

/// One level of a Merkle tree: each parent is the SHA-256 of `prefix` and its two children.
///
/// Panics: if there are not twice as many children as parents.
pub fn merkle_level(prefix: &[u8], children: &[[u8; 32]], parents: &mut [[u8; 32]]) {
    assert_eq!(children.len(), 2 * parents.len(), "two children a parent");
    let length = prefix.len() + 64;
    let mut bytes = Vec::with_capacity(length * parents.len());
    for pair in children.as_chunks::<2>().0 {
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(pair.as_flattened());
    }
    let messages: Vec<&[u8]> = bytes.chunks_exact(length).collect();
    sha256_batch(&messages, parents);
}

fn each<const N: usize>(messages: &[&[u8]], digests: &mut [[u8; N]], hash: impl Fn(&[u8]) -> [u8; N]) {
    assert_eq!(messages.len(), digests.len(), "one digest a message");
    messages.iter().zip(digests).for_each(|(message, digest)| *digest = hash(message));
}
