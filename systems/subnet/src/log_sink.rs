//! The input log: every batch lasts before anything that it did is shown.
//!
//! Enters: batches, as a [`BatchSink`]. Leaves: frames in files, made lasting by a thread of its own while the round runs: all messages of a
//! batch by one pair of flushes. Never here: the bytes (`storage/FORMAT.md`).

use crate::program::Program;
use crate::sink::BatchSink;
use cyclotron_ports::Disk;
use cyclotron_storage::FrameKind;
use cyclotron_storage::StorageError;
use cyclotron_storage::log::{LogWriter, Written, encode_batch};
use cyclotron_trace::zone;
use cyclotron_types::batch::{Batch, CertifiedView};
use cyclotron_types::units::Height;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Notes batches in a log. Dropping it makes all of them last.
pub struct LogSink<D: Disk + 'static> {
    writer: LogWriter<D>,
    flusher: Arc<Flusher<D::File>>,
    thread: Option<JoinHandle<()>>,
}

struct Flusher<F> {
    state: Mutex<State<F>>,
    changed: Condvar,
}

struct State<F> {
    /// Written, not lasting: the newest stands for all.
    written: Option<Written<F>>,
    /// Height of the newest batch that lasts.
    lasting: u64,
    failed: Option<StorageError>,
    /// A write or a flush has failed: nothing more comes to last.
    dead: bool,
    ended: bool,
}

impl<F: cyclotron_ports::DiskFile> Flusher<F> {
    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<F>>) -> MutexGuard<'a, State<F>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        loop {
            match state.written.take() {
                Some(written) => {
                    drop(state);
                    let outcome = written.make_lasting();
                    state = self.state();
                    match outcome {
                        Ok(()) => state.lasting = written.height(),
                        Err(error) => (state.failed, state.dead) = (Some(error), true),
                    }
                    self.changed.notify_all();
                    if state.dead {
                        return;
                    }
                }
                None if state.ended => return,
                None => state = self.wait(state),
            }
        }
    }
}

impl<D: Disk + 'static> LogSink<D> {
    /// Goes on with a log. Errors: when no thread can be started.
    pub fn new(writer: LogWriter<D>) -> Result<Self, std::io::Error> {
        let state = State { written: None, lasting: writer.height(), failed: None, dead: false, ended: false };
        let flusher = Arc::new(Flusher { state: Mutex::new(state), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("log".into()).spawn({
            let flusher = flusher.clone();
            move || flusher.run()
        })?;
        Ok(Self { writer, flusher, thread: Some(thread) })
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let written = self.writer.write();
        let mut state = self.flusher.state();
        match written {
            Ok(written) => state.written = Some(written),
            Err(error) => {
                state.dead = true;
                return Err(error);
            }
        }
        self.flusher.changed.notify_all();
        Ok(())
    }
}

impl<D: Disk + 'static> BatchSink for LogSink<D> {
    fn batch(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.writer.append(FrameKind::Batch, batch.height.0, |out| encode_batch(batch, out));
        self.write()
    }

    fn before_shown(&mut self, height: Height) -> Result<(), StorageError> {
        let _zone = zone!("wait for the log");
        let mut state = self.flusher.state();
        while state.lasting < height.0 {
            if state.dead {
                return Err(state.failed.take().unwrap_or_else(|| self.writer.failed_before()));
            }
            state = self.flusher.wait(state);
        }
        Ok(())
    }

    fn round_ended(&mut self, view: &CertifiedView) -> Result<(), StorageError> {
        // Written with the next batch: it is worth nothing before.
        self.writer.append(FrameKind::Root, view.height.0, |out| out.extend_from_slice(&view.root));
        Ok(())
    }

    fn program(&mut self, height: Height, program: &Program) -> Result<(), StorageError> {
        self.writer.append(FrameKind::Program, height.0, |out| out.extend_from_slice(&program.encode()));
        Ok(())
    }

    fn state_hash(&mut self, height: Height, hash: &[u8; 32]) -> Result<(), StorageError> {
        self.writer.append(FrameKind::StateHash, height.0, |out| out.extend_from_slice(hash));
        Ok(())
    }
}

impl<D: Disk + 'static> Drop for LogSink<D> {
    fn drop(&mut self) {
        if !self.flusher.state().dead {
            // The last root; a disk that refuses it has refused nothing that anyone relies on.
            let _not_relied_on = self.write();
        }
        self.flusher.state().ended = true;
        self.flusher.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that can be joined ended; a panic of it aborts the node.
            let _ended = thread.join();
        }
    }
}
