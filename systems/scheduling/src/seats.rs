//! Which idle instances keep their seats.
//!
//! Never here: a result. A canister whose instance lost its seat runs as before, after a mapping more.

use cyclotron_execution::Program;
use cyclotron_routing::{CurrentRound, Directory, Touched};
use cyclotron_types::ids::CanisterId;
use cyclotron_world::prelude::*;
use std::collections::{BTreeSet, VecDeque};

/// Canisters that keep their seats, longest without being looked at first.
#[derive(Clone, Debug, Default, Resource)]
pub struct Parked {
    order: VecDeque<CanisterId>,
    known: BTreeSet<CanisterId>,
}

/// While few seats are left, takes those of canisters that did not run in this round, in the order of a clock: who ran goes to the end.
/// Cost: O(touched log parked), and O(parked) when seats are scarce.
pub fn free_seats(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    touched: Res<Touched>,
    mut parked: ResMut<Parked>,
    mut programs: Query<&mut Program>,
) {
    let parked = &mut *parked;
    parked.order.extend(touched.0.iter().copied().filter(|id| parked.known.insert(*id)));
    for _ in 0..parked.order.len() {
        if !round.0.machine.seats_are_scarce() {
            return;
        }
        let Some(id) = parked.order.pop_front() else { return };
        if touched.0.contains(&id) {
            parked.order.push_back(id);
            continue;
        }
        parked.known.remove(&id);
        if let Some(mut program) = directory.entity(id).and_then(|entity| programs.get_mut(entity).ok())
            && let Program::Installed(installed) = &mut *program
        {
            installed.unpark();
        }
    }
}
