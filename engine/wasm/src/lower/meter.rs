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
//! 3. A loop takes the `pending` P of its first back edge; its head subtracts P and the cost of its first segment in one go and
//!    tests the sign; the edge from outside subtracts its own difference to P. Both constants are set when the loop ends.
//! 4. Calls, bulk operations, and returns subtract `pending`: a callee tests the true counter.
//! 5. Traps find `pending` in the trap table, by the offset of the operator.
//!
//! So every test, call and trap sees exactly the replica's number.

use super::func::Translator;
use super::trampolines::Helper;
use super::{LowerError, x64};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Inst, InstBuilder, Value, types};

/// What the counter register does not hold yet, here and at every place that can trap.
#[derive(Debug)]
pub(super) struct Meter {
    on: bool,
    next_segment: usize,
    pending: u32,
    recorded: u32,
    /// See [`super::func::Translated::pending`].
    pub pending_by_offset: Vec<(u32, u32)>,
}

/// A subtraction whose amount is set later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge {
    constant: Inst,
    insts: [Inst; 4],
}

/// A loop's charges.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopCharge {
    entry: Charge,
    entry_pending: u32,
    head: Charge,
    head_cost: u32,
}

impl Meter {
    pub fn new(on: bool) -> Self {
        Self { on, next_segment: 0, pending: 0, recorded: 0, pending_by_offset: vec![(0, 0)] }
    }

    /// The next operator lies at `offset`.
    pub fn at(&mut self, offset: u32) {
        if self.pending != self.recorded {
            self.recorded = self.pending;
            match self.pending_by_offset.last_mut() {
                Some(last) if last.0 == offset => last.1 = self.pending,
                _ => self.pending_by_offset.push((offset, self.pending)),
            }
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
    fn subtract(&mut self, amount: i64) -> (Value, Charge) {
        self.mark_location(x64::CHARGE);
        let before = self.b.ins().get_pinned_reg(types::I64);
        let constant = self.b.ins().iconst(types::I64, -amount);
        let after = self.b.ins().iadd(before, constant);
        let set = self.b.ins().set_pinned_reg(after);
        self.mark_location(0);
        let constant = self.def_of(constant);
        let insts = [set, self.def_of(after), constant, self.def_of(before)];
        (after, Charge { constant, insts })
    }

    fn set_charge(&mut self, charge: Charge, amount: i64) {
        if amount == 0 {
            for inst in charge.insts {
                self.b.func.layout.remove_inst(inst);
            }
        } else {
            self.patch_constant(charge.constant, -amount);
        }
    }

    /// Leaves compiled code if `counter` is negative, and comes back when there are instructions again.
    fn check(&mut self, counter: Value) -> Result<(), LowerError> {
        self.mark_location(x64::CHARGE);
        let zero = self.b.ins().iconst(types::I64, 0);
        let negative = self.b.ins().icmp(IntCC::SignedLessThan, counter, zero);
        let cold = self.b.create_block();
        let next = self.b.create_block();
        self.b.set_cold_block(cold);
        self.b.ins().brif(negative, cold, &[], next, &[]);
        self.mark_location(0);
        self.b.switch_to_block(cold);
        self.b.seal_block(cold);
        let helper = self.helper(Helper::OutOfInstructions)?;
        let vmctx = self.vmctx;
        self.b.ins().call(helper, &[vmctx]);
        self.b.ins().jump(next, &[]);
        self.b.switch_to_block(next);
        self.b.seal_block(next);
        Ok(())
    }

    /// Charges the function's first segment and tests the counter.
    pub fn meter_function_entry(&mut self) -> Result<(), LowerError> {
        if !self.meter.on {
            return Ok(());
        }
        let cost = self.next_segment_cost();
        let (counter, _) = self.subtract(i64::from(cost));
        self.check(counter)
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
            self.subtract(i64::from(self.meter.pending));
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
                self.subtract(i64::from(self.meter.pending) - i64::from(expected));
                self.set_pending(expected);
            }
            Some(_) => {}
        }
    }

    /// Comes before the jump into a loop.
    pub fn meter_loop_entry(&mut self) -> Option<Charge> {
        self.meter.on.then(|| self.subtract(0).1)
    }

    /// Begins a loop's body: charges its first segment and tests the counter. `entry` comes from [`Self::meter_loop_entry`].
    pub fn meter_loop_head(&mut self, entry: Option<Charge>) -> Result<Option<LoopCharge>, LowerError> {
        let Some(entry) = entry else { return Ok(None) };
        let head_cost = self.next_segment_cost();
        let (counter, head) = self.subtract(0);
        let entry_pending = self.meter.pending;
        self.check(counter)?;
        self.set_pending(0);
        Ok(Some(LoopCharge { entry, entry_pending, head, head_cost }))
    }

    /// A loop in code that cannot be reached.
    pub fn meter_dead_loop(&mut self) {
        if self.meter.on {
            self.next_segment_cost();
        }
    }

    /// Ends a loop: all its back edges are known. `back` is the `pending` that they agreed on.
    pub fn meter_loop_end(&mut self, charge: Option<LoopCharge>, back: Option<u32>) {
        let Some(charge) = charge else { return };
        let expected = back.unwrap_or(charge.entry_pending);
        self.set_charge(charge.entry, i64::from(charge.entry_pending) - i64::from(expected));
        self.set_charge_kept(charge.head, i64::from(expected) + i64::from(charge.head_cost));
    }

    /// The head's test needs the sum even if it subtracts nothing.
    fn set_charge_kept(&mut self, charge: Charge, amount: i64) {
        self.patch_constant(charge.constant, -amount);
    }

    /// Charges `amount` (unsigned, as wide as an index) before a bulk operation and tests the counter.
    pub fn meter_bulk(&mut self, amount: Value) -> Result<(), LowerError> {
        if !self.meter.on {
            return Ok(());
        }
        self.meter_flush();
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
        self.check(after)
    }
}
