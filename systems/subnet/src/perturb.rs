//! What may legally differ between two nodes, changed on purpose: tests run the same batches with it and without.
//!
//! Enters: a seed. Leaves: another order of cores, entities, archetypes and table rows. Never here: a fact that anybody may read.

use cyclotron_routing::Directory;
use cyclotron_scheduling::RunOrder;
use cyclotron_types::message::Message;
use cyclotron_world::prelude::*;
use sha2::{Digest, Sha256};

/// Says nothing; an entity that has it is in another archetype than one that has not.
#[derive(Component)]
struct Marker;

/// An entity that is nothing but in the way.
#[derive(Component)]
struct Filler;

/// Entities spawned by one call; about half of those that exist go at once. Places are given out anew only once more than 128 are free.
const FILLERS: usize = 512;

/// Moves canisters and message slots between archetypes, makes and removes entities, and sets the order in which cores run.
pub(crate) fn perturb(world: &mut World, seed: u64) {
    world.insert_resource(RunOrder(seed));
    let mut draws = 0u64;
    let mut coin = || {
        draws += 1;
        Sha256::digest([seed.to_be_bytes(), draws.to_be_bytes()].concat())[0] & 1 == 1
    };
    let directory = world.resource::<Directory>();
    let mut moved: Vec<Entity> = directory.iter().filter_map(|(_, ix)| directory.entity_at(ix)).collect();
    moved.extend(world.query_filtered::<Entity, With<Message>>().iter(world));
    for entity in moved {
        if coin() {
            world.entity_mut(entity).insert(Marker);
        } else {
            world.entity_mut(entity).remove::<Marker>();
        }
    }
    for _ in 0..FILLERS {
        if coin() {
            world.spawn((Filler, Marker));
        } else {
            world.spawn(Filler);
        }
    }
    // What goes leaves its places to whoever is spawned next.
    let fillers: Vec<Entity> = world.query_filtered::<Entity, With<Filler>>().iter(world).collect();
    for filler in fillers {
        if coin() {
            world.despawn(filler);
        }
    }
}
