//! Replays the fuzz target's corpus, and random mutations of it, so that every test run does a little of its work.

#[path = "../../../tools/fuzz/checks/envelope.rs"]
mod envelope;

use proptest::prelude::*;
use std::path::Path;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus/envelope");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("corpus folder").map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus is gone");
    files.iter().map(|file| std::fs::read(file).expect("corpus file")).collect()
}

#[test]
fn corpus_holds() {
    corpus().iter().for_each(|body| envelope::check(body));
}

#[test]
fn corpus_holds_requests_that_decode() {
    let decoded = corpus().iter().filter(|body| cyclotron_wire::Envelope::decode(body).is_ok()).count();
    assert!(decoded >= 5, "only {decoded}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn mutations_hold(
        which: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let corpus = corpus();
        let mut body = which.get(&corpus).clone();
        for (place, byte, kind) in edits {
            let place = place.index(body.len() + 1);
            match kind {
                0 => body.insert(place, byte),
                1 if place < body.len() => drop(body.remove(place)),
                _ if place < body.len() => body[place] = byte,
                _ => {}
            }
        }
        envelope::check(&body);
    }
}
