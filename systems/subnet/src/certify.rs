//! The end of a round: what changed enters the state tree, and the root is signed.

use crate::state_hash::StateHash;
use crate::totals::Totals;
use cyclotron_certification::{CanisterFacts, CodeFacts, StateTree, SubnetMetrics};
use cyclotron_crypto::RootSigner;
use cyclotron_execution::Program;
use cyclotron_routing::{ActiveSet, Answered, CurrentRound, Directory, IngressHistory, Tally, Touched};
use cyclotron_scheduling::Installing;
use cyclotron_types::Principal;
use cyclotron_types::batch::CertifiedView;
use cyclotron_types::canister::{CanisterHistory, CertifiedData, Controllers};
use cyclotron_types::units::Time;
use cyclotron_world::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The certified state tree.
#[derive(Resource)]
pub struct Tree(pub StateTree);

/// The key, or the share of it, that signs roots.
#[derive(Resource)]
pub struct Signer(pub Arc<dyn RootSigner>);

/// What the last round left for the outside.
#[derive(Debug, Default, Resource)]
pub struct View(pub Option<CertifiedView>);

/// What the tree shows of a canister besides its certified data: a touched canister has seldom changed it.
#[derive(Debug, Default, PartialEq, Eq, Component)]
pub struct Shown(Option<Facts>);

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    controllers: BTreeSet<Principal>,
    /// Names the metadata too: it is part of the module.
    module_hash: Option<[u8; 32]>,
    created: Option<Time>,
    installed: Option<Time>,
}

/// Takes the facts of touched canisters into the tree; those that are gone leave it. Cost: O(touched), most of it a comparison, and O(active + installing) where
/// state hashes are taken.
pub fn certify_canisters(
    active: Res<ActiveSet>,
    installing: Res<Installing>,
    directory: Res<Directory>,
    mut touched: ResMut<Touched>,
    mut tree: ResMut<Tree>,
    mut hash: ResMut<StateHash>,
    mut canisters: Query<(&Controllers, &CertifiedData, &CanisterHistory, &Program, &mut Shown)>,
) {
    // Messages arrive, priorities grow and executions are aborted without the canister having run, but only where there is work.
    hash.canisters_changed(active.iter().map(|(id, _)| id).chain(installing.0.keys().copied()));
    hash.canisters_changed(touched.0.iter().copied());
    for id in std::mem::take(&mut touched.0) {
        let Some((controllers, data, history, program, mut shown)) =
            directory.entity(id).and_then(|e| canisters.get_mut(e).ok())
        else {
            tree.0.remove_canister(id);
            continue;
        };
        let installed = program.installed();
        if shown.0.as_ref().is_some_and(|shown| {
            shown.module_hash.as_ref() == installed.map(|i| &i.module_hash)
                && shown.controllers == controllers.0
                && (shown.created, shown.installed) == (history.created, history.installed)
        }) {
            tree.0.set_certified_data(id, &data.0);
            continue;
        }
        let metadata: Vec<(&str, &[u8])> =
            installed.into_iter().flat_map(|i| i.all_metadata()).map(|(name, _, content)| (name, content)).collect();
        let code = installed.map(|i| CodeFacts {
            module_hash: &i.module_hash,
            installed: history.installed,
            metadata: &metadata,
        });
        let facts =
            CanisterFacts { controllers: &controllers.0, certified_data: &data.0, created: history.created, code };
        tree.0.upsert_canister(id, &facts);
        shown.0 = Some(Facts {
            controllers: controllers.0.clone(),
            module_hash: installed.map(|i| i.module_hash),
            created: history.created,
            installed: history.installed,
        });
    }
}

/// Takes the changed ingress statuses into the tree. Cost: O(changed).
pub fn certify_statuses(mut history: ResMut<IngressHistory>, mut tree: ResMut<Tree>, mut hash: ResMut<StateHash>) {
    for id in history.take_changed() {
        hash.status_changed(id);
        match history.get(&id) {
            Some(entry) => tree.0.upsert_request_status(id, &entry.status),
            None => tree.0.remove_request_statuses([&id]),
        }
    }
}

/// Sets the subnet's metrics. Cost: a comparison when they are as they were.
/// Spec: ic-interface-spec #state-tree-subnet.
pub fn certify_metrics(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    totals: Res<Totals>,
    tally: Res<Tally>,
    mut tree: ResMut<Tree>,
) {
    let metrics = SubnetMetrics {
        canisters: directory.len() as u64,
        canister_state: totals.0.state,
        consumed_cycles: tally.burned,
        update_transactions: tally.executed,
    };
    tree.0.set_subnet_metrics(round.0.subnet.subnet, &metrics);
}

/// Sets the time, hashes what changed, signs the root and leaves the view.
pub fn certify_round(
    round: Res<CurrentRound>,
    signer: Res<Signer>,
    mut answered: ResMut<Answered>,
    mut tree: ResMut<Tree>,
    mut view: ResMut<View>,
) {
    tree.0.set_time(round.0.time);
    let certified = tree.0.certify(&*signer.0);
    view.0 = Some(CertifiedView {
        height: round.0.height,
        time: round.0.time,
        root: certified.root,
        signature: certified.signature,
        answered: std::mem::take(&mut answered.0),
    });
}
