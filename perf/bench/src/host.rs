//! Suite `host`: calls from Wasm into the System API, as a canister's update makes them.
//!
//! Ours is `systems/execution` as the node runs it, charges included; the peer is a wasmtime import that does the same work on
//! plain data. A loop in Wasm makes the calls; what the loop costs without them is subtracted.

use crate::machine::Clock;
use crate::report::{Bound, Report};
use crate::runner::{Failure, Runner, Sample, Subject, Unit, failed};
use cyclotron_execution::install::{Install, InstallStep, Mode, start_install};
use cyclotron_execution::{
    CanisterBundle, ExecutionLimits, InstructionLimits, Job, Machine, RoundEnv, Step, SubnetConfig, start,
};
use cyclotron_types::Principal;
use cyclotron_types::fees::Fees;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::{Ingress, IngressStatus, Message};
use cyclotron_types::units::{Bytes, Cycles, Height, Instructions, Time};
use cyclotron_wasm::{Engine, EngineConfig};
use std::sync::Arc;
use wasmtime::{Caller, Extern, Linker, Store, TypedFunc};

/// System API functions with what the loop does in Wasm.
const CASES: [(&str, &str); 3] = [
    ("msg_caller_size", "(drop (call $msg_caller_size))"),
    ("msg_arg_data_copy_32", "(call $msg_arg_data_copy (i32.const 64) (i32.const 16) (i32.const 32))"),
    ("stable64_write_8", "(call $stable64_write (i64.const 24) (i64.const 64) (i64.const 8))"),
];
const ARG: [u8; 64] = [3; 64];
const PEER: &str = "wasmtime";

/// An export for each case and one for the empty loop, each of which makes `calls` calls.
fn module(calls: u32) -> Result<Vec<u8>, Failure> {
    let mut text = String::from(
        r#"(module
        (import "ic0" "msg_caller_size" (func $msg_caller_size (result i32)))
        (import "ic0" "msg_arg_data_copy" (func $msg_arg_data_copy (param i32 i32 i32)))
        (import "ic0" "stable64_write" (func $stable64_write (param i64 i64 i64)))
        (import "ic0" "stable64_grow" (func $stable64_grow (param i64) (result i64)))
        (import "ic0" "msg_reply" (func $msg_reply))
        (memory (export "memory") 1)
        (func (export "canister_init") (drop (call $stable64_grow (i64.const 1))))"#,
    );
    for (name, body) in CASES.into_iter().chain([("empty", "")]) {
        text.push_str(&format!(
            r#"(func (export "canister_update {name}") (local $left i32)
                (local.set $left (i32.const {calls}))
                (loop $next {body} (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                (call $msg_reply))"#
        ));
    }
    text.push(')');
    wat::parse_str(text).map_err(failed)
}

pub fn run(runner: &Runner, report: &mut Report) -> Result<(), Failure> {
    let calls = runner.size(2_000_000, 50_000);
    let wasm = module(calls)?;
    report.suite("host", "ns a call, the empty loop subtracted; ratios to a wasmtime import");
    let (mut ours, mut peer) = (Canister::new(&wasm, runner.clock)?, Peer::new(&wasm, runner.clock)?);
    let per_call = |with: f64, without: f64| Sample {
        value: Unit::Ns.of_seconds(with - without).max(0.0) / f64::from(calls),
        check: 0,
    };
    for (case, _) in CASES {
        if !runner.wants(case) {
            continue;
        }
        let subjects = vec![
            Subject::new("cyclotron", || Ok(per_call(ours.update(case)?, ours.update("empty")?))),
            Subject::new(PEER, || Ok(per_call(peer.update(case)?, peer.update("empty")?))),
        ];
        let measured = runner.measure(case, Unit::Ns, subjects)?;
        report.case(case, Unit::Ns, PEER, &measured);
    }
    if let Some(size) = report.median("msg_caller_size", "cyclotron") {
        report.goal("msg_caller_size", size, Bound::AtMost(5.0));
    }
    Ok(())
}

/// A canister without a subnet.
struct Canister {
    env: RoundEnv,
    id: CanisterId,
    bundle: CanisterBundle,
    clock: Clock,
}

impl Canister {
    fn new(wasm: &[u8], clock: Clock) -> Result<Self, Failure> {
        let engine = Engine::new(EngineConfig::canister()).map_err(failed)?;
        let unlimited = InstructionLimits::unsliced(Instructions(1 << 40));
        let limits = ExecutionLimits { message: unlimited, install: unlimited, ..ExecutionLimits::default() };
        let subnet = SubnetConfig {
            subnet: Principal::self_authenticating([1; 32]),
            root_key: vec![0; 133],
            fees: Fees::for_nodes(13),
            limits,
        };
        let env = RoundEnv {
            subnet: Arc::new(subnet),
            machine: Arc::new(Machine::new(engine, 16).map_err(failed)?),
            time: Time(1_700_000_000_000_000_000),
            height: Height(1),
            randomness: [0; 32],
            memory_used: Bytes::ZERO,
            memory_available: Bytes(100 << 30),
        };
        let mut bundle = CanisterBundle::default();
        bundle.balance.0 = Cycles(1 << 100);
        bundle.paid_until.0 = env.time;
        let mut canister = Self { id: CanisterId::from_u64(1), env, bundle, clock };
        canister.install(wasm)?;
        Ok(canister)
    }

    fn install(&mut self, wasm: &[u8]) -> Result<(), Failure> {
        let install = Install {
            mode: Mode::Fresh,
            module: self.env.machine.engine.compile(wasm).map_err(failed)?,
            module_hash: [1; 32],
            module_bytes: Bytes(wasm.len() as u64),
            caller: Principal::anonymous(),
            arg: Vec::new(),
            limit: self.env.subnet.limits.install.message,
            used: Instructions::ZERO,
            held: Cycles::ZERO,
        };
        match start_install(&self.env, &mut self.bundle.borrow(self.id), install) {
            InstallStep::Done(outcome) => outcome.result.map_err(|failure| Failure(format!("{failure:?}"))),
            InstallStep::Suspended { .. } => Err(Failure("suspended without a limit".into())),
        }
    }

    /// Runs an update of a user; seconds.
    fn update(&mut self, method: &str) -> Result<f64, Failure> {
        let ingress = Ingress {
            id: MessageId([1; 32]),
            sender: Principal::self_authenticating([2; 32]),
            receiver: self.id,
            effective_canister: Some(self.id),
            method: method.into(),
            arg: ARG.to_vec(),
            expiry: Time(u64::MAX),
            nonce_bytes: 0,
        };
        let job = Job::Message(Message::Ingress(ingress));
        let mut canister = self.bundle.borrow(self.id);
        let (seconds, step) = self.clock.time(|| start(&self.env, &mut canister, job));
        match step {
            Step::Done(outcome) => match outcome.effects.ingress {
                Some((_, IngressStatus::Replied(_))) => Ok(seconds),
                other => Err(Failure(format!("no reply: {other:?}"))),
            },
            Step::Suspended { .. } => Err(Failure("suspended without a limit".into())),
        }
    }
}

/// What the peer's imports work on.
struct Data {
    instructions: i64,
    caller: Vec<u8>,
    arg: Vec<u8>,
    stable: Vec<u8>,
}

impl Data {
    fn charge(&mut self, instructions: i64) -> wasmtime::Result<()> {
        self.instructions -= instructions;
        if self.instructions < 0 { Err(wasmtime::format_err!("out of instructions")) } else { Ok(()) }
    }
}

/// The same exports in wasmtime.
struct Peer {
    store: Store<Data>,
    instance: wasmtime::Instance,
    clock: Clock,
}

impl Peer {
    fn new(wasm: &[u8], clock: Clock) -> Result<Self, Failure> {
        let engine = wasmtime::Engine::new(&crate::wasmtime_peer::NAN.config()).map_err(failed)?;
        let module = wasmtime::Module::new(&engine, wasm).map_err(failed)?;
        let mut linker: Linker<Data> = Linker::new(&engine);
        import(&mut linker).map_err(failed)?;
        let data = Data { instructions: i64::MAX, caller: vec![2; 29], arg: ARG.to_vec(), stable: vec![0; 65_536] };
        let mut store = Store::new(&engine, data);
        let instance = linker.instantiate(&mut store, &module).map_err(failed)?;
        Ok(Self { store, instance, clock })
    }

    fn update(&mut self, method: &str) -> Result<f64, Failure> {
        let name = format!("canister_update {method}");
        let function: TypedFunc<(), ()> = self.instance.get_typed_func(&mut self.store, &name).map_err(failed)?;
        let (seconds, result) = self.clock.time(|| function.call(&mut self.store, ()));
        result.map(|()| seconds).map_err(failed)
    }
}

fn import(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let memory = |caller: &mut Caller<'_, Data>| match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => Err(wasmtime::format_err!("no memory")),
    };
    let bounds = || wasmtime::format_err!("out of bounds");
    linker.func_wrap("ic0", "msg_caller_size", |mut caller: Caller<'_, Data>| -> wasmtime::Result<u32> {
        caller.data_mut().charge(500)?;
        Ok(caller.data().caller.len() as u32)
    })?;
    linker.func_wrap(
        "ic0",
        "msg_arg_data_copy",
        move |mut caller: Caller<'_, Data>, to: u32, from: u32, len: u32| -> wasmtime::Result<()> {
            caller.data_mut().charge(500 + i64::from(len))?;
            let (heap, data) = memory(&mut caller)?.data_and_store_mut(&mut caller);
            let (from, to, len) = (from as usize, to as usize, len as usize);
            let bytes = data.arg.get(from..from + len).ok_or_else(bounds)?;
            heap.get_mut(to..to + len).ok_or_else(bounds)?.copy_from_slice(bytes);
            Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "stable64_write",
        move |mut caller: Caller<'_, Data>, to: u64, from: u64, len: u64| -> wasmtime::Result<()> {
            caller.data_mut().charge(500 + len as i64)?;
            let (heap, data) = memory(&mut caller)?.data_and_store_mut(&mut caller);
            let (from, to, len) = (from as usize, to as usize, len as usize);
            let bytes = heap.get(from..from + len).ok_or_else(bounds)?;
            data.stable.get_mut(to..to + len).ok_or_else(bounds)?.copy_from_slice(bytes);
            Ok(())
        },
    )?;
    linker.func_wrap("ic0", "stable64_grow", |_: u64| 0_u64)?;
    linker.func_wrap("ic0", "msg_reply", || ())?;
    Ok(())
}
