//! Canisters without a world: a handful of bundles and a queue of messages, run to quiescence, cycles summed after every slice.

mod api;
mod calls;
mod install;
mod limits;
mod query;
mod slices;

use crate::install::{Install, InstallOutcome, InstallStep, Mode, resume_install, start_install};
use crate::message::abort;
use crate::{
    CanisterBundle, CanisterMut, ExecutionLimits, InstructionLimits, Job, Machine, OpenCalls, Outcome, Outgoing,
    Paused, PublishedCanister, RoundEnv, Step, SubnetConfig, resume, start,
};
use cyclotron_types::Principal;
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::{Ingress, IngressStatus, Message, SystemTask};
use cyclotron_types::reject::Reject;
use cyclotron_types::units::{Bytes, Cycles, Height, Instructions, Time};
use cyclotron_wasm::{Engine, EngineConfig};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// Cycles that a canister of these tests starts with.
pub const T: u128 = 1_000_000_000_000;

pub fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineConfig::canister()).unwrap()).clone()
}

/// A few canisters that call each other.
pub struct Subnet {
    pub env: RoundEnv,
    pub canisters: BTreeMap<CanisterId, CanisterBundle>,
    queue: VecDeque<Message>,
    pub answers: BTreeMap<MessageId, IngressStatus>,
    pub outcomes: Vec<Outcome>,
    pub burned: Cycles,
    pub created: Cycles,
    next_message: u8,
    /// Abort every suspended message once before it goes on.
    pub abort_always: bool,
    pub suspensions: u64,
}

pub fn id(number: u64) -> CanisterId {
    CanisterId::from_u64(number)
}

pub fn user() -> Principal {
    Principal::self_authenticating(b"user")
}

impl Subnet {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with_slice(slice: u64) -> Self {
        Self::with(|limits| {
            limits.message.slice = Instructions(slice);
            limits.install.slice = Instructions(slice);
        })
    }

    pub fn with(change: impl FnOnce(&mut ExecutionLimits)) -> Self {
        let mut limits = ExecutionLimits {
            message: InstructionLimits::unsliced(Instructions(1_000_000_000)),
            install: InstructionLimits::unsliced(Instructions(1_000_000_000)),
            ..ExecutionLimits::default()
        };
        change(&mut limits);
        let subnet = SubnetConfig {
            subnet: Principal::from_slice(&[7; 29]),
            root_key: vec![0xd; 133],
            fees: Fees::for_nodes(13),
            limits,
        };
        Self {
            env: RoundEnv {
                subnet: Arc::new(subnet),
                machine: Arc::new(Machine::new(engine(), 16).unwrap()),
                time: Time(1_000_000_000_000),
                height: Height(1),
                randomness: [0; 32],
                memory_used: Bytes(0),
                memory_available: Bytes(100 << 30),
            },
            canisters: BTreeMap::new(),
            queue: VecDeque::new(),
            answers: BTreeMap::new(),
            outcomes: Vec::new(),
            burned: Cycles::ZERO,
            created: Cycles::ZERO,
            next_message: 0,
            abort_always: false,
            suspensions: 0,
        }
    }

    pub fn config(&mut self) -> &mut SubnetConfig {
        Arc::make_mut(&mut self.env.subnet)
    }

    /// A canister with 100 T cycles, controlled by the user, without code.
    pub fn create(&mut self) -> CanisterId {
        let id = id(self.canisters.len() as u64 + 1);
        let mut bundle = CanisterBundle::default();
        bundle.balance.0 = Cycles(100 * T);
        bundle.paid_until.0 = self.env.time;
        bundle.controllers.0.insert(user());
        self.created = self.created.saturating_add(bundle.balance.0);
        self.canisters.insert(id, bundle);
        id
    }

    /// A canister with this module.
    pub fn install(&mut self, wat: &str) -> CanisterId {
        let id = self.create();
        self.put(id, wat, Mode::Fresh, b"").result.unwrap();
        id
    }

    pub fn put(&mut self, id: CanisterId, wat: &str, mode: Mode, arg: &[u8]) -> InstallOutcome {
        self.put_after(id, wat, mode, arg, Instructions::ZERO)
    }

    /// Likewise, where compilation has used so many instructions.
    pub fn put_after(
        &mut self,
        id: CanisterId,
        wat: &str,
        mode: Mode,
        arg: &[u8],
        used: Instructions,
    ) -> InstallOutcome {
        let bytes = wat::parse_str(wat).unwrap();
        let install = Install {
            mode,
            module: engine().compile(&bytes).unwrap(),
            module_hash: [1; 32],
            module_bytes: Bytes(bytes.len() as u64),
            caller: user(),
            arg: arg.to_vec(),
            limit: self.env.subnet.limits.install.message,
            used,
            held: Cycles::ZERO,
        };
        let mut bundle = self.canisters.remove(&id).unwrap();
        let mut canister = bundle.borrow(id);
        let mut step = start_install(&self.env, &mut canister, install);
        let outcome = loop {
            match step {
                InstallStep::Done(outcome) => break outcome,
                InstallStep::Suspended { .. } => self.suspensions += 1,
            }
            step = resume_install(&self.env, &mut canister);
        };
        self.burned = self.burned.saturating_add(outcome.burned);
        self.canisters.insert(id, bundle);
        self.check_cycles();
        outcome
    }

    pub fn canister(&self, id: CanisterId) -> &CanisterBundle {
        &self.canisters[&id]
    }

    pub fn canister_mut(&mut self, id: CanisterId) -> &mut CanisterBundle {
        self.canisters.get_mut(&id).unwrap()
    }

    /// Nothing is created and nothing lost: balances, contexts, callbacks, queues and unfinished messages hold what was there, less
    /// what was burned.
    pub fn check_cycles(&self) {
        let mut sum = self.burned;
        let mut add = |cycles: Cycles| sum = sum.checked_add(cycles).unwrap();
        for bundle in self.canisters.values() {
            add(bundle.balance.0);
            add(bundle.reserved.0);
            add(bundle.paused.cycles());
            bundle.contexts.contexts.values().for_each(|context| add(context.available));
            for callback in bundle.contexts.callbacks.values() {
                add(callback.prepaid_execution);
                add(callback.prepaid_transmission);
            }
            let mut open = OpenCalls::default();
            bundle.contexts.callbacks.values().for_each(|callback| open.open(callback.callee));
            assert_eq!(bundle.open_calls, open, "calls are counted");
        }
        for message in &self.queue {
            match message {
                Message::Request(request) => add(request.payment),
                Message::Response(response) => add(response.refund),
                Message::Ingress(_) | Message::Vacant => {}
            }
        }
        assert_eq!(sum, self.created, "cycles are conserved");
    }

    pub fn ingress(&mut self, to: CanisterId, method: &str, arg: &[u8]) -> MessageId {
        self.next_message += 1;
        let id = MessageId([self.next_message; 32]);
        self.queue.push_back(Message::Ingress(Ingress {
            id,
            sender: user(),
            receiver: to,
            effective_canister: Some(to),
            method: method.into(),
            arg: arg.to_vec(),
            expiry: Time(u64::MAX),
            nonce_bytes: 0,
        }));
        id
    }

    /// Sends an update call and runs everything that follows from it.
    pub fn update(&mut self, to: CanisterId, method: &str, arg: &[u8]) -> Result<Vec<u8>, Reject> {
        let id = self.ingress(to, method, arg);
        self.run();
        match self.answers[&id].clone() {
            IngressStatus::Replied(data) => Ok(data),
            IngressStatus::Rejected(reject) => Err(reject),
            other => panic!("not answered: {other:?}"),
        }
    }

    pub fn task(&mut self, on: CanisterId, task: SystemTask) -> Outcome {
        self.job(on, Job::Task(task));
        self.run();
        self.outcomes.last().unwrap().clone()
    }

    /// Delivers messages until none is left.
    pub fn run(&mut self) {
        while self.run_one() {}
    }

    pub fn run_one(&mut self) -> bool {
        let Some(message) = self.queue.pop_front() else { return false };
        let to = match &message {
            Message::Ingress(ingress) => ingress.receiver,
            Message::Request(request) => request.receiver,
            Message::Response(response) => response.originator,
            Message::Vacant => unreachable!(),
        };
        self.job(to, Job::Message(message));
        true
    }

    /// Runs one slice; `None` starts `job`, otherwise the suspended message goes on.
    pub fn slice(&mut self, on: CanisterId, job: Option<Job>) -> Step {
        let mut bundle = self.canisters.remove(&on).unwrap();
        let mut canister = bundle.borrow(on);
        let step = match job {
            Some(job) => start(&self.env, &mut canister, job),
            None => resume(&self.env, &mut canister),
        };
        self.canisters.insert(on, bundle);
        step
    }

    pub fn abort(&mut self, on: CanisterId) {
        let mut bundle = self.canisters.remove(&on).unwrap();
        abort(&mut bundle.borrow(on));
        self.canisters.insert(on, bundle);
        self.check_cycles();
    }

    pub fn job(&mut self, on: CanisterId, job: Job) {
        let mut job = Some(job);
        let mut aborted = false;
        loop {
            match self.slice(on, job.take()) {
                Step::Done(outcome) => return self.route(outcome),
                Step::Suspended { .. } => {
                    self.suspensions += 1;
                    self.check_cycles();
                    if self.abort_always && !aborted {
                        aborted = true;
                        self.abort(on);
                    }
                }
            }
        }
    }

    pub fn route(&mut self, mut outcome: Outcome) {
        self.burned = self.burned.saturating_add(outcome.effects.burned);
        for message in std::mem::take(&mut outcome.effects.outgoing) {
            self.queue.push_back(match message {
                Outgoing::Request(request) => Message::Request(request),
                Outgoing::Response(response) => Message::Response(response),
            });
        }
        if let Some((id, status)) = outcome.effects.ingress.take() {
            self.answers.insert(id, status);
        }
        self.outcomes.push(outcome);
        self.check_cycles();
    }

    pub fn borrow(&mut self, id: CanisterId, look: impl FnOnce(&RoundEnv, &mut CanisterMut<'_>)) {
        let mut bundle = self.canisters.remove(&id).unwrap();
        look(&self.env, &mut bundle.borrow(id));
        self.canisters.insert(id, bundle);
    }

    pub fn view<R>(&mut self, id: CanisterId, look: impl FnOnce(&Arc<RoundEnv>, &Arc<PublishedCanister>) -> R) -> R {
        let mut bundle = self.canisters.remove(&id).unwrap();
        let result = look(&Arc::new(self.env.clone()), &publish(&mut bundle.borrow(id)));
        self.canisters.insert(id, bundle);
        result
    }

    pub fn log(&self, id: CanisterId) -> Vec<String> {
        let records = &self.canister(id).log.records;
        records.iter().map(|record| String::from_utf8_lossy(&record.content).into_owned()).collect()
    }

    pub fn paused(&self, id: CanisterId) -> &Paused {
        &self.canister(id).paused
    }
}

/// The canister as a round that ended now would leave it.
pub fn publish(canister: &mut CanisterMut<'_>) -> Arc<PublishedCanister> {
    Arc::new(PublishedCanister::publish(canister, Height(1), true, None))
}

/// Imports of which the tests' modules use some, and a memory.
pub fn module(body: &str) -> String {
    let mut text = String::from("(module\n");
    for row in cyclotron_types::imports::IMPORTS {
        let called = [' ', ')', '\n'].into_iter().any(|end| body.contains(&format!("${}{end}", row.name)));
        if !called {
            continue;
        }
        let ty = |t: &cyclotron_types::imports::ImportType| {
            if t.is_64(cyclotron_types::imports::MemoryKind::Wasm32) { "i64" } else { "i32" }
        };
        let params: Vec<_> = row.params.iter().map(ty).collect();
        let result = row.result.as_ref().map_or(String::new(), |t| format!("(result {})", ty(t)));
        text.push_str(&format!(
            "(import \"ic0\" \"{0}\" (func ${0} (param {1}) {result}))\n",
            row.name,
            params.join(" ")
        ));
    }
    text.push_str(body);
    if !body.contains("(memory (") {
        text.push_str("(memory (export \"memory\") 1)\n");
    }
    text.push(')');
    text
}
