//! Forks: what the copy has, and what it has of its own.

use super::install::{FULL, install, module};
use super::*;
use crate::management::fork::{Forked, fork_canister};
use cyclotron_types::action::ActionRefused;
use cyclotron_types::canister::{Change, ChangeDetails, ChangeOrigin};

fn fork(subnet: &mut Subnet, source: CanisterId) -> Result<Forked, ActionRefused> {
    let mut context = ManagementContext {
        env: &subnet.env,
        canisters: &mut subnet.fleet,
        ids: &mut subnet.ids,
        random: &mut subnet.random,
        node: &subnet.node,
    };
    fork_canister(&mut context, source, None)
}

#[test]
fn the_history_of_a_fork_begins_with_it_and_names_its_source() {
    let mut subnet = Subnet::new();
    let source = subnet.create();
    install(&mut subnet, source, ic::CanisterInstallMode::Install, &module(FULL)).reply();
    let chunk = ic::UploadChunkArgs { canister_id: source.principal(), chunk: vec![1, 2, 3] };
    subnet.user_call(user(1), "upload_chunk", &chunk).reply();
    subnet.canister(source).reserved.0 = Cycles(5);
    let before = subnet.cycles();
    let Forked { canister, minted } = fork(&mut subnet, source).unwrap();
    assert_eq!(subnet.cycles(), before.saturating_add(minted));

    let version = subnet.canister(source).version.0;
    let origin = ChangeOrigin::Canister { id: source, version: Some(version) };
    let change = |details| Change { time: START, version: version + 1, origin: origin.clone(), details };
    let hash = *subnet.canister(source).program.module_hash().unwrap();
    let copy = subnet.canister(canister);
    let created = ChangeDetails::Creation { controllers: vec![user(1)], environment_hash: None };
    let deployed =
        ChangeDetails::CodeDeployment { mode: cyclotron_types::canister::InstallMode::Install, module_hash: hash };
    assert_eq!(copy.history.changes, [change(created.clone()), change(deployed)]);
    assert_eq!((copy.history.total, copy.history.created, copy.history.installed), (2, Some(START), Some(START)));
    assert_eq!(copy.version.0, version + 1);
    let copy = (copy.controllers.clone(), copy.settings.clone(), copy.chunks.clone(), copy.reserved);
    let source = subnet.canister(source);
    assert_eq!(copy, (source.controllers.clone(), source.settings.clone(), source.chunks.clone(), source.reserved));

    let empty = subnet.create();
    let bare = fork(&mut subnet, empty).unwrap().canister;
    let changes = &subnet.canister(bare).history.changes;
    assert!(
        matches!(changes.iter().map(|change| &change.details).collect::<Vec<_>>()[..], [details] if *details == created)
    );
}

#[test]
fn an_id_is_not_used_up_by_what_is_refused() {
    let mut subnet = Subnet::new();
    let source = subnet.create();
    subnet.fleet.with_messages.insert(source);
    assert_eq!(fork(&mut subnet, source), Err(ActionRefused::MessagesWait(source)));
    subnet.fleet.with_messages.clear();
    subnet.fleet.other_use.compute = 299;
    subnet.canister(source).settings.compute_allocation = 1;
    assert_eq!(fork(&mut subnet, source), Err(ActionRefused::OutOfCompute { required: 1, available: 0 }));
    subnet.fleet.other_use.compute = 0;
    let forked = fork(&mut subnet, source).unwrap();
    assert_eq!(forked.canister.to_u64(), source.to_u64().map(|number| number + 1));
    while fork(&mut subnet, source).is_ok() {}
    assert_eq!(fork(&mut subnet, source), Err(ActionRefused::OutOfIds));
}
