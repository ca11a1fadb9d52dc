//! The contract between compiled code and its runtime: what `lower` may emit and `runtime` must provide.
//!
//! Enters: nothing. Leaves: the layout of [`VmCtx`], the order of [`Libcalls`], the codes of [`TrapCode`].
//! Never here: behaviour.
//!
//! A compiled Wasm function is `fn(vmctx: i64, stack_left: i64, params...) -> results` in Cranelift's own convention; only code made by
//! `lower` calls it. While Wasm runs, the
//! instructions left live in Cranelift's pinned register; they are stored to [`VmCtx::instructions`] around every
//! call out of compiled code that may read or change them, and recovered from the machine context at a trap.
//! `vmctx` is the seat's context address: the card table lies below it, the heap at `vmctx + HEAP_OFFSET`.

use std::mem::{offset_of, size_of};

/// Largest number of parameters of an imported function (`ic0.call_new` has eight).
pub const HOST_ARGS_MAX: usize = 16;

/// The context of one seat, at the address that compiled code receives first. The globals follow it from
/// [`GLOBALS_OFFSET`], then the [`TableView`]s from [`table_view_offset`].
#[repr(C, align(64))]
pub struct VmCtx {
    /// Instructions left in this slice, when compiled code is not running. Negative: the check has failed.
    pub instructions: i64,
    /// Current heap size in bytes (for `memory.size` and bulk operations).
    pub heap_bytes: u64,
    /// Addresses of the runtime's functions, [`Libcalls`].
    pub libcalls: *const Libcalls,
    /// The runtime's own record of the running execution; opaque to compiled code.
    pub activation: *mut u8,
    /// One [`FuncRef`] per function, imports included, by function index. The same for every instance of a module.
    pub func_refs: *const FuncRef,
    /// Memory64 only: accesses at this index or above trap without touching memory (6 GiB, [`INDEX64_BOUND`]). A constant, kept
    /// here because comparing with memory is shorter than loading the constant.
    pub index64_bound: u64,
    /// `stack_left` with which an entry from the host starts, in slots.
    pub stack_slots: i64,
    /// Reserved; zero.
    pub reserved: [u64; 9],
    /// Arguments of a host call, and its result in the first place. A `v128` takes two places.
    pub args: [u64; HOST_ARGS_MAX],
}

/// Where the globals start, relative to `vmctx`: 16 bytes each, at their global index. Immutable globals have their place too;
/// compiled code reads constants from the code instead. References are stored as in [`TableView::elements`].
pub const GLOBALS_OFFSET: i32 = 256;

/// Memory64: no valid access has a larger index. Together with offsets up to `2^31 - 1` and 16 bytes of access it stays inside the
/// reservation of 8 GiB + 64 KiB; larger offsets are added and compared again.
pub const INDEX64_BOUND: u64 = 6 << 30;

/// Bytes of a [`TableView`].
pub const TABLE_VIEW_BYTES: i32 = 32;

/// Where the view of `table` lies, relative to `vmctx`, in a module with `globals` globals.
pub const fn table_view_offset(globals: u32, table: u32) -> i32 {
    GLOBALS_OFFSET + 16 * globals as i32 + TABLE_VIEW_BYTES * table as i32
}

/// Slots that every Wasm frame takes of `stack_left` besides its parameters, locals and operands: return address, frame pointer,
/// `vmctx`, `stack_left`, and room for what the compiler keeps besides.
pub const FRAME_SLOTS: u32 = 8;

/// A compiled frame larger than this many bytes per slot it takes of `stack_left` is made anew without optimization; where it is larger
/// even then, the module's executions have larger native stacks (`StackNeeded`).
///
/// A slot is 8 bytes (16 for a vector); values that the compiler spills come on top. The ICRC ledger of pocket-ic 3.1 has a function
/// of 1,456 bytes for 50 slots, 29 a slot: 64 leaves a factor of two, and costs address space alone.
pub const NATIVE_BYTES_PER_SLOT: u32 = 64;

const _: () = assert!(size_of::<VmCtx>() == GLOBALS_OFFSET as usize);
const _: () = assert!(offset_of!(VmCtx, args) == 128);

/// A function as a table entry or `funcref` value points to it. A null reference is the address 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FuncRef {
    /// Address of the compiled function (or of an import's wrapper).
    pub code: *const u8,
    /// Canonical type index within the module (equal types share an index); what `call_indirect` compares.
    pub type_id: u32,
    /// Function index, for diagnostics.
    pub func_index: u32,
}

/// What compiled code sees of a table: elements are addresses of [`FuncRef`] (or opaque `externref` words).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TableView {
    /// First element, eight bytes each.
    pub elements: *mut u64,
    /// Current number of elements.
    pub len: u64,
    /// Set to 1 by `table.set`: the table must be reset after the message. (Libcalls that write a table may use it too.)
    pub written: u64,
    /// Reserved; zero.
    pub reserved: u64,
}

const _: () = assert!(size_of::<TableView>() == TABLE_VIEW_BYTES as usize);

/// The runtime's functions, called from compiled code with the platform's C convention. Those that return a status
/// answer 0 for success; after anything else compiled code raises [`TrapCode::Status`], which means "the reason is the status
/// just returned" (the runtime notes it before it returns, for example in the activation). The instruction counter has been stored
/// before and is reloaded after each call except [`Libcalls::mark`], which never reads it. `memory_grow` and `table_grow` take
/// effect before they return: compiled code reads `heap_bytes` and the table's view again.
#[repr(C)]
pub struct Libcalls {
    /// `host_call(vmctx, import_index) -> status`. Arguments and result in [`VmCtx::args`].
    pub host_call: unsafe extern "C" fn(*mut VmCtx, u32) -> u32,
    /// `out_of_instructions(vmctx) -> status`: the counter went negative at a check. Suspends, or refills, or traps.
    pub out_of_instructions: unsafe extern "C" fn(*mut VmCtx) -> u32,
    /// `mark(vmctx, heap_address)`: slow path of the card test; saves the page and its successor's head. An address beyond the
    /// heap is ignored (the store that follows traps).
    pub mark: unsafe extern "C" fn(*mut VmCtx, u64),
    /// `memory_grow(vmctx, delta_pages) -> previous pages or u64::MAX`.
    pub memory_grow: unsafe extern "C" fn(*mut VmCtx, u64) -> u64,
    /// `memory_fill(vmctx, dst, byte, len) -> status`.
    pub memory_fill: unsafe extern "C" fn(*mut VmCtx, u64, u32, u64) -> u32,
    /// `memory_copy(vmctx, dst, src, len) -> status`.
    pub memory_copy: unsafe extern "C" fn(*mut VmCtx, u64, u64, u64) -> u32,
    /// `memory_init(vmctx, segment, dst, src, len) -> status`.
    pub memory_init: unsafe extern "C" fn(*mut VmCtx, u32, u64, u32, u32) -> u32,
    /// `data_drop(vmctx, segment)`.
    pub data_drop: unsafe extern "C" fn(*mut VmCtx, u32),
    /// `table_grow(vmctx, table, init, delta) -> previous size or u64::MAX`.
    pub table_grow: unsafe extern "C" fn(*mut VmCtx, u32, u64, u64) -> u64,
    /// `table_fill(vmctx, table, dst, value, len) -> status`.
    pub table_fill: unsafe extern "C" fn(*mut VmCtx, u32, u64, u64, u64) -> u32,
    /// `table_copy(vmctx, dst_table << 32 | src_table, dst, src, len) -> status`.
    pub table_copy: unsafe extern "C" fn(*mut VmCtx, u64, u64, u64, u64) -> u32,
    /// `table_init(vmctx, table << 32 | segment, dst, src, len) -> status`.
    pub table_init: unsafe extern "C" fn(*mut VmCtx, u64, u64, u32, u32) -> u32,
    /// `elem_drop(vmctx, segment)`.
    pub elem_drop: unsafe extern "C" fn(*mut VmCtx, u32),
    /// `call_begins(vmctx, function)`: a function has been entered, and nothing of it been charged. Only code that reports calls calls this.
    pub call_begins: unsafe extern "C" fn(*mut VmCtx, u32),
    /// `call_ends(vmctx)`: the function entered last has been charged all that it costs.
    pub call_ends: unsafe extern "C" fn(*mut VmCtx),
}

/// Why compiled code stopped. Numbers are part of the trap tables; user trap codes in CLIF are these.
///
/// A fault (SIGSEGV, SIGBUS, SIGILL, SIGFPE) whose program counter is a trap site has the site's code, whatever the address: the
/// null check of `call_indirect` is a load from address 8, so its site says [`TrapCode::IndirectCallToNull`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TrapCode {
    /// `unreachable` was executed.
    Unreachable = 1,
    /// A heap access beyond the memory's size.
    HeapOutOfBounds = 2,
    /// A table access beyond the table's size.
    TableOutOfBounds = 3,
    /// `call_indirect` through a null entry.
    IndirectCallToNull = 4,
    /// `call_indirect` with another signature than the function's.
    BadSignature = 5,
    /// Integer overflow in a division or a conversion.
    IntegerOverflow = 6,
    /// Integer division by zero.
    IntegerDivisionByZero = 7,
    /// Conversion of a NaN to an integer.
    BadConversionToInteger = 8,
    /// The stack limit in Wasm terms was reached.
    StackOverflow = 9,
    /// A segment access out of bounds, or use of a dropped segment.
    SegmentOutOfBounds = 10,
    /// A host function failed; the reason is in the execution's record.
    Host = 11,
    /// The message's instruction limit was reached.
    InstructionLimit = 12,
    /// A `ref.as_non_null`-like operator met a null reference.
    NullReference = 13,
    /// A libcall answered a status other than 0; see [`Libcalls`].
    Status = 14,
}

impl TrapCode {
    /// The code numbered `code`, if there is one.
    pub const fn from_u8(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Unreachable,
            2 => Self::HeapOutOfBounds,
            3 => Self::TableOutOfBounds,
            4 => Self::IndirectCallToNull,
            5 => Self::BadSignature,
            6 => Self::IntegerOverflow,
            7 => Self::IntegerDivisionByZero,
            8 => Self::BadConversionToInteger,
            9 => Self::StackOverflow,
            10 => Self::SegmentOutOfBounds,
            11 => Self::Host,
            12 => Self::InstructionLimit,
            13 => Self::NullReference,
            14 => Self::Status,
            _ => return None,
        })
    }
}
