//! A node's process ends, in order or not, and the next one goes on where it was.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::Principal;
use common::*;
use cyclotron_conformance::{TestNode, canister, program};
use ic_agent::Agent;
use std::path::Path;
use std::time::Duration;

/// Copies a folder and those in it.
fn copy(from: &Path, to: &Path) {
    let _made_now = std::fs::create_dir(to);
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else if path.is_file() {
            // The socket of a node that ended in no order stays behind.
            std::fs::copy(&path, &there).unwrap();
        }
    }
}

fn replay(path: &Path, threads: &str) -> serde_json::Value {
    let text = run(&["replay", "--json", "--threads", threads, path.to_str().unwrap()]).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A page, a comparison with itself, and the same module once more in a recording.
fn looked_at_in_other_ways(recording: &str, counter: Principal, file: &impl Fn(&str) -> String) {
    let (page, other, module) = (file("page.html"), file("other.json"), file("counter.wasm"));
    std::fs::write(&other, run(&["replay", "--json", recording]).unwrap()).unwrap();
    let said = run(&["replay", recording, "--compare", &other, "--report", &page]).unwrap();
    assert!(said.contains("which came to the same state") && said.contains("seconds in rounds"), "{said}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("increment") && page.matches("<svg").count() == 6);
    charged_by_function(recording, file);
    let beside = run(&["replay", "--json", recording, "--compare", recording]).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&beside).unwrap()["same_state"], true);

    std::fs::write(&module, canister("counter")).unwrap();
    let candidate = format!("{counter}={module}");
    for how in [&["--plain-swap"][..], &[]] {
        let arguments = [&["replay", "--json", recording, "--wasm", &candidate], how].concat();
        let report: serde_json::Value = serde_json::from_str(&run(&arguments).unwrap()).unwrap();
        assert_eq!((&report["replies"]["compared"], &report["replies"]["changed"]), (&12.into(), &0.into()));
        // An upgrade lays the heap out anew, and what runs on it may take another number of instructions.
        assert!(report["instructions"]["changed"] == 0 || how.is_empty(), "{report}");
        assert!(report["taken"][0]["outcome"]["Ok"].is_u64(), "{report}");
    }
    let said = run(&["replay", recording, "--wasm", &candidate]).unwrap();
    assert!(said.contains("with the other module none is compared") && said.contains("0 of 12 changed"), "{said}");
    assert!(run(&["replay", recording, "--plain-swap"]).unwrap_err().contains("--wasm"));
    assert!(run(&["replay", recording, "--wasm", "counter"]).unwrap_err().contains("CANISTER=FILE"));
}

/// All instructions of a replay by function, the same on any number of threads.
fn charged_by_function(recording: &str, file: &impl Fn(&str) -> String) {
    let folded = |threads| {
        let (lines, drawing) = (file("charged.txt"), file("charged.svg"));
        let report = run(&[
            &["replay", "--json", recording, "--threads", threads][..],
            &["--folded-instructions", &lines, "--flame-instructions", &drawing],
        ]
        .concat());
        let report: serde_json::Value = serde_json::from_str(&report.unwrap()).unwrap();
        let instructions = |of: &str| -> u64 {
            let rows = report[of].as_array().unwrap();
            rows.iter().map(|row| row["instructions"].as_u64().unwrap()).sum()
        };
        assert_eq!(instructions("methods"), instructions("canister_totals"));
        let lines = std::fs::read_to_string(lines).unwrap();
        let own = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
        assert_eq!(lines.lines().map(own).sum::<u64>(), instructions("methods"));
        let drawing = std::fs::read_to_string(drawing).unwrap();
        assert!(drawing.contains(&format!("all: {} instructions, 100.00 %", instructions("methods"))));
        lines
    };
    let lines = folded("1");
    assert_eq!(lines, folded("4"));
    for part in [
        ";increment;canister_update increment",
        ";ic0.msg_reply",
        "aaaaa-aa;install_code;[compilation] ",
        "[changed pages]",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
}

#[tokio::test]
async fn an_orderly_end_keeps_everything_and_the_recording_replays() {
    let directory = directory("orderly");
    let recordings = directory.with_extension("recordings");
    std::fs::create_dir_all(&recordings).unwrap();
    let file = |name: &str| recordings.join(name).to_str().unwrap().to_owned();
    let (first, second) = (file("first"), file("second"));
    let mut node = TestNode::start_in_with(PROGRAM, directory.clone(), &["--record", &first, "--priced-as", "34"]);
    let ours = agent(&node, key(1));
    let counter = install_new(&ours, &canister("counter")).await;
    for n in 1..=10 {
        assert_eq!(increment(&ours, counter).await, n);
    }
    node.interrupt();
    assert!(node.wait().success());
    let directory = node.kill();
    let text = directory.to_str().unwrap();

    let shown: serde_json::Value = serde_json::from_str(&run(&["record", "show", "--json", &first]).unwrap()).unwrap();
    assert_eq!(shown["contents"]["ingress_messages"], 12);
    assert_eq!(shown["contents"]["state_hashes"], 1);
    assert_eq!(shown["genesis"]["config"]["fees"]["nodes"], 34);
    assert!(run(&["record", "show", &first]).unwrap().contains("12 messages"));

    let again = run(&["start", "--no-metrics", "--bind", "127.0.0.1:0", "--state-dir", text, "--record", &first]);
    assert!(again.unwrap_err().contains("exists already"));
    let prices = run(&["start", "--no-metrics", "--bind", "127.0.0.1:0", "--state-dir", text, "--priced-as", "13"]);
    let said = prices.unwrap_err();
    assert!(said.contains("34 nodes") && said.contains("--priced-as 13"), "{said}");

    // The second recording begins at the checkpoint that the end left.
    let mut node = TestNode::start_in_with(PROGRAM, directory, &["--record", &second]);
    let ours = agent(&node, key(1));
    assert_eq!(count(&ours, counter).await, 10);
    assert_eq!(increment(&ours, counter).await, 11);
    node.interrupt();
    assert!(node.wait().success());
    let directory = node.kill();
    let kept = directory.join("module-cache").read_dir().unwrap().count();
    assert_eq!(kept, 1, "compiled code of one module, found by the second start");
    looked_at_in_other_ways(&first, counter, &file);
    let shown = run(&["record", "show", &second]).unwrap();
    assert!(shown.contains("Begins       behind the state of height") && shown.contains("1 messages"), "{shown}");
    assert!(shown.contains("Checkpoints  ") && shown.contains("second.checkpoints"), "{shown}");
    // A copy runs elsewhere, and not without its folder.
    let copied = file("copied");
    std::fs::copy(&second, &copied).unwrap();
    let said = run(&["replay", &copied]).unwrap_err();
    assert!(said.contains("begins behind the state of height") && said.contains("copied.checkpoints"), "{said}");
    let last = replay(&directory, "1")["height"].as_u64().unwrap();
    let from = (last - 1).to_string();
    let seek = run(&["replay", "--json", &second, "--from", &from, "--to", &from]).unwrap();
    let seek: serde_json::Value = serde_json::from_str(&seek).unwrap();
    assert_eq!((&seek["contents"]["rounds"], &seek["height"]), (&1.into(), &(last - 1).into()));
    assert!(seek["began_behind"].as_u64().unwrap() > 0);
    let said = run(&["replay", &second, "--from", "1"]).unwrap_err();
    assert!(said.contains("on at the earliest, not from 1"), "{said}");
    assert!(run(&["replay", &second, "--from", "9", "--to", "8"]).unwrap_err().contains("comes behind --to 8"));
    let candidate = format!("{counter}={}", file("counter.wasm"));
    let tried = run(&["replay", "--json", &second, "--plain-swap", "--wasm", &candidate]).unwrap();
    let tried: serde_json::Value = serde_json::from_str(&tried).unwrap();
    assert_eq!((&tried["replies"]["compared"], &tried["replies"]["changed"]), (&1.into(), &0.into()));
    let (first, second, log) =
        (replay(Path::new(&first), "2"), replay(Path::new(&second), "2"), replay(&directory, "1"));
    assert_eq!(first["contents"]["ingress_messages"], 12);
    assert_eq!(second["contents"]["ingress_messages"], 1);
    assert_eq!(log["contents"]["ingress_messages"], 13);
    assert_eq!(second["state_hash"], log["state_hash"]);
    assert_ne!(first["state_hash"], log["state_hash"]);
    assert_eq!(first["stages"].as_array().unwrap().len(), 7);
    let method = |name: &str| {
        let methods = first["methods"].as_array().unwrap();
        methods.iter().find(|method| method["method"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let increment = method("increment");
    assert_eq!(
        (increment["messages"].as_u64(), increment["canister"].as_str().unwrap()),
        (Some(10), &*counter.to_text())
    );
    assert!(increment["instructions"].as_u64().unwrap() > 10_000);
    assert_eq!(
        (method("install_code")["messages"].as_u64(), &method("install_code")["canister"]),
        (Some(1), &"aaaaa-aa".into())
    );
    let messages: u64 = first["methods"].as_array().unwrap().iter().map(|m| m["messages"].as_u64().unwrap()).sum();
    assert_eq!(messages, first["executed"].as_u64().unwrap());
    for path in [directory, recordings] {
        std::fs::remove_dir_all(path).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_log_stops_the_start_with_the_file_and_the_place_and_stays_as_it_is() {
    let node = TestNode::start_in(PROGRAM, directory("damaged"));
    let ours = agent(&node, key(1));
    let counter = install_new(&ours, &canister("counter")).await;
    increment(&ours, counter).await;
    let directory = node.kill();
    let path = directory.join("log/0000000000000001.log");
    let good = std::fs::read(&path).unwrap();
    let start = || {
        run(&["start", "--no-metrics", "--bind", "127.0.0.1:0", "--state-dir", directory.to_str().unwrap()])
            .expect_err("the node does not start")
    };
    let mut damaged = good.clone();
    // A byte of the counter's code, in the middle of what was installed.
    let at = 30_000;
    damaged[at] ^= 4;
    std::fs::write(&path, &damaged).unwrap();
    let said = start();
    assert!(said.contains(path.to_str().unwrap()) && said.contains("damaged at byte "), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    assert!(run(&["replay", path.to_str().unwrap()]).unwrap_err().contains("damaged at byte "));

    let verified = run(&["state", "verify", directory.to_str().unwrap()]).unwrap_err();
    assert!(verified.contains("damaged at byte "), "{verified}");
    assert!(run(&["state", "inspect", "/nowhere"]).unwrap_err().contains("/nowhere is not a directory"));

    let says = |what: &str| {
        let said = start();
        assert!(said.contains(what), "{said}");
    };
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    says("truncated");
    std::fs::write(&path, "x").unwrap();
    says("is not a log of Cyclotron");
    std::fs::remove_file(&path).unwrap();
    says("goes on at height 1");
    std::fs::remove_dir(directory.join("log")).unwrap();
    says("goes on at height 1");
    std::fs::create_dir(directory.join("log")).unwrap();

    std::fs::write(&path, &good).unwrap();
    let node = TestNode::start_in(PROGRAM, directory);
    assert_eq!(count(&agent(&node, key(1)), counter).await, 1);
}

#[tokio::test]
async fn a_damaged_checkpoint_stops_the_start_and_the_one_before_it_brings_the_same_back() {
    let mut node = TestNode::start_in(PROGRAM, directory("checkpoints"));
    let mut ours = agent(&node, key(1));
    let counter = install_new(&ours, &canister("counter")).await;
    for n in 1..=5 {
        increment(&ours, counter).await;
        // An orderly end leaves a checkpoint, and the next start needs nothing else.
        node.interrupt();
        assert!(node.wait().success());
        node = TestNode::start_in(PROGRAM, node.kill());
        ours = agent(&node, key(1));
        assert_eq!(count(&ours, counter).await, n);
    }
    let directory = node.kill();
    let mut files: Vec<_> =
        directory.join("checkpoints").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let with = |extension: &str| -> Vec<_> {
        files.iter().filter(|path| path.extension().unwrap() == extension).cloned().collect()
    };
    let (states, manifests, pages) = (with("state"), with("manifest"), with("pages"));
    assert_eq!((states.len(), manifests.len()), (2, 2), "two are kept");
    let state = |command| run(&["state", command, directory.to_str().unwrap()]);
    let inspected = state("inspect").unwrap();
    assert!(
        inspected.contains("7 messages") && inspected.matches("1 canisters, 1 modules").count() == 2,
        "{inspected}"
    );
    assert_eq!(inspected.matches("Manifest     version 3, root ").count(), 2, "{inspected}");
    assert!(state("verify").unwrap().contains("All of it is whole"));
    // Of two whole manifests each belongs to its own checkpoint.
    let [older, newer] = [0, 1].map(|n| std::fs::read(&manifests[n]).unwrap());
    let mut damaged = newer.clone();
    damaged[4_200] ^= 1;
    for (content, expected) in [(damaged, "is damaged at byte "), (older, "is damaged at byte 0")] {
        std::fs::write(&manifests[1], content).unwrap();
        let said = state("verify").unwrap_err();
        assert!(said.contains(manifests[1].to_str().unwrap()) && said.contains(expected), "{said}");
    }
    std::fs::write(&manifests[1], newer).unwrap();
    let start = || run(&["start", "--no-metrics", "--bind", "127.0.0.1:0", "--state-dir", directory.to_str().unwrap()]);
    let newest = &states[1];
    for path in [newest, pages.last().unwrap()] {
        let good = std::fs::read(path).unwrap();
        // Of the pages, their checksums: those of memories are read when somebody needs them.
        for at in [17, 4_100, if path == newest { (4_096 + good.len()) / 2 } else { 4_096 * 2 - 1 }] {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            std::fs::write(path, &damaged).unwrap();
            let said = start().expect_err("the node does not start");
            assert!(said.contains(path.to_str().unwrap()) && said.contains("is damaged at byte "), "{at}: {said}");
            assert!(said.contains("or remove ") && said.contains(".state: the checkpoint before it"), "{said}");
            assert!(state("verify").unwrap_err().contains("is damaged at byte "));
            assert_eq!(std::fs::read(path).unwrap(), damaged);
        }
        std::fs::write(path, &good).unwrap();
    }
    let whole = directory.with_extension("whole");
    copy(&directory, &whole);
    let said = run(&["state", "compact", whole.to_str().unwrap()]).unwrap();
    assert!(said.contains("in one file") && said.contains("Freed "), "{said}");
    assert_eq!(whole.join("checkpoints").read_dir().unwrap().count(), 3, "a state, its manifest, a file of pages");
    assert!(run(&["state", "verify", whole.to_str().unwrap()]).unwrap().contains("All of it is whole"));
    let node = TestNode::start_in(PROGRAM, whole);
    assert_eq!(count(&agent(&node, key(1)), counter).await, 5);
    let said = run(&["state", "compact", node.directory().to_str().unwrap()]).unwrap_err();
    assert!(said.contains("in use by"), "{said}");
    drop(node);
    std::fs::remove_file(newest).unwrap();
    let node = TestNode::start_in(PROGRAM, directory);
    assert_eq!(count(&agent(&node, key(1)), counter).await, 5);
    // All of them, and their folder.
    let directory = node.kill();
    std::fs::remove_dir_all(directory.join("checkpoints")).unwrap();
    let node = TestNode::start_in(PROGRAM, directory);
    assert_eq!(count(&agent(&node, key(1)), counter).await, 5);
}

#[tokio::test]
async fn a_page_that_is_damaged_stops_the_node_before_anybody_sees_it() {
    let mut node = TestNode::start_in(PROGRAM, directory("page"));
    let ours = agent(&node, key(1));
    let counter = install_new(&ours, &canister("counter")).await;
    increment(&ours, counter).await;
    node.interrupt();
    assert!(node.wait().success());
    let directory = node.kill();
    // The first page of the first file is one of the canister's memory.
    let path = directory.join("checkpoints/00000001.pages");
    let good = std::fs::read(&path).unwrap();
    let mut damaged = good.clone();
    damaged[2 * 4_096 + 5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let mut node = program(PROGRAM, &["start", "--json", "--no-metrics", "--bind", "127.0.0.1:0"])
        .args(["--state-dir", directory.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(node.stdout.take().unwrap()), &mut line).unwrap();
    let banner: serde_json::Value = serde_json::from_str(&line).expect("the node serves: nobody needs the page yet");
    let url = banner["api"].as_str().unwrap().to_owned();
    let asked = run(&["query", "--url", &url, &counter.to_text(), "get"]);
    asked.expect_err("no answer comes of a damaged page");
    let output = node.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(path.to_str().unwrap()), "{said}");
    assert!(said.contains("is damaged at byte 8192"), "{said}");
    std::fs::write(&path, &good).unwrap();
    let node = TestNode::start_in(PROGRAM, directory);
    assert_eq!(count(&agent(&node, key(1)), counter).await, 1);
}

#[tokio::test]
async fn a_node_without_canisters_goes_on_too_and_a_recording_may_have_a_bare_name() {
    let folder = directory("bare");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("rounds.new"), "mine").unwrap();
    let start = async |more: &[&str]| {
        let mut node = program(PROGRAM, &["start", "--json", "--no-metrics", "--bind", "127.0.0.1:0"])
            .args(["--state-dir", "a/b/state"])
            .args(more)
            .current_dir(&folder)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(node.stdout.take().unwrap()), &mut line).unwrap();
        let banner: serde_json::Value = serde_json::from_str(&line).expect("the node serves");
        // An idle node makes a round a second; one that ends before the first has nothing to go on from.
        let url = banner["api"].as_str().unwrap();
        let agent = Agent::builder().with_url(url).build().unwrap();
        let certified = async || match agent.status().await.unwrap().values["certified_height"].as_ref() {
            ic_agent::agent::status::Value::Integer(height) => *height as u64,
            other => panic!("a height that is none: {other:?}"),
        };
        while certified().await <= banner["height"].as_u64().unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let interrupt = std::process::Command::new("kill").args(["-INT", &node.id().to_string()]).status();
        assert!(interrupt.unwrap().success() && node.wait().unwrap().success());
        banner["height"].as_u64().unwrap()
    };
    assert_eq!(start(&["--record", "rounds"]).await, 0);
    let second = start(&[]).await;
    assert!(second >= 2, "{second}");
    assert!(start(&[]).await > second, "from the checkpoint of an empty subnet");
    assert_eq!(std::fs::read_to_string(folder.join("rounds.new")).unwrap(), "mine");
    let recording = folder.join("rounds");
    assert_eq!(replay(&recording, "1")["contents"]["state_hashes"], 1);
    let bytes = std::fs::read(&recording).unwrap();
    let cut = folder.join("cut");
    std::fs::write(&cut, &bytes[..bytes.len() - 3]).unwrap();
    assert!(run(&["replay", cut.to_str().unwrap()]).unwrap_err().contains("truncated"));
    // Of one that was not finished, what is whole is run, and the rest is said.
    std::fs::write(&cut, [&bytes, &b"the beginning of another frame"[..]].concat()).unwrap();
    assert_eq!(replay(&cut, "1")["left_over_bytes"], 30);
    assert!(run(&["record", "show", cut.to_str().unwrap()]).unwrap().contains("Not whole    the last 30 bytes"));
    let said = run(&["replay", folder.to_str().unwrap()]).unwrap_err();
    assert!(said.contains("is not a state directory of Cyclotron"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}
