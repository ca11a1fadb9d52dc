//! Structured control flow.
//!
//! Enters: blocks, loops, branches. Leaves: IR blocks whose parameters are the operands that cross. Never here: other operators.

use super::LowerError;
use super::func::Translator;
use super::types::clif_type;
use crate::abi::TrapCode;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, JumpTableData, Type, Value, types};
use wasmparser::{BlockType, BrTable, Operator};

/// What kind of construct a frame is.
#[derive(Clone, Debug)]
enum Kind {
    Function,
    Block,
    /// `loop`: the cost of its first segment.
    Loop(u32),
    /// `if`: where the condition's 0 goes while an `else` is expected, and the parameters to give it.
    If {
        otherwise: Option<(Block, Vec<Value>)>,
        pending: u32,
        facts: u64,
    },
    /// Opened in code that cannot be reached.
    Dead,
    /// The same, an `if`.
    DeadIf,
}

/// An open construct.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    kind: Kind,
    /// Target of branches to it; a block parameter per value that they carry.
    label: Block,
    /// Operands below its parameters.
    pub height: usize,
    /// Values that a branch to it carries.
    arity: usize,
    results: usize,
    used: bool,
    /// What is pending when its label is reached, once an edge has said so.
    pub pending: Option<u32>,
    /// The newest card fact that all branches to it share.
    pub facts: u64,
}

fn block_args(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|value| BlockArg::Value(*value)).collect()
}

impl Translator<'_, '_> {
    /// Operators of control flow in reachable code.
    pub fn control_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        match op {
            Operator::Unreachable => {
                self.trap_always(TrapCode::Unreachable);
                self.live = false;
            }
            Operator::Block { blockty } => self.enter_block(*blockty)?,
            Operator::Loop { blockty } => self.enter_loop(*blockty)?,
            Operator::If { blockty } => self.enter_if(*blockty)?,
            Operator::Else => self.begin_else()?,
            Operator::End => self.end()?,
            Operator::Br { relative_depth } => self.branch(*relative_depth)?,
            Operator::BrIf { relative_depth } => self.branch_if(*relative_depth)?,
            Operator::BrTable { targets } => self.branch_table(targets)?,
            Operator::Return => {
                let count = self.frames.first().map_or(0, |frame| frame.results);
                let values = self.pop_many(count)?;
                self.return_values(&values)?;
                self.live = false;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Follows the structure of code that cannot be reached. Returns whether `op` may stand there.
    pub fn dead_operator(&mut self, op: &Operator<'_>) -> Result<bool, LowerError> {
        match op {
            Operator::Block { .. } => self.push_dead(Kind::Dead),
            Operator::Loop { .. } => {
                self.loops_seen += 1;
                self.meter_loop();
                self.push_dead(Kind::Dead);
            }
            Operator::If { .. } => {
                self.ifs_seen += 1;
                self.push_dead(Kind::DeadIf);
            }
            Operator::Else => self.begin_else()?,
            Operator::End => self.end()?,
            _ => {}
        }
        Ok(true)
    }

    fn push_dead(&mut self, kind: Kind) {
        self.frames.push(Frame {
            kind,
            label: Block::from_u32(0),
            height: self.stack.len(),
            arity: 0,
            results: 0,
            used: false,
            pending: None,
            facts: u64::MAX,
        });
    }

    /// Opens the frame of the function itself; its label returns.
    pub fn push_function_frame(&mut self) {
        let results = self.function_results();
        let label = self.label_with(&results);
        self.frames.push(Frame {
            kind: Kind::Function,
            label,
            height: 0,
            arity: results.len(),
            results: results.len(),
            used: false,
            pending: None,
            facts: u64::MAX,
        });
    }

    fn label_with(&mut self, params: &[Type]) -> Block {
        let block = self.b.create_block();
        for ty in params {
            self.b.append_block_param(block, *ty);
        }
        block
    }

    /// Parameter and result types of a block.
    fn block_types(&self, ty: BlockType) -> Result<(Vec<Type>, Vec<Type>), LowerError> {
        Ok(match ty {
            BlockType::Empty => (Vec::new(), Vec::new()),
            BlockType::Type(ty) => (Vec::new(), vec![clif_type(ty)]),
            BlockType::FuncType(index) => {
                let Some(ty) = self.env.module.types.get(index as usize) else {
                    return Err(self.malformed("unknown type"));
                };
                (
                    ty.params().iter().map(|ty| clif_type(*ty)).collect(),
                    ty.results().iter().map(|ty| clif_type(*ty)).collect(),
                )
            }
        })
    }

    fn push_frame(
        &mut self,
        kind: Kind,
        label: Block,
        params: usize,
        arity: usize,
        results: usize,
    ) -> Result<(), LowerError> {
        let Some(height) = self.stack.len().checked_sub(params) else {
            return Err(self.malformed("operand stack underflow"));
        };
        self.frames.push(Frame { kind, label, height, arity, results, used: false, pending: None, facts: u64::MAX });
        Ok(())
    }

    fn enter_block(&mut self, ty: BlockType) -> Result<(), LowerError> {
        let (params, results) = self.block_types(ty)?;
        let label = self.label_with(&results);
        self.push_frame(Kind::Block, label, params.len(), results.len(), results.len())
    }

    fn enter_loop(&mut self, ty: BlockType) -> Result<(), LowerError> {
        let (params, results) = self.block_types(ty)?;
        let scan = self.scan;
        let invariant = scan.invariant.get(self.loops_seen).map_or(&[][..], |locals| locals);
        self.loops_seen += 1;
        // Locals that the loop leaves alone keep their values: no block parameters, and card facts about them stay true.
        let mut kept = Vec::with_capacity(invariant.len());
        for &local in invariant {
            let variable = self.local(local)?;
            kept.push((variable, self.b.use_var(variable)));
        }
        let values = self.pop_many(params.len())?;
        let header = self.label_with(&params);
        let cost = self.meter_loop();
        self.jump_to_loop(header, &block_args(&values), cost);
        self.b.switch_to_block(header);
        self.meter.resume(0);
        self.meter.at(self.offset);
        for (variable, value) in kept {
            self.b.def_var(variable, value);
        }
        for index in 0..params.len() {
            let value = self.b.block_params(header)[index];
            self.push(value);
        }
        self.push_frame(Kind::Loop(cost), header, params.len(), params.len(), results.len())
    }

    fn enter_if(&mut self, ty: BlockType) -> Result<(), LowerError> {
        let (params, results) = self.block_types(ty)?;
        let has_else = self.scan.has_else.get(self.ifs_seen).copied().unwrap_or(true);
        self.ifs_seen += 1;
        let condition = self.pop()?;
        let label = self.label_with(&results);
        let then = self.b.create_block();
        let values = self.top_many(params.len())?;
        let (pending, facts) = (self.meter.pending(), self.cards.newest());
        let otherwise = if has_else {
            let otherwise = self.b.create_block();
            self.b.ins().brif(condition, then, &[], otherwise, &[]);
            self.b.seal_block(otherwise);
            Some((otherwise, values))
        } else {
            self.b.ins().brif(condition, then, &[], label, &block_args(&values));
            None
        };
        self.b.seal_block(then);
        self.b.switch_to_block(then);
        let skips = otherwise.is_none();
        self.push_frame(Kind::If { otherwise, pending, facts }, label, params.len(), results.len(), results.len())?;
        if skips {
            let index = self.frames.len() - 1;
            self.note_branch(index);
            self.meter_branch(index);
        }
        Ok(())
    }

    /// A branch to frame `index` is about to be made.
    fn note_branch(&mut self, index: usize) {
        let facts = self.cards.newest();
        let frame = &mut self.frames[index];
        frame.used = true;
        frame.facts = frame.facts.min(facts);
    }

    fn begin_else(&mut self) -> Result<(), LowerError> {
        let index = self.frames.len().wrapping_sub(1);
        let Some(frame) = self.frames.last_mut() else {
            return Err(self.malformed("else without if"));
        };
        let (height, results) = (frame.height, frame.results);
        let Kind::If { otherwise, pending, facts } = &mut frame.kind else {
            // In code that cannot be reached there is nothing to do.
            return if matches!(frame.kind, Kind::DeadIf) { Ok(()) } else { Err(self.malformed("else without if")) };
        };
        let (Some((otherwise, params)), pending, facts) = (otherwise.take(), *pending, *facts) else {
            return Err(self.malformed("second else"));
        };
        if self.live {
            let values = self.pop_many(results)?;
            self.note_branch(index);
            self.meter_branch(index);
            let label = self.frames[index].label;
            self.b.ins().jump(label, &block_args(&values));
        }
        self.stack.truncate(height);
        self.b.switch_to_block(otherwise);
        self.live = true;
        self.meter.resume(pending);
        self.cards.forget_after(facts);
        for value in params {
            self.push(value);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), LowerError> {
        let index = self.frames.len().wrapping_sub(1);
        let Some(frame) = self.frames.last() else {
            return Err(self.malformed("end without block"));
        };
        let (label, results, height) = (frame.label, frame.results, frame.height);
        match frame.kind.clone() {
            Kind::Dead | Kind::DeadIf => {
                self.frames.pop();
                return Ok(());
            }
            Kind::Loop(_) => {
                self.b.seal_block(label);
                self.frames.pop();
                if !self.live {
                    self.stack.truncate(height);
                }
                return Ok(());
            }
            Kind::If { otherwise: Some(_), .. } => return Err(self.malformed("if without its else")),
            Kind::Function | Kind::Block | Kind::If { .. } => {}
        }
        if self.frames[index].used {
            if self.live {
                let values = self.pop_many(results)?;
                self.meter_branch(index);
                self.b.ins().jump(label, &block_args(&values));
            }
            self.b.seal_block(label);
            self.b.switch_to_block(label);
            self.live = true;
            self.stack.truncate(height);
            let (pending, facts) = (self.frames[index].pending, self.frames[index].facts);
            self.cards.forget_after(facts);
            if let Some(pending) = pending {
                self.meter.resume(pending);
            }
            for result in 0..results {
                let value = self.b.block_params(label)[result];
                self.push(value);
            }
        } else if !self.live {
            self.stack.truncate(height);
        }
        let is_function = index == 0;
        if is_function && self.live {
            let values = self.pop_many(results)?;
            self.return_values(&values)?;
            self.live = false;
        }
        self.frames.pop();
        Ok(())
    }

    fn return_values(&mut self, values: &[Value]) -> Result<(), LowerError> {
        self.call_ends()?;
        self.b.ins().return_(values);
        Ok(())
    }

    fn target(&self, depth: u32) -> Result<usize, LowerError> {
        self.frames.len().checked_sub(1 + depth as usize).ok_or_else(|| self.malformed("branch out of the function"))
    }

    fn branch(&mut self, depth: u32) -> Result<(), LowerError> {
        let index = self.target(depth)?;
        let values = self.pop_many(self.frames[index].arity)?;
        self.live = false;
        if index == 0 {
            self.return_values(&values)?;
            return Ok(());
        }
        self.jump_to_frame(index, &block_args(&values))
    }

    fn jump_to_frame(&mut self, index: usize, args: &[BlockArg]) -> Result<(), LowerError> {
        self.note_branch(index);
        let label = self.frames[index].label;
        if let Kind::Loop(cost) = self.frames[index].kind {
            self.jump_to_loop(label, args, cost);
            return Ok(());
        }
        self.meter_branch(index);
        self.b.ins().jump(label, args);
        Ok(())
    }

    fn branch_if(&mut self, depth: u32) -> Result<(), LowerError> {
        let index = self.target(depth)?;
        let condition = self.pop()?;
        let values = self.top_many(self.frames[index].arity)?;
        let next = self.b.create_block();
        if matches!(self.frames[index].kind, Kind::Loop(_)) {
            let edge = self.b.create_block();
            // What comes second is laid out first: the back edge falls through to its charge.
            let leaves = self.b.ins().icmp_imm_u(IntCC::Equal, condition, 0);
            self.b.ins().brif(leaves, next, &[], edge, &[]);
            self.b.switch_to_block(edge);
            self.b.seal_block(edge);
            self.jump_to_frame(index, &block_args(&values))?;
        } else {
            self.note_branch(index);
            self.meter_branch(index);
            let label = self.frames[index].label;
            self.b.ins().brif(condition, label, &block_args(&values), next, &[]);
        }
        self.b.seal_block(next);
        self.b.switch_to_block(next);
        Ok(())
    }

    fn branch_table(&mut self, table: &BrTable<'_>) -> Result<(), LowerError> {
        let mut depths = Vec::with_capacity(table.len() as usize + 1);
        for depth in table.targets() {
            depths.push(self.target(depth?)?);
        }
        depths.push(self.target(table.default())?);
        let selector = self.pop()?;
        let arity = self.frames[depths[depths.len() - 1]].arity;
        let values = self.pop_many(arity)?;
        let args = block_args(&values);
        let mut distinct = depths.clone();
        distinct.sort_unstable();
        distinct.dedup();
        // One target's expectation is met for all before the jump; the others settle on edges of their own, as loops do.
        if let Some(first) = distinct.iter().copied().find(|index| self.frames[*index].pending.is_some()) {
            self.meter_branch(first);
        }
        let pending = self.meter.pending();
        let mut blocks = std::collections::HashMap::with_capacity(distinct.len());
        let mut edges = Vec::new();
        for &index in &distinct {
            self.note_branch(index);
            let frame = &mut self.frames[index];
            let label = frame.label;
            if !matches!(frame.kind, Kind::Loop(_)) && *frame.pending.get_or_insert(pending) == pending {
                blocks.insert(index, label);
            } else {
                let edge = self.b.create_block();
                edges.push((index, edge));
                blocks.insert(index, edge);
            }
        }
        let mut calls = Vec::with_capacity(depths.len());
        for index in &depths {
            let block = blocks[index];
            let direct = block == self.frames[*index].label;
            calls.push(self.b.func.dfg.block_call(block, if direct { &args[..] } else { &[] }));
        }
        let (targets, default) = calls.split_at(calls.len() - 1);
        let data = JumpTableData::new(default[0], targets);
        let table = self.b.create_jump_table(data);
        debug_assert_eq!(self.b.func.dfg.value_type(selector), types::I32);
        self.b.ins().br_table(selector, table);
        for (index, edge) in edges {
            self.b.switch_to_block(edge);
            self.b.seal_block(edge);
            self.meter.resume(pending);
            self.jump_to_frame(index, &args)?;
        }
        self.live = false;
        Ok(())
    }
}
