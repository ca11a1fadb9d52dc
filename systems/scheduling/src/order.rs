//! Who goes first: compute allocations that have saved up, then whoever has waited longest. Long messages have cores of their own, so
//! that they come to an end and hold nobody up.

use cyclotron_execution::Paused;
use cyclotron_execution::management::PendingInstall;
use cyclotron_routing::{ActiveSet, CurrentRound, Directory};
use cyclotron_types::canister::{Priority, SharedSettings};
use cyclotron_types::ids::{CanisterId, CanisterIx};
use cyclotron_types::units::{Bytes, Instructions};
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
    /// Memory that each core may take from the subnet in the next step: nobody's sum exceeds what is free, whatever runs side by side.
    pub memory_each: Bytes,
    /// Canisters that took memory in the last step and are to be counted anew.
    pub grown: BTreeSet<CanisterId>,
    /// What is left of each core's budget; spent when not positive.
    pub left: Vec<i64>,
    /// The core that each canister was dealt to in this round.
    pub dealt: BTreeMap<CanisterId, usize>,
    /// Cores of this round, the first ones, that long messages have for themselves.
    reserved: usize,
    /// Canisters dealt to the other cores so far.
    turn: usize,
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
            memory_each: Bytes::ZERO,
            grown: BTreeSet::new(),
            left,
            dealt: BTreeMap::new(),
            reserved: 0,
            turn: 0,
            rested: BTreeSet::new(),
            chosen,
        }
    }

    /// Puts a canister on its core, or on the one that `deal` says if it has none yet, unless that core's budget is spent.
    fn choose(&mut self, id: CanisterId, ix: CanisterIx, deal: impl FnOnce(&Self) -> usize) {
        let core = match self.dealt.get(&id) {
            Some(core) => *core,
            None => {
                let core = deal(self);
                self.turn += 1;
                self.dealt.insert(id, core);
                core
            }
        };
        if self.left[core] > 0 {
            self.chosen[core].push((id, ix));
        }
    }
}

/// Fills the budgets and forgets the last round's dealing.
pub fn begin_round(mut cores: ResMut<Cores>) {
    let budget = i64::try_from(cores.round_instructions.0).unwrap_or(i64::MAX);
    cores.left.fill(budget);
    cores.dealt.clear();
    cores.turn = 0;
    cores.rested.clear();
}

/// How early a canister has its turn, the smallest first; ids make the order total.
type Rank = (Reverse<i64>, u64, CanisterId);

/// The rank of a canister with a new message: then who had a whole turn longest ago.
fn rank_new(id: CanisterId, priority: &Priority) -> Rank {
    (saved_up(priority), priority.last_full_round, id)
}

/// The rank of a canister in a long message: then whose message is the oldest, so that each comes to its end.
pub(crate) fn rank_long(id: CanisterId, priority: &Priority) -> Rank {
    (saved_up(priority), priority.long_since, id)
}

fn saved_up(priority: &Priority) -> Reverse<i64> {
    Reverse(priority.accumulated.max(0) / FULL_CORE)
}

/// Cores that long messages have for themselves: what their canisters' allocations and equal parts of the rest come to, rounded up. One
/// core at least is left to new messages.
fn reserved_cores(cores: usize, long: usize, new: usize, long_percent: u64, all_percent: u64) -> usize {
    let (total, canisters) = (cores as u64 * FULL_CORE as u64, (long + new) as u64);
    let equal_part = total.saturating_sub(all_percent) / canisters.max(1);
    let share = long_percent.saturating_add(equal_part * long as u64).div_ceil(FULL_CORE as u64);
    usize::try_from(share).unwrap_or(usize::MAX).min(cores.saturating_sub(1)).min(long)
}

/// Deals the canisters that have work to cores whose budget is not spent. A canister stays on its core for the round.
///
/// The first long messages have a core each, as many as is their share; new ones go over the other cores; the remaining long ones go
/// over all, last. Cost: O(active log active). Source: dfinity/ic `execution_environment/src/scheduler/round_schedule.rs`.
pub fn choose_canisters(
    active: Res<ActiveSet>,
    directory: Res<Directory>,
    installing: Res<Installing>,
    mut cores: ResMut<Cores>,
    canisters: Query<(&Priority, &Paused, &SharedSettings)>,
) {
    let cores = &mut *cores;
    cores.chosen.iter_mut().for_each(Vec::clear);
    let (mut long, mut new) = (Vec::new(), Vec::new());
    let (mut long_percent, mut all_percent) = (0, 0u64);
    for (id, ix) in active.iter() {
        if cores.rested.contains(&id) || installing.0.contains_key(&id) {
            continue;
        }
        let found = directory.entity_at(ix).and_then(|entity| canisters.get(entity).ok());
        let Some((priority, paused, settings)) = found else { continue };
        all_percent = all_percent.saturating_add(settings.compute_allocation);
        if matches!(paused, Paused::None) {
            new.push((rank_new(id, priority), ix));
        } else {
            long_percent += settings.compute_allocation;
            long.push((rank_long(id, priority), ix));
        }
    }
    long.sort_unstable_by_key(|(rank, _)| *rank);
    new.sort_unstable_by_key(|(rank, _)| *rank);
    if cores.dealt.is_empty() {
        cores.reserved = reserved_cores(cores.count, long.len(), new.len(), long_percent, all_percent);
    }
    let (first, last) = long.split_at(cores.reserved.min(long.len()));
    for (core, &((_, _, id), ix)) in first.iter().enumerate() {
        cores.choose(id, ix, |_| core);
    }
    for &((_, _, id), ix) in &new {
        cores.choose(id, ix, |cores| cores.reserved + cores.turn % (cores.count - cores.reserved));
    }
    for &((_, _, id), ix) in last {
        cores.choose(id, ix, |cores| cores.turn % cores.count);
    }
}

/// Gives canisters that still wait their compute allocation's share, and takes a full core from those that used saved-up priority.
pub fn end_round(
    round: Res<CurrentRound>,
    active: Res<ActiveSet>,
    directory: Res<Directory>,
    cores: Res<Cores>,
    mut canisters: Query<(&mut Priority, &SharedSettings)>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_have_their_share_of_cores_and_leave_one_to_new_ones() {
        let check = |long, new, expected| assert_eq!(reserved_cores(4, long, new, 0, 0), expected, "{long} and {new}");
        check(0, 5, 0);
        check(1, 0, 1);
        check(1, 100, 1);
        check(8, 1, 3);
        check(8, 0, 3);
        check(2, 2, 2);
        check(4, 12, 1);
        assert_eq!(reserved_cores(1, 3, 0, 0, 0), 0);
        // An allocation buys a whole core whatever others wait.
        assert_eq!(reserved_cores(4, 2, 98, 150, 150), 2);
    }
}
