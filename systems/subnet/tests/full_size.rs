//! Messages as large as they may be. Compiled code is as fast in any profile: two messages of 40 billion instructions take some ten seconds.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{SCRIPT, Setup, TestSubnet};
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::{MESSAGE_INSTRUCTIONS_MAX, SLICE_INSTRUCTIONS_MAX};
use cyclotron_types::units::Instructions;

fn spin(iterations: u64) -> Vec<u8> {
    [&[4][..], &iterations.to_le_bytes()].concat()
}

/// Runs a message that spins: its answer, the rounds that it took and the cycles that it cost.
fn run(subnet: &mut TestSubnet, canister: CanisterId, iterations: u64) -> (Result<Vec<u8>, String>, u64, u128) {
    let before = subnet.balance(canister);
    let id = subnet.send(canister, Some(canister), "go", spin(iterations));
    let mut rounds = 0;
    loop {
        subnet.round();
        subnet.subnet.check_cycles().unwrap();
        rounds += 1;
        let status = &subnet.subnet.ingress_status(&id).unwrap().status;
        if status.is_final() {
            return (common::reply(status.clone()), rounds, before.0 - subnet.balance(canister).0);
        }
    }
}

#[test]
fn an_update_may_use_forty_billion_instructions_and_not_one_iteration_more() {
    let mut subnet = TestSubnet::new(Setup::default());
    let canister = subnet.install_new(SCRIPT);
    let (_, _, once) = run(&mut subnet, canister, 1_000_000);
    let (_, _, twice) = run(&mut subnet, canister, 2_000_000);
    let fees = Fees::for_nodes(13);
    let price = |instructions| fees.execution(Instructions(instructions), false).0;
    let of_iteration = (twice - once) / (price(2_000_000) - price(1_000_000));
    let fits = MESSAGE_INSTRUCTIONS_MAX.0 / u64::try_from(of_iteration).unwrap() - 1_000;
    let (answer, rounds, cost) = run(&mut subnet, canister, fits);
    answer.unwrap();
    assert_eq!(rounds, MESSAGE_INSTRUCTIONS_MAX.0.div_ceil(SLICE_INSTRUCTIONS_MAX.0), "a slice a round");
    assert!(cost > price(MESSAGE_INSTRUCTIONS_MAX.0 - 1_000_000), "{cost}");
    let (answer, ..) = run(&mut subnet, canister, fits + 2_000);
    let refused = answer.unwrap_err();
    assert!(refused.contains("IC0522"), "{refused}");
}
