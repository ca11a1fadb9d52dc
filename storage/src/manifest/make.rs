//! The manifest of a checkpoint, made from that of another one, or from nothing.

use crate::StorageError;
use crate::checkpoint::{PageFiles, RecordAt, StateReader, decode_entries, manifest_path, state_path};
use crate::frame::FrameKind;
use crate::manifest::disk::{ManifestReader, ManifestWriter, manifest_root};
use crate::manifest::file::ManifestFile;
use crate::manifest::source::{CHUNK_PAGES, Source, clip, places};
use crate::manifest::tables::{chunk_hash, chunk_message, chunks_of};
use crate::manifest::{CHUNK_BYTES, Hash, ManifestRoot, on_threads};
use cyclotron_crypto::sha256_batch;
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageRun};
use cyclotron_ports::{Disk, DiskFile};
use std::collections::VecDeque;
use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

/// Canisters and other files that are looked at together.
const ITEMS: usize = 256;

/// The hash of a whole chunk of zeros.
static ZERO: LazyLock<Hash> = LazyLock::new(|| chunk_hash(&[0; CHUNK_BYTES]));

/// Pages that were copied from a file of pages to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// The first copy.
    pub to: PageAt,
    /// How many.
    pub count: u32,
    /// The first page that was copied.
    pub from: PageAt,
}

/// A checkpoint whose files of pages are there.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    /// Its height.
    pub height: u64,
    /// The frames of its state file.
    pub frames: &'a [(FrameKind, Vec<u8>)],
    /// What was copied for it from other files of pages, in the order of the copies.
    pub copied: &'a [Copied],
}

/// Where a manifest is made, and on how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a, D: Disk> {
    /// The disk.
    pub disk: &'a D,
    /// The folder of checkpoints.
    pub folder: &'a Path,
    /// The files of pages that the checkpoint names, and those of the one before.
    pub files: &'a PageFiles<D::File>,
    /// Threads that read and hash, this one included.
    pub threads: usize,
}

/// What may have to be hashed.
enum Item<'a> {
    /// Nothing of it.
    Done(ManifestFile),
    /// A canister's record, the one that the checkpoint before had, and the files that its manifest has.
    Canister { name: &'a [u8], at: RecordAt, before: Option<RecordAt>, known: Vec<ManifestFile> },
    /// A file.
    File(Planned<'a>),
}

/// A file, of whose chunks some hashes are known.
struct Planned<'a> {
    path: String,
    size: u64,
    source: Source<'a>,
    hashes: Vec<Option<Hash>>,
}

impl<'a> Planned<'a> {
    fn new(path: String, size: u64, source: Source<'a>) -> Self {
        Self { path, size, source, hashes: chunks_of(size).map(|_| None).collect() }
    }
}

impl<D: Disk> Making<'_, D> {
    /// Makes the manifest of a checkpoint and lets it last under its name. With `before`, what that checkpoint has too is taken from its manifest; the result
    /// is the same. Cost: O(files) to walk, O(chunks changed) to read and hash; memory for eight chunks a thread.
    ///
    /// Errors: the disk's; a record of this checkpoint is not one; a damaged one before.
    pub fn write(&self, checkpoint: &Checkpoint<'_>, before: Option<u64>) -> Result<(), StorageError> {
        let mut before = before.map(|height| Before::open(self, height)).transpose()?.flatten();
        let mut writer = ManifestWriter::create(self.disk, self.folder, checkpoint.height)?;
        if let Err(error) = self.each_file(checkpoint, before.as_mut(), &mut |file| writer.file(&file)) {
            writer.discard(self.disk);
            return Err(error);
        }
        writer.commit(self.disk)
    }

    /// Reads a whole checkpoint, and compares it with its manifest, if it has one. Opens its files of pages.
    ///
    /// Errors: [`StorageError::ManifestDiffers`] with the first file that is not as the manifest says.
    pub fn verify(&self, height: u64) -> Result<Option<ManifestRoot>, StorageError> {
        let Some(mut manifest) = ManifestReader::open(self.disk, self.folder, height)? else { return Ok(None) };
        let mut state = StateReader::open(self.disk, self.folder, height)?;
        for file in state.files()? {
            self.files.open(self.disk, self.folder, file.number)?;
        }
        let mut frames = Vec::new();
        while let Some(frame) = state.next_record()? {
            frames.push((frame.kind, frame.content));
        }
        let differs =
            |file: &str| StorageError::ManifestDiffers { path: manifest_path(self.folder, height), file: file.into() };
        let checkpoint = Checkpoint { height, frames: &frames, copied: &[] };
        self.each_file(&checkpoint, None, &mut |file| match manifest.next_file()? {
            Some(listed) if listed == file => Ok(()),
            _ => Err(differs(file.path())),
        })?;
        if let Some(file) = manifest.next_file()? {
            return Err(differs(file.path()));
        }
        manifest_root(self.disk, self.folder, height, self.threads)
    }

    /// Gives out the files of a checkpoint in the order of their paths.
    fn each_file(
        &self,
        checkpoint: &Checkpoint<'_>,
        mut before: Option<&mut Before<D::File>>,
        emit: &mut dyn FnMut(ManifestFile) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut items = Vec::with_capacity(ITEMS);
        for (name, at) in self.entries(checkpoint, FrameKind::Canisters)? {
            let (mut old, mut known) = (None, Vec::new());
            if let Some(before) = before.as_mut() {
                old = before.record_of(name)?;
                known = before.files_under(&canister_path(name, ""))?;
            }
            if old == Some(at) && !known.is_empty() {
                items.extend(known.into_iter().map(Item::Done));
            } else {
                items.push(Item::Canister { name, at, before: old, known });
            }
            if items.len() >= ITEMS {
                self.hash(checkpoint, &mut items, emit)?;
            }
        }
        let frames_of = |kind| checkpoint.frames.iter().filter(move |frame| frame.0 == kind);
        let joined = |kind, path: &str| {
            let frames: Vec<&[u8]> = frames_of(kind).map(|frame| frame.1.as_slice()).collect();
            let size = frames.iter().map(|frame| frame.len() as u64).sum();
            Item::File(Planned::new(path.into(), size, Source::Frames(frames)))
        };
        items.push(joined(FrameKind::Statuses, "ingress_history.cbor"));
        for (name, at) in self.entries(checkpoint, FrameKind::Modules)? {
            let path = format!("modules/{}.wasm", Hex(name));
            let known = match before.as_mut() {
                Some(before) => before.files_under(&path)?.pop(),
                None => None,
            };
            items.push(match known {
                // Its name says what it is.
                Some(file) if file.size() == at.length => Item::Done(file),
                _ => Item::File(Planned::new(path, at.length, Source::Record(at, 0))),
            });
            if items.len() >= ITEMS {
                self.hash(checkpoint, &mut items, emit)?;
            }
        }
        items.push(joined(FrameKind::Subnet, "system_metadata.cbor"));
        self.hash(checkpoint, &mut items, emit)
    }

    /// The entries of a kind, in the order of their names.
    fn entries<'a>(
        &self,
        checkpoint: &Checkpoint<'a>,
        kind: FrameKind,
    ) -> Result<Vec<(&'a [u8], RecordAt)>, StorageError> {
        let frames = checkpoint.frames.iter().filter(|frame| frame.0 == kind);
        let entries = frames.flat_map(|frame| decode_entries(&frame.1)).collect::<Option<Vec<_>>>();
        let mut entries = entries.ok_or_else(|| self.malformed(checkpoint, "an entry is cut off"))?;
        if !entries.iter().all(|(_, at)| self.files.holds(at)) {
            return Err(self.malformed(checkpoint, "a record is not where an entry says"));
        }
        entries.sort_by_key(|(name, _)| *name);
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(self.malformed(checkpoint, "an entry is there twice"));
        }
        Ok(entries)
    }

    fn malformed(&self, checkpoint: &Checkpoint<'_>, what: &'static str) -> StorageError {
        StorageError::Damaged { path: state_path(self.folder, checkpoint.height), at: 0, what }
    }

    /// Hashes what has to be hashed of some items, and gives out their files.
    fn hash<'a>(
        &self,
        checkpoint: &Checkpoint<'a>,
        items: &mut Vec<Item<'a>>,
        emit: &mut dyn FnMut(ManifestFile) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let plans = on_threads(self.threads, items, |items| {
            let plan = |item: &Item<'a>| match item {
                Item::Canister { name, at, before, known } => {
                    self.plan(checkpoint, (name, *at), before.as_ref(), known).map(Some)
                }
                Item::Done(_) | Item::File(_) => Ok(None),
            };
            items.iter().map(plan).collect()
        });
        let mut files = Vec::with_capacity(items.len());
        for (item, plan) in items.drain(..).zip(plans) {
            match plan? {
                Some(planned) => files.extend(planned.into_iter().map(Item::File)),
                None => files.push(item),
            }
        }
        let mut jobs = Vec::new();
        for (n, file) in files.iter().enumerate() {
            let Item::File(file) = file else { continue };
            let unknown = file.hashes.iter().enumerate().filter(|(_, hash)| hash.is_none());
            jobs.extend(unknown.map(|(chunk, _)| (n, chunk)));
        }
        let hashes = on_threads(self.threads, &jobs, |jobs| {
            let of = |&(file, chunk): &(usize, usize)| match &files[file] {
                Item::File(file) => (file, chunk),
                Item::Done(_) | Item::Canister { .. } => unreachable!("it has nothing to hash"),
            };
            self.hash_chunks(jobs.iter().map(of))
        });
        for ((file, chunk), hash) in jobs.into_iter().zip(hashes) {
            if let Item::File(file) = &mut files[file] {
                file.hashes[chunk] = Some(hash?);
            }
        }
        for file in files {
            emit(match file {
                Item::Done(file) => file,
                Item::File(file) => ManifestFile::new(file.path, file.size, file.hashes.into_iter().flatten()),
                Item::Canister { .. } => unreachable!("it became its files"),
            })?;
        }
        Ok(())
    }

    /// Reads some chunks, and hashes them together.
    fn hash_chunks<'p>(&self, jobs: impl Iterator<Item = (&'p Planned<'p>, usize)>) -> Vec<Result<Hash, StorageError>> {
        let read = |(file, chunk): (&Planned<'_>, usize)| {
            let offset = chunk as u64 * CHUNK_BYTES as u64;
            let bytes = (file.size - offset).min(CHUNK_BYTES as u64) as usize;
            let mut message = chunk_message(bytes);
            let domain = message.len();
            message.resize(domain + bytes, 0);
            file.source.read(self.files, offset, &mut message[domain..]).map(|()| message)
        };
        let messages: Vec<Result<Vec<u8>, StorageError>> = jobs.map(read).collect();
        let whole: Vec<&[u8]> = messages.iter().flatten().map(Vec::as_slice).collect();
        let mut hashes = vec![[0; 32]; whole.len()];
        sha256_batch(&whole, &mut hashes);
        let mut hashes = hashes.into_iter();
        messages.into_iter().map(|message| message.map(|_| hashes.next().expect("one for each message"))).collect()
    }

    /// The files of a canister, and what is known of them.
    fn plan<'a>(
        &self,
        checkpoint: &Checkpoint<'_>,
        (name, at): (&[u8], RecordAt),
        before: Option<&RecordAt>,
        known: &[ManifestFile],
    ) -> Result<Vec<Planned<'a>>, StorageError> {
        let places_of = |at: &RecordAt| {
            let found = places(self.files, at)?;
            found.ok_or_else(|| self.malformed(checkpoint, "the record of a canister does not say where its pages are"))
        };
        let ([heap, stable], head) = places_of(&at)?;
        let [heap_before, stable_before] = match before {
            Some(before) => places_of(before)?.0,
            None => Default::default(),
        };
        let record = canister_path(name, "canister.cbor");
        let mut files = vec![Planned::new(record, at.length - head, Source::Record(at, head))];
        for (label, runs, runs_before) in
            [("stable_memory.bin", stable, stable_before), ("vmemory_0.bin", heap, heap_before)]
        {
            let Some(last) = runs.last() else { continue };
            let path = canister_path(name, label);
            let size = u64::from(last.end()) * PAGE as u64;
            let known = known.iter().find(|file| file.path() == path);
            let same_size = known.is_some_and(|known| known.size() == size);
            // Of a file of another size the last chunk was of another length, perhaps.
            let whole = |size: u64| if same_size { usize::MAX } else { (size / CHUNK_BYTES as u64) as usize };
            let known: Vec<Hash> = known
                .map(|known| known.hashes().take(whole(known.size()).min(whole(size))).collect())
                .unwrap_or_default();
            let origins = origins(&runs, checkpoint.copied);
            let mut file = Planned::new(path, size, Source::Memory(runs));
            for (chunk, hash) in file.hashes.iter_mut().enumerate() {
                let first = chunk as u32 * CHUNK_PAGES;
                let parts = clip(&origins, first, first + CHUNK_PAGES);
                *hash = match known.get(chunk) {
                    // The last page of a file is not zero: this chunk is a whole one.
                    _ if parts.is_empty() => Some(*ZERO),
                    Some(known) if clip(&runs_before, first, first + CHUNK_PAGES) == parts => Some(*known),
                    _ => None,
                };
            }
            files.push(file);
        }
        Ok(files)
    }
}

/// Where pages were before they were copied for this checkpoint.
fn origins(runs: &[PageRun], copied: &[Copied]) -> Vec<PageRun> {
    let mut origins = Vec::with_capacity(runs.len());
    for run in runs {
        let mut page = 0;
        while page < run.count {
            let at = PageAt { index: run.at.index + page, ..run.at };
            let behind = copied.partition_point(|copied| copied.to <= at);
            let of = behind
                .checked_sub(1)
                .map(|n| copied[n])
                .filter(|copied| copied.to.file == at.file && at.index - copied.to.index < copied.count);
            let (count, at) = match of {
                Some(copied) => {
                    let into = at.index - copied.to.index;
                    (copied.count - into, PageAt { index: copied.from.index + into, ..copied.from })
                }
                None => {
                    let next = copied.get(behind).filter(|next| next.to.file == at.file);
                    (next.map_or(u32::MAX, |next| next.to.index - at.index), at)
                }
            };
            let count = count.min(run.count - page);
            PageRun::push(&mut origins, PageRun { first: run.first + page, count, at });
            page += count;
        }
    }
    origins
}

/// The checkpoint before, walked in the order of its canisters, and its manifest.
struct Before<F> {
    state: StateReader<F>,
    records: VecDeque<(Vec<u8>, RecordAt)>,
    manifest: ManifestReader<F>,
}

impl<F: DiskFile> Before<F> {
    /// None: it has no manifest.
    fn open<D: Disk<File = F>>(making: &Making<'_, D>, height: u64) -> Result<Option<Self>, StorageError> {
        let Some(manifest) = ManifestReader::open(making.disk, making.folder, height)? else { return Ok(None) };
        let mut state = StateReader::open(making.disk, making.folder, height)?;
        for file in state.files()? {
            making.files.open(making.disk, making.folder, file.number)?;
        }
        Ok(Some(Self { state, records: VecDeque::new(), manifest }))
    }

    /// Where the record of a canister was. Names are asked for in their order.
    fn record_of(&mut self, name: &[u8]) -> Result<Option<RecordAt>, StorageError> {
        loop {
            while let Some((first, at)) = self.records.front() {
                match first.as_slice().cmp(name) {
                    std::cmp::Ordering::Less => drop(self.records.pop_front()),
                    std::cmp::Ordering::Equal => return Ok(Some(*at)),
                    std::cmp::Ordering::Greater => return Ok(None),
                }
            }
            let Some(frame) = self.state.next_record()? else { return Ok(None) };
            if frame.kind == FrameKind::Canisters {
                for entry in decode_entries(&frame.content) {
                    let (name, at) = entry.ok_or_else(|| self.state.malformed("an entry is cut off"))?;
                    self.records.push_back((name.to_vec(), at));
                }
            }
        }
    }

    /// The files whose paths begin so. Paths are asked for in their order.
    fn files_under(&mut self, path: &str) -> Result<Vec<ManifestFile>, StorageError> {
        let mut files = Vec::new();
        while let Some(file) = self.manifest.peek()? {
            let is_under = file.path().starts_with(path);
            if !is_under && file.path() >= path {
                break;
            }
            files.extend(self.manifest.next_file()?.filter(|_| is_under));
        }
        Ok(files)
    }
}

/// Bytes in hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn canister_path(name: &[u8], file: &str) -> String {
    let mut path = String::with_capacity(64);
    write!(path, "canister_states/{}/{file}", Hex(name)).expect("a string takes anything");
    path
}
