//! Compiles all functions of a module in parallel and puts them together.
//!
//! Enters: a module. Leaves: a [`CompiledModule`]. Never here: an order that depends on threads.
//!
//! Layout of the code: defined functions by index, wrappers of imports, entry trampolines, helpers; each aligned as the target asks.

use super::cards::{CARD_CODE, CARD_TABLE_BYTES};
use super::func::{Env, NAMESPACE_HELPER, NAMESPACE_WASM, translate};
use super::locations::{FoldedLoads, Locations, pending_at};
use super::memory::{HEAP_CODE_FIRST, HEAP_CODES};
use super::meter::{CHECK_CODE, Pending};
use super::scan::{Scan, scan};
use super::trampolines::{self, HELPERS, Helper};
use super::types::wasm_signature;
use super::x64::{self, CARD, CHARGE};
use super::{Compiler, LowerError, ModuleInfo, OperatorCost, canonical_types};
use crate::abi::{NATIVE_BYTES_PER_SLOT, TrapCode};
use crate::compiled::{CallSite, CheckSite, CompiledFunction, CompiledModule, TrapSite};
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName, Function};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{CodegenError, Context, FinalizedMachReloc, FinalizedRelocTarget, MachSrcLoc};
use cranelift_frontend::FunctionBuilderContext;
use rayon::prelude::*;

/// What a relative call reaches.
const CODE_BYTES_MAX: usize = i32::MAX as usize;

/// One function's machine code, before it has a place.
struct Piece {
    code: Vec<u8>,
    align: u32,
    frame_bytes: u32,
    stack_slots: u32,
    traps: Vec<TrapSite>,
    checks: Vec<CheckSite>,
    calls: Vec<CallSite>,
    relocs: Vec<PieceReloc>,
}

impl Piece {
    /// Whether the frame of a function takes more native stack than is usual for its slots.
    fn is_too_large(&self) -> bool {
        self.stack_slots > 0 && self.frame_bytes > self.stack_slots.saturating_mul(NATIVE_BYTES_PER_SLOT)
    }
}

/// A call's displacement to fill in.
struct PieceReloc {
    offset: u32,
    namespace: u32,
    index: u32,
    addend: i64,
}

/// Why there is no piece.
enum Refused {
    /// For good.
    Lower(LowerError),
    /// The machine code of a card test has another shape than can be rewritten: make tests of branches instead.
    Shape,
}

impl From<LowerError> for Refused {
    fn from(error: LowerError) -> Self {
        Self::Lower(error)
    }
}

/// What a thread keeps between functions.
struct Worker {
    context: Context,
    builder: FunctionBuilderContext,
    folded: FoldedLoads,
    registers: regalloc2::Ctx,
    control: ControlPlane,
}

impl Worker {
    fn new() -> Self {
        Self {
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
            folded: FoldedLoads::default(),
            registers: regalloc2::Ctx::default(),
            control: ControlPlane::default(),
        }
    }

    /// Generates machine code for the IR in `context`.
    fn emit(
        &mut self,
        isa: &dyn TargetIsa,
        function: u32,
        stack_slots: u32,
        pending: &[Pending],
    ) -> Result<Piece, Refused> {
        let refused = |message: String| LowerError::Codegen { function, message };
        let failed = |error: CodegenError| refused(format!("{error:?}"));
        self.context.optimize(isa, &mut self.control).map_err(failed)?;
        self.folded.locate(&mut self.context.func);
        let Context { func, domtree, .. } = &self.context;
        let compiled = isa
            .compile_function(func, domtree, &mut self.registers, false, &mut self.control)
            .map_err(failed)?
            .apply_params(&func.params);
        let buffer = &compiled.buffer;
        let locations = Locations(buffer.get_srclocs_sorted());
        let mut code = buffer.data().to_vec();
        let mut relocs = Vec::with_capacity(buffer.relocs().len());
        if isa.name() == "x64" {
            let card = ir::TrapCode::unwrap_user(CARD_CODE);
            let stubs: Vec<u32> =
                buffer.traps().iter().filter(|trap| trap.code == card).map(|trap| trap.offset).collect();
            rewrite(&mut code, locations.0, &stubs, &mut relocs).ok_or(Refused::Shape)?;
        }
        let check = ir::TrapCode::unwrap_user(CHECK_CODE);
        let failed: Vec<u32> =
            buffer.traps().iter().filter(|trap| trap.code == check).map(|trap| trap.offset).collect();
        let resumed = x64::find_checks(buffer.data(), &failed, |at| locations.mark(at) & CHARGE != 0)
            .ok_or_else(|| refused("a check of the counter has no jump of its own".into()))?;
        let checks: Vec<CheckSite> =
            failed.into_iter().zip(resumed).map(|(offset, resume)| CheckSite { offset, resume }).collect();
        let mut traps = Vec::with_capacity(buffer.traps().len());
        for trap in buffer.traps() {
            if trap.code == ir::TrapCode::unwrap_user(CARD_CODE) || trap.code == check {
                continue;
            }
            let wasm_offset = locations.at(trap.offset);
            let code = trap_code(trap.code).ok_or_else(|| refused(format!("trap {}", trap.code)))?;
            let variant = trap.code.as_raw().get().checked_sub(HEAP_CODE_FIRST).filter(|variant| *variant < HEAP_CODES);
            let pending = pending_at(pending, wasm_offset, variant);
            traps.push(TrapSite { offset: trap.offset, code, wasm_offset, pending });
        }
        let returns = buffer.call_sites().map(|site| site.ret_addr).chain(checks.iter().map(|check| check.resume));
        let mut calls: Vec<CallSite> = returns
            .map(|offset| CallSite { return_offset: offset, wasm_offset: locations.at(offset.saturating_sub(1)) })
            .collect();
        calls.sort_unstable_by_key(|site| site.return_offset);
        for reloc in buffer.relocs() {
            relocs
                .push(piece_reloc(reloc, &self.context.func).ok_or_else(|| refused(format!("relocation {reloc:?}")))?);
        }
        let frame_bytes = buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset) + 16;
        Ok(Piece {
            code,
            align: buffer.alignment.max(isa.function_alignment().preferred).max(x64::LINE as u32),
            frame_bytes,
            stack_slots,
            traps,
            checks,
            calls,
            relocs,
        })
    }
}

/// Rewrites the instrumentation in `code`. `None`: a card test does not have the expected shape.
fn rewrite(
    code: &mut Vec<u8>,
    locations: &[MachSrcLoc<cranelift_codegen::Final>],
    traps: &[u32],
    relocs: &mut Vec<PieceReloc>,
) -> Option<()> {
    let bits_of =
        |range: &MachSrcLoc<cranelift_codegen::Final>| if range.loc.is_default() { 0 } else { range.loc.bits() };
    for range in locations {
        let bits = bits_of(range);
        let (start, end) = (range.start as usize, range.end as usize);
        if bits & CHARGE != 0 {
            x64::fuse_charges(code, (start, end), bits & CARD != 0);
        } else if bits & CARD != 0 && !x64::is_trap(&code[start..end]) {
            let at = x64::rewrite_card_test(code, (start, end), traps, -CARD_TABLE_BYTES)?;
            relocs.push(PieceReloc {
                offset: at as u32,
                namespace: NAMESPACE_HELPER,
                index: HELPERS.len() as u32,
                addend: -4,
            });
        }
    }
    Some(())
}

/// A few instructions with a call of a helper among them.
fn thunk(code: &[u8], call: usize, helper: Helper) -> Piece {
    Piece {
        code: code.to_vec(),
        align: x64::LINE as u32,
        frame_bytes: 0,
        stack_slots: 0,
        traps: Vec::new(),
        checks: Vec::new(),
        calls: Vec::new(),
        relocs: vec![PieceReloc { offset: call as u32, namespace: NAMESPACE_HELPER, index: helper as u32, addend: -4 }],
    }
}

fn trap_code(code: ir::TrapCode) -> Option<TrapCode> {
    Some(match code {
        ir::TrapCode::STACK_OVERFLOW => TrapCode::StackOverflow,
        ir::TrapCode::INTEGER_OVERFLOW => TrapCode::IntegerOverflow,
        ir::TrapCode::HEAP_OUT_OF_BOUNDS => TrapCode::HeapOutOfBounds,
        ir::TrapCode::INTEGER_DIVISION_BY_ZERO => TrapCode::IntegerDivisionByZero,
        ir::TrapCode::BAD_CONVERSION_TO_INTEGER => TrapCode::BadConversionToInteger,
        other => match other.as_raw().get() {
            code if code >= HEAP_CODE_FIRST && code - HEAP_CODE_FIRST < HEAP_CODES => TrapCode::HeapOutOfBounds,
            code => return TrapCode::from_u8(code),
        },
    })
}

fn piece_reloc(reloc: &FinalizedMachReloc, func: &Function) -> Option<PieceReloc> {
    if !matches!(reloc.kind, Reloc::X86CallPCRel4 | Reloc::X86PCRel4) {
        return None;
    }
    let FinalizedRelocTarget::ExternalName(ExternalName::User(name)) = &reloc.target else {
        return None;
    };
    let name = &func.params.user_named_funcs()[*name];
    Some(PieceReloc { offset: reloc.offset, namespace: name.namespace, index: name.index, addend: reloc.addend })
}

/// One thing to compile.
#[derive(Clone, Copy)]
enum Task<'a> {
    Body(usize),
    ImportWrapper(u32),
    Entry(&'a wasmparser::FuncType),
    Helper(Helper),
}

fn compile(
    compiler: &Compiler,
    env: &Env<'_>,
    scans: &[Scan],
    task: Task<'_>,
    worker: &mut Worker,
) -> Result<Piece, LowerError> {
    let mut piece = compile_task(&*compiler.isa, env, scans, task, worker, compiler.stubs());
    if matches!(piece, Err(Refused::Shape)) {
        piece = compile_task(&*compiler.isa, env, scans, task, worker, false);
    }
    // What optimization keeps for later use makes such a frame; without it, it holds little more than locals and operands.
    if matches!(&piece, Ok(piece) if piece.is_too_large()) {
        piece = compile_task(&*compiler.plain_isa, env, scans, task, worker, false);
    }
    if piece.is_err() {
        // A body given up halfway leaves the builder's context in use, and the next body must not find it so.
        worker.builder = FunctionBuilderContext::new();
    }
    piece.map_err(|refused| match refused {
        Refused::Lower(error) => error,
        Refused::Shape => unreachable!("without stubs there is nothing to rewrite"),
    })
}

fn compile_task(
    isa: &dyn TargetIsa,
    env: &Env<'_>,
    scans: &[Scan],
    task: Task<'_>,
    worker: &mut Worker,
    stubs: bool,
) -> Result<Piece, Refused> {
    worker.context.clear();
    let func = &mut worker.context.func;
    let module = env.module;
    match task {
        Task::Body(defined) => {
            let function = module.imported_functions + defined as u32;
            let ty = type_of(module, function)?;
            func.signature = wasm_signature(&module.types[ty as usize]);
            let (body, scan) = (&module.bodies[defined], &scans[defined]);
            let translated = translate(env, (function, ty), body, scan, func, &mut worker.builder, stubs)?;
            worker.emit(isa, function, translated.stack_slots, &translated.pending)
        }
        Task::ImportWrapper(import) => {
            let ty = type_of(module, import)?;
            trampolines::build_import_wrapper(
                import,
                &module.types[ty as usize],
                func,
                &mut worker.builder,
                env.frontend,
            )?;
            worker.emit(isa, import, 0, &[])
        }
        Task::Entry(ty) => {
            trampolines::build_entry(ty, func, &mut worker.builder, env.frontend);
            worker.emit(isa, 0, 0, &[])
        }
        Task::Helper(helper) => {
            trampolines::build_helper(helper, func, &mut worker.builder, env.frontend);
            worker.emit(isa, 0, 0, &[])
        }
    }
}

fn type_of(module: &ModuleInfo<'_>, function: u32) -> Result<u32, LowerError> {
    let ty = module.functions.get(function as usize).copied();
    ty.filter(|ty| (*ty as usize) < module.types.len())
        .ok_or_else(|| LowerError::Malformed { message: format!("function {function} has no type"), offset: 0 })
}

impl<'a> Env<'a> {
    fn new(compiler: &Compiler, module: &'a ModuleInfo<'a>, scans: &[Scan]) -> Self {
        let mut table_grows: Vec<bool> = module.tables.iter().map(|table| table.shared).collect();
        for table in scans.iter().flat_map(|scan| &scan.grown_tables) {
            if let Some(grows) = table_grows.get_mut(*table as usize) {
                *grows = true;
            }
        }
        Self {
            module,
            config: compiler.config,
            frontend: compiler.isa.frontend_config(),
            type_ids: canonical_types(&module.types),
            table_grows,
        }
    }
}

/// Lowers `module`.
pub(super) fn lower_module(
    compiler: &Compiler,
    module: &ModuleInfo<'_>,
    costs: &dyn OperatorCost,
) -> Result<CompiledModule, LowerError> {
    let costs = compiler.config.metering.then_some(costs);
    let scans: Vec<Scan> = module
        .bodies
        .par_iter()
        .map(|body| scan(body, costs))
        .collect::<Vec<_>>()
        .into_iter()
        .collect::<Result<_, _>>()?;
    let env = Env::new(compiler, module, &scans);
    let mut tasks: Vec<Task<'_>> = (0..module.bodies.len()).map(Task::Body).collect();
    tasks.extend((0..module.imported_functions).map(Task::ImportWrapper));
    // Equal types share a trampoline.
    let distinct: Vec<usize> =
        (0..module.types.len()).filter(|index| env.type_ids[*index] as usize == *index).collect();
    tasks.extend(distinct.iter().map(|index| Task::Entry(&module.types[*index])));
    tasks.extend(HELPERS.map(Task::Helper));
    let mut pieces: Vec<Piece> = tasks
        .par_iter()
        .map_init(Worker::new, |worker, task| compile(compiler, &env, &scans, *task, worker))
        .collect::<Vec<_>>()
        // The first error in this order, whichever thread was first.
        .into_iter()
        .collect::<Result<_, _>>()?;
    pieces.push(thunk(&x64::MARK_THUNK, x64::MARK_THUNK_CALL, Helper::MarkPage));
    pieces.push(thunk(&x64::CHECK_THUNK, x64::CHECK_THUNK_CALL, Helper::OutOfInstructions));
    link(module, &env.type_ids, &distinct, pieces)
}

fn link(
    module: &ModuleInfo<'_>,
    type_ids: &[u32],
    distinct: &[usize],
    pieces: Vec<Piece>,
) -> Result<CompiledModule, LowerError> {
    let mut places = Vec::with_capacity(pieces.len());
    let mut size: usize = 0;
    for piece in &pieces {
        size = size.next_multiple_of(piece.align.max(1) as usize);
        places.push(size);
        size += piece.code.len();
    }
    if size > CODE_BYTES_MAX {
        return Err(LowerError::ModuleTooLarge { bytes: size });
    }
    // All offsets fit in 31 bits from here on.
    let place = |index: usize| places[index] as u32;
    let bodies = module.bodies.len();
    let imports = module.imported_functions as usize;
    let first_entry = bodies + imports;
    let first_helper = first_entry + distinct.len();
    let mut out = CompiledModule {
        // `int3` between functions.
        code: vec![0xcc; size],
        import_wrappers: (bodies..bodies + imports).map(place).collect(),
        entry_trampolines: type_ids
            .iter()
            .map(|id| place(first_entry + distinct.partition_point(|first| *first < *id as usize)))
            .collect(),
        type_ids: type_ids.to_vec(),
        check_thunk: place(first_helper + HELPERS.len() + 1),
        ..CompiledModule::default()
    };
    for (index, piece) in pieces.iter().enumerate() {
        let start = places[index];
        let base = place(index);
        out.code[start..start + piece.code.len()].copy_from_slice(&piece.code);
        if index < bodies {
            out.functions.push(CompiledFunction {
                offset: base,
                len: piece.code.len() as u32,
                frame_bytes: piece.frame_bytes,
                stack_slots: piece.stack_slots,
            });
        }
        out.traps.extend(piece.traps.iter().map(|site| TrapSite { offset: base + site.offset, ..*site }));
        let checks = piece.checks.iter();
        out.checks.extend(checks.map(|site| CheckSite { offset: base + site.offset, resume: base + site.resume }));
        out.calls.extend(piece.calls.iter().map(|site| CallSite { return_offset: base + site.return_offset, ..*site }));
        for reloc in &piece.relocs {
            let target = match reloc.namespace {
                NAMESPACE_WASM if (reloc.index as usize) < imports => bodies + reloc.index as usize,
                NAMESPACE_WASM => reloc.index as usize - imports,
                NAMESPACE_HELPER => first_helper + reloc.index as usize,
                other => unreachable!("name space {other} was never used"),
            };
            let at = start + reloc.offset as usize;
            let displacement = i64::from(place(target)) + reloc.addend - at as i64;
            let displacement = i32::try_from(displacement).map_err(|_| LowerError::ModuleTooLarge { bytes: size })?;
            out.code[at..at + 4].copy_from_slice(&displacement.to_le_bytes());
        }
    }
    debug_assert!(out.traps.is_sorted_by_key(|site| site.offset));
    debug_assert!(out.checks.is_sorted_by_key(|site| site.offset));
    debug_assert!(out.calls.is_sorted_by_key(|site| site.return_offset));
    Ok(out)
}

/// The machine code of the first function, disassembled, and how many tries it took.
#[cfg(test)]
pub(super) fn first_function_text(
    compiler: &Compiler,
    module: &ModuleInfo<'_>,
    costs: &dyn OperatorCost,
) -> Result<String, LowerError> {
    let costs = compiler.config.metering.then_some(costs);
    let scans: Vec<Scan> = module.bodies.iter().map(|body| scan(body, costs)).collect::<Result<_, _>>()?;
    let env = Env::new(compiler, module, &scans);
    let piece = compile(compiler, &env, &scans, Task::Body(0), &mut Worker::new())?;
    let capstone = compiler.isa.to_capstone().expect("a disassembler for this machine");
    let instructions = capstone.disasm_all(&piece.code, 0).expect("code disassembles");
    let mut text = String::new();
    for instruction in instructions.iter() {
        let (name, operands) = (instruction.mnemonic().unwrap_or(""), instruction.op_str().unwrap_or(""));
        text.push_str(format!("{:4x}  {name} {operands}", instruction.address()).trim_end());
        text.push('\n');
    }
    Ok(text)
}
