//! Any bytes as a DER public key.
#![no_main]

#[path = "../checks/signatures.rs"]
mod signatures;

libfuzzer_sys::fuzz_target!(|der: &[u8]| signatures::check(der));
