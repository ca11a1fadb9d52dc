//! Tables and JSON lines.
//!
//! Enters: [`Measured`] figures, goals. Leaves: standard output; goals go to standard error when the output is JSON. Never here: measuring.

use crate::machine::{self, Clock};
use crate::runner::{Measured, Unit};
use std::collections::BTreeMap;

/// What a run has measured so far.
pub struct Report {
    json: bool,
    load_before: String,
    suite: &'static str,
    /// By case and subject, of the suite that runs.
    measured: BTreeMap<(String, &'static str), Measured>,
    goals: Vec<String>,
}

/// A bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        }
    }
}

impl Report {
    /// An empty report.
    pub fn new(json: bool, clock: Clock) -> Self {
        let load_before = machine::load();
        if !json {
            println!(
                "{}; load {load_before}; medians, ratios round by round; {} time",
                machine::describe(),
                match clock {
                    Clock::Wall => "elapsed",
                    Clock::Cpu => "processor",
                }
            );
        }
        Self { json, load_before, suite: "", measured: BTreeMap::new(), goals: Vec::new() }
    }

    /// A suite begins; `about` says what its cases are.
    pub fn suite(&mut self, suite: &'static str, about: &str) {
        self.suite = suite;
        self.measured.clear();
        if !self.json {
            println!("\n{suite}: {about}");
            println!("  {:<28} {:<24} {:>12} {:>12}  unit", "case", "subject", "median", "best");
        }
    }

    /// Figures of one case; ratios ([`Measured::ratio`]) are to `base`'s, if it is there.
    pub fn case(&mut self, case: &str, unit: Unit, base: &str, measured: &[Measured]) {
        let base = measured.iter().find(|m| m.subject == base);
        for ours in measured {
            let Measured { subject, median, best, .. } = ours;
            self.measured.insert((case.to_owned(), subject), ours.clone());
            if self.json {
                let (suite, unit) = (self.suite, unit.name());
                let line = serde_json::json!({
                    "suite": suite, "case": case, "subject": subject, "value": median, "unit": unit,
                });
                println!("{line}");
                continue;
            }
            let ratio = base.map_or(String::new(), |base| format!("  {:.3}", ours.ratio(base)));
            println!("  {case:<28} {subject:<24} {median:>12.3} {best:>12.3}  {:<5}{ratio}", unit.name());
        }
    }

    /// A figure of ours that was taken once: what it is of takes long.
    pub fn figure(&mut self, case: &str, unit: Unit, value: f64) {
        let subject = "cyclotron";
        self.case(case, unit, subject, &[Measured { subject, median: value, best: value, rounds: vec![value] }]);
    }

    /// A subject's median in a case of this suite.
    pub fn median(&self, case: &str, subject: &'static str) -> Option<f64> {
        self.measured.get(&(case.to_owned(), subject)).map(|measured| measured.median)
    }

    /// Ratios of two subjects in all cases that have both, with the case.
    pub fn ratios(&self, subject: &'static str, to: &'static str) -> Vec<(f64, String)> {
        self.measured
            .iter()
            .filter(|((_, of), _)| *of == subject)
            .filter_map(|((case, _), ours)| Some((ours.ratio(self.measured.get(&(case.clone(), to))?), case.clone())))
            .collect()
    }

    /// A line below the table.
    pub fn note(&self, note: &str) {
        if self.json {
            eprintln!("{}: {note}", self.suite);
        } else {
            println!("  {note}");
        }
    }

    /// Whether a figure keeps a goal of the issue; repeated at the end of the run.
    pub fn goal(&mut self, what: &str, value: f64, bound: Bound) {
        let verdict = if bound.is_met(value) { "met" } else { "MISSED" };
        let bound = match bound {
            Bound::AtMost(bound) => format!("at most {bound}"),
            Bound::AtLeast(bound) => format!("at least {bound}"),
        };
        let line = format!("goal {verdict}: {what}: {value:.3}, {bound}");
        self.note(&line);
        self.goals.push(format!("{}: {line}", self.suite));
    }

    /// The end of the run.
    pub fn end(&self) {
        let line = format!("load before {}, after {}", self.load_before, machine::load());
        if self.json {
            return eprintln!("{line}");
        }
        println!("\n{line}");
        for goal in &self.goals {
            println!("{goal}");
        }
    }
}

/// The geometric mean.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0), |(sum, count), value: f64| (sum + value.ln(), count + 1));
    (sum / f64::from(count)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometric_mean_of_two_and_eight_is_four() {
        assert!((geometric_mean([2.0, 8.0]) - 4.0).abs() < 1e-12);
        assert!(geometric_mean([]).is_nan());
    }

    #[test]
    fn bounds_include_themselves() {
        assert!(Bound::AtMost(1.0).is_met(1.0) && !Bound::AtMost(1.0).is_met(1.1));
        assert!(Bound::AtLeast(1.0).is_met(1.0) && !Bound::AtLeast(1.0).is_met(0.9));
    }
}
