//! Lists of entities that hold each at most once, so that all of them can be borrowed mutably side by side.

use bevy_ecs::entity::{Entity, UniqueEntityVec};

/// The list as bevy wants it for `iter_many_unique_mut`, in the same order.
/// Cost: O(n log n).
///
/// Panics: when an entity is listed twice.
pub fn unique(entities: Vec<Entity>) -> UniqueEntityVec {
    let mut sorted = entities.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "an entity is listed twice");
    // SAFETY: the assertion above has just shown that no two elements are equal.
    unsafe { UniqueEntityVec::from_vec_unchecked(entities) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "listed twice")]
    fn an_entity_listed_twice_stops_the_node() {
        let entity = Entity::from_raw_u32(7).unwrap();
        unique(vec![entity, Entity::from_raw_u32(8).unwrap(), entity]);
    }
}
