//! Names on the wire and indexes in the process.
//!
//! `CanisterId` is the protocol's name and the only key that may order or hash anything; `CanisterIx` and `MessageIx` pick
//! a row in this process and are never encoded.

use bevy_ecs::component::Component;
use ic_principal::Principal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A canister's principal, of the ten-byte form the protocol allots: big-endian number, 0x01, 0x01.
/// Ordered as principals are (by bytes).
///
/// Spec: ic-interface-spec #id-classes, "opaque ids".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Component, Serialize, Deserialize)]
pub struct CanisterId(Principal);

impl CanisterId {
    /// The management canister, `aaaaa-aa`.
    pub const MANAGEMENT: Self = Self(Principal::management_canister());

    /// The id with the given number in its first eight bytes.
    pub fn from_u64(number: u64) -> Self {
        let mut bytes = [0u8; 10];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8] = 1;
        bytes[9] = 1;
        Self(Principal::from_slice(&bytes))
    }
    /// Takes any principal as the name of a callee; whether such a canister exists is the world's to say.
    pub const fn from_principal(principal: Principal) -> Self {
        Self(principal)
    }
    /// The number in the first eight bytes, if this is a ten-byte canister id.
    pub fn to_u64(self) -> Option<u64> {
        let bytes: [u8; 10] = self.0.as_slice().try_into().ok()?;
        (bytes[8] == 1 && bytes[9] == 1).then(|| u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")))
    }
    /// The principal.
    pub const fn principal(self) -> Principal {
        self.0
    }
    /// The principal's bytes, at most 29.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Display for CanisterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for CanisterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Row of a canister in this process. Never encoded, never an order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Component)]
pub struct CanisterIx(pub u32);

/// Row of a message in this process's pool. Never encoded, never an order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MessageIx(pub u32);

/// Identity of an ingress message: the representation-independent hash of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 32]);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A call context of one canister. Numbers count up within the canister and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallContextId(pub u64);

/// A callback of one canister. Numbers count up within the canister and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallbackId(pub u64);
