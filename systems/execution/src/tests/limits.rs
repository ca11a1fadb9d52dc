//! Limits and freezing: instructions, memory, cycles, run states, tasks.

use super::*;
use crate::{LowMemoryHook, Verdict};
use cyclotron_types::canister::RunState;
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::Seconds;

const MODULE: &str = r#"
    (global $beats (mut i32) (i32.const 0))
    (func (export "canister_update grow")
        (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size ))
        (i32.store (i32.const 0) (memory.grow (i32.load (i32.const 0))))
        (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply ))
    (func (export "canister_update sgrow")
        (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size ))
        (i64.store (i32.const 0) (call $stable64_grow (i64.load (i32.const 0))))
        (call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply ))
    (func (export "canister_update touch")
        (drop (call $stable64_grow (i64.const 1)))
        (call $stable64_write (i64.const 4000) (i64.const 0) (i64.const 200))
        (call $stable64_write (i64.const 4100) (i64.const 0) (i64.const 200))
        (call $msg_reply ))
    (func (export "canister_query qgrow") (drop (memory.grow (i32.const 100))) (call $msg_reply ))
    (func (export "canister_update spin") (loop $l (br $l)))
    (func (export "canister_update none") (call $msg_reply ))
    (func (export "canister_heartbeat") (global.set $beats (i32.add (global.get $beats) (i32.const 1))))
    (func (export "canister_global_timer") (drop (call $global_timer_set (i64.add (call $time ) (i64.const 9)))))
    (func (export "canister_on_low_wasm_memory") (global.set $beats (i32.const 100)))
    (func (export "canister_query beats")
        (i32.store (i32.const 0) (global.get $beats)) (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply ))"#;

fn error(result: Result<Vec<u8>, Reject>) -> ErrorCode {
    result.unwrap_err().error.unwrap()
}

#[test]
fn memory_grows_within_limits_and_says_why_not() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    let grow = |subnet: &mut Subnet, pages: u32| subnet.update(canister, "grow", &pages.to_le_bytes());
    assert_eq!(grow(&mut subnet, 1).unwrap(), 1u32.to_le_bytes());
    subnet.canister_mut(canister).settings.wasm_memory_limit = Bytes(3 << 16);
    assert_eq!(error(grow(&mut subnet, 2)), ErrorCode::CanisterWasmMemoryLimitExceeded);
    subnet.env.memory_available = Bytes(1 << 16);
    assert_eq!(grow(&mut subnet, 1).unwrap(), 2u32.to_le_bytes());
    subnet.canister_mut(canister).settings.wasm_memory_limit = Bytes::ZERO;
    // The subnet has no memory left: -1, and the canister may go on.
    assert_eq!(grow(&mut subnet, 2).unwrap(), (-1i32).to_le_bytes());
    let full = subnet.update(canister, "sgrow", &2u64.to_le_bytes()).unwrap();
    assert_eq!(full, (-1i64).to_le_bytes());
    // An allocation has it already.
    subnet.canister_mut(canister).settings.memory_allocation = Bytes(1 << 30);
    assert_eq!(grow(&mut subnet, 2).unwrap(), 3u32.to_le_bytes());
    assert_eq!(subnet.outcomes.last().unwrap().effects.memory_taken, 0);
    // Beyond the allowed heap no update starts.
    subnet.canister_mut(canister).settings.wasm_memory_limit = Bytes(1 << 16);
    assert_eq!(error(subnet.update(canister, "none", b"")), ErrorCode::CanisterWasmMemoryLimitExceeded);
}

#[test]
fn growing_must_not_freeze_the_canister() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    // 1 GiB for 10^9 s costs 127 T, more than there is; the canister itself is small.
    subnet.canister_mut(canister).settings.freezing_threshold = Seconds(1_000_000_000);
    let reject = subnet.update(canister, "sgrow", &(1u64 << 14).to_le_bytes()).unwrap_err();
    assert_eq!(reject.error, Some(ErrorCode::InsufficientCyclesInMemoryGrow));
    assert!(
        reject.message.contains("Canister cannot grow memory by 1073741824 bytes due to insufficient cycles. At least")
    );
    assert_eq!(subnet.update(canister, "sgrow", &1u64.to_le_bytes()).unwrap(), 0u64.to_le_bytes());
}

#[test]
fn growing_on_a_full_subnet_reserves_cycles() {
    let mut subnet = Subnet::with(|limits| {
        limits.reservation_from = Bytes(0);
        limits.subnet_memory = Bytes(4 << 30);
    });
    let canister = subnet.install(&module(MODULE));
    let reserved = subnet.canister(canister).reserved.0;
    subnet.update(canister, "sgrow", &(1u64 << 10).to_le_bytes()).unwrap();
    let after = subnet.canister(canister).reserved.0;
    assert!(after > reserved, "{after}");
    // A query in replicated mode keeps no memory and reserves nothing for it.
    subnet.update(canister, "qgrow", b"").unwrap();
    assert_eq!(subnet.canister(canister).reserved.0, after);
    subnet.canister_mut(canister).settings.reserved_cycles_limit = after;
    let code = error(subnet.update(canister, "sgrow", &(1u64 << 10).to_le_bytes()));
    assert_eq!(code, ErrorCode::ReservedCyclesLimitExceededInMemoryGrow);
}

#[test]
fn stable_pages_are_charged_once_each_and_limited() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    subnet.update(canister, "none", b"").unwrap();
    let nothing = subnet.outcomes.last().unwrap().total;
    subnet.update(canister, "touch", b"").unwrap();
    let touched = subnet.outcomes.last().unwrap().total;
    // Grow: 100 and a constant; two writes: 20 and 200 bytes and three constants each; two pages; `drop`, constants, calls.
    let expected = 100 + 2 * 220 + 2 * 1_000;
    let rest = touched.0 - nothing.0 - expected;
    assert!(rest < 60, "{rest} instructions besides");
    subnet.config().limits.stable_touched = Bytes(4_096);
    assert_eq!(error(subnet.update(canister, "touch", b"")), ErrorCode::CanisterMemoryAccessLimitExceeded);
}

#[test]
fn a_message_ends_at_its_instruction_limit_and_pays_for_all_of_it() {
    let mut subnet = Subnet::with(|limits| limits.message = InstructionLimits::unsliced(Instructions(1_000_000)));
    let canister = subnet.install(&module(MODULE));
    let before = subnet.canister(canister).balance.0;
    assert_eq!(error(subnet.update(canister, "spin", b"")), ErrorCode::CanisterInstructionLimitExceeded);
    let fee = subnet.env.subnet.fees.execution(Instructions(1_000_000), false);
    assert_eq!(before.0 - subnet.canister(canister).balance.0.0, fee.0);
}

#[test]
fn a_frozen_canister_takes_no_calls_and_runs_no_tasks() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    subnet.canister_mut(canister).settings.freezing_threshold = Seconds(u64::MAX);
    let balance = subnet.canister(canister).balance;
    let reject = subnet.update(canister, "none", b"").unwrap_err();
    assert_eq!((reject.code as u8, reject.error), (2, Some(ErrorCode::CanisterOutOfCycles)));
    assert_eq!(subnet.task(canister, SystemTask::Heartbeat).effects.verdict, Verdict::NotRun);
    assert_eq!(subnet.canister(canister).balance, balance);
}

#[test]
fn stopped_and_stopping_canisters_reject_calls() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    subnet.canister_mut(canister).run_state = RunState::Stopped;
    assert_eq!(error(subnet.update(canister, "none", b"")), ErrorCode::CanisterStopped);
    subnet.canister_mut(canister).run_state = RunState::Stopping(vec![]);
    assert_eq!(error(subnet.update(canister, "none", b"")), ErrorCode::CanisterStopping);
    assert_eq!(subnet.task(canister, SystemTask::Heartbeat).effects.verdict, Verdict::NotRun);
    let empty = subnet.create();
    assert_eq!(error(subnet.update(empty, "none", b"")), ErrorCode::CanisterWasmModuleNotFound);
}

#[test]
fn tasks_run_without_a_caller() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    assert_eq!(subnet.task(canister, SystemTask::Heartbeat).effects.verdict, Verdict::Returned);
    assert_eq!(subnet.task(canister, SystemTask::Heartbeat).effects.verdict, Verdict::Returned);
    assert_eq!(subnet.update(canister, "beats", b"").unwrap(), 2u32.to_le_bytes());
    subnet.canister_mut(canister).timer.0 = Time(3);
    subnet.task(canister, SystemTask::GlobalTimer);
    assert_eq!(subnet.canister(canister).timer.0, Time(subnet.env.time.0 + 9));
    assert!(subnet.canister(canister).contexts.contexts.is_empty());
}

#[test]
fn a_timer_task_that_was_cleared_or_moved_while_it_waited_does_not_run() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    for at in [Time::ZERO, Time(subnet.env.time.0 + 1)] {
        subnet.canister_mut(canister).timer.0 = at;
        assert_eq!(subnet.task(canister, SystemTask::GlobalTimer).effects.verdict, Verdict::NotRun);
        assert_eq!(subnet.canister(canister).timer.0, at);
    }
}

#[test]
fn the_low_memory_hook_runs_only_while_it_is_due_and_waits_while_the_canister_is_frozen() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    assert_eq!(subnet.task(canister, SystemTask::OnLowWasmMemory).effects.verdict, Verdict::NotRun);
    subnet.canister_mut(canister).low_memory = LowMemoryHook::Ready;
    subnet.canister_mut(canister).settings.freezing_threshold = Seconds(u64::MAX);
    assert_eq!(subnet.task(canister, SystemTask::OnLowWasmMemory).effects.verdict, Verdict::NotRun);
    assert_eq!(subnet.canister(canister).low_memory, LowMemoryHook::Ready);
    subnet.canister_mut(canister).settings.freezing_threshold = Seconds(0);
    assert_eq!(subnet.task(canister, SystemTask::OnLowWasmMemory).effects.verdict, Verdict::Returned);
}

#[test]
fn the_low_memory_hook_becomes_due_once_until_there_is_memory_again() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(MODULE));
    let settings = &mut subnet.canister_mut(canister).settings;
    (settings.wasm_memory_limit, settings.wasm_memory_threshold) = (Bytes(10 << 16), Bytes(8 << 16));
    let grow = |subnet: &mut Subnet, pages: u32| {
        subnet.update(canister, "grow", &pages.to_le_bytes()).unwrap();
        subnet.outcomes.last().unwrap().effects.low_memory
    };
    assert!(!grow(&mut subnet, 1));
    assert!(grow(&mut subnet, 1));
    assert_eq!(subnet.canister(canister).low_memory, LowMemoryHook::Ready);
    assert!(!grow(&mut subnet, 1));
    subnet.task(canister, SystemTask::OnLowWasmMemory);
    assert_eq!(subnet.canister(canister).low_memory, LowMemoryHook::Executed);
    assert_eq!(subnet.update(canister, "beats", b"").unwrap(), 100u32.to_le_bytes());
    assert!(!grow(&mut subnet, 1));
    subnet.canister_mut(canister).settings.wasm_memory_threshold = Bytes::ZERO;
    assert!(!grow(&mut subnet, 1));
    assert_eq!(subnet.canister(canister).low_memory, LowMemoryHook::NotSatisfied);
}

#[test]
fn an_aborted_task_whose_module_is_gone_gives_back_what_was_prepaid() {
    let mut subnet = Subnet::with_slice(1);
    let canister = subnet.install(&module(MODULE));
    let before = subnet.canister(canister).balance;
    let step = subnet.slice(canister, Some(Job::Task(SystemTask::Heartbeat)));
    assert!(matches!(step, Step::Suspended { .. }));
    subnet.abort(canister);
    subnet.borrow(canister, |_, canister| assert!(crate::management::uninstall_exhausted(canister).is_empty()));
    let Step::Done(outcome) = subnet.slice(canister, None) else { panic!() };
    subnet.route(outcome);
    assert_eq!(subnet.canister(canister).balance, before);
}

#[test]
fn reading_stable_memory_counts_towards_what_a_message_may_touch() {
    let mut subnet = Subnet::with(|limits| {
        limits.stable_touched = Bytes(8 << 12);
        limits.stable_touched_query = Bytes(4 << 12);
    });
    let canister = subnet.install(&module(
        r#"(func (export "canister_init") (drop (call $stable64_grow (i64.const 10))))
        (func $read
            (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size ))
            (call $stable64_read (i64.const 8) (i64.const 4095) (i64.load (i32.const 0)))
            (call $msg_reply ))
        (func (export "canister_update read") (call $read))
        (func (export "canister_query qread") (call $read))
        (memory (export "memory") 4)"#,
    ));
    let mut read = |method, bytes: u64| subnet.update(canister, method, &bytes.to_le_bytes());
    // From the last byte of the first page on.
    read("read", (7 << 12) + 1).unwrap();
    assert_eq!(error(read("read", (7 << 12) + 2)), ErrorCode::CanisterMemoryAccessLimitExceeded);
    read("qread", (3 << 12) + 1).unwrap();
    assert_eq!(error(read("qread", (3 << 12) + 2)), ErrorCode::CanisterMemoryAccessLimitExceeded);
}
