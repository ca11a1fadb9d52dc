//! What a canister holds of its subnet: its memory by use, reservations.
//!
//! Enters: components and prices. Leaves: bytes and cycles. Never here: a change. Prices of time are in [`crate::charge`].

use super::history;
use super::view::CanisterView;
use crate::{Program, SubnetConfig, charge};
use cyclotron_types::limits;
use cyclotron_types::units::{Bytes, Cycles};

/// What all canisters of the subnet hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubnetUse {
    /// Memory: for each canister the larger of what it uses and its allocation.
    pub memory: Bytes,
    /// Memory in use, whatever is allocated.
    pub state: Bytes,
    /// Compute allocations, in percent.
    pub compute: u64,
}

/// A canister's memory by what it is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Wasm heap.
    pub heap: Bytes,
    /// Stable memory.
    pub stable: Bytes,
    /// Globals.
    pub globals: Bytes,
    /// The module as given.
    pub module: Bytes,
    /// Custom sections.
    pub custom_sections: Bytes,
    /// History.
    pub history: Bytes,
    /// Chunks, counted in full whatever their length.
    pub chunks: Bytes,
}

impl MemoryUse {
    /// What the canister uses. Sizes are bounded by the limits: the sum is far from 2^64.
    pub fn of(canister: &CanisterView<'_>) -> Self {
        Self {
            history: history::memory(canister.history),
            chunks: Bytes(canister.chunks.0.len() as u64 * limits::CHUNK_BYTES_MAX as u64),
            ..Self::of_program(canister.program)
        }
    }

    /// What the code and its memories use.
    pub fn of_program(program: &Program) -> Self {
        match program {
            Program::Empty => Self::default(),
            Program::Installed(installed) => Self {
                heap: installed.heap_bytes(),
                stable: installed.stable_bytes(),
                globals: installed.globals_bytes(),
                module: installed.module_bytes,
                custom_sections: installed.metadata_bytes(),
                ..Self::default()
            },
        }
    }

    /// All of it.
    pub fn total(&self) -> Bytes {
        [self.heap, self.stable, self.globals, self.module, self.custom_sections, self.history, self.chunks]
            .into_iter()
            .fold(Bytes::ZERO, Bytes::saturating_add)
    }
}

/// Cycles to reserve when a canister takes `taken` more of a subnet of which `used` is in use.
pub fn reservation(config: &SubnetConfig, used: Bytes, taken: Bytes) -> Cycles {
    charge::reservation(&config.fees, taken, used, config.limits.reservation_from, config.limits.subnet_memory)
}
