//! Packages of the public registries, fetched by their ordinary clients and kept under `target/`.

use crate::root;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One package of a registry, at one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// A source distribution from PyPI, by pip.
    PypiSource(&'static str),
    /// A tarball from npm.
    Npm(&'static str),
}

/// The unpacked package, or why it cannot be had: a test that needs it is skipped then, and says so.
pub fn fetch(package: Package) -> Result<PathBuf, String> {
    let (tool, name) = match package {
        Package::PypiSource(name) => ("pip", name),
        Package::Npm(name) => ("npm", name),
    };
    let directory = root().join("target/registry").join(format!("{tool}-{}", name.replace(['/', '='], "-")));
    let complete = directory.join("complete");
    if complete.exists() {
        return Ok(directory);
    }
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let mut command = match package {
        Package::PypiSource(name) => {
            let mut pip = Command::new("python3");
            let bare = name.split(['=', '<', '>']).next().unwrap_or(name);
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", bare, name]);
            pip
        }
        Package::Npm(name) => {
            let mut npm = Command::new("npm");
            npm.args(["pack", "--silent", name]);
            npm
        }
    };
    run(command.current_dir(&directory))?;
    let archive = std::fs::read_dir(&directory)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("gz" | "tgz")))
        .ok_or_else(|| format!("{tool} left no archive of {name}"))?;
    run(Command::new("tar").arg("-xzf").arg(&archive).current_dir(&directory))?;
    std::fs::write(&complete, name).map_err(|error| error.to_string())?;
    Ok(directory)
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}", error.lines().last().unwrap_or("failed")))
}
