//! Replays the fuzz targets' corpora, and random mutations of them, so that every test run does a little of their work.

#[path = "../../../tools/fuzz/checks/control.rs"]
mod control;
#[path = "../../../tools/fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../tools/fuzz/checks/envelope.rs"]
mod envelope;
#[path = "../../../tools/fuzz/checks/route.rs"]
mod route;

use proptest::prelude::*;
use std::sync::LazyLock;

static ENVELOPES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("envelope"));
static CONTROL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("control"));
static ROUTES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("route"));

#[test]
fn corpora_hold() {
    for corpus in [&ENVELOPES, &CONTROL, &ROUTES] {
        assert!(corpus.len() >= 10, "the corpus is gone");
    }
    ENVELOPES.iter().for_each(|body| envelope::check(body));
    ROUTES.iter().for_each(|input| route::check(input));
    CONTROL.iter().for_each(|input| control::check(input));
}

#[test]
fn corpora_hold_what_decodes() {
    let decoded = ENVELOPES.iter().filter(|body| cyclotron_wire::Envelope::decode(body).is_ok()).count();
    assert!(decoded >= 5, "only {decoded}");
    let path = |input: &Vec<u8>| String::from_utf8(input.get(1..).unwrap_or_default().to_vec()).unwrap_or_default();
    let posted = |input: &&Vec<u8>| cyclotron_wire::Route::parse(cyclotron_wire::Method::Post, &path(input)).is_ok();
    let parsed = ROUTES.iter().filter(posted).count();
    assert!(parsed >= 7, "only {parsed}");
    let understood = CONTROL.iter().filter(|input| control::is_understood(input)).count();
    assert!(understood >= 9, "only {understood}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn mutations_of_requests_hold(which: prop::sample::Index, edits in corpus::edits()) {
        envelope::check(&corpus::edited(&ENVELOPES, which, &edits));
    }
    #[test]
    fn mutations_of_what_operators_say_hold(which: prop::sample::Index, edits in corpus::edits()) {
        control::check(&corpus::edited(&CONTROL, which, &edits));
    }
    #[test]
    fn mutations_of_routes_hold(which: prop::sample::Index, edits in corpus::edits()) {
        route::check(&corpus::edited(&ROUTES, which, &edits));
    }
}
