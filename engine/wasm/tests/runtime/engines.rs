//! Modules and their cache.

use std::sync::Arc;

use cyclotron_wasm::code::{code_bytes_mapped, lookup};
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
        let mut instance = Standalone::new(module, engine.tracking(), NoHost).unwrap().0;
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
    let mut instance = Standalone::new(zipped, engine.tracking(), NoHost).unwrap().0;
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
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let module = engine().compile(&wasm).unwrap();
                    module.code().tables().functions().iter().flat_map(|f| f.len.to_le_bytes()).collect::<Vec<u8>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(bytes.iter().all(|other| *other == bytes[0]));
}
