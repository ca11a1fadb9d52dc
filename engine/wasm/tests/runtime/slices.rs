//! Suspension: same results and charges for any slices and threads; aborting leaves nothing.

use cyclotron_types::units::Instructions;
use cyclotron_wasm::code::code_bytes_mapped;
use cyclotron_wasm::runtime::{Entry, Execution, Outcome, Value, stacks_mapped};
use cyclotron_wasm::{Run, Standalone};

use crate::{NoHost, call, call_sliced, engine, standalone, standalone_of, tracking_engines};

/// Loops, recursion, bulk operations, stores, calls: a little of everything that is charged.
const WORK: &str = r#"(module
    (memory 2)
    (global $g (export "g") (mut i64) (i64.const 1))
    (func $fib (param i32) (result i64)
        (if (result i64) (i32.lt_u (local.get 0) (i32.const 2)) (then (i64.extend_i32_u (local.get 0)))
            (else (i64.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
    (func (export "go") (param $n i32) (result i64)
        (local $i i32) (local $sum i64)
        (loop $l
            (i64.store (i32.mul (local.get $i) (i32.const 264)) (local.get $sum))
            (memory.copy (i32.const 70000) (i32.mul (local.get $i) (i32.const 8)) (i32.const 100))
            (local.set $sum (i64.add (local.get $sum) (call $fib (i32.and (local.get $i) (i32.const 7)))))
            (local.set $sum (i64.xor (local.get $sum) (i64.load (i32.const 70040))))
            (global.set $g (i64.mul (global.get $g) (i64.const 31)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (local.get $n))))
        (i64.add (local.get $sum) (global.get $g))))"#;

const LIMIT: u64 = 1 << 40;

fn unsliced() -> (Run, Vec<u8>) {
    let mut instance = standalone(WORK);
    let run = call_sliced(&mut instance, "go", &[Value::I32(200)], LIMIT, LIMIT);
    let heap = instance.read(0, 2 << 16).unwrap();
    (run, heap)
}

#[test]
fn any_slice_size_gives_the_same_result_charge_and_heap() {
    let (expected, heap) = unsliced();
    assert_eq!(expected.suspensions, 0);
    for slice in [1, 2, 3, 10, 100, 1_000, 10_000, expected.instructions.0 - 1, expected.instructions.0] {
        let mut instance = standalone(WORK);
        let run = call_sliced(&mut instance, "go", &[Value::I32(200)], LIMIT, slice);
        assert_eq!((&run.result, run.instructions), (&expected.result, expected.instructions), "slice {slice}");
        assert_eq!(run.dirty_pages, expected.dirty_pages);
        assert!(instance.read(0, 2 << 16).unwrap() == heap, "slice {slice}");
        // The last stretch of a run has no check.
        assert_eq!(run.suspensions > 0, slice < expected.instructions.0 - 1, "slice {slice}");
    }
}

/// A small generator: slices need to be varied, not random.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn random_slices_give_the_same_result_charge_and_heap() {
    let (expected, heap) = unsliced();
    let mut instance = standalone(WORK);
    for seed in 0..50 {
        let mut state = seed;
        let mut fresh = standalone(WORK);
        std::mem::swap(&mut instance, &mut fresh);
        let slice = || Instructions(1 << (next(&mut state) % 16));
        let entry = Entry::Export("go");
        let run = instance.run_limited(entry, &[Value::I32(200)], NoHost, Instructions(LIMIT), slice).unwrap().0;
        assert_eq!((&run.result, run.instructions), (&expected.result, expected.instructions), "seed {seed}");
        assert!(instance.read(0, 2 << 16).unwrap() == heap, "seed {seed}");
    }
}

#[test]
fn an_execution_may_resume_on_another_thread_every_time() {
    let (expected, heap) = unsliced();
    let mut instance = standalone(WORK);
    let mut execution = instance.start(Entry::Export("go"), &[Value::I32(200)], NoHost, Instructions(LIMIT)).unwrap();
    let mut switches = 0;
    let finished = loop {
        let outcome = std::thread::spawn(move || execution.resume(Instructions(2_000))).join();
        match outcome.unwrap_or_else(|_| panic!("a slice panicked")) {
            Outcome::Suspended(suspended) => execution = suspended,
            Outcome::Finished(finished) => break finished,
        }
        switches += 1;
    };
    assert!(switches > 10);
    assert_eq!((finished.result, finished.instructions), (expected.result, expected.instructions));
    instance.put_back(finished.seated, true);
    assert!(instance.read(0, 2 << 16).unwrap() == heap);
}

#[test]
fn a_trap_after_a_change_of_thread_is_a_trap() {
    let mut instance = standalone(
        r#"(module (memory 1) (func (export "go") (param i32)
            (loop $l (i32.store (local.get 0) (i32.const 1)) (local.set 0 (i32.add (local.get 0) (i32.const 4))) (br $l))))"#,
    );
    let expected = call(&mut instance, "go", &[Value::I32(0)]);
    let mut execution = instance.start(Entry::Export("go"), &[Value::I32(0)], NoHost, Instructions(LIMIT)).unwrap();
    let finished = loop {
        let outcome = std::thread::spawn(move || execution.resume(Instructions(20_000))).join();
        match outcome.unwrap_or_else(|_| panic!("a slice panicked")) {
            Outcome::Suspended(suspended) => execution = suspended,
            Outcome::Finished(finished) => break finished,
        }
    };
    assert_eq!(
        (finished.result.map(|_| ()), finished.instructions),
        (expected.result.map(|_| ()), expected.instructions)
    );
    instance.put_back(finished.seated, true);
    assert_eq!(instance.read(0, 65536).unwrap(), vec![0; 65536]);
}

fn suspended(instance: &mut Standalone) -> Execution<NoHost> {
    let execution = instance.start(Entry::Export("go"), &[Value::I32(200)], NoHost, Instructions(LIMIT)).unwrap();
    match execution.resume(Instructions(5_000)) {
        Outcome::Suspended(suspended) => suspended,
        Outcome::Finished(_) => panic!("5,000 instructions were enough"),
    }
}

#[test]
fn aborting_restores_everything_and_running_again_gives_the_same() {
    let (expected, heap) = unsliced();
    let mut instance = standalone(WORK);
    for _ in 0..3 {
        let execution = suspended(&mut instance);
        assert!(execution.instructions_used().0 >= 5_000);
        assert_eq!(execution.seated().instance_before().globals(), [Value::I64(1)]);
        let (seated, NoHost) = execution.abort();
        instance.put_back(seated, true);
        assert_eq!(instance.read(0, 2 << 16).unwrap(), vec![0; 2 << 16]);
        assert_eq!(instance.seated().exported_global("g"), Some(Value::I64(1)));
    }
    let run = call(&mut instance, "go", &[Value::I32(200)]);
    assert_eq!((run.result, run.instructions), (expected.result, expected.instructions));
    assert!(instance.read(0, 2 << 16).unwrap() == heap);
}

#[test]
fn dropping_a_suspended_execution_is_an_abort() {
    let mut instance = standalone(WORK);
    drop(suspended(&mut instance));
    // The seat went with it; the heap is as before and free for another message.
    assert_eq!(instance.read(0, 2 << 16).unwrap(), vec![0; 2 << 16]);
    drop(instance);
    let never_run = standalone(WORK).start(Entry::Export("go"), &[Value::I32(1)], NoHost, Instructions(LIMIT)).unwrap();
    drop(never_run);
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Runs alone in a child process: other tests map and unmap at the same time.
#[test]
fn ten_thousand_executions_leak_nothing() {
    if std::env::var_os("CYCLOTRON_LEAK_TEST").is_none() {
        let this = std::env::current_exe().unwrap();
        let status = std::process::Command::new(this)
            .args(["slices::ten_thousand_executions_leak_nothing", "--exact", "--nocapture", "--test-threads=1"])
            .env("CYCLOTRON_LEAK_TEST", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let engine = engine();
    let module = engine.compile(&wat::parse_str(WORK).unwrap()).unwrap();
    let mut instance = Standalone::new(module, NoHost).unwrap().0;
    let trap = [Value::I64(0)];
    let round = |instance: &mut Standalone, at: usize| match at % 4 {
        0 => assert!(call(instance, "go", &[Value::I32(3)]).result.is_ok()),
        1 => assert!(call(instance, "go", &trap).result.is_err()),
        2 => {
            let (seated, _) = suspended(instance).abort();
            instance.put_back(seated, false);
        }
        _ => assert!(call_sliced(instance, "go", &[Value::I32(9)], LIMIT, 100).result.is_ok()),
    };
    (0..100).for_each(|at| round(&mut instance, at));
    let before = (mappings(), stacks_mapped(), code_bytes_mapped());
    (0..10_000).for_each(|at| round(&mut instance, at));
    assert_eq!((mappings(), stacks_mapped(), code_bytes_mapped()), before);
    assert_eq!(before.1, 1, "one execution at a time needs one stack");
    // Modules: an engine that keeps nothing gives all code back.
    drop((instance, engine));
    assert_eq!(code_bytes_mapped(), 0);
}

#[test]
fn executions_run_in_parallel() {
    let (expected, heap) = unsliced();
    let engine = engine();
    let module = engine.compile(&wat::parse_str(WORK).unwrap()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for slice in [100, 1_000, LIMIT] {
                    let mut instance = Standalone::new(module.clone(), NoHost).unwrap().0;
                    let run = call_sliced(&mut instance, "go", &[Value::I32(200)], LIMIT, slice);
                    assert_eq!((&run.result, run.instructions), (&expected.result, expected.instructions));
                    assert!(instance.read(0, 2 << 16).unwrap() == heap);
                }
            });
        }
    });
}

#[test]
fn executions_that_wander_between_threads_end_as_ever() {
    use std::sync::Mutex;
    let (expected, heap) = unsliced();
    let engine = engine();
    let module = engine.compile(&wat::parse_str(WORK).unwrap()).unwrap();
    let mut instances: Vec<Standalone> = (0..32).map(|_| Standalone::new(module.clone(), NoHost).unwrap().0).collect();
    let mut waiting = Vec::new();
    for (at, instance) in instances.iter_mut().enumerate() {
        // Every fourth traps at once, for signals among the switches.
        let argument = if at % 4 == 3 { Value::I64(0) } else { Value::I32(200) };
        let execution = instance.start(Entry::Export("go"), &[argument], NoHost, Instructions(LIMIT)).unwrap();
        waiting.push((at, execution));
    }
    let (waiting, done) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (waiting, done) = (&waiting, &done);
            scope.spawn(move || {
                let mut state = thread;
                loop {
                    let taken = {
                        let mut waiting = waiting.lock().unwrap();
                        let at = next(&mut state) as usize % waiting.len().max(1);
                        (!waiting.is_empty()).then(|| waiting.swap_remove(at))
                    };
                    // Others may put theirs back: leave only when all are done.
                    let Some((at, execution)) = taken else {
                        if done.lock().unwrap().len() == 32 {
                            return;
                        }
                        std::thread::yield_now();
                        continue;
                    };
                    match execution.resume(Instructions(next(&mut state) % 20_000)) {
                        Outcome::Suspended(suspended) => waiting.lock().unwrap().push((at, suspended)),
                        Outcome::Finished(finished) => done.lock().unwrap().push((at, finished)),
                    }
                }
            });
        }
    });
    for (at, finished) in done.into_inner().unwrap() {
        if at % 4 == 3 {
            assert!(finished.result.is_err());
        } else {
            assert_eq!((&finished.result, finished.instructions), (&expected.result, expected.instructions));
        }
        instances[at].put_back(finished.seated, true);
        let bytes = instances[at].read(0, 2 << 16).unwrap();
        assert!(if at % 4 == 3 { bytes.iter().all(|byte| *byte == 0) } else { bytes == heap });
    }
}

/// Many values live at the checks of a loop and of bulk operations: of every kind, more than there are registers.
fn crowded() -> String {
    let locals = |ty: &str| format!("(local {})", [ty; 20].join(" "));
    let each = |first: usize, text: &dyn Fn(usize) -> String| (first..first + 20).map(text).collect::<String>();
    let set = |ty: &'static str| {
        move |at: usize| match ty {
            "v128" => format!("(local.set {at} (i64x2.splat (i64.const {})))", at * 77),
            ty => format!("(local.set {at} ({ty}.const {}))", at * 7 + 1),
        }
    };
    let step = |at: usize| match at {
        ..21 => format!("(local.set {at} (i64.mul (local.get {at}) (i64.const 31)))"),
        21..41 => format!("(local.set {at} (f64.mul (local.get {at}) (f64.const 1.5)))"),
        _ => format!("(local.set {at} (i64x2.add (local.get {at}) (local.get {})))", 41 + (at + 1) % 20),
    };
    let sum = |at: usize| match at {
        ..21 => format!("(i64.add (local.get {at}))"),
        21..41 => format!("(i64.add (i64.reinterpret_f64 (local.get {at})))"),
        _ => format!("(i64.add (i64x2.extract_lane 1 (local.get {at})))"),
    };
    format!(
        r#"(module (memory 1) (func (export "go") (param $n i32) (result i64) {} {} {}
            {} {} {}
            (loop $l
                {}
                (memory.fill (local.get $n) (i32.const 5) (i32.const 3))
                {} {}
                (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
            (i64.load (i32.const 8)) {} {} {}))"#,
        locals("i64"),
        locals("f64"),
        locals("v128"),
        each(1, &set("i64")),
        each(21, &set("f64")),
        each(41, &set("v128")),
        each(1, &step),
        each(21, &step),
        each(41, &step),
        each(1, &sum),
        each(21, &sum),
        each(41, &sum),
    )
}

#[test]
fn nothing_that_lives_in_registers_is_lost_at_a_check() {
    let text = crowded();
    let expected = call(&mut standalone(&text), "go", &[Value::I32(50)]);
    assert!(expected.result.is_ok());
    for engine in tracking_engines() {
        for slice in [1, 50, 333] {
            let run = call_sliced(&mut standalone_of(&engine, &text), "go", &[Value::I32(50)], LIMIT, slice);
            assert_eq!((&run.result, run.instructions), (&expected.result, expected.instructions), "slice {slice}");
            assert!(run.suspensions > 10);
        }
    }
}

#[test]
fn a_limit_met_at_a_check_names_the_functions_that_were_active() {
    let text = r#"(module (func $spin (loop $l (br $l))) (func (export "go") (call $spin)))"#;
    let trap = call_sliced(&mut standalone(text), "go", &[], 10_000, 300).result.unwrap_err();
    let names: Vec<_> = trap.frames.iter().map(|frame| (frame.function, frame.wasm_offset.is_some())).collect();
    assert_eq!(names, [(0, true), (1, true)]);
}
