//! Replays the fuzz target's corpus of logs, and random mutations of it, so that every test run does a little of its work.

#[path = "../../tools/fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../tools/fuzz/checks/log.rs"]
mod log;

use cyclotron_storage::log::{Beginning, RecordedQuery, decode_batch};
use proptest::prelude::*;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("log"));

#[test]
fn the_corpus_holds_and_holds_what_is_read() {
    CORPUS.iter().for_each(|input| log::check(input));
    let contents = || CORPUS.iter().filter(|input| input[0] % 5 == 1).map(|input| &input[1..]);
    let batches = contents().filter(|bytes| decode_batch(7, bytes).is_some()).count();
    let beginnings = contents().filter(|bytes| Beginning::decode(bytes).is_some()).count();
    let queries = contents().filter(|bytes| RecordedQuery::decode(bytes).is_some()).count();
    assert_eq!((beginnings, queries), (2, 3));
    assert!(CORPUS.len() >= 9 && batches >= 4, "{} entries, {batches} batches", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutations_hold(which: prop::sample::Index, edits in corpus::edits()) {
        log::check(&corpus::edited(&CORPUS, which, &edits));
    }
}
