//! Suite `round`: whole rounds of a [`Subnet`](cyclotron_subnet::Subnet) with prepared batches, limits on instructions lifted.
//!
//! The time of an update is that of its round divided by the messages in it: induction, scheduling, execution, charging, routing of the answer,
//! ingress history. `cyclotron-certified` also hashes the state tree and signs its root each round.

pub mod subnet;

use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_queries::Query;
use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use subnet::{Bench, Mode, Setup, Stages};

const OURS: Setup = Setup { certified: false, threads: 1 };
/// Subjects of most cases.
const BOTH: [(&str, Setup); 2] = [("cyclotron", OURS), ("cyclotron-certified", Setup { certified: true, ..OURS })];
/// With a second thread too.
const THREADS: [(&str, Setup); 3] = [BOTH[0], BOTH[1], ("cyclotron-2t", Setup { threads: 2, ..OURS })];

/// `go` counts and replies; `relay` calls the canister named in its argument and replies when that has; `get` answers the count.
pub const MODULE: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (table funcref (elem $done $failed))
  (memory (export "memory") 1)
  (data (i32.const 100) "go")
  (func $go (export "canister_update go")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (call $append (i32.const 0) (i32.const 4))
    (call $reply))
  (func (export "canister_update relay")
    (call $arg_copy (i32.const 200) (i32.const 0) (call $arg_size))
    (call $call_new (i32.const 200) (call $arg_size) (i32.const 100) (i32.const 2)
      (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
    (if (call $call_perform) (then unreachable)))
  (func $done (param i32) (call $reply))
  (func $failed (param i32) unreachable)
  (func (export "canister_query get")
    (call $append (i32.const 0) (i32.const 4))
    (call $reply)))"#;

/// The method of [`module`] that counts.
pub const COUNTER: &str = "go";

/// The canister of most cases.
pub fn module() -> Result<Vec<u8>, Failure> {
    wat::parse_str(MODULE).map_err(failed)
}

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let wasm = module()?;
    report.suite("round", "us a message, ms an idle round; cyclotron without certification, one thread");
    let messages = runner.size(1_000, 100);
    updates(runner, report, &wasm, "update_1x1000", 1, messages)?;
    updates(runner, report, &wasm, "update_1000x1", messages, messages)?;
    noted(runner, report, &wasm, messages)?;
    call_reply(runner, report, &wasm, messages)?;
    // Waking threads costs some tens of microseconds.
    query(runner, report, &wasm, runner.size(20_000, 100))?;
    install_cached(runner, report, runner.size(100, 10))?;
    checkpoints(runner, report, &wasm, runner.size(10_000, 100))?;
    idle_canisters(runner, report, runner.size(100_000, 1_000))?;
    idle_history(runner, report, &wasm, runner.size(50_000, 1_000))?;
    goals(report);
    Ok(())
}

fn goals(report: &mut Report) {
    let goals = [
        ("update_1x1000", 2.0),
        ("update_1000x1", 2.0),
        ("call_reply", 6.0),
        ("query", 5.0),
        ("install_cached", 100.0),
        ("idle_100k", 0.1),
        ("idle_history", 0.1),
    ];
    for (case, bound) in goals {
        if let Some(value) = report.median(case, BOTH[0].0) {
            report.goal(case, value, Bound::AtMost(bound));
        }
    }
}

fn sample(unit: Unit, seconds: f64, things: usize) -> Result<Sample, Failure> {
    Ok(Sample { value: unit.of_seconds(seconds) / things as f64, check: 0 })
}

fn updates(
    runner: &Runner,
    report: &mut Report,
    wasm: &[u8],
    case: &str,
    canisters: usize,
    messages: usize,
) -> Result<(), Failure> {
    if !runner.wants(case) {
        return Ok(());
    }
    let (mut subjects, mut stages) = (Vec::new(), Vec::new());
    for (name, setup) in THREADS {
        let mut bench = Bench::new(setup, runner.clock)?;
        let canisters = bench.install(canisters, wasm)?;
        stages.push(bench.stages());
        subjects.push(Subject::new(name, move || {
            let to = canisters.iter().cycle().take(messages);
            let batch = to.map(|id| bench.ingress(*id, Some(*id), "go", &[])).collect();
            sample(Unit::Us, bench.round_of_replies(batch)?, messages)
        }));
    }
    report.case(case, Unit::Us, THREADS[0].0, &runner.measure(case, Unit::Us, subjects)?);
    show_stages(report, &stages, messages);
    Ok(())
}

/// Pairs of rounds with and without notes, at least.
const NOTED_ROUNDS: usize = 20;

/// What it costs to log batches, each lasting before its round is shown, and to record them: updates of one canister.
fn noted(runner: &Runner, report: &mut Report, wasm: &[u8], messages: usize) -> Result<(), Failure> {
    let case = "noted";
    if !runner.wants(case) {
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("cyclotron-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut subjects = Vec::new();
    for name in [BOTH[1].0, "cyclotron-logged", "cyclotron-recorded"] {
        let mut bench = Bench::new(BOTH[1].1, runner.clock)?;
        let canister = bench.install(1, wasm)?[0];
        match name {
            "cyclotron-logged" => bench.log(&folder)?,
            "cyclotron-recorded" => bench.record(&folder.join("recording"))?,
            _ => {}
        }
        subjects.push(Subject::new(name, move || {
            let batch = (0..messages).map(|_| bench.ingress(canister, Some(canister), "go", &[])).collect();
            sample(Unit::Us, bench.round_of_replies(batch)?, messages)
        }));
    }
    // The goal is of per cents: a usual run has too few pairs for an interval so narrow.
    let rounds = runner.size(runner.rounds.max(NOTED_ROUNDS), runner.rounds);
    let measured = runner.measure_rounds(case, Unit::Us, rounds, subjects)?;
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    report.case(case, Unit::Us, BOTH[1].0, &measured);
    if let [plain, logged, recorded] = &*measured {
        for noted in [logged, recorded] {
            if let Some((low, high)) = noted.ratio_interval(plain) {
                let (of, ratio) = (noted.subject, noted.ratio(plain));
                report.note(&format!("{of}: {ratio:.4} of {}, between {low:.4} and {high:.4} with 95 %: {rounds} pairs, order statistics", plain.subject));
            }
        }
        report.goal("cyclotron-recorded / cyclotron-certified", recorded.ratio(plain), Bound::AtMost(1.01));
    }
    Ok(())
}

/// Making and loading a checkpoint of canisters that have written one page each.
fn checkpoints(runner: &Runner, report: &mut Report, wasm: &[u8], canisters: usize) -> Result<(), Failure> {
    if !runner.wants("checkpoint") && !runner.wants("restore") {
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("cyclotron-bench-checkpoints-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut bench = Bench::new(OURS, runner.clock)?;
    for ids in bench.install(canisters, wasm)?.chunks(1_000) {
        let batch = ids.iter().map(|id| bench.ingress(*id, Some(*id), "go", &[])).collect();
        bench.round_of_replies(batch)?;
    }
    let mut checkpointer = bench.checkpointer(&folder)?;
    let make = Subject::new(BOTH[0].0, || {
        // All records are kept anew; pages that were saved stay where they are.
        checkpointer.start_over(bench.subnet());
        sample(Unit::Us, bench.checkpoint(&mut checkpointer)?.lasts, canisters)
    });
    report.case("checkpoint", Unit::Us, BOTH[0].0, &runner.measure("checkpoint", Unit::Us, vec![make])?);
    let load = Subject::new(BOTH[0].0, || sample(Unit::Us, bench.restore(&folder)?, canisters));
    report.case("restore", Unit::Us, BOTH[0].0, &runner.measure("restore", Unit::Us, vec![load])?);
    let size: u64 =
        std::fs::read_dir(&folder).map_err(failed)?.flatten().filter_map(|f| Some(f.metadata().ok()?.len())).sum();
    report.note(&format!("checkpoint: {canisters} canisters, {} bytes each on disk", size / canisters as u64));
    std::fs::remove_dir_all(&folder).map_err(failed)
}

/// Where the time of the first subject's last round went.
fn show_stages(report: &Report, stages: &[Stages], things: usize) {
    if let Some(stages) = stages.first() {
        report.note(&format!("stages, us each: {}", stages.describe(things)));
    }
}

fn call_reply(runner: &Runner, report: &mut Report, wasm: &[u8], messages: usize) -> Result<(), Failure> {
    let case = "call_reply";
    if !runner.wants(case) {
        return Ok(());
    }
    let (mut subjects, mut stages) = (Vec::new(), Vec::new());
    for (name, setup) in BOTH {
        let mut bench = Bench::new(setup, runner.clock)?;
        let pair = bench.install(2, wasm)?;
        stages.push(bench.stages());
        subjects.push(Subject::new(name, move || {
            let (caller, callee) = (pair[0], pair[1]);
            let batch =
                (0..messages).map(|_| bench.ingress(caller, Some(caller), "relay", callee.as_slice())).collect();
            sample(Unit::Us, bench.round_of_replies(batch)?, messages)
        }));
    }
    report.case(case, Unit::Us, BOTH[0].0, &runner.measure(case, Unit::Us, subjects)?);
    show_stages(report, &stages, messages);
    Ok(())
}

/// Queries of one canister, on one thread and on two in turns: the two meet on one heap.
fn query(runner: &Runner, report: &mut Report, wasm: &[u8], queries: usize) -> Result<(), Failure> {
    const CASES: [(&str, usize); 2] = [("query", 1), ("query_2t", 2)];
    let (mut cases, mut subjects) = (Vec::new(), Vec::new());
    for (case, threads) in CASES {
        if !runner.wants(case) {
            continue;
        }
        let mut bench = Bench::new(OURS, runner.clock)?;
        let canister = bench.install(1, wasm)?[0];
        let update = bench.ingress(canister, Some(canister), "go", &[]);
        bench.round_of_replies(vec![update])?;
        let clock = if threads == 1 { runner.clock } else { Clock::Wall };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(failed)?;
        let queries = vec![ask(canister); queries];
        cases.push(case);
        subjects.push(Subject::new(BOTH[0].0, move || {
            sample(Unit::Us, bench.queries(clock, &pool, &queries)?, queries.len())
        }));
    }
    let measured = runner.measure("query", Unit::Us, subjects)?;
    for (case, measured) in cases.iter().zip(&measured) {
        report.case(case, Unit::Us, "", std::slice::from_ref(measured));
    }
    if let [one, two] = &*measured {
        report.goal("query / query_2t", one.ratio(two), Bound::AtLeast(2.0));
    }
    Ok(())
}

fn ask(canister: CanisterId) -> Query {
    Query { sender: Principal::anonymous(), receiver: canister, method: "get".into(), arg: Vec::new() }
}

/// A module of 16 KiB: small functions, as many as fit.
fn module_of_16_kib() -> Result<Vec<u8>, Failure> {
    let make = |functions: usize| {
        let mut text =
            String::from(r#"(module (memory 1) (global $g (mut i64) (i64.const 0)) (func (export "canister_init"))"#);
        for n in 0..functions {
            text.push_str(&format!(
                "(func (param i64) (result i64) (local i64)
                   (if (i64.eqz (local.get 0)) (then (return (i64.const {n}))))
                   (i64.store (i32.const {}) (local.tee 1 (i64.mul (local.get 0) (i64.const {}))))
                   (i64.add (local.get 1) (global.get $g)))",
                n * 8,
                n * 31 + 7,
            ));
        }
        text.push(')');
        wat::parse_str(&text).map_err(failed)
    };
    let (some, more) = (make(300)?.len(), make(400)?.len());
    make(300 + (16_384 - some) * 100 / (more - some))
}

fn install_cached(runner: &Runner, report: &mut Report, installs: usize) -> Result<(), Failure> {
    let case = "install_cached";
    if !runner.wants(case) {
        return Ok(());
    }
    let wasm = module_of_16_kib()?;
    let (mut subjects, mut stages) = (Vec::new(), Vec::new());
    for (name, setup) in BOTH {
        let mut bench = Bench::new(setup, runner.clock)?;
        let canisters = bench.install(installs, &wasm)?;
        stages.push(bench.stages());
        let wasm = wasm.clone();
        subjects.push(Subject::new(name, move || {
            let messages = canisters.iter().map(|id| bench.install_message(Mode::Reinstall, *id, &wasm));
            let batch = messages.collect::<Result<_, _>>()?;
            sample(Unit::Us, bench.round_of_replies(batch)?, installs)
        }));
    }
    report.case(case, Unit::Us, BOTH[0].0, &runner.measure(case, Unit::Us, subjects)?);
    show_stages(report, &stages, installs);
    report.note(&format!("install_cached: reinstallation of a module of {} bytes", wasm.len()));
    Ok(())
}

/// Rounds without messages; the mean of some, since one is short.
fn idle(runner: &Runner, report: &mut Report, case: &str, benches: Vec<(&'static str, Bench)>) -> Result<(), Failure> {
    const ROUNDS: usize = 10;
    let stages: Vec<_> = benches.iter().map(|(_, bench)| bench.stages()).collect();
    let subjects = benches.into_iter().map(|(name, mut bench)| {
        Subject::new(name, move || {
            let seconds = (0..ROUNDS).map(|_| bench.round(Vec::new()).0).sum();
            sample(Unit::Ms, seconds, ROUNDS)
        })
    });
    report.case(case, Unit::Ms, BOTH[0].0, &runner.measure(case, Unit::Ms, subjects.collect())?);
    show_stages(report, &stages, 1);
    Ok(())
}

fn idle_canisters(runner: &Runner, report: &mut Report, canisters: usize) -> Result<(), Failure> {
    if !runner.wants("idle_100k") {
        return Ok(());
    }
    let mut benches = Vec::new();
    for (name, setup) in BOTH {
        let mut bench = Bench::new(setup, runner.clock)?;
        bench.create(canisters)?;
        benches.push((name, bench));
    }
    idle(runner, report, "idle_100k", benches)
}

fn idle_history(runner: &Runner, report: &mut Report, wasm: &[u8], statuses: usize) -> Result<(), Failure> {
    if !runner.wants("idle_history") {
        return Ok(());
    }
    let mut benches = Vec::new();
    for (name, setup) in BOTH {
        let mut bench = Bench::new(setup, runner.clock)?;
        let canister = bench.install(1, wasm)?[0];
        for _ in 0..statuses / 1_000 {
            let batch = (0..1_000).map(|_| bench.ingress(canister, Some(canister), "go", &[])).collect();
            bench.round_of_replies(batch)?;
        }
        benches.push((name, bench));
    }
    idle(runner, report, "idle_history", benches)
}
