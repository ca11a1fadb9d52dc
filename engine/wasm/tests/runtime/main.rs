//! The runtime from outside: executions, traps, rollback, slices, hosts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adaptive;
mod calls;
mod cold;
mod engines;
mod executions;
mod faults;
mod hosts;
mod slices;
mod traps;
mod views;

use cyclotron_types::units::Instructions;
use cyclotron_wasm::lower::Tracking;
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};
use cyclotron_wasm::validate::{Given, Rules};
use cyclotron_wasm::{Engine, EngineConfig, Run, Standalone};
use wasmparser::{FuncType, ValType};

/// A host without functions.
pub(crate) struct NoHost;

impl Host for NoHost {
    fn call(&mut self, _: &mut Caller<'_>, _: HostFn, _: &[u64]) -> Result<u64, HostTrap> {
        Err(HostTrap::Failed)
    }
}

pub(crate) fn engine_with(imports: &[(&str, &[ValType], &[ValType])]) -> Engine {
    let given = imports.iter().map(|(name, params, results)| {
        let ty = FuncType::new(params.iter().copied(), results.iter().copied());
        (("env".to_owned(), (*name).to_owned()), Given::Function(ty))
    });
    Engine::new(EngineConfig::with_rules(Rules::plain(given))).unwrap()
}

pub(crate) fn engine() -> Engine {
    engine_with(&[])
}

/// Engines of both ways to notice first writes.
pub(crate) fn tracking_engines() -> [Engine; 2] {
    [Tracking::Cards, Tracking::Protect].map(|tracking| {
        let mut config = EngineConfig::with_rules(Rules::plain([]));
        config.code.tracking = tracking;
        Engine::new(config).unwrap()
    })
}

pub(crate) fn standalone_of(engine: &Engine, text: &str) -> Standalone {
    let module = engine.compile(&wat::parse_str(text).unwrap()).unwrap();
    Standalone::new(module, NoHost).unwrap().0
}

pub(crate) fn standalone(text: &str) -> Standalone {
    standalone_of(&engine(), text)
}

/// Calls an export without limit and without host.
pub(crate) fn call(instance: &mut Standalone, export: &str, args: &[Value]) -> Run {
    instance.run(Entry::Export(export), args, NoHost).unwrap().0
}

/// Calls an export in slices.
pub(crate) fn call_sliced(instance: &mut Standalone, export: &str, args: &[Value], limit: u64, slice: u64) -> Run {
    let slice = || Instructions(slice);
    instance.run_limited(Entry::Export(export), args, NoHost, Instructions(limit), slice).unwrap().0
}
