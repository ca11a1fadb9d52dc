//! What profilers are told of compiled code: samples of who runs, and the map of `perf`. In a process of its own: both are process-wide.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cyclotron_types::units::Instructions;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};
use cyclotron_wasm::sampler::Sampler;
use cyclotron_wasm::validate::{Given, Rules};
use cyclotron_wasm::{Engine, EngineConfig, Standalone, write_perf_map};
use std::time::{Duration, Instant};
use wasmparser::FuncType;

const MODULE: &str = r#"(module
    (import "env" "spin" (func $spin))
    (memory 1)
    (func $inner (param $n i32)
        (loop $again
            (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 3)))
            (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
    (func $outer (export "compute") (param i32)
        (call $inner (local.get 0)))
    (func (export "unnamed") (param i32)
        (call $inner (local.get 0)))
    (func $waits (export "wait") (param i32)
        (call $spin)))"#;

/// A host whose function takes its time.
struct Slow;

impl Host for Slow {
    fn call(&mut self, _: &mut Caller<'_>, _: HostFn, _: &[u64]) -> Result<u64, HostTrap> {
        let ends = Instant::now() + Duration::from_millis(50);
        while Instant::now() < ends {
            std::hint::spin_loop();
        }
        Ok(0)
    }
}

fn engine() -> Engine {
    let spin = (("env".to_owned(), "spin".to_owned()), Given::Function(FuncType::new([], [])));
    Engine::new(EngineConfig::with_rules(Rules::plain([spin]))).unwrap()
}

/// Calls an export over and over for a while.
fn keep_calling(instance: &mut Standalone, export: &str) {
    let ends = Instant::now() + Duration::from_millis(400);
    while Instant::now() < ends {
        let args = [Value::I32(1_000_000)];
        let slice = || Instructions(1 << 40);
        let (run, _) = instance.run_limited(Entry::Export(export), &args, Slow, Instructions(1 << 40), slice).unwrap();
        run.result.unwrap();
    }
}

#[test]
fn samples_show_who_runs_and_who_called_it_by_wasm_names() {
    let sampler = Sampler::start(1_000, None).unwrap();
    let module = engine().compile(&wat::parse_str(MODULE).unwrap()).unwrap();
    let name: String = module.hash()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut instance = Standalone::new(module, Slow).unwrap().0;
    for export in ["compute", "unnamed", "wait"] {
        keep_calling(&mut instance, export);
    }
    // Other threads are sampled too, and may end at any time.
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let module = engine().compile(&wat::parse_str(MODULE).unwrap()).unwrap();
                keep_calling(&mut Standalone::new(module, Slow).unwrap().0, "compute");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let samples = sampler.stop();
    let folded = samples.folded();
    let count = |stack: &str| samples.stacks.get(&format!("module {name};{stack}")).copied().unwrap_or(0);
    // Where the name section has no name, the export has one. What the processor's time went to is where most samples are.
    for stack in ["outer;inner", "unnamed;inner", "waits;env.spin;[node]"] {
        assert!(count(stack) >= 40, "{stack} was found {} times in\n{folded}", count(stack));
    }
    let known = count("outer;inner") + count("unnamed;inner") + count("waits;env.spin;[node]");
    assert!(
        known * 10 >= samples.total() * 9,
        "{known} of {} samples are where the time is:\n{folded}",
        samples.total()
    );
}

#[test]
fn the_map_of_perf_says_where_each_function_lies() {
    let path = write_perf_map().unwrap();
    // Unlike any that another test compiles.
    let text = MODULE.replace("(memory 1)", "(memory 2)");
    let module = engine().compile(&wat::parse_str(&text).unwrap()).unwrap();
    let name: String = module.hash()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let map = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for (function, symbol) in [(0, "env.spin"), (1, "inner"), (2, "outer"), (3, "unnamed"), (4, "waits")] {
        let line = map.lines().find(|line| line.ends_with(&format!(" {symbol} [module {name}]"))).unwrap();
        let mut fields = line.split(' ').map(|field| usize::from_str_radix(field, 16).unwrap_or(0));
        assert_eq!(fields.next(), Some(module.code().function(function).unwrap() as usize), "{line}");
        assert!(fields.next().is_some_and(|size| size > 0), "{line}");
    }
}
