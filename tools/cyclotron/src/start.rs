//! `cyclotron start`: options, state directory, banner, and the node until Ctrl-C.

use crate::node::{Kept, Node, NodeOptions, Restart, genesis};
use crate::print;
use crate::profiling::Profiling;
use clap::Args;
use cyclotron_net::{Counters, Server, ServerConfig, serve};
use cyclotron_ports::{SystemDisk, SystemEntropy};
use cyclotron_storage::{NodeKeys, StateDirectory};
use cyclotron_subnet::{CHECKPOINTS_KEPT, NODES_MAX};
use cyclotron_trace::{LogFormat, Metrics, info, init_log, warn};
use cyclotron_types::units::Bytes;
use cyclotron_types::units::Height;
use rlimit::Resource;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Threads that anyone may ask for: far more than help.
pub const THREADS_MAX: i64 = 1_024;
/// Nodes that the table of prices is written for.
const PRICED_AS_DEFAULT: u64 = 13;
/// Checkpoints that anyone may want to keep: each may hold a whole state.
const CHECKPOINTS_MAX: u64 = 1_000;
/// File descriptors of a process whose limit cannot be learned: what systems give at least.
const FILES_MIN: u64 = 256;
/// Exit code of a process that a second Ctrl-C ends: 128 and the number of SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// Options of `cyclotron start`.
#[derive(Args)]
pub struct StartArguments {
    /// Address of the client API (/api/v2/status and so on); port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    bind: SocketAddr,

    /// Address of the Prometheus metrics page (/metrics)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    metrics: SocketAddr,

    /// Serve no metrics page
    #[arg(long, conflicts_with = "metrics")]
    no_metrics: bool,

    /// Directory of the node's keys and of all that it keeps; made on the first start [default: $XDG_STATE_HOME/cyclotron or ~/.local/state/cyclotron]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,

    /// Threads that run canisters; changes no result [default: the machine's cores]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    threads: Option<u16>,

    /// Threads that answer queries [default: the machine's cores, at most 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    query_threads: Option<u16>,

    /// Nodes of the subnet that cycle prices are computed for; the subnet keeps what its first start said [default: 13]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    priced_as: Option<u64>,

    /// Record the batches of rounds in this new file, from the newest checkpoint on: for cyclotron replay. Checkpoints that it can be run from are put
    /// into the folder FILE.checkpoints
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// With --record: queries too, with hashes of their answers. More than can be recorded are left out and counted: none waits for that
    #[arg(long, requires = "record")]
    record_queries: bool,

    /// With --record: a state hash to compare is recorded each time that so many rounds have been made
    #[arg(long, value_name = "ROUNDS", default_value_t = 1_000, requires = "record", value_parser = clap::value_parser!(u64).range(1..))]
    record_hash_every: u64,

    /// With --record: checkpoints in its folder; the first, the newest, and some between them that lie far apart
    #[arg(long, value_name = "COUNT", default_value_t = 8, requires = "record", value_parser = clap::value_parser!(u64).range(2..=CHECKPOINTS_MAX))]
    record_checkpoints: u64,

    /// Seconds from one checkpoint of the state to the next, at least; a start runs the rounds behind the last one again
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u64,

    /// Checkpoints that are kept, the newest
    #[arg(long, value_name = "COUNT", default_value_t = CHECKPOINTS_KEPT as u64, value_parser = clap::value_parser!(u64).range(1..=CHECKPOINTS_MAX))]
    checkpoints: u64,

    /// MiB of the log of batches beyond which files go that the oldest of the kept checkpoints makes dispensable
    #[arg(long, value_name = "MIB", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(..=1 << 40))]
    log_max: u64,

    /// MiB of compiled code kept in the state directory, so that a start need not compile again; 0 keeps none
    #[arg(long, value_name = "MIB", default_value_t = 2_048, value_parser = clap::value_parser!(u64).range(..=1 << 40))]
    module_cache: u64,

    /// MiB of memory that canisters may take before pages are given back that are on the disk too [default: half of the machine's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    memory: Option<u64>,

    #[command(flatten)]
    profiling: Profiling,

    /// Log lines and the banner as JSON
    #[arg(long)]
    json: bool,

    /// What to log, for example `debug` or `info,cyclotron_net=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Runs a node until the process is told to stop.
pub fn run(arguments: StartArguments) -> Result<(), String> {
    abort_on_panic();
    let format = if arguments.json { LogFormat::Json } else { LogFormat::Text };
    init_log(format, &arguments.log).map_err(|error| format!("--log {}: {error}", arguments.log))?;
    arguments.profiling.begin()?;
    let _sampler = arguments.profiling.sampler(false)?;
    let path = match arguments.state_dir.clone() {
        Some(path) => path,
        None => default_state_directory()?,
    };
    let made_with = |keys: &NodeKeys| genesis(keys, arguments.priced_as.unwrap_or(PRICED_AS_DEFAULT)).encode();
    let state = StateDirectory::open(&Arc::new(SystemDisk), &path, &SystemEntropy, std::process::id(), made_with)
        .map_err(|error| error.to_string())?;
    // To learn it after the state was brought back would be late.
    check_addresses(&arguments)?;
    let threads = arguments.threads.map_or_else(cores, usize::from);
    let kept = Kept { checkpoints: arguments.checkpoints as usize, log_bytes_max: arguments.log_max << 20 };
    let mut restart = Restart::open(&state, threads, arguments.priced_as, arguments.module_cache << 20, kept)?;
    if let Some(file) = &arguments.record {
        restart.record(file, arguments.record_checkpoints as usize, arguments.record_queries)?;
    }
    let back = restart.bring_back()?;
    let height = back.subnet.height();

    let metrics = Arc::new(Metrics::default());
    let page = metrics.clone();
    let mut config = ServerConfig::new(arguments.bind);
    config.limits.connections_max = connections_max(raise_file_limit()).min(config.limits.connections_max);
    config.metrics = (!arguments.no_metrics).then_some(arguments.metrics);
    let (server, requests) =
        serve(config, Arc::new(move || page.page())).map_err(|error| explain_bind(&arguments, &error))?;
    show_counters(&metrics, &server);
    if !server.api_address().ip().is_loopback() {
        warn!("{} is reachable from other machines, and anyone there can make cycles", server.api_address());
    }

    let (stop, stopped) = crossbeam::channel::bounded(1);
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        // The first one stops the node in order; whoever asks again does not want to wait.
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        // It is the only one, and nobody has gone: there is room.
        let _sent = stop.try_send(());
    })
    .map_err(|error| format!("cannot handle Ctrl-C: {error}"))?;

    let options = NodeOptions {
        query_threads: arguments.query_threads.map_or(cores().min(4), usize::from),
        hash_every: arguments.record.is_some().then_some(arguments.record_hash_every),
        checkpoint_every: Duration::from_secs(arguments.checkpoint_every),
        memory_max: Bytes(arguments.memory.map_or_else(half_of_memory, |mib| mib << 20)),
    };
    let node = Node::start(&state, back, options, requests, metrics)?;
    node.await_first_round();
    print(&banner(arguments.json, &server, &node, &state, height))?;

    // An error would mean that the handler is gone, and then there is nothing to wait for.
    let _stop_asked = stopped.recv();
    info!("stopping: requests under way are answered first");
    node.drain();
    server.shutdown();
    node.stop();
    info!("stopped");
    Ok(())
}

/// Half of the machine's memory in bytes; 4 GiB when it does not say.
fn half_of_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(4 << 30, |kib: u64| kib * 1_024 / 2)
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Takes all the file descriptors that the process may have; returns their number. Shells give few at first.
fn raise_file_limit() -> u64 {
    // Refused or not, what counts is the limit afterwards.
    let _raised = Resource::NOFILE.get_hard().and_then(|hard| Resource::NOFILE.set(hard, hard));
    Resource::NOFILE.get_soft().unwrap_or(FILES_MIN)
}

/// Connections of clients that fit into so many file descriptors: half of them, since the rest of the process needs some too.
fn connections_max(files: u64) -> usize {
    usize::try_from(files / 2).unwrap_or(usize::MAX).max(1)
}

/// Puts the server's counters on the metrics page.
fn show_counters(metrics: &Metrics, server: &Server) {
    type Read = fn(&Counters) -> &AtomicU64;
    let shown: [(&str, &str, Read); 4] = [
        ("http_connections", "Connections accepted", |c| &c.connections),
        ("http_connections_refused", "Connections refused for their number", |c| &c.connections_refused),
        ("http_requests", "Requests read up to their headers", |c| &c.requests),
        ("http_requests_refused", "Requests refused before admission: malformed, large, slow, too many", |c| {
            &c.refused
        }),
    ];
    for (name, help, read) in shown {
        let counters = server.counters().clone();
        metrics.watch_counter(name, help, move || read(&counters).load(Ordering::Relaxed));
    }
}

/// Ends the process when any thread panics: a node that went on without one of its threads would look alive and not be.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Whether both addresses can be had now.
fn check_addresses(arguments: &StartArguments) -> Result<(), String> {
    let metrics = (!arguments.no_metrics).then_some(arguments.metrics);
    // Both at once: they may be the same.
    let taken: io::Result<Vec<TcpListener>> =
        [Some(arguments.bind), metrics].into_iter().flatten().map(TcpListener::bind).collect();
    taken.map(drop).map_err(|error| explain_bind(arguments, &error))
}

/// Says which of the addresses cannot be had, and what to do.
fn explain_bind(arguments: &StartArguments, error: &io::Error) -> String {
    let api_is_free = TcpListener::bind(arguments.bind).is_ok();
    let (flag, address) = if api_is_free && !arguments.no_metrics {
        ("--metrics", arguments.metrics)
    } else {
        ("--bind", arguments.bind)
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is taken by another process; choose another address with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} is no address of this machine; choose another with {flag}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("not allowed to listen on {address}; choose a port above 1023 with {flag}")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

fn default_state_directory() -> Result<PathBuf, String> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("cyclotron"))
        .ok_or_else(|| "neither HOME nor XDG_STATE_HOME is set: name a directory with --state-dir".into())
}

/// What the node says on standard output once it serves, so that scripts can read it; log lines go to standard error.
fn banner(json: bool, server: &Server, node: &Node, state: &StateDirectory<SystemDisk>, height: Height) -> String {
    let api = format!("http://{}", server.api_address());
    let metrics = server.metrics_address().map(|address| format!("http://{address}/metrics"));
    let root_key = hex::encode(node.root_key());
    let directory = state.path().display();
    if json {
        let banner = serde_json::json!({
            "api": api,
            "metrics": metrics,
            "root_key": root_key,
            "state_dir": directory.to_string(),
            "height": height.0,
        });
        return banner.to_string();
    }
    let made = if state.is_created() { " (made now)" } else { "" };
    [
        format!("Cyclotron {} serves the Internet Computer's API", env!("CARGO_PKG_VERSION")),
        String::new(),
        format!("  API       {api}"),
        format!("  Metrics   {}", metrics.as_deref().unwrap_or("none")),
        format!("  Root key  {root_key}"),
        format!("  State     {directory}{made}"),
        format!("  Height    {height}"),
        String::new(),
        "  Next      cyclotron create, install, call, query and status; Ctrl-C stops the node".into(),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_file_descriptors_to_the_rest_of_the_process() {
        for (files, connections) in [(0, 1), (256, 128), (1_024, 512)] {
            assert_eq!(connections_max(files), connections);
        }
        assert_eq!(connections_max(u64::MAX), usize::MAX / 2);
    }
}
