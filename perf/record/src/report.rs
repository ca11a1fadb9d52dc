//! What a recording holds, and what a replay of it did.

use crate::queries::QueryReport;
use crate::stacks::Stacks;
use cyclotron_storage::log::{Beginning, RecordedQuery, decode_batch, decode_left_out};
use cyclotron_storage::{Frame, FrameKind};
use cyclotron_subnet::{JobName, Ran, RoundSet};
use cyclotron_types::ids::CanisterId;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a recording holds, counted as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Height of the state that it begins behind, if it says so: of a checkpoint beside it.
    pub begins_behind: Option<u64>,
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
    /// Queries that were answered meanwhile; none if the recording is one of batches alone.
    pub queries: u64,
    /// Bytes of their arguments.
    pub query_bytes: u64,
    /// Queries that were answered meanwhile and not recorded, since more came than could be.
    pub queries_left_out: u64,
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
            FrameKind::Beginning if Beginning::decode(&frame.content).is_some() => {
                self.begins_behind = Some(frame.height);
            }
            FrameKind::Query => match RecordedQuery::decode(&frame.content) {
                Some(recorded) => {
                    self.queries += 1;
                    self.query_bytes += recorded.query.arg.len() as u64;
                }
                None => self.malformed += 1,
            },
            FrameKind::QueriesLeftOut => match decode_left_out(&frame.content) {
                Some(count) => self.queries_left_out = self.queries_left_out.saturating_add(count),
                None => self.malformed += 1,
            },
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

/// As what a method ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// As a message of a round, or a task.
    #[default]
    Message,
    /// As a query, beside rounds.
    Query,
}

/// What ran of one method or of one canister, over all rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Rounds in which something of it ran.
    pub rounds: u64,
    /// Messages that ended.
    pub messages: u64,
    /// Slices that ran: more than messages where some were too long for one.
    pub slices: u64,
    /// Instructions as they are charged.
    pub instructions: u64,
    /// Most instructions of one slice.
    pub instructions_in_one_slice_max: u64,
    /// Pages of heaps that messages changed, each message counting its own.
    pub pages: u64,
    /// Time of all slices on their threads, in seconds.
    pub seconds: f64,
    /// Median of the messages' times, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 messages do not exceed, in microseconds.
    pub p99_us: f64,
    /// The longest message, in microseconds.
    pub max_us: f64,
}

/// What one method of a canister did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodTotals {
    /// The canister; `aaaaa-aa` for the management canister.
    pub canister: String,
    /// The method; a callback or a task in parentheses.
    pub method: String,
    /// As what it ran.
    #[serde(default)]
    pub kind: Kind,
    /// What ran of it.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What all methods of a canister did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanisterTotals {
    /// The canister; `aaaaa-aa` for the management canister.
    pub canister: String,
    /// Its methods that ran.
    pub methods: u64,
    /// As what they ran: a canister that has both has two of these.
    pub kind: Kind,
    /// What ran of it.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Adds up what ran.
#[derive(Debug, Default)]
pub(crate) struct Methods {
    methods: BTreeMap<(Kind, CanisterId, JobName), Sum>,
    canisters: BTreeMap<(Kind, CanisterId), Sum>,
}

/// What ran of one method or canister so far.
#[derive(Debug, Default)]
struct Sum {
    totals: Totals,
    time: Duration,
    /// Of messages that have ended.
    messages: Spread,
    /// Of slices of a message that has not.
    unfinished: Duration,
    last_round: Option<usize>,
}

impl Sum {
    fn add(&mut self, round: usize, ran: &Ran) {
        let totals = &mut self.totals;
        totals.rounds += u64::from(self.last_round.replace(round) != Some(round));
        totals.messages += u64::from(ran.finished);
        totals.slices += 1;
        totals.instructions = totals.instructions.saturating_add(ran.instructions.0);
        totals.instructions_in_one_slice_max = totals.instructions_in_one_slice_max.max(ran.instructions.0);
        totals.pages += ran.costs.pages;
        self.time += ran.time;
        self.unfinished += ran.time;
        if ran.finished {
            self.messages.add(std::mem::take(&mut self.unfinished));
        }
    }

    fn totals(mut self) -> Totals {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        self.totals.seconds = self.time.as_secs_f64();
        self.totals.p50_us = micros(self.messages.at(50));
        self.totals.p99_us = micros(self.messages.at(99));
        self.totals.max_us = micros(self.messages.max);
        self.totals
    }
}

impl Methods {
    /// Adds a slice that ran in the round of this number, or a query that ran behind it.
    pub fn add(&mut self, round: usize, kind: Kind, ran: Ran) {
        self.canisters.entry((kind, ran.canister)).or_default().add(round, &ran);
        self.methods.entry((kind, ran.canister, ran.name.clone())).or_default().add(round, &ran);
    }

    /// Methods and canisters, most instructions first.
    pub fn sorted(self) -> (Vec<MethodTotals>, Vec<CanisterTotals>) {
        let mut of_canister: BTreeMap<(Kind, CanisterId), u64> = BTreeMap::new();
        let methods = self.methods.into_iter().map(|((kind, canister, name), sum)| {
            *of_canister.entry((kind, canister)).or_default() += 1;
            MethodTotals { canister: canister.to_string(), method: name.to_string(), kind, totals: sum.totals() }
        });
        let mut methods: Vec<_> = methods.collect();
        let canisters = self.canisters.into_iter().map(|((kind, canister), sum)| CanisterTotals {
            canister: canister.to_string(),
            methods: of_canister.get(&(kind, canister)).copied().unwrap_or(0),
            kind,
            totals: sum.totals(),
        });
        let mut canisters: Vec<_> = canisters.collect();
        methods.sort_by_key(|method| std::cmp::Reverse(method.totals.instructions));
        canisters.sort_by_key(|canister| std::cmp::Reverse(canister.totals.instructions));
        (methods, canisters)
    }
}

/// How durations are spread: counts by size, each size within a thirty-second of the next. What a canister of few messages takes is small.
#[derive(Debug, Default)]
struct Spread {
    counts: BTreeMap<u16, u64>,
    count: u64,
    max: u64,
}

/// Sizes between two powers of two, as a power of two.
const SIZES_BITS: u32 = 5;

impl Spread {
    fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        *self.counts.entry(Self::size_of(nanos)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Number of the size that a value has; the largest is 1919.
    fn size_of(nanos: u64) -> u16 {
        let shift = nanos.max(1).ilog2().saturating_sub(SIZES_BITS);
        ((shift << SIZES_BITS) + (nanos >> shift) as u32) as u16
    }

    /// The largest value of a size.
    fn largest(size: u16) -> u64 {
        let shift = u32::from(size >> SIZES_BITS).saturating_sub(1);
        let steps = u64::from(size) - (u64::from(shift) << SIZES_BITS);
        (steps << shift) + ((1 << shift) - 1)
    }

    /// What so many percent do not exceed.
    fn at(&self, percent: u64) -> u64 {
        let mut left = self.count * percent / 100;
        for (size, count) in &self.counts {
            if left < *count {
                return Self::largest(*size).min(self.max);
            }
            left -= count;
        }
        self.max
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
    /// Pages of heaps that they changed.
    pub pages: u64,
    /// Messages that waited in queues when it had ended.
    pub queued: u64,
}

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was run, and measured.
    pub contents: Contents,
    /// Height of the checkpoint that it was run from; 0: from the first round.
    pub began_behind: u64,
    /// Seconds from there to the first round that was measured.
    pub before_seconds: f64,
    /// Canisters at the end.
    pub canisters: u64,
    /// Messages and tasks executed in what was measured.
    pub executed: u64,
    /// Instructions of messages that were given up, as at a checkpoint, and started over: run, and not charged.
    pub given_up_instructions: u64,
    /// Memory of all canisters at the end, as it is charged.
    pub memory_bytes: u64,
    /// Bytes behind the last whole frame of the recording.
    pub left_over_bytes: u64,
    /// Height of the last round.
    pub height: u64,
    /// All that was measured, reading included, in seconds.
    pub seconds: f64,
    /// Rounds alone, in seconds.
    pub round_seconds: f64,
    /// Stages, and last the whole round.
    pub stages: Vec<StageTimes>,
    /// Methods, most instructions first.
    pub methods: Vec<MethodTotals>,
    /// Canisters, most instructions first.
    pub canister_totals: Vec<CanisterTotals>,
    /// Each round, for charts.
    #[serde(skip)]
    pub timeline: Vec<RoundFacts>,
    /// Who called whom and what that was charged: all instructions of the methods. Only of a replay on code that reports its calls.
    #[serde(skip)]
    pub charged: Option<Stacks>,
    /// The queries that were recorded in what was measured.
    pub queries: QueryReport,
    /// Certified root of the last round.
    #[serde(serialize_with = "as_hex")]
    pub root: [u8; 32],
    /// State hash after the last round.
    #[serde(serialize_with = "as_hex")]
    pub state_hash: [u8; 32],
}

impl Report {
    /// Instructions of all messages, as they are charged.
    pub fn instructions(&self) -> u64 {
        let messages = self.methods.iter().filter(|method| method.kind == Kind::Message);
        messages.fold(0, |sum, method| sum.saturating_add(method.totals.instructions))
    }
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_subnet::SliceCosts;
    use cyclotron_types::units::Instructions;

    #[test]
    fn a_spread_knows_its_percentiles_to_a_thirty_second() {
        for nanos in (0..70).chain([100, 1_000, 65_535, 1 << 40, u64::MAX - 1, u64::MAX]) {
            let largest = Spread::largest(Spread::size_of(nanos));
            assert!(largest >= nanos && largest - nanos <= nanos / 32, "{nanos} {largest}");
            assert_eq!(Spread::size_of(largest), Spread::size_of(nanos));
            assert!(largest == u64::MAX || Spread::size_of(largest + 1) == Spread::size_of(nanos) + 1, "{nanos}");
        }
        let mut spread = Spread::default();
        (1..=200).for_each(|us| spread.add(Duration::from_micros(us)));
        let near = |found: u64, wanted: u64| found >= wanted && found - wanted <= wanted / 32;
        assert!(near(spread.at(50), 101_000) && near(spread.at(99), 199_000), "{spread:?}");
        assert_eq!((spread.max, Spread::default().at(99)), (200_000, 0));
    }

    #[test]
    fn a_message_of_several_slices_and_rounds_is_one_message() {
        let ran = |name: &str, us, finished| Ran {
            canister: CanisterId::from_u64(7),
            name: JobName::Method(name.into()),
            instructions: Instructions(10),
            again: false,
            finished,
            time: Duration::from_micros(us),
            costs: SliceCosts { pages: u64::from(finished), ..SliceCosts::default() },
        };
        let mut methods = Methods::default();
        for (round, ran) in [(1, ran("long", 5, false)), (2, ran("long", 7, true)), (2, ran("short", 2, true))] {
            methods.add(round, Kind::Message, ran);
        }
        let (methods, canisters) = methods.sorted();
        let [long, short] = &methods[..] else { panic!("{methods:?}") };
        assert_eq!(
            (long.method.as_str(), long.totals.rounds, long.totals.messages, long.totals.slices),
            ("long", 2, 1, 2)
        );
        assert_eq!((long.totals.instructions, long.totals.pages, long.totals.max_us), (20, 1, 12.0));
        assert_eq!((short.totals.rounds, short.totals.p50_us), (1, 2.0));
        let [canister] = &canisters[..] else { panic!("{canisters:?}") };
        assert_eq!((canister.methods, canister.totals.rounds, canister.totals.messages), (2, 2, 2));
        assert_eq!((canister.totals.instructions, canister.totals.max_us), (30, 12.0));
        assert!((canister.totals.seconds - 14e-6).abs() < 1e-12);
    }

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
