//! Forks of state directories, on a disk that fails.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_crypto::RootSigner;
use cyclotron_ports::{Access, Disk, Fault, FileContent, LockError, SimDisk, SimEntropy};
use cyclotron_storage::checkpoint::{FileUse, PageWriter, StateWriter, list};
use cyclotron_storage::manifest::ManifestWriter;
use cyclotron_storage::{ForkedDirectory, FrameKind, NodeKeys, StateDirectory, StorageError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const HERE: &str = "/state/node";
const THERE: &str = "/other/fork";
/// Small, so that the log has several files.
const FILE_BYTES: u64 = 14_000;
/// Batches of the log, and the height of its checkpoint.
const HEIGHT: u64 = 20;
const CHECKPOINT: u64 = 12;

fn genesis(keys: &NodeKeys) -> Vec<u8> {
    keys.root.public_key_der()
}

fn open(disk: &Arc<SimDisk>, path: &str) -> Result<StateDirectory<SimDisk>, StorageError> {
    StateDirectory::open(disk, Path::new(path), &SimEntropy::new(9), 42, genesis)
}

fn fork(disk: &Arc<SimDisk>, in_use: bool) -> Result<ForkedDirectory, StorageError> {
    StateDirectory::fork(disk, Path::new(HERE), Path::new(THERE), 43, in_use)
}

/// A state directory with a log of several files and a checkpoint.
fn made(seed: u64) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(seed));
    let state = open(&disk, HERE).unwrap();
    let mut log = state.log(1).unwrap();
    assert!(log.next_frame().unwrap().is_none());
    let mut log = log.into_writer(FILE_BYTES).unwrap();
    for height in 1..=HEIGHT {
        log.append(FrameKind::Batch, height, |out| out.extend([height as u8; 300]));
        log.write().unwrap().make_lasting().unwrap();
        log.append(FrameKind::Root, height, |out| out.extend([height as u8; 32]));
    }
    let folder = state.checkpoints();
    let mut pages = PageWriter::create(&*disk, &folder, 1).unwrap();
    pages.append(&[7; 4_096]).unwrap();
    pages.finish(&*disk).unwrap();
    let file = FileUse { number: 1, pages: 1, used: 4_096 };
    ManifestWriter::create(&*disk, &folder, CHECKPOINT).unwrap().commit(&*disk).unwrap();
    let mut writer = StateWriter::create(&*disk, &folder, CHECKPOINT, &[file]).unwrap();
    writer.record(FrameKind::Subnet, b"a subnet").unwrap();
    writer.commit(&*disk).unwrap();
    disk
}

/// Keys, checkpoints, and all frames of the log.
#[allow(clippy::type_complexity, reason = "a list that is compared")]
fn held(state: &StateDirectory<SimDisk>, disk: &SimDisk) -> (Vec<u8>, Vec<u64>, Vec<(u64, Vec<u8>)>) {
    let mut log = state.log(1).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = log.next_frame().unwrap() {
        frames.push((frame.height, frame.content));
    }
    (state.keys().root.public_key_der(), list(disk, &state.checkpoints()).unwrap(), frames)
}

#[test]
fn a_fork_holds_what_the_directory_held_and_both_go_on() {
    for far in [false, true] {
        let disk = made(1);
        if far {
            disk.mount(Path::new("/other"));
        }
        assert!(disk.list(Path::new("/state/node/log")).unwrap().len() > 2);
        assert_eq!(fork(&disk, false).unwrap(), ForkedDirectory { checkpoint: Some(CHECKPOINT), height: HEIGHT });
        disk.restart();
        let (one, other) = (open(&disk, HERE).unwrap(), open(&disk, THERE).unwrap());
        assert!(!other.is_created());
        let before = held(&one, &disk);
        assert_eq!((before.1.as_slice(), before.2.len()), (&[CHECKPOINT][..], 2 * HEIGHT as usize - 1));
        assert_eq!(held(&other, &disk), before);
        for (n, state) in [(1, &one), (2, &other)] {
            let mut log = state.log(HEIGHT + 1).unwrap();
            while log.next_frame().unwrap().is_some() {}
            let mut log = log.into_writer(FILE_BYTES).unwrap();
            for height in HEIGHT + 1..=2 * HEIGHT {
                log.append(FrameKind::Batch, height, |out| out.extend([n; 300]));
                log.write().unwrap().make_lasting().unwrap();
            }
        }
        let (one, other) = (held(&one, &disk), held(&other, &disk));
        let split = before.2.len();
        assert_eq!(one.2[..split], other.2[..split]);
        assert!(
            one.2[split..].iter().all(|(_, content)| *content == [1; 300]) && one.2.len() == split + HEIGHT as usize
        );
        assert!(other.2[split..].iter().all(|(_, content)| *content == [2; 300]));
    }
}

#[test]
fn a_directory_without_a_checkpoint_and_one_in_use_are_forked_too() {
    let disk = made(1);
    let state = open(&disk, HERE).unwrap();
    for name in disk.list(&state.checkpoints()).unwrap() {
        disk.remove(&state.checkpoints().join(name)).unwrap();
    }
    let locked = fork(&disk, false).unwrap_err().to_string();
    assert!(locked.contains("42"), "{locked}");
    assert_eq!(fork(&disk, true).unwrap(), ForkedDirectory { checkpoint: None, height: HEIGHT });
    assert_eq!(held(&open(&disk, THERE).unwrap(), &disk), held(&state, &disk));
}

#[test]
fn what_is_no_state_directory_and_a_place_that_is_taken_are_refused() {
    let disk = Arc::new(SimDisk::new(1));
    assert!(fork(&disk, false).unwrap_err().to_string().contains("is not a state directory"));
    assert!(disk.list(Path::new(THERE)).is_err(), "nothing was made");
    let disk = made(1);
    fork(&disk, false).unwrap();
    assert!(fork(&disk, false).unwrap_err().to_string().contains("/other/fork is not empty"));
    // A node has removed what the checkpoint needs.
    let disk = made(1);
    let log = Path::new("/state/node/log");
    disk.remove(&log.join("0000000000000001.log")).unwrap();
    let names = disk.list(log).unwrap();
    for name in &names[..names.len() - 1] {
        disk.remove(&log.join(name)).unwrap();
    }
    assert!(fork(&disk, false).unwrap_err().to_string().contains("goes on at height 13"));
}

#[test]
fn a_fork_that_was_not_finished_is_taken_by_no_node_and_the_source_is_as_it_was() {
    let mut ends = [0, 0, 0];
    for (fault, far) in [(Fault::PowerLoss, false), (Fault::PowerLoss, true), (Fault::Full, false)] {
        for after in 0.. {
            let disk = made(after as u64);
            if far {
                disk.mount(Path::new("/other"));
            }
            disk.fail_after(after, fault);
            let forked = fork(&disk, false);
            disk.restart();
            let before = held(&open(&disk, HERE).unwrap(), &disk);
            let there = disk.list(Path::new(THERE)).unwrap_or_default();
            let outcome = if there.is_empty() {
                0
            } else {
                match open(&disk, THERE) {
                    Ok(state) => {
                        assert_eq!(held(&state, &disk), before, "after {after}");
                        assert!(!state.is_created());
                        1
                    }
                    Err(error) => {
                        let said = error.to_string();
                        assert!(said.contains("\"fork-unfinished\" and is not a state directory"), "{said}");
                        2
                    }
                }
            };
            ends[outcome] += 1;
            if forked.is_ok() {
                assert_eq!(outcome, 1);
                break;
            }
        }
    }
    assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
}

/// A disk that a node uses too: it removes files once a fork has begun to give names.
#[derive(Debug)]
struct InUse {
    disk: SimDisk,
    removed: AtomicBool,
}

impl Disk for InUse {
    type Lock = <SimDisk as Disk>::Lock;
    type File = <SimDisk as Disk>::File;

    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File> {
        self.disk.open(path, access)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent> {
        self.disk.read(path, bytes_max)
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.disk.write_new(path, bytes, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.removed.swap(true, Ordering::Relaxed) {
            for folder in ["checkpoints", "log"].map(|name| Path::new(HERE).join(name)) {
                for name in self.disk.list(&folder)? {
                    self.disk.remove(&folder.join(name))?;
                }
            }
        }
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Self::Lock, LockError> {
        self.disk.lock(path, holder)
    }
}

#[test]
fn what_a_node_removes_while_it_is_forked_is_forked_all_the_same() {
    let disk = made(1);
    let before = held(&open(&disk, HERE).unwrap(), &disk);
    let in_use = Arc::new(InUse { disk: SimDisk::clone(&disk), removed: AtomicBool::new(false) });
    let forked = StateDirectory::fork(&in_use, Path::new(HERE), Path::new(THERE), 7, true).unwrap();
    assert_eq!(forked, ForkedDirectory { checkpoint: Some(CHECKPOINT), height: HEIGHT });
    assert!(disk.list(&Path::new(HERE).join("log")).unwrap().is_empty());
    disk.restart();
    assert_eq!(held(&open(&disk, THERE).unwrap(), &disk), before);
}
