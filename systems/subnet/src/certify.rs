//! The end of a round: what changed enters the state tree, and the root is signed.

use crate::state_hash::StateHash;
use cyclotron_certification::{CanisterFacts, CodeFacts, StateTree};
use cyclotron_crypto::RootSigner;
use cyclotron_execution::Program;
use cyclotron_routing::{Answered, CurrentRound, Directory, IngressHistory, Touched};
use cyclotron_types::batch::CertifiedView;
use cyclotron_types::canister::{CanisterHistory, CertifiedData, Controllers};
use cyclotron_world::prelude::*;
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

/// Takes the facts of touched canisters into the tree; those that are gone leave it. Cost: O(touched).
pub fn certify_canisters(
    directory: Res<Directory>,
    mut touched: ResMut<Touched>,
    mut tree: ResMut<Tree>,
    mut hash: ResMut<StateHash>,
    canisters: Query<(&Controllers, &CertifiedData, &CanisterHistory, &Program)>,
) {
    for id in std::mem::take(&mut touched.0) {
        hash.canister_changed(id);
        let Some((controllers, data, history, program)) = directory.entity(id).and_then(|e| canisters.get(e).ok())
        else {
            tree.0.remove_canister(id);
            continue;
        };
        let installed = program.installed();
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
