//! Rules for globals, functions, tables, memory, segments and custom sections.

use cyclotron_types::imports::MemoryKind;
use cyclotron_types::module_limits::ModuleLimits;
use cyclotron_types::units::WasmPages;
use wasmparser::ValType;

use super::ModuleError;
use crate::decode::{ConstExpr, DecodedModule, Metadata, SegmentMode};

/// Active data segments start at a constant of the memory's address type.
pub(super) fn check_data_offsets(module: &DecodedModule<'_>) -> Result<(), ModuleError> {
    for (segment, data) in module.data.iter().enumerate() {
        let SegmentMode::Active { offset, .. } = data.mode else { continue };
        let memory_bits = match (module.memory_kind, offset) {
            (MemoryKind::Wasm32, ConstExpr::I32(_)) | (MemoryKind::Wasm64, ConstExpr::I64(_)) => continue,
            (MemoryKind::Wasm32, _) => 32,
            (MemoryKind::Wasm64, _) => 64,
        };
        return Err(ModuleError::DataOffset { segment, memory_bits, found: format!("{offset:?}") });
    }
    Ok(())
}

/// Globals are few, and of number or vector type: reference values cannot outlive a message.
pub(super) fn check_globals(module: &DecodedModule<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
    let defined = module.globals.len();
    if defined > limits.globals {
        return Err(ModuleError::TooManyGlobals { defined, allowed: limits.globals });
    }
    for (global, facts) in module.globals.iter().enumerate() {
        if let ValType::Ref(ty) = facts.ty {
            return Err(ModuleError::GlobalType { global, ty: ty.to_string() });
        }
    }
    Ok(())
}

/// Functions, tables and pages within limits. A 32-bit memory cannot declare more than it can address.
pub(super) fn check_counts(module: &DecodedModule<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
    let defined = module.functions.len();
    if defined > limits.functions {
        return Err(ModuleError::TooManyFunctions { defined, allowed: limits.functions });
    }
    if let Some(memory) = module.memory {
        let allowed = limits.heap_wasm64.0;
        if memory.memory64 && memory.initial > allowed {
            return Err(ModuleError::MemoryTooLarge { pages: memory.initial, allowed });
        }
    }
    let defined = module.tables.len();
    if defined > limits.tables {
        return Err(ModuleError::TooManyTables { defined, allowed: limits.tables });
    }
    for (table, facts) in module.tables.iter().enumerate() {
        let allowed = limits.table_elements;
        if facts.initial > allowed {
            return Err(ModuleError::TableTooLarge { table, elements: facts.initial, allowed });
        }
    }
    Ok(())
}

/// Functions are small and simple enough, and use only operators that canisters may.
pub(super) fn check_code(module: &DecodedModule<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
    for (function, facts) in module.code.iter().enumerate() {
        if let Some((operator, offset)) = facts.unsupported {
            return Err(ModuleError::UnsupportedOperator { function, operator, offset });
        }
        if facts.complexity > limits.function_complexity {
            let (complexity, allowed) = (facts.complexity, limits.function_complexity);
            return Err(ModuleError::FunctionTooComplex { function, complexity, allowed });
        }
        if facts.operators > limits.function_operators {
            let (size, allowed) = (facts.operators, limits.function_operators);
            return Err(ModuleError::FunctionTooLarge { function, size, allowed });
        }
    }
    Ok(())
}

/// Collects the `icp:` sections.
pub(super) fn check_metadata(module: &mut DecodedModule<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
    let mut size = 0;
    for &(section, content) in &module.custom_sections {
        let Some((name, public)) = metadata_name(section)? else { continue };
        if module.metadata.contains_key(name) {
            return Err(ModuleError::MetadataDuplicate { name: name.to_owned() });
        }
        size += (content.len() + name.len()) as u64;
        let allowed = limits.custom_section_bytes.0;
        if size > allowed {
            return Err(ModuleError::MetadataTooLarge { size, allowed });
        }
        module.metadata.insert(name, Metadata { public, content });
        let (defined, allowed) = (module.metadata.len(), limits.custom_sections);
        if defined > allowed {
            return Err(ModuleError::TooManyMetadata { defined, allowed });
        }
    }
    Ok(())
}

/// The name that an `icp:` section publishes its content under, and whether everyone may read it.
fn metadata_name(section: &str) -> Result<Option<(&str, bool)>, ModuleError> {
    let Some(scoped) = section.strip_prefix("icp:") else { return Ok(None) };
    if let Some(name) = scoped.strip_prefix("public ") {
        return Ok(Some((name, true)));
    }
    if let Some(name) = scoped.strip_prefix("private ") {
        return Ok(Some((name, false)));
    }
    let section = section.to_owned();
    Err(match scoped {
        "public" | "private" => ModuleError::MetadataSpace { section },
        _ => ModuleError::MetadataScope { section },
    })
}

/// Active segments lie within what the memory and the table start with: a canister could not be instantiated otherwise.
pub(super) fn check_segments_fit(module: &DecodedModule<'_>) -> Result<(), ModuleError> {
    let memory_bytes = module.memory.map_or(0, |memory| WasmPages(memory.initial).to_bytes().0);
    for (segment, data) in module.data.iter().enumerate() {
        let SegmentMode::Active { offset, .. } = data.mode else { continue };
        let (offset, len) = (address(offset), data.bytes.len() as u64);
        if offset.checked_add(len).is_none_or(|end| end > memory_bytes) {
            return Err(ModuleError::DataBeyondMemory { segment, offset, len });
        }
    }
    for (segment, elements) in module.elements.iter().enumerate() {
        let SegmentMode::Active { table, offset } = elements.mode else { continue };
        let initial = module.tables.get(table as usize).map_or(0, |t| t.initial);
        let (offset, len) = (address(offset), u64::from(elements.len));
        if offset.checked_add(len).is_none_or(|end| end > initial) {
            return Err(ModuleError::ElementsBeyondTable { segment, offset, len });
        }
    }
    Ok(())
}

/// An offset expression as an unsigned number. Canisters have no imported globals, so it is a constant.
fn address(offset: ConstExpr) -> u64 {
    match offset {
        ConstExpr::I32(value) => u64::from(value.cast_unsigned()),
        ConstExpr::I64(value) => value.cast_unsigned(),
        _ => u64::MAX,
    }
}
