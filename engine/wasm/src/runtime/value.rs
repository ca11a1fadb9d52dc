//! Values that cross the border between Rust and Wasm.
//!
//! Enters and leaves: [`Value`]. Never here: an address of this process in a value that may be stored.

use std::fmt;

/// Type of a Wasm value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 128-bit vector.
    V128,
    /// Reference to a function of the same module.
    FuncRef,
    /// Opaque reference of the host.
    ExternRef,
}

impl ValType {
    /// Places of eight bytes that a value takes among the arguments of a host call.
    pub const fn arg_slots(self) -> usize {
        match self {
            ValType::V128 => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for ValType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValType::I32 => "i32",
            ValType::I64 => "i64",
            ValType::F32 => "f32",
            ValType::F64 => "f64",
            ValType::V128 => "v128",
            ValType::FuncRef => "funcref",
            ValType::ExternRef => "externref",
        })
    }
}

/// A Wasm value. Floats are bit patterns, so that NaNs compare and travel unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
    /// Bits of a vector, lane 0 lowest.
    V128(u128),
    /// A function index of the module, or null.
    FuncRef(Option<u32>),
    /// A number that means something to the host, or null.
    ExternRef(Option<u32>),
}

impl Value {
    /// The value's type.
    pub const fn ty(self) -> ValType {
        match self {
            Value::I32(_) => ValType::I32,
            Value::I64(_) => ValType::I64,
            Value::F32(_) => ValType::F32,
            Value::F64(_) => ValType::F64,
            Value::V128(_) => ValType::V128,
            Value::FuncRef(_) => ValType::FuncRef,
            Value::ExternRef(_) => ValType::ExternRef,
        }
    }

    /// The value that a global or local of this type starts with.
    pub const fn zero(ty: ValType) -> Value {
        match ty {
            ValType::I32 => Value::I32(0),
            ValType::I64 => Value::I64(0),
            ValType::F32 => Value::F32(0),
            ValType::F64 => Value::F64(0),
            ValType::V128 => Value::V128(0),
            ValType::FuncRef => Value::FuncRef(None),
            ValType::ExternRef => Value::ExternRef(None),
        }
    }
}

/// The word that stands for an external reference in compiled code; null is 0.
pub(crate) const fn extern_word(reference: Option<u32>) -> u64 {
    match reference {
        None => 0,
        Some(number) => number as u64 + 1,
    }
}

/// The reference that a word of compiled code stands for.
pub(crate) const fn extern_reference(word: u64) -> Option<u32> {
    match word.checked_sub(1) {
        None => None,
        Some(number) => Some(number as u32),
    }
}
