//! A call of the management canister: where it comes from, how it is answered, what it does to the subnet.

use super::code::PendingInstall;
use super::error::ManagementError;
use super::ids::CanisterIds;
use super::lifecycle;
use super::method::{Method, named_canister};
use super::random::RandomStream;
use super::resources::SubnetUse;
use crate::{CanisterBundle, CanisterMut, RoundEnv, SliceCosts, charge};
use cyclotron_types::Principal;
use cyclotron_types::canister::ChangeOrigin;
use cyclotron_types::ids::{CallbackId, CanisterId, MessageId};
use cyclotron_types::message::{CallKind, Ingress, IngressStatus, Request, Response, ResponsePayload};
use cyclotron_types::reject::Reject;
use cyclotron_types::units::{Cycles, Instructions, Time};
use serde::{Deserialize, Serialize};

/// Who waits for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagementOrigin {
    /// A user.
    Ingress {
        /// The message to answer.
        id: MessageId,
        /// The user.
        sender: Principal,
    },
    /// A canister.
    Canister {
        /// Who called.
        caller: CanisterId,
        /// Its callback.
        callback: CallbackId,
        /// Guaranteed or best-effort.
        kind: CallKind,
    },
}

impl ManagementOrigin {
    /// The principal that calls.
    pub fn caller(&self) -> Principal {
        match self {
            Self::Ingress { sender, .. } => *sender,
            Self::Canister { caller, .. } => caller.principal(),
        }
    }

    /// What the history says of the caller. A user has no version, whatever the argument says.
    pub fn change_origin(&self, version: Option<u64>) -> ChangeOrigin {
        match self {
            Self::Ingress { sender, .. } => ChangeOrigin::User(*sender),
            Self::Canister { caller, .. } => ChangeOrigin::Canister { id: *caller, version },
        }
    }

    /// The answer, with the part of the payment that goes back.
    pub fn answer(&self, payload: ResponsePayload, refund: Cycles) -> Answer {
        answer_as(self, CanisterId::MANAGEMENT, payload, refund)
    }
}

/// The answer to `origin` in the name of `respondent`.
pub(super) fn answer_as(
    origin: &ManagementOrigin,
    respondent: CanisterId,
    payload: ResponsePayload,
    refund: Cycles,
) -> Answer {
    match origin {
        ManagementOrigin::Ingress { id, .. } => Answer::Ingress(
            *id,
            match payload {
                ResponsePayload::Reply(bytes) => IngressStatus::Replied(bytes),
                ResponsePayload::Reject(reject) => IngressStatus::Rejected(reject),
            },
        ),
        ManagementOrigin::Canister { caller, callback, kind } => Answer::Canister(Response {
            originator: *caller,
            respondent,
            callback: *callback,
            refund,
            payload,
            kind: *kind,
        }),
    }
}

/// A call of the management canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagementCall {
    /// Who waits.
    pub origin: ManagementOrigin,
    /// Method name.
    pub method: String,
    /// Argument bytes.
    #[serde(with = "serde_bytes")]
    pub arg: Vec<u8>,
    /// Cycles attached.
    pub payment: Cycles,
    /// Until when it may start; a canister's call waits as long as it takes.
    pub expiry: Time,
    /// The canister under which a user's call was submitted.
    pub effective: Option<CanisterId>,
    /// The canister in whose long message the call must not come between.
    pub disturbs: Option<CanisterId>,
    /// Whether it had to wait for another round's randomness: see [`ManagementStep::NextRound`].
    pub deferred: bool,
}

/// A place where calls wait for the management canister, each with its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// Calls of one canister.
    CallsOf(CanisterId),
    /// Ingress messages about one canister, or about none.
    IngressAbout(Option<CanisterId>),
}

impl ManagementCall {
    /// Where it waits.
    pub fn line(&self) -> Line {
        match &self.origin {
            ManagementOrigin::Canister { caller, .. } => Line::CallsOf(*caller),
            ManagementOrigin::Ingress { .. } => Line::IngressAbout(self.effective),
        }
    }
}

/// The canister that a call must not disturb. Cost: O(argument).
fn disturbed(method: &str, arg: &[u8]) -> Option<CanisterId> {
    let method = Method::from_name(method).filter(|method| method.disturbs_execution())?;
    named_canister(method, arg).ok().flatten()
}

impl From<Ingress> for ManagementCall {
    fn from(ingress: Ingress) -> Self {
        Self {
            origin: ManagementOrigin::Ingress { id: ingress.id, sender: ingress.sender },
            disturbs: disturbed(&ingress.method, &ingress.arg),
            method: ingress.method,
            arg: ingress.arg,
            payment: Cycles::ZERO,
            expiry: ingress.expiry,
            effective: ingress.effective_canister,
            deferred: false,
        }
    }
}

impl From<Request> for ManagementCall {
    fn from(request: Request) -> Self {
        Self {
            origin: ManagementOrigin::Canister {
                caller: request.sender,
                callback: request.callback,
                kind: request.kind,
            },
            disturbs: disturbed(&request.method, &request.arg),
            method: request.method,
            arg: request.arg,
            payment: request.payment,
            expiry: Time::MAX,
            effective: None,
            deferred: false,
        }
    }
}

/// One answer to route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// New status of an ingress message.
    Ingress(MessageId, IngressStatus),
    /// Response to a canister.
    Canister(Response),
}

/// What a call did besides changing components of canisters that are still there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagementEffects {
    /// Answers to route, in this order.
    pub answers: Vec<Answer>,
    /// Cycles that left the world: creation fees, balances of deleted canisters, execution.
    pub burned: Cycles,
    /// Cycles that came into the world, by the provisional methods.
    pub minted: Cycles,
    /// Canisters of which anything may have changed, or that came or went: what is kept about them elsewhere is to be taken up anew.
    pub touched: Vec<CanisterId>,
    /// Instructions to count into the round.
    pub used: Instructions,
    /// What they went into.
    pub costs: SliceCosts,
    /// The canister for which `canister_on_low_wasm_memory` became due: it has something to do.
    pub low_memory: Option<CanisterId>,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagementStep {
    /// Answered.
    Done(ManagementEffects),
    /// An installation used up its slice: the canister takes nothing else until [`super::resume_install`] has finished it.
    Suspended {
        /// To be handed to [`super::resume_install`] in a later round.
        pending: Box<PendingInstall>,
        /// What the slice did.
        effects: ManagementEffects,
    },
    /// The canister is stopping. Answered by [`super::finish_stopping`], [`super::expire_stopping`] or a start; at once, among these
    /// effects, if nothing of the canister is open.
    Waiting(ManagementEffects),
    /// Nothing has been done: execute the call again in the next round, in the same order as others. If it is not `deferred`, its canister
    /// is in the middle of a message, and it may be tried again in this round already, once that has ended.
    NextRound(ManagementCall),
}

/// The subnet's canisters, as the management canister needs them.
pub trait Canisters {
    /// The canister of this id.
    fn get(&mut self, id: CanisterId) -> Option<CanisterMut<'_>>;
    /// Puts a new canister into the subnet. The id has just been allocated.
    fn insert(&mut self, id: CanisterId, canister: CanisterBundle);
    /// Takes a canister out and drops it with all it holds.
    fn remove(&mut self, id: CanisterId);
    /// Whether messages wait in the canister's queues, in or out.
    fn has_messages(&self, id: CanisterId) -> bool;
    /// What all canisters hold together, as of now.
    fn subnet_use(&self) -> SubnetUse;
}

/// What the management canister says of its subnet, and may do on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Whether the provisional methods work: on networks of their own, never on a live one.
    pub provisional: bool,
    /// Version of this software.
    pub replica_version: String,
    /// Registry version that holds for the round.
    pub registry_version: u64,
}

/// What the management canister works on.
pub struct ManagementContext<'a> {
    /// The round.
    pub env: &'a RoundEnv,
    /// The canisters.
    pub canisters: &'a mut dyn Canisters,
    /// Ids given out.
    pub ids: &'a mut CanisterIds,
    /// The round's random bytes.
    pub random: &'a mut RandomStream,
    /// What holds beyond the round.
    pub node: &'a NodeFacts,
}

impl ManagementContext<'_> {
    /// The canister to be changed, with what it owes paid up to now, or the error that there is none.
    pub(super) fn find(&mut self, run: &mut Running<'_>, id: CanisterId) -> Result<CanisterMut<'_>, ManagementError> {
        let canister = self.look(run, id)?;
        run.touch(id);
        Ok(canister)
    }

    /// The same, to be read: touched only if it owed something.
    pub(super) fn look(&mut self, run: &mut Running<'_>, id: CanisterId) -> Result<CanisterMut<'_>, ManagementError> {
        let mut canister = self.canisters.get(id).ok_or(ManagementError::NotFound(id))?;
        let paid = *canister.paid_until;
        let settled = charge::settle(&self.env.subnet.fees, &mut canister, self.env.time);
        run.burn(settled.burned);
        if *canister.paid_until != paid {
            run.touch(id);
        }
        if settled.exhausted {
            let rejects = lifecycle::uninstall_exhausted(&mut canister);
            run.effects.answers.extend(rejects);
            // It may have been stopping, with nothing left to wait for.
            run.effects.answers.extend(lifecycle::finish_stopping(&mut canister));
        }
        Ok(canister)
    }

    /// The round with the subnet's memory as it is now: calls of this round before have taken of it.
    pub(super) fn env_now(&self) -> RoundEnv {
        let memory_used = self.canisters.subnet_use().memory;
        let memory_available = self.env.subnet.limits.subnet_memory.saturating_sub(memory_used);
        RoundEnv { memory_used, memory_available, ..self.env.clone() }
    }
}

/// A call being executed, and what it has done so far.
#[derive(Debug)]
pub(super) struct Running<'a> {
    pub call: &'a mut ManagementCall,
    pub effects: ManagementEffects,
}

impl Running<'_> {
    pub fn caller(&self) -> Principal {
        self.call.origin.caller()
    }
    pub fn touch(&mut self, id: CanisterId) {
        if !self.effects.touched.contains(&id) {
            self.effects.touched.push(id);
        }
    }
    pub fn burn(&mut self, cycles: Cycles) {
        self.effects.burned = self.effects.burned.saturating_add(cycles);
    }
    pub fn mint(&mut self, cycles: Cycles) {
        self.effects.minted = self.effects.minted.saturating_add(cycles);
    }
}

/// Reply or reject as a payload.
pub(super) fn payload(result: Result<Vec<u8>, ManagementError>) -> ResponsePayload {
    match result {
        Ok(bytes) => ResponsePayload::Reply(bytes),
        Err(error) => ResponsePayload::Reject(Reject::from(error)),
    }
}
