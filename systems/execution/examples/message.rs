//! What the kernel costs a message: `cargo run --release -p cyclotron-execution --example message`.
//!
//! One canister, one thread, no scheduler, no certification. Prints nanoseconds, the median of several runs.

use cyclotron_execution::install::{Install, InstallStep, Mode, start_install};
use cyclotron_execution::query::{QueryCall, query};
use cyclotron_execution::{
    CanisterBundle, ExecutionLimits, Job, Machine, Outgoing, PublishedCanister, RoundEnv, Step, SubnetConfig, start,
};
use cyclotron_types::Principal;
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::{Ingress, Message};
use cyclotron_types::units::{Bytes, Cycles, Height, Instructions, Time};
use cyclotron_wasm::{Engine, EngineConfig};
use std::sync::Arc;
use std::time::Instant;

const WAT: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_caller_size" (func $size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "canister_self_copy" (func $self (param i32 i32 i32)))
    (import "ic0" "canister_self_size" (func $self_size (result i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_perform" (func $perform (result i32)))
    (table funcref (elem $on_reply))
    (memory 1)
    (data (i32.const 0) "none")
    (global $n (mut i32) (i32.const 0))
    (func (export "canister_update none") (call $reply))
    (func (export "canister_query peek") (call $reply))
    (func (export "canister_update count")
        (i32.store (i32.const 64) (i32.add (i32.const 1) (i32.load (i32.const 64)))) (call $reply))
    (func (export "canister_update empty") (global.set $n (i32.const 1000000))
        (loop $l (br_if $l (call $next))) (call $reply))
    (func (export "canister_update size") (global.set $n (i32.const 1000000))
        (loop $l (drop (call $size)) (br_if $l (call $next))) (call $reply))
    (func (export "canister_update arg") (global.set $n (i32.const 1000000))
        (loop $l (call $arg (i32.const 128) (i32.const 0) (i32.const 32)) (br_if $l (call $next))) (call $reply))
    (func (export "canister_update stable") (global.set $n (i32.const 1000000)) (drop (call $grow (i64.const 1)))
        (loop $l (call $write (i64.const 64) (i64.const 0) (i64.const 8)) (br_if $l (call $next))) (call $reply))
    (func $next (result i32) (global.set $n (i32.sub (global.get $n) (i32.const 1))) (global.get $n))
    (func $on_reply (param i32) (call $reply))
    (func (export "canister_update call")
        (call $self (i32.const 100) (i32.const 0) (call $self_size))
        (call $call_new (i32.const 100) (call $self_size) (i32.const 0) (i32.const 4)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (if (call $perform) (then unreachable))))"#;

struct Bench {
    env: RoundEnv,
    id: CanisterId,
    bundle: CanisterBundle,
    next: u64,
}

impl Bench {
    /// Runs an update call and everything that follows from it.
    fn update(&mut self, method: &str) {
        self.next += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.next.to_be_bytes());
        let mut job = Some(Message::Ingress(Ingress {
            id: MessageId(id),
            sender: Principal::anonymous(),
            receiver: self.id,
            effective_canister: Some(self.id),
            method: method.into(),
            arg: vec![0; 32],
            expiry: Time(u64::MAX),
            nonce_bytes: 0,
        }));
        while let Some(message) = job.take() {
            let Step::Done(outcome) = start(&self.env, &mut self.bundle.borrow(self.id), Job::Message(message)) else {
                panic!("the slice is large enough");
            };
            job = outcome.effects.outgoing.into_iter().next().map(|outgoing| match outgoing {
                Outgoing::Request(request) => Message::Request(request),
                Outgoing::Response(response) => Message::Response(response),
            });
        }
    }
}

/// Nanoseconds per call of `work`, median of 9 runs of `count` calls.
fn measure(count: u32, mut work: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..9)
        .map(|_| {
            let begin = Instant::now();
            (0..count).for_each(|_| work());
            begin.elapsed().as_nanos() as f64 / f64::from(count)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[4]
}

fn main() {
    let engine = Engine::new(EngineConfig::canister()).expect("an engine");
    let bytes = wat::parse_str(WAT).expect("valid text");
    let module = engine.compile(&bytes).expect("a valid module");
    let subnet = SubnetConfig {
        subnet: Principal::management_canister(),
        root_key: Vec::new(),
        fees: Fees::for_nodes(13),
        limits: ExecutionLimits::default(),
    };
    let env = RoundEnv {
        subnet: Arc::new(subnet),
        machine: Arc::new(Machine::new(engine, 64).expect("memory")),
        time: Time(1),
        height: Height(1),
        randomness: [0; 32],
        memory_used: Bytes(0),
        memory_available: Bytes(1 << 40),
    };
    let mut bench = Bench { env, id: CanisterId::from_u64(1), bundle: CanisterBundle::default(), next: 0 };
    bench.bundle.balance.0 = Cycles(1 << 100);
    bench.bundle.paid_until.0 = Time(1);
    let install = Install {
        mode: Mode::Fresh,
        module,
        module_hash: [0; 32],
        module_bytes: Bytes(bytes.len() as u64),
        caller: Principal::anonymous(),
        arg: Vec::new(),
        limit: Instructions(1_000_000_000),
        used: Instructions::ZERO,
        held: Cycles::ZERO,
    };
    let InstallStep::Done(outcome) = start_install(&bench.env, &mut bench.bundle.borrow(bench.id), install) else {
        panic!("the slice is large enough");
    };
    outcome.result.expect("it installs");

    for method in ["none", "count", "peek", "call"] {
        println!("update {method:8} {:8.0} ns", measure(20_000, || bench.update(method)));
    }
    let empty = measure(3, || bench.update("empty"));
    for method in ["size", "arg", "stable"] {
        let whole = measure(3, || bench.update(method));
        println!("host   {method:8} {:8.2} ns", (whole - empty) / 1_000_000.0);
    }
    let env = Arc::new(bench.env.clone());
    let canister = Arc::new(PublishedCanister::publish(&mut bench.bundle.borrow(bench.id), Height(1), true, None));
    let nanos = measure(20_000, || {
        let call = QueryCall { method: "peek".into(), ..QueryCall::default() };
        query(&env, &canister, call).expect("it answers");
    });
    println!("query  {:8} {nanos:8.0} ns", "peek");
}
