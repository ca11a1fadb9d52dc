//! A whole state directory once more, at another path.
//!
//! Enters: a state directory, which a node may be using meanwhile. Leaves: another with the same keys, the newest checkpoint, and the log as far as it
//! can be read. Both share the files that are never written again; where the file system cannot, or the other path is on another one, they are copied.
//! Never here: a directory that looks whole before it is.
//!
//! While it is made the directory holds a file `fork-unfinished`, which is in no state directory: no node takes it for its own. `format` comes last but
//! for the removal of that.

use crate::StorageError;
use crate::checkpoint::{self, Opened, Source};
use crate::directory::{
    CHECKPOINTS, FILE_MODE, KEYS, LAYOUT, LOG, Layout, StateDirectory, io, layout, take_lock, write_file,
};
use crate::key_file::{self, KEY_FILE_BYTES, KeyKind};
use crate::log::{self, LOG_FILE_BYTES, LogReader, LogWriter};
use cyclotron_ports::Disk;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What marks a directory that is being made.
const UNFINISHED: &str = "fork-unfinished";
/// Times that a newer checkpoint is taken because the one before it has gone.
const TRIES: usize = 5;
/// Bytes of frames that are written at once.
const PIECE_BYTES: usize = 4 << 20;

/// What a fork of a state directory begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForkedDirectory {
    /// Height of its checkpoint, if there is one.
    pub checkpoint: Option<u64>,
    /// Height of the last batch of its log.
    pub height: u64,
}

impl<D: Disk> StateDirectory<D> {
    /// Makes the directory `to`, which is empty or not there, a fork of the state directory `from`. If `from` is not `in_use` it is locked meanwhile.
    /// Cost: O(files) and the last file of the log; O(bytes) where files must be copied.
    ///
    /// Errors: `from` is no state directory, or another process uses it; `to` is not empty; `LogMissing` when a node removed from its log what the
    /// checkpoint needs. After an error `to` holds a part, which no node takes.
    pub fn fork(
        disk: &Arc<D>,
        from: &Path,
        to: &Path,
        process: u32,
        in_use: bool,
    ) -> Result<ForkedDirectory, StorageError> {
        let shared = disk;
        let disk = &**disk;
        if layout(disk, from)? != Layout::Whole {
            return Err(StorageError::Foreign { path: from.to_owned(), expected: "a state directory of this version" });
        }
        let _source = if in_use { None } else { Some(take_lock(disk, from, process)?) };
        disk.create_directory(to).map_err(io("create the directory", to))?;
        if !disk.list(to).map_err(io("list", to))?.is_empty() {
            return Err(StorageError::NotEmpty { directory: to.to_owned() });
        }
        let unfinished = to.join(UNFINISHED);
        disk.write_new(&unfinished, b"", FILE_MODE).map_err(io("write", &unfinished))?;
        disk.sync_directory(to).map_err(io("flush the directory", to))?;
        let _target = take_lock(disk, to, process)?;
        fork_keys(disk, &from.join(KEYS), &to.join(KEYS))?;
        // All files are open before the first is copied, which takes a while: those that a node removes meanwhile can still be read.
        let checkpoint = open_checkpoint(disk, &from.join(CHECKPOINTS))?;
        let at = checkpoint.as_ref().map(|(height, _)| *height);
        let log = Log::open(shared, &from.join(LOG), at.unwrap_or(0) + 1)?;
        let checkpoints = to.join(CHECKPOINTS);
        disk.create_directory(&checkpoints).map_err(io("create the directory", &checkpoints))?;
        if let Some((_, opened)) = checkpoint {
            opened.place(disk, &checkpoints)?;
        }
        let height = log.fork(shared, &to.join(LOG))?;
        write_file(disk, &to.join("format"), LAYOUT)?;
        disk.remove(&unfinished).map_err(io("remove", &unfinished))?;
        disk.sync_directory(to).map_err(io("flush the directory", to))?;
        Ok(ForkedDirectory { checkpoint: at, height })
    }
}

fn fork_keys<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), StorageError> {
    disk.create_directory(to).map_err(io("create the directory", to))?;
    for (name, kind) in [("root.key", KeyKind::Root), ("node.key", KeyKind::Node)] {
        let path = from.join(name);
        let content = disk.read(&path, KEY_FILE_BYTES as u64 + 1).map_err(io("read", &path))?;
        let bytes = Zeroizing::new(content.bytes);
        key_file::decode(kind, &path, &bytes)?;
        write_file(disk, &to.join(name), &bytes)?;
    }
    Ok(())
}

/// A checkpoint, with its height.
type Newest<D> = (u64, Opened<<D as Disk>::File>);

/// Opens the newest checkpoint, if there is one.
fn open_checkpoint<D: Disk>(disk: &D, folder: &Path) -> Result<Option<Newest<D>>, StorageError> {
    let mut tries = 0;
    loop {
        let heights = match checkpoint::list(disk, folder) {
            Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
            heights => heights?,
        };
        let Some(&newest) = heights.last() else { return Ok(None) };
        tries += 1;
        match Opened::open(disk, folder, newest) {
            Err(StorageError::CheckpointGone { .. }) if tries < TRIES => {}
            outcome => return outcome.map(|opened| Some((newest, opened))),
        }
    }
}

/// A log as it is when it is opened.
struct Log<D: Disk> {
    /// All files but the last, by the heights of their first batches. They are written no more, but for the mark that says so.
    files: Vec<(u64, Source<D::File>)>,
    /// The last.
    first: u64,
    reader: LogReader<D>,
}

impl<D: Disk> Log<D> {
    /// Opens a log in which the batch of height `from_height` is, or comes next.
    fn open(disk: &Arc<D>, folder: &Path, from_height: u64) -> Result<Self, StorageError> {
        let mut heights = log::heights(&**disk, folder)?;
        let missing = || StorageError::LogMissing { directory: folder.to_owned(), height: from_height };
        let first = heights.pop_back().ok_or_else(missing)?;
        let mut files = Vec::new();
        // The newest first: a node may remove the oldest meanwhile, and then the next is the first that is needed.
        for height in heights.into_iter().rev() {
            match Source::open(&**disk, folder.join(log::file_name(height))) {
                Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => break,
                file => files.push((height, file?)),
            }
        }
        if files.last().map_or(first, |(height, _)| *height) > from_height {
            return Err(missing());
        }
        let reader = LogReader::open_file(Arc::clone(disk), &folder.join(log::file_name(first)))?;
        Ok(Self { files, first, reader })
    }

    /// Forks it into a folder. Returns the height of the last batch.
    fn fork(mut self, disk: &Arc<D>, to: &Path) -> Result<u64, StorageError> {
        disk.create_directory(to).map_err(io("create the directory", to))?;
        for (height, file) in &self.files {
            checkpoint::place_file(&**disk, file, &to.join(log::file_name(*height)), &mut Vec::new())?;
        }
        let configuration = self.reader.configuration();
        let mut writer = LogWriter::create(Arc::clone(disk), to, self.first, configuration, LOG_FILE_BYTES)?;
        while let Some(frame) = self.reader.next_frame()? {
            writer.append(frame.kind, frame.height, |out| out.extend_from_slice(&frame.content));
            if writer.pending_bytes() >= PIECE_BYTES {
                writer.write()?;
            }
        }
        writer.write()?.make_lasting()?;
        disk.sync_directory(to).map_err(io("flush the directory", to))?;
        Ok(writer.height())
    }
}
