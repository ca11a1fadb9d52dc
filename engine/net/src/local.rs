//! A socket in the file system, for programs of the same user: one request and one answer a connection, a few connections at a time.
//!
//! Enters: connections to a Unix socket. Leaves: the bytes of each request, up to its end or a line feed; the answer's bytes go back. What keeps
//! others out is the mode of the folder that the socket is in. Never here: the meaning of a byte, a wait without an end for who connects and says
//! nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time for a request to come whole, and for the client to take the answer.
const TALK_MAX: Duration = Duration::from_secs(5);
/// Connections at a time: an answer that takes long, as a checkpoint does, is not to hold up the others.
const TALKS_MAX: usize = 4;
/// After a failed accept, before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that is served. Dropping it removes it.
#[derive(Debug)]
pub struct LocalSocket {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl LocalSocket {
    /// Makes the socket at `path`, and answers requests of up to `bytes_max` bytes on a few threads of its own. A longer one is given to `answer` with one byte
    /// more than that. What lies at the path is replaced: its owner is the only one who may serve there.
    ///
    /// Errors: the path is longer than an address may be (`InvalidInput`), or the operating system refuses.
    pub fn serve(
        path: &Path,
        bytes_max: usize,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        let mut socket = Self { path: path.to_owned(), stopping, threads: Vec::new() };
        for _ in 0..TALKS_MAX {
            let (listener, stopping, answer) =
                (listener.try_clone()?, Arc::clone(&socket.stopping), Arc::clone(&answer));
            let run = move || run(&listener, bytes_max, &*answer, &stopping);
            socket.threads.push(std::thread::Builder::new().name("control".into()).spawn(run)?);
        }
        Ok(socket)
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the threads; they are not waited for if they cannot be woken.
        let woken = self.threads.iter().all(|_| UnixStream::connect(&self.path).is_ok());
        // Whether or not this works: the next one who serves here removes what is left.
        let _ = std::fs::remove_file(&self.path);
        for thread in std::mem::take(&mut self.threads).into_iter().filter(|_| woken) {
            // A panic stops the node.
            let _ended = thread.join();
        }
    }
}

fn run(listener: &UnixListener, bytes_max: usize, answer: &dyn Fn(&[u8]) -> Vec<u8>, stopping: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let outcome = match accepted {
            Ok((stream, _)) => talk(&stream, bytes_max, answer),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection of an operator failed");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection of an operator ended early");
        }
    }
}

fn talk(mut stream: &UnixStream, bytes_max: usize, answer: &dyn Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let request = read_request(stream, bytes_max)?;
    let answer = answer(&request);
    stream.set_write_timeout(Some(TALK_MAX))?;
    stream.write_all(&answer)?;
    stream.shutdown(Shutdown::Write)?;
    if request.len() > bytes_max {
        discard_rest(stream)?;
    }
    Ok(())
}

/// Reads what is left of a request: a connection that is closed before loses its answer.
fn discard_rest(mut stream: &UnixStream) -> io::Result<()> {
    let until = Instant::now() + TALK_MAX;
    let mut buffer = [0; 1_024];
    while Instant::now() < until && stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Reads up to the end or a line feed, but not more than one byte beyond `bytes_max`.
fn read_request(mut stream: &UnixStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let until = Instant::now() + TALK_MAX;
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while request.len() <= bytes_max {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let room = buffer.len().min(bytes_max + 1 - request.len());
        let count = stream.read(&mut buffer[..room])?;
        if let Some(end) = buffer[..count].iter().position(|byte| *byte == b'\n') {
            request.extend_from_slice(&buffer[..end]);
            return Ok(request);
        }
        request.extend_from_slice(&buffer[..count]);
        if count == 0 {
            return Ok(request);
        }
    }
    Ok(request)
}

/// Sends a request to the socket at `path`, and waits for the answer, up to `bytes_max` bytes of it and one more.
///
/// Errors: nobody serves there (`NotFound` or `ConnectionRefused`); the answer takes longer than `wait_max`.
pub fn ask(path: &Path, request: &[u8], bytes_max: usize, wait_max: Duration) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(TALK_MAX))?;
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(wait_max))?;
    let mut answer = Vec::new();
    stream.take(bytes_max as u64 + 1).read_to_end(&mut answer)?;
    Ok(answer)
}
