//! The same module here and in wasmtime: results, traps, memory, globals, charges and changed pages must agree.
//!
//! wasmtime runs the module that the reference meter has rewritten, so it also says what must be charged. Not compared: what happens
//! after a stack overflow, since the two count stacks differently.

use std::sync::Arc;

use cyclotron_heap::Arena;
use cyclotron_types::units::Instructions;
use cyclotron_wasm::abi::TrapCode;
use cyclotron_wasm::decode::{self, DecodedModule, ExportKind};
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};
use cyclotron_wasm::validate::{Given, Rules};
use cyclotron_wasm::{EngineConfig, Module, Standalone, StandaloneError};
use wasmparser::FuncType;

use super::kept::Relay;
use super::{reference, transient};

/// Instruction limit of one call.
pub const LIMIT: u64 = 100_000;
/// Instructions in a slice of ours at most, in calls that are sliced.
const SLICE_MAX: u64 = 2_000;
/// Exports that are called, at most, each once and then in another order.
const CALLS_MAX: usize = 12;
const PAGE: usize = 4_096;

/// What became of a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that were compared.
    pub calls: u64,
    /// Of these, those that trapped.
    pub traps: u64,
    /// Of these, those that ran into the limit.
    pub limits: u64,
    /// Calls given up because of a stack overflow on either side.
    pub overflows: u64,
    /// Modules that neither side could instantiate.
    pub dead: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.traps += other.traps;
        self.limits += other.limits;
        self.overflows += other.overflows;
        self.dead += other.dead;
    }
}

/// Functions that modules may import, with the answers of [`answer`].
pub const IMPORTS: &str = r#"(module
    (import "env" "none" (func))
    (import "env" "one" (func (param i32) (result i32)))
    (import "env" "many" (func (param i64 f32 v128 i32 f64) (result i64)))
    (import "env" "float" (func (param f64) (result f64))))"#;

fn given() -> Vec<((String, String), Given)> {
    use wasmparser::ValType::{F32, F64, I32, I64, V128};
    let function = |name: &str, params: &[wasmparser::ValType], results: &[wasmparser::ValType]| {
        let ty = FuncType::new(params.iter().copied(), results.iter().copied());
        (("env".to_owned(), name.to_owned()), Given::Function(ty))
    };
    vec![
        function("none", &[], &[]),
        function("one", &[I32], &[I32]),
        function("many", &[I64, F32, V128, I32, F64], &[I64]),
        function("float", &[F64], &[F64]),
    ]
}

/// What an imported function answers to these words.
fn answer(name: &str, args: &[u64]) -> u64 {
    let mix = args.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |mix, arg| (mix ^ arg).wrapping_mul(0x0100_0000_01b3));
    match name {
        "none" => 0,
        "one" => mix & 0xffff_ffff,
        "float" => (mix as i32 as f64).to_bits(),
        _ => mix,
    }
}

struct OracleHost(Arc<Vec<String>>);

impl Host for OracleHost {
    fn call(&mut self, _: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap> {
        Ok(answer(&self.0[function.0 as usize], args))
    }
}

/// Both engines; made once.
pub struct Oracle {
    engine: Relay,
    arena: Arena,
    peer: wasmtime::Engine,
}

/// One instance on each side.
struct Pair {
    ours: Standalone,
    host: Arc<Vec<String>>,
    store: wasmtime::Store<()>,
    theirs: wasmtime::Instance,
    /// Calls so far.
    calls: u64,
}

/// What one call did, as far as both sides can say it.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Result<Vec<Seen>, TrapCode>,
    instructions: u64,
    changed_pages: u64,
}

/// A value as both sides can say it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Bits(u128),
    Null,
    Function,
    Extern(u32),
}

/// A source of choices from a seed (xorshift).
pub struct Choices(pub u64);

impl Choices {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn argument(&mut self, ty: wasmparser::ValType) -> Value {
        const EDGES: [u64; 12] = [
            0,
            1,
            2,
            0x7f,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
            u64::MAX,
            65_530,
        ];
        let word = if self.next().is_multiple_of(2) { EDGES[self.next() as usize % EDGES.len()] } else { self.next() };
        const FLOATS: [f64; 8] = [0.0, -0.0, 1.5, -1e30, f64::INFINITY, f64::NAN, 2_147_483_648.0, -9.3e18];
        let float = FLOATS[self.next() as usize % FLOATS.len()];
        match ty {
            wasmparser::ValType::I32 => Value::I32(word as i32),
            wasmparser::ValType::I64 => Value::I64(word as i64),
            wasmparser::ValType::F32 if word & 1 == 0 => Value::F32((float as f32).to_bits()),
            wasmparser::ValType::F32 => Value::F32(word as u32),
            wasmparser::ValType::F64 if word & 1 == 0 => Value::F64(float.to_bits()),
            wasmparser::ValType::F64 => Value::F64(word),
            wasmparser::ValType::V128 => Value::V128(u128::from(word) << 64 | u128::from(self.next())),
            wasmparser::ValType::Ref(ty) if ty.is_extern_ref() => {
                Value::ExternRef(word.is_multiple_of(2).then_some(word as u32))
            }
            wasmparser::ValType::Ref(_) => Value::FuncRef(None),
        }
    }
}

impl Default for Oracle {
    fn default() -> Self {
        Self::new()
    }
}

impl Oracle {
    /// Both engines with the features of canisters; NaNs are canonical on both sides.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// The same with code that reports its calls, whose costs must add up.
    pub fn reporting_calls() -> Self {
        Self::with(true)
    }

    fn with(calls: bool) -> Self {
        // What runs is code that went through bytes, and has been compared with what it was.
        let mut config = EngineConfig::with_rules(Rules::plain(given()));
        config.code.calls = calls;
        let engine = Relay::new(config);
        let mut config = wasmtime::Config::new();
        config
            .cranelift_nan_canonicalization(true)
            .cranelift_opt_level(wasmtime::OptLevel::None)
            .wasm_memory64(true)
            .wasm_tail_call(true)
            .wasm_reference_types(true)
            .wasm_multi_memory(false)
            .wasm_relaxed_simd(false)
            .wasm_extended_const(false)
            .memory_reservation(1 << 20)
            .memory_reservation_for_growth(1 << 20)
            .memory_init_cow(false)
            .max_wasm_stack(1 << 20);
        let peer = wasmtime::Engine::new(&config).expect("wasmtime's configuration");
        Self { engine, arena: Arena::new().expect("memory"), peer }
    }

    /// Compares one module.
    ///
    /// Errors: the first difference, in words.
    pub fn compare(&self, wasm: &[u8], choices: &mut Choices) -> Result<Tally, String> {
        let rules = &self.engine.config().rules;
        let decoded = decode::load(wasm, rules).map_err(|e| format!("not decoded: {e}"))?;
        let module = self.engine.module(wasm).map_err(|e| format!("not compiled: {e}"))?;
        let metered = reference::instrument(wasm, &decoded);
        let peer = wasmtime::Module::new(&self.peer, &metered).map_err(|e| format!("wasmtime: {e:?}"))?;
        let transient = transient::is_written(&decoded);
        let mut tally = Tally::default();
        let Some(mut pair) = self.instantiate(&module, &peer, &decoded)? else {
            tally.dead += 1;
            return Ok(tally);
        };
        let exports: Vec<(&str, u32)> = decoded
            .exports
            .iter()
            .filter(|e| e.kind == ExportKind::Function)
            .map(|e| (e.name, e.index))
            .take(CALLS_MAX)
            .collect();
        for _ in 0..exports.len() * 2 {
            let (name, index) = exports[choices.next() as usize % exports.len()];
            let params = decoded.function_type(index).params();
            let args: Vec<Value> = params.iter().map(|ty| choices.argument(*ty)).collect();
            let (ours, theirs) = pair.call(name, &args)?;
            if [&ours, &theirs].iter().any(|o| o.result == Err(TrapCode::StackOverflow)) {
                tally.overflows += 1;
                return Ok(tally);
            }
            tally.calls += 1;
            tally.traps += u64::from(ours.result.is_err());
            tally.limits += u64::from(ours.result == Err(TrapCode::InstructionLimit));
            if !same(&ours, &theirs) {
                return Err(format!("{name}{args:x?}:\n  ours   {ours:x?}\n  theirs {theirs:x?}"));
            }
            let fresh = ours.result.is_err() || transient;
            if ours.result.is_ok() {
                pair.compare_state(&decoded).map_err(|e| format!("after {name}{args:x?}: {e}"))?;
            }
            if fresh {
                // A trap undoes everything here and nothing there; tables start anew with each message here.
                pair = self.instantiate(&module, &peer, &decoded)?.ok_or("instantiated before")?;
            }
        }
        Ok(tally)
    }

    fn instantiate(
        &self,
        module: &Arc<Module>,
        peer: &wasmtime::Module,
        decoded: &DecodedModule<'_>,
    ) -> Result<Option<Pair>, String> {
        let host = Arc::new(decoded.imports.iter().map(|import| import.name.to_owned()).collect::<Vec<_>>());
        let ours = Standalone::new_in(&self.arena, module.clone(), OracleHost(host.clone()));
        let mut store = wasmtime::Store::new(&self.peer, ());
        let theirs = linker(&self.peer).instantiate(&mut store, peer);
        match (ours, theirs) {
            (Ok((ours, _)), Ok(theirs)) => Ok(Some(Pair { ours, host, store, theirs, calls: 0 })),
            (Err(StandaloneError::Instantiate(_)), Err(_)) => Ok(None),
            (Err(error), Ok(_)) => Err(format!("wasmtime instantiates, we do not: {error}")),
            (Ok(_), Err(error)) => Err(format!("we instantiate, wasmtime does not: {error:?}")),
            (Err(error), Err(_)) => Err(format!("we do not instantiate: {error}")),
        }
    }
}

/// A host call checks, however little it charges.
fn check(caller: &mut wasmtime::Caller<'_, ()>) -> wasmtime::Result<()> {
    let export =
        |caller: &mut wasmtime::Caller<'_, ()>, name| caller.get_export(name).and_then(wasmtime::Extern::into_global);
    // An import that is exported and called from outside has no calling instance, and nothing was charged.
    let Some(counter) = export(caller, reference::COUNTER) else { return Ok(()) };
    if counter.get(&mut *caller).i64().expect("an i64") >= 0 {
        return Ok(());
    }
    let exhausted = export(caller, reference::EXHAUSTED).expect("both are exported");
    exhausted.set(&mut *caller, wasmtime::Val::I32(1))?;
    Err(wasmtime::Trap::UnreachableCodeReached.into())
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Linker<()> {
    use wasmtime::ValType::{F32, F64, I32, I64, V128};
    let mut linker = wasmtime::Linker::new(engine);
    let mut add = |name: &'static str, params: Vec<wasmtime::ValType>, results: Vec<wasmtime::ValType>| {
        let ty = wasmtime::FuncType::new(engine, params, results.clone());
        linker
            .func_new("env", name, ty, move |mut caller, args, out| {
                check(&mut caller)?;
                let words: Vec<u64> = args
                    .iter()
                    .flat_map(|arg| match arg {
                        wasmtime::Val::I32(value) => vec![u64::from(*value as u32)],
                        wasmtime::Val::I64(value) => vec![*value as u64],
                        wasmtime::Val::F32(bits) => vec![u64::from(*bits)],
                        wasmtime::Val::F64(bits) => vec![*bits],
                        wasmtime::Val::V128(value) => vec![value.as_u128() as u64, (value.as_u128() >> 64) as u64],
                        other => unreachable!("no import takes {other:?}"),
                    })
                    .collect();
                let word = answer(name, &words);
                if let (Some(out), Some(ty)) = (out.first_mut(), results.first()) {
                    *out = match ty {
                        I32 => wasmtime::Val::I32(word as u32 as i32),
                        I64 => wasmtime::Val::I64(word as i64),
                        _ => wasmtime::Val::F64(word),
                    };
                }
                Ok(())
            })
            .expect("a new name");
    };
    add("none", vec![], vec![]);
    add("one", vec![I32], vec![I32]);
    add("many", vec![I64, F32, V128, I32, F64], vec![I64]);
    add("float", vec![F64], vec![F64]);
    linker
}

/// Equal, but for two names of one trap: wasmtime calls accesses of segments by the memory or table they serve.
fn same(ours: &Outcome, theirs: &Outcome) -> bool {
    let results = match (&ours.result, &theirs.result) {
        (Err(TrapCode::SegmentOutOfBounds), Err(TrapCode::HeapOutOfBounds | TrapCode::TableOutOfBounds)) => true,
        (ours, theirs) => ours == theirs,
    };
    results && ours.instructions == theirs.instructions && ours.changed_pages == theirs.changed_pages
}

impl Pair {
    fn call(&mut self, name: &str, args: &[Value]) -> Result<(Outcome, Outcome), String> {
        self.calls += 1;
        let (sliced, mut slices) = (self.calls.is_multiple_of(2), self.calls);
        let (run, _) = self
            .ours
            .run_limited(Entry::Export(name), args, OracleHost(self.host.clone()), Instructions(LIMIT), || {
                // Some runs are whole; others stop at check after check, where nothing may get lost.
                slices = slices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                Instructions(if sliced { 1 + (slices >> 33) % SLICE_MAX } else { LIMIT })
            })
            .map_err(|e| e.to_string())?;
        let charged = run.instructions.0.min(LIMIT);
        if !run.calls.is_empty() && run.calls.iter().map(|slice| slice.total().0).sum::<u64>() != charged {
            return Err(format!("calls of {name}{args:x?} do not add up to {charged}: {:?}", run.calls));
        }
        let ours = Outcome {
            result: run.result.map(|values| values.iter().map(seen).collect()).map_err(|trap| trap.code),
            instructions: run.instructions.0,
            changed_pages: run.dirty_pages,
        };
        Ok((ours, self.call_theirs(name, args)?))
    }

    fn call_theirs(&mut self, name: &str, args: &[Value]) -> Result<Outcome, String> {
        let memory = self.memory();
        let before = memory.map(|memory| memory.data(&self.store).to_vec()).unwrap_or_default();
        let function = self.theirs.get_func(&mut self.store, name).ok_or("no such export")?;
        let args: Vec<wasmtime::Val> = args.iter().map(|arg| self.val(arg)).collect::<Result<_, _>>()?;
        let results = function.ty(&self.store).results().len();
        let mut results = vec![wasmtime::Val::I32(0); results];
        self.set_global(reference::COUNTER, wasmtime::Val::I64(LIMIT as i64));
        self.set_global(reference::EXHAUSTED, wasmtime::Val::I32(0));
        let outcome = function.call(&mut self.store, &args, &mut results);
        let counter = self.global(reference::COUNTER).i64().ok_or("the counter")?;
        let exhausted = self.global(reference::EXHAUSTED).i32() == Some(1);
        let result = match outcome {
            Ok(()) => Ok(results.iter().map(|value| self.seen_theirs(value)).collect::<Result<_, _>>()?),
            Err(_) if exhausted => Err(TrapCode::InstructionLimit),
            Err(error) => Err(trap_code(&error)?),
        };
        let after = memory.map(|memory| memory.data(&self.store)).unwrap_or_default();
        let zeros = [0u8; PAGE];
        let changed = after.chunks(PAGE).enumerate().filter(|(ix, page)| {
            let old = before.get(ix * PAGE..(ix + 1) * PAGE).unwrap_or(&zeros);
            old != *page
        });
        Ok(Outcome {
            result,
            instructions: (LIMIT as i64).wrapping_sub(counter) as u64,
            changed_pages: changed.count() as u64,
        })
    }

    /// Memory and globals, byte for byte.
    fn compare_state(&mut self, decoded: &DecodedModule<'_>) -> Result<(), String> {
        if let Some(memory) = self.memory() {
            let theirs = memory.data(&self.store);
            let ours = self.ours.read(0, theirs.len()).ok_or("the heap is smaller")?;
            if self.ours.read(0, theirs.len() + 1).is_some() {
                return Err("the heap is larger".to_owned());
            }
            if ours != theirs {
                let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
                return Err(format!("memory differs at {at:x?}"));
            }
        }
        for export in decoded.exports.iter().filter(|e| e.kind == ExportKind::Global) {
            let ours = self.ours.seated().exported_global(export.name).map(|value| seen(&value));
            let theirs = self.global(export.name);
            let theirs = self.seen_theirs(&theirs)?;
            if ours != Some(theirs) {
                return Err(format!("global {}: ours {ours:x?}, theirs {theirs:x?}", export.name));
            }
        }
        Ok(())
    }

    fn memory(&mut self) -> Option<wasmtime::Memory> {
        let exports: Vec<wasmtime::Extern> =
            self.theirs.exports(&mut self.store).map(wasmtime::Export::into_extern).collect();
        exports.into_iter().find_map(wasmtime::Extern::into_memory)
    }

    fn global(&mut self, name: &str) -> wasmtime::Val {
        let global = self.theirs.get_global(&mut self.store, name).expect("exported");
        global.get(&mut self.store)
    }

    fn set_global(&mut self, name: &str, value: wasmtime::Val) {
        let global = self.theirs.get_global(&mut self.store, name).expect("exported");
        global.set(&mut self.store, value).expect("mutable");
    }

    fn val(&mut self, value: &Value) -> Result<wasmtime::Val, String> {
        Ok(match *value {
            Value::I32(value) => wasmtime::Val::I32(value),
            Value::I64(value) => wasmtime::Val::I64(value),
            Value::F32(bits) => wasmtime::Val::F32(bits),
            Value::F64(bits) => wasmtime::Val::F64(bits),
            Value::V128(bits) => wasmtime::Val::V128(bits.into()),
            Value::FuncRef(_) => wasmtime::Val::FuncRef(None),
            Value::ExternRef(None) => wasmtime::Val::ExternRef(None),
            Value::ExternRef(Some(number)) => {
                let reference = wasmtime::ExternRef::new(&mut self.store, number).map_err(|e| format!("{e:?}"))?;
                wasmtime::Val::ExternRef(Some(reference))
            }
        })
    }

    fn seen_theirs(&mut self, value: &wasmtime::Val) -> Result<Seen, String> {
        Ok(match value {
            wasmtime::Val::I32(value) => Seen::Bits(u128::from(*value as u32)),
            wasmtime::Val::I64(value) => Seen::Bits(u128::from(*value as u64)),
            wasmtime::Val::F32(bits) => Seen::Bits(u128::from(*bits)),
            wasmtime::Val::F64(bits) => Seen::Bits(u128::from(*bits)),
            wasmtime::Val::V128(value) => Seen::Bits(value.as_u128()),
            wasmtime::Val::FuncRef(Some(_)) => Seen::Function,
            wasmtime::Val::ExternRef(Some(reference)) => {
                let data = reference.data(&self.store).map_err(|e| format!("{e:?}"))?;
                Seen::Extern(*data.and_then(|data| data.downcast_ref::<u32>()).ok_or("a foreign reference")?)
            }
            _ => Seen::Null,
        })
    }
}

fn seen(value: &Value) -> Seen {
    match *value {
        Value::I32(value) => Seen::Bits(u128::from(value as u32)),
        Value::I64(value) => Seen::Bits(u128::from(value as u64)),
        Value::F32(bits) => Seen::Bits(u128::from(bits)),
        Value::F64(bits) => Seen::Bits(u128::from(bits)),
        Value::V128(bits) => Seen::Bits(bits),
        Value::FuncRef(Some(_)) => Seen::Function,
        Value::ExternRef(Some(number)) => Seen::Extern(number),
        Value::FuncRef(None) | Value::ExternRef(None) => Seen::Null,
    }
}

fn trap_code(error: &wasmtime::Error) -> Result<TrapCode, String> {
    use wasmtime::Trap;
    Ok(match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => TrapCode::Unreachable,
        Some(Trap::MemoryOutOfBounds) => TrapCode::HeapOutOfBounds,
        Some(Trap::TableOutOfBounds) => TrapCode::TableOutOfBounds,
        Some(Trap::IndirectCallToNull) => TrapCode::IndirectCallToNull,
        Some(Trap::BadSignature) => TrapCode::BadSignature,
        Some(Trap::IntegerOverflow) => TrapCode::IntegerOverflow,
        Some(Trap::IntegerDivisionByZero) => TrapCode::IntegerDivisionByZero,
        Some(Trap::BadConversionToInteger) => TrapCode::BadConversionToInteger,
        Some(Trap::StackOverflow) => TrapCode::StackOverflow,
        _ => return Err(format!("wasmtime failed otherwise: {error:?}")),
    })
}

/// How modules are made: the features of canisters, small memories, everything exported.
pub fn smith_config(choices: &mut Choices) -> wasm_smith::Config {
    let wasm64 = choices.next().is_multiple_of(3);
    wasm_smith::Config {
        available_imports: Some(wat::parse_str(IMPORTS).expect("imports")),
        // The runner would have to limit the start function like a call; the test suite covers it.
        allow_start_export: false,
        bulk_memory_enabled: true,
        canonicalize_nans: false,
        exceptions_enabled: false,
        export_everything: true,
        extended_const_enabled: false,
        gc_enabled: false,
        max_memories: 1,
        max_memory32_bytes: 40 * 65_536,
        max_memory64_bytes: 40 * 65_536,
        memory64_enabled: wasm64,
        memory_max_size_required: true,
        max_table_elements: 500,
        max_tables: 3,
        max_instructions: 300,
        max_funcs: 12,
        min_funcs: 1,
        max_imports: 6,
        max_globals: 12,
        max_data_segments: 6,
        max_element_segments: 6,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: false,
        saturating_float_to_int_enabled: true,
        sign_extension_ops_enabled: true,
        simd_enabled: true,
        table_max_size_required: true,
        tail_call_enabled: true,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..wasm_smith::Config::default()
    }
}
