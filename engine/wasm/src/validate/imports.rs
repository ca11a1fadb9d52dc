//! Rules for imports.

use std::collections::BTreeMap;

use cyclotron_types::imports::{IC0_MODULE, Ic0, ImportScope, MemoryKind};
use wasmparser::{FuncType, ValType};

use super::{Given, ModuleError, error::SignaturePart, ic0_type};
use crate::decode::DecodedModule;

/// Canisters import functions of `ic0` only, each with the type that the module's memory calls for.
pub(super) fn check_ic0(module: &mut DecodedModule<'_>) -> Result<(), ModuleError> {
    let memory = module.memory_kind;
    for ix in 0..module.imports.len() {
        let import = module.imports[ix];
        let name = || import.name.to_owned();
        let from = || import.module.to_owned();
        let Some(ic0) = Ic0::from_name(import.name) else {
            return Err(ModuleError::UnknownImport { module: from(), name: name() });
        };
        if import.module != IC0_MODULE {
            return Err(ModuleError::ImportModule { module: from(), name: name() });
        }
        if memory == MemoryKind::Wasm64 && ic0.row().scope == ImportScope::Wasm32Only {
            return Err(ModuleError::ImportNotIn64Bit { name: name() });
        }
        let got = &module.types[import.type_index as usize];
        check_signature(import.name, &ic0_type(ic0, memory), got)?;
        module.imports[ix].ic0 = Some(ic0);
    }
    Ok(())
}

/// Other modules import the functions they are given.
pub(super) fn check_given(
    module: &DecodedModule<'_>,
    given: &BTreeMap<(String, String), Given>,
) -> Result<(), ModuleError> {
    for import in &module.imports {
        let key = (import.module.to_owned(), import.name.to_owned());
        let Some(Given::Function(expected)) = given.get(&key) else {
            return Err(ModuleError::UnknownImport { module: key.0, name: key.1 });
        };
        check_signature(import.name, expected, &module.types[import.type_index as usize])?;
    }
    Ok(())
}

/// Compares the type of an import or export with what it must be.
pub(super) fn check_signature(name: &str, expected: &FuncType, got: &FuncType) -> Result<(), ModuleError> {
    let differs = |part, expected: &[ValType], got: &[ValType]| ModuleError::Signature {
        name: name.to_owned(),
        part,
        expected: list(expected),
        got: list(got),
    };
    if got.params() != expected.params() {
        return Err(differs(SignaturePart::Params, expected.params(), got.params()));
    }
    if got.results() != expected.results() {
        return Err(differs(SignaturePart::Results, expected.results(), got.results()));
    }
    Ok(())
}

/// Types as the replica's texts show them: `[I32, I64]`.
fn list(types: &[ValType]) -> String {
    let names: Vec<String> = types
        .iter()
        .map(|ty| match ty {
            ValType::I32 => "I32".to_owned(),
            ValType::I64 => "I64".to_owned(),
            ValType::F32 => "F32".to_owned(),
            ValType::F64 => "F64".to_owned(),
            ValType::V128 => "V128".to_owned(),
            ValType::Ref(ty) => ty.to_string(),
        })
        .collect();
    format!("[{}]", names.join(", "))
}
