//! What a module must satisfy beyond being valid WebAssembly.
//!
//! Enters: a parsed module and [`Rules`]. Leaves: the module with entry points and metadata filled in, or the first
//! [`ModuleError`]. Never here: decoding, code generation.
//!
//! [`Rules::canister`] are the Internet Computer's; [`Rules::plain`] have the same Wasm features but no canisters, for
//! conformance suites, fuzzing and benchmarks. Source of the rules and of their order: dfinity/ic
//! `rs/embedders/src/wasm_utils/validation.rs` (October 2024, and the parts quoted in 2026).

pub(crate) mod complexity;
mod error;
mod exports;
mod imports;
mod sections;

use std::collections::BTreeMap;

use cyclotron_types::imports::Ic0;
use cyclotron_types::module_limits::{MODULE_LIMITS, ModuleLimits};
use wasmparser::{FuncType, Parser, Payload, ValType, WasmFeatures};

pub use error::ModuleError;

use crate::decode::{ConstExpr, DecodedModule, Memory, Table};

/// The proposals that the replica's engine accepts, and no others.
///
/// Source: dfinity/ic `validation.rs`, `wasmtime_validation_config`, as of wasmtime 45 (2026): bulk memory, reference types,
/// memory64 and tail calls are switched on, function references, GC, multi-memory, relaxed SIMD and extended constant
/// expressions off; SIMD, multi-value, sign extension, saturating conversions and mutable globals are the engine's
/// defaults, threads and exceptions are not. `GC_TYPES` and `FLOATS` are no proposals: the first admits `externref`.
pub const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::GC_TYPES);

/// What to hold a module to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Wasm proposals.
    pub features: WasmFeatures,
    /// What may be imported.
    pub imports: ImportRules,
    /// Limits on the module's size and contents; without canisters only those on sizes and memory apply.
    pub limits: ModuleLimits,
}

/// What may be imported.
#[derive(Clone, Debug)]
pub enum ImportRules {
    /// The System API, and the rules of canisters for everything else.
    Canister,
    /// These, by module and field name; no rules of canisters.
    Given(BTreeMap<(String, String), Given>),
}

/// Something that a module may import under [`ImportRules::Given`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A function of this type.
    Function(FuncType),
    /// An immutable global; the module gets its value.
    Global {
        /// Its type.
        ty: ValType,
        /// Its value.
        value: ConstExpr,
    },
    /// A memory; every importing module gets one of its own.
    Memory(Memory),
    /// A table; every importing module gets one of its own.
    Table(Table),
}

impl Rules {
    /// The rules of the Internet Computer.
    pub fn canister() -> Self {
        Self { features: FEATURES, imports: ImportRules::Canister, limits: MODULE_LIMITS }
    }

    /// No rules of canisters, and these imports.
    pub fn plain(imports: impl IntoIterator<Item = ((String, String), Given)>) -> Self {
        Self { features: FEATURES, imports: ImportRules::Given(imports.into_iter().collect()), limits: MODULE_LIMITS }
    }

    /// Whether the rules of canisters apply.
    pub fn are_for_canisters(&self) -> bool {
        matches!(self.imports, ImportRules::Canister)
    }
}

/// Checks what can be seen before parsing: the sizes of the module and of its code section.
pub(crate) fn check_sizes(wasm: &[u8], rules: &Rules) -> Result<(), ModuleError> {
    let (size, allowed) = (wasm.len() as u64, rules.limits.module.0);
    if size > allowed {
        return Err(ModuleError::ModuleTooLarge { size, allowed });
    }
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionStart { size, .. } = payload? {
            let (size, allowed) = (u64::from(size), rules.limits.code_section.0);
            return if size > allowed { Err(ModuleError::CodeSectionTooLarge { size, allowed }) } else { Ok(()) };
        }
    }
    Ok(())
}

/// Applies the rules to a valid module, in the replica's order.
pub(crate) fn check_module(module: &mut DecodedModule<'_>, rules: &Rules) -> Result<(), ModuleError> {
    match &rules.imports {
        ImportRules::Given(given) => imports::check_given(module, given),
        ImportRules::Canister => {
            imports::check_ic0(module)?;
            exports::check(module, &rules.limits)?;
            sections::check_data_offsets(module)?;
            sections::check_globals(module, &rules.limits)?;
            sections::check_counts(module, &rules.limits)?;
            sections::check_code(module, &rules.limits)?;
            sections::check_metadata(module, &rules.limits)?;
            sections::check_segments_fit(module)
        }
    }
}

/// Every import that canisters may name, as rules for modules that run without one: benchmarks of host calls.
pub fn ic0_functions(memory: cyclotron_types::imports::MemoryKind) -> BTreeMap<(String, String), Given> {
    cyclotron_types::imports::IMPORTS
        .iter()
        .map(|row| {
            let key = (cyclotron_types::imports::IC0_MODULE.to_owned(), row.name.to_owned());
            (key, Given::Function(ic0_type(row.import, memory)))
        })
        .collect()
}

/// The type of a System API function in a module of this kind.
pub fn ic0_type(import: Ic0, memory: cyclotron_types::imports::MemoryKind) -> FuncType {
    let row = import.row();
    let ty = |t: &cyclotron_types::imports::ImportType| if t.is_64(memory) { ValType::I64 } else { ValType::I32 };
    FuncType::new(row.params.iter().map(ty), row.result.iter().map(ty))
}
