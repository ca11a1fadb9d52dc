//! Records of checkpoints that no program wrote: refused with a reason, whatever they say.

#[path = "../../../tools/fuzz/checks/checkpoint.rs"]
mod checkpoint;
#[path = "../../../tools/fuzz/checks/corpus.rs"]
mod corpus;

use proptest::prelude::*;
use std::sync::LazyLock;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("checkpoint"));

#[test]
fn checkpoints_that_were_written_once_are_restored() {
    let restored = CORPUS.iter().filter(|input| checkpoint::check(input)).count();
    assert!(CORPUS.len() >= 4 && restored >= 3, "{restored} of {}", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutations_are_refused_or_restored(which: prop::sample::Index, edits in corpus::edits()) {
        checkpoint::check(&corpus::edited(&CORPUS, which, &edits));
    }
}
