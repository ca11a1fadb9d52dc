//! The engine as execution uses it: compiled modules, seats, memories.
//!
//! Enters: the process's engine. Leaves: [`Machine`], and [`Installed`], a module at work in one canister.
//! Never here: anything that replicas must agree on; which instances are parked in a seat changes speed alone.

use crate::canister::Paused;
use crate::reject::Failure;
use crate::system_api::SystemApi;
use cyclotron_heap::{
    Arena, Heap, HeapError, HeapVersion, SeatPool, StableAccess, StableMemory, StablePool, StableVersion, Tracking,
};
use cyclotron_types::imports::IMPORTS;
use cyclotron_types::limits::STABLE_BYTES_MAX;
use cyclotron_types::units::{Bytes, WasmPages};
use cyclotron_wasm::decode::{MethodKind, SystemMethod};
use cyclotron_wasm::runtime::{Finished, Instance, InstantiateError, ModuleShape, Seated, Trap, Value};
use cyclotron_wasm::{Engine, Module};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that a global counts for. A `replicated_state/src/canister_state/execution_state.rs`.
const GLOBAL_BYTES: u64 = 8;
/// Messages in progress on protected pages: the kernel allows a process 65,530 mappings, and each may take some 1,600.
const PROTECTED_MESSAGES_MAX: usize = 24;

/// What runs Wasm in this process. Shared by all threads; its parts are pools.
pub struct Machine {
    /// Makes modules.
    pub engine: Engine,
    /// Where memories lie.
    pub arena: Arena,
    /// Where heaps are put to run.
    pub seats: SeatPool,
    /// Mapped stable memories.
    pub stables: StablePool,
    /// Instances that stay in their seat between messages, and how many may.
    parked: AtomicUsize,
    parked_max: usize,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("seats", &self.seats.seats())
            .field("parked", &self.parked)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine with empty memory. `seats_max` seats at most; half of them may be kept by idle canisters.
    ///
    /// Errors: the kernel refuses the arena's files.
    pub fn new(engine: Engine, seats_max: usize) -> Result<Self, HeapError> {
        Ok(Self {
            engine,
            arena: Arena::new()?,
            seats: SeatPool::new(seats_max),
            stables: StablePool::new(),
            parked: AtomicUsize::new(0),
            parked_max: seats_max / 2,
        })
    }

    /// Gives back what publications have set aside: no reader waits for that.
    pub fn tidy(&self) {
        self.seats.tidy();
        self.stables.tidy();
    }

    /// The code to run next on, if it is not what the instance is on `now`: the `better` one, or for want of mappings the `tested` one.
    fn next_code(&self, tested: &Arc<Module>, now: &Arc<Module>, better: Option<Arc<Module>>) -> Option<Arc<Module>> {
        let next = better.as_ref().unwrap_or(now);
        if next.tracking() == Tracking::Protect && self.seats.protected_messages() >= PROTECTED_MESSAGES_MAX {
            return Some(Arc::clone(tested)).filter(|tested| !Arc::ptr_eq(tested, now));
        }
        better
    }

    /// Whether instances at rest hold most of the seats that they may: time to take some back from the idle.
    pub fn seats_are_scarce(&self) -> bool {
        self.parked.load(Ordering::Relaxed) >= self.parked_max - self.parked_max / 4
    }
}

/// Where an installed module's instance is.
enum Place {
    /// In a suspended message.
    Away,
    /// At rest.
    Resting(Instance),
    /// Kept in its seat.
    Parked(Seated),
}

struct Home {
    place: Place,
    stable: Option<Box<StableAccess>>,
}

/// A module at work: its instance, its heap, its stable memory.
pub struct Installed {
    /// SHA-256 of the module as it was given, before any decompression.
    pub module_hash: [u8; 32],
    /// Size of the module as it was given.
    pub module_bytes: Bytes,
    module: Arc<Module>,
    heap: Heap,
    /// Made when it is first needed, which of many canisters is never.
    stable: Option<Box<StableMemory>>,
    uses_stable: bool,
    uses_certificate: bool,
    // Its parts are not `Sync`; queries lock it to look, messages hold it mutably.
    home: Mutex<Home>,
    machine: Arc<Machine>,
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installed").field("module_bytes", &self.module_bytes).finish_non_exhaustive()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Place::Parked(_) = self.home_mut().place {
            self.machine.parked.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn unlock(home: &Mutex<Home>) -> MutexGuard<'_, Home> {
    // A panic aborts the node; there is no state behind a poisoned lock to protect.
    home.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instance and its stable memory, begun on a message.
pub(crate) struct Desk {
    pub seated: Seated,
    pub stable: Option<Box<StableAccess>>,
}

/// A failure on a path that every replica takes: an answer that only this machine gives must not become a result.
///
/// Panics: when this machine lacks what others have (memory, mappings, places in the arena): the node stops, and the subnet goes on without it.
pub(crate) fn replicated_failure(error: HeapError) -> Failure {
    match error {
        HeapError::OutOfBounds { .. } | HeapError::BeyondMaximum { .. } | HeapError::UndoLogFull => {
            Failure::Engine(error.to_string())
        }
        HeapError::Os { .. }
        | HeapError::SlotsExhausted
        | HeapError::Busy
        | HeapError::Outdated
        | HeapError::PageLost => missing_resource(error),
    }
}

/// Stops the node. Panics: always.
pub(crate) fn missing_resource(error: impl fmt::Display) -> ! {
    panic!("this machine cannot execute what other replicas can: {error}")
}

/// A failure of the machine in a query, in the words of a canister's failure.
///
/// Panics: when a page is lost that a checkpoint keeps: the node stops, and its operator learns which.
pub(crate) fn engine_failure(error: HeapError) -> Failure {
    match error {
        HeapError::PageLost => missing_resource(error),
        error => Failure::Engine(error.to_string()),
    }
}

/// Whether a module imports a System API function whose name begins so.
fn imports(module: &Module, prefix: &str) -> bool {
    let mut rows = module.shape().imports.iter().filter_map(|import| IMPORTS.get(import.host.0 as usize));
    rows.any(|row| row.name.starts_with(prefix))
}

fn empty_stable(machine: &Machine) -> Box<StableMemory> {
    let maximum = WasmPages(STABLE_BYTES_MAX.0 / WasmPages::BYTES);
    let stable = machine.arena.new_stable(WasmPages::ZERO, maximum);
    Box::new(stable.unwrap_or_else(|error| missing_resource(error)))
}

impl Installed {
    /// Instantiates a module: fresh heap with its data segments, globals as declared, an empty stable memory. `(start)` is the caller's
    /// to run.
    ///
    /// Errors: segments that do not fit. Panics: as [`replicated_failure`].
    pub(crate) fn instantiate(
        machine: &Arc<Machine>,
        module: Arc<Module>,
        module_hash: [u8; 32],
        module_bytes: Bytes,
    ) -> Result<Self, Failure> {
        let mut heap = machine.arena.new_heap(WasmPages::ZERO, module.heap_pages_max()).map_err(replicated_failure)?;
        let instance = Instance::instantiate(Arc::clone(&module), &mut heap).map_err(|error| {
            if let InstantiateError::Heap(error) = error {
                replicated_failure(error);
            }
            Failure::Trapped { reason: error.to_string(), backtrace: Vec::new() }
        })?;
        Ok(Self::assemble(machine, instance, module_hash, module_bytes, heap, None))
    }

    /// Puts the parts together.
    pub(crate) fn assemble(
        machine: &Arc<Machine>,
        instance: Instance,
        module_hash: [u8; 32],
        module_bytes: Bytes,
        heap: Heap,
        stable: Option<Box<StableMemory>>,
    ) -> Self {
        let module = Arc::clone(instance.module());
        let (uses_stable, uses_certificate) = (imports(&module, "stable"), imports(&module, "data_certificate_"));
        Self {
            module_hash,
            module_bytes,
            module,
            heap,
            stable,
            uses_stable,
            uses_certificate,
            home: Mutex::new(Home { place: Place::Resting(instance), stable: None }),
            machine: Arc::clone(machine),
        }
    }

    fn home_mut(&mut self) -> &mut Home {
        self.home.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// The heap as of the last message that returned.
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    /// The stable memory as of the last message that returned; none while there was no need of one, which is as good as an empty one.
    pub fn stable(&self) -> Option<&StableMemory> {
        self.stable.as_deref()
    }

    /// Both memories, for who keeps account of changed pages.
    pub fn memories_mut(&mut self) -> (&mut Heap, Option<&mut StableMemory>) {
        (&mut self.heap, self.stable.as_deref_mut())
    }

    /// All globals as of the last message that returned, also while the canister's `paused` message is suspended.
    pub fn committed_globals(&self, paused: &Paused) -> Vec<Value> {
        self.committed_instance(paused).globals().to_vec()
    }

    fn committed_instance(&self, paused: &Paused) -> Instance {
        match (self.snapshot(), paused) {
            (Some(instance), _) => instance,
            (None, Paused::Suspended(suspended)) => suspended.instance_before().on(Arc::clone(&self.module)),
            (None, Paused::Installing(install)) => install.instance_before().on(Arc::clone(&self.module)),
            (None, Paused::None | Paused::Aborted(_)) => unreachable!("no message is suspended"),
        }
    }

    /// Whether addresses are 64-bit.
    pub fn is_wasm64(&self) -> bool {
        self.module.shape().memory.is_some_and(|memory| memory.is_64)
    }

    /// Function index of a method.
    pub fn method(&self, kind: MethodKind, name: &str) -> Option<u32> {
        self.module.shape().entry_points.method(kind, name)
    }

    /// Function index of a function that the system calls.
    pub fn system_method(&self, method: SystemMethod) -> Option<u32> {
        self.module.shape().entry_points.system.get(&method).copied()
    }

    /// Content of custom section `icp:public <name>` or `icp:private <name>`, and whether it is public.
    pub fn metadata(&self, name: &str) -> Option<(bool, &[u8])> {
        self.module.shape().metadata.get(name).map(|(public, content)| (*public, content.as_slice()))
    }

    /// All custom sections `icp:*`: name, whether public, content.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, bool, &[u8])> {
        self.module
            .shape()
            .metadata
            .iter()
            .map(|(name, (public, content))| (name.as_str(), *public, content.as_slice()))
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> Bytes {
        Bytes(self.heap.size_bytes())
    }

    /// Bytes of the stable memory.
    pub fn stable_bytes(&self) -> Bytes {
        Bytes(self.stable().map_or(0, StableMemory::size_bytes))
    }

    /// Bytes of the globals.
    pub fn globals_bytes(&self) -> Bytes {
        Bytes(self.module.shape().globals.len() as u64 * GLOBAL_BYTES)
    }

    /// Bytes of the custom sections, names included.
    pub fn metadata_bytes(&self) -> Bytes {
        let sections = self.module.shape().metadata.iter();
        Bytes(sections.map(|(name, (_, content))| (name.len() + content.len()) as u64).sum())
    }

    /// Bytes of all of it, the module included.
    pub fn memory_used(&self) -> Bytes {
        Bytes(
            self.heap_bytes().0
                + self.stable_bytes().0
                + self.globals_bytes().0
                + self.metadata_bytes().0
                + self.module_bytes.0,
        )
    }

    /// Puts the instance into its seat and begins a message on its memories.
    pub(crate) fn begin(&mut self) -> Result<Desk, Failure> {
        let seated = self.begin_heap()?;
        if !self.uses_stable {
            return Ok(Desk { seated, stable: None });
        }
        match self.open_stable() {
            Ok(stable) => Ok(Desk { seated, stable: Some(stable) }),
            Err(failure) => {
                self.rollback(Desk { seated, stable: None });
                Err(failure)
            }
        }
    }

    /// Begins a message on the heap alone.
    pub(crate) fn begin_heap(&mut self) -> Result<Seated, Failure> {
        let machine = Arc::clone(&self.machine);
        let home = self.home.get_mut().unwrap_or_else(PoisonError::into_inner);
        let seated = match std::mem::replace(&mut home.place, Place::Away) {
            Place::Away => unreachable!("one message at a time runs on a canister"),
            Place::Parked(mut seated) => {
                machine.parked.fetch_sub(1, Ordering::Relaxed);
                let better = seated.better_code(&machine.engine);
                match machine.next_code(&self.module, seated.module(), better) {
                    None => Ok(seated),
                    Some(module) => {
                        let (instance, seat) = seated.detach();
                        machine.seats.put(seat);
                        Err(instance.on(module))
                    }
                }
            }
            Place::Resting(mut instance) => {
                let better = instance.better_code(&machine.engine);
                Err(match machine.next_code(&self.module, instance.module(), better) {
                    None => instance,
                    Some(module) => instance.on(module),
                })
            }
        };
        let mut seated = match seated {
            Ok(seated) => seated,
            Err(instance) => match machine.seats.take(&self.heap, instance.module().tracking()) {
                Ok(seat) => instance.attach(seat),
                Err(error) => {
                    home.place = Place::Resting(instance);
                    return Err(replicated_failure(error));
                }
            },
        };
        match seated.begin_message(&self.heap) {
            Ok(()) => Ok(seated),
            Err(error) => {
                self.rollback(Desk { seated, stable: None });
                Err(replicated_failure(error))
            }
        }
    }

    /// Begins a message on the stable memory alone.
    pub(crate) fn open_stable(&mut self) -> Result<Box<StableAccess>, Failure> {
        let machine = &self.machine;
        let memory = self.stable.get_or_insert_with(|| empty_stable(machine));
        let home = self.home.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut stable = home.stable.take().unwrap_or_else(|| Box::new(machine.stables.take(memory)));
        match stable.begin_message(memory) {
            Ok(()) => Ok(stable),
            Err(error) => Err(replicated_failure(error)),
        }
    }

    /// Whether the module imports a stable memory function.
    pub(crate) fn uses_stable(&self) -> bool {
        self.uses_stable
    }

    /// Ends the message on the stable memory.
    pub(crate) fn close_stable(&mut self, mut stable: Box<StableAccess>, keep: bool) {
        if keep {
            self.keep_stable(&mut stable);
        } else if stable.is_busy() {
            stable.rollback().unwrap_or_else(|error| missing_resource(error));
        }
        self.machine.stables.put(*stable);
    }

    fn keep_stable(&mut self, stable: &mut StableAccess) {
        stable.commit(self.stable.as_deref_mut().expect("a message began on it"));
    }

    /// Exchanges the stable memories of two programs, neither in a message.
    pub(crate) fn swap_stable(&mut self, other: &mut Self) {
        for program in [&mut *self, &mut *other] {
            if let Some(stable) = program.home_mut().stable.take() {
                program.machine.stables.put(*stable);
            }
        }
        std::mem::swap(&mut self.stable, &mut other.stable);
    }

    /// A copy of this program with its own copy of the heap and an empty stable memory. Cost: a copy of the heap.
    pub(crate) fn fork_heap(&self) -> Result<Self, Failure> {
        let Some(instance) = self.snapshot() else { unreachable!("no message of the canister is suspended") };
        let heap = self.heap.fork().map_err(replicated_failure)?;
        Ok(Self::assemble(&self.machine, instance, self.module_hash, self.module_bytes, heap, None))
    }

    /// A copy of this program: both go on from here. Pages that a checkpoint keeps are shared. Cost: in proportion to the pages that changed since.
    ///
    /// Panics: as [`replicated_failure`], or while a message is suspended.
    pub(crate) fn fork(&self) -> Self {
        let Some(instance) = self.snapshot() else { unreachable!("no message of the canister is suspended") };
        let heap = self.heap.fork().unwrap_or_else(|error| missing_resource(error));
        let stable = self.stable().map(|stable| stable.fork().unwrap_or_else(|error| missing_resource(error)));
        let stable = stable.map(Box::new);
        Self::assemble(&self.machine, instance, self.module_hash, self.module_bytes, heap, stable)
    }

    /// Puts another module to work on this program's heap: globals as the module declares, no data segment applied.
    pub(crate) fn with_module(
        mut self,
        module: Arc<Module>,
        module_hash: [u8; 32],
        module_bytes: Bytes,
    ) -> Result<Self, Failure> {
        self.unpark();
        let fresh = Self::instantiate(&self.machine, Arc::clone(&module), module_hash, module_bytes)?;
        let Some(instance) = fresh.snapshot() else { unreachable!("it was just made") };
        let minimum = fresh.heap.size();
        let empty = self.machine.arena.new_heap(WasmPages::ZERO, WasmPages::ZERO).map_err(replicated_failure)?;
        let mut heap = std::mem::replace(&mut self.heap, empty);
        heap.set_maximum(module.heap_pages_max()).map_err(replicated_failure)?;
        if heap.size() < minimum {
            heap.grow(WasmPages(minimum.0 - heap.size().0)).map_err(replicated_failure)?;
        }
        Ok(Self::assemble(&self.machine, instance, module_hash, module_bytes, heap, None))
    }

    /// Puts other code to work on both memories and the values of mutable globals, as if it had been there from the beginning: for replays
    /// that try a module. No data segment is applied and nothing runs.
    ///
    /// Errors: in words, and nothing has changed: the module's globals or memory are of another kind, or the heap has no place in it.
    /// Panics: as [`replicated_failure`], or while a message is suspended.
    pub fn exchange_code(&mut self, module: Arc<Module>, module_bytes: Bytes) -> Result<(), &'static str> {
        let Some(old) = self.snapshot() else { unreachable!("no message of the canister is suspended") };
        let (before, after) = (self.module.shape(), module.shape());
        let kinds = |shape: &ModuleShape| -> Vec<_> { shape.globals.iter().map(|g| (g.ty, g.mutable)).collect() };
        if kinds(before) != kinds(after) {
            return Err("its globals are of other types than those whose values are to be kept");
        }
        if before.memory.map(|memory| memory.is_64) != after.memory.map(|memory| memory.is_64) {
            return Err("its memory is of another kind");
        }
        let fresh = Instance::new(Arc::clone(&module));
        let values = old.globals().iter().zip(fresh.globals()).zip(&after.globals);
        let globals = values.map(|((old, new), global)| if global.mutable { *old } else { *new }).collect();
        let instance = Instance::with_globals(Arc::clone(&module), globals);
        let instance = instance.ok_or("a global holds a function that it does not have")?;
        if self.heap.size() > module.heap_pages_max() {
            return Err("the heap is larger than its memory may become");
        }
        self.unpark();
        self.heap.set_maximum(module.heap_pages_max()).map_err(replicated_failure).map_err(|_| "the heap is in use")?;
        let minimum = WasmPages(after.memory.map_or(0, |memory| memory.min_pages));
        if self.heap.size() < minimum {
            let missing = WasmPages(minimum.0 - self.heap.size().0);
            self.heap.grow(missing).map_err(replicated_failure).map_err(|_| "the heap cannot grow")?;
        }
        (self.module_hash, self.module_bytes) = (*module.hash(), module_bytes);
        self.uses_stable = imports(&module, "stable");
        self.uses_certificate = imports(&module, "data_certificate_");
        self.module = module;
        self.home_mut().place = Place::Resting(instance);
        Ok(())
    }

    /// Keeps what the message did.
    pub(crate) fn commit(&mut self, mut desk: Desk) {
        desk.seated.commit(&mut self.heap);
        if let Some(stable) = &mut desk.stable {
            self.keep_stable(stable);
        }
        self.bring_home(desk);
    }

    /// Undoes what the message did.
    pub(crate) fn rollback(&mut self, mut desk: Desk) {
        desk.seated.rollback();
        if let Some(stable) = desk.stable.as_mut().filter(|stable| stable.is_busy()) {
            stable.rollback().unwrap_or_else(|error| missing_resource(error));
        }
        self.bring_home(desk);
    }

    fn bring_home(&mut self, desk: Desk) {
        let machine = Arc::clone(&self.machine);
        let home = self.home_mut();
        let park = machine.parked.fetch_add(1, Ordering::Relaxed) < machine.parked_max;
        if park {
            home.place = Place::Parked(desk.seated);
            home.stable = desk.stable;
            return;
        }
        machine.parked.fetch_sub(1, Ordering::Relaxed);
        let (instance, seat) = desk.seated.detach();
        home.place = Place::Resting(instance);
        machine.seats.put(seat);
        if let Some(stable) = desk.stable {
            machine.stables.put(*stable);
        }
    }

    /// Gives up the seat of an idle instance, for others to use.
    pub fn unpark(&mut self) {
        let machine = Arc::clone(&self.machine);
        let home = self.home_mut();
        match std::mem::replace(&mut home.place, Place::Away) {
            Place::Parked(seated) => {
                machine.parked.fetch_sub(1, Ordering::Relaxed);
                let (instance, seat) = seated.detach();
                home.place = Place::Resting(instance);
                machine.seats.put(seat);
            }
            other => home.place = other,
        }
        if let Some(stable) = home.stable.take() {
            machine.stables.put(*stable);
        }
    }

    /// The instance as of the last message that returned, on the code that every instance begins with; `None` while a message is suspended,
    /// whose execution knows.
    pub(crate) fn snapshot(&self) -> Option<Instance> {
        match &unlock(&self.home).place {
            Place::Away => None,
            Place::Resting(instance) => Some(instance.clone().on(Arc::clone(&self.module))),
            Place::Parked(seated) => Instance::with_globals(Arc::clone(&self.module), seated.globals()),
        }
    }

    /// Publishes the program for views, as of the last message that returned: what the canister's `paused` message has done is no part of it.
    pub(crate) fn publish(&mut self, paused: &Paused) -> PublishedProgram {
        let machine = Arc::clone(&self.machine);
        PublishedProgram {
            module_hash: self.module_hash,
            instance: self.committed_instance(paused),
            heap: machine.seats.publish(&mut self.heap),
            // Of a module that uses none nobody looks at it.
            stable: self.uses_stable.then(|| {
                let stable = self.stable.get_or_insert_with(|| empty_stable(&machine));
                Box::new(machine.stables.publish(stable))
            }),
            uses_certificate: self.uses_certificate,
            machine,
        }
    }
}

/// A program as a round left it.
pub struct PublishedProgram {
    /// SHA-256 of the module as it was given.
    pub module_hash: [u8; 32],
    instance: Instance,
    heap: HeapVersion,
    /// Of a module that imports a stable memory function.
    stable: Option<Box<StableVersion>>,
    uses_certificate: bool,
    machine: Arc<Machine>,
}

impl fmt::Debug for PublishedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishedProgram").field("heap", &self.heap).finish_non_exhaustive()
    }
}

impl PublishedProgram {
    /// The module.
    pub fn module(&self) -> &Arc<Module> {
        self.instance.module()
    }

    /// Whether addresses are 64-bit.
    pub fn is_wasm64(&self) -> bool {
        self.module().shape().memory.is_some_and(|memory| memory.is_64)
    }

    /// Whether the module imports a function that reads the certificate of its certified data.
    pub fn uses_certificate(&self) -> bool {
        self.uses_certificate
    }

    /// Seats a view. Messages may run on the canister meanwhile.
    ///
    /// Errors: the machine's; `Outdated` when the program has been published again.
    pub(crate) fn begin_view(&self) -> Result<Desk, HeapError> {
        let machine = &self.machine;
        let seat = machine.seats.take_view(&self.heap, self.module().tracking())?;
        let mut seated = self.instance.clone().attach_view(seat);
        let mut stable = self.stable.as_ref().map(|stable| Box::new(machine.stables.take_view(stable)));
        let begun = seated.begin_view(&self.heap).and_then(|()| match (&mut stable, &self.stable) {
            (Some(access), Some(version)) => access.begin_view(version),
            _ => Ok(()),
        });
        match begun {
            Ok(()) => Ok(Desk { seated, stable }),
            Err(error) => {
                self.end_view(Desk { seated, stable });
                Err(error)
            }
        }
    }

    /// Undoes what a query has done on a view and keeps it for the next. False when it cannot be kept: it is to be ended.
    pub(crate) fn rest_view(desk: &mut Desk) -> bool {
        desk.seated.rest_view() && desk.stable.as_mut().is_none_or(|stable| stable.rest_view())
    }

    /// Begins another query on a view that rests. False when a message has written meanwhile: the view is to be ended.
    pub(crate) fn resume_view(desk: &mut Desk) -> bool {
        // Both are asked: who has not been given up is at work until it is ended.
        desk.seated.resume_view() & desk.stable.as_mut().is_none_or(|stable| stable.resume_view())
    }

    /// Discards a view.
    pub(crate) fn end_view(&self, mut desk: Desk) {
        desk.seated.rollback();
        let (_, seat) = desk.seated.detach();
        self.machine.seats.put(seat);
        if let Some(mut stable) = desk.stable
            && (!stable.is_busy() || stable.rollback().is_ok())
        {
            self.machine.stables.put(*stable);
        }
    }
}

/// Names of the functions that were active at a trap, innermost first.
pub(crate) fn backtrace(trap: &Trap) -> Vec<String> {
    let name = |frame: &cyclotron_wasm::runtime::Frame| match &frame.name {
        Some(name) => name.clone(),
        None => format!("unknown function at index {}", frame.function),
    };
    trap.frames.iter().map(name).collect()
}

/// Takes an execution's end apart.
pub(crate) fn take_apart(finished: Finished<Box<SystemApi>>) -> (Desk, Box<SystemApi>, Result<(), Trap>) {
    let Finished { mut host, seated, result, .. } = finished;
    let desk = Desk { seated, stable: host.stable.take() };
    (desk, host, result.map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::engine;

    #[test]
    fn no_more_messages_than_there_are_mappings_for_run_on_protected_pages() {
        let machine = Machine::new(engine(), 64).unwrap();
        let tested = machine.engine.compile(&wat::parse_str("(module (memory 1))").unwrap()).unwrap();
        let protected = machine.engine.compile_protected(&tested).unwrap();
        let next = |now: &Arc<Module>, better: Option<&Arc<Module>>| {
            machine.next_code(&tested, now, better.cloned()).map(|module| module.tracking())
        };
        let mut seats = Vec::new();
        for _ in 0..PROTECTED_MESSAGES_MAX {
            assert_eq!(next(&tested, Some(&protected)), Some(Tracking::Protect));
            assert_eq!(next(&protected, None), None);
            let heap = machine.arena.new_heap(WasmPages(1), WasmPages(1)).unwrap();
            let mut seat = machine.seats.take(&heap, Tracking::Protect).unwrap();
            seat.begin_message(&heap).unwrap();
            seats.push((heap, seat));
        }
        assert_eq!(next(&tested, Some(&protected)), None);
        assert_eq!(next(&protected, None), Some(Tracking::Cards));
        assert_eq!((next(&tested, None), next(&protected, Some(&tested))), (None, Some(Tracking::Cards)));
        let (_, mut seat) = seats.pop().unwrap();
        seat.rollback().unwrap();
        assert_eq!(next(&tested, Some(&protected)), Some(Tracking::Protect));
    }
}
