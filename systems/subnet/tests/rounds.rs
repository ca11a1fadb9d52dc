//! Rounds as a user sees them: messages in, answers out.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Mode, SCRIPT, Setup, TestSubnet, number, op};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::Instructions;

/// Eight bytes of the canister's stable memory.
fn stable(subnet: &TestSubnet, canister: CanisterId, at: usize) -> u64 {
    number(&subnet.query(canister, "stable", &[]).unwrap()[at..at + 8])
}

fn call_of(callee: CanisterId, then: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(callee.as_slice());
    bytes.extend(then);
    bytes
}

#[test]
fn an_update_changes_the_state_that_the_next_one_and_a_query_see() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    assert_eq!(subnet.call(canister, "go", &op(0, 5)).map(|r| number(&r)), Ok(5));
    assert_eq!(subnet.call(canister, "go", &op(0, 7)).map(|r| number(&r)), Ok(12));
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(12));
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn a_trap_leaves_no_trace_but_its_reject() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    subnet.call(canister, "go", &op(0, 5)).unwrap();
    let script = [op(0, 9), op(3, 1), op(7, 0), vec![6], vec![2]].concat();
    let reject = subnet.call(canister, "go", &script).unwrap_err();
    assert!(reject.contains("IC0503") && reject.contains("as told"), "{reject}");
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(5));
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn canisters_call_each_other_within_a_round() {
    let mut subnet = TestSubnet::new(Setup::default());
    let (a, b) = (subnet.install_new(SCRIPT), subnet.install_new(SCRIPT));
    let script = call_of(b, &call_of(a, &op(0, 100)));
    let id = subnet.send(a, Some(a), "go", script);
    let view = subnet.round();
    assert_eq!(view.answered.len(), 1, "a chain of three calls fits in one round");
    assert_eq!(view.answered[0], id);
    // The innermost call added 100, each callback adds one.
    assert_eq!(subnet.query(a, "get", &[]).map(|r| number(&r)), Ok(101));
    assert_eq!(subnet.query(b, "get", &[]).map(|r| number(&r)), Ok(1));
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn a_call_to_nobody_comes_back_as_a_reject_with_its_cycles() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    let script = call_of(CanisterId::from_u64(0xfffff), &[]);
    assert_eq!(subnet.call(canister, "go", &script).map(|r| number(&r)), Ok(10));
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn a_long_message_is_sliced_over_rounds_while_others_go_on() {
    let mut setup = Setup::default();
    setup.limits.message.slice = Instructions(100_000);
    let mut subnet = TestSubnet::new(setup);
    let (long, short) = (subnet.install_new(SCRIPT), subnet.install_new(SCRIPT));
    subnet.call(long, "go", &op(0, 1)).unwrap();
    let slow = subnet.send(long, Some(long), "go", [op(0, 1), op(4, 200_000)].concat());
    let mut rounds = 0;
    while !subnet.subnet.ingress_status(&slow).is_some_and(|entry| entry.status.is_final()) {
        let quick = subnet.send(short, Some(short), "go", op(0, 1));
        subnet.round();
        assert!(subnet.subnet.ingress_status(&quick).unwrap().status.is_final(), "others are not held up");
        let seen = number(&subnet.query(long, "get", &[]).unwrap());
        let done = subnet.subnet.ingress_status(&slow).unwrap().status.is_final();
        assert_eq!(seen, if done { 2 } else { 1 }, "queries read the state before the suspended message");
        subnet.subnet.check_cycles().unwrap();
        rounds += 1;
        assert!(rounds < 1_000);
    }
    assert!(rounds > 10, "{rounds}");
}

#[test]
fn an_aborted_message_runs_again_at_the_same_charge() {
    let run = |checkpoints: bool| {
        let mut setup = Setup::default();
        setup.limits.message.slice = Instructions(1_000_000);
        let mut subnet = TestSubnet::new(setup);
        let canister = subnet.install_new(SCRIPT);
        let id = subnet.send(canister, Some(canister), "go", [op(4, 200_000), op(0, 3)].concat());
        subnet.round();
        assert!(!subnet.subnet.ingress_status(&id).unwrap().status.is_final());
        if checkpoints {
            subnet.round_at_checkpoint();
        }
        let answer = common::reply(subnet.wait(id));
        subnet.subnet.check_cycles().unwrap();
        (answer, subnet.balance(canister))
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn a_global_timer_fires_once_when_it_is_due() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    subnet.call(canister, "go", &op(5, 3_000_000_000)).unwrap();
    subnet.round();
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(0));
    for _ in 0..5 {
        subnet.round();
    }
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(1_000));
}

#[test]
fn reinstalling_starts_afresh() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    subnet.call(canister, "go", &[op(0, 5), op(3, 0x100)].concat()).unwrap();
    assert_eq!(stable(&subnet, canister, 0x100), 5);
    subnet.install(canister, Mode::Reinstall, wat::parse_str(SCRIPT).unwrap()).unwrap();
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(0));
    assert_eq!(stable(&subnet, canister, 0x100), 0);
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn upgrading_keeps_stable_memory_alone() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    subnet.call(canister, "go", &[op(0, 5), op(3, 0x100), op(0, 7)].concat()).unwrap();
    subnet.install(canister, Mode::Upgrade(None), wat::parse_str(SCRIPT).unwrap()).unwrap();
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(0), "the heap is new");
    assert_eq!(stable(&subnet, canister, 0x100), 5, "stable memory is the old one");
    assert_eq!(stable(&subnet, canister, 8), 12, "with what canister_pre_upgrade wrote");
    assert_eq!(subnet.subnet.state_hash(), subnet.subnet.whole_state_hash());
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn code_that_is_not_valid_is_refused_and_the_old_stays() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    subnet.call(canister, "go", &op(0, 5)).unwrap();
    let reject = subnet.install(canister, Mode::Upgrade(None), b"\0asm\x01\0\0\0\x01".to_vec()).unwrap_err();
    assert!(reject.contains("IC0505"), "{reject}");
    assert_eq!(subnet.query(canister, "get", &[]).map(|r| number(&r)), Ok(5));
}

#[test]
fn the_page_of_systems_is_the_code() {
    let page = TestSubnet::new(Setup::default()).subnet.describe();
    expect_test::expect_file!["../ROUND.md"].assert_eq(&page);
}

#[test]
fn the_state_hash_sees_the_argument_of_an_installation_under_way() {
    let hash = |last: u8| {
        let mut setup = Setup::default();
        setup.limits.install.slice = Instructions(10_000);
        let mut subnet = TestSubnet::new(setup);
        let canister = subnet.create();
        // The spin takes rounds; the last byte is for nobody.
        let arg = [&100_000u64.to_le_bytes()[..], &[last]].concat();
        let arg = common::install_arg(canister, Mode::Install, wat::parse_str(SCRIPT).unwrap(), arg);
        let id = subnet.send(CanisterId::MANAGEMENT, Some(canister), "install_code", arg);
        for _ in 0..3 {
            subnet.round();
        }
        assert!(!subnet.subnet.ingress_status(&id).unwrap().status.is_final());
        subnet.subnet.state_hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
