//! An unmodified ic-agent against a node: create, install, call, query, verify.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use candid::{Decode, Encode, Principal};
use common::*;
use cyclotron_conformance::{TestNode, canister};
use ic_agent::agent::{Envelope, EnvelopeContent, QueryBuilder};
use ic_agent::hash_tree::Label;
use ic_agent::identity::{
    AnonymousIdentity, DelegatedIdentity, Delegation, Prime256v1Identity, Secp256k1Identity, SignedDelegation,
};
use ic_agent::{Agent, AgentError, Certificate, Identity};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, CanisterSettings, CanisterStatusResult, CanisterStatusType,
    ProvisionalCreateCanisterWithCyclesArgs, UpdateSettingsArgs,
};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROUNDS: u64 = 1_000;

fn nanos_from_now(duration: Duration) -> u64 {
    u64::try_from((SystemTime::now() + duration).duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

#[tokio::test]
async fn a_thousand_updates_are_certified_and_a_thousand_queries_signed() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &canister("counter")).await;
    for n in 1..=ROUNDS {
        // The agent verifies the certificate of each answer against the root key, and fails otherwise.
        assert_eq!(increment(&agent, canister).await, n);
    }
    for _ in 0..ROUNDS {
        assert_eq!(count(&agent, canister).await, ROUNDS);
    }
}

#[tokio::test]
async fn an_agent_with_another_root_key_refuses_every_answer() {
    let node = TestNode::start(PROGRAM);
    let ours = agent(&node, key(1));
    let canister = install_new(&ours, &canister("counter")).await;
    let other = TestNode::start(PROGRAM);
    ours.set_root_key(hex::decode(&other.banner.root_key).unwrap());
    let call = ours.update(&canister, "increment").with_arg(Encode!().unwrap()).call_and_wait().await;
    assert!(matches!(call, Err(AgentError::CertificateVerificationFailed())), "{call:?}");
    let query = ours.query(&canister, "get").with_arg(Encode!().unwrap()).call_with_verification().await;
    assert!(query.is_err(), "a query's signature hangs on the root key too");
}

#[tokio::test]
async fn any_flipped_byte_of_a_certificate_is_refused() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &canister("counter")).await;
    let paths = vec![vec![Label::from("canister"), Label::from(canister.as_slice()), Label::from("module_hash")]];
    let content = EnvelopeContent::ReadState {
        ingress_expiry: nanos_from_now(Duration::from_secs(60)),
        sender: agent.get_principal().unwrap(),
        paths,
    };
    let signature = key(1).sign(&content).unwrap();
    let envelope = Envelope {
        content: std::borrow::Cow::Borrowed(&content),
        sender_pubkey: signature.public_key,
        sender_sig: signature.signature,
        sender_delegation: None,
    };
    let (status, body) = node.post(&format!("/api/v3/canister/{canister}/read_state"), &envelope.encode_bytes());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(with = "serde_bytes")]
        certificate: Vec<u8>,
    }
    let Body { certificate } = serde_cbor::from_slice(&body).unwrap();
    let verify = |bytes: &[u8]| {
        let certificate: Certificate = serde_cbor::from_slice(bytes).map_err(|error| error.to_string())?;
        agent.verify(&certificate, canister).map_err(|error| error.to_string())
    };
    verify(&certificate).expect("the certificate as it came verifies");
    // CBOR's self-describing tag, and the lengths of maps that a lenient decoder does not check, carry no meaning: every byte that
    // the decoder takes into the certificate must count.
    let genuine: Certificate = serde_cbor::from_slice(&certificate).unwrap();
    let mut refused = 0;
    for place in 0..certificate.len() {
        let mut broken = certificate.clone();
        broken[place] ^= 1;
        match serde_cbor::from_slice::<Certificate>(&broken) {
            Ok(same) if same == genuine => {}
            _ => {
                assert!(verify(&broken).is_err(), "byte {place} of {} was flipped unnoticed", certificate.len());
                refused += 1;
            }
        }
    }
    assert!(refused + 8 >= certificate.len(), "{refused} of {} bytes count", certificate.len());
}

#[tokio::test]
async fn an_upgrade_keeps_the_state_and_a_reinstall_does_not() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let wasm = canister("counter");
    let canister = install_new(&agent, &wasm).await;
    for _ in 0..3 {
        increment(&agent, canister).await;
    }
    let none = Encode!().unwrap();
    install(&agent, canister, CanisterInstallMode::Upgrade(None), &wasm, &none).await.unwrap();
    assert_eq!(count(&agent, canister).await, 3);
    let (code, _) = reject(install(&agent, canister, CanisterInstallMode::Install, &wasm, &none).await.unwrap_err());
    assert_eq!(code, "IC0514", "code is installed only where there is none");
    install(&agent, canister, CanisterInstallMode::Reinstall, &wasm, &none).await.unwrap();
    assert_eq!(count(&agent, canister).await, 0);
}

fn fetch_logs(agent: &Agent, canister: Principal) -> QueryBuilder<'_> {
    agent
        .query(&Principal::management_canister(), "fetch_canister_logs")
        .with_effective_canister_id(canister)
        .with_arg(Encode!(&CanisterIdRecord { canister_id: canister }).unwrap())
}

#[tokio::test]
async fn a_trap_leaves_the_state_as_it_was_and_a_line_in_the_log() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &canister("counter")).await;
    increment(&agent, canister).await;
    let none = Encode!().unwrap();
    let (code, message) = reject(update::<()>(&agent, canister, "increment_then_trap", none).await.unwrap_err());
    assert_eq!(code, "IC0503");
    assert!(message.contains("after the write"), "{message}");
    assert_eq!(count(&agent, canister).await, 1);

    update::<()>(&agent, canister, "print", Encode!(&"a line").unwrap()).await.unwrap();
    #[derive(candid::CandidType, serde::Deserialize)]
    struct Record {
        idx: u64,
        content: Vec<u8>,
    }
    #[derive(candid::CandidType, serde::Deserialize)]
    struct Logs {
        canister_log_records: Vec<Record>,
    }
    let reply = fetch_logs(&agent, canister).call_with_verification().await.unwrap();
    let logs = Decode!(&reply, Logs).unwrap().canister_log_records;
    let lines: Vec<_> = logs.iter().map(|record| String::from_utf8_lossy(&record.content).into_owned()).collect();
    assert!(lines.iter().any(|line| line.contains("after the write")), "the trap is not in {lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("a line"));
    assert!(logs.windows(2).all(|pair| pair[0].idx < pair[1].idx));
    let stranger = common::agent(&node, key(2));
    let refused = fetch_logs(&stranger, canister).call().await;
    assert!(refused.is_err(), "the log is for controllers");
}

#[tokio::test]
async fn canisters_call_each_other_and_a_trap_of_the_callee_is_a_reject() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let wasm = canister("counter");
    let (a, b) = (install_new(&agent, &wasm).await, install_new(&agent, &wasm).await);
    let (answer,): (candid::Nat,) = update(&agent, a, "increment_other", Encode!(&b).unwrap()).await.unwrap();
    assert_eq!(answer, candid::Nat::from(1u8));
    let (answer,): (String,) = update(&agent, a, "increment_and_call_trap", Encode!(&b).unwrap()).await.unwrap();
    assert!(answer.contains("after the write"), "{answer}");
    assert_eq!((count(&agent, a).await, count(&agent, b).await), (1, 1));
}

#[tokio::test]
async fn random_bytes_are_thirty_two_and_differ() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &canister("counter")).await;
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        let (bytes,): (Vec<u8>,) = update(&agent, canister, "random", Encode!().unwrap()).await.unwrap();
        assert_eq!(bytes.len(), 32);
        assert!(seen.insert(bytes), "random bytes came twice");
    }
}

#[tokio::test]
async fn a_timer_fires_without_a_message() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &canister("counter")).await;
    update::<()>(&agent, canister, "set_timer", Encode!(&100_000_000u64).unwrap()).await.unwrap();
    let mut fired = 0;
    for _ in 0..100 {
        (fired,) = query(&agent, canister, "timer_fired", Encode!().unwrap()).await.unwrap();
        if fired > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(fired, 1u64);
}

#[tokio::test]
async fn a_long_computation_is_sliced_and_others_go_on_meanwhile() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let wasm = canister("counter");
    let (slow, quick) = (install_new(&agent, &wasm).await, install_new(&agent, &wasm).await);
    // Six instructions and more a step: beyond one slice of two billion.
    let ended = std::cell::RefCell::new(Vec::new());
    let spin = async {
        let spun = agent.update(&slow, "spin").with_arg(Encode!(&600u64).unwrap()).call_and_wait().await;
        ended.borrow_mut().push("the long computation");
        spun
    };
    let others = async {
        // The computation is under way by then, and far from its end.
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Queries wait neither for its slices nor for its end.
        for _ in 0..20 {
            assert_eq!(count(&agent, slow).await, 0);
        }
        ended.borrow_mut().push("twenty queries");
        for n in 1..=5 {
            assert_eq!(increment(&agent, quick).await, n);
            ended.borrow_mut().push("an increment");
        }
    };
    let (spun, ()) = tokio::join!(spin, others);
    assert_ne!(Decode!(&spun.unwrap(), u64).unwrap(), 0);
    assert_eq!(ended.borrow()[..2], ["twenty queries", "an increment"], "{:?}", ended.borrow());
}

#[tokio::test]
async fn a_query_that_is_rejected_before_it_runs_is_answered_with_a_signature_too() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = create(&agent).await;
    for (method, code) in [("canister_status", "IC0408"), ("no_such_method", "IC0536")] {
        let query = agent.query(&Principal::management_canister(), method).with_effective_canister_id(canister);
        let rejected = query.with_arg(Encode!().unwrap()).call_with_verification().await;
        assert_eq!(reject(rejected.unwrap_err()).0, code, "{method}");
    }
}

#[tokio::test]
async fn a_canisters_own_reject_has_the_same_code_certified_or_not() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let module = r#"(module
        (import "ic0" "msg_reject" (func $reject (param i32 i32)))
        (memory 1) (data (i32.const 0) "no")
        (func $go (call $reject (i32.const 0) (i32.const 2)))
        (export "canister_update certified" (func $go))
        (export "canister_query uncertified" (func $go)))"#;
    let canister = install_new(&agent, &wat::parse_str(module).unwrap()).await;
    let certified = update::<()>(&agent, canister, "certified", vec![]).await.unwrap_err();
    assert!(matches!(certified, AgentError::CertifiedReject { .. }), "{certified:?}");
    let uncertified = query::<()>(&agent, canister, "uncertified", vec![]).await.unwrap_err();
    assert!(matches!(uncertified, AgentError::UncertifiedReject { .. }), "{uncertified:?}");
    for rejected in [certified, uncertified] {
        assert_eq!(reject(rejected), ("IC0406".into(), "no".into()));
    }
}

#[tokio::test]
async fn the_subnets_metrics_are_certified() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let subnet = Principal::self_authenticating(hex::decode(&node.banner.root_key).unwrap());
    let canister = install_new(&agent, &canister("counter")).await;
    let before = agent.read_state_subnet_metrics(subnet).await.unwrap();
    assert_eq!(before.num_canisters, 1);
    assert!(before.canister_state_bytes > 100_000, "the module alone is larger than {}", before.canister_state_bytes);
    // Creation and installation.
    assert_eq!(before.update_transactions_total, 2);
    for _ in 0..3 {
        increment(&agent, canister).await;
    }
    create(&agent).await;
    let after = agent.read_state_subnet_metrics(subnet).await.unwrap();
    assert_eq!((after.num_canisters, after.update_transactions_total), (2, 6));
    // 5 M and more for each update.
    assert!(after.consumed_cycles_total >= before.consumed_cycles_total + 15_000_000, "{before:?} {after:?}");
}

#[tokio::test]
async fn canister_ids_are_those_of_a_local_network_and_specified_ones_are_kept_for_who_asks() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    assert_eq!(create(&agent).await.to_text(), "bnz7o-iuaaa-aaaaa-qaaaa-cai");
    let registry = canister_id(0);
    let arg = ProvisionalCreateCanisterWithCyclesArgs { specified_id: Some(registry), ..Default::default() };
    let (made,): (CanisterIdRecord,) =
        manage(&agent, registry, "provisional_create_canister_with_cycles", arg.clone()).await.unwrap();
    assert_eq!(made.canister_id.to_text(), "rwlgt-iiaaa-aaaaa-aaaaa-cai");
    let again = manage::<(CanisterIdRecord,)>(&agent, registry, "provisional_create_canister_with_cycles", arg).await;
    assert!(again.is_err(), "an id is given once");
    assert_eq!(create(&agent).await, canister_id(FIRST_CANISTER + 1));
    install(&agent, registry, CanisterInstallMode::Install, &canister("counter"), &Encode!().unwrap()).await.unwrap();
    assert_eq!(increment(&agent, registry).await, 1);
    assert_eq!(count(&agent, registry).await, 1, "its answers verify against the subnet's ranges");
}

/// A node with one thread for queries, and a canister whose query `slow` takes it half a second and more.
struct OneThread {
    node: TestNode,
    canister: Principal,
}

impl OneThread {
    async fn new() -> Self {
        let node = TestNode::start_with(PROGRAM, &["--query-threads", "1"]);
        // About four billion instructions.
        let module = r#"(module
            (import "ic0" "msg_reply" (func $reply))
            (func (export "canister_query quick") (call $reply))
            (func (export "canister_query slow") (local i64)
                (loop $again
                    (local.set 0 (i64.add (local.get 0) (i64.const 1)))
                    (br_if $again (i64.lt_u (local.get 0) (i64.const 500000000))))
                (call $reply)))"#;
        let canister = install_new(&agent(&node, key(1)), &wat::parse_str(module).unwrap()).await;
        Self { node, canister }
    }

    fn query(&self, method: &str) -> Vec<u8> {
        let content = EnvelopeContent::Query {
            ingress_expiry: nanos_from_now(Duration::from_secs(60)),
            sender: Principal::anonymous(),
            canister_id: self.canister,
            method_name: method.into(),
            arg: vec![],
            nonce: None,
            sender_info: None,
        };
        let content = std::borrow::Cow::Owned(content);
        Envelope { content, sender_pubkey: None, sender_sig: None, sender_delegation: None }.encode_bytes()
    }

    fn path(&self) -> String {
        format!("/api/v3/canister/{}/query", self.canister)
    }

    /// Asks and waits for the answer.
    fn ask(&self, method: &str) {
        let (status, body) = self.node.post(&self.path(), &self.query(method));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }

    /// Asks, and leaves before the answer.
    fn ask_and_leave(&self, method: &str) {
        let body = self.query(method);
        let mut stream = TcpStream::connect(self.node.address()).unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            self.path(),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        // Long enough for most of them to be queued.
        std::thread::sleep(Duration::from_millis(30));
    }

    /// Asks one slow query after the other while `meanwhile` runs; returns how many.
    fn keep_busy(&self, meanwhile: impl FnOnce()) -> u64 {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                let mut asked = 0;
                while !over.load(Ordering::Acquire) {
                    self.ask("slow");
                    asked += 1;
                }
                asked
            });
            meanwhile();
            over.store(true, Ordering::Release);
            busy.join().unwrap()
        })
    }
}

#[tokio::test]
async fn what_is_quick_is_answered_before_the_queries_that_wait_with_it() {
    let busy = OneThread::new().await;
    // Whether both queries and the quick request wait together is the machine's to decide; sooner or later they do.
    let overtaken = (0..3).any(|_| {
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let ask = || {
                busy.ask("slow");
                answered.fetch_add(1, Ordering::SeqCst);
            };
            scope.spawn(ask);
            std::thread::sleep(Duration::from_millis(100));
            scope.spawn(ask);
            scope.spawn(ask);
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(busy.node.get("/api/v2/status").0, 200);
            answered.load(Ordering::SeqCst) <= 1
        })
    });
    assert!(overtaken, "two queries more were answered first");
}

#[tokio::test]
async fn queries_whose_clients_have_left_are_not_run() {
    let busy = OneThread::new().await;
    let abandoned = || metric(&busy.node, r#"cyclotron_requests_total{outcome="Abandoned"}"#);
    let mut left = 0;
    let asked = busy.keep_busy(|| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while abandoned() < 3 {
            assert!(Instant::now() < deadline, "{}", busy.node.metrics_page());
            busy.ask_and_leave("slow");
            left += 1;
        }
    });
    // It is the last in the queue.
    busy.ask("quick");
    // None of those that were abandoned was run too.
    let answered = metric(&busy.node, "cyclotron_queries_total");
    assert!(answered + abandoned() <= asked + left + 1, "{asked} asked, {left} left, {answered} answered");
}

/// A number of the metrics page; zero when it is not there.
fn metric(node: &TestNode, name: &str) -> u64 {
    let page = node.metrics_page();
    let value = page.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().parse().unwrap());
    value.unwrap_or(0)
}

#[tokio::test]
async fn every_kind_of_identity_is_who_it_says() {
    let node = TestNode::start(PROGRAM);
    let canister = install_new(&agent(&node, key(1)), &canister("counter")).await;
    let secp256k1 = || Secp256k1Identity::from_private_key(k256::SecretKey::from_slice(&[7; 32]).unwrap());
    let p256 = || Prime256v1Identity::from_private_key(p256::SecretKey::from_slice(&[7; 32]).unwrap());
    let delegation = Delegation {
        pubkey: key(3).public_key().unwrap(),
        expiration: nanos_from_now(Duration::from_secs(600)),
        targets: Some(vec![canister]),
        permissions: None,
    };
    let signature = secp256k1().sign_delegation(&delegation).unwrap().signature.unwrap();
    let chain = vec![SignedDelegation { delegation, signature }];
    let delegated = DelegatedIdentity::new(secp256k1().public_key().unwrap(), Box::new(key(3)), chain).unwrap();
    let identities: [Box<dyn Identity>; 5] =
        [Box::new(key(2)), Box::new(secp256k1()), Box::new(p256()), Box::new(delegated), Box::new(AnonymousIdentity)];
    for identity in identities {
        let sender = identity.sender().unwrap();
        let agent = agent(&node, identity);
        let (caller,): (Principal,) = query(&agent, canister, "whoami", Encode!().unwrap()).await.unwrap();
        assert_eq!(caller, sender);
        increment(&agent, canister).await;
    }
}

#[tokio::test]
async fn a_delegation_holds_for_its_targets_only() {
    let node = TestNode::start(PROGRAM);
    let owner = agent(&node, key(1));
    let wasm = canister("counter");
    let (named, other) = (install_new(&owner, &wasm).await, install_new(&owner, &wasm).await);
    let delegation = Delegation {
        pubkey: key(3).public_key().unwrap(),
        expiration: nanos_from_now(Duration::from_secs(600)),
        targets: Some(vec![named]),
        permissions: None,
    };
    let signature = key(1).sign_delegation(&delegation).unwrap().signature.unwrap();
    let chain = vec![SignedDelegation { delegation, signature }];
    let session = agent(&node, DelegatedIdentity::new(key(1).public_key().unwrap(), Box::new(key(3)), chain).unwrap());
    increment(&session, named).await;
    let refused = session.update(&other, "increment").with_arg(Encode!().unwrap()).call_and_wait().await;
    assert!(matches!(&refused, Err(AgentError::HttpError(error)) if error.status == 403), "{refused:?}");
}

#[tokio::test]
async fn the_state_tree_shows_hash_controllers_and_metadata() {
    let node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let module = |visibility: &str| {
        let text =
            format!(r#"(module (func (export "canister_update go")) (@custom "icp:{visibility} note" "content"))"#);
        wat::parse_str(text).unwrap()
    };
    let canister = install_new(&agent, &module("public")).await;
    let controllers = agent.read_state_canister_controllers(canister).await.unwrap();
    assert_eq!(controllers, [agent.get_principal().unwrap()]);
    let hash = agent.read_state_canister_module_hash(canister).await.unwrap();
    let (status,): (CanisterStatusResult,) =
        manage(&agent, canister, "canister_status", CanisterIdRecord { canister_id: canister }).await.unwrap();
    assert_eq!(status.module_hash, Some(hash));
    assert_eq!(status.status, CanisterStatusType::Running);

    let stranger = common::agent(&node, key(2));
    assert_eq!(stranger.read_state_canister_metadata(canister, "note").await.unwrap(), b"content");
    let private = module("private");
    install(&agent, canister, CanisterInstallMode::Reinstall, &private, &[]).await.unwrap();
    assert_eq!(agent.read_state_canister_metadata(canister, "note").await.unwrap(), b"content");
    let refused = stranger.read_state_canister_metadata(canister, "note").await;
    assert!(matches!(&refused, Err(AgentError::HttpError(error)) if error.status == 403), "{refused:?}");

    // Each fact that changes alone is shown.
    let both = vec![agent.get_principal().unwrap(), stranger.get_principal().unwrap()];
    let settings = CanisterSettings { controllers: Some(both.clone()), ..Default::default() };
    let arg = UpdateSettingsArgs { canister_id: canister, settings, sender_canister_version: None };
    let () = manage(&agent, canister, "update_settings", arg).await.unwrap();
    let controllers: BTreeSet<_> = agent.read_state_canister_controllers(canister).await.unwrap().into_iter().collect();
    assert_eq!(controllers, both.into_iter().collect());
    assert_eq!(stranger.read_state_canister_metadata(canister, "note").await.unwrap(), b"content");
    let () = manage(&agent, canister, "uninstall_code", CanisterIdRecord { canister_id: canister }).await.unwrap();
    assert!(agent.read_state_canister_module_hash(canister).await.is_err());
    assert!(agent.read_state_canister_metadata(canister, "note").await.is_err());
}

#[tokio::test]
async fn requests_under_way_are_answered_before_the_node_ends() {
    let mut node = TestNode::start(PROGRAM);
    let agent = agent(&node, key(1));
    let canister = install_new(&agent, &canister("counter")).await;
    let accepted = || metric(&node, r#"cyclotron_requests_total{outcome="Accepted"}"#);
    let before = accepted();
    // About a third of a second of work.
    let spin = agent.update(&canister, "spin").with_arg(Encode!(&60u64).unwrap()).call();
    let interrupt = async {
        while accepted() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        node.interrupt();
    };
    let (spun, ()) = tokio::join!(spin.and_wait(), interrupt);
    spun.expect("the call that was under way is answered");
    assert!(node.wait().success());
}

#[test]
fn a_second_ctrl_c_ends_a_node_that_is_stopping() {
    let mut node = TestNode::start(PROGRAM);
    // A request whose body does not come: for it the stop waits some seconds.
    let mut half = TcpStream::connect(node.address()).unwrap();
    half.write_all(b"POST /api/v2/canister/aaaaa-aa/query HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").unwrap();
    while !node.metrics_page().lines().any(|line| line == "cyclotron_http_requests_total 1") {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.interrupt();
    // From the first moment of the stop on nobody is let in.
    while TcpStream::connect(node.address()).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.interrupt();
    assert_eq!(node.wait().code(), Some(130), "it waits no longer");
}
