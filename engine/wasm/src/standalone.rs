//! One instance with everything that it needs: heap, seat, a way to call exports. For tests, tools and measurements.
//!
//! Enters: a module, arguments, a host. Leaves: [`Run`]. Never here: canisters; the systems keep heaps and seats themselves.

use std::fmt;
use std::sync::Arc;

use cyclotron_heap::{Arena, Heap, HeapError, SeatPool};
use cyclotron_types::units::{Instructions, WasmPages};

use crate::calls::CallCosts;
use crate::engine::{Engine, Module};
use crate::runtime::{Entry, Execution, Host, Instance, InstantiateError, Outcome, Seated, Trap, Value};

/// An instance with its own heap.
pub struct Standalone {
    // Given back by every run; `None` only after a panic inside one.
    seated: Option<Seated>,
    /// The module as it was given, which keeps other code of it.
    module: Arc<Module>,
    heap: Heap,
    pool: SeatPool,
}

/// What one call of an export did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Results of the function, or why it stopped; its effects were kept or undone accordingly.
    pub result: Result<Vec<Value>, Trap>,
    /// Instructions used.
    pub instructions: Instructions,
    /// Heap pages whose bytes changed.
    pub dirty_pages: u64,
    /// How often it was suspended.
    pub suspensions: u64,
    /// What functions were charged, slice by slice, if the code was made to report that.
    pub calls: Vec<CallCosts>,
}

/// Why there is no instance, or no run.
#[derive(Debug)]
pub enum StandaloneError {
    /// Memory could not be had.
    Heap(HeapError),
    /// A stack could not be had.
    Stack(std::io::Error),
    /// Segments do not fit.
    Instantiate(InstantiateError),
    /// The start function trapped.
    Start(Trap),
}

impl fmt::Display for StandaloneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StandaloneError::Heap(error) => error.fmt(f),
            StandaloneError::Stack(error) => write!(f, "no stack: {error}"),
            StandaloneError::Instantiate(error) => error.fmt(f),
            StandaloneError::Start(trap) => write!(f, "start function: {trap}"),
        }
    }
}

impl std::error::Error for StandaloneError {}

impl From<HeapError> for StandaloneError {
    fn from(error: HeapError) -> Self {
        StandaloneError::Heap(error)
    }
}

impl Standalone {
    /// Instantiates `module` in an arena of its own and runs its start function, if it has one, with `host` and no limit.
    ///
    /// Errors: see [`StandaloneError`].
    pub fn new<H: Host>(module: Arc<Module>, host: H) -> Result<(Standalone, H), StandaloneError> {
        Standalone::new_in(&Arena::new()?, module, host)
    }

    /// Likewise in a given arena: many instances, two file descriptors.
    pub fn new_in<H: Host>(arena: &Arena, module: Arc<Module>, host: H) -> Result<(Standalone, H), StandaloneError> {
        let mut heap = arena.new_heap(WasmPages::ZERO, module.heap_pages_max())?;
        let (start, tracking) = (module.start(), module.tracking());
        let instance = Instance::instantiate(module.clone(), &mut heap).map_err(StandaloneError::Instantiate)?;
        let pool = SeatPool::new(1);
        let seated = instance.attach(pool.take(&heap, tracking)?);
        let mut standalone = Standalone { seated: Some(seated), module, heap, pool };
        let Some(start) = start else { return Ok((standalone, host)) };
        let (run, host) = standalone.run(Entry::Function(start), &[], host)?;
        match run.result {
            Ok(_) => Ok((standalone, host)),
            Err(trap) => Err(StandaloneError::Start(trap)),
        }
    }

    /// Runs `entry` without limit; effects are kept unless it traps.
    pub fn run<H: Host>(&mut self, entry: Entry<'_>, args: &[Value], host: H) -> Result<(Run, H), StandaloneError> {
        self.run_limited(entry, args, host, Instructions::MAX, || Instructions::MAX)
    }

    /// Runs `entry` with an instruction limit, in slices of the sizes that `slice` gives.
    pub fn run_limited<H: Host>(
        &mut self,
        entry: Entry<'_>,
        args: &[Value],
        host: H,
        limit: Instructions,
        mut slice: impl FnMut() -> Instructions,
    ) -> Result<(Run, H), StandaloneError> {
        let mut execution = self.start(entry, args, host, limit)?;
        let (mut suspensions, mut calls) = (0, Vec::new());
        let finished = loop {
            match execution.resume(slice()) {
                Outcome::Suspended(suspended) => {
                    execution = suspended;
                    calls.extend(execution.take_calls());
                }
                Outcome::Finished(finished) => break finished,
            }
            suspensions += 1;
        };
        calls.extend(finished.calls);
        let mut seated = finished.seated;
        match finished.result {
            Ok(_) => seated.commit(&mut self.heap),
            Err(_) => seated.rollback(),
        }
        self.seated = Some(seated);
        let run = Run {
            result: finished.result,
            instructions: finished.instructions,
            dirty_pages: finished.dirty_pages,
            suspensions,
            calls,
        };
        Ok((run, finished.host))
    }

    /// Begins a message and hands its execution out; [`Standalone::put_back`] brings the instance back.
    ///
    /// Panics: while another execution of this instance is out.
    pub fn start<H: Host>(
        &mut self,
        entry: Entry<'_>,
        args: &[Value],
        host: H,
        limit: Instructions,
    ) -> Result<Execution<H>, StandaloneError> {
        let mut seated = self.seated.take().expect("an execution of this instance is out");
        if let Err(error) = seated.begin_message(&self.heap) {
            self.seated = Some(seated);
            return Err(error.into());
        }
        Execution::start(seated, entry, args, host, limit).map_err(|refused| {
            let mut seated = refused.seated;
            seated.rollback();
            self.seated = Some(seated);
            StandaloneError::Stack(refused.error)
        })
    }

    /// Takes the instance back after an execution that was handed out, keeping or undoing what it did.
    pub fn put_back(&mut self, mut seated: Seated, keep: bool) {
        if keep {
            seated.commit(&mut self.heap);
        } else {
            seated.rollback();
        }
        self.seated = Some(seated);
    }

    /// The module as it was given.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// The instance. Panics: while an execution of it is out.
    pub fn seated(&self) -> &Seated {
        self.seated.as_ref().expect("an execution of this instance is out")
    }

    /// The heap at rest: committed size and bytes.
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    /// `len` bytes of the heap at `address`; `None` beyond its end.
    pub fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.heap.read(address, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Moves the instance out of its seat and into it again: what a seat cache does between messages.
    pub fn reseat(&mut self) -> Result<(), StandaloneError> {
        self.move_to(None)
    }

    /// Gives the instance the code that suits its messages, if `engine` has it: what execution does between messages.
    pub fn adapt(&mut self, engine: &Engine) -> Result<(), StandaloneError> {
        let seated = self.seated.as_mut().expect("an execution of this instance is out");
        match seated.better_code(engine) {
            Some(module) => self.move_to(Some(module)),
            None => Ok(()),
        }
    }

    fn move_to(&mut self, module: Option<Arc<Module>>) -> Result<(), StandaloneError> {
        let seated = self.seated.take().expect("an execution of this instance is out");
        let (mut instance, seat) = seated.detach();
        self.pool.put(seat);
        if let Some(module) = module {
            instance = instance.on(module);
        }
        let seat = self.pool.take(&self.heap, instance.module().tracking())?;
        self.seated = Some(instance.attach(seat));
        Ok(())
    }
}
