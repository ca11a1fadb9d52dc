//! The running node: threads around one `Subnet`.
//!
//! ```text
//! HTTP queue -> admission threads -> calls    -> submissions -> round thread, which owns the subnet
//!                                 -> queries, read_state       -> on the state that the last round certified, where they were admitted
//! ```
//!
//! The round thread alone has the subnet; what it shares is the certified state, which it replaces at the end of each round. Nobody waits
//! for a round that runs canisters, only for its last step, which hashes and signs that state. Everything that waits is bounded: the HTTP queue, the ingress pool, the calls that wait for their certificate.

mod answer;
mod calls;
mod rounds;
mod submissions;
mod watch;

use calls::SyncCalls;
use crossbeam::channel::{Receiver, Sender, bounded};
use cyclotron_crypto::{BlsSecretKey, NodeKey, RootSigner};
use cyclotron_execution::management::IdRange;
use cyclotron_execution::{ExecutionLimits, Machine, SubnetConfig};
use cyclotron_heap::layout::SEATS_MAX_DEFAULT;
use cyclotron_net::Request;
use cyclotron_ports::{Clock, SystemClock};
use cyclotron_queries::Certified;
use cyclotron_storage::NodeKeys;
use cyclotron_subnet::{SchedulingOptions, Subnet, SubnetOptions};
use cyclotron_trace::Metrics;
use cyclotron_types::Principal;
use cyclotron_types::fees::Fees;
use cyclotron_types::units::Time;
use cyclotron_wasm::engine::{Engine, EngineConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use submissions::Submissions;

/// Canister ids that are given only to those who ask for one of them, as on other local networks: the main network's canisters can
/// be set up under their own ids. dfinity/ic `rs/prep/src/internet_computer.rs`, "specified ids".
const SPECIFIED_IDS: IdRange = IdRange { first: 0, last: u64::MAX / 2 };
/// Numbers in a range that is given out in order. dfinity/ic `CANISTER_IDS_PER_SUBNET`.
const IDS_PER_RANGE: u64 = 1 << 20;
/// Canister ids that are given out in order: the first whole range that does not touch the specified ids, again as on other local
/// networks, so that the first canister is bnz7o-iuaaa-aaaaa-qaaaa-cai on all of them.
const ALLOCATED_IDS: IdRange = {
    let first = (SPECIFIED_IDS.last / IDS_PER_RANGE + 2) * IDS_PER_RANGE;
    IdRange { first, last: first + (IDS_PER_RANGE - 1) }
};
/// The number of the first canister.
pub const FIRST_CANISTER: u64 = ALLOCATED_IDS.first;

const _: () = assert!(FIRST_CANISTER == 0x8000_0000_0010_0000);

/// What calls that wait for their certificate get at shutdown before they are answered 202; less than the server's own time.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

/// What the operator chose.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// Threads that run canisters.
    pub threads: usize,
    /// Threads that admit requests and answer queries.
    pub query_threads: usize,
    /// Nodes that prices are computed for.
    pub priced_as: u64,
}

/// What all threads share.
pub(crate) struct Shared {
    /// What the last round left.
    pub certified: Certified,
    pub calls: SyncCalls,
    pub metrics: Arc<Metrics>,
    pub clock: SystemClock,
    pub root_key: Vec<u8>,
    pub node_key: NodeKey,
    pub admission: cyclotron_admission::Config,
    /// Threads that share the requests; at least one.
    pub admission_threads: usize,
    /// Height of the last round.
    pub height: AtomicU64,
    /// Admitted calls on their way to the round thread.
    pub submissions: Submissions,
    /// Wakes the round thread; full means that it will look anyway.
    pub wake: Sender<()>,
    pub stopping: AtomicBool,
}

impl Shared {
    /// Now, by the node's clock.
    pub fn now(&self) -> Time {
        self.clock.now()
    }
    /// Lets the round thread look for work.
    pub fn wake(&self) {
        let _it_will_look_anyway = self.wake.try_send(());
    }
}

/// A node at work.
pub struct Node {
    shared: Arc<Shared>,
    admission: Vec<JoinHandle<()>>,
    rounds: JoinHandle<()>,
}

impl Node {
    /// Starts the threads. Requests come out of `requests` until its senders are gone.
    pub fn start(
        keys: &NodeKeys,
        options: NodeOptions,
        requests: Receiver<Request>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let root = BlsSecretKey::from_bytes(&keys.root.to_bytes()).ok_or("the root key is no secret key")?;
        let signer: Arc<dyn RootSigner> = Arc::new(root);
        let root_key = signer.public_key_der();
        let subnet_id = cyclotron_crypto::self_authenticating(&root_key);
        let mut subnet = make_subnet(subnet_id, signer, &keys.node, options)?;
        subnet.observe(Box::new(watch::Watcher::new(metrics.clone())));
        let (wake, woken) = bounded(1);
        let (submissions, submitted) = Submissions::new();
        let shared = Arc::new(Shared {
            certified: subnet.certified().clone(),
            calls: SyncCalls::default(),
            metrics,
            clock: SystemClock,
            root_key,
            node_key: NodeKey::from_seed(&keys.node.to_seed()),
            admission: cyclotron_admission::Config::single_subnet(subnet_id),
            admission_threads: options.query_threads.max(1),
            height: AtomicU64::new(0),
            submissions,
            wake,
            stopping: AtomicBool::new(false),
        });
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name).spawn(run).map_err(|error| format!("cannot start a thread: {error}"))
        };
        let rounds = {
            let shared = shared.clone();
            spawn("round".into(), Box::new(move || rounds::run(&shared, subnet, &woken, &submitted)))?
        };
        let admission = (0..shared.admission_threads)
            .map(|n| {
                let (shared, requests) = (shared.clone(), requests.clone());
                spawn(format!("admit {n}"), Box::new(move || answer::run(&shared, &requests)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, admission, rounds })
    }

    /// DER form of the key that certificates verify against.
    pub fn root_key(&self) -> &[u8] {
        &self.shared.root_key
    }

    /// Prepares the end: rounds go on, but calls that wait for a certificate get only [`SHUTDOWN_WAIT`] more.
    pub fn drain(&self) {
        self.shared.calls.hurry(Instant::now() + SHUTDOWN_WAIT);
        self.shared.wake();
    }

    /// Ends the threads; the HTTP server is gone already, so no request can come.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        for thread in self.admission.into_iter().chain([self.rounds]) {
            // A panic aborts the process: a thread that can be joined ended well.
            let _ended = thread.join();
        }
    }
}

fn make_subnet(
    subnet: Principal,
    signer: Arc<dyn RootSigner>,
    node: &NodeKey,
    options: NodeOptions,
) -> Result<Subnet, String> {
    let config = SubnetConfig {
        subnet,
        root_key: signer.public_key_der(),
        fees: Fees::for_nodes(options.priced_as),
        limits: ExecutionLimits::default(),
    };
    let engine =
        Engine::new(EngineConfig::canister()).map_err(|error| format!("cannot set up the Wasm engine: {error}"))?;
    let machine = Machine::new(engine, SEATS_MAX_DEFAULT)
        .map_err(|error| format!("cannot reserve memory for canisters: {error}"))?;
    Subnet::new(SubnetOptions {
        config,
        signer,
        subnet_type: "application".into(),
        nodes: vec![(node.node_id(), node.public_key_der())],
        ranges: vec![ALLOCATED_IDS],
        reserved_ranges: vec![SPECIFIED_IDS],
        machine: Arc::new(machine),
        scheduling: SchedulingOptions::default(),
        provisional: true,
        threads: options.threads,
    })
    .map_err(|error| format!("cannot start worker threads: {error}"))
}
