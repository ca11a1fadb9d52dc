//! Calls.
//!
//! Enters: callees and arguments. Leaves: calls in the Wasm convention. Never here: the host.

use super::LowerError;
use super::func::{NAMESPACE_WASM, Region, Translator, clif_trap};
use super::trampolines::Libcall;
use crate::abi::{FuncRef, TrapCode, VmCtx};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Inst, InstBuilder, Value, types};
use std::mem::{offset_of, size_of};
use wasmparser::Operator;

impl Translator<'_, '_> {
    /// Calls, direct and indirect.
    pub fn call_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        match op {
            Operator::Call { function_index } => self.call(*function_index)?,
            Operator::CallIndirect { type_index, table_index } => self.call_indirect(*type_index, *table_index)?,
            Operator::ReturnCall { function_index } => self.return_call(*function_index)?,
            Operator::ReturnCallIndirect { type_index, table_index } => {
                self.return_call_indirect(*type_index, *table_index)?;
            }
            Operator::RefFunc { function_index } => {
                let value = self.function_reference(*function_index);
                self.push(value);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The address of a function's `FuncRef`.
    pub fn function_reference(&mut self, function: u32) -> Value {
        let flags = self.trusted(Region::Context).with_readonly().with_can_move();
        let all = self.b.ins().load(types::I64, flags, self.vmctx, offset_of!(VmCtx, func_refs) as i32);
        let at = self.b.ins().iconst(types::I64, i64::from(function) * size_of::<FuncRef>() as i64);
        self.b.ins().iadd(all, at)
    }

    /// The machine arguments of a call: the context, what is left of the stack, and the operands.
    fn arguments(&mut self, ty: u32, stack_left: Value) -> Result<Vec<Value>, LowerError> {
        let Some(ty) = self.env.module.types.get(ty as usize) else {
            return Err(self.malformed("unknown type"));
        };
        let values = self.pop_many(ty.params().len())?;
        let mut all = Vec::with_capacity(values.len() + 2);
        all.push(self.vmctx);
        all.push(stack_left);
        all.extend(values);
        Ok(all)
    }

    fn push_results(&mut self, call: Inst) {
        for value in self.b.inst_results(call).to_vec() {
            self.push(value);
        }
    }

    fn call(&mut self, function: u32) -> Result<(), LowerError> {
        let Some(&ty) = self.env.module.functions.get(function as usize) else {
            return Err(self.malformed("unknown function"));
        };
        let arguments = self.arguments(ty, self.stack_below)?;
        let callee = self.import(NAMESPACE_WASM, function, |t| t.signature(ty))?;
        self.meter_flush();
        let call = self.b.ins().call(callee, &arguments);
        self.push_results(call);
        Ok(())
    }

    /// The callee takes this frame's place, so it gets what this function was given of the stack.
    fn return_call(&mut self, function: u32) -> Result<(), LowerError> {
        let Some(&ty) = self.env.module.functions.get(function as usize) else {
            return Err(self.malformed("unknown function"));
        };
        let arguments = self.arguments(ty, self.stack_left)?;
        let callee = self.import(NAMESPACE_WASM, function, |t| t.signature(ty))?;
        self.call_ends()?;
        self.b.ins().return_call(callee, &arguments);
        self.live = false;
        Ok(())
    }

    fn call_indirect(&mut self, ty: u32, table: u32) -> Result<(), LowerError> {
        let index = self.pop()?;
        let arguments = self.arguments(ty, self.stack_below)?;
        let signature = self.signature(ty)?;
        self.meter_flush();
        let code = self.indirect_callee(ty, table, index)?;
        let call = self.b.ins().call_indirect(signature, code, &arguments);
        self.push_results(call);
        Ok(())
    }

    fn return_call_indirect(&mut self, ty: u32, table: u32) -> Result<(), LowerError> {
        let index = self.pop()?;
        let arguments = self.arguments(ty, self.stack_left)?;
        let signature = self.signature(ty)?;
        self.meter_flush();
        let code = self.indirect_callee(ty, table, index)?;
        self.call_ends()?;
        self.b.ins().return_call_indirect(signature, code, &arguments);
        self.live = false;
        Ok(())
    }

    /// Reports, where calls are to be told apart, that `function` begins.
    pub fn call_begins(&mut self, function: u32) -> Result<(), LowerError> {
        if self.reports_calls() {
            let function = self.b.ins().iconst(types::I32, i64::from(function));
            self.libcall(Libcall::CallBegins, &[function])?;
        }
        Ok(())
    }

    /// Settles what is charged so far, and reports, where calls are to be told apart, that the function entered last ends.
    pub fn call_ends(&mut self) -> Result<(), LowerError> {
        self.meter_flush();
        if self.reports_calls() {
            self.libcall(Libcall::CallEnds, &[])?;
        }
        Ok(())
    }

    fn reports_calls(&self) -> bool {
        self.env.config.calls && self.env.config.metering
    }

    /// The code behind an element of a table, which must be a function of this type.
    fn indirect_callee(&mut self, ty: u32, table: u32, index: Value) -> Result<Value, LowerError> {
        let entry = self.table_element(table, index)?;
        // The load from a null reference faults at address 8, which is the null check.
        let flags = self.guarded(Region::Table, clif_trap(TrapCode::IndirectCallToNull)).with_readonly();
        let found = self.b.ins().load(types::I32, flags, entry, offset_of!(FuncRef, type_id) as i32);
        let wanted = self.b.ins().iconst(types::I32, i64::from(self.env.type_ids[ty as usize]));
        let differs = self.b.ins().icmp(IntCC::NotEqual, found, wanted);
        self.trap_if(differs, TrapCode::BadSignature);
        let flags = self.trusted(Region::Table).with_readonly();
        Ok(self.b.ins().load(types::I64, flags, entry, offset_of!(FuncRef, code) as i32))
    }
}
