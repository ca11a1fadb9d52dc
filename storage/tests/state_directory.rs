//! The state directory on a disk that fails, and on a real one.

use cyclotron_crypto::RootSigner;
use cyclotron_ports::{Disk, Fault, SimDisk, SimEntropy, SystemDisk, SystemEntropy};
use cyclotron_storage::{NodeKeys, StateDirectory, StorageError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HERE: &str = "/state/node";

fn open(disk: &SimDisk, seed: u64) -> Result<StateDirectory<SimDisk>, StorageError> {
    StateDirectory::open(&Arc::new(disk.clone()), Path::new(HERE), &SimEntropy::new(seed), 42, genesis)
}

fn genesis(keys: &NodeKeys) -> Vec<u8> {
    keys.root.public_key_der()
}

fn message(result: Result<StateDirectory<SimDisk>, StorageError>) -> String {
    result.expect_err("it is refused").to_string()
}

fn identity<D: Disk>(directory: &StateDirectory<D>) -> (Vec<u8>, Vec<u8>) {
    (directory.keys().root.public_key_der(), directory.keys().node.public_key_der())
}

fn root_key() -> PathBuf {
    Path::new(HERE).join("keys/root.key")
}

/// Bytes and modes of all files.
fn snapshot(disk: &SimDisk) -> Vec<(String, Vec<u8>, u32)> {
    let mut files = Vec::new();
    for name in ["format", "keys/root.key", "keys/node.key"] {
        let content = disk.read(&Path::new(HERE).join(name), 1 << 20).expect("the file is there");
        files.push((name.to_owned(), content.bytes, content.mode));
    }
    files
}

#[test]
fn keys_are_made_once_and_last() {
    let disk = SimDisk::new(1);
    let first = open(&disk, 1).unwrap();
    assert!(first.is_created());
    let made = identity(&first);
    drop(first);
    disk.restart();
    let second = open(&disk, 2).unwrap();
    assert!(!second.is_created());
    assert_eq!(identity(&second), made);
    assert!(snapshot(&disk).iter().all(|(_, _, mode)| *mode == 0o600));
    assert_ne!(identity(&open(&SimDisk::new(1), 2).unwrap()), made);
}

#[test]
fn a_log_is_begun_for_the_keys_and_a_directory_of_the_version_before_gets_one() {
    let disk = SimDisk::new(1);
    let first = open(&disk, 1).unwrap();
    let (keys, log) = (identity(&first), first.log(1).unwrap());
    assert_eq!((log.configuration(), log.next_height()), (&keys.0[..], 1));
    drop((first, log));
    let log = Path::new(HERE).join("log/0000000000000001.log");
    disk.remove(&log).unwrap();
    let gone = open(&disk, 1).unwrap().log(1).unwrap_err().to_string();
    assert!(gone.starts_with("the log in /state/node/log goes on at height 1, but no file"), "{gone}");
    disk.corrupt(&Path::new(HERE).join("format"), |file| *file = b"cyclotron state 1\n".to_vec());
    let second = open(&disk, 2).unwrap();
    assert_eq!((identity(&second), second.is_created()), (keys, false));
    assert_eq!(second.log(1).unwrap().next_height(), 1);
    assert_eq!(snapshot(&disk)[0].1, b"cyclotron state 2\n");
}

#[test]
fn the_key_file_is_as_the_format_says() {
    let disk = SimDisk::new(1);
    let directory = open(&disk, 1).unwrap();
    let files = snapshot(&disk);
    assert_eq!(files[0].1, b"cyclotron state 2\n");
    for (file, kind, secret) in
        [(&files[1].1, 1u8, directory.keys().root.to_bytes()), (&files[2].1, 2, directory.keys().node.to_seed())]
    {
        assert_eq!(file.len(), 84);
        assert_eq!(file[..20], *[b"CYCLKEY\0", &[1, 0, 0, 0, kind, 0, 0, 0][..], &[32, 0, 0, 0]].concat());
        assert_eq!(file[20..52], *secret);
        use sha2::Digest;
        assert_eq!(file[52..], sha2::Sha256::digest(&file[..52])[..]);
    }
}

#[test]
fn one_process_at_a_time() {
    let disk = SimDisk::new(1);
    let first = open(&disk, 1).unwrap();
    assert_eq!(message(open(&disk, 1)), "the state directory /state/node is in use by process 42");
    drop(first);
    open(&disk, 1).unwrap();
}

#[test]
fn every_flipped_bit_and_every_length_is_noticed_and_left_as_it_is() {
    let disk = SimDisk::new(1);
    drop(open(&disk, 1).unwrap());
    let good = snapshot(&disk)[1].1.clone();
    let check = |damaged: &[u8], said: &str| {
        disk.corrupt(&root_key(), |file| *file = damaged.to_vec());
        let error = message(open(&disk, 2));
        assert!(error.starts_with("the key file /state/node/keys/root.key ") && error.contains(said), "{error}");
        assert_eq!(snapshot(&disk)[1].1, damaged, "a damaged key stays as it is");
    };
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(&damaged, if (64..96).contains(&bit) { "is of version" } else { "is damaged" });
    }
    for length in 0..good.len() {
        check(&good[..length], "is truncated");
    }
    check(&[&good[..], b"x"].concat(), "is longer than 84 bytes");
    let node = snapshot(&disk)[2].1.clone();
    check(&node, "holds a key of kind 2, not the root key (kind 1)");
    disk.corrupt(&root_key(), |file| *file = good.clone());
    open(&disk, 2).unwrap();
}

#[test]
fn a_number_that_is_no_secret_key_is_refused() {
    use sha2::Digest;
    let disk = SimDisk::new(1);
    drop(open(&disk, 1).unwrap());
    disk.corrupt(&root_key(), |file| {
        file[20..52].fill(0);
        let checksum = sha2::Sha256::digest(&file[..52]);
        file[52..].copy_from_slice(&checksum);
    });
    assert!(message(open(&disk, 1)).contains("its number is not a secret key"));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    for mode in [0o640, 0o604, 0o610, 0o666, 0o777] {
        let disk = SimDisk::new(1);
        drop(open(&disk, 1).unwrap());
        disk.set_mode(&root_key(), mode);
        assert!(message(open(&disk, 1)).contains(&format!("has mode {mode:04o}")));
        disk.set_mode(&root_key(), 0o400);
        open(&disk, 1).unwrap();
    }
}

#[test]
fn a_missing_key_is_not_replaced_once_the_node_has_started() {
    let disk = SimDisk::new(1);
    drop(open(&disk, 1).unwrap());
    disk.remove(&root_key()).unwrap();
    assert!(message(open(&disk, 2)).contains("root.key is missing although this node was started before"));
    assert!(disk.read(&root_key(), 1).is_err());
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let disk = SimDisk::new(1);
    disk.create_directory(Path::new(HERE)).unwrap();
    disk.write_new(&Path::new(HERE).join("thesis.tex"), b"x", 0o644).unwrap();
    assert!(message(open(&disk, 1)).contains("holds \"thesis.tex\" and is not a state directory"));
    assert_eq!(disk.list(Path::new(HERE)).unwrap(), ["thesis.tex"]);

    let disk = SimDisk::new(1);
    drop(open(&disk, 1).unwrap());
    disk.corrupt(&Path::new(HERE).join("format"), |file| *file = b"cyclotron state 3\n".to_vec());
    assert!(message(open(&disk, 1)).contains("says \"cyclotron state 3\", which this program does not know"));
}

/// Number of operations of a first start.
fn operations_of_a_start() -> usize {
    let disk = SimDisk::new(0);
    drop(open(&disk, 1).expect("a first start"));
    disk.operations()
}

#[test]
fn a_start_that_fails_at_any_operation_says_so_and_the_next_one_completes_it() {
    for fault in [Fault::Full, Fault::Medium, Fault::Denied] {
        for (at, seed) in (0..operations_of_a_start()).flat_map(|at| (0..16).map(move |seed| (at, seed))) {
            let disk = SimDisk::new(seed);
            disk.fail_after(at, fault);
            assert!(open(&disk, 1).is_err(), "operation {at} failed with {fault:?}, unnoticed");
            let second = open(&disk, 2).unwrap();
            let used = identity(&second);
            drop(second);
            disk.restart();
            let third = open(&disk, 3).unwrap();
            assert_eq!(identity(&third), used, "operation {at}, {fault:?}");
            assert!(!third.is_created());
        }
    }
    let disk = SimDisk::new(0);
    disk.fail_after(0, Fault::Full);
    assert_eq!(message(open(&disk, 1)), "cannot create the directory /state/node: no space left on the disk");
    disk.fail_after(0, Fault::Denied);
    assert_eq!(message(open(&disk, 1)), "cannot create the directory /state/node: permission denied");
}

#[test]
fn power_lost_at_any_operation_loses_no_key_that_a_finished_start_used() {
    for at in 0..operations_of_a_start() {
        for seed in 0..32 {
            let disk = SimDisk::new(seed);
            disk.fail_after(at, Fault::PowerLoss);
            assert!(open(&disk, 1).is_err());
            disk.restart();
            let second = open(&disk, 2).unwrap_or_else(|error| panic!("at {at}, seed {seed}: {error}"));
            let used = identity(&second);
            drop(second);
            disk.restart();
            let third = open(&disk, 3).unwrap();
            assert_eq!(identity(&third), used, "at {at}, seed {seed}");
            assert!(!third.is_created());
        }
    }
}

#[test]
fn a_real_directory_works_and_its_second_user_learns_the_first_ones_pid() {
    use std::os::unix::fs::PermissionsExt;
    let seed = {
        let mut seed = [0; 8];
        cyclotron_ports::Entropy::fill(&SystemEntropy, &mut seed).unwrap();
        u64::from_le_bytes(seed)
    };
    let parent = std::env::temp_dir().join(format!("cyclotron-storage-{seed:x}"));
    let path = parent.join("state");
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    let open = |process| StateDirectory::open(&Arc::new(SystemDisk), &path, &SystemEntropy, process, genesis);
    let first = open(4_711).unwrap();
    assert_eq!((mode(""), mode("keys")), (0o700, 0o700));
    assert_eq!((mode("keys/root.key"), mode("keys/node.key")), (0o600, 0o600));
    match open(2) {
        Err(StorageError::Locked { holder, .. }) => assert_eq!(holder, Some(4_711)),
        other => panic!("{other:?}"),
    }
    let made = identity(&first);
    drop(first);
    assert_eq!(identity(&open(3).unwrap()), made);
    std::fs::set_permissions(path.join("keys/root.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open(3), Err(StorageError::KeyPermissions { mode: 0o644, .. })));
    std::fs::remove_dir_all(&parent).unwrap();
}
