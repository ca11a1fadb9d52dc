//! Canisters by the time at which something happens to them: found when due, never by a scan.

use bevy_ecs::resource::Resource;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::Time;
use std::collections::{BTreeMap, BTreeSet};

/// At most one time for each canister.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    by_time: BTreeSet<(Time, CanisterId)>,
    of: BTreeMap<CanisterId, Time>,
}

impl Alarms {
    /// Sets, moves or clears a canister's time. Cost: O(log n); a comparison when it is as it was.
    pub fn set(&mut self, id: CanisterId, time: Option<Time>) {
        if self.of.get(&id).copied() == time {
            return;
        }
        if let Some(old) = self.of.remove(&id) {
            self.by_time.remove(&(old, id));
        }
        if let Some(time) = time {
            self.of.insert(id, time);
            self.by_time.insert((time, id));
        }
    }

    /// A canister's time.
    pub fn get(&self, id: CanisterId) -> Option<Time> {
        self.of.get(&id).copied()
    }

    /// The earliest time.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|&(time, _)| time)
    }

    /// Takes out the earliest canister if its time has come.
    pub fn pop_due(&mut self, now: Time) -> Option<CanisterId> {
        let &(time, id) = self.by_time.first()?;
        (time <= now).then(|| {
            self.set(id, None);
            id
        })
    }
}

/// When global timers fire.
#[derive(Clone, Debug, Default, Resource)]
pub struct Timers(pub Alarms);

/// When canisters can no longer pay for their storage if nothing else happens to them.
#[derive(Clone, Debug, Default, Resource)]
pub struct Dues(pub Alarms);

/// When those who wait for a canister to stop are told that it took too long.
#[derive(Clone, Debug, Default, Resource)]
pub struct StopDeadlines(pub Alarms);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canister_is_due_once_and_in_order_of_time_then_id() {
        let id = CanisterId::from_u64;
        let mut alarms = Alarms::default();
        for (n, time) in [(3, 10), (1, 10), (2, 5), (4, 99), (5, 7)] {
            alarms.set(id(n), Some(Time(time)));
        }
        alarms.set(id(5), None);
        alarms.set(id(3), Some(Time(4)));
        let due: Vec<_> = std::iter::from_fn(|| alarms.pop_due(Time(10))).collect();
        assert_eq!(due, [id(3), id(2), id(1)]);
        assert_eq!(alarms.next(), Some(Time(99)));
    }
}
