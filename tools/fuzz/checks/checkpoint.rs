// What must hold for all records of a checkpoint; shared by the fuzz target and the test that replays its corpus.

use cyclotron_ports::{Disk, SimDisk};
use cyclotron_storage::FrameKind;
use cyclotron_storage::checkpoint::{CheckpointWriter, PAGE_BYTES};
use cyclotron_subnet::{Genesis, Subnet, SubnetOptions};
use cyclotron_types::units::Height;
use std::path::Path;

/// Pages that the records can name.
const PAGES: u64 = 64;
/// Height of the checkpoint, as far as its files say.
const HEIGHT: u64 = 7;

/// What the checkpoint's subnet was made with.
const GENESIS: &[u8] = include_bytes!("../corpus/genesis/application");

/// Takes the bytes for frames, each a kind (1), a length (4) and its content, in files whose checksums are right. Tells whether a subnet
/// came of it; one that does must be able to make a checkpoint itself.
pub fn check(input: &[u8]) -> bool {
    let disk = SimDisk::new(1);
    let folder = Path::new("/checkpoints");
    disk.create_directory(folder).expect("the disk works");
    let mut writer = CheckpointWriter::create(&disk, folder, HEIGHT).expect("the disk works");
    for page in 0..PAGES {
        writer.page(&[page as u8; PAGE_BYTES]).expect("the disk works");
    }
    let mut rest = input;
    while let Some(([kind, length @ ..], behind)) = rest.split_first_chunk::<5>() {
        let length = (u32::from_le_bytes(*length) as usize).min(behind.len());
        let kinds = [FrameKind::Subnet, FrameKind::Statuses, FrameKind::Module, FrameKind::Canister, FrameKind::Batch];
        let kind = kinds[usize::from(*kind) % kinds.len()];
        writer.record(kind, &behind[..length]).expect("the disk works");
        rest = &behind[length..];
    }
    writer.commit().expect("the disk works");
    let genesis = Genesis::decode(GENESIS).expect("the corpus holds a genesis");
    let options = SubnetOptions::unsigned(genesis, 1).expect("this machine can run a subnet");
    let mut subnet = Subnet::new(options).expect("this machine has threads");
    match subnet.restore(&disk, folder, Height(HEIGHT)) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.to_string().contains("/checkpoints/0000000000000007."), "{error}");
            false
        }
    }
}
