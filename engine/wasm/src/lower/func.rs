//! Translation of one function body.
//!
//! Enters: a body, its scan, the module's facts. Leaves: Cranelift IR, the slots of its frame, the pending charges by Wasm offset.
//! Never here: machine code.

use super::cards::Cards;
use super::control::Frame;
use super::meter::{Meter, Pending};
use super::scan::{Scan, ends_segment};
use super::types::{clif_type, slots_of};
use super::{Config, LowerError, ModuleInfo, Tracking, x64};
use crate::abi::{self, TrapCode};
use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{
    self, AliasRegion, AliasRegionData, ExtFuncData, ExternalName, Function, InstBuilder, InstructionData,
    MemFlagsData, Opcode, SigRef, Type, UserExternalName, Value, types,
};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use std::collections::HashMap;
use wasmparser::{FunctionBody, Operator, ValType};

/// Name space of Wasm functions in relocations; the index is the function index.
pub(super) const NAMESPACE_WASM: u32 = 0;
/// Name space of the module's own helpers, see [`super::trampolines::Helper`].
pub(super) const NAMESPACE_HELPER: u32 = 1;

/// What every body of a module shares.
pub(super) struct Env<'a> {
    pub module: &'a ModuleInfo<'a>,
    pub config: Config,
    pub frontend: TargetFrontendConfig,
    /// Canonical index of each type.
    pub type_ids: Vec<u32>,
    /// Whether each table's size can change.
    pub table_grows: Vec<bool>,
}

/// What translation of a body says besides the IR.
pub(super) struct Translated {
    /// Slots that the function takes of `stack_left`.
    pub stack_slots: u32,
    /// Pending charges, by the offset from which on they are.
    pub pending: Vec<Pending>,
}

/// Values on the operand stack, with their height in slots.
#[derive(Default)]
pub(super) struct Operands {
    pub values: Vec<Value>,
    slots: Vec<u32>,
    max: u32,
}

impl Operands {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    fn push(&mut self, value: Value, slots: u32) {
        let height = self.slots.last().copied().unwrap_or(0) + slots;
        self.values.push(value);
        self.slots.push(height);
        self.max = self.max.max(height);
    }

    pub fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.slots.truncate(len);
    }
}

/// Which memory an access touches, for the alias analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    Heap,
    Context,
    Table,
    Cards,
}

/// The state of a translation.
pub(super) struct Translator<'a, 'f> {
    pub b: FunctionBuilder<'f>,
    pub env: &'a Env<'a>,
    pub scan: &'a Scan,
    pub stack: Operands,
    pub frames: Vec<Frame>,
    /// Whether the code being read can be reached.
    pub live: bool,
    /// Whether card tests are made for rewriting, see `x64`.
    pub stubs: bool,
    /// Module offset of the operator being read.
    pub offset: u32,
    pub vmctx: Value,
    /// `stack_left` for callees.
    pub stack_below: Value,
    /// `stack_left` as received: what a callee gets that takes this frame's place.
    pub stack_left: Value,
    pub meter: Meter,
    pub cards: Cards,
    pub loops_seen: usize,
    pub ifs_seen: usize,
    locals: Vec<Variable>,
    local_types: Vec<Type>,
    signatures: HashMap<u32, SigRef>,
    functions: HashMap<(u32, u32), ir::FuncRef>,
    regions: [AliasRegion; 4],
    function_type: u32,
}

/// Translates `body`, the function `function` of type index `ty`, into `func`, which must be empty and have its signature.
pub(super) fn translate(
    env: &Env<'_>,
    (function, ty): (u32, u32),
    body: &FunctionBody<'_>,
    scan: &Scan,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    stubs: bool,
) -> Result<Translated, LowerError> {
    let mut builder = FunctionBuilder::new(func, context);
    let regions = [
        region(&mut builder, 1, "heap"),
        region(&mut builder, 2, "context"),
        region(&mut builder, 3, "table"),
        region(&mut builder, 4, "cards"),
    ];
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let vmctx = builder.block_params(entry)[0];
    let stack_left = builder.block_params(entry)[1];
    let start = to_u32(body.range().start)?;
    let mut t = Translator {
        b: builder,
        env,
        scan,
        stack: Operands::default(),
        frames: Vec::new(),
        live: true,
        stubs,
        offset: start,
        vmctx,
        stack_below: stack_left,
        stack_left,
        meter: Meter::new(env.config.metering),
        cards: Cards::new(env.config.tracking == Tracking::Cards),
        loops_seen: 0,
        ifs_seen: 0,
        locals: Vec::new(),
        local_types: Vec::new(),
        signatures: HashMap::new(),
        functions: HashMap::new(),
        regions,
        function_type: ty,
    };
    t.set_location(start);
    let local_slots = t.declare_locals(entry, body)?;
    let slots = t.enter_frame(stack_left);
    t.call_begins(function)?;
    t.meter_function_entry();
    t.push_function_frame();
    t.operators(body)?;
    let stack_slots = abi::FRAME_SLOTS.saturating_add(local_slots).saturating_add(t.stack.max);
    for inst in slots {
        t.patch_constant(inst.0, inst.1 * i64::from(stack_slots));
    }
    let pending = std::mem::take(&mut t.meter.recorded);
    t.b.finalize(env.frontend);
    Ok(Translated { stack_slots, pending })
}

fn region(builder: &mut FunctionBuilder<'_>, user_id: u32, name: &'static str) -> AliasRegion {
    builder.func.dfg.alias_regions.insert(AliasRegionData { user_id, description: name.into() })
}

fn to_u32(offset: usize) -> Result<u32, LowerError> {
    match u32::try_from(offset) {
        Ok(offset) if offset <= x64::OFFSET_MASK => Ok(offset),
        _ => Err(LowerError::Malformed { message: "module larger than 1 GiB".into(), offset }),
    }
}

impl Translator<'_, '_> {
    /// Declares parameters and locals, zeroed. Returns their slots.
    fn declare_locals(&mut self, entry: ir::Block, body: &FunctionBody<'_>) -> Result<u32, LowerError> {
        let params: Vec<Value> = self.b.block_params(entry)[2..].to_vec();
        let mut slots: u32 = 0;
        for value in params {
            let ty = self.b.func.dfg.value_type(value);
            self.declare_local(ty, value);
            slots = slots.saturating_add(slots_of(ty));
        }
        for local in body.get_locals_reader()? {
            let (count, ty) = local?;
            let zero = self.zero(ty);
            for _ in 0..count {
                self.declare_local(clif_type(ty), zero);
            }
            slots = slots.saturating_add(count.saturating_mul(slots_of(clif_type(ty))));
        }
        Ok(slots)
    }

    fn declare_local(&mut self, ty: Type, value: Value) {
        let variable = self.b.declare_var(ty);
        self.b.def_var(variable, value);
        self.locals.push(variable);
        self.local_types.push(ty);
    }

    fn zero(&mut self, ty: ValType) -> Value {
        match ty {
            ValType::I32 => self.b.ins().iconst(types::I32, 0),
            ValType::I64 | ValType::Ref(_) => self.b.ins().iconst(types::I64, 0),
            ValType::F32 => self.b.ins().f32const(0.0),
            ValType::F64 => self.b.ins().f64const(0.0),
            ValType::V128 => self.v128_const(0),
        }
    }

    /// A vector constant, as `I8X16`.
    pub fn v128_const(&mut self, bits: u128) -> Value {
        let constant = self.b.func.dfg.constants.insert(bits.to_le_bytes().to_vec().into());
        self.b.ins().vconst(types::I8X16, constant)
    }

    /// A vector of zeros of this type, without the bit cast that would hide it from patterns that want a constant.
    pub fn zero_of(&mut self, ty: Type) -> Value {
        let constant = self.b.func.dfg.constants.insert(vec![0; 16].into());
        self.b.ins().vconst(ty, constant)
    }

    /// Checks the stack budget and takes this frame from it. Returns the constants to set once the slots are known, with their factors.
    fn enter_frame(&mut self, stack_left: Value) -> [(ir::Inst, i64); 2] {
        let limit = self.b.ins().iconst(types::I64, 0);
        let low = self.b.ins().icmp(ir::condcodes::IntCC::SignedLessThan, stack_left, limit);
        self.trap_if(low, TrapCode::StackOverflow);
        let taken = self.b.ins().iconst(types::I64, 0);
        self.stack_below = self.b.ins().iadd(stack_left, taken);
        [(self.def_of(limit), 1), (self.def_of(taken), -1)]
    }

    fn operators(&mut self, body: &FunctionBody<'_>) -> Result<(), LowerError> {
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let (op, offset) = reader.read_with_offset()?;
            self.set_location(to_u32(offset)?);
            self.operator(&op)?;
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        Err(self.malformed("function body without end"))
    }

    fn operator(&mut self, op: &Operator<'_>) -> Result<(), LowerError> {
        let handled = if self.live {
            self.control_operator(op)?
                || self.plain_operator(op)?
                || self.numeric_operator(op)?
                || self.memory_operator(op)?
                || self.call_operator(op)?
                || self.table_operator(op)?
                || self.simd_operator(op)?
        } else {
            self.dead_operator(op)?
        };
        if !handled {
            return Err(LowerError::Unsupported { operator: operator_name(op), offset: self.offset as usize });
        }
        if ends_segment(op) && !matches!(op, Operator::Loop { .. }) {
            self.meter_segment();
        }
        Ok(())
    }

    fn plain_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        match op {
            Operator::Nop => {}
            Operator::Drop => {
                self.pop()?;
            }
            Operator::LocalGet { local_index } => {
                let variable = self.local(*local_index)?;
                let value = self.b.use_var(variable);
                self.push(value);
            }
            Operator::LocalSet { local_index } => {
                let value = self.pop_plain()?;
                let variable = self.local(*local_index)?;
                self.b.def_var(variable, value);
            }
            Operator::LocalTee { local_index } => {
                let value = self.pop_plain()?;
                let variable = self.local(*local_index)?;
                self.b.def_var(variable, value);
                self.push(value);
            }
            Operator::Select | Operator::TypedSelect { .. } => {
                let condition = self.pop()?;
                let if_zero = self.pop_plain()?;
                let if_set = self.pop_plain()?;
                let value = self.b.ins().select(condition, if_set, if_zero);
                self.push(value);
            }
            Operator::GlobalGet { global_index } => self.global_get(*global_index)?,
            Operator::GlobalSet { global_index } => {
                let value = self.pop_plain()?;
                let flags = self.trusted(Region::Context);
                let vmctx = self.vmctx;
                self.b.ins().store(flags, value, vmctx, global_offset(*global_index));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn global_get(&mut self, index: u32) -> Result<(), LowerError> {
        use super::Constant;
        let Some(global) = self.env.module.globals.get(index as usize).copied() else {
            return Err(self.malformed("unknown global"));
        };
        let constant = if global.mutable { None } else { global.init };
        let value = match constant {
            Some(Constant::I32(value)) => self.b.ins().iconst(types::I32, i64::from(value as u32)),
            Some(Constant::I64(value)) => self.b.ins().iconst(types::I64, value),
            Some(Constant::F32(bits)) => self.b.ins().f32const(ir::immediates::Ieee32::with_bits(bits)),
            Some(Constant::F64(bits)) => self.b.ins().f64const(ir::immediates::Ieee64::with_bits(bits)),
            Some(Constant::V128(bits)) => self.v128_const(bits),
            Some(Constant::Null) => self.b.ins().iconst(types::I64, 0),
            Some(Constant::Func(function)) => self.function_reference(function),
            None => {
                let mut flags = self.trusted(Region::Context);
                if !global.mutable {
                    flags = flags.with_readonly().with_can_move();
                }
                let vmctx = self.vmctx;
                self.b.ins().load(clif_type(global.ty), flags, vmctx, global_offset(index))
            }
        };
        self.push(value);
        Ok(())
    }

    fn set_location(&mut self, offset: u32) {
        self.offset = offset;
        self.b.set_srcloc(ir::SourceLoc::new(offset));
        self.meter.at(offset);
    }

    /// Marks the code that follows as instrumentation of kind `mark`, or as ordinary (0).
    pub fn mark_location(&mut self, mark: u32) {
        self.b.set_srcloc(ir::SourceLoc::new(self.offset | mark));
    }

    /// The variable of a local.
    pub fn local(&self, index: u32) -> Result<Variable, LowerError> {
        self.locals.get(index as usize).copied().ok_or_else(|| self.malformed("unknown local"))
    }

    /// The error for bytes that validation should have refused.
    pub fn malformed(&self, message: &str) -> LowerError {
        LowerError::Malformed { message: message.into(), offset: self.offset as usize }
    }

    /// Pushes a value.
    pub fn push(&mut self, value: Value) {
        let slots = slots_of(self.b.func.dfg.value_type(value));
        self.stack.push(value, slots);
    }

    /// Pops a value; a vector may have any lane type.
    pub fn pop(&mut self) -> Result<Value, LowerError> {
        let floor = self.frames.last().map_or(0, |frame| frame.height);
        if self.stack.len() <= floor {
            return Err(self.malformed("operand stack underflow"));
        }
        let value = self.stack.values[self.stack.len() - 1];
        self.stack.truncate(self.stack.len() - 1);
        Ok(value)
    }

    /// Pops a value; a vector comes as `I8X16`.
    pub fn pop_plain(&mut self) -> Result<Value, LowerError> {
        let value = self.pop()?;
        Ok(self.plain(value))
    }

    /// Pops a vector as `ty`.
    pub fn pop_vector(&mut self, ty: Type) -> Result<Value, LowerError> {
        let value = self.pop()?;
        Ok(self.as_vector(value, ty))
    }

    /// The vector `value` as `ty`.
    pub fn as_vector(&mut self, value: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(ir::Endianness::Little);
        self.b.ins().bitcast(ty, flags, value)
    }

    /// `value` in the form that crosses blocks and calls.
    pub fn plain(&mut self, value: Value) -> Value {
        if self.b.func.dfg.value_type(value).is_vector() { self.as_vector(value, types::I8X16) } else { value }
    }

    /// Pops `count` values, in stack order, in the form that crosses blocks and calls.
    pub fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, LowerError> {
        let values = self.top_many(count)?;
        self.stack.truncate(self.stack.len() - count);
        Ok(values)
    }

    /// The topmost `count` values, left where they are.
    pub fn top_many(&mut self, count: usize) -> Result<Vec<Value>, LowerError> {
        let floor = self.frames.last().map_or(0, |frame| frame.height);
        if self.stack.len() < floor + count {
            return Err(self.malformed("operand stack underflow"));
        }
        let mut values = self.stack.values[self.stack.len() - count..].to_vec();
        for value in &mut values {
            *value = self.plain(*value);
        }
        Ok(values)
    }

    /// Traps with `code` if `condition` is not zero.
    pub fn trap_if(&mut self, condition: Value, code: TrapCode) {
        self.b.ins().trapnz(condition, clif_trap(code));
    }

    /// Traps with `code`.
    pub fn trap_always(&mut self, code: TrapCode) {
        // Cranelift turns a branch to a block that only traps into a trap at the branch, where less is pending.
        self.b.ins().sequence_point();
        self.b.ins().trap(clif_trap(code));
    }

    /// Flags of an access that cannot fault.
    pub fn trusted(&self, region: Region) -> MemFlagsData {
        MemFlagsData::trusted().with_alias_region(Some(self.regions[region as usize]))
    }

    /// Flags of an access that traps with `code` when it faults.
    pub fn guarded(&self, region: Region, code: ir::TrapCode) -> MemFlagsData {
        MemFlagsData::new()
            .with_trap_code(Some(code))
            .with_endianness(ir::Endianness::Little)
            .with_alias_region(Some(self.regions[region as usize]))
    }

    /// The signature of a function of type index `ty`.
    pub fn signature(&mut self, ty: u32) -> Result<SigRef, LowerError> {
        let Some(&canonical) = self.env.type_ids.get(ty as usize) else {
            return Err(self.malformed("unknown type"));
        };
        if let Some(&signature) = self.signatures.get(&canonical) {
            return Ok(signature);
        }
        let signature = super::types::wasm_signature(&self.env.module.types[canonical as usize]);
        let signature = self.b.import_signature(signature);
        self.signatures.insert(canonical, signature);
        Ok(signature)
    }

    /// A function of this module by name space and index.
    pub fn import(
        &mut self,
        namespace: u32,
        index: u32,
        signature: impl FnOnce(&mut Self) -> Result<SigRef, LowerError>,
    ) -> Result<ir::FuncRef, LowerError> {
        if let Some(&function) = self.functions.get(&(namespace, index)) {
            return Ok(function);
        }
        let signature = signature(self)?;
        let name = self.b.func.declare_imported_user_function(UserExternalName::new(namespace, index));
        let function = self.b.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: true,
            patchable: false,
        });
        self.functions.insert((namespace, index), function);
        Ok(function)
    }

    /// The instruction that made `value`.
    pub fn def_of(&self, value: Value) -> ir::Inst {
        self.b.func.dfg.value_def(value).unwrap_inst()
    }

    /// Sets the value of an `iconst`.
    pub fn patch_constant(&mut self, inst: ir::Inst, value: i64) {
        let data = &mut self.b.func.dfg.insts[inst];
        assert!(matches!(data, InstructionData::UnaryImm { opcode: Opcode::Iconst, .. }));
        *data = InstructionData::UnaryImm { opcode: Opcode::Iconst, imm: Imm64::new(value) };
    }

    /// The constant that `value` is, if it is one.
    pub fn constant_of(&self, value: Value) -> Option<i64> {
        let dfg = &self.b.func.dfg;
        let inst = dfg.value_def(dfg.resolve_aliases(value)).inst()?;
        match dfg.insts[inst] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits()),
            _ => None,
        }
    }

    /// Types of the function's results.
    pub fn function_results(&self) -> Vec<Type> {
        let ty = &self.env.module.types[self.function_type as usize];
        ty.results().iter().map(|ty| clif_type(*ty)).collect()
    }
}

/// Where global `index` lies, relative to `vmctx`.
fn global_offset(index: u32) -> i32 {
    abi::GLOBALS_OFFSET + 16 * index as i32
}

/// A trap code as Cranelift carries it.
pub(super) fn clif_trap(code: TrapCode) -> ir::TrapCode {
    ir::TrapCode::unwrap_user(code as u8)
}

/// The name of an operator, without its immediates.
fn operator_name(op: &Operator<'_>) -> String {
    let text = format!("{op:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_string()
}
