//! The canisters of this repository as Wasm, built by cargo when a suite needs them. Never here: a Wasm file kept anywhere else.

use crate::runner::{Failure, failed};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds member `package` of `tools/canisters` into `target/canisters` and reads its Wasm.
///
/// Errors: cargo's own, which it prints itself; no such file afterwards.
pub fn build(package: &str) -> Result<Vec<u8>, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = target_dir(&root);
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--target", TARGET, "-p", package, "--manifest-path"])
        .arg(root.join("tools/canisters/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&root)
        .status()
        .map_err(|error| Failure(format!("cannot run cargo: {error}")))?;
    if !status.success() {
        return Err(Failure(format!("cargo could not build {package} for {TARGET}")));
    }
    let file = target.join(TARGET).join("release").join(format!("{package}.wasm"));
    std::fs::read(&file).map_err(|error| failed(format!("{}: {error}", file.display())))
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("canisters")
}
