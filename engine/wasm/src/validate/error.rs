//! Why a module is refused.
//!
//! The first words of every text are those that clients of the replica know (dfinity/ic
//! `rs/types/wasm_types/src/errors.rs`); what follows names the rule's numbers and the place.

use std::fmt;

/// The rule that a module breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleError {
    /// The bytes are neither Wasm nor gzip.
    UnknownFormat,
    /// A gzip stream that cannot even hold its header and footer.
    GzipTooShort,
    /// A broken gzip stream.
    Gzip {
        /// What is broken.
        message: String,
    },
    /// A gzip stream that is not as long as its footer says.
    GzipSize {
        /// Bytes by the footer.
        stated: u64,
        /// Bytes unpacked before giving up.
        actual: u64,
    },
    /// The uncompressed module is too large.
    ModuleTooLarge {
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The code section is too large.
    CodeSectionTooLarge {
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// Not a valid WebAssembly module under the enabled proposals.
    Invalid {
        /// What is wrong.
        message: String,
        /// Where in the module.
        offset: usize,
    },
    /// An imported function that does not exist.
    UnknownImport {
        /// Module part of its name.
        module: String,
        /// Field part of its name.
        name: String,
    },
    /// A System API function imported from a module other than `ic0`.
    ImportModule {
        /// Module part of its name.
        module: String,
        /// Field part of its name.
        name: String,
    },
    /// A System API function that modules with a 64-bit memory do not have.
    ImportNotIn64Bit {
        /// Its name.
        name: String,
    },
    /// An imported memory, table, global or tag.
    ImportKind {
        /// Which of them.
        what: &'static str,
        /// Module part of its name.
        module: String,
        /// Field part of its name.
        name: String,
    },
    /// A function imported or exported with the wrong type.
    Signature {
        /// Name of the import or export.
        name: String,
        /// `params` or `results`, whichever differs.
        part: SignaturePart,
        /// Types as they must be.
        expected: String,
        /// Types as they are.
        got: String,
    },
    /// An export under a name that the replica keeps for itself.
    ReservedExport {
        /// The name.
        name: String,
    },
    /// An exported function whose name starts with `canister_` but is none of those specified.
    ReservedPrefix {
        /// The name.
        name: String,
    },
    /// A method exported as more than one of update, query and composite query.
    DuplicateMethod {
        /// Its name.
        name: String,
    },
    /// Too many methods.
    TooManyMethods {
        /// Methods there are.
        defined: usize,
        /// Methods allowed.
        allowed: usize,
    },
    /// The methods' names are too long together.
    MethodNamesTooLong {
        /// Their bytes.
        total: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// An active data segment whose offset is not a constant of the memory's address type.
    DataOffset {
        /// Index of the segment.
        segment: usize,
        /// 32 or 64.
        memory_bits: u32,
        /// The expression.
        found: String,
    },
    /// An active data segment beyond the memory's initial size.
    DataBeyondMemory {
        /// Index of the segment.
        segment: usize,
        /// Its first address.
        offset: u64,
        /// Its bytes.
        len: u64,
    },
    /// An active element segment beyond the table's initial size.
    ElementsBeyondTable {
        /// Index of the segment.
        segment: usize,
        /// Its first index.
        offset: u64,
        /// Its elements.
        len: u64,
    },
    /// Too many globals.
    TooManyGlobals {
        /// Globals there are.
        defined: usize,
        /// Globals allowed.
        allowed: usize,
    },
    /// A global of a reference type.
    GlobalType {
        /// Its index.
        global: usize,
        /// Its type.
        ty: String,
    },
    /// Too many functions.
    TooManyFunctions {
        /// Functions there are.
        defined: usize,
        /// Functions allowed.
        allowed: usize,
    },
    /// Too many tables.
    TooManyTables {
        /// Tables there are.
        defined: usize,
        /// Tables allowed.
        allowed: usize,
    },
    /// A table that starts too large.
    TableTooLarge {
        /// Its index.
        table: usize,
        /// Its elements.
        elements: u64,
        /// Elements allowed.
        allowed: u64,
    },
    /// A 64-bit memory that starts too large.
    MemoryTooLarge {
        /// Its pages.
        pages: u64,
        /// Pages allowed.
        allowed: u64,
    },
    /// A function of too many operators.
    FunctionTooLarge {
        /// Its index among defined functions.
        function: usize,
        /// Its operators.
        size: usize,
        /// Operators allowed.
        allowed: usize,
    },
    /// A function that is too hard to compile.
    FunctionTooComplex {
        /// Its index among defined functions.
        function: usize,
        /// Its complexity.
        complexity: u64,
        /// Complexity allowed.
        allowed: u64,
    },
    /// An operator that canisters may not use.
    UnsupportedOperator {
        /// Index of the function among defined functions.
        function: usize,
        /// The operator.
        operator: &'static str,
        /// Where in the module.
        offset: usize,
    },
    /// A custom section `icp:...` without `public` or `private`.
    MetadataScope {
        /// Its name.
        section: String,
    },
    /// A custom section `icp:public` or `icp:private` without a space after it.
    MetadataSpace {
        /// Its name.
        section: String,
    },
    /// Two `icp:` sections of one name.
    MetadataDuplicate {
        /// The name.
        name: String,
    },
    /// The `icp:` sections are too large together.
    MetadataTooLarge {
        /// Their bytes, and those of their names.
        size: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// Too many `icp:` sections.
    TooManyMetadata {
        /// Sections there are.
        defined: usize,
        /// Sections allowed.
        allowed: usize,
    },
    /// Something valid that this node cannot compile yet.
    NotSupportedYet {
        /// What.
        what: String,
        /// Where in the module.
        offset: usize,
    },
}

/// The part of a function type that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignaturePart {
    /// Parameters.
    Params,
    /// Results.
    Results,
}

impl From<wasmparser::Error> for ModuleError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid { message: error.message().to_owned(), offset: error.offset() }
    }
}

impl std::error::Error for ModuleError {}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat
            | Self::GzipTooShort
            | Self::Gzip { .. }
            | Self::GzipSize { .. }
            | Self::ModuleTooLarge { .. }
            | Self::CodeSectionTooLarge { .. }
            | Self::Invalid { .. }
            | Self::NotSupportedYet { .. } => self.fmt_bytes(f),
            Self::UnknownImport { .. }
            | Self::ImportModule { .. }
            | Self::ImportNotIn64Bit { .. }
            | Self::ImportKind { .. }
            | Self::Signature { .. }
            | Self::ReservedExport { .. }
            | Self::ReservedPrefix { .. }
            | Self::DuplicateMethod { .. }
            | Self::TooManyMethods { .. }
            | Self::MethodNamesTooLong { .. } => self.fmt_interface(f),
            Self::MetadataScope { .. }
            | Self::MetadataSpace { .. }
            | Self::MetadataDuplicate { .. }
            | Self::MetadataTooLarge { .. }
            | Self::TooManyMetadata { .. } => self.fmt_metadata(f),
            _ => self.fmt_content(f),
        }
    }
}

impl ModuleError {
    fn fmt_bytes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECODE: &str = "Failed to decode wasm module:";
        match self {
            Self::UnknownFormat => write!(f, "{DECODE} unsupported canister module format"),
            Self::GzipTooShort => write!(f, "{DECODE} invalid Wasm module: gzip stream is too short"),
            Self::Gzip { message } => write!(f, "{DECODE} failed to decode compressed Wasm module: {message}"),
            Self::GzipSize { stated, actual } => {
                write!(f, "{DECODE} specified uncompressed size {stated} does not match extracted size {actual}")
            }
            Self::ModuleTooLarge { size, allowed } => {
                write!(f, "Wasm module size of {size} exceeds the maximum allowed size of {allowed}.")
            }
            Self::CodeSectionTooLarge { size, allowed } => {
                write!(f, "Wasm module code section size of {size} exceeds the maximum allowed size of {allowed}.")
            }
            Self::Invalid { message, offset } => {
                write!(f, "Failed to validate wasm module: {message} (at offset {offset:#x})")
            }
            Self::NotSupportedYet { what, offset } => {
                write!(f, "Wasm module cannot be compiled: not supported yet: {what} (at offset {offset:#x})")
            }
            _ => Ok(()),
        }
    }

    fn fmt_interface(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const IMPORT: &str = "Wasm module has an invalid import section.";
        const EXPORT: &str = "Wasm module has an invalid export section.";
        const METHODS: &str = "`canister_update <name>`, `canister_query <name>`, or `canister_composite_query <name>`";
        match self {
            Self::UnknownImport { module, name } => write!(
                f,
                "{IMPORT} Module imports function '{name}' from '{module}' that is not exported by the runtime."
            ),
            Self::ImportModule { module, name } => write!(
                f,
                "{IMPORT} Module imports function \"{name}\" from \"{module}\", expected to be imported from one of \
                 [\"ic0\"] instead."
            ),
            Self::ImportNotIn64Bit { name } => write!(
                f,
                "{IMPORT} Module imports function '{name}' from 'ic0' that is not exported by the runtime to modules \
                 with a 64-bit memory."
            ),
            Self::ImportKind { what, module, name } => {
                write!(f, "{IMPORT} Importing a {what} is not allowed ('{name}' from '{module}').")
            }
            Self::Signature { name, part, expected, got } => {
                let part = match part {
                    SignaturePart::Params => "input params",
                    SignaturePart::Results => "return type",
                };
                write!(
                    f,
                    "Wasm module has an invalid function signature. Expected {part} {expected} for '{name}', got {got}."
                )
            }
            Self::ReservedExport { name } => write!(f, "{EXPORT} Exporting reserved symbol {name} not allowed."),
            Self::ReservedPrefix { name } => {
                write!(f, "{EXPORT} Exporting reserved function '{name}' with \"canister_\" prefix")
            }
            Self::DuplicateMethod { name } => write!(
                f,
                "Duplicate function '{name}' exported multiple times with different call types: update, query, or \
                 composite_query."
            ),
            Self::TooManyMethods { defined, allowed } => {
                write!(f, "The number of exported functions called {METHODS} is {defined} which exceeds {allowed}.")
            }
            Self::MethodNamesTooLong { total, allowed } => write!(
                f,
                "The sum of `<name>` lengths in exported functions called {METHODS} is {total} which exceeds the \
                 allowed limit of {allowed}."
            ),
            _ => Ok(()),
        }
    }

    fn fmt_metadata(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CUSTOM: &str = "Wasm module has an invalid custom section.";
        match self {
            Self::MetadataScope { section } => write!(
                f,
                "{CUSTOM} Invalid custom section: Custom section '{section}' has no public/private scope defined."
            ),
            Self::MetadataSpace { section } => write!(
                f,
                "{CUSTOM} 'icp:' section names must have a space after the public/private scope ('{section}')"
            ),
            Self::MetadataDuplicate { name } => {
                write!(f, "{CUSTOM} Invalid custom section: name {name} already exists")
            }
            Self::MetadataTooLarge { size, allowed } => write!(
                f,
                "{CUSTOM} Invalid custom sections: total size of the custom sections exceeds the maximum allowed: size \
                 {size} bytes, allowed {allowed} bytes"
            ),
            Self::TooManyMetadata { defined, allowed } => write!(
                f,
                "Wasm module defined {defined} custom sections which exceeds the maximum number allowed {allowed}."
            ),
            _ => Ok(()),
        }
    }

    fn fmt_content(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataOffset { segment, memory_bits, found } => write!(
                f,
                "Wasm module has an invalid data section. Invalid offset expression in data segment for \
                 {memory_bits}bit memory: {found} (segment {segment})"
            ),
            Self::DataBeyondMemory { segment, offset, len } => {
                write!(f, "Wasm module has invalid data segment of {len} bytes at {offset} (segment {segment})")
            }
            Self::ElementsBeyondTable { segment, offset, len } => {
                write!(f, "Wasm module has invalid element segment of {len} elements at {offset} (segment {segment})")
            }
            Self::TooManyGlobals { defined, allowed } => exceeds(f, *defined, "globals", *allowed),
            Self::TooManyFunctions { defined, allowed } => exceeds(f, *defined, "functions", *allowed),
            Self::TooManyTables { defined, allowed } => exceeds(f, *defined, "tables", *allowed),
            Self::GlobalType { global, ty } => {
                write!(f, "Wasm module has an invalid global section. Unsupported global type: {ty} (global {global})")
            }
            Self::TableTooLarge { table, elements, allowed } => write!(
                f,
                "Wasm module declares table {table} of {elements} elements which exceeds the maximum allowed number of \
                 {allowed}."
            ),
            Self::MemoryTooLarge { pages, allowed } => write!(
                f,
                "Wasm module declares an initial Wasm64 heap memory size of {pages} pages which exceeds the maximum \
                 allowed size of {allowed} pages."
            ),
            Self::FunctionTooLarge { function, size, allowed } => write!(
                f,
                "Wasm module contains a function at index {function} of size {size} that exceeds the maximum allowed \
                 size of {allowed}."
            ),
            Self::FunctionTooComplex { function, complexity, allowed } => write!(
                f,
                "Wasm module contains a function at index {function} with complexity {complexity} which exceeds the \
                 maximum complexity allowed {allowed}."
            ),
            Self::UnsupportedOperator { function, operator, offset } => write!(
                f,
                "Wasm module contains a function at index {function} with unsupported instruction {operator} (at offset \
                 {offset:#x})."
            ),
            _ => Ok(()),
        }
    }
}

fn exceeds(f: &mut fmt::Formatter<'_>, defined: usize, what: &str, allowed: usize) -> fmt::Result {
    write!(f, "Wasm module defined {defined} {what} which exceeds the maximum number allowed {allowed}.")
}
