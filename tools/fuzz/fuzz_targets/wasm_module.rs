//! Whatever bytes a developer sends, decoding and the canister rules answer and do not panic.
#![no_main]

use cyclotron_types::module_limits::MODULE_LIMITS;
use cyclotron_wasm::decode::{inflate, load};
use cyclotron_wasm::validate::Rules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(wasm) = inflate(data, MODULE_LIMITS.module) else { return };
    if let Err(error) = load(&wasm, &Rules::canister()) {
        assert!(!error.to_string().is_empty());
    }
});
