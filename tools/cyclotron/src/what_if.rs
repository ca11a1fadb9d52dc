//! What `cyclotron replay` does besides running a recording: another module in it, another replay beside it, a page about it.
//!
//! Enters: options, reports. Leaves: lines, JSON, a file. Never here: how any of it is computed (`perf/record`).

use crate::print;
use crate::recordings::{heights_bar, open_for, show_height};
use clap::Args;
use cyclotron_record::{
    Candidate, CandidateReport, Changes, Compared, Comparison, Kind, Replayer, Report, compare, page, try_candidate,
};
use cyclotron_subnet::TakeOver;
use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use std::fs;
use std::path::{Path, PathBuf};

/// Changes of one kind that are printed.
const SHOWN: usize = 50;
/// Rows of a comparison about methods that are printed.
const METHODS_SHOWN: usize = 30;

/// Options of `cyclotron replay` about these.
#[derive(Args)]
pub struct WhatIfArguments {
    /// Run the traffic against another module of this canister too, as an upgrade, and list every changed reply, trap and instruction
    /// count; the recorded hashes are compared with the recorded code alone
    #[arg(long, value_name = "CANISTER=FILE", value_parser = candidate_file)]
    wasm: Option<(Principal, PathBuf)>,

    /// With --wasm: exchange the code alone; heap, stable memory and mutable globals stay, and no upgrade hooks run
    #[arg(long, requires = "wasm")]
    plain_swap: bool,

    /// Set the report beside that of another replay: the JSON of one (--json), or a recording or state directory, which is run now
    #[arg(long, value_name = "OTHER", conflicts_with = "wasm")]
    compare: Option<PathBuf>,

    /// Write the report with charts as one page of HTML; for its flame graph of charged instructions the recording is run once more
    #[arg(long, value_name = "FILE", conflicts_with = "wasm")]
    report: Option<PathBuf>,
}

fn candidate_file(text: &str) -> Result<(Principal, PathBuf), String> {
    let (canister, file) = text.split_once('=').ok_or("it is CANISTER=FILE")?;
    let canister = Principal::from_text(canister).map_err(|error| format!("{canister} is no canister: {error}"))?;
    Ok((canister, PathBuf::from(file)))
}

impl WhatIfArguments {
    /// The file that a page about the replay is to be written to, if there is one.
    pub fn page(&self) -> Option<&Path> {
        self.report.as_deref()
    }

    /// Runs a candidate, if one is to be tried. `None`: there is none.
    /// It takes over before the first of these rounds at the earliest, and the last is that.
    pub fn try_candidate(
        &self,
        (file, no_queries): (&Path, bool),
        threads: usize,
        rounds: (Option<u64>, u64),
        json: bool,
    ) -> Option<Result<(), String>> {
        let (canister, module) = self.wasm.as_ref()?;
        let run = || {
            let wasm = fs::read(module).map_err(|error| format!("cannot read {}: {error}", module.display()))?;
            let how = if self.plain_swap { TakeOver::Swap } else { TakeOver::Upgrade };
            let candidate = Candidate { canister: CanisterId::from_principal(*canister), wasm, how };
            let recording = open_for(file, no_queries)?;
            let bar = heights_bar(json);
            let report = try_candidate(recording, threads, &candidate, rounds, |height| show_height(&bar, height));
            bar.finish_and_clear();
            let report = report.map_err(|error| format!("{}: {error}", file.display()))?;
            if json {
                return print(&to_json(&report)?);
            }
            print(&candidate_lines(&report, &canister.to_text()).join("\n"))
        };
        Some(run())
    }

    /// Compares a report and writes its page, as far as that was asked for. Returns lines for people, or with `json` for programs.
    pub fn after(
        &self,
        report: &Report,
        (file, rounds, no_queries): (&Path, (Option<u64>, u64), bool),
        threads: usize,
        json: bool,
    ) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        if let Some(path) = &self.report {
            let page = page(report, &format!("Replay of {}", file.display()));
            fs::write(path, page).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        if let Some(other) = &self.compare {
            let comparison =
                compare(&Compared::from(report), &other_replay(other, rounds, no_queries, (threads, json))?);
            if json {
                lines.push(to_json(&comparison)?);
            } else {
                lines.extend(comparison_lines(&comparison, other));
            }
        }
        Ok(lines)
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| format!("the report has no JSON form: {error}"))
}

/// The report of another replay: read, if the file is one, or made by running the recording.
fn other_replay(
    path: &Path,
    (from, last): (Option<u64>, u64),
    no_queries: bool,
    (threads, json): (usize, bool),
) -> Result<Compared, String> {
    if path.is_file() {
        let mut start = [0];
        let is_json = fs::File::open(path)
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start))
            .is_ok_and(|()| start == *b"{");
        if is_json {
            let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            return serde_json::from_slice(&text)
                .map_err(|error| format!("{} is no report of a replay: {error}", path.display()));
        }
    }
    let recording = open_for(path, no_queries)?;
    let replayer = Replayer::new(recording, from, threads).map_err(|error| error.to_string())?;
    let bar = heights_bar(json);
    let report = replayer.run(last, |progress| show_height(&bar, progress.height));
    bar.finish_and_clear();
    let report = report.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Compared::from(&report))
}

fn comparison_lines(comparison: &Comparison, other: &Path) -> Vec<String> {
    let ratio = |row: &cyclotron_record::Row| row.ratio().map_or(String::new(), |ratio| format!("{ratio:>8.3}"));
    let line = |row: &cyclotron_record::Row| {
        format!("  {:<46} {:>16} {:>16} {}", clean(&row.what), figure(row.this), figure(row.other), ratio(row))
    };
    let states = if comparison.same_state { "the same" } else { "another" };
    let mut lines = vec![
        String::new(),
        format!("  Beside       {}, which came to {states} state", other.display()),
        format!("  {:<46} {:>16} {:>16}    ratio", "", "this", "other"),
    ];
    if !comparison.same_rounds {
        let warning = "  They are not of the same rounds: choose these with --from and --to, or compare what is of one round alone";
        lines.insert(2, warning.into());
    }
    lines.extend(comparison.rows.iter().map(line));
    if !comparison.methods.is_empty() {
        lines.push(format!("  instructions of {} methods differ", comparison.methods.len()));
        lines.extend(comparison.methods.iter().take(METHODS_SHOWN).map(line));
    }
    lines
}

fn figure(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn candidate_lines(report: &CandidateReport, canister: &str) -> Vec<String> {
    let mut lines = vec![
        format!("  Rounds       {}, run as recorded and with another module in {canister}", report.rounds),
        format!(
            "  Hashes       {} as recorded with the recorded code; with the other module none is compared",
            report.hashes
        ),
    ];
    if report.taken.is_empty() {
        lines.push("  Take-over    none: the canister never had code between two rounds".into());
    }
    for taken in &report.taken {
        let outcome = match &taken.outcome {
            Ok(used) => format!("the other module runs; its hooks took {used} instructions"),
            Err(why) => format!("refused, the recorded code stays: {}", clean(why)),
        };
        lines.push(format!("  Take-over    after height {}: {outcome}", taken.height));
    }
    for (name, changes) in [
        ("Replies", &report.replies),
        ("Unanswered", &report.unanswered),
        ("Traps", &report.traps),
        ("Instructions", &report.instructions),
    ] {
        lines.extend(change_lines(name, changes));
    }
    lines.extend(query_lines(report));
    if !report.methods.is_empty() {
        lines.push(String::new());
        lines.push("  canister                     method                        messages: recorded, other   instructions: recorded, other".into());
    }
    lines.extend(report.methods.iter().take(METHODS_SHOWN).map(|method| {
        format!(
            "  {:<28} {:<28} {:>12} {:>12} {:>18} {:>18}",
            method.canister,
            clean(&method.method) + if method.kind == Kind::Query { ", query" } else { "" },
            method.recorded_messages,
            method.candidate_messages,
            method.recorded_instructions,
            method.candidate_instructions
        )
    }));
    lines
}

/// What became of queries, if there were any.
fn query_lines(report: &CandidateReport) -> Vec<String> {
    let CandidateReport { queries, certificates, not_as_recorded, queries_missed, .. } = report;
    if queries.compared + certificates + queries_missed == 0 {
        return Vec::new();
    }
    let mut lines = change_lines("Queries", queries);
    if *certificates > 0 {
        lines.push(format!("    {certificates} were not compared: a canister looked at a certificate"));
    }
    if *queries_missed > 0 {
        lines.push(format!(
            "    {queries_missed} were not run: they are recorded too far behind the batches of their height, or without these"
        ));
    }
    if not_as_recorded.changed > 0 {
        lines.push("  The recorded code too gave other answers to queries than recorded:".into());
        lines.extend(change_lines("Answers", not_as_recorded));
    }
    lines
}

pub fn change_lines(name: &str, changes: &Changes) -> Vec<String> {
    let mut lines = vec![format!("  {name:<12} {} of {} changed", changes.changed, changes.compared)];
    for change in changes.listed.iter().take(SHOWN) {
        lines.push(format!("    height {} {} {}", change.height, change.canister, clean(&change.method)));
        lines.push(format!("      recorded  {}", clean(&change.recorded)));
        lines.push(format!("      other     {}", clean(&change.candidate)));
    }
    if let Some(more) = changes.listed.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("    and {more} more: --json lists them"));
    }
    lines
}

/// Without what could drive the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
