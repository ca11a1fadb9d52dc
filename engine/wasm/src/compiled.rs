//! What lowering produces for a module: position-independent bytes and the tables that explain them.
//!
//! Enters: nothing. Leaves: [`CompiledModule`], plain data that could be stored and loaded unchanged.
//! Never here: executable memory (see `code`).

use crate::abi::TrapCode;

/// Machine code of a whole module. The same Wasm and configuration give identical bytes, whatever the number of compiling threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledModule {
    /// Machine code of all functions, wrappers and trampolines; direct calls inside are already relocated (PC-relative).
    pub code: Vec<u8>,
    /// One entry per defined function, in function-index order.
    pub functions: Vec<CompiledFunction>,
    /// Offset in `code` of the wrapper of each imported function: Wasm calling convention in, `Libcalls::host_call` out.
    pub import_wrappers: Vec<u32>,
    /// Offset in `code` of the entry trampoline of each function type, `extern "C" fn(vmctx, code_address, args: *mut u128)`:
    /// loads the pinned register from and stores it to `VmCtx::instructions`, passes `VmCtx::stack_slots`, reads parameters from and writes results to `args`, 16 bytes each.
    pub entry_trampolines: Vec<u32>,
    /// Trap sites sorted by `offset`.
    pub traps: Vec<TrapSite>,
    /// Checks of the instruction counter sorted by `offset`.
    pub checks: Vec<CheckSite>,
    /// Offset in `code` of what calls the runtime for a check that failed; see `runtime::arch::Context::call_for_check`.
    pub check_thunk: u32,
    /// Return addresses, and where checks resume, with the Wasm offset of their operator, sorted; for backtraces.
    pub calls: Vec<CallSite>,
    /// Canonical index of each function type: what [`crate::abi::FuncRef::type_id`] holds.
    pub type_ids: Vec<u32>,
}

/// Where one defined function lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledFunction {
    /// First byte in `CompiledModule::code`.
    pub offset: u32,
    /// Bytes of code.
    pub len: u32,
    /// Native frame in bytes (everything between caller's stack pointer at the call and ours).
    pub frame_bytes: u32,
    /// What the function takes of `stack_left`.
    pub stack_slots: u32,
}

/// One instruction that may trap (a guarded memory access, a `ud2`, a division).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapSite {
    /// Offset of the faulting instruction in `CompiledModule::code`.
    pub offset: u32,
    /// Why it traps.
    pub code: TrapCode,
    /// Offset of the Wasm operator in the module's binary.
    pub wasm_offset: u32,
    /// Instructions charged by the replica's rule up to here that the counter register does not yet hold; subtract at the trap.
    pub pending: u32,
}

/// One check of the instruction counter: where it leads when the counter is negative, and where the code goes on when there are instructions
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckSite {
    /// Offset of the `ud2` in `CompiledModule::code`.
    pub offset: u32,
    /// Offset of the instruction to go on at.
    pub resume: u32,
}

/// One call: the address after it, for walking frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// Offset of the return address in `CompiledModule::code`.
    pub return_offset: u32,
    /// Offset of the Wasm operator in the module's binary.
    pub wasm_offset: u32,
}
