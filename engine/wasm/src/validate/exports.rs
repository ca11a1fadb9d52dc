//! Rules for exports, and the entry points found among them.

use cyclotron_types::module_limits::ModuleLimits;
use wasmparser::FuncType;

use super::{ModuleError, imports::check_signature};
use crate::decode::{DecodedModule, EntryPoints, ExportKind, MethodKind, SystemMethod};

/// Names that the replica's instrumentation exports itself (dfinity/ic `validation.rs`, `RESERVED_SYMBOLS`).
pub const RESERVED_EXPORTS: [&str; 6] = [
    "canister counter_instructions",
    "canister_start",
    "canister counter_dirty_pages",
    "canister counter_accessed_pages",
    "stable_memory",
    "stable_bytemap_memory",
];

const METHOD_PREFIXES: [(&str, MethodKind); 3] = [
    ("canister_query ", MethodKind::Query),
    ("canister_composite_query ", MethodKind::CompositeQuery),
    ("canister_update ", MethodKind::Update),
];

/// Checks every export and fills in the module's entry points.
pub(super) fn check(module: &mut DecodedModule<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
    let entry_type = FuncType::new([], []);
    let mut entry_points = EntryPoints::default();
    let mut names = 0;
    for export in &module.exports {
        if RESERVED_EXPORTS.contains(&export.name) {
            return Err(ModuleError::ReservedExport { name: export.name.to_owned() });
        }
        if export.kind != ExportKind::Function {
            continue;
        }
        let method = METHOD_PREFIXES.iter().find_map(|(prefix, kind)| Some((export.name.strip_prefix(prefix)?, *kind)));
        if let Some((name, kind)) = method {
            let previous = entry_points.methods.insert(name.to_owned(), (kind, export.index));
            if previous.is_some() {
                return Err(ModuleError::DuplicateMethod { name: name.to_owned() });
            }
            names += name.len();
        } else if export.name.starts_with("canister_") {
            let Some(system) = SystemMethod::ALL.into_iter().find(|m| m.export_name() == export.name) else {
                return Err(ModuleError::ReservedPrefix { name: export.name.to_owned() });
            };
            entry_points.system.insert(system, export.index);
        } else {
            continue;
        }
        check_signature(export.name, &entry_type, module.function_type(export.index))?;
    }
    let defined = entry_points.methods.len();
    if defined > limits.methods {
        return Err(ModuleError::TooManyMethods { defined, allowed: limits.methods });
    }
    if names > limits.method_names {
        return Err(ModuleError::MethodNamesTooLong { total: names, allowed: limits.method_names });
    }
    module.entry_points = entry_points;
    Ok(())
}
