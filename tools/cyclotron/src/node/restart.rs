//! A node's subnet: made once, and brought back from its log at every start.
//!
//! Enters: the state directory. Leaves: the subnet as it was, which notes its batches in the log from then on.
//! Never here: a guess: a log that cannot be read to its end, or comes to another state, ends the start.

use cyclotron_crypto::{BlsSecretKey, RootSigner};
use cyclotron_execution::management::IdRange;
use cyclotron_execution::{ExecutionLimits, SubnetConfig};
use cyclotron_ports::SystemDisk;
use cyclotron_record::Recorder;
use cyclotron_storage::log::{LOG_FILE_BYTES, LogReader};
use cyclotron_storage::{FrameKind, NodeKeys, StateDirectory};
use cyclotron_subnet::{
    Checkpointer, CodeOnDisk, Genesis, LogSink, Program, Replayed, SchedulingOptions, Subnet, SubnetOptions,
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

/// A subnet that is not brought back yet.
pub struct Restart {
    log: LogReader<SystemDisk>,
    /// Where to begin.
    checkpoint: Option<Height>,
    /// Folder of checkpoints.
    folder: PathBuf,
    subnet: Subnet,
    root: BlsSecretKey,
}

impl Restart {
    /// Opens the log, behind the newest checkpoint unless the subnet is `recorded` from its first round on, and makes the subnet that it is
    /// of. `priced_as`: what the operator asks for, if anything. `module_cache_bytes`: of compiled code kept on disk; 0: none.
    pub fn open(
        state: &StateDirectory<SystemDisk>,
        threads: usize,
        priced_as: Option<u64>,
        recorded: bool,
        module_cache_bytes: u64,
    ) -> Result<Self, String> {
        let checkpoint = if recorded { None } else { state.newest_checkpoint().map_err(|error| error.to_string())? };
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
        Ok(Self { log, checkpoint: checkpoint.map(Height), folder: state.checkpoints(), subnet, root })
    }

    /// Records all batches, those of the log included.
    pub fn record(&mut self, file: &Path) -> Result<(), String> {
        let recorder = Recorder::create(&SystemDisk, file, 1, self.log.configuration());
        self.subnet.note(Box::new(recorder.map_err(|error| error.to_string())?));
        Ok(())
    }

    /// Loads the checkpoint, and runs the batches behind it again. Returns the subnet, and who makes its next checkpoints.
    pub fn bring_back(self) -> Result<(Subnet, Checkpointer<SystemDisk>), String> {
        let Self { mut log, checkpoint, folder, mut subnet, root } = self;
        let began = Instant::now();
        let checkpointer = Checkpointer::new(Arc::new(SystemDisk), &folder);
        let mut checkpointer = checkpointer.map_err(|error| error.to_string())?;
        if let Some(height) = checkpoint {
            checkpointer.restore(&mut subnet, height).map_err(|error| {
                let files = folder.join(format!("{:016x}.state", height.0));
                format!(
                    "{error}; or remove {}: the checkpoint before it, or the log, brings the same state back",
                    files.display()
                )
            })?;
        }
        let from = subnet.height();
        let mut told = began;
        while let Some(frame) = log.next_frame().map_err(|error| error.to_string())? {
            // A root or hash of the checkpoint's own height is compared too.
            if frame.height < from.0 || frame.height == from.0 && frame.kind == FrameKind::Batch {
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
        let writer = log.into_writer(LOG_FILE_BYTES).map_err(|error| error.to_string())?;
        let sink = LogSink::new(writer).map_err(|error| format!("cannot start a thread: {error}"))?;
        subnet.note(Box::new(sink));
        subnet.run_as(Program::this()).map_err(|error| error.to_string())?;
        Ok((subnet, checkpointer))
    }
}
