//! Gives memory back that checkpoints keep too.

use crate::checkpoint::Changed;
use cyclotron_execution::Program;
use cyclotron_routing::Directory;
use cyclotron_types::ids::CanisterId;
use cyclotron_world::prelude::*;
use std::collections::BTreeSet;
use std::ops::Bound;

/// How far the search for memory has come, and whether its last turn found little: then it takes it from canisters that are in use, too.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    last: Option<CanisterId>,
    found: bool,
    takes_all: bool,
}

/// Looks at up to `canisters_max` canisters, in the order of their ids and from the first again behind the last, and gives the memory of their saved
/// pages back. Those that changed since the last checkpoint are spared until a turn has found nothing else. Returns how many gave some.
pub(crate) fn release(world: &mut World, search: &mut Search, canisters_max: usize) -> usize {
    let from = search.last.map_or(Bound::Unbounded, Bound::Excluded);
    let directory = world.resource::<Directory>();
    let ids: Vec<_> = directory.range((from, Bound::Unbounded)).take(canisters_max).collect();
    let spared: BTreeSet<CanisterId> = match search.takes_all {
        true => BTreeSet::new(),
        false => ids.iter().map(|(id, _)| *id).filter(|id| world.resource::<Changed>().ids.contains(id)).collect(),
    };
    let mut released = 0;
    for (id, entity) in &ids {
        if spared.contains(id) {
            continue;
        }
        if let Some(mut program) = world.get_mut::<Program>(*entity) {
            released += usize::from(program.release_memory());
        }
    }
    search.found |= released > 0;
    search.last = ids.last().map(|(id, _)| *id);
    if ids.len() < canisters_max {
        // One turn is over.
        *search = Search { last: None, found: false, takes_all: !search.found };
    }
    released
}
