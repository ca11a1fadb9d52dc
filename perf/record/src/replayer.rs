//! Running a recording again.

use crate::charged::Charged;
use crate::report::{Contents, Methods, Report, RoundFacts, StageTimes};
use cyclotron_ports::Disk;
use cyclotron_storage::StorageError;
use cyclotron_storage::log::LogReader;
use cyclotron_storage::{Frame, FrameKind};
use cyclotron_subnet::{Genesis, Ran, ReplayError, Replayed, RoundObserver, RoundSet, Subnet, SubnetOptions};
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
    methods: Methods,
    /// What calls were charged, if the code reports them.
    charged: Option<Charged>,
    /// Slices, instructions and changed pages since the last round was looked at.
    ran: (u64, u64, u64),
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
        if let Some(charged) = &mut noted.charged {
            charged.add(&ran);
        }
        let round = noted.rounds.len();
        noted.methods.add(round, ran);
    }

    fn canister_logged(&mut self, _: CanisterId, _: &LogRecord) {}
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a recording.
pub struct Replayer<D: Disk> {
    subnet: Subnet,
    log: LogReader<D>,
    noted: Arc<Mutex<Noted>>,
}

impl<D: Disk> Replayer<D> {
    /// Makes the recorded subnet, to run on so many threads; they change no result.
    pub fn new(genesis: Genesis, log: LogReader<D>, threads: usize) -> Result<Self, ReplayFailed> {
        Self::on(SubnetOptions::unsigned(genesis, threads), log, None)
    }

    /// The same on code that reports its calls, for [`Report::charged`]: much slower, with the same results.
    pub fn reporting_calls(genesis: Genesis, log: LogReader<D>, threads: usize) -> Result<Self, ReplayFailed> {
        Self::on(SubnetOptions::unsigned_reporting_calls(genesis, threads), log, Some(Charged::default()))
    }

    fn on(
        options: Result<SubnetOptions, String>,
        log: LogReader<D>,
        charged: Option<Charged>,
    ) -> Result<Self, ReplayFailed> {
        if log.next_height() != 1 {
            let (file, first) = (log.path().display(), log.next_height());
            return Err(ReplayFailed::Subnet(format!(
                "{file} begins at height {first}, and what was before is not in it: give the state directory"
            )));
        }
        let mut subnet = Subnet::new(options.map_err(ReplayFailed::Subnet)?)
            .map_err(|error| ReplayFailed::Subnet(format!("cannot start worker threads: {error}")))?;
        let noted = Arc::new(Mutex::new(Noted { charged, ..Noted::default() }));
        let stopwatch = Stopwatch { noted: noted.clone(), last: Instant::now(), stages: Stages::default() };
        subnet.observe(Box::new(stopwatch));
        Ok(Self { subnet, log, noted })
    }

    /// Runs all batches up to height `last`, comparing what was recorded of them. `shown` is called after each round.
    pub fn run(mut self, last: u64, mut shown: impl FnMut(Progress)) -> Result<Report, ReplayFailed> {
        let began = Instant::now();
        let mut in_rounds = Duration::ZERO;
        let mut contents = Contents::default();
        let mut ended = true;
        let mut timeline = Vec::new();
        while let Some(frame) = self.log.next_frame().map_err(ReplayFailed::Storage)? {
            if frame.kind == FrameKind::Batch && frame.height > last {
                ended = false;
                break;
            }
            contents.add(&frame);
            in_rounds += self.replay(&frame)?;
            if frame.kind == FrameKind::Batch {
                timeline.push(self.facts(frame.height));
            }
            let (read, bytes) = self.log.progress();
            shown(Progress { height: frame.height, read, bytes });
        }
        let elapsed = began.elapsed();
        let Noted { rounds, methods, charged, .. } = std::mem::take(&mut *lock(&self.noted));
        let statistics = self.subnet.statistics();
        let (methods, canister_totals) = methods.sorted();
        Ok(Report {
            contents,
            canisters: statistics.canisters as u64,
            executed: statistics.executed,
            memory_bytes: statistics.memory.0,
            left_over_bytes: if ended { self.log.left_over() } else { 0 },
            height: self.subnet.height().0,
            seconds: elapsed.as_secs_f64(),
            round_seconds: in_rounds.as_secs_f64(),
            stages: StageTimes::of(&rounds),
            methods,
            canister_totals,
            timeline,
            charged: charged.map(Charged::stacks),
            root: self.subnet.root(),
            state_hash: self.subnet.state_hash(),
        })
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
