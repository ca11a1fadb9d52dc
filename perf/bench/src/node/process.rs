//! A node in a process of its own, and what it costs.
//!
//! Enters: the node's program, which was built before; /proc; the node's metrics page. Leaves: processor time by thread, elapsed time by
//! stage. Never here: the processor time of whoever asks the node.

use crate::runner::{Failure, failed};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running node whose state is on the disk; both are gone when this is dropped.
pub struct NodeProcess {
    child: Child,
    directory: PathBuf,
    /// URL of its API.
    pub api: String,
    /// Host and port of its metrics page.
    metrics: String,
}

/// Seconds by name.
pub type Seconds = BTreeMap<String, f64>;

/// What a node has used since its start.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// Processor time by thread; the numbers of threads are left out.
    pub threads: Seconds,
    /// Share of it that the kernel took, in the units of /proc.
    kernel_ticks: f64,
    ticks: f64,
    /// Elapsed time by stage, of all threads together.
    pub stages: Seconds,
    /// Rounds.
    pub rounds: f64,
    /// Signatures by what checked them, and how many batches they came in.
    pub signatures: Seconds,
    pub signature_batches: f64,
}

impl Used {
    /// Processor time in all.
    pub fn cpu(&self) -> f64 {
        self.threads.values().sum()
    }

    /// Which part of it the kernel took.
    pub fn kernel_share(&self) -> f64 {
        if self.ticks > 0.0 { self.kernel_ticks / self.ticks } else { 0.0 }
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: &Seconds, before: &Seconds| {
            now.iter().map(|(name, now)| (name.clone(), now - before.get(name).unwrap_or(&0.0))).collect()
        };
        Self {
            threads: less(&self.threads, &before.threads),
            kernel_ticks: self.kernel_ticks - before.kernel_ticks,
            ticks: self.ticks - before.ticks,
            stages: less(&self.stages, &before.stages),
            rounds: self.rounds - before.rounds,
            signatures: less(&self.signatures, &before.signatures),
            signature_batches: self.signature_batches - before.signature_batches,
        }
    }
}

/// The node's program: built beside this one.
pub fn find() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe().map_err(failed)?.with_file_name("cyclotron");
    if path.exists() {
        return Ok(path);
    }
    Err(Failure(format!(
        "{} is not there: build the node first, cargo build --release --workspace --bins",
        path.display()
    )))
}

impl NodeProcess {
    /// Starts a node on free ports.
    pub fn start() -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("cyclotron-bench-node-{}", std::process::id()));
        let mut child = Command::new(find()?)
            .args(["start", "--json", "--bind", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log", "warn"])
            .arg("--state-dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let banner = Self::banner(&mut child);
        let mut node = Self { child, directory, api: String::new(), metrics: String::new() };
        let banner = banner?;
        let text = |name: &str| banner[name].as_str().map(str::to_owned).ok_or_else(|| failed("the banner is short"));
        node.api = text("api")?;
        node.metrics = text("metrics")?.trim_start_matches("http://").trim_end_matches("/metrics").into();
        Ok(node)
    }

    fn banner(child: &mut Child) -> Result<serde_json::Value, Failure> {
        let stdout = child.stdout.take().ok_or_else(|| failed("the node has no standard output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        serde_json::from_str(&line).map_err(|error| Failure(format!("the node does not start: {error}")))
    }

    /// What it has used until now.
    pub fn used(&self) -> Result<Used, Failure> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let mut used = Used::default();
        for thread in std::fs::read_dir(process.join("task")).map_err(failed)? {
            let (name, seconds) = cpu_of(&thread.map_err(failed)?.path())?;
            *used.threads.entry(name).or_default() += seconds;
        }
        let stat = std::fs::read_to_string(process.join("stat")).map_err(failed)?;
        let (user, kernel) = ticks(&stat).ok_or_else(|| failed("/proc/PID/stat is not as it should be"))?;
        (used.kernel_ticks, used.ticks) = (kernel, user + kernel);
        let page = self.metrics_page()?;
        used.stages = labelled(&page, "cyclotron_stage_duration_seconds_sum", "stage");
        used.signatures = labelled(&page, "cyclotron_signature_batch_sum", "backend");
        used.signature_batches = labelled(&page, "cyclotron_signature_batch_count", "backend").values().sum();
        used.rounds = value(&page, "cyclotron_height").unwrap_or(0.0);
        Ok(used)
    }

    fn metrics_page(&self) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(&self.metrics).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").map_err(failed)?;
        let mut page = String::new();
        stream.read_to_string(&mut page).map_err(failed)?;
        Ok(page)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _ended = self.child.wait();
        let _left_behind = std::fs::remove_dir_all(&self.directory);
    }
}

/// A thread's name without its number, and its processor time.
fn cpu_of(thread: &Path) -> Result<(String, f64), Failure> {
    let name = std::fs::read_to_string(thread.join("comm")).map_err(failed)?;
    let schedstat = std::fs::read_to_string(thread.join("schedstat")).map_err(failed)?;
    let nanos: f64 = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0.0);
    let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
    Ok((name.into(), nanos / 1e9))
}

/// Processor time for itself, and that of the kernel for it: fields 14 and 15, behind a name that may hold anything.
fn ticks(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// What a metrics page has under a name, summed by a label that stands last.
fn labelled(page: &str, name: &str, label: &str) -> Seconds {
    let line = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("\"} ")?;
        let (_, label) = labels.rsplit_once(&format!("{label}=\""))?;
        Some((label.to_owned(), value.parse::<f64>().ok()?))
    };
    let mut sums = Seconds::new();
    page.lines().filter_map(line).for_each(|(label, value)| *sums.entry(label).or_default() += value);
    sums
}

fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_stages_are_read_where_they_stand() {
        let stat = "7 (net 1) x) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat), Some((250.0, 50.0)));
        let page = "cyclotron_height 12\ncyclotron_stage_duration_seconds_sum{stage=\"Admit\"} 0.5\n\
                    cyclotron_stage_duration_seconds_count{stage=\"Admit\"} 3\n";
        let stages = labelled(page, "cyclotron_stage_duration_seconds_sum", "stage");
        assert_eq!(stages, Seconds::from([("Admit".to_owned(), 0.5)]));
        let batches = "batch_sum{scheme=\"a\",backend=\"x\"} 3.0\nbatch_sum{scheme=\"b\",backend=\"x\"} 4.0\nbatch_sum{scheme=\"a\",backend=\"y\"} 1.0";
        assert_eq!(
            labelled(batches, "batch_sum", "backend"),
            Seconds::from([("x".to_owned(), 7.0), ("y".to_owned(), 1.0)])
        );
        assert_eq!((value(page, "cyclotron_height"), value(page, "cyclotron_canisters")), (Some(12.0), None));
    }

    #[test]
    fn what_was_used_before_does_not_count() {
        let used = |cpu, ticks| Used {
            threads: Seconds::from([("round".into(), cpu)]),
            kernel_ticks: ticks / 2.0,
            ticks,
            ..Used::default()
        };
        let since = used(3.0, 300.0).since(&used(1.0, 100.0));
        assert_eq!((since.cpu(), since.kernel_share()), (2.0, 0.5));
    }
}
