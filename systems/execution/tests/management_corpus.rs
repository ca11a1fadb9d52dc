//! Replays the fuzz target's corpus of management arguments, and random mutations of it, so that every test run does a little of its work.

#[path = "../../../tools/fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../tools/fuzz/checks/management.rs"]
mod management;

use cyclotron_execution::management::{Method, effective_canister};
use proptest::prelude::*;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("management"));

#[test]
fn corpus_holds() {
    assert!(CORPUS.len() >= 10, "the corpus is gone");
    CORPUS.iter().for_each(|input| management::check(input));
}

#[test]
fn corpus_holds_arguments_that_decode() {
    let decodes = |input: &[u8]| {
        let method = Method::ALL[usize::from(input[0]) % Method::ALL.len()];
        effective_canister(method.name(), &input[1..]).is_ok()
    };
    let decoded = CORPUS.iter().filter(|input| decodes(input)).count();
    assert!(decoded >= 8, "only {decoded}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn mutations_hold(which: prop::sample::Index, edits in corpus::edits()) {
        management::check(&corpus::edited(&CORPUS, which, &edits));
    }
}
