//! A checkpoint gathered in one file is the same state, whatever fails.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{SCRIPT, Setup, TestSubnet};
use cyclotron_ports::{Disk, Fault, SimDisk};
use cyclotron_storage::StorageError;
use cyclotron_storage::checkpoint::{PageFiles, StateReader, list};
use cyclotron_storage::log::{LogReader, LogWriter, first_height};
use cyclotron_storage::manifest::{Making, ManifestRoot};
use cyclotron_subnet::{Checkpointer, LogSink, Made, Retention};
use cyclotron_types::units::Height;
use std::path::Path;
use std::sync::Arc;

const CHECKPOINTS: &str = "/state/checkpoints";
const LOG: &str = "/state/log";
/// Small, so that the log has several files.
const FILE_BYTES: u64 = 20_000;

/// A subnet after several checkpoints, of which two are kept, in files that are not used whole; and its state hash at the newest.
fn made(seed: u64) -> (Arc<SimDisk>, Height, [u8; 32]) {
    let disk = Arc::new(SimDisk::new(seed));
    for folder in [CHECKPOINTS, LOG] {
        disk.create_directory(Path::new(folder)).unwrap();
    }
    let mut test = TestSubnet::new(Setup::default());
    let writer = LogWriter::create(disk.clone(), Path::new(LOG), 1, b"genesis", FILE_BYTES).unwrap();
    test.subnet.note(Box::new(LogSink::new(writer).unwrap()));
    let mut checkpointer = Checkpointer::new(disk.clone(), Path::new(CHECKPOINTS)).unwrap();
    // From now on checkpoints say it.
    test.subnet.state_hash();
    let canisters: Vec<_> = (0..3).map(|_| test.install_new(SCRIPT)).collect();
    for round in 0..5u8 {
        for canister in &canisters[usize::from(round) % 2..] {
            test.send(*canister, Some(*canister), "go", vec![0, round, 0, 0, 0, 0, 0, 0, 0]);
        }
        test.round_at_checkpoint();
        checkpointer.make(&mut test.subnet).unwrap();
    }
    test.subnet.note_no_more();
    (disk, test.subnet.height(), test.subnet.state_hash())
}

fn restore(disk: &Arc<SimDisk>, height: Height) -> Result<(TestSubnet, Checkpointer<SimDisk>), StorageError> {
    let mut test = TestSubnet::new(Setup::default());
    let mut checkpointer = Checkpointer::new(disk.clone(), Path::new(CHECKPOINTS))?;
    // So that operations come in one order.
    checkpointer.hash_on(1);
    checkpointer.restore(&mut test.subnet, height)?;
    Ok((test, checkpointer))
}

fn compact(disk: &Arc<SimDisk>, height: Height) -> Result<Made, StorageError> {
    let (mut test, mut checkpointer) = restore(disk, height)?;
    let log = Some((Path::new(LOG).to_owned(), 0));
    checkpointer.retain(Retention { checkpoints: 1, log, ..Retention::default() });
    checkpointer.compact(&mut test.subnet)
}

/// Makes the manifest anew, and compares it, if there is one.
fn verify(disk: &SimDisk, height: Height) -> Option<ManifestRoot> {
    let files = PageFiles::default();
    Making { disk, folder: Path::new(CHECKPOINTS), files: &files, threads: 1 }.verify(height.0).unwrap()
}

fn names(disk: &SimDisk) -> Vec<Vec<String>> {
    [CHECKPOINTS, LOG].map(|folder| disk.list(Path::new(folder)).unwrap()).to_vec()
}

#[test]
fn what_the_newest_checkpoint_keeps_is_in_one_file_and_nothing_else_is_left() {
    let (disk, height, state) = made(1);
    let bytes = |disk: &SimDisk| -> u64 {
        let folders = [CHECKPOINTS, LOG].into_iter().map(Path::new);
        let paths =
            folders.flat_map(|folder| disk.list(folder).unwrap().into_iter().map(move |name| folder.join(name)));
        paths.map(|path| disk.read(&path, u64::MAX).unwrap().bytes.len() as u64).sum()
    };
    let before = bytes(&disk);
    let root = verify(&disk, height);
    assert!(root.is_some());
    let outcome = compact(&disk, height).unwrap();
    assert!(outcome.not_removed.is_none() && outcome.log_removed.files > 0, "{outcome:?}");
    disk.restart();
    assert!(bytes(&disk) < before, "{} of {before} bytes are left", bytes(&disk));
    assert_eq!(list(&*disk, Path::new(CHECKPOINTS)).unwrap(), [height.0]);
    let files = StateReader::open(&*disk, Path::new(CHECKPOINTS), height.0).unwrap().files().unwrap();
    assert_eq!((files.len(), disk.list(Path::new(CHECKPOINTS)).unwrap().len()), (1, 3));
    assert_eq!(verify(&disk, height), root, "the state is what it was");
    // But for the ends of the pages that records are on.
    assert!(u64::from(files[0].pages) <= files[0].used / 4_096 + 4, "{files:?}");
    let (mut test, checkpointer) = restore(&disk, height).unwrap();
    assert_eq!(checkpointer.state_hash(), Some(state));
    assert_eq!((test.subnet.state_hash(), test.subnet.whole_state_hash()), (state, state));
    let first = first_height(&*disk, Path::new(LOG)).unwrap().unwrap();
    assert!(first > 1 && first <= height.0 + 1);
    LogReader::open(disk.clone(), Path::new(LOG), height.0 + 1).unwrap();
    // Once more, and nothing is gained.
    compact(&disk, height).unwrap();
    assert_eq!(restore(&disk, height).unwrap().0.subnet.state_hash(), state);
}

#[test]
fn compaction_that_fails_anywhere_loses_nothing_and_a_full_disk_leaves_all_as_it_was() {
    let (operations, root) = {
        let (disk, height, _) = made(0);
        let root = verify(&disk, height);
        let before = disk.operations();
        compact(&disk, height).unwrap();
        (disk.operations() - before, root)
    };
    let (mut failed, mut unhashed) = (0, 0);
    for fault in [Fault::Full, Fault::Medium, Fault::PowerLoss] {
        for at in 0..operations {
            let (disk, height, state) = made(at as u64);
            let before = names(&disk);
            disk.fail_after(at, fault);
            let outcome = compact(&disk, height);
            failed += u32::from(outcome.is_err());
            if outcome.is_err() && fault == Fault::Full {
                // Or all but the last flush of the directory has succeeded.
                let state = StateReader::open(&*disk, Path::new(CHECKPOINTS), height.0);
                let gathered = state.unwrap().files().unwrap().len() == 1;
                // The manifest goes first.
                let but = |names: Vec<Vec<String>>| -> Vec<_> {
                    names.into_iter().flatten().filter(|name| !name.ends_with(".manifest")).collect()
                };
                assert!(gathered || but(names(&disk)) == but(before), "{at} of {operations}: {:?}", names(&disk));
            }
            disk.restart();
            let (mut test, _) = restore(&disk, height).unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            assert_eq!(test.subnet.state_hash(), state, "{fault:?} at {at}");
            let (found, was_ended) = (verify(&disk, height), outcome.is_ok_and(|made| made.not_hashed.is_none()));
            assert!(found == root || found.is_none() && !was_ended, "{fault:?} at {at}");
            unhashed += u32::from(found.is_none());
            LogReader::open(disk.clone(), Path::new(LOG), height.0 + 1).unwrap();
        }
    }
    assert!(failed > 20 && unhashed > 0, "{failed} of {operations}, {unhashed} without a manifest");
}
