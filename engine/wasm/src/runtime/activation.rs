//! One instance in one seat, and what the execution running there needs: the record that libcalls and the signal handler find.
//!
//! Enters: a module, a seat, saved globals. Leaves: [`Activation`], boxed so that its address, which is in `VmCtx::activation`, does
//! not change. Never here: the type of the host (libcalls know it; see `libcalls`).
//!
//! Invariants. `vmctx` is `seat.vmctx()`, its fields and table views describe this module and these tables. `host`, `yielder` and
//! `trap_handler` are valid exactly while the coroutine runs.

use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use corosensei::Yielder;
use corosensei::trap::CoroutineTrapHandler;
use cyclotron_heap::layout::{CARD_TABLE_BYTES, PAGE, PAGE_SHIFT, SEAT_RESERVED_BYTES};
use cyclotron_heap::{Heap, HeapError, HeapVersion, Seat};

use super::shape::ImportedFunction;
use super::trap::FRAMES_MAX;
use crate::abi::{GLOBALS_OFFSET, INDEX64_BOUND, TableView, TrapCode, VmCtx, table_view_offset};
use crate::calls::{CallCosts, Recorder};
use crate::decode::SegmentMode;
use crate::engine::Module;
use crate::profile::StoreProfile;

/// How a coroutine's function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Returned,
    Trapped,
}

/// What the signal handler or a libcall noted of a trap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrapRecord {
    pub(crate) code: Option<TrapCode>,
    pub(crate) counter: i64,
    /// Whether the first program counter is a return address, not a faulting instruction.
    pub(crate) by_libcall: bool,
    pcs: [usize; FRAMES_MAX],
    len: usize,
}

impl Default for TrapRecord {
    fn default() -> Self {
        TrapRecord { code: None, counter: 0, by_libcall: false, pcs: [0; FRAMES_MAX], len: 0 }
    }
}

impl TrapRecord {
    /// Adds a frame's program counter, if there is room.
    pub(crate) fn push(&mut self, pc: usize) {
        if let Some(place) = self.pcs.get_mut(self.len) {
            *place = pc;
            self.len += 1;
        }
    }

    pub(crate) fn pcs(&self) -> &[usize] {
        &self.pcs[..self.len]
    }
}

/// A module's instance in its seat.
pub(crate) struct Activation {
    pub(crate) module: Arc<Module>,
    pub(crate) seat: Seat,
    pub(crate) vmctx: *mut VmCtx,
    /// Elements of each table; [`TableView`]s point into these.
    pub(crate) tables: Vec<Vec<u64>>,
    /// Per passive segment, whether it was dropped in this message.
    pub(crate) data_dropped: Vec<bool>,
    pub(crate) elem_dropped: Vec<bool>,
    pub(crate) any_dropped: bool,
    /// The module's imported functions.
    pub(crate) imports: *const ImportedFunction,
    /// Globals before the running message.
    pub(crate) globals_before: Vec<u128>,
    /// What its messages have done lately.
    pub(crate) profile: StoreProfile,
    /// Whether changes never outlive an execution (a view for queries).
    pub(crate) read_only: bool,
    /// Arguments and results of the entry, sixteen bytes each.
    pub(crate) args: Vec<u128>,

    // Accounting: used = used_before + (budget - counter).
    pub(crate) used_before: u64,
    pub(crate) budget: i64,
    pub(crate) limit: u64,

    // Valid while the coroutine runs.
    pub(crate) host: *mut u8,
    pub(crate) yielder: *const Yielder<(), ()>,
    pub(crate) trap_handler: Option<CoroutineTrapHandler<Exit>>,
    pub(crate) stack: Range<usize>,
    pub(crate) guard: Range<usize>,
    pub(crate) reservation: Range<usize>,
    /// Where the execution is among the functions, if its code reports that.
    pub(crate) calls: Option<Box<Recorder>>,
    /// A libcall's reason for the status that compiled code is about to raise.
    pub(crate) raised: Option<TrapCode>,
    pub(crate) record: TrapRecord,
}

impl Activation {
    /// Puts an instance with these globals into `seat`.
    pub(crate) fn new(module: Arc<Module>, seat: Seat, globals: &[u128], read_only: bool) -> Box<Activation> {
        let vmctx = seat.vmctx().cast::<VmCtx>();
        let start = vmctx as usize - CARD_TABLE_BYTES;
        let reservation = start..start + SEAT_RESERVED_BYTES;
        let shape = module.shape();
        let mut activation = Box::new(Activation {
            vmctx,
            tables: vec![Vec::new(); shape.tables.len()],
            data_dropped: vec![false; shape.data.len()],
            elem_dropped: vec![false; shape.elements.len()],
            any_dropped: false,
            imports: shape.imports.as_ptr(),
            globals_before: Vec::new(),
            profile: StoreProfile::default(),
            read_only,
            args: Vec::new(),
            used_before: 0,
            budget: 0,
            limit: 0,
            host: null_mut(),
            yielder: null(),
            trap_handler: None,
            stack: 0..0,
            guard: 0..0,
            reservation,
            calls: None,
            raised: None,
            record: TrapRecord::default(),
            module,
            seat,
        });
        activation.write_context();
        activation.set_globals(globals);
        for table in 0..activation.tables.len() {
            activation.reset_table(table);
        }
        activation.reset_dropped();
        activation
    }

    fn write_context(&mut self) {
        let header = VmCtx {
            instructions: 0,
            heap_bytes: 0,
            libcalls: null(),
            // Set when an execution starts.
            activation: null_mut(),
            func_refs: self.module.func_refs().as_ptr(),
            index64_bound: INDEX64_BOUND,
            stack_slots: self.module.stack_slots(),
            reserved: [0; 9],
            args: [0; crate::abi::HOST_ARGS_MAX],
        };
        // SAFETY: the seat's context area is mapped, aligned to a page, larger than VmCtx and ours alone.
        unsafe { self.vmctx.write(header) };
    }

    fn globals_len(&self) -> usize {
        self.module.shape().globals.len()
    }

    fn globals_ptr(&self) -> *mut u128 {
        // In bounds: the engine limits globals and tables to what fits below HEAP_OFFSET (`Module::new`).
        self.vmctx.cast::<u8>().wrapping_add(GLOBALS_OFFSET as usize).cast()
    }

    /// The globals' current words, at their global indexes.
    pub(crate) fn globals(&self) -> &[u128] {
        // SAFETY: the area holds this many initialised globals, 16-byte aligned (256 after a page); nothing runs while `&self` lives.
        unsafe { std::slice::from_raw_parts(self.globals_ptr(), self.globals_len()) }
    }

    /// Replaces all globals.
    pub(crate) fn set_globals(&mut self, globals: &[u128]) {
        assert_eq!(globals.len(), self.globals_len(), "saved globals are of another module");
        // SAFETY: as in `globals`; source and destination are distinct.
        unsafe { std::ptr::copy_nonoverlapping(globals.as_ptr(), self.globals_ptr(), globals.len()) };
    }

    /// The view of a table, in the context area.
    pub(crate) fn view(&self, table: usize) -> *mut TableView {
        let offset = table_view_offset(self.globals_len() as u32, table as u32);
        self.vmctx.cast::<u8>().wrapping_add(offset as usize).cast()
    }

    /// Makes the view describe the table's vector after that changed.
    pub(crate) fn publish_table(&mut self, table: usize, written: bool) {
        let elements = &mut self.tables[table];
        let view = TableView {
            elements: elements.as_mut_ptr(),
            len: elements.len() as u64,
            written: written.into(),
            reserved: 0,
        };
        // SAFETY: the view lies in the context area by the module's limits.
        unsafe { self.view(table).write(view) };
    }

    fn reset_table(&mut self, table: usize) {
        let image = &self.module.table_images()[table];
        let elements = &mut self.tables[table];
        elements.clear();
        elements.extend_from_slice(image);
        self.publish_table(table, false);
    }

    fn reset_dropped(&mut self) {
        let shape = self.module.shape();
        // An active or declared segment counts as dropped once the instance exists.
        for (dropped, segment) in self.data_dropped.iter_mut().zip(&shape.data) {
            *dropped = segment.mode != SegmentMode::Passive;
        }
        for (dropped, segment) in self.elem_dropped.iter_mut().zip(&shape.elements) {
            *dropped = *segment != SegmentMode::Passive;
        }
        self.any_dropped = false;
    }

    /// Starts a message on `heap`: tables and segments as in a new instance, globals and heap remembered for a rollback.
    pub(crate) fn begin_message(&mut self, heap: &Heap) -> Result<(), HeapError> {
        assert!(!self.read_only, "a view begins with the state that it shows");
        self.seat.begin_message(heap)?;
        self.note_begin();
        Ok(())
    }

    /// Likewise for a view.
    pub(crate) fn begin_view(&mut self, heap: &HeapVersion) -> Result<(), HeapError> {
        assert!(self.read_only, "only a view begins with another state than the heap's");
        self.seat.begin_view(heap)?;
        self.note_begin();
        Ok(())
    }

    /// Undoes what the query on this view has done and keeps the view for another one. False when it cannot be kept: it is to be rolled back.
    pub(crate) fn rest_view(&mut self) -> bool {
        assert!(self.read_only, "only a view rests");
        if !self.seat.rest_view() {
            return false;
        }
        let before = std::mem::take(&mut self.globals_before);
        self.set_globals(&before);
        self.globals_before = before;
        self.reset_transient();
        true
    }

    /// Begins another query on a view that rests. False when the view shows nothing any more: it is to be rolled back.
    pub(crate) fn resume_view(&mut self) -> bool {
        self.seat.resume_view()
    }

    fn note_begin(&mut self) {
        self.reset_transient();
        self.note_heap_bytes();
        let mut before = std::mem::take(&mut self.globals_before);
        before.clear();
        before.extend_from_slice(self.globals());
        self.globals_before = before;
    }

    fn reset_transient(&mut self) {
        for table in 0..self.tables.len() {
            // SAFETY: the view was written by `publish_table`.
            if unsafe { (*self.view(table)).written } != 0 {
                self.reset_table(table);
            }
        }
        if self.any_dropped {
            self.reset_dropped();
        }
    }

    /// Undoes what the message did; nothing if there is none.
    ///
    /// Panics: when the kernel refuses to take memory back. What the canister's next message would see is then unknown, so the node stops.
    pub(crate) fn rollback(&mut self) {
        if !self.seat.is_busy() {
            return;
        }
        let before = std::mem::take(&mut self.globals_before);
        self.set_globals(&before);
        self.globals_before = before;
        if let Err(error) = self.seat.rollback() {
            panic!("cannot undo a message: {error}");
        }
        self.reset_transient();
    }

    /// Keeps what the message did; nothing if there is none.
    pub(crate) fn commit(&mut self, heap: &mut Heap) {
        assert!(!self.read_only, "a view has nothing to keep");
        if self.seat.is_busy() {
            self.seat.commit(heap);
            self.reset_transient();
        }
    }

    /// Saves the pages of a range that was checked to lie in the heap, before it is written.
    ///
    /// Panics: when the kernel refuses to make a page writable, or a page is lost: the store cannot happen and must not be skipped.
    #[inline]
    pub(crate) fn mark_range(&mut self, address: u64, len: u64) {
        let last = address.wrapping_add(len).wrapping_sub(1);
        // Most copies stay within a page or two that were saved before.
        if len <= PAGE as u64 && (len == 0 || (self.is_saved(address) && self.is_saved(last))) {
            return;
        }
        self.mark_range_slow(address, len);
    }

    /// Whether the page of an address within the heap is saved already.
    #[inline]
    fn is_saved(&self, address: u64) -> bool {
        let card =
            self.vmctx.cast::<u8>().wrapping_sub(CARD_TABLE_BYTES).wrapping_add((address >> PAGE_SHIFT) as usize);
        // SAFETY: the card table lies below the context, has a byte for every page of the heap, and is mapped for the seat's life.
        unsafe { card.read() != 0 }
    }

    #[cold]
    fn mark_range_slow(&mut self, address: u64, len: u64) {
        if let Err(error) = self.seat.mark(address, len) {
            panic!("cannot save pages before a store: {error}");
        }
    }

    /// Sees to it that a range can be read that was checked to lie in the heap.
    ///
    /// Panics: when a page is missing and cannot be had.
    #[inline]
    pub(crate) fn show_range(&self, address: u64, len: u64) {
        if self.seat.may_lack_pages()
            && let Err(error) = self.seat.show(address, len)
        {
            panic!("cannot look at a heap: {error}");
        }
    }

    /// Copies the seat's heap size to where compiled code reads it.
    pub(crate) fn note_heap_bytes(&mut self) {
        // SAFETY: the context is mapped and ours.
        unsafe { (*self.vmctx).heap_bytes = self.seat.size_bytes() };
    }

    /// Instructions used since the message started, when the counter stands at `counter`.
    #[inline]
    pub(crate) fn used(&self, counter: i64) -> u64 {
        // The counter never exceeds the budget, so the difference of the two is a u64.
        self.used_before.saturating_add((self.budget as u64).wrapping_sub(counter as u64))
    }

    /// Instructions that are charged for when the counter stands at `counter`: those used, at most the message's limit.
    fn charged(&self, counter: i64) -> u64 {
        self.used(counter).min(self.limit)
    }

    /// Compiled code reports a function that it has entered, or that it leaves the last one; its counter is stored.
    pub(crate) fn note_call(&mut self, entered: Option<u32>) {
        // SAFETY: the context is mapped and ours.
        let charged = self.charged(unsafe { (*self.vmctx).instructions });
        let Some(calls) = &mut self.calls else { return };
        match entered {
            Some(function) => calls.enter(function, charged),
            None => calls.leave(charged),
        }
    }

    /// What calls were charged since this was asked last, the counter standing at `counter`.
    pub(crate) fn take_calls(&mut self, counter: i64) -> Option<CallCosts> {
        let charged = self.charged(counter);
        let calls = self.calls.as_mut()?;
        calls.note(charged);
        Some(calls.take(&self.module))
    }

    /// Whether more than the message's limit is used.
    #[inline]
    pub(crate) fn is_over_limit(&self, counter: i64) -> bool {
        self.used(counter) > self.limit
    }

    /// Starts a slice of at most `slice` instructions and what is left of the message; sets the counter.
    #[inline]
    pub(crate) fn begin_slice(&mut self, slice: u64) {
        // SAFETY: the context is mapped and ours.
        let context = unsafe { &mut *self.vmctx };
        self.used_before = self.used(context.instructions);
        let left = self.limit.saturating_sub(self.used_before);
        self.budget = i64::try_from(slice.min(left)).unwrap_or(i64::MAX);
        context.instructions = self.budget;
    }

    /// Notes a trap before any compiled code ran.
    pub(crate) fn record_trap_at_entry(&mut self, code: TrapCode) {
        // SAFETY: the context is mapped and ours.
        let counter = unsafe { (*self.vmctx).instructions };
        self.record.code = Some(code);
        self.record.counter = counter;
        self.record.by_libcall = false;
        self.record.len = 0;
    }

    /// Notes a trap at `pc`, whose frame pointer is `fp`; for the signal handler: no allocation, no lock. Follows saved frame pointers
    /// outwards as long as return addresses lie in this module. `low` bounds the stack from below.
    pub(crate) fn record_trap(&mut self, code: TrapCode, counter: i64, pc: usize, mut fp: usize, mut low: usize) {
        self.record.code = Some(code);
        self.record.counter = counter;
        self.record.by_libcall = false;
        self.record.len = 0;
        self.record.push(pc);
        let tables = self.module.code().tables();
        for _ in 1..FRAMES_MAX {
            let inside = fp >= low && fp.checked_add(16).is_some_and(|end| end <= self.stack.end);
            if !inside || !fp.is_multiple_of(8) || !self.stack.contains(&fp) {
                return;
            }
            // SAFETY: both words lie in the coroutine's stack, above its stack pointer, so they are mapped and initialised.
            let (next, return_address) = unsafe { (*(fp as *const usize), *((fp + 8) as *const usize)) };
            if tables.offset(return_address).is_none() {
                return;
            }
            self.record.push(return_address);
            low = fp + 16;
            fp = next;
        }
    }
}
