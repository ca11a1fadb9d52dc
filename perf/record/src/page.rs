//! A report as one page of HTML that needs nothing else: no font, no other file; its only script makes
//! a part of the flame graph wider.
//!
//! Enters: a [`Report`]. Leaves: the page. Never here: a byte of the recording that could be read as markup.

use crate::flame::flame_graph;
use crate::report::{Kind, Report, RoundFacts, StageTimes, Totals};
use std::fmt::Write;

/// Pixels of a chart.
const WIDTH: usize = 1_200;
const HEIGHT: usize = 140;
/// Places that rounds are put together into: one for each pixel at most.
const PLACES: usize = WIDTH;
/// Rows of a table.
const ROWS: usize = 500;
/// Colours of the stages, in their order.
const COLOURS: [&str; StageTimes::STAGES.len()] = ["#8b8b8b", "#4f81bd", "#2f9e44", "#b197fc", "#e8a33d", "#c92a2a"];

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:0 auto;padding:1.5em 2em 4em;max-width:1202px;color:#1f2328}\
h1{font-size:1.5em;margin:.2em 0 .6em}h2{font-size:1.05em;margin:2.2em 0 .3em}small{color:#656d76}code{font-size:.92em}\
table{border-collapse:collapse;width:100%;margin-top:.6em;font-size:13px}th{color:#656d76;font-weight:600;position:sticky;top:0;background:#fff}\
td,th{padding:.28em .55em;text-align:right;border-bottom:1px solid #e4e7eb;font-variant-numeric:tabular-nums;white-space:nowrap}\
td:first-child,th:first-child,td.name,th.name{text-align:left}td.name{white-space:normal;word-break:break-all}tr:hover td{background:#f6f8fa}\
svg{background:#fbfcfd;border:1px solid #d8dde3;border-radius:4px;display:block;margin-top:.4em;max-width:100%;height:auto}\
.facts{display:flex;flex-wrap:wrap;gap:.8em;margin:0;padding:0;list-style:none}.facts li{border:1px solid #d8dde3;border-radius:6px;padding:.45em .9em}\
.facts b{display:block;font-size:1.25em;font-variant-numeric:tabular-nums}\
.key{margin:.3em 0}.key span{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 1em;border-radius:2px}.key span:first-child{margin-left:0}";

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
        ("Instructions", "a round, as run", |round| round.instructions as f64),
        ("Changed pages", "pages of heaps that messages changed in a round", |round| round.pages as f64),
        ("Queues", "messages that wait when the round has ended", |round| round.queued as f64),
    ] {
        let _ = write!(out, "<h2>{name}</h2>\n<small>{unit}</small>\n");
        line(&mut out, &places, value);
    }
    if let Some(charged) = &report.charged {
        let _ = write!(
            out,
            "<h2>Instructions by function</h2>\n<small>All {} instructions that were charged, by canister, method and who called whom: the same on \
             every machine. A click makes a part wider.</small>\n{}",
            grouped(charged.total()),
            flame_graph(charged, "", "instructions")
        );
    }
    stages(&mut out, report);
    canisters(&mut out, report);
    methods(&mut out, report);
    out.push_str("</html>\n");
    out
}

fn summary(out: &mut String, report: &Report) {
    let hash: String = report.state_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let rounds = report.contents.rounds;
    let rate = if report.round_seconds > 0.0 { rounds as f64 / report.round_seconds } else { 0.0 };
    out.push_str("<ul class=\"facts\">");
    for (value, what) in [
        (grouped(rounds), "rounds"),
        (format!("{:.3} s", report.round_seconds), "in rounds"),
        (format!("{rate:.0}"), "rounds a second"),
        (grouped(report.executed), "messages and tasks"),
        (grouped(report.instructions()), "instructions charged"),
        (grouped(report.canisters), "canisters"),
        (format!("{:.1} MiB", report.memory_bytes as f64 / f64::from(1 << 20)), "their memory"),
    ] {
        let _ = write!(out, "<li><b>{value}</b>{what}");
    }
    if report.queries.run > 0 {
        let _ = write!(out, "<li><b>{}</b>queries", grouped(report.queries.run));
    }
    let _ = write!(out, "</ul>\n<p><small>State hash <code>{hash}</code> at height {}</small></p>\n", report.height);
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
            pages: most(|round| round.pages),
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
    out.push_str("<h2>Stages of rounds</h2>\n<table><tr><th>stage<th>total s<th>share<th>p50 us<th>p99 us<th>max us\n");
    let all = report.stages.last().map_or(0.0, |round| round.seconds);
    for times in &report.stages {
        let StageTimes { stage, seconds, p50_us, p99_us, max_us } = times;
        let share = if all > 0.0 { 100.0 * seconds / all } else { 0.0 };
        let _ = writeln!(
            out,
            "<tr><td>{stage}<td>{seconds:.3}<td>{share:.1} %<td>{p50_us:.1}<td>{p99_us:.1}<td>{max_us:.1}"
        );
    }
    out.push_str("</table>\n");
}

/// Heads of the columns that [`totals`] fills.
const TOTALS: &str =
    "<th>rounds<th>messages<th>instructions<th>each<th>pages<th>total s<th>p50 us<th>p99 us<th>max us\n";

fn totals(out: &mut String, totals: &Totals) {
    let Totals { rounds, messages, instructions, pages, seconds, p50_us, p99_us, max_us, .. } = totals;
    let each = instructions / messages.max(&1);
    let _ = writeln!(
        out,
        "<td>{rounds}<td>{messages}<td>{}<td>{}<td>{pages}<td>{seconds:.3}<td>{p50_us:.1}<td>{p99_us:.1}<td>{max_us:.1}",
        grouped(*instructions),
        grouped(each)
    );
}

/// A number with a thin space after each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{2009}');
        }
        shown.push(digit);
    }
    shown
}

fn canisters(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<h2>Canisters</h2>\n<small>Times of messages are of all their slices, on their threads.</small>\n\
         <table><tr><th>canister<th>methods{TOTALS}"
    );
    for canister in report.canister_totals.iter().take(ROWS) {
        let name = escaped(&canister.canister);
        let _ = write!(out, "<tr><td><code>{name}</code><td>{}{}", canister.methods, as_what(canister.kind));
        totals(out, &canister.totals);
    }
    out.push_str("</table>\n");
    rest(out, report.canister_totals.len(), "canisters");
}

fn methods(out: &mut String, report: &Report) {
    let _ = write!(out, "<h2>Methods</h2>\n<table><tr><th>canister<th class=\"name\">method{TOTALS}");
    for method in report.methods.iter().take(ROWS) {
        let (canister, name) = (escaped(&method.canister), escaped(&method.method));
        let _ = write!(out, "<tr><td><code>{canister}</code><td class=\"name\">{name}{}", as_what(method.kind));
        totals(out, &method.totals);
    }
    out.push_str("</table>\n");
    rest(out, report.methods.len(), "methods");
}

/// What is said beside a method that ran as a query.
fn as_what(kind: Kind) -> &'static str {
    match kind {
        Kind::Message => "",
        Kind::Query => " <small>query</small>",
    }
}

/// What is said below a table of more rows than are shown.
fn rest(out: &mut String, rows: usize, what: &str) {
    if let Some(more) = rows.checked_sub(ROWS).filter(|more| *more > 0) {
        let _ = writeln!(out, "<small>and {more} {what} more: <code>--json</code> shows all</small>");
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
    use crate::queries::QueryReport;
    use crate::report::{Contents, MethodTotals};

    fn report(rounds: u64) -> Report {
        let facts = |height: u64| RoundFacts {
            height,
            stages: [1e-6, 2e-6, 3e-4, 0.0, 1e-6, if height == 7 { 5e-3 } else { 1e-5 }],
            slices: height % 3,
            instructions: height * 1_000,
            pages: height,
            queued: if height == 9 { 4_321 } else { 0 },
        };
        let method = MethodTotals {
            canister: "aaaaa-aa".into(),
            method: "<script>alert('x')</script>".into(),
            kind: Kind::Message,
            totals: Totals { messages: 2, instructions: 5_000, p50_us: 1.25, ..Totals::default() },
        };
        Report {
            contents: Contents { rounds, ..Contents::default() },
            canisters: 1,
            executed: 2,
            given_up_instructions: 0,
            memory_bytes: 3,
            began_behind: 0,
            before_seconds: 0.0,
            left_over_bytes: 0,
            height: rounds,
            seconds: 2.0,
            round_seconds: 1.0,
            stages: Vec::new(),
            methods: vec![method],
            canister_totals: Vec::new(),
            timeline: (1..=rounds).map(facts).collect(),
            charged: None,
            queries: QueryReport::default(),
            root: [0; 32],
            state_hash: [0xab; 32],
        }
    }

    #[test]
    fn the_page_stands_alone_and_shows_what_was_recorded_as_text() {
        let page = page(&report(20), "rounds of <node> & co");
        assert!(page.contains("<title>rounds of &lt;node&gt; &amp; co</title>"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") && !page.contains("<script"));
        for needed in [
            "heights 1 to 20",
            "abababab",
            "4321</text>",
            "5.304 ms</text>",
            "<td>2<td>5\u{2009}000<td>2\u{2009}500<td>0<td>0.000<td>1.2<td>",
        ] {
            assert!(page.contains(needed), "{needed}");
        }
        assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (5, 5));
        for other_file in ["http", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(other_file), "{other_file}");
        }
    }

    #[test]
    fn charged_instructions_are_drawn_by_function() {
        let charged = [("aaaaa-aa;go;<f>", 40), ("aaaaa-aa;go;[changed pages]", 10)].into_iter().collect();
        let page = page(&Report { charged: Some(charged), ..report(3) }, "charged");
        assert!(
            page.contains("All 50 instructions") && page.contains("<title>&lt;f&gt;: 40 instructions, 80.00 %</title>")
        );
        // The drawing's own script, which no name of the recording gets into.
        assert_eq!((page.matches("<svg").count(), page.matches("<script").count()), (6, 1));
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
