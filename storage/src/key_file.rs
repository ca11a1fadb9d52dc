//! The key file: 84 bytes, see `FORMAT.md`.

use crate::StorageError;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"CYCLKEY\0";
const VERSION: u32 = 1;
const SECRET_BYTES: usize = 32;
const VERSION_AT: usize = 8;
const KIND_AT: usize = 12;
const LENGTH_AT: usize = 16;
const SECRET_AT: usize = 20;
const CHECKSUM_AT: usize = 52;

/// Length of a key file.
pub(crate) const KEY_FILE_BYTES: usize = 84;

const _: () = assert!(SECRET_AT + SECRET_BYTES == CHECKSUM_AT && CHECKSUM_AT + 32 == KEY_FILE_BYTES);

/// Which key a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The subnet's BLS12-381 key.
    Root,
    /// The node's Ed25519 key.
    Node,
}

impl KeyKind {
    /// Returns the number that stands for it at rest.
    pub const fn number(self) -> u32 {
        match self {
            Self::Root => 1,
            Self::Node => 2,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root key",
            Self::Node => "node key",
        })
    }
}

/// Returns the file that holds `secret`.
pub(crate) fn encode(kind: KeyKind, secret: &[u8; SECRET_BYTES]) -> Zeroizing<[u8; KEY_FILE_BYTES]> {
    let mut file = Zeroizing::new([0; KEY_FILE_BYTES]);
    file[..VERSION_AT].copy_from_slice(&MAGIC);
    file[VERSION_AT..KIND_AT].copy_from_slice(&VERSION.to_le_bytes());
    file[KIND_AT..LENGTH_AT].copy_from_slice(&kind.number().to_le_bytes());
    file[LENGTH_AT..SECRET_AT].copy_from_slice(&(SECRET_BYTES as u32).to_le_bytes());
    file[SECRET_AT..CHECKSUM_AT].copy_from_slice(secret);
    let checksum = Sha256::digest(&file[..CHECKSUM_AT]);
    file[CHECKSUM_AT..].copy_from_slice(&checksum);
    file
}

/// Returns the secret of a file, or what is wrong with it; `path` is for the message.
pub(crate) fn decode(kind: KeyKind, path: &Path, file: &[u8]) -> Result<Zeroizing<[u8; SECRET_BYTES]>, StorageError> {
    let damaged = |what| StorageError::KeyDamaged { path: path.to_owned(), what };
    let number = |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
    let length = || StorageError::KeyLength { path: path.to_owned(), bytes: file.len(), expected: KEY_FILE_BYTES };
    if file.len() < KIND_AT {
        return Err(length());
    }
    if file[..VERSION_AT] != MAGIC {
        return Err(damaged("it does not begin as a key file"));
    }
    if number(VERSION_AT) != VERSION {
        return Err(StorageError::KeyVersion { path: path.to_owned(), version: number(VERSION_AT) });
    }
    if file.len() != KEY_FILE_BYTES {
        return Err(length());
    }
    if Sha256::digest(&file[..CHECKSUM_AT])[..] != file[CHECKSUM_AT..] {
        return Err(damaged("its checksum does not match"));
    }
    if number(KIND_AT) != kind.number() {
        return Err(StorageError::KeyKindMismatch { path: path.to_owned(), found: number(KIND_AT), expected: kind });
    }
    if number(LENGTH_AT) as usize != SECRET_BYTES {
        return Err(damaged("its secret has another length"));
    }
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    secret.copy_from_slice(&file[SECRET_AT..CHECKSUM_AT]);
    Ok(secret)
}
