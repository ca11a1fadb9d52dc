//! The functions that compiled code calls: [`Libcalls`] for a type of host.
//!
//! Enters: operands of compiled code, unchecked. Leaves: a status, after checking bounds, fetching and saving pages. Never here: a panic on
//! an operand, a suspension while anything on the stack needs a destructor.
//!
//! Every function runs on the execution's stack with `vmctx` of the running activation; that is the safety contract
//! of them all, owed by `execution` and by compiled code.

use std::marker::PhantomData;
use std::sync::Arc;

use cyclotron_heap::layout::HEAP_OFFSET;
use cyclotron_types::units::{Instructions, WasmPages};

use super::activation::{Activation, Exit};
use super::arch;
use super::host::{Caller, Host, SliceVerdict};
use crate::abi::{Libcalls, TrapCode, VmCtx};

/// What functions with another result than a status answer for failure.
const FAILED: u64 = u64::MAX;

/// The libcalls of executions whose host is an `H`.
pub(crate) struct LibcallsFor<H>(PhantomData<H>);

impl<H: Host> LibcallsFor<H> {
    pub(crate) const TABLE: &'static Libcalls = &Libcalls {
        host_call: host_call_entry::<H>,
        out_of_instructions: out_of_instructions::<H>,
        mark,
        memory_grow: memory_grow_entry::<H>,
        memory_fill,
        memory_copy,
        memory_init,
        data_drop,
        table_grow,
        table_fill,
        table_copy,
        table_init,
        elem_drop,
        call_begins,
        call_ends,
    };

    /// The same for code that reports its calls: calls of the host are reported too.
    pub(crate) const REPORTING: &'static Libcalls =
        &Libcalls { host_call: reported_host_call_entry::<H>, ..*Self::TABLE };
}

/// The activation that `vmctx` belongs to.
///
/// # Safety
/// The contract of this module. The reference must not live across a suspension or a host call.
unsafe fn activation<'a>(vmctx: *mut VmCtx) -> &'a mut Activation {
    // SAFETY: `VmCtx::activation` is set to the boxed activation for as long as the seat is attached.
    unsafe { &mut *(*vmctx).activation.cast::<Activation>() }
}

#[cold]
unsafe fn raise(vmctx: *mut VmCtx, code: TrapCode) -> u32 {
    // SAFETY: the contract of this module.
    unsafe { activation(vmctx) }.raised = Some(code);
    code as u32
}

/// Adds the frame of the import's wrapper to the arguments: [`host_call`] traps there without a signal, which costs microseconds.
#[unsafe(naked)]
unsafe extern "C" fn host_call_entry<H: Host>(vmctx: *mut VmCtx, import: u32) -> u32 {
    arch::pass_caller_frame!(host_call::<H, false>)
}

unsafe extern "C" fn host_call<H: Host, const REPORTED: bool>(
    vmctx: *mut VmCtx,
    import: u32,
    caller_frame: arch::CallerFrame,
) -> u32 {
    // SAFETY: the contract of this module. `host` is the execution's host, which nobody else touches while the coroutine runs; the
    // arguments lie in the context and stay as they are until the result is written.
    unsafe {
        let activation = (*vmctx).activation.cast::<Activation>();
        if REPORTED {
            call_begins(vmctx, import);
        }
        let import = *(*activation).imports.add(import as usize);
        let host = &mut *(*activation).host.cast::<H>();
        let args = std::slice::from_raw_parts((&raw const (*vmctx).args).cast::<u64>(), import.arg_slots as usize);
        let mut caller = Caller::new(vmctx, activation);
        match host.call(&mut caller, import.host, args) {
            Ok(result) => {
                (*vmctx).args[0] = result;
                if REPORTED {
                    call_ends(vmctx);
                }
                if (*vmctx).instructions < 0 { out_of_instructions::<H>(vmctx) } else { 0 }
            }
            // Nothing on this stack needs a destructor.
            Err(trap) => leave(vmctx, trap.code(), caller_frame),
        }
    }
}

/// [`host_call_entry`], reported as a call of the imported function.
#[unsafe(naked)]
unsafe extern "C" fn reported_host_call_entry<H: Host>(vmctx: *mut VmCtx, import: u32) -> u32 {
    arch::pass_caller_frame!(host_call::<H, true>)
}

unsafe extern "C" fn call_begins(vmctx: *mut VmCtx, function: u32) {
    // SAFETY: the contract of this module.
    unsafe { activation(vmctx).note_call(Some(function)) };
}

unsafe extern "C" fn call_ends(vmctx: *mut VmCtx) {
    // SAFETY: the contract of this module.
    unsafe { activation(vmctx).note_call(None) };
}

#[cold]
unsafe extern "C" fn out_of_instructions<H: Host>(vmctx: *mut VmCtx) -> u32 {
    // SAFETY: the contract of this module. References end before the suspension; after it everything is read anew, since another
    // thread may have resumed us and moved the host.
    unsafe {
        let used = {
            let activation = activation(vmctx);
            let counter = (*vmctx).instructions;
            if counter >= 0 {
                return 0;
            }
            if activation.is_over_limit(counter) {
                return raise(vmctx, TrapCode::InstructionLimit);
            }
            activation.used(counter)
        };
        let host = &mut *activation(vmctx).host.cast::<H>();
        match host.out_of_instructions(Instructions(used)) {
            SliceVerdict::Suspend => {
                let yielder = activation(vmctx).yielder;
                (*yielder).suspend(());
                0
            }
            SliceVerdict::Continue(slice) => {
                activation(vmctx).begin_slice(slice.0);
                0
            }
            SliceVerdict::Trap => raise(vmctx, TrapCode::InstructionLimit),
        }
    }
}

unsafe extern "C" fn mark(vmctx: *mut VmCtx, address: u64) {
    // SAFETY: the contract of this module.
    unsafe {
        activation(vmctx).seat.mark_store(address);
    }
}

/// Adds the frame of the compiled caller to the arguments: [`memory_grow`] may have to trap there.
#[unsafe(naked)]
unsafe extern "C" fn memory_grow_entry<H: Host>(vmctx: *mut VmCtx, delta: u64) -> u64 {
    arch::pass_caller_frame!(memory_grow::<H>)
}

unsafe extern "C" fn memory_grow<H: Host>(vmctx: *mut VmCtx, delta: u64, caller: arch::CallerFrame) -> u64 {
    // SAFETY: the contract of this module.
    unsafe {
        let old = (*vmctx).heap_bytes / WasmPages::BYTES;
        let Some(memory) = activation(vmctx).module.shape().memory else { return FAILED };
        let Some(new) = old.checked_add(delta).filter(|new| *new <= memory.max_pages) else { return FAILED };
        if delta == 0 {
            return old;
        }
        let host = &mut *activation(vmctx).host.cast::<H>();
        match host.memory_grow(WasmPages(old), WasmPages(new)) {
            Ok(true) => {}
            Ok(false) => return FAILED,
            // There is no status to return, so leave from here; nothing on this stack needs a destructor.
            Err(trap) => leave(vmctx, trap.code(), caller),
        }
        let activation = activation(vmctx);
        // The limits have been checked and the cycles reserved, so only the kernel can refuse: what the canister would see then is not
        // what it sees on other nodes.
        if let Err(error) = activation.seat.grow(WasmPages(delta)) {
            panic!("the kernel refuses a heap to grow by {delta} pages: {error}");
        }
        activation.note_heap_bytes();
        old
    }
}

/// Ends the coroutine with a trap at the place that called the libcall.
#[cold]
unsafe fn leave(vmctx: *mut VmCtx, code: TrapCode, caller: arch::CallerFrame) -> ! {
    // SAFETY: the contract of this module; the trap handler is set while the coroutine runs, and we run on its stack.
    unsafe {
        let activation = activation(vmctx);
        activation.record_trap(code, (*vmctx).instructions, caller.pc, caller.fp, caller.fp);
        activation.record.by_libcall = true;
        match activation.trap_handler {
            Some(handler) => arch::jump(handler.setup_trap_handler(|| Exit::Trapped)),
            None => unreachable!("a libcall runs inside a coroutine"),
        }
    }
}

/// Whether `[start, start + len)` lies within `size`.
fn fits(start: u64, len: u64, size: u64) -> bool {
    start.checked_add(len).is_some_and(|end| end <= size)
}

/// Address of a heap byte.
fn heap(vmctx: *mut VmCtx, address: u64) -> *mut u8 {
    vmctx.cast::<u8>().wrapping_add(HEAP_OFFSET).wrapping_add(address as usize)
}

unsafe extern "C" fn memory_fill(vmctx: *mut VmCtx, dst: u64, byte: u32, len: u64) -> u32 {
    // SAFETY: the contract of this module; the range is inside the heap and was marked before it is written.
    unsafe {
        if !fits(dst, len, (*vmctx).heap_bytes) {
            return raise(vmctx, TrapCode::HeapOutOfBounds);
        }
        activation(vmctx).mark_range(dst, len);
        std::ptr::write_bytes(heap(vmctx, dst), byte as u8, len as usize);
        0
    }
}

unsafe extern "C" fn memory_copy(vmctx: *mut VmCtx, dst: u64, src: u64, len: u64) -> u32 {
    // SAFETY: as in `memory_fill`, for both ranges; they may overlap.
    unsafe {
        let size = (*vmctx).heap_bytes;
        if !fits(dst, len, size) || !fits(src, len, size) {
            return raise(vmctx, TrapCode::HeapOutOfBounds);
        }
        activation(vmctx).show_range(src, len);
        activation(vmctx).mark_range(dst, len);
        std::ptr::copy(heap(vmctx, src), heap(vmctx, dst), len as usize);
        0
    }
}

unsafe extern "C" fn memory_init(vmctx: *mut VmCtx, segment: u32, dst: u64, src: u32, len: u32) -> u32 {
    // SAFETY: as in `memory_fill`; the segment's bytes are the module's and never in the heap.
    unsafe {
        let activation = activation(vmctx);
        let dropped = activation.data_dropped.get(segment as usize).copied().unwrap_or(true);
        let module = Arc::as_ptr(&activation.module);
        let bytes = if dropped { &[][..] } else { (*module).data(segment) };
        let Some(bytes) = bytes.get(src as usize..).and_then(|bytes| bytes.get(..len as usize)) else {
            return raise(vmctx, TrapCode::HeapOutOfBounds);
        };
        if !fits(dst, u64::from(len), (*vmctx).heap_bytes) {
            return raise(vmctx, TrapCode::HeapOutOfBounds);
        }
        activation.mark_range(dst, u64::from(len));
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), heap(vmctx, dst), bytes.len());
        0
    }
}

unsafe extern "C" fn data_drop(vmctx: *mut VmCtx, segment: u32) {
    // SAFETY: the contract of this module.
    let activation = unsafe { activation(vmctx) };
    if let Some(dropped) = activation.data_dropped.get_mut(segment as usize) {
        *dropped = true;
        activation.any_dropped = true;
    }
}

unsafe extern "C" fn elem_drop(vmctx: *mut VmCtx, segment: u32) {
    // SAFETY: the contract of this module.
    let activation = unsafe { activation(vmctx) };
    if let Some(dropped) = activation.elem_dropped.get_mut(segment as usize) {
        *dropped = true;
        activation.any_dropped = true;
    }
}

unsafe extern "C" fn table_grow(vmctx: *mut VmCtx, table: u32, init: u64, delta: u64) -> u64 {
    // SAFETY: the contract of this module.
    let activation = unsafe { activation(vmctx) };
    let table = table as usize;
    let (Some(shape), Some(elements)) = (activation.module.shape().tables.get(table), activation.tables.get_mut(table))
    else {
        return FAILED;
    };
    let old = elements.len() as u64;
    let Some(new) = old.checked_add(delta).filter(|new| *new <= shape.max) else { return FAILED };
    elements.resize(new as usize, init);
    if delta > 0 {
        activation.publish_table(table, true);
    }
    old
}

unsafe extern "C" fn table_fill(vmctx: *mut VmCtx, table: u32, dst: u64, value: u64, len: u64) -> u32 {
    // SAFETY: the contract of this module.
    unsafe {
        let activation = activation(vmctx);
        let Some(elements) = activation.tables.get_mut(table as usize) else {
            return raise(vmctx, TrapCode::TableOutOfBounds);
        };
        if !fits(dst, len, elements.len() as u64) {
            return raise(vmctx, TrapCode::TableOutOfBounds);
        }
        elements[dst as usize..][..len as usize].fill(value);
        (*activation.view(table as usize)).written = 1;
        0
    }
}

unsafe extern "C" fn table_copy(vmctx: *mut VmCtx, tables: u64, dst: u64, src: u64, len: u64) -> u32 {
    // SAFETY: the contract of this module.
    unsafe {
        let activation = activation(vmctx);
        let (to, from) = ((tables >> 32) as usize, (tables & 0xffff_ffff) as usize);
        let sizes = (activation.tables.get(to).map(Vec::len), activation.tables.get(from).map(Vec::len));
        let (Some(to_len), Some(from_len)) = sizes else { return raise(vmctx, TrapCode::TableOutOfBounds) };
        if !fits(dst, len, to_len as u64) || !fits(src, len, from_len as u64) {
            return raise(vmctx, TrapCode::TableOutOfBounds);
        }
        let (dst, src, len) = (dst as usize, src as usize, len as usize);
        if to == from {
            activation.tables[to].copy_within(src..src + len, dst);
        } else if let Ok([to, from]) = activation.tables.get_disjoint_mut([to, from]) {
            to[dst..dst + len].copy_from_slice(&from[src..src + len]);
        }
        (*activation.view(to)).written = 1;
        0
    }
}

unsafe extern "C" fn table_init(vmctx: *mut VmCtx, table_segment: u64, dst: u64, src: u32, len: u32) -> u32 {
    // SAFETY: the contract of this module.
    unsafe {
        let activation = activation(vmctx);
        let (table, segment) = ((table_segment >> 32) as usize, (table_segment & 0xffff_ffff) as usize);
        let dropped = activation.elem_dropped.get(segment).copied().unwrap_or(true);
        let items = if dropped { &[][..] } else { activation.module.element_words(segment) };
        let Some(items) = items.get(src as usize..).and_then(|items| items.get(..len as usize)) else {
            return raise(vmctx, TrapCode::TableOutOfBounds);
        };
        let Some(elements) = activation.tables.get_mut(table) else {
            return raise(vmctx, TrapCode::TableOutOfBounds);
        };
        if !fits(dst, u64::from(len), elements.len() as u64) {
            return raise(vmctx, TrapCode::TableOutOfBounds);
        }
        elements[dst as usize..][..len as usize].copy_from_slice(items);
        (*activation.view(table)).written = 1;
        0
    }
}
