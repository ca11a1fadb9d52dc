//! A file of a manifest, and its form in `HEIGHT.manifest`.
//!
//! Invariant owned here: what is read has the one form in which it is written.

use crate::manifest::tables::{Chunk, chunks_of, file_hash};
use crate::manifest::{CHUNK_BYTES, FILE_BYTES_MAX, Hash};

/// Bytes of a path at most.
const PATH_BYTES_MAX: usize = 255;
/// Bytes of a run.
const RUN_BYTES: usize = 36;

/// A file: its path, its length, and the hashes of its chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestFile {
    path: String,
    size: u64,
    /// How many chunks with the same hash follow on each other, and the hash.
    runs: Vec<(u32, Hash)>,
}

impl ManifestFile {
    /// A file with the hashes of its chunks in order.
    ///
    /// Panics: when they are not as many as its length says, or path or length are beyond their limits.
    pub fn new(path: String, size: u64, hashes: impl IntoIterator<Item = Hash>) -> Self {
        assert!(!path.is_empty() && path.len() <= PATH_BYTES_MAX && size <= FILE_BYTES_MAX, "a file beyond its limits");
        let mut runs: Vec<(u32, Hash)> = Vec::new();
        let mut count = 0;
        for hash in hashes {
            match runs.last_mut() {
                Some((times, last)) if *last == hash => *times += 1,
                _ => runs.push((1, hash)),
            }
            count += 1;
        }
        assert_eq!(count, size.div_ceil(CHUNK_BYTES as u64), "a hash for each chunk");
        Self { path, size, runs }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of its chunks.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> + '_ {
        self.runs.iter().flat_map(|(times, hash)| std::iter::repeat_n(*hash, *times as usize))
    }

    /// Its chunks.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        chunks_of(self.size).zip(self.hashes()).map(|((offset, bytes), hash)| Chunk { offset, bytes, hash })
    }

    /// Its hash.
    pub fn hash(&self) -> Hash {
        file_hash(self.chunks())
    }
}

/// How many bytes two paths begin with in common.
fn common(before: &str, path: &str) -> usize {
    before.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count()
}

/// Appends a file behind the one with the path `before`, which is empty for the first of a frame.
pub fn encode_file(before: &str, file: &ManifestFile, out: &mut Vec<u8>) {
    let common = common(before, &file.path);
    let rest = &file.path.as_bytes()[common..];
    out.extend_from_slice(&[common as u8, rest.len() as u8]);
    out.extend_from_slice(rest);
    out.extend_from_slice(&file.size.to_le_bytes());
    out.extend_from_slice(&(file.runs.len() as u32).to_le_bytes());
    for (times, hash) in &file.runs {
        out.extend_from_slice(&times.to_le_bytes());
        out.extend_from_slice(hash);
    }
}

/// The files of a frame; `None` behind those that have their form.
pub fn decode_files(mut content: &[u8]) -> impl Iterator<Item = Option<ManifestFile>> {
    let mut before = String::new();
    std::iter::from_fn(move || {
        if content.is_empty() {
            return None;
        }
        let Some((file, rest)) = decode_file(&before, content) else {
            content = &[];
            return Some(None);
        };
        content = rest;
        before.clone_from(&file.path);
        Some(Some(file))
    })
}

fn decode_file<'a>(before: &str, content: &'a [u8]) -> Option<(ManifestFile, &'a [u8])> {
    let (&[shared, length], content) = content.split_first_chunk()?;
    let (suffix, content) = content.split_at_checked(usize::from(length))?;
    let path = [before.as_bytes().get(..usize::from(shared))?, suffix].concat();
    let path = String::from_utf8(path).ok()?;
    let in_order =
        path.as_str() > before && path.len() <= PATH_BYTES_MAX && common(before, &path) == usize::from(shared);
    let (size, content) = content.split_first_chunk()?;
    let (count, content) = content.split_first_chunk()?;
    let (size, count) = (u64::from_le_bytes(*size), u32::from_le_bytes(*count) as usize);
    let (runs, content) = content.split_at_checked(count.checked_mul(RUN_BYTES)?)?;
    let run = |bytes: &[u8; RUN_BYTES]| {
        let (times, hash) = bytes.split_first_chunk().expect("it is longer");
        (u32::from_le_bytes(*times), hash.try_into().expect("as long as a hash"))
    };
    let runs: Vec<(u32, Hash)> = runs.as_chunks().0.iter().map(run).collect();
    let chunks = runs.iter().map(|(times, _)| u64::from(*times)).sum::<u64>();
    let longest = runs.iter().all(|(times, _)| *times > 0) && runs.windows(2).all(|pair| pair[0].1 != pair[1].1);
    let fits = in_order && longest && size <= FILE_BYTES_MAX && chunks == size.div_ceil(CHUNK_BYTES as u64);
    fits.then_some((ManifestFile { path, size, runs }, content))
}
