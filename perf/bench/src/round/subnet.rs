//! A subnet to measure: made, filled with canisters and driven with prepared batches.
//!
//! Enters: canisters to make, messages to run. Leaves: seconds a round. Never here: a signature of a user; messages enter as if admitted.

use crate::machine::Clock;
use crate::runner::{Failure, failed};
use candid::{Decode, Encode, Nat};
use cyclotron_crypto::{BlsSecretKey, NodeKey, RootSigner, self_authenticating};
use cyclotron_execution::management::IdRange;
use cyclotron_execution::{ExecutionLimits, InstructionLimits, Machine, SubnetConfig};
use cyclotron_ports::SystemDisk;
use cyclotron_queries::Query;
use cyclotron_record::Recorder;
use cyclotron_storage::checkpoint::list;
use cyclotron_storage::log::{LOG_FILE_BYTES, LogWriter};
use cyclotron_subnet::{
    Checkpointer, Genesis, LogSink, RoundObserver, RoundSet, SchedulingOptions, Subnet, SubnetOptions,
};
use cyclotron_types::Principal;
use cyclotron_types::action::{ActionDone, OperatorAction};
use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::canister::LogRecord;
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::{Ingress, IngressStatus};
use cyclotron_types::units::{Bytes, Height, Instructions, RegistryVersion, Seconds, Time};
use cyclotron_wasm::code_cache::{CodeCache, CodeCounts};
use cyclotron_wasm::{Engine, EngineConfig};
pub use ic_management_canister_types::CanisterInstallMode as Mode;
use ic_management_canister_types::{
    CanisterIdRecord, CanisterSettings, InstallCodeArgs, ProvisionalCreateCanisterWithCyclesArgs,
};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Block time between rounds.
const STEP: Seconds = Seconds(1);
/// Ingress messages given to one round while canisters are made.
const SETUP_BATCH: usize = 1_000;
/// Seats of the process: as many as a node has by default.
const SEATS: usize = cyclotron_heap::layout::SEATS_MAX_DEFAULT;

/// How a subnet is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Whether the stage that hashes the state tree and signs its root counts.
    pub certified: bool,
    /// Threads that run canisters.
    pub threads: usize,
}

/// Seconds of each stage of a subnet's last round.
#[derive(Clone, Default)]
pub struct Stages(Arc<Mutex<Vec<(RoundSet, f64)>>>);

impl Stages {
    fn of_round(&self) -> MutexGuard<'_, Vec<(RoundSet, f64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds of one of them.
    fn seconds(&self, stage: RoundSet) -> f64 {
        self.of_round().iter().filter(|(of, _)| *of == stage).map(|(_, seconds)| *seconds).sum()
    }

    /// All of them, in microseconds for each of `things`.
    pub fn describe(&self, things: usize) -> String {
        let part = |(stage, seconds): &(RoundSet, f64)| format!("{stage:?} {:.2}", seconds * 1e6 / things as f64);
        self.of_round().iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Takes the time at the ends of stages.
struct Stopwatch {
    stages: Stages,
    clock: Clock,
    last: f64,
}

impl RoundObserver for Stopwatch {
    fn round_begun(&mut self) {
        self.stages.of_round().clear();
        self.last = self.clock.now();
    }

    fn stage_ended(&mut self, stage: RoundSet) {
        let now = self.clock.now();
        self.stages.of_round().push((stage, now - self.last));
        self.last = now;
    }

    fn canister_logged(&mut self, _: CanisterId, _: &LogRecord) {}
}

/// A subnet and its clock.
pub struct Bench {
    subnet: Subnet,
    stages: Stages,
    genesis: Genesis,
    setup: Setup,
    clock: Clock,
    now: Time,
    sent: u64,
}

/// How long it is looked for before a checkpoint lasts, at a time.
const POLL: Duration = Duration::from_micros(200);

/// Seconds that a checkpoint takes.
pub struct Made {
    /// For which rounds wait.
    pub waiting: f64,
    /// Until it exists.
    pub lasts: f64,
    /// Until its manifest is made, and what is no longer needed has gone.
    pub done: f64,
}

impl Made {
    /// What is not the time until it exists.
    pub fn describe(&self) -> String {
        format!(
            "rounds wait {:.1} ms; its manifest follows in {:.0} ms, beside rounds",
            self.waiting * 1e3,
            (self.done - self.lasts) * 1e3
        )
    }
}

impl Bench {
    /// A subnet without canisters and without limits on instructions.
    ///
    /// `clock` is for single-threaded subnets; others run on elapsed time.
    pub fn new(setup: Setup, clock: Clock) -> Result<Self, Failure> {
        let clock = if setup.threads == 1 { clock } else { Clock::Wall };
        let signer = Arc::new(BlsSecretKey::from_seed(&[1; 32]));
        let node = NodeKey::from_seed(&[2; 32]);
        let root_key = signer.public_key_der();
        let unlimited = InstructionLimits::unsliced(Instructions(1 << 40));
        let limits = ExecutionLimits {
            message: unlimited,
            install: unlimited,
            queue_slots: u32::MAX,
            // Forks of large canisters count in full.
            subnet_memory: Bytes(1 << 50),
            ..ExecutionLimits::default()
        };
        let config =
            SubnetConfig { subnet: self_authenticating(&root_key), root_key, fees: Fees::for_nodes(13), limits };
        let engine = Engine::new(EngineConfig::canister()).map_err(failed)?;
        let genesis = Genesis {
            config,
            public_key: signer.public_key_der(),
            subnet_type: "application".into(),
            nodes: vec![(node.node_id(), node.public_key_der())],
            ranges: vec![IdRange { first: 0, last: 0xf_ffff }],
            reserved_ranges: Vec::new(),
            scheduling: SchedulingOptions::unlimited(),
            provisional: true,
        };
        let machine = Arc::new(Machine::new(engine, SEATS).map_err(failed)?);
        let made_of = genesis.clone();
        let options = SubnetOptions { genesis, signer, machine, threads: setup.threads };
        let mut subnet = Subnet::new(options).map_err(failed)?;
        let stages = Stages::default();
        subnet.observe(Box::new(Stopwatch { stages: stages.clone(), clock, last: 0.0 }));
        Ok(Self { subnet, stages, genesis: made_of, setup, clock, now: Time(1_700_000_000_000_000_000), sent: 0 })
    }

    /// Time of its last round.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The subnet's name.
    pub fn subnet_id(&self) -> Principal {
        self.genesis.config.subnet
    }

    /// A message of the anonymous user.
    pub fn ingress(&mut self, receiver: CanisterId, paying: Option<CanisterId>, method: &str, arg: &[u8]) -> Ingress {
        self.sent += 1;
        // Spread as hashes are.
        let mut id = [0; 32];
        for (chunk, salt) in id.chunks_exact_mut(8).zip(1_u64..) {
            let word = (self.sent ^ salt << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&(word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
        }
        Ingress {
            id: MessageId(id),
            sender: Principal::anonymous(),
            receiver,
            effective_canister: paying,
            method: method.into(),
            arg: arg.to_vec(),
            expiry: self.now.plus(Seconds(300)),
            nonce_bytes: 0,
        }
    }

    /// A batch of these messages, the next in turn.
    fn batch(&mut self, ingress: Vec<Ingress>) -> Batch {
        self.now = self.now.plus(STEP);
        let height = Height(self.subnet.height().0 + 1);
        let mut randomness = [0; 32];
        randomness[..8].copy_from_slice(&height.0.to_be_bytes());
        Batch {
            height,
            time: self.now,
            randomness,
            registry_version: RegistryVersion(1),
            ingress,
            actions: Vec::new(),
            checkpoint: false,
        }
    }

    /// Who makes checkpoints in a folder.
    pub fn checkpointer(&self, folder: &Path) -> Result<Checkpointer<SystemDisk>, Failure> {
        Checkpointer::new(Arc::new(SystemDisk), folder).map_err(failed)
    }

    /// Runs a round at a checkpoint height, and makes the checkpoint.
    pub fn checkpoint(&mut self, checkpointer: &mut Checkpointer<SystemDisk>) -> Result<Made, Failure> {
        let batch = Batch { checkpoint: true, ..self.batch(Vec::new()) };
        self.subnet.execute(batch).map_err(failed)?;
        let (begun, outcome) = self.clock.time(|| checkpointer.begin(&mut self.subnet));
        outcome.map_err(failed)?;
        let (written, lasts) = self.clock.time(|| {
            loop {
                match checkpointer.poll(&mut self.subnet) {
                    Some(step) => return step,
                    None => std::thread::sleep(POLL),
                }
            }
        });
        lasts.map_err(failed)?;
        let (followed, done) = self.clock.time(|| checkpointer.finish(&mut self.subnet));
        done.expect("one was begun").map_err(failed)?;
        let lasts = begun + written;
        Ok(Made { waiting: begun, lasts, done: lasts + followed })
    }

    /// Runs idle rounds until all ingress messages are forgotten.
    pub fn forget_statuses(&mut self) {
        while self.subnet.statistics().history > 0 {
            self.round(Vec::new());
        }
    }

    /// The subnet itself.
    pub fn subnet(&mut self) -> &mut Subnet {
        &mut self.subnet
    }

    /// Loads the newest checkpoint into a new subnet; seconds of that alone.
    pub fn restore(&self, folder: &Path) -> Result<f64, Failure> {
        Ok(self.restore_on(folder, None)?.0)
    }

    /// Likewise, with compiled code `kept` from before; also how the code was come by.
    pub fn restore_on(&self, folder: &Path, kept: Option<Arc<dyn CodeCache>>) -> Result<(f64, CodeCounts), Failure> {
        let (seconds, subnet) = self.restored(folder, kept)?;
        Ok((seconds, subnet.code_counts()))
    }

    /// Loads the newest checkpoint into a new subnet, and runs a round with each of some messages there; seconds of these rounds.
    pub fn restore_and_run(&mut self, folder: &Path, messages: Vec<Ingress>) -> Result<Vec<f64>, Failure> {
        let (_, mut subnet) = self.restored(folder, None)?;
        let mut seconds = Vec::new();
        for message in messages {
            let id = message.id;
            let batch = Batch { height: Height(subnet.height().0 + 1), ..self.batch(vec![message]) };
            let (round, view) = self.clock.time(|| subnet.execute(batch));
            view.map_err(failed)?;
            match subnet.ingress_status(&id).map(|entry| &entry.status) {
                Some(IngressStatus::Replied(_)) => seconds.push(round),
                other => return Err(Failure(format!("{other:?}"))),
            }
        }
        Ok(seconds)
    }

    fn restored(&self, folder: &Path, kept: Option<Arc<dyn CodeCache>>) -> Result<(f64, Subnet), Failure> {
        let options = SubnetOptions::unsigned(self.genesis.clone(), self.setup.threads).map_err(failed)?;
        let engine = options.machine.engine.clone();
        let mut subnet = Subnet::new(options).map_err(failed)?;
        if let Some(kept) = kept {
            subnet.keep_code_in(kept);
        }
        let newest = list(&SystemDisk, folder).map_err(failed)?.pop().ok_or_else(|| failed("no checkpoint"))?;
        let mut checkpointer = Checkpointer::new(Arc::new(SystemDisk), folder).map_err(failed)?;
        let (seconds, outcome) = self.clock.time(|| checkpointer.restore(&mut subnet, Height(newest)));
        outcome.map_err(failed)?;
        engine.finish_keeping();
        Ok((seconds, subnet))
    }

    /// Logs batches in a folder from now on, each lasting before its round is shown.
    pub fn log(&mut self, folder: &Path) -> Result<(), Failure> {
        let next = self.subnet.height().0 + 1;
        let writer = LogWriter::create(Arc::new(SystemDisk), folder, next, b"", LOG_FILE_BYTES).map_err(failed)?;
        self.subnet.note(Box::new(LogSink::new(writer).map_err(failed)?));
        Ok(())
    }

    /// Records batches in a file from now on.
    pub fn record(&mut self, file: &Path) -> Result<(), Failure> {
        let recorder = Recorder::create(&SystemDisk, file, self.subnet.height().0 + 1, b"").map_err(failed)?;
        self.subnet.note(Box::new(recorder));
        Ok(())
    }

    /// Runs a round with this action alone; seconds, and what became of it.
    pub fn act(&mut self, action: OperatorAction) -> Result<(f64, ActionDone), Failure> {
        let batch = Batch { actions: vec![action], ..self.batch(Vec::new()) };
        let (seconds, view) = self.clock.time(|| self.subnet.execute(batch));
        let outcome = view.map_err(failed)?.actions.pop().ok_or_else(|| failed("an action without an outcome"))?;
        Ok((seconds, outcome.map_err(failed)?))
    }

    /// Runs a round with these messages; seconds, and what it left.
    pub fn round(&mut self, ingress: Vec<Ingress>) -> (f64, CertifiedView) {
        let batch = self.batch(ingress);
        let (seconds, view) = self.clock.time(|| self.subnet.execute(batch));
        let view = view.expect("a subnet without sinks takes every batch");
        let certify = if self.setup.certified { 0.0 } else { self.stages.seconds(RoundSet::Certify) };
        (seconds - certify, view)
    }

    /// The stages of its last round, whichever that will be.
    pub fn stages(&self) -> Stages {
        self.stages.clone()
    }

    /// Runs a round in which every message must be replied to; seconds.
    pub fn round_of_replies(&mut self, ingress: Vec<Ingress>) -> Result<f64, Failure> {
        let sent = ingress.len();
        let (seconds, view) = self.round(ingress);
        if view.answered.len() != sent {
            return Err(Failure(format!("{} of {sent} messages answered", view.answered.len())));
        }
        for id in view.answered {
            let entry = self.subnet.ingress_status(&id).ok_or_else(|| Failure("an answer is forgotten".into()))?;
            reply(entry.status.clone())?;
        }
        Ok(seconds)
    }

    /// Runs all of it and returns the replies in the order of the messages.
    fn replies(&mut self, ingress: Vec<Ingress>) -> Result<Vec<Vec<u8>>, Failure> {
        let mut replies = Vec::with_capacity(ingress.len());
        let mut waiting = ingress.into_iter().peekable();
        while waiting.peek().is_some() {
            let part: Vec<_> = waiting.by_ref().take(SETUP_BATCH).collect();
            let ids: Vec<_> = part.iter().map(|ingress| ingress.id).collect();
            self.round(part);
            for id in ids {
                let entry = self.subnet.ingress_status(&id).ok_or_else(|| Failure("a message is gone".into()))?;
                replies.push(reply(entry.status.clone())?);
            }
        }
        Ok(replies)
    }

    /// New canisters with cycles and without code.
    pub fn create(&mut self, count: usize) -> Result<Vec<CanisterId>, Failure> {
        // Without limits a call's callback may cost any number of cycles, which are set aside.
        let amount = Some(Nat::from(1_u128 << 100));
        // A heap may have its 4 GiB.
        let settings = Some(CanisterSettings { wasm_memory_limit: Some(Nat::from(0_u8)), ..Default::default() });
        let create = ProvisionalCreateCanisterWithCyclesArgs { amount, settings, ..Default::default() };
        let arg = Encode!(&create).map_err(failed)?;
        let method = "provisional_create_canister_with_cycles";
        let messages = (0..count).map(|_| self.ingress(CanisterId::MANAGEMENT, None, method, &arg)).collect();
        let parse = |reply: Vec<u8>| -> Result<CanisterId, Failure> {
            let record = Decode!(&reply, CanisterIdRecord).map_err(failed)?;
            Ok(CanisterId::from_principal(record.canister_id))
        };
        self.replies(messages)?.into_iter().map(parse).collect()
    }

    /// A message that installs a module.
    pub fn install_message(&mut self, mode: Mode, canister: CanisterId, wasm: &[u8]) -> Result<Ingress, Failure> {
        let install = InstallCodeArgs {
            mode,
            canister_id: canister.principal(),
            wasm_module: wasm.to_vec(),
            arg: Vec::new(),
            sender_canister_version: None,
        };
        let arg = Encode!(&install).map_err(failed)?;
        Ok(self.ingress(CanisterId::MANAGEMENT, Some(canister), "install_code", &arg))
    }

    /// New canisters with this module.
    pub fn install(&mut self, count: usize, wasm: &[u8]) -> Result<Vec<CanisterId>, Failure> {
        let canisters = self.create(count)?;
        let messages =
            canisters.iter().map(|id| self.install_message(Mode::Install, *id, wasm)).collect::<Result<_, _>>()?;
        self.replies(messages)?;
        Ok(canisters)
    }

    /// Answers queries on the threads of `pool`; seconds.
    pub fn queries(&self, clock: Clock, pool: &rayon::ThreadPool, queries: &[Query]) -> Result<f64, Failure> {
        let (seconds, answers) = clock.time(|| pool.install(|| self.subnet.query(queries)));
        for answer in answers {
            answer.map_err(failed)?;
        }
        Ok(seconds)
    }
}

fn reply(status: IngressStatus) -> Result<Vec<u8>, Failure> {
    match status {
        IngressStatus::Replied(bytes) => Ok(bytes),
        IngressStatus::Rejected(reject) => Err(failed(reject)),
        other => Err(Failure(format!("not answered: {other:?}"))),
    }
}
