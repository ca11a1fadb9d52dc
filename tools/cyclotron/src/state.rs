//! `cyclotron state`: what a state directory holds, whether all of it is whole, and less of it where there is more than is needed.

use crate::print;
use crate::recordings::{contents_lines, left_over_line, subnet_lines};
use clap::{Args, Subcommand};
use cyclotron_ports::{SystemDisk, SystemEntropy};
use cyclotron_record::{Contents, open};
use cyclotron_storage::checkpoint::{self, PageFiles, StateReader, decode_entries};
use cyclotron_storage::manifest::{Making, manifest_root};
use cyclotron_storage::{FrameKind, StateDirectory, StorageError};
use cyclotron_subnet::{Checkpointer, Genesis, Retention, Subnet, SubnetOptions};
use cyclotron_types::units::Height;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Commands on state directories.
#[derive(Subcommand)]
pub enum StateCommand {
    /// Show the subnet, its log and its checkpoints
    Inspect(StateArguments),
    /// Read every byte and compare it with its checksum, and the state with its manifests
    Verify(StateArguments),
    /// Of a stopped node: gather what the newest checkpoint keeps in one file, and remove older checkpoints and the log behind them
    Compact(StateArguments),
}

/// Options of all.
#[derive(Args)]
pub struct StateArguments {
    /// The state directory
    directory: PathBuf,
}

/// Runs `cyclotron state`.
pub fn run(command: &StateCommand) -> Result<(), String> {
    let (StateCommand::Inspect(StateArguments { directory })
    | StateCommand::Verify(StateArguments { directory })
    | StateCommand::Compact(StateArguments { directory })) = command;
    if !directory.is_dir() {
        return Err(format!("{} is not a directory", directory.display()));
    }
    if matches!(command, StateCommand::Compact(_)) {
        return compact(directory);
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
    let list = || checkpoint::list(&SystemDisk, &checkpoints).map_err(|error| error.to_string());
    for height in list()? {
        let line = checkpoint_line(&checkpoints, height, command, &mut verified).or_else(|error| {
            // A node that runs makes newer ones, and removes those before.
            let is_there = list()?.contains(&height);
            if is_there { Err(error) } else { Ok(format!("height {height}: removed meanwhile, there is a newer one")) }
        });
        lines.push(format!("  Checkpoint   {}", line?));
    }
    if let Some(missing) = missing {
        match command {
            StateCommand::Verify(_) => return Err(missing),
            _ => lines.push(format!("  Missing      {missing}")),
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
    let words = |error: StorageError| error.to_string();
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let root = match command {
        StateCommand::Verify(_) => Making { disk: &SystemDisk, folder, files: &open, threads }.verify(height),
        _ => manifest_root(&SystemDisk, folder, height, threads),
    };
    let manifest = match root.map_err(words)? {
        Some(root) => {
            let hash: String = root.hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("version {}, root {hash}", root.version)
        }
        None => "none: the process that made the checkpoint has not made it yet, or ended before it had".into(),
    };
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
    Ok(format!(
        "height {height}: {canisters} canisters, {modules} modules, {used} bytes in {} files\n  Manifest     {manifest}",
        files.len(),
    ))
}

/// Gathers what the newest checkpoint keeps, and removes the rest.
fn compact(directory: &Path) -> Result<(), String> {
    let words = |error: StorageError| error.to_string();
    // Another's directory is not to become ours.
    let log = StateDirectory::log_of(&Arc::new(SystemDisk), directory, None).map_err(words)?;
    let genesis = Genesis::decode(log.configuration())?;
    let disk = Arc::new(SystemDisk);
    // Its log was begun, so that nobody asks what it is made with.
    let state =
        StateDirectory::open(&disk, directory, &SystemEntropy, std::process::id(), |_| Vec::new()).map_err(words)?;
    let Some(height) = state.newest_checkpoint().map_err(words)? else {
        return Err(format!(
            "there is no checkpoint in {}: start the node and end it in order, which leaves one",
            directory.display()
        ));
    };
    // What is behind the checkpoint stays, and must be whole before anything goes.
    let mut log = state.log(height + 1).map_err(words)?;
    while log.next_frame().map_err(words)?.is_some() {}
    if log.next_height() <= height {
        return Err(format!(
            "the log in {} ends at height {}, before the checkpoint of height {height}: restore its files from a backup",
            directory.display(),
            log.next_height() - 1
        ));
    }
    let folders = [state.checkpoints(), state.log_folder()];
    let before = bytes_in(&folders)?;
    let options = SubnetOptions::unsigned(genesis, crate::start::cores())?;
    let mut subnet = Subnet::new(options).map_err(|error| format!("cannot start worker threads: {error}"))?;
    let mut checkpointer = Checkpointer::new(disk, &state.checkpoints()).map_err(words)?;
    checkpointer.restore(&mut subnet, Height(height)).map_err(words)?;
    checkpointer.retain(Retention { checkpoints: 1, log: Some((state.log_folder(), 0)), beside: None });
    let made = checkpointer.compact(&mut subnet).map_err(|error| format!("all is as it was: {error}"))?;
    if let Some(error) = made.not_hashed {
        return Err(format!("the checkpoint of height {height} is in one file now, but has no manifest: {error}"));
    }
    if let Some(error) = made.not_removed {
        return Err(format!("the checkpoint of height {height} is in one file now, but not all else went: {error}"));
    }
    let after = bytes_in(&folders)?;
    print(&format!(
        "  Checkpoint   of height {height}, in one file\n  Log          {} files went\n  Freed        {} of {before} bytes",
        made.log_removed.files,
        before.saturating_sub(after)
    ))
}

/// Bytes of the files in some folders.
fn bytes_in(folders: &[PathBuf]) -> Result<u64, String> {
    let mut bytes = 0;
    for folder in folders {
        let read =
            || -> std::io::Result<u64> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum() };
        bytes += read().map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    }
    Ok(bytes)
}
