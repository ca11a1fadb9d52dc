//! Replays the fuzz target's corpus of management arguments, and random mutations of it, so that every test run does a little of its work.

#[path = "../../../tools/fuzz/checks/management.rs"]
mod management;

use cyclotron_execution::management::{Method, effective_canister};
use proptest::prelude::*;
use std::path::Path;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus/management");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("corpus folder").map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus is gone");
    files.iter().map(|file| std::fs::read(file).expect("corpus file")).collect()
}

#[test]
fn corpus_holds() {
    corpus().iter().for_each(|input| management::check(input));
}

#[test]
fn corpus_holds_arguments_that_decode() {
    let decodes = |input: &[u8]| {
        let method = Method::ALL[usize::from(input[0]) % Method::ALL.len()];
        effective_canister(method.name(), &input[1..]).is_ok()
    };
    let decoded = corpus().iter().filter(|input| decodes(input)).count();
    assert!(decoded >= 8, "only {decoded}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn mutations_hold(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let corpus = corpus();
        let mut input = which.get(&corpus).clone();
        for (place, byte, kind) in edits {
            let place = place.index(input.len() + 1);
            match kind {
                0 => input.insert(place, byte),
                1 if place < input.len() => drop(input.remove(place)),
                _ if place < input.len() => input[place] = byte,
                _ => {}
            }
        }
        management::check(&input);
    }
}
