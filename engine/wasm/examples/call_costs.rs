//! What crossing the borders costs: an empty message, host calls, attaching to a seat.
//!
//! `cargo run --release -p cyclotron-wasm --example call_costs`
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]

use std::hint::black_box;
use std::time::Instant;

use cyclotron_types::units::Instructions;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Outcome, Value};
use cyclotron_wasm::validate::{Given, Rules};
use cyclotron_wasm::{Engine, EngineConfig, Standalone};
use wasmparser::{FuncType, ValType::I32};

const CALLS: i32 = 10_000_000;
const MESSAGES: u32 = 1_000_000;
const ROUNDS: usize = 5;

/// A message's host: what `msg_caller_size`, `msg_arg_data_copy` need, and the charge of each.
struct Message {
    caller: [u8; 29],
    payload: [u8; 64],
}

impl Host for Message {
    #[inline]
    fn call(&mut self, caller: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap> {
        caller.charge(Instructions(500))?;
        match function.0 {
            0 => Ok(self.caller.len() as u64),
            _ => {
                caller.charge(Instructions(args[2]))?;
                let end = args[1].checked_add(args[2]).ok_or(HostTrap::Failed)?;
                let bytes = self.payload.get(args[1] as usize..end as usize).ok_or(HostTrap::Failed)?;
                caller.copy_in(args[0], bytes).map(|()| 0)
            }
        }
    }
}

const MODULE: &str = r#"(module
    (import "ic0" "msg_caller_size" (func $size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
    (memory 1) (table 16 funcref) (global $g (mut i32) (i32.const 0))
    (func (export "empty"))
    (func (export "store") (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
    (func (export "trap") unreachable)
    (func (export "host_trap") (call $copy (i32.const 64) (i32.const 60) (i32.const 32)))
    (func (export "loop") (param i32)
        (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "size") (param i32)
        (loop $l (drop (call $size)) (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "copy") (param i32)
        (loop $l (call $copy (i32.const 64) (i32.const 16) (i32.const 32))
            (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#;

fn message() -> Message {
    Message { caller: [7; 29], payload: [3; 64] }
}

/// Median of some rounds, in nanoseconds a piece.
fn measure(name: &str, pieces: f64, mut round: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_secs_f64() * 1e9 / pieces
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[ROUNDS / 2];
    println!("{name:28} {median:9.1} ns   ({:.1} .. {:.1})", times[0], times[ROUNDS - 1]);
    median
}

fn message_cost(instance: &mut Standalone, export: &str) {
    let entry = Entry::Function(instance.seated().module().export_function(export).unwrap());
    measure(&format!("message {export}"), f64::from(MESSAGES), || {
        for _ in 0..MESSAGES {
            let execution = instance.start(entry, &[], message(), Instructions(1 << 40)).unwrap();
            match execution.resume(Instructions(1 << 31)) {
                Outcome::Finished(finished) => instance.put_back(finished.seated, true),
                Outcome::Suspended(_) => unreachable!("the slice is large"),
            }
        }
    });
}

fn main() {
    let given =
        [("msg_caller_size", FuncType::new([], [I32])), ("msg_arg_data_copy", FuncType::new([I32, I32, I32], []))]
            .map(|(name, ty)| (("ic0".to_owned(), name.to_owned()), Given::Function(ty)));
    let engine = Engine::new(EngineConfig::with_rules(Rules::plain(given))).unwrap();
    let module = engine.compile(&wat::parse_str(MODULE).unwrap()).unwrap();
    let mut instance = Standalone::new(module, message()).unwrap().0;

    for export in ["empty", "store", "host_trap", "trap"] {
        message_cost(&mut instance, export);
    }
    measure("reseat", 100_000.0, || (0..100_000).for_each(|_| instance.reseat().unwrap()));

    let mut bare = 0.0;
    for export in ["loop", "size", "copy"] {
        let time = measure(&format!("iteration of {export}"), f64::from(CALLS), || {
            let entry = Entry::Export(export);
            let run = instance.run(entry, &[Value::I32(CALLS)], message()).unwrap().0;
            assert!(black_box(run).result.is_ok());
        });
        if export == "loop" {
            bare = time;
        } else {
            println!("{:28} {:9.1} ns", format!("  host call {export}"), time - bare);
        }
    }
}
