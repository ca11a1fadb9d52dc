//! What a canister pays: storage and compute as time passes, freezing, and fees for messages.
//!
//! Enters: prices, settings, memory, block time. Leaves: changed balances, cycles burned, the time at which a canister will run out.
//! Never here: a scan over canisters; each is settled when it is touched, or when its due time comes.
//!
//! Storage and compute are charged by whole periods of [`CHARGE_PERIOD_NANOS`], each rounded down on its own, so that settling once
//! for many periods takes exactly what settling after each of them would have taken.

use crate::canister::CanisterMut;
use crate::reject::OutOfCycles;
pub use crate::system_api::Rates;
use cyclotron_types::fees::{CHARGE_PERIOD_NANOS, Fees};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::Ingress;
use cyclotron_types::units::{Bytes, Cycles, Time};

/// Seconds of a day, the unit of the idle burn rate.
const DAY_SECONDS: u64 = 86_400;

/// What storing `memory` bytes and the compute allocation cost a day. Spec: idle_cycles_burned_rate.
pub fn idle_cycles_burned_per_day(fees: &Fees, settings: impl Into<Rates>, memory: Bytes) -> Cycles {
    let settings = settings.into();
    let day_nanos = DAY_SECONDS * 1_000_000_000;
    let stored = memory.max(settings.memory_allocation);
    fees.storage(stored, day_nanos).saturating_add(fees.compute(settings.compute_allocation, day_nanos))
}

/// What the canister would burn idle during its freezing threshold. Spec: freezing_limit.
pub fn freezing_limit(fees: &Fees, settings: impl Into<Rates>, memory: Bytes) -> Cycles {
    let settings = settings.into();
    let rate = idle_cycles_burned_per_day(fees, settings, memory);
    Cycles(rate.0.saturating_mul(u128::from(settings.freezing_threshold.0))).over(DAY_SECONDS)
}

/// The part of the main balance that cannot be spent: the freezing limit less what is reserved.
pub fn freezing_threshold(fees: &Fees, settings: impl Into<Rates>, memory: Bytes, reserved: Cycles) -> Cycles {
    freezing_limit(fees, settings, memory).saturating_sub(reserved)
}

/// What the canister can spend now. Spec: liquid_balance.
pub fn liquid_balance(fees: &Fees, canister: &CanisterMut<'_>) -> Cycles {
    canister.balance.0.saturating_sub(threshold_of(fees, canister))
}

/// [`freezing_threshold`] of a canister as it is.
pub fn threshold_of(fees: &Fees, canister: &CanisterMut<'_>) -> Cycles {
    freezing_threshold(fees, &*canister.settings, canister.memory_used(), canister.reserved.0)
}

/// Takes `amount` from the balance if `threshold` remains; nothing otherwise.
pub fn withdraw(
    canister: CanisterId,
    balance: &mut Cycles,
    amount: Cycles,
    threshold: Cycles,
    reveal: bool,
) -> Result<(), OutOfCycles> {
    if amount > balance.saturating_sub(threshold) {
        return Err(OutOfCycles { canister, available: *balance, requested: amount, threshold, reveal });
    }
    balance.0 -= amount.0;
    Ok(())
}

/// Cost of storage and compute for one charge period.
pub fn period_cost(fees: &Fees, settings: impl Into<Rates>, memory: Bytes) -> Cycles {
    let settings = settings.into();
    let stored = memory.max(settings.memory_allocation);
    fees.storage(stored, CHARGE_PERIOD_NANOS)
        .saturating_add(fees.compute(settings.compute_allocation, CHARGE_PERIOD_NANOS))
}

/// What settling took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Taken from the canister, gone for good.
    pub burned: Cycles,
    /// Whether the canister could not pay in full: its code is to be uninstalled ([`crate::uninstall`]).
    pub exhausted: bool,
}

/// Charges storage and compute up to `now`, from the reserved balance first.
///
/// Everything that reads or changes a canister's balance, settings or memory settles it before. Cost: O(1), whatever the time.
pub fn settle(fees: &Fees, canister: &mut CanisterMut<'_>, now: Time) -> Settled {
    let periods = now.nanos_since(canister.paid_until.0) / CHARGE_PERIOD_NANOS;
    if periods == 0 {
        return Settled::default();
    }
    canister.paid_until.0 = Time(canister.paid_until.0.0 + periods * CHARGE_PERIOD_NANOS);
    let cost = period_cost(fees, &*canister.settings, canister.memory_used()).times(u128::from(periods));
    let from_reserved = canister.reserved.0.take(cost);
    let from_balance = canister.balance.0.take(Cycles(cost.0 - from_reserved.0));
    let burned = Cycles(from_reserved.0 + from_balance.0);
    Settled { burned, exhausted: burned < cost }
}

/// The block time from which [`settle`] will find the canister exhausted if nothing else changes; `None` when that never happens.
///
/// The caller keeps canisters ordered by this and settles those that are due at the start of a round: others cost a round nothing.
/// It changes whenever balance, settings or memory do.
pub fn due(fees: &Fees, canister: &CanisterMut<'_>) -> Option<Time> {
    let cost = period_cost(fees, &*canister.settings, canister.memory_used());
    if cost == Cycles::ZERO {
        return None;
    }
    let funds = canister.balance.0.saturating_add(canister.reserved.0);
    let periods = u64::try_from(funds.0 / cost.0).ok()?.checked_add(1)?;
    canister.paid_until.0.0.checked_add(periods.checked_mul(CHARGE_PERIOD_NANOS)?).map(Time)
}

/// The bytes of an ingress message that are charged for: its method name, argument and nonce.
fn ingress_bytes(ingress: &Ingress) -> Bytes {
    Bytes((ingress.method.len() + ingress.arg.len()) as u64 + u64::from(ingress.nonce_bytes))
}

/// Charges the receiver for taking an ingress message into its queue; nothing changes on an error.
pub fn charge_ingress(fees: &Fees, canister: &mut CanisterMut<'_>, ingress: &Ingress) -> Result<Cycles, OutOfCycles> {
    let fee = fees.ingress(ingress_bytes(ingress));
    let threshold = threshold_of(fees, canister);
    let reveal = canister.controllers.0.contains(&ingress.sender);
    withdraw(canister.id, &mut canister.balance.0, fee, threshold, reveal)?;
    Ok(fee)
}

/// Cycles to reserve when memory grows from `used` by `bytes` on a subnet where reservation starts at `from` and memory ends at
/// `capacity`: the storage fee for a time that grows linearly from zero at `from` to 300 million seconds at `capacity`.
///
/// Source: dfinity/ic `rs/cycles_account_manager/src/lib.rs`, `storage_reservation_cycles`.
pub fn reservation(fees: &Fees, bytes: Bytes, used: Bytes, from: Bytes, capacity: Bytes) -> Cycles {
    let total = |usage: u64| {
        let capacity = capacity.0;
        let from = from.0.min(capacity);
        let above = usage.min(capacity) - usage.min(capacity).min(from);
        if capacity == from {
            return Cycles::ZERO;
        }
        let seconds = u128::from(RESERVATION_PERIOD_MAX_SECONDS) * u128::from(above) / u128::from(capacity - from);
        // The area of a triangle: half the base times the height.
        fees.storage(Bytes(above), (seconds as u64).saturating_mul(500_000_000))
    };
    total(used.0.saturating_add(bytes.0)).saturating_sub(total(used.0))
}

/// Longest time for which storage is reserved: 300 million seconds (A `config/src/subnet_config.rs`).
const RESERVATION_PERIOD_MAX_SECONDS: u64 = 300_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canister::CanisterBundle;
    use cyclotron_types::canister::Settings;
    use cyclotron_types::units::Seconds;

    fn canister(balance: u128, reserved: u128) -> CanisterBundle {
        let mut bundle = CanisterBundle::default();
        bundle.balance.0 = Cycles(balance);
        bundle.reserved.0 = Cycles(reserved);
        bundle.settings.compute_allocation = 7;
        bundle.settings.memory_allocation = Bytes(123_456_789);
        bundle
    }

    const PERIOD: u64 = CHARGE_PERIOD_NANOS;
    const ID: CanisterId = CanisterId::MANAGEMENT;

    #[test]
    fn settling_late_takes_what_settling_often_takes() {
        let fees = Fees::for_nodes(13);
        for steps in [1, 7, 100] {
            let (mut often, mut late) = (canister(1 << 60, 5_000), canister(1 << 60, 5_000));
            let mut burned = Cycles::ZERO;
            for step in 1..=steps {
                let settled = settle(&fees, &mut often.borrow(ID), Time(step * PERIOD + 3));
                assert!(!settled.exhausted);
                burned = burned.saturating_add(settled.burned);
            }
            assert_eq!(settle(&fees, &mut late.borrow(ID), Time(steps * PERIOD + 3)).burned, burned);
            assert_eq!(
                (late.balance, late.reserved, late.paid_until),
                (often.balance, often.reserved, often.paid_until)
            );
        }
    }

    #[test]
    fn the_due_time_is_the_first_at_which_funds_do_not_suffice() {
        let fees = Fees::for_nodes(13);
        for (balance, reserved) in
            [(0, 0), (1, 0), (5_000_000_000, 0), (5_000_000_000, 123_456), (10_000_000_000_000, 1)]
        {
            let mut bundle = canister(balance, reserved);
            let at = due(&fees, &bundle.borrow(ID)).unwrap();
            let mut early = canister(balance, reserved);
            assert!(!settle(&fees, &mut early.borrow(ID), Time(at.0 - 1)).exhausted);
            let settled = settle(&fees, &mut bundle.borrow(ID), at);
            assert!(settled.exhausted);
            assert_eq!((settled.burned, bundle.balance.0), (Cycles(balance + reserved), Cycles::ZERO));
        }
        let free = Fees::free(13);
        assert_eq!(due(&free, &canister(5, 0).borrow(ID)), None);
    }

    #[test]
    fn withdrawing_leaves_the_threshold_or_changes_nothing() {
        let mut balance = Cycles(100);
        assert_eq!(withdraw(ID, &mut balance, Cycles(60), Cycles(40), false), Ok(()));
        assert_eq!(balance, Cycles(40));
        let error = withdraw(ID, &mut balance, Cycles(1), Cycles(40), true).unwrap_err();
        assert_eq!((balance, error.available, error.requested), (Cycles(40), Cycles(40), Cycles(1)));
        assert!(withdraw(ID, &mut balance, Cycles(0), Cycles(1_000), false).is_ok());
    }

    #[test]
    fn the_nonce_of_an_ingress_message_is_paid_for() {
        let fees = Fees::for_nodes(13);
        let mut bundle = canister(1 << 60, 0);
        let mut fee = |nonce_bytes| {
            let ingress = Ingress {
                id: cyclotron_types::ids::MessageId([0; 32]),
                sender: cyclotron_types::Principal::anonymous(),
                receiver: ID,
                effective_canister: Some(ID),
                method: "go".into(),
                arg: vec![1],
                expiry: Time::MAX,
                nonce_bytes,
            };
            charge_ingress(&fees, &mut bundle.borrow(ID), &ingress).unwrap()
        };
        assert_eq!(fee(0), fees.ingress(Bytes(3)));
        assert_eq!(fee(32), fees.ingress(Bytes(35)));
    }

    #[test]
    fn the_freezing_limit_follows_the_idle_burn_rate() {
        let fees = Fees::for_nodes(13);
        let settings = Settings { freezing_threshold: Seconds(DAY_SECONDS * 2), ..Settings::default() };
        let rate = idle_cycles_burned_per_day(&fees, &settings, Bytes(1 << 30));
        assert_eq!(rate, Cycles(127_000 * 86_400));
        assert_eq!(freezing_limit(&fees, &settings, Bytes(1 << 30)), Cycles(rate.0 * 2));
        assert_eq!(freezing_threshold(&fees, &settings, Bytes(1 << 30), Cycles(rate.0 * 3)), Cycles::ZERO);
    }

    #[test]
    fn reservations_add_up_whatever_the_steps() {
        let fees = Fees::for_nodes(13);
        let (from, capacity) = (Bytes(1 << 30), Bytes(4 << 30));
        assert_eq!(reservation(&fees, Bytes(1 << 30), Bytes(0), from, capacity), Cycles::ZERO);
        let whole = reservation(&fees, Bytes(1 << 30), Bytes(1 << 30), from, capacity);
        let halves = [1u64 << 30, (1 << 30) + (1 << 29)]
            .into_iter()
            .map(|used| reservation(&fees, Bytes(1 << 29), Bytes(used), from, capacity))
            .sum::<Cycles>();
        assert_eq!(whole, halves);
        // A third of the way: 100 M seconds, half of it for 1 GiB.
        assert_eq!(whole, Cycles(127_000 * 50_000_000));
    }
}
