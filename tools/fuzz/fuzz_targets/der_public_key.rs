//! Any bytes as a DER public key.
#![no_main]

#[path = "../checks/der_public_key.rs"]
mod der_public_key;

libfuzzer_sys::fuzz_target!(|der: &[u8]| der_public_key::check(der));
