//! Our engine as a subject: one instance, one export, one message a call.
//!
//! Enters: Wasm, what code to make. Leaves: results of calls. Never here: a canister; the suites `host` and `round` have those.

use crate::runner::{Failure, failed};
use cyclotron_types::units::Instructions;
use cyclotron_wasm::lower::{Config, Tracking};
use cyclotron_wasm::runtime::{Caller, Entry, Host, HostFn, HostTrap, Value};
use cyclotron_wasm::validate::Rules;
use cyclotron_wasm::{Engine, EngineConfig, Standalone, TrackingPolicy};
use std::time::{Duration, Instant};

/// A way of compiling.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name of the subject.
    pub name: &'static str,
    metering: bool,
    tracking: Tracking,
    adapt: bool,
}

/// What canisters run on: cards are tested until the engine finds that protected pages suit an instance better.
pub const CYCLOTRON: Variant = Variant { name: "cyclotron", adapt: true, ..CARDS };
/// Cards are tested, whatever an instance does.
pub const CARDS: Variant = Variant { name: "cyclotron-cards", metering: true, tracking: Tracking::Cards, adapt: false };
/// Stores are not noticed.
pub const UNTRACKED: Variant = Variant { name: "cyclotron-untracked", tracking: Tracking::None, ..CARDS };
/// Instructions are not counted.
pub const UNMETERED: Variant = Variant { name: "cyclotron-unmetered", metering: false, ..CARDS };
/// Neither: what the lowering itself comes to.
pub const BARE: Variant = Variant { name: "cyclotron-bare", metering: false, tracking: Tracking::None, ..CARDS };
/// Stores are noticed by page protection.
pub const PROTECT: Variant = Variant { name: "cyclotron-protect", tracking: Tracking::Protect, ..CARDS };

impl Variant {
    /// An engine that compiles this way, for modules without imports.
    pub fn engine(self) -> Result<Engine, Failure> {
        let code = Config { metering: self.metering, tracking: self.tracking, verify: false, calls: false };
        let tracking = TrackingPolicy { adapt: self.adapt, ..TrackingPolicy::default() };
        Engine::new(EngineConfig { code, tracking, ..EngineConfig::with_rules(Rules::plain([])) }).map_err(failed)
    }
}

/// Longer than a kernel runs before the engine compiles it again, and that takes.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

/// The host of a module without imports.
pub struct NoHost;

impl Host for NoHost {
    fn call(&mut self, _: &mut Caller<'_>, _: HostFn, _: &[u64]) -> Result<u64, HostTrap> {
        Err(HostTrap::Failed)
    }
}

/// An instance of a module without imports.
pub struct Instance {
    engine: Engine,
    standalone: Standalone,
}

impl Instance {
    /// Compiles and instantiates.
    pub fn new(variant: Variant, wasm: &[u8]) -> Result<Self, Failure> {
        let engine = variant.engine()?;
        let module = engine.compile(wasm).map_err(failed)?;
        let (standalone, _) = Standalone::new(module, NoHost).map_err(failed)?;
        Ok(Self { engine, standalone })
    }

    /// Calls an export until the engine has had time to give the instance the code that suits it. Whether it runs on protected pages then.
    pub fn settle(&mut self, export: &str, args: &[Value]) -> Result<bool, Failure> {
        let start = Instant::now();
        while start.elapsed() < SETTLED_AFTER {
            self.call(export, args)?;
        }
        Ok(self.standalone.seated().module().tracking() == cyclotron_heap::Tracking::Protect)
    }

    /// Calls an export as one message, whose changes are kept; its result, or 0 when it has none.
    pub fn call(&mut self, export: &str, args: &[Value]) -> Result<u64, Failure> {
        self.standalone.adapt(&self.engine).map_err(failed)?;
        let (run, _) = self
            .standalone
            .run_limited(Entry::Export(export), args, NoHost, Instructions::MAX, || Instructions::MAX)
            .map_err(failed)?;
        match run.result.map_err(failed)?.first() {
            Some(Value::I64(value)) => Ok(*value as u64),
            Some(Value::I32(value)) => Ok(u64::from(*value as u32)),
            _ => Ok(0),
        }
    }
}
