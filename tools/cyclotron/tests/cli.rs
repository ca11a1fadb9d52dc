//! The program's own commands, as a new user runs them.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::PROGRAM;
use cyclotron_conformance::{TestNode, canister, program};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An Ed25519 key for this test alone.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n-----END PRIVATE KEY-----\n";

struct Output {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(arguments: &[&str]) -> Output {
    let output = program(PROGRAM, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs a command that must succeed; returns what it prints.
fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.code, Some(0), "{arguments:?}: {}", output.err);
    output.out.trim_end().to_owned()
}

/// Runs a command that must fail with this code; returns what it says.
fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    assert_eq!(output.code, Some(code), "{arguments:?}: {}{}", output.out, output.err);
    output.err
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _none_yet = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_first_hour_works() {
    let node = TestNode::start(PROGRAM);
    let scratch = Scratch::new("first-hour");
    let wasm = scratch.file("counter.wasm", &canister("counter"));
    let url = node.banner.api.as_str();
    let id = done(&["create", "--url", url]);
    assert!(done(&["install", "--url", url, &id, &wasm]).contains(&id));
    assert_eq!(done(&["call", "--url", url, &id, "increment"]), "(1 : nat)");
    assert_eq!(done(&["call", "--url", url, &id, "increment", "()"]), "(2 : nat)");
    assert_eq!(done(&["query", "--url", url, &id, "get"]), "(2 : nat)");
    assert_eq!(done(&["query", "--url", url, &id, "get", "--raw"]), "4449444c00017d02");
    done(&["install", "--url", url, &id, &wasm, "--mode", "upgrade"]);
    assert_eq!(done(&["query", "--url", url, &id, "get"]), "(2 : nat)");
    done(&["install", "--url", url, &id, &wasm, "--mode", "reinstall"]);
    assert_eq!(done(&["query", "--url", url, &id, "get"]), "(0 : nat)");
    let status = done(&["status", "--url", url, &id]);
    for words in [id.as_str(), "running", "Controllers", "2vxsx-fae", "Cycles", "Module hash"] {
        assert!(status.contains(words), "{words} is not in\n{status}");
    }
    let status = done(&["status", "--url", url]);
    assert!(status.contains("healthy") && status.contains(&node.banner.root_key), "{status}");

    // An interface makes numbers what the method wants, and names the fields of its reply.
    let did = scratch.file("counter.did", b"service : { spin : (nat64) -> (nat64) }");
    assert!(done(&["call", "--url", url, &id, "spin", "(0)", "--candid", &did]).ends_with(": nat64)"));

    let fields = scratch.file("id.pem", PEM.as_bytes());
    let mine = done(&["create", "--url", url, "--identity", &fields, "--cycles", "5000000000000"]);
    assert!(fails(&["install", "--url", url, &mine, &wasm], 1).contains("IC0512"), "only its controller may install");
    done(&["install", "--url", url, "--identity", &fields, &mine, &wasm]);
    let who = done(&["query", "--url", url, "--identity", &fields, &mine, "whoami"]);
    assert!(who.contains("principal") && !who.contains("2vxsx-fae"), "{who}");
}

#[test]
fn a_root_key_given_is_the_only_one_trusted() {
    let (node, other) = (TestNode::start(PROGRAM), TestNode::start(PROGRAM));
    let url = node.banner.api.as_str();
    done(&["create", "--url", url, "--root-key", &node.banner.root_key]);
    let said = fails(&["create", "--url", url, "--root-key", &other.banner.root_key], 1);
    assert!(said.contains("ertificate verification failed"), "{said}");
    assert!(fails(&["create", "--url", url, "--root-key", "0102"], 2).contains("133 bytes"));
    assert!(fails(&["create", "--url", url, "--root-key", "no hex"], 2).contains("--root-key"));
}

#[test]
fn a_node_takes_all_the_file_descriptors_that_it_may_have() {
    let scratch = Scratch::new("files");
    let text = scratch.file("text", format!("#!/bin/sh\nulimit -Sn 300\nexec {PROGRAM} \"$@\"\n").as_bytes());
    let started = scratch.path("few");
    // Another process writes what is to be run: a program that some process has open to be written, here a child that another test is starting,
    // cannot be.
    let copied = Command::new("install").args(["-m", "700", &text, &started]).status().unwrap();
    assert!(copied.success());
    let node = TestNode::start(&started);
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = files.split_whitespace().skip(3).take(2).collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert_eq!(soft, hard);
    assert_ne!(soft, "300");
}

#[test]
fn what_goes_wrong_is_said_in_words() {
    let node = TestNode::start(PROGRAM);
    let url = node.banner.api.as_str();
    let id = done(&["create", "--url", url]);
    assert!(fails(&["call", "--url", url, &id, "increment"], 1).contains("IC0537"));
    assert!(fails(&["call", "--url", url, &id, "x", "(("], 1).contains("arguments"));
    assert!(fails(&["install", "--url", url, &id, "/no/such/file.wasm"], 1).contains("/no/such/file.wasm"));
    assert!(fails(&["install", "--url", url, &id, "Cargo.toml"], 1).contains("IC0505"));
    assert!(fails(&["status", "--url", "http://127.0.0.1:1"], 1).contains("no node answers"));
    assert!(fails(&["status", "--url", url, "--identity", "Cargo.toml"], 1).contains("holds no"));
    assert!(fails(&["call", "--url", url, "not-an-id", "x"], 2).contains("not-an-id"));
    fails(&["unknown"], 2);
    fails(&[], 2);
    assert!(done(&["--help"]).contains("start"));
    for command in ["start", "create", "install", "call", "query", "status"] {
        assert!(done(&[command, "--help"]).contains("Usage"));
    }
}

/// The arguments of a node on a free port, and more of them.
fn start<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["start", "--no-metrics", "--bind", "127.0.0.1:0"], more].concat()
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let scratch = Scratch::new("cannot-start");
    let state = scratch.path("state");
    assert!(fails(&start(&["--threads", "0"]), 2).contains("--threads"));
    assert!(fails(&["start", "--bind", "nowhere"], 2).contains("nowhere"));
    assert!(fails(&start(&["--state-dir", &state, "--log", "=="]), 1).contains("--log"));

    let node = TestNode::start(PROGRAM);
    let taken = node.address().to_owned();
    let port = fails(&["start", "--no-metrics", "--bind", &taken, "--state-dir", &state], 1);
    assert!(port.contains(&taken) && port.contains("--bind"), "{port}");
    let metrics = node.banner.metrics.as_deref().unwrap();
    let metrics = metrics.trim_start_matches("http://").trim_end_matches("/metrics");
    let page = fails(&["start", "--bind", "127.0.0.1:0", "--metrics", metrics, "--state-dir", &state], 1);
    assert!(page.contains(metrics) && page.contains("--metrics"), "{page}");
    let locked = node.directory().to_str().unwrap();
    let lock = fails(&start(&["--state-dir", locked]), 1);
    assert!(lock.contains("in use by process") && lock.contains(&node.id().to_string()), "{lock}");

    let foreign = scratch.path("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(Path::new(&foreign).join("letter.txt"), "mine").unwrap();
    assert!(fails(&start(&["--state-dir", &foreign]), 1).contains("letter.txt"));
    let file = scratch.file("file", b"");
    assert!(fails(&start(&["--state-dir", &file]), 1).contains("file"));
}

#[test]
fn keys_last_and_are_private_and_damage_is_noticed() {
    let scratch = Scratch::new("keys");
    let state = PathBuf::from(scratch.path("state"));
    let first = {
        let mut node = TestNode::start_in(PROGRAM, state.clone());
        let banner = node.banner.clone();
        node.interrupt();
        assert!(node.wait().success(), "Ctrl-C is an orderly end");
        // What remains is inspected before the drop removes it.
        let key = state.join("keys/root.key");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let second = TestNode::start_in(PROGRAM, copy(&state, &scratch, "again"));
        assert_eq!(second.banner.root_key, banner.root_key, "the root key lasts");
        let damaged = copy(&state, &scratch, "damaged");
        let path = damaged.join("keys/root.key");
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).unwrap();
        let said =
            fails(&["start", "--no-metrics", "--bind", "127.0.0.1:0", "--state-dir", damaged.to_str().unwrap()], 1);
        assert!(said.contains("root.key"), "{said}");
        banner
    };
    assert_eq!(first.root_key.len(), 266, "133 bytes of DER");
}

/// A copy of a state directory, modes included.
fn copy(state: &Path, scratch: &Scratch, name: &str) -> PathBuf {
    let to = scratch.0.join(name);
    let status = Command::new("cp").arg("-a").arg(state).arg(&to).status().unwrap();
    assert!(status.success());
    to
}

#[test]
fn the_metrics_page_shows_every_stage() {
    let node = TestNode::start(PROGRAM);
    let scratch = Scratch::new("metrics");
    let wasm = scratch.file("counter.wasm", &canister("counter"));
    let url = node.banner.api.as_str();
    let id = done(&["create", "--url", url]);
    done(&["install", "--url", url, &id, &wasm]);
    done(&["query", "--url", url, &id, "get"]);
    let page = node.metrics_page();
    for stage in ["Admit", "TimeOut", "Induct", "Execute", "Checkpoint", "Sync", "Certify", "Query", "ReadState"] {
        let line = format!("cyclotron_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        assert!(page.contains(&line), "{stage} is not in\n{page}");
    }
    // The creation, the installation; the query is none, and each command asked for the status first.
    for line in
        ["cyclotron_canisters 1", "cyclotron_messages_executed_total 2", "cyclotron_http_requests_refused_total 0"]
    {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    let requests = page.lines().find_map(|line| line.strip_prefix("cyclotron_http_requests_total ")).unwrap();
    assert!(requests.parse::<u64>().unwrap() >= 6, "{requests}");
    assert!(page.contains("cyclotron_height "), "{page}");
}
