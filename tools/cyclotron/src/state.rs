//! `cyclotron state`: what a state directory holds, and whether all of it is whole. Nothing is changed.

use crate::print;
use crate::recordings::{contents_lines, left_over_line, subnet_lines};
use clap::{Args, Subcommand};
use cyclotron_ports::SystemDisk;
use cyclotron_record::{Contents, open};
use cyclotron_storage::checkpoint::{self, CheckpointReader, PAGE_BYTES};
use cyclotron_storage::{FrameKind, StateDirectory};
use std::path::{Path, PathBuf};

/// Commands on state directories.
#[derive(Subcommand)]
pub enum StateCommand {
    /// Show the subnet, its log and its checkpoints
    Inspect(StateArguments),
    /// Read every byte, and compare it with its checksum
    Verify(StateArguments),
}

/// Options of both.
#[derive(Args)]
pub struct StateArguments {
    /// The state directory
    directory: PathBuf,
}

/// Runs `cyclotron state`.
pub fn run(command: &StateCommand) -> Result<(), String> {
    let (StateCommand::Inspect(StateArguments { directory }) | StateCommand::Verify(StateArguments { directory })) =
        command;
    if !directory.is_dir() {
        return Err(format!("{} is not a directory", directory.display()));
    }
    let (genesis, mut log) = open(directory).map_err(|error| error.to_string())?;
    let mut contents = Contents::default();
    // The heights of a log are in its frames, so both read all of it.
    while let Some(frame) = log.next_frame().map_err(|error| error.to_string())? {
        contents.add(&frame);
    }
    let mut lines = [subnet_lines(&genesis), contents_lines(&contents)].concat();
    let checkpoints = StateDirectory::<SystemDisk>::checkpoints_of(directory);
    for height in checkpoint::list(&SystemDisk, &checkpoints).map_err(|error| error.to_string())? {
        lines.push(format!("  Checkpoint   {}", checkpoint_line(&checkpoints, height, command)?));
    }
    lines.extend(left_over_line(log.left_over()));
    if matches!(command, StateCommand::Verify(_)) {
        if contents.malformed > 0 {
            return Err(format!("{} frames of the log hold no batch", contents.malformed));
        }
        lines.push("  All of it is whole".into());
    }
    print(&lines.join("\n"))
}

/// What a checkpoint holds; its pages are read only to be verified.
fn checkpoint_line(folder: &Path, height: u64, command: &StateCommand) -> Result<String, String> {
    let words = |error: cyclotron_storage::StorageError| error.to_string();
    let mut reader = CheckpointReader::open(&SystemDisk, folder, height).map_err(words)?;
    let (mut canisters, mut modules) = (0, 0);
    while let Some(frame) = reader.next_record().map_err(words)? {
        canisters += u64::from(frame.kind == FrameKind::Canister);
        modules += u64::from(frame.kind == FrameKind::Module);
    }
    if matches!(command, StateCommand::Verify(_)) {
        let mut page = [0; PAGE_BYTES];
        for index in 0..reader.pages() {
            reader.page(index, &mut page).map_err(words)?;
        }
    }
    Ok(format!("height {height}: {canisters} canisters, {modules} modules, {} pages", reader.pages()))
}
