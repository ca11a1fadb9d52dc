//! Compiles all functions of a module in parallel and puts them together.
//!
//! Enters: a module. Leaves: a [`CompiledModule`]. Never here: an order that depends on threads.
//!
//! Layout of the code: defined functions by index, wrappers of imports, entry trampolines, helpers; each aligned as the target asks.

use super::cards::{CARD_CODE, CARD_TABLE_BYTES};
use super::func::{Env, NAMESPACE_HELPER, NAMESPACE_WASM, translate};
use super::memory::{HEAP_CODE_FIRST, HEAP_CODES};
use super::scan::{Scan, scan};
use super::trampolines::{self, HELPERS, Helper};
use super::types::wasm_signature;
use super::x64::{self, CARD, CHARGE, OFFSET_MASK};
use super::{Compiler, LowerError, ModuleInfo, OperatorCost, canonical_types};
use crate::abi::{NATIVE_BYTES_PER_SLOT, TrapCode};
use crate::compiled::{CallSite, CompiledFunction, CompiledModule, TrapSite};
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName, Function};
use cranelift_codegen::{Context, FinalizedMachReloc, FinalizedRelocTarget, MachSrcLoc};
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
    calls: Vec<CallSite>,
    relocs: Vec<PieceReloc>,
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
    control: ControlPlane,
}

impl Worker {
    fn new() -> Self {
        Self { context: Context::new(), builder: FunctionBuilderContext::new(), control: ControlPlane::default() }
    }

    /// Generates machine code for the IR in `context`.
    fn emit(
        &mut self,
        compiler: &Compiler,
        function: u32,
        stack_slots: u32,
        pending: &[(u32, u32)],
    ) -> Result<Piece, Refused> {
        let refused = |message: String| LowerError::Codegen { function, message };
        let isa = &*compiler.isa;
        self.context.compile(isa, &mut self.control).map_err(|error| refused(format!("{:?}", error.inner)))?;
        let Some(compiled) = self.context.take_compiled_code() else {
            return Err(refused("no code".into()).into());
        };
        let buffer = &compiled.buffer;
        let locations = Locations(buffer.get_srclocs_sorted());
        let mut code = buffer.data().to_vec();
        let mut relocs = Vec::with_capacity(buffer.relocs().len());
        if isa.name() == "x64" {
            rewrite(&mut code, locations.0, &mut relocs).ok_or(Refused::Shape)?;
        }
        let mut traps = Vec::with_capacity(buffer.traps().len());
        for trap in buffer.traps() {
            if trap.code == ir::TrapCode::unwrap_user(CARD_CODE) {
                continue;
            }
            let wasm_offset = locations.at(trap.offset);
            let code = trap_code(trap.code).ok_or_else(|| refused(format!("trap {}", trap.code)))?;
            let place = pending.partition_point(|entry| entry.0 <= wasm_offset);
            let pending = place.checked_sub(1).map_or(0, |place| pending[place].1);
            traps.push(TrapSite { offset: trap.offset, code, wasm_offset, pending });
        }
        let calls = buffer
            .call_sites()
            .map(|site| CallSite {
                return_offset: site.ret_addr,
                wasm_offset: locations.at(site.ret_addr.saturating_sub(1)),
            })
            .collect();
        for reloc in buffer.relocs() {
            relocs
                .push(piece_reloc(reloc, &self.context.func).ok_or_else(|| refused(format!("relocation {reloc:?}")))?);
        }
        let frame_bytes = buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset) + 16;
        Ok(Piece {
            code,
            align: buffer.alignment.max(isa.function_alignment().preferred),
            frame_bytes,
            stack_slots,
            traps,
            calls,
            relocs,
        })
    }
}

/// Wasm offsets by machine code offset.
struct Locations<'a>(&'a [MachSrcLoc<cranelift_codegen::Final>]);

impl Locations<'_> {
    fn at(&self, offset: u32) -> u32 {
        let place = self.0.partition_point(|range| range.end <= offset);
        match self.0.get(place) {
            Some(range) if range.start <= offset && !range.loc.is_default() => range.loc.bits() & OFFSET_MASK,
            _ => 0,
        }
    }
}

/// Rewrites the instrumentation in `code`. `None`: a card test does not have the expected shape.
fn rewrite(
    code: &mut Vec<u8>,
    locations: &[MachSrcLoc<cranelift_codegen::Final>],
    relocs: &mut Vec<PieceReloc>,
) -> Option<()> {
    for range in locations {
        let bits = if range.loc.is_default() { 0 } else { range.loc.bits() };
        let (start, end) = (range.start as usize, range.end as usize);
        if bits & CHARGE != 0 {
            x64::fuse_charges(&mut code[start..], end - start);
        } else if bits & CARD != 0 && !x64::is_trap(&code[start..end]) {
            let at = x64::rewrite_card_test(code, start, end, -CARD_TABLE_BYTES)?;
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

/// The thunk that card tests' stubs call.
fn mark_thunk(align: u32) -> Piece {
    Piece {
        code: x64::MARK_THUNK.to_vec(),
        align,
        frame_bytes: 0,
        stack_slots: 0,
        traps: Vec::new(),
        calls: Vec::new(),
        relocs: vec![PieceReloc {
            offset: x64::MARK_THUNK_CALL as u32,
            namespace: NAMESPACE_HELPER,
            index: Helper::MarkPage as u32,
            addend: -4,
        }],
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
    let piece = match compile_task(compiler, env, scans, task, worker, compiler.stubs()) {
        Err(Refused::Shape) => compile_task(compiler, env, scans, task, worker, false),
        piece => piece,
    };
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
    compiler: &Compiler,
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
            let translated = translate(env, ty, body, scan, func, &mut worker.builder, stubs)?;
            let piece = worker.emit(compiler, function, translated.stack_slots, &translated.pending)?;
            if piece.frame_bytes > piece.stack_slots.saturating_mul(NATIVE_BYTES_PER_SLOT) {
                let Piece { frame_bytes, stack_slots, .. } = piece;
                return Err(LowerError::FrameTooLarge { function, frame_bytes, stack_slots }.into());
            }
            Ok(piece)
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
            worker.emit(compiler, import, 0, &[])
        }
        Task::Entry(ty) => {
            trampolines::build_entry(ty, func, &mut worker.builder, env.frontend);
            worker.emit(compiler, 0, 0, &[])
        }
        Task::Helper(helper) => {
            trampolines::build_helper(helper, func, &mut worker.builder, env.frontend);
            worker.emit(compiler, 0, 0, &[])
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
    pieces.push(mark_thunk(compiler.isa.function_alignment().preferred));
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
