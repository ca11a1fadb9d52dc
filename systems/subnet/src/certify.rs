//! The end of a round: what changed enters the state that the outside sees, and the tree's root is signed.

use crate::actions::Acted;
use crate::checkpoint::Changed;
use crate::sink::Sinks;
use crate::state_hash::StateHash;
use crate::totals::Totals;
use bevy_ecs::query::QueryData;
use bevy_ecs::system::SystemParam;
use cyclotron_certification::{CanisterFacts, CodeFacts, SubnetMetrics};
use cyclotron_crypto::RootSigner;
use cyclotron_execution::{CanisterData, CanisterMut, PublishedCanister};
use cyclotron_queries::{Certified, CertifiedState, KnownRequest};
use cyclotron_routing::{ActiveSet, Answered, CurrentRound, Directory, Entry, IngressHistory, Tally, Touched};
use cyclotron_scheduling::{Installing, Workers};
use cyclotron_storage::StorageError;
use cyclotron_types::PrincipalSet;
use cyclotron_types::batch::CertifiedView;
use cyclotron_types::canister::InputQueue;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::units::Height;
use cyclotron_world::prelude::*;
use std::sync::Arc;

/// What readers see. No system reads it back.
#[derive(Resource)]
pub struct Outside(pub Certified);

/// The key, or the share of it, that signs roots.
#[derive(Resource)]
pub struct Signer(pub Arc<dyn RootSigner>);

/// Requests for which there is always room among those with a status.
const ROOM_MIN: usize = 1_024;

/// What the last round left for the outside.
#[derive(Debug, Default, Resource)]
pub struct View(pub Option<Result<CertifiedView, StorageError>>);

/// Lists what the state hash and the next checkpoint must take up. Cost: O(touched + active + installing).
pub fn note_changes(
    active: Res<ActiveSet>,
    installing: Res<Installing>,
    touched: Res<Touched>,
    mut hash: ResMut<StateHash>,
    mut changed: ResMut<Changed>,
) {
    // Messages arrive, priorities grow and executions are aborted without the canister having run, but only where there is work.
    let ids = || active.iter().map(|(id, _)| id).chain(installing.0.keys().copied()).chain(touched.0.iter().copied());
    hash.canisters_changed(ids());
    changed.note(ids());
}

/// The components that the outside sees something of.
#[derive(QueryData)]
#[query_data(mutable)]
pub struct Seen {
    canister: CanisterData,
    queue: &'static InputQueue,
}

/// What certification reads of the round besides canisters.
#[derive(SystemParam)]
pub struct Round<'w> {
    current: Res<'w, CurrentRound>,
    directory: Res<'w, Directory>,
    totals: Res<'w, Totals>,
    tally: Res<'w, Tally>,
    signer: Res<'w, Signer>,
    workers: Res<'w, Workers>,
}

/// Replaces what the outside sees, all at once: canisters and statuses that changed, the subnet's metrics and the time, under a new signature.
/// Leaves the view. Nothing is replaced before all sinks have let it. Cost: O(changed), and a signature.
#[allow(clippy::too_many_arguments)]
pub fn certify(
    round: Round,
    outside: Res<Outside>,
    mut sinks: ResMut<Sinks>,
    mut touched: ResMut<Touched>,
    mut history: ResMut<IngressHistory>,
    mut hash: ResMut<StateHash>,
    (mut answered, mut acted): (ResMut<Answered>, ResMut<Acted>),
    mut view: ResMut<View>,
    mut canisters: Query<Seen>,
) {
    let env = &round.current.0;
    if let Err(failed) = sinks.each(|sink| sink.before_shown(env.height)) {
        view.0 = Some(Err(failed));
        return;
    }
    // Their memories may be the last of a canister's: nobody waits while they are given back.
    let mut outdated = Vec::new();
    let mut state = outside.0.write();
    for id in std::mem::take(&mut touched.0) {
        match round.directory.entity(id).and_then(|entity| canisters.get_mut(entity).ok()) {
            Some(seen) => outdated.extend(certify_canister(&mut state, id, env.height, seen)),
            None => {
                state.tree.remove_canister(id);
                outdated.extend(state.canisters.remove(id));
            }
        }
    }
    for id in history.take_changed() {
        hash.status_changed(id);
        certify_status(&mut state, id, history.get(&id));
    }
    // A busy time passes.
    if state.requests.capacity() / 4 > state.requests.len().max(ROOM_MIN) {
        let enough = 2 * state.requests.len();
        state.requests.shrink_to(enough);
    }
    state.history_is_full = history.is_full();
    let metrics = SubnetMetrics {
        canisters: round.directory.len() as u64,
        canister_state: round.totals.0.state,
        consumed_cycles: round.tally.burned,
        update_transactions: round.tally.executed,
    };
    // Spec: ic-interface-spec #state-tree-subnet.
    state.tree.set_subnet_metrics(env.subnet.subnet, &metrics);
    state.tree.set_time(env.time);
    // On threads that serve no reader: one that waits for the state must not be needed to bring it about.
    let (tree, signer) = (&mut state.tree, &*round.signer.0);
    let certified = round.workers.0.install(|| tree.certify(signer));
    state.env = Some(Arc::new(env.clone()));
    drop(state);
    drop(outdated);
    env.machine.tidy();
    view.0 = Some(Ok(CertifiedView {
        height: env.height,
        time: env.time,
        root: certified.root,
        signature: certified.signature,
        answered: std::mem::take(&mut answered.0),
        actions: std::mem::take(&mut acted.0),
    }));
}

/// Publishes a touched canister, and takes into the tree what it shows; most often that has not changed. Returns the publication before.
fn certify_canister(
    state: &mut CertifiedState,
    id: CanisterId,
    height: Height,
    seen: SeenItem<'_, '_>,
) -> Option<Arc<PublishedCanister>> {
    let SeenItem { canister, queue } = seen;
    let mut canister = CanisterMut::from(canister);
    let quiet = queue.messages.is_empty() && canister.contexts.callbacks.is_empty();
    let before = state.canisters.get(id).map(AsRef::as_ref);
    let published = PublishedCanister::publish(&mut canister, height, quiet, before);
    let is_shown = before.is_some_and(|before| shown_of(before) == shown_of(&published));
    let outdated = state.canisters.insert(Arc::new(published));
    if is_shown {
        state.tree.set_certified_data(id, &canister.certified_data.0);
        return outdated;
    }
    let installed = canister.program.installed();
    let metadata: Vec<(&str, &[u8])> =
        installed.into_iter().flat_map(|i| i.all_metadata()).map(|(name, _, content)| (name, content)).collect();
    let code = installed.map(|i| CodeFacts {
        module_hash: &i.module_hash,
        installed: canister.history.installed,
        metadata: &metadata,
    });
    let facts = CanisterFacts {
        controllers: &canister.controllers.0,
        certified_data: &canister.certified_data.0,
        created: canister.history.created,
        code,
    };
    state.tree.upsert_canister(id, &facts);
    outdated
}

/// What stands for all that the tree shows of a canister besides its certified data: metadata is part of the module, times come with a change.
fn shown_of(canister: &PublishedCanister) -> (&PrincipalSet, Option<&[u8; 32]>, u64) {
    let module_hash = canister.program.as_ref().map(|program| &program.module_hash);
    (&canister.controllers.0, module_hash, canister.changes)
}

/// Takes a changed ingress status into the tree, or out of it.
fn certify_status(state: &mut CertifiedState, id: MessageId, entry: Option<&Entry>) {
    let Some(entry) = entry else {
        state.tree.remove_request_statuses([&id]);
        state.requests.remove(&id);
        return;
    };
    state.tree.upsert_request_status(id, &entry.status);
    let request = KnownRequest {
        sender: entry.sender,
        receiver: entry.receiver,
        effective_canister: entry.effective_canister,
        answered: entry.status.is_final(),
    };
    state.requests.insert(id, request);
}
