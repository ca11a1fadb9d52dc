//! Instruction counting.
//!
//! Enters: the costs of the segments. Leaves: as few changes of the counter as possible, and what is pending where.
//! Never here: a cost.
//!
//! The replica subtracts a segment's cost when it begins, and tests the counter at the start of a function, of a loop's body, and
//! before bulk operations. Here `pending` is what the replica has subtracted by now and the counter register has not. It is known
//! at compile time for every point of the code:
//!
//! 1. A segment that begins adds its cost to `pending`; no code.
//! 2. A forward branch target takes the `pending` of the first edge that reaches it; later edges subtract the difference.
//! 3. An edge into a loop, from outside or back, subtracts `pending` and the cost of the loop's first segment in one go and tests the
//!    sign; the jump comes behind. (An indirect jump behind a loop head is predicted far worse where the back edge is
//!    the branch of the loop's own condition: an interpreter took 1.6 to 2 times as long on a Zen 4.)
//! 4. Calls, bulk operations, and returns subtract `pending`: a callee tests the true counter.
//! 5. Traps find `pending` in the trap table, by the offset of the operator and, for accesses to the heap, its segment: see `locations`.
//!
//! So every test, call and trap sees exactly the replica's number.

use super::func::Translator;
use super::{LowerError, x64};
use crate::calls::Bulk;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, Block, BlockArg, InstBuilder, Value, types};

/// The trap code of a check.
pub(super) const CHECK_CODE: u8 = 30;

/// What the counter register does not hold yet, here and at every place that can trap.
#[derive(Debug)]
pub(super) struct Meter {
    on: bool,
    next_segment: usize,
    pending: u32,
    /// See [`super::func::Translated::pending`].
    pub recorded: Vec<Pending>,
}

/// What is pending from an operator on, until the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Module offset of the operator.
    pub offset: u32,
    /// Number of its segment.
    pub segment: usize,
    /// Subtracted by the replica, and not yet from the counter register.
    pub pending: u32,
}

impl Meter {
    pub fn new(on: bool) -> Self {
        Self { on, next_segment: 0, pending: 0, recorded: vec![Pending { offset: 0, segment: 0, pending: 0 }] }
    }

    /// The next operator lies at `offset`.
    pub fn at(&mut self, offset: u32) {
        let now = Pending { offset, segment: self.next_segment, pending: self.pending };
        match self.recorded.last_mut() {
            Some(last) if (last.segment, last.pending) == (now.segment, now.pending) => {}
            Some(last) if last.offset == offset => *last = now,
            _ => self.recorded.push(now),
        }
    }

    /// Number of the segment that the code being read belongs to.
    pub fn segment(&self) -> usize {
        self.next_segment
    }

    /// What is pending.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Code continues here with this much pending.
    pub fn resume(&mut self, pending: u32) {
        self.pending = pending;
    }
}

impl Translator<'_, '_> {
    fn next_segment_cost(&mut self) -> u32 {
        let cost = self.scan.segments.get(self.meter.next_segment).copied().unwrap_or(0);
        self.meter.next_segment += 1;
        cost
    }

    fn set_pending(&mut self, pending: u32) {
        self.meter.pending = pending;
        self.meter.at(self.offset);
    }

    /// Subtracts `amount` from the counter and returns the new value.
    fn subtract(&mut self, amount: i64, mark: u32) -> Value {
        self.mark_location(mark);
        let before = self.b.ins().get_pinned_reg(types::I64);
        let constant = self.b.ins().iconst(types::I64, -amount);
        let after = self.b.ins().iadd(before, constant);
        self.b.ins().set_pinned_reg(after);
        self.mark_location(0);
        after
    }

    /// Goes on; if `counter` is negative, only after leaving compiled code and coming back when there are instructions again.
    ///
    /// To Cranelift this is a trap, so it costs no block, no call and no register; the signal handler calls the runtime and comes back.
    fn check(&mut self, counter: Value) {
        self.mark_location(x64::CHECKED_CHARGE);
        let zero = self.b.ins().iconst(types::I64, 0);
        let negative = self.b.ins().icmp(IntCC::SignedLessThan, counter, zero);
        self.b.ins().trapnz(negative, ir::TrapCode::unwrap_user(CHECK_CODE));
        self.mark_location(0);
    }

    /// Charges the function's first segment and tests the counter.
    pub fn meter_function_entry(&mut self) {
        if self.meter.on {
            let cost = self.next_segment_cost();
            let counter = self.subtract(i64::from(cost), x64::CHECKED_CHARGE);
            self.check(counter);
        }
    }

    /// A segment that is not the start of a loop begins.
    pub fn meter_segment(&mut self) {
        if !self.meter.on {
            return;
        }
        let cost = self.next_segment_cost();
        if self.live {
            self.meter.pending = self.meter.pending.saturating_add(cost);
        }
    }

    /// Subtracts what is pending: something that sees the counter follows.
    pub fn meter_flush(&mut self) {
        if self.meter.pending > 0 {
            self.subtract(i64::from(self.meter.pending), x64::CHARGE);
            self.set_pending(0);
        }
    }

    /// Makes `pending` what the target of a branch expects, or settles what it expects.
    pub fn meter_branch(&mut self, target: usize) {
        if !self.meter.on {
            return;
        }
        match self.frames[target].pending {
            None => self.frames[target].pending = Some(self.meter.pending),
            Some(expected) if expected != self.meter.pending => {
                self.subtract(i64::from(self.meter.pending) - i64::from(expected), x64::CHARGE);
                self.set_pending(expected);
            }
            Some(_) => {}
        }
    }

    /// A loop begins: the cost of its first segment, which every edge into it charges. Code that cannot be reached has them too.
    pub fn meter_loop(&mut self) -> u32 {
        if self.meter.on { self.next_segment_cost() } else { 0 }
    }

    /// Jumps to the head of a loop whose first segment costs `cost`. Nothing is pending there.
    pub fn jump_to_loop(&mut self, head: Block, args: &[BlockArg], cost: u32) {
        if self.meter.on {
            let amount = i64::from(self.meter.pending) + i64::from(cost);
            let counter = self.subtract(amount, x64::CHECKED_CHARGE);
            self.check(counter);
        }
        self.b.ins().jump(head, args);
    }

    /// Charges `amount` (unsigned, as wide as an index) before a bulk operation and tests the counter.
    pub fn meter_bulk(&mut self, bulk: Bulk, amount: Value) -> Result<(), LowerError> {
        if !self.meter.on {
            return Ok(());
        }
        self.meter_flush();
        self.call_begins(bulk as u32)?;
        let before = self.b.ins().get_pinned_reg(types::I64);
        let after = if self.b.func.dfg.value_type(amount) == types::I32 {
            let amount = self.b.ins().uextend(types::I64, amount);
            self.b.ins().isub(before, amount)
        } else {
            // The replica's rule: a difference that grew has wrapped, and counts as the smallest number.
            let difference = self.b.ins().isub(before, amount);
            let wrapped = self.b.ins().icmp(IntCC::SignedGreaterThan, difference, before);
            let least = self.b.ins().iconst(types::I64, i64::MIN);
            self.b.ins().select(wrapped, least, difference)
        };
        self.b.ins().set_pinned_reg(after);
        self.call_ends()?;
        self.check(after);
        Ok(())
    }
}
