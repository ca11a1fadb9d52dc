//! A subnet in a test: made in one line, driven by ingress messages as a user would.
#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test harness: each test file uses its part, and a failure is a panic"
)]

pub mod workload;

use candid::{CandidType, Decode, Encode, Principal};
use cyclotron_crypto::{BlsSecretKey, NodeKey, RootSigner};
use cyclotron_execution::management::IdRange;
use cyclotron_execution::{ExecutionLimits, Machine, SubnetConfig};
use cyclotron_queries::Query;
use cyclotron_storage::StorageError;
use cyclotron_subnet::{Genesis, SchedulingOptions, Subnet, SubnetOptions};
use cyclotron_types::action::OperatorAction;
use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::{Ingress, IngressStatus};
use cyclotron_types::units::{Cycles, Seconds, Time};
use cyclotron_wasm::{Engine, EngineConfig, TrackingPolicy};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// The script canister, as text.
pub const SCRIPT: &str = include_str!("script.wat");

/// Block time between rounds.
const ROUND: Seconds = Seconds(1);

/// What varies between test subnets.
#[derive(Clone, Debug)]
pub struct Setup {
    pub threads: usize,
    /// Seats for instances.
    pub seats: usize,
    pub fees: Fees,
    pub limits: ExecutionLimits,
    pub scheduling: SchedulingOptions,
    /// Whether instances change the way in which their stores are noticed from message to message.
    pub restless: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            threads: 1,
            seats: 256,
            fees: Fees::for_nodes(13),
            limits: ExecutionLimits::default(),
            scheduling: SchedulingOptions::default(),
            restless: false,
        }
    }
}

/// A subnet and its clock.
pub struct TestSubnet {
    pub subnet: Subnet,
    pub machine: Arc<Machine>,
    pub now: Time,
    /// What the operator wants of the next round.
    pub actions: Vec<OperatorAction>,
    /// Whether the last round was at a checkpoint height.
    pub at_checkpoint: bool,
    pub sent: u64,
}

#[derive(CandidType)]
struct Create {
    amount: Option<candid::Nat>,
}

#[derive(CandidType, Deserialize)]
struct CanisterRecord {
    canister_id: Principal,
}

#[derive(CandidType, Deserialize)]
pub enum Mode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<()>),
}

#[derive(CandidType)]
struct Settings {
    compute_allocation: Option<candid::Nat>,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

#[derive(CandidType)]
struct InstallCode {
    mode: Mode,
    canister_id: Principal,
    wasm_module: Vec<u8>,
    arg: Vec<u8>,
}

/// One engine for all subnets of a test that are equally restless: they share its cache of modules.
fn engine(restless: bool) -> Engine {
    static ENGINES: [OnceLock<Engine>; 2] = [OnceLock::new(), OnceLock::new()];
    let new = || {
        let mut config = EngineConfig::canister();
        if restless {
            config.tracking = TrackingPolicy {
                adapt: true,
                window_instructions: 1,
                window_pages: 1,
                protect_from: 1_500,
                test_below: 1_500,
                compile_after: 0,
            };
        }
        let engine = Engine::new(config).unwrap();
        if restless {
            // Else it would be the background's to say when instances change.
            for text in [SCRIPT, &script_with_heartbeat()] {
                let module = engine.compile(&wat::parse_str(text).unwrap()).unwrap();
                engine.compile_protected(&module).unwrap();
            }
        }
        engine
    };
    ENGINES[usize::from(restless)].get_or_init(new).clone()
}

impl TestSubnet {
    pub fn new(setup: Setup) -> Self {
        Self::of(Self::options(setup))
    }

    pub fn of(options: SubnetOptions) -> Self {
        let machine = Arc::clone(&options.machine);
        Self {
            subnet: Subnet::new(options).unwrap(),
            machine,
            now: Time(1_700_000_000_000_000_000),
            actions: Vec::new(),
            at_checkpoint: false,
            sent: 0,
        }
    }

    /// What a subnet is made with.
    pub fn options(setup: Setup) -> SubnetOptions {
        let signer = Arc::new(BlsSecretKey::from_seed(&[1; 32]));
        let node = NodeKey::from_seed(&[2; 32]);
        let root_key = signer.public_key_der();
        let config = SubnetConfig {
            subnet: cyclotron_crypto::self_authenticating(&root_key),
            root_key,
            fees: setup.fees,
            limits: setup.limits,
        };
        let machine = Arc::new(Machine::new(engine(setup.restless), setup.seats).unwrap());
        let genesis = Genesis {
            config,
            public_key: signer.public_key_der(),
            subnet_type: "application".into(),
            nodes: vec![(node.node_id(), node.public_key_der())],
            ranges: vec![IdRange { first: 0, last: 0xfffff }],
            reserved_ranges: Vec::new(),
            scheduling: setup.scheduling,
            provisional: true,
        };
        SubnetOptions { genesis, signer, machine, threads: setup.threads }
    }

    /// Sends a message of the anonymous user, to be in the next round.
    pub fn send(
        &mut self,
        receiver: CanisterId,
        effective: Option<CanisterId>,
        method: &str,
        arg: Vec<u8>,
    ) -> MessageId {
        self.sent += 1;
        let id = MessageId(Sha256::digest(self.sent.to_be_bytes()).into());
        let ingress = Ingress {
            id,
            sender: Principal::anonymous(),
            receiver,
            effective_canister: effective,
            method: method.into(),
            arg,
            expiry: self.now.plus(Seconds(300)),
            nonce_bytes: 0,
        };
        self.subnet.submit(ingress).unwrap();
        id
    }

    /// Runs one round, a second after the last.
    pub fn round(&mut self) -> CertifiedView {
        self.try_round(false).unwrap()
    }

    /// Runs one round at whose end a checkpoint would be taken.
    pub fn round_at_checkpoint(&mut self) -> CertifiedView {
        self.try_round(true).unwrap()
    }

    /// Runs one round, which a sink may refuse.
    pub fn try_round(&mut self, checkpoint: bool) -> Result<CertifiedView, StorageError> {
        self.now = self.now.plus(ROUND);
        let randomness = Sha256::digest(self.now.0.to_be_bytes()).into();
        let batch = self.subnet.next_batch(self.now, randomness);
        self.at_checkpoint = checkpoint;
        self.subnet.execute(Batch { checkpoint, actions: std::mem::take(&mut self.actions), ..batch })
    }

    /// Asks a canister.
    pub fn query(&self, receiver: CanisterId, method: &str, arg: &[u8]) -> Result<Vec<u8>, String> {
        let query = Query { sender: Principal::anonymous(), receiver, method: method.into(), arg: arg.to_vec() };
        self.subnet.query(&[query]).pop().unwrap().map_err(|reject| reject.to_string())
    }

    /// A canister's cycles.
    pub fn balance(&self, canister: CanisterId) -> Cycles {
        self.subnet.balance(canister).unwrap()
    }

    /// Runs rounds until the message is answered.
    pub fn wait(&mut self, id: MessageId) -> IngressStatus {
        for _ in 0..1_000 {
            self.round();
            match &self.subnet.ingress_status(&id).expect("the message is known").status {
                IngressStatus::Received | IngressStatus::Processing => {}
                answered => return answered.clone(),
            }
        }
        panic!("no answer in a thousand rounds");
    }

    /// Calls an update method and waits for its reply.
    pub fn call(&mut self, canister: CanisterId, method: &str, arg: &[u8]) -> Result<Vec<u8>, String> {
        let id = self.send(canister, Some(canister), method, arg.to_vec());
        reply(self.wait(id))
    }

    /// Calls the management canister.
    pub fn manage(&mut self, effective: Option<CanisterId>, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, String> {
        let id = self.send(CanisterId::MANAGEMENT, effective, method, arg);
        reply(self.wait(id))
    }

    /// A new canister with 100 T cycles.
    pub fn create(&mut self) -> CanisterId {
        let reply = self.manage(None, "provisional_create_canister_with_cycles", create_arg()).unwrap();
        CanisterId::from_principal(Decode!(&reply, CanisterRecord).unwrap().canister_id)
    }

    /// Puts code into a canister.
    pub fn install(&mut self, canister: CanisterId, mode: Mode, wasm: Vec<u8>) -> Result<(), String> {
        self.manage(Some(canister), "install_code", install_arg(canister, mode, wasm, vec![])).map(drop)
    }

    /// A new canister with this code.
    pub fn install_new(&mut self, text: &str) -> CanisterId {
        let canister = self.create();
        self.install(canister, Mode::Install, wat::parse_str(text).unwrap()).unwrap();
        canister
    }
}

/// A step of the script canister.
pub fn op(code: u8, operand: u64) -> Vec<u8> {
    [&[code][..], &operand.to_le_bytes()].concat()
}

/// A reply of eight bytes.
pub fn number(reply: &[u8]) -> u64 {
    u64::from_le_bytes(reply.try_into().unwrap())
}

/// The argument of `install_code`.
pub fn install_arg(canister: CanisterId, mode: Mode, wasm: Vec<u8>, arg: Vec<u8>) -> Vec<u8> {
    Encode!(&InstallCode { mode, canister_id: canister.principal(), wasm_module: wasm, arg }).unwrap()
}

/// The argument of `provisional_create_canister_with_cycles` that asks for as many cycles as the subnet gives by default.
pub fn create_arg() -> Vec<u8> {
    Encode!(&Create { amount: None }).unwrap()
}

/// The script canister with a heartbeat that does what its timer does.
pub fn script_with_heartbeat() -> String {
    let end = SCRIPT.rfind(')').unwrap();
    format!("{}\n  (export \"canister_heartbeat\" (func $timer)))", &SCRIPT[..end])
}

/// The argument of management methods that are told a canister and nothing else.
pub fn record_arg(canister: CanisterId) -> Vec<u8> {
    Encode!(&CanisterRecord { canister_id: canister.principal() }).unwrap()
}

/// The argument of `update_settings` that sets the compute allocation.
pub fn compute_arg(canister: CanisterId, percent: u64) -> Vec<u8> {
    let settings = Settings { compute_allocation: Some(percent.into()) };
    Encode!(&UpdateSettings { canister_id: canister.principal(), settings }).unwrap()
}

pub fn reply(status: IngressStatus) -> Result<Vec<u8>, String> {
    match status {
        IngressStatus::Replied(bytes) => Ok(bytes),
        IngressStatus::Rejected(reject) => Err(reject.to_string()),
        other => panic!("not answered: {other:?}"),
    }
}
