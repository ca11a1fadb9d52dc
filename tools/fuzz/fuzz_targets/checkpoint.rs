//! Any bytes as the records of a checkpoint.
#![no_main]

#[path = "../checks/checkpoint.rs"]
mod checkpoint;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checkpoint::check(input);
});
