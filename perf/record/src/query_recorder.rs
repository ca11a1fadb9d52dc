//! Recording queries that are answered while rounds are recorded.
//!
//! Enters: queries and their answers, from any thread. Leaves: frames in the recording, compressed by a thread of its own. Never here: a wait of
//! a query or a round for any of this: what finds the queue full is left out, and counted.

use crate::recorder::{BLOCK_BYTES, SharedLog, give_up, lock};
use cyclotron_ports::Disk;
use cyclotron_queries::{Answered, Query};
use cyclotron_storage::log::{RecordedQuery, answer_hash};
use cyclotron_storage::{FrameKind, encode_block, encode_frame};
use cyclotron_trace::warn;
use cyclotron_types::units::Height;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that wait at most, arguments and replies included; as many may be on their way into the file.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes counted for a query besides its method, argument and answer.
const QUERY_BYTES: usize = size_of::<Noted>();

type Noted = (Query, Answered);

/// Takes note of queries for a recording.
#[derive(Clone)]
pub struct QueryRecorder(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    noted: Vec<Noted>,
    bytes: usize,
    /// Queries that found no room since somebody last looked.
    left_out: u64,
    ended: bool,
}

impl Queue {
    fn fills_a_block(&self) -> bool {
        self.bytes >= BLOCK_BYTES
    }
}

impl QueryRecorder {
    /// Takes note of a query that was answered. Cost: that of a look at a lock, which nobody holds for long.
    pub fn note(&self, query: Query, answered: Answered) {
        if answered.height == Height::ZERO {
            // Refused, since there is no state yet.
            return;
        }
        let answer = match &answered.outcome {
            Ok(reply) => reply.len(),
            Err(reject) => reject.message.len(),
        };
        let bytes = QUERY_BYTES + query.method.len() + query.arg.len() + answer;
        let mut queue = self.0.queue();
        if queue.ended {
            return;
        }
        if queue.bytes + bytes > QUEUE_BYTES_MAX {
            queue.left_out += 1;
            return;
        }
        let (was_empty, filled) = (queue.noted.is_empty(), queue.fills_a_block());
        queue.bytes += bytes;
        queue.noted.push((query, answered));
        let wakes = was_empty || queue.fills_a_block() != filled;
        drop(queue);
        if wakes {
            self.0.changed.notify_one();
        }
    }
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until queries fill a block or one has waited for so long; puts them into `noted`, which is empty. Returns how many were left out, and
    /// whether more will come.
    fn take(&self, noted: &mut Vec<Noted>, time: Duration) -> (u64, bool) {
        let idle = |queue: &mut Queue| queue.noted.is_empty() && !queue.ended;
        let queue = self.changed.wait_while(self.queue(), idle).unwrap_or_else(PoisonError::into_inner);
        let short = |queue: &mut Queue| !queue.fills_a_block() && !queue.ended;
        let waited = self.changed.wait_timeout_while(queue, time, short);
        let (mut queue, _whether_in_time) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut queue.noted, noted);
        queue.bytes = 0;
        (std::mem::take(&mut queue.left_out), !queue.ended)
    }

    fn end(&self) {
        self.queue().ended = true;
        self.changed.notify_one();
    }
}

/// The thread that writes queries. Dropping it writes the last ones.
pub(crate) struct QueryWriter {
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<()>>,
}

impl QueryWriter {
    /// Starts it, on a recording to which the height of queries' states belongs; queries wait so long at most.
    pub fn start<D: Disk<File: 'static> + 'static>(log: SharedLog<D>, time: Duration) -> io::Result<Self> {
        let waiting = Arc::<Waiting>::default();
        let thread = std::thread::Builder::new().name("record".into()).spawn({
            let waiting = waiting.clone();
            move || write_all(&waiting, &log, time)
        })?;
        Ok(Self { waiting, thread: Some(thread) })
    }

    /// Where queries are handed in.
    pub fn recorder(&self) -> QueryRecorder {
        QueryRecorder(self.waiting.clone())
    }
}

impl Drop for QueryWriter {
    fn drop(&mut self) {
        self.waiting.end();
        if let Some(thread) = self.thread.take() {
            // A thread that can be joined ended; a panic of it aborts the node.
            let _ended = thread.join();
        }
    }
}

/// Writes what comes until no more does, or the recording was given up.
fn write_all<D: Disk>(waiting: &Waiting, log: &SharedLog<D>, time: Duration) {
    let (mut noted, mut frames, mut all_left_out) = (Vec::new(), Vec::new(), 0);
    loop {
        let (left_out, goes_on) = waiting.take(&mut noted, time);
        let height = noted.iter().map(|(_, answered)| answered.height).max().unwrap_or_default();
        for (query, Answered { outcome, height, follows_from, .. }) in noted.drain(..) {
            let recorded = RecordedQuery { follows_from, answer: answer_hash(&outcome), query };
            encode_frame(FrameKind::Query, height.0, &mut frames, |out| recorded.encode(out));
            if frames.len() >= BLOCK_BYTES && !write(log, height, &mut frames) {
                return waiting.end();
            }
        }
        if left_out > 0 {
            if all_left_out == 0 {
                warn!("more queries are answered than can be recorded: the recording counts those that it has not");
            }
            all_left_out += left_out;
            encode_left_out(height, left_out, &mut frames);
        }
        if !write(log, height, &mut frames) {
            return waiting.end();
        }
        if !goes_on {
            return;
        }
    }
}

/// Appends a frame that says how many queries were left out.
pub(crate) fn encode_left_out(height: Height, count: u64, out: &mut Vec<u8>) {
    encode_frame(FrameKind::QueriesLeftOut, height.0, out, |out| out.extend_from_slice(&count.to_le_bytes()));
}

/// Writes frames as a block; tells whether there is still a recording. Rounds find the log taken while the operating system takes the block, not
/// while it is made.
fn write<D: Disk>(log: &SharedLog<D>, height: Height, frames: &mut Vec<u8>) -> bool {
    if frames.is_empty() {
        return true;
    }
    let mut block = Vec::new();
    encode_block(height.0, frames, &mut block);
    frames.clear();
    let mut log = lock(log);
    if let Some(Err(failed)) = log.as_mut().map(|log| log.write_encoded(&block)) {
        give_up(&mut log, &failed);
    }
    log.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::SharedLog;
    use cyclotron_ports::SimDisk;
    use cyclotron_storage::log::{LogReader, LogWriter, decode_left_out};
    use cyclotron_types::Principal;
    use cyclotron_types::ids::CanisterId;
    use cyclotron_types::query::FollowsFrom;
    use cyclotron_types::units::Instructions;
    use std::path::Path;
    use std::time::Instant;

    fn note(recorder: &QueryRecorder, height: u64, reply: usize) {
        let (sender, receiver) = (Principal::anonymous(), CanisterId::from_u64(1));
        let query = Query { sender, receiver, method: "get".into(), arg: vec![1; 10] };
        let outcome = Ok(vec![7; reply]);
        let (used, follows_from) = (Instructions(1), FollowsFrom::State);
        recorder.note(query, Answered { outcome, height: Height(height), used, follows_from });
    }

    fn shared_log(disk: &SimDisk) -> SharedLog<SimDisk> {
        disk.create_directory(Path::new("/r")).unwrap();
        Arc::new(Mutex::new(Some(LogWriter::create_file(disk, Path::new("/r/file"), 1, b"genesis").unwrap())))
    }

    /// Kinds of frames in the file: queries, and numbers that were left out.
    fn read(disk: SimDisk) -> (usize, Vec<u64>) {
        let mut log = LogReader::open_file(Arc::new(disk), Path::new("/r/file")).unwrap();
        let frames: Vec<_> = std::iter::from_fn(|| log.next_frame().unwrap()).collect();
        let queries = frames.iter().filter(|frame| frame.kind == FrameKind::Query).count();
        let left_out = frames.iter().filter(|frame| frame.kind == FrameKind::QueriesLeftOut);
        (queries, left_out.map(|frame| decode_left_out(&frame.content).unwrap()).collect())
    }

    #[test]
    fn what_finds_the_queue_full_is_left_out_and_counted_and_nobody_waits() {
        let disk = SimDisk::new(1);
        let log = shared_log(&disk);
        let recorder = QueryRecorder(Arc::default());
        note(&recorder, 0, 0);
        // Nobody empties the queue.
        let began = Instant::now();
        for _ in 0..20 {
            note(&recorder, 5, 1 << 20);
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        recorder.0.end();
        write_all(&recorder.0, &log, Duration::from_secs(1));
        note(&recorder, 5, 0);
        lock(&log).as_mut().unwrap().write().unwrap().make_lasting().unwrap();
        assert_eq!(read(disk), (15, vec![5]), "as many as fit into 16 MiB");
    }

    #[test]
    fn threads_note_while_another_writes_and_all_of_it_is_there() {
        let disk = SimDisk::new(1);
        let log = shared_log(&disk);
        let writer = QueryWriter::start(log.clone(), Duration::from_millis(1)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let recorder = writer.recorder();
                scope.spawn(move || (1..=2_000).for_each(|height| note(&recorder, height, 100)));
            }
        });
        drop(writer);
        lock(&log).as_mut().unwrap().write().unwrap().make_lasting().unwrap();
        let (queries, left_out) = read(disk);
        assert_eq!(queries as u64 + left_out.iter().sum::<u64>(), 6_000);
        assert!(queries > 0);
    }

    #[test]
    fn a_recording_that_was_given_up_takes_note_of_nothing() {
        let log: SharedLog<SimDisk> = Arc::new(Mutex::new(None));
        let writer = QueryWriter::start(log, Duration::from_millis(1)).unwrap();
        let recorder = writer.recorder();
        note(&recorder, 1, 1);
        while !recorder.0.queue().ended {
            std::thread::sleep(Duration::from_millis(1));
        }
        note(&recorder, 1, 1);
        assert!(recorder.0.queue().noted.is_empty());
        drop(writer);
    }
}
