//! Wasmtime as a peer, at its default optimisation.
//!
//! Enters: Wasm. Leaves: results of calls. Never here: anything that our own engine runs on.

use crate::runner::{Failure, failed};
use wasmtime::{Config, Engine, Instance, Module, Store, TypedFunc};

/// A way of configuring wasmtime.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name of the subject.
    pub name: &'static str,
    canonical_nans: bool,
    fuel: bool,
}

/// As it comes.
pub const PLAIN: Variant = Variant { name: "wasmtime", canonical_nans: false, fuel: false };
/// With the NaNs that replicas need.
pub const NAN: Variant = Variant { name: "wasmtime-nan", canonical_nans: true, fuel: false };
/// With its own metering.
pub const FUEL: Variant = Variant { name: "wasmtime-fuel", canonical_nans: false, fuel: true };

impl Variant {
    /// The configuration.
    pub fn config(self) -> Config {
        let mut config = Config::new();
        config.cranelift_nan_canonicalization(self.canonical_nans).consume_fuel(self.fuel);
        config
    }
}

/// An instance of a module without imports.
pub struct Peer {
    store: Store<()>,
    instance: Instance,
}

impl Peer {
    /// Compiles and instantiates.
    pub fn new(variant: Variant, wasm: &[u8]) -> Result<Self, Failure> {
        let engine = Engine::new(&variant.config()).map_err(failed)?;
        let module = Module::new(&engine, wasm).map_err(failed)?;
        let mut store = Store::new(&engine, ());
        if variant.fuel {
            store.set_fuel(u64::MAX).map_err(failed)?;
        }
        let instance = Instance::new(&mut store, &module, &[]).map_err(failed)?;
        Ok(Self { store, instance })
    }

    /// An export of type `(i32) -> i64`, found once and called often.
    pub fn function(mut self, export: &str) -> Result<impl FnMut(u32) -> Result<u64, Failure>, Failure> {
        let function: TypedFunc<u32, u64> = self.instance.get_typed_func(&mut self.store, export).map_err(failed)?;
        Ok(move |n| function.call(&mut self.store, n).map_err(failed))
    }
}
