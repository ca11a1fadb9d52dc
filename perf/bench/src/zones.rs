//! `zones`: a profiler without a window, for machines that have none and for measuring what a connected one costs.
//!
//! Enters: a program that was built with the feature `tracy`. Leaves: a table of its zones. Never here: what a single zone did; Tracy shows that.

use crate::runner::{Failure, failed};
use cyclotron_zones::{Capture, CaptureError, Totals};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often a program that does not listen yet is tried again.
const RETRY: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the program listens; the variable TRACY_PORT of its environment chooses the port.
    #[arg(long, default_value = "127.0.0.1:8086")]
    address: SocketAddr,
    /// End after this time; by default when the program does.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Give up when nobody listens for this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut capture = connect(arguments)?;
    let welcome = capture.welcome().clone();
    let ends = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut outcome = Ok(true);
    while matches!(outcome, Ok(true)) && ends.is_none_or(|ends| Instant::now() < ends) {
        outcome = capture.read();
    }
    println!("{}, process {}", welcome.program, welcome.pid);
    print(&capture.totals());
    match outcome {
        Ok(_) => Ok(()),
        Err(CaptureError::Connection(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(failed("the program ended before it had told everything: the table lacks its last zones"))
        }
        Err(error) => Err(failed(error)),
    }
}

fn connect(arguments: &Arguments) -> Result<Capture, Failure> {
    let ends = Instant::now() + Duration::from_secs(arguments.wait);
    loop {
        match Capture::connect(arguments.address) {
            Err(CaptureError::Connection(error))
                if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < ends =>
            {
                std::thread::sleep(RETRY);
            }
            outcome => return outcome.map_err(failed),
        }
    }
}

fn print(totals: &Totals) {
    let Totals { places, plots, threads, frames } = totals;
    println!("{frames} frames, {} threads", threads.len());
    println!("  {:<44} {:>10} {:>12} {:>12} {:>10}", "zone", "count", "total ms", "self ms", "mean us");
    let mut places: Vec<_> = places.iter().filter(|place| place.count > 0).collect();
    places.sort_by(|a, b| b.self_ns.total_cmp(&a.self_ns));
    for place in places {
        let mean = place.ns / place.count as f64 / 1e3;
        let (total, own) = (place.ns / 1e6, place.self_ns / 1e6);
        println!("  {:<44} {:>10} {total:>12.3} {own:>12.3} {mean:>10.3}", place.name, place.count);
    }
    println!("  {:<44} {:>10} {:>12} {:>12}", "plot", "count", "last", "most");
    for plot in plots {
        println!("  {:<44} {:>10} {:>12} {:>12}", plot.name, plot.count, plot.last, plot.max);
    }
}
