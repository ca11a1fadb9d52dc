//! What a checkpoint keeps, taken from the world while no round runs.

use crate::checkpoint::Changed;
use crate::checkpoint::kept::{Canisters, Held, Kept};
use crate::checkpoint::record::{Position, SubnetRecord, append, bytes_at_most, record_of};
use crate::program::Program;
use crate::state_hash::kept_state_hash;
use cyclotron_execution::record::{ModuleKey, Modules, PageSink, Places, ProgramRecord, SavedProgram};
use cyclotron_execution::{Paused, Program as CanisterProgram};
use cyclotron_heap::PageAt;
use cyclotron_heap::layout::PAGE;
use cyclotron_routing::{Directory, Entry, IngressHistory};
use cyclotron_scheduling::Workers;
use cyclotron_storage::FrameKind;
use cyclotron_storage::checkpoint::{RecordAt, encode_entry, encode_places};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_wasm::Module;
use cyclotron_world::prelude::*;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Bytes of pages and of records that are handed over at once.
const PIECE_BYTES: usize = 1 << 20;
/// Canisters whose records are made at once, and bytes beyond which it is fewer.
const RECORDED_AT_ONCE: usize = 4_096;
const RECORDED_BYTES: u64 = 64 << 20;
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

/// What the state file holds besides the files of pages, before it is bytes: the thread that writes it makes them.
pub(super) struct Contents {
    program: Vec<u8>,
    state_hash: Option<[u8; 32]>,
    subnet: Vec<u8>,
    statuses: Vec<(MessageId, Arc<Entry>)>,
    modules: Vec<(ModuleKey, RecordAt)>,
    canisters: Canisters,
}

impl Contents {
    /// The frames, and nothing is shared with the world any more. Cost: O(canisters, modules, n log n for n statuses).
    pub fn into_frames(mut self) -> Frames {
        let mut frames = vec![(FrameKind::Program, self.program)];
        frames.extend(self.state_hash.map(|hash| (FrameKind::StateHash, hash.to_vec())));
        frames.push((FrameKind::Subnet, self.subnet));
        self.statuses.sort_unstable_by_key(|(id, _)| *id);
        pack(FrameKind::Statuses, &self.statuses, |(id, entry), out| append(&(id, &**entry), out), &mut frames);
        pack(FrameKind::Modules, &self.modules, |(key, at), out| encode_entry((key, *at), out), &mut frames);
        let canister =
            |(id, held): (&CanisterId, &Held), out: &mut Vec<u8>| encode_entry((id.as_slice(), held.at), out);
        pack(FrameKind::Canisters, &*self.canisters, canister, &mut frames);
        frames
    }
}

/// Encodes items one behind the other, in frames of about 1 MiB, at least one.
fn pack<T>(kind: FrameKind, items: impl IntoIterator<Item = T>, encode: impl Fn(T, &mut Vec<u8>), frames: &mut Frames) {
    let mut bytes = Vec::new();
    for item in items {
        if bytes.len() >= FRAME_BYTES {
            frames.push((kind, std::mem::take(&mut bytes)));
        }
        encode(item, &mut bytes);
    }
    frames.push((kind, bytes));
}

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
    waiting: Vec<(Name, usize, usize)>,
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
        self.waiting.push((name, self.records.len(), bytes.len()));
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
        // A large one in pieces: so many wait at most, and then this does.
        for piece in records.chunks(PIECE_BYTES) {
            self.hand_over(Piece::Pages(piece.to_vec()));
        }
        for (name, offset, length) in std::mem::take(&mut self.waiting) {
            let page = PageAt { index: first.index + (offset / PAGE) as u32, ..first };
            let at = RecordAt { page, offset: (offset % PAGE) as u32, length: length as u64 };
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
/// this state, or not. Returns what was taken of memories, and what the state file holds. Cost: O(pages changed, runs of changed memories, statuses).
///
/// Panics: when a message is suspended, which only a round at a checkpoint height rules out.
pub(super) fn capture(
    world: &mut World,
    position: Position,
    (program, state_hash): (&Program, Option<[u8; 32]>),
    kept: &mut Kept,
    number: u32,
    out: &SyncSender<Piece>,
) -> (Saved, Contents) {
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
    let mut changed = changed.into_iter().peekable();
    let mut programs = world.query::<(&mut CanisterProgram, &Paused)>();
    while changed.peek().is_some() {
        // Places are counted one after the other; the rest of a record needs nobody else.
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < RECORDED_AT_ONCE && bytes < RECORDED_BYTES {
            let Some(id) = changed.next() else { break };
            let Some(entity) = world.resource::<Directory>().entity(id) else {
                kept.canister(id, None);
                continue;
            };
            let canister = programs.get_mut(world, entity);
            let (mut program, paused) = canister.expect("a listed canister has its components");
            let mut modules = Modules::new();
            let (program, memories) = ProgramRecord::of(&mut program, paused, &mut modules, &mut file);
            let places = memories.as_ref().map(SavedProgram::places).unwrap_or_default();
            saved.extend(memories.map(|memories| (id, memories)));
            for (key, module) in &modules {
                if kept.name_module(key, &leave).is_none() && written.insert(*key) {
                    file.record(Name::Module(Arc::clone(module)), module.wasm(), kept);
                }
            }
            bytes += bytes_at_most(world, entity);
            taken.push((id, entity, Box::new((program, places))));
        }
        let whole = &*world;
        let record = |(id, entity, record): &(CanisterId, Entity, Box<(ProgramRecord, Places)>)| {
            let (program, places) = &**record;
            let mut bytes = Vec::new();
            encode_places(places, &mut bytes);
            append(&record_of(whole, *id, *entity, program), &mut bytes);
            bytes
        };
        let records: Vec<_> = whole.resource::<Workers>().0.install(|| taken.par_iter().map(record).collect());
        for ((id, _, record), bytes) in taken.into_iter().zip(records) {
            file.record(Name::Canister(id, record), &bytes, kept);
        }
    }
    file.place_records(kept);
    file.hand_over_pages();
    kept.file(number, file.next);
    kept.forget_unnamed_modules();
    let contents = Contents {
        program: program.encode(),
        // Where nobody compares state hashes, none is at hand, and making one takes a look at all pages.
        state_hash: kept_state_hash(world).or(state_hash),
        subnet: encode(&subnet),
        statuses: world.resource::<IngressHistory>().share(),
        modules: kept.modules().map(|(key, module)| (*key, module.at)).collect(),
        canisters: Arc::clone(kept.canisters()),
    };
    (saved, contents)
}

fn encode(record: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(record, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_whole_in_pieces_and_nothing_is_a_piece_too() {
        for (count, expected) in [(0, vec![0]), (1, vec![1]), (4, vec![4]), (5, vec![4, 1]), (9, vec![4, 4, 1])] {
            let item = [7; FRAME_BYTES / 4];
            let items = std::iter::repeat_n(item, count);
            let mut frames = Frames::new();
            pack(FrameKind::Statuses, items, |item, out| out.extend_from_slice(&item), &mut frames);
            assert!(frames.iter().all(|(kind, _)| *kind == FrameKind::Statuses));
            assert!(frames.iter().flat_map(|(_, bytes)| bytes).all(|byte| *byte == 7));
            let lengths: Vec<_> = frames.iter().map(|(_, bytes)| bytes.len() / (FRAME_BYTES / 4)).collect();
            assert_eq!(lengths, expected);
        }
    }
}
