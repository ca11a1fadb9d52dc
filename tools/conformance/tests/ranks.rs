//! The plan of the house, held to `cargo metadata`: a crate depends only on crates of its own folder or of folders to its left,
//! and the node depends on no engine or tool that may only be a peer.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Folders from left to right.
const RANKS: [&str; 7] = ["components", "shaders", "engine", "storage", "systems", "perf", "tools"];

struct Crate {
    folder: usize,
    directory: String,
    dependencies: Vec<(String, Option<String>)>,
}

fn workspace() -> BTreeMap<String, Crate> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let root = metadata["workspace_root"].as_str().expect("a root").to_owned();
    let text = |v: &serde_json::Value| v.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let directory = text(&package["manifest_path"])[root.len() + 1..].replace("/Cargo.toml", "");
            let folder = directory.split('/').next().expect("a folder");
            let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
            let folder = RANKS
                .iter()
                .position(|r| *r == folder)
                .unwrap_or_else(|| panic!("{directory} is in no room of the plan"));
            let dependencies =
                dependencies.map(|d| (text(&d["name"]), d["kind"].as_str().map(str::to_owned))).collect();
            (text(&package["name"]), Crate { folder, directory, dependencies })
        })
        .collect()
}

#[test]
fn no_crate_depends_on_a_folder_to_its_right() {
    let crates = workspace();
    let mut wrong = Vec::new();
    for (name, package) in &crates {
        for (dependency, _) in &package.dependencies {
            if crates.get(dependency).is_some_and(|d| d.folder > package.folder) {
                wrong.push(format!("{name} ({}) -> {dependency}", package.directory));
            }
        }
    }
    assert!(wrong.is_empty(), "edges against the rank: {wrong:#?}");
}

#[test]
fn every_package_is_named_for_its_folder() {
    for (name, package) in workspace() {
        let last = package.directory.rsplit('/').next().expect("a folder");
        let expected = match package.directory.as_str() {
            "tools/cyclotron" => "cyclotron".to_owned(),
            "perf/bench" => "cyclotron-perf".to_owned(),
            _ => format!("cyclotron-{last}"),
        };
        assert_eq!(name, expected, "{}", package.directory);
    }
}

#[test]
fn peers_and_oracles_are_no_part_of_the_node() {
    let crates = workspace();
    let peers = BTreeSet::from(["wasmtime", "wasmi", "wasm-smith", "pocket-ic"]);
    for (name, package) in &crates {
        for (dependency, kind) in &package.dependencies {
            let in_tests_or_perf = kind.as_deref() == Some("dev") || RANKS[package.folder] == "perf";
            assert!(in_tests_or_perf || !peers.contains(dependency.as_str()), "{name} depends on {dependency}");
        }
    }
    for (name, package) in &crates {
        assert!(!package.dependencies.iter().any(|(d, _)| d == "cyclotron-perf"), "{name} depends on the benchmarks");
    }
}

#[test]
fn tokio_lives_in_net_and_in_programs() {
    for (name, package) in workspace() {
        let allowed = name == "cyclotron-net" || RANKS[package.folder] == "tools" || RANKS[package.folder] == "perf";
        let uses = package.dependencies.iter().any(|(d, kind)| d == "tokio" && kind.as_deref() != Some("dev"));
        assert!(allowed || !uses, "{name} depends on tokio");
    }
}
