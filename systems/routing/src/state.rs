//! What the rooms of a round pass to each other: resources of the Replicated world.

use bevy_ecs::resource::Resource;
use cyclotron_execution::{Outgoing, RoundEnv};
use cyclotron_types::batch::Batch;
use cyclotron_types::ids::{CallbackId, CanisterId, MessageId};
use cyclotron_types::message::{IngressStatus, Message};
use cyclotron_types::units::{Cycles, Time};
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};

/// The batch of this round. Systems take its lists; the rest stays.
#[derive(Clone, Debug, Resource)]
pub struct Input(pub Batch);

/// The round's environment, derived from the batch and the configuration.
#[derive(Clone, Debug, Resource)]
pub struct CurrentRound(pub RoundEnv);

/// Messages on their way, in the order in which they were sent.
#[derive(Clone, Debug, Default, Resource)]
pub struct Outbox(pub Vec<Outgoing>);

/// Calls to the management canister, oldest first.
#[derive(Clone, Debug, Default, Resource)]
pub struct ManagementInbox(pub VecDeque<Message>);

/// Canisters whose certified facts may have changed in this round.
#[derive(Clone, Debug, Default, Resource)]
pub struct Touched(pub BTreeSet<CanisterId>);

/// Canisters that are stopping and have no open call left: they are stopped before the round goes on.
#[derive(Clone, Debug, Default, Resource)]
pub struct Stopping(pub BTreeSet<CanisterId>);

/// Answers of this round.
#[derive(Clone, Debug, Default, Resource)]
pub struct Answered(pub Vec<(MessageId, IngressStatus)>);

/// Cycles that entered or left the world since genesis; everything else is conserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Resource, Serialize)]
pub struct Tally {
    /// Made out of nothing: provisional creation and top-ups, operator actions.
    pub minted: Cycles,
    /// Gone: fees, burns, balances of deleted canisters.
    pub burned: Cycles,
}

/// Best-effort calls by the time at which the system answers them.
#[derive(Clone, Debug, Default, Resource)]
pub struct Deadlines {
    /// Calls without an answer yet.
    pub open: BTreeSet<(Time, CanisterId, CallbackId)>,
    /// Calls that the system has answered; their real response is still to come and brings only a refund.
    pub timed_out: BTreeSet<(CanisterId, CallbackId)>,
}
