//! Any bytes from a profiled program.
#![no_main]

#[path = "../checks/profile.rs"]
mod profile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| profile::check(input));
