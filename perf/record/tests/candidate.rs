//! Recorded traffic against another module.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../../../systems/subnet/tests/common/mod.rs"]
mod common;

use common::{Mode, Setup, TestSubnet};
use cyclotron_ports::{Disk, SimDisk};
use cyclotron_record::{Candidate, CandidateReport, Recorder, Recording, Replayer, page, try_candidate};
use cyclotron_subnet::TakeOver;
use cyclotron_types::ids::CanisterId;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "/recordings/traffic.cyc";

/// A counter that keeps its number through upgrades, and a method that may trap.
fn counter(step: u32, fragile: &str, globals: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (import "ic0" "msg_reply" (func $reply))
            (import "ic0" "stable_grow" (func $grow (param i32) (result i32)))
            (import "ic0" "stable_write" (func $write (param i32 i32 i32)))
            (import "ic0" "stable_read" (func $read (param i32 i32 i32)))
            (memory 1)
            {globals}
            (func (export "canister_update inc")
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {step})))
                (call $append (i32.const 0) (i32.const 4))
                (call $reply))
            (func (export "canister_update fragile") {fragile} (call $reply))
            (func (export "canister_pre_upgrade")
                (drop (call $grow (i32.const 1)))
                (call $write (i32.const 0) (i32.const 0) (i32.const 4)))
            (func (export "canister_post_upgrade") (call $read (i32.const 0) (i32.const 0) (i32.const 4))))"#
    );
    wat::parse_str(text).unwrap()
}

const GLOBALS: &str = "(global (mut i64) (i64.const 3)) (global i32 (i32.const 4))";

fn usual() -> Vec<u8> {
    counter(1, "", GLOBALS)
}

/// Records: three calls, one of the fragile method, an upgrade to the same code, and one more call.
fn record() -> (Arc<SimDisk>, CanisterId) {
    let disk = Arc::new(SimDisk::new(1));
    disk.create_directory(Path::new("/recordings")).unwrap();
    let options = TestSubnet::options(Setup::default());
    let genesis = options.genesis.clone();
    let mut test = TestSubnet::of(options);
    let recorder = Recorder::create(&*disk, Path::new(FILE), 1, &genesis.encode()).unwrap();
    test.subnet.note(Box::new(recorder));
    let canister = test.create();
    test.install(canister, Mode::Install, usual()).unwrap();
    for number in 1..=3u32 {
        assert_eq!(test.call(canister, "inc", &[]).unwrap(), number.to_le_bytes());
    }
    test.call(canister, "fragile", &[]).unwrap();
    test.install(canister, Mode::Upgrade(None), usual()).unwrap();
    assert_eq!(test.call(canister, "inc", &[]).unwrap(), 4u32.to_le_bytes());
    test.subnet.note_state_hash().unwrap();
    test.subnet.note_no_more();
    (disk, canister)
}

fn open(disk: &Arc<SimDisk>) -> Recording<SimDisk> {
    Recording::open(disk.clone(), Path::new(FILE), false).unwrap()
}

fn try_on(recording: &(Arc<SimDisk>, CanisterId), wasm: Vec<u8>, how: TakeOver) -> CandidateReport {
    let (disk, canister) = recording;
    let candidate = Candidate { canister: *canister, wasm, how };
    let mut rounds = 0;
    let report = try_candidate(open(disk), 1, &candidate, (None, u64::MAX), |_| rounds += 1).unwrap();
    assert_eq!((report.rounds, report.hashes), (rounds, rounds + 1), "the recorded side came to every hash");
    report
}

#[test]
fn the_recorded_code_changes_nothing() {
    let recording = record();
    for how in [TakeOver::Swap, TakeOver::Upgrade] {
        let report = try_on(&recording, usual(), how);
        assert_eq!((report.replies.compared, report.replies.changed), (8, 0), "{how:?}");
        assert_eq!((report.traps.compared, report.unanswered.compared), (0, 0));
        assert!(report.instructions.compared >= 8 && report.instructions.changed == 0 && report.methods.is_empty());
        assert_eq!(report.taken.len(), 1, "what runs has the candidate's hash from then on");
        let hooks = report.taken[0].outcome.clone().unwrap();
        assert_eq!(hooks > 0, how == TakeOver::Upgrade);
    }
}

#[test]
fn changed_replies_traps_and_instructions_are_listed_and_state_goes_on() {
    let recording = record();
    for how in [TakeOver::Swap, TakeOver::Upgrade] {
        let report = try_on(&recording, counter(10, "unreachable", GLOBALS), how);
        // The recorded upgrade puts the recorded code back, and the candidate takes over again.
        assert_eq!(report.taken.len(), 2, "{how:?}: {:?}", report.taken);
        assert!(report.taken.iter().all(|taken| taken.outcome.is_ok()));
        let shown: Vec<_> =
            report.replies.listed.iter().map(|change| (change.method.as_str(), change.candidate.as_str())).collect();
        assert_eq!(shown.len(), 5);
        for (at, bytes) in [(0, "0a000000"), (1, "14000000"), (2, "1e000000"), (4, "28000000")] {
            assert_eq!(shown[at], ("inc", &*format!("reply of 4 bytes: {bytes}")), "{how:?}");
        }
        assert_eq!(report.replies.listed[4].recorded, "reply of 4 bytes: 04000000");
        assert!(shown[3].0 == "fragile" && shown[3].1.starts_with("reject: "), "{shown:?}");
        assert_eq!((report.traps.changed, report.traps.listed[0].recorded.as_str()), (1, ""));
        assert!(report.traps.listed[0].candidate.contains("unreachable"));
        let fragile = report.methods.iter().find(|method| method.method == "fragile").unwrap();
        assert!(fragile.recorded_instructions != fragile.candidate_instructions);
        assert!(report.instructions.listed.iter().any(|change| change.method == "fragile"));
        assert_eq!(report.unanswered.compared, 0);
    }
}

#[test]
fn a_candidate_that_cannot_take_over_is_told_once_and_changes_nothing() {
    let recording = record();
    let refused = [
        (counter(10, "", ""), TakeOver::Swap, "globals"),
        (b"no module".to_vec(), TakeOver::Swap, ""),
        (
            wat::parse_str(r#"(module (func (export "canister_post_upgrade") unreachable))"#).unwrap(),
            TakeOver::Upgrade,
            "unreachable",
        ),
    ];
    for (wasm, how, why) in refused {
        let report = try_on(&recording, wasm, how);
        let words = report.taken[0].outcome.clone().unwrap_err();
        assert!(words.contains(why), "{words}");
        assert_eq!((report.replies.changed, report.instructions.changed), (0, 0), "{words}");
    }
}

#[test]
fn a_replay_has_a_fact_for_each_round_and_a_page() {
    let (disk, _) = record();
    let report = Replayer::new(open(&disk), None, 1).unwrap().run(u64::MAX, |_| {}).unwrap();
    assert_eq!(report.timeline.len() as u64, report.contents.rounds);
    let instructions: u64 = report.timeline.iter().map(|round| round.instructions).sum();
    assert_eq!(instructions, report.methods.iter().map(|method| method.totals.instructions).sum::<u64>());
    assert!(report.timeline.iter().all(|round| round.stages.iter().sum::<f64>() > 0.0));
    assert!(page(&report, "a replay").contains("fragile"));
}
