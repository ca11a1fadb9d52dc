//! Random modules here and in wasmtime.
//!
//! CI compares a few thousand from fixed seeds; `SMITH_MODULES=100000 cargo test --release -p cyclotron-wasm --test differential`
//! compares more, `SMITH_SEED` starts elsewhere. A failure names its seed; seeds that once failed stay below.

#[path = "suite/kept.rs"]
mod kept;
#[path = "suite/oracle.rs"]
mod oracle;
#[path = "suite/reference.rs"]
mod reference;
#[path = "suite/transient.rs"]
mod transient;

use arbitrary::Unstructured;
use oracle::{Choices, Oracle, Tally};

/// Native stack of the comparing thread: wasmtime runs on it.
const STACK_BYTES: usize = 16 << 20;

/// Modules that CI compares.
const MODULES: u64 = 3_000;

/// Seeds that once failed.
const KEPT: &[u64] = &[64, 146, 175, 267, 269, 223_658, 265_364, 1_067_885, 1_074_007, 5_010_316];

/// The module of a seed.
fn module_of(choices: &mut Choices) -> Option<Vec<u8>> {
    let len = 200 + choices.next() as usize % 4_000;
    let bytes: Vec<u8> = (0..len).map(|_| choices.next() as u8).collect();
    let config = oracle::smith_config(choices);
    Some(wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).ok()?.to_bytes())
}

fn compare(oracle: &Oracle, seed: u64) -> Result<Option<Tally>, String> {
    let mut choices = Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let Some(wasm) = module_of(&mut choices) else { return Ok(None) };
    let tally = oracle.compare(&wasm, &mut choices);
    if tally.is_err()
        && let Ok(folder) = std::env::var("SMITH_KEEP")
    {
        std::fs::write(format!("{folder}/{seed}.wasm"), &wasm).expect("written");
    }
    tally.map(Some)
}

fn on_a_large_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// `SMITH_FILE=module.wat cargo test ...` compares one module, binary or text.
#[test]
fn a_module_of_ones_own_does_the_same() {
    let Ok(path) = std::env::var("SMITH_FILE") else { return };
    on_a_large_stack(move || {
        let wasm = wat::parse_file(&path).expect("a module");
        let tally = Oracle::new().compare(&wasm, &mut Choices(1)).unwrap_or_else(|difference| panic!("{difference}"));
        println!("{tally:?}");
    });
}

/// Instruction selection folds a load into its user; where that stands in a later metering segment (seed 265364), is an instruction that
/// Cranelift made itself (seed 223658), or lies behind another load that was folded too (seed 1067885), the trap must still be charged as
/// the load's own. So must a trap that Cranelift made of a branch to a block that only traps (seed 1074007).
#[test]
fn what_cranelift_folds_into_another_instruction_is_charged_in_its_own_segment() {
    on_a_large_stack(|| {
        for body in [
            "i32.const -1569817421 i32.load offset=48464 block end v128.load offset=27344 br 0 drop",
            "block end i32.const 2053821932 v128.load32_splat offset=409821 i64x2.extend_high_i32x4_u
             i8x16.extract_lane_u 2 f32.load offset=962416 drop i32.const 32767 drop",
            "i32.const -888854536 i64.load offset=56546 i64.popcnt i32.wrap_i64 block (param i32) (result i32) end
             global.get 0 i32.xor global.set 0",
            "block memory.size br_if 0 unreachable end block memory.size i32.eqz br_if 0 unreachable end",
        ] {
            let wat = format!(
                r#"(module (memory (export "m") 16 25) (global (mut i32) (i32.const 5)) (func (export "a") {body}))"#
            );
            let wasm = wat::parse_str(wat).expect("well-formed text");
            if let Err(difference) = Oracle::new().compare(&wasm, &mut Choices(1)) {
                panic!("{difference}");
            }
        }
    });
}

#[test]
fn random_modules_do_the_same_as_in_wasmtime_and_are_charged_by_the_reference() {
    on_a_large_stack(|| compare_all(&Oracle::new(), number("SMITH_MODULES", MODULES)));
}

#[test]
fn code_that_reports_its_calls_does_the_same_and_what_they_cost_adds_up() {
    on_a_large_stack(|| compare_all(&Oracle::reporting_calls(), number("SMITH_MODULES", MODULES / 4)));
}

fn compare_all(oracle: &Oracle, count: u64) {
    let first = number("SMITH_SEED", 1);
    let mut total = Tally::default();
    let mut made = 0;
    let mut failures = Vec::new();
    for seed in KEPT.iter().copied().chain(first..first + count) {
        match compare(oracle, seed) {
            Ok(Some(tally)) => {
                made += 1;
                total += tally;
            }
            Ok(None) => {}
            Err(difference) => failures.push(format!("seed {seed}: {difference}")),
        }
        if failures.len() >= 20 {
            break;
        }
    }
    println!("{made} modules: {total:?}");
    for failure in &failures {
        println!("{failure}");
    }
    assert!(failures.is_empty(), "{} modules differ", failures.len());
    // The comparison compares something.
    assert!(total.calls > made && total.traps > 0 && total.limits > 0 && total.traps < total.calls);
}
