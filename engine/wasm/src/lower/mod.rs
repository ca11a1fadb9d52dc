//! From a decoded, validated module to machine code.
//!
//! Enters: [`ModuleInfo`], the weights of operators, a [`Config`]. Leaves: a [`CompiledModule`], the same bytes whatever the number
//! of threads. Never here: validation (an invalid body gives an error or nonsense, never a crash), executable memory, host calls.
//!
//! One pass over each body builds Cranelift IR (`func`, with the operators by group in `control`, `numeric`, `memory`, `simd`, `calls`,
//! `tables`); a quick scan before it (`scan`) finds the cost of every metering segment and which locals each loop leaves alone.
//! `meter` and `cards` decide what instrumentation costs; `trampolines` makes the ways in and out; `link` puts it together.

mod calls;
mod cards;
mod control;
mod func;
mod isa;
mod link;
mod locations;
mod memory;
mod meter;
mod numeric;
mod scan;
mod simd;
mod tables;
#[cfg(test)]
mod tests;
mod trampolines;
mod types;
mod x64;

use crate::compiled::CompiledModule;
use cranelift_codegen::isa::OwnedTargetIsa;
use wasmparser::{FuncType, FunctionBody, Operator, ValType};

/// How first writes to a page are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tracking {
    /// A test of the page's card before stores.
    Cards,
    /// Page protection: compiled code does nothing.
    Protect,
    /// Not at all.
    None,
}

/// What code to make. Part of the identity of compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Whether instructions are counted and limited.
    pub metering: bool,
    /// How first writes are noticed.
    pub tracking: Tracking,
    /// Run Cranelift's verifier over every function: slow, for tests.
    pub verify: bool,
    /// Whether compiled code says which function it enters and leaves, for [`crate::calls`]: slow, and never in a node. Only where instructions
    /// are counted.
    pub calls: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { metering: true, tracking: Tracking::Cards, verify: cfg!(test), calls: false }
    }
}

/// The weight of each operator, in instructions.
pub trait OperatorCost: Sync {
    /// Static cost of `op` in this module (weights depend on the memory's index type).
    fn cost(&self, op: &Operator<'_>) -> u32;

    /// What entering a function costs besides, charged with its first segment.
    fn function_entry(&self) -> u32 {
        1
    }
}

/// A constant that initialises a global.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// `i32.const`
    I32(i32),
    /// `i64.const`
    I64(i64),
    /// `f32.const`, its bits
    F32(u32),
    /// `f64.const`, its bits
    F64(u64),
    /// `v128.const`
    V128(u128),
    /// `ref.null`
    Null,
    /// `ref.func`
    Func(u32),
}

/// A global variable.
#[derive(Clone, Copy, Debug)]
pub struct GlobalInfo {
    /// Its type.
    pub ty: ValType,
    /// Whether `global.set` is allowed.
    pub mutable: bool,
    /// Its initial value, where it is a plain constant: reads of an immutable global then become that constant.
    pub init: Option<Constant>,
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct TableInfo {
    /// Whether indexes are 64-bit.
    pub table64: bool,
    /// Initial number of elements.
    pub min: u64,
    /// Largest number of elements.
    pub max: Option<u64>,
    /// Whether code outside this module may change its size.
    pub shared: bool,
}

/// The memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryInfo {
    /// Whether indexes are 64-bit.
    pub memory64: bool,
    /// Initial size in Wasm pages.
    pub min: u64,
    /// Largest size in Wasm pages.
    pub max: Option<u64>,
}

/// What lowering needs to know of a validated module.
#[derive(Clone, Debug, Default)]
pub struct ModuleInfo<'a> {
    /// Function types by type index.
    pub types: Vec<FuncType>,
    /// Type index of every function, imported ones first.
    pub functions: Vec<u32>,
    /// How many functions are imported.
    pub imported_functions: u32,
    /// Globals by index. None is imported.
    pub globals: Vec<GlobalInfo>,
    /// Tables by index. None is imported.
    pub tables: Vec<TableInfo>,
    /// The memory, if there is one.
    pub memory: Option<MemoryInfo>,
    /// Bodies of the defined functions, in order.
    pub bodies: Vec<FunctionBody<'a>>,
}

/// Why a module could not be lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LowerError {
    /// An operator that this engine does not accept.
    Unsupported {
        /// Name of the operator.
        operator: String,
        /// Where it is in the module.
        offset: usize,
    },
    /// Bytes that a validated module does not contain.
    Malformed {
        /// What is wrong.
        message: String,
        /// Where it is in the module.
        offset: usize,
    },
    /// Cranelift refused a function: too large for its limits.
    Codegen {
        /// Function index.
        function: u32,
        /// What it said.
        message: String,
    },
    /// The code of all functions together exceeds what a relative call reaches.
    ModuleTooLarge {
        /// Bytes of code.
        bytes: usize,
    },
    /// This machine cannot run the code: a processor feature of the baseline is missing.
    Host {
        /// What is missing.
        message: String,
    },
}

impl std::fmt::Display for LowerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported { operator, offset } => {
                write!(f, "operator {operator} at offset {offset:#x} is not supported")
            }
            Self::Malformed { message, offset } => write!(f, "{message} at offset {offset:#x}"),
            Self::Codegen { function, message } => write!(f, "function {function}: {message}"),
            Self::ModuleTooLarge { bytes } => write!(f, "machine code of {bytes} bytes is too large"),
            Self::Host { message } => write!(f, "this processor cannot run compiled code: {message}"),
        }
    }
}

impl std::error::Error for LowerError {}

impl From<wasmparser::BinaryReaderError> for LowerError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed { message: error.message().to_string(), offset: error.offset() }
    }
}

/// Makes machine code for this machine. Cheap to share, expensive to make.
pub struct Compiler {
    isa: OwnedTargetIsa,
    /// The same target without optimization, for functions whose frame is too large with it.
    plain_isa: OwnedTargetIsa,
    config: Config,
}

impl Compiler {
    /// A compiler for the processor it runs on.
    ///
    /// Errors: the processor lacks a feature of the baseline.
    pub fn new(config: Config) -> Result<Self, LowerError> {
        let isa = isa::host_isa(&config, "speed")?;
        Ok(Self { isa, plain_isa: isa::host_isa(&config, "none")?, config })
    }

    /// The configuration that it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The processor's features and the settings that code is made with, as text: another text, other code.
    pub fn target(&self) -> String {
        let mut text = format!("{} {}", self.isa.name(), self.isa.triple());
        for isa in [&self.isa, &self.plain_isa] {
            text.push_str(&isa.flags().to_string());
            for flag in isa.isa_flags() {
                text.push_str(&format!("{flag}\n"));
            }
        }
        text
    }

    /// Whether card tests may be made for rewriting.
    fn stubs(&self) -> bool {
        self.isa.name() == "x64"
    }

    /// Lowers `module` on the current rayon pool.
    ///
    /// Cost: about a second per 3 MB of Wasm and core.
    pub fn lower(&self, module: &ModuleInfo<'_>, costs: &dyn OperatorCost) -> Result<CompiledModule, LowerError> {
        link::lower_module(self, module, costs)
    }
}

/// For each type index, the smallest index of an equal type: what [`crate::abi::FuncRef::type_id`] holds.
pub fn canonical_types(types: &[FuncType]) -> Vec<u32> {
    let mut first = std::collections::BTreeMap::new();
    types
        .iter()
        .enumerate()
        .map(|(index, ty)| *first.entry((ty.params(), ty.results())).or_insert(index as u32))
        .collect()
}
