//! The management canister over a map of owned canisters.

mod access;
mod cycles;
mod decoding;
mod forks;
mod install;
mod runs;
mod settings;

use super::wire::{self, ic};
use super::*;
use crate::{CanisterBundle, ExecutionLimits, Machine, RoundEnv, SubnetConfig};
use candid::CandidType;
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CallbackId, MessageId};
use cyclotron_types::message::{CallKind, Ingress, IngressStatus, Request, Response};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::{Bytes, Cycles, Height, Time};
use cyclotron_types::{Principal, PrincipalSet};
use cyclotron_wasm::engine::{Engine, EngineConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Owned canisters in place of a world.
#[derive(Default)]
pub struct Fleet {
    pub canisters: BTreeMap<CanisterId, CanisterBundle>,
    pub with_messages: BTreeSet<CanisterId>,
    pub other_use: SubnetUse,
}

impl Canisters for Fleet {
    fn get(&mut self, id: CanisterId) -> Option<CanisterMut<'_>> {
        self.canisters.get_mut(&id).map(|bundle| bundle.borrow(id))
    }
    fn insert(&mut self, id: CanisterId, canister: CanisterBundle) {
        assert!(self.canisters.insert(id, canister).is_none(), "ids are given once");
    }
    fn remove(&mut self, id: CanisterId) {
        self.canisters.remove(&id).expect("only what is there is removed");
    }
    fn has_messages(&self, id: CanisterId) -> bool {
        self.with_messages.contains(&id)
    }
    fn subnet_use(&self) -> SubnetUse {
        let mut total = self.other_use;
        for bundle in self.canisters.values() {
            total.compute += bundle.settings.compute_allocation;
            let memory = bundle.program.memory_used().max(bundle.settings.memory_allocation);
            total.memory = total.memory.saturating_add(memory);
        }
        total
    }
}

pub struct Subnet {
    pub fleet: Fleet,
    pub env: RoundEnv,
    pub ids: CanisterIds,
    pub random: RandomStream,
    pub node: NodeFacts,
    next_message: u8,
}

pub const START: Time = Time(1_700_000_000_000_000_000);

/// A user.
pub fn user(number: u8) -> Principal {
    Principal::self_authenticating([number; 32])
}

/// What a call came to, for tests.
#[derive(Debug)]
pub struct Answered {
    pub result: Result<Vec<u8>, Reject>,
    pub refund: Cycles,
    pub others: Vec<Answer>,
    pub effects: ManagementEffects,
}

impl Answered {
    pub fn error(&self) -> ErrorCode {
        self.result.as_ref().expect_err("a reject").error.expect("an error code")
    }
    pub fn reply(&self) -> &[u8] {
        self.result.as_ref().expect("a reply")
    }
    pub fn id(&self) -> CanisterId {
        let record: ic::CanisterIdRecord = candid::decode_one(self.reply()).unwrap();
        CanisterId::from_principal(record.canister_id)
    }
}

impl Subnet {
    pub fn new() -> Self {
        Self::with_fees(Fees::for_nodes(13))
    }
    pub fn with_fees(fees: Fees) -> Self {
        let config = SubnetConfig {
            subnet: Principal::self_authenticating([0xEE; 32]),
            root_key: vec![1, 2, 3],
            fees,
            limits: ExecutionLimits::default(),
        };
        let env = RoundEnv {
            subnet: Arc::new(config),
            machine: test_machine(),
            time: START,
            height: Height(1),
            randomness: [7; 32],
            memory_used: Bytes::ZERO,
            memory_available: Bytes(1 << 40),
        };
        Self {
            fleet: Fleet::default(),
            env,
            ids: CanisterIds::new(vec![IdRange { first: 0, last: 99 }]),
            random: RandomStream::for_raw_rand(&[7; 32]),
            node: NodeFacts { provisional: true, replica_version: "v1".into(), registry_version: 3 },
            next_message: 0,
        }
    }

    pub fn step(&mut self, call: ManagementCall) -> ManagementStep {
        let mut context = ManagementContext {
            env: &self.env,
            canisters: &mut self.fleet,
            ids: &mut self.ids,
            random: &mut self.random,
            node: &self.node,
        };
        execute_management(&mut context, call)
    }

    pub fn ingress(&mut self, sender: Principal, method: &str, arg: Vec<u8>) -> ManagementCall {
        self.next_message += 1;
        ManagementCall::from(Ingress {
            id: MessageId([self.next_message; 32]),
            sender,
            receiver: CanisterId::MANAGEMENT,
            effective_canister: None,
            method: method.into(),
            arg,
            expiry: Time::MAX,
            nonce_bytes: 0,
        })
    }

    pub fn request(caller: CanisterId, method: &str, arg: Vec<u8>, payment: u128) -> ManagementCall {
        ManagementCall::from(Request {
            sender: caller,
            receiver: CanisterId::MANAGEMENT,
            callback: CallbackId(9),
            method: method.into(),
            arg,
            payment: Cycles(payment),
            kind: CallKind::Guaranteed,
        })
    }

    /// Runs a call that must be answered.
    pub fn run(&mut self, call: ManagementCall) -> Answered {
        let origin = call.origin.clone();
        match self.step(call) {
            ManagementStep::Done(effects) => answered(&origin, effects),
            other => panic!("not answered: {other:?}"),
        }
    }

    /// A user's call.
    pub fn user_call<T: CandidType>(&mut self, sender: Principal, method: &str, arg: &T) -> Answered {
        let call = self.ingress(sender, method, candid::encode_one(arg).unwrap());
        self.run(call)
    }

    /// A canister's call.
    pub fn canister_call<T: CandidType>(
        &mut self,
        caller: CanisterId,
        method: &str,
        arg: &T,
        payment: u128,
    ) -> Answered {
        self.run(Self::request(caller, method, candid::encode_one(arg).unwrap(), payment))
    }

    /// A new canister that user 1 controls, with 100 T cycles.
    pub fn create(&mut self) -> CanisterId {
        self.user_call(user(1), "provisional_create_canister_with_cycles", &provisional(None)).id()
    }

    pub fn canister(&mut self, id: CanisterId) -> &mut CanisterBundle {
        self.fleet.canisters.get_mut(&id).expect("it is there")
    }

    /// All cycles of all canisters.
    pub fn cycles(&self) -> Cycles {
        self.fleet.canisters.values().map(|c| c.balance.0.saturating_add(c.reserved.0)).sum()
    }
}

/// Splits the call's own answer from the others.
pub fn answered(origin: &ManagementOrigin, mut effects: ManagementEffects) -> Answered {
    let first = effects.answers.remove(0);
    let others = std::mem::take(&mut effects.answers);
    let (result, refund) = match (origin, first) {
        (ManagementOrigin::Ingress { id, .. }, Answer::Ingress(answered, status)) => {
            assert_eq!(*id, answered);
            match status {
                IngressStatus::Replied(bytes) => (Ok(bytes), Cycles::ZERO),
                IngressStatus::Rejected(reject) => (Err(reject), Cycles::ZERO),
                other => panic!("no answer: {other:?}"),
            }
        }
        (ManagementOrigin::Canister { caller, callback, kind }, Answer::Canister(response)) => {
            let Response { originator, respondent, callback: to, refund, payload, kind: as_kind } = response;
            assert_eq!((originator, respondent, to, as_kind), (*caller, CanisterId::MANAGEMENT, *callback, *kind));
            match payload {
                ResponsePayload::Reply(bytes) => (Ok(bytes), refund),
                ResponsePayload::Reject(reject) => (Err(reject), refund),
            }
        }
        (origin, answer) => panic!("{answer:?} does not answer {origin:?}"),
    };
    Answered { result, refund, others, effects }
}

/// One machine for all tests: modules are compiled once.
fn test_machine() -> Arc<Machine> {
    static MACHINE: OnceLock<Arc<Machine>> = OnceLock::new();
    let make = || Arc::new(Machine::new(Engine::new(EngineConfig::canister()).unwrap(), 64).unwrap());
    Arc::clone(MACHINE.get_or_init(make))
}

pub fn provisional(settings: Option<ic::CanisterSettings>) -> ic::ProvisionalCreateCanisterWithCyclesArgs {
    ic::ProvisionalCreateCanisterWithCyclesArgs { settings, ..Default::default() }
}

pub fn named(id: CanisterId) -> ic::CanisterIdRecord {
    ic::CanisterIdRecord { canister_id: id.principal() }
}

pub fn update(id: CanisterId, settings: ic::CanisterSettings) -> ic::UpdateSettingsArgs {
    ic::UpdateSettingsArgs { canister_id: id.principal(), settings, sender_canister_version: None }
}
