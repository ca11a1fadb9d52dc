//! Calls between canisters: contexts, callbacks, cleanup, cycles.

use super::*;
use cyclotron_types::message::{CallKind, Response, ResponsePayload};
use cyclotron_types::reject::{ErrorCode, RejectCode};

/// A canister that calls the canister named in its argument: `args` = method length (1 byte), method, callee.
///
/// `call` replies from the callback with what came back, `call_trap` traps in it, `call_clean` traps and has a cleanup, `call_no` never
/// answers. On a reject it replies with the code and the message.
const CALLER: &str = r#"
    (table funcref (elem $reply $reject $oops $cleanup $quiet $burn_in_cleanup))
    (global $cleaned (mut i32) (i32.const 0))
    (global $touched (mut i32) (i32.const 0))
    (func $reply (param i32)
        (call $msg_arg_data_copy (i32.const 1000) (i32.const 0) (call $msg_arg_data_size ))
        (call $msg_reply_data_append (i32.const 1000) (call $msg_arg_data_size ))
        (call $msg_cycles_refunded128 (i32.const 5000))
        (call $msg_reply_data_append (i32.const 5000) (i32.const 8))
        (call $msg_reply ))
    (func $reject (param i32)
        (i32.store8 (i32.const 1000) (call $msg_reject_code ))
        (call $msg_reply_data_append (i32.const 1000) (i32.const 1))
        (call $msg_reject_msg_copy (i32.const 1000) (i32.const 0) (call $msg_reject_msg_size ))
        (call $msg_reply_data_append (i32.const 1000) (call $msg_reject_msg_size ))
        (call $msg_reply ))
    (func $oops (param i32) (global.set $touched (i32.const 1)) (i32.store (i32.const 9000) (i32.const 1)) unreachable)
    (func $cleanup (param $env i32)
        (if (i32.ne (global.get $touched) (i32.const 0)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 9000)) (i32.const 0)) (then unreachable))
        (global.set $cleaned (local.get $env)))
    (func $burn_in_cleanup (param i32) (call $cycles_burn128 (i64.const 0) (i64.const 5) (i32.const 0)) unreachable)
    (func $quiet (param i32))
    (func $begin (param $reply i32) (param $reject i32)
        (local $len i32)
        (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size ))
        (local.set $len (i32.load8_u (i32.const 0)))
        (call $call_new
            (i32.add (i32.const 1) (local.get $len)) (i32.sub (call $msg_arg_data_size ) (i32.add (i32.const 1) (local.get $len)))
            (i32.const 1) (local.get $len)
            (local.get $reply) (i32.const 41) (local.get $reject) (i32.const 42))
        (call $call_data_append (i32.const 0) (i32.const 1)))
    (func $perform (if (call $call_perform ) (then (call $msg_reject (i32.const 0) (i32.const 0)))))
    (func (export "canister_update call") (call $begin (i32.const 0) (i32.const 1)) (call $perform))
    (func (export "canister_update call_cycles")
        (call $begin (i32.const 0) (i32.const 1)) (call $call_cycles_add (i64.const 1000)) (call $perform))
    (func (export "canister_update call_trap") (call $begin (i32.const 2) (i32.const 2)) (call $perform))
    (func (export "canister_update call_clean")
        (call $begin (i32.const 2) (i32.const 2)) (call $call_on_cleanup (i32.const 3) (i32.const 43)) (call $perform))
    (func (export "canister_update call_clean_trap")
        (call $begin (i32.const 2) (i32.const 2)) (call $call_on_cleanup (i32.const 5) (i32.const 43)) (call $perform))
    (func (export "canister_update call_no") (call $begin (i32.const 4) (i32.const 4)) (call $perform))
    (func (export "canister_update call_missing") (call $begin (i32.const 99) (i32.const 99)) (call $perform))
    (func (export "canister_update call_early")
        (call $begin (i32.const 4) (i32.const 4)) (call $perform) (call $msg_reply ))
    (func (export "canister_update drop")
        (call $begin (i32.const 4) (i32.const 4)) (call $call_cycles_add128 (i64.const 0) (i64.const 77)) (call $msg_reply ))
    (func (export "canister_update twice")
        (call $begin (i32.const 4) (i32.const 4)) (call $perform)
        (call $begin (i32.const 0) (i32.const 1)) (call $perform))
    (func (export "canister_update best")
        (call $begin (i32.const 0) (i32.const 1)) (call $call_with_best_effort_response (i32.const 1000)) (call $perform))
    (func (export "canister_update rich")
        (call $begin (i32.const 0) (i32.const 1)) (call $call_cycles_add128 (i64.const 1) (i64.const 0)) (call $perform))
    (func (export "canister_update cleaned")
        (i32.store (i32.const 0) (global.get $cleaned)) (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply ))"#;

/// A callee: accepts 300 cycles at most, replies `pong`, rejects, traps, keeps silent.
const CALLEE: &str = r#"
    (data (i32.const 0) "pongno!")
    (func (export "canister_update ping")
        (if (i64.ne (call $msg_cycles_accept (i64.const 300)) (i64.const 300)) (then nop))
        (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply ))
    (func (export "canister_query peek") (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply ))
    (func (export "canister_update no") (call $msg_reject (i32.const 4) (i32.const 3)))
    (func (export "canister_update trap") (call $trap (i32.const 4) (i32.const 3)))
    (func (export "canister_update silent"))
    (func (export "canister_update deadline")
        (i64.store (i32.const 100) (call $msg_deadline ))
        (call $msg_reply_data_append (i32.const 100) (i32.const 8)) (call $msg_reply ))"#;

fn arg(method: &str, callee: CanisterId) -> Vec<u8> {
    [&[method.len() as u8], method.as_bytes(), callee.as_slice()].concat()
}

fn pair(subnet: &mut Subnet) -> (CanisterId, CanisterId) {
    (subnet.install(&module(CALLER)), subnet.install(&module(CALLEE)))
}

fn clean(subnet: &Subnet) {
    for bundle in subnet.canisters.values() {
        assert!(bundle.contexts.contexts.is_empty() && bundle.contexts.callbacks.is_empty(), "{:?}", bundle.contexts);
    }
}

#[test]
fn a_reply_comes_back_with_what_was_not_accepted() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let before = subnet.canister(callee).balance.0;
    let reply = subnet.update(caller, "call_cycles", &arg("ping", callee)).unwrap();
    assert_eq!(reply, [b"pong", &700u64.to_le_bytes()[..]].concat());
    let fee = subnet.env.subnet.fees.execution(subnet.outcomes[1].total, false);
    assert_eq!(subnet.canister(callee).balance.0.0, before.0 + 300 - fee.0);
    clean(&subnet);
}

#[test]
fn a_call_costs_what_it_used_and_the_rest_comes_back() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let before = subnet.canister(caller).balance.0;
    subnet.update(caller, "call", &arg("peek", callee)).unwrap();
    let fees = subnet.env.subnet.fees.clone();
    let [update, _, callback] = &subnet.outcomes[..] else { panic!() };
    // Request: method and one byte of argument. Response: four bytes.
    let spent = fees.execution(update.total, false).0
        + fees.execution(callback.total, false).0
        + fees.call_base.0
        + fees.transmission(Bytes(5)).0
        + fees.transmission(Bytes(4)).0;
    assert_eq!(before.0 - subnet.canister(caller).balance.0.0, spent);
}

#[test]
fn rejects_arrive_with_code_and_text() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let mut ask = |method: &str| {
        let reply = subnet.update(caller, "call", &arg(method, callee)).unwrap();
        (reply[0], String::from_utf8(reply[1..].to_vec()).unwrap())
    };
    assert_eq!(ask("no"), (4, "no!".into()));
    let (code, text) = ask("trap");
    assert_eq!(code, RejectCode::CanisterError as u8);
    assert!(text.starts_with("IC0503: Error from Canister") && text.contains("with message: no!"), "{text}");
    let (code, text) = ask("silent");
    assert_eq!((code, text.contains("IC0506") && text.contains("did not reply")), (5, true));
    let (code, text) = ask("absent");
    assert_eq!((code, text.contains("Canister has no update method 'absent'")), (5, true));
    clean(&subnet);
}

#[test]
fn a_trap_in_a_callback_is_the_answer_when_nothing_else_is_open() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let reject = subnet.update(caller, "call_trap", &arg("ping", callee)).unwrap_err();
    assert_eq!(reject.error, Some(ErrorCode::CanisterTrapped));
    clean(&subnet);
    let reject = subnet.update(caller, "call_missing", &arg("ping", callee)).unwrap_err();
    assert_eq!(reject.error, Some(ErrorCode::CanisterFunctionNotFound));
    assert!(reject.message.contains("non-existent Wasm function 99 from table 0"), "{}", reject.message);
    clean(&subnet);
}

#[test]
fn cleanup_runs_from_the_state_before_the_callback_and_its_effects_hold() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    for method in ["ping", "no"] {
        let reject = subnet.update(caller, "call_clean", &arg(method, callee)).unwrap_err();
        assert_eq!(reject.error, Some(ErrorCode::CanisterTrapped));
        assert!(!reject.message.contains("call_on_cleanup"), "{}", reject.message);
    }
    // The module's own checks in `$cleanup` have seen the state before the callback.
    let mut fresh = Subnet::new();
    let (caller, callee) = pair(&mut fresh);
    fresh.update(caller, "call_clean", &arg("ping", callee)).unwrap_err();
    assert_eq!(fresh.update(caller, "cleaned", b"").unwrap(), 43u32.to_le_bytes());
    let reject = fresh.update(caller, "call_clean_trap", &arg("ping", callee)).unwrap_err();
    assert!(reject.message.contains("call_on_cleanup also failed"), "{}", reject.message);
    clean(&fresh);
}

#[test]
fn a_context_without_an_answer_is_rejected_when_its_last_callback_returns() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let id = subnet.ingress(caller, "call_no", &arg("ping", callee));
    assert!(subnet.run_one());
    assert_eq!(subnet.answers[&id], IngressStatus::Processing);
    assert_eq!(subnet.canister(caller).contexts.contexts.len(), 1);
    subnet.run();
    let IngressStatus::Rejected(reject) = &subnet.answers[&id] else { panic!() };
    assert_eq!(reject.error, Some(ErrorCode::CanisterDidNotReply));
    assert!(subnet.outcomes.last().unwrap().effects.idle);
    clean(&subnet);
}

#[test]
fn an_answered_context_lives_until_its_callbacks_have_run_and_answers_once() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let id = subnet.ingress(caller, "call_early", &arg("ping", callee));
    assert!(subnet.run_one());
    assert_eq!(subnet.answers[&id], IngressStatus::Replied(vec![]));
    assert!(subnet.canister(caller).contexts.contexts.values().all(|context| context.responded));
    subnet.run();
    assert_eq!(subnet.answers[&id], IngressStatus::Replied(vec![]));
    clean(&subnet);
    // Two calls at once: the first callback is quiet, the second answers.
    let reply = subnet.update(caller, "twice", &arg("ping", callee)).unwrap();
    assert_eq!(&reply[..4], b"pong");
    clean(&subnet);
}

#[test]
fn cycles_of_a_call_never_made_stay() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let before = subnet.canister(caller).balance.0;
    subnet.update(caller, "drop", &arg("ping", callee)).unwrap();
    let fee = subnet.env.subnet.fees.execution(subnet.outcomes[0].total, false);
    assert_eq!(before.0 - subnet.canister(caller).balance.0.0, fee.0);
}

#[test]
fn more_cycles_than_are_liquid_cannot_be_attached() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let reject = subnet.update(caller, "rich", &arg("ping", callee)).unwrap_err();
    assert!(
        reject.message.contains("is out of cycles: please top up the canister with at least"),
        "{}",
        reject.message
    );
    clean(&subnet);
}

#[test]
fn a_call_that_cannot_be_paid_or_queued_returns_2() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    subnet.config().limits.queue_slots = 0;
    let reject = subnet.update(caller, "call", &arg("ping", callee)).unwrap_err();
    assert_eq!((reject.code, reject.error), (RejectCode::CanisterReject, None));
    subnet.config().limits.queue_slots = 1;
    let reject = subnet.update(caller, "twice", &arg("ping", callee)).unwrap_err();
    assert_eq!((reject.code, reject.error), (RejectCode::CanisterReject, None));
    subnet.update(caller, "call", &arg("ping", callee)).unwrap();
    // Enough for its own execution, not for a callback's too.
    let own = subnet.env.subnet.prepaid_execution(false).0;
    let balance = &mut subnet.canister_mut(caller).balance.0;
    let given_up = balance.0 - own - own / 2;
    balance.0 -= given_up;
    subnet.burned.0 += given_up;
    let freezing = &mut subnet.canister_mut(caller).settings.freezing_threshold;
    freezing.0 = 0;
    let reject = subnet.update(caller, "call", &arg("ping", callee)).unwrap_err();
    assert_eq!((reject.code, reject.error), (RejectCode::CanisterReject, None));
    clean(&subnet);
}

#[test]
fn best_effort_calls_carry_a_deadline_of_at_most_five_minutes() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    subnet.env.time = Time(1_000_500_000_000);
    let reply = subnet.update(caller, "best", &arg("deadline", callee)).unwrap();
    assert_eq!(reply[..8], 1_300_000_000_000u64.to_le_bytes());
    let reply = subnet.update(caller, "call", &arg("deadline", callee)).unwrap();
    assert_eq!(reply[..8], 0u64.to_le_bytes());
}

#[test]
fn callees_may_ask_for_a_minimum_of_cycles() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    subnet.canister_mut(callee).settings.minimum_incoming_canister_call_cycles = Cycles(1_001);
    let reply = subnet.update(caller, "call_cycles", &arg("ping", callee)).unwrap();
    assert_eq!(reply[0], RejectCode::CanisterError as u8);
    subnet.canister_mut(callee).settings.minimum_incoming_canister_call_cycles = Cycles(1_000);
    assert_eq!(&subnet.update(caller, "call_cycles", &arg("ping", callee)).unwrap()[..4], b"pong");
}

#[test]
fn a_response_after_uninstalling_gives_its_cycles_back_and_runs_nothing() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    let id = subnet.ingress(caller, "call_cycles", &arg("ping", callee));
    assert!(subnet.run_one());
    subnet.borrow(caller, |_, canister| {
        let answers = crate::management::uninstall(canister);
        assert_eq!(answers.len(), 1);
    });
    subnet.run();
    assert_eq!(subnet.answers[&id], IngressStatus::Processing, "the answer went out with the code");
    clean(&subnet);
    assert_eq!(subnet.outcomes.last().unwrap().total, Instructions::ZERO);
}

#[test]
fn a_response_that_nobody_waits_for_brings_its_cycles() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    subnet.created.0 += 55;
    let before = subnet.canister(caller).balance.0;
    subnet.job(
        caller,
        Job::Message(Message::Response(Response {
            originator: caller,
            respondent: callee,
            callback: cyclotron_types::ids::CallbackId(77),
            refund: Cycles(55),
            payload: ResponsePayload::Reply(vec![]),
            kind: CallKind::Guaranteed,
        })),
    );
    assert_eq!(subnet.canister(caller).balance.0.0, before.0 + 55);
}

#[test]
fn a_call_that_gives_another_version_than_the_callers_own_is_rejected_before_it_is_sent() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"
        (table funcref (elem $reply $reject))
        (data (i32.const 0) "uninstall_code")
        (func $reply (param i32) unreachable)
        (func $reject (param i32)
            (i32.store8 (i32.const 100) (call $msg_reject_code ))
            (call $msg_reply_data_append (i32.const 100) (i32.const 1))
            (call $msg_reply ))
        (func (export "canister_update go")
            (call $msg_arg_data_copy (i32.const 200) (i32.const 0) (call $msg_arg_data_size ))
            (call $call_new (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 14)
                (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
            (call $call_data_append (i32.const 200) (call $msg_arg_data_size ))
            (call $call_cycles_add (i64.const 77))
            (if (call $call_perform ) (then unreachable)))"#,
    ));
    #[derive(candid::CandidType)]
    struct Uninstall {
        canister_id: Principal,
        sender_canister_version: Option<u64>,
    }
    let arg = |version| {
        let args = Uninstall { canister_id: canister.principal(), sender_canister_version: version };
        candid::encode_one(args).unwrap()
    };
    let own = subnet.canister(canister).version.0;
    assert_eq!(subnet.update(canister, "go", &arg(Some(own + 1))).unwrap(), [RejectCode::CanisterError as u8]);
    clean(&subnet);
    for gives in [false, true] {
        let version = gives.then_some(subnet.canister(canister).version.0);
        subnet.ingress(canister, "go", &arg(version));
        let Some(message) = subnet.queue.pop_front() else { panic!() };
        let Step::Done(outcome) = subnet.slice(canister, Some(Job::Message(message))) else { panic!() };
        assert!(matches!(&outcome.effects.outgoing[..], [Outgoing::Request(_)]), "{version:?}");
        subnet.canister_mut(canister).contexts = Default::default();
    }
}

#[test]
fn a_callback_costs_its_instructions_at_the_price_at_which_they_were_prepaid() {
    let mut subnet = Subnet::new();
    let (caller, callee) = pair(&mut subnet);
    subnet.ingress(caller, "call", &arg("ping", callee));
    assert!(subnet.run_one());
    // The same callback, now of a 64-bit module, whose instructions cost twice as much.
    let wide = "(module (memory i64 1) (table funcref (elem $f $f $f $f $f $f)) (func $f (param i64)))";
    subnet.put(caller, wide, Mode::Upgrade { skip_pre_upgrade: false, keep_heap: false }, b"").result.unwrap();
    subnet.run();
    let outcome = subnet.outcomes.last().unwrap();
    assert_eq!(outcome.effects.verdict, crate::Verdict::Returned);
    let (fees, burned) = (&subnet.env.subnet.fees, outcome.effects.burned);
    assert!(burned > fees.execution(outcome.total, false), "{burned}: the execution and the transmission");
    clean(&subnet);
}
