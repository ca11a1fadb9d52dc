//! A node built with the feature `tracy` tells the profiler's protocol what ran. Built with the feature alone:
//! `cargo test --workspace --features cyclotron/tracy --test zones`.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::*;
use cyclotron_conformance::{TestNode, canister, program};
use cyclotron_zones::{Capture, CaptureError, Totals};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Calls while the profiler is connected.
const CALLS: u64 = 7;
/// Longer than the node takes for them, and to tell names.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Reads on a thread of its own until it is told to stop; what is known meanwhile is in `known`.
fn read_on(mut capture: Capture, known: Arc<Mutex<Totals>>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            capture.read().unwrap();
            *known.lock().unwrap() = capture.totals();
        }
    })
}

#[tokio::test]
async fn a_profiler_reads_zones_of_systems_executions_and_host_io_by_name() {
    let port = free_port();
    let mut node = TestNode::start_with_environment(PROGRAM, &[], &[("TRACY_PORT", &port.to_string())]);
    let agent = agent(&node, key(1));
    let counter = install_new(&agent, &canister("counter")).await;
    // Not seen: nobody is connected.
    increment(&agent, counter).await;

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let capture = Capture::connect(address).unwrap();
    let welcome = capture.welcome().clone();
    assert_eq!((welcome.pid, welcome.program.as_str()), (u64::from(node.id()), "cyclotron"));
    assert!(welcome.on_demand, "nothing is kept until a profiler connects");
    let (known, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let reader = read_on(capture, Arc::clone(&known), stop.clone());
    let known = |what: &dyn Fn(&Totals) -> bool| what(&known.lock().unwrap());
    let began = Instant::now();
    // Zones are there from the next end of a round on: an idle node has one a second.
    while !known(&|totals| totals.frames > 0) {
        assert!(began.elapsed() < PATIENCE, "no round has ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for _ in 0..CALLS {
        increment(&agent, counter).await;
    }
    assert_eq!(count(&agent, counter).await, CALLS + 1);
    let (update, asked) = (format!("increment {counter}"), format!("get {counter}"));
    let count_of = |totals: &Totals, name: &str| totals.place(name).map_or(0, |place| place.count);
    let wanted = [
        "round",
        "induct_ingress",
        "choose_canisters",
        "execute_canisters",
        "fold_results",
        "certify",
        "write the log",
        "flush the log",
        "wait for the log",
        "admit requests",
        "answer a call",
        "answer calls",
        "answer a query",
        &update,
        &asked,
    ];
    let all_there =
        |totals: &Totals| wanted.iter().all(|name| count_of(totals, name) > 0) && count_of(totals, &update) >= CALLS;
    while !known(&all_there) {
        let missing = |totals: &Totals| wanted.iter().any(|name| count_of(totals, name) == 0);
        if began.elapsed() > PATIENCE {
            known(&|totals| panic!("missing: {}, {totals:#?}", missing(totals)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    known(&|totals| {
        // One zone a message that ran while the profiler was there.
        assert_eq!(count_of(totals, &update), CALLS);
        assert_eq!(totals.place(&update).unwrap().function, "increment");
        assert_eq!(count_of(totals, &asked), 1);
        let round = totals.place("round").unwrap();
        assert!(round.ns > round.self_ns && round.self_ns > 0.0, "systems lie within rounds: {round:?}");
        assert!(totals.place("induct_ingress").unwrap().function.starts_with("cyclotron_routing::"));
        assert!(totals.place("write the log").unwrap().file.ends_with("writer.rs"));
        for name in
            ["executions a round", "instructions a round", "memory of canisters, bytes", "bytes written a round"]
        {
            assert!(totals.plot(name).is_some_and(|plot| plot.max > 0.0), "{name}: {:?}", totals.plot(name));
        }
        assert!(totals.threads.iter().any(|thread| thread == "round"), "{:?}", totals.threads);
        true
    });
    stop.store(true, Ordering::Release);
    reader.join().unwrap();
    // The profiler is gone, and the node goes on.
    increment(&agent, counter).await;
    assert!(node.is_up());
    // It comes back.
    assert!(Capture::connect(address).is_ok());
}

/// `go` computes for some milliseconds, most of them in a function that only the name section names.
const COMPUTES: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (func $fibonacci (param i32) (result i32)
        (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
            (then (local.get 0))
            (else (i32.add
                (call $fibonacci (i32.sub (local.get 0) (i32.const 1)))
                (call $fibonacci (i32.sub (local.get 0) (i32.const 2)))))))
    (func (export "canister_update go") (drop (call $fibonacci (i32.const 27))) (call $reply)))"#;

#[tokio::test]
async fn a_profiler_reads_sampled_wasm_functions_by_name() {
    let port = free_port();
    let environment = [("TRACY_PORT", &*port.to_string())];
    let node = TestNode::start_with_environment(PROGRAM, &["--wasm-rows"], &environment);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &wat::parse_str(COMPUTES).unwrap()).await;
    let capture = Capture::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let (known, stop) = (Arc::<Mutex<Totals>>::default(), Arc::new(AtomicBool::new(false)));
    let reader = read_on(capture, Arc::clone(&known), stop.clone());
    let began = Instant::now();
    let found = || known.lock().unwrap().place("fibonacci").filter(|place| place.count > 0).cloned();
    let place = loop {
        agent.update(&canister, "go").call_and_wait().await.unwrap();
        match found() {
            Some(place) => break place,
            None => assert!(began.elapsed() < PATIENCE, "{:#?}", known.lock().unwrap()),
        }
    };
    assert!(place.function.starts_with("module "), "{place:?}");
    let known = known.lock().unwrap().clone();
    assert!(known.place("canister_update go").is_some(), "its caller is around it: {known:#?}");
    assert!(known.threads.iter().any(|thread| thread.starts_with("wasm ")), "{:?}", known.threads);
    stop.store(true, Ordering::Release);
    reader.join().unwrap();
}

/// Connects to a program that begins to listen soon.
fn connect(address: SocketAddr) -> Capture {
    let until = Instant::now() + PATIENCE;
    loop {
        match Capture::connect(address) {
            Err(CaptureError::Connection(_)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome.unwrap(),
        }
    }
}

/// Reads until the program has said that it has told everything; a connection that ends before is a failure.
fn read_to_the_end(mut capture: Capture) -> Totals {
    while capture.read().unwrap() {}
    let totals = capture.totals();
    assert!(totals.places.iter().all(|place| !place.name.is_empty()), "all names are told: {totals:#?}");
    assert!(totals.plots.iter().all(|plot| !plot.name.is_empty()), "{totals:#?}");
    totals
}

#[test]
fn a_profiler_reads_a_short_replay_to_its_last_round() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("zones-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("mixed.cyc").to_str().unwrap().to_owned();
    let load = ["load", "--mix", "mixed", "--rate", "20", "--seconds", "2", "--rounds", "5", "--record", &file];
    assert!(program(PROGRAM, &load).output().unwrap().status.success());
    let port = free_port();
    let replay = program(PROGRAM, &["replay", &file, "--json", "--await-profiler", "--wasm-rows"])
        .env("TRACY_PORT", port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let totals = read_to_the_end(connect(SocketAddr::from(([127, 0, 0, 1], port))));
    let output = replay.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rounds = report["contents"]["rounds"].as_u64().unwrap();
    assert!(rounds > 5, "those that make the canisters too: {report}");
    assert_eq!(totals.frames, rounds);
    assert_eq!(totals.place("round").unwrap().count, rounds);
    assert_eq!(totals.plot("executions a round").unwrap().count, rounds);
    assert!(totals.threads.iter().any(|thread| thread == "round"), "{:?}", totals.threads);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_node_that_stops_tells_the_profiler_its_end() {
    let port = free_port();
    let environment = [("TRACY_PORT", &*port.to_string())];
    let mut node = TestNode::start_with_environment(PROGRAM, &["--wasm-rows"], &environment);
    let reader = {
        let capture = connect(SocketAddr::from(([127, 0, 0, 1], port)));
        std::thread::spawn(move || read_to_the_end(capture))
    };
    let agent = agent(&node, key(1));
    let computes = install_new(&agent, &wat::parse_str(COMPUTES).unwrap()).await;
    agent.update(&computes, "go").call_and_wait().await.unwrap();
    node.interrupt();
    assert!(node.wait().success());
    let totals = reader.join().unwrap();
    // What the node does last: the checkpoint of its end.
    for name in ["checkpoint: write", "flush a checkpoint", "flush the log"] {
        assert!(totals.place(name).is_some_and(|place| place.count > 0), "{name}: {totals:#?}");
    }
}

#[tokio::test]
async fn whoever_speaks_something_else_takes_nothing_from_the_profiler() {
    let port = free_port();
    let node = TestNode::start_with_environment(PROGRAM, &[], &[("TRACY_PORT", &port.to_string())]);
    let mut other = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut other, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(other);
    // The port is not lost to it.
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let until = Instant::now() + PATIENCE;
    let capture = loop {
        match Capture::connect(address) {
            Err(CaptureError::Connection(_)) if Instant::now() < until => {}
            outcome => break outcome,
        }
    };
    assert_eq!(capture.unwrap().welcome().pid, u64::from(node.id()));
}
