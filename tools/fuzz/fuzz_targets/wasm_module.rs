//! Whatever bytes a developer sends, decoding and the canister rules answer and do not panic.
#![no_main]

#[path = "../checks/wasm_module.rs"]
mod wasm_module;

libfuzzer_sys::fuzz_target!(|upload: &[u8]| {
    wasm_module::check(upload);
});
