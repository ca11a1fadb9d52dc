//! The representation-independent hash: request ids, delegation hashes and what nodes sign in query answers.
//!
//! Spec: ic-interface-spec #hash-of-map.

use crate::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Domain separators of everything that is signed: each begins with its own length. Spec: ic-interface-spec #signatures.
pub mod domain {
    /// Before a request id that a sender signs.
    pub const REQUEST: &[u8; 11] = b"\x0Aic-request";
    /// Before the hash of a delegation.
    pub const DELEGATION: &[u8; 27] = b"\x1Aic-request-auth-delegation";
    /// Before the hash of a query answer that a node signs.
    pub const RESPONSE: &[u8; 12] = b"\x0Bic-response";
    /// Before the info that a canister signature in `sender_info` covers.
    pub const SENDER_INFO: &[u8; 15] = b"\x0Eic-sender-info";
    /// Before the root hash of a state tree.
    pub const STATE_ROOT: &[u8; 14] = b"\x0Dic-state-root";
}

/// A value in a hashed map.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Hashed as it is.
    Bytes(&'a [u8]),
    /// Hashed as its UTF-8 bytes.
    Text(&'a str),
    /// Hashed likewise; a word of the protocol's.
    Word(&'static str),
    /// Hashed as its shortest LEB128.
    Nat(u64),
    /// Hash of the elements' hashes.
    Array(Vec<Value<'a>>),
    /// Hashed as [`hash_of_map`].
    Map(Vec<(&'static str, Value<'a>)>),
}

fn sha256(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// Names of fields, and values that are one of few: they make up half of what a request id hashes, and are always the same.
const WORDS: [&str; 26] = [
    "arg",
    "call",
    "canister_id",
    "error_code",
    "expiration",
    "info",
    "ingress_expiry",
    "method_name",
    "nonce",
    "paths",
    "permissions",
    "pubkey",
    "query",
    "read_state",
    "reject_code",
    "reject_message",
    "rejected",
    "replied",
    "reply",
    "request_id",
    "request_type",
    "sender",
    "sender_info",
    "status",
    "targets",
    "timestamp",
];

fn word_hash(word: &str) -> Digest {
    static HASHES: LazyLock<BTreeMap<&str, Digest>> =
        LazyLock::new(|| WORDS.into_iter().map(|word| (word, sha256(word.as_bytes()))).collect());
    HASHES.get(word).copied().unwrap_or_else(|| sha256(word.as_bytes()))
}

/// Writes a natural number in the shortest form of LEB128.
pub fn leb128(mut value: u64) -> Vec<u8> {
    // 10 = 64 bits / 7 bits a byte, rounded up.
    let mut bytes = Vec::with_capacity(10);
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

impl Value<'_> {
    fn natural(&self) -> Option<u64> {
        match self {
            Self::Nat(value) => Some(*value),
            _ => None,
        }
    }

    fn hash(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => sha256(bytes),
            Self::Text(text) => sha256(text.as_bytes()),
            Self::Word(word) => word_hash(word),
            Self::Nat(value) => sha256(&leb128(*value)),
            Self::Array(elements) => {
                let mut hasher = Sha256::new();
                elements.iter().for_each(|element| hasher.update(element.hash()));
                hasher.finalize().into()
            }
            Self::Map(fields) => hash_of_map(fields),
        }
    }
}

/// The representation-independent hash of a map; the order of `fields` does not matter.
///
/// Cost: SHA-256 over values and 64 bytes a field. Spec: ic-interface-spec #hash-of-map.
pub fn hash_of_map(fields: &[(&'static str, Value<'_>)]) -> Digest {
    let mut pairs: Vec<(Digest, Digest)> = fields.iter().map(|(name, value)| (word_hash(name), value.hash())).collect();
    pairs.sort_unstable();
    let mut hasher = Sha256::new();
    for (name, value) in pairs {
        hasher.update(name);
        hasher.update(value);
    }
    hasher.finalize().into()
}

/// Hashes messages into the same places.
pub type HashBatch<'f> = &'f dyn Fn(&[&[u8]], &mut [Digest]);

/// What [`hash_of_map`] gives for each map. Plain values of all of them are hashed together, then all maps.
pub(crate) fn hashes_of_maps(maps: &[Vec<(&'static str, Value<'_>)>], sha256: HashBatch<'_>) -> Vec<Digest> {
    let naturals: Vec<Vec<u8>> = values(maps).filter_map(|value| value.natural().map(leb128)).collect();
    let mut next_natural = naturals.iter();
    let plain: Vec<&[u8]> = values(maps)
        .filter_map(|value| match value {
            Value::Bytes(bytes) => Some(*bytes),
            Value::Text(text) => Some(text.as_bytes()),
            Value::Nat(_) => next_natural.next().map(Vec::as_slice),
            Value::Word(_) | Value::Array(_) | Value::Map(_) => None,
        })
        .collect();
    let mut digests = vec![[0; 32]; plain.len()];
    sha256(&plain, &mut digests);
    let mut digests = digests.into_iter();
    let mut bytes = Vec::with_capacity(values(maps).count() * 2 * size_of::<Digest>());
    let mut ends = Vec::with_capacity(maps.len());
    let mut pairs = Vec::new();
    for fields in maps {
        pairs.extend(fields.iter().map(|(name, value)| {
            let hash = match value {
                Value::Bytes(_) | Value::Text(_) | Value::Nat(_) => digests.next().expect("a digest for each"),
                Value::Word(_) | Value::Array(_) | Value::Map(_) => value.hash(),
            };
            [word_hash(name), hash]
        }));
        pairs.sort_unstable();
        pairs.drain(..).for_each(|pair| bytes.extend_from_slice(pair.as_flattened()));
        ends.push(bytes.len());
    }
    let mut begin = 0;
    let whole: Vec<&[u8]> = ends.iter().map(|end| &bytes[std::mem::replace(&mut begin, *end)..*end]).collect();
    let mut hashes = vec![[0; 32]; maps.len()];
    sha256(&whole, &mut hashes);
    hashes
}

fn values<'m, 'v>(maps: &'m [Vec<(&'static str, Value<'v>)>]) -> impl Iterator<Item = &'m Value<'v>> {
    maps.iter().flatten().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naturals_are_leb128() {
        for (value, bytes) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (624_485, &[0xe5, 0x8e, 0x26]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(leb128(value), bytes);
        }
    }
}
