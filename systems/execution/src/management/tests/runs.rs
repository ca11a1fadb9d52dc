//! Run states: the transitions of abstract-behavior, row by row.

use super::*;
use crate::Paused;
use cyclotron_types::canister::{CallContext, CallOrigin, RunState, StopWaiter};
use cyclotron_types::ids::CallContextId;
use cyclotron_types::message::SystemTask;
use cyclotron_types::units::Instructions;

fn state_name(state: &RunState) -> String {
    match state {
        RunState::Running => "running".into(),
        RunState::Stopping(waiters) => format!("stopping {}", waiters.len()),
        RunState::Stopped => "stopped".into(),
    }
}

fn context(origin: CallOrigin, outstanding: u32, available: u128, responded: bool) -> CallContext {
    CallContext {
        origin,
        responded,
        available: Cycles(available),
        outstanding,
        instructions: Instructions::ZERO,
        created: START,
        deleted: false,
    }
}

fn waiter() -> StopWaiter {
    StopWaiter::Ingress { id: MessageId([200; 32]), since: START }
}

/// Brings a canister into a state, with or without an open call context, executes a method, and tells: the state after, the outcome,
/// the version's growth.
fn transition(from: RunState, open: bool, method: &str) -> String {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    if open {
        open_context(&mut subnet, id);
    }
    subnet.canister(id).run_state = from;
    let call = subnet.ingress(user(1), method, candid::encode_one(named(id)).unwrap());
    let outcome = match subnet.step(call) {
        ManagementStep::Done(effects) => {
            let others = effects.answers.len() - 1;
            match &effects.answers[0] {
                Answer::Ingress(_, IngressStatus::Replied(_)) => format!("replied, {others} others"),
                Answer::Ingress(_, IngressStatus::Rejected(reject)) => {
                    format!("{:?}, {others} others", reject.error.unwrap())
                }
                other => panic!("{other:?}"),
            }
        }
        ManagementStep::Waiting(effects) => format!("waits, {} answered", effects.answers.len()),
        other => panic!("{other:?}"),
    };
    match subnet.fleet.canisters.get(&id) {
        Some(canister) => format!("{}; {outcome}; +{}", state_name(&canister.run_state), canister.version.0),
        None => format!("gone; {outcome}"),
    }
}

#[test]
fn transitions_are_those_of_the_specification() {
    use RunState::{Running, Stopped, Stopping};
    let table = [
        (Running, true, "start_canister", "running; replied, 0 others; +1"),
        (Stopped, false, "start_canister", "running; replied, 0 others; +1"),
        (Stopping(vec![waiter(), waiter()]), true, "start_canister", "running; replied, 2 others; +1"),
        (Running, true, "stop_canister", "stopping 1; waits, 0 answered; +1"),
        (Running, false, "stop_canister", "stopped; waits, 1 answered; +2"),
        (Stopping(vec![waiter()]), true, "stop_canister", "stopping 2; waits, 0 answered; +1"),
        (Stopping(vec![waiter()]), false, "stop_canister", "stopped; waits, 2 answered; +2"),
        (Stopped, false, "stop_canister", "stopped; replied, 0 others; +1"),
        (Running, false, "delete_canister", "running; CanisterNotStopped, 0 others; +0"),
        (Stopping(vec![]), true, "delete_canister", "stopping 0; CanisterNotStopped, 0 others; +0"),
        (Stopped, false, "delete_canister", "gone; replied, 0 others"),
        (Running, true, "uninstall_code", "running; replied, 0 others; +1"),
        (Stopping(vec![waiter()]), true, "uninstall_code", "stopping 1; replied, 0 others; +1"),
        (Stopping(vec![waiter()]), false, "uninstall_code", "stopped; replied, 1 others; +2"),
        (Stopped, false, "uninstall_code", "stopped; replied, 0 others; +1"),
        (Running, false, "canister_status", "running; replied, 0 others; +0"),
    ];
    for (from, open, method, expected) in table {
        let start = state_name(&from);
        assert_eq!(transition(from, open, method), expected, "{method} when {start}, open: {open}");
    }
}

/// A task that has made a call.
fn open_context(subnet: &mut Subnet, id: CanisterId) {
    let task = context(CallOrigin::Task(SystemTask::Heartbeat), 1, 0, true);
    subnet.canister(id).contexts.contexts.insert(CallContextId(70), task);
}

#[test]
fn a_stopping_canister_stops_when_nothing_is_open_and_answers_all_who_asked() {
    let mut subnet = Subnet::new();
    let (id, caller) = (subnet.create(), subnet.create());
    subnet.canister(id).controllers.0.insert(caller.principal());
    open_context(&mut subnet, id);
    let arg = candid::encode_one(named(id)).unwrap();
    let by_user = subnet.ingress(user(1), "stop_canister", arg.clone());
    assert!(matches!(subnet.step(by_user), ManagementStep::Waiting(_)));
    assert!(matches!(subnet.step(Subnet::request(caller, "stop_canister", arg, 11)), ManagementStep::Waiting(_)));

    let mut canister = subnet.fleet.get(id).unwrap();
    assert_eq!(finish_stopping(&mut canister), []);
    canister.contexts.contexts.clear();
    let answers = finish_stopping(&mut canister);
    assert_eq!((answers.len(), canister.run_state.clone(), canister.version.0), (2, RunState::Stopped, 3));
    assert!(matches!(&answers[0], Answer::Ingress(_, IngressStatus::Replied(_))));
    let Answer::Canister(response) = &answers[1] else { panic!("the canister is answered second") };
    assert_eq!((response.originator, response.refund), (caller, Cycles(11)));
    assert_eq!(finish_stopping(&mut canister), []);
}

#[test]
fn a_stop_request_expires_after_five_minutes_and_the_canister_keeps_stopping() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let later = Time(START.0 + 1);
    let second = StopWaiter::Canister {
        caller: id,
        callback: CallbackId(1),
        payment: Cycles(6),
        kind: CallKind::Guaranteed,
        since: later,
    };
    subnet.canister(id).run_state = RunState::Stopping(vec![waiter(), second]);
    let mut canister = subnet.fleet.get(id).unwrap();
    let end = Time(START.0 + 300_000_000_000);
    assert_eq!(expire_stopping(&mut canister, Time(end.0 - 1)), []);
    let answers = expire_stopping(&mut canister, end);
    let Answer::Ingress(_, IngressStatus::Rejected(reject)) = &answers[0] else { panic!("a reject") };
    assert_eq!((answers.len(), reject.error), (1, Some(ErrorCode::StopCanisterRequestTimeout)));
    assert_eq!(reject.code, cyclotron_types::reject::RejectCode::SysTransient);
    assert_eq!(state_name(canister.run_state), "stopping 1");
    let answers = expire_stopping(&mut canister, Time(end.0 + 1));
    assert!(matches!(&answers[0], Answer::Canister(response) if response.refund == Cycles(6)));
    assert_eq!(state_name(canister.run_state), "stopping 0");
}

#[test]
fn a_start_cancels_the_stop_and_returns_its_payment() {
    let mut subnet = Subnet::new();
    let (id, caller) = (subnet.create(), subnet.create());
    subnet.canister(id).controllers.0.insert(caller.principal());
    open_context(&mut subnet, id);
    let stop = Subnet::request(caller, "stop_canister", candid::encode_one(named(id)).unwrap(), 11);
    assert!(matches!(subnet.step(stop), ManagementStep::Waiting(_)));
    let answered = subnet.user_call(user(1), "start_canister", &named(id));
    let [Answer::Canister(response)] = &answered.others[..] else { panic!("one other answer") };
    assert_eq!((response.originator, response.refund), (caller, Cycles(11)));
    let ResponsePayload::Reject(reject) = &response.payload else { panic!("a reject") };
    assert_eq!(reject.error, Some(ErrorCode::CanisterStoppingCancelled));
}

#[test]
fn uninstalling_rejects_what_was_not_answered_and_keeps_what_must_come_back() {
    let mut subnet = Subnet::new();
    let (id, caller) = (subnet.create(), CanisterId::from_u64(60));
    let from_canister = CallOrigin::Canister {
        caller,
        callback: CallbackId(3),
        kind: CallKind::BestEffort { deadline: Time(9) },
        method: "go".into(),
    };
    let from_user = CallOrigin::Ingress { id: MessageId([8; 32]), sender: user(4), method: "go".into() };
    let task = CallOrigin::Task(SystemTask::GlobalTimer);
    let canister = subnet.canister(id);
    let contexts = [
        context(from_user.clone(), 1, 0, false),
        context(from_canister, 1, 77, false),
        context(task, 2, 0, false),
        context(from_user, 1, 0, true),
    ];
    for (number, context) in contexts.into_iter().enumerate() {
        canister.contexts.contexts.insert(CallContextId(number as u64), context);
    }
    canister.certified_data.0 = vec![1; 32];
    canister.timer.0 = Time(5);
    canister.chunks.0.insert([0; 32], vec![1]);
    let args = ic::UninstallCodeArgs { canister_id: id.principal(), sender_canister_version: Some(3) };
    let answered = subnet.user_call(user(1), "uninstall_code", &args);
    let [Answer::Ingress(message, IngressStatus::Rejected(reject)), Answer::Canister(response)] = &answered.others[..]
    else {
        panic!("two others: {:?}", answered.others)
    };
    assert_eq!((*message, reject.code), (MessageId([8; 32]), cyclotron_types::reject::RejectCode::CanisterReject));
    assert_eq!((response.originator, response.respondent, response.refund), (caller, id, Cycles(77)));
    let canister = subnet.canister(id);
    assert_eq!(canister.contexts.contexts.len(), 4);
    assert!(canister.contexts.contexts.values().all(|c| c.deleted && c.responded && c.available == Cycles::ZERO));
    assert_eq!((canister.certified_data.0.len(), canister.timer.0, canister.chunks.0.len()), (0, Time(0), 0));
    let last = canister.history.changes.back().unwrap();
    assert_eq!((last.version, &last.details), (1, &cyclotron_types::canister::ChangeDetails::CodeUninstall));
    // A user has no version, whatever it says.
    assert_eq!(last.origin, cyclotron_types::canister::ChangeOrigin::User(user(1)));
}

#[test]
fn a_canister_is_not_deleted_by_itself_or_with_messages_waiting() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    subnet.canister(id).run_state = RunState::Stopped;
    subnet.canister(id).controllers.0.insert(id.principal());
    let own = subnet.canister_call(id, "delete_canister", &named(id), 0);
    assert_eq!(own.error(), ErrorCode::CanisterInvalidController);
    assert!(own.result.unwrap_err().message.contains("cannot delete itself"));
    subnet.fleet.with_messages.insert(id);
    assert_eq!(subnet.user_call(user(1), "delete_canister", &named(id)).error(), ErrorCode::CanisterQueueNotEmpty);
    let status: ic::CanisterStatusResult =
        candid::decode_one(subnet.user_call(user(1), "canister_status", &named(id)).reply()).unwrap();
    assert_eq!((status.status, status.ready_for_migration), (ic::CanisterStatusType::Stopped, false));
    subnet.fleet.with_messages.clear();
    let status: ic::CanisterStatusResult =
        candid::decode_one(subnet.user_call(user(1), "canister_status", &named(id)).reply()).unwrap();
    assert!(status.ready_for_migration);
}

#[test]
fn what_would_disturb_a_suspended_message_waits_a_round() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let pending = install::suspended(&mut subnet, id);
    assert!(matches!(subnet.canister(id).paused, Paused::Installing(_)));
    for method in ["update_settings", "uninstall_code", "stop_canister", "start_canister", "delete_canister"] {
        let arg = match method {
            "update_settings" => candid::encode_one(update(id, ic::CanisterSettings::default())).unwrap(),
            _ => candid::encode_one(named(id)).unwrap(),
        };
        let call = subnet.ingress(user(1), method, arg);
        assert!(matches!(subnet.step(call), ManagementStep::NextRound(call) if !call.deferred), "{method}");
    }
    assert!(subnet.user_call(user(1), "canister_status", &named(id)).result.is_ok());
    assert!(subnet.canister_call(id, "deposit_cycles", &named(id), 5).result.is_ok());
    // Nor does a stop end before the message does.
    subnet.canister(id).run_state = RunState::Stopping(vec![waiter()]);
    assert_eq!(finish_stopping(&mut subnet.fleet.get(id).unwrap()), []);
    assert_eq!(pending.canister(), id);
}

#[test]
fn random_bytes_come_a_round_later_and_never_twice() {
    let mut subnet = Subnet::new();
    let caller = subnet.create();
    let mut given = BTreeSet::new();
    for _ in 0..3 {
        let call = Subnet::request(caller, "raw_rand", candid::encode_args(()).unwrap(), 1);
        let ManagementStep::NextRound(call) = subnet.step(call) else { panic!("not in the round of the call") };
        assert!(call.deferred);
        let answered = subnet.run(call);
        let bytes: serde_bytes::ByteBuf = candid::decode_one(answered.reply()).unwrap();
        assert_eq!((bytes.len(), answered.refund), (32, Cycles(1)));
        assert!(given.insert(bytes));
    }
}

#[test]
fn subnet_info_tells_versions_of_this_subnet_only() {
    let mut subnet = Subnet::new();
    let caller = subnet.create();
    let subnet_id = subnet.env.subnet.subnet;
    let answered = subnet.canister_call(caller, "subnet_info", &ic::SubnetInfoArgs { subnet_id }, 0);
    let info: ic::SubnetInfoResult = candid::decode_one(answered.reply()).unwrap();
    assert_eq!((info.replica_version.as_str(), info.registry_version), ("v1", 3));
    let other = ic::SubnetInfoArgs { subnet_id: user(1) };
    assert_eq!(subnet.canister_call(caller, "subnet_info", &other, 0).error(), ErrorCode::SubnetNotFound);
}

#[test]
fn an_ingress_message_that_expired_while_it_waited_does_nothing() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let mut call = subnet.ingress(user(1), "stop_canister", candid::encode_one(named(id)).unwrap());
    call.expiry = Time(subnet.env.time.0 - 1);
    let version = subnet.canister(id).version;
    assert_eq!(subnet.run(call).error(), ErrorCode::IngressMessageTimeout);
    let canister = subnet.canister(id);
    assert_eq!((&canister.run_state, canister.version), (&RunState::Running, version));
}

#[test]
fn a_stopping_canister_that_runs_out_of_cycles_is_stopped_and_says_so() {
    let mut subnet = Subnet::new();
    let id = subnet.create();
    let canister = subnet.canister(id);
    let origin = CallOrigin::Ingress { id: MessageId([201; 32]), sender: user(1), method: "m".into() };
    canister.contexts.contexts.insert(CallContextId(0), context(origin, 0, 0, false));
    canister.run_state = RunState::Stopping(vec![waiter()]);
    canister.balance.0 = Cycles::ZERO;
    canister.settings.compute_allocation = 1;
    subnet.env.time = START.plus(cyclotron_types::units::Seconds(1_000));
    let answered = subnet.user_call(user(1), "canister_status", &named(id));
    assert_eq!(subnet.canister(id).run_state, RunState::Stopped);
    let replied = |number| {
        let id = MessageId([number; 32]);
        answered.others.iter().any(|a| matches!(a, Answer::Ingress(to, IngressStatus::Replied(_)) if *to == id))
    };
    assert!(replied(200) && !replied(201), "{:?}", answered.others);
}
