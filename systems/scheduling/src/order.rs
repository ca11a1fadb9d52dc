//! Who goes first: suspended messages, then compute allocations that have saved up, then whoever has waited longest.

use cyclotron_execution::Paused;
use cyclotron_execution::management::PendingInstall;
use cyclotron_routing::{ActiveSet, CurrentRound, Directory};
use cyclotron_types::canister::{Priority, Settings};
use cyclotron_types::ids::{CanisterId, CanisterIx};
use cyclotron_types::units::Instructions;
use cyclotron_world::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Accumulated priority that buys a canister a place before all that have saved less: one full core for one round.
const FULL_CORE: i64 = 100;

/// Canisters whose code is being installed: the management canister runs them, nobody else.
#[derive(Clone, Debug, Default, Resource)]
pub struct Installing(pub BTreeMap<CanisterId, PendingInstall>);

/// The scheduler cores of this round.
#[derive(Clone, Debug, Resource)]
pub struct Cores {
    /// Cores by the subnet's configuration. PROTOCOL A5.
    pub count: usize,
    /// Instructions of each core in a round.
    pub round_instructions: Instructions,
    /// Instructions counted for each message besides its own.
    pub message_overhead: Instructions,
    /// Suspended messages that may stay suspended at the end of a round.
    pub paused_max: usize,
    /// What is left of each core's budget; spent when not positive.
    pub left: Vec<i64>,
    /// The core that each canister was dealt to in this round.
    pub dealt: BTreeMap<CanisterId, usize>,
    /// Canisters that were suspended in this round: one slice a round, so that others have their turn.
    pub rested: BTreeSet<CanisterId>,
    /// The canisters of the next step, core by core.
    pub chosen: Vec<Vec<(CanisterId, CanisterIx)>>,
}

impl Cores {
    /// Cores with a full budget.
    pub fn new(
        count: usize,
        round_instructions: Instructions,
        message_overhead: Instructions,
        paused_max: usize,
    ) -> Self {
        let left = vec![0; count];
        let chosen = vec![Vec::new(); count];
        Self {
            count,
            round_instructions,
            message_overhead,
            paused_max,
            left,
            dealt: BTreeMap::new(),
            rested: BTreeSet::new(),
            chosen,
        }
    }
}

/// Fills the budgets and forgets the last round's dealing.
pub fn begin_round(mut cores: ResMut<Cores>) {
    let budget = i64::try_from(cores.round_instructions.0).unwrap_or(i64::MAX);
    cores.left.fill(budget);
    cores.dealt.clear();
    cores.rested.clear();
}

/// Deals the canisters that have work to cores whose budget is not spent. A canister stays on its core for the round.
/// Cost: O(active log active).
pub fn choose_canisters(
    active: Res<ActiveSet>,
    directory: Res<Directory>,
    installing: Res<Installing>,
    mut cores: ResMut<Cores>,
    canisters: Query<(&Priority, &Paused)>,
) {
    let cores = &mut *cores;
    cores.chosen.iter_mut().for_each(Vec::clear);
    let mut order: Vec<_> = active
        .iter()
        .filter(|(id, _)| !cores.rested.contains(id) && !installing.0.contains_key(id))
        .filter_map(|(id, ix)| {
            let (priority, paused) = canisters.get(directory.entity_at(ix)?).ok()?;
            let long = !matches!(paused, Paused::None);
            // A smaller key goes first; ids make the order total.
            let key = (Reverse(long), Reverse(priority.accumulated.max(0) / FULL_CORE), priority.last_full_round, id);
            Some((key, ix))
        })
        .collect();
    order.sort_unstable_by_key(|(key, _)| *key);
    for ((_, _, _, id), ix) in order {
        let next = cores.dealt.len() % cores.count;
        let core = *cores.dealt.entry(id).or_insert(next);
        if cores.left[core] > 0 {
            cores.chosen[core].push((id, ix));
        }
    }
}

/// Gives canisters that still wait their compute allocation's share, and takes a full core from those that used saved-up priority.
pub fn end_round(
    round: Res<CurrentRound>,
    active: Res<ActiveSet>,
    directory: Res<Directory>,
    cores: Res<Cores>,
    mut canisters: Query<(&mut Priority, &Settings)>,
) {
    for &id in cores.dealt.keys() {
        let Some((mut priority, settings)) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) else {
            continue;
        };
        let share = i64::try_from(settings.compute_allocation).unwrap_or(FULL_CORE);
        if priority.last_full_round == round.0.height.0 {
            priority.accumulated = (priority.accumulated + share - FULL_CORE).max(0);
        } else if active.contains(id) {
            priority.accumulated += share;
        }
    }
}
