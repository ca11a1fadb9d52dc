//! Keys that were taken apart lately: a table of fixed size in which a new key takes the place of an older one.
//!
//! Never here: anything that changes a verdict. What is kept is what would be computed again.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where one key is kept, if any is.
type Place<K, V> = Mutex<Option<(K, V)>>;

/// A key has one place, by a hash that nobody outside knows; each place has a lock of its own.
pub(crate) struct Cache<K, V> {
    places: OnceLock<(RandomState, Vec<Place<K, V>>)>,
    count: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Cache<K, V> {
    /// A table with room for `count` keys, allocated when the first is kept.
    pub(crate) const fn new(count: usize) -> Self {
        Self { places: OnceLock::new(), count }
    }

    fn place(&self, key: &K) -> &Place<K, V> {
        let (hasher, places) =
            self.places.get_or_init(|| (RandomState::new(), (0..self.count).map(|_| Mutex::new(None)).collect()));
        &places[hasher.hash_one(key) as usize % self.count]
    }

    /// What is kept of this key.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let place = self.place(key).lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().filter(|(of, _)| of == key).map(|(_, value)| value.clone())
    }

    /// Keeps a value.
    pub(crate) fn insert(&self, key: &K, value: V) {
        *self.place(key).lock().unwrap_or_else(PoisonError::into_inner) = Some((*key, value));
    }

    /// What is kept of this key, or what `make` makes of it, which is kept if it is something.
    pub(crate) fn get_or_insert(&self, key: &K, make: impl FnOnce() -> Option<V>) -> Option<V> {
        self.get(key).or_else(|| make().inspect(|value| self.insert(key, value.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_own_value_or_none_however_many_there_are() {
        let cache: Cache<u64, u64> = Cache::new(64);
        for key in 0..1_000 {
            assert_eq!(cache.get(&key), None);
            assert_eq!(cache.get_or_insert(&key, || Some(key * 2)), Some(key * 2));
            assert_eq!(cache.get_or_insert(&key, || unreachable!("it is kept")), Some(key * 2));
        }
        let kept = (0..1_000).filter(|key| cache.get(key).inspect(|value| assert_eq!(*value, key * 2)).is_some());
        assert!((2..=64).contains(&kept.count()));
        assert_eq!(cache.get_or_insert(&5_000, || None), None);
        assert_eq!(cache.get(&5_000), None);
    }
}
