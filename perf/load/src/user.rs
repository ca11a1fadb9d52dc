//! Users with Ed25519 keys, and what they sign.
//!
//! Enters: a seed, requests. Leaves: contents with their ids, signed envelopes as clients send them. Never here: a user's key that did not
//! come from the seed: these keys are nobody's secret.

use crate::mix::{Kind, Request};
use crate::random::Random;
use cyclotron_crypto::NodeKey;
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::Ingress;
use cyclotron_types::units::Time;
use cyclotron_wire::{CallContent, Content, Envelope, ReadStateContent, domain};

/// Users of a workload.
const USERS: usize = 16;
/// The user who makes the canisters.
pub const SET_UP: usize = 0;

/// An Ed25519 key; that of a node and that of a user have the same form and name.
struct User {
    key: NodeKey,
    der: Vec<u8>,
    principal: Principal,
}

/// The users of a seed.
pub struct Users(Vec<User>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Its id.
    pub id: MessageId,
    /// The envelope.
    pub body: Vec<u8>,
}

/// What an ingress message or a query says, besides what all have.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Number of the user.
    pub user: usize,
    /// Whom.
    pub receiver: CanisterId,
    /// Which method.
    pub method: &'a str,
    /// With which argument.
    pub arg: &'a [u8],
    /// What makes equal requests differ.
    pub nonce: u64,
    /// When it is void.
    pub expiry: Time,
}

impl<'a> Asked<'a> {
    /// What a request says when it has this number.
    pub fn of(request: &'a Request, nonce: u64, expiry: Time) -> Self {
        let Request { user, canister, method, arg, .. } = request;
        Self { user: *user, receiver: *canister, method, arg, nonce, expiry }
    }
}

impl Users {
    /// The users of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 0);
        let user = |_| {
            let key = NodeKey::from_seed(&random.bytes());
            User { der: key.public_key_der(), principal: key.node_id(), key }
        };
        Self((0..USERS).map(user).collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a workload has users.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A user's name.
    pub fn principal(&self, user: usize) -> Principal {
        self.0[user].principal
    }

    /// The envelope of an update or query.
    pub fn sign(&self, kind: Kind, asked: &Asked<'_>) -> Signed {
        let nonce = asked.nonce.to_be_bytes();
        let content = self.call(asked, &nonce);
        self.envelope(asked.user, if kind == Kind::Update { Content::Call(content) } else { Content::Query(content) })
    }

    /// The envelope of a look at a request's status.
    pub fn sign_read_state(&self, user: usize, id: &MessageId, expiry: Time) -> Signed {
        let sender = self.0[user].principal;
        let paths = vec![vec![&b"request_status"[..], &id.0]];
        self.envelope(
            user,
            Content::ReadState(ReadStateContent { nonce: None, ingress_expiry: expiry.0, sender, paths }),
        )
    }

    /// The message that admission makes of an update; `about` is the canister that pays.
    pub fn ingress(&self, asked: &Asked<'_>, about: Option<CanisterId>) -> Ingress {
        let nonce = asked.nonce.to_be_bytes();
        let content = self.call(asked, &nonce);
        Ingress {
            id: MessageId(Content::Call(content).request_id()),
            sender: self.0[asked.user].principal,
            receiver: asked.receiver,
            effective_canister: about,
            method: asked.method.into(),
            arg: asked.arg.to_vec(),
            expiry: asked.expiry,
            nonce_bytes: 8,
        }
    }

    fn call<'a>(&self, asked: &Asked<'a>, nonce: &'a [u8; 8]) -> CallContent<'a> {
        CallContent {
            nonce: Some(nonce),
            ingress_expiry: asked.expiry.0,
            sender: self.0[asked.user].principal,
            canister_id: asked.receiver.principal(),
            method_name: asked.method,
            arg: asked.arg,
            sender_info: None,
        }
    }

    fn envelope(&self, user: usize, content: Content<'_>) -> Signed {
        let User { key, der, .. } = &self.0[user];
        let id = content.request_id();
        let signature = key.sign(&[&domain::REQUEST[..], &id].concat());
        let envelope =
            Envelope { content, sender_pubkey: Some(der), sender_sig: Some(&signature), sender_delegation: None };
        Signed { id: MessageId(id), body: envelope.encode() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_crypto::{SignatureTask, Verdict, verify};

    #[test]
    fn an_envelope_is_signed_by_its_sender_and_has_the_id_of_its_message() {
        let users = Users::new(3);
        let receiver = CanisterId::from_u64(1);
        let asked = Asked { user: 5, receiver, method: "m", arg: b"a", nonce: 9, expiry: Time(11) };
        let Signed { id, body } = users.sign(Kind::Update, &asked);
        let envelope = Envelope::decode(&body).unwrap();
        assert_eq!(envelope.content.request_id(), id.0);
        assert_eq!(users.ingress(&asked, Some(receiver)).id, id, "it is the same message without its signature");
        assert_eq!(envelope.content.sender(), users.principal(5));
        let signed = [&domain::REQUEST[..], &id.0].concat();
        let key = cyclotron_crypto::PublicKey::from_der(envelope.sender_pubkey.unwrap()).unwrap();
        let task = SignatureTask { key: &key, message: &signed, signature: envelope.sender_sig.unwrap() };
        let mut verdicts = Vec::new();
        verify(&[task], &mut verdicts);
        assert_eq!(verdicts, [Verdict::Valid]);
    }
}
