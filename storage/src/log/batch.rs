//! The bytes of a batch.

use cyclotron_types::Principal;
use cyclotron_types::action::OperatorAction;
use cyclotron_types::batch::Batch;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::Ingress;
use cyclotron_types::units::{Cycles, Height, RegistryVersion, Time};

const ADD_CYCLES: u8 = 1;
const FORK_CANISTER: u8 = 2;

/// Appends the bytes of a batch, its height excepted, which is in its frame's header.
pub fn encode_batch(batch: &Batch, out: &mut Vec<u8>) {
    out.extend_from_slice(&batch.time.0.to_le_bytes());
    out.extend_from_slice(&batch.randomness);
    out.extend_from_slice(&batch.registry_version.0.to_le_bytes());
    out.push(u8::from(batch.checkpoint));
    put_length(batch.actions.len(), out);
    for action in &batch.actions {
        match action {
            OperatorAction::AddCycles { canister, amount } => {
                out.push(ADD_CYCLES);
                put_principal(canister.principal(), out);
                out.extend_from_slice(&amount.0.to_le_bytes());
            }
            OperatorAction::ForkCanister { source, target } => {
                out.push(FORK_CANISTER);
                put_principal(source.principal(), out);
                put_canister(*target, out);
            }
        }
    }
    put_length(batch.ingress.len(), out);
    for ingress in &batch.ingress {
        put_ingress(ingress, out);
    }
}

fn put_ingress(ingress: &Ingress, out: &mut Vec<u8>) {
    out.extend_from_slice(&ingress.id.0);
    put_principal(ingress.sender, out);
    put_principal(ingress.receiver.principal(), out);
    put_canister(ingress.effective_canister, out);
    out.extend_from_slice(&ingress.expiry.0.to_le_bytes());
    out.push(ingress.nonce_bytes);
    put_bytes(ingress.method.as_bytes(), out);
    put_bytes(&ingress.arg, out);
}

pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("what is in a batch is far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
}

pub(super) fn put_principal(principal: Principal, out: &mut Vec<u8>) {
    let bytes = principal.as_slice();
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn put_canister(canister: Option<CanisterId>, out: &mut Vec<u8>) {
    match canister {
        None => out.push(0),
        Some(canister) => {
            out.push(1);
            put_principal(canister.principal(), out);
        }
    }
}

/// Reads a batch. `None`: these are not the bytes of a batch.
pub fn decode_batch(height: u64, bytes: &[u8]) -> Option<Batch> {
    let mut rest = Rest(bytes);
    let batch = Batch {
        height: Height(height),
        time: Time(rest.u64()?),
        randomness: rest.array()?,
        registry_version: RegistryVersion(rest.u64()?),
        checkpoint: rest.flag()?,
        actions: rest.list(Rest::action)?,
        ingress: rest.list(Rest::ingress)?,
    };
    rest.0.is_empty().then_some(batch)
}

/// What is left to read.
pub(super) struct Rest<'a>(pub &'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(length as usize)
    }

    pub fn principal(&mut self) -> Option<Principal> {
        let [length] = self.array()?;
        Principal::try_from_slice(self.take(length.into())?).ok()
    }

    pub fn canister(&mut self) -> Option<CanisterId> {
        self.principal().map(CanisterId::from_principal)
    }

    pub fn text(&mut self) -> Option<String> {
        str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn optional_canister(&mut self) -> Option<Option<CanisterId>> {
        Some(if self.flag()? { Some(self.canister()?) } else { None })
    }

    /// A list grows as its elements are read: its length says nothing before they are.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = u32::from_le_bytes(self.array()?);
        (0..count).map(|_| one(self)).collect()
    }

    fn action(&mut self) -> Option<OperatorAction> {
        match self.array()? {
            [ADD_CYCLES] => Some(OperatorAction::AddCycles {
                canister: self.canister()?,
                amount: Cycles(u128::from_le_bytes(self.array()?)),
            }),
            [FORK_CANISTER] => {
                Some(OperatorAction::ForkCanister { source: self.canister()?, target: self.optional_canister()? })
            }
            _ => None,
        }
    }

    fn ingress(&mut self) -> Option<Ingress> {
        Some(Ingress {
            id: MessageId(self.array()?),
            sender: self.principal()?,
            receiver: self.canister()?,
            effective_canister: self.optional_canister()?,
            expiry: Time(self.u64()?),
            nonce_bytes: u8::from_le_bytes(self.array()?),
            method: self.text()?,
            arg: self.bytes()?.to_vec(),
        })
    }
}
