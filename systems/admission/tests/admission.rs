//! Requests as clients sign them, and every way to get one wrong.

#[path = "../../../engine/crypto/tests/common/mod.rs"]
mod signers;

use candid::Encode;
use cyclotron_admission::{
    AdmissionError, Admitted, AdmittedCall, AdmittedReadState, Condition, Config, RequestBytes, admit, admit_batch,
};
use cyclotron_crypto::{PublicKeyError, Unsupported, self_authenticating};
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::reject::ErrorCode;
use cyclotron_types::units::{Bytes, Time};
use cyclotron_wire::{
    ApiVersion, CallContent, Content, DecodeError, Delegation, Envelope, Permissions, ReadStateContent, RequestType,
    Route, RouteError, SenderInfo, SignedDelegation, Target, domain,
};
use ic_management_canister_types as management;
use proptest::prelude::*;
use signers::{TestSigner, signers};

const SECOND: u64 = 1_000_000_000;
const NOW: Time = Time(1_800_000_000 * SECOND);
const CANISTER: CanisterId = CanisterId::from_principal(Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 5, 1, 1]));
const OTHER: Principal = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 6, 1, 1]);
const SUBNET: Principal = Principal::from_slice(&[7; 29]);

fn config() -> Config {
    Config::single_subnet(SUBNET)
}

fn target() -> Target {
    Target::Canister(CANISTER.principal())
}

/// One signer of each scheme that users have.
fn users(seed: u8) -> Vec<TestSigner> {
    signers(seed).into_iter().filter(|signer| signer.name != "bls12-381").collect()
}

fn user() -> TestSigner {
    users(1).remove(0)
}

fn sender_of(user: &TestSigner) -> Principal {
    self_authenticating(&user.der)
}

fn call(sender: Principal) -> CallContent<'static> {
    CallContent {
        nonce: Some(b"nonce"),
        ingress_expiry: NOW.0 + 60 * SECOND,
        sender,
        canister_id: CANISTER.principal(),
        method_name: "method",
        arg: b"DIDL\0\0",
        sender_info: None,
    }
}

fn read(sender: Principal, paths: Vec<Vec<&[u8]>>) -> ReadStateContent<'_> {
    ReadStateContent { nonce: None, ingress_expiry: NOW.0 + 60 * SECOND, sender, paths }
}

fn anonymous(content: Content<'_>) -> Vec<u8> {
    Envelope { content, sender_pubkey: None, sender_sig: None, sender_delegation: None }.encode()
}

fn request_signature(content: &Content<'_>, by: &TestSigner) -> Vec<u8> {
    (by.sign)(&[&domain::REQUEST[..], &content.request_id()].concat())
}

fn signed(content: Content<'_>, by: &TestSigner) -> Vec<u8> {
    let signature = request_signature(&content, by);
    let (sender_pubkey, sender_sig) = (Some(&by.der[..]), Some(&signature[..]));
    Envelope { content, sender_pubkey, sender_sig, sender_delegation: None }.encode()
}

/// What a delegation says beside the key.
#[derive(Clone)]
struct Grant {
    expiration: u64,
    targets: Option<Vec<Principal>>,
    permissions: Option<Permissions>,
}

const GRANT: Grant = Grant { expiration: NOW.0, targets: None, permissions: None };

/// Signs `content` by the last of `chain`, each of which is delegated to by the one before it.
fn delegated(content: Content<'_>, chain: &[&TestSigner], grants: &[Grant]) -> Vec<u8> {
    assert_eq!(chain.len(), grants.len() + 1);
    let delegations: Vec<_> = grants
        .iter()
        .zip(chain.windows(2))
        .map(|(grant, pair)| {
            let Grant { expiration, targets, permissions } = grant.clone();
            let delegation = Delegation { pubkey: &pair[1].der, expiration, targets, permissions };
            let signature = (pair[0].sign)(&[&domain::DELEGATION[..], &delegation.hash()].concat());
            (delegation, signature)
        })
        .collect();
    let last = chain.last().expect("not empty");
    let signature = request_signature(&content, last);
    let chain_of_delegations = delegations
        .iter()
        .map(|(delegation, signature)| SignedDelegation { delegation: delegation.clone(), signature })
        .collect();
    Envelope {
        content,
        sender_pubkey: Some(&chain[0].der),
        sender_sig: Some(&signature),
        sender_delegation: Some(chain_of_delegations),
    }
    .encode()
}

fn send(route: Route, body: &[u8]) -> Result<Admitted, AdmissionError> {
    admit(RequestBytes { route, body }, NOW, &config())
}

fn send_call(body: &[u8]) -> Result<Admitted, AdmissionError> {
    send(Route::Call(ApiVersion::V3, target()), body)
}

#[track_caller]
fn refused(result: Result<Admitted, AdmissionError>, status: u16) -> AdmissionError {
    let error = result.expect_err("must be refused");
    assert_eq!(error.http_status(), status, "{error}");
    assert!(!error.to_string().is_empty());
    error
}

#[test]
fn calls_signed_by_every_scheme_are_admitted() {
    for user in users(3) {
        let content = Content::Call(call(sender_of(&user)));
        let id = content.request_id();
        let Ok(Admitted::Call(AdmittedCall { version, target: to, ingress })) = send_call(&signed(content, &user))
        else {
            panic!("{} is not admitted", user.name)
        };
        assert_eq!((version, to), (ApiVersion::V3, target()));
        assert_eq!(ingress.id, MessageId(id));
        assert_eq!(ingress.sender, sender_of(&user));
        assert_eq!(ingress.receiver, CANISTER);
        assert_eq!(ingress.effective_canister, Some(CANISTER));
        assert_eq!(ingress.method, "method");
        assert_eq!(ingress.arg, b"DIDL\0\0");
        assert_eq!(ingress.expiry, Time(NOW.0 + 60 * SECOND));
    }
}

#[test]
fn what_agents_encode_is_admitted() {
    let user = user();
    let content = ic_transport_types::EnvelopeContent::Call {
        nonce: None,
        ingress_expiry: NOW.0 + SECOND,
        sender: sender_of(&user),
        canister_id: CANISTER.principal(),
        method_name: "method".into(),
        arg: vec![1, 2, 3],
        sender_info: None,
    };
    let envelope = ic_transport_types::Envelope {
        sender_sig: Some((user.sign)(&content.to_request_id().signable())),
        content: std::borrow::Cow::Owned(content),
        sender_pubkey: Some(user.der.clone()),
        sender_delegation: None,
    };
    assert!(send_call(&envelope.encode_bytes()).is_ok());
}

#[test]
fn every_flipped_byte_of_a_signed_call_is_refused() {
    let (first, last) = (user(), users(2).remove(2));
    let content = || Content::Call(call(sender_of(&first)));
    for body in [signed(content(), &first), delegated(content(), &[&first, &last], &[GRANT])] {
        assert!(send_call(&body).is_ok());
        for place in 0..body.len() {
            for flip in [1, 0x80, 0xff] {
                let mut flipped = body.clone();
                flipped[place] ^= flip;
                let status = send_call(&flipped).expect_err("a flipped byte").http_status();
                assert!(matches!(status, 400 | 403), "byte {place}: {status}");
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_an_anonymous_call_is_refused_or_another_request() {
    let body = anonymous(Content::Call(call(Principal::anonymous())));
    let Ok(Admitted::Call(original)) = send_call(&body) else { panic!("must be admitted") };
    for place in 0..body.len() {
        for flip in 1..=255u8 {
            let mut flipped = body.clone();
            flipped[place] ^= flip;
            if let Ok(Admitted::Call(other)) = send_call(&flipped) {
                assert_ne!(other.ingress.id, original.ingress.id, "byte {place}");
            }
        }
    }
}

#[test]
fn expiry_must_lie_within_the_window() {
    let user = user();
    let window = 330 * SECOND;
    let cases = [
        (NOW.0, true),
        (NOW.0 + window, true),
        (NOW.0 - 1, false),
        (NOW.0 + window + 1, false),
        (0, false),
        (u64::MAX, false),
    ];
    for (ingress_expiry, good) in cases {
        let with = |sender| CallContent { ingress_expiry, ..call(sender) };
        let anonymous_call = send_call(&anonymous(Content::Call(with(Principal::anonymous()))));
        let signed_call = send_call(&signed(Content::Call(with(sender_of(&user))), &user));
        let query = Route::Query(ApiVersion::V3, target());
        let signed_query = send(query, &signed(Content::Query(with(sender_of(&user))), &user));
        for result in [anonymous_call, signed_call, signed_query] {
            if good {
                assert!(result.is_ok(), "{ingress_expiry}: {result:?}");
                continue;
            }
            let error = refused(result, 400);
            let text = error.to_string();
            assert!(text.starts_with("Invalid request expiry: Specified ingress_expiry not within expected range: "));
            assert!(text.contains("Minimum allowed expiry: 2027-01-15 08:00:00.000000000 UTC"), "{text}");
        }
        // Anonymous reads may carry any expiry.
        assert!(send(query, &anonymous(Content::Query(with(Principal::anonymous())))).is_ok());
        let paths = ReadStateContent { ingress_expiry, ..read(Principal::anonymous(), vec![vec![b"time"]]) };
        assert!(send(Route::ReadState(ApiVersion::V3, target()), &anonymous(Content::ReadState(paths))).is_ok());
    }
}

#[test]
fn key_signature_and_sender_must_belong_together() {
    let (user, stranger) = (user(), users(2).remove(0));
    let content = || Content::Call(call(sender_of(&user)));
    let signature = request_signature(&content(), &user);
    let envelope = |pubkey, sig, chain| {
        let (sender_pubkey, sender_sig) = (pubkey, sig);
        Envelope { content: content(), sender_pubkey, sender_sig, sender_delegation: chain }.encode()
    };
    let (key, sig) = (Some(&user.der[..]), Some(&signature[..]));
    let sender = sender_of(&user);
    assert_eq!(refused(send_call(&anonymous(content())), 403), AdmissionError::MissingSignature { sender });
    for body in [envelope(key, None, None), envelope(None, sig, None), envelope(None, None, Some(vec![]))] {
        assert_eq!(refused(send_call(&body), 400), AdmissionError::IncompleteAuthentication);
    }
    let key_owner = sender_of(&stranger);
    let theirs = envelope(Some(&stranger.der), sig, None);
    assert_eq!(refused(send_call(&theirs), 403), AdmissionError::SenderMismatch { sender, key_owner });
    let theirs = request_signature(&content(), &stranger);
    for bad in [&[][..], &[0; 64], &signature[..63], &theirs] {
        assert_eq!(refused(send_call(&envelope(key, Some(bad), None)), 403), AdmissionError::Signature);
    }
    let unsigned = Content::Call(call(Principal::anonymous()));
    let body = Envelope { content: unsigned, sender_pubkey: key, sender_sig: sig, sender_delegation: None }.encode();
    assert_eq!(refused(send_call(&body), 403), AdmissionError::AnonymousSignature);
    // An empty chain is as good as none.
    assert!(send_call(&envelope(key, sig, Some(vec![]))).is_ok());
}

#[test]
fn a_signature_for_one_purpose_is_none_for_another() {
    let user = user();
    let content = Content::Call(call(sender_of(&user)));
    for separator in [&domain::DELEGATION[..], domain::RESPONSE, domain::SENDER_INFO, b""] {
        let signature = (user.sign)(&[separator, &content.request_id()].concat());
        let (sender_pubkey, sender_sig) = (Some(&user.der[..]), Some(&signature[..]));
        let body = Envelope { content: content.clone(), sender_pubkey, sender_sig, sender_delegation: None }.encode();
        assert_eq!(refused(send_call(&body), 403), AdmissionError::Signature);
    }
}

#[test]
fn keys_that_cannot_be_verified_with_are_named() {
    let cose = b"\x30\x13\x30\x0c\x06\x0a\x2b\x06\x01\x04\x01\x83\xb8\x43\x01\x01\x03\x03\x00\xa0\x00";
    let canister = b"\x30\x13\x30\x0c\x06\x0a\x2b\x06\x01\x04\x01\x83\xb8\x43\x01\x02\x03\x03\x00\x00\x00";
    let subnet = signers(1).remove(3).der;
    let user = user();
    let cases: [(&[u8], &str); 4] = [
        (cose, "not supported yet: WebAuthn signatures"),
        (canister, "not supported yet: canister signatures"),
        (b"junk", "malformed public key"),
        (&subnet, "BLS key"),
    ];
    for (der, text) in cases {
        let content = Content::Call(call(self_authenticating(der)));
        let (sender_pubkey, sender_sig) = (Some(der), Some(&[0; 64][..]));
        let body = Envelope { content, sender_pubkey, sender_sig, sender_delegation: None }.encode();
        let error = refused(send_call(&body), 403).to_string();
        assert!(error.contains(text), "{error}");
        // The same at the end of a chain.
        let delegate = TestSigner { name: "delegate", der: der.to_vec(), sign: Box::new(|_| vec![0; 64]) };
        let body = delegated(Content::Call(call(sender_of(&user))), &[&user, &delegate], &[GRANT]);
        let error = refused(send_call(&body), 403).to_string();
        assert!(error.contains(text), "{error}");
    }
    let content = Content::Call(call(self_authenticating(cose)));
    let (sender_pubkey, sender_sig) = (Some(&cose[..]), Some(&[0; 64][..]));
    let body = Envelope { content, sender_pubkey, sender_sig, sender_delegation: None }.encode();
    let reason = PublicKeyError::Unsupported(Unsupported::WebAuthn);
    assert_eq!(refused(send_call(&body), 403), AdmissionError::PublicKey { position: 0, reason });
}

#[test]
fn chains_of_delegations_of_all_schemes_are_admitted_up_to_twenty() {
    let all: Vec<_> = (1..=7).flat_map(users).collect();
    for length in [1, 2, 3, 20] {
        let chain: Vec<_> = all.iter().take(length + 1).collect();
        let content = || Content::Call(call(sender_of(chain[0])));
        let body = delegated(content(), &chain, &vec![GRANT; length]);
        assert!(send_call(&body).is_ok(), "{length}: {:?}", send_call(&body));
        // Each link broken in turn: its signature is made by a stranger.
        for link in 0..=length {
            let stranger = &all[20];
            let mut envelope = Envelope::decode(&body).expect("decodes");
            let forged = if link < length {
                let delegation = envelope.sender_delegation.as_ref().expect("a chain")[link].delegation.clone();
                (stranger.sign)(&[&domain::DELEGATION[..], &delegation.hash()].concat())
            } else {
                vec![1; 64]
            };
            let expected = if link < length {
                envelope.sender_delegation.as_mut().expect("a chain")[link].signature = &forged;
                AdmissionError::DelegationSignature { position: link + 1 }
            } else {
                envelope.sender_sig = Some(&forged);
                AdmissionError::Signature
            };
            if length < 20 || link % 7 == 0 {
                assert_eq!(refused(send_call(&envelope.encode()), 403), expected, "{length} {link}");
            }
        }
    }
    let chain: Vec<_> = (1..=8).flat_map(users).take(22).collect();
    let chain: Vec<_> = chain.iter().collect();
    let body = delegated(Content::Call(call(sender_of(chain[0]))), &chain, &vec![GRANT; 21]);
    let error = DecodeError::TooLong { field: "sender_delegation", length: 21, max: 20 };
    assert_eq!(refused(send_call(&body), 400), AdmissionError::Malformed(error));
}

#[test]
fn expired_delegations_are_refused() {
    let chain = users(4);
    let chain: Vec<_> = chain.iter().collect();
    let content = || Content::Call(call(sender_of(chain[0])));
    let expired = Grant { expiration: NOW.0 - 1, ..GRANT };
    for position in [1, 2] {
        let mut grants = [GRANT, GRANT];
        grants[position - 1] = expired.clone();
        let expected = AdmissionError::DelegationExpired { position, expiration: Time(NOW.0 - 1), now: NOW };
        assert_eq!(refused(send_call(&delegated(content(), &chain, &grants)), 400), expected);
    }
    let forever = Grant { expiration: u64::MAX, ..GRANT };
    assert!(send_call(&delegated(content(), &chain, &[forever.clone(), forever])).is_ok());
}

#[test]
fn a_key_that_comes_twice_in_a_chain_is_refused() {
    let all = users(5);
    let (a, b, c) = (&all[0], &all[1], &all[2]);
    for (chain, position) in [(vec![a, a], 1), (vec![a, b, a], 2), (vec![a, b, b], 2), (vec![a, b, c, b], 3)] {
        let grants = vec![GRANT; chain.len() - 1];
        let body = delegated(Content::Call(call(sender_of(a))), &chain, &grants);
        assert_eq!(refused(send_call(&body), 403), AdmissionError::DelegationCycle { position });
    }
}

#[test]
fn delegations_restrict_callees_and_kinds_of_requests() {
    let all = users(6);
    let chain: Vec<_> = all.iter().collect();
    let sender = sender_of(chain[0]);
    let only = |targets: &[Principal]| Grant { targets: Some(targets.to_vec()), ..GRANT };
    let canister = CANISTER.principal();
    let cases = [
        (vec![GRANT, only(&[OTHER, canister])], true),
        (vec![only(&[canister, canister]), only(&[canister])], true),
        (vec![only(&[canister, OTHER]), only(&[canister])], true),
        (vec![only(&[]), GRANT], false),
        (vec![GRANT, only(&[OTHER])], false),
        (vec![only(&[canister]), only(&[OTHER])], false),
        (vec![only(&[OTHER]), only(&[canister])], false),
    ];
    for (grants, good) in cases {
        let query = Route::Query(ApiVersion::V3, target());
        let as_call = send_call(&delegated(Content::Call(call(sender)), &chain, &grants));
        let as_query = send(query, &delegated(Content::Query(call(sender)), &chain, &grants));
        for result in [as_call, as_query] {
            if good {
                assert!(result.is_ok(), "{result:?}");
            } else {
                assert_eq!(refused(result, 403), AdmissionError::DelegationTarget { callee: canister });
            }
        }
    }
    let permit = |permissions| Grant { permissions: Some(permissions), ..GRANT };
    let (queries, everything) = (permit(Permissions::Queries), permit(Permissions::All));
    for grants in [[queries.clone(), GRANT], [GRANT, queries.clone()], [queries.clone(), everything.clone()]] {
        let body = delegated(Content::Call(call(sender)), &chain, &grants);
        assert_eq!(refused(send_call(&body), 403), AdmissionError::DelegationPermitsQueriesOnly);
        let body = delegated(Content::Query(call(sender)), &chain, &grants);
        assert!(send(Route::Query(ApiVersion::V2, target()), &body).is_ok());
        let paths = Content::ReadState(read(sender, vec![vec![b"time"]]));
        let body = delegated(paths, &chain, &grants);
        assert!(send(Route::ReadState(ApiVersion::V2, target()), &body).is_ok());
    }
    assert!(send_call(&delegated(Content::Call(call(sender)), &chain, &[everything, GRANT])).is_ok());
}

#[test]
fn sender_info_is_refused_by_name() {
    let info = SenderInfo { info: b"info", signer: OTHER, sig: b"sig" };
    let content = CallContent { sender_info: Some(info), ..call(Principal::anonymous()) };
    assert_eq!(refused(send_call(&anonymous(Content::Call(content))), 403), AdmissionError::SenderInfoUnsupported);
}

#[test]
fn bodies_of_another_kind_or_size_are_refused() {
    let call_body = anonymous(Content::Call(call(Principal::anonymous())));
    let query = Route::Query(ApiVersion::V3, target());
    let expected = AdmissionError::WrongRequestType { expected: RequestType::Query, found: RequestType::Call };
    assert_eq!(refused(send(query, &call_body), 400), expected);
    assert_eq!(refused(send(Route::Status, &call_body), 404), AdmissionError::Route(RouteError::NotFound));
    for body in [&b""[..], b"junk", &[0xff; 100], &[0; 9]] {
        assert!(matches!(refused(send_call(body), 400), AdmissionError::Malformed(_)));
    }
    let arg = vec![0; 2 << 20];
    let large = CallContent { arg: &arg, ..call(Principal::anonymous()) };
    let (body, max) = (anonymous(Content::Call(large.clone())), Bytes(2 << 20));
    let found = Bytes(body.len() as u64);
    assert_eq!(refused(send_call(&body), 413), AdmissionError::IngressTooLarge { found, max });
    // The limit is that of a block; a query is not in one.
    assert!(send(query, &anonymous(Content::Query(large))).is_ok());
}

fn management_call(method: &'static str, arg: &[u8]) -> Vec<u8> {
    let canister_id = Principal::management_canister();
    let content = CallContent { canister_id, method_name: method, arg, ..call(Principal::anonymous()) };
    anonymous(Content::Call(content))
}

fn effective(result: Result<Admitted, AdmissionError>) -> Option<CanisterId> {
    match result.expect("admitted") {
        Admitted::Call(call) => call.ingress.effective_canister,
        Admitted::Query(query) => query.effective_canister,
        Admitted::ReadState(_) => panic!("a read_state has no effective canister"),
    }
}

#[test]
fn the_urls_canister_is_the_callee() {
    let elsewhere = Target::Canister(OTHER);
    let body = anonymous(Content::Call(call(Principal::anonymous())));
    let expected = AdmissionError::EffectiveCanister { expected: CANISTER.principal(), found: OTHER };
    assert_eq!(refused(send(Route::Call(ApiVersion::V2, elsewhere), &body), 400), expected);
    let takes = "canister creation";
    let at_subnet = Route::Call(ApiVersion::V4, Target::Subnet(SUBNET));
    assert_eq!(refused(send(at_subnet, &body), 400), AdmissionError::SubnetEndpoint { takes });
}

#[test]
fn management_calls_are_about_the_canister_in_their_argument() {
    let canister_id = CANISTER.principal();
    let record = management::CanisterIdRecord { canister_id };
    let install = management::InstallCodeArgs {
        mode: management::CanisterInstallMode::Install,
        canister_id,
        wasm_module: vec![0x5a; 2_000_000],
        arg: vec![1; 50_000],
        sender_canister_version: Some(7),
    };
    let chunked = management::InstallChunkedCodeArgs {
        mode: management::CanisterInstallMode::Install,
        target_canister: canister_id,
        store_canister: Some(OTHER),
        chunk_hashes_list: vec![management::ChunkHash { hash: vec![1; 32] }; 100],
        wasm_module_hash: vec![2; 32],
        arg: vec![],
        sender_canister_version: None,
    };
    let cases = [
        ("canister_status", Encode!(&record).unwrap()),
        ("start_canister", Encode!(&record).unwrap()),
        ("install_code", Encode!(&install).unwrap()),
        ("install_chunked_code", Encode!(&chunked).unwrap()),
    ];
    for (method, arg) in &cases {
        let body = management_call(method, arg);
        assert_eq!(effective(send_call(&body)), Some(CANISTER), "{method}");
        let elsewhere = Route::Call(ApiVersion::V3, Target::Canister(OTHER));
        let expected = AdmissionError::EffectiveCanister { expected: canister_id, found: OTHER };
        assert_eq!(refused(send(elsewhere, &body), 400), expected, "{method}");
    }
}

#[test]
fn creation_takes_any_effective_canister_or_this_subnet() {
    for method in ["create_canister", "provisional_create_canister_with_cycles"] {
        let body = management_call(method, b"DIDL\x01\x6c\0\x01\0");
        for id in [OTHER, Principal::management_canister(), Principal::anonymous()] {
            assert_eq!(effective(send(Route::Call(ApiVersion::V3, Target::Canister(id)), &body)), None);
        }
        assert_eq!(effective(send(Route::Call(ApiVersion::V4, Target::Subnet(SUBNET)), &body)), None);
        let expected = AdmissionError::EffectiveSubnet { expected: SUBNET, found: OTHER };
        assert_eq!(refused(send(Route::Call(ApiVersion::V4, Target::Subnet(OTHER)), &body), 400), expected);
    }
    let list = CallContent {
        canister_id: Principal::management_canister(),
        method_name: "list_canisters",
        ..call(Principal::anonymous())
    };
    let body = anonymous(Content::Query(list));
    assert_eq!(effective(send(Route::Query(ApiVersion::V3, Target::Subnet(SUBNET)), &body)), None);
    assert_eq!(effective(send(Route::Query(ApiVersion::V3, target()), &body)), None);
}

#[test]
fn management_requests_that_name_no_canister_are_rejected_by_the_system() {
    use ErrorCode::{CanisterMethodNotFound, CanisterRejectedMessage, InvalidManagementPayload};
    let empty = Encode!().unwrap();
    // A vector of 2^40 nulls costs nothing on the wire.
    let bomb = b"DIDL\x02\x6c\x01\x00\x01\x6d\x7f\x01\x00\x80\x80\x80\x80\x80\x20";
    let calls = [
        ("raw_rand", &empty[..], CanisterRejectedMessage),
        ("fetch_canister_logs", &empty, CanisterRejectedMessage),
        ("no_such_method", &empty, CanisterMethodNotFound),
        ("canister_status", b"junk", InvalidManagementPayload),
        ("canister_status", &empty, InvalidManagementPayload),
        ("canister_status", bomb, InvalidManagementPayload),
    ];
    let queries = [
        ("raw_rand", &empty[..], CanisterMethodNotFound),
        ("canister_status", b"junk", InvalidManagementPayload),
        ("fetch_canister_logs", bomb, InvalidManagementPayload),
    ];
    for canister_id in [Principal::management_canister(), SUBNET] {
        let check = |content: Content<'_>, route: Route, code: ErrorCode| {
            let error = refused(send(route, &anonymous(content.clone())), 200);
            let AdmissionError::Rejected { id, reject } = error else { panic!("{content:?}: {error}") };
            assert_eq!((reject.error, id), (Some(code), MessageId(content.request_id())), "{content:?}");
        };
        let content = |method_name, arg| CallContent { canister_id, method_name, arg, ..call(Principal::anonymous()) };
        for (method, arg, code) in calls {
            check(Content::Call(content(method, arg)), Route::Call(ApiVersion::V3, target()), code);
        }
        for (method, arg, code) in queries {
            check(Content::Query(content(method, arg)), Route::Query(ApiVersion::V3, target()), code);
        }
    }
}

#[test]
fn the_subnets_own_id_names_the_management_canister() {
    let arg = Encode!(&management::CanisterIdRecord { canister_id: CANISTER.principal() }).unwrap();
    let content =
        CallContent { canister_id: SUBNET, method_name: "canister_status", arg: &arg, ..call(Principal::anonymous()) };
    assert_eq!(effective(send_call(&anonymous(Content::Call(content.clone())))), Some(CANISTER));
    assert_eq!(
        effective(send(Route::Query(ApiVersion::V3, target()), &anonymous(Content::Query(content)))),
        Some(CANISTER)
    );
}

/// Sends a read_state request by `user` and sorts the answer into a short text.
fn outcome(version: ApiVersion, target: Target, paths: &[Vec<&[u8]>]) -> String {
    let user = user();
    let body = signed(Content::ReadState(read(sender_of(&user), paths.to_vec())), &user);
    match send(Route::ReadState(version, target), &body) {
        Ok(Admitted::ReadState(AdmittedReadState { conditions, .. })) => format!("ok {}", conditions.len()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => error.http_status().to_string(),
    }
}

#[test]
fn each_path_can_be_read_exactly_where_the_specification_says() {
    use ApiVersion::{V2, V3};
    let (own, at_subnet) = (CANISTER.principal(), Target::Subnet(SUBNET));
    let (canister, subnet, other, id) = (own.as_slice(), SUBNET.as_slice(), OTHER.as_slice(), &[9u8; 32][..]);
    let places = [(V2, target()), (V3, target()), (V2, at_subnet), (V3, at_subnet)];
    // Columns: v2 canister, v3 canister, v2 subnet, v3 subnet.
    let table: Vec<(Vec<&[u8]>, [&str; 4])> = vec![
        (vec![b"time"], ["ok 0"; 4]),
        (vec![b"api_boundary_nodes"], ["ok 0"; 4]),
        (vec![b"api_boundary_nodes", other, b"domain"], ["ok 0"; 4]),
        (vec![b"api_boundary_nodes", other, b"secret"], ["404"; 4]),
        (vec![b"subnet"], ["ok 0"; 4]),
        (vec![b"subnet", other, b"public_key"], ["ok 0"; 4]),
        (vec![b"subnet", other, b"type"], ["ok 0"; 4]),
        (vec![b"subnet", subnet, b"node", other, b"public_key"], ["ok 0"; 4]),
        (vec![b"subnet", subnet, b"node", other], ["ok 0"; 4]),
        // This subnet is the root.
        (vec![b"subnet", subnet, b"canister_ranges"], ["ok 0"; 4]),
        (vec![b"subnet", other, b"canister_ranges"], ["ok 0", "403", "ok 0", "403"]),
        (vec![b"subnet", subnet, b"metrics"], ["403", "403", "ok 0", "ok 0"]),
        (vec![b"subnet", other, b"metrics"], ["403"; 4]),
        (vec![b"canister_ranges", subnet], ["403", "403", "ok 0", "ok 0"]),
        (vec![b"canister_ranges", subnet, other], ["404"; 4]),
        (vec![b"request_status", id], ["ok 1"; 4]),
        (vec![b"request_status", id, b"reply"], ["ok 1"; 4]),
        (vec![b"request_status", id, b"error_code"], ["ok 1"; 4]),
        (vec![b"request_status", id, b"sender"], ["404"; 4]),
        (vec![b"request_status", &id[1..]], ["400"; 4]),
        (vec![b"canister", canister, b"module_hash"], ["ok 0", "ok 0", "403", "403"]),
        (vec![b"canister", canister, b"controllers"], ["ok 0", "ok 0", "403", "403"]),
        (vec![b"canister", canister, b"canister_creation_timestamp"], ["ok 0", "ok 0", "403", "403"]),
        (vec![b"canister", canister, b"last_install_timestamp"], ["ok 0", "ok 0", "403", "403"]),
        (vec![b"canister", canister, b"certified_data"], ["404"; 4]),
        (vec![b"canister", canister], ["404"; 4]),
        (vec![b"canister", other, b"module_hash"], ["400", "400", "403", "403"]),
        (vec![b"canister", &[1; 30], b"module_hash"], ["400"; 4]),
        (vec![b"canister", canister, b"metadata", b"candid:service"], ["ok 1", "ok 1", "403", "403"]),
        (vec![b"canister", canister, b"metadata", b"\xff"], ["400", "400", "403", "403"]),
        (vec![b"canister", canister, b"metadata"], ["404"; 4]),
        (vec![], ["404"; 4]),
        (vec![b"streams"], ["404"; 4]),
        (vec![b"metadata"], ["404"; 4]),
    ];
    for (path, expected) in table {
        let found = places.map(|(version, target)| outcome(version, target, std::slice::from_ref(&path)));
        assert_eq!(found, expected, "{path:?}");
    }
    let foreign_subnet = Target::Subnet(OTHER);
    assert_eq!(outcome(V3, foreign_subnet, &[vec![b"time"]]), "400");
}

#[test]
fn paths_of_one_request_name_one_request_and_one_subnet() {
    let (a, b) = (&[1u8; 32][..], &[2u8; 32][..]);
    let reply = |id| vec![&b"request_status"[..], id, b"reply"];
    assert_eq!(outcome(ApiVersion::V3, target(), &[vec![b"request_status", a], reply(a)]), "ok 1");
    assert_eq!(outcome(ApiVersion::V3, target(), &[vec![b"request_status", a], reply(b)]), "400");
    let ranges = |id: &'static [u8]| vec![&b"canister_ranges"[..], id];
    let at_subnet = Target::Subnet(SUBNET);
    assert_eq!(outcome(ApiVersion::V3, at_subnet, &[ranges(b"a"), ranges(b"a")]), "ok 0");
    assert_eq!(outcome(ApiVersion::V3, at_subnet, &[ranges(b"a"), ranges(b"b")]), "400");
}

#[test]
fn conditions_carry_what_the_state_has_to_decide() {
    let all = users(8);
    let chain: Vec<_> = all.iter().collect();
    let sender = sender_of(chain[0]);
    let canister = CANISTER.principal();
    let id = [9u8; 32];
    let paths: Vec<Vec<&[u8]>> = vec![
        vec![b"request_status", &id],
        vec![b"request_status", &id, b"status"],
        vec![b"canister", canister.as_slice(), b"metadata", b"candid:service"],
    ];
    let grants = [Grant { targets: Some(vec![OTHER, canister]), ..GRANT }, GRANT];
    let body = delegated(Content::ReadState(read(sender, paths.clone())), &chain, &grants);
    let Ok(Admitted::ReadState(admitted)) = send(Route::ReadState(ApiVersion::V3, target()), &body) else {
        panic!("must be admitted")
    };
    let callees = Some(vec![CANISTER, CanisterId::from_principal(OTHER)]);
    let expected = [
        Condition::OwnRequest { id: MessageId(id), sender, target: target(), callees },
        Condition::ReadableMetadata { canister: CANISTER, name: "candid:service".into(), sender },
    ];
    assert_eq!(admitted.conditions, expected);
    assert_eq!(admitted.sender, sender);
    assert_eq!(admitted.paths, paths.iter().map(|p| p.iter().map(|l| l.to_vec()).collect()).collect::<Vec<Vec<_>>>());
    for condition in &admitted.conditions {
        assert_eq!(condition.refusal().http_status(), 403);
    }
}

#[test]
fn a_batch_answers_each_request_as_if_it_were_alone() {
    let all = users(9);
    let sender = sender_of(&all[0]);
    let good = signed(Content::Call(call(sender)), &all[0]);
    let forged = {
        let mut body = good.clone();
        let last = body.len() - 1;
        body[last] ^= 1;
        body
    };
    let chain = delegated(Content::Call(call(sender)), &[&all[0], &all[1]], &[GRANT]);
    let expired = anonymous(Content::Call(CallContent { ingress_expiry: 0, ..call(Principal::anonymous()) }));
    let half = &chain[..chain.len() / 2];
    let late_error =
        delegated(Content::Call(CallContent { canister_id: OTHER, ..call(sender) }), &[&all[0], &all[1]], &[GRANT]);
    let bodies: [&[u8]; 7] = [&good, &forged, &chain, &expired, half, &late_error, &good];
    for rotation in 0..bodies.len() {
        let mut bodies = bodies;
        bodies.rotate_left(rotation);
        let route = Route::Call(ApiVersion::V2, target());
        let requests = bodies.map(|body| RequestBytes { route, body });
        let mut out = Vec::new();
        admit_batch(&requests, NOW, &config(), &mut out);
        let alone: Vec<_> = requests.iter().map(|request| admit(*request, NOW, &config())).collect();
        assert_eq!(out, alone);
        assert_eq!(out.iter().filter(|result| result.is_ok()).count(), 3);
        admit_batch(&[], NOW, &config(), &mut out);
        assert!(out.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn mutated_bodies_never_pass_as_the_signed_request(
        which in 0usize..2,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..5),
    ) {
        let all = users(9);
        let sender = sender_of(&all[0]);
        let original = match which {
            0 => signed(Content::Call(call(sender)), &all[0]),
            _ => delegated(Content::Call(call(sender)), &[&all[0], &all[1]], &[GRANT]),
        };
        let mut body = original.clone();
        for (place, byte, kind) in edits {
            let place = place.index(body.len() + 1);
            match kind {
                0 => body.insert(place, byte),
                1 if place < body.len() => drop(body.remove(place)),
                _ if place < body.len() => body[place] = byte,
                _ => {}
            }
        }
        if body != original && let Ok(Admitted::Call(admitted)) = send_call(&body) {
            // The same content in another encoding, or made anonymous, which leaves the sender's name behind.
            let same = send_call(&original).expect("admitted");
            prop_assert!(same == Admitted::Call(admitted.clone()) || admitted.ingress.sender == Principal::anonymous());
        }
    }
}
