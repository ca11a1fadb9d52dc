//! Queries of a recording run again, on the states that they were answered on.
//!
//! Enters: frames of one height, a subnet at that height. Leaves: what ran, and answers that are not as recorded. Never here: an answer compared that
//! does not follow from the state: a replay has no key to sign certificates with, and no rounds that end meanwhile.

use crate::changes::{Change, Changes, words_of_answer};
use crate::replayer::ReplayFailed;
use cyclotron_queries::Query;
use cyclotron_storage::Frame;
use cyclotron_storage::log::{RecordedQuery, answer_hash};
use cyclotron_subnet::{JobName, Ran, ReplayError, SliceCosts, Subnet};
use cyclotron_types::query::FollowsFrom;
use cyclotron_types::units::Instructions;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What became of the queries of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueryReport {
    /// Queries that were run.
    pub run: u64,
    /// Answers that follow from the state alone, compared by their hashes.
    pub answers: Changes,
    /// Answers that were not compared: the canister had looked at a certificate of its data, which only the subnet can sign.
    pub certificates: u64,
    /// Answers that were not compared: the query had started over, or was given up, since rounds ended meanwhile.
    pub moments: u64,
    /// Queries that were not run: they stand too far behind the batches of their height, or that height is not in the recording.
    pub missed: u64,
    /// All of them together, in seconds.
    pub seconds: f64,
}

/// Queries of one height.
#[derive(Default)]
pub(crate) struct Asked {
    height: u64,
    pub queries: Vec<Query>,
    /// What the answer of each was: its hash, and what it follows from.
    pub answers: Vec<([u8; 32], FollowsFrom)>,
}

impl Asked {
    /// Adds a query of the same height as those before it.
    pub fn add(&mut self, frame: &Frame) -> Result<(), ReplayFailed> {
        let malformed = ReplayError::Malformed { height: frame.height, what: "it holds no query" };
        let RecordedQuery { follows_from, answer, query } =
            RecordedQuery::decode(&frame.content).ok_or(ReplayFailed::Replay(malformed))?;
        self.height = frame.height;
        self.queries.push(query);
        self.answers.push((answer, follows_from));
        Ok(())
    }

    /// Runs them, and compares their answers.
    pub fn run(self, subnet: &Subnet, report: &mut QueryReport, mut ran: impl FnMut(Ran)) {
        let Self { height, queries, answers } = self;
        if queries.is_empty() {
            return;
        }
        assert_eq!(height, subnet.height().0, "queries come behind the batch of their height");
        let began = Instant::now();
        let outcomes = subnet.query_measured(&queries, |at, answered, time| {
            let (recorded, follows_from) = &answers[at];
            let changed = *follows_from == FollowsFrom::State && answer_hash(&answered.outcome) != *recorded;
            let answer = answered.outcome.as_ref().map(Vec::as_slice);
            (answered.used, time, changed.then(|| words_of_answer(answer)))
        });
        report.seconds += began.elapsed().as_secs_f64();
        report.run += queries.len() as u64;
        for ((query, (hash, follows_from)), (used, time, changed)) in queries.into_iter().zip(answers).zip(outcomes) {
            match follows_from {
                FollowsFrom::Certificate => report.certificates += 1,
                FollowsFrom::Moment => report.moments += 1,
                FollowsFrom::State => report.answers.compare(changed.is_none(), || Change {
                    height,
                    canister: query.receiver.to_string(),
                    method: query.method.clone(),
                    recorded: format!("another, of hash {}", hex(&hash)),
                    candidate: changed.unwrap_or_default(),
                }),
            }
            ran(ran_as(query, used, time));
        }
    }
}

/// A query as reports count it.
fn ran_as(query: Query, instructions: Instructions, time: Duration) -> Ran {
    let (canister, name) = (query.receiver, JobName::Method(query.method));
    Ran { canister, name, instructions, again: false, finished: true, time, costs: SliceCosts::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
