//! What calls are charged, told apart.

use std::collections::BTreeMap;

use cyclotron_types::units::Instructions;
use cyclotron_wasm::calls::CallCosts;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Outcome, Value};
use cyclotron_wasm::validate::{Given, Rules};
use cyclotron_wasm::{Engine, EngineConfig, Run, Standalone};
use expect_test::{Expect, expect};
use wasmparser::{FuncType, ValType};

/// Charges a thousand instructions for every call.
struct Dear;

impl Host for Dear {
    fn call(&mut self, caller: &mut Caller<'_>, _: HostFn, _: &[u64]) -> Result<u64, HostTrap> {
        caller.charge(Instructions(1_000))?;
        Ok(0)
    }
}

const PROGRAM: &str = r#"(module
    (import "env" "dear" (func $dear (param i32)))
    (memory (export "m") 1)
    (table funcref (elem $leaf $down))
    (func $leaf (export "leaf") (param i32) (drop (i32.add (local.get 0) (i32.const 1))))
    (func $down (export "down") (param i32)
        (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "indirect") (param i32) (call_indirect (param i32) (local.get 0) (i32.const 0)))
    (func $tail (export "tail") (param i32) (return_call $leaf (local.get 0)))
    (func (export "tails") (param i32) (call $tail (local.get 0)) (call $leaf (local.get 0)))
    (func (export "host") (param i32) (call $dear (local.get 0)) (call $leaf (local.get 0)))
    (func (export "bulk") (param i32) (memory.fill (i32.const 0) (i32.const 7) (local.get 0)))
    (func $fail (param i32) (call $leaf (local.get 0)) unreachable)
    (func (export "fails") (param i32) (call $leaf (local.get 0)) (call $fail (local.get 0)))
    (func $spin (export "spin") (param i32)
        (loop (call $leaf (local.get 0)) (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#;

fn program(calls: bool) -> Standalone {
    let ty = FuncType::new([ValType::I32], []);
    let given = [(("env".to_owned(), "dear".to_owned()), Given::Function(ty))];
    let mut config = EngineConfig::with_rules(Rules::plain(given));
    config.code.calls = calls;
    let module = Engine::new(config).unwrap().compile(&wat::parse_str(PROGRAM).unwrap()).unwrap();
    Standalone::new(module, Dear).unwrap().0
}

fn run(instance: &mut Standalone, export: &str, arg: i32, limit: u64, slice: u64) -> Run {
    let slice = || Instructions(slice);
    instance.run_limited(Entry::Export(export), &[Value::I32(arg)], Dear, Instructions(limit), slice).unwrap().0
}

/// Stacks with what the innermost function of each was charged.
fn folded(slices: &[CallCosts]) -> String {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for costs in slices {
        let (entry, calls) = costs.calls().split_first().unwrap();
        assert_eq!(entry.own, Instructions::ZERO, "nothing is charged outside of functions");
        let mut names = vec!["entry".to_owned()];
        for call in calls {
            let name = format!("{};{}", names[call.caller as usize], costs.name(call.function));
            *stacks.entry(name.clone()).or_default() += call.own.0;
            names.push(name);
        }
    }
    stacks.iter().map(|(stack, own)| format!("{stack} {own}\n")).collect()
}

/// Checks who is charged what by code that reports its calls, whole and in slices, and that all of it is what other code is charged.
fn check(export: &str, arg: i32, limit: u64, expected: Expect) {
    let plain = run(&mut program(false), export, arg, limit, limit);
    assert!(plain.calls.is_empty());
    let whole = run(&mut program(true), export, arg, limit, limit);
    expected.assert_eq(&folded(&whole.calls));
    for slice in [1, 7, 50] {
        let sliced = run(&mut program(true), export, arg, limit, slice);
        assert_eq!((&sliced.result, sliced.instructions), (&plain.result, plain.instructions));
        assert!(sliced.calls.len() as u64 == sliced.suspensions + 1);
        assert_eq!(folded(&sliced.calls), folded(&whole.calls), "in slices of {slice}");
    }
    let charged: u64 = whole.calls.iter().map(|costs| costs.total().0).sum();
    assert_eq!((whole.instructions, charged), (plain.instructions, plain.instructions.0.min(limit)));
}

#[test]
fn calls_of_every_kind_are_charged_to_whom_they_reach() {
    check(
        "indirect",
        1,
        1 << 20,
        expect![[r#"
        entry;indirect 13
        entry;indirect;leaf 5
    "#]],
    );
    check(
        "down",
        3,
        1 << 20,
        expect![[r#"
        entry;down 12
        entry;down;down 12
        entry;down;down;down 12
        entry;down;down;down;down 4
    "#]],
    );
    check(
        "host",
        1,
        1 << 20,
        expect![[r#"
        entry;host 13
        entry;host;env.dear 1000
        entry;host;leaf 5
    "#]],
    );
    check(
        "bulk",
        300,
        1 << 20,
        expect![[r#"
        entry;bulk 104
        entry;bulk;memory.fill 300
    "#]],
    );
    check(
        "spin",
        5,
        1 << 20,
        expect![[r#"
        entry;spin 61
        entry;spin;leaf 25
    "#]],
    );
}

#[test]
fn a_function_that_is_called_last_takes_its_callers_place() {
    check(
        "tails",
        1,
        1 << 20,
        expect![[r#"
        entry;tails 13
        entry;tails;leaf 10
        entry;tails;tail 5
    "#]],
    );
}

#[test]
fn a_trap_and_the_limit_are_charged_where_they_are_met() {
    check(
        "fails",
        1,
        1 << 20,
        expect![[r#"
        entry;fails 13
        entry;fails;fail 8
        entry;fails;fail;leaf 5
        entry;fails;leaf 5
    "#]],
    );
    check(
        "spin",
        1_000,
        500,
        expect![[r#"
        entry;spin 355
        entry;spin;leaf 145
    "#]],
    );
    check(
        "bulk",
        300,
        100,
        expect![[r#"
        entry;bulk 100
    "#]],
    );
    check(
        "host",
        1,
        500,
        expect![[r#"
        entry;host 13
        entry;host;env.dear 487
    "#]],
    );
}

#[test]
fn what_an_aborted_execution_was_charged_is_known_until_its_last_slice() {
    let mut instance = program(true);
    let execution = instance.start(Entry::Export("spin"), &[Value::I32(1_000)], Dear, Instructions(1 << 20)).unwrap();
    let Outcome::Suspended(mut execution) = execution.resume(Instructions(400)) else {
        panic!("a slice is not enough")
    };
    let calls = execution.take_calls().unwrap();
    assert_eq!(calls.total(), execution.instructions_used());
    assert_eq!(execution.take_calls().unwrap().total(), Instructions::ZERO);
    let (seated, _) = execution.abort();
    instance.put_back(seated, false);
    let again = run(&mut instance, "leaf", 1, 1 << 20, 1 << 20);
    assert_eq!(again.calls[0].total(), again.instructions);
    assert_ne!(again.calls[0], calls);
}
