//! Any bytes as what a subnet is made with.
#![no_main]

#[path = "../checks/genesis.rs"]
mod genesis;

libfuzzer_sys::fuzz_target!(|input: &[u8]| genesis::check(input));
