//! `cyclotron start --record-queries`, and what a replay does with queries: of a node that answers them while rounds go on.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::Principal;
use common::*;
use cyclotron_conformance::TestNode;
use ic_agent::Agent;
use serde_json::Value;

/// A canister whose `get` answers a number that `inc` makes larger, and `more`; `slow` takes its time before that, and `certificate` looks at one.
fn module(more: u32) -> Vec<u8> {
    let get = format!(
        "(i32.store (i32.const 4) (i32.add (i32.load (i32.const 0)) (i32.const {more})))
         (call $append (i32.const 4) (i32.const 4)) (call $reply)"
    );
    let text = format!(
        r#"(module
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (import "ic0" "msg_reply" (func $reply))
            (import "ic0" "data_certificate_size" (func $size (result i32)))
            (import "ic0" "data_certificate_copy" (func $copy (param i32 i32 i32)))
            (memory 1)
            (func (export "canister_update inc")
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                (call $append (i32.const 0) (i32.const 4)) (call $reply))
            (func (export "canister_query get") {get})
            (func (export "canister_query certificate")
                (call $copy (i32.const 100) (i32.const 0) (call $size))
                (call $append (i32.const 100) (call $size)) (call $reply))
            (func (export "canister_query slow") (local i32)
                (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 3000000))))
                {get}))"#
    );
    wat::parse_str(text).unwrap()
}

async fn ask(agent: &Agent, id: Principal, method: &str) -> Vec<u8> {
    agent.query(&id, method).with_arg(vec![]).call_with_verification().await.unwrap()
}

async fn inc(agent: &Agent, id: Principal) {
    agent.update(&id, "inc").with_arg(vec![]).call_and_wait().await.unwrap();
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&run(arguments).unwrap()).unwrap()
}

#[tokio::test]
async fn queries_of_a_busy_node_are_recorded_and_replay_to_the_same_answers() {
    let recordings = directory("query-recordings");
    std::fs::create_dir_all(&recordings).unwrap();
    let file = |name: &str| recordings.join(name).to_str().unwrap().to_owned();
    let (first, second) = (file("first"), file("second"));
    let start = |state, recording: &str| {
        TestNode::start_in_with(PROGRAM, state, &["--record", recording, "--record-queries", "--query-threads", "3"])
    };
    let node = start(directory("query-state"), &first);
    let ours = agent(&node, key(1));
    let numbers = install_new(&ours, &module(0)).await;
    const CALLS: u32 = 20;
    const EACH: usize = 20;
    // Slow ones end many rounds behind those that they began in.
    let asking = |method: &'static str, count: usize| {
        let ours = agent(&node, key(2));
        tokio::spawn(async move {
            for _ in 0..count {
                ask(&ours, numbers, method).await;
            }
        })
    };
    let askers = [asking("get", EACH * 4), asking("slow", EACH), asking("get", EACH)];
    for _ in 0..CALLS {
        inc(&ours, numbers).await;
    }
    for asker in askers {
        asker.await.unwrap();
    }
    ask(&ours, numbers, "certificate").await;
    ours.query(&numbers, "no such method").with_arg(vec![]).call_with_verification().await.unwrap_err();
    let state = end(node);

    let asked = EACH as u64 * 6 + 2;
    let shown = json(&["record", "show", "--json", &first]);
    assert_eq!((&shown["contents"]["queries"], &shown["contents"]["queries_left_out"]), (&asked.into(), &0.into()));
    assert!(run(&["record", "show", &first]).unwrap().contains(&format!("Queries      {asked}, ")));
    for threads in ["1", "2", "4"] {
        let report = json(&["replay", "--json", "--threads", threads, &first]);
        let queries = &report["queries"];
        assert_eq!((&queries["run"], &queries["missed"]), (&asked.into(), &0.into()), "{queries}");
        assert_eq!((&queries["answers"]["changed"], &queries["certificates"]), (&0.into(), &1.into()), "{queries}");
        assert_eq!(queries["answers"]["compared"].as_u64().unwrap() + queries["moments"].as_u64().unwrap(), asked - 1);
        let rows = report["methods"].as_array().unwrap();
        let of = |method: &str| {
            let row = rows
                .iter()
                .find(|row| row["kind"] == "query" && row["method"] == method && row["canister"] == numbers.to_text());
            row.unwrap_or_else(|| panic!("no {method}")).clone()
        };
        assert_eq!((&of("get")["messages"], &of("slow")["messages"]), (&(EACH * 5).into(), &EACH.into()));
        assert!(of("slow")["p50_us"].as_f64().unwrap() > of("get")["p50_us"].as_f64().unwrap());
        assert!(of("slow")["instructions"].as_u64().unwrap() > 3_000_000 * EACH as u64);
    }
    let said = run(&["replay", &first]).unwrap();
    assert!(said.contains(&format!("{asked} queries run in ")) && said.contains("slow, query"), "{said}");
    assert!(said.contains("1 not compared: the canister had looked at a certificate"), "{said}");
    let without = json(&["replay", "--json", "--no-queries", &first]);
    assert_eq!((&without["queries"]["run"], &without["contents"]["queries"]), (&0.into(), &0.into()));

    // The state that the second recording begins behind is asked before any round of it.
    let node = start(state, &second);
    let ours = agent(&node, key(1));
    ask(&ours, numbers, "get").await;
    inc(&ours, numbers).await;
    let last = ask(&ours, numbers, "get").await;
    assert_eq!(last, (CALLS + 1).to_le_bytes());
    let state = end(node);
    let report = json(&["replay", "--json", &second]);
    assert_eq!((&report["queries"]["run"], &report["queries"]["answers"]["changed"]), (&2.into(), &0.into()));
    tried_from_the_middle_on(&first, &second, numbers, &file);
    for path in [state, recordings] {
        std::fs::remove_dir_all(path).unwrap();
    }
}

/// Another module that takes over in the middle of a recording, and in one that begins behind a checkpoint.
fn tried_from_the_middle_on(first: &str, second: &str, numbers: Principal, file: &impl Fn(&str) -> String) {
    let other = file("other.wasm");
    std::fs::write(&other, module(10)).unwrap();
    let candidate = format!("{numbers}={other}");
    let try_on = |more: &[&str]| json(&[&["replay", "--json", "--wasm", &candidate], more].concat());
    let changed = |report: &Value| report["queries"]["changed"].as_u64().unwrap();
    let heights = |report: &Value| -> Vec<u64> {
        report["queries"]["listed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| change["height"].as_u64().unwrap())
            .collect()
    };
    let whole = try_on(&[first, "--plain-swap"]);
    assert_eq!((&whole["replies"]["changed"], &whole["not_as_recorded"]["changed"]), (&0.into(), &0.into()), "{whole}");
    let (all, rounds) = (heights(&whole), whole["rounds"].as_u64().unwrap());
    let middle = all[all.len() / 2];
    assert!(all[0] < middle, "queries ran on many states: {all:?}");
    let from = middle.to_string();
    for (how, name) in [(&["--plain-swap"][..], "swap"), (&[], "upgrade")] {
        let half = try_on(&[&[first, "--from", &from], how].concat());
        let taken = half["taken"].as_array().unwrap();
        assert_eq!((&taken[0]["height"], taken.len()), (&(middle - 1).into(), 1), "{name}: {half}");
        assert!(taken[0]["outcome"]["Ok"].is_u64() && half["rounds"] == rounds + 1 - middle, "{name}: {half}");
        assert!(0 < changed(&half) && changed(&half) < changed(&whole), "{name}: {half}");
        assert!(heights(&half).iter().all(|height| *height >= middle), "{name}: {half}");
        // The number stays where nothing but the code is exchanged; an upgrade keeps no heap.
        assert_eq!(half["replies"]["changed"].as_u64().unwrap() > 0, name == "upgrade", "{half}");
        let seek = try_on(&[&[second, "--from", &(rounds + 2).to_string()], how].concat());
        assert!(seek["taken"][0]["height"].as_u64().unwrap() > rounds && changed(&seek) > 0, "{seek}");
    }
    let arguments = [first, "--no-queries", "--plain-swap", "--wasm", &candidate, "--from", &from];
    let said = run(&[&["replay"], &arguments[..]].concat()).unwrap();
    assert!(!said.contains("Queries  ") && said.contains(&format!("after height {}: ", middle - 1)), "{said}");
}
