//! Which canister ids the subnet gives out.
//!
//! Enters: the subnet's ranges. Leaves: ids, each once. Never here: an id that a canister had before, deleted or not.

use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A range of canister numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdRange {
    /// First.
    pub first: u64,
    /// Last.
    pub last: u64,
}

impl IdRange {
    /// Whether the number is in it.
    pub fn contains(&self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// The subnet's ranges and how far they are used: part of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanisterIds {
    /// Disjoint, used in this order.
    ranges: Vec<IdRange>,
    /// Disjoint, and from those above: given out by `specified_id` alone.
    reserved: Vec<IdRange>,
    /// Range that the next id comes from; `ranges.len()` when all are used up.
    range: usize,
    /// The next number in it.
    next: u64,
    /// Numbers taken out of turn, by `specified_id`. Those behind the counter stay: they were used all the same.
    specified: BTreeSet<u64>,
}

/// Why an id cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// All ranges are used up.
    Exhausted,
    /// Not in the subnet's ranges, or not a canister id.
    NotHosted,
    /// A canister has or had it.
    Taken,
}

impl CanisterIds {
    /// None used yet.
    pub fn new(ranges: Vec<IdRange>) -> Self {
        Self::with_reserved(ranges, Vec::new())
    }

    /// None used yet; those of `reserved` are given to callers who name them, and never of themselves.
    pub fn with_reserved(ranges: Vec<IdRange>, reserved: Vec<IdRange>) -> Self {
        let next = ranges.first().map_or(0, |range| range.first);
        Self { ranges, reserved, range: 0, next, specified: BTreeSet::new() }
    }

    /// The ranges.
    pub fn ranges(&self) -> &[IdRange] {
        &self.ranges
    }

    /// Whether the id lies in the ranges.
    pub fn hosts(&self, id: CanisterId) -> bool {
        id.to_u64().is_some_and(|number| self.ranges.iter().chain(&self.reserved).any(|range| range.contains(number)))
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.ranges.iter().position(|range| range.contains(number))
    }

    /// Whether a canister has or had the id.
    pub fn used(&self, id: CanisterId) -> bool {
        let Some(number) = id.to_u64() else { return false };
        let passed = self
            .position(number)
            .is_some_and(|position| position < self.range || (position == self.range && number < self.next));
        passed || self.specified.contains(&number)
    }

    /// Takes the next free id. Cost: O(log ids taken out of turn) for each id skipped, and every one is skipped once.
    pub fn allocate(&mut self) -> Result<CanisterId, IdError> {
        loop {
            let range = *self.ranges.get(self.range).ok_or(IdError::Exhausted)?;
            let number = self.next;
            if number == range.last {
                self.range += 1;
                self.next = self.ranges.get(self.range).map_or(0, |range| range.first);
            } else {
                self.next += 1;
            }
            if !self.specified.contains(&number) {
                return Ok(CanisterId::from_u64(number));
            }
        }
    }

    /// Takes this id.
    pub fn allocate_specified(&mut self, id: Principal) -> Result<CanisterId, IdError> {
        let id = CanisterId::from_principal(id);
        if !self.hosts(id) {
            return Err(IdError::NotHosted);
        }
        if self.used(id) {
            return Err(IdError::Taken);
        }
        let number = id.to_u64().ok_or(IdError::NotHosted)?;
        self.specified.insert(number);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ranges: &[(u64, u64)]) -> CanisterIds {
        CanisterIds::new(ranges.iter().map(|&(first, last)| IdRange { first, last }).collect())
    }
    fn number(id: Result<CanisterId, IdError>) -> Result<u64, IdError> {
        id.map(|id| id.to_u64().unwrap())
    }

    #[test]
    fn ids_count_through_the_ranges_and_then_end() {
        let mut ids = ids(&[(5, 6), (u64::MAX - 1, u64::MAX)]);
        let got: Vec<_> = (0..6).map(|_| number(ids.allocate())).collect();
        let end = Err(IdError::Exhausted);
        assert_eq!(got, [Ok(5), Ok(6), Ok(u64::MAX - 1), Ok(u64::MAX), end, end]);
        assert!(ids.used(CanisterId::from_u64(6)) && ids.used(CanisterId::from_u64(u64::MAX)));
    }

    #[test]
    fn an_id_is_the_number_and_two_ones() {
        let id = ids(&[(7, 9)]).allocate().unwrap();
        assert_eq!(id.as_slice(), [0, 0, 0, 0, 0, 0, 0, 7, 1, 1]);
    }

    #[test]
    fn a_specified_id_is_given_once_and_skipped_by_the_counter() {
        let mut ids = ids(&[(1, 4)]);
        let two = CanisterId::from_u64(2).principal();
        assert_eq!(number(ids.allocate_specified(two)), Ok(2));
        assert_eq!(ids.allocate_specified(two), Err(IdError::Taken));
        assert_eq!([number(ids.allocate()), number(ids.allocate())], [Ok(1), Ok(3)]);
        assert_eq!(ids.allocate_specified(two), Err(IdError::Taken));
        assert_eq!(ids.allocate_specified(CanisterId::from_u64(1).principal()), Err(IdError::Taken));
    }

    #[test]
    fn a_reserved_id_is_given_to_those_who_name_it_and_never_of_itself() {
        let range = |first, last| IdRange { first, last };
        let mut ids = CanisterIds::with_reserved(vec![range(100, 101)], vec![range(0, 9)]);
        let seven = CanisterId::from_u64(7);
        assert!(ids.hosts(seven) && !ids.used(seven));
        assert_eq!(number(ids.allocate_specified(seven.principal())), Ok(7));
        assert!(ids.used(seven));
        assert_eq!(ids.allocate_specified(seven.principal()), Err(IdError::Taken));
        assert_eq!([number(ids.allocate()), number(ids.allocate())], [Ok(100), Ok(101)]);
        assert_eq!(ids.allocate(), Err(IdError::Exhausted), "a full range does not spill into the reserved one");
    }

    #[test]
    fn ids_of_others_and_ids_of_users_are_not_given() {
        let mut ids = ids(&[(1, 4)]);
        for other in [CanisterId::from_u64(5).principal(), Principal::anonymous(), Principal::management_canister()] {
            assert_eq!(ids.allocate_specified(other), Err(IdError::NotHosted));
        }
        assert!(ids.hosts(CanisterId::from_u64(4)) && !ids.hosts(CanisterId::from_u64(0)));
    }
}
