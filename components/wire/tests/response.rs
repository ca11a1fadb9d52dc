//! Answers as agents read them.

use cyclotron_wire::{
    CertificateDelegation, NodeSignature, QueryAnswer, Rejection, Status, encode_call_certificate, encode_certificate,
    encode_query_response, encode_read_state, encode_rejection_async, encode_rejection_sync, encode_status,
    query_signature_payload,
};
use ic_principal::Principal;
use ic_transport_types::{QueryResponse, ReadStateResponse, RejectResponse, RequestId, TransportCallResponse};
use proptest::prelude::*;

const REJECTION: Rejection<'static> =
    Rejection { reject_code: 3, reject_message: "no such canister", error_code: Some("IC0301") };

#[test]
fn status_is_a_tagged_map_with_the_root_key() {
    let status = Status {
        root_key: b"key",
        impl_version: "0.1.0",
        replica_health_status: "healthy",
        certified_height: Some(300),
    };
    let bytes = encode_status(&status);
    assert_eq!(bytes[..3], [0xd9, 0xd9, 0xf7]);
    let value: ciborium::Value = ciborium::from_reader(&bytes[3..]).unwrap();
    let get = |name: &str| value.as_map().unwrap().iter().find(|(k, _)| k.as_text() == Some(name)).unwrap().1.clone();
    assert_eq!(get("root_key").as_bytes().unwrap(), b"key");
    assert_eq!(get("impl_version").as_text(), Some("0.1.0"));
    assert_eq!(get("replica_health_status").as_text(), Some("healthy"));
    assert_eq!(get("certified_height").as_integer(), Some(300.into()));
}

#[test]
fn rejections_of_calls_read_back() {
    let sync: TransportCallResponse = serde_cbor::from_slice(&encode_rejection_sync(&REJECTION)).unwrap();
    let TransportCallResponse::NonReplicatedRejection(reject) = sync else { panic!("{sync:?}") };
    let other: RejectResponse = serde_cbor::from_slice(&encode_rejection_async(&REJECTION)).unwrap();
    assert_eq!(reject, other);
    assert_eq!(u64::from(reject.reject_code as u8), 3);
    assert_eq!(reject.reject_message, "no such canister");
    assert_eq!(reject.error_code.as_deref(), Some("IC0301"));
    let bare = encode_rejection_async(&Rejection { error_code: None, ..REJECTION });
    let bare: RejectResponse = serde_cbor::from_slice(&bare).unwrap();
    assert_eq!(bare.error_code, None);
}

fn certificate_of(bytes: &[u8]) -> ic_certification::Certificate {
    serde_cbor::from_slice(bytes).expect("a certificate")
}

#[test]
fn certificates_read_back() {
    // A leaf as the whole tree: [3, "v"].
    let tree = [0x82, 0x03, 0x41, b'v'];
    let subnet_id = Principal::from_slice(&[1, 2]);
    let inner = encode_certificate(&tree, b"inner", None);
    let delegation = CertificateDelegation { subnet_id, certificate: &inner };
    let outer = encode_certificate(&tree, b"signature", Some(delegation));
    let certificate = certificate_of(&outer);
    assert_eq!(certificate.signature, b"signature");
    assert_eq!(certificate.tree, ic_certification::leaf(b"v".to_vec()));
    let read = certificate.delegation.unwrap();
    assert_eq!(read.subnet_id, subnet_id.as_slice());
    assert_eq!(read.certificate, inner);
    assert_eq!(certificate_of(&inner).delegation, None);

    let read: ReadStateResponse = serde_cbor::from_slice(&encode_read_state(&outer)).unwrap();
    assert_eq!(read.certificate, outer);
    let call: TransportCallResponse = serde_cbor::from_slice(&encode_call_certificate(&outer)).unwrap();
    assert!(matches!(call, TransportCallResponse::Replied { certificate } if certificate == outer));
}

proptest! {
    #[test]
    fn query_answers_read_back_and_are_signed_as_agents_expect(
        reply in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        // 6 comes of best-effort calls only; agents do not know it.
        reject_code in 1u8..=5,
        reject_message in ".{0,40}",
        error_code in prop::option::of("IC0[0-9]{3}"),
        timestamp: u64,
        id: [u8; 32],
    ) {
        let answer = match &reply {
            Some(arg) => QueryAnswer::Replied(arg),
            None => QueryAnswer::Rejected(Rejection {
                reject_code, reject_message: &reject_message, error_code: error_code.as_deref(),
            }),
        };
        let payload = query_signature_payload(&answer, timestamp, &id);
        let signature = NodeSignature { timestamp, signature: vec![7; 64], identity: Principal::from_slice(&[5; 29]) };
        let read: QueryResponse = serde_cbor::from_slice(&encode_query_response(&answer, &[signature])).expect("an answer");
        prop_assert_eq!(read.signable(RequestId::new(&id), timestamp), payload.to_vec());
        prop_assert_eq!(read.signatures().len(), 1);
        prop_assert_eq!(read.signatures()[0].timestamp, timestamp);
        prop_assert_eq!(read.signatures()[0].identity.as_slice(), &[5u8; 29][..]);
        prop_assert_eq!(&read.signatures()[0].signature, &vec![7u8; 64]);
        match read {
            QueryResponse::Replied { reply: read, .. } => prop_assert_eq!(Some(read.arg), reply),
            QueryResponse::Rejected { reject, .. } => {
                prop_assert_eq!(reject.reject_code as u8, reject_code);
                prop_assert_eq!(reject.reject_message, reject_message);
                prop_assert_eq!(reject.error_code, error_code);
            }
        }
    }
}
