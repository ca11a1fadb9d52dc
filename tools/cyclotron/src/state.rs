//! `cyclotron state`: what a state directory holds, and whether all of it is whole. Nothing is changed.

use crate::print;
use crate::recordings::{contents_lines, left_over_line, subnet_lines};
use clap::{Args, Subcommand};
use cyclotron_ports::SystemDisk;
use cyclotron_record::{Contents, open};
use cyclotron_storage::checkpoint::{self, PageFiles, StateReader, decode_entries};
use cyclotron_storage::manifest::Making;
use cyclotron_storage::{FrameKind, StateDirectory};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Commands on state directories.
#[derive(Subcommand)]
pub enum StateCommand {
    /// Show the subnet, its log and its checkpoints
    Inspect(StateArguments),
    /// Read every byte and compare it with its checksum, and the state with its manifests
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
    let mut recording = open(directory).map_err(|error| error.to_string())?;
    let missing = recording.missing().map_err(|error| error.to_string())?;
    let log = &mut recording.log;
    let mut contents = Contents::default();
    // The heights of a log are in its frames, so both read all of it.
    while let Some(frame) = log.next_frame().map_err(|error| error.to_string())? {
        contents.add(&frame);
    }
    let mut lines = [subnet_lines(&recording.genesis), contents_lines(&contents)].concat();
    let checkpoints = StateDirectory::<SystemDisk>::checkpoints_of(directory);
    let mut verified = BTreeSet::new();
    let heights = checkpoint::list(&SystemDisk, &checkpoints).map_err(|error| error.to_string())?;
    for &height in &heights {
        lines.push(format!("  Checkpoint   {}", checkpoint_line(&checkpoints, height, command, &mut verified)?));
    }
    if let Some(missing) = missing {
        match command {
            StateCommand::Verify(_) => return Err(missing),
            StateCommand::Inspect(_) => lines.push(format!("  Missing      {missing}")),
        }
    }
    lines.extend(left_over_line(recording.log.left_over()));
    if matches!(command, StateCommand::Verify(_)) {
        if contents.malformed > 0 {
            return Err(format!("{} frames of the log hold no batch", contents.malformed));
        }
        lines.push("  All of it is whole".into());
    }
    print(&lines.join("\n"))
}

/// What a checkpoint holds; the files of pages that it needs are read only to be verified, each once.
fn checkpoint_line(
    folder: &Path,
    height: u64,
    command: &StateCommand,
    verified: &mut BTreeSet<u32>,
) -> Result<String, String> {
    let words = |error: cyclotron_storage::StorageError| error.to_string();
    let mut reader = StateReader::open(&SystemDisk, folder, height).map_err(words)?;
    let files = reader.files().map_err(words)?;
    let open = PageFiles::default();
    for file in &files {
        let pages = open.open(&SystemDisk, folder, file.number).map_err(words)?;
        if pages != file.pages {
            return Err(words(reader.malformed("a file of pages is not as long as it should be")));
        }
        if matches!(command, StateCommand::Verify(_)) && verified.insert(file.number) {
            open.verify(file.number).map_err(words)?;
        }
    }
    let root = reader.manifest().map_err(words)?;
    if matches!(command, StateCommand::Verify(_)) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Making { disk: &SystemDisk, folder, files: &open, threads }.verify(height).map_err(words)?;
    }
    let (mut canisters, mut modules) = (0, 0);
    while let Some(frame) = reader.next_record().map_err(words)? {
        let count = match frame.kind {
            FrameKind::Canisters => &mut canisters,
            FrameKind::Modules => &mut modules,
            _ => continue,
        };
        for entry in decode_entries(&frame.content) {
            entry.ok_or_else(|| words(reader.malformed("an entry is cut off")))?;
            *count += 1;
        }
    }
    let used: u64 = files.iter().map(|file| file.used).sum();
    let hash: String = root.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "height {height}: {canisters} canisters, {modules} modules, {used} bytes in {} files\n  Manifest     version {}, root {hash}",
        files.len(),
        root.version
    ))
}
