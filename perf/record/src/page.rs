//! A report as one page of HTML that needs nothing else: no script, no font, no other file.
//!
//! Enters: a [`Report`]. Leaves: the page. Never here: a byte of the recording that could be read as markup.

use crate::report::{Report, RoundFacts, StageTimes};
use std::fmt::Write;

/// Pixels of a chart.
const WIDTH: usize = 900;
const HEIGHT: usize = 160;
/// Places that rounds are put together into: one for each pixel at most.
const PLACES: usize = WIDTH;
/// Methods in the table.
const METHODS: usize = 500;
/// Colours of the stages, in their order.
const COLOURS: [&str; StageTimes::STAGES.len()] = ["#8b8b8b", "#4f81bd", "#2f9e44", "#b197fc", "#e8a33d", "#c92a2a"];

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2em;max-width:960px;color:#222}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}table{border-collapse:collapse;width:100%}\
td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}\
td:first-child,th:first-child,td.name,th.name{text-align:left;word-break:break-all}\
svg{background:#fafafa;border:1px solid #ddd;display:block}small{color:#666}\
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}";

/// The page of a report; `title` says of what.
pub fn page(report: &Report, title: &str) -> String {
    let mut out = String::new();
    let title = escaped(title);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    summary(&mut out, report);
    let rounds = &report.timeline;
    let heights = match (rounds.first(), rounds.last()) {
        (Some(first), Some(last)) => format!("heights {} to {}", first.height, last.height),
        _ => "no rounds".into(),
    };
    let places = places(rounds);
    let each = if rounds.len() > PLACES { "each pixel the longest of several rounds" } else { "each round" };
    let _ = write!(out, "<h2>Time of rounds</h2>\n<small>{heights}; {each}, by stage</small>\n<p class=\"key\">");
    for ((_, name), colour) in StageTimes::STAGES.iter().zip(COLOURS) {
        let _ = write!(out, "<span style=\"background:{colour}\"></span>{name}");
    }
    out.push_str("</p>\n");
    stacked(&mut out, &places);
    for (name, unit, value) in [
        ("Slices", "messages and tasks a round", (|round| round.slices as f64) as fn(&RoundFacts) -> f64),
        ("Instructions", "a round, as charged", |round| round.instructions as f64),
        ("Queues", "messages that wait when the round has ended", |round| round.queued as f64),
    ] {
        let _ = write!(out, "<h2>{name}</h2>\n<small>{unit}</small>\n");
        line(&mut out, &places, value);
    }
    stages(&mut out, report);
    methods(&mut out, report);
    out.push_str("</html>\n");
    out
}

fn summary(out: &mut String, report: &Report) {
    let hash: String = report.state_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let rounds = report.contents.rounds;
    let rate = if report.round_seconds > 0.0 { rounds as f64 / report.round_seconds } else { 0.0 };
    let _ = write!(
        out,
        "<p>{rounds} rounds in {:.3} s, {rate:.0} a second; {} messages and tasks; {} canisters with {} bytes of memory.</p>\n\
         <p>State hash <code>{hash}</code> at height {}.</p>\n",
        report.round_seconds, report.executed, report.canisters, report.memory_bytes, report.height
    );
}

/// Rounds by their place on the page. Of several in one place: the longest time, the most of everything else.
fn places(rounds: &[RoundFacts]) -> Vec<RoundFacts> {
    let count = rounds.len().min(PLACES);
    let total = |round: &RoundFacts| round.stages.iter().sum::<f64>();
    let place = |at: usize| {
        let part = &rounds[at * rounds.len() / count..(at + 1) * rounds.len() / count];
        let longest = part.iter().max_by(|a, b| total(a).total_cmp(&total(b))).copied().unwrap_or_default();
        let most = |value: fn(&RoundFacts) -> u64| part.iter().map(value).max().unwrap_or(0);
        RoundFacts {
            slices: most(|round| round.slices),
            instructions: most(|round| round.instructions),
            queued: most(|round| round.queued),
            ..longest
        }
    };
    (0..count).map(place).collect()
}

fn begin(out: &mut String, most: f64, unit: &str) {
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\"><title>at most {most:.6}{unit}</title>"
    );
}

fn end(out: &mut String, most: f64, unit: &str) {
    let shown = if most >= 100.0 || most == 0.0 { format!("{most:.0}") } else { format!("{most:.3}") };
    let _ = writeln!(out, "<text x=\"4\" y=\"12\" font-size=\"11\" fill=\"#666\">{shown}{unit}</text></svg>");
}

/// Bars of the stages' times, one above the other.
fn stacked(out: &mut String, places: &[RoundFacts]) {
    let most = places.iter().map(|round| round.stages.iter().sum::<f64>()).fold(0.0, f64::max);
    begin(out, most * 1e3, " ms");
    let scale = if most > 0.0 { HEIGHT as f64 * 0.9 / most } else { 0.0 };
    let width = WIDTH as f64 / places.len().max(1) as f64;
    for (stage, colour) in COLOURS.iter().enumerate() {
        let _ = write!(out, "<path fill=\"{colour}\" d=\"");
        for (at, round) in places.iter().enumerate() {
            let below: f64 = round.stages[..stage].iter().sum();
            let (top, tall) = (HEIGHT as f64 - (below + round.stages[stage]) * scale, round.stages[stage] * scale);
            if tall >= 0.05 {
                let x = at as f64 * width;
                let _ = write!(out, "M{x:.2} {top:.2}h{width:.2}v{tall:.2}h-{width:.2}z");
            }
        }
        out.push_str("\"/>");
    }
    end(out, most * 1e3, " ms");
}

/// A line through one value of each place.
fn line(out: &mut String, places: &[RoundFacts], value: fn(&RoundFacts) -> f64) {
    let most = places.iter().map(value).fold(0.0, f64::max);
    begin(out, most, "");
    let scale = if most > 0.0 { HEIGHT as f64 * 0.9 / most } else { 0.0 };
    let width = WIDTH as f64 / places.len().max(1) as f64;
    let _ = write!(out, "<path fill=\"#4f81bd\" fill-opacity=\".35\" stroke=\"#4f81bd\" d=\"M0 {HEIGHT}");
    for (at, round) in places.iter().enumerate() {
        let (left, y) = (at as f64 * width, HEIGHT as f64 - value(round) * scale);
        let _ = write!(out, "L{left:.2} {y:.2}h{width:.2}");
    }
    let _ = write!(out, "V{HEIGHT}z\"/>");
    end(out, most, "");
}

fn stages(out: &mut String, report: &Report) {
    out.push_str("<h2>Stages</h2>\n<table><tr><th>stage<th>total s<th>p50 us<th>p99 us<th>max us\n");
    for times in &report.stages {
        let StageTimes { stage, seconds, p50_us, p99_us, max_us } = times;
        let _ = writeln!(out, "<tr><td>{stage}<td>{seconds:.3}<td>{p50_us:.1}<td>{p99_us:.1}<td>{max_us:.1}");
    }
    out.push_str("</table>\n");
}

fn methods(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Methods</h2>\n<table><tr><th>canister<th class=\"name\">method<th>messages<th>slices<th>instructions<th>each\n",
    );
    for totals in report.methods.iter().take(METHODS) {
        let each = totals.instructions / totals.messages.max(1);
        let _ = writeln!(
            out,
            "<tr><td>{}<td class=\"name\">{}<td>{}<td>{}<td>{}<td>{each}",
            escaped(&totals.canister),
            escaped(&totals.method),
            totals.messages,
            totals.slices,
            totals.instructions
        );
    }
    out.push_str("</table>\n");
    if let Some(more) = report.methods.len().checked_sub(METHODS).filter(|more| *more > 0) {
        let _ = writeln!(out, "<small>and {more} methods more: <code>--json</code> shows all</small>");
    }
}

/// Text that is read as text, whatever it holds.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Contents, MethodTotals};

    fn report(rounds: u64) -> Report {
        let facts = |height: u64| RoundFacts {
            height,
            stages: [1e-6, 2e-6, 3e-4, 0.0, 1e-6, if height == 7 { 5e-3 } else { 1e-5 }],
            slices: height % 3,
            instructions: height * 1_000,
            queued: if height == 9 { 4_321 } else { 0 },
        };
        let method = MethodTotals {
            canister: "aaaaa-aa".into(),
            method: "<script>alert('x')</script>".into(),
            messages: 2,
            slices: 3,
            instructions: 50,
            instructions_in_one_slice_max: 30,
        };
        Report {
            contents: Contents { rounds, ..Contents::default() },
            canisters: 1,
            executed: 2,
            memory_bytes: 3,
            left_over_bytes: 0,
            height: rounds,
            seconds: 2.0,
            round_seconds: 1.0,
            stages: Vec::new(),
            methods: vec![method],
            timeline: (1..=rounds).map(facts).collect(),
            root: [0; 32],
            state_hash: [0xab; 32],
        }
    }

    #[test]
    fn the_page_stands_alone_and_shows_what_was_recorded_as_text() {
        let page = page(&report(20), "rounds of <node> & co");
        assert!(page.contains("<title>rounds of &lt;node&gt; &amp; co</title>"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") && !page.contains("<script"));
        for needed in ["heights 1 to 20", "abababab", "4321</text>", "5.304 ms</text>", "<td>2<td>3<td>50<td>25"] {
            assert!(page.contains(needed), "{needed}");
        }
        assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (4, 4));
        for other_file in ["http", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(other_file), "{other_file}");
        }
    }

    #[test]
    fn a_long_replay_keeps_its_peaks_and_a_page_of_bounded_size() {
        let long = report(100_000);
        let all = places(&long.timeline);
        assert_eq!((all.len(), all.iter().map(|round| round.queued).max()), (PLACES, Some(4_321)));
        assert!(all.iter().any(|round| round.stages[5] == 5e-3));
        assert!(page(&long, "long").len() < 300_000);
        assert!(page(&report(0), "none").contains("no rounds"));
    }
}
