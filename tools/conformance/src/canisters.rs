//! Canisters of this repository, compiled when a test needs them.

use crate::root;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The Wasm of a crate of `tools/canisters`, built from source. The build is shared with `tools/conformance/js/run`.
///
/// Panics: when it does not build.
pub fn canister(name: &str) -> Vec<u8> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let target = root().join("target/canisters");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--release", "--quiet", "--target", "wasm32-unknown-unknown", "-p", name])
        .arg("--manifest-path")
        .arg(root().join("tools/canisters/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{name} does not build (where the target is missing: rustup target add wasm32-unknown-unknown):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let wasm = target.join(format!("wasm32-unknown-unknown/release/{name}.wasm"));
    std::fs::read(&wasm).unwrap_or_else(|error| panic!("{}: {error}", wasm.display()))
}
