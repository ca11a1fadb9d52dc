//! Any bytes as the body of a request.
#![no_main]

#[path = "../checks/envelope.rs"]
mod envelope;

libfuzzer_sys::fuzz_target!(|body: &[u8]| envelope::check(body));
