//! `cyclotron load`: a synthetic workload to a node, or into a recording.

use crate::print;
use clap::Args;
use cyclotron_load::{
    DriveOptions, Endpoint, KindReport, LATE, Mix, Plan, Recorded, RecordingOptions, Report, Versions, Workload,
    record, versions,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};

/// Options of `cyclotron load`.
#[derive(Args)]
pub struct LoadArguments {
    /// What users ask for: counters, transfers, heaps, graphs, timers, ingress, queries, or mixed: all of them
    #[arg(long, value_name = "NAME")]
    mix: Mix,

    /// Requests a second; they leave at their times whatever the answers do
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,

    /// How long; of block time, in a recording
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,

    /// Of users and requests: the same seed, the same workload
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// URL of the node's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000", conflicts_with = "record")]
    url: String,

    /// Make a recording of the workload in this new file, on a subnet of its own: for cyclotron replay
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Rounds of the recording besides those that make its canisters [default: one a second]
    #[arg(long, value_name = "COUNT", requires = "record", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Wasm module of an ICRC ledger: transfers need one, and mixed leaves them out without
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// Requests under way at a time; those beyond wait, which their latency shows
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,

    /// Version of calls: v4 or v3, which answer with a certificate, or v2 [default: the newest that the node has]
    #[arg(long, value_name = "VERSION", value_parser = versions)]
    api: Option<Versions>,

    /// Threads that sign requests
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    signers: u8,

    /// Sign all requests before the first leaves: the generator then takes less of the machine
    #[arg(long)]
    signed_before: bool,

    /// The report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `cyclotron load`.
pub fn run(arguments: &LoadArguments) -> Result<(), String> {
    let workload = Workload { mix: arguments.mix, seed: arguments.seed, ledger: ledger(arguments)? };
    let plan = Plan { rate: arguments.rate, seconds: arguments.seconds };
    match &arguments.record {
        Some(file) => make_recording(arguments, &workload, plan, file),
        None => drive(arguments, workload, plan),
    }
}

/// The ledger's code, if the mix has a use for it.
fn ledger(arguments: &LoadArguments) -> Result<Option<Vec<u8>>, String> {
    match &arguments.ledger {
        Some(file) => std::fs::read(file).map(Some).map_err(|error| format!("{}: {error}", file.display())),
        None if arguments.mix.needs_ledger() => {
            Err(format!("{}; give it with --ledger FILE", cyclotron_load::LoadFailed::NoLedger))
        }
        None => {
            if arguments.mix.uses_ledger() {
                eprintln!("cyclotron: without --ledger, no transfers are among the requests");
            }
            Ok(None)
        }
    }
}

fn make_recording(arguments: &LoadArguments, workload: &Workload, plan: Plan, file: &Path) -> Result<(), String> {
    let rounds = arguments.rounds.unwrap_or(plan.seconds);
    let bar = progress_bar(rounds, arguments.json);
    let options = RecordingOptions { plan, rounds, threads: crate::start::cores() };
    let recorded = record(workload, options, file, |round| bar.set_position(u64::from(round)));
    bar.finish_and_clear();
    let recorded = recorded.map_err(|error| error.to_string())?;
    if arguments.json {
        return print(&json(&recorded)?);
    }
    print(&recorded_lines(&recorded, file).join("\n"))
}

fn drive(arguments: &LoadArguments, workload: Workload, plan: Plan) -> Result<(), String> {
    let endpoint = Endpoint::open(&arguments.url, workload, arguments.api).map_err(|error| error.to_string())?;
    if !arguments.json {
        let (calls, canisters) = (endpoint.versions().call, endpoint.fleet().len());
        eprintln!("{canisters} canisters are made; {} requests follow, calls by {calls}", plan.requests());
    }
    let options = DriveOptions {
        plan,
        connections: arguments.connections,
        signers: usize::from(arguments.signers),
        signed_before: arguments.signed_before,
    };
    let report = endpoint.drive(options).map_err(|error| error.to_string())?;
    if arguments.json {
        return print(&json(&report)?);
    }
    print(&report_lines(arguments, &report).join("\n"))
}

fn json(report: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(report).map_err(|error| format!("the report has no JSON form: {error}"))
}

/// On a terminal only.
fn progress_bar(rounds: u32, hidden: bool) -> ProgressBar {
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(4) };
    let style = ProgressStyle::with_template("  round {pos} of {len}  {bar:40} {eta} left");
    ProgressBar::with_draw_target(Some(u64::from(rounds)), target)
        .with_style(style.expect("the template is well-formed"))
}

fn recorded_lines(recorded: &Recorded, file: &Path) -> Vec<String> {
    let Recorded { canisters, set_up_rounds, rounds, updates, left_out, refused, queries, executed, root, state_hash } =
        recorded;
    let mut lines = vec![
        format!("  Recording    {}", file.display()),
        format!("  Rounds       {rounds}, and {set_up_rounds} before that make {canisters} canisters"),
        format!("  Updates      {updates}; {executed} messages and tasks ran"),
    ];
    if *left_out > 0 {
        lines.push(format!(
            "  Left out     {left_out} updates, which expired or still waited after the last round: --rounds makes more"
        ));
    }
    if *refused > 0 {
        lines.push(format!("  Refused      {refused} updates by a full pool"));
    }
    if *queries > 0 {
        lines.push(format!("  Left out     {queries} queries, which are in no batch"));
    }
    lines.push(format!("  Root         {}", hex::encode(root)));
    lines.push(format!("  State hash   {}", hex::encode(state_hash)));
    lines
}

fn report_lines(arguments: &LoadArguments, report: &Report) -> Vec<String> {
    let Report { rate_asked, rate_reached, seconds, requests, kinds } = report;
    let mut lines = vec![
        format!("  Workload     {}, seed {}: {requests} requests in {seconds:.1} s", arguments.mix, arguments.seed),
        format!("  Rate         {rate_asked} a second asked, {rate_reached:.1} reached"),
        "  Latency      from the planned time, in ms".into(),
        "  kind       answered    a second        p50        p90        p99      p99.9        max".into(),
    ];
    for kind in kinds {
        let KindReport { answered, rate_reached, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = kind;
        lines.push(format!(
            "  {:<7} {answered:>11} {rate_reached:>11.1} {p50_ms:>10.2} {p90_ms:>10.2} {p99_ms:>10.2} {p999_ms:>10.2} {max_ms:>10.2}",
            kind.kind.name()
        ));
    }
    for KindReport { kind, late, requests, errors, .. } in kinds {
        let kind = kind.name();
        if *late > 0 {
            lines.push(format!("  Late         {late} of {requests}, {kind}: more than {LATE:?} behind the plan"));
        }
        lines.extend(errors.iter().map(|(error, count)| format!("  Error        {count}, {kind}: {error}")));
    }
    lines
}
