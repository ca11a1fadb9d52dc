//! Manifests: what is hashed, beside a second implementation; and made from the one before, which must be the same as made from nothing.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../../tools/fuzz/checks/manifest.rs"]
mod check;
#[path = "../../tools/fuzz/checks/corpus.rs"]
mod corpus;

use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{PageAt, PageRun};
use cyclotron_ports::{Disk, Fault, SimDisk, SimEntropy};
use cyclotron_storage::checkpoint::{
    FileUse, PageFiles, PageWriter, RecordAt, StateWriter, encode_entry, encode_places,
};
use cyclotron_storage::manifest::{
    CHUNK_BYTES, Checkpoint, Chunk, Copied, Making, ManifestFile, ManifestReader, ManifestRoot, Tables, chunk_hash,
    chunks_of, file_hash, manifest_root,
};
use cyclotron_storage::{FrameKind, StorageError};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

const HERE: &str = "/checkpoints";

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap())
}

/// Source: dfinity/ic, `rs/state_manager/src/manifest/tests/compatibility.rs`, `deterministic_manifest_hash`: a checkpoint of a real subnet. Its files have
/// the hashes of version 2; what is hashed of them for the root is the same in version 3, but for the number.
#[test]
fn a_published_manifest_comes_to_its_published_root() {
    let empty = hex("981305d7c0b2ace0f53fe822f4075278fa28511e8c34e70f37fd8425af659b36");
    assert_eq!(file_hash(std::iter::empty()), empty);
    let canister = |file: &str| format!("canister_states/00000000001000000101/{file}");
    let mut tables = Tables::new(2, 1);
    for (path, size, hash) in [
        ("bitcoin/testnet/address_outpoints.bin".into(), 0, empty),
        (
            "bitcoin/testnet/state.pbuf".into(),
            319,
            hex("5b47e1fb48988925cecb65aa78b9af5191338b761d16285ad99d550e8f518225"),
        ),
        ("bitcoin/testnet/utxos_medium.bin".into(), 0, empty),
        ("bitcoin/testnet/utxos_small.bin".into(), 0, empty),
        (canister("canister.pbuf"), 192, hex("4c99cb3e6eb95d37a72345a79c78c58c3d3a193ad47789b29156e0245cc44a42")),
        (canister("queues.pbuf"), 0, empty),
        (canister("software.wasm"), 218, hex("c790871526c7130487da1a88ce300074b50d1020f6368e043726af40535c3893")),
        (canister("stable_memory.bin"), 0, empty),
        (canister("vmemory_0.bin"), 0, empty),
        ("subnet_queues.pbuf".into(), 0, empty),
        ("system_metadata.pbuf".into(), 887, hex("1c134cd6a9d691d3ec74a81eec5462d5af8653be53beb61e26b884958ebd2d05")),
    ] {
        tables.file(&path, size, &hash);
    }
    for (file, bytes, hash) in [
        (1, 319, "4cbaf08a21e06f3a359ec28b9a774eb79cf2c22164540ab4c37a9d6427b7b258"),
        (4, 192, "92b48865e4c666592080e97cf49f4bb18ea1b24811c754c52a391554a4be959c"),
        (6, 218, "66de6749199845f0fa41b0e0c944eb06ba1927197970674dd242895a82d359fe"),
        (10, 887, "2b71ffd247351b2918a1d64a5f019d79de950ff612efc8a4a1e81b5f6543f517"),
    ] {
        tables.chunk(file, &Chunk { offset: 0, bytes, hash: hex(hash) });
    }
    assert_eq!(tables.root(), hex("24dad2a74373217053106e533da8fa2dc67560e0780df06bdd5ca9eb749d1242"));
}

/// A second implementation, of files as they would be: bytes by paths.
mod second {
    use super::*;

    fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update([domain.len() as u8]);
        hasher.update(domain);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().into()
    }

    fn varint(value: u64) -> Vec<u8> {
        if value < 128 { vec![value as u8] } else { [vec![value as u8 | 128], varint(value >> 7)].concat() }
    }

    /// A number or bytes with a tag, unless it is nothing.
    fn number(tag: u8, value: u64) -> Vec<u8> {
        if value == 0 { vec![] } else { [vec![tag], varint(value)].concat() }
    }

    fn bytes(tag: u8, value: &[u8]) -> Vec<u8> {
        if value.is_empty() { vec![] } else { [vec![tag], varint(value.len() as u64), value.to_vec()].concat() }
    }

    pub fn root(files: &BTreeMap<String, Vec<u8>>) -> [u8; 32] {
        let mut encoded = number(0x08, 3);
        let mut table = Vec::new();
        for (index, (path, content)) in files.iter().enumerate() {
            let mut of_file = Vec::new();
            for (n, chunk) in content.chunks(1 << 20).enumerate() {
                let (size, offset) = (chunk.len() as u32, (n as u64) << 20);
                let digest = hash("ic-state-chunk", &[chunk]);
                of_file.push([&size.to_be_bytes()[..], &offset.to_be_bytes(), &digest].concat());
                let entry = [
                    number(0x08, index as u64),
                    number(0x10, u64::from(size)),
                    number(0x18, offset),
                    bytes(0x22, &digest),
                ];
                table.extend(bytes(0x1a, &entry.concat()));
            }
            let digest = hash("ic-state-file", &[&(of_file.len() as u32).to_be_bytes(), &of_file.concat()]);
            let entry = [bytes(0x0a, path.as_bytes()), number(0x10, content.len() as u64), bytes(0x1a, &digest)];
            encoded.extend(bytes(0x12, &entry.concat()));
        }
        encoded.extend(table);
        let pieces: Vec<_> = encoded.chunks(1 << 20).map(|piece| hash("ic-state-sub-manifest", &[piece])).collect();
        let count = (pieces.len() as u32).to_be_bytes();
        hash("ic-state-meta-manifest", &[&3u32.to_be_bytes(), &count, &pieces.concat()])
    }
}

#[test]
fn tables_of_any_length_come_to_the_root_of_the_second_implementation_on_any_number_of_threads() {
    // A manifest of 40,000 small files has more than one piece.
    for count in [0u32, 1, 7, 8, 9, 40_000] {
        let files: BTreeMap<String, Vec<u8>> =
            (0..count).map(|n| (format!("files/{n:05}"), vec![n as u8; n as usize % 5])).collect();
        for threads in [1, 2, 4] {
            let mut tables = Tables::new(3, threads);
            let listed: Vec<_> = files
                .iter()
                .map(|(path, content)| {
                    let hashes = content.chunks(CHUNK_BYTES).map(chunk_hash);
                    ManifestFile::new(path.clone(), content.len() as u64, hashes)
                })
                .collect();
            listed.iter().for_each(|file| tables.file(file.path(), file.size(), &file.hash()));
            for (n, file) in listed.iter().enumerate() {
                file.chunks().for_each(|chunk| tables.chunk(n as u32, &chunk));
            }
            assert_eq!(tables.root(), second::root(&files), "{count} files, {threads} threads");
        }
    }
}

/// What is in a canister: its record's content, and the pages of its memories.
#[derive(Clone, Default)]
struct Canister {
    content: Vec<u8>,
    memories: [BTreeMap<u32, Box<[u8; PAGE]>>; 2],
}

/// A state, and where each page and record of it lies.
#[derive(Clone, Default)]
struct Model {
    canisters: BTreeMap<Vec<u8>, Canister>,
    modules: BTreeMap<[u8; 32], Vec<u8>>,
    statuses: Vec<Vec<u8>>,
    subnet: Vec<u8>,
    pages: BTreeMap<(Vec<u8>, usize, u32), PageAt>,
    records: BTreeMap<Vec<u8>, RecordAt>,
    modules_at: BTreeMap<[u8; 32], RecordAt>,
}

/// A file of pages in the making.
struct File {
    number: u32,
    pages: Vec<u8>,
    copied: Vec<Copied>,
}

impl File {
    fn next(&self) -> PageAt {
        PageAt { file: self.number, index: (self.pages.len() / PAGE) as u32 }
    }

    fn page(&mut self, content: &[u8; PAGE]) -> PageAt {
        let at = self.next();
        self.pages.extend_from_slice(content);
        at
    }

    /// Somewhere on the next pages.
    fn record(&mut self, offset: u32, content: &[u8]) -> RecordAt {
        let page = self.next();
        self.pages.extend(std::iter::repeat_n(0xee, offset as usize));
        self.pages.extend_from_slice(content);
        self.pages.resize(self.pages.len().next_multiple_of(PAGE), 0xdd);
        RecordAt { page, offset, length: content.len() as u64 }
    }
}

impl Model {
    fn random(&mut self, random: &mut SimEntropy) {
        let below = |bound: u64| random.next_u64() % bound;
        for _ in 0..1 + below(6) {
            let name = [b"\x01\x02".repeat(1 + below(3) as usize), vec![below(4) as u8]].concat();
            match below(10) {
                0 => drop(self.canisters.remove(&name)),
                1 => {
                    let content = vec![below(256) as u8; below(1_200_000) as usize];
                    self.canisters.entry(name).or_default().content = content;
                }
                2 => {
                    let content = vec![below(256) as u8; below(1_100_000) as usize];
                    self.modules.insert(Sha256::digest(&content).into(), content);
                }
                3 => drop(self.modules.pop_first()),
                4 => {
                    // A memory becomes shorter, or empty.
                    let end = below(700) as u32;
                    let canister = self.canisters.entry(name).or_default();
                    canister.memories[below(2) as usize].retain(|page, _| *page < end);
                }
                5 => {
                    // Another canister's memories, which lie where those of the first do.
                    let other = self.canisters.values().next().cloned().unwrap_or_default();
                    self.canisters.insert(name, other);
                }
                _ => {
                    let canister = self.canisters.entry(name).or_default();
                    canister.content.push(below(256) as u8);
                    for _ in 0..1 + below(20) {
                        let (memory, page) = (below(2) as usize, below(600) as u32);
                        let page = if below(3) == 0 { page } else { page % 20 };
                        match below(5) {
                            0 => drop(canister.memories[memory].remove(&page)),
                            _ => {
                                let byte = 1 + below(255) as u8;
                                canister.memories[memory].insert(page, Box::new([byte; PAGE]));
                            }
                        }
                    }
                }
            }
        }
        self.statuses = (0..below(3)).map(|n| vec![n as u8; below(1_500_000) as usize]).collect();
        self.subnet = below(1 << 40).to_le_bytes().to_vec();
    }

    /// Lays out a checkpoint: what differs from `before` is written, and some of the rest moved.
    fn lay_out(&mut self, before: &Model, number: u32, random: &mut SimEntropy) -> (File, Vec<(FrameKind, Vec<u8>)>) {
        let mut file = File { number, pages: Vec::new(), copied: Vec::new() };
        let below = |bound: u64| random.next_u64() % bound;
        let old_pages = std::mem::take(&mut self.pages);
        let old_records = std::mem::take(&mut self.records);
        for (name, canister) in &self.canisters {
            let was = before.canisters.get(name);
            let mut changed = was.is_none_or(|was| was.content != canister.content);
            let moves = below(5) == 0;
            for memory in 0..2 {
                for (page, content) in &canister.memories[memory] {
                    let key = (name.clone(), memory, *page);
                    let same = was.is_some_and(|was| was.memories[memory].get(page) == Some(content));
                    let at = match old_pages.get(&key).filter(|_| same) {
                        Some(at) if !moves => *at,
                        Some(at) => {
                            changed = true;
                            let to = file.page(content);
                            match file.copied.last_mut() {
                                Some(last)
                                    if last.to.index + last.count == to.index
                                        && (last.from.file, last.from.index + last.count) == (at.file, at.index) =>
                                {
                                    last.count += 1;
                                }
                                _ => file.copied.push(Copied { to, count: 1, from: *at }),
                            }
                            to
                        }
                        None => {
                            changed = true;
                            file.page(content)
                        }
                    };
                    self.pages.insert(key, at);
                }
                changed |= was.is_some_and(|was| was.memories[memory].len() != canister.memories[memory].len());
            }
            let at = match old_records.get(name).filter(|_| !changed && below(4) > 0) {
                Some(at) => *at,
                None => {
                    let places = [0, 1].map(|memory| self.runs(name, memory));
                    let mut record = Vec::new();
                    encode_places(&places, &mut record);
                    record.extend_from_slice(&canister.content);
                    file.record(below(PAGE as u64) as u32, &record)
                }
            };
            self.records.insert(name.clone(), at);
        }
        for (hash, content) in &self.modules {
            let at = match before.modules_at.get(hash).filter(|_| below(4) > 0) {
                Some(at) => *at,
                None => file.record(below(PAGE as u64) as u32, content),
            };
            self.modules_at.insert(*hash, at);
        }
        self.modules_at.retain(|hash, _| self.modules.contains_key(hash));
        let mut frames = vec![(FrameKind::Program, b"whichever".to_vec()), (FrameKind::Subnet, self.subnet.clone())];
        frames.extend(self.statuses.iter().map(|frame| (FrameKind::Statuses, frame.clone())));
        let mut modules = Vec::new();
        self.modules_at.iter().for_each(|(hash, at)| encode_entry((hash, *at), &mut modules));
        frames.push((FrameKind::Modules, modules));
        // Two frames, at least.
        for (name, at) in &self.records {
            let mut entry = Vec::new();
            encode_entry((name, *at), &mut entry);
            frames.push((FrameKind::Canisters, entry));
        }
        (file, frames)
    }

    fn runs(&self, name: &[u8], memory: usize) -> Vec<PageRun> {
        let mut runs = Vec::new();
        for ((_, _, page), at) in self.pages.range((name.to_vec(), memory, 0)..=(name.to_vec(), memory, u32::MAX)) {
            PageRun::push(&mut runs, PageRun { first: *page, count: 1, at: *at });
        }
        runs
    }

    /// The files that the manifest is about.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (name, canister) in &self.canisters {
            let folder = format!("canister_states/{}", hex(name));
            files.insert(format!("{folder}/canister.cbor"), canister.content.clone());
            for (memory, label) in canister.memories.iter().zip(["vmemory_0.bin", "stable_memory.bin"]) {
                let Some((last, _)) = memory.last_key_value() else { continue };
                let mut content = vec![0; (*last as usize + 1) * PAGE];
                for (page, bytes) in memory {
                    content[*page as usize * PAGE..][..PAGE].copy_from_slice(&bytes[..]);
                }
                files.insert(format!("{folder}/{label}"), content);
            }
        }
        for (hash, content) in &self.modules {
            files.insert(format!("modules/{}.wasm", hex(hash)), content.clone());
        }
        files.insert("ingress_history.cbor".into(), self.statuses.concat());
        files.insert("system_metadata.cbor".into(), self.subnet.clone());
        files
    }
}

/// Writes the pages, the state and the manifest of a checkpoint, which needs all files of pages so far.
fn write(
    disk: &SimDisk,
    height: u64,
    (file, frames): &(File, Vec<(FrameKind, Vec<u8>)>),
    before: Option<u64>,
    threads: usize,
) -> Result<ManifestRoot, StorageError> {
    let folder = Path::new(HERE);
    let mut writer = PageWriter::create(disk, folder, file.number)?;
    writer.append(&file.pages)?;
    writer.finish(disk)?;
    let files = PageFiles::default();
    let mut used = Vec::new();
    for number in 1..=file.number {
        used.push(FileUse { number, pages: files.open(disk, folder, number)?, used: 1 });
    }
    let mut state = StateWriter::create(disk, folder, height, &used)?;
    for (kind, content) in frames {
        state.record(*kind, content)?;
    }
    state.commit(disk)?;
    let making = Making { disk, folder, files: &files, threads };
    making.write(&Checkpoint { height, frames, copied: &file.copied }, before)?;
    Ok(manifest_root(disk, folder, height, threads)?.unwrap())
}

/// Of a checkpoint that has its manifest.
fn verify(disk: &SimDisk, height: u64, threads: usize) -> Result<ManifestRoot, StorageError> {
    let files = PageFiles::default();
    let root = Making { disk, folder: Path::new(HERE), files: &files, threads }.verify(height)?;
    Ok(root.expect("it has its manifest"))
}

fn bytes_of(disk: &SimDisk, height: u64) -> Vec<u8> {
    disk.read(&Path::new(HERE).join(format!("{height:016x}.manifest")), u64::MAX).unwrap().bytes
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_directory(Path::new(HERE)).unwrap();
    disk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_manifest_made_from_the_one_before_is_the_one_made_from_nothing_and_of_the_second_implementation(
        seed in any::<u64>(),
    ) {
        let disk = new_disk();
        let mut random = SimEntropy::new(seed);
        let mut model = Model::default();
        for height in 1..=5 {
            let before = model.clone();
            model.random(&mut random);
            let laid_out = model.lay_out(&before, height as u32, &mut random);
            let root = write(&disk, height, &laid_out, (height > 1).then(|| height - 1), 1 + height as usize % 4).unwrap();
            prop_assert_eq!(root.hash, second::root(&model.files()), "height {}", height);
            let incremental = bytes_of(&disk, height);
            for threads in [1, 2, 4] {
                prop_assert_eq!(verify(&disk, height, threads).unwrap(), root);
                write(&disk, height, &laid_out, None, threads).unwrap();
                prop_assert!(bytes_of(&disk, height) == incremental, "height {}, {} threads", height, threads);
            }
            // Two checkpoints back: copies were not made from there.
            if height > 2 {
                write(&disk, height, &laid_out, Some(height - 2), 2).unwrap();
                prop_assert!(bytes_of(&disk, height) == incremental);
            }
        }
        // The same state in one file of pages.
        let elsewhere = new_disk();
        let mut alone = Model { pages: BTreeMap::new(), records: BTreeMap::new(), modules_at: BTreeMap::new(), ..model };
        let laid_out = alone.lay_out(&Model::default(), 1, &mut random);
        write(&elsewhere, 5, &laid_out, None, 1).unwrap();
        prop_assert!(bytes_of(&elsewhere, 5) == bytes_of(&disk, 5));
    }
}

/// A state with a canister whose heap has two chunks and something between, and a module.
fn small() -> Model {
    let pages = |numbers: &[u32]| numbers.iter().map(|n| (*n, Box::new([(*n % 250) as u8 + 1; PAGE]))).collect();
    let canister = Canister { content: b"a canister".to_vec(), memories: [pages(&[0, 1, 255, 256]), pages(&[3])] };
    Model {
        canisters: [(vec![7, 1, 1], canister)].into(),
        modules: [(Sha256::digest(b"code").into(), b"code".to_vec())].into(),
        statuses: vec![b"statuses".to_vec()],
        subnet: b"subnet".to_vec(),
        ..Model::default()
    }
}

#[test]
fn a_sparse_memory_costs_what_is_in_it_and_not_its_length() {
    let disk = new_disk();
    let far = ((64u64 << 30) / PAGE as u64) as u32 - 1;
    let mut model = small();
    let canister = model.canisters.first_entry().unwrap().into_mut();
    canister.memories[1] = [(5, Box::new([1; PAGE])), (far, Box::new([2; PAGE]))].into();
    let laid_out = model.lay_out(&Model::default(), 1, &mut SimEntropy::new(1));
    let before = disk.operations();
    let root = write(&disk, 1, &laid_out, None, 1).unwrap();
    // A page more to read for each chunk that holds anything; 65,534 chunks are zero.
    assert!(disk.operations() - before < 200, "{} operations", disk.operations() - before);
    assert!(bytes_of(&disk, 1).len() < 8_192);
    let mut reader = ManifestReader::open(&disk, Path::new(HERE), 1).unwrap().unwrap();
    let file =
        std::iter::from_fn(|| reader.next_file().unwrap()).find(|file| file.path().ends_with("stable_memory.bin"));
    let file = file.unwrap();
    let mut first = vec![0; CHUNK_BYTES];
    first[5 * PAGE..6 * PAGE].fill(1);
    let mut last = vec![0; CHUNK_BYTES];
    last[255 * PAGE..].fill(2);
    let hashes: Vec<_> = file.hashes().collect();
    assert_eq!((file.size(), hashes.len()), (64 << 30, 65_536));
    assert_eq!(
        [hashes[0], hashes[1], hashes[65_534], hashes[65_535]],
        [chunk_hash(&first), chunk_hash(&[0; CHUNK_BYTES]), chunk_hash(&[0; CHUNK_BYTES]), chunk_hash(&last)]
    );
    assert_eq!(verify(&disk, 1, 2).unwrap(), root);
}

#[test]
fn what_the_manifest_does_not_say_is_noticed_although_all_checksums_are_right() {
    let disk = new_disk();
    let mut model = small();
    let laid_out = model.lay_out(&Model::default(), 1, &mut SimEntropy::new(1));
    write(&disk, 1, &laid_out, None, 1).unwrap();
    let good = bytes_of(&disk, 1);
    let path = Path::new(HERE).join("0000000000000001.manifest");
    let id = "canister_states/070101";
    type Change = fn(&mut Model);
    let changes: [(Change, String); 7] = [
        (|model| model.canisters.first_entry().unwrap().get_mut().content.push(1), format!("{id}/canister.cbor")),
        (
            |model| model.canisters.first_entry().unwrap().get_mut().memories[0].get_mut(&256).unwrap()[9] ^= 1,
            format!("{id}/vmemory_0.bin"),
        ),
        (|model| model.canisters.first_entry().unwrap().get_mut().memories[1].clear(), format!("{id}/vmemory_0.bin")),
        (|model| model.statuses.push(b"one more".to_vec()), "ingress_history.cbor".into()),
        (|model| model.subnet.push(0), "system_metadata.cbor".into()),
        (|model| model.modules.clear(), "system_metadata.cbor".into()),
        (|model| model.canisters.clear(), "ingress_history.cbor".into()),
    ];
    for (change, expected) in changes {
        let mut other = small();
        change(&mut other);
        let laid_out = other.lay_out(&Model::default(), 1, &mut SimEntropy::new(1));
        write(&disk, 1, &laid_out, None, 1).unwrap();
        verify(&disk, 1, 1).unwrap();
        disk.corrupt(&path, |file| file.clone_from(&good));
        match verify(&disk, 1, 1).unwrap_err() {
            StorageError::ManifestDiffers { file, path: named } => assert_eq!((file, &*named), (expected, &*path)),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn damaged_manifests_are_noticed_and_one_that_fails_at_any_operation_is_not_there() {
    let prepared = |seed| {
        let disk = SimDisk::new(seed);
        disk.create_directory(Path::new(HERE)).unwrap();
        let mut model = small();
        let first = model.lay_out(&Model::default(), 1, &mut SimEntropy::new(1));
        write(&disk, 1, &first, None, 1).unwrap();
        let before = model.clone();
        model.canisters.first_entry().unwrap().get_mut().memories[0].insert(700, Box::new([9; PAGE]));
        let second = model.lay_out(&before, 2, &mut SimEntropy::new(2));
        (disk, second)
    };
    let (disk, second) = prepared(0);
    let before = disk.operations();
    write(&disk, 2, &second, Some(1), 1).unwrap();
    let operations = disk.operations() - before;
    let expected = bytes_of(&disk, 2);
    for byte in (0..expected.len()).filter(|byte| *byte < 36 || *byte >= 4_096 && byte % 3 == 0) {
        let path = Path::new(HERE).join("0000000000000002.manifest");
        disk.corrupt(&path, |file| file[byte] ^= 1 << (byte % 8));
        let said = verify(&disk, 2, 1).unwrap_err().to_string();
        assert!(said.contains(path.to_str().unwrap()), "byte {byte}: {said}");
        disk.corrupt(&path, |file| file[byte] ^= 1 << (byte % 8));
    }
    for cut in (0..expected.len()).step_by(97) {
        let path = Path::new(HERE).join("0000000000000002.manifest");
        disk.corrupt(&path, |file| file.truncate(cut));
        verify(&disk, 2, 1).unwrap_err();
        disk.corrupt(&path, |file| file.clone_from(&expected));
    }
    verify(&disk, 2, 1).unwrap();
    let mut there = 0;
    for fault in [Fault::Full, Fault::Medium, Fault::Denied, Fault::PowerLoss] {
        for at in 0..operations {
            let (disk, second) = prepared(at as u64);
            disk.fail_after(at, fault);
            assert!(write(&disk, 2, &second, Some(1), 1).is_err(), "operation {at} failed with {fault:?}, unnoticed");
            disk.restart();
            verify(&disk, 1, 1).unwrap();
            if ManifestReader::open(&disk, Path::new(HERE), 2).unwrap().is_some() {
                verify(&disk, 2, 1).unwrap();
                assert!(bytes_of(&disk, 2) == expected);
                there += 1;
            }
        }
    }
    assert!(operations > 20 && there > 0, "{operations} operations, {there} there");
}

#[test]
fn chunks_cover_a_file_of_any_length() {
    for size in [0, 1, CHUNK_BYTES as u64 - 1, CHUNK_BYTES as u64, CHUNK_BYTES as u64 + 1, 5 << 20] {
        let mut end = 0;
        for (offset, bytes) in chunks_of(size) {
            assert!(offset == end && bytes > 0 && bytes as usize <= CHUNK_BYTES);
            end += u64::from(bytes);
            assert!(end == size || bytes as usize == CHUNK_BYTES);
        }
        assert_eq!(end, size);
    }
}

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("manifest"));

#[test]
fn frames_of_files_that_were_written_once_are_read() {
    let whole = CORPUS.iter().filter(|input| check::check(input)).count();
    assert!(CORPUS.len() >= 3 && whole >= 2, "{whole} of {}", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutated_frames_of_files_have_one_form_or_none(which: prop::sample::Index, edits in corpus::edits()) {
        check::check(&corpus::edited(&CORPUS, which, &edits));
    }
}
