//! Card tests: before a store, the card of its page must be dirty.
//!
//! Enters: the addresses of stores. Leaves: a test of the card where no earlier test covers the store. Never here: the store.
//!
//! A test of `card(base + group)` covers every store at `base + offset` with `offset` in the same block of [`CARD_GROUP`] bytes, also
//! across a page boundary: dirty means that the page and the head of the next one are saved. A dirty card stays dirty to the end of the
//! message, so a fact once established holds wherever its test dominates: across calls, in loops and after them. Facts live in a log in
//! the order of translation; each label remembers the newest fact that all branches to it share, and what is newer is forgotten there.

use super::func::{Region, Translator};
use super::trampolines::Helper;
use super::{LowerError, memory::Address, x64};
use cranelift_codegen::ir::{self, InstBuilder, Value, types};
use std::collections::HashMap;

/// Bytes of the card table below `vmctx`.
pub(super) const CARD_TABLE_BYTES: i32 = 2 << 20;
/// Stores whose constant offsets share a block of this size share a test.
const CARD_GROUP: u64 = 512;
/// `log2` of the page size.
pub(super) const PAGE_SHIFT: i64 = 12;

/// The trap code of a test that becomes a stub.
pub(super) const CARD_CODE: u8 = 31;

/// What a test established: the base's value, a constant added to it, and the group of the offset.
type Fact = (Option<Value>, i64, u64);

/// The facts that hold here.
#[derive(Debug)]
pub(super) struct Cards {
    on: bool,
    next: u64,
    log: Vec<(u64, Fact)>,
    known: HashMap<Fact, ()>,
}

impl Cards {
    pub fn new(on: bool) -> Self {
        Self { on, next: 0, log: Vec::new(), known: HashMap::new() }
    }

    /// Identifies the newest fact.
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// Forgets all facts newer than `id`.
    pub fn forget_after(&mut self, id: u64) {
        while let Some((newest, fact)) = self.log.last().copied() {
            if newest <= id {
                break;
            }
            self.known.remove(&fact);
            self.log.pop();
        }
    }

    /// Adds a fact; false if it was known.
    fn learn(&mut self, fact: Fact) -> bool {
        if self.known.insert(fact, ()).is_some() {
            return false;
        }
        self.next += 1;
        self.log.push((self.next, fact));
        true
    }
}

impl Translator<'_, '_> {
    /// Makes sure that the card of a store at `address` is dirty.
    pub fn card_test(&mut self, address: &Address) -> Result<(), LowerError> {
        if !self.cards.on {
            return Ok(());
        }
        if let Address::Constant(at) = *address {
            // One test covers the page: no store is wider than what is saved of the next one.
            if self.cards.learn((None, 0, at >> PAGE_SHIFT)) {
                let page = i32::try_from(at >> PAGE_SHIFT).unwrap_or(0);
                let at = self.b.ins().iconst(types::I64, at as i64);
                let vmctx = self.vmctx;
                self.card_branch(vmctx, page, at)?;
            }
            return Ok(());
        }
        let Address::Dynamic { index, base, offset } = *address else { return Ok(()) };
        let group = offset & !(CARD_GROUP - 1);
        let (root, added) = self.root_of(base);
        if !self.cards.learn((Some(root), added, group)) {
            return Ok(());
        }
        let at = if group == 0 {
            index
        } else {
            let group = self.b.ins().iconst(types::I64, group as i64);
            self.b.ins().iadd(index, group)
        };
        let shift = self.b.ins().iconst(types::I32, PAGE_SHIFT);
        let page = self.b.ins().ushr(at, shift);
        let card = self.b.ins().iadd(self.vmctx, page);
        self.card_branch(card, 0, at)
    }

    /// `base` as a value plus a constant, so that the same sum computed twice is one fact.
    fn root_of(&self, base: Value) -> (Value, i64) {
        use cranelift_codegen::ir::{InstructionData, Opcode};
        let dfg = &self.b.func.dfg;
        let base = dfg.resolve_aliases(base);
        let Some(inst) = dfg.value_def(base).inst() else { return (base, 0) };
        if let InstructionData::Binary { opcode: Opcode::Iadd, args } = dfg.insts[inst] {
            if let Some(constant) = self.constant_of(args[1]) {
                return (dfg.resolve_aliases(args[0]), constant);
            }
            if let Some(constant) = self.constant_of(args[0]) {
                return (dfg.resolve_aliases(args[1]), constant);
            }
        }
        (base, 0)
    }

    /// Tests the card at `card + page` and marks heap address `at` if it is clean.
    fn card_branch(&mut self, card: Value, page: i32, at: Value) -> Result<(), LowerError> {
        let flags = self.trusted(Region::Cards);
        if self.stubs {
            // Rewritten in the machine code: see `x64`.
            self.mark_location(x64::CARD);
            let dirty = self.b.ins().load(types::I8, flags, card, page - CARD_TABLE_BYTES);
            self.b.ins().trapz(dirty, ir::TrapCode::unwrap_user(CARD_CODE));
            self.mark_location(0);
            return Ok(());
        }
        let dirty = self.b.ins().load(types::I8, flags, card, page - CARD_TABLE_BYTES);
        let cold = self.b.create_block();
        let next = self.b.create_block();
        self.b.set_cold_block(cold);
        self.b.ins().brif(dirty, next, &[], cold, &[]);
        self.b.switch_to_block(cold);
        self.b.seal_block(cold);
        let helper = self.helper(Helper::Mark)?;
        let vmctx = self.vmctx;
        self.b.ins().call(helper, &[vmctx, at]);
        self.b.ins().jump(next, &[]);
        self.b.switch_to_block(next);
        self.b.seal_block(next);
        Ok(())
    }
}
