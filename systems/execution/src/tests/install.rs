//! Code put in: hooks, transactions, what persists.

use super::*;
use cyclotron_types::reject::ErrorCode;

const KEEP: Mode = Mode::Upgrade { skip_pre_upgrade: false, keep_heap: true };
const UPGRADE: Mode = Mode::Upgrade { skip_pre_upgrade: false, keep_heap: false };

/// Counts in a global and in the heap; saves to stable memory before an upgrade and loads after.
const COUNTER: &str = r#"
    (global $start (mut i32) (i32.const 0))
    (start $begin)
    (func $begin (global.set $start (i32.const 10)))
    (func (export "canister_init")
        (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size ))
        (i64.store (i32.const 8) (call $canister_version ))
        (drop (call $global_timer_set (i64.const 5)))
        (call $certified_data_set (i32.const 0) (i32.const 2)))
    (func (export "canister_pre_upgrade")
        (i32.store8 (i32.const 40) (i32.const 9))
        (if (i64.eqz (call $stable64_size )) (then (drop (call $stable64_grow (i64.const 1)))))
        (call $stable64_write (i64.const 0) (i64.const 0) (i64.const 1)))
    (func (export "canister_post_upgrade")
        (if (call $msg_arg_data_size ) (then (i32.store (i32.const 4) (i32.const 1)) (call $stable64_write (i64.const 0) (i64.const 4) (i64.const 1)) unreachable))
        (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 1))
        (i64.store (i32.const 8) (call $canister_version )))
    (func (export "canister_update inc")
        (i32.store8 (i32.const 0) (i32.add (i32.const 1) (i32.load8_u (i32.const 0)))) (call $msg_reply ))
    (func (export "canister_query get")
        (i32.store8 (i32.const 1) (global.get $start))
        (call $msg_reply_data_append (i32.const 0) (i32.const 2))
        (call $msg_reply_data_append (i32.const 8) (i32.const 1))
        (call $msg_reply_data_append (i32.const 40) (i32.const 1))
        (call $msg_reply ))"#;

#[test]
fn start_and_init_run_and_their_effects_hold() {
    for slice in [1_000_000, 1] {
        let mut subnet = Subnet::with_slice(slice);
        let canister = subnet.create();
        let outcome = subnet.put(canister, &module(COUNTER), Mode::Fresh, &[33]);
        outcome.result.unwrap();
        let bundle = subnet.canister(canister);
        assert_eq!((bundle.timer.0, &bundle.certified_data.0[..], bundle.version.0), (Time(5), &[33, 0][..], 1));
        assert_eq!(subnet.update(canister, "get", b"").unwrap(), [33, 10, 1, 0]);
        assert_eq!(slice == 1, subnet.suspensions > 3);
    }
}

#[test]
fn an_upgrade_keeps_stable_memory_and_drops_the_heap() {
    for slice in [1_000_000, 1] {
        let mut subnet = Subnet::with_slice(slice);
        let canister = subnet.create();
        subnet.put(canister, &module(COUNTER), Mode::Fresh, &[33]).result.unwrap();
        subnet.update(canister, "inc", b"").unwrap();
        let version = subnet.canister(canister).version.0;
        subnet.put(canister, &module(COUNTER), UPGRADE, b"").result.unwrap();
        let get = subnet.update(canister, "get", b"").unwrap();
        assert_eq!(get, [34, 10, version as u8 + 1, 0]);
        let bundle = subnet.canister(canister);
        assert_eq!((bundle.timer.0, &bundle.certified_data.0[..]), (Time::ZERO, &[33, 0][..]));
        assert_eq!(bundle.program.installed().unwrap().stable_bytes().0, 65_536);
    }
}

#[test]
fn a_kept_heap_carries_on_with_new_globals() {
    let mut subnet = Subnet::new();
    let canister = subnet.create();
    subnet.put(canister, &module(COUNTER), Mode::Fresh, &[33]).result.unwrap();
    subnet.put(canister, &module(COUNTER), KEEP, b"").result.unwrap();
    // What `canister_pre_upgrade` wrote to the heap (9) is there too.
    let get = subnet.update(canister, "get", b"").unwrap();
    assert_eq!((get[0], get[1], get[3]), (33, 10, 9));
}

#[test]
fn a_failed_upgrade_leaves_everything_as_it_was() {
    for (slice, mode) in [(1_000_000, UPGRADE), (1, UPGRADE), (1_000_000, KEEP), (1, KEEP)] {
        let mut subnet = Subnet::with_slice(slice);
        let canister = subnet.create();
        subnet.put(canister, &module(COUNTER), Mode::Fresh, &[33]).result.unwrap();
        subnet.put(canister, &module(COUNTER), UPGRADE, b"").result.unwrap();
        subnet.update(canister, "inc", b"").unwrap();
        let before = subnet.update(canister, "get", b"").unwrap();
        let version = subnet.canister(canister).version;
        // `canister_pre_upgrade` writes 34 to stable memory, `canister_post_upgrade` 1, and then it traps.
        let outcome = subnet.put(canister, &module(COUNTER), mode, b"x");
        assert_eq!(outcome.result.unwrap_err().code(), ErrorCode::CanisterTrapped);
        assert_eq!(subnet.canister(canister).version, version);
        assert_eq!(subnet.update(canister, "get", b"").unwrap(), before);
        let mut byte = [0];
        subnet.canister(canister).program.installed().unwrap().stable().unwrap().read(0, &mut byte).unwrap();
        assert_eq!(byte, [33], "stable memory is as the last upgrade left it");
        assert!(subnet.log(canister).last().unwrap().starts_with("[TRAP]: unreachable"));
        subnet.update(canister, "inc", b"").unwrap();
        subnet.put(canister, &module(COUNTER), mode, b"").result.unwrap();
        assert_eq!(subnet.update(canister, "get", b"").unwrap()[0], 35);
    }
}

#[test]
fn reinstalling_starts_anew() {
    let mut subnet = Subnet::new();
    let canister = subnet.create();
    subnet.put(canister, &module(COUNTER), Mode::Fresh, &[33]).result.unwrap();
    subnet.put(canister, &module(COUNTER), UPGRADE, b"").result.unwrap();
    subnet.put(canister, &module(COUNTER), Mode::Fresh, &[7]).result.unwrap();
    assert_eq!(subnet.canister(canister).program.installed().unwrap().stable_bytes(), Bytes::ZERO);
    assert_eq!(subnet.update(canister, "get", b"").unwrap()[0], 7);
}

#[test]
fn all_hooks_share_one_limit_and_compilation_counts() {
    // Every hook spins as often as the argument says; an upgrade runs two of them.
    let text = module(
        r#"(func $spin (local $n i64)
            (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (i32.const 8))
            (call $spin_for (i64.load (i32.const 0))))
        (func $spin_for (param $n i64)
            (loop $again
                (local.set $n (i64.sub (local.get $n) (i64.const 1)))
                (br_if $again (i64.gt_s (local.get $n) (i64.const 0)))))
        (func (export "canister_init") (call $spin))
        (func (export "canister_pre_upgrade") (call $spin_for (i64.const 100000)))
        (func (export "canister_post_upgrade") (call $spin))"#,
    );
    let mut subnet = Subnet::new();
    let canister = subnet.create();
    let arg = 100_000u64.to_le_bytes();
    let one = subnet.put(canister, &text, Mode::Fresh, &arg);
    one.result.unwrap();
    let two = subnet.put(canister, &text, UPGRADE, &arg);
    two.result.unwrap();
    assert!(two.total.0.abs_diff(2 * one.total.0) < 10_000, "{} {}", one.total, two.total);
    // With room for one and a half, each hook alone fits.
    let limit = Instructions(one.total.0 * 3 / 2);
    Arc::make_mut(&mut subnet.env.subnet).limits.install = InstructionLimits::unsliced(limit);
    subnet.put(canister, &text, Mode::Fresh, &arg).result.unwrap();
    let outcome = subnet.put(canister, &text, UPGRADE, &arg);
    assert_eq!(outcome.result.unwrap_err().code(), ErrorCode::CanisterInstructionLimitExceeded);
    assert_eq!(outcome.total, limit);
    // Compilation leaves just enough, or too little (changed pages are charged last and as far as there is room), or nothing.
    let room = Instructions(limit.0 - one.total.0);
    let outcome = subnet.put_after(canister, &text, Mode::Fresh, &arg, room);
    outcome.result.unwrap();
    assert_eq!(outcome.total, limit);
    for used in [Instructions(room.0 + 10_000), limit, Instructions(limit.0 + 1)] {
        let outcome = subnet.put_after(canister, &text, Mode::Fresh, &arg, used);
        assert_eq!(outcome.result.unwrap_err().code(), ErrorCode::CanisterInstructionLimitExceeded);
        assert_eq!(outcome.total, limit);
    }
}

#[test]
fn a_query_sees_the_old_code_while_new_code_is_put_in() {
    let mut subnet = Subnet::with_slice(1);
    let canister = subnet.create();
    subnet.put(canister, &module(COUNTER), Mode::Fresh, &[33]).result.unwrap();
    subnet.put(canister, &module(COUNTER), UPGRADE, b"").result.unwrap();
    subnet.update(canister, "inc", b"").unwrap();
    for mode in [UPGRADE, KEEP] {
        let install = Install {
            mode,
            module: engine().compile(&wat::parse_str(module(COUNTER)).unwrap()).unwrap(),
            module_hash: [2; 32],
            module_bytes: Bytes(1),
            caller: user(),
            arg: vec![],
            limit: Instructions(1_000_000),
            used: Instructions::ZERO,
            held: Cycles::ZERO,
        };
        let get = || crate::query::QueryCall { method: "get".into(), ..Default::default() };
        let expected = subnet.view(canister, |env, view| crate::query::query(env, view, get())).unwrap();
        let mut bundle = subnet.canisters.remove(&canister).unwrap();
        let mut step = start_install(&subnet.env, &mut bundle.borrow(canister), install);
        let mut slices = 0;
        while let InstallStep::Suspended { .. } = step {
            slices += 1;
            let mut canister = bundle.borrow(canister);
            let env = Arc::new(subnet.env.clone());
            let seen = crate::query::query(&env, &publish(&mut canister), get()).unwrap();
            assert_eq!(seen, expected, "slice {slices}, {mode:?}");
            if slices == 4 {
                // Once, everything starts over.
                abort(&mut canister);
            }
            step = resume_install(&subnet.env, &mut canister);
        }
        let InstallStep::Done(outcome) = step else { panic!() };
        outcome.result.unwrap();
        assert!(slices > 8, "{slices}");
        subnet.canisters.insert(canister, bundle);
    }
}
