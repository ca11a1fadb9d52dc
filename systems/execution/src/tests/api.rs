//! The System API, function by function.

use super::*;
use crate::system_api::{Entry, may_call};
use cyclotron_types::imports::{IMPORTS, ImportSupport};
use expect_test::expect;

/// Answers with the caller, the argument, and its own name.
const ECHO: &str = r#"
    (func (export "canister_update echo")
        (call $msg_caller_copy (i32.const 0) (i32.const 0) (call $msg_caller_size ))
        (call $msg_reply_data_append (i32.const 0) (call $msg_caller_size ))
        (call $msg_arg_data_copy (i32.const 100) (i32.const 0) (call $msg_arg_data_size ))
        (call $msg_reply_data_append (i32.const 100) (call $msg_arg_data_size ))
        (call $canister_self_copy (i32.const 200) (i32.const 0) (call $canister_self_size ))
        (call $msg_reply_data_append (i32.const 200) (call $canister_self_size ))
        (call $msg_reply ))"#;

#[test]
fn a_call_sees_its_caller_its_argument_and_itself() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(ECHO));
    let reply = subnet.update(canister, "echo", b"hello").unwrap();
    assert_eq!(reply, [user().as_slice(), b"hello", canister.as_slice()].concat());
    assert_eq!(subnet.canister(canister).version.0, 2);
}

/// A call of every import with zeros for arguments, from every entry point, traps with the refusal exactly where the table says.
#[test]
fn each_import_is_refused_exactly_where_the_table_says() {
    for row in IMPORTS {
        let args: String = row
            .params
            .iter()
            .map(|t| {
                let wide = t.is_64(cyclotron_types::imports::MemoryKind::Wasm32);
                if wide { "(i64.const 0) " } else { "(i32.const 0) " }
            })
            .collect();
        let drop = if row.result.is_some() { "drop" } else { "" };
        let call = format!("(call ${} {args}) {drop}", row.name);
        for (entry, export) in [
            (Entry::Update, "canister_update go"),
            (Entry::ReplicatedQuery, "canister_query go"),
            (Entry::Heartbeat, "canister_heartbeat"),
            (Entry::GlobalTimer, "canister_global_timer"),
            (Entry::Init, "canister_init"),
        ] {
            let refused = check_refusal(entry, &format!("(func (export \"{export}\") {call})"));
            let allowed = may_call(entry, row.import) && row.support == ImportSupport::Built;
            let what = format!("{} from {entry:?}: {refused:?}", row.name);
            match refused {
                Some(text) if row.support == ImportSupport::NotYet => {
                    assert!(text.contains(&format!("not supported yet: {}", row.name)), "{what}");
                }
                Some(text) => {
                    let refusal = format!("\"ic0_{}\" cannot be executed in {} mode", row.name, entry.name());
                    assert_eq!(text.contains(&refusal), !allowed, "{what}");
                }
                None => assert!(allowed, "{what}"),
            }
        }
    }
}

fn check_refusal(entry: Entry, body: &str) -> Option<String> {
    let mut subnet = Subnet::new();
    if entry == Entry::Init {
        let canister = subnet.create();
        return subnet.put(canister, &module(body), Mode::Fresh, b"").result.err().map(|f| f.to_string());
    }
    let canister = subnet.install(&module(body));
    match entry {
        Entry::Heartbeat | Entry::GlobalTimer => {
            let task = if entry == Entry::Heartbeat { SystemTask::Heartbeat } else { SystemTask::GlobalTimer };
            subnet.canister_mut(canister).timer.0 = Time(1);
            subnet.task(canister, task);
            // Nobody is answered: why a task failed is in the log.
            subnet.log(canister).pop()
        }
        _ => subnet
            .update(canister, "go", b"")
            .err()
            .map(|reject| reject.message)
            .filter(|m| !m.contains("did not reply")),
    }
}

#[test]
fn bounds_of_the_heap_and_of_blobs_are_held_to() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"
        (func (export "canister_update dst") (call $msg_caller_copy (i32.const 65530) (i32.const 0) (i32.const 29)))
        (func (export "canister_update offset") (call $msg_caller_copy (i32.const 0) (i32.const 1) (i32.const 29)))
        (func (export "canister_update huge") (call $msg_caller_copy (i32.const 0) (i32.const -1) (i32.const -1)))
        (func (export "canister_update src") (call $msg_reply_data_append (i32.const -1) (i32.const 2)))
        (func (export "canister_update utf8") (i32.store8 (i32.const 0) (i32.const 255)) (call $msg_reject (i32.const 0) (i32.const 1)))
        (func (export "canister_update twice") (call $msg_reply ) (call $msg_reply ))
        (func (export "canister_update long") (call $certified_data_set (i32.const 0) (i32.const 33)))
        (func (export "canister_update stable") (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 1)))
        (func (export "canister_update nothing"))"#,
    ));
    let mut said = String::new();
    for method in ["dst", "offset", "huge", "src", "utf8", "twice", "long", "stable", "nothing", "none"] {
        let reject = subnet.update(canister, method, b"").unwrap_err();
        let first = reject.message.lines().next().unwrap();
        said.push_str(&format!("{method} {:?} {first}\n", reject.error.unwrap()));
    }
    expect![[r#"
        dst CanisterContractViolation Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister violated contract: ic0.msg_caller_copy: src=65530 + length=29 exceeds the slice size=65536.
        offset CanisterContractViolation Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister violated contract: ic0.msg_caller_copy: src=1 + length=29 exceeds the slice size=29.
        huge CanisterInstructionLimitExceeded Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister exceeded the limit of 1000000000 instructions for single message execution..
        src CanisterContractViolation Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister violated contract: ic0.msg_reply_data_append: src=4294967295 + length=2 exceeds the slice size=65536.
        utf8 CanisterContractViolation Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister violated contract: ic0.msg_reject: invalid UTF-8 string provided.
        twice CanisterContractViolation Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister violated contract: ic0.msg_reply: the call is already replied.
        long CanisterContractViolation Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister violated contract: ic0_certified_data_set failed because the passed data must be no larger than 32 bytes. Found 33 bytes..
        stable CanisterTrapped Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister trapped: stable memory out of bounds
        nothing CanisterDidNotReply Canister rrkah-fqaaa-aaaaa-aaaaq-cai did not reply to the call
        none CanisterMethodNotFound Error from Canister rrkah-fqaaa-aaaaa-aaaaq-cai: Canister has no update method 'none'..
    "#]]
    .assert_eq(&said);
}

/// A trap undoes every kind of effect at once, and only the charge and the log remain.
#[test]
fn a_trap_undoes_everything_but_the_charge_and_the_log() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"
        (global $g (mut i32) (i32.const 5))
        (table 1 funcref)
        (func $do
            (i32.store (i32.const 8) (i32.const 7))
            (global.set $g (i32.const 6))
            (drop (memory.grow (i32.const 1)))
            (drop (call $stable64_grow (i64.const 2)))
            (call $stable64_write (i64.const 10) (i64.const 8) (i64.const 4))
            (call $certified_data_set (i32.const 8) (i32.const 4))
            (drop (call $global_timer_set (i64.const 77)))
            (call $debug_print (i32.const 8) (i32.const 1))
            (call $cycles_burn128 (i64.const 0) (i64.const 1000000) (i32.const 64))
            (call $call_new (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
            (drop (call $call_perform ))
            (call $msg_reply ))
        (func (export "canister_update trap") (call $do) unreachable)
        (func (export "canister_update look")
            (i32.store (i32.const 100) (i32.load (i32.const 8)))
            (i32.store (i32.const 104) (global.get $g))
            (i32.store (i32.const 108) (memory.size))
            (i64.store (i32.const 112) (call $stable64_size ))
            (call $msg_reply_data_append (i32.const 100) (i32.const 20))
            (call $msg_reply ))"#,
    ));
    let before = subnet.canister(canister).balance.0;
    let (version, burned) = (subnet.canister(canister).version, subnet.burned);
    let reject = subnet.update(canister, "trap", b"").unwrap_err();
    assert_eq!(reject.error, Some(cyclotron_types::reject::ErrorCode::CanisterTrapped));
    let bundle = subnet.canister(canister);
    assert_eq!(bundle.version, version);
    assert_eq!((bundle.timer.0, bundle.certified_data.0.len()), (Time::ZERO, 0));
    assert!(bundle.contexts.contexts.is_empty() && bundle.contexts.callbacks.is_empty());
    let outcome = subnet.outcomes.last().unwrap();
    let fee = subnet.env.subnet.fees.execution(outcome.total, false);
    assert_eq!(before.0 - subnet.canister(canister).balance.0.0, fee.0);
    assert_eq!(subnet.burned.0 - burned.0, fee.0);
    // Two heap pages were changed (one of them by `cycles_burn128`'s answer: the same page) and one stable page.
    assert!(outcome.total.0 > 2_000, "{}", outcome.total);
    let log = subnet.log(canister);
    assert_eq!(log[0], "\u{7}");
    assert!(log[1].starts_with("[TRAP]: unreachable"), "{}", log[1]);
    let looked = subnet.update(canister, "look", b"").unwrap();
    assert_eq!(
        looked,
        [&0u32.to_le_bytes()[..], &5u32.to_le_bytes(), &1u32.to_le_bytes(), &0u64.to_le_bytes()].concat()
    );
}

#[test]
fn what_a_message_writes_holds_when_it_returns() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"
        (func (export "canister_update set")
            (i64.store (i32.const 0) (i64.const 0x0807060504030201))
            (drop (call $stable64_grow (i64.const 1)))
            (call $stable64_write (i64.const 65528) (i64.const 0) (i64.const 8))
            (call $certified_data_set (i32.const 0) (i32.const 8))
            (if (i64.ne (call $global_timer_set (i64.const 77)) (i64.const 0)) (then unreachable))
            (if (i64.ne (call $global_timer_set (i64.const 78)) (i64.const 77)) (then unreachable))
            (call $msg_reply ))
        (func (export "canister_query get")
            (call $stable64_read (i64.const 16) (i64.const 65528) (i64.const 8))
            (call $msg_reply_data_append (i32.const 16) (i32.const 8))
            (call $msg_reply ))"#,
    ));
    subnet.update(canister, "set", b"").unwrap();
    let bundle = subnet.canister(canister);
    assert_eq!((bundle.timer.0, &bundle.certified_data.0[..]), (Time(78), &[1, 2, 3, 4, 5, 6, 7, 8][..]));
    assert_eq!(subnet.outcomes.last().unwrap().effects.memory_taken, 65_536);
    // As an update it runs in replicated mode and keeps nothing.
    let version = subnet.canister(canister).version;
    assert_eq!(subnet.update(canister, "get", b"").unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(subnet.canister(canister).version, version);
}

#[test]
fn the_logs_of_a_canister_keep_to_their_limit() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"(func (export "canister_update p") (call $debug_print (i32.const 0) (i32.const 3000)) (call $msg_reply ))
           (func (export "canister_update q") (call $debug_print (i32.const -5) (i32.const 30)) (call $msg_reply ))"#,
    ));
    for _ in 0..3 {
        subnet.update(canister, "p", b"").unwrap();
    }
    let log = &subnet.canister(canister).log;
    assert_eq!((log.records.len(), log.bytes, log.next_index), (1, 3_040, 3));
    subnet.update(canister, "q", b"").unwrap();
    assert_eq!(subnet.log(canister)[1], "(debug_print message out of memory bounds)");
}

#[test]
fn empty_lines_fill_the_log_and_those_that_it_cannot_hold_are_dropped() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"(func (export "canister_update p")
            (local $n i32)
            (loop $l
                (call $debug_print (i32.const 0) (i32.const 0))
                (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000))))
            (call $msg_reply ))"#,
    ));
    for _ in 0..2 {
        subnet.update(canister, "p", b"").unwrap();
        let log = &subnet.canister(canister).log;
        assert_eq!((log.records.len(), log.bytes), (102, 102 * 40), "4 KiB hold 102 records of 40 bytes");
    }
}

#[test]
fn environment_variables_are_read_by_index_and_by_name() {
    let mut subnet = Subnet::new();
    let canister = subnet.install(&module(
        r#"(data (i32.const 0) "BETAGAMMA")
        (func (export "canister_update all")
            (i32.store (i32.const 100) (call $env_var_count ))
            (call $msg_reply_data_append (i32.const 100) (i32.const 1))
            (call $env_var_name_copy (i32.const 1) (i32.const 50) (i32.const 0) (call $env_var_name_size (i32.const 1)))
            (call $msg_reply_data_append (i32.const 50) (call $env_var_name_size (i32.const 1)))
            (call $env_var_value_copy (i32.const 0) (i32.const 4) (i32.const 60) (i32.const 0) (call $env_var_value_size (i32.const 0) (i32.const 4)))
            (call $msg_reply_data_append (i32.const 60) (call $env_var_value_size (i32.const 0) (i32.const 4)))
            (i32.store8 (i32.const 100) (call $env_var_name_exists (i32.const 0) (i32.const 4)))
            (i32.store8 (i32.const 101) (call $env_var_name_exists (i32.const 4) (i32.const 5)))
            (call $msg_reply_data_append (i32.const 100) (i32.const 2))
            (call $msg_reply ))
        (func (export "canister_update none") (drop (call $env_var_value_size (i32.const 4) (i32.const 5))))
        (func (export "canister_update index") (drop (call $env_var_name_size (i32.const 2))))"#,
    ));
    let variables = &mut subnet.canister_mut(canister).settings.environment_variables;
    variables.insert("BETA".into(), "two".into());
    variables.insert("ALPHA".into(), "one".into());
    assert_eq!(subnet.update(canister, "all", b"").unwrap(), b"\x02BETAtwo\x01\x00");
    assert!(subnet.update(canister, "none", b"").is_err() && subnet.update(canister, "index", b"").is_err());
}
