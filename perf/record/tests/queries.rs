//! Queries in recordings: run again on the states that they were answered on, to the same answers.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../../../systems/subnet/tests/common/mod.rs"]
mod common;

use common::{Mode, Setup, TestSubnet};
use cyclotron_ports::{Disk, SimDisk};
use cyclotron_queries::{Query, answer_in_full};
use cyclotron_record::{
    Candidate, CandidateReport, Contents, Kind, QueryRecorder, Recorder, Recording, ReplayFailed, Replayer, Report,
    checkpoints_beside, page, try_candidate,
};
use cyclotron_storage::log::{Beginning, LogReader, LogWriter, RecordedQuery};
use cyclotron_storage::{Frame, FrameKind, checkpoint};
use cyclotron_subnet::{Checkpointer, TakeOver};
use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::query::FollowsFrom;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "/recordings/queries.cyc";
const OTHER: &str = "/recordings/other.cyc";

/// A counter that certifies its number, with all that a query may answer from; `get` answers the number and `more`.
fn counter(more: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (import "ic0" "msg_reply" (func $reply))
            (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
            (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
            (import "ic0" "time" (func $time (result i64)))
            (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
            (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
            (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
            (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "ic0" "call_perform" (func $call_perform (result i32)))
            (memory 1)
            (table funcref (elem $answered))
            (data (i32.const 100) "now")
            (func $echo
                (call $arg_copy (i32.const 200) (i32.const 0) (call $arg_size))
                (call $append (i32.const 200) (call $arg_size))
                (call $reply))
            (func $answered (param i32) (call $echo))
            (func (export "canister_update inc")
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                (call $certify (i32.const 0) (i32.const 4))
                (call $append (i32.const 0) (i32.const 4))
                (call $reply))
            (func (export "canister_query get")
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {more})))
                (call $append (i32.const 0) (i32.const 4))
                (call $reply))
            (func (export "canister_query now")
                (i64.store (i32.const 8) (call $time))
                (call $append (i32.const 8) (i32.const 8))
                (call $reply))
            (func (export "canister_query certificate")
                (call $certificate_copy (i32.const 1000) (i32.const 0) (call $certificate_size))
                (call $append (i32.const 1000) (call $certificate_size))
                (call $reply))
            (func (export "canister_query size")
                (i32.store (i32.const 8) (call $certificate_size))
                (call $append (i32.const 8) (i32.const 4))
                (call $reply))
            (func (export "canister_query echo") (call $echo))
            (func (export "canister_query fails") unreachable)
            ;; What another canister, whose id is the argument, says of the time.
            (func (export "canister_composite_query ask")
                (call $arg_copy (i32.const 300) (i32.const 0) (call $arg_size))
                (call $call_new
                    (i32.const 300) (call $arg_size) (i32.const 100) (i32.const 3)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
                (drop (call $call_perform))))"#
    );
    wat::parse_str(text).unwrap()
}

/// What is asked of each state.
fn asked(of: CanisterId, other: CanisterId) -> Vec<Query> {
    let query = |receiver: CanisterId, method: &str, arg: &[u8]| Query {
        sender: Principal::anonymous(),
        receiver,
        method: method.into(),
        arg: arg.to_vec(),
    };
    vec![
        query(of, "get", b""),
        query(of, "now", b""),
        query(of, "certificate", b""),
        query(of, "size", b""),
        query(of, "echo", &[7; 300]),
        query(of, "fails", b""),
        query(of, "is not there", b""),
        query(of, "ask", other.principal().as_slice()),
        query(CanisterId::from_u64(99), "get", b""),
    ]
}

/// Queries of each state, and how many of their answers follow from it.
const ASKED: u64 = 9;
const COMPARED: u64 = 8;

/// A subnet that is recorded with its queries.
struct Recorded {
    disk: Arc<SimDisk>,
    test: TestSubnet,
    recorder: QueryRecorder,
    canister: CanisterId,
    other: CanisterId,
}

impl Recorded {
    /// Two canisters, of which one has counted to 1; the recording begins with the subnet.
    fn begin() -> Self {
        let disk = Arc::new(SimDisk::new(1));
        disk.create_directory(Path::new("/recordings")).unwrap();
        let options = TestSubnet::options(Setup { threads: 2, ..Setup::default() });
        let genesis = options.genesis.clone();
        let mut test = TestSubnet::of(options);
        let mut file = Recorder::create(&*disk, Path::new(FILE), 1, &genesis.encode()).unwrap().by_size_alone();
        let recorder = file.record_queries().unwrap();
        test.subnet.note(Box::new(file));
        let [canister, other] = [test.create(), test.create()];
        for id in [canister, other] {
            test.install(id, Mode::Install, counter(0)).unwrap();
        }
        let mut recorded = Self { disk, test, recorder, canister, other };
        recorded.count(1);
        recorded
    }

    fn count(&mut self, number: u32) {
        assert_eq!(self.test.call(self.canister, "inc", &[]).unwrap(), number.to_le_bytes());
    }

    /// Asks everything of the last state. Returns its height.
    fn ask(&self) -> u64 {
        for query in asked(self.canister, self.other) {
            let answered = answer_in_full(self.test.subnet.certified(), &query);
            assert_eq!(answered.height, self.test.subnet.height());
            let certified = query.method == "certificate";
            assert_eq!(answered.follows_from == FollowsFrom::Certificate, certified, "{}", query.method);
            self.recorder.note(query, answered);
        }
        self.test.subnet.height().0
    }

    fn end(mut self) -> (Arc<SimDisk>, CanisterId) {
        self.test.subnet.note_state_hash().unwrap();
        self.test.subnet.note_no_more();
        (self.disk, self.canister)
    }
}

/// Three states, all asked everything; their heights.
fn record() -> (Arc<SimDisk>, CanisterId, [u64; 3]) {
    let mut recorded = Recorded::begin();
    let first = recorded.ask();
    recorded.count(2);
    let second = recorded.ask();
    recorded.count(3);
    let third = recorded.ask();
    let (disk, canister) = recorded.end();
    (disk, canister, [first, second, third])
}

fn open(disk: &Arc<SimDisk>, path: &str) -> Recording<SimDisk> {
    Recording::open(disk.clone(), Path::new(path), false).unwrap()
}

fn replay(disk: &Arc<SimDisk>, path: &str, threads: usize) -> Result<Report, ReplayFailed> {
    Replayer::new(open(disk, path), None, threads)?.run(u64::MAX, |_| {})
}

fn frames(disk: &Arc<SimDisk>) -> Vec<Frame> {
    let mut log = LogReader::open_file(disk.clone(), Path::new(FILE)).unwrap();
    std::iter::from_fn(|| log.next_frame().unwrap()).collect()
}

/// The recording with other frames, in a second file.
fn write(disk: &Arc<SimDisk>, frames: &[Frame]) {
    let recording = open(disk, FILE);
    let _none_yet = disk.remove(Path::new(OTHER));
    let mut log = LogWriter::create_file(&**disk, Path::new(OTHER), 1, recording.log.configuration()).unwrap();
    for frame in frames {
        log.append(frame.kind, frame.height, |out| out.extend_from_slice(&frame.content));
    }
    log.write().unwrap().make_lasting().unwrap();
}

/// Queries by method: messages and instructions.
fn queries_of(report: &Report) -> Vec<(String, u64, u64)> {
    let queries = report.methods.iter().filter(|row| row.kind == Kind::Query);
    let mut rows: Vec<_> = queries
        .map(|row| (format!("{} {}", row.canister, row.method), row.totals.messages, row.totals.instructions))
        .collect();
    rows.sort();
    rows
}

#[test]
fn queries_are_run_again_on_their_states_to_the_same_answers_on_any_number_of_threads() {
    let (disk, canister, _) = record();
    let mut contents = Contents::default();
    frames(&disk).iter().for_each(|frame| contents.add(frame));
    assert_eq!((contents.queries, contents.query_bytes, contents.malformed), (3 * ASKED, 3 * 310, 0));
    let mut reports = [1, 2, 4].map(|threads| replay(&disk, FILE, threads).unwrap());
    for report in &reports {
        let queries = &report.queries;
        assert_eq!((queries.run, queries.certificates), (3 * ASKED, 3));
        assert_eq!((queries.moments, queries.missed), (0, 0));
        assert_eq!((queries.answers.compared, queries.answers.changed), (3 * COMPARED, 0), "{:?}", queries.answers);
        assert_eq!(report.contents.queries, 3 * ASKED);
        let (rows, first) = (queries_of(report), queries_of(&reports[0]));
        assert_eq!(rows, first);
        assert_eq!(rows.len() as u64, ASKED);
        let get = rows.iter().find(|row| row.0 == format!("{canister} get")).unwrap();
        assert!(get.1 == 3 && get.2 > 0, "{get:?}");
        let of_canister = report.canister_totals.iter().filter(|row| row.canister == canister.to_string());
        assert_eq!(of_canister.map(|row| row.totals.messages).sum::<u64>(), 3 + 3 * (ASKED - 1));
        let timeline: u64 = report.timeline.iter().map(|round| round.instructions).sum();
        assert_eq!(timeline, report.instructions(), "queries are charged to nobody");
    }
    assert!(page(&reports[0], "queries").contains("get <small>query</small>"));
    let without = Replayer::new(open(&disk, FILE).without_queries(), None, 1).unwrap().run(u64::MAX, |_| {}).unwrap();
    assert_eq!((without.queries.clone(), without.contents.queries), (Default::default(), 0));
    assert_eq!(without.state_hash, reports[0].state_hash);
    reports[0].methods.retain(|row| row.kind == Kind::Message);
    assert_eq!(without.methods.len(), reports[0].methods.len());
}

#[test]
fn a_replay_of_some_rounds_runs_the_queries_on_their_states() {
    let (disk, _, [first, second, third]) = record();
    let run = |from, to| Replayer::new(open(&disk, FILE), from, 2).unwrap().run(to, |_| {}).unwrap().queries.run;
    assert_eq!(run(Some(first), first), ASKED);
    assert_eq!(run(Some(first), second - 1), ASKED);
    assert_eq!(run(Some(first + 1), second), ASKED, "those before are not run");
    assert_eq!(run(Some(second), u64::MAX), 2 * ASKED);
    assert_eq!(run(Some(third), third), ASKED);
    assert_eq!(run(None, first - 1), 0);
}

#[test]
fn the_state_that_a_recording_begins_behind_is_asked_too() {
    let mut recorded = Recorded::begin();
    let folder = Path::new("/checkpoints");
    recorded.disk.create_directory(folder).unwrap();
    let mut checkpointer = Checkpointer::new(recorded.disk.clone(), folder).unwrap();
    recorded.test.round_at_checkpoint();
    checkpointer.make(&mut recorded.test.subnet).unwrap();
    let height = recorded.test.subnet.height();
    let beginning = Beginning { root: recorded.test.subnet.root(), state_hash: None };
    checkpoint::place(&*recorded.disk, folder, height.0, &checkpoints_beside(Path::new(OTHER))).unwrap();
    let configuration = open(&recorded.disk, FILE).log.configuration().to_vec();
    let later = Recorder::create_behind(&*recorded.disk, Path::new(OTHER), height, &beginning, &configuration);
    let mut later = later.unwrap();
    recorded.recorder = later.record_queries().unwrap();
    recorded.test.subnet.note(Box::new(later));
    assert_eq!(recorded.ask(), height.0);
    recorded.count(2);
    recorded.ask();
    let (disk, _) = recorded.end();
    let report = replay(&disk, OTHER, 2).unwrap();
    assert_eq!((report.began_behind, report.queries.run), (height.0, 2 * ASKED));
    assert_eq!((report.queries.answers.compared, report.queries.answers.changed), (2 * COMPARED, 0));
    let echo = queries_of(&report).into_iter().find(|row| row.0.ends_with(" echo")).unwrap();
    assert_eq!(echo.1, 2, "both are in the tables");
}

#[test]
fn an_answer_that_is_not_as_recorded_is_listed_and_what_follows_from_more_than_the_state_is_not_compared() {
    let (disk, canister, [first, ..]) = record();
    let mut changed = frames(&disk);
    for frame in &mut changed {
        let Some(mut recorded) = RecordedQuery::decode(&frame.content).filter(|_| frame.kind == FrameKind::Query)
        else {
            continue;
        };
        let is_ours = recorded.query.receiver == canister && frame.height == first;
        if is_ours && ["get", "now"].contains(&&*recorded.query.method) {
            recorded.answer[0] ^= 1;
            if recorded.query.method == "now" {
                recorded.follows_from = FollowsFrom::Moment;
            }
            frame.content.clear();
            recorded.encode(&mut frame.content);
        }
    }
    write(&disk, &changed);
    let queries = replay(&disk, OTHER, 2).unwrap().queries;
    assert_eq!((queries.answers.compared, queries.answers.changed, queries.moments), (3 * COMPARED - 1, 1, 1));
    let change = &queries.answers.listed[0];
    assert_eq!((change.height, &*change.canister, &*change.method), (first, &*canister.to_string(), "get"));
    assert_eq!(change.candidate, "reply of 4 bytes: 01000000");
    assert!(change.recorded.starts_with("another, of hash "));
}

#[test]
fn a_query_may_stand_behind_later_batches_and_one_that_is_too_late_is_counted() {
    let mut recorded = Recorded::begin();
    let first = recorded.ask();
    // A round is a second of block time.
    for number in 2..20 {
        recorded.count(number);
    }
    let (disk, _) = recorded.end();
    let all = frames(&disk);
    let (queries, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|frame| frame.kind == FrameKind::Query);
    let at = |height: u64| {
        let place = others.iter().position(|frame| frame.kind == FrameKind::Batch && frame.height == height).unwrap();
        let (before, behind) = others.split_at(place + 1);
        write(&disk, &[before, &queries, behind].concat());
        replay(&disk, OTHER, 1).unwrap().queries
    };
    for height in [first, first + 1, first + 8] {
        let told = at(height);
        assert_eq!((told.run, told.missed, told.answers.changed), (ASKED, 0, 0), "{height}");
    }
    let late = at(first + 16);
    assert_eq!((late.run, late.missed), (0, ASKED));
    // Of a state that an unfinished recording does not come to.
    let cut = others.iter().position(|frame| frame.kind == FrameKind::Batch && frame.height == first).unwrap();
    write(&disk, &[&others[..cut], &queries].concat());
    let told = replay(&disk, OTHER, 1).unwrap().queries;
    assert_eq!((told.run, told.missed), (0, ASKED));
}

#[test]
fn what_is_no_query_is_an_error_and_what_was_left_out_is_counted() {
    let (disk, ..) = record();
    let mut all = frames(&disk);
    all.push(Frame { kind: FrameKind::QueriesLeftOut, height: 1, content: 5u64.to_le_bytes().into() });
    write(&disk, &all);
    let mut contents = Contents::default();
    all.iter().for_each(|frame| contents.add(frame));
    assert_eq!((contents.queries_left_out, contents.malformed), (5, 0));
    assert_eq!(replay(&disk, OTHER, 1).unwrap().contents.queries_left_out, 5);
    let query = all.iter_mut().find(|frame| frame.kind == FrameKind::Query).unwrap();
    query.content.pop();
    write(&disk, &all);
    let said = replay(&disk, OTHER, 1).unwrap_err().to_string();
    assert!(said.contains("it holds no query"), "{said}");
    let mut contents = Contents::default();
    all.iter().for_each(|frame| contents.add(frame));
    assert_eq!((contents.queries, contents.malformed), (3 * ASKED - 1, 1));
    // Without its queries it is as good as ever.
    Replayer::new(open(&disk, OTHER).without_queries(), None, 1).unwrap().run(u64::MAX, |_| {}).unwrap();
}

fn try_on(disk: &Arc<SimDisk>, canister: CanisterId, more: u32, how: TakeOver, from: Option<u64>) -> CandidateReport {
    let candidate = Candidate { canister, wasm: counter(more), how };
    let report = try_candidate(open(disk, FILE), 2, &candidate, (from, u64::MAX), |_| {}).unwrap();
    assert_eq!((report.not_as_recorded.changed, report.queries_missed), (0, 0));
    report
}

#[test]
fn a_candidate_that_answers_otherwise_is_told_by_each_query_behind_its_take_over() {
    let (disk, canister, [first, second, third]) = record();
    for (from, heights) in [(None, vec![first, second, third]), (Some(second), vec![second, third])] {
        let report = try_on(&disk, canister, 10, TakeOver::Swap, from);
        let states = heights.len() as u64;
        assert_eq!((report.queries.compared, report.certificates), (states * COMPARED, states));
        assert_eq!(report.not_as_recorded.compared, states * COMPARED);
        let listed: Vec<_> = report.queries.listed.iter().map(|change| (change.height, &*change.method)).collect();
        assert_eq!(listed, heights.iter().map(|height| (*height, "get")).collect::<Vec<_>>());
        let last = report.queries.listed.last().unwrap();
        assert_eq!((&*last.recorded, &*last.candidate), ("reply of 4 bytes: 03000000", "reply of 4 bytes: 0d000000"));
        assert_eq!(report.replies.changed, 0, "updates are as they were");
        assert!(report.methods.is_empty(), "{:?}", report.methods);
    }
    // As an upgrade the counter begins anew, since it keeps nothing.
    let report = try_on(&disk, canister, 0, TakeOver::Upgrade, Some(second));
    let listed: Vec<_> = report.queries.listed.iter().map(|change| (change.height, &*change.candidate)).collect();
    assert_eq!(listed, [(second, "reply of 4 bytes: 01000000"), (third, "reply of 4 bytes: 02000000")]);
    assert_eq!(report.replies.changed, 2);
}
