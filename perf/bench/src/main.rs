//! `bench`: times the engine and the systems beside their peers.
//!
//! Enters: the name of a suite. Leaves: a table, or one JSON object a line: `{"suite","case","subject","value","unit"}`.
//! Never here: a figure that was not measured in this run; a peer measured in another run than ours.
//!
//! `cargo run --release -p cyclotron-perf -- bench SUITE [--json] [--filter CASE] [--quick]`
#![forbid(unsafe_code)]

mod cached;
mod compile;
mod crypto;
mod cyclotron;
mod heap;
mod host;
mod jit;
mod kernels;
mod machine;
mod node;
mod report;
mod round;
mod runner;
mod scale;
mod storage;
mod wasmtime_peer;
mod zone_costs;
mod zones;

use clap::{Parser, Subcommand, ValueEnum};
use report::Report;
use runner::{Failure, Runner, failed};
use std::process::ExitCode;

/// The node's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "cyclotron-perf", about = "Measures Cyclotron beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a suite and prints medians over interleaved rounds, with the goals beside them.
    Bench(Bench),
    /// Reads the zones of a program that was built with the feature `tracy`, as its profiler would, and prints how long they were open.
    Zones(zones::Arguments),
    /// Measures what zones cost: compiled in, and with a profiler connected.
    ZoneCosts(zone_costs::Arguments),
}

#[derive(clap::Args)]
struct Bench {
    /// What to measure.
    suite: Suite,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "CASE")]
    filter: Option<String>,
    /// How many canisters `scale` makes; a million otherwise.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    canisters: Option<u32>,
    /// Few rounds and small cases: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Interleaved rounds of each case.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Where single-threaded cases take the time from: on a machine that others use too, processor time says more.
    #[arg(long, value_enum, default_value_t = machine::Clock::Wall)]
    clock: machine::Clock,
    /// Begin when a profiler has connected: what the zones of a connected profiler cost.
    #[cfg(feature = "tracy")]
    #[arg(long)]
    await_profiler: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Kernels in compiled Wasm, beside wasmtime.
    Jit,
    /// Megabytes of Wasm compiled in a second, beside wasmtime.
    Compile,
    /// Calls from Wasm into the System API.
    Host,
    /// Stores to heap pages under each way of noticing them.
    Heap,
    /// Messages, queries and idle rounds of a whole subnet.
    Round,
    /// A million canisters: made, idle, spread over, kept and brought back.
    Scale,
    /// Large memories: checkpoints in proportion to what changed, forks, and the disk's own pace.
    Storage,
    /// Signatures and hashes by the batch, beside the usual crates.
    Crypto,
    /// The whole node over HTTP: processor time and latency of updates and queries.
    Node,
    /// All but `scale` and `storage`, which take gigabytes.
    All,
}

impl Suite {
    const EACH: [Suite; 7] =
        [Suite::Jit, Suite::Compile, Suite::Host, Suite::Heap, Suite::Round, Suite::Crypto, Suite::Node];

    fn run(self, runner: &Runner, report: &mut Report) -> Result<(), Failure> {
        match self {
            Suite::Jit => jit::run(runner, report),
            Suite::Compile => compile::run(runner, report),
            Suite::Host => host::run(runner, report),
            Suite::Heap => heap::run(runner, report),
            Suite::Round => round::run(runner, report),
            Suite::Scale => scale::run(runner, report),
            Suite::Storage => storage::run(runner, report),
            Suite::Crypto => crypto::run(runner, report),
            Suite::Node => node::run(runner, report),
            Suite::All => {
                // Hours later would be late to say that it is missing.
                node::find()?;
                Suite::EACH.iter().try_for_each(|suite| suite.run(runner, report))
            }
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(bench) => {
            cyclotron_trace::profiled("round", || run(bench)).unwrap_or_else(|error| Err(failed(error)))
        }
        Command::Zones(arguments) => zones::run(&arguments),
        Command::ZoneCosts(arguments) => zone_costs::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<(), Failure> {
    #[cfg(feature = "tracy")]
    if bench.await_profiler {
        cyclotron_trace::await_profiler();
    }
    let runner = Runner {
        rounds: if bench.quick { bench.rounds.min(3) } else { bench.rounds }.max(1),
        quick: bench.quick,
        filter: bench.filter,
        canisters: bench.canisters.map(|count| count as usize),
        clock: bench.clock,
    };
    let mut report = Report::new(bench.json, bench.clock);
    bench.suite.run(&runner, &mut report)?;
    report.end();
    Ok(())
}
