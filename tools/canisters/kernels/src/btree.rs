//! The standard library's ordered map: allocation, pointers, short copies inside nodes.

use crate::{Random, fold};
use std::collections::BTreeMap;

/// `n` thousand inserts, lookups, a walk, and half of it removed.
pub fn run(n: u32) -> u64 {
    let steps = n * 1_000;
    let mut random = Random::new(11);
    let mut map = BTreeMap::new();
    for step in 0..steps {
        map.insert(random.next() >> 40, u64::from(step));
    }
    let mut sum = 0;
    for _ in 0..steps {
        if let Some((key, value)) = map.range(random.next() >> 40..).next() {
            sum = fold(sum, key ^ value);
        }
    }
    for (key, value) in &map {
        sum = fold(sum, key.wrapping_add(*value));
    }
    let mut random = Random::new(11);
    for _ in 0..steps / 2 {
        map.remove(&(random.next() >> 40));
    }
    fold(sum, map.len() as u64)
}
