//! Replays the fuzz target's corpus of logs, and random mutations of it, so that every test run does a little of its work.

#[path = "../../tools/fuzz/checks/log.rs"]
mod log;

use cyclotron_storage::log::{Beginning, decode_batch};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/fuzz/corpus/log");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("corpus folder").map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("corpus file")).collect()
});

#[test]
fn the_corpus_holds_and_holds_what_is_read() {
    CORPUS.iter().for_each(|input| log::check(input));
    let batches = CORPUS.iter().filter(|input| input[0] % 5 == 1 && decode_batch(7, &input[1..]).is_some()).count();
    let beginnings =
        CORPUS.iter().filter(|input| input[0] % 5 == 1 && Beginning::decode(&input[1..]).is_some()).count();
    assert_eq!(beginnings, 2);
    assert!(CORPUS.len() >= 9 && batches >= 4, "{} entries, {batches} batches", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutations_hold(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut input = which.get(&CORPUS).clone();
        for (place, byte, kind) in edits {
            let place = place.index(input.len() + 1);
            match kind {
                0 => input.insert(place, byte),
                1 if place < input.len() => drop(input.remove(place)),
                _ if place < input.len() => input[place] = byte,
                _ => {}
            }
        }
        log::check(&input);
    }
}
