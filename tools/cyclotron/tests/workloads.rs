//! `cyclotron load`, as a user runs it: to a node, into a recording, and wrong.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::PROGRAM;
use cyclotron_conformance::{TestNode, program};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Runs the program; its output, or its exit code and what it says of its failure.
fn run(arguments: &[&str]) -> Result<String, (i32, String)> {
    let output = program(PROGRAM, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        code => Err((code.unwrap(), text(output.stderr))),
    }
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&run(arguments).unwrap_or_else(|failed| panic!("{arguments:?}: {failed:?}"))).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Every request of the report was answered with a reply.
fn all_replied(report: &Value, requests: u64) {
    assert_eq!(report["requests"], requests, "{report}");
    for kind in report["kinds"].as_array().unwrap() {
        assert_eq!(kind["errors"], serde_json::json!({}), "{report}");
        assert_eq!(kind["answered"], kind["requests"], "{report}");
        let at = |name: &str| kind[name].as_f64().unwrap();
        assert!(0.0 < at("p50_ms") && at("p50_ms") <= at("p999_ms") && at("p50_ms") <= at("max_ms"), "{report}");
    }
}

#[test]
fn every_request_of_each_mix_is_replied_to() {
    let node = TestNode::start(PROGRAM);
    let load = |mix: &str, more: &[&str]| {
        let often = ["load", "--json", "--url", &node.banner.api, "--rate", "40", "--seconds", "1", "--mix", mix];
        all_replied(&json(&[&often[..], more].concat()), 40);
    };
    // One after the other: what a node does with more than it can take is another test's.
    for mix in ["heaps", "graphs", "timers", "ingress", "queries", "mixed"] {
        load(mix, &[]);
    }
    load("counters", &["--signers", "3", "--seed", "2"]);
    load("mixed", &["--signed-before", "--signers", "2", "--connections", "1"]);
}

#[test]
fn every_version_of_the_api_answers_and_the_asynchronous_one_is_asked_again() {
    let node = TestNode::start(PROGRAM);
    for version in ["v2", "v3", "v4"] {
        let load = ["load", "--json", "--url", &node.banner.api, "--rate", "20", "--seconds", "1", "--api", version];
        all_replied(&json(&[&load[..], &["--mix", "counters"]].concat()), 20);
        if version == "v2" {
            let looked = "cyclotron_stage_duration_seconds_count{stage=\"ReadState\"}";
            assert!(node.metrics_page().contains(looked), "calls that are answered at once are asked for again");
        }
    }
}

#[test]
fn a_recording_of_a_mix_replays_to_the_hash_that_it_was_made_with() {
    let folder = scratch("load-recording");
    let file = folder.join("mixed.cyc").to_str().unwrap().to_owned();
    let arguments = ["--mix", "mixed", "--rate", "30", "--seconds", "2", "--rounds", "6", "--seed", "9"];
    let load = [&["load", "--record", &file, "--json"][..], &arguments].concat();
    let made = json(&load);
    assert_eq!(
        (&made["rounds"], made["updates"].as_u64().unwrap() + made["queries"].as_u64().unwrap()),
        (&6.into(), 60)
    );
    let replayed = json(&["replay", "--json", "--threads", "1", &file]);
    assert_eq!((&replayed["state_hash"], &replayed["root"]), (&made["state_hash"], &made["root"]));
    let (code, again) = run(&load).unwrap_err();
    assert!(code == 1 && again.contains("mixed.cyc"), "{again}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_driven_is_said_in_one_line_with_what_to_do() {
    let check = |arguments: &[&str], code: i32, words: &[&str]| {
        let (found, text) = run(&[&["load"][..], arguments].concat()).unwrap_err();
        assert_eq!(found, code, "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not all in {text}");
    };
    check(&["--mix", "tokens"], 2, &["tokens", "counters", "transfers", "mixed"]);
    check(&["--mix", "counters", "--rate", "0"], 2, &["--rate"]);
    check(&["--mix", "counters", "--api", "v9"], 2, &["v9", "v2"]);
    check(&["--mix", "counters", "--rounds", "3"], 2, &["--record"]);
    check(&["--mix", "counters", "--record", "x", "--url", "http://127.0.0.1:1"], 2, &["--url"]);
    check(&["--mix", "transfers"], 1, &["--ledger FILE"]);
    check(&["--mix", "transfers", "--ledger", "no-such-file"], 1, &["no-such-file"]);
    check(&["--mix", "queries", "--record", "never-made"], 1, &["queries", "updates"]);
    check(&["--mix", "counters", "--url", "http://127.0.0.1:1"], 1, &["no node answers at http://127.0.0.1:1"]);
    check(&["--mix", "counters", "--url", "https://icp0.io"], 1, &["http://"]);
    assert!(!Path::new("never-made").exists());
}
