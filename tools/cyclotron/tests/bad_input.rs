//! Broken, forged and hostile requests over raw HTTP: each gets the specified error, and the node stays up.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::{Encode, Principal};
use common::*;
use cyclotron_conformance::{TestNode, canister};
use ic_agent::agent::{Envelope, EnvelopeContent};
use ic_agent::hash_tree::Label;
use ic_agent::identity::AnonymousIdentity;
use ic_agent::{Agent, Identity};
use ic_management_canister_types::CanisterInstallMode;
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

const SECOND: u64 = 1_000_000_000;

fn call(sender: Principal, canister_id: Principal, method: &str, expiry: u64) -> EnvelopeContent {
    EnvelopeContent::Call {
        nonce: Some(expiry.to_be_bytes().to_vec()),
        ingress_expiry: expiry,
        sender,
        canister_id,
        method_name: method.into(),
        arg: Encode!().unwrap(),
        sender_info: None,
    }
}

fn signed(content: &EnvelopeContent, identity: &dyn Identity) -> Envelope<'static> {
    let signature = identity.sign(content).unwrap();
    Envelope {
        content: Cow::Owned(content.clone()),
        sender_pubkey: signature.public_key,
        sender_sig: signature.signature,
        sender_delegation: signature.delegations,
    }
}

struct Scene {
    node: TestNode,
    agent: Agent,
    canister: Principal,
}

impl Scene {
    async fn new() -> Self {
        let node = TestNode::start(PROGRAM);
        let agent = agent(&node, key(1));
        let canister = install_new(&agent, &canister("counter")).await;
        Self { node, agent, canister }
    }

    fn path(&self, endpoint: &str) -> String {
        format!("/api/v3/canister/{}/{endpoint}", self.canister)
    }

    fn valid(&self) -> Envelope<'static> {
        signed(&call(key(1).sender().unwrap(), self.canister, "increment", now() + 60 * SECOND), &key(1))
    }

    /// Posts a body and expects an error with this status whose text holds `words`.
    fn refused(&self, path: &str, body: &[u8], status: u16, words: &str) {
        let (found, text) = self.node.post(path, body);
        let text = String::from_utf8_lossy(&text);
        assert_eq!(found, status, "{path}: {text}");
        assert!(text.contains(words), "{path}: {words:?} is not in {text:?}");
    }

    /// The node still serves: its counter counts.
    async fn still_serves(mut self, count: u64) {
        assert!(self.node.is_up());
        assert_eq!(increment(&self.agent, self.canister).await, count + 1, "no refused request had an effect");
    }
}

#[tokio::test]
async fn truncated_and_malformed_bodies_are_400() {
    let scene = Scene::new().await;
    let valid = scene.valid().encode_bytes();
    for endpoint in ["call", "query", "read_state"] {
        let path = scene.path(endpoint);
        for length in (0..valid.len()).step_by(7) {
            scene.refused(&path, &valid[..length], 400, "");
        }
        scene.refused(&path, &[valid.clone(), vec![0]].concat(), 400, "bytes follow");
        scene.refused(&path, b"not CBOR at all", 400, "");
        // Announces arrays and maps of 2^64 - 1 entries, and a thousand nested arrays.
        scene.refused(&path, &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], 400, "");
        scene.refused(&path, &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255], 400, "");
        scene.refused(&path, &vec![0x81; 1_000], 400, "");
        // A byte string that claims more than there is.
        scene.refused(&path, &[0xd9, 0xd9, 0xf7, 0xa1, 0x5b, 0, 0, 0, 1, 0, 0, 0, 0], 400, "");
    }
    scene.refused(&scene.path("query"), &valid, 400, "");
    scene.still_serves(0).await;
}

#[tokio::test]
async fn flipped_bytes_never_pass_and_never_hurt() {
    let scene = Scene::new().await;
    let valid = scene.valid().encode_bytes();
    let path = scene.path("call");
    for place in 0..valid.len() {
        let mut broken = valid.clone();
        broken[place] ^= 0x41;
        let (status, body) = scene.node.post(&path, &broken);
        assert!((400..500).contains(&status), "byte {place}: {status} {}", String::from_utf8_lossy(&body));
    }
    scene.still_serves(0).await;
}

#[tokio::test]
async fn oversized_bodies_and_headers_are_413_and_431() {
    let scene = Scene::new().await;
    let path = scene.path("call");
    scene.refused(&path, &vec![0; 5 * 1024 * 1024 + 1], 413, "at most");
    // A call is limited to what a block takes, other requests to the body's limit.
    let mut large = call(key(1).sender().unwrap(), scene.canister, "increment", now() + 60 * SECOND);
    if let EnvelopeContent::Call { arg, .. } = &mut large {
        *arg = vec![0; 2 << 20];
    }
    scene.refused(&path, &signed(&large, &key(1)).encode_bytes(), 413, "");
    let head = format!("GET /api/v2/status HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = scene.node.exchange(head.as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer[..answer.len().min(80)]));
    scene.still_serves(0).await;
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_404_and_405() {
    let scene = Scene::new().await;
    for path in ["/", "/api/v2/unknown", "/api/v1/status", "/api/v2/canister/aaaaa-aa", "/_/dashboard"] {
        let (status, _) = scene.node.get(path);
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(scene.node.get(&scene.path("call")).0, 405);
    assert_eq!(scene.node.post("/api/v2/status", b"").0, 405);
    scene.refused("/api/v3/canister//call", &scene.valid().encode_bytes(), 400, "");
    scene.refused("/api/v3/canister/not-a-principal/call", &scene.valid().encode_bytes(), 400, "");
    assert_eq!(scene.node.get("/api/v2/status").0, 200);
    scene.still_serves(0).await;
}

#[tokio::test]
async fn forged_requests_are_403() {
    let scene = Scene::new().await;
    let path = scene.path("call");
    let content = call(key(1).sender().unwrap(), scene.canister, "increment", now() + 60 * SECOND);

    let mut forged = signed(&content, &key(1));
    forged.sender_sig.as_mut().unwrap()[10] ^= 1;
    scene.refused(&path, &forged.encode_bytes(), 403, "");

    // Somebody else's signature, with either key.
    let mut forged = signed(&content, &key(1));
    forged.sender_sig = signed(&content, &key(2)).sender_sig;
    scene.refused(&path, &forged.encode_bytes(), 403, "");
    forged.sender_pubkey = key(2).public_key();
    scene.refused(&path, &forged.encode_bytes(), 403, "");

    // No signature although there is a sender; a signature although there is none.
    let mut bare = signed(&content, &key(1));
    (bare.sender_pubkey, bare.sender_sig) = (None, None);
    scene.refused(&path, &bare.encode_bytes(), 403, "");
    let anonymous = call(Principal::anonymous(), scene.canister, "increment", now() + 60 * SECOND);
    scene.refused(&path, &signed(&anonymous, &key(1)).encode_bytes(), 403, "");

    // The signature of another request.
    let other = call(key(1).sender().unwrap(), scene.canister, "print", now() + 60 * SECOND);
    let mut forged = signed(&other, &key(1));
    forged.content = Cow::Owned(content);
    scene.refused(&path, &forged.encode_bytes(), 403, "");
    scene.still_serves(0).await;
}

#[tokio::test]
async fn expiries_out_of_range_are_400_and_a_replay_runs_once() {
    let scene = Scene::new().await;
    let sender = key(1).sender().unwrap();
    for expiry in [0, now() - SECOND, now() + 3_600 * SECOND, u64::MAX] {
        let envelope = signed(&call(sender, scene.canister, "increment", expiry), &key(1));
        scene.refused(&scene.path("call"), &envelope.encode_bytes(), 400, "xpir");
    }
    let envelope = scene.valid().encode_bytes();
    for _ in 0..3 {
        let (status, _) = scene.node.post(&scene.path("call"), &envelope);
        assert_eq!(status, 200);
    }
    let (status, body) = scene.node.post(&format!("/api/v2/canister/{}/call", scene.canister), &envelope);
    assert_eq!((status, body.len()), (202, 0));
    scene.still_serves(1).await;
}

#[tokio::test]
async fn the_url_names_the_effective_canister() {
    let scene = Scene::new().await;
    let other = create(&scene.agent).await;
    let envelope = scene.valid().encode_bytes();
    for endpoint in ["v2", "v3", "v4"] {
        scene.refused(&format!("/api/{endpoint}/canister/{other}/call"), &envelope, 400, "");
    }
    // Nor does a management call take another canister than its argument names.
    let mut content =
        call(key(1).sender().unwrap(), Principal::management_canister(), "stop_canister", now() + SECOND * 60);
    if let EnvelopeContent::Call { arg, .. } = &mut content {
        #[derive(candid::CandidType)]
        struct Record {
            canister_id: Principal,
        }
        *arg = Encode!(&Record { canister_id: scene.canister }).unwrap();
    }
    let envelope = signed(&content, &key(1)).encode_bytes();
    scene.refused(&format!("/api/v3/canister/{other}/call"), &envelope, 400, "");
    let read = EnvelopeContent::ReadState {
        ingress_expiry: now() + 60 * SECOND,
        sender: key(1).sender().unwrap(),
        paths: vec![vec![Label::from("canister"), Label::from(scene.canister.as_slice()), Label::from("module_hash")]],
    };
    let envelope = signed(&read, &key(1)).encode_bytes();
    scene.refused(&format!("/api/v3/canister/{other}/read_state"), &envelope, 400, "");
    scene.still_serves(0).await;
}

#[tokio::test]
async fn what_is_not_readable_is_refused() {
    let scene = Scene::new().await;
    let path = scene.path("read_state");
    let sender = key(1).sender().unwrap();
    let read = |paths: Vec<Vec<Label<Vec<u8>>>>| {
        let content = EnvelopeContent::ReadState { ingress_expiry: now() + 60 * SECOND, sender, paths };
        signed(&content, &key(1)).encode_bytes()
    };
    scene.refused(&path, &read(vec![vec![Label::from("streams")]]), 404, "");
    scene.refused(&path, &read(vec![vec![Label::from("canister")]]), 404, "");
    scene.refused(&path, &read(vec![vec![Label::from("request_status")]]), 404, "");
    // Two requests in one question, and a request of somebody else.
    let status = |id: [u8; 32]| vec![Label::from("request_status"), Label::from(&id[..])];
    scene.refused(&path, &read(vec![status([1; 32]), status([2; 32])]), 400, "");
    let content = call(sender, scene.canister, "increment", now() + 60 * SECOND);
    let (code, _) = scene.node.post(&scene.path("call"), &signed(&content, &key(1)).encode_bytes());
    assert_eq!(code, 200);
    let id: [u8; 32] = *content.to_request_id();
    let stranger = EnvelopeContent::ReadState {
        ingress_expiry: now() + 60 * SECOND,
        sender: key(2).sender().unwrap(),
        paths: vec![status(id)],
    };
    scene.refused(&path, &signed(&stranger, &key(2)).encode_bytes(), 403, "");
    assert_eq!(scene.node.post(&path, &read(vec![status(id)])).0, 200);
    scene.refused(&path, &read(vec![vec![Label::from("time")]; 1_001]), 400, "");
    scene.refused(&path, &read(vec![vec![Label::from("time"); 128]]), 400, "");
    scene.still_serves(1).await;
}

#[tokio::test]
async fn unknown_canisters_and_methods_are_rejects() {
    let scene = Scene::new().await;
    let nobody = Principal::from_slice(&[0, 0, 0, 0, 0, 15, 255, 255, 1, 1]);
    let none = Encode!().unwrap();
    for canister in [nobody, Principal::from_slice(&[1, 2, 3])] {
        let (code, _) = reject(
            scene.agent.query(&canister, "get").with_arg(none.clone()).call_without_verification().await.unwrap_err(),
        );
        assert_eq!(code, "IC0301", "query to {canister}");
        let (code, _) =
            reject(scene.agent.update(&canister, "get").with_arg(none.clone()).call_and_wait().await.unwrap_err());
        assert_eq!(code, "IC0301", "call to {canister}");
    }
    let (code, _) = reject(query::<()>(&scene.agent, scene.canister, "nothing", none.clone()).await.unwrap_err());
    assert_eq!(code, "IC0536");
    let (code, _) = reject(update::<()>(&scene.agent, scene.canister, "nothing", none.clone()).await.unwrap_err());
    assert_eq!(code, "IC0536");
    let empty = create(&scene.agent).await;
    let (code, _) = reject(update::<()>(&scene.agent, empty, "nothing", none.clone()).await.unwrap_err());
    assert_eq!(code, "IC0537");
    // Arguments that are no Candid, and a method of the management canister that does not exist.
    let (code, _) = reject(update::<()>(&scene.agent, scene.canister, "spin", vec![1, 2, 3]).await.unwrap_err());
    assert_eq!(code, "IC0503");
    let stranger = agent(&scene.node, AnonymousIdentity);
    let refused = install(&stranger, empty, CanisterInstallMode::Install, &canister("counter"), &none).await;
    assert_eq!(reject(refused.unwrap_err()).0, "IC0512", "only controllers install");
    scene.still_serves(0).await;
}

/// The text of a module, and the words that the rejection must have.
fn broken_modules() -> Vec<(Vec<u8>, &'static str)> {
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let many = |count: usize, item: &str| format!("(module {})", item.repeat(count));
    let methods = |count: usize, width: usize| {
        let exports: String =
            (0..count).map(|n| format!(r#"(export "canister_query {n:0width$}" (func 0))"#)).collect();
        format!("(module (func) {exports})")
    };
    let gzip = {
        let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend([0xff; 30]);
        // The footer: a checksum, then the size that is claimed.
        bytes.extend([0, 0, 0, 0, 9, 0, 0, 0]);
        bytes
    };
    vec![
        (vec![], "unsupported canister module format"),
        (b"no Wasm at all".to_vec(), "unsupported canister module format"),
        (gzip, "failed to decode compressed"),
        (vec![0x1f, 0x8b, 8], "too short"),
        (b"\0asm\x01\0\0\0\x01\xff\xff".to_vec(), "Failed to validate"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "Failed to"),
        (wat("(module (func (result i32)))").into_iter().take(20).collect(), "Failed to"),
        (
            b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b".to_vec(),
            "Failed to validate",
        ),
        (wat(r#"(module (import "ic0" "msg_replay" (func)))"#), "not exported by the runtime"),
        (wat(r#"(module (import "env" "msg_reply" (func)))"#), "expected to be imported from"),
        (wat(r#"(module (import "ic0" "time" (func (result i32))))"#), "Expected return type"),
        (wat(r#"(module (import "ic0" "msg_reply" (func (param i32))))"#), "Expected input params"),
        (wat(r#"(module (import "env" "m" (memory 1)))"#), "Importing a memory"),
        (wat(r#"(module (import "ic0" "stable_size" (func (result i32))) (memory i64 1))"#), "64-bit memory"),
        (wat(r#"(module (func (export "canister_update x") (param i32)))"#), "Expected input params"),
        (wat(r#"(module (func (export "canister_start")))"#), "reserved symbol"),
        (wat(r#"(module (func (export "canister_whatever")))"#), "reserved function"),
        (
            wat(r#"(module (func) (export "canister_update x" (func 0)) (export "canister_query x" (func 0)))"#),
            "exported multiple times",
        ),
        (wat(&methods(1_001, 4)), "which exceeds 1000"),
        (wat(&methods(600, 40)), "exceeds the allowed limit"),
        (wat("(module (memory 1) (data (i32.const 65535) \"xx\"))"), "invalid data segment"),
        (wat("(module (table 1 funcref) (func) (elem (i32.const 1) 0))"), "invalid element segment"),
        (wat(&many(1_001, "(global i32 (i32.const 0))")), "1001 globals"),
        (wat(&many(50_001, "(func)")), "50001 functions"),
        (wat(&many(2, "(table 1 funcref)")), "2 tables"),
        (wat("(module (table 1000001 funcref))"), "1000001 elements"),
        (wat("(module (memory i64 98305))"), "exceeds the maximum"),
        (wat("(module (memory 65537))").to_vec(), "Failed to validate"),
        (wat(r#"(module (@custom "icp:secret x" ""))"#), "no public/private scope"),
        (wat(r#"(module (@custom "icp:public x" "") (@custom "icp:private x" ""))"#), "already exists"),
        (wat(&format!(r#"(module (@custom "icp:public x" "{}"))"#, "x".repeat(1 << 20))), "total size"),
        (
            wat(&format!(
                "(module {})",
                (0..17).map(|n| format!(r#"(@custom "icp:public {n}" "")"#)).collect::<String>()
            )),
            "17 custom sections",
        ),
        (wat(&format!("(module (func {}))", "nop ".repeat(1_000_001))), "exceeds the maximum complexity"),
    ]
}

#[tokio::test]
async fn every_broken_module_is_rejected_with_its_rule() {
    let scene = Scene::new().await;
    let canister = create(&scene.agent).await;
    for (wasm, words) in broken_modules() {
        let refused = install(&scene.agent, canister, CanisterInstallMode::Install, &wasm, &[]).await;
        let (code, message) = reject(refused.expect_err(words));
        assert_eq!(code, "IC0505", "{words}: {message}");
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }
    // What the start function or an initializer does wrong is the canister's failure, not the module's.
    let traps = wat::parse_str(r#"(module (func $s unreachable) (start $s))"#).unwrap();
    let (code, _) =
        reject(install(&scene.agent, canister, CanisterInstallMode::Install, &traps, &[]).await.unwrap_err());
    assert_eq!(code, "IC0502");
    scene.still_serves(0).await;
}

#[tokio::test]
async fn connections_that_stall_or_break_off_hold_nobody_up() {
    use std::io::Write;
    let scene = Scene::new().await;
    let mut open = Vec::new();
    for _ in 0..50 {
        let mut stream = std::net::TcpStream::connect(scene.node.address()).unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\ncontent-type: application/cbor\r\ncontent-length: 100\r\n\r\nx",
            scene.path("call")
        );
        stream.write_all(head.as_bytes()).unwrap();
        open.push(stream);
    }
    for n in 1..=5 {
        assert_eq!(increment(&scene.agent, scene.canister).await, n);
    }
    drop(open);
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.still_serves(5).await;
}
