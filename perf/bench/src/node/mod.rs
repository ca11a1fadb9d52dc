//! Suite `node`: the whole node with its state on the disk, driven over HTTP from outside: signatures of clients verified, rounds certified,
//! batches lasting before they are answered.
//!
//! The node is a process of its own, and only its processor time counts. At full load all requests are planned in one second, more than
//! it can do, over [`CONNECTIONS`] connections; the rate is what it answers then, on a machine that the generator shares. At half load
//! requests leave at half of that rate, and latencies count from the planned times.

mod process;
mod stream;

use crate::report::{Bound, Report};
use crate::runner::{Failure, Measured, Runner, Sample, Subject, Unit, failed};
use cyclotron_load::{DriveOptions, Endpoint, Kind, Mix, Plan, Report as LoadReport, Workload};
pub use process::find;
use process::{NodeProcess, Seconds, Used};

/// Requests under way at a time.
const CONNECTIONS: u32 = 256;
/// Threads that sign, before anything is measured.
const SIGNERS: usize = 2;
/// Repetitions at most: each takes some seconds.
const ROUNDS_MAX: usize = 5;
/// Our name among subjects.
const OURS: &str = "cyclotron";

/// What is measured of one kind of request.
struct Case {
    name: &'static str,
    kind: Kind,
    mix: Mix,
    /// Requests at full load.
    burst: u32,
    /// Units: us of processor time each.
    goal: f64,
}

const CASES: [Case; 2] = [
    Case { name: "http_update", kind: Kind::Update, mix: Mix::Counters, burst: 20_000, goal: 30.0 },
    Case { name: "http_query", kind: Kind::Query, mix: Mix::Queries, burst: 40_000, goal: 40.0 },
];

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    report.suite("node", "us of the node's processor time, ms from the planned time, requests a second");
    for case in &CASES {
        if runner.wants(case.name) {
            http(runner, report, case)?;
        }
    }
    stream::run(runner, report)
}

/// One run against the node.
struct Driven {
    load: LoadReport,
    used: Used,
    answered: f64,
}

fn drive(node: &NodeProcess, endpoint: &Endpoint, kind: Kind, plan: Plan) -> Result<Driven, Failure> {
    let options = DriveOptions { plan, connections: CONNECTIONS, signers: SIGNERS, signed_before: true };
    let before = node.used()?;
    let load = endpoint.drive(options).map_err(failed)?;
    let used = node.used()?.since(&before);
    let of = load.of(kind).ok_or_else(|| failed("nothing was asked"))?;
    if !of.errors.is_empty() {
        return Err(Failure(format!(
            "{} of {} requests failed: {:?}",
            of.requests - of.answered,
            of.requests,
            of.errors
        )));
    }
    let answered = of.answered as f64;
    Ok(Driven { load, used, answered })
}

fn http(runner: &Runner, report: &mut Report, case: &Case) -> Result<(), Failure> {
    let Case { name, kind, mix, burst, goal } = *case;
    let node = NodeProcess::start()?;
    let workload = Workload { mix, seed: 1, ledger: None };
    let endpoint = Endpoint::open(&node.api, workload, None).map_err(failed)?;
    let full = Plan { rate: runner.size(burst, burst / 20), seconds: 1 };
    let seconds = runner.size(5, 1);
    // Warms up, and makes room in the tables of both.
    drive(&node, &endpoint, kind, full)?;
    let rounds = runner.rounds.min(ROUNDS_MAX);
    let (mut at_full, mut at_half) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let driven = drive(&node, &endpoint, kind, full)?;
        // A float is cut to the numbers that there are; a rate is never zero.
        let rate = (driven.load.rate_reached / 2.0).max(1.0) as u32;
        at_full.push(driven);
        at_half.push(drive(&node, &endpoint, kind, Plan { rate, seconds })?);
    }
    let cpu = |driven: &Driven| driven.used.cpu() / driven.answered * 1e6;
    show(report, &format!("{name}_cpu"), Unit::Us, &at_full, cpu);
    show(report, &format!("{name}_cpu_half"), Unit::Us, &at_half, cpu);
    show(report, &format!("{name}_rate"), Unit::PerS, &at_full, |driven| driven.load.rate_reached);
    show(report, &format!("{name}_rate_half"), Unit::PerS, &at_half, |driven| driven.load.rate_reached);
    let latency =
        |of: fn(&cyclotron_load::KindReport) -> f64| move |driven: &Driven| driven.load.of(kind).map_or(f64::NAN, of);
    show(report, &format!("{name}_p50_half"), Unit::Ms, &at_half, latency(|of| of.p50_ms));
    show(report, &format!("{name}_p99_half"), Unit::Ms, &at_half, latency(|of| of.p99_ms));
    for (load, driven) in [("full", at_full.last()), ("half", at_half.last())] {
        driven.into_iter().for_each(|driven| show_parts(report, name, load, driven));
    }
    if let Some(value) = report.median(&format!("{name}_cpu"), OURS) {
        report.goal(&format!("{name}_cpu"), value, Bound::AtMost(goal));
    }
    Ok(())
}

fn show(report: &mut Report, case: &str, unit: Unit, driven: &[Driven], value: impl Fn(&Driven) -> f64) {
    report.case(case, unit, "", &[Measured::of(OURS, unit, driven.iter().map(value).collect())]);
}

/// Where the time of a run went, in us for each request: processor time by thread, elapsed time by stage.
fn show_parts(report: &Report, name: &str, load: &str, driven: &Driven) {
    let Driven { used, answered, .. } = driven;
    let each = |seconds: &Seconds| {
        let mut parts: Vec<_> = seconds.iter().map(|(name, seconds)| (seconds / answered * 1e6, name)).collect();
        parts.retain(|(us, _)| *us >= 0.05);
        parts.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        parts.into_iter().map(|(us, name)| format!("{name} {us:.1}")).collect::<Vec<_>>().join(", ")
    };
    let total = used.cpu() / answered * 1e6;
    report.note(&format!(
        "{name}, {load} load: {total:.1} us of processor time each, {:.0} % of it in the kernel; {:.1} requests a round",
        used.kernel_share() * 100.0,
        answered / used.rounds.max(1.0),
    ));
    report.note(&format!("  by thread, processor us each: {}", each(&used.threads)));
    report.note(&format!("  by stage, elapsed us each:    {}", each(&used.stages)));
    let signatures: f64 = used.signatures.values().sum();
    let shares: Vec<_> =
        used.signatures.iter().map(|(name, count)| format!("{name} {:.0} %", count / signatures * 100.0)).collect();
    report.note(&format!(
        "  signatures: {:.1} together, checked by {}",
        signatures / used.signature_batches.max(1.0),
        shares.join(", ")
    ));
}

/// One sample of a rate.
fn rate(things: usize, seconds: f64) -> Result<Sample, Failure> {
    Ok(Sample { value: things as f64 / seconds, check: 0 })
}

/// One subject of ours.
fn ours<'a>(sample: impl FnMut() -> Result<Sample, Failure> + 'a) -> Vec<Subject<'a>> {
    vec![Subject::new(OURS, sample)]
}
