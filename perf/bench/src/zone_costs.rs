//! `zone-costs`: what zones cost rounds: not compiled in, compiled in, and with a profiler connected, in turns.
//!
//! Enters: the program built without the feature `tracy`; this one, built with it. Leaves: a table. Never here: the profiler's own time, if
//! the clock is the wall's; its client library's thread in the measured process counts with `--clock cpu`.

use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_zones::{Capture, CaptureError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to listen.
const LISTEN_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Arguments {
    /// This program, built without the feature.
    #[arg(long, value_name = "PROGRAM")]
    without: PathBuf,
    /// A case of the suite `round`.
    #[arg(long, value_name = "CASE", default_value = "update_1x1000")]
    case: String,
    /// Its subject: `cyclotron`, or `cyclotron-certified` with the state hashed and signed.
    #[arg(long, value_name = "SUBJECT", default_value = "cyclotron-certified")]
    subject: String,
    /// Runs of each program.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Rounds in each run; its median counts.
    #[arg(long, default_value_t = 41)]
    rounds: usize,
    /// Where the time comes from.
    #[arg(long, value_enum, default_value_t = Clock::Cpu)]
    clock: Clock,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !cyclotron_trace::COMPILED_IN {
        return Err(failed(
            "build this program with the feature: cargo run --release -p cyclotron-perf --features tracy",
        ));
    }
    let with = std::env::current_exe().map_err(failed)?;
    let runner =
        Runner { rounds: arguments.runs.max(1), quick: false, filter: None, canisters: None, clock: arguments.clock };
    let subject = |name, program: PathBuf, connected| {
        Subject::new(name, move || Ok(Sample { value: one_run(&program, arguments, connected)?, check: 0 }))
    };
    let subjects = vec![
        subject("without", arguments.without.clone(), false),
        subject("compiled-in", with.clone(), false),
        subject("connected", with, true),
    ];
    let mut report = Report::new(false, arguments.clock);
    report.suite("zone-costs", &format!("{}, us a message", arguments.subject));
    let measured = runner.measure(&arguments.case, Unit::Us, subjects)?;
    report.case(&arguments.case, Unit::Us, "without", &measured);
    if let [without, compiled_in, connected] = &*measured {
        for (with, bound) in [(compiled_in, 1.01), (connected, 1.05)] {
            if let Some((low, high)) = with.ratio_interval(without) {
                report.note(&format!(
                    "{}: between {low:.4} and {high:.4} of without, with 95 %: {} pairs, order statistics",
                    with.subject, runner.rounds
                ));
            }
            report.goal(&format!("{} / without", with.subject), with.ratio(without), Bound::AtMost(bound));
        }
    }
    report.end();
    Ok(())
}

/// Runs the suite in a process of its own; the figure of the case and subject.
fn one_run(program: &Path, arguments: &Arguments, connected: bool) -> Result<f64, Failure> {
    let address = free_address()?;
    let clock = match arguments.clock {
        Clock::Wall => "wall",
        Clock::Cpu => "cpu",
    };
    let mut command = Command::new(program);
    command
        .args(["bench", "round", "--json", "--filter", &arguments.case, "--clock", clock])
        .args(["--rounds", &arguments.rounds.to_string()])
        .args(connected.then_some("--await-profiler"))
        .env("TRACY_PORT", address.port().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| Failure(format!("{}: {error}", program.display())))?;
    if connected && let Err(error) = read_all(address) {
        // It may wait for a profiler that does not come; what else befell it is said already.
        let _ended_already = child.kill();
        let _not_there = child.wait();
        return Err(error);
    }
    figure(child, arguments)
}

/// An address whose port was free a moment ago.
fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    listener.local_addr().map_err(failed)
}

/// Is the profiler of a program until it ends.
fn read_all(address: SocketAddr) -> Result<(), Failure> {
    let until = Instant::now() + LISTEN_MAX;
    let mut capture = loop {
        match Capture::connect(address) {
            Err(CaptureError::Connection(_)) if Instant::now() < until => std::thread::sleep(RETRY),
            outcome => break outcome.map_err(failed)?,
        }
    };
    loop {
        match capture.read() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

fn figure(child: Child, arguments: &Arguments) -> Result<f64, Failure> {
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed("a run of the suite failed"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut figures = lines.filter(|line| line["case"] == *arguments.case && line["subject"] == *arguments.subject);
    figures
        .next()
        .and_then(|line| line["value"].as_f64())
        .ok_or_else(|| failed("the suite has no such case and subject"))
}
