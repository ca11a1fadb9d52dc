//! The same batches give the same state, whatever may legally vary between two nodes: the number of threads, the order in which cores
//! finish, the order of entities and archetypes, seats, and the seeds of hash maps (the standard library draws one for each map).
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Mode, SCRIPT, Setup, TestSubnet, compute_arg, install_arg, record_arg};
use cyclotron_subnet::SchedulingOptions;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::units::{Cycles, Instructions};
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

/// Iterations of a spin at most: some slices of the smallest size.
const SPIN_MAX: u64 = 3_000;

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        8 => any::<u64>().prop_map(Do::Add),
        6 => (0usize..8).prop_map(Do::Call),
        1 => Just(Do::Trap),
        3 => any::<u64>().prop_map(Do::Stable),
        3 => (0..SPIN_MAX).prop_map(Do::Spin),
        1 => (0u64..5_000_000_000).prop_map(Do::Timer),
        2 => Just(Do::Certify),
        1 => Just(Do::Grow),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    prop::collection::vec(step(), 0..8)
}

/// What a user sends.
#[derive(Clone, Debug)]
enum Event {
    Message(Vec<Do>),
    /// The hooks spin so many times.
    Upgrade(u64),
    Reinstall(u64),
    /// Code that is no Wasm.
    InstallNothing,
    Stop,
    Start,
    Delete,
    ComputeAllocation(u64),
    Create,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        24 => steps().prop_map(Event::Message),
        1 => (0..SPIN_MAX).prop_map(Event::Upgrade),
        1 => (0..SPIN_MAX).prop_map(Event::Reinstall),
        1 => Just(Event::InstallNothing),
        1 => Just(Event::Stop),
        2 => Just(Event::Start),
        1 => Just(Event::Delete),
        2 => (0u64..30).prop_map(Event::ComputeAllocation),
        1 => Just(Event::Create),
    ]
}

/// What is sent before each round: receiver and event; and whether the round ends with a checkpoint.
type Workload = Vec<(Vec<(usize, Event)>, bool)>;

fn workload() -> impl Strategy<Value = Workload> {
    let round = (prop::collection::vec((0..CANISTERS, event()), 0..20), prop::bool::weighted(0.2));
    prop::collection::vec(round, 1..10)
}

/// Canisters of a workload; the last has a heartbeat.
const CANISTERS: usize = 6;

/// Budgets so small that messages are sliced, aborted and left waiting. One suspended message may stay at least: with none, what does not
/// fit into a slice starts over for ever.
fn tight() -> impl Strategy<Value = Setup> {
    (5_000u64..50_000, 1u64..4, 1usize..4, 0u64..20_000).prop_map(|(slice, slices, paused_max, overhead)| {
        let mut setup = Setup::default();
        setup.limits.message.slice = Instructions(slice);
        setup.limits.install.slice = Instructions(slice);
        setup.scheduling = SchedulingOptions {
            round_instructions: Instructions(slice * slices),
            message_overhead: Instructions(overhead),
            paused_max,
            ..SchedulingOptions::default()
        };
        setup
    })
}

/// What one round left.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    root: [u8; 32],
    state: [u8; 32],
    balances: Vec<Option<Cycles>>,
}

struct Run {
    subnet: TestSubnet,
    canisters: Vec<CanisterId>,
    sent: Vec<MessageId>,
}

impl Run {
    /// A subnet with canisters; `before` each of them, the caller may look.
    fn new(setup: Setup, mut before: impl FnMut(&mut TestSubnet)) -> Self {
        let mut subnet = TestSubnet::new(setup);
        let mut install = |text: &str| {
            before(&mut subnet);
            subnet.install_new(text)
        };
        let mut canisters: Vec<_> = (1..CANISTERS).map(|_| install(SCRIPT)).collect();
        canisters.push(install(&common::script_with_heartbeat()));
        Self { subnet, canisters, sent: Vec::new() }
    }

    fn send(&mut self, receiver: usize, event: &Event) {
        let canister = self.canisters[receiver];
        let wasm = || wat::parse_str(SCRIPT).unwrap();
        let (method, arg) = match event {
            Event::Message(steps) => {
                let script = script(steps, &self.canisters);
                self.sent.push(self.subnet.send(canister, Some(canister), "go", script));
                return;
            }
            Event::Upgrade(spin) => {
                ("install_code", install_arg(canister, Mode::Upgrade(None), wasm(), spin.to_le_bytes().into()))
            }
            Event::Reinstall(spin) => {
                ("install_code", install_arg(canister, Mode::Reinstall, wasm(), spin.to_le_bytes().into()))
            }
            Event::InstallNothing => ("install_code", install_arg(canister, Mode::Reinstall, vec![1, 2, 3], vec![])),
            Event::Stop => ("stop_canister", record_arg(canister)),
            Event::Start => ("start_canister", record_arg(canister)),
            Event::Delete => ("delete_canister", record_arg(canister)),
            Event::ComputeAllocation(percent) => ("update_settings", compute_arg(canister, *percent)),
            Event::Create => ("provisional_create_canister_with_cycles", common::create_arg()),
        };
        let effective = (!matches!(event, Event::Create)).then_some(canister);
        self.sent.push(self.subnet.send(CanisterId::MANAGEMENT, effective, method, arg));
    }

    fn round(&mut self, checkpoint: bool) -> Left {
        let view = if checkpoint { self.subnet.round_at_checkpoint() } else { self.subnet.round() };
        self.subnet.subnet.check_cycles().unwrap();
        let balances = self.canisters.iter().map(|id| self.subnet.subnet.balance(*id)).collect();
        Left { root: view.root, state: self.subnet.subnet.state_hash(), balances }
    }

    fn all_answered(&self) -> bool {
        let is_final = |id| self.subnet.subnet.ingress_status(id).is_none_or(|entry| entry.status.is_final());
        self.sent.iter().all(is_final)
    }

    /// Runs the workload and then until all is answered. `before` and `after` a round, the caller may look.
    fn run(
        &mut self,
        workload: &Workload,
        mut before: impl FnMut(&mut Self),
        mut after: impl FnMut(&mut Self),
    ) -> Vec<Left> {
        let mut left = Vec::new();
        for n in 0..ROUNDS_MAX {
            let (events, checkpoint) = workload.get(n).cloned().unwrap_or_default();
            for (receiver, event) in &events {
                self.send(*receiver, event);
            }
            before(self);
            left.push(self.round(checkpoint));
            after(self);
            // A few rounds more, for timers.
            if n > workload.len() + 5 && self.all_answered() {
                return left;
            }
        }
        // A heartbeat may take all that a tiny round has; what is left waits in the same way everywhere.
        left
    }
}

/// Rounds at most: enough for nearly all workloads to end.
const ROUNDS_MAX: usize = 60;

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
