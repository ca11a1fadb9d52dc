//! Logs on a disk that fails.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_ports::{Disk, Fault, SimDisk, SimEntropy};
use cyclotron_storage::StorageError;
use cyclotron_storage::log::{LogReader, LogWriter, Trimmed, decode_batch, encode_batch, first_height, trim};
use cyclotron_storage::{Frame, FrameKind, encode_block, encode_frame};
use cyclotron_types::Principal;
use cyclotron_types::action::OperatorAction;
use cyclotron_types::batch::Batch;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::Ingress;
use cyclotron_types::units::{Cycles, Height, RegistryVersion, Time};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HERE: &str = "/log";
const CONFIGURATION: &[u8] = b"what the subnet is made with";
/// Small, so that a few frames fill a file.
const FILE_BYTES: u64 = 13_000;

fn disk(seed: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    disk.create_directory(Path::new(HERE)).unwrap();
    Arc::new(disk)
}

fn create(disk: &Arc<SimDisk>) -> LogWriter<SimDisk> {
    LogWriter::create(disk.clone(), Path::new(HERE), 1, CONFIGURATION, FILE_BYTES).unwrap()
}

/// Content of the batch of a height: any bytes will do here.
fn content(height: u64) -> Vec<u8> {
    let random = SimEntropy::new(height);
    (0..random.next_u64() % 300).map(|_| random.next_u64() as u8).collect()
}

fn frame(height: u64) -> Frame {
    Frame { kind: FrameKind::Batch, height, content: content(height) }
}

fn append(log: &mut LogWriter<SimDisk>) {
    let height = log.height() + 1;
    log.append(FrameKind::Batch, height, |out| out.extend_from_slice(&content(height)));
}

/// Writes batches up to this height, all lasting.
fn write_up_to(log: &mut LogWriter<SimDisk>, height: u64) {
    while log.height() < height {
        append(log);
        log.write().unwrap().make_lasting().unwrap();
    }
}

fn read(disk: &Arc<SimDisk>) -> Result<(Vec<Frame>, LogReader<SimDisk>), StorageError> {
    let mut log = LogReader::open(disk.clone(), Path::new(HERE), 1)?;
    let mut frames = Vec::new();
    while let Some(frame) = log.next_frame()? {
        frames.push(frame);
    }
    Ok((frames, log))
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(HERE)).unwrap().iter().map(|name| Path::new(HERE).join(name)).collect()
}

fn bytes(disk: &SimDisk, path: &Path) -> Vec<u8> {
    disk.read(path, u64::MAX).unwrap().bytes
}

#[test]
fn what_was_written_is_read_over_several_files_and_written_on() {
    let disk = disk(1);
    let mut log = create(&disk);
    write_up_to(&mut log, 20);
    log.append(FrameKind::Root, 20, |out| out.extend_from_slice(&[7; 32]));
    log.append(FrameKind::StateHash, 20, |out| out.extend_from_slice(&[8; 32]));
    log.write().unwrap().make_lasting().unwrap();
    drop(log);
    disk.restart();
    assert!(files(&disk).len() > 3);
    let (frames, log) = read(&disk).unwrap();
    assert_eq!(log.configuration(), CONFIGURATION);
    let mut expected: Vec<Frame> = (1..=20).map(frame).collect();
    for (kind, byte) in [(FrameKind::Root, 7), (FrameKind::StateHash, 8)] {
        expected.push(Frame { kind, height: 20, content: vec![byte; 32] });
    }
    assert_eq!(frames, expected);
    let mut log = log.into_writer(FILE_BYTES).unwrap();
    write_up_to(&mut log, 40);
    let (frames, _) = read(&disk).unwrap();
    expected.extend((21..=40).map(frame));
    assert_eq!(frames, expected);
}

#[test]
fn a_log_is_read_from_the_file_that_holds_a_height() {
    let disk = disk(1);
    write_up_to(&mut create(&disk), 20);
    for from in 1..=21 {
        let mut log = LogReader::open(disk.clone(), Path::new(HERE), from).unwrap();
        let first = log.next_height();
        assert!(first <= from && from - first < 10, "{from} is looked for from {first} on");
        let frames: Vec<Frame> = std::iter::from_fn(|| log.next_frame().unwrap()).collect();
        assert_eq!(frames, (first..=20).map(frame).collect::<Vec<_>>());
    }
}

/// Heights of the first batches of the files.
fn firsts(disk: &Arc<SimDisk>) -> Vec<u64> {
    let name = |path: &PathBuf| u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
    files(disk).iter().map(name).collect()
}

#[test]
fn a_log_loses_whole_files_that_a_checkpoint_keeps_oldest_first_until_it_is_small_enough() {
    let written = || {
        let disk = disk(1);
        write_up_to(&mut create(&disk), 40);
        disk
    };
    let before = firsts(&written());
    assert!(before.len() > 6);
    let size = |disk: &Arc<SimDisk>| files(disk).iter().map(|path| bytes(disk, path).len() as u64).sum::<u64>();
    for (kept, bytes_max) in (0..=41).flat_map(|kept| [0, 30_000, 60_000, u64::MAX].map(|max| (kept, max))) {
        let disk = written();
        let all = size(&disk);
        let Trimmed { files, bytes } = trim(&*disk, Path::new(HERE), kept, bytes_max).unwrap();
        let left = firsts(&disk);
        assert_eq!(left, before[files as usize..], "the newest stay, without a gap");
        assert_eq!(size(&disk), all - bytes);
        assert!(left[0] <= kept + 1, "batches behind {kept} are needed, and {} is the first", left[0]);
        // No more than had to, and no less than could.
        let last_gone = files.checked_sub(1).map_or(0, |n| left[0] - before[n as usize]);
        assert!(files == 0 || last_gone > 0 && all - bytes + 13_000 > bytes_max, "{kept} {bytes_max}");
        assert!(size(&disk) <= bytes_max || left.get(1).is_none_or(|next| *next > kept + 1), "{kept} {bytes_max}");
        let mut log = LogReader::open_first(disk.clone(), Path::new(HERE)).unwrap();
        assert_eq!((log.next_height(), first_height(&*disk, Path::new(HERE)).unwrap()), (left[0], Some(left[0])));
        while log.next_frame().unwrap().is_some() {}
        let mut log = log.into_writer(FILE_BYTES).unwrap();
        write_up_to(&mut log, 50);
        if left[0] > 1 {
            let said = LogReader::open(disk.clone(), Path::new(HERE), left[0] - 1).unwrap_err().to_string();
            assert!(said.contains(&format!("none of height {} or higher", left[0] - 1)), "{said}");
        }
    }
}

#[test]
fn a_trim_that_is_interrupted_anywhere_leaves_no_gap() {
    let (mut seen, mut failed) = (std::collections::BTreeSet::new(), 0);
    for fault in [Fault::Medium, Fault::Denied, Fault::PowerLoss] {
        for at in 0.. {
            let disk = disk(at as u64);
            write_up_to(&mut create(&disk), 40);
            let before = firsts(&disk);
            disk.fail_after(at, fault);
            let outcome = trim(&*disk, Path::new(HERE), 30, 0);
            let all_done = outcome.is_ok();
            failed += u32::from(!all_done);
            disk.restart();
            let left = firsts(&disk);
            assert!(before.ends_with(&left) && left[0] <= 31, "{left:?} of {before:?}");
            seen.insert(left.len());
            let mut log = LogReader::open(disk.clone(), Path::new(HERE), 31).unwrap();
            while log.next_frame().unwrap().is_some() {}
            assert_eq!(log.next_height(), 41);
            if all_done {
                break;
            }
        }
    }
    assert!(seen.len() > 4 && failed > 30, "{seen:?} {failed}");
}

#[test]
fn a_recording_is_one_file_of_compressed_frames() {
    let disk = disk(1);
    let path = Path::new("/log/recording");
    let mut log = LogWriter::create_file(&*disk, path, 7, CONFIGURATION).unwrap();
    for _ in 0..3 {
        for _ in 0..100 {
            let height = log.height() + 1;
            log.append(FrameKind::Batch, height, |out| out.extend_from_slice(&[b'x'; 500]));
        }
        log.write_compressed().unwrap();
    }
    log.write_compressed().unwrap().make_lasting().unwrap();
    assert!(bytes(&disk, path).len() < 12_288 + 15_000, "150,000 bytes that say little");
    let mut log = LogReader::open_file(disk.clone(), path).unwrap();
    for height in 7..307 {
        let frame = log.next_frame().unwrap().unwrap();
        assert_eq!((frame.kind, frame.height, frame.content), (FrameKind::Batch, height, vec![b'x'; 500]));
    }
    assert_eq!(log.next_frame().unwrap(), None);
    let again = LogWriter::create_file(&*disk, path, 7, CONFIGURATION).unwrap_err();
    assert_eq!(again.to_string(), "/log/recording exists already; it is not overwritten");
}

#[test]
fn queries_are_in_recordings_alone_and_of_states_that_these_come_to() {
    let query = |log: &mut LogWriter<SimDisk>, height| log.append(FrameKind::Query, height, |out| out.push(1));
    let disk = disk(4);
    let mut log = create(&disk);
    write_up_to(&mut log, 2);
    query(&mut log, 2);
    log.write().unwrap().make_lasting().unwrap();
    let said = read(&disk).unwrap_err().to_string();
    assert!(said.contains("queries are in recordings alone"), "{said}");
    for (height, is_whole) in [(7, false), (8, true), (9, true), (50, true), (u64::MAX, false)] {
        let path = Path::new("/log/recording");
        let _none_yet = disk.remove(path);
        let mut log = LogWriter::create_file(&*disk, path, 9, CONFIGURATION).unwrap();
        log.append(FrameKind::Batch, 9, |out| out.extend_from_slice(&content(9)));
        // A block of another thread goes before what waits.
        let mut block = Vec::new();
        let mut frame = Vec::new();
        encode_frame(FrameKind::Query, height, &mut frame, |out| out.push(1));
        encode_block(9, &frame, &mut block);
        log.write_encoded(&block).unwrap();
        log.write_compressed().unwrap().make_lasting().unwrap();
        let mut log = LogReader::open_file(disk.clone(), path).unwrap();
        let first = log.next_frame();
        if is_whole {
            assert_eq!(first.unwrap().unwrap(), Frame { kind: FrameKind::Query, height, content: vec![1] });
            assert_eq!(log.next_frame().unwrap().unwrap().kind, FrameKind::Batch);
        } else {
            let said = first.unwrap_err().to_string();
            assert!(said.contains("a query is of a state that it does not come to"), "{said}");
        }
    }
}

#[test]
fn a_flipped_bit_or_a_missing_byte_of_what_lasts_is_noticed_or_changes_nothing() {
    let disk = disk(1);
    let mut log = create(&disk);
    write_up_to(&mut log, 12);
    let expected: Vec<Frame> = (1..=12).map(frame).collect();
    let mut noticed = 0;
    for path in files(&disk) {
        let good = bytes(&disk, &path);
        let check = |damaged: Vec<u8>| {
            disk.corrupt(&path, |file| *file = damaged);
            let outcome = read(&disk);
            disk.corrupt(&path, |file| *file = good.clone());
            match outcome {
                Ok((frames, _)) => {
                    assert_eq!(frames, expected);
                    false
                }
                Err(error) => {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    true
                }
            }
        };
        for byte in 0..good.len() {
            // Of the zeros between header, marks and frames some are tried.
            if good[byte] != 0 || byte % 512 < 40 || byte > 12_288 {
                let mut damaged = good.clone();
                damaged[byte] ^= 1 << (byte % 8);
                let seen = check(damaged);
                noticed += u32::from(seen);
                assert!(seen || byte < 12_288, "a frame's byte {byte} can be changed");
            }
        }
        for length in (0..good.len()).rev().step_by(37) {
            assert!(check(good[..length].to_vec()), "{length} bytes of {}", good.len());
        }
    }
    assert!(noticed > 1_000, "{noticed}");
}

#[test]
fn a_missing_file_is_noticed() {
    let disk = disk(1);
    write_up_to(&mut create(&disk), 20);
    let all = files(&disk);
    for (index, path) in all.iter().enumerate() {
        let good = bytes(&disk, path);
        disk.remove(path).unwrap();
        let error = read(&disk).unwrap_err().to_string();
        // One without its beginning may be one that checkpoints go on from.
        let said = if index == 0 { "begins at height " } else { "goes on at height " };
        assert!(error.starts_with(&format!("the log in /log {said}")), "file {index}: {error}");
        disk.write_new(path, &good, 0o600).unwrap();
    }
    read(&disk).unwrap();
}

/// A log is written on a disk that fails at some time; what came to last must be there afterwards, in order and unchanged, and what more
/// is there must be what was written. Then the next process goes on. A flipped bit may make the log unreadable, and nothing else.
fn one_run(seed: u64, faults: &mut u32, refused: &mut u32) {
    let random = SimEntropy::new(seed);
    let below = |bound: u64| random.next_u64() % bound;
    let disk = disk(random.next_u64());
    // The creation of a log is tested with the state directory; here it succeeds.
    let mut log = Some(create(&disk));
    let mut lasting = 0;
    for _ in 0..4 {
        let fault = [Fault::Full, Fault::Medium, Fault::Denied, Fault::PowerLoss][below(4) as usize];
        disk.fail_after(below(120) as usize, fault);
        let mut written_up_to = lasting;
        let mut writer = log.take().expect("a log to write");
        for _ in 0..40 {
            for _ in 0..below(3) {
                append(&mut writer);
            }
            written_up_to = writer.height();
            let Ok(written) = writer.write() else { break };
            if below(2) == 0 {
                if written.make_lasting().is_err() {
                    break;
                }
                lasting = written.height();
            }
        }
        *faults += 1;
        drop(writer);
        // The process ends, with the machine or without it: then the next one reads what a flush that failed has lost.
        if below(2) == 0 || disk.list(Path::new(HERE)).is_err() {
            disk.restart();
        } else {
            disk.fail_after(usize::MAX / 2, Fault::Full);
        }
        let flipped = below(4) == 0;
        if flipped {
            let files = files(&disk);
            let last = files.iter().rfind(|path| path.extension().is_some_and(|end| end == "log")).unwrap();
            let path = if below(2) == 0 { last } else { &files[below(files.len() as u64) as usize] };
            disk.corrupt(path, |file| {
                // Most of a small file is zeros before its frames. What a crash left of one on its way to its name may be empty.
                let from = if below(4) == 0 { 0 } else { file.len().min(12_288) as u64 * 8 };
                let bit = (from + below((file.len() as u64 * 8 - from).max(1))) as usize;
                if let Some(byte) = file.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            });
        }
        let (frames, reader) = match read(&disk) {
            Ok(read) => read,
            Err(error) => {
                assert!(flipped, "seed {seed}: {error}");
                *refused += 1;
                return;
            }
        };
        let found = frames.len() as u64;
        assert!(found >= lasting, "seed {seed}: {found} batches are left of {lasting}");
        assert!(found <= written_up_to, "seed {seed}");
        assert_eq!(frames, (1..=found).map(frame).collect::<Vec<_>>(), "seed {seed}");
        lasting = found;
        log = Some(reader.into_writer(FILE_BYTES).unwrap());
    }
}

#[test]
fn what_came_to_last_outlives_a_failing_disk() {
    let runs = std::env::var("LOG_RUNS").map_or(400, |runs| runs.parse().expect("a number"));
    let (mut faults, mut refused) = (0, 0);
    for seed in 0..runs {
        one_run(seed, &mut faults, &mut refused);
    }
    println!("{runs} runs, {faults} faults, {refused} logs refused for a flipped bit");
    assert!(faults > 2 * runs as u32 && refused > 0);
}

prop_compose! {
    fn principal()(bytes in prop::collection::vec(any::<u8>(), 0..=29)) -> Principal {
        Principal::from_slice(&bytes)
    }
}

prop_compose! {
    fn ingress()(
        id in any::<[u8; 32]>(),
        (sender, receiver) in (principal(), principal()),
        effective in prop::option::of(principal()),
        method in ".{0,20}",
        arg in prop::collection::vec(any::<u8>(), 0..100),
        expiry in any::<u64>(),
        nonce_bytes in any::<u8>(),
    ) -> Ingress {
        Ingress {
            id: MessageId(id),
            sender,
            receiver: CanisterId::from_principal(receiver),
            effective_canister: effective.map(CanisterId::from_principal),
            method,
            arg,
            expiry: Time(expiry),
            nonce_bytes,
        }
    }
}

fn action() -> impl Strategy<Value = OperatorAction> {
    let canister = || principal().prop_map(CanisterId::from_principal);
    let add = |(canister, amount)| OperatorAction::AddCycles { canister, amount: Cycles(amount) };
    let fork = |(source, target)| OperatorAction::ForkCanister { source, target };
    prop_oneof![(canister(), any::<u128>()).prop_map(add), (canister(), prop::option::of(canister())).prop_map(fork),]
}

prop_compose! {
    fn batch()(
        (height, time, version) in any::<(u64, u64, u64)>(),
        randomness in any::<[u8; 32]>(),
        checkpoint in any::<bool>(),
        ingress in prop::collection::vec(ingress(), 0..5),
        actions in prop::collection::vec(action(), 0..3),
    ) -> Batch {
        Batch {
            height: Height(height),
            time: Time(time),
            randomness,
            registry_version: RegistryVersion(version),
            ingress,
            actions,
            checkpoint,
        }
    }
}

proptest! {
    #[test]
    fn a_batch_is_read_as_it_was_written_and_no_part_of_it_is_a_batch(batch in batch(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode_batch(&batch, &mut bytes);
        prop_assert_eq!(decode_batch(batch.height.0, &bytes), Some(batch.clone()));
        prop_assert_eq!(decode_batch(batch.height.0, &bytes[..cut.index(bytes.len())]), None);
        bytes.push(0);
        prop_assert_eq!(decode_batch(batch.height.0, &bytes), None);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_batch(1, &bytes);
    }
}
