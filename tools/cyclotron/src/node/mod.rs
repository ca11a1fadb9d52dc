//! The running node: threads around one `Subnet`.
//!
//! ```text
//! HTTP queue -> admission threads -> calls    -> submissions -> round thread, which owns the subnet
//!                                 -> queries, read_state       -> on the state that the last round certified, where they were admitted
//! operators' socket -------------------------------------------> round thread
//! ```
//!
//! The round thread alone has the subnet; what it shares is the certified state, which it replaces at the end of each round. Nobody waits
//! for a round that runs canisters, only for its last step, which hashes and signs that state. Everything that waits is bounded: the HTTP queue, the ingress pool, the calls that wait for their certificate.

mod answer;
mod calls;
mod checkpoints;
mod control;
mod gather;
mod restart;
mod rounds;
mod submissions;
mod watch;

use calls::SyncCalls;
use checkpoints::Checkpoints;
pub use control::socket_path;
use crossbeam::channel::{Receiver, Sender, bounded};
use cyclotron_crypto::{NodeKey, RootSigner};
use cyclotron_net::Request;
use cyclotron_net::local::LocalSocket;
use cyclotron_ports::{Clock, SystemClock, SystemDisk};
use cyclotron_queries::Certified;
use cyclotron_record::QueryRecorder;
use cyclotron_storage::StateDirectory;
use cyclotron_trace::Metrics;
use cyclotron_types::units::{Bytes, Time};
use gather::Gathering;
pub use restart::{BroughtBack, FIRST_CANISTER, Kept, Restart, genesis};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use submissions::Submissions;

/// What calls that wait for their certificate get at shutdown before they are answered 202; less than the server's own time.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

/// How often a start looks whether the first round is over, which takes a few of these.
const FIRST_ROUND_POLL: Duration = Duration::from_millis(1);

/// How a node runs.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Threads that admit requests and answer queries.
    pub query_threads: usize,
    /// Rounds from one state hash to the next, if somebody records rounds and wants to compare states later.
    pub hash_every: Option<u64>,
    /// Time from one checkpoint to the next, at least.
    pub checkpoint_every: Duration,
    /// Bytes that canisters' memories may take before those are given back that a checkpoint keeps.
    pub memory_max: Bytes,
}

/// What all threads share.
pub(crate) struct Shared {
    /// What the last round left.
    pub certified: Certified,
    pub calls: SyncCalls,
    /// Takes note of queries, if they are recorded.
    pub queries: Option<QueryRecorder>,
    pub metrics: Arc<Metrics>,
    pub clock: SystemClock,
    pub root_key: Vec<u8>,
    pub node_key: NodeKey,
    pub admission: cyclotron_admission::Config,
    /// Where requests wait for the admission threads.
    pub gathering: Gathering,
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

/// Finds out whether there is a GPU, and for which batches of signatures it is worth its while; they go there from then on.
fn measure_gpu(shared: &Shared) {
    match cyclotron_crypto::gpu::learn(|| shared.stopping.load(Ordering::Acquire)) {
        Ok(learned) => cyclotron_trace::info!("signatures on a GPU: {learned}"),
        Err(reason) => cyclotron_trace::debug!("no signatures on a GPU: {reason}"),
    }
}

/// A node at work.
pub struct Node {
    shared: Arc<Shared>,
    /// Those that admit requests, and one that measures a GPU.
    others: Vec<JoinHandle<()>>,
    rounds: JoinHandle<()>,
    control: Option<LocalSocket>,
}

impl Node {
    /// Starts the threads around a subnet. Requests come out of `requests` until its senders are gone.
    pub fn start(
        state: &StateDirectory<SystemDisk>,
        back: BroughtBack,
        options: NodeOptions,
        requests: Receiver<Request>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let BroughtBack { mut subnet, checkpointer, queries } = back;
        let threads = options.query_threads.max(1);
        let keys = state.keys();
        let root_key = keys.root.public_key_der();
        let subnet_id = cyclotron_crypto::self_authenticating(&root_key);
        subnet.observe(Box::new(watch::Watcher::new(metrics.clone())));
        let (wake, woken) = bounded(1);
        let (submissions, submitted) = Submissions::new();
        let shared = Arc::new(Shared {
            certified: subnet.certified().clone(),
            calls: SyncCalls::default(),
            queries,
            metrics,
            clock: SystemClock,
            root_key,
            node_key: NodeKey::from_seed(&keys.node.to_seed()),
            admission: cyclotron_admission::Config::single_subnet(subnet_id),
            gathering: Gathering::new(threads),
            height: AtomicU64::new(subnet.height().0),
            submissions,
            wake,
            stopping: AtomicBool::new(false),
        });
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name).spawn(run).map_err(|error| format!("cannot start a thread: {error}"))
        };
        let (control, called) = {
            let shared = shared.clone();
            control::open(state.path(), move || shared.wake())
        };
        let rounds = {
            let shared = shared.clone();
            let checkpoints = Checkpoints::new(checkpointer, options.checkpoint_every, options.memory_max, &subnet);
            let calls = control::Calls::new(called);
            let run =
                move || rounds::run(&shared, subnet, options.hash_every, checkpoints, (&woken, &submitted), calls);
            spawn("round".into(), Box::new(run))?
        };
        let measuring = {
            let shared = shared.clone();
            spawn("gpu".into(), Box::new(move || measure_gpu(&shared)))?
        };
        let mut others: Vec<JoinHandle<()>> = (0..threads)
            .map(|n| {
                let (shared, requests) = (shared.clone(), requests.clone());
                spawn(format!("admit {n}"), Box::new(move || answer::run(&shared, &requests)))
            })
            .collect::<Result<_, _>>()?;
        others.push(measuring);
        Ok(Self { shared, others, rounds, control })
    }

    /// Waits until there is something certified: before the first round nothing can be answered.
    pub fn await_first_round(&self) {
        while self.shared.height.load(Ordering::Acquire) == 0 && !self.rounds.is_finished() {
            std::thread::sleep(FIRST_ROUND_POLL);
        }
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
        for thread in self.others.into_iter().chain([self.rounds]) {
            // A panic aborts the process: a thread that can be joined ended well.
            let _ended = thread.join();
        }
        // After the rounds: whoever waits for an answer has it.
        drop(self.control);
    }
}
