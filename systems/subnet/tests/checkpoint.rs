//! Records of checkpoints that no program wrote: refused with a reason, whatever they say.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../../../tools/fuzz/checks/checkpoint.rs"]
mod checkpoint;

use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus/checkpoint");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
});

#[test]
fn checkpoints_that_were_written_once_are_restored() {
    let restored = CORPUS.iter().filter(|input| checkpoint::check(input)).count();
    assert!(CORPUS.len() >= 4 && restored >= 3, "{restored} of {}", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutations_are_refused_or_restored(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
    ) {
        let mut input = which.get(&CORPUS).clone();
        for (place, byte, kind) in edits {
            let place = place.index(input.len() + 1);
            match kind {
                0 => input.insert(place, byte),
                1 if place < input.len() => drop(input.remove(place)),
                // The largest numbers of CBOR, wherever they fall.
                2 if place + 9 < input.len() => input[place..place + 9].copy_from_slice(&[0x1b, 255, 255, 255, 255, 255, 255, 255, 255]),
                _ if place < input.len() => input[place] = byte,
                _ => {}
            }
        }
        checkpoint::check(&input);
    }
}
