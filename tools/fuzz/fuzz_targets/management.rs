//! Any bytes as the argument of a management method.
#![no_main]

#[path = "../checks/management.rs"]
mod management;

libfuzzer_sys::fuzz_target!(|input: &[u8]| management::check(input));
