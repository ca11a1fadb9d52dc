//! Running a recording again.

use crate::charged::Charged;
use crate::queries::{Asked, QueryReport};
use crate::report::{Contents, Kind, Methods, Report, RoundFacts, StageTimes};
use crate::settled::Settled;
use crate::source::{Recording, Started};
use cyclotron_ports::Disk;
use cyclotron_storage::StorageError;
use cyclotron_storage::{Frame, FrameKind};
use cyclotron_subnet::{Ran, ReplayError, Replayed, RoundObserver, RoundSet, Subnet};
use cyclotron_types::canister::LogRecord;
use cyclotron_types::ids::CanisterId;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why a recording was not run to its end.
#[derive(Debug)]
pub enum ReplayFailed {
    /// The subnet cannot be made here.
    Subnet(String),
    /// The recording cannot be read.
    Storage(StorageError),
    /// It came to something else than was recorded, or holds what cannot be executed.
    Replay(ReplayError),
}

impl fmt::Display for ReplayFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subnet(error) => f.write_str(error),
            Self::Storage(error) => error.fmt(f),
            Self::Replay(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReplayFailed {}

/// Errors: the last round that is wanted comes before the first that can be run.
pub(crate) fn check_last(first: u64, last: u64) -> Result<(), ReplayFailed> {
    if last >= first {
        return Ok(());
    }
    Err(ReplayFailed::Subnet(format!(
        "the first round of it that can be run is that of height {first}, behind {last}: what is before is kept nowhere here"
    )))
}

/// How far a replay is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Height of the last round.
    pub height: u64,
    /// Bytes of the file that were read.
    pub read: u64,
    /// Bytes that it has.
    pub bytes: u64,
}

/// Durations of the stages of one round, in their order.
type Stages = [Duration; StageTimes::STAGES.len()];

/// What is noted of rounds.
#[derive(Default)]
struct Noted {
    rounds: Vec<Stages>,
    /// What may not count, or not yet.
    settled: Settled,
    methods: Methods,
    /// What calls were charged, if the code reports them.
    charged: Option<Charged>,
    /// Slices, instructions and changed pages since the last round was looked at.
    ran: (u64, u64, u64),
}

impl Noted {
    /// Adds what is known to count.
    fn add(&mut self, settled: Vec<(usize, Ran)>) {
        for (round, ran) in settled {
            if let Some(charged) = &mut self.charged {
                charged.add(&ran);
            }
            self.methods.add(round, Kind::Message, ran);
        }
    }
}

/// Measures the stages of each round, and adds up what ran.
struct Stopwatch {
    noted: Arc<Mutex<Noted>>,
    last: Instant,
    stages: Stages,
}

impl RoundObserver for Stopwatch {
    fn round_begun(&mut self) {
        (self.last, self.stages) = (Instant::now(), Stages::default());
    }

    fn stage_ended(&mut self, stage: RoundSet) {
        let now = Instant::now();
        let index = StageTimes::STAGES.iter().position(|(set, _)| *set == stage);
        if let Some(index) = index {
            self.stages[index] = now - self.last;
        }
        self.last = now;
        if stage == RoundSet::Certify {
            lock(&self.noted).rounds.push(self.stages);
        }
    }

    fn wants_profile(&self) -> bool {
        true
    }

    fn message_ran(&mut self, ran: Ran) {
        let mut noted = lock(&self.noted);
        noted.ran = (noted.ran.0 + 1, noted.ran.1 + ran.instructions.0, noted.ran.2 + ran.costs.pages);
        let round = noted.rounds.len();
        let settled = noted.settled.add(round, ran);
        noted.add(settled);
    }

    fn canister_logged(&mut self, _: CanisterId, _: &LogRecord) {}
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a recording.
pub struct Replayer<D: Disk> {
    subnet: Subnet,
    started: Started<D>,
    /// The first round that is measured, if one was asked for.
    from: Option<u64>,
    noted: Arc<Mutex<Noted>>,
}

impl<D: Disk<File: 'static> + 'static> Replayer<D> {
    /// Makes the recorded subnet as it was before round `from`, or before the first round that it can be made before; to run on so many threads, which
    /// change no result.
    pub fn new(recording: Recording<D>, from: Option<u64>, threads: usize) -> Result<Self, ReplayFailed> {
        let started = recording.start(from)?;
        let subnet = started.subnet(threads)?;
        Ok(Self::on(subnet, started, from, None))
    }

    /// The same on code that reports its calls, for [`Report::charged`]: much slower, with the same results. Queries, which are not charged, are left
    /// out.
    pub fn reporting_calls(recording: Recording<D>, from: Option<u64>, threads: usize) -> Result<Self, ReplayFailed> {
        let started = recording.without_queries().start(from)?;
        let subnet = started.subnet_reporting_calls(threads)?;
        Ok(Self::on(subnet, started, from, Some(Charged::default())))
    }

    fn on(mut subnet: Subnet, started: Started<D>, from: Option<u64>, charged: Option<Charged>) -> Self {
        let noted = Arc::new(Mutex::new(Noted { charged, ..Noted::default() }));
        let stopwatch = Stopwatch { noted: noted.clone(), last: Instant::now(), stages: Stages::default() };
        subnet.observe(Box::new(stopwatch));
        Self { subnet, started, from, noted }
    }

    /// Runs all batches up to height `last`, and the queries on states that they leave, comparing what was recorded of them; those before the first round that is to be measured leave nothing
    /// in the report. `shown` is called after each round.
    ///
    /// Errors: also when the recording ends before that round.
    pub fn run(mut self, last: u64, mut shown: impl FnMut(Progress)) -> Result<Report, ReplayFailed> {
        let first = self.started.height() + 1;
        check_last(first, last)?;
        let from = self.from.unwrap_or(0).max(first);
        // Nothing is asked of a state before the first round that is measured, but of the one that a recording begins behind.
        let asked_from = self.from.map_or(0, |_| from);
        let (mut asked, mut queries) = (Asked::default(), QueryReport::default());
        let mut began = Instant::now();
        let (mut in_rounds, mut before) = (Duration::ZERO, Duration::ZERO);
        let mut contents = Contents::default();
        let mut ended = true;
        let mut timeline = Vec::new();
        let mut executed_before = self.subnet.statistics().executed;
        while let Some(frame) = self.started.next_frame().map_err(ReplayFailed::Storage)? {
            if frame.kind == FrameKind::Query {
                if frame.height >= asked_from {
                    contents.add(&frame);
                    asked.add(&frame)?;
                }
                continue;
            }
            self.ask(std::mem::take(&mut asked), &mut queries);
            if frame.kind == FrameKind::QueriesLeftOut {
                contents.add(&frame);
                continue;
            }
            let is_batch = frame.kind == FrameKind::Batch;
            if is_batch && frame.height > last {
                ended = false;
                break;
            }
            if is_batch && frame.height == from {
                (before, began) = (began.elapsed(), Instant::now());
                executed_before = self.subnet.statistics().executed;
                if self.from.is_some() {
                    let mut noted = lock(&self.noted);
                    let charged = noted.charged.as_ref().map(|_| Charged::default());
                    *noted = Noted { charged, ..Noted::default() };
                }
            }
            let measured = frame.height >= from || frame.kind == FrameKind::Beginning;
            let in_round = self.replay(&frame)?;
            if measured {
                contents.add(&frame);
                in_rounds += in_round;
                if is_batch {
                    timeline.push(self.facts(frame.height));
                }
            }
            let (read, bytes) = self.started.log().progress();
            shown(Progress { height: frame.height, read, bytes });
        }
        self.ask(asked, &mut queries);
        queries.missed = self.started.queries_missed();
        // A recording may be empty; one that ends before what was asked for says so.
        let height = self.subnet.height();
        if let Some(from) = self.from.filter(|from| height.0 < *from) {
            return Err(ReplayFailed::Subnet(format!("it ends at height {height}, before round {from}")));
        }
        let elapsed = began.elapsed();
        let mut noted = std::mem::take(&mut *lock(&self.noted));
        let (unfinished, given_up) = std::mem::take(&mut noted.settled).end();
        noted.add(unfinished);
        let Noted { rounds, methods, charged, .. } = noted;
        let statistics = self.subnet.statistics();
        let (methods, canister_totals) = methods.sorted();
        Ok(Report {
            contents,
            canisters: statistics.canisters as u64,
            began_behind: self.started.height(),
            before_seconds: before.as_secs_f64(),
            executed: statistics.executed - executed_before,
            given_up_instructions: given_up,
            memory_bytes: statistics.memory.0,
            left_over_bytes: if ended { self.started.log().left_over() } else { 0 },
            height: self.subnet.height().0,
            seconds: elapsed.as_secs_f64(),
            round_seconds: in_rounds.as_secs_f64(),
            stages: StageTimes::of(&rounds),
            methods,
            canister_totals,
            timeline,
            charged: charged.map(Charged::stacks),
            queries,
            root: self.subnet.root(),
            state_hash: self.subnet.state_hash(),
        })
    }

    /// Runs queries on the state that the last round has left.
    fn ask(&self, asked: Asked, report: &mut QueryReport) {
        let mut noted = lock(&self.noted);
        let Noted { rounds, methods, .. } = &mut *noted;
        asked.run(&self.subnet, report, |ran| methods.add(rounds.len(), Kind::Query, ran));
    }

    /// What there is to draw of the round that has just ended.
    fn facts(&mut self, height: u64) -> RoundFacts {
        let queued = self.subnet.queued_messages() as u64;
        let mut noted = lock(&self.noted);
        let (slices, instructions, pages) = std::mem::take(&mut noted.ran);
        let stages = noted.rounds.last().copied().unwrap_or_default().map(|stage| stage.as_secs_f64());
        RoundFacts { height, stages, slices, instructions, pages, queued }
    }

    /// Replays a frame; the time that its round took.
    fn replay(&mut self, frame: &Frame) -> Result<Duration, ReplayFailed> {
        let began = Instant::now();
        match self.subnet.replay(frame).map_err(ReplayFailed::Replay)? {
            Replayed::Round(_) => Ok(began.elapsed()),
            Replayed::Agrees => Ok(Duration::ZERO),
        }
    }
}
