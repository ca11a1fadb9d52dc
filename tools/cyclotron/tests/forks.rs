//! `cyclotron fork` on nodes that run and on those that do not: what a fork has, and that all go on and serve.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::Principal;
use common::*;
use cyclotron_conformance::{TestNode, canister};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn fork_canister(state: &Path, source: Principal, more: &[&str]) -> Result<Principal, String> {
    let source = source.to_text();
    let arguments = [&["fork", state.to_str().unwrap(), "--canister", &source], more].concat();
    run(&arguments).map(|id| Principal::from_text(id.trim()).unwrap())
}

/// What the node says through its socket.
fn ask(state: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(state.join("control")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_canister_is_forked_while_the_node_runs_and_while_it_does_not() {
    let node = TestNode::start_in(PROGRAM, directory("fork-canister"));
    let ours = agent(&node, key(1));
    let counter = install_new(&ours, &canister("counter")).await;
    for _ in 0..3 {
        increment(&ours, counter).await;
    }
    let state = node.directory().to_owned();
    let first = fork_canister(&state, counter, &[]).unwrap();
    assert_eq!(increment(&ours, first).await, 4);
    assert_eq!(increment(&ours, first).await, 5);
    let named = canister_id(4_711);
    assert_eq!(fork_canister(&state, first, &["--as", &named.to_text()]), Ok(named));
    let said = fork_canister(&state, counter, &["--as", &named.to_text()]).unwrap_err();
    assert!(said.contains("is taken"), "{said}");
    assert!(fork_canister(&state, canister_id(99), &[]).unwrap_err().contains("there is no canister"));
    // As after a crash, the log alone has the forks, and a socket that nobody serves is there.
    let state = node.kill();
    assert!(state.join("control").exists());
    let second = fork_canister(&state, named, &[]).unwrap();
    assert!(fork_canister(&state, canister_id(99), &[]).unwrap_err().contains("there is no canister"));

    let node = TestNode::start_in(PROGRAM, state);
    let ours = agent(&node, key(1));
    let counts = [counter, first, named, second];
    let expected = [3, 5, 5, 5];
    for (id, expected) in counts.into_iter().zip(expected) {
        assert_eq!(count(&ours, id).await, expected);
        assert_eq!(increment(&ours, id).await, expected + 1);
    }
    let state = end(node);
    assert!(!state.join("control").exists());
    let replayed = run(&["replay", state.to_str().unwrap()]).unwrap();
    assert!(replayed.contains("state"), "{replayed}");
    std::fs::remove_dir_all(state).unwrap();
}

#[tokio::test]
async fn a_subnet_is_forked_while_its_node_runs_and_both_go_on_and_serve() {
    let node = TestNode::start_in(PROGRAM, directory("fork-subnet"));
    let ours = agent(&node, key(1));
    let counter = install_new(&ours, &canister("counter")).await;
    increment(&ours, counter).await;
    let (one, other) = (node.directory().to_owned(), directory("fork-of-subnet"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let said = run(&["fork", &text(&one), &text(&other)]).unwrap();
    assert!(said.contains("with a checkpoint of height"), "{said}");
    assert_eq!(increment(&ours, counter).await, 2);

    let fork = TestNode::start_in(PROGRAM, other.clone());
    assert_eq!(fork.banner.root_key, node.banner.root_key, "it is the same subnet once more");
    let theirs = agent(&fork, key(1));
    assert_eq!(count(&theirs, counter).await, 1);
    assert_eq!(increment(&theirs, counter).await, 2);
    assert_eq!(increment(&theirs, counter).await, 3);
    assert_eq!(increment(&ours, counter).await, 3);
    assert_eq!(increment(&ours, counter).await, 4);
    let taken = run(&["fork", &text(&one), &text(&other)]).unwrap_err();
    assert!(taken.contains("is not empty"), "{taken}");

    // Of a stopped node, and of a fork.
    let (one, other) = (end(node), end(fork));
    let third = directory("fork-of-fork");
    run(&["fork", &text(&other), &text(&third)]).unwrap();
    std::fs::remove_dir_all(&other).unwrap();
    let node = TestNode::start_in(PROGRAM, third);
    assert_eq!(count(&agent(&node, key(1)), counter).await, 3);
    for path in [end(node), one] {
        run(&["state", "verify", &text(&path)]).unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }
    let nothing = run(&["fork", &text(&other), &text(&directory("fork-of-nothing"))]).unwrap_err();
    assert!(nothing.contains("is not a state directory"), "{nothing}");
}

#[tokio::test]
async fn the_socket_answers_what_it_is_asked_and_refuses_what_it_does_not_understand() {
    let node = TestNode::start_in(PROGRAM, directory("control"));
    let ours = agent(&node, key(1));
    let counter = create(&ours).await;
    let state = node.directory().to_owned();
    let said = ask(&state, r#"{"version":1,"content":"checkpoint"}"#);
    assert!(said.starts_with(r#"{"version":1,"content":{"checkpoint":{"height":"#), "{said}");
    assert_eq!(state.join("checkpoints").read_dir().unwrap().count(), 3, "a state, its pages and its manifest");
    let said = ask(&state, "{\"version\":1,\"content\":\"status\"}\n");
    assert!(said.contains(r#""canisters":1,"waiting":0"#), "{said}");
    let add = format!(r#"{{"version":1,"content":{{"add_cycles":{{"canister":"{counter}","amount":1000}}}}}}"#);
    let balance = |said: &str| -> u128 {
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        said["content"]["cycles_added"]["balance"].to_string().parse().unwrap()
    };
    let before = balance(&ask(&state, &add));
    let after = balance(&ask(&state, &add));
    assert!(after > before && after <= before + 1_000, "{before} and {after}");
    for (request, reason) in [
        ("", "cannot be read"),
        ("{}", "cannot be read"),
        (r#"{"version":7,"content":"status"}"#, "version 7"),
        (r#"{"version":1,"content":"dance"}"#, "unknown variant"),
        (&*"x".repeat(5_000), "too long"),
    ] {
        let said = ask(&state, request);
        assert!(said.contains("refused") && said.contains(reason), "{said}");
    }
    assert!(node.get("/api/v2/status").0 == 200);
}

#[test]
fn a_node_whose_path_is_too_long_for_a_socket_goes_on_without_one() {
    let long = directory("long").join("a".repeat(120));
    let node = TestNode::start_in(PROGRAM, long);
    assert!(!node.directory().join("control").exists());
    let said = fork_canister(node.directory(), canister_id(1), &[]).unwrap_err();
    assert!(said.contains("stop it to fork a canister"), "{said}");
    // A whole subnet is forked all the same, from its log.
    let other = directory("fork-of-long");
    let forked = run(&["fork", node.directory().to_str().unwrap(), other.to_str().unwrap()]).unwrap();
    assert!(forked.contains("without a checkpoint"), "{forked}");
    for path in [end(node).parent().unwrap().to_owned(), other] {
        std::fs::remove_dir_all(path).unwrap();
    }
}
