//! Any bytes as compiled code that was kept.
#![no_main]

#[path = "../checks/compiled_code.rs"]
mod compiled_code;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    compiled_code::check(input);
});
