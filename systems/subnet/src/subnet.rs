//! The one type that the node, test servers, the simulator and the replayer drive.

use crate::actions::Acted;
use crate::certify::{Outside, Signer, View};
use crate::checkpoint::{self, Changed, EnvOf, Kept, Position, Restored, Saved, Search};
use crate::genesis::Genesis;
use crate::management::{Deferred, Ids, ManagementRound};
use crate::observe::{Observer, RoundObserver, end_frame, observe};
use crate::pool::{IngressPool, PoolFull, PoolLoad};
use crate::program::Program;
use crate::replay::Unsigned;
use crate::round::{inner_round, round};
use crate::sink::{BatchSink, Sinks};
use crate::state_hash::{StateHash, state_hash, whole_state_hash};
use crate::totals::Totals;
use cyclotron_certification::{ReadError, StateTree, SubnetFacts};
use cyclotron_crypto::RootSigner;
use cyclotron_execution::management::{CanisterIds, NodeFacts, RandomStream};
use cyclotron_execution::{Machine, RoundEnv, SubnetConfig};
use cyclotron_heap::PageStore;
use cyclotron_heap::layout::SEATS_MAX_DEFAULT;
use cyclotron_queries::{Answered, Certified, CertifiedState, Query, answer_batch, answer_in_full, inspect_ingress};
use cyclotron_routing::{
    ActiveSet, Answered as AnsweredIds, CurrentRound, Deadlines, Directory, Dues, Entry, IngressHistory, Input,
    ManagementInbox, ManagementLines, Outbox, StopDeadlines, Stopping, Tally, Timers, Touched,
};
use cyclotron_scheduling::{Cores, Heartbeats, Installing, Parked, Profile, Results, RunOrder, Workers};
use cyclotron_storage::StorageError;
use cyclotron_trace::zone;
use cyclotron_types::Principal;
use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::canister::CyclesBalance;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::limits;
use cyclotron_types::message::{Ingress, Message};
use cyclotron_types::reject::Reject;
use cyclotron_types::units::{Bytes, Cycles, Height, Instructions, RegistryVersion, Time};
use cyclotron_wasm::code_cache::{CodeCache, CodeCounts};
use cyclotron_wasm::{Engine, EngineConfig};
use cyclotron_world::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a subnet is made and run.
pub struct SubnetOptions {
    /// What its state depends on.
    pub genesis: Genesis,
    /// Signs roots.
    pub signer: Arc<dyn RootSigner>,
    /// Engine, seats and memories.
    pub machine: Arc<Machine>,
    /// Threads of this process; they change no result.
    pub threads: usize,
}

impl SubnetOptions {
    /// A subnet on an engine of its own, whose roots nobody signs.
    /// Errors: in words, when this machine cannot have the engine or the memory.
    pub fn unsigned(genesis: Genesis, threads: usize) -> Result<Self, String> {
        Self::unsigned_on(EngineConfig::canister(), genesis, threads)
    }

    /// The same with compiled code that reports its calls, so that [`Ran`](crate::Ran) says what each function was charged: slow, the same results.
    pub fn unsigned_reporting_calls(genesis: Genesis, threads: usize) -> Result<Self, String> {
        let mut engine = EngineConfig::canister();
        engine.code.calls = true;
        Self::unsigned_on(engine, genesis, threads)
    }

    fn unsigned_on(engine: EngineConfig, genesis: Genesis, threads: usize) -> Result<Self, String> {
        let engine = Engine::new(engine).map_err(|error| format!("cannot set up the Wasm engine: {error}"))?;
        let machine = Machine::new(engine, SEATS_MAX_DEFAULT)
            .map_err(|error| format!("cannot reserve memory for canisters: {error}"))?;
        let signer = Arc::new(Unsigned(genesis.public_key.clone()));
        Ok(Self { genesis, signer, machine: Arc::new(machine), threads })
    }
}

/// Budgets of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulingOptions {
    /// Scheduler cores.
    pub cores: usize,
    /// Instructions of each core in a round.
    pub round_instructions: Instructions,
    /// Instructions counted for each message besides its own.
    pub message_overhead: Instructions,
    /// Suspended messages kept at the end of a round.
    pub paused_max: usize,
}

impl Default for SchedulingOptions {
    fn default() -> Self {
        Self {
            cores: limits::SCHEDULER_CORES,
            round_instructions: limits::ROUND_INSTRUCTIONS_MAX,
            message_overhead: limits::ROUND_OVERHEAD_PER_MESSAGE,
            paused_max: limits::PAUSED_EXECUTIONS_MAX,
        }
    }
}

impl SchedulingOptions {
    /// No budget: a round ends when nobody has work.
    pub const fn unlimited() -> Self {
        Self {
            cores: limits::SCHEDULER_CORES,
            round_instructions: Instructions::MAX,
            message_overhead: Instructions::ZERO,
            paused_max: limits::PAUSED_EXECUTIONS_MAX,
        }
    }
}

/// What a subnet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Canisters.
    pub canisters: usize,
    /// Ingress messages that wait for a batch.
    pub waiting: usize,
    /// Ingress messages whose status is remembered.
    pub history: usize,
    /// Memory of all canisters, allocations counted in full.
    pub memory: Bytes,
    /// Messages executed since genesis.
    pub executed: u64,
}

/// One subnet in this process: the Local world of a node and the Replicated world.
pub struct Subnet {
    pool: IngressPool,
    replicated: World,
    certified: Certified,
    round: Schedule,
    config: Arc<SubnetConfig>,
    machine: Arc<Machine>,
    provisional: bool,
    height: Height,
    time: Time,
    root: [u8; 32],
    /// What makes its rounds.
    pub(crate) program: Program,
    /// For memory to give back.
    search: Search,
}

impl Subnet {
    /// A subnet without canisters, at height zero.
    /// Errors: when the process cannot start its worker threads.
    pub fn new(options: SubnetOptions) -> Result<Self, rayon::ThreadPoolBuildError> {
        let genesis = options.genesis;
        let config = Arc::new(genesis.config);
        let mut tree = StateTree::new(config.subnet);
        let mut ranges: Vec<_> = genesis
            .ranges
            .iter()
            .chain(&genesis.reserved_ranges)
            .map(|range| (CanisterId::from_u64(range.first).principal(), CanisterId::from_u64(range.last).principal()))
            .collect();
        ranges.sort_unstable();
        let nodes: Vec<(Principal, &[u8])> = genesis.nodes.iter().map(|(id, key)| (*id, key.as_slice())).collect();
        let facts = SubnetFacts {
            public_key: &genesis.public_key,
            subnet_type: &genesis.subnet_type,
            canister_ranges: &ranges,
            nodes: &nodes,
        };
        tree.upsert_subnet(config.subnet, &facts);

        let mut world = World::new();
        let certified = Certified::new(CertifiedState::new(tree));
        world.insert_resource(Outside(certified.clone()));
        world.insert_resource(Signer(options.signer));
        world.insert_resource(Ids(CanisterIds::with_reserved(genesis.ranges, genesis.reserved_ranges)));
        let budget = genesis.scheduling;
        world.insert_resource(Cores::new(
            budget.cores,
            budget.round_instructions,
            budget.message_overhead,
            budget.paused_max,
        ));
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.max(1))
            .thread_name(|n| format!("core {n}"))
            .build()?;
        world.insert_resource(Workers(workers));
        world.init_resource::<Pool<Message>>();
        world.init_resource::<View>();
        world.init_resource::<Deferred>();
        world.init_resource::<Observer>();
        world.init_resource::<Sinks>();
        world.init_resource::<StateHash>();
        world.init_resource::<Changed>();
        world.init_resource::<Totals>();
        world.init_resource::<ActiveSet>();
        world.init_resource::<Acted>();
        world.init_resource::<AnsweredIds>();
        world.init_resource::<Deadlines>();
        world.init_resource::<Directory>();
        world.init_resource::<Dues>();
        world.init_resource::<IngressHistory>();
        world.init_resource::<ManagementInbox>();
        world.init_resource::<ManagementLines>();
        world.init_resource::<Outbox>();
        world.init_resource::<StopDeadlines>();
        world.init_resource::<Stopping>();
        world.init_resource::<Tally>();
        world.init_resource::<Timers>();
        world.init_resource::<Touched>();
        world.init_resource::<Heartbeats>();
        world.init_resource::<Installing>();
        world.init_resource::<Results>();
        world.init_resource::<Profile>();
        world.init_resource::<Parked>();
        world.init_resource::<RunOrder>();
        world.add_schedule(inner_round());
        Ok(Self {
            pool: IngressPool::default(),
            replicated: world,
            certified,
            round: round(),
            config,
            machine: options.machine,
            provisional: genesis.provisional,
            height: Height::ZERO,
            time: Time::ZERO,
            root: [0; 32],
            program: Program::this(),
            search: Search::default(),
        })
    }

    /// Hands an admitted message to the Local world, to be part of a batch soon.
    /// Errors: [`PoolFull`], and nothing changed.
    pub fn submit(&mut self, ingress: Ingress) -> Result<(), PoolFull> {
        self.pool.insert(ingress)
    }

    /// What waits for a batch.
    pub fn pool_load(&self) -> PoolLoad {
        self.pool.load()
    }

    /// Makes the next batch of what waits. `now` is at least one nanosecond after the last batch, whatever the clock says.
    pub fn next_batch(&mut self, now: Time, randomness: [u8; 32]) -> Batch {
        let time = now.max(Time(self.time.0 + 1));
        Batch {
            height: Height(self.height.0 + 1),
            time,
            randomness,
            registry_version: RegistryVersion(1),
            ingress: self.pool.take_payload(time, limits::INGRESS_PER_BATCH_MAX),
            actions: Vec::new(),
            checkpoint: false,
        }
    }

    /// Runs one round.
    ///
    /// Errors: when a sink did not take note of it. Nothing of the round was shown then, and the subnet is not to be used any more.
    /// Panics: when the batch is not the next one, or its time does not advance.
    pub fn execute(&mut self, batch: Batch) -> Result<CertifiedView, StorageError> {
        assert_eq!(batch.height.0, self.height.0 + 1, "batches come in order");
        assert!(batch.time > self.time, "block time increases");
        let zone = zone!("round");
        (self.height, self.time) = (batch.height, batch.time);
        let facts = self.facts(batch.registry_version);
        let world = &mut self.replicated;
        world.resource_mut::<Sinks>().each(|sink| sink.batch(&batch))?;
        let env = round_env(world, &self.config, &self.machine, batch.height, batch.time, batch.randomness);
        let cores = world.resource::<Cores>();
        let left = i64::try_from(cores.round_instructions.0).unwrap_or(i64::MAX);
        let random = RandomStream::for_raw_rand(&batch.randomness);
        world.insert_resource(ManagementRound { left, random, facts, begun: false });
        world.insert_resource(CurrentRound(env));
        world.insert_resource(Input(batch));
        world.resource_mut::<Observer>().round_begun();
        self.round.run(world);
        let view = world.resource_mut::<View>().0.take().expect("a round leaves a view")?;
        self.root = view.root;
        world.resource_mut::<Sinks>().each(|sink| sink.round_ended(&view))?;
        drop(zone);
        end_frame(world, &self.pool);
        Ok(view)
    }

    /// Lets `sink` take note of rounds from now on.
    pub fn note(&mut self, sink: Box<dyn BatchSink>) {
        self.replicated.resource_mut::<Sinks>().0.push(sink);
    }

    /// Rounds are made by this program from now on, and sinks take note of that.
    pub fn run_as(&mut self, program: Program) -> Result<(), StorageError> {
        let height = self.height;
        self.replicated.resource_mut::<Sinks>().each(|sink| sink.program(height, &program))?;
        self.program = program;
        Ok(())
    }

    /// The engine looks for compiled code in `cache` from now on, and keeps there what it compiles, beside rounds. Only speed shows it.
    pub fn keep_code_in(&self, cache: Arc<dyn CodeCache>) {
        let is_first = self.machine.engine.keep_code_in(cache);
        debug_assert!(is_first, "an engine has one cache");
    }

    /// Waits until the code of what was compiled before this is kept: for who is about to end the process.
    pub fn finish_keeping_code(&self) {
        self.machine.engine.finish_keeping();
    }

    /// How the engine has come to its code.
    pub fn code_counts(&self) -> CodeCounts {
        self.machine.engine.code_counts()
    }

    /// Lets go of all sinks, which end what they are at.
    pub fn note_no_more(&mut self) {
        self.replicated.resource_mut::<Sinks>().0.clear();
    }

    /// Signs roots with `signer` from now on, the last one included if there is one.
    pub fn sign_with(&mut self, signer: Arc<dyn RootSigner>) {
        if self.height > Height::ZERO {
            self.certified.write().tree.certify(&*signer);
        }
        self.replicated.insert_resource(Signer(signer));
    }

    /// Lets `capture` look at the state that the last round left.
    pub(crate) fn capture<R>(&mut self, capture: impl FnOnce(&mut World, Position, &Program) -> R) -> R {
        let position = Position { height: self.height, time: self.time, root: self.root };
        capture(&mut self.replicated, position, &self.program)
    }

    /// Tells memories that what was taken of them is in `store`, or that it is not kept.
    pub(crate) fn settle(&mut self, saved: &Saved, store: Option<&Arc<dyn PageStore>>) {
        checkpoint::settle(&mut self.replicated, saved, store);
    }

    /// Becomes the subnet that `restore` makes of the empty world; it is given what a round is told of its batch.
    ///
    /// Panics: when the subnet has run a round.
    pub(crate) fn restore(
        &mut self,
        restore: impl FnOnce(&mut World, &Arc<Machine>, &EnvOf<'_>) -> Result<Restored, StorageError>,
    ) -> Result<(Kept, Option<[u8; 32]>), StorageError> {
        assert!(self.height == Height::ZERO, "a checkpoint is restored into a new subnet");
        let (config, machine) = (&self.config, &self.machine);
        let env = |position: Position, randomness: [u8; 32], world: &World| {
            round_env(world, config, machine, position.height, position.time, randomness)
        };
        let Restored { position, program, state_hash, kept } = restore(&mut self.replicated, machine, &env)?;
        self.program = program;
        (self.height, self.time, self.root) = (position.height, position.time, position.root);
        Ok((kept, state_hash))
    }

    /// Bytes of memory that heaps and stable memories take now.
    ///
    /// Panics: when the operating system does not say.
    pub fn memory_taken(&self) -> Bytes {
        let taken = self.machine.arena.allocated_bytes();
        let (heaps, stables) = taken.unwrap_or_else(|error| panic!("a file in memory cannot be asked: {error}"));
        Bytes(heaps + stables)
    }

    /// Looks at up to `canisters_max` canisters and gives the memory back of what the last checkpoint keeps of them; those that changed since are
    /// spared as long as others give any. It is read again when somebody needs it. Returns how many gave some.
    pub fn release_memory(&mut self, canisters_max: usize) -> usize {
        checkpoint::release(&mut self.replicated, &mut self.search, canisters_max)
    }

    fn facts(&self, registry_version: RegistryVersion) -> NodeFacts {
        NodeFacts {
            provisional: self.provisional,
            replica_version: self.program.version.clone(),
            registry_version: registry_version.0,
        }
    }

    /// Lets `watcher` watch rounds from now on.
    pub fn observe(&mut self, watcher: Box<dyn RoundObserver>) {
        observe(&mut self.replicated, watcher);
    }

    /// What the subnet holds, for people.
    pub fn statistics(&self) -> Statistics {
        let world = &self.replicated;
        Statistics {
            canisters: world.resource::<Directory>().len(),
            waiting: self.pool.len(),
            history: world.resource::<IngressHistory>().len(),
            memory: world.resource::<Totals>().0.memory,
            executed: world.resource::<Tally>().executed,
        }
    }

    /// Whether a round at `now` would find something to do besides setting the time. Heartbeats do not count: they beat with the rounds,
    /// and must not drive them.
    pub fn has_work(&self, now: Time) -> bool {
        let world = &self.replicated;
        !self.pool.is_empty()
            || !world.resource::<ActiveSet>().is_empty()
            || !world.resource::<ManagementInbox>().0.is_empty()
            || !world.resource::<Deferred>().next_round.is_empty()
            || !world.resource::<Deferred>().busy.is_empty()
            || !world.resource::<Installing>().0.is_empty()
            || self.next_alarm().is_some_and(|time| time <= now)
    }

    /// When the next timer or time-out is due.
    pub fn next_alarm(&self) -> Option<Time> {
        let world = &self.replicated;
        let call = world.resource::<Deadlines>().open.first().map(|&(time, _, _)| time);
        [
            world.resource::<Timers>().0.next(),
            world.resource::<Dues>().0.next(),
            world.resource::<StopDeadlines>().0.next(),
            call,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Height of the last batch.
    pub fn height(&self) -> Height {
        self.height
    }

    /// Time of the last batch.
    pub fn time(&self) -> Time {
        self.time
    }

    /// Certified root of the last round.
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// What is known of an ingress message.
    pub fn ingress_status(&self, id: &MessageId) -> Option<&Entry> {
        self.replicated.resource::<IngressHistory>().get(id)
    }

    /// The state as the last round certified it: for readers, also on other threads and while a round runs.
    pub fn certified(&self) -> &Certified {
        &self.certified
    }

    /// A certificate over the time and one request's status.
    pub fn status_certificate(&self, id: MessageId) -> Result<Vec<u8>, ReadError> {
        self.certified.read().status_certificate(id)
    }

    /// QueryPass: answers queries on the state that the last round certified, in order.
    pub fn query(&self, queries: &[Query]) -> Vec<Result<Vec<u8>, Reject>> {
        answer_batch(&self.certified, queries)
    }

    /// The same on as many threads as rounds have; `take` is given the place of each query, its answer, and how long that took: for a replay.
    pub fn query_measured<R: Send>(
        &self,
        queries: &[Query],
        take: impl Fn(usize, Answered, Duration) -> R + Sync,
    ) -> Vec<R> {
        let one = |(at, query)| {
            let began = Instant::now();
            let answered = answer_in_full(&self.certified, query);
            take(at, answered, began.elapsed())
        };
        self.replicated.resource::<Workers>().0.install(|| queries.par_iter().enumerate().map(one).collect())
    }

    /// Whether a message would be taken if it were submitted; the rejection that its sender sees at once otherwise.
    pub fn inspect(&self, ingress: &Ingress) -> Result<(), Reject> {
        inspect_ingress(&self.certified, ingress)
    }

    /// Cycles that a canister can spend, subject to freezing.
    pub fn balance(&self, canister: CanisterId) -> Option<Cycles> {
        let entity = self.replicated.resource::<Directory>().entity(canister)?;
        self.replicated.get::<CyclesBalance>(entity).map(|balance| balance.0)
    }

    /// The state hash. Cost: in proportion to what changed since the last call.
    pub fn state_hash(&mut self) -> [u8; 32] {
        state_hash(&mut self.replicated)
    }

    /// Lets the sinks take note of the state hash. Cost: that of [`Subnet::state_hash`].
    pub fn note_state_hash(&mut self) -> Result<[u8; 32], StorageError> {
        let (height, hash) = (self.height, self.state_hash());
        self.replicated.resource_mut::<Sinks>().each(|sink| sink.state_hash(height, &hash))?;
        Ok(hash)
    }

    /// The state hash computed of the whole world, which must be [`Subnet::state_hash`]: for tests of what is noted as changed.
    /// Cost: a scan over everything.
    pub fn whole_state_hash(&mut self) -> [u8; 32] {
        whole_state_hash(&mut self.replicated)
    }

    /// Changes by `seed` what may legally differ between two nodes: the order in which cores run, the order of entities and of archetypes.
    /// No result may show it; for tests of that. Zero leaves cores in their order.
    pub fn perturb(&mut self, seed: u64) {
        crate::perturb::perturb(&mut self.replicated, seed);
    }

    /// Sums all cycles in the world and compares with what was minted and burned. Cost: a scan over everything.
    pub fn check_cycles(&self) -> Result<(), crate::Unbalanced> {
        crate::conservation::check_cycles(&self.replicated)
    }

    /// Messages that wait in canisters' queues, or are on their way there. Cost: O(message slots).
    pub fn queued_messages(&mut self) -> usize {
        let mut slots = self.replicated.query::<&Message>();
        slots.iter(&self.replicated).filter(|message| !matches!(message, Message::Vacant)).count()
    }

    pub(crate) fn world(&self) -> &World {
        &self.replicated
    }

    pub(crate) fn world_mut(&mut self) -> &mut World {
        &mut self.replicated
    }

    /// The schedules, for the page that lists systems.
    pub fn describe(&mut self) -> String {
        crate::page::page(&mut self.pool, &mut self.replicated, &mut self.round)
    }
}

/// What a round is told.
fn round_env(
    world: &World,
    config: &Arc<SubnetConfig>,
    machine: &Arc<Machine>,
    height: Height,
    time: Time,
    randomness: [u8; 32],
) -> RoundEnv {
    let used = world.resource::<Totals>().0.memory;
    let free = config.limits.subnet_memory.saturating_sub(used);
    RoundEnv {
        subnet: config.clone(),
        machine: machine.clone(),
        time,
        height,
        randomness,
        memory_used: used,
        memory_available: Bytes(free.0 / world.resource::<Cores>().count as u64),
    }
}
