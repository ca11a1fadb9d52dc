//! A module's bytes taken apart: gunzipped, parsed, every function validated.
//!
//! Enters: bytes from a canister's developer. Leaves: [`DecodedModule`], all that lowering and instantiation need, borrowing
//! the bytes. Never here: rules of the Internet Computer (`validate` applies them), code generation, panics on any bytes.
//!
//! [`load`] is the whole way: limits, Wasm validation, then the rules, in this order.

mod gzip;
mod parse;

use std::collections::BTreeMap;

use cyclotron_types::imports::{Ic0, MemoryKind};
use wasmparser::{FuncType, FunctionBody, RefType, ValType};

pub use gzip::inflate;

use crate::validate::{self, ModuleError, Rules};

/// A module that has passed Wasm validation. Index spaces are the module's own; imports come first.
#[derive(Debug)]
pub struct DecodedModule<'a> {
    /// The uncompressed module.
    pub wasm: &'a [u8],
    /// Whether the memory is 32-bit or 64-bit; 32-bit if there is none.
    pub memory_kind: MemoryKind,
    /// Function types by type index.
    pub types: Vec<FuncType>,
    /// Imported functions, in the order of their function indexes.
    pub imports: Vec<FunctionImport<'a>>,
    /// Type index of every defined function.
    pub functions: Vec<u32>,
    /// Body of every defined function.
    pub bodies: Vec<FunctionBody<'a>>,
    /// What the functions consist of, for limits and prices.
    pub code: Vec<CodeFacts>,
    /// Tables.
    pub tables: Vec<Table>,
    /// The memory, if there is one.
    pub memory: Option<Memory>,
    /// Globals.
    pub globals: Vec<Global>,
    /// Every export, in the module's order.
    pub exports: Vec<Export<'a>>,
    /// The exports through which the Internet Computer enters; empty under rules that know no canisters.
    pub entry_points: EntryPoints,
    /// Function to run at instantiation.
    pub start: Option<u32>,
    /// Element segments.
    pub elements: Vec<ElementSegment<'a>>,
    /// Data segments.
    pub data: Vec<DataSegment<'a>>,
    /// Names of functions from the `name` section, as far as it is readable and follows the functions.
    pub function_names: BTreeMap<u32, &'a str>,
    /// Custom sections `icp:public <name>` and `icp:private <name>`; empty under rules that know no canisters.
    pub metadata: BTreeMap<&'a str, Metadata<'a>>,
    /// Custom sections whose name begins with `icp:`, as they stand: the first that there may be, and one more.
    pub custom_sections: Vec<(&'a str, &'a [u8])>,
}

/// An imported function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionImport<'a> {
    /// Module part of its name.
    pub module: &'a str,
    /// Field part of its name.
    pub name: &'a str,
    /// Index of its type.
    pub type_index: u32,
    /// Which System API function it is; `None` under rules that know no canisters.
    pub ic0: Option<Ic0>,
}

/// What a function body consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeFacts {
    /// Operators, the final `end` included.
    pub operators: usize,
    /// The replica's measure of how hard it is to compile.
    pub complexity: u64,
    /// The first operator that canisters may not use, and its offset in the module.
    pub unsupported: Option<(&'static str, usize)>,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Type of its elements: `funcref` or `externref`.
    pub element: RefType,
    /// Elements at the start.
    pub initial: u64,
    /// Elements at most, if the module says.
    pub maximum: Option<u64>,
    /// Whether its indexes are `i64`.
    pub table64: bool,
    /// What its elements start as; null if the module does not say.
    pub init: ConstExpr,
}

/// The memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whether its addresses are `i64`.
    pub memory64: bool,
    /// Pages at the start.
    pub initial: u64,
    /// Pages at most, if the module says.
    pub maximum: Option<u64>,
}

/// A global, or an imported constant with its given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    /// Type of its value.
    pub ty: ValType,
    /// Whether code may set it.
    pub mutable: bool,
    /// Its first value.
    pub init: ConstExpr,
}

/// A constant expression. Extended constant expressions are not enabled, so one operator is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstExpr {
    /// `i32.const`
    I32(i32),
    /// `i64.const`
    I64(i64),
    /// `f32.const`, its bits.
    F32(u32),
    /// `f64.const`, its bits.
    F64(u64),
    /// `v128.const`
    V128(u128),
    /// `ref.null`
    RefNull,
    /// `ref.func` of this function.
    RefFunc(u32),
    /// `global.get` of this (imported, immutable) global.
    GlobalGet(u32),
}

/// What an export names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportKind {
    /// A function.
    Function,
    /// A table.
    Table,
    /// The memory.
    Memory,
    /// A global.
    Global,
}

/// An export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it names.
    pub kind: ExportKind,
    /// Index of that.
    pub index: u32,
}

/// How a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodKind {
    /// `canister_update <name>`
    Update,
    /// `canister_query <name>`
    Query,
    /// `canister_composite_query <name>`
    CompositeQuery,
}

/// A function that the system calls by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemMethod {
    /// `canister_init`
    Init,
    /// `canister_pre_upgrade`
    PreUpgrade,
    /// `canister_post_upgrade`
    PostUpgrade,
    /// `canister_inspect_message`
    InspectMessage,
    /// `canister_heartbeat`
    Heartbeat,
    /// `canister_global_timer`
    GlobalTimer,
    /// `canister_on_low_wasm_memory`
    OnLowWasmMemory,
}

impl SystemMethod {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Init,
        Self::PreUpgrade,
        Self::PostUpgrade,
        Self::InspectMessage,
        Self::Heartbeat,
        Self::GlobalTimer,
        Self::OnLowWasmMemory,
    ];

    /// Name of the export.
    pub const fn export_name(self) -> &'static str {
        match self {
            Self::Init => "canister_init",
            Self::PreUpgrade => "canister_pre_upgrade",
            Self::PostUpgrade => "canister_post_upgrade",
            Self::InspectMessage => "canister_inspect_message",
            Self::Heartbeat => "canister_heartbeat",
            Self::GlobalTimer => "canister_global_timer",
            Self::OnLowWasmMemory => "canister_on_low_wasm_memory",
        }
    }
}

/// The functions through which the Internet Computer enters a canister, by function index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryPoints {
    /// Methods by name. A name stands for one kind only.
    pub methods: BTreeMap<String, (MethodKind, u32)>,
    /// Functions that the system calls.
    pub system: BTreeMap<SystemMethod, u32>,
}

impl EntryPoints {
    /// Function index of the method of this kind and name.
    pub fn method(&self, kind: MethodKind, name: &str) -> Option<u32> {
        self.methods.get(name).filter(|(k, _)| *k == kind).map(|(_, index)| *index)
    }
}

/// When a segment is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentMode {
    /// Copied at instantiation to this place of this table (always 0 for memories).
    Active {
        /// Index of the table.
        table: u32,
        /// Where in it.
        offset: ConstExpr,
    },
    /// Copied by `memory.init` or `table.init`.
    Passive,
    /// Never copied; only declares functions for `ref.func`.
    Declared,
}

/// An element segment. A hundred million elements compress to a hundred kilobytes, so they stay where they are: in the module's bytes.
#[derive(Clone)]
pub struct ElementSegment<'a> {
    /// When it is used.
    pub mode: SegmentMode,
    /// Type of its elements.
    pub element: RefType,
    /// Number of its elements.
    pub len: u32,
    items: wasmparser::ElementItems<'a>,
}

impl ElementSegment<'_> {
    /// Its elements: [`ConstExpr::RefFunc`], [`ConstExpr::RefNull`] or [`ConstExpr::GlobalGet`]. Cost: they are read anew each time.
    pub fn items(&self) -> impl Iterator<Item = ConstExpr> {
        // Decoding has read them all without an error.
        parse::element_items(&self.items).map_while(Result::ok)
    }
}

impl std::fmt::Debug for ElementSegment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, element, len, items: _ } = self;
        f.debug_struct("ElementSegment").field("mode", mode).field("element", element).field("len", len).finish()
    }
}

/// A data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSegment<'a> {
    /// When it is used.
    pub mode: SegmentMode,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A custom section that the canister publishes or keeps for its controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// Whether anyone may read it.
    pub public: bool,
    /// Its content.
    pub content: &'a [u8],
}

impl DecodedModule<'_> {
    /// Type of the function of this index, imported or defined.
    ///
    /// Panics: if the index is not a function of the module.
    pub fn function_type(&self, function: u32) -> &FuncType {
        let ix = function as usize;
        let type_index = match ix.checked_sub(self.imports.len()) {
            None => self.imports[ix].type_index,
            Some(defined) => self.functions[defined],
        };
        &self.types[type_index as usize]
    }

    /// Operators that compilation is charged for: those of all functions, and two for each global.
    /// Spec: `cyclotron_types::host_costs::COMPILE_PER_OPERATOR`.
    pub fn compile_operators(&self) -> u64 {
        let code: u64 = self.code.iter().map(|f| f.operators as u64).sum();
        code + self.globals.len() as u64 * cyclotron_types::host_costs::COMPILE_OPERATORS_PER_GLOBAL
    }
}

/// Takes an uncompressed module apart and holds it to the rules.
///
/// Errors: the first rule that it breaks. Cost: one pass over the bytes, function bodies in parallel.
pub fn load<'a>(wasm: &'a [u8], rules: &Rules) -> Result<DecodedModule<'a>, ModuleError> {
    validate::check_sizes(wasm, rules)?;
    let mut module = parse::parse(wasm, rules)?;
    validate::check_module(&mut module, rules)?;
    Ok(module)
}
