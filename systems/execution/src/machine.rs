//! The engine as execution uses it: compiled modules, seats, memories.
//!
//! Enters: the process's engine. Leaves: [`Machine`]. Never here: anything that a replica must agree on.

/// What runs Wasm in this process. Shared by all threads; its parts are pools.
#[derive(Debug, Default)]
pub struct Machine {}
