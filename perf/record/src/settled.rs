//! Slices of messages, held back until it is known whether they count.
//!
//! Enters: slices as they ran. Leaves: those of messages that ended, in their order. A message that is given up, as all are at a checkpoint that are not at
//! their end, starts over at the same charge: its slices before were run, and not charged.

use cyclotron_subnet::Ran;
use cyclotron_types::ids::CanisterId;
use std::collections::BTreeMap;

/// Holds slices back, with the number of their round. A canister has one message at a time; of calls of the management canister all slices count.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    waiting: BTreeMap<CanisterId, Vec<(usize, Ran)>>,
    given_up: u64,
}

impl Settled {
    /// Takes a slice, and gives out those that count now.
    pub fn add(&mut self, round: usize, ran: Ran) -> Vec<(usize, Ran)> {
        let (canister, again, finished) = (ran.canister, ran.again, ran.finished);
        if finished && !again && !self.waiting.contains_key(&canister) || canister == CanisterId::MANAGEMENT {
            return vec![(round, ran)];
        }
        let waiting = self.waiting.entry(canister).or_default();
        if again {
            self.given_up += waiting.drain(..).map(|(_, ran)| ran.instructions.0).sum::<u64>();
        }
        waiting.push((round, ran));
        if finished { self.waiting.remove(&canister).unwrap_or_default() } else { Vec::new() }
    }

    /// Slices of messages that have not ended; and how many instructions were run in vain.
    pub fn end(self) -> (Vec<(usize, Ran)>, u64) {
        (self.waiting.into_values().flatten().collect(), self.given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_subnet::{JobName, SliceCosts};
    use cyclotron_types::units::Instructions;
    use std::time::Duration;

    fn ran(canister: CanisterId, instructions: u64, again: bool, finished: bool) -> Ran {
        let name = JobName::Method("run".into());
        let (instructions, costs) = (Instructions(instructions), SliceCosts::default());
        Ran { canister, name, instructions, again, finished, time: Duration::ZERO, costs }
    }

    #[test]
    fn slices_before_a_message_starts_over_do_not_count() {
        let (one, other) = (CanisterId::from_u64(1), CanisterId::from_u64(2));
        let mut settled = Settled::default();
        let mut counted = Vec::new();
        for (round, ran) in [
            ran(one, 1, false, true),
            ran(one, 10, false, false),
            ran(other, 1_000, false, false),
            ran(one, 20, true, false),
            ran(one, 30, true, false),
            ran(one, 40, false, true),
            ran(one, 2, false, true),
            ran(CanisterId::MANAGEMENT, 5, false, false),
            ran(other, 2_000, true, true),
        ]
        .into_iter()
        .enumerate()
        {
            counted.extend(settled.add(round, ran).into_iter().map(|(round, ran)| (round, ran.instructions.0)));
        }
        assert_eq!(counted, [(0, 1), (4, 30), (5, 40), (6, 2), (7, 5), (8, 2_000)]);
        settled.add(9, ran(one, 7, false, false));
        let (left, given_up) = settled.end();
        assert_eq!((left.len(), given_up), (1, 10 + 20 + 1_000));
    }
}
