//! Any bytes as a request of an operator, and as an answer.
#![no_main]

#[path = "../checks/control.rs"]
mod control;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    control::check(input);
    control::is_understood(input);
});
