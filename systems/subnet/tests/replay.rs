//! A subnet brought back from its log is the subnet that was.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::workload::{Run, tight, workload};
use common::{SCRIPT, Setup, TestSubnet};
use cyclotron_crypto::BlsSecretKey;
use cyclotron_ports::{Disk, Fault, SimDisk};
use cyclotron_storage::checkpoint::{self, PageFiles};
use cyclotron_storage::log::{LOG_FILE_BYTES, LogReader, LogWriter};
use cyclotron_storage::manifest::Making;
use cyclotron_storage::{Frame, FrameKind, StorageError};
use cyclotron_subnet::{
    Checkpointer, Genesis, LogSink, Made, Program, ReplayError, Replayed, Statistics, Step, Subnet, SubnetOptions,
    Unsigned,
};
use cyclotron_types::batch::CertifiedView;
use cyclotron_types::ids::MessageId;
use cyclotron_types::units::{Height, Time};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const HERE: &str = "/log";
/// Small, so that a workload fills several files.
const FILE_BYTES: u64 = 20_000;

fn begin_log(disk: &Arc<SimDisk>, options: &SubnetOptions) -> LogSink<SimDisk> {
    disk.create_directory(Path::new(HERE)).unwrap();
    let writer = LogWriter::create(disk.clone(), Path::new(HERE), 1, &options.genesis.encode(), FILE_BYTES).unwrap();
    LogSink::new(writer).unwrap()
}

/// A run of a workload, noted from its first round on.
fn noted_run(setup: &Setup, disk: &Arc<SimDisk>) -> Run {
    let mut sink = Some(begin_log(disk, &TestSubnet::options(setup.clone())));
    Run::new(setup.clone(), |subnet| {
        if let Some(sink) = sink.take() {
            subnet.subnet.note(Box::new(sink));
        }
    })
}

/// The subnet that the log is of, without its rounds.
fn of_log(log: &LogReader<SimDisk>, setup: Setup) -> Subnet {
    let options = TestSubnet::options(setup);
    let genesis = Genesis::decode(log.configuration()).unwrap();
    assert_eq!(genesis, options.genesis);
    let signer = Arc::new(Unsigned(genesis.public_key.clone()));
    Subnet::new(SubnetOptions { signer, ..options }).unwrap()
}

/// Runs the log again. Returns the views of its rounds too.
fn bring_back(disk: &Arc<SimDisk>, setup: Setup) -> (Subnet, LogReader<SimDisk>, Vec<CertifiedView>) {
    let mut log = LogReader::open(disk.clone(), Path::new(HERE), 1).unwrap();
    let mut subnet = of_log(&log, setup);
    let mut views = Vec::new();
    while let Some(frame) = log.next_frame().unwrap() {
        if let Replayed::Round(view) = subnet.replay(&frame).unwrap() {
            views.push(view);
        }
    }
    (subnet, log, views)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_brings_back_the_state_on_any_number_of_threads(workload in workload(), setup in tight()) {
        let disk = Arc::new(SimDisk::new(1));
        let mut run = noted_run(&setup, &disk);
        let left = run.run(&workload, |_| {}, |run| {
            run.subnet.subnet.note_state_hash().unwrap();
        });
        let (height, state) = (run.subnet.subnet.height(), run.subnet.subnet.state_hash());
        drop(run);
        disk.restart();
        for threads in [1, 2, 4] {
            let (mut subnet, _, views) = bring_back(&disk, Setup { threads, ..setup.clone() });
            prop_assert_eq!((subnet.height(), subnet.state_hash()), (height, state));
            let roots: Vec<_> = views.iter().map(|view| view.root).collect();
            let recorded: Vec<_> = left.iter().map(|left| left.root).collect();
            prop_assert!(roots.ends_with(&recorded));
        }
    }

    #[test]
    fn a_checkpoint_and_the_log_behind_it_bring_back_the_state(
        workload in workload(),
        setup in tight(),
        faults in prop::collection::vec(prop::option::weighted(0.3, 0usize..25), 10),
        hashes in any::<bool>(),
    ) {
        // Logs lie on a disk of their own: it does not fail.
        let (disk, logs) = (Arc::new(SimDisk::new(2)), Arc::new(SimDisk::new(1)));
        let mut run = noted_run(&setup, &logs);
        let checkpoints = Path::new("/checkpoints");
        disk.create_directory(checkpoints).unwrap();
        let mut checkpointer = Checkpointer::new(Arc::clone(&disk), checkpoints).unwrap();
        let mut heights = Vec::new();
        // Whether old ones were removed after the newest.
        let mut tidy = true;
        let mut faults = faults.into_iter();
        // The last round is one too.
        let workload: Vec<_> = workload.into_iter().chain([(Vec::new(), true)]).collect();
        run.run(&workload, |_| {}, |run| {
            let subnet = &mut run.subnet.subnet;
            if hashes {
                // From here on it is in each checkpoint.
                subnet.state_hash();
            }
            let mut ended = |heights: &mut Vec<(Height, Option<Time>)>, step: Option<Result<Step, StorageError>>| {
                match &step {
                    Some(Ok(Step::Lasts(height) | Step::Done(Made { height, .. }))) => {
                        assert_eq!(heights.last().map(|(height, _)| height), Some(height));
                    }
                    Some(Err(_)) => drop(heights.pop_if(|(height, _)| !is_there(&disk, *height))),
                    None => {}
                }
                tidy = matches!(&step, Some(Ok(Step::Done(made))) if made.not_removed.is_none()) || tidy && step.is_none();
            };
            let done = |made: Option<Result<Made, StorageError>>| made.map(|made| made.map(Step::Done));
            if run.subnet.at_checkpoint {
                // Some are ended when the next begins, some as soon as they are written, and some fail.
                ended(&mut heights, done(checkpointer.finish(subnet)));
                heights.push((subnet.height(), subnet.next_alarm()));
                let fault = faults.next().flatten();
                if let Some(after) = fault {
                    disk.fail_after(after, Fault::Full);
                }
                if checkpointer.begin(subnet).is_err() {
                    heights.pop();
                } else if fault.is_some() {
                    // Else it would be another who meets the fault.
                    ended(&mut heights, done(checkpointer.finish(subnet)));
                }
            } else {
                ended(&mut heights, checkpointer.poll(subnet));
            }
            // Memories are read from the files again, whoever looks at them.
            subnet.release_memory(100);
        });
        match checkpointer.finish(&mut run.subnet.subnet) {
            Some(Ok(made)) => tidy = made.not_removed.is_none(),
            Some(Err(_)) => {
                tidy = false;
                heights.pop_if(|(height, _)| !is_there(&disk, *height));
            }
            None => {}
        }
        let subnet = &mut run.subnet.subnet;
        subnet.note_no_more();
        let (height, state, statistics) = (subnet.height(), subnet.state_hash(), subnet.statistics());
        prop_assert_eq!(subnet.whole_state_hash(), state);
        let listed = checkpoint::list(&*disk, checkpoints).unwrap();
        prop_assert!(listed.len() == heights.len().min(2) || !tidy && listed.len() > 2, "{listed:?} of {heights:?}");
        let kept = heights.split_off(heights.len().saturating_sub(listed.len()));
        let last = kept.last().map(|(last, _)| *last).filter(|last| *last == height);
        // One that could not be made is left out.
        let manifest = last.and_then(|last| manifest_of(&disk, last));
        prop_assert_eq!(listed, kept.iter().map(|(height, _)| height.0).collect::<Vec<_>>());
        for ((checkpoint, alarm), threads) in kept.into_iter().zip([1, 2, 4].into_iter().cycle()) {
            let mut log = LogReader::open(logs.clone(), Path::new(HERE), 1).unwrap();
            let mut back = of_log(&log, Setup { threads, ..setup.clone() });
            let mut checkpointer = Checkpointer::new(Arc::clone(&disk), checkpoints).unwrap();
            checkpointer.restore(&mut back, checkpoint).unwrap();
            prop_assert_eq!((back.height(), back.next_alarm()), (checkpoint, alarm));
            // Where one was asked for; the newest checkpoint may be one made below, by a subnet that was asked too.
            prop_assert!(checkpointer.state_hash().is_some() || !hashes);
            if let Some(noted) = checkpointer.state_hash() {
                prop_assert_eq!(back.state_hash(), noted);
            }
            back.check_cycles().unwrap();
            while let Some(frame) = log.next_frame().unwrap() {
                let behind = frame.kind == FrameKind::Batch && frame.height > checkpoint.0;
                if behind || frame.kind != FrameKind::Batch && frame.height >= checkpoint.0 {
                    // Compares the root of each round.
                    back.replay(&frame).unwrap();
                }
            }
            prop_assert_eq!((back.height(), back.state_hash()), (height, state), "from {:?}", checkpoint);
            prop_assert_eq!(back.statistics(), Statistics { waiting: 0, ..statistics });
            // The manifest is that of the state, whatever checkpoints and files of pages were there before.
            if let Some(manifest) = &manifest {
                checkpointer.hash_on(threads);
                checkpointer.make(&mut back).unwrap();
                prop_assert!(manifest_of(&disk, height).as_ref() == Some(manifest), "{} threads", threads);
            }
        }
        if let Some(manifest) = &manifest {
            let elsewhere = Arc::new(SimDisk::new(3));
            elsewhere.create_directory(checkpoints).unwrap();
            let mut log = LogReader::open(logs.clone(), Path::new(HERE), 1).unwrap();
            let mut alone = of_log(&log, setup);
            while let Some(frame) = log.next_frame().unwrap() {
                alone.replay(&frame).unwrap();
            }
            let mut checkpointer = Checkpointer::new(Arc::clone(&elsewhere), checkpoints).unwrap();
            checkpointer.make(&mut alone).unwrap();
            prop_assert!(manifest_of(&elsewhere, height).as_ref() == Some(manifest), "the only checkpoint");
            let files = PageFiles::default();
            let making = Making { disk: &*elsewhere, folder: checkpoints, files: &files, threads: 2 };
            prop_assert!(making.verify(height.0).unwrap().is_some());
        }
    }

    #[test]
    fn what_was_shown_is_there_after_a_loss_of_power_and_the_subnet_goes_on(
        workload in workload(), setup in tight(), seed in any::<u64>(), after in 0usize..300,
    ) {
        let disk = Arc::new(SimDisk::new(seed));
        let mut run = noted_run(&setup, &disk);
        disk.fail_after(after, Fault::PowerLoss);
        let mut shown = Vec::new();
        for (events, checkpoint) in workload {
            for (receiver, event) in &events {
                run.send(*receiver, event);
            }
            match run.subnet.try_round(checkpoint) {
                Ok(view) => shown.push(view),
                Err(_) => break,
            }
            // The outside sees the round when its view is there, and not before.
            let certified = run.subnet.subnet.certified().read().env.as_ref().map(|env| env.height);
            prop_assert_eq!(certified, shown.last().map(|view| view.height));
        }
        let certified = run.subnet.subnet.certified().read().env.as_ref().map(|env| env.height);
        drop(run);
        disk.restart();
        let (mut subnet, log, views) = bring_back(&disk, setup.clone());
        for view in &shown {
            let again = &views[usize::try_from(view.height.0).unwrap() - 1];
            prop_assert_eq!((&again.root, &again.answered), (&view.root, &view.answered));
        }
        prop_assert!(certified.is_none_or(|height| height <= subnet.height()), "a round was shown that is gone");
        subnet.sign_with(Arc::new(BlsSecretKey::from_seed(&[1; 32])));
        subnet.note(Box::new(LogSink::new(log.into_writer(FILE_BYTES).unwrap()).unwrap()));
        let now = subnet.time().plus(cyclotron_types::units::Seconds(1));
        let batch = subnet.next_batch(now, [3; 32]);
        let view = subnet.execute(batch).unwrap();
        let (mut again, _, views) = bring_back(&disk, setup);
        prop_assert_eq!(views.last().map(|view| view.root), Some(view.root));
        prop_assert_eq!(again.state_hash(), subnet.state_hash());
    }
}

/// Whether the checkpoint of a height is there: one that failed is, where it was its name that could not be made to last.
fn is_there(disk: &SimDisk, height: Height) -> bool {
    checkpoint::list(disk, Path::new("/checkpoints")).unwrap().contains(&height.0)
}

/// The bytes of a checkpoint's manifest, if it has one.
fn manifest_of(disk: &SimDisk, height: Height) -> Option<Vec<u8>> {
    let path = Path::new("/checkpoints").join(format!("{:016x}.manifest", height.0));
    disk.read(&path, u64::MAX).ok().map(|read| read.bytes)
}

/// A log of two messages of one canister, as frames.
fn small_log() -> Vec<Frame> {
    let disk = Arc::new(SimDisk::new(1));
    let setup = Setup::default();
    let sink = begin_log(&disk, &TestSubnet::options(setup.clone()));
    let mut subnet = TestSubnet::new(setup);
    subnet.subnet.note(Box::new(sink));
    let canister = subnet.install_new(SCRIPT);
    subnet.send(canister, Some(canister), "go", vec![0, 1, 0, 0, 0, 0, 0, 0, 0]);
    subnet.round();
    subnet.subnet.note_state_hash().unwrap();
    subnet.subnet.note_no_more();
    let mut log = LogReader::open(disk, Path::new(HERE), 1).unwrap();
    std::iter::from_fn(|| log.next_frame().unwrap()).collect()
}

/// Replays frames; what the first of them that is refused says.
fn replay(frames: &[Frame]) -> Result<(), ReplayError> {
    let mut subnet = Subnet::new(TestSubnet::options(Setup::default())).unwrap();
    frames.iter().try_for_each(|frame| subnet.replay(frame).map(drop))
}

#[test]
fn whichever_operation_of_a_checkpoint_fails_one_is_there_and_the_next_is_made() {
    let folder = Path::new("/checkpoints");
    let (mut failed, mut named) = (0, 0);
    for after in 0.. {
        let disk = Arc::new(SimDisk::new(after));
        disk.create_directory(folder).unwrap();
        let mut subnet = TestSubnet::new(Setup::default());
        let canister = subnet.install_new(SCRIPT);
        let mut checkpointer = Checkpointer::new(Arc::clone(&disk), folder).unwrap();
        let mut round = |subnet: &mut TestSubnet, fault: Option<usize>| {
            subnet.send(canister, Some(canister), "go", vec![0, 7, 0, 0, 0, 0, 0, 0, 0]);
            subnet.round_at_checkpoint();
            if let Some(after) = fault {
                disk.fail_after(after, Fault::Full);
            }
            checkpointer.make(&mut subnet.subnet)
        };
        let restored = |height: Height| {
            let mut back = Subnet::new(TestSubnet::options(Setup::default())).unwrap();
            let mut checkpointer = Checkpointer::new(Arc::clone(&disk), folder).unwrap();
            checkpointer.restore(&mut back, height).unwrap();
            back.state_hash()
        };
        round(&mut subnet, None).unwrap();
        let first = (subnet.subnet.height(), subnet.subnet.state_hash());
        let made = round(&mut subnet, Some(after as usize));
        let second = (subnet.subnet.height(), subnet.subnet.state_hash());
        match &made {
            Ok(made) if made.not_hashed.is_none() && made.not_removed.is_none() => break,
            // Its manifest or what is removed can wait.
            Ok(_) => assert!(is_there(&disk, second.0), "operation {after}"),
            Err(_) => failed += 1,
        }
        if is_there(&disk, second.0) {
            named += usize::from(made.is_err());
            assert_eq!(restored(second.0), second.1, "operation {after}");
        }
        assert_eq!(restored(first.0), first.1, "operation {after}");
        let third = round(&mut subnet, None).unwrap();
        assert!(third.not_hashed.is_none() && third.not_removed.is_none(), "operation {after}");
        assert_eq!(restored(third.height), subnet.subnet.state_hash(), "operation {after}");
    }
    assert!(failed > 5 && named == 1, "{failed} failed, {named} of them once they had their name");
}

#[test]
fn a_log_of_other_rounds_or_results_is_refused_with_the_height() {
    let frames = small_log();
    assert_eq!(frames.last().unwrap().kind, FrameKind::StateHash);
    replay(&frames).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<Frame>)| {
        let mut frames = frames.clone();
        change(&mut frames);
        replay(&frames).unwrap_err().to_string()
    };
    let is = |kind| move |frame: &Frame| frame.kind == kind;
    for (kind, what) in [(FrameKind::Root, "certified root"), (FrameKind::StateHash, "state hash")] {
        let at = frames.iter().position(is(kind)).unwrap();
        let said = refused(&|frames| frames[at].content[0] ^= 1);
        assert!(said.contains(what) && said.contains(&format!("height {}", frames[at].height)), "{said}");
        assert!(refused(&|frames| frames[at].content.truncate(31)).contains("not 32 bytes long"));
    }
    assert!(refused(&|frames| drop(frames.remove(0))).contains("of another height"));
    assert!(refused(&|frames| drop(frames.drain(..2))).contains("does not follow on the state"));
    assert!(refused(&|frames| frames[0].content.truncate(10)).contains("holds no batch"));
    let last = frames.iter().rposition(is(FrameKind::Batch)).unwrap();
    assert!(refused(&|frames| frames[last].content[..8].fill(0)).contains("its time is not later"));
    // Another argument is another result.
    let arg = frames[last].content.len() - 9;
    assert!(refused(&|frames| frames[last].content[arg + 1] = 2).contains("certified root is"));
}

#[test]
fn rounds_of_a_program_with_other_rules_are_refused_and_those_of_an_older_version_are_not() {
    let frames = small_log();
    let after = |program: &Program| {
        let content = program.encode();
        let first = Frame { kind: FrameKind::Program, height: 0, content };
        replay(&[&[first][..], &frames].concat())
    };
    after(&Program { version: "0.0.1".into(), ..Program::this() }).unwrap();
    let other = Program { rules: Program::this().rules + 1, version: "9.9.9".into() };
    let said = after(&other).unwrap_err().to_string();
    assert!(
        said.contains("from height 1 on were made by version 9.9.9") && said.contains("start that version"),
        "{said}"
    );
    // A start without rounds has done nothing.
    let last = Frame { kind: FrameKind::Program, height: frames[0].height, content: other.encode() };
    replay(&[&frames[..1], &[last][..]].concat()).unwrap();
    let none = Frame { kind: FrameKind::Program, height: 0, content: vec![1, 2, 3] };
    assert!(replay(&[none]).unwrap_err().to_string().contains("names no program"));
}

#[test]
fn statuses_and_certificates_are_those_from_before() {
    let disk = Arc::new(SimDisk::new(1));
    let setup = Setup::default();
    let mut subnet = TestSubnet::new(setup.clone());
    subnet.subnet.note(Box::new(begin_log(&disk, &TestSubnet::options(setup.clone()))));
    let canister = subnet.install_new(SCRIPT);
    let id: MessageId = subnet.send(canister, Some(canister), "go", vec![0, 7, 0, 0, 0, 0, 0, 0, 0]);
    subnet.round();
    let certificate = subnet.subnet.status_certificate(id).unwrap();
    let heap = subnet.query(canister, "heap", &[]).unwrap();
    // As after a kill: nothing is closed in order.
    std::mem::forget(subnet);
    let (mut back, log, _) = bring_back(&disk, setup);
    back.sign_with(Arc::new(BlsSecretKey::from_seed(&[1; 32])));
    assert_eq!(back.status_certificate(id).unwrap(), certificate, "the signature included: BLS is deterministic");
    let query = cyclotron_queries::Query {
        sender: cyclotron_types::Principal::anonymous(),
        receiver: canister,
        method: "heap".into(),
        arg: vec![],
    };
    assert_eq!(back.query(&[query])[0].as_ref().unwrap(), &heap);
    log.into_writer(LOG_FILE_BYTES).unwrap();
}
