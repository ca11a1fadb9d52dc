//! What became of requests: latencies from the time at which they were planned, lateness, errors by kind.
//!
//! Enters: three times of each request, as durations since the first one's plan. Leaves: a [`Report`]. Never here: a clock; a latency from
//! the moment a request left, which would hide how long it waited behind slow answers.

use crate::mix::Kind;
use crate::plan::Plan;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A request that leaves later than this behind its plan is counted as late.
pub const LATE: Duration = Duration::from_millis(10);

/// An hour: whatever takes longer is counted as this.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// What one kind of request came to.
#[derive(Clone, Debug)]
struct Kept {
    answered: u64,
    late: u64,
    /// Units: ns.
    latency: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// Counts what becomes of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    kinds: BTreeMap<Kind, Kept>,
    last: Duration,
}

/// When a request was to leave, did leave, and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// By the plan.
    pub planned: Duration,
    /// In fact.
    pub left: Duration,
    /// Answered, or given up.
    pub ended: Duration,
}

impl Kept {
    fn new() -> Self {
        Self {
            answered: 0,
            late: 0,
            // Three digits from a nanosecond on: a quarter of a megabyte.
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("a histogram has these bounds"),
            errors: BTreeMap::new(),
        }
    }
}

impl Tally {
    fn kept(&mut self, kind: Kind, times: &Times) -> &mut Kept {
        self.last = self.last.max(times.ended);
        let kept = self.kinds.entry(kind).or_insert_with(Kept::new);
        kept.late += u64::from(times.left.saturating_sub(times.planned) > LATE);
        kept
    }

    /// Counts an answer.
    pub fn answered(&mut self, kind: Kind, times: &Times) {
        let latency = times.ended.saturating_sub(times.planned);
        let kept = self.kept(kind, times);
        kept.answered += 1;
        kept.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_MAX_NS));
    }

    /// Counts a request that came to nothing.
    pub fn failed(&mut self, kind: Kind, times: &Times, error: String) {
        *self.kept(kind, times).errors.entry(error).or_default() += 1;
    }

    /// What it all comes to.
    pub fn report(&self, plan: Plan) -> Report {
        let window = self.last.max(plan.duration()).as_secs_f64();
        let kinds: Vec<_> = self.kinds.iter().map(|(kind, kept)| KindReport::of(*kind, kept, window)).collect();
        Report {
            rate_asked: plan.rate,
            rate_reached: kinds.iter().map(|kind| kind.rate_reached).sum(),
            seconds: window,
            requests: kinds.iter().map(|kind| kind.requests).sum(),
            kinds,
        }
    }
}

/// What one kind of request came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindReport {
    /// Which.
    pub kind: Kind,
    /// How many ended, answered or not.
    pub requests: u64,
    /// How many were answered.
    pub answered: u64,
    /// How many left more than [`LATE`] behind their plan.
    pub late: u64,
    /// Answered in a second, of all the time until the last answer.
    pub rate_reached: f64,
    /// From the plan to the answer, in milliseconds: the median.
    pub p50_ms: f64,
    /// What nine of ten do not exceed.
    pub p90_ms: f64,
    /// What 99 of 100 do not exceed.
    pub p99_ms: f64,
    /// What 999 of 1,000 do not exceed.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Those that were not answered, by what happened instead.
    pub errors: BTreeMap<String, u64>,
}

impl KindReport {
    fn of(kind: Kind, kept: &Kept, window: f64) -> Self {
        let at = |quantile: f64| kept.latency.value_at_quantile(quantile) as f64 / 1e6;
        Self {
            kind,
            requests: kept.answered + kept.errors.values().sum::<u64>(),
            answered: kept.answered,
            late: kept.late,
            rate_reached: if window > 0.0 { kept.answered as f64 / window } else { 0.0 },
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: kept.latency.max() as f64 / 1e6,
            errors: kept.errors.clone(),
        }
    }
}

/// What a workload came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Requests a second, as planned.
    pub rate_asked: u32,
    /// Answers a second.
    pub rate_reached: f64,
    /// From the first request's plan to the plan's end, or the last answer if that is later.
    pub seconds: f64,
    /// Requests that ended, answered or not.
    pub requests: u64,
    /// By kind.
    pub kinds: Vec<KindReport>,
}

impl Report {
    /// What a kind of request came to, if there were any.
    pub fn of(&self, kind: Kind) -> Option<&KindReport> {
        self.kinds.iter().find(|report| report.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn latency_counts_from_the_plan_so_that_waiting_behind_a_slow_answer_shows() {
        let plan = Plan { rate: 100, seconds: 1 };
        let mut tally = Tally::default();
        // One connection; the node stops for a second at the first request, and answers the others within a millisecond.
        for number in 0..100 {
            let planned = plan.departure(number);
            let left = if number == 0 { planned } else { ms(1_000) };
            let ended = if number == 0 { ms(1_000) } else { ms(1_001) };
            tally.answered(Kind::Update, &Times { planned, left, ended });
        }
        let report = tally.report(plan);
        let updates = report.of(Kind::Update).unwrap();
        // From the moment they left, the median would be 1 ms.
        assert!((updates.p50_ms - 506.0).abs() < 6.0, "{updates:?}");
        assert!((updates.max_ms - 1_000.0).abs() < 1.0, "{updates:?}");
        assert_eq!((updates.requests, updates.answered), (100, 100));
        assert_eq!(updates.late, 98, "all but the first and the one planned 10 ms before it could leave");
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let mut tally = Tally::default();
        for n in (1..=1_000).rev() {
            tally.answered(Kind::Query, &Times { planned: ms(0), left: ms(0), ended: ms(n) });
        }
        let report = tally.report(Plan { rate: 1_000, seconds: 1 });
        let queries = report.of(Kind::Query).unwrap();
        for (found, expected) in [
            (queries.p50_ms, 500.0),
            (queries.p90_ms, 900.0),
            (queries.p99_ms, 990.0),
            (queries.p999_ms, 999.0),
            (queries.max_ms, 1_000.0),
        ] {
            assert!((found - expected).abs() <= expected / 1_000.0, "{found} is not {expected}");
        }
        assert_eq!(report.of(Kind::Update), None);
    }

    #[test]
    fn the_rate_reached_counts_answers_alone_until_the_last_one() {
        let plan = Plan { rate: 10, seconds: 2 };
        let mut tally = Tally::default();
        let times = |ended| Times { planned: ms(0), left: ms(0), ended };
        (0..10).for_each(|_| tally.answered(Kind::Update, &times(ms(100))));
        tally.failed(Kind::Update, &times(ms(50)), "HTTP 503".into());
        tally.failed(Kind::Update, &times(ms(50)), "HTTP 503".into());
        let report = tally.report(plan);
        assert_eq!((report.rate_reached, report.seconds, report.requests), (5.0, 2.0, 12));
        assert_eq!(report.kinds[0].errors, BTreeMap::from([("HTTP 503".to_owned(), 2)]));
        tally.failed(Kind::Query, &times(ms(4_000)), "no answer".into());
        assert_eq!(tally.report(plan).rate_reached, 2.5, "the last one ended after four seconds");
    }
}
