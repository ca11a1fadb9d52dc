// Corpora in ordinary tests: read, and edited at random.

use proptest::prelude::*;
use proptest::sample::Index;
use std::path::Path;

/// Inserted, removed or replaced bytes: where, which byte, and what is done.
pub type Edits = Vec<(Index, u8, u8)>;

/// The largest number of CBOR.
const CBOR_MAX: [u8; 9] = [0x1b, 255, 255, 255, 255, 255, 255, 255, 255];

/// What the corpus of a target holds, in the order of the files' names.
pub fn read(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new("tools/fuzz/corpus").join(target);
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|above| above.join(&folder)).find(|at| at.is_dir());
    let entries = folder.expect("corpus folder").read_dir().expect("corpus folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("corpus file")).collect()
}

/// A few edits.
pub fn edits() -> impl Strategy<Value = Edits> {
    prop::collection::vec((any::<Index>(), any::<u8>(), 0u8..4), 1..6)
}

/// An entry of the corpus, edited.
pub fn edited(corpus: &[Vec<u8>], which: Index, edits: &Edits) -> Vec<u8> {
    let mut bytes = which.get(corpus).clone();
    for (place, byte, kind) in edits {
        let place = place.index(bytes.len() + 1);
        match kind {
            0 => bytes.insert(place, *byte),
            1 if place < bytes.len() => drop(bytes.remove(place)),
            2 if place + CBOR_MAX.len() < bytes.len() => bytes[place..][..CBOR_MAX.len()].copy_from_slice(&CBOR_MAX),
            _ if place < bytes.len() => bytes[place] = *byte,
            _ => {}
        }
    }
    bytes
}
