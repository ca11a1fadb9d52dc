//! One file of a log: its header, its marks, and how frames come to last in it.

use crate::StorageError;
use crate::directory::{FILE_MODE, io, sync_parent, write_file};
use crate::frame::{FrameKind, encode_frame};
use cyclotron_ports::{Access, Disk, DiskFile};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a write that is torn leaves whole: the header and each mark have one of their own.
const PAGE: u64 = 4_096;
/// Where the first frame begins.
pub(super) const FRAMES_AT: u64 = 3 * PAGE;
const MAGIC: &[u8; 8] = b"CYCLLOG\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 28;
/// Heights end before sums of them could overflow.
pub(super) const HEIGHT_MAX: u64 = u64::MAX / 2;
const MARK_BYTES: usize = 32;

/// How far a file is known to last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// Counts the file's marks.
    pub sequence: u64,
    /// Where the frames that last end.
    pub end: u64,
    /// Whether another file goes on where this one ends.
    pub continued: bool,
}

impl Mark {
    fn place(&self) -> u64 {
        PAGE * (1 + self.sequence % 2)
    }

    fn encode(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.end.to_le_bytes());
        bytes[16..20].copy_from_slice(&u32::from(self.continued).to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None`: no whole mark.
    fn decode(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let mark = Self { sequence: number(0), end: number(8), continued: bytes[16] == 1 };
        (mark.encode() == *bytes).then_some(mark)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub path: PathBuf,
    pub file: F,
    lasting: Mutex<Lasting>,
}

#[derive(Debug)]
struct Lasting {
    mark: Mark,
    /// A sync failed: what is on the medium is not known, and never will be.
    failed: bool,
}

impl<F: DiskFile> Segment<F> {
    pub fn new(path: PathBuf, file: F, mark: Mark) -> Self {
        Self { path, file, lasting: Mutex::new(Lasting { mark, failed: false }) }
    }

    /// Makes all frames before `end` last, and notes so. Others may write behind `end` meanwhile.
    pub fn make_lasting(&self, end: u64, continued: bool) -> Result<(), StorageError> {
        let mut lasting = self.lasting();
        if lasting.failed {
            return Err(StorageError::LogFailedBefore { path: self.path.clone() });
        }
        // A file that goes on elsewhere does so for good.
        let continued = continued || lasting.mark.continued;
        if end <= lasting.mark.end && continued == lasting.mark.continued {
            return Ok(());
        }
        // Until all of it has succeeded.
        lasting.failed = true;
        self.file.sync().map_err(io("flush", &self.path))?;
        let mark = Mark { sequence: lasting.mark.sequence + 1, end: end.max(lasting.mark.end), continued };
        self.file.write_at(mark.place(), &mark.encode()).map_err(io("write", &self.path))?;
        self.file.sync().map_err(io("flush", &self.path))?;
        *lasting = Lasting { mark, failed: false };
        Ok(())
    }

    fn lasting(&self) -> MutexGuard<'_, Lasting> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that holds a configuration alone: its bytes, and its mark.
fn new_file(first_height: u64, configuration: &[u8]) -> (Vec<u8>, Mark) {
    let mut bytes = vec![0; FRAMES_AT as usize];
    encode_frame(FrameKind::Configuration, first_height, &mut bytes, |out| out.extend_from_slice(configuration));
    let end = bytes.len() as u64;
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&first_height.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    let marks = [0, 1].map(|sequence| Mark { sequence, end, continued: false });
    for mark in &marks {
        let place = mark.place() as usize;
        bytes[place..place + MARK_BYTES].copy_from_slice(&mark.encode());
    }
    (bytes, marks[1])
}

/// Makes a file that holds a configuration alone; it and its name last. Returns it and where its frames end.
pub(super) fn create<D: Disk>(
    disk: &D,
    path: &Path,
    first_height: u64,
    configuration: &[u8],
) -> Result<(Segment<D::File>, u64), StorageError> {
    let (bytes, mark) = new_file(first_height, configuration);
    write_file(disk, path, &bytes)?;
    let file = disk.open(path, Access::Write).map_err(io("open", path))?;
    Ok((Segment::new(path.to_owned(), file, mark), mark.end))
}

/// As [`create`], at once under its name, which a user chose. Errors: also when the file exists.
pub(super) fn create_in_place<D: Disk>(
    disk: &D,
    path: &Path,
    first_height: u64,
    configuration: &[u8],
) -> Result<(Segment<D::File>, u64), StorageError> {
    let (bytes, mark) = new_file(first_height, configuration);
    let file = disk.open(path, Access::Create(FILE_MODE)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => StorageError::Exists { path: path.to_owned() },
        _ => io("create", path)(error),
    })?;
    file.write_at(0, &bytes).map_err(io("write", path))?;
    file.sync().map_err(io("flush", path))?;
    sync_parent(disk, path)?;
    Ok((Segment::new(path.to_owned(), file, mark), mark.end))
}

/// Reads a file's header and its newest whole mark: the height of its first batch, and the mark.
pub(super) fn read_head(file: &impl DiskFile, path: &Path) -> Result<(u64, Mark), StorageError> {
    let damaged = |at, what| StorageError::Damaged { path: path.to_owned(), at, what };
    let mut head = vec![0; FRAMES_AT as usize];
    let read = file.read_at(0, &mut head).map_err(io("read", path))?;
    if !head.starts_with(MAGIC) {
        return Err(StorageError::Foreign { path: path.to_owned(), expected: "a log" });
    }
    let header: &[u8; HEADER_BYTES] = head.first_chunk().expect("the buffer is longer");
    let checksum = crc32fast::hash(&header[..HEADER_BYTES - 4]).to_le_bytes();
    if checksum != header[HEADER_BYTES - 4..] {
        return Err(damaged(0, "the checksum of its header is wrong"));
    }
    let version = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    if version != VERSION {
        return Err(StorageError::Version { path: path.to_owned(), version, known: VERSION });
    }
    if read < head.len() {
        return Err(damaged(read as u64, "it is truncated"));
    }
    let first_height = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
    if !(1..=HEIGHT_MAX).contains(&first_height) {
        return Err(damaged(16, "it begins at a height that no batch has"));
    }
    let mark = [1, 2].map(|page| Mark::decode(head[page * PAGE as usize..].first_chunk().expect("a page")));
    let newest = mark.into_iter().flatten().max_by_key(|mark| mark.sequence);
    Ok((first_height, newest.ok_or_else(|| damaged(PAGE, "both of its marks are damaged"))?))
}
