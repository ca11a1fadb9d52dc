//! Which Wasm operator a piece of machine code belongs to.
//!
//! Enters: optimized IR, and later the source locations of its machine code. Leaves: the module offset of the operator that traps or
//! calls there; the pending charge of a trap is looked up by it, so it has to be exact. Never here: a location near enough.

use super::memory::heap_variant;
use super::meter::Pending;
use super::x64::{CARD, CHARGE, OFFSET_MASK};
use cranelift_codegen::MachSrcLoc;
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{Function, Inst, SourceLoc, Value};

/// A load and where it stands in the function: a position that grows in the order of the code, and its location.
type Origin = (u32, SourceLoc);

/// Finds the loads that instruction selection may fold, and moves the locations of their users to them. Reused from function to function.
#[derive(Default)]
pub(super) struct FoldedLoads {
    /// By instruction: the latest load of its block that it was computed from, 0 for none.
    origins: SecondaryMap<Inst, Origin>,
}

impl FoldedLoads {
    /// Gives what was computed from a load, and cannot trap itself, the location of the load.
    ///
    /// Instruction selection may fold a load into the one instruction that uses it, and the load's trap then has that instruction's
    /// location: a later operator's, which another metering segment may have charged by then, or none, if the optimizer made the
    /// instruction. It folds within a block, and only a load after which nothing has an effect but other loads that were folded; so what
    /// was computed from several can only have folded the latest. A store keeps its own location: see [`pending_at`].
    pub fn locate(&mut self, func: &mut Function) {
        self.origins.clear();
        let mut position = 0;
        let mut next_block = func.layout.entry_block();
        while let Some(block) = next_block {
            let block_start = position;
            let mut next_inst = func.layout.first_inst(block);
            while let Some(inst) = next_inst {
                position += 1;
                self.locate_inst(func, inst, position, block_start);
                next_inst = func.layout.next_inst(inst);
            }
            next_block = func.layout.next_block(block);
        }
    }

    fn locate_inst(&mut self, func: &mut Function, inst: Inst, position: u32, block_start: u32) {
        let opcode = func.dfg.insts[inst].opcode();
        let location = func.srcloc(inst);
        if opcode.can_load() {
            self.origins[inst] = (position, location);
            return;
        }
        if opcode.can_trap() || opcode.can_store() || opcode.is_call() {
            return;
        }
        let of_value = |value: &Value| func.dfg.value_def(*value).inst().map(|inst| self.origins[inst]);
        let origins = func.dfg.inst_args(inst).iter().filter_map(of_value);
        let Some(origin) = origins.filter(|origin| origin.0 > block_start).max_by_key(|origin| origin.0) else {
            return;
        };
        self.origins[inst] = origin;
        if location.is_default() || location.bits() & (CHARGE | CARD) == 0 {
            func.set_srcloc(inst, SourceLoc::new(origin.1.bits() & OFFSET_MASK));
        }
    }
}

/// The charge that is pending where the operator at `offset` traps.
///
/// An access to the heap says by `variant` which segment it belongs to, modulo [`HEAP_CODES`](super::memory::HEAP_CODES): a load that was folded into a store has the
/// store's location, which may lie in a later one. Nothing folds over a change of the counter.
pub(super) fn pending_at(pending: &[Pending], offset: u32, variant: Option<u8>) -> u32 {
    let place = pending.partition_point(|entry| entry.offset <= offset);
    let belongs = |entry: &&Pending| variant.is_none_or(|variant| heap_variant(entry.segment) == variant);
    pending[..place].iter().rev().find(belongs).map_or(0, |entry| entry.pending)
}

/// Wasm offsets by machine code offset.
pub(super) struct Locations<'a>(pub &'a [MachSrcLoc<cranelift_codegen::Final>]);

impl Locations<'_> {
    /// The module offset of the operator that the code at `offset` belongs to, 0 for code that belongs to none.
    pub fn at(&self, offset: u32) -> u32 {
        self.bits(offset) & OFFSET_MASK
    }

    /// The mark of the code at `offset`.
    pub fn mark(&self, offset: u32) -> u32 {
        self.bits(offset) & !OFFSET_MASK
    }

    fn bits(&self, offset: u32) -> u32 {
        let place = self.0.partition_point(|range| range.end <= offset);
        match self.0.get(place) {
            Some(range) if range.start <= offset && !range.loc.is_default() => range.loc.bits(),
            _ => 0,
        }
    }
}
