//! What keeps nothing: queries, composite queries, inspection.

use super::*;
use crate::install::Mode;
use crate::query::{QueryCall, QuerySession, inspect, query};
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::ErrorCode;

const MODULE: &str = r#"
    (table funcref (elem $reply $reject))
    (global $g (mut i32) (i32.const 1))
    (func $answer
        (i32.store8 (i32.const 0) (global.get $g))
        (i32.store8 (i32.const 1) (i32.load8_u (i32.const 100)))
        (call $msg_reply_data_append (i32.const 0) (i32.const 2)) (call $msg_reply ))
    (func (export "canister_query get") (global.set $g (i32.add (global.get $g) (i32.const 5))) (call $answer))
    (func (export "canister_update set")
        (local $n i32)
        (global.set $g (i32.const 50)) (i32.store8 (i32.const 100) (i32.const 60))
        (drop (call $stable64_grow (i64.const 1))) (call $stable64_write (i64.const 0) (i64.const 100) (i64.const 1))
        (local.set $n (i32.const 5000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (call $msg_reply ))
    (func (export "canister_query stable")
        (i64.store (i32.const 0) (call $stable64_size ))
        (call $msg_reply_data_append (i32.const 0) (i32.const 8))
        (if (i64.ne (call $stable64_size ) (i64.const 0)) (then
            (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 1)) (call $msg_reply_data_append (i32.const 0) (i32.const 1))))
        (call $msg_reply ))
    (func (export "canister_query cert")
        (if (i32.eqz (call $data_certificate_present )) (then (call $msg_reject (i32.const 0) (i32.const 0)) return))
        (call $data_certificate_copy (i32.const 0) (i32.const 0) (call $data_certificate_size ))
        (call $msg_reply_data_append (i32.const 0) (call $data_certificate_size )) (call $msg_reply ))
    (func (export "canister_query spin") (loop $l (br $l)))
    (func (export "canister_query trap") (call $debug_print (i32.const 0) (i32.const 2)) unreachable)
    (func (export "canister_composite_query ask")
        (i32.store8 (i32.const 100) (i32.const 7))
        (global.set $g (i32.const 3))
        (call $msg_arg_data_copy (i32.const 200) (i32.const 0) (call $msg_arg_data_size ))
        (call $call_new (i32.const 200) (call $msg_arg_data_size ) (i32.const 300) (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 1) (i32.const 0))
        (if (call $call_perform ) (then unreachable)))
    (func $reply (param $env i32)
        (global.set $g (i32.add (global.get $g) (local.get $env)))
        (call $msg_reply_data_append (i32.const 200) (i32.const 1))
        (call $answer))
    (func $reject (param i32) unreachable)
    (data (i32.const 300) "get")
    (func (export "canister_inspect_message")
        (call $msg_method_name_copy (i32.const 0) (i32.const 0) (call $msg_method_name_size ))
        (if (i32.eq (i32.load8_u (i32.const 0)) (i32.const 115)) (then (call $accept_message )))
        (if (i32.eq (i32.load8_u (i32.const 0)) (i32.const 116)) (then unreachable)))"#;

fn call(method: &str) -> QueryCall {
    QueryCall { method: method.into(), composite: true, ..QueryCall::default() }
}

#[test]
fn a_query_answers_and_leaves_no_trace() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    for _ in 0..3 {
        let reply = subnet.view(canister, |env, view| query(env, view, call("get"))).unwrap();
        assert_eq!(reply, [6, 0]);
    }
    subnet.update(canister, "set", b"").unwrap();
    assert_eq!(subnet.view(canister, |env, view| query(env, view, call("get"))).unwrap(), [55, 60]);
    assert_eq!(subnet.view(canister, |env, view| query(env, view, call("stable"))).unwrap()[8], 60);
    let (balance, version) = (subnet.canister(canister).balance, subnet.canister(canister).version);
    let step = subnet
        .view(canister, |env, view| QuerySession::open(env, view, call("trap")).unwrap().run(Instructions(1_000_000)));
    assert_eq!(step.failure.unwrap().error, Some(ErrorCode::CanisterTrapped));
    assert_eq!(step.log.len(), 2);
    assert_eq!((subnet.canister(canister).balance, subnet.canister(canister).version), (balance, version));
    assert!(subnet.log(canister).is_empty());
}

#[test]
fn a_query_sees_the_state_before_a_suspended_message() {
    let mut subnet = Subnet::with_slice(2_000);
    let canister = subnet.install(&module(MODULE));
    subnet.ingress(canister, "set", b"");
    let Some(message) = subnet.queue.pop_front() else { panic!() };
    let mut step = subnet.slice(canister, Some(Job::Message(message)));
    let mut slices = 0;
    while let Step::Suspended { .. } = step {
        slices += 1;
        assert_eq!(subnet.view(canister, |env, view| query(env, view, call("get"))).unwrap(), [6, 0]);
        assert_eq!(subnet.view(canister, |env, view| query(env, view, call("stable"))).unwrap(), [0; 8]);
        step = subnet.slice(canister, None);
    }
    assert!(slices > 3, "{slices}");
    let Step::Done(outcome) = step else { panic!() };
    subnet.route(outcome);
    assert_eq!(subnet.view(canister, |env, view| query(env, view, call("get"))).unwrap(), [55, 60]);
}

#[test]
fn an_open_view_outlasts_messages_and_publications() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    let (env, old) = subnet.view(canister, |env, view| (Arc::clone(env), Arc::clone(view)));
    let mut open: Vec<_> =
        ["get", "stable"].into_iter().map(|m| QuerySession::open(&env, &old, call(m)).unwrap()).collect();
    subnet.update(canister, "set", b"").unwrap();
    // A message's effects are not seen before they are published.
    assert_eq!(query(&env, &old, call("get")).unwrap(), [6, 0]);
    assert_eq!(subnet.view(canister, |env, view| query(env, view, call("get"))).unwrap(), [55, 60]);
    assert!(query(&env, &old, call("get")).is_err(), "the old state is gone for who comes now");
    subnet.put(canister, &module(MODULE), Mode::Fresh, b"").result.unwrap();
    let answers: Vec<_> = open.iter_mut().map(|session| session.run(Instructions(1_000_000)).answer.unwrap()).collect();
    assert_eq!(answers, [ResponsePayload::Reply(vec![6, 0]), ResponsePayload::Reply(vec![0; 8])]);
}

#[test]
fn queries_are_limited_and_refused_as_specified() {
    let mut subnet = Subnet::with(|limits| limits.query = Instructions(100_000));
    let canister = subnet.install(&module(MODULE));
    let ask = |subnet: &mut Subnet, method: &str| {
        subnet.view(canister, |env, view| query(env, view, call(method))).unwrap_err().error
    };
    assert_eq!(ask(&mut subnet, "spin"), Some(ErrorCode::CanisterInstructionLimitExceeded));
    assert_eq!(ask(&mut subnet, "set"), Some(ErrorCode::CanisterMethodNotFound));
    subnet.canister_mut(canister).run_state = cyclotron_types::canister::RunState::Stopped;
    assert_eq!(ask(&mut subnet, "get"), Some(ErrorCode::CanisterStopped));
    subnet.canister_mut(canister).run_state = cyclotron_types::canister::RunState::Running;
    subnet.canister_mut(canister).balance.0 = Cycles(1);
    assert_eq!(ask(&mut subnet, "get"), Some(ErrorCode::CanisterOutOfCycles));
    let empty = subnet.create();
    let error = subnet.view(empty, |env, view| query(env, view, call("get"))).unwrap_err().error;
    assert_eq!(error, Some(ErrorCode::CanisterWasmModuleNotFound));
    subnet.created = Cycles::ZERO;
}

#[test]
fn the_certificate_is_there_when_the_caller_brings_one() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    let with = QueryCall { certificate: Some(Arc::from(*b"certificate")), ..call("cert") };
    assert_eq!(subnet.view(canister, |env, view| query(env, view, with)).unwrap(), b"certificate");
    assert!(subnet.view(canister, |env, view| query(env, view, call("cert"))).is_err());
}

#[test]
fn a_composite_query_s_callbacks_go_on_in_its_view() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    let limit = Instructions(1_000_000);
    subnet.view(canister, |env, view| {
        let arg = b"\x00\x00\x00\x00\x00\x00\x00\x09\x01\x01".to_vec();
        let mut session = QuerySession::open(env, view, QueryCall { arg, ..call("ask") }).unwrap();
        let step = session.run(limit);
        assert_eq!((step.answer, step.failure), (None, None));
        let [request] = &step.calls[..] else { panic!() };
        assert_eq!((request.callee, request.method.as_str()), (id(9), "get"));
        let step = session.callback(&request.callback, ResponsePayload::Reply(vec![1]), limit);
        // The global is 3 + 4, heap byte 100 is 7: both of the view.
        assert_eq!(step.answer, Some(ResponsePayload::Reply(vec![0, 7, 7])));
        let step = session.run(limit);
        assert!(step.failure.is_some(), "a method runs once");
        // Called as an ordinary query it is not there.
        let plain = QueryCall { composite: false, ..call("ask") };
        assert_eq!(query(env, view, plain).unwrap_err().error, Some(ErrorCode::CanisterMethodNotFound));
    });
    let reject = subnet.update(canister, "ask", b"").unwrap_err();
    assert_eq!(reject.error, Some(ErrorCode::CompositeQueryCalledInReplicatedMode));
}

#[test]
fn inspection_accepts_rejects_or_is_absent() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    let ask = |subnet: &mut Subnet, on, method: &str| {
        subnet.view(on, |env, view| inspect(QuerySession::open_inspect(env, view, call(method)).unwrap()))
    };
    assert_eq!(ask(&mut subnet, canister, "set"), Ok(()));
    assert_eq!(ask(&mut subnet, canister, "get").unwrap_err().error, Some(ErrorCode::CanisterRejectedMessage));
    assert_eq!(ask(&mut subnet, canister, "trap").unwrap_err().error, Some(ErrorCode::CanisterTrapped));
    let open = subnet.install(&module(r#"(func (export "canister_update x"))"#));
    assert_eq!(ask(&mut subnet, open, "anything"), Ok(()));
}
