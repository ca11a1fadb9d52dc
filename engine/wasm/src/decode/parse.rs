//! One pass over the module: parse every section, validate everything.
//!
//! Enters: uncompressed bytes. Leaves: a [`DecodedModule`] without entry points and metadata (`validate` adds them).
//! Never here: what canisters may do.

use std::collections::BTreeMap;

use cyclotron_types::imports::MemoryKind;
use rayon::prelude::*;
use wasmparser::{
    DataKind, ElementItems, ElementKind, Encoding, ExternalKind, FuncToValidate, FuncValidator,
    FuncValidatorAllocations, FunctionBody, KnownCustom, Name, NameSectionReader, Operator, OperatorsReader, Parser,
    Payload, TableInit, TypeRef, ValidPayload, Validator, ValidatorResources,
};

use super::{
    CodeFacts, ConstExpr, DataSegment, DecodedModule, ElementSegment, EntryPoints, Export, ExportKind, FunctionImport,
    Global, Memory, SegmentMode, Table,
};
use crate::validate::{Given, ImportRules, ModuleError, Rules, complexity};

/// A function body together with what its validation needs.
type Pending<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);

pub(super) fn parse<'a>(wasm: &'a [u8], rules: &Rules) -> Result<DecodedModule<'a>, ModuleError> {
    let mut validator = Validator::new_with_features(rules.features);
    let mut module = empty(wasm);
    let mut pending: Vec<Pending<'a>> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => pending.push((function, body)),
            ValidPayload::Ok | ValidPayload::End(_) | ValidPayload::Parser(_) => {}
        }
        section(&mut module, payload, rules)?;
    }
    module.memory_kind = match module.memory {
        Some(memory) if memory.memory64 => MemoryKind::Wasm64,
        _ => MemoryKind::Wasm32,
    };
    module.bodies = pending.iter().map(|(_, body)| body.clone()).collect();
    module.code = validate_functions(pending)?;
    Ok(module)
}

fn empty(wasm: &[u8]) -> DecodedModule<'_> {
    DecodedModule {
        wasm,
        memory_kind: MemoryKind::Wasm32,
        types: Vec::new(),
        imports: Vec::new(),
        functions: Vec::new(),
        bodies: Vec::new(),
        code: Vec::new(),
        tables: Vec::new(),
        memory: None,
        globals: Vec::new(),
        exports: Vec::new(),
        entry_points: EntryPoints::default(),
        start: None,
        elements: Vec::new(),
        data: Vec::new(),
        function_names: BTreeMap::new(),
        metadata: BTreeMap::new(),
        custom_sections: Vec::new(),
    }
}

/// Validates all bodies in parallel. The error is that of the first broken function, whichever thread saw it first.
fn validate_functions(pending: Vec<Pending<'_>>) -> Result<Vec<CodeFacts>, ModuleError> {
    let facts: Vec<Result<CodeFacts, ModuleError>> = pending
        .into_par_iter()
        .map_init(FuncValidatorAllocations::default, |allocations, (function, body)| {
            let mut validator = function.into_validator(std::mem::take(allocations));
            let mut reader = operators_after_locals(&mut validator, &body)?;
            let mut facts = CodeFacts::default();
            while !reader.eof() {
                let (operator, offset) = reader.read_with_offset()?;
                validator.op(offset, &operator)?;
                facts.operators += 1;
                facts.complexity += complexity::of(&operator);
                if let (None, Some(name)) = (facts.unsupported, complexity::unsupported(&operator)) {
                    facts.unsupported = Some((name, offset));
                }
            }
            reader.finish()?;
            *allocations = validator.into_allocations();
            Ok(facts)
        })
        .collect();
    facts.into_iter().collect()
}

/// Reads the locals into the validator and leaves a reader at the first operator.
fn operators_after_locals<'a>(
    validator: &mut FuncValidator<ValidatorResources>,
    body: &FunctionBody<'a>,
) -> Result<OperatorsReader<'a>, ModuleError> {
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    reader.set_features(*validator.features());
    Ok(OperatorsReader::new(reader))
}

fn section<'a>(module: &mut DecodedModule<'a>, payload: Payload<'a>, rules: &Rules) -> Result<(), ModuleError> {
    match payload {
        Payload::Version { encoding, range, .. } if encoding != Encoding::Module => {
            let message = "components are not modules".to_owned();
            return Err(ModuleError::Invalid { message, offset: range.start });
        }
        Payload::TypeSection(reader) => {
            for ty in reader.into_iter_err_on_gc_types() {
                module.types.push(ty?);
            }
        }
        Payload::ImportSection(reader) => {
            for import in reader.into_imports() {
                self::import(module, import?, rules)?;
            }
        }
        Payload::FunctionSection(reader) => {
            for type_index in reader {
                module.functions.push(type_index?);
            }
        }
        Payload::TableSection(reader) => {
            for table in reader {
                let table = table?;
                let init = match table.init {
                    TableInit::RefNull => ConstExpr::RefNull,
                    TableInit::Expr(expr) => const_expr(&expr)?,
                };
                module.tables.push(table_of(&table.ty, init));
            }
        }
        Payload::MemorySection(reader) => {
            for memory in reader {
                module.memory = Some(memory_of(&memory?));
            }
        }
        Payload::GlobalSection(reader) => {
            for global in reader {
                let global = global?;
                let init = const_expr(&global.init_expr)?;
                module.globals.push(Global { ty: global.ty.content_type, mutable: global.ty.mutable, init });
            }
        }
        Payload::ExportSection(reader) => {
            for export in reader {
                let export = export?;
                let kind = match export.kind {
                    ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Function,
                    ExternalKind::Table => ExportKind::Table,
                    ExternalKind::Memory => ExportKind::Memory,
                    ExternalKind::Global => ExportKind::Global,
                    ExternalKind::Tag => return Err(unexpected("an exported tag")),
                };
                module.exports.push(Export { name: export.name, kind, index: export.index });
            }
        }
        Payload::StartSection { func, .. } => module.start = Some(func),
        Payload::ElementSection(reader) => {
            for element in reader {
                module.elements.push(element_segment(element?)?);
            }
        }
        Payload::DataSection(reader) => {
            for data in reader {
                let data = data?;
                let mode = match data.kind {
                    DataKind::Passive => SegmentMode::Passive,
                    DataKind::Active { offset_expr, .. } => {
                        SegmentMode::Active { table: 0, offset: const_expr(&offset_expr)? }
                    }
                };
                module.data.push(DataSegment { mode, bytes: data.data });
            }
        }
        Payload::CustomSection(reader) => {
            // One more than allowed, for the rules to see.
            if reader.name().starts_with("icp:") && module.custom_sections.len() <= rules.limits.custom_sections {
                module.custom_sections.push((reader.name(), reader.data()));
            }
            if let KnownCustom::Name(names) = reader.as_known() {
                let functions = module.imports.len() + module.functions.len();
                function_names(names, functions, &mut module.function_names);
            }
        }
        _ => {}
    }
    Ok(())
}

fn import<'a>(
    module: &mut DecodedModule<'a>,
    import: wasmparser::Import<'a>,
    rules: &Rules,
) -> Result<(), ModuleError> {
    let (TypeRef::Func(type_index) | TypeRef::FuncExact(type_index)) = import.ty else {
        return given_import(module, import, rules);
    };
    module.imports.push(FunctionImport { module: import.module, name: import.name, type_index, ic0: None });
    Ok(())
}

/// Imports other than functions become definitions of the module's own, with the given content.
fn given_import(
    module: &mut DecodedModule<'_>,
    import: wasmparser::Import<'_>,
    rules: &Rules,
) -> Result<(), ModuleError> {
    let what = match import.ty {
        TypeRef::Table(_) => "table",
        TypeRef::Memory(_) => "memory",
        TypeRef::Global(_) => "global",
        TypeRef::Tag(_) | TypeRef::Func(_) | TypeRef::FuncExact(_) => "tag",
    };
    let refused = || ModuleError::ImportKind { what, module: import.module.to_owned(), name: import.name.to_owned() };
    let ImportRules::Given(given) = &rules.imports else { return Err(refused()) };
    match (import.ty, given.get(&(import.module.to_owned(), import.name.to_owned()))) {
        (TypeRef::Global(ty), Some(&Given::Global { ty: given_ty, value }))
            if ty.content_type == given_ty && !ty.mutable =>
        {
            module.globals.push(Global { ty: given_ty, mutable: false, init: value });
        }
        (TypeRef::Memory(ty), Some(&Given::Memory(memory)))
            if limits_fit((memory.initial, memory.maximum), (ty.initial, ty.maximum))
                && ty.memory64 == memory.memory64 =>
        {
            module.memory = Some(memory);
        }
        (TypeRef::Table(ty), Some(&Given::Table(table)))
            if limits_fit((table.initial, table.maximum), (ty.initial, ty.maximum))
                && ty.element_type == table.element
                && ty.table64 == table.table64 =>
        {
            module.tables.push(table);
        }
        _ => return Err(refused()),
    }
    Ok(())
}

/// Whether something with limits `given` may stand for an import that asks for `wanted`.
fn limits_fit(given: (u64, Option<u64>), wanted: (u64, Option<u64>)) -> bool {
    given.0 >= wanted.0
        && match (given.1, wanted.1) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(given), Some(wanted)) => given <= wanted,
        }
}

fn table_of(ty: &wasmparser::TableType, init: ConstExpr) -> Table {
    Table { element: ty.element_type, initial: ty.initial, maximum: ty.maximum, table64: ty.table64, init }
}

fn memory_of(ty: &wasmparser::MemoryType) -> Memory {
    Memory { memory64: ty.memory64, initial: ty.initial, maximum: ty.maximum }
}

fn element_segment(element: wasmparser::Element<'_>) -> Result<ElementSegment<'_>, ModuleError> {
    let mode = match element.kind {
        ElementKind::Passive => SegmentMode::Passive,
        ElementKind::Declared => SegmentMode::Declared,
        ElementKind::Active { table_index, offset_expr } => {
            SegmentMode::Active { table: table_index.unwrap_or(0), offset: const_expr(&offset_expr)? }
        }
    };
    let ty = match &element.items {
        ElementItems::Functions(_) => wasmparser::RefType::FUNCREF,
        ElementItems::Expressions(ty, _) => *ty,
    };
    let mut len = 0;
    for item in element_items(&element.items) {
        item?;
        len += 1;
    }
    Ok(ElementSegment { mode, element: ty, len, items: element.items })
}

/// Reads the elements of a segment, one after the other.
pub(super) fn element_items(items: &ElementItems<'_>) -> impl Iterator<Item = Result<ConstExpr, ModuleError>> {
    let (functions, expressions) = match items {
        ElementItems::Functions(reader) => (Some(reader.clone()), None),
        ElementItems::Expressions(_, reader) => (None, Some(reader.clone())),
    };
    let functions = functions.into_iter().flatten().map(|function| Ok(ConstExpr::RefFunc(function?)));
    functions.chain(expressions.into_iter().flatten().map(|expr| const_expr(&expr?)))
}

fn const_expr(expr: &wasmparser::ConstExpr<'_>) -> Result<ConstExpr, ModuleError> {
    let mut reader = expr.get_operators_reader();
    let value = match reader.read()? {
        Operator::I32Const { value } => ConstExpr::I32(value),
        Operator::I64Const { value } => ConstExpr::I64(value),
        Operator::F32Const { value } => ConstExpr::F32(value.bits()),
        Operator::F64Const { value } => ConstExpr::F64(value.bits()),
        Operator::V128Const { value } => ConstExpr::V128(u128::from_le_bytes(*value.bytes())),
        Operator::RefNull { .. } => ConstExpr::RefNull,
        Operator::RefFunc { function_index } => ConstExpr::RefFunc(function_index),
        Operator::GlobalGet { global_index } => ConstExpr::GlobalGet(global_index),
        _ => return Err(unexpected("an operator in a constant expression")),
    };
    match reader.read()? {
        Operator::End => Ok(value),
        _ => Err(unexpected("a second operator in a constant expression")),
    }
}

/// Something that validation under our features cannot let through; were it to, this says so instead of guessing.
fn unexpected(what: &str) -> ModuleError {
    ModuleError::Invalid { message: format!("{what} is not supported"), offset: 0 }
}

/// Names that can be read are kept; a broken `name` section is no reason to refuse a module, nor is one for functions that there are not.
fn function_names<'a>(names: NameSectionReader<'a>, functions: usize, out: &mut BTreeMap<u32, &'a str>) {
    for name in names {
        let Ok(name) = name else { return };
        if let Name::Function(map) = name {
            for naming in map {
                let Ok(naming) = naming else { return };
                if (naming.index as usize) < functions {
                    out.insert(naming.index, naming.name);
                }
            }
        }
    }
}
