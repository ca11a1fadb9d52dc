//! What profilers need of this process: options that commands which run canisters share.

use clap::Args;
use cyclotron_wasm::sampler::{RATE_MAX, Sampler};

/// Options for profilers.
#[derive(Args)]
pub struct Profiling {
    /// Write where compiled Wasm functions lie to /tmp/perf-PID.map, so that `perf report` shows their names
    #[arg(long)]
    perf_map: bool,

    /// Where Wasm functions are sampled: so many times a second, on each thread that runs a canister
    #[arg(long, value_name = "RATE", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    samples: u32,

    /// Begin when the Tracy profiler has connected
    #[cfg(feature = "tracy")]
    #[arg(long)]
    await_profiler: bool,

    /// Sample Wasm functions and show them to the Tracy profiler, in a row for each thread that runs canisters
    #[cfg(feature = "tracy")]
    #[arg(long)]
    wasm_rows: bool,
}

impl Profiling {
    /// Prepares the process; before the first module is compiled.
    pub fn begin(&self) -> Result<(), String> {
        if self.perf_map {
            cyclotron_wasm::write_perf_map().map_err(|error| format!("--perf-map: {error}"))?;
        }
        #[cfg(feature = "tracy")]
        if self.await_profiler {
            cyclotron_trace::await_profiler();
        }
        Ok(())
    }

    /// Begins to sample Wasm functions, if the caller or the profiler wants them; before the first module is compiled.
    pub fn sampler(&self, wanted: bool) -> Result<Option<Sampler>, String> {
        #[cfg(feature = "tracy")]
        let watch = self.wasm_rows.then(|| Box::<rows::Rows>::default() as _);
        #[cfg(not(feature = "tracy"))]
        let watch = None;
        if !wanted && watch.is_none() {
            return Ok(None);
        }
        Sampler::start(self.samples, watch).map(Some).map_err(|error| format!("cannot sample Wasm functions: {error}"))
    }
}

#[cfg(feature = "tracy")]
mod rows {
    //! Sampled stacks as rows of the profiler's window.

    use cyclotron_trace::{Timeline, function_place};
    use cyclotron_wasm::sampler::Watch;
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    /// A row for each sampled thread, and whether it shows something.
    #[derive(Default)]
    pub struct Rows(BTreeMap<i32, (Timeline, bool)>);

    impl Watch for Rows {
        fn found(&mut self, thread: i32, module: &str, functions: &[&str]) {
            let (row, shows) = match self.0.entry(thread) {
                Entry::Occupied(row) => row.into_mut(),
                Entry::Vacant(none) => match Timeline::new(&format!("wasm {thread}")) {
                    Ok(row) => none.insert((row, false)),
                    // Without a thread there is no row.
                    Err(_) => return,
                },
            };
            *shows = true;
            row.show(functions.iter().map(|function| function_place(module, function)).collect());
        }

        fn idle(&mut self, thread: i32) {
            if let Some((row, shows @ true)) = self.0.get_mut(&thread) {
                *shows = false;
                row.show(Vec::new());
            }
        }
    }
}
