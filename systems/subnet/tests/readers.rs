//! Readers beside rounds: queries and inspection never wait for one, and never see the middle of one.
#![allow(clippy::unwrap_used)]

mod common;

use common::{SCRIPT, Setup, TestSubnet, number, op};
use cyclotron_queries::{Certified, Query, answer, inspect_ingress};
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::Ingress;
use cyclotron_types::reject::ErrorCode;
use cyclotron_types::units::Time;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn ask(certified: &Certified, receiver: CanisterId, method: &str, arg: &[u8]) -> Vec<u8> {
    let query = Query { sender: Principal::anonymous(), receiver, method: method.into(), arg: arg.to_vec() };
    answer(certified, &query).unwrap()
}

#[test]
fn readers_do_not_wait_for_a_round_in_progress() {
    let mut subnet = TestSubnet::new(Setup::default());
    let (busy, still) = (subnet.install_new(SCRIPT), subnet.install_new(SCRIPT));
    subnet.call(busy, "go", &op(0, 5)).unwrap();
    let certified = subnet.subnet.certified().clone();
    let height = certified.read().height();
    // A message before the long one: its pages are another log's. The long one fills a slice and is suspended.
    subnet.send(busy, Some(busy), "go", op(0, 1_000));
    subnet.send(busy, Some(busy), "go", [op(0, 100_000), op(4, 1_000_000_000)].concat());
    let over = AtomicBool::new(false);
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            subnet.round();
            over.store(true, Ordering::Release);
        });
        let ingress = |method: &str| Ingress {
            id: MessageId([7; 32]),
            sender: Principal::anonymous(),
            receiver: busy,
            effective_canister: Some(busy),
            method: method.into(),
            arg: Vec::new(),
            expiry: Time(u64::MAX),
            nonce_bytes: 0,
        };
        loop {
            let of_busy = number(&ask(&certified, busy, "get", &[]));
            let of_still = number(&ask(&certified, still, "get", &[]));
            inspect_ingress(&certified, &ingress("go")).unwrap();
            if over.load(Ordering::Acquire) || certified.read().height() != height {
                break;
            }
            assert_eq!((of_busy, of_still), (5, 0), "the state before the round");
            seen += 1;
        }
    });
    assert!(seen > 20, "{seen} times while the round ran");
    assert_eq!(number(&ask(&certified, busy, "get", &[])), 1_005, "the long message is under way still");
}

/// `both` asks another canister for its counter and answers with its own before it; it takes its time between the two.
const PAIR: &str = r#"(module
    (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_perform" (func $call_perform (result i32)))
    (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
    (import "ic0" "stable64_size" (func $stable_size (result i64)))
    (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
    (memory 2)
    (table 2 funcref)
    (elem (i32.const 0) $answered $refused)
    (data (i32.const 64) "get")
    (func $get
        (if (i64.eqz (call $stable_size)) (then (call $append (i32.const 0) (i32.const 8)) (call $reply) (return)))
        (call $stable_read (i64.const 256) (i64.const 0) (i64.const 8))
        ;; Heap and stable memory are of one state.
        (if (i64.ne (i64.load (i32.const 256)) (i64.load (i32.const 0))) (then unreachable))
        (call $append (i32.const 256) (i32.const 8))
        (call $reply))
    (func $bump
        (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
        (if (i64.eqz (call $stable_size)) (then (drop (call $stable_grow (i64.const 1)))))
        (call $stable_write (i64.const 0) (i64.const 0) (i64.const 8))
        (call $reply))
    (func $both (local $n i64)
        (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
        (loop $spin
            (local.set $n (i64.add (local.get $n) (i64.const 1)))
            (br_if $spin (i64.lt_u (local.get $n) (i64.load (i32.const 138)))))
        (call $call_new (i32.const 128) (i32.const 10) (i32.const 64) (i32.const 3)
                        (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
        (if (call $call_perform) (then unreachable)))
    (func $answered (param i32)
        (call $append (i32.const 0) (i32.const 8))
        (call $arg_copy (i32.const 192) (i32.const 0) (i32.const 8))
        (call $append (i32.const 192) (i32.const 8))
        (call $reply))
    (func $refused (param i32) unreachable)
    (export "canister_query get" (func $get))
    (export "canister_update bump" (func $bump))
    (export "canister_composite_query both" (func $both)))"#;

/// Ends the other thread when this one ends, whether or not it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks for both counters; `None` when rounds have changed the canisters too often meanwhile.
fn both(certified: &Certified, first: CanisterId, second: CanisterId, spins: u64) -> Option<u64> {
    let arg = [second.as_slice(), &spins.to_le_bytes()].concat();
    let query = Query { sender: Principal::anonymous(), receiver: first, method: "both".into(), arg };
    match answer(certified, &query) {
        Ok(counters) => {
            assert_eq!(counters[..8], counters[8..], "both are of one state");
            Some(number(&counters[..8]))
        }
        Err(reject) => {
            assert_eq!(reject.error, Some(ErrorCode::CertifiedStateUnavailable));
            None
        }
    }
}

#[test]
fn a_composite_query_sees_one_state_however_many_rounds_end_meanwhile() {
    let mut subnet = TestSubnet::new(Setup::default());
    let (first, second) = (subnet.install_new(PAIR), subnet.install_new(PAIR));
    let certified = subnet.subnet.certified().clone();
    // Short ones are answered between rounds; long ones, in whose middle a round always ends, are refused.
    for (spins, answered) in [(1, true), (3_000_000, false)] {
        let (over, seen) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ends = Ends(&over);
                while !over.load(Ordering::Acquire) {
                    if both(&certified, first, second, spins).is_some() == answered {
                        seen.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
            let _ends = Ends(&over);
            while seen.load(Ordering::Acquire) < 3 && !over.load(Ordering::Acquire) {
                subnet.send(first, Some(first), "bump", Vec::new());
                subnet.send(second, Some(second), "bump", Vec::new());
                subnet.round();
            }
        });
    }
    // Rounds that touch neither do not count.
    let still = number(&ask(&certified, first, "get", &[]));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Ends(&over);
            assert_eq!(both(&certified, first, second, 10_000_000), Some(still));
        });
        while !over.load(Ordering::Acquire) {
            subnet.round();
        }
    });
}
