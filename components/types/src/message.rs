//! Messages between users, canisters and the system.

use crate::ids::{CallbackId, CanisterId, MessageId};
use crate::reject::Reject;
use crate::units::{Cycles, Time};
use bevy_ecs::component::Component;
use ic_principal::Principal;
use serde::{Deserialize, Serialize};

/// An update call from outside, authenticated when it was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Representation-independent hash of the request.
    pub id: MessageId,
    /// The authenticated sender.
    pub sender: Principal,
    /// Callee; the management canister for lifecycle calls.
    pub receiver: CanisterId,
    /// The canister that pays and whose queue it takes (differs from `receiver` for management calls); `None` when nobody pays, as with
    /// `provisional_create_canister_with_cycles`.
    pub effective_canister: Option<CanisterId>,
    /// Method name.
    pub method: String,
    /// Argument bytes, Candid by convention.
    #[serde(with = "serde_bytes")]
    pub arg: Vec<u8>,
    /// When the request expires.
    pub expiry: Time,
    /// Length of the request's nonce: its bytes are paid for like the argument's.
    pub nonce_bytes: u8,
}

/// How a call's response is guaranteed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CallKind {
    /// Exactly one response, however late.
    Guaranteed,
    /// The system may answer `SYS_UNKNOWN` from this time on.
    BestEffort {
        /// Latest time of a real response.
        deadline: Time,
    },
}

/// A call from one canister to another (or to the management canister).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who calls.
    pub sender: CanisterId,
    /// Who is called.
    pub receiver: CanisterId,
    /// The sender's callback that the response goes to.
    pub callback: CallbackId,
    /// Method name.
    pub method: String,
    /// Argument bytes.
    #[serde(with = "serde_bytes")]
    pub arg: Vec<u8>,
    /// Cycles attached.
    pub payment: Cycles,
    /// Guaranteed or best-effort.
    pub kind: CallKind,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponsePayload {
    /// The callee replied.
    Reply(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The callee, or the system in its place, rejected.
    Reject(Reject),
}

/// Answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The canister that called, and now receives.
    pub originator: CanisterId,
    /// The canister that was called.
    pub respondent: CanisterId,
    /// The originator's callback.
    pub callback: CallbackId,
    /// Cycles of the payment that were not accepted.
    pub refund: Cycles,
    /// Reply or reject.
    pub payload: ResponsePayload,
    /// As in the request.
    pub kind: CallKind,
}

/// A message in a canister's input queue; a component of a pooled message entity.
#[derive(Clone, Debug, PartialEq, Eq, Component, Serialize, Deserialize)]
pub enum Message {
    /// The pooled entity is free.
    Vacant,
    /// From a user.
    Ingress(Ingress),
    /// From a canister.
    Request(Request),
    /// Back to the canister.
    Response(Response),
}

/// A task of the system for a canister, run without a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SystemTask {
    /// `canister_heartbeat`, once a round.
    Heartbeat,
    /// `canister_global_timer`, when its deadline has passed.
    GlobalTimer,
    /// `canister_on_low_wasm_memory`, when the threshold has been crossed.
    OnLowWasmMemory,
}

/// Fate of an ingress message as clients see it.
///
/// Spec: ic-interface-spec #state-tree-request-status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngressStatus {
    /// In a block, not yet started.
    Received,
    /// Started, not yet answered.
    Processing,
    /// Answered with a reply.
    Replied(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Answered with a reject.
    Rejected(Reject),
    /// Answered so long ago that the answer is dropped; kept so that it does not run twice.
    Done,
}

impl IngressStatus {
    /// Whether the message has been answered: the status changes no more, except that an old answer may be dropped.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Replied(_) | Self::Rejected(_) | Self::Done)
    }
}
