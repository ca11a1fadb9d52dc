//! A canister's code, memories and unfinished message as a checkpoint keeps them.
//!
//! Enters: a canister at a height at which suspended messages were aborted. Leaves: records, which are the same on every node that has the same
//! state, and apart from them where the pages of memories are; pages that changed since the last record and are not all zero; and from all of it the
//! canister again, whose memories lie where its pages are kept. Never here: files; a module's bytes, which its hash stands for.

use crate::canister::{Paused, Program};
use crate::job::Job;
use crate::machine::{Installed, Machine, missing_resource};
use crate::message::install::{InstallTerms, Installing};
use crate::message::{Aborted, Prior};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{HeapError, Memory, MemoryId, MemoryKind, PageAt, PageRun, PageStore, merge_runs};
use cyclotron_types::limits::STABLE_BYTES_MAX;
use cyclotron_types::units::{Bytes, WasmPages};
use cyclotron_wasm::Module;
use cyclotron_wasm::runtime::{Instance, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// SHA-256 of a module's Wasm.
pub type ModuleKey = [u8; 32];

/// Where pages are kept. What goes wrong there shows later, and then nothing was kept.
pub trait PageSink {
    /// Keeps a page; says where it will be.
    fn page(&mut self, content: &[u8; PAGE]) -> PageAt;
    /// Whether the pages in a file are to be kept anew, since it is to go.
    fn leaves(&self, file: u32) -> bool;
    /// Keeps pages anew that follow on each other; says where they will be.
    fn copy(&mut self, at: PageAt, count: u32) -> PageAt;
}

/// Where pages are found.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Reads them.
    pub store: Arc<dyn PageStore>,
    /// Its files, and how many pages each has.
    pub files: BTreeMap<u32, u32>,
}

impl Stored {
    fn holds(&self, at: PageAt, count: u32) -> bool {
        let end = u64::from(at.index) + u64::from(count);
        self.files.get(&at.file).is_some_and(|pages| end <= u64::from(*pages))
    }
}

/// A record is not one of this program's: why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Where the pages of a canister's heap and stable memory are that are not all zero, ascending.
pub type Places = [Vec<PageRun>; 2];

/// What a record took of a memory, until it is known whether it lasts.
#[derive(Debug)]
pub struct SavedMemory {
    id: MemoryId,
    /// Where all of its pages are.
    runs: Vec<PageRun>,
}

impl SavedMemory {
    fn of<K: MemoryKind>(memory: &mut Memory<K>, sink: &mut impl PageSink) -> Self {
        let (old, pages) = (memory.runs(), memory.begin_save().clone());
        let mut new = Vec::new();
        let mut content = [0; PAGE];
        for page in pages.iter() {
            let read = memory.committed(|committed| committed.read(page.address(), &mut content));
            read.unwrap_or_else(|error| missing_resource(error));
            if content.as_chunks::<64>().0.iter().any(|words| words.iter().fold(0, |a, b| a | b) != 0) {
                PageRun::push(&mut new, PageRun { first: page.0, count: 1, at: sink.page(&content) });
            }
        }
        let mut runs = merge_runs(&old, &pages, &new);
        if runs.iter().any(|run| sink.leaves(run.at.file)) {
            let moved = runs.iter().map(|run| match sink.leaves(run.at.file) {
                true => PageRun { at: sink.copy(run.at, run.count), ..*run },
                false => *run,
            });
            runs = moved.fold(Vec::new(), |mut runs, run| {
                PageRun::push(&mut runs, run);
                runs
            });
        }
        Self { id: memory.id(), runs }
    }

    /// Tells the memory, if it is this one, that its pages are kept, or that they are not.
    fn settle<K: MemoryKind>(&self, memory: &mut Memory<K>, store: Option<&Arc<dyn PageStore>>) {
        match store {
            _ if memory.id() != self.id => {}
            Some(store) => memory.saved(store, self.runs.clone()),
            None => memory.not_saved(),
        }
    }
}

/// What a record took of a canister's memories.
#[derive(Debug)]
pub struct SavedProgram {
    heap: SavedMemory,
    stable: Option<SavedMemory>,
}

impl SavedProgram {
    /// Where all of their pages are, once they are kept.
    pub fn places(&self) -> Places {
        let stable = self.stable.as_ref().map(|stable| stable.runs.clone());
        [self.heap.runs.clone(), stable.unwrap_or_default()]
    }

    /// The checkpoint exists: its pages are in `store`; or it does not, and they are still to be kept.
    pub fn settle(&self, program: &mut Program, store: Option<&Arc<dyn PageStore>>) {
        if let Program::Installed(installed) = program {
            let (heap, stable) = installed.memories_mut();
            self.heap.settle(heap, store);
            if let (Some(saved), Some(stable)) = (&self.stable, stable) {
                saved.settle(stable, store);
            }
        }
    }
}

/// Lets an empty memory lie where its pages are.
fn lie_in<K: MemoryKind>(mut memory: Memory<K>, runs: Vec<PageRun>, stored: &Stored) -> Result<Memory<K>, Malformed> {
    let mut end = 0;
    for run in &runs {
        if run.count == 0 || u64::from(run.first) < end || !stored.holds(run.at, run.count) {
            return Err(Malformed("a page has no place"));
        }
        end = u64::from(run.first) + u64::from(run.count);
    }
    if end > memory.size().to_bytes().0 / PAGE as u64 {
        return Err(Malformed("a page lies beyond its memory"));
    }
    if !runs.is_empty() {
        memory.lie_in(&stored.store, runs);
    }
    Ok(memory)
}

/// A global's type and bits; a function by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Global {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
    FuncRef(Option<u32>),
    ExternRef(Option<u32>),
}

impl From<Value> for Global {
    fn from(value: Value) -> Self {
        match value {
            Value::I32(v) => Self::I32(v),
            Value::I64(v) => Self::I64(v),
            Value::F32(bits) => Self::F32(bits),
            Value::F64(bits) => Self::F64(bits),
            Value::V128(bits) => Self::V128(bits),
            Value::FuncRef(index) => Self::FuncRef(index),
            Value::ExternRef(number) => Self::ExternRef(number),
        }
    }
}

impl From<Global> for Value {
    fn from(global: Global) -> Self {
        match global {
            Global::I32(v) => Self::I32(v),
            Global::I64(v) => Self::I64(v),
            Global::F32(bits) => Self::F32(bits),
            Global::F64(bits) => Self::F64(bits),
            Global::V128(bits) => Self::V128(bits),
            Global::FuncRef(index) => Self::FuncRef(index),
            Global::ExternRef(number) => Self::ExternRef(number),
        }
    }
}

/// A module at work, and how large its memories are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledRecord {
    module: ModuleKey,
    module_hash: [u8; 32],
    module_bytes: Bytes,
    globals: Vec<Global>,
    heap: WasmPages,
    stable: WasmPages,
}

/// A message or an installation that starts over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum PausedRecord {
    None,
    Aborted { job: Job, prior: Prior },
    Installing { terms: InstallTerms, module: ModuleKey },
}

/// What of a canister is not plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    installed: Option<InstalledRecord>,
    paused: PausedRecord,
}

/// Modules by their keys.
pub type Modules = BTreeMap<ModuleKey, Arc<Module>>;

impl ProgramRecord {
    /// Records a canister's code, and puts the modules that it names into `modules`.
    ///
    /// Panics: when a message or an installation is suspended: it is aborted before.
    pub fn of(
        program: &mut Program,
        paused: &Paused,
        modules: &mut Modules,
        pages: &mut impl PageSink,
    ) -> (Self, Option<SavedProgram>) {
        let mut key_of = |module: &Arc<Module>| {
            modules.entry(*module.hash()).or_insert_with(|| Arc::clone(module));
            *module.hash()
        };
        let paused_record = match paused {
            Paused::None => PausedRecord::None,
            Paused::Aborted(aborted) => PausedRecord::Aborted { job: aborted.job.clone(), prior: *aborted.prior() },
            Paused::Installing(installing) if matches!(**installing, Installing::Aborted(_)) => {
                PausedRecord::Installing { terms: installing.terms(), module: key_of(&installing.install().module) }
            }
            Paused::Suspended(_) | Paused::Installing(_) => panic!("a suspended message has no record"),
        };
        let Program::Installed(installed) = program else {
            return (Self { installed: None, paused: paused_record }, None);
        };
        let module = key_of(installed.module());
        let globals = installed.committed_globals(paused).into_iter().map(Global::from).collect();
        let (module_hash, module_bytes) = (installed.module_hash, installed.module_bytes);
        let (heap, mut stable) = installed.memories_mut();
        let saved = SavedProgram {
            heap: SavedMemory::of(heap, pages),
            stable: stable.as_deref_mut().map(|stable| SavedMemory::of(stable, pages)),
        };
        let (heap, stable) = (heap.size(), stable.map_or(WasmPages::ZERO, |stable| stable.size()));
        let record = InstalledRecord { module, module_hash, module_bytes, globals, heap, stable };
        (Self { installed: Some(record), paused: paused_record }, Some(saved))
    }

    /// The modules that it names.
    pub fn modules(&self) -> impl Iterator<Item = ModuleKey> + '_ {
        let installing = match &self.paused {
            PausedRecord::Installing { module, .. } => Some(*module),
            PausedRecord::None | PausedRecord::Aborted { .. } => None,
        };
        self.installed.iter().map(|installed| installed.module).chain(installing)
    }

    /// The canister's code and unfinished message.
    pub fn restore(
        self,
        machine: &Arc<Machine>,
        modules: &Modules,
        places: Places,
        stored: &Stored,
    ) -> Result<(Program, Paused), Malformed> {
        let module_of =
            |key: &ModuleKey| modules.get(key).cloned().ok_or(Malformed("it names a module that is not there"));
        let program = match self.installed {
            None if places.iter().any(|runs| !runs.is_empty()) => {
                return Err(Malformed("a page belongs to no memory"));
            }
            None => Program::Empty,
            Some(record) => {
                let module = module_of(&record.module)?;
                Program::Installed(Box::new(record.restore(machine, module, places, stored)?))
            }
        };
        let paused = match self.paused {
            PausedRecord::None => Paused::None,
            PausedRecord::Aborted { job, prior } => Paused::Aborted(Box::new(Aborted::of(job, prior))),
            PausedRecord::Installing { terms, module } => {
                Paused::Installing(Box::new(Installing::Aborted(terms.install(module_of(&module)?))))
            }
        };
        Ok((program, paused))
    }
}

impl InstalledRecord {
    fn restore(
        self,
        machine: &Arc<Machine>,
        module: Arc<Module>,
        [heap_runs, stable_runs]: Places,
        stored: &Stored,
    ) -> Result<Installed, Malformed> {
        let new = |error: HeapError| match error {
            HeapError::BeyondMaximum { .. } => Malformed("a memory is larger than it may be"),
            error => missing_resource(error),
        };
        let heap = machine.arena.new_heap(self.heap, module.heap_pages_max()).map_err(new)?;
        let heap = lie_in(heap, heap_runs, stored)?;
        let stable = match self.stable {
            WasmPages::ZERO if stable_runs.is_empty() => None,
            size => {
                let maximum = WasmPages(STABLE_BYTES_MAX.0 / WasmPages::BYTES);
                let stable = machine.arena.new_stable(size, maximum).map_err(new)?;
                Some(Box::new(lie_in(stable, stable_runs, stored)?))
            }
        };
        let globals = self.globals.into_iter().map(Value::from).collect();
        let instance =
            Instance::with_globals(module, globals).ok_or(Malformed("its globals are not those of its module"))?;
        Ok(Installed::assemble(machine, instance, self.module_hash, self.module_bytes, heap, stable))
    }
}
