//! The quick pass over a body before it is translated.
//!
//! Enters: a body. Leaves: the cost of each metering segment, for each loop the locals that it reads and never assigns, which `if`s
//! have an `else`, which tables may change their size. Never here: IR.
//!
//! Segments are the replica's: straight-line code up to and including an operator that branches, ends or begins something
//! (`loop`, `if`, `else`, `end`, `br*`, `return*`, `unreachable`), in the order of the text, reachable or not. The first one costs
//! [`OperatorCost::function_entry`] more.

use super::{LowerError, OperatorCost};
use wasmparser::{FunctionBody, Operator};

/// Loops nested deeper than this count as part of the loop around them.
const LOOP_DEPTH_MAX: usize = 8;

/// What the scan found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Cost of each segment; the first begins the function. Empty without metering.
    pub segments: Vec<u32>,
    /// Per loop, in the order of the text: the locals that it reads and does not assign.
    pub invariant: Vec<Box<[u32]>>,
    /// Per `if`, in the order of the text: whether it has an `else`.
    pub has_else: Vec<bool>,
    /// Tables that `table.grow` names.
    pub grown_tables: Vec<u32>,
}

/// An open `block`, `loop` or `if`.
enum Open {
    Other,
    If(usize),
    Loop { index: usize, reads: Vec<u32>, writes: Vec<u32> },
}

/// Whether a metering segment ends after `op`.
pub(super) fn ends_segment(op: &Operator<'_>) -> bool {
    matches!(
        op,
        Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::Return
            | Operator::Unreachable
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
    )
}

fn normalize(list: &mut Vec<u32>) {
    list.sort_unstable();
    list.dedup();
}

#[derive(Default)]
struct Loops {
    open: Vec<Open>,
    /// Places in `open` of the loops that keep lists.
    tracked: Vec<usize>,
}

impl Loops {
    fn note(&mut self, local: u32, write: bool) {
        let Some(&place) = self.tracked.last() else { return };
        if let Open::Loop { reads, writes, .. } = &mut self.open[place] {
            let list = if write { writes } else { reads };
            if list.last() != Some(&local) {
                list.push(local);
            }
        }
    }

    fn enter_loop(&mut self, scan: &mut Scan) {
        let index = scan.invariant.len();
        scan.invariant.push(Box::default());
        if self.tracked.len() < LOOP_DEPTH_MAX {
            self.tracked.push(self.open.len());
            self.open.push(Open::Loop { index, reads: Vec::new(), writes: Vec::new() });
        } else {
            self.open.push(Open::Other);
        }
    }

    fn leave(&mut self, scan: &mut Scan) {
        let Some(Open::Loop { index, mut reads, mut writes }) = self.open.pop() else { return };
        self.tracked.pop();
        normalize(&mut reads);
        normalize(&mut writes);
        scan.invariant[index] = reads.iter().copied().filter(|local| writes.binary_search(local).is_err()).collect();
        if let Some(&place) = self.tracked.last()
            && let Open::Loop { reads: outer_reads, writes: outer_writes, .. } = &mut self.open[place]
        {
            outer_reads.append(&mut reads);
            outer_writes.append(&mut writes);
        }
    }
}

/// Scans `body`. `costs` is `None` without metering.
pub(super) fn scan(body: &FunctionBody<'_>, costs: Option<&dyn OperatorCost>) -> Result<Scan, LowerError> {
    let mut scan = Scan::default();
    let mut loops = Loops::default();
    let mut cost: u32 = costs.map_or(0, |costs| costs.function_entry());
    let mut reader = body.get_operators_reader()?;
    while !reader.eof() {
        let op = reader.read()?;
        match &op {
            Operator::LocalGet { local_index } => loops.note(*local_index, false),
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => loops.note(*local_index, true),
            Operator::Loop { .. } => loops.enter_loop(&mut scan),
            Operator::Block { .. } => loops.open.push(Open::Other),
            Operator::If { .. } => {
                loops.open.push(Open::If(scan.has_else.len()));
                scan.has_else.push(false);
            }
            Operator::Else => {
                if let Some(Open::If(index)) = loops.open.last() {
                    scan.has_else[*index] = true;
                }
            }
            Operator::End => loops.leave(&mut scan),
            Operator::TableGrow { table } => scan.grown_tables.push(*table),
            _ => {}
        }
        if let Some(costs) = costs {
            cost = cost.saturating_add(costs.cost(&op));
            if ends_segment(&op) {
                scan.segments.push(cost);
                cost = 0;
            }
        }
    }
    if costs.is_some() {
        scan.segments.push(cost);
    }
    Ok(scan)
}
