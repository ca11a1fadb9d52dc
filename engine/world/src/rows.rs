//! The stable index: small numbers that name entities for as long as the process lives.

use bevy_ecs::entity::Entity;

/// Rows of entities. A row number is reused after its entity is gone; it is never encoded and orders nothing.
#[derive(Debug, Default)]
pub struct Rows {
    entities: Vec<Option<Entity>>,
    free: Vec<u32>,
}

impl Rows {
    /// Gives the entity a row.
    ///
    /// Panics: beyond 2^32 rows.
    pub fn insert(&mut self, entity: Entity) -> u32 {
        match self.free.pop() {
            Some(row) => {
                self.entities[row as usize] = Some(entity);
                row
            }
            None => {
                let row = u32::try_from(self.entities.len()).expect("fewer than 2^32 rows");
                self.entities.push(Some(entity));
                row
            }
        }
    }

    /// The entity in a row, if there is one.
    pub fn get(&self, row: u32) -> Option<Entity> {
        self.entities.get(row as usize).copied().flatten()
    }

    /// Empties a row and returns what was in it.
    pub fn remove(&mut self, row: u32) -> Option<Entity> {
        let entity = self.entities.get_mut(row as usize)?.take()?;
        self.free.push(row);
        Some(entity)
    }

    /// Rows in use.
    pub fn len(&self) -> usize {
        self.entities.len() - self.free.len()
    }

    /// Whether no row is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_row_is_used_again_and_others_stay() {
        let (a, b, c) = (Entity::from_raw_u32(1), Entity::from_raw_u32(2), Entity::from_raw_u32(3));
        let mut rows = Rows::default();
        let (ra, rb) = (rows.insert(a.unwrap()), rows.insert(b.unwrap()));
        assert_eq!(rows.remove(ra), a);
        assert_eq!(rows.remove(ra), None);
        assert_eq!(rows.insert(c.unwrap()), ra);
        assert_eq!((rows.get(ra), rows.get(rb), rows.len()), (c, b, 2));
        assert_eq!(rows.get(99), None);
    }
}
