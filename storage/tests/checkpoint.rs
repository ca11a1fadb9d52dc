//! Checkpoints on a disk that fails.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_ports::{Disk, Fault, SimDisk, SimEntropy};
use cyclotron_storage::checkpoint::{CheckpointReader, CheckpointWriter, PAGE_BYTES, list, prune};
use cyclotron_storage::{FrameKind, StorageError};
use std::path::{Path, PathBuf};

const HERE: &str = "/checkpoints";
const PAGES: u64 = 5;

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_directory(Path::new(HERE)).unwrap();
    disk
}

fn page(height: u64, index: u64) -> [u8; PAGE_BYTES] {
    let random = SimEntropy::new(height * 1_000 + index);
    std::array::from_fn(|_| random.next_u64() as u8)
}

fn content(height: u64, frame: u64) -> Vec<u8> {
    page(height, 100 + frame)[..50 + frame as usize * 300].to_vec()
}

const KINDS: [FrameKind; 4] = [FrameKind::Subnet, FrameKind::Statuses, FrameKind::Module, FrameKind::Canister];

fn write(disk: &SimDisk, height: u64) -> Result<(), StorageError> {
    let mut writer = CheckpointWriter::create(disk, Path::new(HERE), height)?;
    for index in 0..PAGES {
        assert_eq!(writer.page(&page(height, index))?, index);
    }
    for (n, kind) in KINDS.into_iter().enumerate() {
        writer.record(kind, &content(height, n as u64))?;
    }
    writer.commit()
}

/// Reads a checkpoint, which must be what was written, or an error.
fn read(disk: &SimDisk, height: u64) -> Result<(), StorageError> {
    let mut reader = CheckpointReader::open(disk, Path::new(HERE), height)?;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let frame = reader.next_record()?.expect("a checkpoint ends where it ended");
        assert_eq!((frame.kind, frame.height, frame.content), (kind, height, content(height, n as u64)));
    }
    assert!(reader.next_record()?.is_none());
    let mut found = [0; PAGE_BYTES];
    for index in (0..PAGES).rev() {
        reader.page(index, &mut found)?;
        assert!(found == page(height, index));
    }
    assert!(reader.page(PAGES, &mut found).unwrap_err().to_string().contains("not in the pages file"));
    assert!(reader.page(u64::MAX, &mut found).is_err());
    Ok(())
}

#[test]
fn a_checkpoint_may_have_no_pages_and_records_of_any_length() {
    let disk = disk(1);
    let long: Vec<u8> = (0..40_000_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    let mut writer = CheckpointWriter::create(&disk, Path::new(HERE), 1).unwrap();
    for length in [0, 1, 16 << 20, (16 << 20) + 1, long.len()] {
        writer.record(FrameKind::Canister, &long[..length]).unwrap();
    }
    writer.commit().unwrap();
    let mut reader = CheckpointReader::open(&disk, Path::new(HERE), 1).unwrap();
    assert_eq!(reader.pages(), 0);
    for length in [0, 1, 16 << 20, (16 << 20) + 1, long.len()] {
        let record = reader.next_record().unwrap().unwrap();
        assert!(record.kind == FrameKind::Canister && record.content == long[..length], "{length} bytes");
    }
    assert_eq!(reader.next_record().unwrap(), None);
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(HERE)).unwrap().iter().map(|name| Path::new(HERE).join(name)).collect()
}

#[test]
fn what_was_written_is_read_and_the_newest_are_kept() {
    let disk = disk(1);
    for height in [7, 300, 0x1_0000] {
        write(&disk, height).unwrap();
        disk.restart();
        read(&disk, height).unwrap();
    }
    assert_eq!(list(&disk, Path::new(HERE)).unwrap(), [7, 300, 0x1_0000]);
    // What others put there, and what a crash left.
    disk.write_new(&Path::new(HERE).join("notes"), b"mine", 0o600).unwrap();
    drop(CheckpointWriter::create(&disk, Path::new(HERE), 0x2_0000).unwrap());
    assert_eq!(files(&disk).len(), 9);
    prune(&disk, Path::new(HERE), 2).unwrap();
    assert_eq!(list(&disk, Path::new(HERE)).unwrap(), [300, 0x1_0000]);
    assert_eq!(files(&disk).len(), 5);
    read(&disk, 300).unwrap();
}

#[test]
fn a_flipped_bit_or_a_missing_byte_is_noticed_or_changes_nothing() {
    let disk = disk(1);
    write(&disk, 9).unwrap();
    let mut noticed = 0;
    for path in files(&disk) {
        let good = disk.read(&path, u64::MAX).unwrap().bytes;
        let is_refused = |damaged: Vec<u8>| {
            disk.corrupt(&path, |file| *file = damaged);
            // What is read is compared with what was written.
            let outcome = read(&disk, 9);
            disk.corrupt(&path, |file| *file = good.clone());
            match outcome {
                Ok(()) => false,
                Err(error) => {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    true
                }
            }
        };
        for byte in (0..good.len()).filter(|byte| good[*byte] != 0 || byte % 64 == 0) {
            let mut damaged = good.clone();
            damaged[byte] ^= 1 << (byte % 8);
            let refused = is_refused(damaged);
            assert!(refused || (40..4_096).contains(&byte), "byte {byte} can be changed");
            noticed += u32::from(refused);
        }
        for length in (0..good.len()).step_by(97) {
            assert!(is_refused(good[..length].to_vec()), "{length} of {} bytes", good.len());
        }
    }
    assert!(noticed > 15_000, "{noticed}");
}

#[test]
fn a_checkpoint_that_fails_at_any_operation_is_not_there_and_those_before_it_are() {
    let operations = {
        let disk = disk(0);
        let before = disk.operations();
        write(&disk, 2).unwrap();
        disk.operations() - before
    };
    let mut whole = 0;
    for fault in [Fault::Full, Fault::Medium, Fault::Denied, Fault::PowerLoss] {
        for (at, seed) in (0..operations).flat_map(|at| (0..8).map(move |seed| (at, seed))) {
            let disk = disk(seed);
            write(&disk, 1).unwrap();
            disk.fail_after(at, fault);
            assert!(write(&disk, 2).is_err(), "operation {at} failed with {fault:?}, unnoticed");
            disk.restart();
            read(&disk, 1).unwrap();
            // It may exist if all but the last flush succeeded; then it is whole.
            if list(&disk, Path::new(HERE)).unwrap().contains(&2) {
                read(&disk, 2).unwrap_or_else(|error| panic!("{fault:?} at {at}, seed {seed}: {error}"));
                whole += 1;
            }
            prune(&disk, Path::new(HERE), 2).unwrap();
            write(&disk, 3).unwrap();
            read(&disk, 3).unwrap();
        }
    }
    assert!(operations > 8 && whole > 0, "{operations} operations, {whole} whole");
}
