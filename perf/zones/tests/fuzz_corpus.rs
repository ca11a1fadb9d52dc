//! Replays the corpus of the fuzz target `profile`, and random mutations of it, so that every test run does a little of its work.

#[path = "../../../tools/fuzz/checks/profile.rs"]
mod profile;

use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus/profile");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("corpus folder").map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("corpus file")).collect()
});

#[test]
fn the_corpus_holds_and_has_what_can_be_read() {
    CORPUS.iter().for_each(|input| profile::check(input));
    let whole = CORPUS.iter().filter(|input| profile::read_frame(input).1).count();
    assert!(whole >= 4, "only {whole} of {}", CORPUS.len());
    let zones = CORPUS.iter().map(|input| profile::read_frame(input).0.places.len()).sum::<usize>();
    assert!(zones >= 4, "only {zones}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn mutations_of_the_corpus_hold(
        which: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..6),
    ) {
        let mut bytes = which.get(&CORPUS).clone();
        for (place, byte, kind) in edits {
            let place = place.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(place, byte),
                1 if place < bytes.len() => drop(bytes.remove(place)),
                _ if place < bytes.len() => bytes[place] = byte,
                _ => {}
            }
        }
        profile::check(&bytes);
    }
}
