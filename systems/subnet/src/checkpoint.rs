//! The Replicated world as a checkpoint keeps it, and the world again from that.
//!
//! Enters: the world after a round that named a checkpoint, in which suspended messages were aborted. Leaves: frames and pages; and from
//! them a world that does what the first one would have done. What follows from something else is not written: counts, sums, the state tree.
//! Never here: bytes of files (`storage/FORMAT.md`).

use crate::certify::{Shown, certify};
use crate::management::{Deferred, Ids};
use crate::program::Program;
use crate::totals::{Counted, Totals, use_of};
use cyclotron_execution::management::{CanisterIds, ManagementCall, PendingInstall};
use cyclotron_execution::record::{Modules, PageSink, PageSource, ProgramRecord, RestoreError};
use cyclotron_execution::{CanisterBundle, CanisterData, CanisterMut, LowMemoryHook, Machine, OpenCalls, RoundEnv};
use cyclotron_heap::layout::PAGE;
use cyclotron_ports::{Disk, DiskFile};
use cyclotron_routing::{
    ActiveSet, CurrentRound, Deadlines, Directory, Dues, Entry, IngressHistory, ManagementInbox, ManagementLines,
    Outbox, StopDeadlines, Stopping, Tally, Timers, Touched, enqueue, place_of,
};
use cyclotron_scheduling::{Heartbeats, Installing};
use cyclotron_storage::checkpoint::{CheckpointReader, CheckpointWriter};
use cyclotron_storage::{FrameKind, StorageError};
use cyclotron_types::canister::{
    CallContexts, CanisterHistory, CanisterLog, CanisterVersion, CertifiedData, ChunkStore, Controllers, CyclesBalance,
    GlobalTimer, InputQueue, PaidUntil, Priority, ReservedBalance, RunState, Settings,
};
use cyclotron_types::ids::{CallbackId, CanisterId, MessageId, MessageIx};
use cyclotron_types::message::{Message, SystemTask};
use cyclotron_types::units::{Height, Time};
use cyclotron_world::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Version of the records; part of the first one.
const VERSION: u32 = 1;
/// Bytes of remembered ingress messages beyond which another record is begun.
const STATUSES_BYTES: usize = 1 << 20;

/// Where the subnet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Height of the last round.
    pub height: Height,
    /// Its time.
    pub time: Time,
    /// Its certified root.
    pub root: [u8; 32],
}

/// What each version of the first record has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// What belongs to no canister.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetRecord {
    version: u32,
    position: Position,
    /// What made the last round.
    program: Program,
    /// Of the last round: queries run in its environment.
    randomness: [u8; 32],
    tally: Tally,
    inbox: VecDeque<Message>,
    next_round: VecDeque<ManagementCall>,
    busy: BTreeMap<CanisterId, VecDeque<ManagementCall>>,
    ids: CanisterIds,
    open: BTreeSet<(Time, CanisterId, CallbackId)>,
    timed_out: BTreeSet<(CanisterId, CallbackId)>,
    installing: BTreeMap<CanisterId, PendingInstall>,
    answered_count: u64,
}

/// One canister.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CanisterRecord {
    id: CanisterId,
    controllers: Controllers,
    balance: CyclesBalance,
    reserved: ReservedBalance,
    version: CanisterVersion,
    certified_data: CertifiedData,
    timer: GlobalTimer,
    paid_until: PaidUntil,
    run_state: RunState,
    settings: Settings,
    contexts: CallContexts,
    log: CanisterLog,
    chunks: ChunkStore,
    history: CanisterHistory,
    low_memory: LowMemoryHook,
    program: ProgramRecord,
    messages: Vec<Message>,
    tasks: VecDeque<SystemTask>,
    priority: Priority,
    /// Whether it has something to do.
    active: bool,
    /// When it is looked at: these were computed when it last ran, from the time of that round.
    timer_at: Option<Time>,
    due_at: Option<Time>,
    stop_at: Option<Time>,
}

struct Pages<'a, 'd, D: Disk>(&'a mut CheckpointWriter<'d, D>);

impl<D: Disk> PageSink for Pages<'_, '_, D> {
    type Error = StorageError;
    fn page(&mut self, content: &[u8; PAGE]) -> Result<u64, StorageError> {
        self.0.page(content)
    }
}

struct Source<'a, F>(&'a mut CheckpointReader<F>);

impl<F: DiskFile> PageSource for Source<'_, F> {
    type Error = StorageError;
    fn page(&mut self, index: u64, into: &mut [u8; PAGE]) -> Result<(), StorageError> {
        self.0.page(index, into)
    }
}

fn put<D: Disk>(
    writer: &mut CheckpointWriter<'_, D>,
    kind: FrameKind,
    record: &impl Serialize,
) -> Result<(), StorageError> {
    let mut bytes = Vec::new();
    append(record, &mut bytes);
    writer.record(kind, &bytes)
}

fn append(record: &impl Serialize, out: &mut Vec<u8>) {
    ciborium::into_writer(record, out).expect("records have a CBOR form, and a vector takes any bytes");
}

/// Writes the world. Cost: O(world).
///
/// Panics: when a message is suspended, which only a round at a checkpoint height rules out.
pub fn write<D: Disk>(
    world: &mut World,
    position: Position,
    program: &Program,
    writer: &mut CheckpointWriter<'_, D>,
) -> Result<(), StorageError> {
    assert!(world.resource::<Outbox>().0.is_empty() && world.resource::<Stopping>().0.is_empty(), "the round is over");
    let Deferred { next_round, busy } = world.resource::<Deferred>().clone();
    let Deadlines { open, timed_out } = world.resource::<Deadlines>().clone();
    let record = SubnetRecord {
        version: VERSION,
        position,
        program: program.clone(),
        randomness: world.resource::<CurrentRound>().0.randomness,
        tally: *world.resource::<Tally>(),
        inbox: world.resource::<ManagementInbox>().0.clone(),
        next_round,
        busy,
        ids: world.resource::<Ids>().0.clone(),
        open,
        timed_out,
        installing: world.resource::<Installing>().0.clone(),
        answered_count: world.resource::<IngressHistory>().answered_count(),
    };
    put(writer, FrameKind::Subnet, &record)?;
    let mut statuses = Vec::new();
    for entry in world.resource::<IngressHistory>().entries() {
        append(&entry, &mut statuses);
        if statuses.len() >= STATUSES_BYTES {
            writer.record(FrameKind::Statuses, &statuses)?;
            statuses.clear();
        }
    }
    writer.record(FrameKind::Statuses, &statuses)?;
    let ids: Vec<CanisterId> = world.resource::<Directory>().iter().map(|(id, _)| id).collect();
    let mut written = BTreeSet::new();
    for id in ids {
        let mut modules = Modules::new();
        let record = record_of(world, id, &mut modules, writer)?;
        // A module comes before the first canister that names it.
        for (key, module) in modules {
            if written.insert(key) {
                writer.record(FrameKind::Module, module.wasm())?;
            }
        }
        put(writer, FrameKind::Canister, &record)?;
    }
    Ok(())
}

fn record_of<D: Disk>(
    world: &mut World,
    id: CanisterId,
    modules: &mut Modules,
    writer: &mut CheckpointWriter<'_, D>,
) -> Result<CanisterRecord, StorageError> {
    let entity = world.resource::<Directory>().entity(id).expect("a listed canister has an entity");
    let queue = world.get::<InputQueue>(entity).expect("a canister has a queue");
    let pool = world.resource::<Pool<Message>>();
    let message = |slot: &MessageIx| {
        let message = pool.entity(slot.0).and_then(|entity| world.get::<Message>(entity));
        message.expect("a queued message is in the pool").clone()
    };
    let (messages, tasks) = (queue.messages.iter().map(message).collect(), queue.tasks.clone());
    let priority = *world.get::<Priority>(entity).expect("a canister has a priority");
    let active = world.resource::<ActiveSet>().contains(id);
    let timer_at = world.resource::<Timers>().0.get(id);
    let due_at = world.resource::<Dues>().0.get(id);
    let stop_at = world.resource::<StopDeadlines>().0.get(id);
    let mut state = world.query::<CanisterData>();
    let canister = CanisterMut::from(state.get_mut(world, entity).expect("a listed canister has its components"));
    let program = ProgramRecord::of(canister.program, canister.paused, modules, &mut Pages(writer))?;
    Ok(CanisterRecord {
        id,
        controllers: canister.controllers.clone(),
        balance: *canister.balance,
        reserved: *canister.reserved,
        version: *canister.version,
        certified_data: canister.certified_data.clone(),
        timer: *canister.timer,
        paid_until: *canister.paid_until,
        run_state: canister.run_state.clone(),
        settings: canister.settings.clone(),
        contexts: canister.contexts.clone(),
        log: canister.log.clone(),
        chunks: canister.chunks.clone(),
        history: canister.history.clone(),
        low_memory: *canister.low_memory,
        program,
        messages,
        tasks,
        priority,
        active,
        timer_at,
        due_at,
        stop_at,
    })
}

/// Fills an empty world; `env` gives what a round is told of its batch. Returns where the subnet was, and what made its last round.
///
/// Errors: the checkpoint is damaged, of another version, or does not come to the root that it names.
pub fn restore<F: DiskFile>(
    world: &mut World,
    machine: &Arc<Machine>,
    reader: &mut CheckpointReader<F>,
    env: impl FnOnce(Position, [u8; 32], &World) -> RoundEnv,
) -> Result<(Position, Program), StorageError> {
    let Some(frame) = reader.next_record()?.filter(|frame| frame.kind == FrameKind::Subnet) else {
        return Err(reader.malformed("it does not begin with the subnet"));
    };
    let Versioned { version } = decode(reader, &frame.content)?;
    if version != VERSION {
        return Err(reader.other_version(version));
    }
    let subnet: SubnetRecord = decode(reader, &frame.content)?;
    if subnet.position.height.0 != frame.height {
        return Err(reader.malformed("its records are of another height"));
    }
    let mut history = Vec::new();
    let mut modules = Modules::new();
    while let Some(frame) = reader.next_record()? {
        match frame.kind {
            FrameKind::Statuses => {
                let mut rest = &*frame.content;
                while !rest.is_empty() {
                    let entry: Result<(MessageId, Entry), _> = ciborium::from_reader(&mut rest);
                    history.push(entry.map_err(|_| reader.malformed("a record is not of its kind"))?);
                }
            }
            FrameKind::Module => {
                let module = machine.engine.compile(&frame.content);
                let module = module.map_err(|_| reader.malformed("a module is none that this program takes"))?;
                modules.insert(*module.hash(), module);
            }
            FrameKind::Canister => {
                let record = decode(reader, &frame.content)?;
                restore_canister(world, machine, record, &modules, reader)?;
            }
            _ => return Err(reader.malformed("a frame has no place in a checkpoint")),
        }
    }
    let (position, randomness, program) = (subnet.position, subnet.randomness, subnet.program.clone());
    restore_subnet(world, subnet, history);
    world.insert_resource(CurrentRound(env(position, randomness, world)));
    // What the outside sees of it all is made anew, and must be what it was.
    let ids = world.resource::<Directory>().iter().map(|(id, _)| id).collect();
    world.resource_mut::<Touched>().0 = ids;
    world.run_system_cached(certify).expect("the system runs on this world");
    let view = world.resource_mut::<crate::certify::View>().0.take();
    match view {
        Some(Ok(view)) if view.root == position.root => Ok((position, program)),
        _ => Err(reader.unfaithful()),
    }
}

fn decode<T: DeserializeOwned>(reader: &CheckpointReader<impl DiskFile>, bytes: &[u8]) -> Result<T, StorageError> {
    ciborium::from_reader(bytes).map_err(|_| reader.malformed("a record is not of its kind"))
}

fn restore_subnet(world: &mut World, subnet: SubnetRecord, history: Vec<(MessageId, Entry)>) {
    let mut lines = ManagementLines::default();
    let waiting = subnet.inbox.iter().filter_map(|message| match message {
        Message::Ingress(ingress) => Some(ManagementCall::from(ingress.clone())),
        Message::Request(request) => Some(ManagementCall::from(request.clone())),
        Message::Response(_) | Message::Vacant => None,
    });
    let deferred = subnet.next_round.iter().chain(subnet.busy.values().flatten());
    for line in waiting.map(|call| call.line()).chain(deferred.map(ManagementCall::line)) {
        // Each had its place: there is room.
        let _had_its_place = lines.enter(line, u32::MAX);
    }
    world.insert_resource(lines);
    world.insert_resource(subnet.tally);
    world.insert_resource(ManagementInbox(subnet.inbox));
    world.insert_resource(Deferred { next_round: subnet.next_round, busy: subnet.busy });
    world.insert_resource(Ids(subnet.ids));
    world.insert_resource(Deadlines { open: subnet.open, timed_out: subnet.timed_out });
    world.insert_resource(Installing(subnet.installing));
    world.insert_resource(IngressHistory::of_entries(history, subnet.answered_count));
}

fn restore_canister<F: DiskFile>(
    world: &mut World,
    machine: &Arc<Machine>,
    record: CanisterRecord,
    modules: &Modules,
    reader: &mut CheckpointReader<F>,
) -> Result<(), StorageError> {
    let CanisterRecord { id, contexts, program, messages, tasks, priority, .. } = record;
    if world.resource::<Directory>().entity(id).is_some() {
        return Err(reader.malformed("a canister is there twice"));
    }
    if messages.iter().any(|message| matches!(message, Message::Vacant)) {
        return Err(reader.malformed("a message that waits is none"));
    }
    let restored = program.restore(machine, modules, &mut Source(reader));
    let (program, paused) = restored.map_err(|error| match error {
        RestoreError::Page(error) => error,
        RestoreError::Record(what) => reader.malformed(what),
    })?;
    let mut open_calls = BTreeMap::new();
    for callback in contexts.callbacks.values() {
        *open_calls.entry(callback.callee).or_default() += 1;
    }
    let mut canister = CanisterBundle {
        controllers: record.controllers,
        balance: record.balance,
        reserved: record.reserved,
        version: record.version,
        certified_data: record.certified_data,
        timer: record.timer,
        paid_until: record.paid_until,
        run_state: record.run_state,
        settings: record.settings,
        contexts,
        open_calls: OpenCalls(Arc::new(open_calls)),
        log: record.log,
        chunks: record.chunks,
        history: record.history,
        low_memory: record.low_memory,
        program,
        paused,
    };
    let mut counted = Counted::default();
    world.resource_mut::<Totals>().recount(&mut counted, use_of(&canister.borrow(id)));
    if canister.program.has_heartbeat() {
        world.resource_mut::<Heartbeats>().0.insert(id);
    }
    let mut queue = InputQueue { tasks, ..InputQueue::default() };
    Pool::<Message>::reserve(world, messages.len(), || Message::Vacant);
    for message in messages {
        let place = place_of(&message);
        let stored = world.run_system_cached_with(store, message);
        let slot = stored.expect("the system runs on this world").expect("a slot was reserved");
        enqueue(&mut queue, place, MessageIx(slot));
    }
    let entity = world.spawn((id, canister, queue, priority, counted, Shown::default())).id();
    let ix = world.resource_mut::<Directory>().insert(id, entity);
    world.entity_mut(entity).insert(ix);
    if record.active {
        world.resource_mut::<ActiveSet>().insert(id, ix);
    }
    world.resource_mut::<Timers>().0.set(id, record.timer_at);
    world.resource_mut::<Dues>().0.set(id, record.due_at);
    world.resource_mut::<StopDeadlines>().0.set(id, record.stop_at);
    Ok(())
}

fn store(
    bevy_ecs::system::In(message): bevy_ecs::system::In<Message>,
    mut pool: ResMut<Pool<Message>>,
    mut slots: Query<&mut Message>,
) -> Option<u32> {
    pool.put(&mut slots, message).ok()
}
