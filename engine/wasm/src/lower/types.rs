//! Wasm types as Cranelift types, and signatures.
//!
//! Enters: types. Leaves: types. Never here: values.

use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_codegen::isa::CallConv;
use wasmparser::{FuncType, ValType};

/// The convention of all compiled Wasm functions.
pub(super) const WASM_CONV: CallConv = CallConv::Tail;

/// The Cranelift type of a Wasm value. A vector travels as `I8X16`, a reference as an address.
pub(super) fn clif_type(ty: ValType) -> Type {
    match ty {
        ValType::I32 => types::I32,
        ValType::I64 | ValType::Ref(_) => types::I64,
        ValType::F32 => types::F32,
        ValType::F64 => types::F64,
        ValType::V128 => types::I8X16,
    }
}

/// Slots that a value of this type takes of the stack budget.
pub(super) fn slots_of(ty: Type) -> u32 {
    if ty.bytes() > 8 { 2 } else { 1 }
}

/// The signature of a compiled function of type `ty`.
pub(super) fn wasm_signature(ty: &FuncType) -> Signature {
    let mut signature = Signature::new(WASM_CONV);
    signature.params.push(AbiParam::new(types::I64));
    signature.params.push(AbiParam::new(types::I64));
    signature.params.extend(ty.params().iter().map(|ty| AbiParam::new(clif_type(*ty))));
    signature.returns.extend(ty.results().iter().map(|ty| AbiParam::new(clif_type(*ty))));
    signature
}

/// A C signature of the platform.
pub(super) fn c_signature(params: &[Type], returns: &[Type]) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.extend(params.iter().map(|ty| AbiParam::new(*ty)));
    signature.returns.extend(returns.iter().map(|ty| AbiParam::new(*ty)));
    signature
}
