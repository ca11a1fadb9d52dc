//! The state as the last round certified it: everything that the outside reads.

use crossbeam::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use cyclotron_certification::{ReadError, Reader, StateTree};
use cyclotron_execution::query::QuerySession;
use cyclotron_execution::reject::no_such_canister;
use cyclotron_execution::{PublishedCanister, RoundEnv};
use cyclotron_heap::Nearby;
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::reject::Reject;
use cyclotron_types::units::Height;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError};

/// An ingress message whose status the tree shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRequest {
    /// Who sent it; nobody else may read its status.
    pub sender: Principal,
    /// Whom it calls.
    pub receiver: CanisterId,
    /// The canister under which it was submitted, if any.
    pub effective_canister: Option<CanisterId>,
    /// Whether it is answered: its status does not change any more, but to be forgotten.
    pub answered: bool,
}

/// Canisters by id. Looked up only: the order of a hash table is nobody's business.
#[derive(Default)]
pub struct PublishedCanisters(HashSet<ById>);

/// A canister, found by the id that it has in itself.
struct ById(Arc<PublishedCanister>);

impl Borrow<CanisterId> for ById {
    fn borrow(&self) -> &CanisterId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl PublishedCanisters {
    /// The canister of this id.
    pub fn get(&self, id: CanisterId) -> Option<&Arc<PublishedCanister>> {
        self.0.get(&id).map(|canister| &canister.0)
    }

    /// Puts a canister in; returns what was there of it.
    pub fn insert(&mut self, canister: Arc<PublishedCanister>) -> Option<Arc<PublishedCanister>> {
        self.0.replace(ById(canister)).map(|before| before.0)
    }

    /// Takes a canister out.
    pub fn remove(&mut self, id: CanisterId) -> Option<Arc<PublishedCanister>> {
        self.0.take(&id).map(|before| before.0)
    }
}

/// What a round leaves for readers.
pub struct CertifiedState {
    /// The round whose state it is; queries see its time. `None` before the first.
    pub env: Option<Arc<RoundEnv>>,
    /// The tree, signed.
    pub tree: StateTree,
    /// Canisters by id.
    pub canisters: PublishedCanisters,
    /// Ingress messages with a status. Looked up only.
    pub requests: HashMap<MessageId, KnownRequest>,
    /// Whether no further ingress message could be remembered.
    pub history_is_full: bool,
}

impl CertifiedState {
    /// Nothing certified yet.
    pub fn new(tree: StateTree) -> Self {
        let canisters = PublishedCanisters::default();
        Self { env: None, tree, canisters, requests: HashMap::new(), history_is_full: false }
    }

    /// The round's height; zero before the first.
    pub fn height(&self) -> Height {
        self.env.as_ref().map_or(Height::ZERO, |env| env.height)
    }

    /// The canister of this id.
    /// Errors: there is none.
    pub fn canister(&self, id: CanisterId) -> Result<&Arc<PublishedCanister>, Reject> {
        self.canisters.get(id).ok_or_else(|| no_such_canister(id))
    }

    /// Whether messages to `id` are the management canister's.
    pub(crate) fn is_management(&self, id: CanisterId) -> bool {
        id == CanisterId::MANAGEMENT || self.env.as_ref().is_some_and(|env| id.principal() == env.subnet.subnet)
    }

    /// Whether `reader` may read a canister's custom section: there is none, it is public, or the reader is a controller.
    pub fn may_read_metadata(&self, canister: CanisterId, name: &str, reader: &Principal) -> bool {
        let Some(canister) = self.canisters.get(canister) else { return true };
        let program = canister.program.as_ref();
        let section = program.and_then(|program| program.module().shape().metadata.get(name));
        section.is_none_or(|(public, _)| *public) || canister.controllers.0.contains(reader)
    }

    /// A certificate over what the paths show.
    pub fn read_state(&self, reader: &Reader, paths: &[Vec<Vec<u8>>]) -> Result<Vec<u8>, ReadError> {
        self.tree.read_state_certificate(reader, paths)
    }

    /// A certificate over the time and one request's status.
    pub fn status_certificate(&self, id: MessageId) -> Result<Vec<u8>, ReadError> {
        self.tree.request_status_certificate(id)
    }
}

/// The certified state, shared: a round replaces it at its end, all at once, and holds it while it hashes and signs what changed; readers hold it as long
/// as it takes to look something up or to make a certificate.
#[derive(Clone)]
pub struct Certified(Arc<Shared>);

struct Shared {
    /// Reading it costs the same however many threads do.
    state: ShardedLock<CertifiedState>,
    /// The view that a thread used last, for its next query on the same canister.
    resting: Nearby<Box<QuerySession>>,
}

impl Certified {
    /// Shares a state.
    pub fn new(state: CertifiedState) -> Self {
        Self(Arc::new(Shared { state: ShardedLock::new(state), resting: Nearby::new() }))
    }

    /// The view that this thread used last, if it shows this publication.
    pub(crate) fn resting(&self, canister: &Arc<PublishedCanister>) -> Option<Box<QuerySession>> {
        let mut session = self.0.resting.take_if(|session| session.is_of(canister))?;
        session.resume().then_some(session)
    }

    /// Ends the view that rests for this thread's next query if it shows what no query will see any more. A canister that is gone takes memory as long as
    /// a view of it rests: for threads that have nothing to do.
    pub fn tidy(&self) {
        let state = self.read();
        let outdated = self
            .0
            .resting
            .take_if(|session| !state.canisters.get(session.canister()).is_some_and(|now| session.is_of(now)));
        drop(state);
        drop(outdated);
    }

    /// Keeps a session's view for this thread's next query.
    pub(crate) fn rest(&self, mut session: Box<QuerySession>) {
        if session.rest() {
            let _ends_the_one_before = self.0.resting.put(session);
        }
    }

    /// The state, which no round replaces meanwhile. Not to be held while anything runs, and not twice by one thread.
    pub fn read(&self) -> ShardedLockReadGuard<'_, CertifiedState> {
        // A panic stops the node.
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to be replaced at the end of a round.
    pub fn write(&self) -> ShardedLockWriteGuard<'_, CertifiedState> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
