//! `cyclotron record` and `cyclotron replay`: what recordings hold, and what their rounds do on this machine.

use crate::print;
use crate::profiling::Profiling;
use crate::what_if::WhatIfArguments;
use clap::{Args, Subcommand};
use cyclotron_ports::SystemDisk;
use cyclotron_record::{
    Contents, Kind, Progress, QueryReport, Recording, Replayer, Report, Stacks, Totals, flame_graph, open,
};
use cyclotron_subnet::Genesis;
use cyclotron_wasm::sampler::{Sampler, Samples};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Methods in a report for people.
const METHODS_SHOWN: usize = 30;
/// Canisters in a report for people.
const CANISTERS_SHOWN: usize = 15;

/// Commands on recordings.
#[derive(Subcommand)]
pub enum RecordCommand {
    /// Show what a recording holds, without running it
    Show(ShowArguments),
}

/// Options of `cyclotron record show`.
#[derive(Args)]
pub struct ShowArguments {
    /// A recording, or a state directory
    file: PathBuf,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `cyclotron replay`.
#[derive(Args)]
pub struct ReplayArguments {
    /// A recording, or a state directory: its log of batches is one
    file: PathBuf,

    /// Threads that run canisters; changes no result [default: the machine's cores]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=crate::start::THREADS_MAX))]
    threads: Option<u16>,

    /// Measure from the round of this height on: what is before is run without a word from the nearest checkpoint there is [default: the first one]
    #[arg(long, value_name = "HEIGHT")]
    from: Option<u64>,

    /// End after the round of this height [default: the last one]
    #[arg(long, value_name = "HEIGHT")]
    to: Option<u64>,

    /// Leave out the queries that were recorded
    #[arg(long)]
    no_queries: bool,

    /// The report as JSON
    #[arg(long)]
    json: bool,

    /// Show in this SVG file which Wasm functions took the time, as a flame graph of samples
    #[arg(long, value_name = "FILE", conflicts_with = "wasm")]
    flame: Option<PathBuf>,

    /// Write the samples to this file, a line for each stack of Wasm functions: what flame graphs are made of
    #[arg(long, value_name = "FILE", conflicts_with = "wasm")]
    folded: Option<PathBuf>,

    /// Show in this SVG file which Wasm functions were charged how many instructions: a flame graph of all that the replay was charged, the same
    /// on every machine; for it the recording is run once more
    #[arg(long, value_name = "FILE", conflicts_with = "wasm")]
    flame_instructions: Option<PathBuf>,

    /// Write the same to this file, a line for each stack of Wasm functions
    #[arg(long, value_name = "FILE", conflicts_with = "wasm")]
    folded_instructions: Option<PathBuf>,

    #[command(flatten)]
    profiling: Profiling,

    #[command(flatten)]
    what_if: WhatIfArguments,
}

/// Runs `cyclotron record`.
pub fn record(command: &RecordCommand) -> Result<(), String> {
    let RecordCommand::Show(arguments) = command;
    let mut recording = open(&arguments.file).map_err(|error| error.to_string())?;
    let checkpoints = recording.checkpoints().map_err(|error| error.to_string())?;
    let missing = recording.missing().map_err(|error| error.to_string())?;
    let folder = recording.folder().to_owned();
    let log = &mut recording.log;
    let mut contents = Contents::default();
    while let Some(frame) = log.next_frame().map_err(|error| error.to_string())? {
        contents.add(&frame);
    }
    let genesis = &recording.genesis;
    let log = &recording.log;
    if arguments.json {
        let shown = serde_json::json!({
            "subnet": genesis.config.subnet.to_text(),
            "genesis": genesis,
            "contents": contents,
            "checkpoints": checkpoints,
            "missing": missing,
            "left_over_bytes": log.left_over(),
        });
        return print(&shown.to_string());
    }
    let mut lines = [subnet_lines(genesis), contents_lines(&contents)].concat();
    if !checkpoints.is_empty() {
        let heights: Vec<String> = checkpoints.iter().map(u64::to_string).collect();
        lines.push(format!("  Checkpoints  {} in {}", heights.join(", "), folder.display()));
    }
    lines.extend(missing.map(|missing| format!("  Missing      {missing}")));
    lines.extend(left_over_line(log.left_over()));
    print(&lines.join("\n"))
}

/// Runs `cyclotron replay`.
pub fn replay(arguments: &ReplayArguments) -> Result<(), String> {
    let threads = arguments.threads.map_or_else(crate::start::cores, usize::from);
    let (file, last, what_if) = (&arguments.file, arguments.to.unwrap_or(u64::MAX), &arguments.what_if);
    if let Some(from) = arguments.from.filter(|from| *from > last) {
        return Err(format!("--from {from} comes behind --to {last}"));
    }
    let rounds = (arguments.from, last);
    let ReplayArguments { flame, folded, flame_instructions, folded_instructions, .. } = arguments;
    let written = [flame, folded, flame_instructions, folded_instructions].map(Option::as_deref);
    // A replay may take hours.
    for path in written.into_iter().chain([what_if.page()]).flatten() {
        check_folder(path)?;
    }
    arguments.profiling.begin()?;
    if let Some(tried) = what_if.try_candidate((file, arguments.no_queries), threads, rounds, arguments.json) {
        return tried;
    }
    let recording = open_for(file, arguments.no_queries)?;
    let genesis = recording.genesis.clone();
    let sampler = arguments.profiling.sampler(arguments.flame.is_some() || arguments.folded.is_some())?;
    let replayer = Replayer::new(recording, arguments.from, threads).map_err(|error| error.to_string())?;
    let bar = progress_bar(arguments.json);
    let report = replayer.run(last, |progress| show(&bar, progress));
    bar.finish_and_clear();
    let samples = sampler.map(Sampler::stop);
    let mut report = report.map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    let samples = samples.filter(|_| arguments.flame.is_some() || arguments.folded.is_some());
    // Without any there is a report all the same.
    let sampled = samples.map_or(Ok(()), |samples| write_samples(arguments, &samples));
    if arguments.flame_instructions.is_some() || arguments.folded_instructions.is_some() || what_if.page().is_some() {
        let charged = charged(arguments, threads, &report)?;
        write_charged(arguments, &charged)?;
        report.charged = Some(charged);
    }
    let beside = what_if.after(&report, (file, rounds, arguments.no_queries), threads, arguments.json)?;
    if arguments.json && !beside.is_empty() {
        print(&beside.join("\n"))?;
    } else if arguments.json {
        print(&serde_json::to_string(&report).map_err(|error| format!("the report has no JSON form: {error}"))?)?;
    } else {
        let lines = [subnet_lines(&genesis), contents_lines(&report.contents), report_lines(&report, threads), beside];
        print(&lines.concat().join("\n"))?;
    }
    sampled?;
    let answers = &report.queries.answers;
    match answers.changed {
        0 => Ok(()),
        changed => Err(format!(
            "{}: {changed} of {} answers to queries are not as recorded: this program does not do what the one that recorded them did",
            file.display(),
            answers.compared
        )),
    }
}

/// Whether there is a folder for a file that is to be written.
fn check_folder(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        Ok(())
    } else {
        Err(format!("cannot write {}: there is no folder {}", path.display(), folder.display()))
    }
}

/// Opens a recording, without its queries if they are not wanted.
pub fn open_for(file: &Path, no_queries: bool) -> Result<Recording<SystemDisk>, String> {
    let recording = open(file).map_err(|error| error.to_string())?;
    Ok(if no_queries { recording.without_queries() } else { recording })
}

/// Runs the recording again, on code that reports its calls: the times of the first run are those of usual code.
fn charged(arguments: &ReplayArguments, threads: usize, first: &Report) -> Result<Stacks, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", arguments.file.display());
    let recording = open(&arguments.file).map_err(|error| error.to_string())?;
    let replayer = Replayer::reporting_calls(recording, arguments.from, threads).map_err(|error| failed(&error))?;
    let bar = progress_bar(arguments.json);
    let again = replayer.run(arguments.to.unwrap_or(u64::MAX), |progress| show(&bar, progress));
    bar.finish_and_clear();
    let again = again.map_err(|error| failed(&error))?;
    let stacks = again.charged.unwrap_or_default();
    if (again.state_hash, stacks.total()) != (first.state_hash, first.instructions()) {
        // A recording that grows meanwhile is no fault.
        return Err(match again.height == first.height {
            true => "a fault of this program: code that reports its calls was charged something else".into(),
            false => failed(&"it changed between two runs: give --to"),
        });
    }
    Ok(stacks)
}

fn write_charged(arguments: &ReplayArguments, stacks: &Stacks) -> Result<(), String> {
    if let Some(file) = &arguments.folded_instructions {
        let write = || {
            let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
            stacks.write_folded(&mut out)?;
            std::io::Write::flush(&mut out)
        };
        write().map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    if let Some(file) = &arguments.flame_instructions {
        let title = format!("Instructions charged in {}", arguments.file.display());
        write_file(file, flame_graph(stacks, &title, "instructions").as_bytes())?;
    }
    Ok(())
}

/// Errors: also when there are none to write.
fn write_samples(arguments: &ReplayArguments, samples: &Samples) -> Result<(), String> {
    if samples.stacks.is_empty() {
        return Err("no sample met a running canister: replay more rounds, or take more --samples a second".into());
    }
    if let Some(file) = &arguments.folded {
        write_file(file, samples.folded().as_bytes())?;
    }
    if let Some(file) = &arguments.flame {
        let stacks = samples.stacks.iter().map(|(stack, count)| (stack.as_str(), *count)).collect();
        let title = format!("Wasm functions of {}", arguments.file.display());
        write_file(file, flame_graph(&stacks, &title, "samples").as_bytes())?;
    }
    Ok(())
}

fn write_file(file: &Path, content: &[u8]) -> Result<(), String> {
    std::fs::write(file, content).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// On a terminal only.
fn progress_bar(hidden: bool) -> ProgressBar {
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(4) };
    let style =
        ProgressStyle::with_template("  height {msg}  {bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left");
    ProgressBar::with_draw_target(Some(0), target).with_style(style.expect("the template is well-formed"))
}

/// Shows heights alone. On a terminal only.
pub fn heights_bar(hidden: bool) -> ProgressBar {
    let style = ProgressStyle::with_template("  height {msg} {spinner}");
    progress_bar(hidden).with_style(style.expect("the template is well-formed"))
}

pub fn show_height(bar: &ProgressBar, height: u64) {
    bar.set_message(height.to_string());
    bar.tick();
}

fn show(bar: &ProgressBar, Progress { height, read, bytes }: Progress) {
    bar.set_length(bytes);
    bar.set_position(read);
    bar.set_message(height.to_string());
}

/// What is said of a file that does not end with a whole frame: it was not finished, or is being written.
pub fn left_over_line(bytes: u64) -> Option<String> {
    (bytes > 0)
        .then(|| format!("  Not whole    the last {bytes} bytes: whoever wrote them did not finish, or is at it"))
}

pub fn subnet_lines(genesis: &Genesis) -> Vec<String> {
    vec![
        format!("  Subnet       {} ({})", genesis.config.subnet.to_text(), genesis.subnet_type),
        format!("  Prices       of {} nodes", genesis.config.fees.nodes),
    ]
}

pub fn contents_lines(contents: &Contents) -> Vec<String> {
    let heights = match (contents.first_height, contents.last_height) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".into(),
    };
    let recorded = Duration::from_secs(contents.recorded_seconds() as u64);
    let mut lines = vec![
        format!("  Heights      {heights}"),
        format!("  Rounds       {} in {recorded:?} of block time", contents.rounds),
        format!(
            "  Ingress      {} messages, {} bytes of arguments, at most {} messages a round",
            contents.ingress_messages, contents.ingress_bytes, contents.ingress_in_one_round_max
        ),
        format!("  Compared     {} certified roots, {} state hashes", contents.roots, contents.state_hashes),
    ];
    if let Some(height) = contents.begins_behind {
        lines.insert(0, format!("  Begins       behind the state of height {height}"));
    }
    if contents.queries + contents.queries_left_out > 0 {
        let left_out = match contents.queries_left_out {
            0 => String::new(),
            count => format!("; {count} more were answered and left out"),
        };
        lines.push(format!(
            "  Queries      {}, {} bytes of arguments{left_out}",
            contents.queries, contents.query_bytes
        ));
    }
    if contents.malformed > 0 {
        lines.push(format!("  Malformed    {} frames", contents.malformed));
    }
    lines
}

fn report_lines(report: &Report, threads: usize) -> Vec<String> {
    let rounds = report.contents.rounds as f64;
    let per_second = |count: f64| if report.round_seconds > 0.0 { count / report.round_seconds } else { 0.0 };
    let mut lines = vec![
        format!("  Canisters    {}, {} bytes of memory", report.canisters, report.memory_bytes),
        format!("  Executed     {} messages and tasks", report.executed),
        format!(
            "  Time         {:.3} s, {:.3} s of it in rounds on {threads} threads: {:.0} rounds and {:.0} messages a second",
            report.seconds,
            report.round_seconds,
            per_second(rounds),
            per_second(report.executed as f64),
        ),
    ];
    if report.given_up_instructions > 0 {
        lines.push(format!(
            "  Given up     {} instructions of messages that started over, at a checkpoint for example: not charged",
            report.given_up_instructions
        ));
    }
    lines.extend(query_lines(&report.queries));
    lines.extend([
        format!("  State hash   {} at height {}", hex::encode(report.state_hash), report.height),
        String::new(),
        "  stage            total s     p50 us     p99 us     max us".into(),
    ]);
    if report.began_behind > 0 || report.before_seconds > 0.001 {
        let from = match report.began_behind {
            0 => "the first round".into(),
            height => format!("the checkpoint of height {height}"),
        };
        lines.insert(0, format!("  Before       run from {from} in {:.3} s, not measured", report.before_seconds));
    }
    if let Some(line) = left_over_line(report.left_over_bytes) {
        lines.insert(0, line);
    }
    lines.extend(report.stages.iter().map(|times| {
        format!(
            "  {:<12} {:>11.3} {:>10.1} {:>10.1} {:>10.1}",
            times.stage, times.seconds, times.p50_us, times.p99_us, times.max_us
        )
    }));
    lines.push(String::new());
    lines.push(format!("  {:<28} {:>28} {TOTALS}", "canister", "methods"));
    for canister in report.canister_totals.iter().take(CANISTERS_SHOWN) {
        let (totals, methods) = (totals_columns(&canister.totals), canister.methods);
        let methods = match canister.kind {
            Kind::Message => methods.to_string(),
            Kind::Query => format!("{methods}, queries"),
        };
        lines.push(format!("  {:<28} {methods:>28} {totals}", canister.canister));
    }
    lines.extend(more(report.canister_totals.len(), CANISTERS_SHOWN, "canisters"));
    lines.push(String::new());
    lines.push(format!("  {:<28} {:<28} {TOTALS}", "canister", "method"));
    for method in report.methods.iter().take(METHODS_SHOWN) {
        let totals = totals_columns(&method.totals);
        let name = match method.kind {
            Kind::Message => shortened(&method.method, METHOD_WIDTH),
            Kind::Query => shortened(&method.method, METHOD_WIDTH - QUERY.len()) + QUERY,
        };
        lines.push(format!("  {:<28} {name:<28} {totals}", method.canister));
    }
    lines.extend(more(report.methods.len(), METHODS_SHOWN, "methods"));
    lines
}

/// What became of queries, if there were any.
fn query_lines(queries: &QueryReport) -> Vec<String> {
    let QueryReport { run, answers, certificates, moments, missed, seconds } = queries;
    if run + missed == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "  Answers      {run} queries run in {seconds:.3} s; {} of {} answers are as recorded",
        answers.compared - answers.changed,
        answers.compared
    )];
    for (count, why) in [
        (certificates, "not compared: the canister had looked at a certificate, which a replay cannot sign"),
        (moments, "not compared: rounds had ended meanwhile, and the query had started over"),
        (missed, "not run: they are recorded too far behind the batches of their height, or without these"),
    ] {
        if *count > 0 {
            lines.push(format!("               {count} {why}"));
        }
    }
    if answers.changed > 0 {
        lines.extend(crate::what_if::change_lines("Changed", answers));
    }
    lines
}

/// Heads of what [`totals_columns`] fills.
const TOTALS: &str = "  rounds   messages     instructions         each      pages    total s     p50 us     p99 us";

fn totals_columns(totals: &Totals) -> String {
    let each = totals.instructions / totals.messages.max(1);
    format!(
        "{:>8} {:>10} {:>16} {each:>12} {:>10} {:>10.3} {:>10.1} {:>10.1}",
        totals.rounds, totals.messages, totals.instructions, totals.pages, totals.seconds, totals.p50_us, totals.p99_us
    )
}

/// What is said below a table of more rows than are shown.
fn more(rows: usize, shown: usize, what: &str) -> Option<String> {
    let more = rows.checked_sub(shown).filter(|more| *more > 0)?;
    Some(format!("  and {more} {what} more: --json shows all"))
}

/// Characters of a method's name in a table.
const METHOD_WIDTH: usize = 28;
/// What is said behind the name of a method that ran as a query.
const QUERY: &str = ", query";

/// A name that fits into a column, without what could drive the terminal.
fn shortened(name: &str, width: usize) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    match name.char_indices().nth(width) {
        None => name.chars().map(shown).collect(),
        Some((end, _)) => name[..end].chars().take(width - 1).map(shown).chain(['…']).collect(),
    }
}
