//! A recorded workload run again, in whole and from any round on: the same state each time.
//!
//! `SEEKS=100 cargo test --workspace --test seeks` takes 1,000 rounds, 20 replays and 100 seeks.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_load::{Mix, Plan, RecordingOptions, Workload, record};
use cyclotron_ports::{SimEntropy, SystemDisk};
use cyclotron_record::{Contents, Recorder, ReplayFailed, Replayer, Report, RoundFacts, checkpoints_beside, open};
use cyclotron_storage::FrameKind;
use cyclotron_storage::checkpoint::{list, place};
use cyclotron_storage::log::{Beginning, decode_batch};
use cyclotron_subnet::{Checkpointer, Retention, Subnet, SubnetOptions};
use cyclotron_types::units::Height;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Seeks in CI.
const SEEKS: u64 = 6;
/// Requests a second.
const RATE: u32 = 20;
/// Checkpoints beside a recording.
const BESIDE: usize = 5;

/// Root and state hash after each round.
type Hashes = BTreeMap<u64, ([u8; 32], [u8; 32])>;

struct Made {
    folder: PathBuf,
    hashes: Hashes,
    /// Height of the state that the second recording begins behind.
    begins_behind: u64,
}

impl Drop for Made {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.folder);
    }
}

impl Made {
    /// From the first round on.
    fn whole(&self) -> PathBuf {
        self.folder.join("whole.cyc")
    }

    /// From a checkpoint on.
    fn later(&self) -> PathBuf {
        self.folder.join("later.cyc")
    }

    fn last(&self) -> u64 {
        *self.hashes.last_key_value().unwrap().0
    }
}

/// Runs a mixed workload with a checkpoint after each `every` rounds, and records it twice: from its first round on, and from a checkpoint on.
fn make(name: &str, (seed, rate): (u64, u32), rounds: u32, every: u64) -> Made {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seeks-{name}-{}", std::process::id()));
    let _none_yet = std::fs::remove_dir_all(&folder);
    let checkpoints = folder.join("checkpoints");
    std::fs::create_dir_all(&checkpoints).unwrap();
    let source = folder.join("source.cyc");
    let workload = Workload { mix: Mix::Mixed, seed, ledger: None };
    let plan = Plan { rate, seconds: rounds.div_ceil(4) };
    record(&workload, RecordingOptions { plan, rounds, threads: 2 }, &source, |_| {}).unwrap();

    let mut source = open(&source).unwrap();
    let mut made = Made { folder, hashes: Hashes::new(), begins_behind: 0 };
    let configuration = source.log.configuration().to_vec();
    let mut subnet = Subnet::new(SubnetOptions::unsigned(source.genesis.clone(), 2).unwrap()).unwrap();
    subnet.note(Box::new(Recorder::create(&SystemDisk, &made.whole(), 1, &configuration).unwrap()));
    let mut checkpointer = Checkpointer::new(Arc::new(SystemDisk), &checkpoints).unwrap();
    let retain = |checkpointer: &mut Checkpointer<SystemDisk>, file: &Path| {
        let beside = Some((checkpoints_beside(file), BESIDE));
        checkpointer.retain(Retention { beside, ..Retention::default() });
    };
    retain(&mut checkpointer, &made.whole());
    while let Some(frame) = source.log.next_frame().unwrap() {
        if frame.kind != FrameKind::Batch {
            continue;
        }
        let mut batch = decode_batch(frame.height, &frame.content).unwrap();
        batch.checkpoint = frame.height.is_multiple_of(every);
        let is_checkpoint = batch.checkpoint;
        let view = subnet.execute(batch).unwrap();
        let hash = subnet.note_state_hash().unwrap();
        made.hashes.insert(frame.height, (view.root, hash));
        if is_checkpoint {
            let outcome = checkpointer.make(&mut subnet).unwrap();
            assert!(outcome.not_placed.is_none(), "{outcome:?}");
            if made.begins_behind == 0 && frame.height > u64::from(rounds) / 3 {
                made.begins_behind = frame.height;
                let beginning = Beginning { root: view.root, state_hash: Some(hash) };
                let later = Recorder::create_behind(
                    &SystemDisk,
                    &made.later(),
                    Height(frame.height),
                    &beginning,
                    &configuration,
                );
                subnet.note(Box::new(later.unwrap()));
                place(&SystemDisk, &checkpoints, frame.height, &checkpoints_beside(&made.later())).unwrap();
            }
        }
    }
    subnet.note_no_more();
    assert!(made.begins_behind > 0);
    made
}

fn run(file: &Path, from: Option<u64>, to: u64, threads: usize) -> Result<Report, ReplayFailed> {
    Replayer::new(open(file).unwrap(), from, threads)?.run(to, |_| {})
}

#[test]
fn a_workload_replays_to_the_same_state_each_time_and_from_any_round_on() {
    let seeks = std::env::var("SEEKS").map_or(SEEKS, |seeks| seeks.parse().unwrap());
    let (rounds, replays) = ((seeks as u32 * 10).max(40), (seeks / 5).max(3));
    let made = make("any", (3, RATE), rounds, u64::from(rounds) / 12);
    let last = made.last();
    for n in 0..replays as usize {
        let report = run(&made.whole(), None, u64::MAX, [1, 2, 4][n % 3]).unwrap();
        assert_eq!((report.height, (report.root, report.state_hash)), (last, made.hashes[&last]));
        assert_eq!(report.contents.state_hashes, last, "each round's was compared");
    }
    let whole = run(&made.whole(), None, u64::MAX, 2).unwrap();
    let facts = |round: &RoundFacts| (round.height, round.slices, round.instructions, round.pages);
    let all: Vec<_> = whole.timeline.iter().map(facts).collect();
    assert_eq!(all.last().map(|round| round.0), Some(last));
    let kept = list(&SystemDisk, &checkpoints_beside(&made.whole())).unwrap();
    assert_eq!(kept.len(), BESIDE, "more were made, and some stay");
    let random = SimEntropy::new(7);
    for seek in 0..seeks {
        let (file, first) = match seek % 2 {
            0 => (made.whole(), 1),
            _ => (made.later(), made.begins_behind + 1),
        };
        let from = first + random.next_u64() % (last + 1 - first);
        let to = (from + random.next_u64() % 3).min(last);
        let report = run(&file, Some(from), to, [1, 2, 4][seek as usize % 3]).unwrap();
        assert_eq!((report.root, report.state_hash), made.hashes[&to], "{from} to {to}");
        let contents = &report.contents;
        assert_eq!(
            (contents.first_height, contents.last_height, contents.rounds),
            (Some(from), Some(to), to + 1 - from)
        );
        assert_eq!((contents.roots, contents.state_hashes), (to + 1 - from, to + 1 - from));
        let nearest = list(&SystemDisk, &checkpoints_beside(&file)).unwrap().into_iter().rfind(|height| *height < from);
        assert_eq!(report.began_behind, nearest.unwrap_or(0), "from the nearest checkpoint");
        let measured: Vec<_> = report.timeline.iter().map(facts).collect();
        assert_eq!(measured, all[from as usize - 1..to as usize], "what is before is not counted");
        let slices: u64 = measured.iter().map(|round| round.1).sum();
        assert_eq!(report.methods.iter().map(|method| method.totals.slices).sum::<u64>(), slices);
    }
    // What is asked for lies before what there is.
    let refused = run(&made.later(), None, made.begins_behind, 1).unwrap_err().to_string();
    assert!(refused.contains(&format!("is that of height {}", made.begins_behind + 1)), "{refused}");
    println!("{last} rounds, {replays} replays, {seeks} seeks");
}

#[test]
fn a_recording_from_a_checkpoint_on_says_what_it_lacks() {
    let made = make("lacks", (3, RATE), 40, 4);
    let (later, folder) = (made.later(), checkpoints_beside(&made.later()));
    let begins = made.begins_behind;
    let whole = run(&later, None, u64::MAX, 1).unwrap();
    assert_eq!((whole.began_behind, whole.contents.first_height), (begins, Some(begins + 1)));
    assert_eq!(whole.state_hash, made.hashes[&made.last()].1);
    let (mut recording, mut contents) = (open(&later).unwrap(), Contents::default());
    while let Some(frame) = recording.log.next_frame().unwrap() {
        contents.add(&frame);
    }
    assert_eq!((contents.begins_behind, contents.malformed), (Some(begins), 0));
    assert_eq!((recording.checkpoints().unwrap(), recording.missing().unwrap()), (vec![begins], None));
    let refused = |from| run(&later, from, u64::MAX, 1).unwrap_err().to_string();
    let said = refused(Some(begins));
    assert!(said.contains(&format!("from height {} on at the earliest", begins + 1)), "{said}");
    let said = refused(Some(made.last() + 1));
    assert!(said.contains(&format!("it ends at height {}", made.last())), "{said}");
    // The folder of another recording: of the same subnet, which did something else, and of another subnet.
    let away = made.folder.join("away");
    std::fs::rename(&folder, &away).unwrap();
    for (name, workload, what) in [
        ("other", (3, RATE * 2), "holds another state than the one that the recording begins behind"),
        ("foreign", (4, RATE), "or is of another subnet"),
    ] {
        let other = make(name, workload, 40, 4);
        assert_eq!(other.begins_behind, begins, "the same height");
        copy(&checkpoints_beside(&other.later()), &folder);
        let said = refused(None);
        assert!(said.contains(what), "{said}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
    // None, and one without its pages.
    let said = refused(None);
    assert!(said.contains("no checkpoint of it is in") && said.contains("later.cyc.checkpoints"), "{said}");
    copy(&away, &folder);
    run(&later, None, u64::MAX, 2).expect("a copy is as good");
    let pages = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "pages")).max().unwrap();
    std::fs::remove_file(&pages).unwrap();
    assert!(refused(None).contains(pages.to_str().unwrap()));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
