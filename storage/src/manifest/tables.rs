//! What is hashed, and how: the manifest of the Internet Computer, version 3.
//!
//! Enters: files and chunks. Leaves: their hashes, and the root. Never here: where their bytes come from.
//!
//! Source: dfinity/ic, `rs/state_manager/src/{manifest.rs,manifest/hash.rs,state_sync/types.rs}` (version 3, October 2024), `rs/protobuf/def/state/sync/v1/manifest.proto`.
//!
//! - `chunk = H("ic-state-chunk", bytes)`; chunks are of 1 MiB, but for the last.
//! - `file = H("ic-state-file", number of chunks (4), for each its bytes (4), its offset (8) and its hash)`.
//! - The manifest as protobuf is cut into pieces of 1 MiB: `piece = H("ic-state-sub-manifest", bytes)`.
//! - `root = H("ic-state-meta-manifest", version (4), number of pieces (4), their hashes)`.
//!
//! `H` is SHA-256 of the length of the domain (1), the domain, and the rest; integers are big-endian.

use crate::manifest::{CHUNK_BYTES, Hash, on_threads};
use cyclotron_crypto::sha256_batch;

const CHUNK: &[u8] = b"\x0eic-state-chunk";
const FILE: &[u8] = b"\x0dic-state-file";
const PIECE: &[u8] = b"\x15ic-state-sub-manifest";
const ROOT: &[u8] = b"\x16ic-state-meta-manifest";

const _: () = assert!(CHUNK.len() == 1 + CHUNK[0] as usize && FILE.len() == 1 + FILE[0] as usize);
const _: () = assert!(PIECE.len() == 1 + PIECE[0] as usize && ROOT.len() == 1 + ROOT[0] as usize);

/// Pieces of the manifest that are hashed at once.
const PIECES: usize = 16;

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Where in the file it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u32,
    /// Its hash.
    pub hash: Hash,
}

/// Offset and length of each chunk of a file of so many bytes.
pub fn chunks_of(size: u64) -> impl Iterator<Item = (u64, u32)> {
    (0..size).step_by(CHUNK_BYTES).map(move |offset| (offset, (size - offset).min(CHUNK_BYTES as u64) as u32))
}

fn hash_one(message: &[u8]) -> Hash {
    let mut digest = [[0; 32]];
    sha256_batch(&[message], &mut digest);
    digest[0]
}

/// A message to hash as a chunk: `content` appends its bytes.
pub(super) fn chunk_message(bytes: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(CHUNK.len() + bytes);
    message.extend_from_slice(CHUNK);
    message
}

/// The hash of a chunk.
pub fn chunk_hash(content: &[u8]) -> Hash {
    let mut message = chunk_message(content.len());
    message.extend_from_slice(content);
    hash_one(&message)
}

/// The hash of a file. Panics: when it has 2^32 chunks.
pub fn file_hash(chunks: impl Iterator<Item = Chunk>) -> Hash {
    let mut message = [FILE, &[0; 4]].concat();
    let mut count = 0u32;
    for chunk in chunks {
        message.extend_from_slice(&chunk.bytes.to_be_bytes());
        message.extend_from_slice(&chunk.offset.to_be_bytes());
        message.extend_from_slice(&chunk.hash);
        count = count.checked_add(1).expect("a file has fewer chunks");
    }
    message[FILE.len()..FILE.len() + 4].copy_from_slice(&count.to_be_bytes());
    hash_one(&message)
}

/// Hashes the encoded manifest as it comes: all files first, in the order of their paths, then all chunks.
#[derive(Debug)]
pub struct Tables {
    version: u32,
    threads: usize,
    /// Pieces that are full, and the one that is not, each behind its domain.
    pieces: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
    /// The next entry.
    entry: Vec<u8>,
}

impl Tables {
    /// Begins a manifest. Only its version and what is in it decide about its root.
    pub fn new(version: u32, threads: usize) -> Self {
        let mut tables =
            Self { version, threads, pieces: Vec::new(), hashes: Vec::new(), entry: Vec::with_capacity(256) };
        let mut head = Vec::new();
        number(&mut head, 1, u64::from(version));
        tables.write(&head);
        tables
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, size: u64, hash: &Hash) {
        let mut entry = std::mem::take(&mut self.entry);
        bytes(&mut entry, 1, path.as_bytes());
        number(&mut entry, 2, size);
        bytes(&mut entry, 3, hash);
        self.entry(2, entry);
    }

    /// Adds a chunk of the file with an index.
    pub fn chunk(&mut self, file: u32, chunk: &Chunk) {
        let mut entry = std::mem::take(&mut self.entry);
        number(&mut entry, 1, u64::from(file));
        number(&mut entry, 2, u64::from(chunk.bytes));
        number(&mut entry, 3, chunk.offset);
        bytes(&mut entry, 4, &chunk.hash);
        self.entry(3, entry);
    }

    /// The root.
    pub fn root(mut self) -> Hash {
        self.hash_pieces();
        let count = u32::try_from(self.hashes.len()).expect("a manifest has fewer pieces");
        hash_one(&[ROOT, &self.version.to_be_bytes(), &count.to_be_bytes(), self.hashes.as_flattened()].concat())
    }

    fn entry(&mut self, field: u8, mut entry: Vec<u8>) {
        let mut head = [0; 11];
        head[0] = field << 3 | 2;
        let length = varint(entry.len() as u64, head[1..].first_chunk_mut().expect("as long"));
        self.write(&head[..1 + length]);
        self.write(&entry);
        entry.clear();
        self.entry = entry;
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let is_full = |piece: &Vec<u8>| piece.len() == PIECE.len() + CHUNK_BYTES;
            if self.pieces.last().is_none_or(is_full) {
                if self.pieces.len() == PIECES {
                    self.hash_pieces();
                }
                self.pieces.push(PIECE.to_vec());
            }
            let piece = self.pieces.last_mut().expect("there is one");
            let (now, later) = bytes.split_at(bytes.len().min(PIECE.len() + CHUNK_BYTES - piece.len()));
            piece.extend_from_slice(now);
            bytes = later;
        }
    }

    fn hash_pieces(&mut self) {
        self.hashes.extend(on_threads(self.threads, &self.pieces, |pieces| {
            let messages: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut hashes = vec![[0; 32]; messages.len()];
            sha256_batch(&messages, &mut hashes);
            hashes
        }));
        self.pieces.clear();
    }
}

/// Base 128, the low digits first. Returns the number of bytes.
fn varint(mut value: u64, out: &mut [u8; 10]) -> usize {
    for (n, byte) in out.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8 | if value > 0x7f { 0x80 } else { 0 };
        value >>= 7;
        if value == 0 {
            return n + 1;
        }
    }
    unreachable!("ten digits of seven bits hold any number")
}

/// A field with a number, which is left out if it is zero.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        let mut digits = [0; 10];
        let length = varint(value, &mut digits);
        out.push(field << 3);
        out.extend_from_slice(&digits[..length]);
    }
}

/// A field with bytes, which is left out if there are none.
fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        let mut digits = [0; 10];
        let length = varint(value.len() as u64, &mut digits);
        out.push(field << 3 | 2);
        out.extend_from_slice(&digits[..length]);
        out.extend_from_slice(value);
    }
}
