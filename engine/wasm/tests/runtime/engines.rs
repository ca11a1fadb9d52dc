//! Modules and their cache.

use std::sync::Arc;

use cyclotron_wasm::abi::{NATIVE_BYTES_PER_SLOT, TrapCode};
use cyclotron_wasm::code::{code_bytes_mapped, lookup};
use cyclotron_wasm::engine::STACK_SLOTS_DEFAULT;
use cyclotron_wasm::runtime::Value;
use cyclotron_wasm::validate::Rules;
use cyclotron_wasm::{Engine, EngineConfig, Standalone};

use crate::{NoHost, call, engine};

fn numbered(number: usize) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (func $answer (export "go") (result i32) (i32.const {number})))"#)).unwrap()
}

#[test]
fn a_module_is_compiled_once_and_found_by_hash() {
    let engine = engine();
    let first = engine.compile(&numbered(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &engine.compile(&numbered(1)).unwrap()));
    assert!(Arc::ptr_eq(&first, &engine.cached(first.hash()).unwrap()));
    assert!(!Arc::ptr_eq(&first, &engine.compile(&numbered(2)).unwrap()));
}

#[test]
fn the_cache_is_bounded_and_what_it_drops_still_runs() {
    let mut config = EngineConfig::with_rules(Rules::plain([]));
    config.cache_bytes = 20 * engine().compile(&numbered(1)).unwrap().resident_bytes();
    let engine = Engine::new(config).unwrap();
    let modules: Vec<_> = (0..100).map(|number| engine.compile(&numbered(number)).unwrap()).collect();
    assert!(engine.cache_bytes() <= engine.config().cache_bytes);
    let kept = modules.iter().filter(|module| engine.cached(module.hash()).is_some()).count();
    assert!((15..=20).contains(&kept), "{kept}");
    for (number, module) in modules.into_iter().enumerate() {
        let mut instance = Standalone::new(module, NoHost).unwrap().0;
        assert_eq!(call(&mut instance, "go", &[]).result, Ok(vec![Value::I32(number as i32)]));
    }
}

#[test]
fn code_lives_as_long_as_its_module() {
    let engine = engine();
    let module = engine.compile(&numbered(3)).unwrap();
    let tables = module.code().tables();
    let (start, function) = (tables.start(), &tables.functions()[0]);
    let inside = start + function.offset as usize;
    assert_eq!(lookup(inside).and_then(|tables| tables.function_at(function.offset)), Some(0));
    assert_eq!(module.shape().function_name(0), Some("answer"));
    assert!(code_bytes_mapped() > 0);
    drop(engine);
    assert!(lookup(inside).is_some(), "the module is still held");
    drop(module);
}

#[test]
fn broken_bytes_are_errors() {
    let good = numbered(4);
    let engine = engine();
    for end in 0..good.len() {
        // A shorter module may still be one; it must not bring anything down.
        let _ = engine.compile(&good[..end]);
    }
    assert!(engine.compile(b"").is_err());
    assert!(engine.compile(b"\0asm\x01\0\0\0\xff").is_err());
}

#[test]
fn gzipped_modules_are_modules_of_another_hash() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&numbered(5)).unwrap();
    let engine = engine();
    let zipped = engine.compile(&encoder.finish().unwrap()).unwrap();
    assert_ne!(zipped.hash(), engine.compile(&numbered(5)).unwrap().hash());
    let mut instance = Standalone::new(zipped, NoHost).unwrap().0;
    assert_eq!(call(&mut instance, "go", &[]).result, Ok(vec![Value::I32(5)]));
}

#[test]
fn eight_threads_compile_the_same_module_to_the_same_code() {
    let text: String = (0..200)
        .map(|at| {
            format!("(func (export \"f{at}\") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {at})))")
        })
        .collect();
    let wasm = wat::parse_str(format!("(module {text})")).unwrap();
    let bytes: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| engine().compile(&wasm).unwrap().code().bytes().to_vec())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(bytes.iter().all(|other| *other == bytes[0]));
}

/// A function of one parameter that computes `count` things, and then all of them once more: to keep them for that takes `count` places.
fn repetitive(count: u64) -> Vec<u8> {
    use std::fmt::Write;
    let mut sums = String::new();
    for _ in 0..2 {
        for at in 0..count {
            let (factor, other) = (2 * at + 3, at ^ 0x55);
            write!(
                sums,
                "(local.set $sum (i64.add (i64.rotl (local.get $sum) (i64.const 1))
                    (i64.rotl (i64.mul (local.get $x) (i64.const {factor})) (i64.xor (local.get $x) (i64.const {other})))))"
            )
            .unwrap();
        }
    }
    let text = format!(
        r#"(module
            (func $go (export "go") (param $x i64) (result i64) (local $sum i64) {sums} (local.get $sum))
            (func $deep (export "deep") (param $x i64) (result i64) (local $sum i64)
                {sums} (i64.add (call $deep (local.get $x)) (local.get $sum))))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn a_function_whose_frame_optimization_makes_large_runs_all_the_same() {
    const COUNT: u64 = 600;
    let engine = engine();
    let module = engine.compile(&repetitive(COUNT)).unwrap();
    let usual = (STACK_SLOTS_DEFAULT * NATIVE_BYTES_PER_SLOT) as usize;
    assert!(module.stack_needed().frames_bytes <= usual, "{:?}", module.stack_needed());
    let mut instance = Standalone::new(module, NoHost).unwrap().0;
    let x = 0x1234_5678_9abc_def1u64;
    let expected = (0..2 * COUNT).fold(0u64, |sum, at| {
        let (factor, other) = (2 * (at % COUNT) + 3, (at % COUNT) ^ 0x55);
        sum.rotate_left(1).wrapping_add(x.wrapping_mul(factor).rotate_left((x ^ other) as u32 & 63))
    });
    assert_eq!(call(&mut instance, "go", &[Value::I64(x as i64)]).result, Ok(vec![Value::I64(expected as i64)]));
    let deep = call(&mut instance, "deep", &[Value::I64(x as i64)]);
    assert_eq!(
        deep.result.unwrap_err().code,
        TrapCode::StackOverflow,
        "the limit in slots comes before the stack's end"
    );
}

#[test]
fn elements_and_names_that_nothing_can_use_take_no_memory() {
    use wasm_encoder::{
        CodeSection, ElementSection, Elements, Function, FunctionSection, Module, NameMap, NameSection, TypeSection,
    };
    let module = |elements: usize, names: u32| {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut segments = ElementSection::new();
        segments.passive(Elements::Functions(vec![0; elements].into()));
        let mut code = CodeSection::new();
        let mut body = Function::new([]);
        body.instructions().end();
        code.function(&body);
        let mut map = NameMap::new();
        (0..names).for_each(|index| map.append(index, "f"));
        let mut section = NameSection::new();
        section.functions(&map);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&segments).section(&code).section(&section);
        Engine::new(EngineConfig::canister()).unwrap().compile(&module.finish()).unwrap()
    };
    let large = module(1_000_000, 100_000);
    let without_wasm = |module: &cyclotron_wasm::Module| module.resident_bytes() - module.wasm().len();
    assert_eq!(without_wasm(&large), without_wasm(&module(0, 1)));
    assert_eq!(large.shape().function_name(0), Some("f"));
}
