//! What a subnet is made with, as bytes: the fuzz target's corpus and mutations of it.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[path = "../../../tools/fuzz/checks/genesis.rs"]
mod genesis;

use cyclotron_subnet::Genesis;
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static KEPT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/fuzz/corpus/genesis/application");
    std::fs::read(file).expect("corpus file")
});

#[test]
fn a_genesis_written_by_the_first_version_is_read() {
    let genesis = Genesis::decode(&KEPT).unwrap();
    assert_eq!(genesis.encode(), *KEPT, "and has one form");
    assert_eq!((genesis.config.fees.nodes, genesis.scheduling.cores, genesis.provisional), (13, 4, true));
    genesis::check(b"");
    genesis::check(&KEPT[..KEPT.len() / 2]);
}

#[test]
fn a_field_that_is_not_known_is_refused_by_name() {
    let mut map: ciborium::Value = ciborium::from_reader(&KEPT[..]).unwrap();
    map.as_map_mut().unwrap().push(("dragons".into(), true.into()));
    let mut bytes = Vec::new();
    ciborium::into_writer(&map, &mut bytes).unwrap();
    assert!(Genesis::decode(&bytes).unwrap_err().contains("dragons"));
}

proptest! {
    #[test]
    fn mutations_hold(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut input = KEPT.clone();
        for (place, byte) in edits {
            *place.get_mut(&mut input) = byte;
        }
        genesis::check(&input);
    }
}
