//! Code that went through bytes: compiled by one engine, kept, and loaded by another.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cyclotron_wasm::code_cache::{CodeCache, CodeKey, Damage};
use cyclotron_wasm::{Engine, EngineConfig, EngineError, Module};

/// A cache in memory.
#[derive(Default)]
pub struct Memory {
    /// What is kept.
    pub kept: Mutex<BTreeMap<CodeKey, Vec<u8>>>,
    /// What was found to be damaged.
    pub damage: Mutex<Vec<Damage>>,
}

impl CodeCache for Memory {
    fn load(&self, key: &CodeKey) -> Option<Vec<u8>> {
        self.kept.lock().expect("not poisoned").get(key).cloned()
    }

    fn store(&self, key: &CodeKey, bytes: &[u8]) {
        self.kept.lock().expect("not poisoned").insert(*key, bytes.to_vec());
    }

    fn discard(&self, key: &CodeKey, damage: Damage) {
        self.kept.lock().expect("not poisoned").remove(key);
        self.damage.lock().expect("not poisoned").push(damage);
    }
}

/// An engine that keeps its code in `memory`.
pub fn engine_on(memory: &Arc<Memory>, config: EngineConfig) -> Engine {
    let engine = Engine::new(config).expect("this processor");
    assert!(engine.keep_code_in(memory.clone()));
    engine
}

/// Two engines, the second of which loads what the first compiles.
pub struct Relay {
    memory: Arc<Memory>,
    compiling: Engine,
    loading: Engine,
}

impl Relay {
    /// Neither keeps modules in memory.
    pub fn new(config: EngineConfig) -> Self {
        let memory = Arc::<Memory>::default();
        let config = EngineConfig { cache_bytes: 0, ..config };
        Self { compiling: engine_on(&memory, config.clone()), loading: engine_on(&memory, config), memory }
    }

    /// What both are configured with.
    pub fn config(&self) -> &EngineConfig {
        self.compiling.config()
    }

    /// The module, on code that came back from bytes. Panics: when that is not the code that was compiled.
    pub fn module(&self, wasm: &[u8]) -> Result<Arc<Module>, EngineError> {
        self.memory.kept.lock().expect("not poisoned").clear();
        let fresh = self.compiling.compile(wasm)?;
        self.compiling.finish_keeping();
        let before = self.loading.code_counts();
        let loaded = self.loading.compile(wasm)?;
        let after = self.loading.code_counts();
        assert_eq!((after.compiled, after.loaded), (before.compiled, before.loaded + 1), "it was kept");
        assert!(same_code(&fresh, &loaded), "code comes back as it left");
        Ok(loaded)
    }
}

/// Whether two modules have the same code and tables.
pub fn same_code(one: &Module, other: &Module) -> bool {
    one.code().to_compiled(&one.shape().canonical_types) == other.code().to_compiled(&other.shape().canonical_types)
}
