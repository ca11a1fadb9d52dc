//! Every kind of trap: its code, its place, its rollback.

use cyclotron_wasm::abi::TrapCode;
use cyclotron_wasm::runtime::{Entry, Value};

use cyclotron_wasm::Engine;

use crate::{NoHost, call, call_sliced, standalone, standalone_of, tracking_engines};

/// A module whose export `go` first changes heap, globals, tables, size and segments, then does `body`.
fn destructive(body: &str) -> String {
    format!(
        r#"(module
            (memory 1 3)
            (table $t 4 8 funcref)
            (elem (i32.const 0) $two_results)
            (elem $passive func $go $two_results)
            (data $d "xyz")
            (global $g (mut i64) (i64.const 42))
            (global $zero (mut i32) (i32.const 0))
            (func $two_results (result i32 i32) (i32.const 1) (i32.const 2))
            (func $set (export "set") (i32.store (i32.const 8) (i32.const 99)))
            (func $forever (param i32) (result i32) (i32.add (call $forever (local.get 0)) (i32.const 1)))
            (func $mess
                (global.set $g (i64.const 1))
                (i32.store (i32.const 8) (i32.const 1))
                (i64.store (i32.const 65528) (i64.const -1))
                (drop (memory.grow (i32.const 1)))
                (i32.store (i32.const 65540) (i32.const 7))
                (memory.fill (i32.const 4000) (i32.const 1) (i32.const 9000))
                (table.set $t (i32.const 2) (ref.func $go))
                (drop (table.grow $t (ref.null func) (i32.const 2)))
                (memory.init $d (i32.const 100) (i32.const 0) (i32.const 3))
                (data.drop $d)
                (elem.drop $passive))
            (func $go (export "go") (call $mess) {body})
            (func (export "state") (result i64 i32 i32 i32)
                (global.get $g) (memory.size) (table.size $t) (ref.is_null (table.get $t (i32.const 2))))
            (func (export "segments")
                (memory.init $d (i32.const 100) (i32.const 0) (i32.const 3))
                (table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 2))
                unreachable))"#
    )
}

const KINDS: &[(&str, TrapCode)] = &[
    ("unreachable", TrapCode::Unreachable),
    ("(drop (i32.load (i32.const 131072)))", TrapCode::HeapOutOfBounds),
    ("(drop (i32.load offset=4294967295 (i32.const -1)))", TrapCode::HeapOutOfBounds),
    ("(i64.store (i32.const 131066) (i64.const 0))", TrapCode::HeapOutOfBounds),
    ("(memory.fill (i32.const 131070) (i32.const 0) (i32.const 3))", TrapCode::HeapOutOfBounds),
    ("(memory.copy (i32.const 0) (i32.const -1) (i32.const 2))", TrapCode::HeapOutOfBounds),
    ("(memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))", TrapCode::HeapOutOfBounds),
    ("(drop (table.get $t (i32.const 6)))", TrapCode::TableOutOfBounds),
    ("(table.set $t (i32.const -1) (ref.null func))", TrapCode::TableOutOfBounds),
    ("(table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 1))", TrapCode::TableOutOfBounds),
    ("(table.fill $t (i32.const 5) (ref.null func) (i32.const 2))", TrapCode::TableOutOfBounds),
    ("(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 6))", TrapCode::TableOutOfBounds),
    ("(call_indirect $t (i32.const 7))", TrapCode::TableOutOfBounds),
    ("(call_indirect $t (i32.const 3))", TrapCode::IndirectCallToNull),
    ("(call_indirect $t (i32.const 0))", TrapCode::BadSignature),
    ("(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))", TrapCode::IntegerOverflow),
    ("(drop (i64.rem_u (i64.const 5) (i64.extend_i32_u (global.get $zero))))", TrapCode::IntegerDivisionByZero),
    ("(drop (i32.div_u (i32.const 1) (global.get $zero)))", TrapCode::IntegerDivisionByZero),
    ("(drop (i32.trunc_f32_s (f32.const nan)))", TrapCode::BadConversionToInteger),
    ("(drop (i64.trunc_f64_u (f64.const 1e30)))", TrapCode::IntegerOverflow),
    ("(drop (call $forever (i32.const 1)))", TrapCode::StackOverflow),
];

#[test]
fn a_trap_of_any_kind_leaves_no_trace() {
    for engine in tracking_engines() {
        KINDS.iter().for_each(|(body, code)| check_rollback(&engine, body, *code));
    }
}

fn check_rollback(engine: &Engine, body: &str, code: TrapCode) {
    {
        let mut instance = standalone_of(engine, &destructive(body));
        call(&mut instance, "set", &[]).result.unwrap();
        let before = instance.read(0, 65536).unwrap();
        for _ in 0..3 {
            let run = call(&mut instance, "go", &[]);
            let trap = run.result.unwrap_err();
            assert_eq!(trap.code, code, "{body}");
            // Pages 0..=3 and 15, 16: changed, and counted although undone.
            assert_eq!(run.dirty_pages, 6, "{body}");
            assert!(run.instructions.0 > 9_000, "{body}: {}", run.instructions);
            assert_eq!(instance.heap().size().0, 1, "{body}");
            assert!(instance.read(0, 65536).unwrap() == before, "{body}: heap bytes differ");
            let state = call(&mut instance, "state", &[]).result.unwrap();
            assert_eq!(state, [Value::I64(42), Value::I32(1), Value::I32(4), Value::I32(1)], "{body}");
            let segments = call(&mut instance, "segments", &[]).result.unwrap_err();
            assert_eq!(segments.code, TrapCode::Unreachable, "{body}: a segment stayed dropped");
        }
    }
}

#[test]
fn a_trap_names_its_frames() {
    let text = r#"(module (memory 1)
        (func $inner (param i32) (drop (i32.load (local.get 0))))
        (func $middle (param i32) (call $inner (i32.mul (local.get 0) (i32.const 16))) (call $inner (i32.const 0)))
        (func $outer (export "go") (param i32) (call $middle (local.get 0)) (call $middle (i32.const 0))))"#;
    let mut instance = standalone(text);
    let trap = call(&mut instance, "go", &[Value::I32(0x10000)]).result.unwrap_err();
    let names: Vec<_> = trap.frames.iter().map(|frame| (frame.function, frame.name.as_deref())).collect();
    assert_eq!(names, [(0, Some("inner")), (1, Some("middle")), (2, Some("outer"))]);
    let offsets: Vec<u32> = trap.frames.iter().filter_map(|frame| frame.wasm_offset).collect();
    assert_eq!(offsets.len(), 3, "{trap}");
    assert!(offsets[0] < offsets[1] && offsets[1] < offsets[2], "{trap}");
    let wasm = wat::parse_str(text).unwrap();
    assert_eq!(wasm[offsets[0] as usize], 0x28, "i32.load at {trap}");
    assert_eq!(wasm[offsets[1] as usize], 0x10, "call at {trap}");
    assert!(trap.to_string().starts_with("Wasm trap: heap out of bounds at function 0 <inner> +0x"), "{trap}");
}

#[test]
fn a_backtrace_is_bounded() {
    let mut instance =
        standalone(r#"(module (func $f (export "go") (param i32) (call $f (local.get 0)) (call $f (i32.const 0))))"#);
    let trap = call(&mut instance, "go", &[Value::I32(1)]).result.unwrap_err();
    assert_eq!((trap.code, trap.frames.len()), (TrapCode::StackOverflow, cyclotron_wasm::runtime::FRAMES_MAX));
}

#[test]
fn entries_that_do_not_exist_or_fit_are_traps() {
    let mut instance =
        standalone(r#"(module (table 2 funcref) (elem (i32.const 0) $f) (func $f (export "f") (param i32)))"#);
    let cases: &[(Entry<'_>, &[Value], TrapCode)] = &[
        (Entry::Export("g"), &[], TrapCode::BadSignature),
        (Entry::Export("f"), &[], TrapCode::BadSignature),
        (Entry::Export("f"), &[Value::I64(1)], TrapCode::BadSignature),
        (Entry::Function(9), &[], TrapCode::BadSignature),
        (Entry::TableElement(0), &[Value::I64(0)], TrapCode::BadSignature),
        (Entry::TableElement(1), &[], TrapCode::IndirectCallToNull),
        (Entry::TableElement(2), &[], TrapCode::TableOutOfBounds),
        (Entry::TableElement(u64::MAX), &[], TrapCode::TableOutOfBounds),
    ];
    for (entry, args, code) in cases {
        let run = instance.run(*entry, args, NoHost).unwrap().0;
        assert_eq!((run.result.unwrap_err().code, run.instructions.0), (*code, 0), "{entry:?}");
    }
}

#[test]
fn the_instruction_limit_traps_whatever_the_slice() {
    let mut instance = standalone(r#"(module (func (export "go") (loop $l (br $l))))"#);
    let whole = call_sliced(&mut instance, "go", &[], 1_000_000, u64::MAX);
    assert_eq!(whole.result.as_ref().unwrap_err().code, TrapCode::InstructionLimit);
    assert!(whole.instructions.0 > 1_000_000 && whole.instructions.0 < 1_000_100);
    for slice in [1, 7, 1_000, 999_999, 1_000_000, 1_000_001] {
        let run = call_sliced(&mut instance, "go", &[], 1_000_000, slice);
        assert_eq!((&run.result, run.instructions), (&whole.result, whole.instructions), "slice {slice}");
    }
}

/// Depth that a recursion reaches: how often `$f` was entered before the trap, seen through a host that counts.
fn depth(locals: usize) -> u64 {
    let locals = "(local i64)".repeat(locals);
    let mut instance = standalone(&format!(
        r#"(module (global $depth (mut i32) (i32.const 0)) (memory 1)
            (func $f (export "go") {locals} (global.set $depth (i32.add (global.get $depth) (i32.const 1))) (call $f) (call $f)))"#
    ));
    let run = call(&mut instance, "go", &[]);
    assert_eq!(run.result.unwrap_err().code, TrapCode::StackOverflow);
    run.instructions.0
}

#[test]
fn stack_overflow_comes_at_the_same_depth_on_every_thread_and_stack() {
    let expected: Vec<u64> = [0, 5, 500].map(depth).to_vec();
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::Builder::new().stack_size(256 << 10).spawn(|| [0, 5, 500].map(depth).to_vec()).unwrap())
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}
