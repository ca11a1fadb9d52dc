// What must hold for all frames of a manifest; shared by the fuzz target and the test that replays its corpus.

use cyclotron_storage::manifest::{decode_files, encode_file};

/// Bytes of a file beyond which its hash is not made here: there is one for each of its chunks.
const HASHED_MAX: u64 = 64 << 20;

/// Takes the bytes for files of a manifest. Tells whether they are; then they are written as they were read.
pub fn check(input: &[u8]) -> bool {
    let mut again = Vec::new();
    let mut before = String::new();
    for file in decode_files(input) {
        let Some(file) = file else {
            assert!(input.starts_with(&again), "what is whole has one form");
            return false;
        };
        assert!(before.as_str() < file.path(), "paths ascend");
        if file.size() <= HASHED_MAX {
            let last = file.chunks().last().map_or(0, |chunk| chunk.offset + u64::from(chunk.bytes));
            assert_eq!(last, file.size(), "chunks cover the file");
            let _ = file.hash();
        }
        encode_file(&before, &file, &mut again);
        file.path().clone_into(&mut before);
    }
    assert!(again == input, "a frame has one form");
    true
}
