//! Who makes checkpoints of a subnet, and brings it back from one.

use crate::checkpoint::capture::{Contents, Frames, Piece, Saved, capture};
use crate::checkpoint::kept::Kept;
use crate::checkpoint::{Changed, record};
use crate::subnet::Subnet;
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageStore};
use cyclotron_ports::Disk;
use cyclotron_storage::StorageError;
use cyclotron_storage::checkpoint::{
    FileUse, PageFiles, PageWriter, StateReader, StateWriter, list, newest_with_manifest, next_number, place, prune,
    remove_manifest, thin,
};
use cyclotron_storage::log::{Trimmed, trim};
use cyclotron_storage::manifest::{Checkpoint, Copied, Making as Manifest};
use cyclotron_trace::zone;
use cyclotron_types::units::Height;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Pieces of about 1 MiB that wait to be written; beyond them capturing waits for the disk.
const PIECES_MAX: usize = 256;
/// Checkpoints that stay unless told otherwise: should one be damaged, there is another.
pub const CHECKPOINTS_KEPT: usize = 2;
/// Pages that are copied from file to file at once.
const COPIED_PAGES: u32 = 256;

/// How far a checkpoint has come.
#[derive(Debug)]
pub enum Step {
    /// The one of this height exists.
    Lasts(Height),
    /// All is done that follows from it.
    Done(Made),
}

/// A checkpoint that exists, and what followed.
#[derive(Debug)]
pub struct Made {
    /// Its height.
    pub height: Height,
    /// Why it has no manifest, if it has none.
    pub not_hashed: Option<StorageError>,
    /// Why files that are no longer needed are still there, if they are; the next checkpoint tries again.
    pub not_removed: Option<StorageError>,
    /// What went from the log, since the checkpoints that stay keep it.
    pub log_removed: Trimmed,
    /// Why it is not in the other folder too, if it was to be there and is not.
    pub not_placed: Option<StorageError>,
}

/// What stays once a checkpoint is made.
#[derive(Clone, Debug)]
pub struct Retention {
    /// So many of the newest checkpoints; at least one.
    pub checkpoints: usize,
    /// Of the log in this folder, if any: what the oldest of these checkpoints does not keep, and up to so many bytes.
    pub log: Option<(PathBuf, u64)>,
    /// In this other folder, if any, the first and the newest checkpoint, and some between them: so many in all. They share their files with the others.
    pub beside: Option<(PathBuf, usize)>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { checkpoints: CHECKPOINTS_KEPT, log: None, beside: None }
    }
}

/// Makes checkpoints of one subnet in one directory. A subnet has one of these: its memories lie in the files that this one knows.
#[derive(Debug)]
pub struct Checkpointer<D: Disk> {
    disk: Arc<D>,
    folder: PathBuf,
    files: Arc<PageFiles<D::File>>,
    kept: Kept,
    retention: Retention,
    making: Option<Making>,
    /// The state hash in the checkpoint that was restored, and its height.
    state_hash: Option<(Height, [u8; 32])>,
    /// Threads that hash, the one that writes included.
    threads: usize,
    /// Number of the next file of pages.
    next: u32,
}

/// A checkpoint that is being made.
#[derive(Debug)]
struct Making {
    height: Height,
    number: u32,
    /// What was taken of memories, which are not told yet whether it lasts.
    saved: Option<Saved>,
    /// Says once that it lasts.
    lasts: Receiver<()>,
    thread: JoinHandle<Result<Made, StorageError>>,
}

impl<D: Disk<File: 'static> + 'static> Checkpointer<D> {
    /// For a directory that is there.
    pub fn new(disk: Arc<D>, folder: &Path) -> Result<Self, StorageError> {
        let next = next_number(&*disk, folder)?;
        // Rounds go on meanwhile.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            files: Arc::default(),
            kept: Kept::default(),
            retention: Retention::default(),
            making: None,
            state_hash: None,
            threads,
            next,
        })
    }

    /// Lets this stay once a checkpoint is made, from the next one on.
    ///
    /// Panics: when no checkpoint is to stay.
    pub fn retain(&mut self, retention: Retention) {
        assert!(retention.checkpoints > 0, "the newest checkpoint stays");
        self.retention = retention;
    }

    /// Lets so many threads hash a checkpoint, the one that writes it included; half as many as there are cores unless told otherwise.
    pub fn hash_on(&mut self, threads: usize) {
        self.threads = threads;
    }

    /// Makes a new subnet the one of a checkpoint, which had the same genesis. Its memories lie in the files of the checkpoint.
    /// Cost: O(canisters).
    ///
    /// Errors: the checkpoint cannot be read, or does not come to the root that it names; the subnet is then not to be used.
    /// Panics: when the subnet has run a round.
    pub fn restore(&mut self, subnet: &mut Subnet, height: Height) -> Result<(), StorageError> {
        let mut reader = StateReader::open(&*self.disk, &self.folder, height.0)?;
        let mut pages = BTreeMap::new();
        let files = reader.files()?;
        for FileUse { number, pages: expected, .. } in files {
            if self.files.open(&*self.disk, &self.folder, number)? != expected {
                return Err(reader.malformed("a file of pages is not as long as it should be"));
            }
            pages.insert(number, expected);
        }
        let (kept, state_hash) = subnet
            .restore(|world, machine, env| record::restore(world, machine, &mut reader, (&self.files, &pages), env))?;
        (self.kept, self.state_hash) = (kept, state_hash.map(|hash| (height, hash)));
        subnet.world_mut().resource_mut::<Changed>().kept = true;
        Ok(())
    }

    /// The state hash in the checkpoint that was restored, if its subnet kept one. It is for who wants to compare it: that takes a look at every page.
    pub fn state_hash(&self) -> Option<[u8; 32]> {
        self.state_hash.map(|(_, hash)| hash)
    }

    /// Whether one is being made.
    pub fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// Begins the checkpoint of the last round, whose batch named one; the subnet may go on. Cost: O(changed since the last one), in copies of
    /// pages and records, and a pointer for each status and module; beyond 256 MiB the disk's pace. Where files are left, a look at each canister, and copies of
    /// the records that lie there; after one that failed, all records.
    ///
    /// Errors: no thread can be had, or no file be made. Panics: when one is being made; when a message is suspended, which only a round whose
    /// batch names a checkpoint rules out.
    pub fn begin(&mut self, subnet: &mut Subnet) -> Result<(), StorageError> {
        assert!(self.making.is_none(), "one checkpoint is made at a time");
        let _zone = zone!("checkpoint: take what changed");
        let (height, number) = (subnet.height(), self.next);
        let pages = PageWriter::create(&*self.disk, &self.folder, number)?;
        self.next += 1;
        let (out, pieces) = sync_channel(PIECES_MAX);
        let (hand, contents) = sync_channel(1);
        let (tell, lasts) = sync_channel(1);
        let writing = Writing {
            disk: Arc::clone(&self.disk),
            folder: self.folder.clone(),
            files: Arc::clone(&self.files),
            retention: self.retention.clone(),
            height,
            threads: self.threads,
            number,
        };
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || writing.run(pages, &pieces, &contents, &tell));
        let thread = thread.map_err(|source| StorageError::Io {
            action: "start a thread for a checkpoint in",
            path: self.folder.clone(),
            source,
        })?;
        // The one that was restored, if this is that state once more.
        let known = self.state_hash.filter(|known| known.0 == height).map(|(_, hash)| hash);
        let (saved, contents) = subnet.capture(|world, position, program| {
            capture(world, position, (program, known), &mut self.kept, number, &out)
        });
        drop(out);
        // A thread that failed says why when it is joined.
        let _ = hand.send((self.kept.files(), contents));
        self.making = Some(Making { height, number, saved: Some(saved), lasts, thread });
        Ok(())
    }

    /// Goes on with the checkpoint that was begun, by the step that it has come to since: first it lasts, then all is done. None: there is none, or no such step.
    ///
    /// Errors: as [`Checkpointer::finish`].
    pub fn poll(&mut self, subnet: &mut Subnet) -> Option<Result<Step, StorageError>> {
        let making = self.making.as_mut()?;
        let is_finished = making.thread.is_finished();
        if making.saved.is_some() && making.lasts.try_recv().is_ok() {
            let height = making.height;
            self.settle(subnet, true);
            return Some(Ok(Step::Lasts(height)));
        }
        if is_finished { self.finish(subnet).map(|made| made.map(Step::Done)) } else { None }
    }

    /// Waits for the checkpoint that was begun, and all that follows. None: there is none.
    ///
    /// Errors: the disk's; there is no such checkpoint then (or a whole one that a loss of power may take, where it was its name that could not be made
    /// to last), the one before is as it was, and the next one takes what this one took.
    pub fn finish(&mut self, subnet: &mut Subnet) -> Option<Result<Made, StorageError>> {
        // The thread says first that it lasts: memories need not wait for the rest.
        let lasts = self.making.as_ref()?.lasts.recv().is_ok();
        self.settle(subnet, lasts);
        let Making { number, thread, .. } = self.making.take()?;
        let made = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match made {
            Ok(_) => self.files.keep(&self.kept.forget_unused_files(|file| self.files.is_held(file))),
            Err(_) => {
                self.start_over(subnet);
                self.kept.forget_file(number);
            }
        }
        Some(made)
    }

    /// Tells the memories whether what was taken of them lasts, unless they know.
    fn settle(&mut self, subnet: &mut Subnet, lasts: bool) {
        if let Some(saved) = self.making.as_mut().and_then(|making| making.saved.take()) {
            let store: Arc<dyn PageStore> = Arc::clone(&self.files) as _;
            subnet.settle(&saved, lasts.then_some(&store));
        }
    }

    /// Lets the next checkpoint keep the records of all canisters anew. Panics: when one is being made.
    pub fn start_over(&mut self, subnet: &mut Subnet) {
        assert!(self.making.is_none(), "a checkpoint is being made");
        self.kept.start_over();
        subnet.world_mut().resource_mut::<Changed>().kept = false;
    }

    /// Makes the checkpoint of the last round once more, with all that it keeps in one file without gaps, and waits for it: for a subnet that has just come from
    /// that checkpoint. It takes the place of the one before at once, and its files go then. Cost: O(bytes kept).
    ///
    /// Errors and panics: as [`Checkpointer::begin`] and [`Checkpointer::finish`]; all is as it was then.
    pub fn compact(&mut self, subnet: &mut Subnet) -> Result<Made, StorageError> {
        self.kept.leave_all();
        self.make(subnet)
    }

    /// Makes the checkpoint of the last round, and waits for it.
    ///
    /// Errors and panics: as [`Checkpointer::begin`] and [`Checkpointer::finish`].
    pub fn make(&mut self, subnet: &mut Subnet) -> Result<Made, StorageError> {
        self.begin(subnet)?;
        self.finish(subnet).expect("one was begun")
    }
}

/// What the thread has that writes a checkpoint.
struct Writing<D: Disk> {
    disk: Arc<D>,
    folder: PathBuf,
    files: Arc<PageFiles<D::File>>,
    retention: Retention,
    height: Height,
    threads: usize,
    /// Of the new file of pages.
    number: u32,
}

impl<D: Disk> Writing<D> {
    /// Writes the files, and says that they last; then makes the manifest, and removes what is no longer needed.
    fn run(
        self,
        mut pages: PageWriter<D::File>,
        pieces: &Receiver<Piece>,
        contents: &Receiver<(Vec<FileUse>, Contents)>,
        tell: &SyncSender<()>,
    ) -> Result<Made, StorageError> {
        let _zone = zone!("checkpoint: write");
        let copied = match self.write_pages(&mut pages, pieces) {
            Ok(copied) => copied,
            Err(error) => {
                pages.discard(&*self.disk);
                // Nobody waits for what is not taken.
                while pieces.recv().is_ok() {}
                return Err(error);
            }
        };
        pages.finish(&*self.disk)?;
        let Ok((files, contents)) = contents.recv() else { unreachable!("the capture ends with the contents") };
        let frames = contents.into_frames();
        let number = pages.number();
        let opened = self.files.open(&*self.disk, &self.folder, number);
        if let Err(error) = opened.and_then(|_| self.write_state(&files, &frames)) {
            self.files.close(number);
            // Without a state that names them the pages are in the way. With one (its name may be there, and not last) they stay.
            if self.is_named().is_ok_and(|named| !named) {
                pages.discard_finished(&*self.disk);
            }
            return Err(error);
        }
        // The checkpoint exists, whatever becomes of the rest.
        let _ = tell.send(());
        let not_hashed = self.write_manifest(&frames, &copied).err();
        let not_placed = self.place_beside().err();
        let (log_removed, not_removed) = match self.remove_old() {
            Ok(trimmed) => (trimmed, None),
            Err(error) => (Trimmed::default(), Some(error)),
        };
        Ok(Made { height: self.height, not_hashed, not_removed, log_removed, not_placed })
    }

    /// Puts the checkpoint into the other folder.
    fn place_beside(&self) -> Result<(), StorageError> {
        let Some((folder, kept)) = &self.retention.beside else { return Ok(()) };
        place(&*self.disk, &self.folder, self.height.0, folder)?;
        thin(&*self.disk, folder, *kept).map(drop)
    }

    /// Removes older checkpoints, then what the oldest of those that stay makes dispensable in the log.
    fn remove_old(&self) -> Result<Trimmed, StorageError> {
        prune(&*self.disk, &self.folder, self.retention.checkpoints)?;
        let oldest = list(&*self.disk, &self.folder)?.first().copied();
        match (&self.retention.log, oldest) {
            (Some((folder, bytes_max)), Some(oldest)) => trim(&*self.disk, folder, oldest, *bytes_max),
            _ => Ok(Trimmed::default()),
        }
    }

    /// Makes the manifest from the newest one of a checkpoint before, or from nothing if there is none or its files are damaged.
    fn write_manifest(&self, frames: &Frames, copied: &[Copied]) -> Result<(), StorageError> {
        let _zone = zone!("checkpoint: hash");
        let manifest = Manifest { disk: &*self.disk, folder: &self.folder, files: &self.files, threads: self.threads };
        let checkpoint = Checkpoint { height: self.height.0, frames, copied };
        let before = newest_with_manifest(&*self.disk, &self.folder, self.height.0)?;
        match manifest.write(&checkpoint, before) {
            Err(error) if before.is_some() && !error.is_of_the_disk() => manifest.write(&checkpoint, None),
            outcome => outcome,
        }
    }

    /// Whether a checkpoint of this height names the new file of pages; there may be one that was made before.
    fn is_named(&self) -> Result<bool, StorageError> {
        if !list(&*self.disk, &self.folder)?.contains(&self.height.0) {
            return Ok(false);
        }
        let files = StateReader::open(&*self.disk, &self.folder, self.height.0)?.files()?;
        Ok(files.iter().any(|file| file.number == self.number))
    }

    fn write_state(&self, files: &[FileUse], frames: &Frames) -> Result<(), StorageError> {
        // Where there is one of this height already, its manifest may be another program's.
        remove_manifest(&*self.disk, &self.folder, self.height.0)?;
        let mut state = StateWriter::create(&*self.disk, &self.folder, self.height.0, files)?;
        for (kind, content) in frames {
            if let Err(error) = state.record(*kind, content) {
                state.discard(&*self.disk);
                return Err(error);
            }
        }
        state.commit(&*self.disk)
    }

    fn write_pages(
        &self,
        pages: &mut PageWriter<D::File>,
        pieces: &Receiver<Piece>,
    ) -> Result<Vec<Copied>, StorageError> {
        let mut buffer = Vec::new();
        let mut copied = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Pages(bytes) => pages.append(&bytes)?,
                Piece::Copy(at, count) => {
                    let to = PageAt { file: pages.number(), index: pages.pages() };
                    copied.push(Copied { to, count, from: at });
                    let mut done = 0;
                    while done < count {
                        let now = (count - done).min(COPIED_PAGES);
                        buffer.resize(now as usize * PAGE, 0);
                        self.files.pages(PageAt { index: at.index + done, ..at }, &mut buffer)?;
                        pages.append(&buffer)?;
                        done += now;
                    }
                }
            }
        }
        Ok(copied)
    }
}
