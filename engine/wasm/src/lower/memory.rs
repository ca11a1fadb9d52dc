//! Loads, stores and the other operators on the memory.
//!
//! Enters: indexes and offsets. Leaves: accesses relative to `vmctx`, which the reservation around the heap guards.
//! Never here: SIMD-only accesses (see `simd`).
//!
//! Memory32 accesses need no check: every index plus offset plus width lies in the seat's reservation. Memory64 compares the index with a
//! bound from the context first, so that index plus an offset below 2 GiB lies inside; larger offsets are added and compared again.

use super::func::{Region, Translator};
use super::trampolines::Libcall;
use super::{LowerError, types::c_signature};
use crate::abi::{INDEX64_BOUND, TrapCode, VmCtx};
use crate::calls::Bulk;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlagsData, Type, Value, types};
use std::mem::offset_of;
use wasmparser::{MemArg, Operator};

/// Distance from `vmctx` to heap byte 0.
const HEAP_OFFSET: u64 = 65_536;
/// Largest offset that memory64 folds into the access after one check.
const OFFSET64_FOLDED_MAX: u64 = (1 << 31) - 1 - HEAP_OFFSET;

/// The first of the codes that stand for [`TrapCode::HeapOutOfBounds`] in IR.
pub(super) const HEAP_CODE_FIRST: u8 = 32;
/// How many they are.
pub(super) const HEAP_CODES: u8 = 192;

/// Which of the codes accesses of this segment have.
pub(super) fn heap_variant(segment: usize) -> u8 {
    (segment % usize::from(HEAP_CODES)) as u8
}

/// Where an access goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address {
    /// `index` (64 bits) `+ offset`; `base` is the operand that the index came from.
    Dynamic { index: Value, base: Value, offset: u64 },
    /// Known now, and in reach of a displacement.
    Constant(u64),
    /// Always out of bounds: the trap has been emitted.
    Never,
}

/// What an access moves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Full(Type),
    /// A narrow integer, extended to or cut from the second type: 8, 16 or 32 bits.
    Signed(u8, Type),
    Unsigned(u8, Type),
}

impl Translator<'_, '_> {
    /// Pops the index of an access with this immediate and checks it as far as needed.
    pub fn pop_address(&mut self, memarg: &MemArg) -> Result<Address, LowerError> {
        let base = self.pop()?;
        let offset = memarg.offset;
        let memory64 = self.b.func.dfg.value_type(base) == types::I64;
        if let Some(index) = self.constant_of(base) {
            let index = if memory64 { index as u64 } else { u64::from(index as u32) };
            if let Some(at) = index.checked_add(offset)
                && at <= OFFSET64_FOLDED_MAX
            {
                return Ok(Address::Constant(at));
            }
        }
        if memory64 {
            return self.check_index64(base, offset);
        }
        let index = self.b.ins().uextend(types::I64, base);
        Ok(Address::Dynamic { index, base, offset })
    }

    fn check_index64(&mut self, base: Value, offset: u64) -> Result<Address, LowerError> {
        if offset >= INDEX64_BOUND {
            self.trap_always(TrapCode::HeapOutOfBounds);
            // What follows is not reached, but the operator has results to give.
            let after = self.b.create_block();
            self.b.switch_to_block(after);
            self.b.seal_block(after);
            return Ok(Address::Never);
        }
        let flags = self.trusted(Region::Context).with_readonly().with_can_move();
        let bound = self.b.ins().load(types::I64, flags, self.vmctx, offset_of!(VmCtx, index64_bound) as i32);
        let beyond = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, base, bound);
        self.trap_if(beyond, TrapCode::HeapOutOfBounds);
        if offset <= OFFSET64_FOLDED_MAX {
            return Ok(Address::Dynamic { index: base, base, offset });
        }
        // index < 6 GiB and offset < 6 GiB: the sum does not wrap.
        let constant = self.b.ins().iconst(types::I64, offset as i64);
        let index = self.b.ins().iadd(base, constant);
        let beyond = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, bound);
        self.trap_if(beyond, TrapCode::HeapOutOfBounds);
        Ok(Address::Dynamic { index, base: index, offset: 0 })
    }

    /// The address as a Cranelift base and displacement. `None` where no access happens.
    pub fn place(&mut self, address: &Address) -> Option<(Value, i32)> {
        match *address {
            Address::Never => None,
            Address::Constant(at) => Some((self.vmctx, (HEAP_OFFSET + at) as i32)),
            Address::Dynamic { index, offset, .. } => {
                let base = self.b.ins().iadd(self.vmctx, index);
                let displacement = HEAP_OFFSET + offset;
                if let Ok(displacement) = i32::try_from(displacement) {
                    return Some((base, displacement));
                }
                let displacement = self.b.ins().iconst(types::I64, displacement as i64);
                Some((self.b.ins().iadd(base, displacement), 0))
            }
        }
    }

    /// Flags of a heap access.
    ///
    /// Cranelift removes a store that a later one overwrites, if both trap alike. The later one may belong to another metering segment,
    /// whose cost a trap of the first must not see; so each segment has a trap code of its own, as far as the codes reach.
    pub fn heap_flags(&self) -> MemFlagsData {
        let variant = heap_variant(self.meter.segment());
        self.guarded(Region::Heap, clif::TrapCode::unwrap_user(HEAP_CODE_FIRST + variant))
    }

    fn load(&mut self, memarg: &MemArg, width: Width) -> Result<(), LowerError> {
        let address = self.pop_address(memarg)?;
        let flags = self.heap_flags();
        let Some((base, at)) = self.place(&address) else {
            let ty = match width {
                Width::Full(ty) | Width::Signed(_, ty) | Width::Unsigned(_, ty) => ty,
            };
            let value = self.any_value(ty);
            self.push(value);
            return Ok(());
        };
        let ins = self.b.ins();
        let value = match width {
            Width::Full(ty) => ins.load(ty, flags, base, at),
            Width::Signed(8, ty) => ins.sload8(ty, flags, base, at),
            Width::Unsigned(8, ty) => ins.uload8(ty, flags, base, at),
            Width::Signed(16, ty) => ins.sload16(ty, flags, base, at),
            Width::Unsigned(16, ty) => ins.uload16(ty, flags, base, at),
            Width::Signed(..) => ins.sload32(flags, base, at),
            Width::Unsigned(..) => ins.uload32(flags, base, at),
        };
        self.push(value);
        Ok(())
    }

    /// Some value of type `ty`, for code that is not reached.
    pub fn any_value(&mut self, ty: Type) -> Value {
        match ty {
            types::F32 => self.b.ins().f32const(0.0),
            types::F64 => self.b.ins().f64const(0.0),
            ty if ty.is_vector() => {
                let value = self.v128_const(0);
                self.as_vector(value, ty)
            }
            ty => self.b.ins().iconst(ty, 0),
        }
    }

    fn store(&mut self, memarg: &MemArg, width: Width) -> Result<(), LowerError> {
        let value = self.pop()?;
        let address = self.pop_address(memarg)?;
        self.card_test(&address)?;
        let flags = self.heap_flags();
        let Some((base, at)) = self.place(&address) else { return Ok(()) };
        let ins = self.b.ins();
        match width {
            Width::Full(_) => ins.store(flags, value, base, at),
            Width::Signed(8, _) | Width::Unsigned(8, _) => ins.istore8(flags, value, base, at),
            Width::Signed(16, _) | Width::Unsigned(16, _) => ins.istore16(flags, value, base, at),
            Width::Signed(..) | Width::Unsigned(..) => ins.istore32(flags, value, base, at),
        };
        Ok(())
    }

    /// Operators on the memory, SIMD accesses excepted.
    pub fn memory_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        use Width::{Full, Signed, Unsigned};
        match op {
            Operator::I32Load { memarg } => self.load(memarg, Full(types::I32))?,
            Operator::I64Load { memarg } => self.load(memarg, Full(types::I64))?,
            Operator::F32Load { memarg } => self.load(memarg, Full(types::F32))?,
            Operator::F64Load { memarg } => self.load(memarg, Full(types::F64))?,
            Operator::I32Load8S { memarg } => self.load(memarg, Signed(8, types::I32))?,
            Operator::I32Load8U { memarg } => self.load(memarg, Unsigned(8, types::I32))?,
            Operator::I32Load16S { memarg } => self.load(memarg, Signed(16, types::I32))?,
            Operator::I32Load16U { memarg } => self.load(memarg, Unsigned(16, types::I32))?,
            Operator::I64Load8S { memarg } => self.load(memarg, Signed(8, types::I64))?,
            Operator::I64Load8U { memarg } => self.load(memarg, Unsigned(8, types::I64))?,
            Operator::I64Load16S { memarg } => self.load(memarg, Signed(16, types::I64))?,
            Operator::I64Load16U { memarg } => self.load(memarg, Unsigned(16, types::I64))?,
            Operator::I64Load32S { memarg } => self.load(memarg, Signed(32, types::I64))?,
            Operator::I64Load32U { memarg } => self.load(memarg, Unsigned(32, types::I64))?,
            Operator::I32Store { memarg } => self.store(memarg, Full(types::I32))?,
            Operator::I64Store { memarg } => self.store(memarg, Full(types::I64))?,
            Operator::F32Store { memarg } => self.store(memarg, Full(types::F32))?,
            Operator::F64Store { memarg } => self.store(memarg, Full(types::F64))?,
            Operator::V128Load { memarg } => self.load(memarg, Full(types::I8X16))?,
            Operator::V128Store { memarg } => self.store(memarg, Full(types::I8X16))?,
            Operator::I32Store8 { memarg } => self.store(memarg, Unsigned(8, types::I32))?,
            Operator::I32Store16 { memarg } => self.store(memarg, Unsigned(16, types::I32))?,
            Operator::I64Store8 { memarg } => self.store(memarg, Unsigned(8, types::I64))?,
            Operator::I64Store16 { memarg } => self.store(memarg, Unsigned(16, types::I64))?,
            Operator::I64Store32 { memarg } => self.store(memarg, Unsigned(32, types::I64))?,
            Operator::MemorySize { .. } => self.memory_size()?,
            Operator::MemoryGrow { .. } => self.memory_grow()?,
            Operator::MemoryFill { .. } => self.memory_fill()?,
            Operator::MemoryCopy { .. } => self.memory_copy()?,
            Operator::MemoryInit { data_index, .. } => self.memory_init(*data_index)?,
            Operator::DataDrop { data_index } => {
                let segment = self.b.ins().iconst(types::I32, i64::from(*data_index));
                self.libcall(Libcall::DataDrop, &[segment])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn is_memory64(&self) -> Result<bool, LowerError> {
        match &self.env.module.memory {
            Some(memory) => Ok(memory.memory64),
            None => Err(self.malformed("no memory")),
        }
    }

    /// An index or length as 64 bits.
    pub fn wide(&mut self, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == types::I64 { value } else { self.b.ins().uextend(types::I64, value) }
    }

    /// `value` (64 bits) as an index of the wanted width.
    pub fn narrow(&mut self, value: Value, wide: bool) -> Value {
        if wide { value } else { self.b.ins().ireduce(types::I32, value) }
    }

    fn memory_size(&mut self) -> Result<(), LowerError> {
        let wide = self.is_memory64()?;
        let flags = self.trusted(Region::Context);
        let bytes = self.b.ins().load(types::I64, flags, self.vmctx, offset_of!(VmCtx, heap_bytes) as i32);
        let shift = self.b.ins().iconst(types::I32, 16);
        let pages = self.b.ins().ushr(bytes, shift);
        let pages = self.narrow(pages, wide);
        self.push(pages);
        Ok(())
    }

    fn memory_grow(&mut self) -> Result<(), LowerError> {
        let wide = self.is_memory64()?;
        let delta = self.pop()?;
        let delta = self.wide(delta);
        let previous = self.libcall(Libcall::MemoryGrow, &[delta])?;
        let previous = self.narrow(previous, wide);
        self.push(previous);
        Ok(())
    }

    fn memory_fill(&mut self) -> Result<(), LowerError> {
        let len = self.pop()?;
        let byte = self.pop()?;
        let start = self.pop()?;
        self.meter_bulk(Bulk::MemoryFill, len)?;
        let (start, len) = (self.wide(start), self.wide(len));
        self.libcall(Libcall::MemoryFill, &[start, byte, len])?;
        Ok(())
    }

    fn memory_copy(&mut self) -> Result<(), LowerError> {
        let len = self.pop()?;
        let from = self.pop()?;
        let to = self.pop()?;
        self.meter_bulk(Bulk::MemoryCopy, len)?;
        let (to, from, len) = (self.wide(to), self.wide(from), self.wide(len));
        self.libcall(Libcall::MemoryCopy, &[to, from, len])?;
        Ok(())
    }

    fn memory_init(&mut self, segment: u32) -> Result<(), LowerError> {
        let len = self.pop()?;
        let from = self.pop()?;
        let to = self.pop()?;
        self.meter_bulk(Bulk::MemoryInit, len)?;
        let to = self.wide(to);
        let segment = self.b.ins().iconst(types::I32, i64::from(segment));
        self.libcall(Libcall::MemoryInit, &[segment, to, from, len])?;
        Ok(())
    }

    /// Calls a function of the runtime; one with a status raises it. Returns its result, or its status.
    pub fn libcall(&mut self, which: Libcall, args: &[Value]) -> Result<Value, LowerError> {
        let (params, returns) = which.types();
        self.meter_flush();
        let readonly = self.trusted(Region::Context).with_readonly().with_can_move();
        let plain = self.trusted(Region::Context);
        let vmctx = self.vmctx;
        let counter_at = offset_of!(VmCtx, instructions) as i32;
        if self.env.config.metering {
            let counter = self.b.ins().get_pinned_reg(types::I64);
            self.b.ins().store(plain, counter, vmctx, counter_at);
        }
        let libcalls = self.b.ins().load(types::I64, readonly, vmctx, offset_of!(VmCtx, libcalls) as i32);
        let callee = self.b.ins().load(types::I64, readonly, libcalls, which.offset());
        let signature = self.b.import_signature(c_signature(&params, returns));
        let mut all = vec![vmctx];
        all.extend_from_slice(args);
        let call = self.b.ins().call_indirect(signature, callee, &all);
        let result = self.b.inst_results(call).first().copied();
        if self.env.config.metering {
            let counter = self.b.ins().load(types::I64, plain, vmctx, counter_at);
            self.b.ins().set_pinned_reg(counter);
        }
        let Some(result) = result else { return Ok(vmctx) };
        if which.has_status() {
            self.trap_if(result, TrapCode::Status);
        }
        Ok(result)
    }
}
