//! Engines and modules: Wasm bytes become code that instances share.
//!
//! Enters: Wasm as a developer sent it, [`EngineConfig`]. Leaves: [`Module`]s, cached by hash. Never here: anything that depends on
//! whether a module was cached; only speed does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cyclotron_types::module_limits::ModuleLimits;
use cyclotron_types::units::{Instructions, WasmPages};
use rayon::ThreadPool;
use sha2::{Digest, Sha256};
use wasmparser::Operator;

use crate::abi::{FRAME_SLOTS, FuncRef, GLOBALS_OFFSET, TABLE_VIEW_BYTES, TrapCode};
use crate::code::{Code, CodeError};
use crate::code_cache::{CodeCache, CodeCounts, CodeKey, Expected, Kept, fingerprint};
use crate::compiled::CompiledModule;
use crate::decode::{ConstExpr, DecodedModule, ElementSegment, ExportKind, SegmentMode, inflate, load};
use crate::lower::{
    Compiler, Config, Constant, GlobalInfo, LowerError, MemoryInfo, ModuleInfo, OperatorCost, TableInfo, Tracking,
    canonical_types,
};
use crate::meter::Meter;
use crate::profile::{StoreProfile, TrackingPolicy};
use crate::runtime::{ModuleShape, STACK_SLOTS_MAX, StackNeeded, ValType, Value, extern_reference, extern_word};
use crate::symbols;
use crate::validate::{ModuleError, Rules};

/// Slots that an execution may use unless told otherwise: 16 MiB of words. The replica gives 5 MiB of native stack, in which a frame holds only what
/// registers do not; a recursion of one parameter gets 100,000 deep there and 160,000 here, so that what runs there runs here.
pub const STACK_SLOTS_DEFAULT: u32 = 2 << 20;
/// Bytes of modules (code, tables, the Wasm itself) that the cache keeps unless told otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 1 << 30;

const _: () = assert!(STACK_SLOTS_DEFAULT as usize <= STACK_SLOTS_MAX);

/// What an engine holds modules to, and how it makes and keeps code.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Rules of modules: a canister's, or given imports.
    pub rules: Rules,
    /// What code to make: metering, tracking of stores.
    pub code: Config,
    /// Stack limit of an execution, in slots of Wasm terms. Part of the protocol: it decides at which depth a recursion traps.
    pub stack_slots: u32,
    /// Bytes of modules that the cache may keep. Local.
    pub cache_bytes: usize,
    /// Where `code` says that cards are tested: when an instance gets code for protected pages instead. Local.
    pub tracking: TrackingPolicy,
}

impl EngineConfig {
    /// The rules and limits of canisters.
    pub fn canister() -> EngineConfig {
        EngineConfig::with_rules(Rules::canister())
    }

    /// Other rules, the same limits.
    pub fn with_rules(rules: Rules) -> EngineConfig {
        EngineConfig {
            rules,
            code: Config::default(),
            stack_slots: STACK_SLOTS_DEFAULT,
            cache_bytes: CACHE_BYTES_DEFAULT,
            tracking: TrackingPolicy::default(),
        }
    }
}

/// Why bytes did not become a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// The module breaks a rule: the developer's failure.
    Module(ModuleError),
    /// The memory for code could not be had: the machine's failure.
    Code(CodeError),
    /// Globals and tables exceed the context area; only modules outside the rules of canisters can.
    Context {
        /// Bytes needed.
        bytes: usize,
    },
    /// The machine code could not be made.
    Lower(LowerError),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Module(error) => error.fmt(f),
            EngineError::Code(error) => error.fmt(f),
            EngineError::Context { bytes } => write!(f, "globals and tables take {bytes} bytes of context"),
            EngineError::Lower(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EngineError {}

impl From<ModuleError> for EngineError {
    fn from(error: ModuleError) -> Self {
        EngineError::Module(error)
    }
}

/// Makes modules. Cheap to clone; clones share the cache.
#[derive(Clone)]
pub struct Engine(Arc<EngineInner>);

struct EngineInner {
    config: EngineConfig,
    compiler: Compiler,
    cache: Mutex<Cache>,
    /// Compiled code outside of the process.
    kept: Kept,
    /// One thread that compiles modules again and writes code to where it is kept, beside rounds.
    background: OnceLock<Option<ThreadPool>>,
}

/// Modules by hash, the least recently used given up first.
#[derive(Default)]
struct Cache {
    by_hash: BTreeMap<[u8; 32], Cached>,
    by_use: BTreeMap<u64, [u8; 32]>,
    uses: u64,
    bytes: usize,
}

struct Cached {
    used: u64,
    bytes: usize,
    module: Arc<Module>,
}

impl Cache {
    fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<Module>> {
        self.uses += 1;
        let cached = self.by_hash.get_mut(hash)?;
        self.by_use.remove(&cached.used);
        cached.used = self.uses;
        self.by_use.insert(self.uses, *hash);
        Some(cached.module.clone())
    }

    /// Keeps `module` and returns what had to go, to be dropped outside of the lock.
    fn put(&mut self, module: &Arc<Module>, bytes_max: usize) -> Vec<Arc<Module>> {
        self.uses += 1;
        let bytes = module.resident_bytes();
        self.bytes += bytes;
        self.by_use.insert(self.uses, module.hash);
        let mut gone = Vec::new();
        if let Some(old) = self.by_hash.insert(module.hash, Cached { used: self.uses, bytes, module: module.clone() }) {
            self.by_use.remove(&old.used);
            self.bytes -= old.bytes;
            gone.push(old.module);
        }
        self.shrink(bytes_max, &mut gone);
        gone
    }

    /// Counts what `module` has come to keep; returns what had to go.
    fn recount(&mut self, module: &Arc<Module>, bytes_max: usize) -> Vec<Arc<Module>> {
        let mut gone = Vec::new();
        if let Some(cached) = self.by_hash.get_mut(&module.hash).filter(|cached| Arc::ptr_eq(&cached.module, module)) {
            let bytes = module.resident_bytes();
            self.bytes = self.bytes - cached.bytes + bytes;
            cached.bytes = bytes;
            self.shrink(bytes_max, &mut gone);
        }
        gone
    }

    fn shrink(&mut self, bytes_max: usize, gone: &mut Vec<Arc<Module>>) {
        while self.bytes > bytes_max {
            let Some((_, hash)) = self.by_use.pop_first() else { break };
            if let Some(old) = self.by_hash.remove(&hash) {
                self.bytes -= old.bytes;
                gone.push(old.module);
            }
        }
    }
}

impl Engine {
    /// An engine with an empty cache.
    ///
    /// Errors: this machine's processor lacks what compiled code needs.
    /// Panics: when the stack limit exceeds [`STACK_SLOTS_MAX`], for which native stacks are made.
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        assert!(config.stack_slots as usize <= STACK_SLOTS_MAX, "stack limit beyond what native stacks hold");
        let compiler = Compiler::new(config.code).map_err(EngineError::Lower)?;
        let inner = EngineInner {
            config,
            compiler,
            cache: Mutex::default(),
            kept: Kept::default(),
            background: OnceLock::new(),
        };
        Ok(Engine(Arc::new(inner)))
    }

    /// Looks for compiled code in `cache` from now on, and keeps there what it compiles. False: it has a cache already.
    pub fn keep_code_in(&self, cache: Arc<dyn CodeCache>) -> bool {
        self.0.kept.keep_in(cache)
    }

    /// How this engine has come to its code.
    pub fn code_counts(&self) -> CodeCounts {
        self.0.kept.counts()
    }

    /// Waits until what was compiled before this is kept, as far as it will be.
    pub fn finish_keeping(&self) {
        if let Some(Some(background)) = self.0.background.get().filter(|_| self.0.kept.is_waiting()) {
            background.install(|| ());
        }
    }

    /// The configuration.
    pub fn config(&self) -> &EngineConfig {
        &self.0.config
    }

    /// Makes a module of Wasm bytes, gzipped or not, or finds it in the cache.
    ///
    /// Errors: the first rule that the module breaks; no memory for code.
    /// Cost: when not cached, a second for some megabytes, on all threads of the current rayon pool.
    pub fn compile(&self, bytes: &[u8]) -> Result<Arc<Module>, EngineError> {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(module) = self.cached(&hash) {
            return Ok(module);
        }
        let (module, keep) = self.make(bytes.into(), hash, &self.0.compiler, &self.0.config)?;
        let module = self.keep(module, keep);
        let gone = self.lock().put(&module, self.0.config.cache_bytes);
        drop(gone);
        Ok(module)
    }

    /// The module with this hash of its bytes as sent, if the cache has it.
    pub fn cached(&self, hash: &[u8; 32]) -> Option<Arc<Module>> {
        self.lock().get(hash)
    }

    /// The same module with code that suits what an instance does better; see [`TrackingPolicy`]. `None`: it stays as it is, perhaps until
    /// that code has been made in the background.
    pub(crate) fn better_code(&self, module: &Arc<Module>, profile: &mut StoreProfile) -> Option<Arc<Module>> {
        let policy = &self.0.config.tracking;
        let wanted = profile.wanted(policy)?;
        if wanted == module.tracking() || !policy.adapt || self.0.config.code.tracking != Tracking::Cards {
            return None;
        }
        if wanted == cyclotron_heap::Tracking::Cards {
            return module.tested.upgrade();
        }
        if let Some(made) = module.protected.get() {
            return made.clone();
        }
        if profile.is_worth_compiling(module.wasm.len(), policy) && !module.asked.swap(true, Ordering::Relaxed) {
            self.compile_in_background(module);
        }
        None
    }

    fn background(&self) -> Option<&ThreadPool> {
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "code".into()).build().ok();
        self.0.background.get_or_init(pool).as_ref()
    }

    fn compile_in_background(&self, module: &Arc<Module>) {
        let Some(background) = self.background() else { return };
        let (engine, module) = (Arc::downgrade(&self.0), Arc::downgrade(module));
        background.spawn(move || {
            if let (Some(engine), Some(module)) = (engine.upgrade(), module.upgrade()) {
                Engine(engine).compile_protected(&module);
            }
        });
    }

    /// The same module with code for protected pages, made now unless it has been. `None`: there was no memory for code; it is not tried again.
    pub fn compile_protected(&self, module: &Arc<Module>) -> Option<Arc<Module>> {
        let make = || {
            let mut config = self.0.config.clone();
            config.code.tracking = Tracking::Protect;
            let compiler = Compiler::new(config.code).ok()?;
            let (mut protected, keep) = self.make(module.wasm.clone(), module.hash, &compiler, &config).ok()?;
            protected.shape = module.shape.clone();
            protected.tested = Arc::downgrade(module);
            Some(self.keep(protected, keep))
        };
        let made = module.protected.get_or_init(make).clone();
        let gone = self.lock().recount(module, self.0.config.cache_bytes);
        drop(gone);
        made
    }

    /// Bytes of modules in the cache.
    pub fn cache_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        // The cache is consistent between statements that can panic (none do).
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A module of Wasm bytes, with code that was kept or is made now; and under which key it is to be kept, if it is.
    fn make(
        &self,
        sent: Arc<[u8]>,
        hash: [u8; 32],
        compiler: &Compiler,
        config: &EngineConfig,
    ) -> Result<(Module, Option<CodeKey>), EngineError> {
        let limits = &config.rules.limits;
        let wasm = inflate(&sent, limits.module)?;
        // Also for code that was kept: what may run, and what it costs, never depends on what is on a disk.
        let decoded = load(&wasm, &config.rules)?;
        let kept = &self.0.kept;
        let key = kept.is_used().then(|| CodeKey { module: hash, fingerprint: fingerprint(compiler, limits) });
        let canonical_types = canonical_types(&decoded.types);
        let expected = Expected {
            functions: decoded.functions.len(),
            imports: decoded.imports.len(),
            canonical_types: &canonical_types,
        };
        if let Some(compiled) = key.and_then(|key| kept.load(&key, &expected)) {
            return Ok((Module::new(sent.clone(), hash, &decoded, compiled, config)?, None));
        }
        let costs = Weights(Meter::new(decoded.memory_kind));
        let compiled = compiler.lower(&lower_info(&decoded, limits), &costs).map_err(EngineError::Lower)?;
        let module = Module::new(sent.clone(), hash, &decoded, compiled, config)?;
        Ok((module, kept.was_compiled(key)))
    }

    /// Shares a module, and has its code kept under a key if there is one.
    fn keep(&self, module: Module, key: Option<CodeKey>) -> Arc<Module> {
        let module = Arc::new(module);
        let Some(key) = key else { return module };
        let Some(background) = self.background() else { return module };
        let (engine, shared) = (Arc::downgrade(&self.0), module.clone());
        background.spawn(move || {
            if let Some(engine) = engine.upgrade() {
                engine.kept.store(&key, &shared.code.to_compiled(&shared.shape.canonical_types));
            }
        });
        module
    }
}

/// A compiled module: code and what instances start from. Shared by all its instances.
pub struct Module {
    hash: [u8; 32],
    /// The bytes as they were sent.
    wasm: Arc<[u8]>,
    shape: Arc<ModuleShape>,
    code: Code,
    tracking: cyclotron_heap::Tracking,
    /// The same with code for protected pages, once that has been made; `None` if it could not be.
    protected: OnceLock<Option<Arc<Module>>>,
    /// Whether that has been asked for.
    asked: AtomicBool,
    /// Of code for protected pages: the module whose code tests cards.
    tested: Weak<Module>,
    func_refs: Box<[FuncRef]>,
    /// Contents of each table at the start of a message.
    table_images: Vec<Vec<u64>>,
    /// Words of the passive element segments, where `table.init` may ask for them: never under the rules of canisters.
    elements: BTreeMap<usize, Vec<u64>>,
    globals: Vec<u128>,
    instantiation_error: Option<TrapCode>,
    stack_slots: u32,
    stack: StackNeeded,
    compile_operators: u64,
    reports_calls: bool,
}

// SAFETY: the pointers in `func_refs` lead into the module's own code, which is immutable.
unsafe impl Send for Module {}
// SAFETY: as above; what changes after construction (`protected`, `asked`) is synchronised by itself.
unsafe impl Sync for Module {}

impl Module {
    /// Makes compiled code executable and computes what instances start from.
    fn new(
        wasm: Arc<[u8]>,
        hash: [u8; 32],
        decoded: &DecodedModule<'_>,
        compiled: CompiledModule,
        config: &EngineConfig,
    ) -> Result<Module, EngineError> {
        let shape = Arc::new(ModuleShape::of(decoded, &config.rules.limits));
        check_context(&shape)?;
        let stack = stack_needed(&compiled, config.stack_slots);
        let code = Code::publish(compiled, shape.imports.len() as u32).map_err(EngineError::Code)?;
        symbols::note(&code, &shape, &hash);
        let func_refs = shape.functions.iter().zip(0u32..).map(|(ty, index)| FuncRef {
            code: code.function(index).unwrap_or(std::ptr::null()),
            type_id: shape.canonical_types.get(*ty as usize).copied().unwrap_or(*ty),
            func_index: index,
        });
        let func_refs: Box<[FuncRef]> = func_refs.collect();
        let mut module = Module {
            hash,
            wasm,
            tracking: match config.code.tracking {
                Tracking::Cards | Tracking::None => cyclotron_heap::Tracking::Cards,
                Tracking::Protect => cyclotron_heap::Tracking::Protect,
            },
            protected: OnceLock::new(),
            asked: AtomicBool::new(false),
            tested: Weak::new(),
            code,
            func_refs,
            table_images: Vec::new(),
            elements: BTreeMap::new(),
            globals: Vec::new(),
            instantiation_error: None,
            stack_slots: config.stack_slots,
            stack,
            compile_operators: decoded.compile_operators(),
            reports_calls: config.code.calls && config.code.metering,
            shape,
        };
        module.evaluate(&decoded.elements, !config.rules.are_for_canisters());
        Ok(module)
    }

    /// Evaluates constants: globals, then tables with their active segments, then whether data fits.
    fn evaluate(&mut self, elements: &[ElementSegment<'_>], keep_passive: bool) {
        for at in 0..self.shape.globals.len() {
            let word = self.constant(self.shape.globals[at].init);
            self.globals.push(word);
        }
        let tables = self.shape.tables.iter();
        let mut images: Vec<Vec<u64>> =
            tables.map(|table| vec![self.constant(table.init) as u64; table.min as usize]).collect();
        for (at, segment) in elements.iter().enumerate() {
            let words = segment.items().map(|item| self.constant(item) as u64);
            match segment.mode {
                SegmentMode::Active { table, offset } => {
                    let start = self.address(offset);
                    let room = images.get_mut(table as usize).and_then(|image| {
                        let end = start.checked_add(u64::from(segment.len))?;
                        image.get_mut(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
                    });
                    match room {
                        Some(room) => room.iter_mut().zip(words).for_each(|(place, word)| *place = word),
                        None => {
                            self.instantiation_error = Some(TrapCode::TableOutOfBounds);
                            break;
                        }
                    }
                }
                SegmentMode::Passive if keep_passive => {
                    let words = words.collect();
                    self.elements.insert(at, words);
                }
                SegmentMode::Passive | SegmentMode::Declared => {}
            }
        }
        self.table_images = images;
        if self.instantiation_error.is_some() {
            return;
        }
        let heap = self.shape.memory.map_or(0, |memory| memory.min_pages.saturating_mul(1 << 16));
        let fits =
            |(address, bytes): (u64, &[u8])| address.checked_add(bytes.len() as u64).is_some_and(|end| end <= heap);
        if !self.active_data().all(fits) {
            self.instantiation_error = Some(TrapCode::HeapOutOfBounds);
        }
    }

    /// The word of a constant expression; globals before it have been evaluated.
    fn constant(&self, constant: ConstExpr) -> u128 {
        match constant {
            ConstExpr::I32(value) => u128::from(value as u32),
            ConstExpr::I64(value) => u128::from(value as u64),
            ConstExpr::F32(bits) => u128::from(bits),
            ConstExpr::F64(bits) => u128::from(bits),
            ConstExpr::V128(bits) => bits,
            ConstExpr::RefNull => 0,
            ConstExpr::RefFunc(function) => u128::from(self.func_ref_word(function).unwrap_or(0)),
            ConstExpr::GlobalGet(global) => self.globals.get(global as usize).copied().unwrap_or(0),
        }
    }

    /// An offset of a segment: unsigned, of 32 or 64 bits (32-bit constants are zero-extended words).
    fn address(&self, offset: ConstExpr) -> u64 {
        self.constant(offset) as u64
    }

    fn func_ref_word(&self, function: u32) -> Option<u64> {
        self.func_refs.get(function as usize).map(|reference| std::ptr::from_ref(reference) as u64)
    }

    /// SHA-256 of the bytes as they were sent.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The bytes as they were sent.
    pub fn wasm(&self) -> &Arc<[u8]> {
        &self.wasm
    }

    /// How seats must track stores for this code. (Code that does not track at all leaves cards clean: nothing can be rolled back; for
    /// measurements only.)
    pub fn tracking(&self) -> cyclotron_heap::Tracking {
        self.tracking
    }

    /// The same module with code for protected pages, if that has been made.
    pub fn protected(&self) -> Option<&Arc<Module>> {
        self.protected.get()?.as_ref()
    }

    /// Everything about the module but its code.
    pub fn shape(&self) -> &ModuleShape {
        &self.shape
    }

    /// The code: addresses, and ranges by function for profilers.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Largest size of the heap that the module and the rules allow.
    pub fn heap_pages_max(&self) -> WasmPages {
        self.shape.memory.map_or(WasmPages::ZERO, |memory| WasmPages(memory.max_pages))
    }

    /// The start function, if there is one.
    pub fn start(&self) -> Option<u32> {
        self.shape.start
    }

    /// Function index of the function exported under this name.
    pub fn export_function(&self, name: &str) -> Option<u32> {
        self.shape.export(name).filter(|export| export.kind == ExportKind::Function).map(|export| export.index)
    }

    /// Operators that compilation is charged for; see `cyclotron_types::host_costs::COMPILE_PER_OPERATOR`.
    pub fn compile_operators(&self) -> u64 {
        self.compile_operators
    }

    /// What compiling the module costs.
    pub fn compile_cost(&self) -> Instructions {
        Instructions(self.compile_operators.saturating_mul(cyclotron_types::host_costs::COMPILE_PER_OPERATOR.0))
    }

    /// Bytes that the module keeps resident: code, tables of the runtime, segments, names, the bytes as sent; and the code for protected pages.
    pub fn resident_bytes(&self) -> usize {
        let tables = self.code.tables();
        let words = self.table_images.iter().chain(self.elements.values()).map(Vec::len).sum::<usize>() * 8;
        let globals = size_of_val(&*self.globals);
        let refs = size_of_val(&*self.func_refs);
        let own = tables.len() + tables.table_bytes() + refs + words + globals;
        // Code for protected pages shares them with the module that keeps it.
        let shared = if self.tested.strong_count() == 0 { self.wasm.len() + self.shape.resident_bytes() } else { 0 };
        own + shared + self.protected().map_or(0, |protected| protected.resident_bytes())
    }

    /// Whether its code reports which function it enters and leaves; see [`crate::calls`].
    pub(crate) fn reports_calls(&self) -> bool {
        self.reports_calls
    }

    pub(crate) fn func_refs(&self) -> &[FuncRef] {
        &self.func_refs
    }

    pub(crate) fn table_images(&self) -> &[Vec<u64>] {
        &self.table_images
    }

    pub(crate) fn element_words(&self, segment: usize) -> &[u64] {
        self.elements.get(&segment).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn data(&self, segment: u32) -> &[u8] {
        self.shape.data.get(segment as usize).map_or(&[], |segment| &segment.bytes)
    }

    /// Active data segments with their addresses.
    pub(crate) fn active_data(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.shape.data.iter().filter_map(|segment| match segment.mode {
            SegmentMode::Active { offset, .. } => Some((self.address(offset), &*segment.bytes)),
            SegmentMode::Passive | SegmentMode::Declared => None,
        })
    }

    pub(crate) fn instantiation_error(&self) -> Option<TrapCode> {
        self.instantiation_error
    }

    /// The native stack that executions need.
    pub fn stack_needed(&self) -> StackNeeded {
        self.stack
    }

    pub(crate) fn stack_slots(&self) -> i64 {
        i64::from(self.stack_slots)
    }

    pub(crate) fn initial_globals(&self) -> Vec<Value> {
        self.shape.globals.iter().zip(&self.globals).map(|(global, word)| self.value(global.ty, *word)).collect()
    }

    /// The word that stands for a value in compiled code of this module; `None` for a function that does not exist.
    pub(crate) fn word(&self, value: Value) -> Option<u128> {
        Some(match value {
            Value::I32(value) => u128::from(value as u32),
            Value::I64(value) => u128::from(value as u64),
            Value::F32(bits) => u128::from(bits),
            Value::F64(bits) => u128::from(bits),
            Value::V128(bits) => bits,
            Value::FuncRef(None) => 0,
            Value::FuncRef(Some(function)) => u128::from(self.func_ref_word(function)?),
            Value::ExternRef(reference) => u128::from(extern_word(reference)),
        })
    }

    /// The value that a word of compiled code stands for.
    pub(crate) fn value(&self, ty: ValType, word: u128) -> Value {
        match ty {
            ValType::I32 => Value::I32(word as u32 as i32),
            ValType::I64 => Value::I64(word as u64 as i64),
            ValType::F32 => Value::F32(word as u32),
            ValType::F64 => Value::F64(word as u64),
            ValType::V128 => Value::V128(word),
            ValType::FuncRef => Value::FuncRef(self.function_of(word as u64)),
            ValType::ExternRef => Value::ExternRef(extern_reference(word as u64)),
        }
    }

    /// The function whose [`FuncRef`] lies at `address`; `None` for null.
    fn function_of(&self, address: u64) -> Option<u32> {
        let offset = (address as usize).checked_sub(self.func_refs.as_ptr() as usize)?;
        let index = offset / size_of::<FuncRef>();
        self.func_refs.get(index).filter(|_| offset.is_multiple_of(size_of::<FuncRef>())).map(|found| found.func_index)
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("hash", &self.hash)
            .field("code", &self.code.tables().len())
            .finish_non_exhaustive()
    }
}

/// The replica's weights as lowering asks for them.
struct Weights(Meter);

impl OperatorCost for Weights {
    fn cost(&self, operator: &Operator<'_>) -> u32 {
        self.0.weight(operator)
    }

    fn function_entry(&self) -> u32 {
        Meter::function_entry()
    }
}

fn lower_info<'a>(decoded: &DecodedModule<'a>, limits: &ModuleLimits) -> ModuleInfo<'a> {
    let imported = decoded.imports.iter().map(|import| import.type_index);
    ModuleInfo {
        types: decoded.types.clone(),
        functions: imported.chain(decoded.functions.iter().copied()).collect(),
        imported_functions: decoded.imports.len() as u32,
        globals: decoded
            .globals
            .iter()
            .map(|global| GlobalInfo { ty: global.ty, mutable: global.mutable, init: plain_constant(global.init) })
            .collect(),
        tables: decoded
            .tables
            .iter()
            .map(|table| TableInfo {
                table64: table.table64,
                min: table.initial,
                max: table.maximum,
                // Embedders only read tables between messages.
                shared: false,
            })
            .collect(),
        memory: decoded.memory.map(|memory| {
            let limit = if memory.memory64 { limits.heap_wasm64.0 } else { limits.heap_wasm32.0 };
            let max = Some(memory.maximum.map_or(limit, |maximum| maximum.min(limit)));
            MemoryInfo { memory64: memory.memory64, min: memory.initial, max }
        }),
        bodies: decoded.bodies.clone(),
    }
}

fn plain_constant(constant: ConstExpr) -> Option<Constant> {
    Some(match constant {
        ConstExpr::I32(value) => Constant::I32(value),
        ConstExpr::I64(value) => Constant::I64(value),
        ConstExpr::F32(bits) => Constant::F32(bits),
        ConstExpr::F64(bits) => Constant::F64(bits),
        ConstExpr::V128(bits) => Constant::V128(bits),
        ConstExpr::RefNull => Constant::Null,
        ConstExpr::RefFunc(function) => Constant::Func(function),
        ConstExpr::GlobalGet(_) => return None,
    })
}

/// The native stack that an execution of this code needs so that the limit in slots is always met first. Frames depend on the processor,
/// which must not decide what a module may contain: where one takes more bytes a slot than is usual, the stack is larger.
///
/// Every frame takes at most `per_slot` bytes for each slot that it takes of the limit, so all whose budget has held take that times the
/// limit together. A callee whose budget fails has its frame already, hence the largest once more.
fn stack_needed(compiled: &CompiledModule, stack_slots: u32) -> StackNeeded {
    let (mut per_slot, mut frame) = (0, 0);
    for function in &compiled.functions {
        assert!(function.stack_slots >= FRAME_SLOTS, "a function takes at least its frame of the stack limit");
        per_slot = per_slot.max(function.frame_bytes.div_ceil(function.stack_slots));
        frame = frame.max(function.frame_bytes);
    }
    StackNeeded { frames_bytes: stack_slots as usize * per_slot as usize, largest_bytes: frame as usize }
}

/// Globals and views of tables lie between the context and the heap.
fn check_context(shape: &ModuleShape) -> Result<(), EngineError> {
    let bytes = GLOBALS_OFFSET as usize + shape.globals.len() * 16 + shape.tables.len() * TABLE_VIEW_BYTES as usize;
    if bytes > cyclotron_heap::layout::HEAP_OFFSET { Err(EngineError::Context { bytes }) } else { Ok(()) }
}
