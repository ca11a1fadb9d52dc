//! Canisters that ask for more than their share: endless messages, many long ones, timers that cannot run, memory that is not there.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::{CandidType, Encode, Nat, Principal};
use common::{SCRIPT, Setup, TestSubnet, op};
use cyclotron_subnet::SchedulingOptions;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::units::{Bytes, Instructions};

#[derive(CandidType)]
struct Record {
    canister_id: Principal,
}

#[derive(CandidType, Default)]
struct Settings {
    freezing_threshold: Option<Nat>,
    minimum_incoming_canister_call_cycles: Option<Nat>,
    wasm_memory_limit: Option<Nat>,
    wasm_memory_threshold: Option<Nat>,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

fn record(canister: CanisterId) -> Vec<u8> {
    Encode!(&Record { canister_id: canister.principal() }).unwrap()
}

fn set(subnet: &mut TestSubnet, canister: CanisterId, settings: Settings) -> Result<Vec<u8>, String> {
    let update = UpdateSettings { canister_id: canister.principal(), settings };
    subnet.manage(Some(canister), "update_settings", Encode!(&update).unwrap())
}

fn is_final(subnet: &TestSubnet, id: &MessageId) -> bool {
    subnet.subnet.ingress_status(id).is_some_and(|entry| entry.status.is_final())
}

/// The answer to a message that may have been answered already.
fn answer(subnet: &mut TestSubnet, id: MessageId) -> cyclotron_types::message::IngressStatus {
    if is_final(subnet, &id) { subnet.subnet.ingress_status(&id).unwrap().status.clone() } else { subnet.wait(id) }
}

/// Messages of a million instructions in ten slices, two slices a core and round.
fn sliced() -> Setup {
    let mut setup = Setup::default();
    setup.limits.message.message = Instructions(1_000_000);
    setup.limits.message.slice = Instructions(100_000);
    setup.scheduling = SchedulingOptions {
        round_instructions: Instructions(200_000),
        message_overhead: Instructions(1_000),
        ..SchedulingOptions::default()
    };
    setup
}

const ENDLESS: &str = r#"(module (memory 1) (func (export "canister_heartbeat") (loop $l (br $l))))"#;

#[test]
fn a_canister_whose_heartbeat_never_ends_can_be_stopped_and_uninstalled() {
    let mut subnet = TestSubnet::new(sliced());
    let canister = subnet.install_new(ENDLESS);
    (0..5).for_each(|_| drop(subnet.round()));
    subnet.manage(Some(canister), "stop_canister", record(canister)).unwrap();
    subnet.manage(Some(canister), "uninstall_code", record(canister)).unwrap();
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn endless_messages_on_every_core_hold_nobody_up() {
    let mut subnet = TestSubnet::new(sliced());
    let quick = subnet.install_new(SCRIPT);
    for _ in 0..8 {
        subnet.install_new(ENDLESS);
    }
    for _ in 0..30 {
        let id = subnet.send(quick, Some(quick), "go", op(0, 1));
        subnet.round();
        assert!(is_final(&subnet, &id), "a new message runs in its round");
    }
}

#[test]
fn long_messages_beyond_what_may_stay_suspended_all_come_to_their_end() {
    let mut subnet = TestSubnet::new(sliced());
    let canisters: Vec<_> = (0..10).map(|_| subnet.install_new(SCRIPT)).collect();
    let sent: Vec<_> = canisters.iter().map(|&c| subnet.send(c, Some(c), "go", op(4, 100_000))).collect();
    let mut rounds = 0;
    while !sent.iter().all(|id| is_final(&subnet, id)) {
        subnet.round();
        rounds += 1;
        assert!(rounds < 200, "{:?}", sent.iter().map(|id| is_final(&subnet, id)).collect::<Vec<_>>());
    }
    assert!(rounds > 10, "{rounds} rounds are no long messages");
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn a_checkpoint_aborts_an_installation_that_is_under_way() {
    let mut setup = Setup::default();
    setup.limits.install.slice = Instructions(20_000);
    let mut subnet = TestSubnet::new(setup);
    let canister = subnet.create();
    let code = wat::parse_str(
        r#"(module (memory 1) (func (export "canister_init")
            (local $n i32)
            (local.set $n (i32.const 100000))
            (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"#,
    )
    .unwrap();
    #[derive(CandidType)]
    struct Install {
        mode: common::Mode,
        canister_id: Principal,
        wasm_module: Vec<u8>,
        arg: Vec<u8>,
    }
    let arg =
        Install { mode: common::Mode::Install, canister_id: canister.principal(), wasm_module: code, arg: vec![] };
    let id = subnet.send(CanisterId::MANAGEMENT, Some(canister), "install_code", Encode!(&arg).unwrap());
    for _ in 0..60 {
        subnet.round_at_checkpoint();
        subnet.subnet.check_cycles().unwrap();
    }
    assert!(!is_final(&subnet, &id), "it starts over after each checkpoint");
    common::reply(subnet.wait(id)).unwrap();
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn canisters_of_one_round_take_no_more_memory_than_there_is() {
    let memory = |setup: Setup| {
        let mut subnet = TestSubnet::new(setup);
        let canisters: Vec<_> = (0..4).map(|_| subnet.install_new(SCRIPT)).collect();
        let before = subnet.subnet.statistics().memory;
        for &canister in &canisters {
            subnet.send(canister, Some(canister), "go", op(7, 0).repeat(6));
        }
        subnet.round();
        (before, subnet.subnet.statistics().memory)
    };
    let scheduling = SchedulingOptions { cores: 1, ..SchedulingOptions::default() };
    let setup = Setup { scheduling, ..Setup::default() };
    let (before, after) = memory(setup.clone());
    assert_eq!(after.0 - before.0, 24 << 16, "without a limit each takes its six pages");
    let mut tight = setup;
    tight.limits.subnet_memory = Bytes(before.0 + (7 << 16));
    let (_, after) = memory(tight);
    assert_eq!(after.0 - before.0, 7 << 16);
}

/// Sets its timer to the next nanosecond; `export` is what it exports besides.
fn with_timer(export: &str) -> String {
    format!(
        r#"(module
            (import "ic0" "time" (func $time (result i64)))
            (import "ic0" "global_timer_set" (func $set (param i64) (result i64)))
            (import "ic0" "msg_reply" (func $reply))
            (memory 1)
            (func (export "canister_update go") (drop (call $set (i64.add (call $time) (i64.const 1)))) (call $reply))
            {export})"#
    )
}

#[test]
fn a_timer_without_a_function_asks_for_no_rounds() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(&with_timer(""));
    subnet.call(canister, "go", &[]).unwrap();
    (0..3).for_each(|_| drop(subnet.round()));
    assert!(!subnet.subnet.has_work(subnet.now));
}

#[test]
fn a_due_timer_of_a_frozen_canister_is_tried_once_a_second_and_runs_when_it_is_paid_for() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(&with_timer(
        r#"(func (export "canister_global_timer") (i32.store8 (i32.const 0) (i32.const 1)))
           (func (export "canister_query fired")
                (if (i32.eqz (i32.load8_u (i32.const 0))) (then unreachable)) (call $reply))"#,
    ));
    subnet.call(canister, "go", &[]).unwrap();
    set(&mut subnet, canister, Settings { freezing_threshold: Some(Nat::from(u64::MAX)), ..Settings::default() })
        .unwrap();
    (0..3).for_each(|_| drop(subnet.round()));
    assert!(!subnet.subnet.has_work(subnet.now), "{:?}", subnet.subnet.next_alarm());
    assert_eq!(subnet.subnet.next_alarm().unwrap().0, subnet.now.0 + 1_000_000_000);
    set(&mut subnet, canister, Settings { freezing_threshold: Some(Nat::from(0u64)), ..Settings::default() }).unwrap();
    subnet.round();
    subnet.query(canister, "fired", &[]).unwrap();
}

#[test]
fn settings_that_make_memory_scarce_run_the_low_memory_hook() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(
        r#"(module
            (import "ic0" "msg_reply" (func $reply))
            (memory 2)
            (func (export "canister_on_low_wasm_memory") (i32.store8 (i32.const 0) (i32.const 1)))
            (func (export "canister_query ran") (if (i32.eqz (i32.load8_u (i32.const 0))) (then unreachable)) (call $reply)))"#,
    );
    subnet.round();
    subnet.query(canister, "ran", &[]).unwrap_err();
    let scarce = Settings {
        wasm_memory_limit: Some(Nat::from(3u64 << 16)),
        wasm_memory_threshold: Some(Nat::from(2u64 << 16)),
        ..Settings::default()
    };
    set(&mut subnet, canister, scarce).unwrap();
    subnet.query(canister, "ran", &[]).unwrap();
    subnet.round();
    assert!(!subnet.subnet.has_work(subnet.now));
}

#[test]
fn no_more_calls_wait_for_a_long_message_than_a_queue_holds() {
    let mut setup = sliced();
    setup.limits.queue_slots = 2;
    let mut subnet = TestSubnet::new(setup);
    let canister = subnet.install_new(ENDLESS);
    (0..3).for_each(|_| drop(subnet.round()));
    let sent: Vec<_> = (0..4)
        .map(|_| subnet.send(CanisterId::MANAGEMENT, Some(canister), "start_canister", record(canister)))
        .collect();
    let answers: Vec<_> = sent.iter().map(|&id| common::reply(answer(&mut subnet, id))).collect();
    assert!(answers[..2].iter().all(Result::is_ok), "{answers:?}");
    assert!(answers[2..].iter().all(|a| a.as_ref().is_err_and(|text| text.contains("IC0201"))), "{answers:?}");
    // Their places are free again.
    subnet.manage(Some(canister), "start_canister", record(canister)).unwrap();
}

/// Calls the canister named in its argument; replies with the reject code.
const CALLER: &str = r#"(module
    (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_reject_code" (func $code (result i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_perform" (func $call_perform (result i32)))
    (memory 1)
    (table funcref (elem $answered $refused))
    (data (i32.const 0) "leaf")
    (global $calls (mut i32) (i32.const 0))
    (func $answered (param i32)
        (global.set $calls (i32.sub (global.get $calls) (i32.const 1)))
        (if (i32.eqz (global.get $calls)) (then (call $reply))))
    (func $refused (param i32)
        (i32.store8 (i32.const 8) (call $code))
        (call $append (i32.const 8) (i32.const 1))
        (call $reply))
    (func $call (param $times i32)
        (global.set $calls (local.get $times))
        (call $arg_copy (i32.const 16) (i32.const 0) (call $arg_size))
        (loop $next
            (call $call_new (i32.const 16) (call $arg_size) (i32.const 0) (i32.const 4)
                (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
            (drop (call $call_perform))
            (br_if $next (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
    (func (export "canister_update call") (call $call (i32.const 1)))
    (func (export "canister_composite_query once") (call $call (i32.const 1)))
    (func (export "canister_composite_query often") (call $call (i32.const 4)))
    (func (export "canister_query leaf") (call $reply)))"#;

#[test]
fn a_call_with_too_few_cycles_is_a_canister_error() {
    let mut subnet = TestSubnet::new(Setup::default());
    let (caller, callee) = (subnet.install_new(CALLER), subnet.install_new(CALLER));
    assert!(subnet.call(caller, "call", callee.as_slice()).unwrap().is_empty());
    let dear = Settings { minimum_incoming_canister_call_cycles: Some(Nat::from(1u64)), ..Settings::default() };
    set(&mut subnet, callee, dear).unwrap();
    assert_eq!(subnet.call(caller, "call", callee.as_slice()).unwrap(), [5]);
}

#[test]
fn a_composite_query_pays_for_each_call_that_it_makes() {
    let mut setup = Setup::default();
    setup.limits.query = Instructions(10_000_000);
    setup.limits.composite_query = Instructions(120_000_000);
    let mut subnet = TestSubnet::new(setup);
    let (caller, callee) = (subnet.install_new(CALLER), subnet.install_new(CALLER));
    subnet.query(caller, "once", callee.as_slice()).unwrap();
    let reject = subnet.query(caller, "often", callee.as_slice()).unwrap_err();
    assert!(reject.contains("IC0526"), "{reject}");
}

#[test]
fn a_canister_with_more_messages_than_are_fetched_at_once_runs_them_all_in_its_round() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    for _ in 0..700 {
        subnet.send(canister, Some(canister), "go", op(0, 1));
    }
    assert_eq!(subnet.round().answered.len(), 700);
    assert_eq!(subnet.query(canister, "get", &[]).unwrap(), 700u64.to_le_bytes());
}
