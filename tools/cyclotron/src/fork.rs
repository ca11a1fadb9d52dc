//! `cyclotron fork`: a copy of a whole subnet, or of one of its canisters.

use crate::node::{Kept, Restart, socket_path};
use crate::print;
use crate::start::cores;
use clap::Args;
use cyclotron_net::local::ask;
use cyclotron_ports::{Clock, Entropy, SystemClock, SystemDisk, SystemEntropy};
use cyclotron_storage::{ForkedDirectory, StateDirectory, StorageError};
use cyclotron_trace::{LogFormat, init_log};
use cyclotron_types::Principal;
use cyclotron_types::action::{ActionDone, OperatorAction};
use cyclotron_types::batch::Batch;
use cyclotron_types::ids::CanisterId;
use cyclotron_wire::{CONTROL_ANSWER_BYTES_MAX, ControlAnswer, ControlCommand};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Time for a node to do what it is asked for: a checkpoint of much that changed takes minutes.
const ANSWER_WAIT: Duration = Duration::from_secs(600);

/// Options of `cyclotron fork`.
#[derive(Args)]
pub struct ForkArguments {
    /// State directory of the node, which may be running
    state: PathBuf,

    /// New state directory: the whole subnet, as it is now, for a node of its own with the same keys
    #[arg(required_unless_present = "canister", conflicts_with = "canister")]
    new: Option<PathBuf>,

    /// Fork this canister alone, within the subnet
    #[arg(long, value_name = "CANISTER")]
    canister: Option<Principal>,

    /// Id of the canister's fork [default: the next one that the subnet gives out]
    #[arg(long = "as", value_name = "CANISTER", requires = "canister")]
    target: Option<Principal>,
}

/// Runs `cyclotron fork`.
pub fn run(arguments: &ForkArguments) -> Result<(), String> {
    let state = &arguments.state;
    match (&arguments.new, arguments.canister) {
        (_, Some(source)) => {
            let forked = fork_canister(state, source, arguments.target)?;
            print(&forked.to_text())
        }
        (Some(new), None) => fork_subnet(state, new),
        (None, None) => Err("name a new state directory, or a canister with --canister".into()),
    }
}

/// What the node says that runs on a state directory; `None`: none runs, or it has no socket.
fn ask_node(state: &Path, command: &ControlCommand) -> Result<Option<ControlAnswer>, String> {
    let path = socket_path(state);
    let bytes = match ask(&path, &command.encode(), CONTROL_ANSWER_BYTES_MAX, ANSWER_WAIT) {
        Ok(bytes) => bytes,
        // The last: a path that is too long for a socket.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(format!("the node does not answer at {}: {error}", path.display())),
    };
    match ControlAnswer::decode(&bytes) {
        Ok(ControlAnswer::Refused { reason }) => Err(reason),
        Ok(answer) => Ok(Some(answer)),
        Err(error) => Err(format!("the node's answer at {} makes no sense: {error}", path.display())),
    }
}

fn fork_canister(state: &Path, source: Principal, target: Option<Principal>) -> Result<Principal, String> {
    match ask_node(state, &ControlCommand::ForkCanister { source, target })? {
        Some(ControlAnswer::Forked { canister }) => return Ok(canister),
        Some(other) => return Err(format!("the node's answer does not fit: {other:?}")),
        None => {}
    }
    // No node runs: this process is the node for one round, and says what a node says.
    init_log(LogFormat::Text, "info").map_err(|error| error.to_string())?;
    let disk = Arc::new(SystemDisk);
    StateDirectory::log_of(&disk, state, None).map_err(|error| error.to_string())?;
    let made_with = |_: &cyclotron_storage::NodeKeys| Vec::new();
    let opened = StateDirectory::open(&disk, state, &SystemEntropy, std::process::id(), made_with);
    let opened = opened.map_err(|error| match error {
        StorageError::Locked { .. } => {
            format!("{error}; it has no socket for operators, as its log says: stop it to fork a canister")
        }
        error => error.to_string(),
    })?;
    // No checkpoint is made, and nothing goes.
    let kept = Kept { checkpoints: usize::MAX, log_bytes_max: u64::MAX };
    // The node's cache of compiled code, if it has one, keeps all that it has.
    let module_cache_bytes = if opened.module_cache().is_dir() { u64::MAX } else { 0 };
    let restart = Restart::open(&opened, cores(), None, module_cache_bytes, kept)?;
    let mut subnet = restart.bring_back()?.subnet;
    let mut randomness = [0; 32];
    SystemEntropy.fill(&mut randomness).map_err(|error| format!("no randomness from the operating system: {error}"))?;
    let action = OperatorAction::ForkCanister {
        source: CanisterId::from_principal(source),
        target: target.map(CanisterId::from_principal),
    };
    let batch = Batch { actions: vec![action], ..subnet.next_batch(SystemClock.now(), randomness) };
    let view = subnet.execute(batch).map_err(|error| error.to_string())?;
    // The batch lasts; its root, too, once the log is closed.
    subnet.note_no_more();
    subnet.finish_keeping_code();
    match view.actions[..] {
        [Ok(ActionDone::Forked { canister })] => Ok(canister.principal()),
        [Err(refused)] => Err(refused.to_string()),
        _ => Err("the round did not say what became of the fork".into()),
    }
}

fn fork_subnet(state: &Path, new: &Path) -> Result<(), String> {
    // So that the fork starts at once. Without one it starts from the checkpoint before, and the log.
    let asked = ask_node(state, &ControlCommand::Checkpoint);
    if let Err(reason) = &asked {
        eprintln!("the fork begins with an older checkpoint: {reason}");
    }
    let fork = |in_use| StateDirectory::fork(&Arc::new(SystemDisk), state, new, std::process::id(), in_use);
    let forked = match asked {
        Ok(None) => match fork(false) {
            // It has no socket.
            Err(StorageError::Locked { directory, .. }) if directory == state => fork(true),
            forked => forked,
        },
        _ => fork(true),
    };
    let ForkedDirectory { checkpoint, height } = forked.map_err(|error| error.to_string())?;
    let from =
        checkpoint.map_or("without a checkpoint".into(), |height| format!("with a checkpoint of height {height}"));
    print(&format!("{} is a fork at height {height}, {from}: cyclotron start --state-dir {0}", new.display()))
}
