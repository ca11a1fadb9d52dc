//! Ways in and out of Wasm code: entry trampolines, wrappers of imports, helpers with a cold convention.
//!
//! Enters: signatures. Leaves: small functions in Cranelift IR. Never here: Wasm operators.

use super::LowerError;
use super::cards::PAGE_SHIFT;
use super::func::{NAMESPACE_HELPER, Translator, clif_trap};
use super::types::{WASM_CONV, c_signature, clif_type, wasm_signature};
use crate::abi::{HOST_ARGS_MAX, Libcalls, TrapCode, VmCtx};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, MemFlagsData, Signature, Type, Value, types};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::mem::offset_of;
use wasmparser::FuncType;

/// Functions of the module's own that bodies call on rare paths. They keep all registers, so that the common path around them does not pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    /// `(vmctx, heap address)`
    Mark = 0,
    /// `(vmctx)`, from [`super::x64::CHECK_THUNK`].
    OutOfInstructions = 1,
    /// `(vmctx, page)` in either order
    MarkPage = 2,
}

/// All helpers, by number. In relocations, the number after the last is [`super::x64::MARK_THUNK`], then comes
/// [`super::x64::CHECK_THUNK`].
pub(super) const HELPERS: [Helper; 3] = [Helper::Mark, Helper::OutOfInstructions, Helper::MarkPage];

/// The runtime's functions that bodies call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Libcall {
    MemoryGrow,
    MemoryFill,
    MemoryCopy,
    MemoryInit,
    DataDrop,
    TableGrow,
    TableFill,
    TableCopy,
    TableInit,
    ElemDrop,
    CallBegins,
    CallEnds,
}

impl Libcall {
    /// Where its address is in [`Libcalls`].
    pub fn offset(self) -> i32 {
        let offset = match self {
            Self::MemoryGrow => offset_of!(Libcalls, memory_grow),
            Self::MemoryFill => offset_of!(Libcalls, memory_fill),
            Self::MemoryCopy => offset_of!(Libcalls, memory_copy),
            Self::MemoryInit => offset_of!(Libcalls, memory_init),
            Self::DataDrop => offset_of!(Libcalls, data_drop),
            Self::TableGrow => offset_of!(Libcalls, table_grow),
            Self::TableFill => offset_of!(Libcalls, table_fill),
            Self::TableCopy => offset_of!(Libcalls, table_copy),
            Self::TableInit => offset_of!(Libcalls, table_init),
            Self::ElemDrop => offset_of!(Libcalls, elem_drop),
            Self::CallBegins => offset_of!(Libcalls, call_begins),
            Self::CallEnds => offset_of!(Libcalls, call_ends),
        };
        offset as i32
    }

    /// Parameters, `vmctx` included, and results.
    pub fn types(self) -> (Vec<Type>, &'static [Type]) {
        use types::{I32, I64};
        let (params, returns): (&[Type], &[Type]) = match self {
            Self::MemoryGrow => (&[I64, I64], &[I64]),
            Self::MemoryFill => (&[I64, I64, I32, I64], &[I32]),
            Self::MemoryCopy => (&[I64, I64, I64, I64], &[I32]),
            Self::MemoryInit => (&[I64, I32, I64, I32, I32], &[I32]),
            Self::DataDrop | Self::ElemDrop | Self::CallBegins => (&[I64, I32], &[]),
            Self::CallEnds => (&[I64], &[]),
            Self::TableGrow => (&[I64, I32, I64, I64], &[I64]),
            Self::TableFill => (&[I64, I32, I64, I64, I64], &[I32]),
            Self::TableCopy => (&[I64, I64, I64, I64, I64], &[I32]),
            Self::TableInit => (&[I64, I64, I64, I32, I32], &[I32]),
        };
        (
            params.to_vec(),
            if returns.is_empty() {
                &[]
            } else if returns[0] == I64 {
                &[I64]
            } else {
                &[I32]
            },
        )
    }

    /// Whether its result is a status.
    pub fn has_status(self) -> bool {
        self.types().1 == [types::I32]
    }
}

impl Translator<'_, '_> {
    /// The reference by which bodies call `helper`.
    pub fn helper(&mut self, helper: Helper) -> Result<cranelift_codegen::ir::FuncRef, LowerError> {
        self.import(NAMESPACE_HELPER, helper as u32, |t| Ok(t.b.import_signature(helper_signature(helper))))
    }
}

/// A small function being built.
struct Small<'f> {
    b: FunctionBuilder<'f>,
    params: Vec<Value>,
}

impl<'f> Small<'f> {
    fn new(func: &'f mut Function, context: &'f mut FunctionBuilderContext, signature: Signature) -> Self {
        func.signature = signature;
        let mut b = FunctionBuilder::new(func, context);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        b.seal_block(entry);
        let params = b.block_params(entry).to_vec();
        Self { b, params }
    }

    fn load(&mut self, ty: Type, base: Value, offset: usize) -> Value {
        self.b.ins().load(ty, MemFlagsData::trusted(), base, offset as i32)
    }

    fn store(&mut self, value: Value, base: Value, offset: usize) {
        self.b.ins().store(MemFlagsData::trusted(), value, base, offset as i32);
    }

    fn store_counter(&mut self, vmctx: Value) {
        let counter = self.b.ins().get_pinned_reg(types::I64);
        self.store(counter, vmctx, offset_of!(VmCtx, instructions));
    }

    fn load_counter(&mut self, vmctx: Value) {
        let counter = self.load(types::I64, vmctx, offset_of!(VmCtx, instructions));
        self.b.ins().set_pinned_reg(counter);
    }

    /// Calls the C function whose address is at `offset` of the libcall table.
    fn libcall(&mut self, offset: usize, params: &[Type], returns: &[Type], args: &[Value]) -> Option<Value> {
        let libcalls = self.load(types::I64, args[0], offset_of!(VmCtx, libcalls));
        let callee = self.load(types::I64, libcalls, offset);
        let signature = self.b.import_signature(c_signature(params, returns));
        let call = self.b.ins().call_indirect(signature, callee, args);
        self.b.inst_results(call).first().copied()
    }
}

fn helper_signature(helper: Helper) -> Signature {
    let mut signature = Signature::new(CallConv::PreserveAll);
    let params = match helper {
        Helper::Mark | Helper::MarkPage => 2,
        Helper::OutOfInstructions => 1,
    };
    signature.params.extend((0..params).map(|_| AbiParam::new(types::I64)));
    signature
}

/// Builds `helper`.
pub(super) fn build_helper(
    helper: Helper,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    frontend: TargetFrontendConfig,
) {
    let mut f = Small::new(func, context, helper_signature(helper));
    let vmctx = f.params[0];
    match helper {
        Helper::Mark => {
            let address = f.params[1];
            f.libcall(offset_of!(Libcalls, mark), &[types::I64, types::I64], &[], &[vmctx, address]);
        }
        Helper::MarkPage => {
            // Machine code adds the two, so it may hold them either way round. The card table lies below `vmctx` and has more bytes than
            // there are pages, so the smaller one is the page.
            let other = f.params[1];
            let vmctx_below = f.b.ins().icmp(IntCC::UnsignedLessThan, vmctx, other);
            let page = f.b.ins().select(vmctx_below, vmctx, other);
            let vmctx = f.b.ins().select(vmctx_below, other, vmctx);
            let shift = f.b.ins().iconst(types::I32, PAGE_SHIFT);
            let address = f.b.ins().ishl(page, shift);
            f.libcall(offset_of!(Libcalls, mark), &[types::I64, types::I64], &[], &[vmctx, address]);
        }
        Helper::OutOfInstructions => {
            f.store_counter(vmctx);
            let status = f.libcall(offset_of!(Libcalls, out_of_instructions), &[types::I64], &[types::I32], &[vmctx]);
            f.load_counter(vmctx);
            if let Some(status) = status {
                f.b.ins().trapnz(status, clif_trap(TrapCode::Status));
            }
        }
    }
    f.b.ins().return_(&[]);
    f.b.finalize(frontend);
}

/// Builds the wrapper of import number `import`: Wasm convention in, `host_call` out.
pub(super) fn build_import_wrapper(
    import: u32,
    ty: &FuncType,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    frontend: TargetFrontendConfig,
) -> Result<(), LowerError> {
    let slots = |types: &[wasmparser::ValType]| -> usize {
        types.iter().map(|ty| clif_type(*ty).bytes().div_ceil(8) as usize).sum()
    };
    if slots(ty.params()) > HOST_ARGS_MAX || slots(ty.results()) > HOST_ARGS_MAX {
        return Err(LowerError::Codegen {
            function: import,
            message: format!("an imported function has more than {HOST_ARGS_MAX} parameters or results"),
        });
    }
    let mut f = Small::new(func, context, wasm_signature(ty));
    let vmctx = f.params[0];
    let args = offset_of!(VmCtx, args);
    let mut at = args;
    #[allow(clippy::unnecessary_to_owned, reason = "the loop's body borrows `f` mutably")]
    for value in f.params[2..].to_vec() {
        let ty = f.b.func.dfg.value_type(value);
        // A place is read as a whole: a narrow integer fills it.
        let value = if ty == types::I32 { f.b.ins().uextend(types::I64, value) } else { value };
        if ty == types::F32 {
            let zero = f.b.ins().iconst(types::I64, 0);
            f.store(zero, vmctx, at);
        }
        f.store(value, vmctx, at);
        at += ty.bytes().div_ceil(8) as usize * 8;
    }
    f.store_counter(vmctx);
    let index = f.b.ins().iconst(types::I32, i64::from(import));
    let status = f.libcall(offset_of!(Libcalls, host_call), &[types::I64, types::I32], &[types::I32], &[vmctx, index]);
    f.load_counter(vmctx);
    if let Some(status) = status {
        f.b.ins().trapnz(status, clif_trap(TrapCode::Status));
    }
    let mut at = args;
    let mut results = Vec::with_capacity(ty.results().len());
    for ty in ty.results() {
        let ty = clif_type(*ty);
        results.push(f.load(ty, vmctx, at));
        at += ty.bytes().div_ceil(8) as usize * 8;
    }
    f.b.ins().return_(&results);
    f.b.finalize(frontend);
    Ok(())
}

/// Builds the entry of functions of type `ty`: `extern "C" fn(vmctx, code, args: *mut u128)`.
pub(super) fn build_entry(
    ty: &FuncType,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    frontend: TargetFrontendConfig,
) {
    let mut f = Small::new(func, context, c_signature(&[types::I64, types::I64, types::I64], &[]));
    let (vmctx, code, args) = (f.params[0], f.params[1], f.params[2]);
    // The pinned register is the caller's, and Cranelift does not save it.
    let saved = f.b.ins().get_pinned_reg(types::I64);
    let slots = f.load(types::I64, vmctx, offset_of!(VmCtx, stack_slots));
    let mut values = vec![vmctx, slots];
    for (index, ty) in ty.params().iter().enumerate() {
        values.push(f.load(clif_type(*ty), args, index * 16));
    }
    f.load_counter(vmctx);
    debug_assert_eq!(wasm_signature(ty).call_conv, WASM_CONV);
    let signature = f.b.import_signature(wasm_signature(ty));
    let call = f.b.ins().call_indirect(signature, code, &values);
    let results = f.b.inst_results(call).to_vec();
    f.store_counter(vmctx);
    for (index, value) in results.into_iter().enumerate() {
        f.store(value, args, index * 16);
    }
    f.b.ins().set_pinned_reg(saved);
    f.b.ins().return_(&[]);
    f.b.finalize(frontend);
}
