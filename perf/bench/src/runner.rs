//! Interleaved rounds: every subject of a case once a round, in turns, so that a slow minute of the machine hits all of them.
//!
//! Enters: subjects. Leaves: [`Measured`]. Never here: what is measured.

use crate::machine::Clock;
use std::fmt;

/// Why there is no figure.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any error as the reason why there is no figure.
pub fn failed(error: impl fmt::Display) -> Failure {
    Failure(error.to_string())
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// Megabytes (10^6) a second: more is better.
    MbPerS,
    /// Things a second: more is better.
    PerS,
    /// Gigabytes (10^9) a second: more is better.
    GbPerS,
    /// Signatures a second: more is better.
    SigPerS,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Ms => "ms",
            Unit::Us => "us",
            Unit::Ns => "ns",
            Unit::MbPerS => "MB/s",
            Unit::PerS => "1/s",
            Unit::GbPerS => "GB/s",
            Unit::SigPerS => "sig/s",
            Unit::Bytes => "bytes",
        }
    }

    /// Whether more is better.
    const fn is_rate(self) -> bool {
        matches!(self, Unit::MbPerS | Unit::PerS | Unit::GbPerS | Unit::SigPerS)
    }

    /// Seconds (of one thing) in this unit. Panics: for a unit of something else.
    pub fn of_seconds(self, seconds: f64) -> f64 {
        match self {
            Unit::Ms => seconds * 1e3,
            Unit::Us => seconds * 1e6,
            Unit::Ns => seconds * 1e9,
            Unit::MbPerS | Unit::PerS | Unit::GbPerS | Unit::SigPerS | Unit::Bytes => unreachable!("it counts no time"),
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// In the case's unit.
    pub value: f64,
    /// What was computed; all samples of a case agree.
    pub check: u64,
}

/// One way to do what a case asks for.
pub struct Subject<'a> {
    name: &'static str,
    sample: Box<dyn FnMut() -> Result<Sample, Failure> + 'a>,
}

impl<'a> Subject<'a> {
    /// A subject of this name.
    pub fn new(name: &'static str, sample: impl FnMut() -> Result<Sample, Failure> + 'a) -> Self {
        Self { name, sample: Box::new(sample) }
    }
}

/// A subject's figures in one case.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The subject.
    pub subject: &'static str,
    /// Median over the rounds.
    pub median: f64,
    /// The least, or for a rate the most.
    pub best: f64,
    /// One value a round, in the order of the rounds.
    pub rounds: Vec<f64>,
}

impl Measured {
    /// Figures of these rounds.
    pub fn of(subject: &'static str, unit: Unit, rounds: Vec<f64>) -> Self {
        let better = if unit.is_rate() { f64::max } else { f64::min };
        let best = rounds.iter().copied().fold(f64::NAN, better);
        Self { subject, median: median(rounds.clone()), best, rounds }
    }

    /// Median over the rounds of this value over the other subject's of the same round: a phase in which the machine is slow hits both.
    pub fn ratio(&self, base: &Measured) -> f64 {
        median(self.ratios(base))
    }

    /// [`Measured::ratio`] with an interval in which the median lies in at least 95 of 100 runs, whatever the ratios are spread like: from the
    /// k-th smallest of them to the k-th largest (order statistics). `None`: there are too few rounds for one.
    pub fn ratio_interval(&self, base: &Measured) -> Option<(f64, f64)> {
        let mut ratios = self.ratios(base);
        let outside = outside_interval(ratios.len())?;
        ratios.sort_by(f64::total_cmp);
        Some((ratios[outside], ratios[ratios.len() - 1 - outside]))
    }

    fn ratios(&self, base: &Measured) -> Vec<f64> {
        self.rounds.iter().zip(&base.rounds).map(|(ours, theirs)| ours / theirs).collect()
    }
}

/// How to measure.
pub struct Runner {
    /// Interleaved rounds.
    pub rounds: usize,
    /// Whether cases are to be small.
    pub quick: bool,
    /// Only cases whose name contains this.
    pub filter: Option<String>,
    /// How many canisters `scale` makes, if it was said.
    pub canisters: Option<usize>,
    /// The clock of single-threaded cases.
    pub clock: Clock,
}

impl Runner {
    /// Whether a case was asked for.
    pub fn wants(&self, case: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| case.contains(filter))
    }

    /// `full`, or `small` in a quick run.
    pub fn size<T>(&self, full: T, small: T) -> T {
        if self.quick { small } else { full }
    }

    /// One warm-up of every subject, then the rounds, each beginning with another subject.
    ///
    /// Errors: a subject's, or that two samples computed different things.
    pub fn measure(&self, case: &str, unit: Unit, subjects: Vec<Subject<'_>>) -> Result<Vec<Measured>, Failure> {
        self.measure_rounds(case, unit, self.rounds, subjects)
    }

    /// As [`Runner::measure`], with its own number of rounds: for cases that take seconds.
    pub fn measure_rounds(
        &self,
        case: &str,
        unit: Unit,
        rounds: usize,
        mut subjects: Vec<Subject<'_>>,
    ) -> Result<Vec<Measured>, Failure> {
        let mut check = None;
        let mut take = |subject: &mut Subject<'_>| -> Result<f64, Failure> {
            let sample = (subject.sample)().map_err(|error| Failure(format!("{case}, {}: {error}", subject.name)))?;
            let expected = *check.get_or_insert(sample.check);
            if sample.check != expected {
                let name = subject.name;
                return Err(Failure(format!("{case}, {name}: computed {:#x}, not {expected:#x}", sample.check)));
            }
            Ok(sample.value)
        };
        let mut values = vec![Vec::with_capacity(rounds); subjects.len()];
        for subject in &mut subjects {
            take(subject)?;
        }
        for round in 0..rounds {
            for turn in 0..subjects.len() {
                let at = (round + turn) % subjects.len();
                values[at].push(take(&mut subjects[at])?);
            }
        }
        let summarise = |(subject, rounds): (Subject<'_>, Vec<f64>)| {
            let better = if unit.is_rate() { f64::max } else { f64::min };
            let best = rounds.iter().copied().fold(f64::NAN, better);
            Measured { subject: subject.name, median: median(rounds.clone()), best, rounds }
        };
        Ok(subjects.into_iter().zip(values).map(summarise).collect())
    }
}

/// How many of so many sorted values may be left out at each end so that the median is between the others with 95 % at least: as many as the
/// number of values below the median, which is binomial, falls below with 2.5 % at most.
fn outside_interval(values: usize) -> Option<usize> {
    // The probability of exactly `below` values below the median, in logarithms: 2^-values times the binomial coefficient.
    let (mut logarithm, mut sum) = (-(values as f64) * std::f64::consts::LN_2, 0.0);
    let mut outside = None;
    for below in 0..values / 2 {
        sum += logarithm.exp();
        if sum > 0.025 {
            break;
        }
        outside = Some(below);
        logarithm += ((values - below) as f64).ln() - ((below + 1) as f64).ln();
    }
    outside
}

/// The middle.
fn median(mut sorted: Vec<f64>) -> f64 {
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    match (low, high) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> Runner {
        Runner { rounds: 3, quick: false, filter: Some("so".into()), canisters: None, clock: Clock::Wall }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(median(vec![1.0, 9.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let measured = |rounds: [f64; 3]| Measured { subject: "a", median: 0.0, best: 0.0, rounds: rounds.to_vec() };
        // The machine is slow in the second half of the run: medians would give 2 / 1.
        assert_eq!(measured([1.0, 2.0, 2.0]).ratio(&measured([1.0, 1.0, 2.0])), 1.0);
    }

    #[test]
    fn an_interval_of_the_median_is_that_of_the_tables() {
        // The k-th smallest to the k-th largest, by tables of the sign test; here from zero.
        for (values, outside) in
            [(5, None), (6, Some(0)), (8, Some(0)), (9, Some(1)), (20, Some(5)), (41, Some(13)), (100, Some(39))]
        {
            assert_eq!(outside_interval(values), outside, "{values}");
        }
        let of = |rounds: Vec<f64>| Measured::of("a", Unit::Us, rounds);
        let (ours, base) = (of((1..=20).rev().map(f64::from).collect()), of(vec![1.0; 20]));
        assert_eq!((ours.ratio(&base), ours.ratio_interval(&base)), (10.5, Some((6.0, 15.0))));
        assert_eq!(of(vec![1.0; 3]).ratio_interval(&base), None);
    }

    #[test]
    fn subjects_that_compute_different_things_are_refused() {
        let subject = |name, check| Subject::new(name, move || Ok(Sample { value: 1.0, check }));
        let refused = runner().measure("sort", Unit::Ms, vec![subject("a", 1), subject("b", 2)]);
        assert_eq!(refused.unwrap_err().to_string(), "sort, b: computed 0x2, not 0x1");
        assert!(runner().measure("sort", Unit::Ms, vec![subject("a", 1), subject("b", 1)]).is_ok());
    }

    #[test]
    fn the_best_of_a_rate_is_the_highest() {
        let measure = |unit| {
            let mut next = 0.0;
            let subject = Subject::new("a", move || {
                next += 1.0;
                Ok(Sample { value: next, check: 0 })
            });
            runner().measure("case", unit, vec![subject]).unwrap().remove(0)
        };
        // The first sample warms up.
        assert_eq!((measure(Unit::Ms).best, measure(Unit::MbPerS).best), (2.0, 4.0));
        assert_eq!(measure(Unit::Ms).median, 3.0);
    }
}
