//! An instance that changes between tests of cards and protected pages: nothing but speed shows it.

use crate::{NoHost, call};
use cyclotron_heap::Tracking;
use cyclotron_wasm::runtime::Value;
use cyclotron_wasm::validate::Rules;
use cyclotron_wasm::{Engine, EngineConfig, Standalone, TrackingPolicy};
use std::time::{Duration, Instant};

const TEXT: &str = r#"(module (memory 4) (table 2 funcref)
    (global $sum (mut i32) (i32.const 0))
    (global $next (mut funcref) (ref.null func))
    (elem declare func $seven)
    (func $seven (result i32) (i32.const 7))
    (func (export "keep") (global.set $next (ref.func $seven)))
    (func (export "kept") (result i32)
        (table.set 0 (i32.const 1) (global.get $next))
        (call_indirect (result i32) (i32.const 1)))
    ;; Many instructions, one page.
    (func (export "compute") (param i32) (result i32)
        (loop
            (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (local.get 0)))
            (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (global.set $sum (i32.add (global.get $sum) (i32.load (i32.const 64))))
        (global.get $sum))
    ;; Few instructions, 64 pages; then a trap if asked for.
    (func (export "scatter") (param i32) (result i32) (local i32)
        (loop
            (i32.store (local.get 1) (i32.add (i32.load (local.get 1)) (i32.const 3)))
            (local.set 1 (i32.add (local.get 1) (i32.const 4096)))
            (br_if 0 (i32.lt_u (local.get 1) (i32.const 262144))))
        (global.set $sum (i32.const 1000))
        (if (local.get 0) (then unreachable))
        (i32.load (i32.const 262140))))"#;

fn engine(policy: TrackingPolicy) -> Engine {
    Engine::new(EngineConfig { tracking: policy, ..EngineConfig::with_rules(Rules::plain([])) }).unwrap()
}

fn instance(engine: &Engine) -> Standalone {
    Standalone::new(engine.compile(&wat::parse_str(TEXT).unwrap()).unwrap(), NoHost).unwrap().0
}

fn adapted_to(instance: &mut Standalone, engine: &Engine, tracking: Tracking) {
    let start = Instant::now();
    while instance.seated().module().tracking() != tracking {
        assert!(start.elapsed() < Duration::from_secs(60), "no code for {tracking:?}");
        std::thread::yield_now();
        instance.adapt(engine).unwrap();
    }
}

#[test]
fn only_speed_shows_which_way_stores_are_noticed() {
    let eager = TrackingPolicy {
        adapt: true,
        window_instructions: 10_000,
        window_pages: 100,
        protect_from: 1_000,
        test_below: 500,
        compile_after: 0,
    };
    let (adapting, plain) = (engine(eager), engine(TrackingPolicy { adapt: false, ..eager }));
    let (mut ours, mut theirs) = (instance(&adapting), instance(&plain));
    let mut both = |ours: &mut Standalone, export: &str, args: &[Value]| {
        let (a, b) = (call(ours, export, args), call(&mut theirs, export, args));
        assert_eq!(a, b, "{export}");
        let bytes = |instance: &Standalone| instance.read(0, 4 << 16).unwrap();
        assert!(bytes(ours) == bytes(&theirs) && ours.seated().globals() == theirs.seated().globals(), "{export}");
        theirs.adapt(&plain).unwrap();
        assert_eq!(theirs.seated().module().tracking(), Tracking::Cards);
        a
    };
    both(&mut ours, "keep", &[]);
    for _ in 0..3 {
        for _ in 0..60 {
            both(&mut ours, "compute", &[Value::I32(1_000)]);
            ours.adapt(&adapting).unwrap();
        }
        adapted_to(&mut ours, &adapting, Tracking::Protect);
        assert_eq!(both(&mut ours, "kept", &[]).result, Ok(vec![Value::I32(7)]));
        assert!(both(&mut ours, "scatter", &[Value::I32(1)]).result.is_err());
        assert_eq!(both(&mut ours, "scatter", &[Value::I32(0)]).dirty_pages, 64);
        both(&mut ours, "scatter", &[Value::I32(0)]);
        adapted_to(&mut ours, &adapting, Tracking::Cards);
        assert_eq!(both(&mut ours, "kept", &[]).result, Ok(vec![Value::I32(7)]));
        assert!(both(&mut ours, "scatter", &[Value::I32(1)]).result.is_err());
    }
}

#[test]
fn code_made_again_shares_the_module_and_is_found_for_the_next_instance() {
    let engine = engine(TrackingPolicy { compile_after: 0, ..TrackingPolicy::default() });
    let first = instance(&engine);
    let module = first.module().clone();
    let (before, alone) = (engine.cache_bytes(), module.resident_bytes());
    let protected = engine.compile_protected(&module).unwrap();
    assert!(std::sync::Arc::ptr_eq(&protected, &engine.compile_protected(&module).unwrap()), "made once");
    assert_eq!((module.tracking(), protected.tracking()), (Tracking::Cards, Tracking::Protect));
    assert_eq!((module.hash(), module.wasm()), (protected.hash(), protected.wasm()));
    assert!(std::ptr::eq(module.shape(), protected.shape()));
    assert_eq!(module.resident_bytes(), alone + protected.resident_bytes());
    assert_eq!(engine.cache_bytes(), before + protected.resident_bytes());
    assert!(std::sync::Arc::ptr_eq(&engine.compile(module.wasm()).unwrap(), &module), "installing finds the first");
    let mut second = instance(&engine);
    call(&mut second, "compute", &[Value::I32(8 << 20)]);
    second.adapt(&engine).unwrap();
    assert!(std::sync::Arc::ptr_eq(second.seated().module(), &protected));
}

#[test]
fn a_small_cache_forgets_modules_and_counts_nothing_twice() {
    let mut config = EngineConfig::with_rules(Rules::plain([]));
    config.cache_bytes = 1;
    let engine = Engine::new(config).unwrap();
    let first = instance(&engine);
    assert_eq!(engine.cache_bytes(), 0);
    let protected = engine.compile_protected(first.module()).unwrap();
    assert_eq!(engine.cache_bytes(), 0);
    assert!(std::sync::Arc::ptr_eq(first.module().protected().unwrap(), &protected));
}
