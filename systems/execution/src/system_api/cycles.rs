//! Cycles, prices, and memory that costs cycles.

use super::{Answered, NOTHING, SystemApi, put, put_cycles};
use crate::charge;
use crate::reject::Failure;
use cyclotron_types::units::{Bytes, Cycles, WasmPages};
use cyclotron_wasm::runtime::Caller;

/// What taking memory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The memory is the canister's.
    Yes,
    /// There is none; nothing has changed.
    OutOfMemory,
}

impl SystemApi {
    /// An amount as 64-bit functions return it.
    pub(super) fn narrow(&self, amount: Cycles) -> Answered {
        u64::try_from(amount.0).map_err(|_| {
            Failure::Trapped { reason: "cycles amount exceeds 64-bit representation".into(), backtrace: Vec::new() }
                .into()
        })
    }

    pub(super) fn accept_cycles(&mut self, max: u128) -> Cycles {
        let taken = self.funds.available.take(Cycles(max));
        self.funds.credit(taken);
        taken
    }

    pub(super) fn accept_cycles_128(&mut self, caller: &mut Caller<'_>, max: u128, dst: u64) -> Answered {
        // The write is tried first: a trap leaves nothing anyway, but a function that traps should not have acted.
        put(caller, "msg_cycles_accept128", dst, &[0; 16])?;
        let taken = self.accept_cycles(max);
        put_cycles(caller, "msg_cycles_accept128", dst, taken)
    }

    pub(super) fn burn_cycles(&mut self, caller: &mut Caller<'_>, max: u128, dst: u64) -> Answered {
        let burned = Cycles(max).min(self.funds.liquid());
        put_cycles(caller, "cycles_burn128", dst, burned)?;
        self.funds.balance.0 -= burned.0;
        self.funds.burned = self.funds.burned.saturating_add(burned);
        NOTHING
    }

    pub(super) fn cost_call(&self, caller: &mut Caller<'_>, method: u64, payload: u64, dst: u64) -> Answered {
        let fees = &self.subnet.fees;
        let cost = fees
            .call_base
            .saturating_add(fees.transmission(Bytes(method.saturating_add(payload))))
            .saturating_add(self.subnet.prepaid_transmission())
            .saturating_add(self.subnet.prepaid_execution(self.identity.wasm64));
        put_cycles(caller, "cost_call", dst, cost)
    }

    /// `(3 M + 60 k n) n + (400 request + 800 response) n`, n the subnet's nodes. Source: developer-docs `cycle-costs.md`.
    pub(super) fn cost_http_request(&self, caller: &mut Caller<'_>, request: u64, response: u64, dst: u64) -> Answered {
        let nodes = u128::from(self.subnet.fees.nodes);
        // A subnet without prices has none here either.
        let free = self.subnet.fees.call_base == Cycles::ZERO && self.subnet.fees.update_base == Cycles::ZERO;
        let per_node = (3_000_000 + 60_000 * nodes)
            .saturating_add(400 * u128::from(request))
            .saturating_add(800 * u128::from(response));
        let cost = if free { Cycles::ZERO } else { Cycles(per_node.saturating_mul(nodes)) };
        put_cycles(caller, "cost_http_request", dst, cost)
    }

    /// Lets the heap grow, or says why not. `Ok(false)` is -1 to `memory.grow`.
    pub(super) fn grow_heap(&mut self, old: WasmPages, new: WasmPages) -> Answered<bool> {
        let (bytes, limit) = (new.to_bytes(), self.memory.wasm_memory_limit);
        if self.identity.entry.checks_wasm_memory_limit() && limit != Bytes::ZERO && bytes > limit {
            return Err(Failure::WasmMemoryLimit { bytes, limit }.into());
        }
        let grown = Bytes(bytes.0.saturating_sub(old.to_bytes().0));
        Ok(self.take_memory(grown)? == Taken::Yes)
    }

    /// Takes `bytes` of memory for the canister: from its allocation, then from the subnet, reserving cycles where the subnet fills up.
    pub(super) fn take_memory(&mut self, bytes: Bytes) -> Answered<Taken> {
        let book = &self.memory;
        let Some(used) = book.used.checked_add(bytes) else { return Ok(Taken::OutOfMemory) };
        let allocation = book.rates.memory_allocation;
        let from_subnet = used.max(allocation).saturating_sub(book.used.max(allocation));
        if book.taken.saturating_add(from_subnet) > book.available {
            return Ok(Taken::OutOfMemory);
        }
        if self.identity.entry.keeps_memory() && from_subnet > Bytes::ZERO {
            self.pay_for_memory(bytes, from_subnet, used)?;
        }
        self.memory.used = used;
        self.memory.taken = self.memory.taken.saturating_add(from_subnet);
        Ok(Taken::Yes)
    }

    fn pay_for_memory(&mut self, bytes: Bytes, from_subnet: Bytes, used: Bytes) -> Answered<()> {
        let (fees, book, limits) = (&self.subnet.fees, &self.memory, &self.subnet.limits);
        let threshold = charge::freezing_threshold(fees, book.rates, used, self.funds.reserved);
        if self.identity.entry.checks_freezing() && self.funds.balance < threshold {
            return Err(Failure::InsufficientCyclesInMemoryGrow {
                bytes,
                available: self.funds.balance,
                threshold,
                reveal: self.identity.caller_is_controller(),
            }
            .into());
        }
        let subnet_used = book.subnet_used.saturating_add(book.taken);
        if subnet_used.saturating_add(from_subnet) > limits.reservation_from {
            let reservation =
                charge::reservation(fees, from_subnet, subnet_used, limits.reservation_from, limits.subnet_memory);
            let requested = self.funds.reserved.saturating_add(reservation);
            if requested > book.reserved_cycles_limit {
                return Err(Failure::ReservedCyclesLimit { bytes, requested, limit: book.reserved_cycles_limit }.into());
            }
            if reservation > self.funds.balance {
                return Err(Failure::InsufficientCyclesInMemoryGrow {
                    bytes,
                    available: self.funds.balance,
                    threshold: reservation,
                    reveal: self.identity.caller_is_controller(),
                }
                .into());
            }
            self.funds.balance.0 -= reservation.0;
            self.funds.reserved = requested;
            self.funds.newly_reserved = self.funds.newly_reserved.saturating_add(reservation);
        }
        self.funds.threshold = charge::freezing_threshold(fees, book.rates, used, self.funds.reserved);
        Ok(())
    }
}
