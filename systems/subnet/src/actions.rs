//! What operators and tests do to the world besides messages: applied at the beginning of a round, in the batch's order.
//!
//! Enters: the batch's actions. Leaves: changed canisters, and for each action what it did or why it did nothing. Never here: an action that does
//! a part of what it is to do.

use crate::management::in_context;
use cyclotron_execution::LowMemoryHook;
use cyclotron_execution::management::fork_canister;
use cyclotron_routing::{ActiveSet, Directory, Input, Tally, Touched};
use cyclotron_types::action::{ActionDone, ActionRefused, OperatorAction};
use cyclotron_types::canister::{CyclesBalance, InputQueue};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::Cycles;
use cyclotron_world::prelude::*;

/// What became of the round's actions.
#[derive(Debug, Default, Resource)]
pub struct Acted(pub Vec<Result<ActionDone, ActionRefused>>);

/// Applies what an operator or test asked for.
pub fn apply_actions(world: &mut World) {
    for action in std::mem::take(&mut world.resource_mut::<Input>().0.actions) {
        let outcome = match action {
            OperatorAction::AddCycles { canister, amount } => add_cycles(world, canister, amount),
            OperatorAction::ForkCanister { source, target } => fork(world, source, target),
        };
        world.resource_mut::<Acted>().0.push(outcome);
    }
}

fn mint(world: &mut World, cycles: Cycles) {
    let mut tally = world.resource_mut::<Tally>();
    tally.minted = tally.minted.saturating_add(cycles);
}

fn add_cycles(world: &mut World, canister: CanisterId, amount: Cycles) -> Result<ActionDone, ActionRefused> {
    let entity = world.resource::<Directory>().entity(canister).ok_or(ActionRefused::NoSuchCanister(canister))?;
    let mut balance = world.get_mut::<CyclesBalance>(entity).expect("a canister has a balance");
    let lost = balance.0.put(amount);
    let balance = balance.0;
    mint(world, amount.saturating_sub(lost));
    world.resource_mut::<Touched>().0.insert(canister);
    Ok(ActionDone::CyclesAdded { balance })
}

fn fork(world: &mut World, source: CanisterId, target: Option<CanisterId>) -> Result<ActionDone, ActionRefused> {
    let forked = in_context(world, |context| fork_canister(context, source, target))?;
    mint(world, forked.minted);
    world.resource_mut::<Touched>().0.insert(forked.canister);
    // Tasks that wait for the canister wait for its copy too.
    let directory = world.resource::<Directory>();
    let entity_of = |id| directory.entity(id).expect("both exist");
    let (from, to) = (entity_of(source), entity_of(forked.canister));
    let ix = directory.ix(forked.canister).expect("it exists");
    let tasks = world.get::<InputQueue>(from).expect("a canister has a queue").tasks.clone();
    if !tasks.is_empty() || world.get::<LowMemoryHook>(to) == Some(&LowMemoryHook::Ready) {
        world.resource_mut::<ActiveSet>().insert(forked.canister, ix);
    }
    world.get_mut::<InputQueue>(to).expect("a canister has a queue").tasks = tasks;
    Ok(ActionDone::Forked { canister: forked.canister })
}
