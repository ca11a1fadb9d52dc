//! What is scarce: places in queues, time to wait for an answer, seats for instances, instructions of a tree of queries.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{SCRIPT, Setup, TestSubnet, record_arg};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::limits::{COMPOSITE_QUERY_DEPTH_MAX, INGRESS_QUEUE_MAX, QUEUE_SLOTS_MAX};
use cyclotron_types::units::{Cycles, Instructions};

const FLOOD: &str = include_str!("common/flood.wat");
const WALK: &str = include_str!("common/walk.wat");

/// Reject codes of the interface specification.
const DESTINATION_INVALID: usize = 3;
const CANISTER_ERROR: usize = 5;
const SYS_TRANSIENT: usize = 2;
const SYS_UNKNOWN: usize = 6;

const T: u128 = 1_000_000_000_000;

/// Slices of a ten-thousandth of the usual one, so that a spin takes rounds.
fn small_slices() -> Setup {
    let mut setup = Setup::default();
    setup.limits.message.slice = Instructions(200_000);
    setup
}

fn spin(iterations: u64) -> Vec<u8> {
    [&[4][..], &iterations.to_le_bytes()].concat()
}

fn flood(calls: u32, seconds: u32, cycles: u64, callee: CanisterId, script: &[u8]) -> Vec<u8> {
    [&calls.to_le_bytes()[..], &seconds.to_le_bytes(), &cycles.to_le_bytes(), callee.as_slice(), script].concat()
}

/// What became of the calls of a flooding canister.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    not_made: u32,
    replied: u32,
    rejected: Vec<u32>,
}

impl Counts {
    fn rejected(code: usize, count: u32) -> Self {
        let mut rejected = vec![0; 8];
        rejected[code] = count;
        Self { not_made: 0, replied: 0, rejected }
    }
}

fn counts(subnet: &TestSubnet, canister: CanisterId) -> Counts {
    let reply = subnet.query(canister, "counts", &[]).unwrap();
    let numbers: Vec<u32> = reply.chunks(4).map(|number| u32::from_le_bytes(number.try_into().unwrap())).collect();
    Counts { not_made: numbers[0], replied: numbers[1], rejected: numbers[2..].to_vec() }
}

fn round(subnet: &mut TestSubnet) {
    subnet.round();
    subnet.subnet.check_cycles().unwrap();
}

fn is_answered(subnet: &TestSubnet, id: &MessageId) -> bool {
    subnet.subnet.ingress_status(id).unwrap().status.is_final()
}

#[test]
fn a_best_effort_call_is_answered_at_its_deadline_and_a_late_response_only_refunds() {
    let mut subnet = TestSubnet::new(small_slices());
    let (caller, callee) = (subnet.install_new(FLOOD), subnet.install_new(SCRIPT));
    subnet.call(caller, "flood", &flood(1, 3, 1_000, callee, &spin(200_000))).unwrap();
    // The call was made in the round before; its deadline is two rounds from now.
    for _ in 0..2 {
        assert_eq!(counts(&subnet, caller), Counts::rejected(SYS_UNKNOWN, 0));
        round(&mut subnet);
    }
    round(&mut subnet);
    assert_eq!(counts(&subnet, caller), Counts::rejected(SYS_UNKNOWN, 1));
    let (caller_before, callee_before) = (subnet.balance(caller), subnet.balance(callee));
    let mut rounds = 0;
    while subnet.balance(caller) == caller_before {
        round(&mut subnet);
        rounds += 1;
        assert!(rounds < 100, "the callee ends at last");
    }
    assert!(rounds > 3, "the response was late: {rounds}");
    // The callee accepts half.
    assert_eq!(subnet.balance(caller), Cycles(caller_before.0 + 500));
    assert!(subnet.balance(callee) > callee_before, "what it had prepaid and what it accepted");
    assert_eq!(counts(&subnet, caller), Counts::rejected(SYS_UNKNOWN, 1), "no callback runs twice");
}

#[test]
fn calls_that_cannot_be_delivered_come_back_with_their_cycles() {
    let mut subnet = TestSubnet::new(Setup::default());
    let (caller, stopped) = (subnet.install_new(FLOOD), subnet.install_new(SCRIPT));
    subnet.manage(Some(stopped), "stop_canister", record_arg(stopped)).unwrap();
    let empty = subnet.create();
    let payment = u64::try_from(30 * T).unwrap();
    let mut expected = Counts::rejected(0, 0);
    let nobody = CanisterId::from_u64(0xf_ffff);
    for (callee, code) in [(nobody, DESTINATION_INVALID), (stopped, CANISTER_ERROR), (empty, CANISTER_ERROR)] {
        for seconds in [0, 100] {
            subnet.call(caller, "flood", &flood(2, seconds, payment, callee, &[])).unwrap();
            round(&mut subnet);
            expected.rejected[code] += 2;
            assert_eq!(counts(&subnet, caller), expected, "{callee}");
            assert!(subnet.balance(caller) > Cycles(99 * T), "{}", subnet.balance(caller));
        }
    }
}

#[test]
fn a_caller_finds_its_places_taken_and_what_waits_after_its_time_out_keeps_them() {
    let mut subnet = TestSubnet::new(small_slices());
    let (caller, callee) = (subnet.install_new(FLOOD), subnet.install_new(SCRIPT));
    let other = subnet.install_new(FLOOD);
    let busy = subnet.send(callee, Some(callee), "go", spin(1_000_000));
    round(&mut subnet);
    subnet.call(caller, "flood", &flood(QUEUE_SLOTS_MAX + 2, 1, 10, callee, &[])).unwrap();
    assert_eq!(counts(&subnet, caller).not_made, 2, "one call for each place");
    round(&mut subnet);
    round(&mut subnet);
    let mut expected = Counts { not_made: 2, ..Counts::rejected(SYS_UNKNOWN, QUEUE_SLOTS_MAX) };
    assert_eq!(counts(&subnet, caller), expected);
    // The calls are answered, but they still wait at the callee.
    subnet.call(caller, "flood", &flood(3, 1, 10, callee, &[])).unwrap();
    round(&mut subnet);
    expected.rejected[SYS_TRANSIENT] = 3;
    assert_eq!(counts(&subnet, caller), expected);
    // Others are not affected.
    subnet.call(other, "flood", &flood(1, 0, 10, callee, &[])).unwrap();
    assert!(!is_answered(&subnet, &busy), "the callee is busy all the while");
    while !is_answered(&subnet, &busy) {
        round(&mut subnet);
    }
    while counts(&subnet, other).replied == 0 {
        round(&mut subnet);
    }
    assert_eq!(counts(&subnet, caller), expected, "late responses run no callback");
    subnet.call(caller, "flood", &flood(1, 0, 10, callee, &[])).unwrap();
    round(&mut subnet);
    expected.replied = 1;
    assert_eq!(counts(&subnet, caller), expected, "the places are free again");
}

#[test]
fn ingress_beyond_a_full_queue_is_refused_and_what_waits_runs() {
    let mut subnet = TestSubnet::new(small_slices());
    let canister = subnet.install_new(SCRIPT);
    let busy = subnet.send(canister, Some(canister), "go", spin(300_000));
    round(&mut subnet);
    let sent: Vec<_> = (0..=INGRESS_QUEUE_MAX).map(|_| subnet.send(canister, Some(canister), "go", vec![])).collect();
    let (last, waiting) = sent.split_last().unwrap();
    while subnet.subnet.statistics().waiting > 0 {
        round(&mut subnet);
    }
    assert!(!is_answered(&subnet, &busy), "the canister is busy all the while");
    let refused = common::reply(subnet.subnet.ingress_status(last).unwrap().status.clone()).unwrap_err();
    assert!(refused.contains("IC0201"), "{refused}");
    while !waiting.iter().all(|id| is_answered(&subnet, id)) {
        round(&mut subnet);
    }
    for id in waiting {
        common::reply(subnet.subnet.ingress_status(id).unwrap().status.clone()).unwrap();
    }
}

#[test]
fn with_few_seats_all_canisters_run_as_with_many_and_the_idle_lose_theirs() {
    const CANISTERS: usize = 30;
    let run = |seats: usize| {
        let mut subnet = TestSubnet::new(Setup { seats, ..Setup::default() });
        let canisters: Vec<_> = (0..CANISTERS).map(|_| subnet.install_new(SCRIPT)).collect();
        let mut left = Vec::new();
        for turn in 0..3u64 {
            for at in 0..CANISTERS {
                let callee = canisters[(at * 7 + 1) % CANISTERS];
                let add = [&[0][..], &turn.to_le_bytes()].concat();
                let script = [&add[..], &[1], callee.as_slice(), &add].concat();
                subnet.send(canisters[at], Some(canisters[at]), "go", script);
            }
            round(&mut subnet);
            left.push(subnet.subnet.state_hash());
        }
        let get = |id: &CanisterId| subnet.query(*id, "get", &[]).unwrap();
        let counters: Vec<_> = canisters.iter().map(get).collect();
        // One goes on; the others have nothing to do.
        for _ in 0..3 {
            subnet.call(canisters[0], "go", &[]).unwrap();
        }
        (left, counters, subnet.machine.seats_are_scarce())
    };
    let (few, many) = (run(12), run(256));
    assert_eq!(few, many);
    assert!(!few.2, "who is idle gives its seat back before somebody needs it");
    // Every turn: its own addition, the caller's, and one for the answer.
    assert!(few.1.iter().all(|counter| *counter == 9u64.to_le_bytes()), "{:?}", few.1);
}

#[test]
fn more_messages_may_be_suspended_than_there_are_seats() {
    let run = |seats: usize| {
        let mut subnet = TestSubnet::new(Setup { seats, ..small_slices() });
        let canisters: Vec<_> = (0..12).map(|_| subnet.install_new(SCRIPT)).collect();
        let sent: Vec<_> = canisters.iter().map(|id| subnet.send(*id, Some(*id), "go", spin(100_000))).collect();
        let mut left = Vec::new();
        loop {
            round(&mut subnet);
            left.push(subnet.subnet.state_hash());
            if sent.iter().all(|id| is_answered(&subnet, id)) {
                break;
            }
        }
        for id in sent {
            common::reply(subnet.subnet.ingress_status(&id).unwrap().status.clone()).unwrap();
        }
        left
    };
    assert_eq!(run(4), run(256));
}

fn walk(subnet: &TestSubnet, canister: CanisterId, spin: u64, depth: usize) -> Result<u64, String> {
    let arg = [&spin.to_le_bytes()[..], &(depth as u64).to_le_bytes(), canister.as_slice()].concat();
    subnet.query(canister, "walk", &arg).map(|reply| u64::from_le_bytes(reply.try_into().unwrap()))
}

#[test]
fn a_composite_query_calls_as_deep_as_the_limit_and_no_deeper() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(WALK);
    for depth in 0..COMPOSITE_QUERY_DEPTH_MAX {
        assert_eq!(walk(&subnet, canister, 0, depth), Ok(depth as u64));
    }
    for depth in [COMPOSITE_QUERY_DEPTH_MAX, COMPOSITE_QUERY_DEPTH_MAX + 3] {
        let refused = walk(&subnet, canister, 0, depth).unwrap_err();
        assert!(refused.contains("Composite query calls are at most 6 deep"), "{refused}");
    }
}

#[test]
fn a_tree_of_queries_shares_one_budget() {
    let mut setup = Setup::default();
    setup.limits.query = Instructions(300_000_000);
    setup.limits.composite_query = Instructions(600_000_000);
    let mut subnet = TestSubnet::new(setup);
    let canister = subnet.install_new(WALK);
    // Each of them spins for over 200 M instructions, and a call costs 50 M: two fit, a third does not find enough.
    assert_eq!(walk(&subnet, canister, 20_000_000, 0), Ok(0));
    assert_eq!(walk(&subnet, canister, 20_000_000, 1), Ok(1));
    assert!(walk(&subnet, canister, 20_000_000, 2).unwrap_err().contains("instruction"));
    // Spent to the last, the tree ends wherever it is.
    let spent = walk(&subnet, canister, 20_000_000, 5).unwrap_err();
    assert!(spent.contains("instruction"), "{spent}");
    // Nothing is spent for the next query.
    assert_eq!(walk(&subnet, canister, 20_000_000, 1), Ok(1));
    assert_eq!(walk(&subnet, canister, 0, 5), Ok(5));
}
