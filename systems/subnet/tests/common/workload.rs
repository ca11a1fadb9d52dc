//! Random workloads: what users send to a few canisters that call each other, trap, grow, are upgraded and deleted.

use super::{Mode, SCRIPT, Setup, TestSubnet, compute_arg, create_arg, install_arg, record_arg, script_with_heartbeat};
use cyclotron_subnet::SchedulingOptions;
use cyclotron_types::action::{ActionDone, OperatorAction};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::units::{Cycles, Instructions};
use proptest::prelude::*;

/// One step of a script, before canisters have ids.
#[derive(Clone, Debug)]
pub enum Do {
    Add(u64),
    Call(usize),
    Trap,
    Stable(u64),
    Spin(u64),
    Timer(u64),
    Certify,
    Grow,
}

pub fn script(steps: &[Do], canisters: &[CanisterId]) -> Vec<u8> {
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
pub const SPIN_MAX: u64 = 3_000;

pub fn step() -> impl Strategy<Value = Do> {
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

pub fn steps() -> impl Strategy<Value = Vec<Do>> {
    prop::collection::vec(step(), 0..8)
}

/// What a user sends.
#[derive(Clone, Debug)]
pub enum Event {
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
    /// By the operator, at the begin of the next round; refused if the canister has calls open.
    Fork,
}

pub fn event() -> impl Strategy<Value = Event> {
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
        1 => Just(Event::Fork),
    ]
}

/// What is sent before each round: receiver and event; and whether the round ends with a checkpoint.
pub type Workload = Vec<(Vec<(usize, Event)>, bool)>;

pub fn workload() -> impl Strategy<Value = Workload> {
    let round = (prop::collection::vec((0..CANISTERS, event()), 0..20), prop::bool::weighted(0.2));
    prop::collection::vec(round, 1..10)
}

/// Canisters of a workload; the last has a heartbeat.
pub const CANISTERS: usize = 6;

/// Budgets so small that messages are sliced, aborted and left waiting. One suspended message may stay at least: with none, what does not
/// fit into a slice starts over for ever.
pub fn tight() -> impl Strategy<Value = Setup> {
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
pub struct Left {
    pub root: [u8; 32],
    pub state: [u8; 32],
    pub balances: Vec<Option<Cycles>>,
}

pub struct Run {
    pub subnet: TestSubnet,
    pub canisters: Vec<CanisterId>,
    pub sent: Vec<MessageId>,
}

impl Run {
    /// A subnet with canisters; `before` each of them, the caller may look.
    pub fn new(setup: Setup, mut before: impl FnMut(&mut TestSubnet)) -> Self {
        let mut subnet = TestSubnet::new(setup);
        let mut install = |text: &str| {
            before(&mut subnet);
            subnet.install_new(text)
        };
        let mut canisters: Vec<_> = (1..CANISTERS).map(|_| install(SCRIPT)).collect();
        canisters.push(install(&script_with_heartbeat()));
        Self { subnet, canisters, sent: Vec::new() }
    }

    pub fn send(&mut self, receiver: usize, event: &Event) {
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
            Event::Create => ("provisional_create_canister_with_cycles", create_arg()),
            Event::Fork => {
                self.subnet.actions.push(OperatorAction::ForkCanister { source: canister, target: None });
                return;
            }
        };
        let effective = (!matches!(event, Event::Create)).then_some(canister);
        self.sent.push(self.subnet.send(CanisterId::MANAGEMENT, effective, method, arg));
    }

    pub fn round(&mut self, checkpoint: bool) -> Left {
        let view = if checkpoint { self.subnet.round_at_checkpoint() } else { self.subnet.round() };
        self.subnet.subnet.check_cycles().unwrap();
        // Others call forks as well.
        self.canisters.extend(view.actions.iter().filter_map(|action| match action {
            Ok(ActionDone::Forked { canister }) => Some(*canister),
            _ => None,
        }));
        let balances = self.canisters.iter().map(|id| self.subnet.subnet.balance(*id)).collect();
        Left { root: view.root, state: self.subnet.subnet.state_hash(), balances }
    }

    pub fn all_answered(&self) -> bool {
        let is_final = |id| self.subnet.subnet.ingress_status(id).is_none_or(|entry| entry.status.is_final());
        self.sent.iter().all(is_final)
    }

    /// Runs the workload and then until all is answered. `before` and `after` a round, the caller may look.
    pub fn run(
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
pub const ROUNDS_MAX: usize = 60;
