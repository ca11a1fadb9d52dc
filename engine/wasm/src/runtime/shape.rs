//! What the runtime must know of a module besides its code: plain data, filled from the decoder's result.
//!
//! Enters: nothing. Leaves: [`ModuleShape`]. Never here: validation; every index in here has been checked.

use std::collections::BTreeMap;

use cyclotron_types::module_limits::ModuleLimits;

use super::value::ValType;
use crate::decode::{
    ConstExpr, DecodedModule, EntryPoints, ExportKind, FunctionImport, Global, Memory, SegmentMode, Table,
};

/// A function's parameters and results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuncType {
    /// Parameter types.
    pub params: Vec<ValType>,
    /// Result types.
    pub results: Vec<ValType>,
}

/// An imported function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedFunction {
    /// Which function it is for the host.
    pub host: HostFn,
    /// Places of eight bytes that its arguments take.
    pub arg_slots: u32,
}

/// Which function a host is asked to perform: for canisters an [`Ic0`](cyclotron_types::imports::Ic0) as a number, under rules with given
/// imports the index of the module's import ([`ModuleShape::import_names`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostFn(pub u32);

/// The module's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShape {
    /// Whether addresses are 64-bit.
    pub is_64: bool,
    /// Size at instantiation, in Wasm pages.
    pub min_pages: u64,
    /// Largest size that both the module and the engine allow, in Wasm pages.
    pub max_pages: u64,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// [`ValType::FuncRef`] or [`ValType::ExternRef`].
    pub ty: ValType,
    /// Size at instantiation.
    pub min: u64,
    /// Largest size that both the module and the engine allow.
    pub max: u64,
    /// What elements start as.
    pub init: ConstExpr,
}

/// A global.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalShape {
    /// Its type.
    pub ty: ValType,
    /// Whether `global.set` may change it.
    pub mutable: bool,
    /// Its first value.
    pub init: ConstExpr,
}

/// A data segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSegment {
    /// Where it goes.
    pub mode: SegmentMode,
    /// Its bytes.
    pub bytes: Box<[u8]>,
}

/// An export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What it names.
    pub kind: ExportKind,
    /// Index of that.
    pub index: u32,
}

/// A module without its code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleShape {
    /// Function types as declared.
    pub types: Vec<FuncType>,
    /// For each type the first type equal to it: what `call_indirect` compares.
    pub canonical_types: Vec<u32>,
    /// Type index of every function, imports first.
    pub functions: Vec<u32>,
    /// Imported functions.
    pub imports: Vec<ImportedFunction>,
    /// Module and field names of the imported functions.
    pub import_names: Vec<(String, String)>,
    /// The memory, if there is one.
    pub memory: Option<MemoryShape>,
    /// Tables.
    pub tables: Vec<TableShape>,
    /// Globals.
    pub globals: Vec<GlobalShape>,
    /// Exports in the module's order.
    pub exports: Vec<Export>,
    /// The exports through which the Internet Computer enters.
    pub entry_points: EntryPoints,
    /// Custom sections `icp:public <name>` and `icp:private <name>`: whether public, and the content.
    pub metadata: BTreeMap<String, (bool, Vec<u8>)>,
    /// The start function.
    pub start: Option<u32>,
    /// Where element segments go. Their elements are in the tables' images.
    pub elements: Vec<SegmentMode>,
    /// Data segments.
    pub data: Vec<DataSegment>,
    /// Function names of the name section, sorted by function index.
    pub names: Vec<(u32, String)>,
}

impl ModuleShape {
    /// Name of a function, if the name section has one.
    pub fn function_name(&self, function: u32) -> Option<&str> {
        let at = self.names.binary_search_by_key(&function, |(index, _)| *index).ok()?;
        self.names.get(at).map(|(_, name)| name.as_str())
    }

    /// Type of a function.
    pub fn function_type(&self, function: u32) -> Option<&FuncType> {
        self.types.get(*self.functions.get(function as usize)? as usize)
    }

    /// The export of this name.
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|export| export.name == name)
    }

    /// Bytes that this takes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let types = self.types.iter().map(|ty| size_of_val(ty) + size_of_val(&*ty.params) + size_of_val(&*ty.results));
        let imports = self.import_names.iter().map(|names| size_of_val(names) + names.0.len() + names.1.len());
        let exports = self.exports.iter().map(|export| size_of_val(export) + export.name.len());
        let methods = self.entry_points.methods.iter().map(|(name, entry)| size_of_val(entry) + name.len());
        let metadata = self.metadata.iter().map(|(name, entry)| size_of_val(entry) + name.len() + entry.1.len());
        let data = self.data.iter().map(|segment| size_of_val(segment) + segment.bytes.len());
        let names = self.names.iter().map(|entry| size_of_val(entry) + entry.1.len());
        let lists = types.chain(imports).chain(exports).chain(methods).chain(metadata).chain(data).chain(names);
        lists.sum::<usize>()
            + size_of_val(&*self.canonical_types)
            + size_of_val(&*self.functions)
            + size_of_val(&*self.imports)
            + size_of_val(&*self.globals)
            + size_of_val(&*self.elements)
    }

    /// The owned part of a decoded module. Limits cap what the module itself leaves open.
    pub(crate) fn of(decoded: &DecodedModule<'_>, limits: &ModuleLimits) -> ModuleShape {
        let types: Vec<FuncType> = decoded.types.iter().map(func_type).collect();
        let imported = decoded.imports.iter().map(|import| import.type_index);
        ModuleShape {
            canonical_types: canonical(&types),
            functions: imported.chain(decoded.functions.iter().copied()).collect(),
            imports: decoded
                .imports
                .iter()
                .enumerate()
                .map(|(at, import)| imported_function(&types, at, import))
                .collect(),
            import_names: decoded.imports.iter().map(|i| (i.module.to_owned(), i.name.to_owned())).collect(),
            memory: decoded.memory.map(|memory| memory_shape(&memory, limits)),
            tables: decoded.tables.iter().map(|table| table_shape(table, limits)).collect(),
            globals: decoded.globals.iter().map(global_shape).collect(),
            exports: decoded
                .exports
                .iter()
                .map(|export| Export { name: export.name.to_owned(), kind: export.kind, index: export.index })
                .collect(),
            entry_points: decoded.entry_points.clone(),
            metadata: decoded
                .metadata
                .iter()
                .map(|(name, metadata)| ((*name).to_owned(), (metadata.public, metadata.content.to_owned())))
                .collect(),
            start: decoded.start,
            elements: decoded.elements.iter().map(|segment| segment.mode).collect(),
            data: decoded
                .data
                .iter()
                .map(|segment| DataSegment { mode: segment.mode, bytes: segment.bytes.into() })
                .collect(),
            names: decoded.function_names.iter().map(|(index, name)| (*index, (*name).to_owned())).collect(),
            types,
        }
    }
}

fn val_type(ty: wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(ty) => ref_type(ty),
    }
}

/// Validation lets function and external references through, nothing else.
fn ref_type(ty: wasmparser::RefType) -> ValType {
    if ty.is_extern_ref() { ValType::ExternRef } else { ValType::FuncRef }
}

fn func_type(ty: &wasmparser::FuncType) -> FuncType {
    FuncType {
        params: ty.params().iter().copied().map(val_type).collect(),
        results: ty.results().iter().copied().map(val_type).collect(),
    }
}

fn canonical(types: &[FuncType]) -> Vec<u32> {
    let mut first = BTreeMap::new();
    types.iter().zip(0u32..).map(|(ty, at)| *first.entry((&ty.params, &ty.results)).or_insert(at)).collect()
}

fn imported_function(types: &[FuncType], at: usize, import: &FunctionImport<'_>) -> ImportedFunction {
    let params = types.get(import.type_index as usize).map_or(&[][..], |ty| &ty.params);
    ImportedFunction {
        host: HostFn(import.ic0.map_or(at as u32, |ic0| ic0 as u32)),
        arg_slots: params.iter().map(|ty| ty.arg_slots() as u32).sum(),
    }
}

fn memory_shape(memory: &Memory, limits: &ModuleLimits) -> MemoryShape {
    let limit = if memory.memory64 { limits.heap_wasm64.0 } else { limits.heap_wasm32.0 };
    let max_pages = memory.maximum.map_or(limit, |maximum| maximum.min(limit));
    MemoryShape { is_64: memory.memory64, min_pages: memory.initial, max_pages }
}

fn table_shape(table: &Table, limits: &ModuleLimits) -> TableShape {
    let max = table.maximum.map_or(limits.table_elements, |maximum| maximum.min(limits.table_elements));
    TableShape { ty: ref_type(table.element), min: table.initial, max, init: table.init }
}

fn global_shape(global: &Global) -> GlobalShape {
    GlobalShape { ty: val_type(global.ty), mutable: global.mutable, init: global.init }
}
