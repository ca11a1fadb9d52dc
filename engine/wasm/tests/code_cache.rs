//! Compiled code that is kept: the same results, charges and traps; damaged bytes are misses.
//!
//! The differential tests and the test suite run on such code, too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../tools/fuzz/checks/compiled_code.rs"]
mod compiled_code;
#[path = "../../../tools/fuzz/checks/corpus.rs"]
mod corpus;
#[path = "suite/kept.rs"]
mod kept;

use std::sync::{Arc, LazyLock};

use cyclotron_types::units::Instructions;
use cyclotron_wasm::code_cache::{CodeCounts, Damage, HEADER_BYTES};
use cyclotron_wasm::lower::Tracking;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};
use cyclotron_wasm::validate::Rules;
use cyclotron_wasm::{Engine, EngineConfig, Module, Run, Standalone};
use kept::{Memory, engine_on, same_code};
use proptest::prelude::*;

struct NoHost;

impl Host for NoHost {
    fn call(&mut self, _: &mut Caller<'_>, _: HostFn, _: &[u64]) -> Result<u64, HostTrap> {
        Err(HostTrap::Failed)
    }
}

const TEXT: &str = r#"(module (memory 4) (table 3 funcref)
    (elem (i32.const 0) $seven $trap)
    (global $sum (mut i64) (i64.const 5))
    (type $answer (func (result i32)))
    (func $seven (type $answer) (i32.const 7))
    (func $trap (type $answer) unreachable)
    (func $deep (export "deep") (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
    (func (export "through") (param i32) (result i32) (call_indirect (type $answer) (local.get 0)))
    (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
    (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
    (func (export "fill") (param i32) (result i64)
        (loop
            (i64.store (i32.mul (local.get 0) (i32.const 64)) (global.get $sum))
            (global.set $sum (i64.add (global.get $sum) (i64.extend_i32_u (local.get 0))))
            (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (memory.fill (i32.const 0) (i32.const 3) (i32.const 5000))
        (global.get $sum)))"#;

/// What the module does, in slices, with a limit.
fn runs_of(module: &Arc<Module>) -> Vec<Run> {
    let mut instance = Standalone::new(module.clone(), NoHost).unwrap().0;
    let calls: [(&str, &[i32]); 10] = [
        ("through", &[0]),
        ("through", &[1]),
        ("through", &[2]),
        ("through", &[3]),
        ("divide", &[7, 0]),
        ("divide", &[i32::MIN, -1]),
        ("load", &[262_142]),
        ("fill", &[4_000]),
        ("fill", &[1_000_000]),
        ("deep", &[1]),
    ];
    let call = |(name, args): (&str, &[i32])| {
        let args: Vec<Value> = args.iter().map(|value| Value::I32(*value)).collect();
        let limit = Instructions(5_000_000);
        instance.run_limited(Entry::Export(name), &args, NoHost, limit, || Instructions(10_000)).unwrap().0
    };
    calls.map(call).into()
}

fn config() -> EngineConfig {
    EngineConfig::with_rules(Rules::plain([]))
}

fn wasm() -> Vec<u8> {
    wat::parse_str(TEXT).unwrap()
}

const COMPILED: CodeCounts = CodeCounts { compiled: 1, loaded: 0 };
const LOADED: CodeCounts = CodeCounts { compiled: 0, loaded: 1 };

/// An engine on `memory` and its module.
fn start(memory: &Arc<Memory>, config: EngineConfig) -> (Engine, Arc<Module>) {
    let engine = engine_on(memory, config);
    let module = engine.compile(&wasm()).unwrap();
    engine.finish_keeping();
    (engine, module)
}

#[test]
fn loaded_code_gives_the_same_results_charges_and_traps() {
    let memory = Arc::<Memory>::default();
    let (first, fresh) = start(&memory, config());
    let (second, loaded) = start(&memory, config());
    assert_eq!((first.code_counts(), second.code_counts()), (COMPILED, LOADED));
    assert!(same_code(&fresh, &loaded) && fresh.shape() == loaded.shape());
    assert_eq!(fresh.compile_operators(), loaded.compile_operators());
    let runs = runs_of(&fresh);
    assert_eq!(runs, runs_of(&loaded));
    let traps: Vec<_> = runs.iter().filter_map(|run| run.result.as_ref().err()).map(|trap| trap.code).collect();
    assert_eq!(traps.len(), 8, "{traps:?}");
    assert!(runs.iter().any(|run| run.suspensions > 100) && runs.iter().any(|run| run.dirty_pages > 60));
}

#[test]
fn code_for_protected_pages_is_kept_beside_the_other() {
    let memory = Arc::<Memory>::default();
    let (first, fresh) = start(&memory, config());
    let protected = first.compile_protected(&fresh).unwrap();
    first.finish_keeping();
    assert_eq!(memory.kept.lock().unwrap().len(), 2);
    let (second, loaded) = start(&memory, config());
    let again = second.compile_protected(&loaded).unwrap();
    assert_eq!(second.code_counts(), CodeCounts { compiled: 0, loaded: 2 });
    assert!(same_code(&protected, &again) && !same_code(&fresh, &again));
    assert_eq!(runs_of(&protected), runs_of(&again));
    assert_eq!(runs_of(&fresh), runs_of(&again));
    // An engine that makes nothing else finds it, too: it is the same code.
    let mut only = config();
    only.code.tracking = Tracking::Protect;
    assert_eq!(start(&memory, only).0.code_counts(), LOADED);
}

#[test]
fn other_settings_and_other_limits_find_nothing() {
    let memory = Arc::<Memory>::default();
    start(&memory, config());
    let mut others = [config(), config(), config()];
    others[0].code.metering = false;
    others[1].code.tracking = Tracking::Protect;
    others[2].rules.limits.heap_wasm32.0 -= 1;
    for other in others {
        assert_eq!(start(&memory, other).0.code_counts(), COMPILED);
    }
    assert_eq!((memory.kept.lock().unwrap().len(), memory.damage.lock().unwrap().len()), (4, 0));
}

#[test]
fn code_under_a_name_that_is_not_its_own_is_discarded() {
    let memory = Arc::<Memory>::default();
    start(&memory, config());
    let (engine, module) = {
        let mut kept = memory.kept.lock().unwrap();
        let (mut key, bytes) = kept.pop_first().unwrap();
        key.fingerprint[31] ^= 1;
        kept.insert(key, bytes.clone());
        key.fingerprint[31] ^= 1;
        let mut renamed = bytes;
        renamed[79] ^= 1;
        kept.insert(key, renamed);
        drop(kept);
        start(&memory, config())
    };
    assert_eq!((engine.code_counts(), memory.damage.lock().unwrap().len()), (COMPILED, 1));
    assert_eq!(runs_of(&module).len(), 10);
}

#[test]
fn a_flip_or_a_cut_anywhere_is_a_miss_and_is_made_good() {
    let memory = Arc::<Memory>::default();
    let (_, fresh) = start(&memory, config());
    let (key, good) = memory.kept.lock().unwrap().first_key_value().map(|(key, bytes)| (*key, bytes.clone())).unwrap();
    assert!(good.len() > HEADER_BYTES);
    // Every byte of the header, and places all over the body.
    let body = (HEADER_BYTES..good.len()).step_by(good.len().div_ceil(200));
    for (number, at) in (0..HEADER_BYTES).chain(body).chain([good.len() - 1]).enumerate() {
        let mut damaged = good.clone();
        if number % 4 == 3 {
            damaged.truncate(at)
        } else {
            damaged[at] ^= 1 << (at % 8)
        }
        memory.kept.lock().unwrap().insert(key, damaged);
        let (engine, module) = start(&memory, config());
        assert_eq!(engine.code_counts(), COMPILED, "byte {at}");
        assert!(same_code(&fresh, &module), "byte {at}");
        assert_eq!(memory.damage.lock().unwrap().len(), number + 1, "it is forgotten");
        assert!(memory.kept.lock().unwrap()[&key] == good, "and kept anew");
    }
    assert!(memory.damage.lock().unwrap().contains(&Damage("its checksum is wrong")));
}

#[test]
fn a_module_that_breaks_the_rules_is_refused_whatever_is_kept() {
    let memory = Arc::<Memory>::default();
    start(&memory, config());
    let engine = engine_on(&memory, EngineConfig { rules: Rules::canister(), ..config() });
    let bytes = memory.kept.lock().unwrap().first_key_value().unwrap().1.clone();
    let importing = wat::parse_str(r#"(module (import "env" "f" (func)))"#).unwrap();
    let refused = engine.compile(&importing).unwrap_err();
    // Under every key there could be something.
    struct Always(Vec<u8>);
    impl cyclotron_wasm::code_cache::CodeCache for Always {
        fn load(&self, _: &cyclotron_wasm::code_cache::CodeKey) -> Option<Vec<u8>> {
            Some(self.0.clone())
        }
        fn store(&self, _: &cyclotron_wasm::code_cache::CodeKey, _: &[u8]) {}
        fn discard(&self, _: &cyclotron_wasm::code_cache::CodeKey, _: Damage) {}
    }
    let engine = Engine::new(EngineConfig { rules: Rules::canister(), ..config() }).unwrap();
    assert!(engine.keep_code_in(Arc::new(Always(bytes))) && !engine.keep_code_in(Arc::<Memory>::default()));
    assert_eq!(engine.compile(&importing).unwrap_err(), refused);
    assert!(engine.compile(&wat::parse_str("(module)").unwrap()).is_ok());
}

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus::read("compiled_code"));

#[test]
fn the_fuzz_targets_corpus_holds_code_and_damaged_code() {
    let taken = CORPUS.iter().filter(|input| compiled_code::check(input)).count();
    assert!(taken >= 3 && CORPUS.len() >= taken + 3, "{taken} of {}", CORPUS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn mutations_hold(which: prop::sample::Index, edits in corpus::edits()) {
        compiled_code::check(&corpus::edited(&CORPUS, which, &edits));
    }
}
