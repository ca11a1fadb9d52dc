//! A node's subnet: made once, and brought back from its log at every start.
//!
//! Enters: the state directory. Leaves: the subnet as it was, which notes its batches in the log from then on.
//! Never here: a guess: a log that cannot be read to its end, or comes to another state, ends the start.

use cyclotron_crypto::{BlsSecretKey, RootSigner};
use cyclotron_execution::management::IdRange;
use cyclotron_execution::{ExecutionLimits, SubnetConfig};
use cyclotron_ports::SystemDisk;
use cyclotron_record::{QueryRecorder, Recorder, checkpoints_beside};
use cyclotron_storage::log::{self, Beginning, LOG_FILE_BYTES, LogReader};
use cyclotron_storage::{FrameKind, NodeKeys, StateDirectory, StorageError, checkpoint};
use cyclotron_subnet::{
    Checkpointer, CodeOnDisk, Genesis, LogSink, Program, Replayed, Retention, SchedulingOptions, Subnet, SubnetOptions,
};
use cyclotron_trace::{info, warn};
use cyclotron_types::fees::Fees;
use cyclotron_types::units::Height;
use cyclotron_wasm::code_cache::CodeCounts;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Canister ids that are given only to those who ask for one of them, as on other local networks: the main network's canisters can
/// be set up under their own ids. dfinity/ic `rs/prep/src/internet_computer.rs`, "specified ids".
const SPECIFIED_IDS: IdRange = IdRange { first: 0, last: u64::MAX / 2 };
/// Numbers in a range that is given out in order. dfinity/ic `CANISTER_IDS_PER_SUBNET`.
const IDS_PER_RANGE: u64 = 1 << 20;
/// Canister ids that are given out in order: the first whole range that does not touch the specified ids, again as on other local
/// networks, so that the first canister is bnz7o-iuaaa-aaaaa-qaaaa-cai on all of them.
const ALLOCATED_IDS: IdRange = {
    let first = (SPECIFIED_IDS.last / IDS_PER_RANGE + 2) * IDS_PER_RANGE;
    IdRange { first, last: first + (IDS_PER_RANGE - 1) }
};
/// The number of the first canister.
pub const FIRST_CANISTER: u64 = ALLOCATED_IDS.first;

const _: () = assert!(FIRST_CANISTER == 0x8000_0000_0010_0000);

/// Bytes of a file of the log, however short that is to be.
const LOG_FILE_BYTES_MIN: u64 = 1 << 20;
/// Time between two lines about a long restart.
const PROGRESS: Duration = Duration::from_secs(2);

/// What the subnet of a node on its own is made with.
pub fn genesis(keys: &NodeKeys, priced_as: u64) -> Genesis {
    let root_key = keys.root.public_key_der();
    let config = SubnetConfig {
        subnet: cyclotron_crypto::self_authenticating(&root_key),
        root_key: root_key.clone(),
        fees: Fees::for_nodes(priced_as),
        limits: ExecutionLimits::default(),
    };
    Genesis {
        config,
        public_key: root_key,
        subnet_type: "application".into(),
        nodes: vec![(keys.node.node_id(), keys.node.public_key_der())],
        ranges: vec![ALLOCATED_IDS],
        reserved_ranges: vec![SPECIFIED_IDS],
        scheduling: SchedulingOptions::default(),
        provisional: true,
    }
}

/// What stays of checkpoints and the log.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// So many of the newest checkpoints.
    pub checkpoints: usize,
    /// Bytes of the log beyond which files go that the oldest of these keeps.
    pub log_bytes_max: u64,
}

/// Bytes of a file of a log that is to have so many at most: a file goes whole or not at all.
fn log_file_bytes(log_bytes_max: u64) -> u64 {
    (log_bytes_max / 16).clamp(LOG_FILE_BYTES_MIN, LOG_FILE_BYTES)
}

/// What brings the state back without the newest checkpoint.
fn otherwise(state: &StateDirectory<SystemDisk>) -> Result<&'static str, StorageError> {
    let first = log::first_height(&SystemDisk, &state.log_folder())?.unwrap_or(1);
    let checkpoints = checkpoint::list(&SystemDisk, &state.checkpoints())?;
    let before = checkpoints.iter().rev().nth(1);
    Ok(match before {
        Some(before) if first <= before + 1 => {
            "the checkpoint before it, and the log behind that, bring the same state back"
        }
        _ if first == 1 => "the log brings the same state back",
        _ => "but nothing else here brings the state back, so restore a backup of the state directory first",
    })
}

/// What is recorded.
struct Recording {
    file: PathBuf,
    /// Queries too.
    queries: bool,
}

/// Begins to record what a subnet is given, which is new or has come from a checkpoint in `folder`. Returns where queries are noted, if they are.
fn begin_recording(
    Recording { file, queries }: &Recording,
    folder: &Path,
    subnet: &mut Subnet,
    configuration: &[u8],
) -> Result<Option<QueryRecorder>, StorageError> {
    let height = subnet.height();
    let mut recorder = if height == Height::ZERO {
        Recorder::create(&SystemDisk, file, 1, configuration)?
    } else {
        // First the state, without which the file is of no use.
        checkpoint::place(&SystemDisk, folder, height.0, &checkpoints_beside(file))?;
        info!("recording: the state at height {height} is hashed, which takes a look at every page");
        let beginning = Beginning { root: subnet.root(), state_hash: Some(subnet.state_hash()) };
        Recorder::create_behind(&SystemDisk, file, height, &beginning, configuration)?
    };
    let failed = |source| StorageError::Io { action: "record queries in", path: file.clone(), source };
    let queries = if *queries { Some(recorder.record_queries().map_err(failed)?) } else { None };
    subnet.note(Box::new(recorder));
    Ok(queries)
}

/// A subnet as it was before the node ended, and what belongs to it.
pub struct BroughtBack {
    /// The subnet.
    pub subnet: Subnet,
    /// Who makes its next checkpoints.
    pub checkpointer: Checkpointer<SystemDisk>,
    /// Where queries are noted, if they are recorded.
    pub queries: Option<QueryRecorder>,
}

/// A subnet that is not brought back yet.
pub struct Restart {
    log: LogReader<SystemDisk>,
    /// Where to begin.
    checkpoint: Option<Height>,
    /// Folder of checkpoints.
    folder: PathBuf,
    /// What stays once the next one is made, and what else brings the state back if the newest cannot.
    retention: Retention,
    otherwise: &'static str,
    /// Where to record what the subnet is given.
    recording: Option<Recording>,
    subnet: Subnet,
    root: BlsSecretKey,
}

impl Restart {
    /// Opens the log behind the newest checkpoint, and makes the subnet that it is of. `priced_as`: what the operator asks for, if anything. `module_cache_bytes`: of compiled code kept on disk; 0: none. Of checkpoints and the
    /// log stays what `kept` says.
    pub fn open(
        state: &StateDirectory<SystemDisk>,
        threads: usize,
        priced_as: Option<u64>,
        module_cache_bytes: u64,
        kept: Kept,
    ) -> Result<Self, String> {
        let checkpoint = state.newest_checkpoint().map_err(|error| error.to_string())?;
        let otherwise = otherwise(state).map_err(|error| error.to_string())?;
        let log = state.log(checkpoint.map_or(1, |height| height + 1)).map_err(|error| error.to_string())?;
        let genesis = Genesis::decode(log.configuration())?;
        let keys = state.keys();
        if genesis.public_key != keys.root.public_key_der() {
            return Err(format!("the log in {} is of another subnet than keys/root.key there", state.path().display()));
        }
        if !genesis.nodes.iter().any(|(_, key)| *key == keys.node.public_key_der()) {
            return Err(format!("keys/node.key in {} is of no node of this subnet", state.path().display()));
        }
        let nodes = genesis.config.fees.nodes;
        if let Some(asked) = priced_as.filter(|asked| *asked != nodes) {
            return Err(format!(
                "the subnet in {} was made with the prices of {nodes} nodes and keeps them; leave out --priced-as {asked}, or start with a new state directory",
                state.path().display()
            ));
        }
        let root = BlsSecretKey::from_bytes(&keys.root.to_bytes()).ok_or("the root key is no secret key")?;
        let subnet = Subnet::new(SubnetOptions::unsigned(genesis, threads)?)
            .map_err(|error| format!("cannot start worker threads: {error}"))?;
        if module_cache_bytes > 0 {
            match CodeOnDisk::open(Arc::new(SystemDisk), &state.module_cache(), module_cache_bytes) {
                Ok(cache) => subnet.keep_code_in(Arc::new(cache)),
                Err(error) => warn!("compiled code is not kept, and starts take longer: {error}"),
            }
        }
        let retention = Retention {
            checkpoints: kept.checkpoints,
            log: Some((state.log_folder(), kept.log_bytes_max)),
            beside: None,
        };
        let (checkpoint, folder) = (checkpoint.map(Height), state.checkpoints());
        Ok(Self { log, checkpoint, folder, retention, otherwise, recording: None, subnet, root })
    }

    /// Records all batches behind the newest checkpoint, those of the log included, and keeps so many checkpoints beside the recording; with `queries`
    /// also the queries that are answered once the subnet is back.
    ///
    /// Errors: the file, or its folder of checkpoints, is there.
    pub fn record(&mut self, file: &Path, checkpoints: usize, queries: bool) -> Result<(), String> {
        let folder = checkpoints_beside(file);
        // Another recording's checkpoints are not this one's.
        if let Some(path) = [file, &folder].into_iter().find(|path| path.symlink_metadata().is_ok()) {
            let error = StorageError::Exists { path: path.to_owned() };
            return Err(format!(
                "{error}: record into another file, or move this recording away with its folder of checkpoints"
            ));
        }
        self.retention.beside = Some((folder, checkpoints));
        self.recording = Some(Recording { file: file.to_owned(), queries });
        Ok(())
    }

    /// Loads the checkpoint, and runs the batches behind it again.
    pub fn bring_back(self) -> Result<BroughtBack, String> {
        let Self { mut log, checkpoint, folder, retention, otherwise, recording, mut subnet, root } = self;
        let file_bytes = retention.log.as_ref().map_or(LOG_FILE_BYTES, |(_, max)| log_file_bytes(*max));
        let began = Instant::now();
        let checkpointer = Checkpointer::new(Arc::new(SystemDisk), &folder);
        let mut checkpointer = checkpointer.map_err(|error| error.to_string())?;
        if let Some(height) = checkpoint {
            checkpointer.restore(&mut subnet, height).map_err(|error| {
                let files = folder.join(format!("{:016x}.state", height.0));
                format!("{error}; or remove {}: {otherwise}", files.display())
            })?;
        }
        let queries = match recording {
            None => None,
            Some(recording) => begin_recording(&recording, &folder, &mut subnet, log.configuration())
                .map_err(|error| error.to_string())?,
        };
        checkpointer.retain(retention);
        let from = subnet.height();
        let mut told = began;
        while let Some(frame) = log.next_frame().map_err(|error| error.to_string())? {
            // A root of the checkpoint's own height is compared too. A state hash, which is there while the node is recorded, is for `replay`: it takes a look
            // at every page.
            let is_done = frame.height < from.0 || frame.height == from.0 && frame.kind == FrameKind::Batch;
            if is_done || frame.kind == FrameKind::StateHash {
                continue;
            }
            match subnet.replay(&frame) {
                Ok(Replayed::Round(_)) if told.elapsed() >= PROGRESS => {
                    told = Instant::now();
                    let (at, of) = log.progress();
                    let file = log.path().display();
                    info!("bringing back the state: height {}, byte {at} of {of} of {file}", subnet.height());
                }
                Ok(_) => {}
                Err(error) => return Err(format!("{}: {error}", log.path().display())),
            }
        }
        let height = subnet.height();
        if log.next_height() != height.0 + 1 {
            let (file, last) = (log.path().display(), log.next_height() - 1);
            return Err(format!(
                "the log ends in {file} at height {last}, before the checkpoint of height {height}: restore its files from a backup"
            ));
        }
        subnet.sign_with(Arc::new(root));
        if height.0 > 0 {
            let seconds = began.elapsed().as_secs_f64();
            let CodeCounts { compiled, loaded } = subnet.code_counts();
            info!(
                "the state is back at height {height} after {seconds:.1} s, from a checkpoint at {from} and the log; {compiled} modules compiled, {loaded} found compiled"
            );
        }
        let writer = log.into_writer(file_bytes).map_err(|error| error.to_string())?;
        let sink = LogSink::new(writer).map_err(|error| format!("cannot start a thread: {error}"))?;
        subnet.note(Box::new(sink));
        subnet.run_as(Program::this()).map_err(|error| error.to_string())?;
        Ok(BroughtBack { subnet, checkpointer, queries })
    }
}
