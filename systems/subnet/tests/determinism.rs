//! The same batches give the same state, whatever may legally vary between two nodes: the number of threads, the order in which cores
//! finish, the order of entities and archetypes, seats, and the seeds of hash maps (the standard library draws one for each map).
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::workload::{CANISTERS, Do, Event, Run, steps, tight, workload};
use common::{Setup, TestSubnet};
use cyclotron_subnet::SchedulingOptions;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::units::{Cycles, Instructions};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn state_root_and_balances_of_every_round_depend_on_nothing_but_the_batches(
        workload in workload(), setup in tight(), seed in 1u64..,
    ) {
        let expected = Run::new(setup.clone(), |_| {}).run(&workload, |_| {}, |_| {});
        for (threads, seats, restless) in [(1, 16, true), (2, 256, false), (4, 16, false), (8, 256, true)] {
            let mut seed = seed.wrapping_mul(threads as u64);
            let mut perturb = |subnet: &mut TestSubnet| {
                seed = seed.wrapping_add(1);
                subnet.subnet.perturb(seed);
            };
            let mut run = Run::new(Setup { threads, seats, restless, ..setup.clone() }, &mut perturb);
            let left = run.run(&workload, |run| perturb(&mut run.subnet), |_| {});
            prop_assert_eq!(&left, &expected, "{} threads, {} seats, restless: {}, seed {}", threads, seats, restless, seed);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_hash_follows_everything_that_changes(workload in workload(), setup in tight()) {
        let mut run = Run::new(setup, |_| {});
        run.subnet.subnet.state_hash();
        run.run(&workload, |_| {}, |run| {
            let kept = run.subnet.subnet.state_hash();
            assert_eq!(kept, run.subnet.subnet.whole_state_hash(), "something changed without being noted");
        });
    }
}

/// Several messages to different canisters, or one that calls around: nothing whose order the slice could change.
fn independent(events: Vec<Vec<Do>>) -> Vec<(usize, Vec<Do>)> {
    let calls = |steps: &[Do]| steps.iter().any(|step| matches!(step, Do::Call(_)));
    // A timer is set relative to the block time: in a chain of calls that depends on how many rounds the calls before have taken.
    let plain = |steps: Vec<Do>| steps.into_iter().filter(|step| !matches!(step, Do::Timer(_))).collect();
    let one = events.iter().position(|steps| calls(steps));
    match one {
        Some(at) => vec![(at, plain(events.into_iter().nth(at).unwrap()))],
        None => events.into_iter().enumerate().collect(),
    }
}

/// Rounds after which a group has ended, whatever the slice: five messages of 200,000 instructions one after the other, in slices of 10,000.
const ROUNDS_OF_A_GROUP: usize = 120;

/// Answers, balances, heaps and stable memories after groups of messages. Left out of the comparison, because they rightly tell in which
/// round a message ended: heights and priorities, times of statuses, logs and histories, and with them the state hash as one number.
#[allow(clippy::type_complexity, reason = "two lists that are compared")]
fn outcome(setup: Setup, groups: &[Vec<(usize, Vec<Do>)>]) -> (Vec<String>, Vec<(Cycles, Vec<u8>, Vec<u8>)>) {
    let mut run = Run::new(setup, |_| {});
    // The one with a heartbeat counts rounds.
    run.canisters.truncate(CANISTERS - 1);
    let mut answers = Vec::new();
    for group in groups {
        for (receiver, steps) in group {
            run.send(*receiver, &Event::Message(steps.clone()));
        }
        for _ in 0..ROUNDS_OF_A_GROUP {
            run.subnet.round();
            run.subnet.subnet.check_cycles().unwrap();
        }
        assert!(run.all_answered(), "a group ends before the next begins");
        let status = |id: &MessageId| format!("{:?}", run.subnet.subnet.ingress_status(id).unwrap().status);
        answers.extend(run.sent.drain(..).map(|id| status(&id)));
    }
    let content = |id: &CanisterId| {
        let memory = |which| run.subnet.query(*id, which, &[]).unwrap();
        (run.subnet.balance(*id), memory("heap"), memory("stable"))
    };
    (answers, run.canisters.iter().map(content).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_messages_come_to_does_not_depend_on_the_slice(
        groups in prop::collection::vec(prop::collection::vec(steps(), CANISTERS - 1), 1..4),
        slice in 10_000u64..100_000,
        // One at least: with none, a message that does not fit into a slice starts over for ever.
        paused_max in 1usize..4,
    ) {
        let groups: Vec<_> = groups.into_iter().map(independent).collect();
        // Storage is paid for from the round in which memory grows, log and queues included.
        let mut whole = Setup::default();
        whole.fees.gib_second = Cycles::ZERO;
        let mut sliced = whole.clone();
        sliced.limits.message.slice = Instructions(slice);
        sliced.scheduling = SchedulingOptions { paused_max, ..SchedulingOptions::default() };
        let (whole, sliced) = (outcome(whole, &groups), outcome(sliced, &groups));
        prop_assert_eq!(whole.0, sliced.0);
        for (canister, (whole, sliced)) in whole.1.into_iter().zip(sliced.1).enumerate() {
            prop_assert_eq!(whole.0, sliced.0, "balance of canister {}", canister);
            prop_assert!(whole.1 == sliced.1, "heap of canister {canister}");
            prop_assert!(whole.2 == sliced.2, "stable memory of canister {canister}");
        }
    }
}
