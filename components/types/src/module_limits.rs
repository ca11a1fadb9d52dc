//! What a canister's Wasm module may contain at most.
//!
//! Enters: nothing. Leaves: [`ModuleLimits`]. Never here: the checks (`engine/wasm`), limits of messages ([`crate::limits`]).
//!
//! Sources, all dfinity/ic: A = `rs/config/src/embedders.rs`, B = `rs/embedders/src/wasm_utils/validation.rs`,
//! C = `rs/embedders/src/wasmtime_embedder.rs` (newest copies found, 2024-26).

use crate::units::{Bytes, WasmPages};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Limits on a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Uncompressed module (`WASM_MAX_SIZE`, A).
    pub module: Bytes,
    /// Code section (`MAX_CODE_SECTION_SIZE_IN_BYTES`, B).
    pub code_section: Bytes,
    /// Defined functions (`MAX_FUNCTIONS`, A).
    pub functions: usize,
    /// Defined globals (`MAX_GLOBALS`, A).
    pub globals: usize,
    /// Tables (`MAX_STORE_TABLES`, C).
    pub tables: usize,
    /// Elements of a table (`MAX_STORE_TABLE_ELEMENTS`, C).
    pub table_elements: u64,
    /// Methods: exports `canister_update|query|composite_query <name>` (`MAX_NUMBER_EXPORTED_FUNCTIONS`, A).
    pub methods: usize,
    /// Bytes of all methods' names together (`MAX_SUM_EXPORTED_FUNCTION_NAME_LENGTHS`, A).
    pub method_names: usize,
    /// Custom sections named `icp:public|private <name>` (`MAX_CUSTOM_SECTIONS`, A).
    pub custom_sections: usize,
    /// Bytes of these sections and their names together (`MAX_CUSTOM_SECTIONS_SIZE`, A).
    pub custom_section_bytes: Bytes,
    /// Operators of one function, its `end` included (`WASM_FUNCTION_SIZE_LIMIT`, B).
    pub function_operators: usize,
    /// Complexity of one function (`WASM_FUNCTION_COMPLEXITY_LIMIT`, B).
    pub function_complexity: u64,
    /// Heap of a module with a 32-bit memory: all that it can address.
    pub heap_wasm32: WasmPages,
    /// Heap of a module with a 64-bit memory (interface specification, and A).
    pub heap_wasm64: WasmPages,
}

/// The limits of the Internet Computer.
pub const MODULE_LIMITS: ModuleLimits = ModuleLimits {
    module: Bytes(100 * MIB),
    code_section: Bytes(10 * MIB),
    functions: 50_000,
    globals: 1_000,
    tables: 1,
    table_elements: 1_000_000,
    methods: 1_000,
    method_names: 20_000,
    custom_sections: 16,
    custom_section_bytes: Bytes(MIB),
    function_operators: 1_000_000,
    function_complexity: 1_000_000,
    heap_wasm32: WasmPages(4 * GIB / WasmPages::BYTES),
    heap_wasm64: WasmPages(6 * GIB / WasmPages::BYTES),
};

const _: () = assert!(MODULE_LIMITS.code_section.0 < MODULE_LIMITS.module.0);
const _: () = assert!(MODULE_LIMITS.heap_wasm32.0 < MODULE_LIMITS.heap_wasm64.0);
