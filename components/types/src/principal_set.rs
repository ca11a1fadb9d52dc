//! A few principals, shared.
//!
//! Enters: principals in any order. Leaves: the same, ascending, once each. Never here: an order that depends on insertion.

use ic_principal::Principal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An ordered set of principals that changes seldom and is copied often: 30 bytes each, in one piece that copies share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrincipalSet(Arc<[Principal]>);

impl PrincipalSet {
    /// Whether the principal is in the set. Cost: O(log n).
    pub fn contains(&self, principal: &Principal) -> bool {
        self.0.binary_search(principal).is_ok()
    }

    /// Adds a principal; false when it was there already. Cost: a copy of the set.
    pub fn insert(&mut self, principal: Principal) -> bool {
        let Err(at) = self.0.binary_search(&principal) else { return false };
        let (before, behind) = self.0.split_at(at);
        self.0 = before.iter().chain([&principal]).chain(behind).copied().collect();
        true
    }

    /// The principals, ascending.
    pub fn iter(&self) -> std::slice::Iter<'_, Principal> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for PrincipalSet {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl FromIterator<Principal> for PrincipalSet {
    fn from_iter<I: IntoIterator<Item = Principal>>(principals: I) -> Self {
        let mut principals: Vec<Principal> = principals.into_iter().collect();
        principals.sort_unstable();
        principals.dedup();
        Self(principals.into())
    }
}

impl<const N: usize> From<[Principal; N]> for PrincipalSet {
    fn from(principals: [Principal; N]) -> Self {
        principals.into_iter().collect()
    }
}

impl From<&BTreeSet<Principal>> for PrincipalSet {
    fn from(principals: &BTreeSet<Principal>) -> Self {
        Self(principals.iter().copied().collect())
    }
}

impl<'a> IntoIterator for &'a PrincipalSet {
    type Item = &'a Principal;
    type IntoIter = std::slice::Iter<'a, Principal>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// As a list, like any set.
impl Serialize for PrincipalSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for PrincipalSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<Principal>::deserialize(from).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_that_of_a_tree_whatever_the_order() {
        let principal = |n: u8| Principal::from_slice(&[n, 1]);
        let numbers = [7, 3, 200, 3, 0, 7];
        let tree: BTreeSet<Principal> = numbers.map(principal).into();
        let mut grown = PrincipalSet::default();
        assert!(grown.is_empty());
        let new: Vec<bool> = numbers.map(|n| grown.insert(principal(n))).into();
        assert_eq!(new, [true, true, true, false, true, false]);
        for set in [grown, numbers.map(principal).into(), PrincipalSet::from(&tree)] {
            assert!(set.iter().eq(&tree) && (&set).into_iter().eq(&tree));
            assert_eq!(set.len(), 4);
            assert!(set.contains(&principal(200)) && !set.contains(&principal(1)));
        }
    }
}
