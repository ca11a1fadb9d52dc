//! Tables and references.
//!
//! Enters: indexes and references. Leaves: accesses to table elements, calls of the runtime for the rest. Never here: calls through a table.

use super::LowerError;
use super::func::{Region, Translator};
use super::trampolines::Libcall;
use crate::abi::{TableView, TrapCode, table_view_offset};
use crate::calls::Bulk;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use std::mem::offset_of;
use wasmparser::Operator;

impl Translator<'_, '_> {
    fn view(&self, table: u32, field: usize) -> i32 {
        table_view_offset(self.env.module.globals.len() as u32, table) + field as i32
    }

    fn is_table64(&self, table: u32) -> Result<bool, LowerError> {
        match self.env.module.tables.get(table as usize) {
            Some(table) => Ok(table.table64),
            None => Err(self.malformed("unknown table")),
        }
    }

    /// The current number of elements, 64 bits; a constant where it cannot change.
    fn table_len(&mut self, table: u32) -> Value {
        let info = self.env.module.tables[table as usize];
        if !self.env.table_grows[table as usize] {
            return self.b.ins().iconst(types::I64, info.min as i64);
        }
        let flags = self.trusted(Region::Table);
        let at = self.view(table, offset_of!(TableView, len));
        self.b.ins().load(types::I64, flags, self.vmctx, at)
    }

    /// The address of element `index`, which traps if there is none.
    fn element_address(&mut self, table: u32, index: Value) -> Result<Value, LowerError> {
        self.is_table64(table)?;
        let len = self.table_len(table);
        let index = self.wide(index);
        let beyond = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, len);
        self.trap_if(beyond, TrapCode::TableOutOfBounds);
        let mut flags = self.trusted(Region::Table);
        if !self.env.table_grows[table as usize] {
            flags = flags.with_readonly().with_can_move();
        }
        let at = self.view(table, offset_of!(TableView, elements));
        let elements = self.b.ins().load(types::I64, flags, self.vmctx, at);
        let shift = self.b.ins().iconst(types::I32, 3);
        let scaled = self.b.ins().ishl(index, shift);
        Ok(self.b.ins().iadd(elements, scaled))
    }

    /// Element `index` of `table`.
    pub fn table_element(&mut self, table: u32, index: Value) -> Result<Value, LowerError> {
        let at = self.element_address(table, index)?;
        let flags = self.trusted(Region::Table);
        Ok(self.b.ins().load(types::I64, flags, at, 0))
    }

    /// Operators on tables and references.
    pub fn table_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        match op {
            Operator::RefNull { .. } => {
                let null = self.b.ins().iconst(types::I64, 0);
                self.push(null);
            }
            Operator::RefIsNull => {
                let value = self.pop()?;
                let zero = self.b.ins().iconst(types::I64, 0);
                let is_null = self.b.ins().icmp(IntCC::Equal, value, zero);
                let is_null = self.b.ins().uextend(types::I32, is_null);
                self.push(is_null);
            }
            Operator::TableGet { table } => {
                let index = self.pop()?;
                let value = self.table_element(*table, index)?;
                self.push(value);
            }
            Operator::TableSet { table } => self.table_set(*table)?,
            Operator::TableSize { table } => {
                let wide = self.is_table64(*table)?;
                let len = self.table_len(*table);
                let len = self.narrow(len, wide);
                self.push(len);
            }
            Operator::TableGrow { table } => self.table_grow(*table)?,
            Operator::TableFill { table } => self.table_fill(*table)?,
            Operator::TableCopy { dst_table, src_table } => self.table_copy(*dst_table, *src_table)?,
            Operator::TableInit { elem_index, table } => self.table_init(*table, *elem_index)?,
            Operator::ElemDrop { elem_index } => {
                let segment = self.b.ins().iconst(types::I32, i64::from(*elem_index));
                self.libcall(Libcall::ElemDrop, &[segment])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn table_set(&mut self, table: u32) -> Result<(), LowerError> {
        let value = self.pop()?;
        let index = self.pop()?;
        let at = self.element_address(table, index)?;
        let flags = self.trusted(Region::Table);
        self.b.ins().store(flags, value, at, 0);
        let written = self.b.ins().iconst(types::I64, 1);
        let at = self.view(table, offset_of!(TableView, written));
        let vmctx = self.vmctx;
        self.b.ins().store(flags, written, vmctx, at);
        Ok(())
    }

    fn table_grow(&mut self, table: u32) -> Result<(), LowerError> {
        let wide = self.is_table64(table)?;
        let delta = self.pop()?;
        let init = self.pop()?;
        let delta = self.wide(delta);
        let index = self.b.ins().iconst(types::I32, i64::from(table));
        let previous = self.libcall(Libcall::TableGrow, &[index, init, delta])?;
        let previous = self.narrow(previous, wide);
        self.push(previous);
        Ok(())
    }

    fn table_fill(&mut self, table: u32) -> Result<(), LowerError> {
        let len = self.pop()?;
        let value = self.pop()?;
        let start = self.pop()?;
        self.meter_bulk(Bulk::TableFill, len)?;
        let (start, len) = (self.wide(start), self.wide(len));
        let index = self.b.ins().iconst(types::I32, i64::from(table));
        self.libcall(Libcall::TableFill, &[index, start, value, len])?;
        Ok(())
    }

    fn table_copy(&mut self, to_table: u32, from_table: u32) -> Result<(), LowerError> {
        let len = self.pop()?;
        let from = self.pop()?;
        let to = self.pop()?;
        self.meter_bulk(Bulk::TableCopy, len)?;
        let (to, from, len) = (self.wide(to), self.wide(from), self.wide(len));
        let tables = self.b.ins().iconst(types::I64, i64::from(to_table) << 32 | i64::from(from_table));
        self.libcall(Libcall::TableCopy, &[tables, to, from, len])?;
        Ok(())
    }

    fn table_init(&mut self, table: u32, segment: u32) -> Result<(), LowerError> {
        let len = self.pop()?;
        let from = self.pop()?;
        let to = self.pop()?;
        self.meter_bulk(Bulk::TableInit, len)?;
        let to = self.wide(to);
        let which = self.b.ins().iconst(types::I64, i64::from(table) << 32 | i64::from(segment));
        self.libcall(Libcall::TableInit, &[which, to, from, len])?;
        Ok(())
    }
}
