//! A node in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than any node takes to end.
const END_MAX: Duration = Duration::from_secs(20);

/// What a node says when it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banner {
    /// URL of the API.
    pub api: String,
    /// URL of the metrics page.
    pub metrics: Option<String>,
    /// The root key in hexadecimal.
    pub root_key: String,
}

/// A running node with a state directory of its own; both are gone when this is dropped.
#[derive(Debug)]
pub struct TestNode {
    child: Child,
    directory: PathBuf,
    /// What it said when it began to serve.
    pub banner: Banner,
}

/// A new directory for one test.
fn directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("cyclotron-test-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a temporary directory can be made");
    path
}

/// A command that runs the node's program.
pub fn program(binary: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    command
}

impl TestNode {
    /// Starts a node on free ports.
    ///
    /// Panics: when it ends before it serves.
    pub fn start(binary: &str) -> Self {
        Self::start_in(binary, directory())
    }

    /// Starts a node on free ports with further arguments.
    pub fn start_with(binary: &str, arguments: &[&str]) -> Self {
        Self::start_in_with(binary, directory(), arguments)
    }

    /// Starts a node on free ports with this state directory.
    pub fn start_in(binary: &str, directory: PathBuf) -> Self {
        Self::start_in_with(binary, directory, &[])
    }

    /// Starts a node on free ports with this state directory and further arguments.
    pub fn start_in_with(binary: &str, directory: PathBuf, arguments: &[&str]) -> Self {
        Self::start_command(binary, directory, arguments, &[])
    }

    /// Starts a node on free ports with further arguments and variables of its environment.
    pub fn start_with_environment(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_command(binary, directory(), arguments, environment)
    }

    /// Starts a node with this state directory, and ends it at once after a while, as a crash does, however far it has come.
    pub fn kill_while_starting(binary: &str, directory: &Path, arguments: &[&str], after: Duration) {
        let mut child = Self::spawn(binary, directory, arguments, &[]);
        std::thread::sleep(after);
        child.kill().expect("the node's process can be killed");
        child.wait().expect("a killed process ends");
    }

    fn spawn(binary: &str, directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        program(binary, &["start", "--json", "--bind", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--log", "warn", "--state-dir"])
            .arg(directory)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the node's program runs")
    }

    fn start_command(binary: &str, directory: PathBuf, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Self::spawn(binary, &directory, arguments, environment);
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the node's output is text");
        let json: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("no banner but {line:?}: {error}"));
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let banner = Banner {
            api: text("api").expect("the banner has the API"),
            metrics: text("metrics"),
            root_key: text("root_key").expect("the banner has the root key"),
        };
        Self { child, directory, banner }
    }

    /// The address of the API without the scheme.
    pub fn address(&self) -> &str {
        self.banner.api.trim_start_matches("http://")
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the node to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.id().to_string()]).status().expect("kill runs");
        assert!(status.success(), "the node's process is gone");
    }

    /// Ends the process at once, as a crash does; returns its state directory, which is the caller's from now on.
    pub fn kill(mut self) -> PathBuf {
        self.child.kill().expect("the node's process can be killed");
        self.child.wait().expect("a killed process ends");
        std::mem::take(&mut self.directory)
    }

    /// Waits for the end that was asked for.
    ///
    /// Panics: when it does not come.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + END_MAX;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the node did not end within {END_MAX:?}");
    }

    /// Sends bytes to the API and returns all that comes back until the node closes the connection.
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        exchange(self.address(), bytes)
    }

    /// What the metrics page shows.
    pub fn metrics_page(&self) -> String {
        let url = self.banner.metrics.as_deref().expect("the node has a metrics page");
        let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
        let answer = exchange(address, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        String::from_utf8(split(&answer).1).expect("the metrics page is text")
    }

    /// Posts a body to a path; returns the HTTP status and the answer's body.
    pub fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            self.address(),
            body.len()
        );
        split(&self.exchange(&[head.as_bytes(), body].concat()))
    }

    /// Gets a path of the API.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address());
        split(&self.exchange(head.as_bytes()))
    }
}

fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).expect("the node accepts connections");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    // The node may close before it has read everything: then the answer says why.
    let _sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _until_closed = stream.read_to_end(&mut answer);
    answer
}

/// Status and body of an HTTP answer; status 0 when there was none.
fn split(answer: &[u8]) -> (u16, Vec<u8>) {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return (0, answer.to_vec()) };
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer[end + 4..].to_vec())
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _ended = self.child.wait();
        if !self.directory.as_os_str().is_empty() {
            let _cleaned = std::fs::remove_dir_all(&self.directory);
        }
    }
}
