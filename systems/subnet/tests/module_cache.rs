//! Compiled code on disk: a subnet that is brought back finds it, and comes to the same state without it.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{SCRIPT, Setup, TestSubnet};
use cyclotron_execution::Machine;
use cyclotron_ports::{Access, Disk, DiskFile, Fault, SimDisk};
use cyclotron_subnet::{Checkpointer, CodeOnDisk, SubnetOptions};
use cyclotron_types::units::{Height, Seconds};
use cyclotron_wasm::code_cache::CodeCounts;
use cyclotron_wasm::{Engine, EngineConfig};
use std::path::Path;
use std::sync::Arc;

const CHECKPOINTS: &str = "/state/checkpoints";
const CODE: &str = "/state/module-cache";
/// A module that is installed after the restart.
const MORE: &str = r#"(module (func (export "canister_update more")))"#;

/// A subnet on an engine of its own, with compiled code on a disk.
fn subnet_on(code: &SimDisk) -> (TestSubnet, Engine, Option<Arc<CodeOnDisk<SimDisk>>>) {
    let engine = Engine::new(EngineConfig::canister()).unwrap();
    let machine = Arc::new(Machine::new(engine.clone(), 64).unwrap());
    let test = TestSubnet::of(SubnetOptions { machine, ..TestSubnet::options(Setup::default()) });
    let cache = CodeOnDisk::open(Arc::new(code.clone()), Path::new(CODE), 1 << 20).ok().map(Arc::new);
    if let Some(cache) = &cache {
        test.subnet.keep_code_in(cache.clone());
    }
    (test, engine, cache)
}

/// A checkpoint of a subnet with one module; its code stays on the disk `code`.
fn checkpoint(code: &SimDisk) -> (SimDisk, Height) {
    let disk = SimDisk::new(1);
    disk.create_directory(Path::new(CHECKPOINTS)).unwrap();
    let (mut test, engine, cache) = subnet_on(code);
    test.install_new(SCRIPT);
    test.round_at_checkpoint();
    let mut checkpointer = Checkpointer::new(Arc::new(disk.clone()), Path::new(CHECKPOINTS)).unwrap();
    checkpointer.make(&mut test.subnet).unwrap();
    engine.finish_keeping();
    assert_eq!((engine.code_counts(), cache.unwrap().files().files()), (counts(1, 0), 1));
    (disk, test.subnet.height())
}

/// Brings the checkpoint back and installs another module; the state hash of the end, and how code was come by.
fn go_on(disk: &SimDisk, height: Height, code: &SimDisk) -> ([u8; 32], CodeCounts) {
    let (mut test, engine, _) = subnet_on(code);
    let mut checkpointer = Checkpointer::new(Arc::new(disk.clone()), Path::new(CHECKPOINTS)).unwrap();
    checkpointer.restore(&mut test.subnet, height).unwrap();
    test.now = test.now.plus(Seconds(1_000));
    let more = test.install_new(MORE);
    // Its write may go on while rounds do.
    test.call(more, "more", &[]).unwrap_err();
    engine.finish_keeping();
    (test.subnet.state_hash(), engine.code_counts())
}

fn counts(compiled: u64, loaded: u64) -> CodeCounts {
    CodeCounts { compiled, loaded }
}

fn paths(code: &SimDisk) -> Vec<std::path::PathBuf> {
    code.list(Path::new(CODE)).unwrap().into_iter().map(|name| Path::new(CODE).join(name)).collect()
}

#[test]
fn a_restart_finds_code_and_comes_to_the_same_state_without_it() {
    let code = SimDisk::new(1);
    let (disk, height) = checkpoint(&code);
    let (without, came_by) = go_on(&disk, height, &SimDisk::new(2));
    assert_eq!(came_by, counts(2, 0));
    assert_eq!(go_on(&disk, height, &code), (without, counts(1, 1)));
    assert_eq!(go_on(&disk, height, &code), (without, counts(0, 2)));
    // Losing the folder, or a byte of a file, loses time.
    for path in paths(&code) {
        code.remove(&path).unwrap();
    }
    assert_eq!(go_on(&disk, height, &code), (without, counts(2, 0)));
    for path in paths(&code) {
        let file = code.open(&path, Access::Write).unwrap();
        let mut byte = [0];
        let at = file.size().unwrap() / 2;
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 1]).unwrap();
    }
    assert_eq!(go_on(&disk, height, &code), (without, counts(2, 0)));
    assert_eq!(go_on(&disk, height, &code), (without, counts(0, 2)), "and it is made good");
}

#[test]
fn a_disk_for_code_that_fails_at_any_moment_changes_nothing() {
    let good = SimDisk::new(1);
    let (disk, height) = checkpoint(&good);
    let (expected, _) = go_on(&disk, height, &SimDisk::new(2));
    for fault in [Fault::Full, Fault::Medium, Fault::Denied, Fault::PowerLoss] {
        for after in 0..14 {
            let code = SimDisk::new(after as u64);
            code.create_directory(Path::new(CODE)).unwrap();
            for path in paths(&good) {
                code.write_new(&path, &good.read(&path, 1 << 20).unwrap().bytes, 0o600).unwrap();
            }
            code.fail_after(after, fault);
            let (hash, came_by) = go_on(&disk, height, &code);
            assert_eq!(hash, expected, "{fault:?} after {after} operations");
            assert_eq!(came_by.compiled + came_by.loaded, 2);
            code.restart();
            assert_eq!(go_on(&disk, height, &code).0, expected, "and after a restart");
        }
    }
}
