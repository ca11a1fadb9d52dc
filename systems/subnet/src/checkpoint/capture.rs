//! What a checkpoint keeps, taken from the world while no round runs.

use crate::checkpoint::Changed;
use crate::checkpoint::kept::{Held, Kept};
use crate::checkpoint::record::{Position, SubnetRecord, append, record_of};
use crate::program::Program;
use crate::state_hash::kept_state_hash;
use cyclotron_execution::record::{Modules, PageSink, Places, ProgramRecord, SavedProgram};
use cyclotron_heap::PageAt;
use cyclotron_heap::layout::PAGE;
use cyclotron_routing::{Directory, IngressHistory};
use cyclotron_storage::FrameKind;
use cyclotron_storage::checkpoint::{RecordAt, encode_entry, encode_places};
use cyclotron_types::ids::CanisterId;
use cyclotron_wasm::Module;
use cyclotron_world::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Bytes of pages and of records that are handed over at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a frame of statuses or entries beyond which another is begun.
const FRAME_BYTES: usize = 1 << 20;

/// What the new file of pages holds next.
#[derive(Debug)]
pub(super) enum Piece {
    /// These pages.
    Pages(Vec<u8>),
    /// Pages of another file.
    Copy(PageAt, u32),
}

/// What was taken of a canister's memories.
pub(crate) type Saved = Vec<(CanisterId, SavedProgram)>;

/// The frames of the state file.
pub(super) type Frames = Vec<(FrameKind, Vec<u8>)>;

/// The new file as it comes to be. The places of pages are counted here, the bytes go to the thread that writes them.
struct File<'a> {
    number: u32,
    /// Pages so far.
    next: u32,
    /// Files whose pages are to be kept anew.
    leave: &'a BTreeSet<u32>,
    /// Pages that are not handed over yet.
    pages: Vec<u8>,
    /// Records that have no page yet, and their places behind the first byte of these.
    records: Vec<u8>,
    waiting: Vec<(Name, u32, u32)>,
    out: &'a SyncSender<Piece>,
}

/// Whose record it is.
enum Name {
    Canister(CanisterId, Box<(ProgramRecord, Places)>),
    Module(Arc<Module>),
}

impl File<'_> {
    fn hand_over(&mut self, piece: Piece) {
        // The thread is gone when it failed, and says why.
        let _ = self.out.send(piece);
    }

    fn hand_over_pages(&mut self) {
        if !self.pages.is_empty() {
            let pages = std::mem::replace(&mut self.pages, Vec::with_capacity(PIECE_BYTES));
            self.hand_over(Piece::Pages(pages));
        }
    }

    fn record(&mut self, name: Name, bytes: &[u8], kept: &mut Kept) {
        let length = u32::try_from(bytes.len()).expect("a record is far below 4 GiB");
        self.waiting.push((name, self.records.len() as u32, length));
        self.records.extend_from_slice(bytes);
        if self.records.len() >= PIECE_BYTES {
            self.place_records(kept);
        }
    }

    /// Gives the records that wait their pages, and notes where they are.
    fn place_records(&mut self, kept: &mut Kept) {
        self.hand_over_pages();
        let first = PageAt { file: self.number, index: self.next };
        self.records.resize(self.records.len().next_multiple_of(PAGE), 0);
        self.next += (self.records.len() / PAGE) as u32;
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            self.hand_over(Piece::Pages(records));
        }
        for (name, offset, length) in std::mem::take(&mut self.waiting) {
            let page = PageAt { index: first.index + offset / PAGE as u32, ..first };
            let at = RecordAt { page, offset: offset % PAGE as u32, length };
            match name {
                // A module is kept before the canisters that name it.
                Name::Module(code) => kept.module(&code, at),
                Name::Canister(id, record) => {
                    let held = Held::of(&record.0, &record.1, at, kept);
                    kept.canister(id, Some(held));
                }
            }
        }
    }
}

impl PageSink for File<'_> {
    fn page(&mut self, content: &[u8; PAGE]) -> PageAt {
        let at = PageAt { file: self.number, index: self.next };
        self.next += 1;
        self.pages.extend_from_slice(content);
        if self.pages.len() >= PIECE_BYTES {
            self.hand_over_pages();
        }
        at
    }

    fn leaves(&self, file: u32) -> bool {
        self.leave.contains(&file)
    }

    fn copy(&mut self, at: PageAt, count: u32) -> PageAt {
        self.hand_over_pages();
        self.hand_over(Piece::Copy(at, count));
        let to = PageAt { file: self.number, index: self.next };
        self.next += count;
        to
    }
}

/// Takes what changed since the last checkpoint, and gives it to `out`; brings `kept` up to date as if it were written already. `state_hash` is known of
/// this state, or not. Returns what was taken of memories, and the frames of the state file. Cost: O(pages changed, runs of changed memories), and an entry for each canister.
///
/// Panics: when a message is suspended, which only a round at a checkpoint height rules out.
pub(super) fn capture(
    world: &mut World,
    position: Position,
    (program, state_hash): (&Program, Option<[u8; 32]>),
    kept: &mut Kept,
    number: u32,
    out: &SyncSender<Piece>,
) -> (Saved, Frames) {
    let subnet = SubnetRecord::of(world, position);
    let leave = kept.files_to_leave();
    let mut changed = std::mem::take(&mut world.resource_mut::<Changed>().ids);
    if !std::mem::replace(&mut world.resource_mut::<Changed>().kept, true) {
        changed.extend(world.resource::<Directory>().iter().map(|(id, _)| id));
    }
    let (canisters, modules) = kept.in_files(&leave);
    changed.extend(canisters);
    let mut file = File {
        number,
        next: 0,
        leave: &leave,
        pages: Vec::with_capacity(PIECE_BYTES),
        records: Vec::new(),
        waiting: Vec::new(),
        out,
    };
    // Places in it are counted before it is known how long it becomes.
    kept.file(number, 0);
    let mut written = BTreeSet::new();
    for code in modules {
        written.insert(*code.hash());
        file.record(Name::Module(Arc::clone(&code)), code.wasm(), kept);
    }
    let mut saved = Vec::new();
    let mut bytes = Vec::new();
    for id in changed {
        if world.resource::<Directory>().entity(id).is_none() {
            kept.canister(id, None);
            continue;
        }
        let mut modules = Modules::new();
        let (record, memories) = record_of(world, id, &mut modules, &mut file);
        let places = memories.as_ref().map(SavedProgram::places).unwrap_or_default();
        saved.extend(memories.map(|memories| (id, memories)));
        for (key, module) in &modules {
            if kept.name_module(key, &leave).is_none() && written.insert(*key) {
                file.record(Name::Module(Arc::clone(module)), module.wasm(), kept);
            }
        }
        bytes.clear();
        encode_places(&places, &mut bytes);
        append(&record, &mut bytes);
        file.record(Name::Canister(id, Box::new((record.program, places))), &bytes, kept);
    }
    file.place_records(kept);
    file.hand_over_pages();
    kept.file(number, file.next);
    kept.forget_unnamed_modules();
    let mut frames = vec![(FrameKind::Program, program.encode())];
    // Where nobody compares state hashes, none is at hand, and making one takes a look at all pages.
    frames.extend(kept_state_hash(world).or(state_hash).map(|hash| (FrameKind::StateHash, hash.to_vec())));
    frames.push((FrameKind::Subnet, encode(&subnet)));
    frames.extend(statuses(world.resource::<IngressHistory>()).into_iter().map(|bytes| (FrameKind::Statuses, bytes)));
    let modules = kept.modules().map(|(key, module)| (key.as_slice(), module.at));
    frames.extend(entries(modules).into_iter().map(|bytes| (FrameKind::Modules, bytes)));
    let canisters = kept.canisters().map(|(id, held)| (id.as_slice(), held.at));
    frames.extend(entries(canisters).into_iter().map(|bytes| (FrameKind::Canisters, bytes)));
    (saved, frames)
}

fn encode(record: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(record, &mut bytes);
    bytes
}

fn statuses(history: &IngressHistory) -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new()];
    for entry in history.entries() {
        let last = frames.last_mut().expect("there is one");
        append(&entry, last);
        if last.len() >= FRAME_BYTES {
            frames.push(Vec::new());
        }
    }
    frames
}

fn entries<'a>(entries: impl Iterator<Item = (&'a [u8], RecordAt)>) -> Vec<Vec<u8>> {
    let mut frames = vec![Vec::new()];
    for entry in entries {
        let last = frames.last_mut().expect("there is one");
        encode_entry(entry, last);
        if last.len() >= FRAME_BYTES {
            frames.push(Vec::new());
        }
    }
    frames
}
