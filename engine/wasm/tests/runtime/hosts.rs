//! Host calls: arguments, the heap, charges, failures, growth, nesting.

use cyclotron_types::units::{Instructions, WasmPages};
use cyclotron_wasm::abi::TrapCode;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Outcome, SliceVerdict, Value};
use cyclotron_wasm::{Run, Standalone};
use wasmparser::ValType::{F64, I32, I64, V128};
use wasmparser::{RefType, ValType};

use crate::{NoHost, call, engine_with, standalone};

/// Does what its functions' numbers say and keeps a diary.
#[derive(Default)]
struct Diary {
    calls: Vec<(u32, Vec<u64>)>,
    failure: Option<String>,
    asked_to_grow: Vec<(u64, u64)>,
    may_grow: Option<HostTrap>,
    refuse_growth: bool,
    verdict: Option<SliceVerdict>,
    nested: Option<Standalone>,
}

const IMPORTS: &[(&str, &[ValType], &[ValType])] = &[
    ("note", &[I32, I64, F64, V128, ValType::Ref(RefType::EXTERNREF)], &[I64]),
    ("copy", &[I32, I32, I32], &[]),
    ("fail", &[], &[]),
    ("charge", &[I64], &[]),
    ("used", &[], &[I64]),
    ("nest", &[I32], &[I32]),
    ("sum", &[I32, I32], &[I64]),
];

impl Host for Diary {
    fn call(&mut self, caller: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap> {
        self.calls.push((function.0, args.to_vec()));
        match IMPORTS[function.0 as usize].0 {
            "note" => Ok(0x8000_0000_0000_0001),
            "copy" => {
                let source = caller.read(args[1], args[2])?.to_vec();
                caller.copy_in(args[0], &source)?;
                Ok(0)
            }
            "fail" => {
                self.failure = Some("the canister called fail".to_owned());
                Err(HostTrap::Failed)
            }
            "charge" => caller.charge(Instructions(args[0])).map(|()| 0),
            "used" => Ok(caller.instructions_used().0),
            "nest" => {
                let inner = self.nested.as_mut().unwrap();
                let run = call(inner, "go", &[Value::I32(args[0] as i32)]);
                Ok(run.result.map_or(u64::from(u32::MAX), |_| 1))
            }
            _ => Ok(caller.read(args[0], args[1])?.iter().map(|byte| u64::from(*byte)).sum()),
        }
    }

    fn memory_grow(&mut self, old: WasmPages, new: WasmPages) -> Result<bool, HostTrap> {
        self.asked_to_grow.push((old.0, new.0));
        self.may_grow.map_or(Ok(!self.refuse_growth), Err)
    }

    fn out_of_instructions(&mut self, _: Instructions) -> SliceVerdict {
        self.verdict.unwrap_or(SliceVerdict::Suspend)
    }
}

/// A module whose functions import all of `IMPORTS` in order.
fn instance(body: &str) -> Standalone {
    let text = format!(
        r#"(module
            (import "env" "note" (func $note (param i32 i64 f64 v128 externref) (result i64)))
            (import "env" "copy" (func $copy (param i32 i32 i32)))
            (import "env" "fail" (func $fail))
            (import "env" "charge" (func $charge (param i64)))
            (import "env" "used" (func $used (result i64)))
            (import "env" "nest" (func $nest (param i32) (result i32)))
            (import "env" "sum" (func $sum (param i32 i32) (result i64)))
            (memory 1 5)
            (table 2 funcref) (elem (i32.const 0) $used $fail)
            (global $g (export "g") (mut i32) (i32.const 3))
            (data (i32.const 0) "abcdefgh")
            {body})"#
    );
    let engine = engine_with(IMPORTS);
    let module = engine.compile(&wat::parse_str(text).unwrap()).unwrap();
    Standalone::new(module, NoHost).unwrap().0
}

fn run(instance: &mut Standalone, host: Diary) -> (Run, Diary) {
    instance.run(Entry::Export("go"), &[], host).unwrap()
}

#[test]
fn arguments_of_every_type_arrive_and_the_result_returns() {
    let mut instance = instance(
        r#"(func (export "go") (param externref) (result i64)
            (call $note (i32.const -1) (i64.const -2) (f64.const 1.5) (v128.const i64x2 3 4) (local.get 0)))"#,
    );
    let (run, host) = instance.run(Entry::Export("go"), &[Value::ExternRef(Some(9))], Diary::default()).unwrap();
    assert_eq!(run.result, Ok(vec![Value::I64(0x8000_0000_0000_0001_u64 as i64)]));
    assert_eq!(host.calls, [(0, vec![0xffff_ffff, u64::MAX - 1, 1.5f64.to_bits(), 3, 4, 10])]);
}

#[test]
fn a_host_reads_and_writes_the_heap_and_its_writes_roll_back() {
    let mut good = instance(r#"(func (export "go") (call $copy (i32.const 4090) (i32.const 0) (i32.const 8)))"#);
    let (run_, _) = run(&mut good, Diary::default());
    assert_eq!((run_.result, run_.dirty_pages), (Ok(vec![]), 2));
    assert_eq!(good.read(4090, 8).unwrap(), b"abcdefgh");

    let mut bad = instance(
        r#"(func (export "go") (call $copy (i32.const 4090) (i32.const 0) (i32.const 8)) (global.set $g (i32.const 4)) (call $fail))"#,
    );
    let (run_, host) = run(&mut bad, Diary::default());
    let trap = run_.result.unwrap_err();
    assert_eq!((trap.code, run_.dirty_pages), (TrapCode::Host, 2));
    assert_eq!(host.failure.as_deref(), Some("the canister called fail"), "the host comes back with its reason");
    assert_eq!(trap.frames.iter().map(|frame| frame.function).collect::<Vec<_>>(), [7], "{trap}");
    assert!(trap.frames[0].wasm_offset.is_some(), "{trap}");
    assert_eq!(bad.read(4090, 8).unwrap(), [0; 8]);
    assert_eq!(bad.seated().exported_global("g"), Some(Value::I32(3)));
}

#[test]
fn ranges_beyond_the_heap_are_refused() {
    for (dst, src, len) in
        [(65533u32, 0, 8), (0, 65533, 8), (u32::MAX, 0, 1), (0, 0, u32::MAX), (u32::MAX, u32::MAX, u32::MAX)]
    {
        let body = format!(
            r#"(func (export "go") (call $copy (i32.const {}) (i32.const {}) (i32.const {})))"#,
            dst as i32, src as i32, len as i32
        );
        let (run, _) = run(&mut instance(&body), Diary::default());
        assert_eq!(run.result.unwrap_err().code, TrapCode::HeapOutOfBounds, "{dst} {src} {len}");
        assert_eq!(run.dirty_pages, 0);
    }
    let mut empty = instance(r#"(func (export "go") (call $copy (i32.const 65536) (i32.const 65536) (i32.const 0)))"#);
    assert!(run(&mut empty, Diary::default()).0.result.is_ok());
}

#[test]
fn a_host_function_in_a_table_is_called_like_any_other() {
    let mut instance = instance(r#"(func (export "go") (result i64) (call_indirect (result i64) (i32.const 0)))"#);
    let (run_, host) = run(&mut instance, Diary::default());
    assert!(run_.result.is_ok());
    assert_eq!(host.calls, [(4, vec![])]);
    let (entered, host) = instance.run(Entry::TableElement(1), &[], Diary::default()).unwrap();
    assert_eq!(entered.result.unwrap_err().code, TrapCode::Host);
    assert_eq!(host.calls, [(2, vec![])]);
}

#[test]
fn charges_count_end_slices_and_stop_at_the_limit() {
    let body = r#"(func (export "go") (result i64) (call $charge (i64.const 1000)) (call $charge (i64.const 1000)) (call $used))"#;
    let mut instance = instance(body);
    let (whole, _) = run(&mut instance, Diary::default());
    let used = match whole.result.as_deref() {
        Ok([Value::I64(used)]) => *used as u64,
        other => panic!("{other:?}"),
    };
    assert!(used > 2_000 && used <= whole.instructions.0, "{used} {}", whole.instructions);
    for slice in [1, 500, 1_001, 1_500] {
        let slice = || Instructions(slice);
        let sliced =
            instance.run_limited(Entry::Export("go"), &[], Diary::default(), Instructions(1 << 30), slice).unwrap().0;
        assert_eq!((&sliced.result, sliced.instructions), (&whole.result, whole.instructions));
        assert!(sliced.suspensions > 0);
    }
    // A charge beyond the limit stops the message inside the call.
    for slice in [100, u64::MAX] {
        let slice = || Instructions(slice);
        let (stopped, host) =
            instance.run_limited(Entry::Export("go"), &[], Diary::default(), Instructions(1_500), slice).unwrap();
        assert_eq!(stopped.result.unwrap_err().code, TrapCode::InstructionLimit);
        assert_eq!(host.calls.len(), 2);
        assert!(stopped.instructions.0 > 2_000 && stopped.instructions.0 <= used);
    }
}

#[test]
fn a_huge_charge_saturates() {
    let mut instance = instance(r#"(func (export "go") (call $charge (i64.const -1)) (call $charge (i64.const -1)))"#);
    let (run, host) = run(&mut instance, Diary::default());
    assert_eq!(run.result.unwrap_err().code, TrapCode::InstructionLimit);
    assert!(host.calls.len() <= 2);
}

const GROW: &str = r#"(func $deep (param i32) (result i32)
        (if (result i32) (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1)))) (else (memory.grow (i32.const 2)))))
    (func (export "go") (result i32) (i32.store (i32.const 0) (i32.const 0)) (call $deep (i32.const 3)))"#;

#[test]
fn the_host_may_refuse_growth_or_trap() {
    let (granted, host) = run(&mut instance(GROW), Diary::default());
    assert_eq!((granted.result, host.asked_to_grow), (Ok(vec![Value::I32(1)]), vec![(1, 3)]));
    let (refused, _) = run(&mut instance(GROW), Diary { refuse_growth: true, ..Diary::default() });
    assert_eq!(refused.result, Ok(vec![Value::I32(-1)]));

    let mut trapping = instance(GROW);
    let (trapped, host) = run(&mut trapping, Diary { may_grow: Some(HostTrap::Failed), ..Diary::default() });
    let trap = trapped.result.unwrap_err();
    assert_eq!(trap.code, TrapCode::Host);
    let functions: Vec<u32> = trap.frames.iter().map(|frame| frame.function).collect();
    assert_eq!(functions, [7, 7, 7, 7, 8], "{trap}");
    assert!(trap.frames.iter().all(|frame| frame.wasm_offset.is_some()), "{trap}");
    assert_eq!(host.asked_to_grow, [(1, 3)]);
    assert_eq!((trapped.instructions, trapped.dirty_pages), (refused.instructions_at_grow(&granted.instructions), 1));
    assert_eq!(trapping.read(0, 4).unwrap(), b"abcd");
}

/// What a run that stopped at `memory.grow` must have used: everything of the functions' segments that was reached.
trait AtGrow {
    fn instructions_at_grow(&self, granted: &Instructions) -> Instructions;
}

impl AtGrow for Run {
    fn instructions_at_grow(&self, granted: &Instructions) -> Instructions {
        // Segments are charged when entered; after the growth only `end`s follow, which cost nothing.
        assert_eq!(self.instructions, *granted);
        *granted
    }
}

#[test]
fn the_host_may_go_on_at_the_end_of_a_slice_or_trap() {
    let mut looping = standalone(
        r#"(module (func (export "go") (param i32) (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#,
    );
    let args = [Value::I32(1_000)];
    let slice = || Instructions(100);
    let go = |instance: &mut Standalone, verdict| {
        let host = Diary { verdict: Some(verdict), ..Diary::default() };
        instance.run_limited(Entry::Export("go"), &args, host, Instructions(1 << 20), slice).unwrap().0
    };
    let suspended = go(&mut looping, SliceVerdict::Suspend);
    let continued = go(&mut looping, SliceVerdict::Continue(Instructions(50)));
    assert!(suspended.suspensions > 10);
    assert_eq!(continued.suspensions, 0);
    assert_eq!((suspended.result, suspended.instructions), (continued.result, continued.instructions));
    let trapped = go(&mut looping, SliceVerdict::Trap);
    assert_eq!(trapped.result.unwrap_err().code, TrapCode::InstructionLimit);
}

#[test]
fn a_host_function_may_run_another_execution() {
    let mut outer = instance(
        r#"(func (export "go") (param i32) (result i32)
            (i32.store (i32.const 64) (i32.const 1))
            (call $nest (local.get 0)))
        (func (export "trap_after") (param i32) (result i32) (drop (call $nest (local.get 0))) (i32.load (i32.const -1)))"#,
    );
    let nested =
        || Some(standalone(r#"(module (memory 1) (func (export "go") (param i32) (drop (i32.load (local.get 0)))))"#));
    for (entry, address, expected) in [
        ("go", 0, Ok(Value::I32(1))),
        ("go", 65533, Ok(Value::I32(-1))),
        ("trap_after", 0, Err(TrapCode::HeapOutOfBounds)),
        ("trap_after", -1, Err(TrapCode::HeapOutOfBounds)),
    ] {
        let host = Diary { nested: nested(), ..Diary::default() };
        let (run, _) = outer.run(Entry::Export(entry), &[Value::I32(address)], host).unwrap();
        let result = run.result.map(|values| values[0]).map_err(|trap| trap.code);
        assert_eq!(result, expected, "{entry} {address}");
    }
}

#[test]
fn the_host_of_a_suspended_execution_can_be_reached_and_moves_with_it() {
    let mut instance = instance(
        r#"(func (export "go") (param i32) (loop $l (drop (call $used)) (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))"#,
    );
    let args = [Value::I32(100)];
    let mut execution = instance.start(Entry::Export("go"), &args, Diary::default(), Instructions(1 << 30)).unwrap();
    let mut seen = 0;
    let finished = loop {
        let moved = Box::new(execution);
        match moved.resume(Instructions(64)) {
            Outcome::Suspended(mut suspended) => {
                let calls = suspended.host().calls.len();
                assert!(calls >= seen);
                seen = calls;
                execution = suspended;
            }
            Outcome::Finished(finished) => break finished,
        }
    };
    assert_eq!(finished.host.calls.len(), 100);
    instance.put_back(finished.seated, true);
}
