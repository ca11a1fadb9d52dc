//! The same batches give the same state, whatever may legally vary between two nodes.
#![allow(clippy::unwrap_used, clippy::type_complexity, reason = "a failure is a panic")]

mod common;

use common::{SCRIPT, Setup, TestSubnet};
use cyclotron_subnet::SchedulingOptions;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::Instructions;
use proptest::prelude::*;

/// One step of a script, before canisters have ids.
#[derive(Clone, Debug)]
enum Do {
    Add(u64),
    Call(usize),
    Trap,
    Stable(u64),
    Spin(u64),
    Timer(u64),
    Certify,
    Grow,
}

fn script(steps: &[Do], canisters: &[CanisterId]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut op = |code: u8, operand: &[u8]| {
        bytes.push(code);
        bytes.extend(operand);
    };
    for step in steps {
        match step {
            Do::Add(n) => op(0, &n.to_le_bytes()),
            Do::Call(n) => op(1, canisters[n % canisters.len()].as_slice()),
            Do::Trap => op(2, &[]),
            Do::Stable(n) => op(3, &n.to_le_bytes()),
            Do::Spin(n) => op(4, &n.to_le_bytes()),
            Do::Timer(n) => op(5, &n.to_le_bytes()),
            Do::Certify => op(6, &[]),
            Do::Grow => op(7, &0u64.to_le_bytes()),
        }
    }
    bytes
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        8 => any::<u64>().prop_map(Do::Add),
        6 => (0usize..8).prop_map(Do::Call),
        1 => Just(Do::Trap),
        3 => any::<u64>().prop_map(Do::Stable),
        3 => (0u64..3_000).prop_map(Do::Spin),
        1 => (0u64..5_000_000_000).prop_map(Do::Timer),
        2 => Just(Do::Certify),
        1 => Just(Do::Grow),
    ]
}

/// Messages of each round: receiver and script.
type Workload = Vec<Vec<(usize, Vec<Do>)>>;

fn workload() -> impl Strategy<Value = Workload> {
    let message = (0usize..5, prop::collection::vec(step(), 0..8));
    prop::collection::vec(prop::collection::vec(message, 0..12), 1..10)
}

/// Roots and state hashes of every round, and what the messages came to.
fn run(setup: Setup, workload: &Workload) -> (Vec<([u8; 32], [u8; 32])>, Vec<String>) {
    let mut subnet = TestSubnet::new(setup);
    let canisters: Vec<_> = (0..5).map(|_| subnet.install_new(SCRIPT)).collect();
    let mut hashes = Vec::new();
    let mut sent = Vec::new();
    for n in 0..workload.len() + 12 {
        for (receiver, steps) in workload.get(n).into_iter().flatten() {
            let canister = canisters[receiver % canisters.len()];
            sent.push(subnet.send(canister, Some(canister), "go", script(steps, &canisters)));
        }
        let view = subnet.round();
        subnet.subnet.check_cycles().unwrap();
        hashes.push((view.root, subnet.subnet.state_hash()));
    }
    let unanswered =
        |subnet: &TestSubnet| sent.iter().any(|id| !subnet.subnet.ingress_status(id).unwrap().status.is_final());
    for _ in 0..10_000 {
        if !unanswered(&subnet) {
            break;
        }
        subnet.round();
        subnet.subnet.check_cycles().unwrap();
    }
    let answers = sent.iter().map(|id| format!("{:?}", subnet.subnet.ingress_status(id).unwrap().status)).collect();
    (hashes, answers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_does_not_depend_on_the_number_of_threads(workload in workload()) {
        let (hashes, answers) = run(Setup::default(), &workload);
        for threads in [2, 4, 8] {
            let setup = Setup { threads, ..Setup::default() };
            prop_assert_eq!(&run(setup, &workload), &(hashes.clone(), answers.clone()));
        }
    }

    #[test]
    fn what_messages_come_to_does_not_depend_on_the_slice(workload in workload(), slice in 1_000u64..100_000) {
        let mut sliced = Setup::default();
        sliced.limits.message.slice = Instructions(slice);
        sliced.scheduling = SchedulingOptions { paused_max: 2, ..SchedulingOptions::default() };
        // One canister, one message a round: no other order of messages is possible.
        let workload: Workload = workload
            .into_iter()
            .map(|round| round.into_iter().take(1).map(|(_, steps)| (0, steps.into_iter().filter(|s| !matches!(s, Do::Timer(_) | Do::Call(_))).collect())).collect())
            .collect();
        prop_assert_eq!(run(Setup::default(), &workload).1, run(sliced, &workload).1);
    }
}
