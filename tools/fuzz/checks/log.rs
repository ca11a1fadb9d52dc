// What must hold for all bytes of a log; shared by the fuzz target and the test that replays its corpus.

use cyclotron_ports::{Disk, SimDisk};
use cyclotron_storage::log::{Beginning, LogReader, LogWriter, RecordedQuery, decode_batch, encode_batch};
use cyclotron_storage::{FRAME_HEADER_BYTES, FrameKind, encode_block, encode_frame};
use std::path::Path;
use std::sync::Arc;

const PATH: &str = "/log/file";

/// Takes the first byte for what the others are: a file, a batch, a beginning or a query, a block of compressed frames, frames' contents in a file that is whole, or
/// frames of any kind and height in a block.
/// What is read must be what is written again; the rest must be refused without a panic.
pub fn check(input: &[u8]) {
    let Some((what, bytes)) = input.split_first() else { return };
    match what % 5 {
        0 => read(&disk_with(bytes)),
        1 => {
            if let Some(batch) = decode_batch(7, bytes) {
                let mut again = Vec::new();
                encode_batch(&batch, &mut again);
                assert_eq!(again, bytes, "a batch has one form");
            }
            if let Some(beginning) = Beginning::decode(bytes) {
                let mut again = Vec::new();
                beginning.encode(&mut again);
                assert_eq!(again, bytes, "a beginning has one form");
            }
            if let Some(query) = RecordedQuery::decode(bytes) {
                let mut again = Vec::new();
                query.encode(&mut again);
                assert_eq!(again, bytes, "a query has one form");
            }
        }
        2 => read(&written(|log| log.append(FrameKind::Block, 0, |out| out.extend_from_slice(bytes)))),
        4 => {
            let mut frames = Vec::new();
            for part in bytes.chunks(40) {
                let kinds = [
                    FrameKind::Batch,
                    FrameKind::Root,
                    FrameKind::StateHash,
                    FrameKind::Program,
                    FrameKind::End,
                    FrameKind::Beginning,
                    FrameKind::Query,
                    FrameKind::QueriesLeftOut,
                ];
                let height = part.get(1..9).map_or(1, |height| u64::from_le_bytes(height.try_into().expect("eight")));
                let kind = kinds[usize::from(part[0]) % kinds.len()];
                encode_frame(kind, height, &mut frames, |out| out.extend_from_slice(part));
            }
            let mut block = Vec::new();
            encode_block(1, &frames, &mut block);
            let content = &block[FRAME_HEADER_BYTES..];
            read(&written(|log| log.append(FrameKind::Block, 1, |out| out.extend_from_slice(content))));
        }
        _ => read(&written(|log| {
            for part in bytes.chunks(40) {
                match part[0] % 3 {
                    0 => log.append(FrameKind::Batch, log.height() + 1, |out| out.extend_from_slice(&part[1..])),
                    1 => log.append(FrameKind::Root, u64::from(part[0] / 3), |out| out.extend_from_slice(&part[1..])),
                    _ => log.append(FrameKind::Configuration, 1, |out| out.extend_from_slice(&part[1..])),
                }
            }
        })),
    }
}

fn disk_with(file: &[u8]) -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    disk.create_directory(Path::new("/log")).expect("the disk works");
    disk.write_new(Path::new(PATH), file, 0o600).expect("the disk works");
    Arc::new(disk)
}

fn written(append: impl FnOnce(&mut LogWriter<SimDisk>)) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(1));
    disk.create_directory(Path::new("/log")).expect("the disk works");
    let mut log = LogWriter::create_file(&*disk, Path::new(PATH), 1, b"genesis").expect("the disk works");
    append(&mut log);
    log.write().and_then(|written| written.make_lasting()).expect("the disk works");
    disk
}

/// Reads all frames, or an error that names the file.
fn read(disk: &Arc<SimDisk>) {
    let refused = |error: cyclotron_storage::StorageError| assert!(error.to_string().contains(PATH), "{error}");
    let mut log = match LogReader::open_file(disk.clone(), Path::new(PATH)) {
        Ok(log) => log,
        Err(error) => return refused(error),
    };
    let first = log.next_height();
    let mut next = first;
    loop {
        match log.next_frame() {
            Ok(Some(frame)) => {
                let begins = first == next && frame.height == first - 1;
                assert!(begins || frame.kind != FrameKind::Beginning, "a beginning is where a log begins");
                assert!(
                    frame.kind != FrameKind::Query || frame.height >= first - 1,
                    "a query is of a state that it comes to"
                );
                if frame.kind == FrameKind::Batch {
                    assert_eq!(frame.height, next, "batches come in order");
                    next += 1;
                }
            }
            Ok(None) => return,
            Err(error) => return refused(error),
        }
    }
}
