//! The module cache on a disk that fails, and its order of use.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_ports::{Disk, Fault, SimDisk};
use cyclotron_storage::module_cache::{KEY_BYTES, ModuleCache, ModuleCacheKey};
use std::path::Path;
use std::sync::Arc;

const FOLDER: &str = "/state/module-cache";

fn key(number: u8) -> ModuleCacheKey {
    [number; KEY_BYTES]
}

fn content(number: u8) -> Vec<u8> {
    vec![number; 1_000]
}

fn open(disk: &SimDisk, bytes_max: u64) -> ModuleCache<SimDisk> {
    ModuleCache::open(Arc::new(disk.clone()), Path::new(FOLDER), bytes_max).unwrap()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new(FOLDER)).unwrap()
}

#[test]
fn what_was_kept_is_found_again_under_its_key_alone() {
    let disk = SimDisk::new(1);
    let cache = open(&disk, 10_000);
    assert_eq!(cache.load(&key(1)), None);
    cache.store(&key(1), &content(1)).unwrap();
    cache.store(&key(2), &content(2)).unwrap();
    drop(cache);
    let cache = open(&disk, 10_000);
    assert_eq!(
        (cache.load(&key(1)), cache.load(&key(2)), cache.load(&key(3))),
        (Some(content(1)), Some(content(2)), None)
    );
    let mut other = key(1);
    other[KEY_BYTES - 1] ^= 1;
    assert_eq!(cache.load(&other), None, "another fingerprint");
    cache.store(&key(1), &content(9)).unwrap();
    assert_eq!((cache.load(&key(1)), cache.files(), cache.bytes()), (Some(content(9)), 2, 2_000));
    cache.remove(&key(1));
    assert_eq!((cache.load(&key(1)), names(&disk).len(), cache.bytes()), (None, 1, 1_000));
}

#[test]
fn the_oldest_use_goes_first_and_a_restart_remembers_uses() {
    let disk = SimDisk::new(1);
    let cache = open(&disk, 3_000);
    (1..=3).for_each(|number| cache.store(&key(number), &content(number)).unwrap());
    assert!(cache.load(&key(1)).is_some());
    drop(cache);
    let cache = open(&disk, 3_000);
    cache.store(&key(4), &content(4)).unwrap();
    let there = |cache: &ModuleCache<SimDisk>| {
        (1..=5).filter(|number| cache.path_of(&key(*number)).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(there(&cache), [1, 3, 4]);
    // Two of them have to go for a larger one.
    cache.store(&key(5), &[5; 1_500]).unwrap();
    assert_eq!((there(&cache), cache.bytes()), (vec![4, 5], 2_500));
    // One that is larger than all of it is not kept, and costs nobody his place.
    cache.store(&key(1), &[1; 3_001]).unwrap();
    assert_eq!((there(&cache), names(&disk).len()), (vec![4, 5], 2));
    drop(cache);
    assert_eq!(there(&open(&disk, 2_000)), [5], "a smaller limit");
    assert!(there(&open(&disk, 0)).is_empty() && names(&disk).is_empty());
}

#[test]
fn a_full_disk_costs_the_file_that_was_to_be_written_and_nothing_else() {
    for operation in 0..3 {
        let disk = SimDisk::new(1);
        let cache = open(&disk, 10_000);
        cache.store(&key(1), &content(1)).unwrap();
        disk.fail_after(operation, Fault::Full);
        let error = cache.store(&key(2), &content(2)).unwrap_err().to_string();
        assert!(error.contains("no space left on the disk") && error.contains(FOLDER), "{error}");
        assert_eq!((cache.load(&key(2)), cache.load(&key(1)), cache.bytes()), (None, Some(content(1)), 1_000));
        cache.store(&key(2), &content(2)).unwrap();
        assert_eq!(cache.load(&key(2)), Some(content(2)));
        assert!(names(&disk).iter().all(|name| name.ends_with(".code")), "{:?}", names(&disk));
    }
}

#[test]
fn a_file_that_cannot_be_read_or_is_gone_is_a_miss() {
    let disk = SimDisk::new(1);
    let cache = open(&disk, 10_000);
    (1..=2).for_each(|number| cache.store(&key(number), &content(number)).unwrap());
    disk.fail_after(0, Fault::Medium);
    assert_eq!(cache.load(&key(1)), None);
    disk.remove(&cache.path_of(&key(2)).unwrap()).unwrap();
    assert_eq!((cache.load(&key(2)), cache.files(), cache.bytes()), (None, 0, 0));
    cache.store(&key(2), &content(2)).unwrap();
    assert_eq!(cache.load(&key(2)), Some(content(2)));
}

#[test]
fn a_loss_of_power_leaves_a_folder_that_opens() {
    let (mut whole, mut torn) = (0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed as u64);
        let cache = open(&disk, 10_000);
        cache.store(&key(1), &content(1)).unwrap();
        disk.sync_directory(Path::new(FOLDER)).unwrap();
        disk.fail_after(seed % 5, Fault::PowerLoss);
        let _may_fail = cache.store(&key(2), &content(2));
        let _may_fail = cache.load(&key(1));
        disk.restart();
        let cache = open(&disk, 10_000);
        assert!(names(&disk).iter().all(|name| name.ends_with(".code")), "{:?}", names(&disk));
        for number in [1, 2] {
            // Nothing is flushed: what comes back may be torn, and who reads it finds out.
            match cache.load(&key(number)) {
                Some(bytes) if bytes == content(number) => whole += 1,
                Some(_) => torn += 1,
                None => {}
            }
            cache.store(&key(number), &content(number)).unwrap();
            assert_eq!(cache.load(&key(number)), Some(content(number)));
        }
    }
    assert!(whole > 0 && torn > 0, "{whole} {torn}");
}

#[test]
fn files_of_others_stay() {
    let disk = SimDisk::new(1);
    drop(open(&disk, 10));
    let path = |name: &str| Path::new(FOLDER).join(name);
    let good = format!("{}-{}-{}.code", "0".repeat(16), "a".repeat(64), "b".repeat(32));
    let others = ["notes", "x.code", &good.to_uppercase(), &good.replace("-a", "-g")];
    for name in others.iter().chain([&"half.new", &&good[..]]) {
        disk.write_new(&path(name), b"12345", 0o600).unwrap();
    }
    let cache = open(&disk, 10);
    assert_eq!((cache.files(), cache.bytes()), (1, 5));
    let mut expected = [&others[..], &[&good]].concat();
    expected.sort_unstable();
    assert_eq!(names(&disk), expected);
}
