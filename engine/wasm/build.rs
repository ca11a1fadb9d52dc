//! Names the code generator: `CODE_GENERATOR` is another text whenever the sources of this crate, the layout of seats, or the versions of
//! what generates machine code are others. Code that was kept on disk under another name is never loaded.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What machine code also follows from, outside of this crate.
const BESIDES: [&str; 2] = ["../heap/src/layout.rs", "../../components/types/src/weights.rs"];
/// Versions of dependencies; missing where this crate is built as a part of another workspace, and then their sources are of its choice.
const LOCK: &str = "../../Cargo.lock";
/// Packages whose version decides about machine code, by the beginning of their names.
const GENERATORS: [&str; 3] = ["cranelift", "regalloc2", "wasmparser"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for path in files.into_iter().chain(BESIDES.map(|path| root.join(path))) {
        println!("cargo::rerun-if-changed={}", path.display());
        (path.strip_prefix(&root).unwrap_or(&path), fs::read(&path)?).hash(&mut hasher);
    }
    // A file more or less changes the folder's time.
    println!("cargo::rerun-if-changed={}", root.join("src").display());
    let lock = root.join(LOCK);
    if lock.exists() {
        println!("cargo::rerun-if-changed={}", lock.display());
        let text = fs::read_to_string(&lock)?;
        for package in text.split("[[package]]") {
            let name = package.lines().find_map(|line| line.strip_prefix("name = \""));
            if name.is_some_and(|name| GENERATORS.iter().any(|generator| name.starts_with(generator))) {
                package.hash(&mut hasher);
            }
        }
    }
    println!("cargo::rustc-env=CODE_GENERATOR={} {:016x}", env!("CARGO_PKG_VERSION"), hasher.finish());
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
