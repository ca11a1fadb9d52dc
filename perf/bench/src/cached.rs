//! Cases `cached_*` of suite `compile`: what a start takes whose modules were compiled by an earlier one.
//!
//! A checkpoint of one canister with a module of the size is loaded into a new subnet on a new engine: `compiled` without the module cache,
//! `cached` with it, and `cached-write` where the cache is empty and the code is written there beside. Elapsed time, on all threads. The
//! files stay in the operating system's memory.

use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::round::subnet::{Bench, Setup};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_ports::SystemDisk;
use cyclotron_subnet::CodeOnDisk;
use cyclotron_wasm::code_cache::CodeCache;
use std::path::Path;
use std::sync::Arc;

/// Bytes of compiled code that may be kept.
const BYTES_MAX: u64 = 1 << 30;
/// Elapsed time, part of which may pass on the disk.
const SETUP: Setup = Setup { certified: false, threads: 2 };

/// Measures the case `cached_SIZE` for a module.
pub fn measure(runner: &Runner, report: &mut Report, size: &str, wasm: &[u8]) -> Result<(), Failure> {
    let case = format!("cached_{size}");
    let folder = std::env::temp_dir().join(format!("cyclotron-bench-cached-{}", std::process::id()));
    let (checkpoints, code) = (folder.join("checkpoints"), folder.join("module-cache"));
    std::fs::create_dir_all(&checkpoints).map_err(failed)?;
    let mut bench = Bench::new(SETUP, Clock::Wall)?;
    bench.install(1, wasm)?;
    let mut checkpointer = bench.checkpointer(&checkpoints)?;
    bench.checkpoint(&mut checkpointer)?;
    let open = |folder: &Path| CodeOnDisk::open(Arc::new(SystemDisk), folder, BYTES_MAX).map(Arc::new).map_err(failed);
    let restore = |kept: Option<Arc<dyn CodeCache>>, loaded: u64| {
        let (seconds, counts) = bench.restore_on(&checkpoints, kept)?;
        if (counts.loaded, counts.compiled) != (loaded, 1 - loaded) {
            return Err(Failure(format!("{counts:?}")));
        }
        Ok(Sample { value: seconds * 1e3, check: 0 })
    };
    let full = open(&code)?;
    restore(Some(full.clone()), 0)?;
    let subjects = vec![
        Subject::new("compiled", || restore(None, 0)),
        Subject::new("cached", || restore(Some(full.clone()), 1)),
        Subject::new("cached-write", || {
            let empty = folder.join("empty");
            let sample = restore(Some(open(&empty)?), 0);
            std::fs::remove_dir_all(&empty).map_err(failed)?;
            sample
        }),
    ];
    let measured = runner.measure(&case, Unit::Ms, subjects)?;
    report.case(&case, Unit::Ms, "compiled", &measured);
    report.note(&format!("{case}: {} bytes of Wasm, {} bytes kept", wasm.len(), full.files().bytes()));
    if let [compiled, cached, ..] = &measured[..] {
        report.goal(&format!("cached / compiled, {case}"), cached.ratio(compiled), Bound::AtMost(0.1));
    }
    std::fs::remove_dir_all(&folder).map_err(failed)
}
