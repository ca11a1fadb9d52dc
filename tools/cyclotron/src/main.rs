//! The `cyclotron` program: a node, and a few commands to talk to one.
#![forbid(unsafe_code)]

mod client;
mod fork;
mod load;
mod node;
mod profiling;
mod recordings;
mod start;
mod state;
mod what_if;

use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Internet Computer node software.
///
/// `cyclotron start` runs a node on this machine. The other commands talk to a node through its public API, this one or any other;
/// every client of the Internet Computer (ic-agent, @icp-sdk/core, icp-cli) can do the same.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node until Ctrl-C
    Start(start::StartArguments),
    /// Look into recordings
    #[command(subcommand)]
    Record(recordings::RecordCommand),
    /// Run a recording again, as fast as this machine can, and compare what it comes to
    Replay(recordings::ReplayArguments),
    /// Ask a node what many users would, at a steady rate, or make a recording of it
    Load(load::LoadArguments),
    /// Look into a state directory
    #[command(subcommand)]
    State(state::StateCommand),
    /// Copy a whole subnet, or one of its canisters; the node may be running
    Fork(fork::ForkArguments),
    #[command(flatten)]
    Client(client::ClientCommand),
}

/// Exit codes: 0 success, 1 the operation failed, 2 the arguments are wrong (clap's).
fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Start(arguments) => profiled("start", || start::run(arguments)),
        Command::Record(command) => recordings::record(&command),
        Command::Replay(arguments) => profiled("round", || recordings::replay(&arguments)),
        Command::Load(arguments) => load::run(&arguments),
        Command::State(command) => state::run(&command),
        Command::Fork(arguments) => fork::run(&arguments),
        Command::Client(command) => client::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cyclotron: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what a profiler may want to see; its thread is the row that rounds are in if it runs them.
fn profiled(name: &str, work: impl FnOnce() -> Result<(), String> + Send) -> Result<(), String> {
    cyclotron_trace::profiled(name, work).unwrap_or_else(|error| Err(format!("cannot start a thread: {error}")))
}

/// Prints a line to standard output; a reader that has gone, as `head` does, is no error.
fn print(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to standard output: {error}")),
        _ => Ok(()),
    }
}
