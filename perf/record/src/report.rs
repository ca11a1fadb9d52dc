//! What a recording holds, and what a replay of it did.

use cyclotron_storage::log::decode_batch;
use cyclotron_storage::{Frame, FrameKind};
use cyclotron_subnet::{JobName, Ran, RoundSet};
use cyclotron_types::ids::CanisterId;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a recording holds, counted as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Height of the first batch.
    pub first_height: Option<u64>,
    /// Height of the last batch.
    pub last_height: Option<u64>,
    /// Block time of the first batch, in nanoseconds since 1970.
    pub first_time: Option<u64>,
    /// Block time of the last batch.
    pub last_time: Option<u64>,
    /// Batches.
    pub rounds: u64,
    /// Ingress messages in them.
    pub ingress_messages: u64,
    /// Bytes of their arguments.
    pub ingress_bytes: u64,
    /// Most ingress messages in one batch.
    pub ingress_in_one_round_max: u64,
    /// Batches at which a checkpoint was made.
    pub checkpoints: u64,
    /// Certified roots, one for each round whose end was recorded.
    pub roots: u64,
    /// State hashes.
    pub state_hashes: u64,
    /// Starts of programs that made the rounds.
    pub programs: u64,
    /// Frames that say what they are and are not: no replay takes them.
    pub malformed: u64,
}

impl Contents {
    /// Counts a frame.
    pub fn add(&mut self, frame: &Frame) {
        match frame.kind {
            FrameKind::Batch => {
                let Some(batch) = decode_batch(frame.height, &frame.content) else {
                    self.malformed += 1;
                    return;
                };
                let ingress = batch.ingress.len() as u64;
                self.first_height.get_or_insert(frame.height);
                self.first_time.get_or_insert(batch.time.0);
                (self.last_height, self.last_time) = (Some(frame.height), Some(batch.time.0));
                self.rounds += 1;
                self.ingress_messages += ingress;
                self.ingress_bytes += batch.ingress.iter().map(|ingress| ingress.arg.len() as u64).sum::<u64>();
                self.ingress_in_one_round_max = self.ingress_in_one_round_max.max(ingress);
                self.checkpoints += u64::from(batch.checkpoint);
            }
            FrameKind::Root => self.roots += 1,
            FrameKind::StateHash => self.state_hashes += 1,
            FrameKind::Program => self.programs += 1,
            _ => self.malformed += 1,
        }
    }

    /// Time between the first and the last batch, in seconds of the recorded subnet.
    pub fn recorded_seconds(&self) -> f64 {
        match (self.first_time, self.last_time) {
            (Some(first), Some(last)) => Duration::from_nanos(last.saturating_sub(first)).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// Times of one stage over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageTimes {
    /// The stage.
    pub stage: &'static str,
    /// All rounds together, in seconds.
    pub seconds: f64,
    /// Median of the rounds, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 rounds do not exceed, in microseconds.
    pub p99_us: f64,
    /// The longest, in microseconds.
    pub max_us: f64,
}

impl StageTimes {
    /// The stages of a round in their order, and their names in reports.
    pub(crate) const STAGES: [(RoundSet, &'static str); 6] = [
        (RoundSet::TimeOut, "time_out"),
        (RoundSet::Induct, "induct"),
        (RoundSet::Execute, "execute"),
        (RoundSet::Checkpoint, "checkpoint"),
        (RoundSet::Sync, "sync"),
        (RoundSet::Certify, "certify"),
    ];

    /// The stages, and last the whole round.
    pub(crate) fn of(rounds: &[[Duration; Self::STAGES.len()]]) -> Vec<Self> {
        let stages = Self::STAGES.iter().enumerate();
        let mut times: Vec<Self> =
            stages.map(|(at, (_, name))| Self::over(name, rounds.iter().map(|round| round[at]).collect())).collect();
        times.push(Self::over("round", rounds.iter().map(|round| round.iter().sum()).collect()));
        times
    }

    fn over(stage: &'static str, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let micros = |duration: Option<&Duration>| duration.map_or(0.0, |d| d.as_secs_f64() * 1e6);
        let at = |percent: usize| micros(times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))));
        Self {
            stage,
            seconds: times.iter().sum::<Duration>().as_secs_f64(),
            p50_us: at(50),
            p99_us: at(99),
            max_us: micros(times.last()),
        }
    }
}

/// What one method of a canister did, over all rounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodTotals {
    /// The canister; `aaaaa-aa` for the management canister.
    pub canister: String,
    /// The method; a callback or a task in parentheses.
    pub method: String,
    /// Messages that ended.
    pub messages: u64,
    /// Slices that ran: more than messages where some were too long for one.
    pub slices: u64,
    /// Instructions as they are charged.
    pub instructions: u64,
    /// Most instructions of one slice.
    pub instructions_in_one_slice_max: u64,
}

/// Adds up what ran.
#[derive(Debug, Default)]
pub(crate) struct Methods(BTreeMap<(CanisterId, JobName), MethodTotals>);

impl Methods {
    /// Adds a slice.
    pub fn add(&mut self, ran: Ran) {
        let Ran { canister, name, instructions, finished } = ran;
        let totals = self.0.entry((canister, name)).or_insert_with_key(|(canister, name)| MethodTotals {
            canister: canister.to_string(),
            method: name.to_string(),
            messages: 0,
            slices: 0,
            instructions: 0,
            instructions_in_one_slice_max: 0,
        });
        totals.messages += u64::from(finished);
        totals.slices += 1;
        totals.instructions += instructions.0;
        totals.instructions_in_one_slice_max = totals.instructions_in_one_slice_max.max(instructions.0);
    }

    /// All of them, most instructions first.
    pub fn sorted(self) -> Vec<MethodTotals> {
        let mut methods: Vec<_> = self.0.into_values().collect();
        methods.sort_by_key(|totals| std::cmp::Reverse(totals.instructions));
        methods
    }
}

/// One round, for charts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundFacts {
    /// Its height.
    pub height: u64,
    /// Seconds of its stages, in their order.
    pub stages: [f64; StageTimes::STAGES.len()],
    /// Slices of messages and tasks that ran.
    pub slices: u64,
    /// Their instructions.
    pub instructions: u64,
    /// Messages that waited in queues when it had ended.
    pub queued: u64,
}

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was run.
    pub contents: Contents,
    /// Canisters at the end.
    pub canisters: u64,
    /// Messages and tasks executed.
    pub executed: u64,
    /// Memory of all canisters at the end, as it is charged.
    pub memory_bytes: u64,
    /// Bytes behind the last whole frame of the recording.
    pub left_over_bytes: u64,
    /// Height of the last round.
    pub height: u64,
    /// All of it, reading included, in seconds.
    pub seconds: f64,
    /// Rounds alone, in seconds.
    pub round_seconds: f64,
    /// Stages, and last the whole round.
    pub stages: Vec<StageTimes>,
    /// Methods, most instructions first.
    pub methods: Vec<MethodTotals>,
    /// Each round, for charts.
    #[serde(skip)]
    pub timeline: Vec<RoundFacts>,
    /// Certified root of the last round.
    #[serde(serialize_with = "as_hex")]
    pub root: [u8; 32],
    /// State hash after the last round.
    #[serde(serialize_with = "as_hex")]
    pub state_hash: [u8; 32],
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_rounds() {
        let rounds: Vec<_> = (1..=200).rev().map(|us| [Duration::from_micros(us); 6]).collect();
        let times = StageTimes::of(&rounds);
        assert_eq!(times.len(), 7);
        let execute = times[2];
        assert_eq!((execute.stage, execute.p50_us, execute.p99_us, execute.max_us), ("execute", 101.0, 199.0, 200.0));
        let round = times[6];
        assert_eq!((round.stage, round.max_us), ("round", 1_200.0));
        assert!((round.seconds - 6.0 * 0.0201).abs() < 1e-9);
        let none = StageTimes::of(&[]);
        assert_eq!((none[6].seconds, none[6].p99_us), (0.0, 0.0));
    }
}
