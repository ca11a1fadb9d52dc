//! Records: the subnet and its canisters as a checkpoint keeps them, and the world again from them.
//!
//! Invariant owned here: what a record says follows from the state alone. Which program made the last round, and where pages are, stands beside it.

use crate::certify::certify;
use crate::checkpoint::kept::{Held, Kept};
use crate::management::{Deferred, Ids};
use crate::program::Program;
use crate::totals::{Counted, Totals, use_of};
use bevy_ecs::world::EntityRef;
use cyclotron_execution::management::{CanisterIds, ManagementCall, PendingInstall};
use cyclotron_execution::record::{Malformed, Modules, ProgramRecord, SavedProgram, Stored};
use cyclotron_execution::{CanisterBundle, LowMemoryHook, Machine, OpenCalls, Program as CanisterProgram, RoundEnv};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageStore};
use cyclotron_ports::DiskFile;
use cyclotron_routing::{
    ActiveSet, CurrentRound, Deadlines, Directory, Dues, Entry, IngressHistory, ManagementInbox, ManagementLines,
    Outbox, StopDeadlines, Stopping, Tally, Timers, Touched, enqueue, place_of,
};
use cyclotron_scheduling::{Heartbeats, Installing, Workers};
use cyclotron_storage::checkpoint::{Entry as Named, PageFiles, RecordAt, StateReader, decode_entries, decode_places};
use cyclotron_storage::{FrameKind, StorageError};
use cyclotron_types::canister::{
    CallContexts, CanisterHistory, CanisterLog, CanisterVersion, CertifiedData, ChunkStore, Controllers, CyclesBalance,
    GlobalTimer, InputQueue, PaidUntil, Priority, ReservedBalance, RunState, Settings, SharedSettings,
};
use cyclotron_types::ids::{CallbackId, CanisterId, MessageId, MessageIx};
use cyclotron_types::limits::REQUEST_BYTES_MAX;
use cyclotron_types::message::{Message, SystemTask};
use cyclotron_types::units::{Height, Time};
use cyclotron_world::prelude::*;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Version of the records; part of the first one.
const VERSION: u32 = 3;
/// Pages of records read at once.
const PIECE_PAGES: u32 = 64;
/// Bytes of a message at most, but for what is small.
const MESSAGE_BYTES: u64 = REQUEST_BYTES_MAX.0;
/// Canisters that a thread rebuilds before it takes more work: their records are some pieces.
const REBUILT_AT_ONCE: usize = 512;

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
pub(super) struct SubnetRecord {
    version: u32,
    position: Position,
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
    /// Canisters that have something to do.
    active: BTreeSet<CanisterId>,
    answered_count: u64,
}

/// One canister, as it is in the world or was read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanisterRecord<'a> {
    id: CanisterId,
    controllers: Cow<'a, Controllers>,
    balance: CyclesBalance,
    reserved: ReservedBalance,
    version: CanisterVersion,
    certified_data: Cow<'a, CertifiedData>,
    timer: GlobalTimer,
    paid_until: PaidUntil,
    run_state: Cow<'a, RunState>,
    settings: Cow<'a, Settings>,
    contexts: Cow<'a, CallContexts>,
    log: Cow<'a, CanisterLog>,
    chunks: Cow<'a, ChunkStore>,
    history: Cow<'a, CanisterHistory>,
    low_memory: LowMemoryHook,
    program: Cow<'a, ProgramRecord>,
    messages: Vec<Cow<'a, Message>>,
    tasks: Cow<'a, VecDeque<SystemTask>>,
    priority: Priority,
    /// When it is looked at: these were computed when it last ran, from the time of that round.
    timer_at: Option<Time>,
    due_at: Option<Time>,
    stop_at: Option<Time>,
}

/// Bytes that the record of a canister takes at most, but for what is small.
pub(super) fn bytes_at_most(world: &World, entity: Entity) -> u64 {
    let canister = world.entity(entity);
    let (queue, chunks): (&InputQueue, &ChunkStore) = (part(canister), part(canister));
    let chunks: u64 = chunks.0.values().map(|chunk| chunk.len() as u64).sum();
    chunks + queue.messages.len() as u64 * MESSAGE_BYTES
}

/// Appends the CBOR of a record.
pub(super) fn append(record: &impl Serialize, out: &mut Vec<u8>) {
    ciborium::into_writer(record, out).expect("records have a CBOR form, and a vector takes any bytes");
}

impl SubnetRecord {
    /// Panics: within a round.
    pub(super) fn of(world: &World, position: Position) -> Self {
        assert!(
            world.resource::<Outbox>().0.is_empty() && world.resource::<Stopping>().0.is_empty(),
            "the round is over"
        );
        let Deferred { next_round, busy } = world.resource::<Deferred>().clone();
        let Deadlines { open, timed_out } = world.resource::<Deadlines>().clone();
        Self {
            version: VERSION,
            position,
            randomness: world.resource::<CurrentRound>().0.randomness,
            tally: *world.resource::<Tally>(),
            inbox: world.resource::<ManagementInbox>().0.clone(),
            next_round,
            busy,
            ids: world.resource::<Ids>().0.clone(),
            open,
            timed_out,
            installing: world.resource::<Installing>().0.clone(),
            active: world.resource::<ActiveSet>().iter().map(|(id, _)| id).collect(),
            answered_count: world.resource::<IngressHistory>().answered_count(),
        }
    }
}

/// Records a canister whose code and memories have their record already.
///
/// Panics: when it is not there.
pub(super) fn record_of<'w>(
    world: &'w World,
    id: CanisterId,
    entity: Entity,
    program: &'w ProgramRecord,
) -> CanisterRecord<'w> {
    let canister = world.entity(entity);
    let queue: &InputQueue = part(canister);
    let pool = world.resource::<Pool<Message>>();
    let message = |slot: &MessageIx| {
        let message = pool.entity(slot.0).and_then(|entity| world.get::<Message>(entity));
        Cow::Borrowed(message.expect("a queued message is in the pool"))
    };
    CanisterRecord {
        id,
        controllers: Cow::Borrowed(part(canister)),
        balance: *part(canister),
        reserved: *part(canister),
        version: *part(canister),
        certified_data: Cow::Borrowed(part(canister)),
        timer: *part(canister),
        paid_until: *part(canister),
        run_state: Cow::Borrowed(part(canister)),
        settings: Cow::Borrowed(part::<SharedSettings>(canister)),
        contexts: Cow::Borrowed(part(canister)),
        log: Cow::Borrowed(part(canister)),
        chunks: Cow::Borrowed(part(canister)),
        history: Cow::Borrowed(part(canister)),
        low_memory: *part(canister),
        program: Cow::Borrowed(program),
        messages: queue.messages.iter().map(message).collect(),
        tasks: Cow::Borrowed(&queue.tasks),
        priority: *part(canister),
        timer_at: world.resource::<Timers>().0.get(id),
        due_at: world.resource::<Dues>().0.get(id),
        stop_at: world.resource::<StopDeadlines>().0.get(id),
    }
}

fn part<'w, T: Component>(canister: EntityRef<'w>) -> &'w T {
    canister.get::<T>().expect("a listed canister has its components")
}

/// Records on pages, read in pieces.
struct Records<'a, F> {
    files: &'a PageFiles<F>,
    /// How many pages each file has.
    pages: &'a BTreeMap<u32, u32>,
    /// The piece read last, and where it is.
    piece: Vec<u8>,
    at: PageAt,
}

impl<'a, F: DiskFile> Records<'a, F> {
    fn new(files: &'a PageFiles<F>, pages: &'a BTreeMap<u32, u32>) -> Self {
        Self { files, pages, piece: Vec::new(), at: PageAt { file: 0, index: 0 } }
    }

    /// The bytes of a record; `None`: it is not in its file.
    fn get(&mut self, at: RecordAt) -> Result<Option<&[u8]>, StorageError> {
        let needed = u64::from(at.offset).saturating_add(at.length).div_ceil(PAGE as u64);
        let Some(left) = self.pages.get(&at.page.file).and_then(|pages| pages.checked_sub(at.page.index)) else {
            return Ok(None);
        };
        if at.offset >= PAGE as u32 || needed > u64::from(left) {
            return Ok(None);
        }
        let held = (self.piece.len() / PAGE) as u64;
        let behind = u64::from(at.page.index).checked_sub(u64::from(self.at.index));
        let first = behind.filter(|behind| at.page.file == self.at.file && behind + needed <= held);
        let first = match first {
            Some(first) => first as usize,
            None => {
                let count = needed.max(u64::from(left.min(PIECE_PAGES)));
                self.piece.resize(count as usize * PAGE, 0);
                self.at = at.page;
                self.files.pages(at.page, &mut self.piece)?;
                0
            }
        };
        let start = first * PAGE + at.offset as usize;
        Ok(Some(&self.piece[start..start + at.length as usize]))
    }
}

/// What a round is told of its batch: position and randomness of the last one.
pub(crate) type EnvOf<'a> = dyn Fn(Position, [u8; 32], &World) -> RoundEnv + 'a;

/// What the files of a checkpoint hold.
pub(crate) struct Restored {
    pub position: Position,
    pub program: Program,
    pub state_hash: Option<[u8; 32]>,
    pub kept: Kept,
}

/// Fills an empty world; `env` gives what a round is told of its batch. The files that `reader` names are open in `files`, `pages` long.
///
/// Errors: the checkpoint is damaged, of another version, or does not come to the root that it names.
pub(super) fn restore<F: DiskFile + 'static>(
    world: &mut World,
    machine: &Arc<Machine>,
    reader: &mut StateReader<F>,
    (files, pages): (&Arc<PageFiles<F>>, &BTreeMap<u32, u32>),
    env: &EnvOf<'_>,
) -> Result<Restored, StorageError> {
    let Some(frame) = reader.next_record()?.filter(|frame| frame.kind == FrameKind::Program) else {
        return Err(reader.malformed("it does not go on with the program that made the last round"));
    };
    let Some(program) = Program::decode(&frame.content) else {
        return Err(reader.malformed("it names no program"));
    };
    let mut next = reader.next_record()?;
    let mut state_hash = None;
    if let Some(frame) = next.take_if(|frame| frame.kind == FrameKind::StateHash) {
        let hash = frame.content.try_into().map_err(|_| reader.malformed("a state hash is not 32 bytes"))?;
        (state_hash, next) = (Some(hash), reader.next_record()?);
    }
    let Some(frame) = next.filter(|frame| frame.kind == FrameKind::Subnet) else {
        return Err(reader.malformed("it does not go on with the subnet"));
    };
    let Versioned { version } = decode(reader, &frame.content)?;
    if version != VERSION {
        return Err(reader.other_version(version, VERSION));
    }
    let subnet: SubnetRecord = decode(reader, &frame.content)?;
    if subnet.position.height.0 != frame.height {
        return Err(reader.malformed("its records are of another height"));
    }
    let mut history = Vec::new();
    let mut modules = Modules::new();
    let stored = Stored { store: Arc::clone(files) as _, files: pages.clone() };
    let mut records = Records::new(files, pages);
    let mut kept = Kept::default();
    for (&number, &pages) in pages {
        kept.file(number, pages);
    }
    while let Some(frame) = reader.next_record()? {
        match frame.kind {
            FrameKind::Statuses => {
                let mut rest = &*frame.content;
                while !rest.is_empty() {
                    let entry: Result<(MessageId, Entry), _> = ciborium::from_reader(&mut rest);
                    history.push(entry.map_err(|_| reader.malformed(NOT_OF_ITS_KIND))?);
                }
            }
            FrameKind::Modules => {
                for (key, at) in entries(reader, &frame.content)? {
                    let Some(wasm) = records.get(at)? else { return Err(reader.malformed(NO_RECORD)) };
                    let module = machine.engine.compile(wasm);
                    let module = module.map_err(|_| reader.malformed("a module is none that this program takes"))?;
                    if module.hash() != key {
                        return Err(reader.malformed("a module is not the one that is named"));
                    }
                    kept.module(&module, at);
                    modules.insert(*module.hash(), module);
                }
            }
            FrameKind::Canisters => {
                let mut entries = entries(reader, &frame.content)?;
                entries.sort_by_key(|(_, at)| *at);
                let rebuild = |entries: &[Named<'_>]| {
                    let mut records = Records::new(files, pages);
                    let rebuild =
                        |entry: &Named<'_>| Rebuilt::of(*entry, &mut records, machine, &modules, &stored, &kept);
                    entries.iter().map(rebuild).collect::<Vec<_>>()
                };
                let workers = &world.resource::<Workers>().0;
                let rebuilt: Vec<_> = workers.install(|| entries.par_chunks(REBUILT_AT_ONCE).map(rebuild).collect());
                for rebuilt in rebuilt.into_iter().flatten() {
                    let rebuilt = rebuilt.map_err(|refused| refused.explain(reader))?;
                    let (id, held) = rebuilt.spawn(world).map_err(|Malformed(what)| reader.malformed(what))?;
                    kept.canister(id, Some(held));
                }
            }
            _ => return Err(reader.malformed("a frame has no place in a checkpoint")),
        }
    }
    for id in &subnet.active {
        let Some(ix) = world.resource::<Directory>().ix(*id) else {
            return Err(reader.malformed("a canister has something to do and is not there"));
        };
        world.resource_mut::<ActiveSet>().insert(*id, ix);
    }
    let (position, randomness) = (subnet.position, subnet.randomness);
    restore_subnet(world, subnet, history);
    world.insert_resource(CurrentRound(env(position, randomness, world)));
    // What the outside sees of it all is made anew, and must be what it was.
    let ids = world.resource::<Directory>().iter().map(|(id, _)| id).collect();
    world.resource_mut::<Touched>().0 = ids;
    world.run_system_cached(certify).expect("the system runs on this world");
    let view = world.resource_mut::<crate::certify::View>().0.take();
    match view {
        Some(Ok(view)) if view.root == position.root => Ok(Restored { position, program, state_hash, kept }),
        _ => Err(reader.unfaithful()),
    }
}

const NO_RECORD: &str = "a record is not where it should be";
const NOT_OF_ITS_KIND: &str = "a record is not of its kind";

fn entries<'a>(reader: &StateReader<impl DiskFile>, content: &'a [u8]) -> Result<Vec<Named<'a>>, StorageError> {
    decode_entries(content).collect::<Option<Vec<_>>>().ok_or_else(|| reader.malformed("an entry is cut off"))
}

fn decode<T: DeserializeOwned>(reader: &StateReader<impl DiskFile>, bytes: &[u8]) -> Result<T, StorageError> {
    ciborium::from_reader(bytes).map_err(|_| reader.malformed(NOT_OF_ITS_KIND))
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

/// A canister that was read, on its way into the world.
struct Rebuilt {
    id: CanisterId,
    canister: CanisterBundle,
    messages: Vec<Message>,
    tasks: VecDeque<SystemTask>,
    priority: Priority,
    timer_at: Option<Time>,
    due_at: Option<Time>,
    stop_at: Option<Time>,
    held: Held,
}

/// Why a canister cannot be rebuilt.
enum Refused {
    Malformed(&'static str),
    Storage(StorageError),
}

impl From<StorageError> for Refused {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

impl Refused {
    fn explain(self, reader: &StateReader<impl DiskFile>) -> StorageError {
        match self {
            Self::Malformed(what) => reader.malformed(what),
            Self::Storage(error) => error,
        }
    }
}

impl Rebuilt {
    /// Reads what an entry names. Nothing of the world is needed: many threads do this at once.
    fn of<F: DiskFile>(
        (name, at): Named<'_>,
        records: &mut Records<'_, F>,
        machine: &Arc<Machine>,
        modules: &Modules,
        stored: &Stored,
        kept: &Kept,
    ) -> Result<Self, Refused> {
        let bytes = records.get(at)?.ok_or(Malformed(NO_RECORD))?;
        let (places, content) = decode_places(bytes).ok_or(Malformed(NO_RECORD))?;
        let record: Result<CanisterRecord<'static>, _> = ciborium::from_reader(content);
        let record = record.map_err(|_| Malformed(NOT_OF_ITS_KIND))?;
        let CanisterRecord { id, priority, timer_at, due_at, stop_at, .. } = record;
        if id.as_slice() != name {
            return Err(Refused::Malformed("a canister is not the one that is named"));
        }
        let messages: Vec<Message> = record.messages.into_iter().map(Cow::into_owned).collect();
        if messages.iter().any(|message| matches!(message, Message::Vacant)) {
            return Err(Refused::Malformed("a message that waits is none"));
        }
        let held = Held::of(&record.program, &places, at, kept);
        let (program, paused) = record.program.into_owned().restore(machine, modules, places, stored)?;
        let contexts = record.contexts.into_owned();
        let mut open_calls = OpenCalls::default();
        contexts.callbacks.values().for_each(|callback| open_calls.open(callback.callee));
        let canister = CanisterBundle {
            controllers: record.controllers.into_owned(),
            balance: record.balance,
            reserved: record.reserved,
            version: record.version,
            certified_data: record.certified_data.into_owned(),
            timer: record.timer,
            paid_until: record.paid_until,
            run_state: record.run_state.into_owned(),
            settings: record.settings.into_owned().into(),
            contexts,
            open_calls,
            log: record.log.into_owned(),
            chunks: record.chunks.into_owned(),
            history: record.history.into_owned(),
            low_memory: record.low_memory,
            program,
            paused,
        };
        let tasks = record.tasks.into_owned();
        Ok(Self { id, canister, messages, tasks, priority, timer_at, due_at, stop_at, held })
    }

    /// Puts it into the world; returns where it is kept.
    fn spawn(mut self, world: &mut World) -> Result<(CanisterId, Held), Malformed> {
        let id = self.id;
        if world.resource::<Directory>().entity(id).is_some() {
            return Err(Malformed("a canister is there twice"));
        }
        let mut counted = Counted::default();
        world.resource_mut::<Totals>().recount(&mut counted, use_of(&self.canister.borrow(id)));
        if self.canister.program.has_heartbeat() {
            world.resource_mut::<Heartbeats>().0.insert(id);
        }
        let mut queue = InputQueue { tasks: self.tasks, ..InputQueue::default() };
        Pool::<Message>::reserve(world, self.messages.len(), || Message::Vacant);
        for message in self.messages {
            let place = place_of(&message);
            let stored = world.run_system_cached_with(store, message);
            let slot = stored.expect("the system runs on this world").expect("a slot was reserved");
            enqueue(&mut queue, place, MessageIx(slot));
        }
        let entity = world.spawn((id, self.canister, queue, self.priority, counted)).id();
        let ix = world.resource_mut::<Directory>().insert(id, entity);
        world.entity_mut(entity).insert(ix);
        world.resource_mut::<Timers>().0.set(id, self.timer_at);
        world.resource_mut::<Dues>().0.set(id, self.due_at);
        world.resource_mut::<StopDeadlines>().0.set(id, self.stop_at);
        Ok((id, self.held))
    }
}

fn store(
    bevy_ecs::system::In(message): bevy_ecs::system::In<Message>,
    mut pool: ResMut<Pool<Message>>,
    mut slots: Query<&mut Message>,
) -> Option<u32> {
    pool.put(&mut slots, message).ok()
}

/// Tells memories that what was taken of them is in `store`, or that it is not kept.
pub(crate) fn settle(world: &mut World, saved: &[(CanisterId, SavedProgram)], store: Option<&Arc<dyn PageStore>>) {
    for (id, saved) in saved {
        let entity = world.resource::<Directory>().entity(*id);
        if let Some(mut program) = entity.and_then(|entity| world.get_mut::<CanisterProgram>(entity)) {
            saved.settle(&mut program, store);
        }
    }
}
