//! A canister's code, memories and unfinished message as a checkpoint keeps them.
//!
//! Enters: a canister at a height at which suspended messages were aborted. Leaves: records, and pages that are not all zero; and from them
//! the canister again. Never here: files; a module's bytes, which its hash stands for.

use crate::canister::{Paused, Program};
use crate::job::Job;
use crate::machine::{Installed, Machine, missing_resource};
use crate::message::install::{InstallTerms, Installing};
use crate::message::{Aborted, Prior};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{HeapError, Memory, MemoryKind};
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

/// Where pages are kept.
pub trait PageSink {
    /// Why one was not.
    type Error;
    /// Keeps a page; returns the index by which it is found again. Indexes count up.
    fn page(&mut self, content: &[u8; PAGE]) -> Result<u64, Self::Error>;
}

/// Where pages are found.
pub trait PageSource {
    /// Why one was not.
    type Error;
    /// Reads the page of an index.
    fn page(&mut self, index: u64, into: &mut [u8; PAGE]) -> Result<(), Self::Error>;
}

/// Why a canister cannot be made of its record.
#[derive(Debug)]
pub enum RestoreError<E> {
    /// A page was not found.
    Page(E),
    /// The record is not one of this program's.
    Record(&'static str),
}

impl<E: fmt::Display> fmt::Display for RestoreError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(error) => error.fmt(f),
            Self::Record(what) => f.write_str(what),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for RestoreError<E> {}

/// Pages of a memory that follow on each other, as their copies do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Number of the first in the memory.
    first: u64,
    /// How many.
    count: u64,
    /// Index of the first copy.
    index: u64,
}

/// A memory: its size, and where its pages are that are not all zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRecord {
    size: WasmPages,
    runs: Vec<Run>,
}

impl MemoryRecord {
    fn of<K: MemoryKind, S: PageSink>(memory: &Memory<K>, pages: &mut S) -> Result<Self, S::Error> {
        let mut runs: Vec<Run> = Vec::new();
        let mut failed = None;
        let read = memory.committed(|committed| {
            committed.each_nonzero_page(|page, content| {
                if failed.is_some() {
                    return;
                }
                let first = u64::from(page.0);
                match pages.page(content) {
                    Ok(index) => match runs.last_mut() {
                        Some(run) if (run.first + run.count, run.index + run.count) == (first, index) => run.count += 1,
                        _ => runs.push(Run { first, count: 1, index }),
                    },
                    Err(error) => failed = Some(error),
                }
            })
        });
        read.unwrap_or_else(|error| missing_resource(error));
        failed.map_or_else(|| Ok(Self { size: memory.size(), runs }), Err)
    }

    /// Fills an empty memory.
    fn restore<K: MemoryKind, S: PageSource>(
        &self,
        mut memory: Memory<K>,
        pages: &mut S,
    ) -> Result<Memory<K>, RestoreError<S::Error>> {
        const MALFORMED: &str = "a page lies beyond its memory";
        let mut content = [0; PAGE];
        let last = self.size.to_bytes().0 / PAGE as u64;
        for run in &self.runs {
            let end = run.first.checked_add(run.count).filter(|end| *end <= last);
            end.and(run.index.checked_add(run.count)).ok_or(RestoreError::Record(MALFORMED))?;
            for n in 0..run.count {
                pages.page(run.index + n, &mut content).map_err(RestoreError::Page)?;
                memory.write((run.first + n) * PAGE as u64, &content).unwrap_or_else(|error| missing_resource(error));
            }
        }
        // Whoever keeps account of what changes begins here.
        memory.take_dirty();
        Ok(memory)
    }
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

/// A module at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledRecord {
    module: ModuleKey,
    module_hash: [u8; 32],
    module_bytes: Bytes,
    globals: Vec<Global>,
    heap: MemoryRecord,
    stable: MemoryRecord,
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
    pub fn of<S: PageSink>(
        program: &Program,
        paused: &Paused,
        modules: &mut Modules,
        pages: &mut S,
    ) -> Result<Self, S::Error> {
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
        let installed = match program {
            Program::Empty => None,
            Program::Installed(installed) => Some(InstalledRecord {
                module: key_of(installed.module()),
                module_hash: installed.module_hash,
                module_bytes: installed.module_bytes,
                globals: installed.committed_globals(paused).into_iter().map(Global::from).collect(),
                heap: MemoryRecord::of(installed.heap(), pages)?,
                stable: MemoryRecord::of(installed.stable(), pages)?,
            }),
        };
        Ok(Self { installed, paused: paused_record })
    }

    /// The canister's code and unfinished message.
    pub fn restore<S: PageSource>(
        self,
        machine: &Arc<Machine>,
        modules: &Modules,
        pages: &mut S,
    ) -> Result<(Program, Paused), RestoreError<S::Error>> {
        let module_of = |key: &ModuleKey| {
            modules.get(key).cloned().ok_or(RestoreError::Record("it names a module that is not there"))
        };
        let program = match self.installed {
            None => Program::Empty,
            Some(record) => {
                let module = module_of(&record.module)?;
                Program::Installed(Box::new(record.restore(machine, module, pages)?))
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
    fn restore<S: PageSource>(
        self,
        machine: &Arc<Machine>,
        module: Arc<Module>,
        pages: &mut S,
    ) -> Result<Installed, RestoreError<S::Error>> {
        let new = |error: HeapError| match error {
            HeapError::BeyondMaximum { .. } => RestoreError::Record("a memory is larger than it may be"),
            error => missing_resource(error),
        };
        let heap = machine.arena.new_heap(self.heap.size, module.heap_pages_max()).map_err(new)?;
        let maximum = WasmPages(STABLE_BYTES_MAX.0 / WasmPages::BYTES);
        let stable = machine.arena.new_stable(self.stable.size, maximum).map_err(new)?;
        let (heap, stable) = (self.heap.restore(heap, pages)?, self.stable.restore(stable, pages)?);
        let globals = self.globals.into_iter().map(Value::from).collect();
        let instance = Instance::with_globals(module, globals)
            .ok_or(RestoreError::Record("its globals are not those of its module"))?;
        Ok(Installed::assemble(machine, instance, self.module_hash, self.module_bytes, heap, stable))
    }
}
