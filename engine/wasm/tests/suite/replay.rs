//! Several calls as one message.
//!
//! The engine starts every message with tables and passive segments as in a new instance, as the replica does; scripts of the
//! test suite write tables in one invocation and look in the next. For modules that write tables or drop segments the runner
//! therefore appends a function that makes all calls so far and then the one in question, and runs it in a new instance.

use std::convert::Infallible;

use cyclotron_wasm::decode::DecodedModule;
use cyclotron_wasm::runtime::Value;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, Module, TypeSection,
};
use wasmparser::{Parser, ValType};

/// A call that was made: function index and arguments.
pub type Call = (u32, Vec<Value>);

/// Name of the appended export.
pub const REPLAY: &str = "__replay";

/// `wasm` with a function [`REPLAY`] that makes these calls and returns what the last one does; it takes all their arguments.
pub fn append(wasm: &[u8], module: &DecodedModule<'_>, calls: &[Call]) -> Vec<u8> {
    let types = calls.iter().map(|(function, _)| module.function_type(*function));
    let params: Vec<ValType> = types.flat_map(|ty| ty.params().to_vec()).collect();
    let (last, _) = calls.last().expect("a call");
    let results = module.function_type(*last).results().to_vec();
    let mut body = Vec::new();
    let mut param = 0;
    for (at, (function, args)) in calls.iter().enumerate() {
        for _ in args {
            body.push(Instruction::LocalGet(param));
            param += 1;
        }
        body.push(Instruction::Call(*function));
        if at + 1 < calls.len() {
            body.extend(module.function_type(*function).results().iter().map(|_| Instruction::Drop));
        }
    }
    body.push(Instruction::End);
    let mut append = Append {
        type_index: module.types.len() as u32,
        function: (module.imports.len() + module.functions.len()) as u32,
        params,
        results,
        body,
    };
    let mut out = Module::new();
    append.parse_core_module(&mut out, Parser::new(0), wasm).expect("a valid module is re-encoded");
    out.finish()
}

struct Append {
    type_index: u32,
    function: u32,
    params: Vec<ValType>,
    results: Vec<ValType>,
    body: Vec<Instruction<'static>>,
}

type Result<T = ()> = std::result::Result<T, reencode::Error<Infallible>>;

impl Reencode for Append {
    type Error = Infallible;

    fn parse_type_section(&mut self, types: &mut TypeSection, section: wasmparser::TypeSectionReader<'_>) -> Result {
        reencode::utils::parse_type_section(self, types, section)?;
        let params = self.params.clone().into_iter().map(|ty| self.val_type(ty)).collect::<Result<Vec<_>>>()?;
        let results = self.results.clone().into_iter().map(|ty| self.val_type(ty)).collect::<Result<Vec<_>>>()?;
        types.ty().function(params, results);
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result {
        reencode::utils::parse_function_section(self, functions, section)?;
        functions.function(self.type_index);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result {
        reencode::utils::parse_export_section(self, exports, section)?;
        exports.export(REPLAY, ExportKind::Func, self.function);
        Ok(())
    }

    fn parse_code_section(&mut self, code: &mut CodeSection, section: wasmparser::CodeSectionReader<'_>) -> Result {
        reencode::utils::parse_code_section(self, code, section)?;
        let mut function = Function::new([]);
        for instruction in &self.body {
            function.instruction(instruction);
        }
        code.function(&function);
        Ok(())
    }
}
