//! Suite `scale`: a subnet of a million counter canisters.
//!
//! Each figure is taken once or a few times: what it is of takes minutes to make. `resident_per_canister` is the growth of the process's own memory and
//! of the files in memory that hold heaps, over the canisters, when all of them are idle and their pages are given back.

use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::round::MODULE;
use crate::round::subnet::{Bench, Setup};
use crate::runner::{Failure, Runner, Unit, failed};
use std::path::Path;

/// Canisters that are made at once.
const STEP: usize = 10_000;
/// Canisters that get a message in a round.
const SPREAD: usize = 10_000;
/// Idle rounds that are timed.
const IDLE_ROUNDS: usize = 21;

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let wasm = wat::parse_str(MODULE).map_err(failed)?;
    let count = runner.canisters.unwrap_or_else(|| runner.size(1_000_000, 2_000));
    report.suite("scale", &format!("{count} canisters with a written page each; elapsed time, all threads"));
    let folder = std::env::temp_dir().join(format!("cyclotron-bench-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let done = measure(report, &wasm, count, &folder);
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    done
}

/// Bytes that the process has for itself.
fn own_memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(failed)?;
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let kib: u64 =
        anonymous.ok_or_else(|| failed("/proc/self/status says nothing of RssAnon"))?.trim().parse().map_err(failed)?;
    Ok(kib * 1_024)
}

fn on_disk(folder: &Path) -> Result<(usize, u64), Failure> {
    let files = std::fs::read_dir(folder).map_err(failed)?.flatten();
    Ok(files.filter_map(|file| file.metadata().ok()).fold((0, 0), |(count, sum), file| (count + 1, sum + file.len())))
}

fn measure(report: &mut Report, wasm: &[u8], count: usize, folder: &Path) -> Result<(), Failure> {
    let size =
        if count.is_multiple_of(1_000_000) { format!("{}m", count / 1_000_000) } else { format!("{}k", count / 1_000) };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bench = Bench::new(Setup { certified: true, threads }, Clock::Wall)?;
    let before = own_memory()?;
    let mut checkpointer = bench.checkpointer(folder)?;
    let mut canisters = Vec::with_capacity(count);
    let (mut creating, mut first_writes) = (0.0, 0.0);
    while canisters.len() < count {
        let step = STEP.min(count - canisters.len());
        let (seconds, new) = Clock::Wall.time(|| bench.install(step, wasm));
        let new = new?;
        creating += seconds;
        for ids in new.chunks(1_000) {
            let batch = ids.iter().map(|id| bench.ingress(*id, Some(*id), "go", &[])).collect();
            first_writes += bench.round_of_replies(batch)?;
        }
        canisters.extend(new);
        // As a node does: what is kept need not be in memory.
        if canisters.len().is_multiple_of(STEP * 10) {
            bench.checkpoint(&mut checkpointer)?;
            while bench.subnet().release_memory(usize::MAX) > 0 {}
        }
    }
    report.figure("create_and_install", Unit::PerS, count as f64 / creating);
    report.figure("first_update", Unit::PerS, count as f64 / first_writes);

    bench.checkpoint(&mut checkpointer)?;
    checkpointer.start_over(bench.subnet());
    let made = bench.checkpoint(&mut checkpointer)?;
    report.figure(&format!("checkpoint_{size}_all_records"), Unit::Ms, made.lasts * 1e3);
    report.note(&made.describe());
    while bench.subnet().release_memory(usize::MAX) > 0 {}
    bench.forget_statuses();
    let (own, heaps) = (own_memory()?.saturating_sub(before), bench.subnet().memory_taken().0);
    let resident = (own + heaps) as f64 / count as f64;
    report.figure("resident_per_canister", Unit::Bytes, resident);
    report.note(&format!("{own} bytes of the process, {heaps} of heaps in memory"));
    let (files, bytes) = on_disk(folder)?;
    report.figure("disk_per_canister", Unit::Bytes, bytes as f64 / count as f64);
    report.note(&format!("{files} files"));

    let mut idle: Vec<f64> = (0..IDLE_ROUNDS).map(|_| bench.round(Vec::new()).0 * 1e3).collect();
    idle.sort_by(f64::total_cmp);
    report.figure(&format!("idle_round_{size}"), Unit::Ms, idle[IDLE_ROUNDS / 2]);
    report.note(&format!(
        "stages of the last, in us: {}; the last one is hash and signature",
        bench.stages().describe(1)
    ));

    let spread: Vec<_> = canisters.iter().step_by((count / SPREAD).max(1)).take(SPREAD).copied().collect();
    for case in ["spread_10k_cold", "spread_10k"] {
        let batch = spread.iter().map(|id| bench.ingress(*id, Some(*id), "go", &[])).collect();
        let seconds = bench.round_of_replies(batch)?;
        report.figure(case, Unit::Ms, seconds * 1e3);
        let (each, stages) = (seconds * 1e6 / spread.len() as f64, bench.stages().describe(spread.len()));
        report.note(&format!("{each:.1} us a message: {stages}"));
    }
    let made = bench.checkpoint(&mut checkpointer)?;
    report.figure(&format!("checkpoint_{size}"), Unit::Ms, made.lasts * 1e3);
    report.note(&format!("{} canisters changed; {}", spread.len(), made.describe()));
    let seconds = bench.restore(folder)?;
    report.figure(&format!("restart_{size}"), Unit::Ms, seconds * 1e3);
    report.goal("resident_per_canister", resident, Bound::AtMost(4_096.0));
    report.goal(&format!("idle_round_{size}"), idle[IDLE_ROUNDS / 2], Bound::AtMost(0.2));
    Ok(())
}
