//! What profilers need of this process: options that commands which run canisters share.

use clap::Args;

/// Options for profilers.
#[derive(Args)]
pub struct Profiling {
    /// Write where compiled Wasm functions lie to /tmp/perf-PID.map, so that `perf report` shows their names
    #[arg(long)]
    perf_map: bool,

    /// Begin when the Tracy profiler has connected
    #[cfg(feature = "tracy")]
    #[arg(long)]
    await_profiler: bool,
}

impl Profiling {
    /// Prepares the process; before the first module is compiled.
    pub fn begin(&self) -> Result<(), String> {
        if self.perf_map {
            cyclotron_wasm::write_perf_map().map_err(|error| format!("--perf-map: {error}"))?;
        }
        cyclotron_trace::start_profiler();
        #[cfg(feature = "tracy")]
        if self.await_profiler {
            cyclotron_trace::await_profiler();
        }
        Ok(())
    }
}
