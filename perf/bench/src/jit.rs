//! Suite `jit`: kernels compiled from Rust in `tools/canisters/kernels`, one message a sample.
//!
//! The time of our subjects is that of a whole message: undo log, comparison of the pages it stored to, commit.

use crate::cyclotron::{self, BARE, CARDS, CYCLOTRON, Instance, PROTECT, UNMETERED, UNTRACKED};
use crate::report::{Bound, Report, geometric_mean};
use crate::runner::{Failure, Runner, Sample, Subject, Unit};
use crate::wasmtime_peer::{self, FUEL, NAN, PLAIN, Peer};
use cyclotron_wasm::runtime::Value;

/// Exports with what they get, chosen for some 50 to 100 ms each: a message of about 10^8 instructions.
const CASES: [(&str, u32); 9] = [
    ("sha256", 12),
    ("xorshift", 30_000),
    ("fib", 36),
    ("memwalk", 16),
    ("sort", 8),
    ("btree", 150),
    ("json", 30),
    ("matmul", 32),
    ("interp", 16),
];

const OURS: [cyclotron::Variant; 6] = [CYCLOTRON, CARDS, UNTRACKED, UNMETERED, BARE, PROTECT];
const PEERS: [wasmtime_peer::Variant; 3] = [PLAIN, NAN, FUEL];

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let wasm = crate::kernels::build("kernels")?;
    report.suite("jit", "kernels in Wasm, one message each; ratios to wasmtime-nan");
    for (case, n) in CASES {
        if !runner.wants(case) {
            continue;
        }
        let mut subjects = Vec::new();
        for variant in OURS {
            subjects.push(our_subject(runner, report, variant, &wasm, case, n)?);
        }
        for variant in PEERS {
            subjects.push(peer_subject(runner, variant, &wasm, case, n)?);
        }
        report.case(case, Unit::Ms, NAN.name, &runner.measure(case, Unit::Ms, subjects)?);
    }
    summarise(report);
    Ok(())
}

fn our_subject<'a>(
    runner: &'a Runner,
    report: &Report,
    variant: cyclotron::Variant,
    wasm: &[u8],
    case: &'static str,
    n: u32,
) -> Result<Subject<'a>, Failure> {
    let mut instance = Instance::new(variant, wasm)?;
    if variant.name == CYCLOTRON.name && !instance.settle(case, &[Value::I32(n as i32)])? {
        report.note(&format!("{case}: cyclotron stays with cards"));
    }
    Ok(Subject::new(variant.name, move || {
        let (seconds, check) = runner.clock.time(|| instance.call(case, &[Value::I32(n as i32)]));
        Ok(Sample { value: Unit::Ms.of_seconds(seconds), check: check? })
    }))
}

fn peer_subject<'a>(
    runner: &'a Runner,
    variant: wasmtime_peer::Variant,
    wasm: &[u8],
    case: &'static str,
    n: u32,
) -> Result<Subject<'a>, Failure> {
    let mut function = Peer::new(variant, wasm)?.function(case)?;
    Ok(Subject::new(variant.name, move || {
        let (seconds, check) = runner.clock.time(|| function(n));
        Ok(Sample { value: Unit::Ms.of_seconds(seconds), check: check? })
    }))
}

/// Geometric means and worst cases over `wasmtime-nan`, and the goals.
fn summarise(report: &mut Report) {
    let subjects = OURS.map(|v| v.name).into_iter().chain(PEERS.map(|v| v.name));
    for subject in subjects.filter(|name| *name != NAN.name) {
        let ratios = report.ratios(subject, NAN.name);
        let mean = geometric_mean(ratios.iter().map(|(ratio, _)| *ratio));
        if let Some((worst, case)) = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0)) {
            report.note(&format!("{subject} / {}: {mean:.3} geometric mean, {worst:.3} worst ({case})", NAN.name));
        }
    }
    let mean = |subject| geometric_mean(report.ratios(subject, NAN.name).iter().map(|(ratio, _)| *ratio));
    let worst = |subject| report.ratios(subject, NAN.name).iter().map(|(ratio, _)| *ratio).fold(f64::NAN, f64::max);
    let (tracked, worst, untracked) = (mean(CYCLOTRON.name), worst(CYCLOTRON.name), mean(UNTRACKED.name));
    report.goal("cyclotron / wasmtime-nan, geometric mean", tracked, Bound::AtMost(1.10));
    report.goal("cyclotron / wasmtime-nan, worst case", worst, Bound::AtMost(1.25));
    report.goal("cyclotron-untracked / wasmtime-nan, geometric mean", untracked, Bound::AtMost(1.05));
}
