//! The checker of cycles: everything in the world plus everything burned is what was minted.

use crate::management::Deferred;
use cyclotron_execution::Paused;
use cyclotron_execution::management::PendingInstall;
use cyclotron_routing::{Directory, ManagementInbox, Outbox, Tally};
use cyclotron_scheduling::Installing;
use cyclotron_types::canister::{CallContexts, CyclesBalance, InputQueue, ReservedBalance, RunState, StopWaiter};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::Message;
use cyclotron_types::units::Cycles;
use cyclotron_world::prelude::*;
use std::fmt;

/// Cycles came from nowhere, or went there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced {
    /// Held by canisters, messages and calls.
    pub held: Cycles,
    /// Burned since genesis.
    pub burned: Cycles,
    /// Minted since genesis.
    pub minted: Cycles,
}

impl fmt::Display for Unbalanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cycles held and {} burned are not the {} minted", self.held, self.burned, self.minted)
    }
}

fn carried(message: &Message) -> Cycles {
    match message {
        Message::Request(request) => request.payment,
        Message::Response(response) => response.refund,
        Message::Ingress(_) | Message::Vacant => Cycles::ZERO,
    }
}

/// Cycles that a canister, its calls and its waiting messages hold.
fn held_by(world: &World, id: CanisterId) -> Cycles {
    let entity = world.resource::<Directory>().entity(id).expect("a listed canister exists");
    let balance = world.get::<CyclesBalance>(entity).map_or(Cycles::ZERO, |b| b.0);
    let reserved = world.get::<ReservedBalance>(entity).map_or(Cycles::ZERO, |b| b.0);
    let calls = world.get::<CallContexts>(entity).expect("a canister has call contexts");
    let available: Cycles = calls.contexts.values().map(|c| c.available).sum();
    let prepaid: Cycles =
        calls.callbacks.values().map(|c| c.prepaid_execution.saturating_add(c.prepaid_transmission)).sum();
    let pool = world.resource::<Pool<Message>>();
    let queue = world.get::<InputQueue>(entity).expect("a canister has a queue");
    let queued: Cycles =
        queue.messages.iter().filter_map(|s| world.get::<Message>(pool.entity(s.0)?)).map(carried).sum();
    let paused = world.get::<Paused>(entity).map_or(Cycles::ZERO, Paused::cycles);
    let stopping: Cycles = match world.get::<RunState>(entity) {
        Some(RunState::Stopping(waiters)) => waiters
            .iter()
            .map(|waiter| match waiter {
                StopWaiter::Canister { payment, .. } => *payment,
                StopWaiter::Ingress { .. } => Cycles::ZERO,
            })
            .sum(),
        _ => Cycles::ZERO,
    };
    [balance, reserved, available, prepaid, queued, paused, stopping].into_iter().sum()
}

/// Sums all cycles in the world. Cost: a scan over everything, for tests and operators' checks.
pub fn check_cycles(world: &World) -> Result<(), Unbalanced> {
    let canisters: Cycles = world.resource::<Directory>().iter().map(|(id, _)| held_by(world, id)).sum();
    let outbox: Cycles = world
        .resource::<Outbox>()
        .0
        .iter()
        .map(|outgoing| match outgoing {
            cyclotron_execution::Outgoing::Request(request) => request.payment,
            cyclotron_execution::Outgoing::Response(response) => response.refund,
        })
        .sum();
    let inbox: Cycles = world.resource::<ManagementInbox>().0.iter().map(carried).sum();
    let Deferred { next_round, busy } = world.resource::<Deferred>();
    let deferred: Cycles = next_round.iter().chain(busy.values().flatten()).map(|call| call.payment).sum();
    let installs: Cycles = world.resource::<Installing>().0.values().map(PendingInstall::cycles).sum();
    let held: Cycles = [canisters, outbox, inbox, deferred, installs].into_iter().sum();
    let Tally { minted, burned, .. } = *world.resource::<Tally>();
    if held.saturating_add(burned) == minted { Ok(()) } else { Err(Unbalanced { held, burned, minted }) }
}
