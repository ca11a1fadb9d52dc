//! Instances: what of a module's run persists between messages, and where it runs.
//!
//! Enters: a module, a seat. Leaves: [`Instance`] (module and saved globals) and [`Seated`] (the same in a seat, ready to execute).
//! Never here: which seats are kept (the owner's policy), the heap's bytes (they belong to the seat's heap).

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use cyclotron_heap::{Heap, HeapError, HeapVersion, Seat};
use cyclotron_types::units::WasmPages;

use super::activation::Activation;
use super::trap::Trap;
use super::value::Value;
use crate::decode::ExportKind;
use crate::engine::{Engine, Module};
use crate::profile::StoreProfile;

/// An instance outside a seat: its module and its globals. Its heap stays with its owner.
#[derive(Clone, Debug)]
pub struct Instance {
    module: Arc<Module>,
    globals: Vec<Value>,
    profile: StoreProfile,
}

impl Instance {
    /// Instantiates on an empty heap: it grows to the memory's first size and receives the active data segments. The start
    /// function, if there is one, is an ordinary entry that the caller runs next ([`Module::start`]).
    ///
    /// Errors: an active segment does not fit, or the heap is not for this module; it may have grown then. Panics: when the kernel refuses
    /// memory for the data, which other nodes have.
    pub fn instantiate(module: Arc<Module>, heap: &mut Heap) -> Result<Instance, InstantiateError> {
        if let Some(code) = module.instantiation_error() {
            return Err(InstantiateError::Trap(Trap::at_entry(code)));
        }
        let min = module.shape().memory.map_or(WasmPages::ZERO, |memory| WasmPages(memory.min_pages));
        heap.grow(min.saturating_sub(heap.size())).map_err(InstantiateError::Heap)?;
        for (address, bytes) in module.active_data() {
            heap.write(address, bytes).map_err(|error| match error {
                HeapError::Os { .. } => panic!("the kernel refuses memory for the data of a module: {error}"),
                error => InstantiateError::Heap(error),
            })?;
        }
        Ok(Instance::new(module))
    }

    /// An instance whose memory is kept from elsewhere (an upgrade that keeps it): globals as the module declares, no data segments.
    pub fn new(module: Arc<Module>) -> Instance {
        let globals = module.initial_globals();
        Instance { module, globals, profile: StoreProfile::default() }
    }

    /// An instance with saved globals, all of them, in index order.
    ///
    /// Errors: `None` when they are not of this module: another number, another type, an unknown function.
    pub fn with_globals(module: Arc<Module>, globals: Vec<Value>) -> Option<Instance> {
        let declared = &module.shape().globals;
        let same_types = globals.len() == declared.len()
            && globals
                .iter()
                .zip(declared)
                .all(|(value, global)| value.ty() == global.ty && module.word(*value).is_some());
        same_types.then(|| Instance { module, globals, profile: StoreProfile::default() })
    }

    /// Other code of the same module that suits what the instance does better, if `engine` has it.
    pub fn better_code(&mut self, engine: &Engine) -> Option<Arc<Module>> {
        engine.better_code(&self.module, &mut self.profile)
    }

    /// The instance on other code of the same module. Panics: when it is another module.
    pub fn on(self, module: Arc<Module>) -> Instance {
        assert!(self.module.hash() == module.hash(), "code of another module");
        Instance { module, ..self }
    }

    /// The module.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// All globals in index order, free of addresses.
    pub fn globals(&self) -> &[Value] {
        &self.globals
    }

    /// Puts the instance into a seat that holds its heap. Cost: a copy of globals and tables.
    pub fn attach(self, seat: Seat) -> Seated {
        self.seat(seat, false)
    }

    /// Puts the instance into a seat that holds a view of its heap: whatever runs there is always rolled back.
    pub fn attach_view(self, seat: Seat) -> Seated {
        self.seat(seat, true)
    }

    fn seat(self, seat: Seat, read_only: bool) -> Seated {
        // The values were made by this module or checked on entry, so each has a word.
        let words: Vec<u128> = self.globals.iter().map(|value| self.module.word(*value).unwrap_or(0)).collect();
        let mut activation = Activation::new(self.module, seat, &words, read_only);
        activation.profile = self.profile;
        Seated(NonNull::from(Box::leak(activation)))
    }
}

/// Why a module could not be instantiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstantiateError {
    /// An active segment does not fit.
    Trap(Trap),
    /// The heap could not be had.
    Heap(HeapError),
}

impl std::fmt::Display for InstantiateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InstantiateError::Trap(trap) => write!(f, "cannot instantiate: {trap}"),
            InstantiateError::Heap(error) => write!(f, "cannot instantiate: {error}"),
        }
    }
}

impl std::error::Error for InstantiateError {}

/// An instance in its seat. Between executions it may be kept there or detached.
///
/// The activation's address is also in the context of compiled code, hence a raw owner instead of a `Box`.
pub struct Seated(NonNull<Activation>);

// SAFETY: the activation owns its seat; its raw pointers lead into itself, its seat or its module, or are null while nothing runs.
unsafe impl Send for Seated {}

impl Seated {
    /// Begins a message on `heap`, which this seat maps.
    ///
    /// Errors: another message of the heap is in progress; no undo log. Panics: when the seat maps another heap, or a view.
    pub fn begin_message(&mut self, heap: &Heap) -> Result<(), HeapError> {
        self.activation_mut().begin_message(heap)
    }

    /// Begins a query on a view of `heap`, as it was when it was published.
    ///
    /// Errors: the kernel's refusal, a newer version. Panics: when the seat does not map a view of this heap.
    pub fn begin_view(&mut self, heap: &HeapVersion) -> Result<(), HeapError> {
        self.activation_mut().begin_view(heap)
    }

    /// Undoes what the query on this view has done and keeps the view for another one. False when it cannot be kept: it is to be rolled back.
    pub fn rest_view(&mut self) -> bool {
        self.activation_mut().rest_view()
    }

    /// Begins another query on a view that rests. False when a message has written meanwhile: the view is to be rolled back.
    pub fn resume_view(&mut self) -> bool {
        self.activation_mut().resume_view()
    }

    /// Writes to the heap as part of the message in progress; `None` beyond its end.
    pub fn write_heap(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        self.activation_mut().seat.write(address, bytes).ok()
    }

    /// The heap's bytes `[address, address + len)` during a message (until its verdict); `None` beyond its end or without a message. Between
    /// messages the heap itself answers.
    pub fn read_heap(&self, address: u64, len: u64) -> Option<&[u8]> {
        self.activation().seat.slice(address, len).ok()
    }

    /// Size of the heap during a message, in bytes.
    pub fn heap_bytes(&self) -> u64 {
        self.activation().seat.size_bytes()
    }

    /// The module.
    pub fn module(&self) -> &Arc<Module> {
        &self.activation().module
    }

    /// As [`Instance::better_code`]; [`Seated::detach`] and [`Instance::on`] change to it.
    pub fn better_code(&mut self, engine: &Engine) -> Option<Arc<Module>> {
        let Activation { module, profile, .. } = self.activation_mut();
        engine.better_code(module, profile)
    }

    /// All globals in index order, free of addresses.
    pub fn globals(&self) -> Vec<Value> {
        let module = &self.activation().module;
        module
            .shape()
            .globals
            .iter()
            .zip(self.activation().globals())
            .map(|(global, word)| module.value(global.ty, *word))
            .collect()
    }

    /// The current value of an exported global.
    pub fn exported_global(&self, name: &str) -> Option<Value> {
        let export =
            self.activation().module.shape().export(name).filter(|export| export.kind == ExportKind::Global)?;
        let global = self.activation().module.shape().globals.get(export.index as usize)?;
        Some(self.activation().module.value(global.ty, *self.activation().globals().get(export.index as usize)?))
    }

    /// The instance as it was before the message that is running or uncommitted here: what a query's view starts from.
    pub fn instance_before(&self) -> Instance {
        let module = &self.activation().module;
        let words = self.activation().globals_before.iter();
        let globals =
            module.shape().globals.iter().zip(words).map(|(global, word)| module.value(global.ty, *word)).collect();
        Instance { module: module.clone(), globals, profile: StoreProfile::default() }
    }

    /// Takes the instance out of its seat, rolling back what was not committed.
    pub fn detach(mut self) -> (Instance, Seat) {
        self.activation_mut().rollback();
        let globals = self.globals();
        let this = ManuallyDrop::new(self);
        // SAFETY: the pointer came from `Box::leak`; `this` is not dropped.
        let Activation { module, seat, profile, .. } = *unsafe { Box::from_raw(this.0.as_ptr()) };
        (Instance { module, globals, profile }, seat)
    }

    /// Keeps what the message did. Panics: on a view, or when the message is another heap's.
    pub fn commit(&mut self, heap: &mut Heap) {
        self.activation_mut().commit(heap);
    }

    /// Undoes what the message did: heap, globals, growth, tables. Nothing happens if there is none.
    pub fn rollback(&mut self) {
        self.activation_mut().rollback();
    }

    /// The seat.
    pub fn seat(&self) -> &Seat {
        &self.activation().seat
    }

    #[inline]
    pub(crate) fn activation(&self) -> &Activation {
        // SAFETY: `self` owns the activation, which lives until `drop`; compiled code does not run while `&self` is borrowed
        // (the execution that runs it owns `self`).
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn activation_mut(&mut self) -> &mut Activation {
        // SAFETY: as in `activation`, and `&mut self` is exclusive.
        unsafe { self.0.as_mut() }
    }

    /// The activation's address, for compiled code and its libcalls.
    #[inline]
    pub(crate) fn activation_ptr(&self) -> *mut Activation {
        self.0.as_ptr()
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::leak` and is given back once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
