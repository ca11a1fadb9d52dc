//! Who asks: the chain of keys from the sender to the signature, and what has to be verified for it.

use crate::error::AdmissionError;
use cyclotron_crypto::{Part, PublicKey, SignatureTask, Verdict, self_authenticating};
use cyclotron_types::Principal;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::Time;
use cyclotron_wire::{Content, Digest, Envelope, Permissions, SignedDelegation, domain};

/// A domain separator and a digest: what users sign. 27 + 32 bytes at most.
#[derive(Clone, Copy)]
struct Payload {
    bytes: [u8; 59],
    length: usize,
}

impl Payload {
    fn new(separator: &[u8], digest: &Digest) -> Self {
        let (length, mut bytes) = (separator.len() + digest.len(), [0; 59]);
        bytes[..separator.len()].copy_from_slice(separator);
        bytes[separator.len()..length].copy_from_slice(digest);
        Self { bytes, length }
    }
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

const _: () = assert!(domain::DELEGATION.len() + size_of::<Digest>() == 59);

/// Signatures of a whole batch of requests, as columns of one length.
#[derive(Default)]
pub(crate) struct Signatures<'a> {
    keys: Vec<PublicKey>,
    payloads: Vec<Payload>,
    signatures: Vec<&'a [u8]>,
}

impl<'a> Signatures<'a> {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    fn push(&mut self, key: PublicKey, payload: Payload, signature: &'a [u8]) {
        self.keys.push(key);
        self.payloads.push(payload);
        self.signatures.push(signature);
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.keys.truncate(length);
        self.payloads.truncate(length);
        self.signatures.truncate(length);
    }

    /// Verifies all of them in one call, and says what that took.
    pub(crate) fn verify(&self) -> (Vec<Verdict>, Vec<Part>) {
        let columns = self.keys.iter().zip(&self.payloads).zip(&self.signatures);
        let tasks: Vec<_> = columns
            .map(|((key, payload), signature)| SignatureTask { key, message: payload.as_slice(), signature })
            .collect();
        let mut verdicts = Vec::with_capacity(tasks.len());
        let parts = cyclotron_crypto::verify(&tasks, &mut verdicts);
        (verdicts, parts)
    }
}

/// Callees that a chain of delegations allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    All,
    Only(Vec<CanisterId>),
}

impl Targets {
    pub(crate) fn contains(&self, callee: Principal) -> bool {
        match self {
            Self::All => true,
            Self::Only(targets) => targets.binary_search(&CanisterId::from_principal(callee)).is_ok(),
        }
    }

    fn restrict(&mut self, to: &[Principal]) {
        let mut to: Vec<_> = to.iter().copied().map(CanisterId::from_principal).collect();
        to.sort_unstable();
        to.dedup();
        match self {
            Self::All => *self = Self::Only(to),
            Self::Only(targets) => targets.retain(|target| to.binary_search(target).is_ok()),
        }
    }
}

/// Checks all of a request's authentication but its signatures, which it appends to `out` in chain order, the request's own
/// last; returns the callees that the chain allows.
///
/// Units: `now` on the node's clock. Spec: ic-interface-spec #authentication.
pub(crate) fn check_chain<'a>(
    envelope: &Envelope<'a>,
    request_id: &Digest,
    now: Time,
    out: &mut Signatures<'a>,
) -> Result<Targets, AdmissionError> {
    let sender = envelope.content.sender();
    let (pubkey, signature) = match (envelope.sender_pubkey, envelope.sender_sig, &envelope.sender_delegation) {
        (None, None, None) if sender == Principal::anonymous() => return Ok(Targets::All),
        (None, None, None) => return Err(AdmissionError::MissingSignature { sender }),
        _ if sender == Principal::anonymous() => return Err(AdmissionError::AnonymousSignature),
        (Some(pubkey), Some(signature), _) => (pubkey, signature),
        _ => return Err(AdmissionError::IncompleteAuthentication),
    };
    let key_owner = self_authenticating(pubkey);
    if key_owner != sender {
        return Err(AdmissionError::SenderMismatch { sender, key_owner });
    }
    let chain = envelope.sender_delegation.as_deref().unwrap_or_default();
    check_delegations(pubkey, chain, &envelope.content, now)?;
    let targets = intersect_targets(chain);
    if let Content::Call(call) | Content::Query(call) = &envelope.content
        && !targets.contains(call.canister_id)
    {
        return Err(AdmissionError::DelegationTarget { callee: call.canister_id });
    }
    let mut key = parse_key(pubkey, 0)?;
    for (index, SignedDelegation { delegation, signature }) in chain.iter().enumerate() {
        out.push(key, Payload::new(domain::DELEGATION, &delegation.hash()), signature);
        key = parse_key(delegation.pubkey, index + 1)?;
    }
    out.push(key, Payload::new(domain::REQUEST, request_id), signature);
    Ok(targets)
}

fn check_delegations(
    sender_pubkey: &[u8],
    chain: &[SignedDelegation<'_>],
    content: &Content<'_>,
    now: Time,
) -> Result<(), AdmissionError> {
    // The chain's length and its numbers of targets were bounded while decoding.
    for (index, SignedDelegation { delegation, .. }) in chain.iter().enumerate() {
        let position = index + 1;
        let expiration = Time(delegation.expiration);
        if expiration < now {
            return Err(AdmissionError::DelegationExpired { position, expiration, now });
        }
        let seen = chain[..index].iter().map(|earlier| earlier.delegation.pubkey);
        if std::iter::once(sender_pubkey).chain(seen).any(|key| key == delegation.pubkey) {
            return Err(AdmissionError::DelegationCycle { position });
        }
        if delegation.permissions == Some(Permissions::Queries) && matches!(content, Content::Call(_)) {
            return Err(AdmissionError::DelegationPermitsQueriesOnly);
        }
    }
    Ok(())
}

fn intersect_targets(chain: &[SignedDelegation<'_>]) -> Targets {
    let mut targets = Targets::All;
    for SignedDelegation { delegation, .. } in chain {
        if let Some(only) = &delegation.targets {
            targets.restrict(only);
        }
    }
    targets
}

fn parse_key(der: &[u8], position: usize) -> Result<PublicKey, AdmissionError> {
    match PublicKey::from_der(der) {
        Ok(PublicKey::Bls12381(_)) => Err(AdmissionError::SubnetKey { position }),
        Ok(key) => Ok(key),
        Err(reason) => Err(AdmissionError::PublicKey { position, reason }),
    }
}

/// Finds the first signature that does not verify; `verdicts` are those that [`check_chain`] appended for one request.
pub(crate) fn check_verdicts(verdicts: &[Verdict]) -> Result<(), AdmissionError> {
    match verdicts.iter().position(|verdict| *verdict != Verdict::Valid) {
        None => Ok(()),
        Some(last) if last + 1 == verdicts.len() => Err(AdmissionError::Signature),
        Some(index) => Err(AdmissionError::DelegationSignature { position: index + 1 }),
    }
}
