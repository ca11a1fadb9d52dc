//! Checkpoints on a disk that fails.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageStore};
use cyclotron_ports::{Disk, Fault, SimDisk, SimEntropy};
use cyclotron_storage::checkpoint::{
    FileUse, PageFiles, PageWriter, RecordAt, StateReader, StateWriter, decode_entries, encode_entry, list,
    newest_with_manifest, next_number, place, prune, remove_manifest, thin,
};
use cyclotron_storage::manifest::{ManifestFile, ManifestReader, ManifestWriter};
use cyclotron_storage::{FrameKind, StorageError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const HERE: &str = "/checkpoints";
const THERE: &str = "/elsewhere/checkpoints";
/// Pages of a file.
const PAGES: u32 = 5;
/// More than have their checksums on one page.
const MANY: u32 = 1_030;

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_directory(Path::new(HERE)).unwrap();
    disk
}

fn page(file: u32, index: u32) -> [u8; PAGE] {
    let random = SimEntropy::new(u64::from(file) * 1_000_000 + u64::from(index)).next_u64().to_le_bytes();
    std::array::from_fn(|n| random[n % 8] ^ (n / 8) as u8)
}

fn content(height: u64, frame: u64) -> Vec<u8> {
    page(height as u32, 5_000 + frame as u32)[..50 + frame as usize * 300].to_vec()
}

const KINDS: [FrameKind; 4] = [FrameKind::Subnet, FrameKind::Statuses, FrameKind::Modules, FrameKind::Canisters];

fn write_pages(disk: &SimDisk, number: u32, pages: u32) -> Result<(), StorageError> {
    let mut writer = PageWriter::create(disk, Path::new(HERE), number)?;
    let mut index = 0;
    // In pieces of different lengths.
    for length in (0..).map(|n| 2 + n * 37 % 500) {
        let end = pages.min(index + length);
        let piece: Vec<u8> = (index..end).flat_map(|index| page(number, index)).collect();
        writer.append(&piece)?;
        index = end;
        if index == pages {
            break;
        }
    }
    writer.finish(disk)
}

fn file(number: u32, pages: u32) -> FileUse {
    FileUse { number, pages, used: 17 }
}

/// The checkpoint of a height needs the file of its own and the one before.
fn files_of(height: u64) -> Vec<FileUse> {
    let last = height as u32;
    (last.saturating_sub(1).max(1)..=last).map(|number| file(number, PAGES)).collect()
}

/// What its manifest lists.
fn listed(height: u64) -> [ManifestFile; 2] {
    ["a", "b"].map(|path| ManifestFile::new(path.into(), height, [[path.as_bytes()[0]; 32]]))
}

fn write(disk: &SimDisk, height: u64) -> Result<(), StorageError> {
    write_pages(disk, height as u32, PAGES)?;
    let mut writer = StateWriter::create(disk, Path::new(HERE), height, &files_of(height))?;
    for (n, kind) in KINDS.into_iter().enumerate() {
        writer.record(kind, &content(height, n as u64))?;
    }
    writer.commit(disk)?;
    let mut manifest = ManifestWriter::create(disk, Path::new(HERE), height)?;
    for file in listed(height) {
        manifest.file(&file)?;
    }
    manifest.commit(disk)
}

/// Reads a checkpoint, which must be what was written, with its manifest, or an error.
fn read(disk: &SimDisk, height: u64) -> Result<(), StorageError> {
    read_in(disk, Path::new(HERE), height)
}

fn read_in(disk: &SimDisk, folder: &Path, height: u64) -> Result<(), StorageError> {
    assert!(read_unlisted(disk, folder, height)?, "its manifest is there");
    Ok(())
}

/// Likewise, but it need not have its manifest. Tells whether it has.
fn read_unlisted(disk: &SimDisk, folder: &Path, height: u64) -> Result<bool, StorageError> {
    let mut reader = StateReader::open(disk, folder, height)?;
    assert_eq!(reader.files()?, files_of(height));
    let manifest = ManifestReader::open(disk, folder, height)?;
    let is_listed = manifest.is_some();
    if let Some(mut manifest) = manifest {
        for file in listed(height) {
            assert_eq!(manifest.next_file()?, Some(file));
        }
        assert_eq!(manifest.next_file()?, None);
    }
    for (n, kind) in KINDS.into_iter().enumerate() {
        let frame = reader.next_record()?.expect("a checkpoint ends where it ended");
        assert_eq!((frame.kind, frame.height, frame.content), (kind, height, content(height, n as u64)));
    }
    assert!(reader.next_record()?.is_none());
    let files = PageFiles::default();
    for file in files_of(height) {
        assert_eq!(files.open(disk, folder, file.number)?, PAGES);
        read_pages(&files, file.number)?;
    }
    Ok(is_listed)
}

fn read_pages<F: cyclotron_ports::DiskFile>(files: &PageFiles<F>, number: u32) -> Result<(), StorageError> {
    for (first, count) in [(2, 2), (0, 1), (0, PAGES), (PAGES - 1, 1)] {
        read_some(files, number, first, count)?;
    }
    files.verify(number)?;
    for (file, index) in [(number, PAGES), (number, u32::MAX), (number + 100, 0)] {
        let mut page = [0; PAGE];
        assert!(PageStore::read(files, PageAt { file, index }, &mut page).is_err());
    }
    Ok(())
}

fn read_some<F: cyclotron_ports::DiskFile>(
    files: &PageFiles<F>,
    number: u32,
    first: u32,
    count: u32,
) -> Result<(), StorageError> {
    let mut found = vec![0; count as usize * PAGE];
    files.pages(PageAt { file: number, index: first }, &mut found)?;
    assert!(found == (first..first + count).flat_map(|index| page(number, index)).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn pages_are_found_whichever_page_their_checksums_are_on() {
    let disk = disk(1);
    for pages in [1_019, 1_020, 1_021, MANY, 2_040, 2_041] {
        write_pages(&disk, pages, pages).unwrap();
        let files = PageFiles::default();
        assert_eq!(files.open(&disk, Path::new(HERE), pages).unwrap(), pages);
        for (first, count) in [(1_000, 19), (0, 1), (pages - 1, 1), (0, pages), (pages - 15, 15), (3, 1_016)] {
            read_some(&files, pages, first, count).unwrap();
        }
        files.verify(pages).unwrap();
        // The last byte is needed, and each is compared.
        let path = Path::new(HERE).join(format!("{pages:08x}.pages"));
        for at in [4_096 * 2, 4_096 * 1_021 - 1] {
            disk.corrupt(&path, |file| file[at] ^= 1);
            let said = files.verify(pages).unwrap_err().to_string();
            assert!(said.contains(path.to_str().unwrap()) && said.contains("checksum"), "{said}");
            disk.corrupt(&path, |file| file[at] ^= 1);
        }
        disk.corrupt(&path, |file| file.truncate(file.len() - 1));
        assert!(
            PageFiles::default().open(&disk, Path::new(HERE), pages).unwrap_err().to_string().contains("truncated")
        );
    }
}

#[test]
fn a_file_may_have_no_pages_and_records_may_have_any_length() {
    let disk = disk(1);
    write_pages(&disk, 3, 0).unwrap();
    assert_eq!(PageFiles::default().open(&disk, Path::new(HERE), 3).unwrap(), 0);
    assert_eq!(next_number(&disk, Path::new(HERE)).unwrap(), 4);
    let long: Vec<u8> = (0..40_000_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    let lengths = [0, 1, 16 << 20, (16 << 20) + 1, long.len()];
    let mut writer = StateWriter::create(&disk, Path::new(HERE), 1, &[]).unwrap();
    for length in lengths {
        writer.record(FrameKind::Statuses, &long[..length]).unwrap();
    }
    writer.commit(&disk).unwrap();
    let mut reader = StateReader::open(&disk, Path::new(HERE), 1).unwrap();
    assert_eq!(reader.files().unwrap(), []);
    for length in lengths {
        let record = reader.next_record().unwrap().unwrap();
        assert!(record.kind == FrameKind::Statuses && record.content == long[..length], "{length} bytes");
    }
    assert_eq!(reader.next_record().unwrap(), None);
}

#[test]
fn entries_are_read_as_they_were_written_up_to_where_they_are_cut_off() {
    let at = |n| RecordAt { page: PageAt { file: n, index: n + 1 }, offset: n + 2, length: u64::from(n) + (1 << 40) };
    let names: [&[u8]; 3] = [b"", b"a canister", &[7; 255]];
    let mut bytes = Vec::new();
    let mut ends = vec![0];
    for (n, name) in names.iter().enumerate() {
        encode_entry((name, at(n as u32)), &mut bytes);
        ends.push(bytes.len());
    }
    for length in 0..=bytes.len() {
        let found: Vec<_> = decode_entries(&bytes[..length]).collect();
        let whole = ends.iter().rposition(|end| *end <= length).unwrap();
        let expected = (0..whole).map(|n| Some((names[n], at(n as u32))));
        assert_eq!(found, expected.chain((!ends.contains(&length)).then_some(None)).collect::<Vec<_>>());
    }
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(HERE)).unwrap().iter().map(|name| Path::new(HERE).join(name)).collect()
}

#[test]
fn what_was_written_is_read_and_the_newest_are_kept() {
    let disk = disk(1);
    for height in 1..=4 {
        write(&disk, height).unwrap();
        disk.restart();
        read(&disk, height).unwrap();
    }
    assert_eq!(list(&disk, Path::new(HERE)).unwrap(), [1, 2, 3, 4]);
    // What others put there, and what a crash left.
    disk.write_new(&Path::new(HERE).join("notes"), b"mine", 0o600).unwrap();
    drop(PageWriter::create(&disk, Path::new(HERE), 77).unwrap());
    drop(StateWriter::create(&disk, Path::new(HERE), 77, &[]).unwrap());
    write_pages(&disk, 55, 1).unwrap();
    assert_eq!(files(&disk).len(), 4 * 3 + 4);
    // The checkpoint of height 3 needs the pages of the one before.
    assert_eq!(prune(&disk, Path::new(HERE), 2).unwrap(), BTreeSet::from([2, 3, 4]));
    assert_eq!(list(&disk, Path::new(HERE)).unwrap(), [3, 4]);
    assert_eq!(files(&disk).len(), 2 + 2 + 3 + 1);
    read(&disk, 3).unwrap();
    read(&disk, 4).unwrap();
    // Nobody knows what a damaged one needs.
    disk.corrupt(&Path::new(HERE).join("0000000000000003.state"), |file| file[4_100] ^= 1);
    write(&disk, 5).unwrap();
    prune(&disk, Path::new(HERE), 3).unwrap_err();
    assert_eq!(list(&disk, Path::new(HERE)).unwrap(), [3, 4, 5]);
    assert_eq!(prune(&disk, Path::new(HERE), 2).unwrap(), BTreeSet::from([3, 4, 5]));
}

#[test]
fn a_checkpoint_placed_elsewhere_stays_whatever_becomes_of_the_first_and_shares_its_files() {
    let (here, there) = (Path::new(HERE), Path::new(THERE));
    for far in [false, true] {
        let disk = disk(1);
        if far {
            disk.mount(there);
        }
        for height in 1..=3 {
            write(&disk, height).unwrap();
        }
        let gone = place(&disk, here, 7, there).unwrap_err();
        assert!(matches!(gone, StorageError::CheckpointGone { height: 7, .. }), "{gone}");
        place(&disk, here, 2, there).unwrap();
        assert!(matches!(place(&disk, here, 2, there), Err(StorageError::Exists { .. })));
        disk.restart();
        read_in(&disk, there, 2).unwrap();
        // The next one needs a file that is there already.
        place(&disk, here, 3, there).unwrap();
        assert_eq!(list(&disk, there).unwrap(), [2, 3]);
        assert_eq!(disk.list(there).unwrap().len(), 2 + 2 + 3);
        for height in 4..=6 {
            write(&disk, height).unwrap();
        }
        prune(&disk, here, 1).unwrap();
        disk.restart();
        for height in 2..=3 {
            read_in(&disk, there, height).unwrap();
        }
        // One byte of a file is in both folders, or in one.
        disk.corrupt(&there.join("00000003.pages"), |file| file[9_000] ^= 1);
        read_in(&disk, there, 3).unwrap_err();
        place(&disk, here, 6, there).unwrap();
        disk.corrupt(&here.join("00000006.pages"), |file| file[9_000] ^= 1);
        assert_eq!(read_in(&disk, there, 6).is_ok(), far);
        prune(&disk, there, 1).unwrap();
        assert_eq!(disk.list(there).unwrap().len(), 1 + 1 + 2);
    }
}

#[test]
fn checkpoints_are_thinned_between_the_first_and_the_newest() {
    let disk = disk(1);
    for height in 1..=5 {
        write(&disk, height).unwrap();
    }
    for (kept, heights) in [(9, &[1, 2, 3, 4, 5][..]), (4, &[1, 3, 4, 5]), (3, &[1, 3, 5]), (1, &[1, 5])] {
        let used = thin(&disk, Path::new(HERE), kept).unwrap();
        disk.restart();
        assert_eq!(list(&disk, Path::new(HERE)).unwrap(), heights);
        let needed: BTreeSet<u32> =
            heights.iter().flat_map(|height| files_of(*height)).map(|file| file.number).collect();
        assert_eq!(used, needed);
        // Each has a state and a manifest.
        assert_eq!(files(&disk).len(), 2 * heights.len() + needed.len());
        heights.iter().for_each(|height| read(&disk, *height).unwrap());
    }
}

#[test]
fn another_file_of_the_same_number_is_never_taken_for_the_one_that_is_needed() {
    let (here, there) = (Path::new(HERE), Path::new(THERE));
    let disk = disk(1);
    write_pages(&disk, 1, PAGES).unwrap();
    write(&disk, 2).unwrap();
    disk.create_directory(there).unwrap();
    let mut other = PageWriter::create(&disk, there, 2).unwrap();
    other.append(&[7; PAGES as usize * PAGE]).unwrap();
    other.finish(&disk).unwrap();
    let refused = place(&disk, here, 2, there).unwrap_err();
    assert!(matches!(&refused, StorageError::Exists { path } if *path == there.join("00000002.pages")), "{refused}");
    assert_eq!(disk.list(there).unwrap(), ["00000002.pages"], "what was put there went again");
}

#[test]
fn placing_fails_at_any_operation_without_harm_to_the_first_or_half_a_checkpoint_there() {
    let (here, there) = (Path::new(HERE), Path::new(THERE));
    for far in [false, true] {
        let prepared = |seed| {
            let disk = disk(seed);
            if far {
                disk.mount(there);
            }
            write_pages(&disk, 1, PAGES).unwrap();
            write(&disk, 2).unwrap();
            disk
        };
        let operations = {
            let disk = prepared(0);
            let before = disk.operations();
            place(&disk, here, 2, there).unwrap();
            disk.operations() - before
        };
        let (mut failed, mut there_too) = (0, 0);
        for fault in [Fault::Full, Fault::Medium, Fault::Denied, Fault::PowerLoss] {
            for (at, seed) in (0..operations).flat_map(|at| (0..2).map(move |seed| (at, seed))) {
                let disk = prepared(seed);
                disk.fail_after(at, fault);
                let outcome = place(&disk, here, 2, there);
                failed += u32::from(outcome.is_err());
                disk.restart();
                read(&disk, 2).unwrap();
                let placed = list(&disk, there).unwrap_or_default().contains(&2);
                assert!(placed || outcome.is_err(), "{fault:?} at {at}, seed {seed}");
                if placed {
                    // The manifest was there before the state.
                    read_in(&disk, there, 2).unwrap_or_else(|error| panic!("{fault:?} at {at}, seed {seed}: {error}"));
                    there_too += 1;
                } else {
                    place(&disk, here, 2, there).unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
                    read_in(&disk, there, 2).unwrap();
                }
            }
        }
        assert!(operations > 8 && failed > 40 && there_too > 0, "{operations} {failed} {there_too}");
    }
}

#[test]
fn a_checkpoint_without_its_manifest_is_placed_as_it_is_and_not_with_one_that_was_left() {
    let (here, there) = (Path::new(HERE), Path::new(THERE));
    for far in [false, true] {
        let disk = disk(1);
        if far {
            disk.mount(there);
        }
        (1..=3).for_each(|height| write(&disk, height).unwrap());
        assert_eq!(newest_with_manifest(&disk, here, 9).unwrap(), Some(3));
        assert_eq!(newest_with_manifest(&disk, here, 3).unwrap(), Some(2));
        assert_eq!(newest_with_manifest(&disk, here, 1).unwrap(), None);
        remove_manifest(&disk, here, 3).unwrap();
        remove_manifest(&disk, here, 3).unwrap();
        assert_eq!(newest_with_manifest(&disk, here, 9).unwrap(), Some(2));
        disk.create_directory(there).unwrap();
        let mut left = ManifestWriter::create(&disk, there, 3).unwrap();
        left.file(&ManifestFile::new("other".into(), 1, [[9; 32]])).unwrap();
        left.commit(&disk).unwrap();
        place(&disk, here, 3, there).unwrap();
        disk.restart();
        assert!(!read_unlisted(&disk, there, 3).unwrap());
        assert!(!read_unlisted(&disk, here, 3).unwrap());
    }
}

#[test]
fn files_of_another_version_are_refused_with_it() {
    let disk = disk(1);
    write(&disk, 1).unwrap();
    for path in files(&disk) {
        disk.corrupt(&path, |file| file[8] = 1);
        let said = read(&disk, 1).unwrap_err().to_string();
        assert!(said.contains("version 1") && said.contains(path.to_str().unwrap()), "{said}");
        disk.corrupt(&path, |file| file[8] = 4);
    }
    read(&disk, 1).unwrap();
}

#[test]
fn a_flipped_bit_or_a_missing_byte_is_noticed_or_changes_nothing() {
    let disk = disk(1);
    write(&disk, 1).unwrap();
    let mut noticed = 0;
    // Between the last checksum of a page of them and its own.
    let is_unused = |_byte: usize| false;
    for path in files(&disk) {
        let good = disk.read(&path, u64::MAX).unwrap().bytes;
        let is_refused = |damaged: Vec<u8>| {
            disk.corrupt(&path, |file| *file = damaged);
            // What is read is compared with what was written.
            let outcome = read(&disk, 1);
            disk.corrupt(&path, |file| *file = good.clone());
            match outcome {
                Ok(()) => false,
                Err(error) => {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    true
                }
            }
        };
        // Every byte of the heads and the checksums, and some of all others.
        for byte in (0..good.len()).filter(|byte| *byte < 3 * PAGE || byte % 23 == 0) {
            let mut damaged = good.clone();
            damaged[byte] ^= 1 << (byte % 8);
            let refused = is_refused(damaged);
            assert!(refused || (36..4_096).contains(&byte) || is_unused(byte), "byte {byte} can be changed");
            noticed += u32::from(refused);
        }
        for length in (0..good.len()).step_by(good.len() / 200) {
            assert!(is_refused(good[..length].to_vec()), "{length} of {} bytes", good.len());
        }
    }
    assert!(noticed > 9_000, "{noticed}");
}

#[test]
fn a_checkpoint_that_fails_at_any_operation_is_not_there_and_those_before_it_are() {
    let operations = {
        let disk = disk(0);
        write(&disk, 1).unwrap();
        let before = disk.operations();
        write(&disk, 2).unwrap();
        disk.operations() - before
    };
    let (mut whole, mut unlisted) = (0, 0);
    for fault in [Fault::Full, Fault::Medium, Fault::Denied, Fault::PowerLoss] {
        for (at, seed) in (0..operations).flat_map(|at| (0..2).map(move |seed| (at, seed))) {
            let disk = disk(seed);
            write(&disk, 1).unwrap();
            disk.fail_after(at, fault);
            assert!(write(&disk, 2).is_err(), "operation {at} failed with {fault:?}, unnoticed");
            disk.restart();
            read(&disk, 1).unwrap();
            // It may exist if all but the last flush succeeded; then it is whole.
            if list(&disk, Path::new(HERE)).unwrap().contains(&2) {
                let is_listed = read_unlisted(&disk, Path::new(HERE), 2);
                let is_listed = is_listed.unwrap_or_else(|error| panic!("{fault:?} at {at}, seed {seed}: {error}"));
                whole += u32::from(is_listed);
                unlisted += u32::from(!is_listed);
            }
            prune(&disk, Path::new(HERE), 2).unwrap();
            read(&disk, 1).unwrap();
            write(&disk, 2)
                .or_else(|_| {
                    prune(&disk, Path::new(HERE), 1)?;
                    Ok::<_, StorageError>(())
                })
                .unwrap();
        }
    }
    assert!(operations > 8 && whole > 0 && unlisted > 0, "{operations} operations, {whole} whole, {unlisted} unlisted");
}
