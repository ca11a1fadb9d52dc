//! A workload into a recording: a subnet of its own runs it, and `cyclotron replay` runs it again.
//!
//! Enters: a workload, a plan, a file that is not there. Leaves: the recording; the same for the same, byte for byte. Never here: a clock:
//! block time goes by the plan. Queries are in no batch, and so not in a recording.

use crate::error::LoadFailed;
use crate::fleet::{Fleet, SetUp, SetUpCall, Workload};
use crate::mix::{Kind, Requests};
use crate::plan::Plan;
use crate::random::Random;
use crate::user::{Asked, Users};
use cyclotron_crypto::{BlsSecretKey, NodeKey, RootSigner, self_authenticating};
use cyclotron_execution::management::IdRange;
use cyclotron_execution::{ExecutionLimits, SubnetConfig};
use cyclotron_ports::SystemDisk;
use cyclotron_record::Recorder;
use cyclotron_subnet::{Genesis, Program, SchedulingOptions, Subnet, SubnetOptions};
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::{Ingress, IngressStatus};
use cyclotron_types::units::{Seconds, Time};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Block time of the first round: 14 November 2023.
const EPOCH: Time = Time(1_700_000_000_000_000_000);
/// Block time between the rounds that make the canisters.
const SET_UP_STEP: Duration = Duration::from_secs(1);
/// Rounds that making the canisters may take.
const SET_UP_ROUNDS_MAX: u32 = 1_000;
/// Calls that make canisters, in one round.
const SET_UP_CALLS: usize = 100;
/// Rounds from one state hash to the next.
const HASH_ROUNDS: u32 = 100;
/// From a request's time to its expiry.
const EXPIRY: Seconds = Seconds(240);

/// What a recording is made of besides the workload.
#[derive(Clone, Copy, Debug)]
pub struct RecordingOptions {
    /// When requests come, in block time.
    pub plan: Plan,
    /// Rounds that the plan's time is cut into; not zero.
    pub rounds: u32,
    /// Threads that run canisters; they change nothing of the recording.
    pub threads: usize,
}

/// What a recording holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Canisters.
    pub canisters: usize,
    /// Rounds that made them.
    pub set_up_rounds: u64,
    /// Rounds of the workload.
    pub rounds: u32,
    /// Updates in them.
    pub updates: u64,
    /// Updates that the pool took and no round did: they expired, or still waited at the end.
    pub left_out: u64,
    /// Updates that a full pool did not take.
    pub refused: u64,
    /// Queries of the mix, which are not recorded.
    pub queries: u64,
    /// Messages and tasks executed.
    pub executed: u64,
    /// Certified root at the end.
    #[serde(serialize_with = "as_hex")]
    pub root: [u8; 32],
    /// State hash at the end.
    #[serde(serialize_with = "as_hex")]
    pub state_hash: [u8; 32],
}

fn as_hex<S: serde::Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Makes the recording of a workload; `shown` is told after each round how many of them have run.
/// Errors: also when the file is there already.
pub fn record(
    workload: &Workload,
    options: RecordingOptions,
    file: &Path,
    mut shown: impl FnMut(u32),
) -> Result<Recorded, LoadFailed> {
    if !workload.mix.has_updates() {
        return Err(LoadFailed::NoUpdates(workload.mix));
    }
    let users = Users::new(workload.seed);
    let set_up = SetUp::new(workload, &users)?;
    let mut run = Run::new(workload.seed, &users, options.threads, file)?;
    let fleet = run.set_up(&set_up)?;
    let set_up_rounds = run.subnet.height().0;
    let mut requests = Requests::new(workload.mix, workload.seed, &users, &fleet);
    let began = run.now;
    let (mut number, mut refused, mut queries, mut updates) = (0, 0, 0, 0);
    for round in 1..=options.rounds {
        let end = round_end(options, round);
        while number < options.plan.requests() && options.plan.departure(number) < end {
            let Some(request) = requests.next() else { break };
            match request.kind {
                Kind::Query => queries += 1,
                Kind::Update => {
                    let expiry = after(began, options.plan.departure(number)).plus(EXPIRY);
                    let asked = Asked::of(&request, run.number(), expiry);
                    let ingress = users.ingress(&asked, Some(request.canister));
                    refused += u64::from(run.subnet.submit(ingress).is_err());
                }
            }
            number += 1;
        }
        updates += run.round(after(began, end))?;
        if round.is_multiple_of(HASH_ROUNDS) && round < options.rounds {
            run.subnet.note_state_hash().map_err(LoadFailed::Storage)?;
        }
        shown(round);
    }
    let state_hash = run.subnet.note_state_hash().map_err(LoadFailed::Storage)?;
    run.subnet.note_no_more();
    Ok(Recorded {
        canisters: fleet.len(),
        set_up_rounds,
        rounds: options.rounds,
        updates,
        left_out: number - queries - refused - updates,
        refused,
        queries,
        executed: run.subnet.statistics().executed,
        root: run.subnet.root(),
        state_hash,
    })
}

/// When a round of the workload is made, since the first request's time.
fn round_end(options: RecordingOptions, round: u32) -> Duration {
    let nanos = options.plan.duration().as_nanos() * u128::from(round) / u128::from(options.rounds);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn after(time: Time, duration: Duration) -> Time {
    Time(time.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
}

/// What the subnet is made with: what a node on its own is, with keys of the seed.
pub fn genesis(seed: u64) -> Genesis {
    let mut random = Random::new(seed, 2);
    let root_key = BlsSecretKey::from_seed(&random.bytes()).public_key_der();
    let node = NodeKey::from_seed(&random.bytes());
    Genesis {
        config: SubnetConfig {
            subnet: self_authenticating(&root_key),
            root_key: root_key.clone(),
            fees: Fees::for_nodes(13),
            limits: ExecutionLimits::default(),
        },
        public_key: root_key,
        subnet_type: "application".into(),
        nodes: vec![(node.node_id(), node.public_key_der())],
        ranges: vec![IdRange { first: 0, last: 0xf_ffff }],
        reserved_ranges: Vec::new(),
        scheduling: SchedulingOptions::default(),
        provisional: true,
    }
}

/// A subnet that is recorded, and its clock.
struct Run<'a> {
    subnet: Subnet,
    users: &'a Users,
    beacon: Random,
    now: Time,
    sent: u64,
}

impl<'a> Run<'a> {
    fn new(seed: u64, users: &'a Users, threads: usize, file: &Path) -> Result<Self, LoadFailed> {
        let genesis = genesis(seed);
        let configuration = genesis.encode();
        let options = SubnetOptions::unsigned(genesis, threads).map_err(LoadFailed::Machine)?;
        let mut subnet = Subnet::new(options)
            .map_err(|error| LoadFailed::Machine(format!("cannot start worker threads: {error}")))?;
        let recorder = Recorder::create(&SystemDisk, file, 1, &configuration).map_err(LoadFailed::Storage)?;
        subnet.note(Box::new(recorder.by_size_alone()));
        subnet.run_as(Program::this()).map_err(LoadFailed::Storage)?;
        Ok(Self { subnet, users, beacon: Random::new(seed, 3), now: EPOCH, sent: 0 })
    }

    fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Makes a round; returns how many updates it was given.
    fn round(&mut self, now: Time) -> Result<u64, LoadFailed> {
        let batch = self.subnet.next_batch(now, self.beacon.bytes());
        // Times closer to each other than a nanosecond are pushed apart by the subnet.
        self.now = batch.time;
        let updates = batch.ingress.len() as u64;
        self.subnet.execute(batch).map_err(LoadFailed::Storage)?;
        Ok(updates)
    }

    fn set_up(&mut self, set_up: &SetUp<'_>) -> Result<Fleet, LoadFailed> {
        let created = self.calls(set_up.user(), &set_up.creations())?;
        let (fleet, installations) = set_up.installations(&created)?;
        self.calls(set_up.user(), &installations)?;
        Ok(fleet)
    }

    /// Runs calls until all are answered; their replies in order.
    fn calls(&mut self, user: usize, calls: &[SetUpCall]) -> Result<Vec<Vec<u8>>, LoadFailed> {
        let mut replies = Vec::with_capacity(calls.len());
        for part in calls.chunks(SET_UP_CALLS) {
            let ids: Vec<_> = part.iter().map(|call| self.submit(user, call)).collect::<Result<_, _>>()?;
            for id in ids {
                replies.push(self.reply(id)?);
            }
        }
        Ok(replies)
    }

    fn submit(&mut self, user: usize, call: &SetUpCall) -> Result<MessageId, LoadFailed> {
        let SetUpCall { about, method, arg } = call;
        let expiry = self.now.plus(EXPIRY);
        let asked = Asked { user, receiver: CanisterId::MANAGEMENT, method, arg, nonce: self.number(), expiry };
        let ingress: Ingress = self.users.ingress(&asked, *about);
        let id = ingress.id;
        self.subnet.submit(ingress).map_err(|_| LoadFailed::SetUp("they do not fit into the ingress pool".into()))?;
        Ok(id)
    }

    fn reply(&mut self, id: MessageId) -> Result<Vec<u8>, LoadFailed> {
        for _ in 0..SET_UP_ROUNDS_MAX {
            match self.subnet.ingress_status(&id).map(|entry| &entry.status) {
                Some(IngressStatus::Replied(reply)) => return Ok(reply.clone()),
                Some(IngressStatus::Rejected(reject)) => return Err(LoadFailed::SetUp(reject.to_string())),
                Some(IngressStatus::Done) => break,
                Some(IngressStatus::Received | IngressStatus::Processing) | None => {
                    self.round(after(self.now, SET_UP_STEP))?;
                }
            }
        }
        Err(LoadFailed::SetUp("a call is not answered".into()))
    }
}
