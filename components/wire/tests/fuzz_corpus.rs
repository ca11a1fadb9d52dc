//! Replays the fuzz targets' corpora, and random mutations of them, so that every test run does a little of their work.

#[path = "../../../tools/fuzz/checks/control.rs"]
mod control;
#[path = "../../../tools/fuzz/checks/envelope.rs"]
mod envelope;
#[path = "../../../tools/fuzz/checks/route.rs"]
mod route;

use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("corpus folder").map(|entry| entry.expect("corpus entry").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus is gone");
    files.iter().map(|file| std::fs::read(file).expect("corpus file")).collect()
}

#[test]
fn corpora_hold() {
    corpus("envelope").iter().for_each(|body| envelope::check(body));
    corpus("route").iter().for_each(|input| route::check(input));
    corpus("control").iter().for_each(|input| control::check(input));
}

#[test]
fn corpora_hold_what_decodes() {
    let decoded = corpus("envelope").iter().filter(|body| cyclotron_wire::Envelope::decode(body).is_ok()).count();
    assert!(decoded >= 5, "only {decoded}");
    let path = |input: &Vec<u8>| String::from_utf8(input.get(1..).unwrap_or_default().to_vec()).unwrap_or_default();
    let posted = |input: &&Vec<u8>| cyclotron_wire::Route::parse(cyclotron_wire::Method::Post, &path(input)).is_ok();
    let parsed = corpus("route").iter().filter(posted).count();
    assert!(parsed >= 7, "only {parsed}");
    let understood = corpus("control").iter().filter(|input| control::is_understood(input)).count();
    assert!(understood >= 9, "only {understood}");
}

/// Inserts, removes or replaces bytes.
fn edit(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (place, byte, kind) in edits {
        let place = place.index(bytes.len() + 1);
        match kind {
            0 => bytes.insert(place, *byte),
            1 if place < bytes.len() => drop(bytes.remove(place)),
            _ if place < bytes.len() => bytes[place] = *byte,
            _ => {}
        }
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6)
}

static ENVELOPES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus("envelope"));
static CONTROL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus("control"));
static ROUTES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus("route"));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn mutations_of_requests_hold(which: prop::sample::Index, edits in edits()) {
        envelope::check(&edit(which.get(&ENVELOPES).clone(), &edits));
    }
    #[test]
    fn mutations_of_what_operators_say_hold(which: prop::sample::Index, edits in edits()) {
        control::check(&edit(which.get(&CONTROL).clone(), &edits));
    }
    #[test]
    fn mutations_of_routes_hold(which: prop::sample::Index, edits in edits()) {
        route::check(&edit(which.get(&ROUTES).clone(), &edits));
    }
}
