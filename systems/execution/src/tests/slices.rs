//! Slices: whatever their size, and whether a message is aborted in between, the result is the same.

use super::*;

/// Loops, writes heap, globals and stable memory, calls itself, counts in the callback.
const WORK: &str = r#"
    (table funcref (elem $reply $reject $cleanup))
    (global $sum (mut i64) (i64.const 0))
    (func $loop (param $n i32)
        (loop $l
            (global.set $sum (i64.add (global.get $sum) (i64.extend_i32_u (local.get $n))))
            (i64.store (i32.and (i32.mul (local.get $n) (i32.const 8)) (i32.const 0x1fff8)) (global.get $sum))
            (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
    (func (export "canister_init") (drop (call $stable64_grow (i64.const 1))) (call $loop (i32.const 1000)))
    (func $reply (param i32)
        (call $loop (i32.const 3000))
        (call $stable64_write (i64.const 4090) (i64.const 0) (i64.const 16))
        (i64.store (i32.const 0) (call $performance_counter (i32.const 1)))
        (i64.store (i32.const 8) (global.get $sum))
        (call $msg_reply_data_append (i32.const 0) (i32.const 16))
        (call $msg_reply ))
    (func $reject (param i32) (call $loop (i32.const 2000)) unreachable)
    (func $cleanup (param i32) (call $loop (i32.const 500)))
    (func $call_self (param $name i32) (param $len i32)
        (call $canister_self_copy (i32.const 100) (i32.const 0) (call $canister_self_size ))
        (call $call_new (i32.const 100) (call $canister_self_size ) (local.get $name) (local.get $len)
            (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
        (call $call_on_cleanup (i32.const 2) (i32.const 0))
        (call $call_cycles_add (i64.const 12345))
        (if (call $call_perform ) (then unreachable)))
    (data (i32.const 200200) "leafbad")
    (func (export "canister_update work") (call $loop (i32.const 5000)) (call $call_self (i32.const 200200) (i32.const 4)) (call $loop (i32.const 3000)))
    (func (export "canister_update fail") (call $loop (i32.const 5000)) (call $call_self (i32.const 200204) (i32.const 3)))
    (func (export "canister_update bad") (call $loop (i32.const 2500)) unreachable)
    (func (export "canister_update leaf")
        (call $loop (i32.const 4000))
        (drop (call $msg_cycles_accept (i64.const 45)))
        (call $msg_reply ))
    (func (export "canister_heartbeat") (call $loop (i32.const 700)) (call $debug_print (i32.const 0) (i32.const 3)))
    (memory (export "memory") 4)"#;

/// Everything that a slice limit must not change.
fn result(slice: u64, aborting: bool) -> (u64, String) {
    let mut subnet = Subnet::with_slice(slice);
    subnet.abort_always = aborting;
    let canister = subnet.install(&module(WORK));
    let ok = subnet.update(canister, "work", b"");
    let failed = subnet.update(canister, "fail", b"");
    // The last slice's share is all that may differ.
    let beat = Outcome { used: Instructions::ZERO, ..subnet.task(canister, SystemTask::Heartbeat) };
    let totals: Vec<_> = subnet.outcomes.iter().map(|outcome| outcome.total).collect();
    let bundle = subnet.canister(canister);
    let installed = bundle.program.installed().unwrap();
    let mut pages = Vec::new();
    installed.heap().committed(|heap| heap.each_nonzero_page(|page, bytes| pages.push((page, sum(bytes))))).unwrap();
    installed
        .stable()
        .unwrap()
        .committed(|stable| stable.each_nonzero_page(|page, bytes| pages.push((page, sum(bytes)))))
        .unwrap();
    let state = format!(
        "{ok:?} {failed:?} {beat:?} {totals:?} {:?} {:?} {:?} {:?} {pages:?} {:?}",
        bundle.balance,
        bundle.version,
        bundle.contexts,
        bundle.log,
        installed.committed_globals(&bundle.paused),
    );
    (subnet.suspensions, state)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn results_do_not_depend_on_the_slice_limit_or_on_aborts() {
    let (whole, expected) = result(2_000_000_000, false);
    assert_eq!(whole, 0);
    assert!(expected.starts_with("Ok(["), "{expected}");
    for (slice, at_least) in [(1_000_000, 0), (10_000, 20), (1_000, 200)] {
        for aborting in [false, true] {
            let (suspensions, state) = result(slice, aborting);
            assert!(suspensions >= at_least, "{suspensions} suspensions at {slice}");
            assert_eq!(state, expected, "slice {slice}, aborting {aborting}");
        }
    }
}

#[test]
fn a_suspended_message_changes_nothing_but_what_it_has_prepaid() {
    let mut subnet = Subnet::with_slice(10_000);
    let canister = subnet.install(&module(WORK));
    let before = subnet.canister(canister).balance.0;
    let (version, contexts) = (subnet.canister(canister).version, subnet.canister(canister).contexts.contexts.clone());
    subnet.ingress(canister, "work", b"");
    let Some(message) = subnet.queue.pop_front() else { panic!() };
    let Step::Suspended { used, .. } = subnet.slice(canister, Some(Job::Message(message))) else { panic!() };
    assert!((10_000..11_000).contains(&used.0), "{used}");
    let prepaid = subnet.env.subnet.fees.execution(Instructions(1_000_000_000), false);
    let bundle = subnet.canister(canister);
    assert_eq!(bundle.balance.0.0, before.0 - prepaid.0);
    assert_eq!((bundle.version, &bundle.contexts.contexts), (version, &contexts));
    assert_eq!(bundle.paused.cycles(), prepaid);
    let Paused::Suspended(suspended) = &bundle.paused else { panic!() };
    assert_eq!(suspended.instructions_used(), used);
    let Job::Message(Message::Ingress(ingress)) = suspended.job() else { panic!() };
    assert_eq!(ingress.method, "work");
    subnet.abort(canister);
    assert!(matches!(subnet.paused(canister), Paused::Aborted(_)));
    assert_eq!(subnet.canister(canister).balance.0.0, before.0 - prepaid.0);
}

#[test]
fn fees_taken_while_a_message_is_suspended_cannot_overdraw_the_canister() {
    let mut subnet = Subnet::with_slice(10_000);
    let canister = subnet.install(&module(
        r#"
        (func (export "canister_update burn")
            (local $n i32)
            (call $cycles_burn128 (i64.const 0xffffffff) (i64.const 0) (i32.const 0))
            (local.set $n (i32.const 10000))
            (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
            (call $msg_reply ))"#,
    ));
    subnet.ingress(canister, "burn", b"");
    let Some(message) = subnet.queue.pop_front() else { panic!() };
    assert!(matches!(subnet.slice(canister, Some(Job::Message(message))), Step::Suspended { .. }));
    let taken = 1_000;
    subnet.canister_mut(canister).balance.0.0 -= taken;
    subnet.burned.0 += taken;
    let outcome = loop {
        if let Step::Done(outcome) = subnet.slice(canister, None) {
            break outcome;
        }
    };
    let Some((_, IngressStatus::Rejected(reject))) = &outcome.effects.ingress else { panic!() };
    assert_eq!(reject.error, Some(cyclotron_types::reject::ErrorCode::CanisterOutOfCycles));
    subnet.route(outcome);
    assert!(subnet.canister(canister).balance.0.0 > 90 * T);
}

/// Grows its heap by a page, then loops over several slices.
const GROWS: &str = r#"
    (func (export "canister_update grow")
        (local $n i32)
        (drop (memory.grow (i32.const 1)))
        (local.set $n (i32.const 10000))
        (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (call $msg_reply ))"#;

fn suspended_with(subnet: &mut Subnet, wat: &str, method: &str) -> CanisterId {
    let canister = subnet.install(&module(wat));
    subnet.ingress(canister, method, b"");
    let Some(message) = subnet.queue.pop_front() else { panic!() };
    assert!(matches!(subnet.slice(canister, Some(Job::Message(message))), Step::Suspended { .. }));
    canister
}

fn to_the_end(subnet: &mut Subnet, canister: CanisterId) -> Outcome {
    loop {
        if let Step::Done(outcome) = subnet.slice(canister, None) {
            subnet.route(outcome.clone());
            return outcome;
        }
    }
}

#[test]
fn memory_that_is_gone_when_a_suspended_message_ends_is_not_taken() {
    for (left, holds) in [(65_536, true), (65_535, false)] {
        let mut subnet = Subnet::with_slice(10_000);
        let canister = suspended_with(&mut subnet, GROWS, "grow");
        let before = subnet.canister(canister).program.installed().unwrap().heap_bytes();
        subnet.env.memory_available = Bytes(left);
        let outcome = to_the_end(&mut subnet, canister);
        let Some((_, status)) = &outcome.effects.ingress else { panic!() };
        assert_eq!(matches!(status, IngressStatus::Replied(_)), holds, "{status:?}");
        let after = subnet.canister(canister).program.installed().unwrap().heap_bytes();
        assert_eq!(after.0 - before.0, if holds { 65_536 } else { 0 });
    }
}

#[test]
fn a_balance_that_cannot_hold_a_payment_burns_the_rest() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"(func (export "canister_update take")
            (call $msg_cycles_accept128 (i64.const -1) (i64.const -1) (i32.const 0))
            (call $msg_reply ))"#,
    ));
    let spare = subnet.env.subnet.prepaid_execution(false).0 + 1_000;
    subnet.canister_mut(canister).balance.0 = Cycles(u128::MAX - spare);
    // The message's own execution is prepaid: there is room for that, and for a thousand cycles besides.
    let payment = 5 * spare;
    let request = cyclotron_types::message::Request {
        sender: id(9),
        receiver: canister,
        callback: cyclotron_types::ids::CallbackId(0),
        method: "take".into(),
        arg: vec![],
        payment: Cycles(payment),
        kind: cyclotron_types::message::CallKind::Guaranteed,
    };
    let Step::Done(outcome) = subnet.slice(canister, Some(Job::Message(Message::Request(request)))) else { panic!() };
    let balance = subnet.canister(canister).balance.0;
    assert_eq!(balance, Cycles::MAX);
    assert_eq!(outcome.effects.burned.0, payment - spare, "what was there, less what is there now, is burned");
}
