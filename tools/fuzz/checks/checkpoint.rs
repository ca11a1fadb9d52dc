// What must hold for all records of a checkpoint; shared by the fuzz target and the test that replays its corpus.

use cyclotron_heap::PageAt;
use cyclotron_heap::layout::PAGE;
use cyclotron_ports::{Disk, SimDisk};
use cyclotron_storage::FrameKind;
use cyclotron_storage::checkpoint::{
    FileUse, PageFiles, PageWriter, RecordAt, StateWriter, decode_places, encode_entry,
};
use cyclotron_storage::manifest::Making;
use cyclotron_subnet::{Checkpointer, Genesis, Subnet, SubnetOptions};
use cyclotron_types::units::Height;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Pages that the records can name, in file 1.
const PAGES: u32 = 64;
/// Height of the checkpoint, as far as its files say.
const HEIGHT: u64 = 7;

/// What the checkpoint's subnet was made with.
const GENESIS: &[u8] = include_bytes!("../corpus/genesis/application");

/// Takes the bytes for records, each a kind (1), a length (4) and its content, in files whose checksums are right. Tells whether a subnet
/// came of it; one that does must be able to make a checkpoint itself, and to come back from that.
pub fn check(input: &[u8]) -> bool {
    let disk = Arc::new(SimDisk::new(1));
    let folder = Path::new("/checkpoints");
    disk.create_directory(folder).expect("the disk works");
    let mut pages: Vec<u8> = (0..PAGES).flat_map(|page| [page as u8; PAGE]).collect();
    let mut frames = Vec::new();
    let (mut modules, mut canisters) = (Vec::new(), Vec::new());
    let mut rest = input;
    while let Some(([kind, length @ ..], behind)) = rest.split_first_chunk::<5>() {
        let length = (u32::from_le_bytes(*length) as usize).min(behind.len());
        let (content, behind) = behind.split_at(length);
        rest = behind;
        let page = PageAt { file: 1, index: (pages.len() / PAGE) as u32 };
        let at = RecordAt { page, offset: 0, length: content.len() as u64 };
        match kind % 6 {
            5 => frames.push((FrameKind::Program, content.to_vec())),
            0 => frames.push((FrameKind::Subnet, content.to_vec())),
            1 => frames.push((FrameKind::Statuses, content.to_vec())),
            2 => encode_entry((&Sha256::digest(content), at), &mut modules),
            3 => encode_entry((&name_of(content), at), &mut canisters),
            _ => frames.push((FrameKind::Canisters, content.to_vec())),
        }
        pages.extend_from_slice(content);
        pages.resize(pages.len().next_multiple_of(PAGE), 0);
    }
    let mut file = PageWriter::create(&*disk, folder, 1).expect("the disk works");
    file.append(&pages).expect("the disk works");
    file.finish(&*disk).expect("the disk works");
    let used = FileUse { number: 1, pages: (pages.len() / PAGE) as u32, used: pages.len() as u64 };
    // No manifest is there: it is compared by who asks for that, and the next one is made from nothing.
    let mut state = StateWriter::create(&*disk, folder, HEIGHT, &[used]).expect("the disk works");
    frames.extend([(FrameKind::Modules, modules), (FrameKind::Canisters, canisters)]);
    for (kind, content) in frames {
        state.record(kind, &content).expect("the disk works");
    }
    state.commit(&*disk).expect("the disk works");
    let restore = || {
        let genesis = Genesis::decode(GENESIS).expect("the corpus holds a genesis");
        let options = SubnetOptions::unsigned(genesis, 1).expect("this machine can run a subnet");
        let mut subnet = Subnet::new(options).expect("this machine has threads");
        let mut checkpointer = Checkpointer::new(Arc::clone(&disk), folder).expect("the disk works");
        checkpointer.restore(&mut subnet, Height(HEIGHT)).map(|()| (subnet, checkpointer))
    };
    match restore() {
        Ok((mut subnet, mut checkpointer)) => {
            let before = subnet.state_hash();
            checkpointer.make(&mut subnet).expect("the disk works");
            let files = PageFiles::default();
            let manifest = Making { disk: &*disk, folder, files: &files, threads: 1 };
            manifest.verify(subnet.height().0).expect("what a subnet wrote is what its manifest says");
            let (mut again, _) = restore().expect("what a subnet wrote is a checkpoint");
            assert_eq!(again.state_hash(), before);
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("/checkpoints/0000000000000007."), "{error}");
            false
        }
    }
}

/// The id in a canister's record; nothing if there is none.
fn name_of(record: &[u8]) -> Vec<u8> {
    let Some((_, record)) = decode_places(record) else { return Vec::new() };
    let Ok(ciborium::Value::Map(fields)) = ciborium::from_reader(record) else { return Vec::new() };
    let id = fields.into_iter().find(|(key, _)| key.as_text() == Some("id"));
    let id = id.and_then(|(_, value)| value.into_bytes().ok()).unwrap_or_default();
    id.into_iter().take(255).collect()
}
