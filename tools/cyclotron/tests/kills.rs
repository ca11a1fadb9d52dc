//! Nodes are killed at any moment, under load, and have lost nothing that they acknowledged.
//!
//! CI kills some; `tools/conformance/kills 1000` kills more, and says how it goes. The nodes differ: half of them make checkpoints as often as
//! they can, some have less memory than their canister, some keep no compiled code, some as little of the log as they can. Some are killed while they
//! stop in order, and some once more while they start.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::{Decode, Encode, Nat, Principal};
use common::*;
use cyclotron_conformance::{TestNode, program};
use ic_agent::{Agent, AgentError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times that CI kills a node.
const KILLS: u64 = 20;
/// Users who call at the same time.
const USERS: u8 = 4;
/// Kills between two lines about them.
const SHOWN_EVERY: u64 = 10;

/// What nodes are started with, in turns. The canister has written 4 MiB.
const NODES: [&[&str]; 4] = [
    &["--checkpoint-every", "0", "--memory", "2"],
    &["--module-cache", "0"],
    &["--checkpoint-every", "0", "--log-max", "1"],
    &[],
];
/// Time in which a node is killed that starts, or stops: it takes about as long.
const START_TIME: Duration = Duration::from_millis(80);

/// A counter that writes the count to the next of 1,024 pages too, and tells it only if all of them hold what they must.
const COUNTER: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (memory 80)
    (func $reply (param $n i64) (local $at i32)
        (i64.store (i32.const 0) (i64.const 0x7d01004c444944)) ;; "DIDL", no types, one value: nat
        (local.set $at (i32.const 7))
        (loop $more
            (i32.store8 (local.get $at) (i32.or (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 127))
                (i32.shl (i64.gt_u (local.get $n) (i64.const 127)) (i32.const 7))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (local.set $n (i64.shr_u (local.get $n) (i64.const 7)))
            (br_if $more (i64.ne (local.get $n) (i64.const 0))))
        (call $append (i32.const 0) (local.get $at))
        (call $msg_reply))
    (func $page (param $n i64) (result i32)
        (i32.add (i32.const 0x100000) (i32.shl (i32.wrap_i64 (i64.and (local.get $n) (i64.const 1023))) (i32.const 12))))
    (func (export "canister_update increment") (local $n i64)
        (local.set $n (i64.add (i64.load (i32.const 32)) (i64.const 1)))
        (i64.store (i32.const 32) (local.get $n))
        (i64.store (call $page (local.get $n)) (local.get $n))
        (call $reply (local.get $n)))
    (func (export "canister_query get") (local $n i64) (local $m i64) (local $last i64)
        (local.set $m (local.tee $n (i64.load (i32.const 32))))
        (local.set $last (i64.sub (local.get $n) (i64.const 1024)))
        (loop $next
            (if (i64.ne (i64.load (call $page (local.get $m)))
                    (select (local.get $m) (i64.const 0) (i64.gt_s (local.get $m) (i64.const 0))))
                (then unreachable))
            (local.set $m (i64.sub (local.get $m) (i64.const 1)))
            (br_if $next (i64.gt_s (local.get $m) (local.get $last))))
        (call $reply (local.get $n))))"#;

/// Adds one, once; `None`: the answer did not come.
async fn try_increment(agent: &Agent, counter: Principal) -> Option<u64> {
    let call = agent.update(&counter, "increment").with_arg(Encode!().unwrap()).call_and_wait();
    let reply = tokio::time::timeout(Duration::from_secs(20), call).await.ok()?;
    match reply {
        Ok(reply) => Some(u64::try_from(Decode!(&reply, Nat).unwrap().0).unwrap()),
        Err(AgentError::CertificateVerificationFailed()) => panic!("an answer that its certificate does not bear out"),
        Err(_) => None,
    }
}

/// What the kills have met.
#[derive(Default)]
struct Met {
    /// Calls that were acknowledged.
    acknowledged: u64,
    /// Calls whose fate nobody has heard of.
    unanswered: u64,
    /// Checkpoints that were there after a kill.
    checkpoints: BTreeSet<String>,
    /// Kills in the middle of one: it was not whole yet.
    amid_checkpoints: u64,
    /// Kills of a node that was starting, or stopping.
    starting: u64,
    stopping: u64,
}

/// A moment of a time, another one for each number.
fn moment(number: u64, of: Duration) -> Duration {
    Duration::from_micros(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % of.as_micros() as u64)
}

impl Met {
    fn look(&mut self, directory: &Path) {
        let Ok(files) = std::fs::read_dir(directory.join("checkpoints")) else { return };
        let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        self.amid_checkpoints += u64::from(names.iter().any(|name| name.ends_with(".new")));
        self.checkpoints.extend(names.into_iter().filter(|name| name.ends_with(".state")));
    }

    fn say(&self, kills: u64, began: Instant) {
        println!(
            "{kills} kills in {:.0} s: {} calls acknowledged, {} unanswered, {} checkpoints, {} kills in the middle of one, {} while stopping, {} more while starting",
            began.elapsed().as_secs_f64(),
            self.acknowledged,
            self.unanswered,
            self.checkpoints.len(),
            self.amid_checkpoints,
            self.stopping,
            self.starting
        );
    }
}

fn state_after_replay(directory: &Path, threads: &str) -> serde_json::Value {
    let arguments = ["replay", "--json", "--threads", threads, directory.to_str().unwrap()];
    let output = program(PROGRAM, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_at_any_moment_has_lost_nothing_that_it_acknowledged() {
    let kills = std::env::var("KILLS").map_or(KILLS, |kills| kills.parse().expect("KILLS is a number"));
    let mut directory: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("killed-{}", std::process::id()));
    let _none_yet = std::fs::remove_dir_all(&directory);
    let mut node = TestNode::start_in_with(PROGRAM, directory.clone(), NODES[0]);
    let counter = install_new(&agent(&node, key(1)), &wat::parse_str(COUNTER).unwrap()).await;
    let root_key = node.banner.root_key.clone();
    // The highest count that was acknowledged.
    let highest = Arc::new(AtomicU64::new(0));
    let (mut met, began) = (Met::default(), Instant::now());
    for kill in 1..=kills {
        let users: Vec<_> = (1..=USERS)
            .map(|user| {
                let (agent, highest) = (agent(&node, key(user)), highest.clone());
                tokio::spawn(async move {
                    let mut answers = 0u64;
                    while let Some(count) = try_increment(&agent, counter).await {
                        highest.fetch_max(count, Ordering::AcqRel);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        // Any moment: within the first calls, or after some hundred.
        tokio::time::sleep(moment(kill, Duration::from_millis(150))).await;
        if kill % 4 == 3 {
            node.interrupt();
            tokio::time::sleep(moment(kill / 4, START_TIME)).await;
            met.stopping += 1;
        }
        directory = node.kill();
        met.look(&directory);
        for user in users {
            met.acknowledged += user.await.unwrap();
            met.unanswered += 1;
        }
        let arguments = NODES[kill as usize % NODES.len()];
        if kill % 3 == 2 {
            TestNode::kill_while_starting(PROGRAM, &directory, arguments, moment(kill / 3, START_TIME));
            met.starting += 1;
            met.look(&directory);
        }
        node = TestNode::start_in_with(PROGRAM, directory.clone(), arguments);
        assert_eq!(node.banner.root_key, root_key);
        let now = count(&agent(&node, key(1)), counter).await;
        let (highest, sure) = (highest.load(Ordering::Acquire), met.acknowledged);
        assert!(now >= highest, "kill {kill}: {highest} was acknowledged, and {now} is left");
        assert!((sure..=sure + met.unanswered).contains(&now), "kill {kill}: {now} after {sure} acknowledged calls");
        if kill.is_multiple_of(SHOWN_EVERY) || kill == kills {
            met.say(kill, began);
        }
    }
    assert!(met.checkpoints.len() >= 2, "the nodes made checkpoints");
    assert!(met.acknowledged >= kills, "the users were heard");
    assert!(kills < 100 || met.amid_checkpoints > 0, "some were killed in the middle of a checkpoint");
    directory = node.kill();
    let (one, four) = (state_after_replay(&directory, "1"), state_after_replay(&directory, "4"));
    assert_eq!(one["state_hash"], four["state_hash"]);
    // What is left of the log is behind a checkpoint, perhaps.
    if one["contents"]["first_height"] == 1 {
        assert_eq!(one["contents"]["ingress_messages"].as_u64().unwrap(), one["executed"].as_u64().unwrap());
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
