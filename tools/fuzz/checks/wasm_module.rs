// What must hold for every upload; shared by the fuzz target and the test that replays its corpus.

use cyclotron_types::module_limits::MODULE_LIMITS;
use cyclotron_wasm::decode::{inflate, load};
use cyclotron_wasm::validate::Rules;

/// Inflates and loads `upload`; a refusal says why. Tells whether it is a canister's module.
pub fn check(upload: &[u8]) -> bool {
    let Ok(wasm) = inflate(upload, MODULE_LIMITS.module) else { return false };
    match load(&wasm, &Rules::canister()) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
