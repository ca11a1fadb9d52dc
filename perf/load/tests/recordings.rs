//! Workloads as recordings: the same for the same seed, and what they are when they run again.
#![allow(clippy::unwrap_used, reason = "a test: a failure is a panic")]

use cyclotron_load::{LoadFailed, Mix, Plan, Recorded, RecordingOptions, Workload, record};
use cyclotron_record::{Replayer, open};
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("load-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

fn make(mix: Mix, seed: u64, threads: usize, file: &Path) -> Recorded {
    let workload = Workload { mix, seed, ledger: None };
    let options = RecordingOptions { plan: Plan { rate: 10, seconds: 2 }, rounds: 4, threads };
    let mut rounds = 0;
    let recorded = record(&workload, options, file, |round| rounds = round).unwrap();
    assert_eq!(rounds, 4);
    recorded
}

#[test]
fn a_recording_of_each_mix_replays_to_the_same_hash_on_any_number_of_threads() {
    let folder = Folder::new("replays");
    for mix in [Mix::Counters, Mix::Heaps, Mix::Graphs, Mix::Timers, Mix::Ingress, Mix::Mixed] {
        let file = folder.0.join(mix.name());
        let recorded = make(mix, 11, 2, &file);
        assert_eq!(recorded.updates + recorded.queries, 20, "{mix}");
        assert_eq!((recorded.refused, recorded.left_out), (0, 0), "{mix}");
        let report = Replayer::new(open(&file).unwrap(), None, 1).unwrap().run(u64::MAX, |_| {}).unwrap();
        assert_eq!((report.state_hash, report.root), (recorded.state_hash, recorded.root), "{mix}");
        assert_eq!((report.executed, report.left_over_bytes), (recorded.executed, 0), "{mix}");
        assert_eq!(report.contents.rounds, recorded.set_up_rounds + 4, "{mix}");
        let calls =
            report.methods.iter().filter(|method| method.canister != "aaaaa-aa").map(|method| method.totals.messages);
        assert!(calls.sum::<u64>() >= recorded.updates, "{mix}: its canisters ran");
    }
}

#[test]
fn what_no_round_took_is_not_said_to_be_recorded() {
    let folder = Folder::new("left-out");
    let file = folder.0.join("file");
    let workload = Workload { mix: Mix::Counters, seed: 3, ledger: None };
    // A round takes a thousand.
    let options = RecordingOptions { plan: Plan { rate: 2_500, seconds: 2 }, rounds: 2, threads: 2 };
    let recorded = record(&workload, options, &file, |_| {}).unwrap();
    assert_eq!((recorded.updates, recorded.refused, recorded.left_out), (2_000, 0, 3_000));
    let report = Replayer::new(open(&file).unwrap(), None, 2).unwrap().run(u64::MAX, |_| {}).unwrap();
    let of_workload = report.contents.ingress_messages - recorded.canisters as u64 * 2;
    assert_eq!(of_workload, recorded.updates, "each canister was created and installed by a message");
}

#[test]
fn the_same_seed_makes_the_same_file_and_another_seed_another() {
    let folder = Folder::new("bytes");
    let file = |name: &str| folder.0.join(name);
    let first = make(Mix::Mixed, 5, 1, &file("first"));
    assert_eq!(make(Mix::Mixed, 5, 2, &file("again")), first);
    assert_ne!(make(Mix::Mixed, 6, 1, &file("other")).state_hash, first.state_hash);
    let bytes = |name: &str| std::fs::read(file(name)).unwrap();
    assert!(bytes("first") == bytes("again"), "{} and {} bytes differ", bytes("first").len(), bytes("again").len());
    assert!(bytes("first") != bytes("other"));
}

#[test]
fn a_file_that_is_there_is_left_as_it_is_and_a_mix_without_updates_makes_none() {
    let folder = Folder::new("refused");
    let options = RecordingOptions { plan: Plan { rate: 1, seconds: 1 }, rounds: 1, threads: 1 };
    let there = folder.0.join("there");
    std::fs::write(&there, b"mine").unwrap();
    let workload = |mix| Workload { mix, seed: 1, ledger: None };
    let refused = record(&workload(Mix::Counters), options, &there, |_| {}).unwrap_err();
    assert!(matches!(refused, LoadFailed::Storage(_)), "{refused}");
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
    let none = folder.0.join("none");
    let refused = record(&workload(Mix::Queries), options, &none, |_| {}).unwrap_err();
    assert!(matches!(refused, LoadFailed::NoUpdates(Mix::Queries)), "{refused}");
    assert!(!none.exists());
}
