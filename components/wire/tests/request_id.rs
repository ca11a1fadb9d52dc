//! Request ids against the specification's example and against the agents' own implementation.

use cyclotron_wire::{
    CallContent, Content, Delegation, Digest, Permissions, ReadStateContent, SenderInfo, Value, hash_of_map,
};
use ic_principal::Principal;
use ic_transport_types::EnvelopeContent;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// The call of the specification's example. Spec: ic-interface-spec #request-id.
fn example() -> CallContent<'static> {
    CallContent {
        nonce: None,
        ingress_expiry: 1_685_570_400_000_000_000,
        sender: Principal::from_slice(&[4]),
        canister_id: Principal::from_slice(&[0, 0, 0, 0, 0, 0, 4, 0xd2]),
        method_name: "hello",
        arg: b"DIDL\x00\xFD*",
        sender_info: None,
    }
}

#[test]
fn example_of_the_specification_has_its_request_id() {
    let id = Content::Call(example()).request_id();
    assert_eq!(hex::encode(id), "1d1091364d6bb8a6c16b203ee75467d59ead468f523eb058880ae8ec80e2b101");
}

#[test]
fn every_field_of_a_content_changes_its_request_id() {
    let base = Content::Call(example());
    let info = SenderInfo { info: b"", signer: Principal::from_slice(&[1]), sig: b"" };
    let others = [
        Content::Query(example()),
        Content::Call(CallContent { nonce: Some(b""), ..example() }),
        Content::Call(CallContent { nonce: Some(b"x"), ..example() }),
        Content::Call(CallContent { ingress_expiry: 1, ..example() }),
        Content::Call(CallContent { sender: Principal::anonymous(), sender_info: None, ..example() }),
        Content::Call(CallContent { sender: Principal::from_slice(&[]), ..example() }),
        Content::Call(CallContent { canister_id: Principal::from_slice(&[]), ..example() }),
        Content::Call(CallContent { method_name: "", ..example() }),
        Content::Call(CallContent { arg: b"", ..example() }),
        Content::Call(CallContent { sender_info: Some(info.clone()), ..example() }),
        Content::Call(CallContent { sender_info: Some(SenderInfo { info: b"x", ..info.clone() }), ..example() }),
        Content::Call(CallContent { sender_info: Some(SenderInfo { sig: b"x", ..info }), ..example() }),
    ];
    let mut ids: Vec<_> = others.iter().chain([&base]).map(Content::request_id).collect();
    ids.sort_unstable();
    ids.dedup();
    // The example's sender is the anonymous principal, so one of the others is the same request.
    assert_eq!(ids.len(), others.len());
}

/// One at a time, by the crate that the single hashes use.
fn sha256(messages: &[&[u8]], digests: &mut [Digest]) {
    messages.iter().zip(digests).for_each(|(message, digest)| *digest = Sha256::digest(message).into());
}

#[test]
fn ids_of_many_contents_are_those_of_each() {
    let info = SenderInfo { info: b"i", signer: Principal::from_slice(&[1]), sig: b"s" };
    let read = |paths| {
        let (ingress_expiry, sender) = (7, Principal::anonymous());
        Content::ReadState(ReadStateContent { nonce: Some(b"n"), ingress_expiry, sender, paths })
    };
    let contents = [
        read(vec![vec![b"time"], vec![], vec![b"canister", b"", b"module_hash"]]),
        Content::Call(example()),
        read(vec![]),
        Content::Query(CallContent { nonce: Some(b"x"), method_name: "sender", arg: &[7; 1_000], ..example() }),
        Content::Call(CallContent { sender_info: Some(info), nonce: Some(b""), ..example() }),
    ];
    for count in 0..=contents.len() {
        let each: Vec<_> = contents[..count].iter().map(Content::request_id).collect();
        assert_eq!(Content::request_ids(contents[..count].iter(), &sha256), each);
    }
}

#[test]
fn order_of_fields_does_not_change_the_hash() {
    let a = hash_of_map(&[("arg", Value::Bytes(b"x")), ("sender", Value::Nat(7))]);
    let b = hash_of_map(&[("sender", Value::Nat(7)), ("arg", Value::Bytes(b"x"))]);
    assert_eq!(a, b);
}

fn principal() -> impl Strategy<Value = Principal> {
    prop::collection::vec(any::<u8>(), 0..=29).prop_map(|bytes| Principal::from_slice(&bytes))
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #[test]
    fn calls_and_queries_hash_as_agents_hash_them(
        nonce in prop::option::of(bytes(33)),
        ingress_expiry: u64,
        sender in principal(),
        canister_id in principal(),
        method_name in ".{0,40}",
        arg in bytes(200),
        info in prop::option::of((bytes(40), principal(), bytes(40))),
    ) {
        let sender_info = info.as_ref().map(|(info, signer, sig)| SenderInfo { info, signer: *signer, sig });
        let theirs_info = || info.as_ref().map(|(info, signer, sig)| ic_transport_types::SenderInfo {
            info: info.clone(), signer: signer.as_slice().to_vec(), sig: sig.clone(),
        });
        let ours = CallContent {
            nonce: nonce.as_deref(), ingress_expiry, sender, canister_id, method_name: &method_name, arg: &arg, sender_info,
        };
        let call = EnvelopeContent::Call {
            nonce: nonce.clone(), ingress_expiry, sender, canister_id, method_name: method_name.clone(), arg: arg.clone(),
            sender_info: theirs_info(),
        };
        prop_assert_eq!(Content::Call(ours.clone()).request_id().to_vec(), call.to_request_id().to_vec());
        let query = EnvelopeContent::Query {
            nonce: nonce.clone(), ingress_expiry, sender, canister_id, method_name: method_name.clone(), arg: arg.clone(),
            sender_info: theirs_info(),
        };
        prop_assert_eq!(Content::Query(ours).request_id().to_vec(), query.to_request_id().to_vec());
    }

    #[test]
    fn read_state_hashes_as_agents_hash_it(
        ingress_expiry: u64,
        sender in principal(),
        paths in prop::collection::vec(prop::collection::vec(bytes(40), 0..6), 0..6),
    ) {
        let ours = ReadStateContent {
            nonce: None, ingress_expiry, sender,
            paths: paths.iter().map(|path| path.iter().map(Vec::as_slice).collect()).collect(),
        };
        let theirs = EnvelopeContent::ReadState {
            ingress_expiry, sender,
            paths: paths.iter().map(|path| path.iter().map(|label| label.as_slice().into()).collect()).collect(),
        };
        prop_assert_eq!(Content::ReadState(ours).request_id().to_vec(), theirs.to_request_id().to_vec());
    }

    #[test]
    fn delegations_hash_as_agents_hash_them(
        pubkey in bytes(100),
        expiration: u64,
        targets in prop::option::of(prop::collection::vec(principal(), 0..5)),
        permissions in prop::option::of(any::<bool>()),
    ) {
        use ic_transport_types::DelegationPermissions as Theirs;
        let ours = Delegation {
            pubkey: &pubkey, expiration, targets: targets.clone(),
            permissions: permissions.map(|all| if all { Permissions::All } else { Permissions::Queries }),
        };
        let theirs = ic_transport_types::Delegation {
            pubkey: pubkey.clone(), expiration, targets,
            permissions: permissions.map(|all| if all { Theirs::All } else { Theirs::Queries }),
        };
        let mut signable = cyclotron_wire::domain::DELEGATION.to_vec();
        signable.extend_from_slice(&ours.hash());
        prop_assert_eq!(signable, theirs.signable());
    }
}
