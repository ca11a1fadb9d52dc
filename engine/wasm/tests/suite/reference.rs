//! The reference meter: the charging rule by rewriting the module, as the replica does it.
//!
//! Slow and plain on purpose, and apart from `lower`: it adds a counter in an exported global, takes each segment's cost from it
//! where the segment begins, and traps where the rule checks. Whatever runs the result (here wasmtime) leaves in the counter what a
//! message of the original module must be charged, also on a trap. The rule is written in `cyclotron_wasm::meter`; weights come
//! from the table by operator name.

use std::collections::HashMap;
use std::convert::Infallible;

use cyclotron_types::imports::MemoryKind;
use cyclotron_types::weights::{FUNCTION_ENTRY, OPERATOR_WEIGHTS};
use cyclotron_wasm::decode::DecodedModule;
use cyclotron_wasm::meter::operator_name;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ExportKind, ExportSection, Function, GlobalSection, GlobalType, Instruction,
    Module, SectionId, ValType,
};
use wasmparser::{FunctionBody, Operator, Parser};

/// Name of the exported counter: instructions left.
pub const COUNTER: &str = "__counter";
/// Name of the exported flag: 1 once a check has found the counter negative.
pub const EXHAUSTED: &str = "__exhausted";

/// `wasm`, which decodes to `module`, with the meter built in.
pub fn instrument(wasm: &[u8], module: &DecodedModule<'_>) -> Vec<u8> {
    let weights = OPERATOR_WEIGHTS
        .iter()
        .flat_map(|row| {
            let weight = match module.memory_kind {
                MemoryKind::Wasm32 => row.wasm32.0,
                MemoryKind::Wasm64 => row.wasm64.0,
            };
            row.operators.iter().map(move |name| (*name, weight))
        })
        .collect();
    let mut meter = Meter {
        weights,
        module,
        counter: module.globals.len() as u32,
        next_body: 0,
        globals_done: false,
        exports_done: false,
    };
    let mut out = Module::new();
    meter.parse_core_module(&mut out, Parser::new(0), wasm).expect("a valid module is re-encoded");
    out.finish()
}

struct Meter<'a> {
    weights: HashMap<&'static str, u64>,
    module: &'a DecodedModule<'a>,
    counter: u32,
    next_body: usize,
    globals_done: bool,
    exports_done: bool,
}

type Result<T = ()> = std::result::Result<T, reencode::Error<Infallible>>;

/// What happens before an operator.
#[derive(Clone, Copy, Default)]
struct Before {
    /// Charge this much.
    charge: u64,
    /// Then check.
    check: bool,
}

fn ends_segment(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        Loop { .. }
            | If { .. }
            | Else
            | End
            | Br { .. }
            | BrIf { .. }
            | BrTable { .. }
            | Return
            | Unreachable
            | ReturnCall { .. }
            | ReturnCallIndirect { .. }
    )
}

impl Meter<'_> {
    fn plan(&self, operators: &[Operator<'_>]) -> Vec<Before> {
        let mut plan = vec![Before::default(); operators.len() + 1];
        let mut start = 0;
        plan[0] = Before { charge: FUNCTION_ENTRY.0, check: true };
        for (at, operator) in operators.iter().enumerate() {
            plan[start].charge += self.weights[operator_name(operator)];
            if ends_segment(operator) {
                start = at + 1;
                plan[start].check = matches!(operator, Operator::Loop { .. });
            }
        }
        plan
    }

    fn charge(&self, out: &mut Function, before: Before) {
        let Before { charge, check } = before;
        if charge > 0 {
            out.instruction(&Instruction::GlobalGet(self.counter));
            out.instruction(&Instruction::I64Const(charge as i64));
            out.instruction(&Instruction::I64Sub);
            out.instruction(&Instruction::GlobalSet(self.counter));
        }
        if check {
            self.check(out);
        }
    }

    fn check(&self, out: &mut Function) {
        for instruction in [
            Instruction::GlobalGet(self.counter),
            Instruction::I64Const(0),
            Instruction::I64LtS,
            Instruction::If(BlockType::Empty),
            Instruction::I32Const(1),
            Instruction::GlobalSet(self.counter + 1),
            Instruction::Unreachable,
            Instruction::End,
        ] {
            out.instruction(&instruction);
        }
    }

    /// Charges the length on top of the stack, saturating, and leaves it there.
    fn charge_length(&self, out: &mut Function, is_64: bool, length: u32, left: u32) {
        if is_64 {
            out.instruction(&Instruction::LocalSet(length));
        } else {
            out.instruction(&Instruction::I64ExtendI32U);
            out.instruction(&Instruction::LocalSet(length));
        }
        for instruction in [
            Instruction::GlobalGet(self.counter),
            Instruction::LocalGet(length),
            Instruction::I64Sub,
            Instruction::LocalSet(left),
            // More left than before: it wrapped.
            Instruction::I64Const(i64::MIN),
            Instruction::LocalGet(left),
            Instruction::LocalGet(left),
            Instruction::GlobalGet(self.counter),
            Instruction::I64GtS,
            Instruction::Select,
            Instruction::GlobalSet(self.counter),
        ] {
            out.instruction(&instruction);
        }
        self.check(out);
        out.instruction(&Instruction::LocalGet(length));
        if !is_64 {
            out.instruction(&Instruction::I32WrapI64);
        }
    }

    /// For operators with a length: whether it is an `i64`.
    fn length_is_64(&self, operator: &Operator<'_>) -> Option<bool> {
        let table64 = |table: u32| self.module.tables[table as usize].table64;
        let memory64 = self.module.memory.is_some_and(|memory| memory.memory64);
        Some(match operator {
            Operator::MemoryFill { .. } | Operator::MemoryCopy { .. } => memory64,
            Operator::TableFill { table } => table64(*table),
            // The length of a copy is as wide as the narrower index.
            Operator::TableCopy { dst_table, src_table } => table64(*dst_table) && table64(*src_table),
            Operator::MemoryInit { .. } | Operator::TableInit { .. } => false,
            _ => return None,
        })
    }

    fn add_globals(&mut self, globals: &mut GlobalSection) {
        self.globals_done = true;
        let ty = |val_type| GlobalType { val_type, mutable: true, shared: false };
        globals.global(ty(ValType::I64), &ConstExpr::i64_const(0));
        globals.global(ty(ValType::I32), &ConstExpr::i32_const(0));
    }

    fn add_exports(&mut self, exports: &mut ExportSection) {
        self.exports_done = true;
        exports.export(COUNTER, ExportKind::Global, self.counter);
        exports.export(EXHAUSTED, ExportKind::Global, self.counter + 1);
    }
}

impl Reencode for Meter<'_> {
    type Error = Infallible;

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: wasmparser::GlobalSectionReader<'_>,
    ) -> Result {
        reencode::utils::parse_global_section(self, globals, section)?;
        self.add_globals(globals);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result {
        reencode::utils::parse_export_section(self, exports, section)?;
        self.add_exports(exports);
        Ok(())
    }

    /// Sections that the module lacks are put where they belong.
    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result {
        let order = |id: SectionId| match id {
            SectionId::Type | SectionId::Import | SectionId::Function | SectionId::Table | SectionId::Memory => 0,
            SectionId::Tag | SectionId::Global => 1,
            SectionId::Export => 2,
            _ => 3,
        };
        let before = before.map_or(3, order);
        if before > 1 && !self.globals_done {
            let mut globals = GlobalSection::new();
            self.add_globals(&mut globals);
            module.section(&globals);
        }
        if before > 2 && !self.exports_done {
            let mut exports = ExportSection::new();
            self.add_exports(&mut exports);
            module.section(&exports);
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result {
        let defined = self.next_body;
        self.next_body += 1;
        let params = self.module.function_type((self.module.imports.len() + defined) as u32).params().len() as u32;
        let mut locals = Vec::new();
        let mut scratch = params;
        for pair in body.get_locals_reader()? {
            let (count, ty) = pair?;
            scratch += count;
            locals.push((count, self.val_type(ty)?));
        }
        locals.push((2, ValType::I64));
        let operators: Vec<Operator<'_>> =
            body.get_operators_reader()?.into_iter().collect::<std::result::Result<_, _>>()?;
        let plan = self.plan(&operators);
        let mut out = Function::new(locals);
        for (operator, before) in operators.into_iter().zip(plan) {
            self.charge(&mut out, before);
            if let Some(is_64) = self.length_is_64(&operator) {
                self.charge_length(&mut out, is_64, scratch, scratch + 1);
            }
            out.instruction(&self.instruction(operator)?);
        }
        code.function(&out);
        Ok(())
    }
}
