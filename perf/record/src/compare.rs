//! Two replays side by side.
//!
//! Enters: reports. Leaves: their figures and the ratios of these. Never here: a verdict; machines and loads differ.

use crate::report::{Kind, MethodTotals, Report};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is compared of a replay: a part of its [`Report`], as that is written in JSON.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Compared {
    /// Height of the last round.
    pub height: u64,
    /// Messages and tasks executed.
    pub executed: u64,
    /// Memory of all canisters at the end.
    pub memory_bytes: u64,
    /// Rounds alone, in seconds.
    pub round_seconds: f64,
    /// Stages, and last the whole round.
    pub stages: Vec<ComparedStage>,
    /// Methods.
    pub methods: Vec<MethodTotals>,
    /// State hash after the last round, in hexadecimal digits.
    pub state_hash: String,
    /// Which rounds.
    pub contents: ComparedRounds,
}

/// Which rounds were measured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ComparedRounds {
    /// Height of the first.
    pub first_height: Option<u64>,
    /// How many.
    pub rounds: u64,
}

/// Times of one stage.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ComparedStage {
    /// The stage.
    pub stage: String,
    /// All rounds together, in seconds.
    pub seconds: f64,
    /// Median of the rounds, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 rounds do not exceed, in microseconds.
    pub p99_us: f64,
}

impl From<&Report> for Compared {
    fn from(report: &Report) -> Self {
        let stages = report.stages.iter().map(|times| ComparedStage {
            stage: times.stage.to_owned(),
            seconds: times.seconds,
            p50_us: times.p50_us,
            p99_us: times.p99_us,
        });
        Self {
            height: report.height,
            executed: report.executed,
            memory_bytes: report.memory_bytes,
            round_seconds: report.round_seconds,
            stages: stages.collect(),
            methods: report.methods.clone(),
            state_hash: report.state_hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            contents: ComparedRounds { first_height: report.contents.first_height, rounds: report.contents.rounds },
        }
    }
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is of.
    pub what: String,
    /// In this replay.
    pub this: f64,
    /// In the other one.
    pub other: f64,
}

impl Row {
    /// This one to the other; none where the other has nothing.
    pub fn ratio(&self) -> Option<f64> {
        (self.other != 0.0).then(|| self.this / self.other)
    }
}

/// Both replays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether both came to the same state.
    pub same_state: bool,
    /// Whether they are of the same rounds: otherwise times and counts of all together say little.
    pub same_rounds: bool,
    /// Heights, messages, times of stages.
    pub rows: Vec<Row>,
    /// Instructions of each method that did not run alike, the largest difference first.
    pub methods: Vec<Row>,
}

/// Sets two replays side by side.
pub fn compare(this: &Compared, other: &Compared) -> Comparison {
    let row = |what: &str, this: f64, other: f64| Row { what: what.to_owned(), this, other };
    let first = |replay: &Compared| replay.contents.first_height.unwrap_or(0) as f64;
    let mut rows = vec![
        row("first height", first(this), first(other)),
        row("height", this.height as f64, other.height as f64),
        row("rounds", this.contents.rounds as f64, other.contents.rounds as f64),
        row("messages and tasks", this.executed as f64, other.executed as f64),
        row("bytes of memory", this.memory_bytes as f64, other.memory_bytes as f64),
        row("seconds in rounds", this.round_seconds, other.round_seconds),
    ];
    for stage in &this.stages {
        let Some(peer) = other.stages.iter().find(|peer| peer.stage == stage.stage) else { continue };
        rows.push(row(&format!("{}, total s", stage.stage), stage.seconds, peer.seconds));
        rows.push(row(&format!("{}, p50 us", stage.stage), stage.p50_us, peer.p50_us));
        rows.push(row(&format!("{}, p99 us", stage.stage), stage.p99_us, peer.p99_us));
    }
    let mut methods: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let name = |method: &MethodTotals| {
        let kind = if method.kind == Kind::Query { ", query" } else { "" };
        format!("{} {}{kind}", method.canister, method.method)
    };
    for method in &this.methods {
        methods.entry(name(method)).or_default().0 += method.totals.instructions;
    }
    for method in &other.methods {
        methods.entry(name(method)).or_default().1 += method.totals.instructions;
    }
    let mut changed: Vec<_> = methods.into_iter().filter(|(_, (this, other))| this != other).collect();
    changed.sort_by_key(|(_, (this, other))| std::cmp::Reverse(this.abs_diff(*other)));
    let methods = changed.into_iter().map(|(what, (this, other))| row(&what, this as f64, other as f64)).collect();
    let same_state = (this.height, &this.state_hash) == (other.height, &other.state_hash);
    let same_rounds = this.contents == other.contents;
    Comparison { same_state, same_rounds, rows, methods }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Totals;

    fn replay(seconds: f64, instructions: u64) -> Compared {
        let method = |method: &str, instructions| MethodTotals {
            canister: "aaaaa-aa".into(),
            method: method.into(),
            kind: Kind::Message,
            totals: Totals { messages: 1, slices: 1, instructions, ..Totals::default() },
        };
        Compared {
            height: 9,
            executed: 5,
            memory_bytes: 7,
            round_seconds: seconds,
            stages: vec![ComparedStage { stage: "execute".into(), seconds, p50_us: 1.0, p99_us: 0.0 }],
            methods: vec![method("same", 5), method("other", instructions)],
            state_hash: "00".into(),
            contents: ComparedRounds { first_height: Some(1), rounds: 9 },
        }
    }

    #[test]
    fn figures_stand_side_by_side_and_only_methods_that_differ_are_listed() {
        let both = compare(&replay(3.0, 10), &replay(2.0, 14));
        assert!(both.same_state && both.same_rounds && both.rows.len() == 9);
        let seconds = &both.rows[5];
        assert_eq!((seconds.what.as_str(), seconds.ratio()), ("seconds in rounds", Some(1.5)));
        assert_eq!(both.rows[8].ratio(), None);
        assert_eq!(both.methods, [Row { what: "aaaaa-aa other".into(), this: 10.0, other: 14.0 }]);
        let later = Compared { height: 10, ..replay(2.0, 14) };
        assert!(!compare(&later, &replay(2.0, 14)).same_state);
        let part = Compared { contents: ComparedRounds { first_height: Some(7), rounds: 3 }, ..replay(2.0, 14) };
        assert!(!compare(&part, &replay(2.0, 14)).same_rounds);
    }
}
