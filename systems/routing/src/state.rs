//! What the rooms of a round pass to each other: resources of the Replicated world.

use crate::queues::QueueFull;
use bevy_ecs::resource::Resource;
use cyclotron_execution::management::Line;
use cyclotron_execution::{Outgoing, RoundEnv};
use cyclotron_types::batch::Batch;
use cyclotron_types::ids::{CallbackId, CanisterId, MessageId};
use cyclotron_types::message::Message;
use cyclotron_types::units::{Cycles, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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

/// How many calls wait for the management canister in each line, tried already or not.
#[derive(Clone, Debug, Default, Resource)]
pub struct ManagementLines(BTreeMap<Line, u32>);

impl ManagementLines {
    /// Takes a place in a line.
    /// Errors: [`QueueFull`] when `max` calls wait there.
    pub fn enter(&mut self, line: Line, max: u32) -> Result<(), QueueFull> {
        let waiting = self.0.get(&line).copied().unwrap_or(0);
        if waiting >= max {
            return Err(QueueFull { waiting });
        }
        self.0.insert(line, waiting + 1);
        Ok(())
    }

    /// Gives the place of an executed call up.
    ///
    /// Panics: when nobody waits in the line.
    pub fn leave(&mut self, line: Line) {
        let waiting = self.0.get_mut(&line).expect("a call that waits has a place");
        *waiting -= 1;
        if *waiting == 0 {
            self.0.remove(&line);
        }
    }
}

/// Canisters whose certified facts may have changed in this round.
#[derive(Clone, Debug, Default, Resource)]
pub struct Touched(pub BTreeSet<CanisterId>);

/// Canisters that are stopping and have no open call left: they are stopped before the round goes on.
#[derive(Clone, Debug, Default, Resource)]
pub struct Stopping(pub BTreeSet<CanisterId>);

/// Ingress messages answered in this round.
#[derive(Clone, Debug, Default, Resource)]
pub struct Answered(pub Vec<MessageId>);

/// What is counted since genesis: cycles that entered or left the world (everything else is conserved), and messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Resource, Serialize, Deserialize)]
pub struct Tally {
    /// Made out of nothing: provisional creation and top-ups, operator actions.
    pub minted: Cycles,
    /// Gone: fees, burns, balances of deleted canisters.
    pub burned: Cycles,
    /// Messages and tasks executed to their end, those of the management canister included.
    pub executed: u64,
}

/// Best-effort calls by the time at which the system answers them.
#[derive(Clone, Debug, Default, Resource)]
pub struct Deadlines {
    /// Calls without an answer yet.
    pub open: BTreeSet<(Time, CanisterId, CallbackId)>,
    /// Calls that the system has answered; their real response is still to come and brings only a refund.
    pub timed_out: BTreeSet<(CanisterId, CallbackId)>,
}
