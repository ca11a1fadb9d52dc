//! One hash of everything in the Replicated world: what tests, recordings and checkpoints compare.
//!
//! Enters: the world after a round, and which canisters changed. Leaves: 32 bytes. Never here: row numbers, entities, addresses.
//!
//! The hash is the root of a labelled tree (the same structure as the certified one) with a leaf for each canister's plain components,
//! each ingress status, each page of heap and stable memory that is not all zero, and one for what belongs to the subnet. A leaf holds the SHA-256 of a canonical
//! encoding: CBOR of the components in a fixed order, maps in the order of their keys. Messages are encoded where they wait, in
//! queue order. A suspended execution is its message, what has been paid for it and the instructions it has used, from which the rest of
//! it follows; its canister's memories count as they were before it. An installation under way is its terms and the instructions it has used.
//!
//! No part of it: height, time and randomness of the last batch, which logs keep; what follows from the rest, as alarms and sums do.
//!
//! Cost: O(canisters, statuses and pages changed since the last call), hashing included. A node that does not compare hashes
//! never pays it: changes are noted from the first call on.

use crate::management::{Deferred, Ids};
use cyclotron_certification::StateHasher;
use cyclotron_execution::{CanisterData, CanisterMut, Paused};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{Memory, MemoryId, MemoryKind};
use cyclotron_routing::{Deadlines, Directory, IngressHistory, ManagementInbox, Tally};
use cyclotron_scheduling::{Heartbeats, Installing};
use cyclotron_tree::LabeledTree;
use cyclotron_types::canister::{InputQueue, Priority};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::Message;
use cyclotron_wasm::runtime::Value;
use cyclotron_world::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the canonical encoding; part of what is hashed.
const VERSION: u32 = 3;

/// A canister's heap, and its stable memory if it has needed one.
type MemoryIds = (MemoryId, Option<MemoryId>);

/// The tree of leaf hashes, and what has changed since it was last brought up to date.
#[derive(Resource)]
pub struct StateHash {
    tree: LabeledTree,
    /// The memories whose pages the tree holds; a canister gets others when code is installed.
    memories: BTreeMap<CanisterId, MemoryIds>,
    canisters: BTreeSet<CanisterId>,
    statuses: BTreeSet<MessageId>,
    /// Set by the first call of [`state_hash`]: before it nothing is noted.
    kept: bool,
}

impl Default for StateHash {
    fn default() -> Self {
        Self {
            tree: LabeledTree::new(&[]),
            memories: BTreeMap::new(),
            canisters: BTreeSet::new(),
            statuses: BTreeSet::new(),
            kept: false,
        }
    }
}

impl StateHash {
    /// Notes that canisters may have changed, come or gone.
    pub fn canisters_changed(&mut self, ids: impl IntoIterator<Item = CanisterId>) {
        if self.kept {
            self.canisters.extend(ids);
        }
    }
    /// Notes that an ingress status has changed, come or gone.
    pub fn status_changed(&mut self, id: MessageId) {
        if self.kept {
            self.statuses.insert(id);
        }
    }
}

struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Hasher {
    fn new() -> Self {
        Self(Sha256::new())
    }
    fn put(&mut self, value: &impl Serialize) {
        ciborium::into_writer(value, &mut *self).expect("components have a CBOR form, and a hash takes any bytes");
    }
    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Brings the tree up to date and returns its root.
pub fn state_hash(world: &mut World) -> [u8; 32] {
    let mut state = world.remove_resource::<StateHash>().expect("the subnet keeps a state hash");
    let root = bring_up_to_date(world, &mut state);
    world.insert_resource(state);
    root
}

/// Likewise if there has been a first call; none otherwise.
pub fn kept_state_hash(world: &mut World) -> Option<[u8; 32]> {
    world.resource::<StateHash>().kept.then(|| state_hash(world))
}

/// The root of a tree made of the whole world, whatever was noted as changed: what [`state_hash`] must return. Cost: O(world).
pub fn whole_state_hash(world: &mut World) -> [u8; 32] {
    // The account of changed pages is kept for one reader, which takes it up first.
    state_hash(world);
    bring_up_to_date(world, &mut StateHash::default())
}

fn bring_up_to_date(world: &mut World, state: &mut StateHash) -> [u8; 32] {
    if !std::mem::replace(&mut state.kept, true) {
        state.canisters.extend(world.resource::<Directory>().iter().map(|(id, _)| id));
        state.statuses.extend(world.resource::<IngressHistory>().ids());
    }
    for id in std::mem::take(&mut state.canisters) {
        hash_canister(world, &mut state.tree, &mut state.memories, id);
    }
    let history = world.resource::<IngressHistory>();
    for id in std::mem::take(&mut state.statuses) {
        match history.get(&id) {
            Some(entry) => {
                let mut hasher = Hasher::new();
                hasher.put(entry);
                write(&mut state.tree, &[b"ingress", &id.0], &hasher.finish());
            }
            None => drop(state.tree.remove(&[b"ingress", &id.0])),
        }
    }
    write(&mut state.tree, &[b"subnet"], &hash_subnet(world));
    state.tree.rehash(&StateHasher)
}

fn write(tree: &mut LabeledTree, path: &[&[u8]], value: &[u8]) {
    tree.insert(path, value).expect("the paths of the state hash are prefix-free and their labels short");
}

fn hash_subnet(world: &World) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.put(&VERSION);
    hasher.put(world.resource::<Tally>());
    hasher.put(&world.resource::<ManagementInbox>().0);
    let Deferred { next_round, busy } = world.resource::<Deferred>();
    hasher.put(&(next_round, busy));
    hasher.put(&world.resource::<Ids>().0);
    let deadlines = world.resource::<Deadlines>();
    hasher.put(&(&deadlines.open, &deadlines.timed_out));
    hasher.put(&(&world.resource::<Heartbeats>().0, &world.resource::<Installing>().0));
    hasher.put(&world.resource::<IngressHistory>().answered_count());
    hasher.finish()
}

fn hash_canister(
    world: &mut World,
    tree: &mut LabeledTree,
    memories: &mut BTreeMap<CanisterId, MemoryIds>,
    id: CanisterId,
) {
    let canister: [&[u8]; 2] = [b"canister", id.as_slice()];
    let Some(entity) = world.resource::<Directory>().entity(id) else {
        tree.remove(&canister);
        memories.remove(&id);
        return;
    };
    let mut hasher = Hasher::new();
    let queue = world.get::<InputQueue>(entity).expect("a canister has a queue");
    let pool = world.resource::<Pool<Message>>();
    for slot in &queue.messages {
        let message =
            pool.entity(slot.0).and_then(|e| world.get::<Message>(e)).expect("a queued message is in the pool");
        hasher.put(message);
    }
    hasher.put(&(&queue.tasks, &queue.requests, queue.ingress));
    hasher.put(world.get::<Priority>(entity).expect("a canister has a priority"));

    let mut state = world.query::<CanisterData>();
    let data = state.get_mut(world, entity).expect("a listed canister has its components");
    let data = CanisterMut::from(data);
    hasher.put(&*data.controllers);
    hasher.put(&(
        &*data.balance,
        &*data.reserved,
        &*data.version,
        &*data.certified_data,
        &*data.timer,
        &*data.paid_until,
    ));
    hasher.put(&(&*data.run_state, &**data.settings, &*data.contexts, &*data.log, &*data.chunks, &*data.history));
    hasher.put(&(&*data.low_memory, &*data.open_calls));
    hash_paused(&mut hasher, data.paused);
    let Some(installed) = data.program.installed() else {
        write(tree, &[canister[0], canister[1], b"plain"], &hasher.finish());
        memories.remove(&id);
        tree.remove(&[canister[0], canister[1], b"heap"]);
        tree.remove(&[canister[0], canister[1], b"stable"]);
        return;
    };
    let (heap, stable) = (installed.heap(), installed.stable());
    hasher.put(&(&installed.module_hash, heap.size().0, stable.map_or(0, |stable| stable.size().0)));
    let ids = (heap.id(), stable.map(Memory::id));
    let known = memories.insert(id, ids);
    for value in installed.committed_globals(data.paused) {
        put_value(&mut hasher, &value);
    }
    hash_memory(tree, &[canister[0], canister[1], b"heap"], heap, known.is_some_and(|k| k.0 == ids.0));
    let path: [&[u8]; 3] = [canister[0], canister[1], b"stable"];
    match stable {
        Some(stable) => hash_memory(tree, &path, stable, known.is_some_and(|k| k.1 == ids.1)),
        None => drop(tree.remove(&path)),
    }
    write(tree, &[canister[0], canister[1], b"plain"], &hasher.finish());
    data.program.forget_dirty_pages();
}

/// The message or installation that is under way, and how far it is.
fn hash_paused(hasher: &mut Hasher, paused: &Paused) {
    match paused {
        Paused::None => hasher.put(&0u8),
        Paused::Suspended(suspended) => {
            hasher.put(&(1u8, suspended.job(), suspended.prior(), suspended.instructions_used()));
        }
        Paused::Aborted(aborted) => hasher.put(&(2u8, &aborted.job, aborted.prior())),
        Paused::Installing(install) => hasher.put(&(3u8, install.terms(), install.instructions_used())),
    }
}

/// A global by its type and bits. References into tables are null between messages of a replica; their index is canonical.
fn put_value(hasher: &mut Hasher, value: &Value) {
    match *value {
        Value::I32(v) => hasher.put(&(0u8, v)),
        Value::I64(v) => hasher.put(&(1u8, v)),
        Value::F32(bits) => hasher.put(&(2u8, bits)),
        Value::F64(bits) => hasher.put(&(3u8, bits)),
        Value::V128(bits) => hasher.put(&(4u8, bits)),
        Value::FuncRef(index) => hasher.put(&(5u8, index)),
        Value::ExternRef(number) => hasher.put(&(6u8, number)),
    }
}

/// Brings the leaves of a memory's pages up to date: of all of them for a memory not `known`, otherwise of those that changed.
fn hash_memory<K: MemoryKind>(tree: &mut LabeledTree, path: &[&[u8]; 3], memory: &Memory<K>, known: bool) {
    let read = memory.committed(|committed| {
        if !known || memory.dirty().is_none() {
            tree.remove(path);
            return committed.each_nonzero_page(|page, content| {
                write(tree, &[path[0], path[1], path[2], &page.0.to_be_bytes()], &Sha256::digest(content));
            });
        }
        let mut content = [0; PAGE];
        memory.dirty().iter().flat_map(|dirty| dirty.iter()).try_for_each(|page| {
            committed.read(page.address(), &mut content)?;
            let label = page.0.to_be_bytes();
            let path: [&[u8]; 4] = [path[0], path[1], path[2], &label];
            if content.iter().all(|&byte| byte == 0) {
                tree.remove(&path);
            } else {
                write(tree, &path, &Sha256::digest(content));
            }
            Ok(())
        })
    });
    read.unwrap_or_else(|error| panic!("a canister's memory cannot be read: {error}"));
}
