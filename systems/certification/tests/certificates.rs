//! Certificates as clients read them: `ic-certification` looks up, `ic-verify-bls-signature` verifies.

use cyclotron_certification::{
    CanisterFacts, CodeFacts, Delegation, ReadError, Reader, StateTree, SubnetFacts, SubnetMetrics, root_message,
};
use cyclotron_crypto::{BlsSecretKey, RootSigner, self_authenticating};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::IngressStatus;
use cyclotron_types::reject::{ErrorCode, Reject, RejectCode};
use cyclotron_types::units::{Bytes, Cycles, Time};
use cyclotron_types::{Principal, PrincipalSet};
use cyclotron_wire::{ApiVersion, Target};
use ic_certification::{Certificate, LookupResult};

/// A signer that costs nothing and says what it signed.
struct Echo;

impl RootSigner for Echo {
    fn public_key_der(&self) -> Vec<u8> {
        b"echo".to_vec()
    }

    fn sign(&self, message: &[u8]) -> [u8; 48] {
        let mut signature = [0; 48];
        signature[..46].copy_from_slice(message);
        signature
    }
}

const SUBNET: [u8; 29] = [7; 29];
const OTHER_SUBNET: [u8; 29] = [8; 29];
const NODE: [u8; 29] = [9; 29];
const USER: [u8; 29] = [3; 29];

fn canister(number: u64) -> CanisterId {
    CanisterId::from_u64(number)
}

fn subnet() -> Principal {
    Principal::from_slice(&SUBNET)
}

fn reader(target: Target, version: ApiVersion) -> Reader {
    Reader { target, version }
}

fn by_canister(number: u64) -> Reader {
    reader(Target::Canister(canister(number).principal()), ApiVersion::V3)
}

/// A subnet with two canisters (0 with code, 1 without), one request of each status, and a neighbour.
fn sample() -> StateTree {
    let mut state = StateTree::new(subnet());
    state.set_time(Time(1_700_000_000_000_000_000));
    let ranges = |from: u64, count: u64| -> Vec<(Principal, Principal)> {
        (0..count).map(|i| (canister(from + 10 * i).principal(), canister(from + 10 * i + 9).principal())).collect()
    };
    let node = [(Principal::from_slice(&NODE), &b"node key"[..])];
    let own = SubnetFacts {
        public_key: b"subnet key",
        subnet_type: "application",
        canister_ranges: &ranges(0, 7),
        nodes: &node,
    };
    state.upsert_subnet(subnet(), &own);
    let other = SubnetFacts {
        public_key: b"other key",
        subnet_type: "system",
        canister_ranges: &ranges(1000, 1),
        nodes: &node,
    };
    state.upsert_subnet(Principal::from_slice(&OTHER_SUBNET), &other);
    let metrics = SubnetMetrics {
        canisters: 2,
        canister_state: Bytes(5),
        consumed_cycles: Cycles(1 << 70),
        update_transactions: 4,
    };
    state.set_subnet_metrics(subnet(), &metrics);
    let controllers = PrincipalSet::from([Principal::from_slice(&USER), canister(1).principal()]);
    let metadata: [(&str, &[u8]); 2] = [("candid:service", b"service : {}"), ("secret", b"s3cret")];
    let code = CodeFacts { module_hash: &[0xaa; 32], installed: Some(Time(300)), metadata: &metadata };
    let facts = CanisterFacts {
        controllers: &controllers,
        certified_data: b"certified",
        created: Some(Time(200)),
        code: Some(code),
    };
    state.upsert_canister(canister(0), &facts);
    let empty = CanisterFacts { controllers: &controllers, certified_data: b"", created: None, code: None };
    state.upsert_canister(canister(1), &empty);
    let rejected = Reject::new(ErrorCode::CanisterTrapped, "it trapped");
    let own_reject = Reject { code: RejectCode::CanisterReject, error: None, message: "no".into() };
    let statuses = [
        IngressStatus::Received,
        IngressStatus::Processing,
        IngressStatus::Replied(b"DIDL".to_vec()),
        IngressStatus::Rejected(rejected),
        IngressStatus::Rejected(own_reject),
        IngressStatus::Done,
    ];
    for (number, status) in statuses.iter().enumerate() {
        state.upsert_request_status(MessageId([number as u8; 32]), status);
    }
    state
}

fn decode(certificate: &[u8]) -> Certificate {
    assert_eq!(certificate[..3], [0xd9, 0xd9, 0xf7], "the self-describing tag");
    serde_cbor::from_slice(certificate).expect("a certificate")
}

fn found<'c>(certificate: &'c Certificate, path: &[&[u8]]) -> &'c [u8] {
    match certificate.tree.lookup_path(path) {
        LookupResult::Found(value) => value,
        other => panic!("{path:?}: {other:?}"),
    }
}

fn read(state: &StateTree, reader: Reader, path: &[&[u8]]) -> Certificate {
    decode(&state.read_state_certificate(&reader, &[path]).expect("readable"))
}

/// A path and its value.
type Case<'a> = (&'a [&'a [u8]], Option<&'a [u8]>);

#[test]
fn every_path_of_the_specification_has_its_value() {
    let mut state = sample();
    let certified = state.certify(&Echo);
    assert_eq!(certified.signature[..46], root_message(&certified.root));
    let zero = canister(0);
    let zero = zero.as_slice();
    let one = canister(1);
    let one = one.as_slice();
    let [received, processing, replied, rejected, own_reject, done] = [0u8, 1, 2, 3, 4, 5].map(|number| [number; 32]);
    let mut time = Vec::new();
    let mut nanos = 1_700_000_000_000_000_000u64;
    while nanos >= 128 {
        time.push(nanos as u8 | 128);
        nanos >>= 7;
    }
    time.push(nanos as u8);
    let controllers = [&b"\xd9\xd9\xf7\x82\x4a"[..], one, b"\x58\x1d", &USER].concat();
    let cases: &[Case<'_>] = &[
        (&[b"time"], Some(&time)),
        (&[b"subnet", &SUBNET, b"public_key"], Some(b"subnet key")),
        (&[b"subnet", &SUBNET, b"type"], Some(b"application")),
        (&[b"subnet", &SUBNET, b"node", &NODE, b"public_key"], Some(b"node key")),
        (&[b"subnet", &OTHER_SUBNET, b"type"], Some(b"system")),
        (&[b"subnet", &NODE, b"public_key"], None),
        (&[b"canister", zero, b"module_hash"], Some(&[0xaa; 32])),
        (&[b"canister", zero, b"controllers"], Some(&controllers)),
        (&[b"canister", zero, b"canister_creation_timestamp"], Some(&[0xc8, 1])),
        (&[b"canister", zero, b"last_install_timestamp"], Some(&[0xac, 2])),
        (&[b"canister", zero, b"metadata", b"candid:service"], Some(b"service : {}")),
        (&[b"canister", zero, b"metadata", b"other"], None),
        (&[b"canister", one, b"module_hash"], None),
        (&[b"canister", one, b"controllers"], Some(&controllers)),
        (&[b"canister", one, b"canister_creation_timestamp"], None),
        (&[b"canister", one, b"last_install_timestamp"], None),
        (&[b"canister", one, b"metadata", b"candid:service"], None),
        (&[b"canister", &USER, b"controllers"], None),
        (&[b"request_status", &received, b"status"], Some(b"received")),
        (&[b"request_status", &processing, b"status"], Some(b"processing")),
        (&[b"request_status", &replied, b"status"], Some(b"replied")),
        (&[b"request_status", &replied, b"reply"], Some(b"DIDL")),
        (&[b"request_status", &replied, b"reject_code"], None),
        (&[b"request_status", &rejected, b"status"], Some(b"rejected")),
        (&[b"request_status", &rejected, b"reject_code"], Some(&[5])),
        (&[b"request_status", &rejected, b"reject_message"], Some(b"it trapped")),
        (&[b"request_status", &rejected, b"error_code"], Some(b"IC0502")),
        (&[b"request_status", &rejected, b"reply"], None),
        (&[b"request_status", &own_reject, b"reject_code"], Some(&[4])),
        (&[b"request_status", &own_reject, b"error_code"], Some(b"IC0406")),
        (&[b"request_status", &done, b"status"], Some(b"done")),
        (&[b"request_status", &done, b"reply"], None),
        (&[b"request_status", &[0xff; 32], b"status"], None),
        (&[b"api_boundary_nodes"], None),
    ];
    for (path, expected) in cases {
        let certificate = read(&state, by_canister(0), path);
        assert_eq!(certificate.tree.digest(), certified.root, "{path:?}");
        assert_eq!(certificate.signature, certified.signature);
        assert!(certificate.delegation.is_none());
        assert_eq!(found(&certificate, &[b"time"]), time);
        match expected {
            Some(value) => assert_eq!(found(&certificate, path), *value, "{path:?}"),
            None => assert_eq!(certificate.tree.lookup_path(*path), LookupResult::Absent, "{path:?}"),
        }
    }
    // All at once, and a whole request by its prefix.
    let paths: Vec<&[&[u8]]> = cases.iter().map(|(path, _)| *path).collect();
    let all = decode(&state.read_state_certificate(&by_canister(0), &paths).unwrap());
    assert_eq!(all.tree.digest(), certified.root);
    for (path, expected) in cases {
        match expected {
            Some(value) => assert_eq!(found(&all, path), *value),
            None => assert_eq!(all.tree.lookup_path(*path), LookupResult::Absent),
        }
    }
    let whole = read(&state, by_canister(0), &[b"request_status", &rejected]);
    assert_eq!(found(&whole, &[b"request_status", &rejected, b"reject_message"]), b"it trapped");
    assert_eq!(whole.tree.lookup_path([&b"request_status"[..], &rejected, b"reply"]), LookupResult::Absent);
    assert_eq!(whole.tree.lookup_path([&b"request_status"[..], &replied, b"reply"]), LookupResult::Unknown);
}

#[test]
fn canister_ranges_metrics_and_nodes_are_shown_to_whom_the_specification_says() {
    let mut state = sample();
    state.certify(&Echo);
    let subnets = [SUBNET, OTHER_SUBNET].map(|id| Principal::from_slice(&id));
    // Who reads; whether they see (ranges of the root subnet, ranges of the other, metrics and nodes of the root, nodes of the other).
    let cases = [
        (by_canister(0), [true, false, true, false]),
        (by_canister(69), [true, false, true, false]),
        (by_canister(70), [true, false, false, false]),
        (by_canister(1005), [true, false, false, true]),
        (reader(Target::Subnet(subnets[0]), ApiVersion::V3), [true, false, true, false]),
        (reader(Target::Subnet(subnets[1]), ApiVersion::V3), [true, false, false, true]),
        (reader(Target::Canister(canister(0).principal()), ApiVersion::V2), [true, true, true, false]),
        (reader(Target::Subnet(subnets[1]), ApiVersion::V2), [true, true, false, true]),
    ];
    for (reader, expected) in cases {
        let watched: [&[&[u8]]; 4] = [
            &[b"subnet", &SUBNET, b"canister_ranges"],
            &[b"subnet", &OTHER_SUBNET, b"canister_ranges"],
            &[b"subnet", &SUBNET, b"node", &NODE, b"public_key"],
            &[b"subnet", &OTHER_SUBNET, b"node", &NODE, b"public_key"],
        ];
        let whole = read(&state, reader, &[b"subnet"]);
        for (path, expected) in watched.iter().zip(expected) {
            for certificate in [&whole, &read(&state, reader, &path[..2]), &read(&state, reader, path)] {
                let shown = matches!(certificate.tree.lookup_path(*path), LookupResult::Found(_));
                assert_eq!(shown, expected, "{reader:?} {path:?}");
                assert_eq!(certificate.tree.digest(), whole.tree.digest());
            }
        }
        let metrics = whole.tree.lookup_path([&b"subnet"[..], &SUBNET, b"metrics"]);
        assert_eq!(matches!(metrics, LookupResult::Found(_)), expected[2], "{reader:?}");
        assert_eq!(found(&whole, &[b"subnet", &OTHER_SUBNET, b"public_key"]), b"other key");
    }
}

#[test]
fn canister_ranges_are_also_in_shards_of_five() {
    let mut state = sample();
    state.certify(&Echo);
    let certificate = read(&state, reader(Target::Subnet(subnet()), ApiVersion::V3), &[b"canister_ranges", &SUBNET]);
    let shard = |from: u64| -> Vec<(Principal, Principal)> {
        let id = canister(from);
        serde_cbor::from_slice(found(&certificate, &[b"canister_ranges", &SUBNET, id.as_slice()])).unwrap()
    };
    assert_eq!(shard(0).len(), 5);
    assert_eq!(shard(50), [50u64, 60].map(|from| (canister(from).principal(), canister(from + 9).principal())));
    let flat = read(&state, by_canister(0), &[b"subnet", &SUBNET, b"canister_ranges"]);
    let flat: Vec<(Principal, Principal)> =
        serde_cbor::from_slice(found(&flat, &[b"subnet", &SUBNET, b"canister_ranges"])).unwrap();
    assert_eq!(flat, [shard(0), shard(50)].concat());
}

#[test]
fn what_no_user_may_read_is_refused() {
    let mut state = sample();
    let id = canister(0);
    let id = id.as_slice();
    let good: &[&[u8]] = &[b"time"];
    assert_eq!(state.read_state_certificate(&by_canister(0), &[good]), Err(ReadError::NotCertified));
    state.certify(&Echo);
    let refused: &[&[&[u8]]] = &[
        &[],
        &[b"canister"],
        &[b"canister", id],
        &[b"canister", id, b"metadata"],
        &[b"canister", id, b"certified_data"],
        &[b"canister", id, b"certified_data", b"x"],
        &[b"request_status"],
    ];
    for path in refused {
        let outcome = state.read_state_certificate(&by_canister(0), &[good, path]);
        assert_eq!(outcome, Err(ReadError::NotReadable { index: 1 }), "{path:?}");
    }
}

#[test]
fn a_query_gets_its_certified_data_and_no_one_elses() {
    let mut state = sample();
    let root = state.certify(&Echo).root;
    let certificate = decode(&state.data_certificate(canister(0)).unwrap());
    assert_eq!(certificate.tree.digest(), root);
    let path = |number: u64| [b"canister".to_vec(), canister(number).as_slice().to_vec(), b"certified_data".to_vec()];
    assert_eq!(certificate.tree.lookup_path(path(0)), LookupResult::Found(b"certified"));
    assert_eq!(certificate.tree.lookup_path(path(1)), LookupResult::Unknown);
    assert!(matches!(certificate.tree.lookup_path([b"time"]), LookupResult::Found(_)));
    state.set_certified_data(canister(1), &[5; 32]);
    assert_eq!(state.data_certificate(canister(1)), Err(ReadError::NotCertified));
    state.certify(&Echo);
    let certificate = decode(&state.data_certificate(canister(1)).unwrap());
    assert_eq!(certificate.tree.lookup_path(path(1)), LookupResult::Found(&[5; 32]));
}

#[test]
fn a_synchronous_call_gets_the_whole_status_of_its_request() {
    let mut state = sample();
    state.certify(&Echo);
    let certificate = decode(&state.request_status_certificate(MessageId([2; 32])).unwrap());
    assert_eq!(found(&certificate, &[b"request_status", &[2; 32], b"reply"]), b"DIDL");
    assert!(matches!(certificate.tree.lookup_path([b"time"]), LookupResult::Found(_)));
    let absent = decode(&state.request_status_certificate(MessageId([99; 32])).unwrap());
    assert_eq!(absent.tree.lookup_path([&b"request_status"[..], &[99; 32], b"status"]), LookupResult::Absent);
}

/// Each way of reaching the same content gives the same root.
#[test]
fn facts_that_come_and_go_leave_no_trace() {
    let root = sample().certify(&Echo).root;
    let mut state = sample();
    let controllers = PrincipalSet::from([Principal::anonymous()]);
    let metadata: [(&str, &[u8]); 2] = [("candid:service", b"other"), ("third", b"3")];
    let code = CodeFacts { module_hash: &[1; 32], installed: Some(Time(1)), metadata: &metadata };
    let facts =
        CanisterFacts { controllers: &controllers, certified_data: b"x", created: Some(Time(1)), code: Some(code) };
    state.upsert_canister(canister(1), &facts);
    state.upsert_canister(canister(2), &facts);
    state.upsert_canister(canister(0), &facts);
    state.set_controllers(canister(0), &PrincipalSet::default());
    state.upsert_request_status(MessageId([50; 32]), &IngressStatus::Replied(vec![1; 5_000]));
    state.upsert_request_status(MessageId([3; 32]), &IngressStatus::Replied(vec![]));
    state.upsert_request_status(MessageId([2; 32]), &IngressStatus::Done);
    state.set_time(Time(1));
    assert_ne!(state.certify(&Echo).root, root);
    assert!(state.remove_canister(canister(2)));
    assert!(!state.remove_canister(canister(2)));
    state.remove_request_statuses(&[MessageId([50; 32]), MessageId([51; 32])]);
    // The sample's own facts again, over the changed ones.
    let sample_controllers = PrincipalSet::from([Principal::from_slice(&USER), canister(1).principal()]);
    let metadata: [(&str, &[u8]); 2] = [("secret", b"s3cret"), ("candid:service", b"service : {}")];
    let code = CodeFacts { module_hash: &[0xaa; 32], installed: Some(Time(300)), metadata: &metadata };
    let zero = CanisterFacts {
        controllers: &sample_controllers,
        certified_data: b"certified",
        created: Some(Time(200)),
        code: Some(code),
    };
    state.upsert_canister(canister(0), &zero);
    let one = CanisterFacts { controllers: &sample_controllers, certified_data: b"", created: None, code: None };
    state.upsert_canister(canister(1), &one);
    state.upsert_request_status(MessageId([2; 32]), &IngressStatus::Replied(b"DIDL".to_vec()));
    let rejected = Reject::new(ErrorCode::CanisterTrapped, "it trapped");
    state.upsert_request_status(MessageId([3; 32]), &IngressStatus::Rejected(rejected));
    state.set_time(Time(1_700_000_000_000_000_000));
    assert_eq!(state.certify(&Echo).root, root);
}

/// What a client does with a certificate, without the freshness of its time.
fn verify(certificate: &[u8], root_key_der: &[u8]) -> Option<Certificate> {
    // The BLS key is the last 96 bytes of its DER form.
    let key = &root_key_der[root_key_der.len() - 96..];
    // The decoder passes over any tag; the specification allows only this one.
    let certificate: Certificate = serde_cbor::from_slice(certificate.strip_prefix(b"\xd9\xd9\xf7")?).ok()?;
    let message = root_message(&certificate.tree.digest());
    ic_verify_bls_signature::verify_bls_signature(&certificate.signature, &message, key).ok()?;
    Some(certificate)
}

#[test]
fn a_certificate_verifies_under_the_root_key_and_a_flipped_byte_is_refused_or_says_the_same() {
    let signer = BlsSecretKey::from_seed(&[1; 32]);
    let root_key = signer.public_key_der();
    assert_eq!(root_key.len(), 133);
    let mut state = sample();
    state.certify(&signer);
    let certificate = state.request_status_certificate(MessageId([2; 32])).unwrap();
    let good = verify(&certificate, &root_key).expect("it verifies");
    assert_eq!(found(&good, &[b"request_status", &[2; 32], b"reply"]), b"DIDL");
    assert!(verify(&certificate, &BlsSecretKey::from_seed(&[2; 32]).public_key_der()).is_none());
    for at in 0..certificate.len() {
        for mask in [0xff, 1, 2, 4, 8, 16, 32, 64, 128] {
            let mut flipped = certificate.clone();
            flipped[at] ^= mask;
            let Some(accepted) = verify(&flipped, &root_key) else { continue };
            // One bit makes a byte string a text string of the same bytes or back, which this decoder takes for the same.
            assert_eq!(accepted, good, "byte {at}, mask {mask:02x}");
            assert!(mask == 32 && [2, 3].contains(&(certificate[at] >> 5)), "byte {at}, mask {mask:02x}");
        }
    }
}

#[test]
fn a_delegation_travels_with_the_certificate() {
    let (root, own) = (BlsSecretKey::from_seed(&[1; 32]), BlsSecretKey::from_seed(&[2; 32]));
    let own_key = own.public_key_der();
    let own_subnet = self_authenticating(&own_key);
    let mut above = StateTree::new(self_authenticating(&root.public_key_der()));
    above.set_time(Time(5));
    let facts = SubnetFacts { public_key: &own_key, subnet_type: "application", canister_ranges: &[], nodes: &[] };
    above.upsert_subnet(own_subnet, &facts);
    above.certify(&root);
    let path: &[&[u8]] = &[b"subnet", own_subnet.as_slice(), b"public_key"];
    let vouch = above.read_state_certificate(&reader(Target::Subnet(own_subnet), ApiVersion::V3), &[path]).unwrap();
    let mut state = sample();
    state.set_delegation(Some(Delegation { subnet: own_subnet, certificate: vouch }));
    state.certify(&own);
    let certificate = decode(&state.data_certificate(canister(0)).unwrap());
    let delegation = certificate.delegation.as_ref().expect("a delegation");
    assert_eq!(delegation.subnet_id, own_subnet.as_slice());
    let vouch = verify(&delegation.certificate, &root.public_key_der()).expect("the root subnet vouches");
    assert_eq!(found(&vouch, path), own_key);
    let message = root_message(&certificate.tree.digest());
    let key = &own_key[own_key.len() - 96..];
    assert!(ic_verify_bls_signature::verify_bls_signature(&certificate.signature, &message, key).is_ok());
}

#[test]
fn the_deepest_tree_that_canister_ids_allow_is_within_the_nesting_that_clients_decode() {
    let mut state = sample();
    let controllers = PrincipalSet::default();
    let names: Vec<String> = (0..16).map(|length| "x".repeat(length)).collect();
    let metadata: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b"1"[..])).collect();
    let code = CodeFacts { module_hash: &[1; 32], installed: Some(Time(1)), metadata: &metadata };
    let facts = CanisterFacts { controllers: &controllers, certified_data: b"", created: None, code: Some(code) };
    let ids: Vec<u64> = std::iter::once(0).chain((0..64).map(|bit| 1 << bit)).collect();
    for id in &ids {
        state.upsert_canister(canister(*id), &facts);
    }
    state.certify(&Echo);
    for id in ids {
        let id = canister(id);
        let path: &[&[u8]] = &[b"canister", id.as_slice(), b"metadata", names[15].as_bytes()];
        let certificate = read(&state, by_canister(0), path);
        assert_eq!(found(&certificate, path), b"1");
    }
}
