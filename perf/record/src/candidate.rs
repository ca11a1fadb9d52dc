//! Recorded traffic against another module: what would have been different.
//!
//! Enters: a recording, a canister, a module. Leaves: each changed reply, trap and number of instructions. Never here: a recorded hash held
//! against the subnet with the module; the recording itself is run beside it, and is held to all of them.
//!
//! Two subnets get the same batches. The candidate takes over after the round that left the canister with code, and again whenever the
//! recorded traffic gives the canister other code. Messages of users are compared by their ids; what else ran, callbacks and tasks say, the
//! first of a canister and method with the first, the second with the second, and so on.

use crate::changes::{self, Answer, Change, Changes, words_of_answer};
use crate::queries::Asked;
use crate::replayer::{ReplayFailed, check_last};
use crate::report::Kind;
use crate::settled::Settled;
use crate::source::{Recording, Started};
use cyclotron_ports::Disk;
use cyclotron_storage::FrameKind;
use cyclotron_storage::log::{answer_hash, decode_batch};
use cyclotron_subnet::{JobName, NotTaken, Ran, ReplayError, RoundObserver, RoundSet, Subnet, TakeOver};
use cyclotron_types::canister::LogRecord;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::IngressStatus;
use cyclotron_types::query::FollowsFrom;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Queries that are run at once on both sides, whose answers are all in memory.
const QUERIES_AT_ONCE: usize = 64;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The canister.
    pub canister: CanisterId,
    /// Its module instead of the recorded ones.
    pub wasm: Vec<u8>,
    /// How it takes over.
    pub how: TakeOver,
}

/// One take-over that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// After the round of this height.
    pub height: u64,
    /// Instructions of the hooks; or why the recorded code stays until the traffic gives the canister other code.
    pub outcome: Result<u64, String>,
}

/// Instructions of one method on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MethodChange {
    /// The canister.
    pub canister: String,
    /// The method.
    pub method: String,
    /// As what it ran.
    pub kind: Kind,
    /// Messages that ended or queries that were answered, as recorded.
    pub recorded_messages: u64,
    /// With the candidate.
    pub candidate_messages: u64,
    /// Their instructions, as recorded.
    pub recorded_instructions: u64,
    /// With the candidate.
    pub candidate_instructions: u64,
}

/// What a candidate changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CandidateReport {
    /// Rounds that were run on both sides.
    pub rounds: u64,
    /// Certified roots and state hashes of the recording that its own side came to. The candidate's side is compared with none of them.
    pub hashes: u64,
    /// When the candidate took over.
    pub taken: Vec<Taken>,
    /// Answers to messages of users.
    pub replies: Changes,
    /// Messages of users that only one side has answered.
    pub unanswered: Changes,
    /// Answers to queries, those excepted for which the canister looked at a certificate of its data.
    pub queries: Changes,
    /// Queries with such answers.
    pub certificates: u64,
    /// Answers to queries that the recording's own side gave otherwise than recorded.
    pub not_as_recorded: Changes,
    /// Queries that were not run: as in a replay.
    pub queries_missed: u64,
    /// Lines about traps that canisters printed, a round's together.
    pub traps: Changes,
    /// Instructions of single messages, callbacks and tasks.
    pub instructions: Changes,
    /// Methods whose number of messages or instructions is not as recorded, the largest difference first.
    pub methods: Vec<MethodChange>,
}

type Job = (CanisterId, JobName);
/// Messages or queries, and their instructions.
type Counted = (u64, u64);

/// What a side did in the rounds since it was last looked at.
#[derive(Default)]
struct Seen {
    ran: Vec<Ran>,
    traps: BTreeMap<CanisterId, Vec<String>>,
}

struct Watcher(Arc<Mutex<Seen>>);

impl RoundObserver for Watcher {
    fn round_begun(&mut self) {}

    fn stage_ended(&mut self, _: RoundSet) {}

    fn wants_profile(&self) -> bool {
        true
    }

    fn message_ran(&mut self, ran: Ran) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ran.push(ran);
    }

    fn canister_logged(&mut self, canister: CanisterId, line: &LogRecord) {
        if line.content.starts_with(b"[TRAP]") {
            let line = String::from_utf8_lossy(&line.content).into_owned();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).traps.entry(canister).or_default().push(line);
        }
    }
}

/// One of the two subnets.
struct Side {
    subnet: Subnet,
    seen: Arc<Mutex<Seen>>,
    settled: Settled,
    /// Instructions so far of the message that each job is in the middle of.
    partial: BTreeMap<Job, u64>,
    /// Instructions of ended messages that the other side has not come to.
    ended: BTreeMap<Job, VecDeque<u64>>,
    /// Messages and instructions of each job, and queries.
    totals: BTreeMap<(Kind, Job), Counted>,
    /// Answers that the other side has not given.
    answers: BTreeMap<MessageId, IngressStatus>,
}

impl Side {
    fn new<D: Disk<File: 'static> + 'static>(started: &Started<D>, threads: usize) -> Result<Self, ReplayFailed> {
        let mut subnet = started.subnet(threads)?;
        let seen = Arc::<Mutex<Seen>>::default();
        subnet.observe(Box::new(Watcher(seen.clone())));
        let (settled, partial, ended, totals, answers) = Default::default();
        Ok(Self { subnet, seen, settled, partial, ended, totals, answers })
    }

    fn count(&mut self, kind: Kind, job: Job, instructions: u64) {
        let totals = self.totals.entry((kind, job)).or_default();
        *totals = (totals.0 + 1, totals.1 + instructions);
    }

    /// Takes up what the last round did; returns its traps.
    fn take_up(&mut self, answered: &[MessageId]) -> BTreeMap<CanisterId, Vec<String>> {
        let Seen { ran, traps } = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let settled: Vec<_> = ran.into_iter().flat_map(|ran| self.settled.add(0, ran)).collect();
        for (_, Ran { canister, name, instructions, finished, .. }) in settled {
            let job = (canister, name);
            let so_far = self.partial.remove(&job).unwrap_or(0) + instructions.0;
            if finished {
                self.count(Kind::Message, job.clone(), so_far);
                self.ended.entry(job).or_default().push_back(so_far);
            } else {
                self.partial.insert(job, so_far);
            }
        }
        for id in answered {
            if let Some(entry) = self.subnet.ingress_status(id) {
                self.answers.insert(*id, entry.status.clone());
            }
        }
        traps
    }

    /// Takes up what the last round did, and says nothing of it.
    fn pass_over(&mut self) {
        self.take_up(&[]);
        self.ended.clear();
        self.totals.clear();
    }
}

/// Runs a recording and its traffic against a candidate, which takes over before round `from` at the earliest, up to height `last`; `shown` is called
/// with the height after each round that was compared.
pub fn try_candidate<D: Disk<File: 'static> + 'static>(
    recording: Recording<D>,
    threads: usize,
    candidate: &Candidate,
    (from, last): (Option<u64>, u64),
    mut shown: impl FnMut(u64),
) -> Result<CandidateReport, ReplayFailed> {
    let mut log = recording.start(from)?;
    let (mut recorded, mut tried) = (Side::new(&log, threads)?, Side::new(&log, threads)?);
    check_last(log.height() + 1, last)?;
    let from = from.unwrap_or(0);
    let mut last_tried = None;
    let mut report = CandidateReport::default();
    // Receiver and method of messages that a side has still to answer.
    let mut sent: BTreeMap<MessageId, (CanisterId, String)> = BTreeMap::new();
    // Queries of the last height.
    let mut asked = Asked::default();
    while let Some(frame) = log.next_frame().map_err(ReplayFailed::Storage)? {
        if frame.kind == FrameKind::Query {
            if frame.height >= from {
                asked.add(&frame)?;
            }
            continue;
        }
        compare_queries(&mut report, std::mem::take(&mut asked), &mut recorded, &mut tried);
        if frame.kind == FrameKind::QueriesLeftOut {
            continue;
        }
        if frame.kind != FrameKind::Batch {
            recorded.subnet.replay(&frame).map_err(ReplayFailed::Replay)?;
            match frame.kind {
                FrameKind::Root | FrameKind::StateHash | FrameKind::Beginning => report.hashes += 1,
                _ => drop(tried.subnet.replay(&frame).map_err(ReplayFailed::Replay)?),
            }
            continue;
        }
        let height = frame.height;
        if height > last {
            break;
        }
        // Behind the queries of the height before, which see what that left.
        if height >= from {
            take_over(&mut report.taken, &mut tried.subnet, candidate, &mut last_tried);
        }
        let left = recorded.subnet.replay(&frame).map_err(ReplayFailed::Replay)?;
        let batch = decode_batch(height, &frame.content)
            .ok_or(ReplayFailed::Replay(ReplayError::Malformed { height, what: "it holds no batch" }))?;
        sent.extend(batch.ingress.iter().map(|ingress| (ingress.id, (ingress.receiver, ingress.method.clone()))));
        let view = tried.subnet.execute(batch).map_err(ReplayFailed::Storage)?;
        if height < from {
            for id in &view.answered {
                sent.remove(id);
            }
            recorded.pass_over();
            tried.pass_over();
            continue;
        }
        let answered = match &left {
            cyclotron_subnet::Replayed::Round(view) => &view.answered[..],
            cyclotron_subnet::Replayed::Agrees => &[],
        };
        let traps = (recorded.take_up(answered), tried.take_up(&view.answered));
        report.rounds += 1;
        compare_traps(&mut report.traps, height, traps);
        compare_answers(&mut report.replies, height, &mut recorded, &mut tried, &mut sent);
        compare_runs(&mut report.instructions, height, &mut recorded, &mut tried);
        shown(height);
    }
    compare_queries(&mut report, asked, &mut recorded, &mut tried);
    report.queries_missed = log.queries_missed();
    let height = recorded.subnet.height().0;
    if height < from {
        return Err(ReplayFailed::Subnet(format!("it ends at height {height}, before round {from}")));
    }
    for (side, is_recorded) in [(&recorded, true), (&tried, false)] {
        for (id, status) in &side.answers {
            let words = ["not answered".to_owned(), words_of(status)];
            let [recorded, candidate] = if is_recorded { [&words[1], &words[0]] } else { [&words[0], &words[1]] };
            let (canister, method) = named(&sent, id);
            let (recorded, candidate) = (recorded.clone(), candidate.clone());
            report.unanswered.compare(false, || Change { height, canister, method, recorded, candidate });
        }
    }
    take_over(&mut report.taken, &mut tried.subnet, candidate, &mut last_tried);
    report.methods = methods_of(&recorded.totals, &tried.totals);
    Ok(report)
}

/// Has the candidate take over, if the canister has other code than when this was last tried.
fn take_over(taken: &mut Vec<Taken>, subnet: &mut Subnet, candidate: &Candidate, last: &mut Option<[u8; 32]>) {
    let runs = subnet.module_hash(candidate.canister);
    if runs.is_none() || runs == *last {
        return;
    }
    let outcome = match subnet.try_code(candidate.canister, &candidate.wasm, candidate.how) {
        Ok(used) => Ok(used.0),
        // Tried again after the next round.
        Err(NotTaken::Busy | NotTaken::NoCode) => return,
        Err(refused) => Err(refused.to_string()),
    };
    *last = subnet.module_hash(candidate.canister);
    taken.push(Taken { height: subnet.height().0, outcome });
}

fn compare_traps(
    changes: &mut Changes,
    height: u64,
    (mut recorded, mut tried): (BTreeMap<CanisterId, Vec<String>>, BTreeMap<CanisterId, Vec<String>>),
) {
    let canisters: BTreeSet<_> = recorded.keys().chain(tried.keys()).copied().collect();
    for canister in canisters {
        let [recorded, candidate] = [&mut recorded, &mut tried].map(|side| side.remove(&canister).unwrap_or_default());
        changes.compare(recorded == candidate, || Change {
            height,
            canister: canister.to_string(),
            method: String::new(),
            recorded: recorded.join("\n"),
            candidate: candidate.join("\n"),
        });
    }
}

fn compare_answers(
    changes: &mut Changes,
    height: u64,
    recorded: &mut Side,
    tried: &mut Side,
    sent: &mut BTreeMap<MessageId, (CanisterId, String)>,
) {
    let both: Vec<MessageId> = tried.answers.keys().filter(|id| recorded.answers.contains_key(id)).copied().collect();
    for id in both {
        let (Some(was), Some(is)) = (recorded.answers.remove(&id), tried.answers.remove(&id)) else { continue };
        let (canister, method) = named(sent, &id);
        changes.compare(was == is, || {
            let (recorded, candidate) = words_of_both(&was, &is);
            Change { height, canister, method, recorded, candidate }
        });
        sent.remove(&id);
    }
}

fn compare_runs(changes: &mut Changes, height: u64, recorded: &mut Side, tried: &mut Side) {
    let mut done = Vec::new();
    for (job, is) in &mut tried.ended {
        let Some(was) = recorded.ended.get_mut(job) else { continue };
        while let (Some(recorded), Some(candidate)) = (was.front().copied(), is.front().copied()) {
            was.pop_front();
            is.pop_front();
            changes.compare(recorded == candidate, || Change {
                height,
                canister: job.0.to_string(),
                method: job.1.to_string(),
                recorded: recorded.to_string(),
                candidate: candidate.to_string(),
            });
        }
        if was.is_empty() && is.is_empty() {
            done.push(job.clone());
        }
    }
    for job in done {
        recorded.ended.remove(&job);
        tried.ended.remove(&job);
    }
}

/// Runs queries on both sides.
fn compare_queries(report: &mut CandidateReport, asked: Asked, recorded: &mut Side, tried: &mut Side) {
    let height = recorded.subnet.height().0;
    let hashes = asked.answers.chunks(QUERIES_AT_ONCE);
    for (queries, hashes) in asked.queries.chunks(QUERIES_AT_ONCE).zip(hashes) {
        let [was, is] = [&*recorded, tried].map(|side| side.subnet.query_measured(queries, |_, answered, _| answered));
        for (((query, (hash, follows_from)), was), is) in queries.iter().zip(hashes).zip(was).zip(is) {
            let change = |(recorded, candidate)| {
                let (canister, method) = (query.receiver.to_string(), query.method.clone());
                Change { height, canister, method, recorded, candidate }
            };
            let answers = [&was, &is].map(|side| side.outcome.as_ref().map(Vec::as_slice));
            if *follows_from == FollowsFrom::State {
                let same = answer_hash(&was.outcome) == *hash;
                let of_hash = || format!("another, of hash {}", hash.map(|byte| format!("{byte:02x}")).concat());
                report.not_as_recorded.compare(same, || change((of_hash(), words_of_answer(answers[0]))));
            }
            if [&was, &is].iter().any(|side| side.follows_from == FollowsFrom::Certificate) {
                report.certificates += 1;
            } else {
                let both = || change(changes::words_of_both(answers[0], answers[1]));
                report.queries.compare(was.outcome == is.outcome, both);
            }
            let job = || (query.receiver, JobName::Method(query.method.clone()));
            recorded.count(Kind::Query, job(), was.used.0);
            tried.count(Kind::Query, job(), is.used.0);
        }
    }
}

fn methods_of(recorded: &BTreeMap<(Kind, Job), Counted>, tried: &BTreeMap<(Kind, Job), Counted>) -> Vec<MethodChange> {
    let jobs: BTreeSet<_> = recorded.keys().chain(tried.keys()).collect();
    let of = |side: &BTreeMap<(Kind, Job), Counted>, job| side.get(job).copied().unwrap_or_default();
    let mut methods: Vec<_> = jobs
        .into_iter()
        .filter(|job| of(recorded, job) != of(tried, job))
        .map(|job| MethodChange {
            canister: job.1.0.to_string(),
            method: job.1.1.to_string(),
            kind: job.0,
            recorded_messages: of(recorded, job).0,
            candidate_messages: of(tried, job).0,
            recorded_instructions: of(recorded, job).1,
            candidate_instructions: of(tried, job).1,
        })
        .collect();
    let difference = |change: &MethodChange| change.recorded_instructions.abs_diff(change.candidate_instructions);
    methods.sort_by_key(|change| std::cmp::Reverse(difference(change)));
    methods
}

fn named(sent: &BTreeMap<MessageId, (CanisterId, String)>, id: &MessageId) -> (String, String) {
    sent.get(id).map_or_else(Default::default, |(canister, method)| (canister.to_string(), method.clone()))
}

/// Both answers in words.
fn words_of_both(was: &IngressStatus, is: &IngressStatus) -> (String, String) {
    match (answer_of(was), answer_of(is)) {
        (Some(was), Some(is)) => changes::words_of_both(was, is),
        _ => (words_of(was), words_of(is)),
    }
}

fn answer_of(status: &IngressStatus) -> Option<Answer<'_>> {
    match status {
        IngressStatus::Replied(bytes) => Some(Ok(bytes)),
        IngressStatus::Rejected(reject) => Some(Err(reject)),
        IngressStatus::Done | IngressStatus::Received | IngressStatus::Processing => None,
    }
}

fn words_of(status: &IngressStatus) -> String {
    match answer_of(status) {
        Some(answer) => words_of_answer(answer),
        None if *status == IngressStatus::Done => "an answer that is forgotten".into(),
        None => "not answered".into(),
    }
}
