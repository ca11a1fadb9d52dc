//! What things cost, for a subnet of a given size.
//!
//! Spec: developer-docs `docs/references/cycle-costs.md`; the table is for 13 nodes and scales with n / 13.

use crate::units::{Bytes, Cycles, Instructions};
use serde::{Deserialize, Serialize};

/// Nodes of the subnet for which the table is written.
pub const REFERENCE_NODES: u128 = 13;

/// Prices of one subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fees {
    /// Creating a canister.
    pub canister_creation: Cycles,
    /// Starting an update message.
    pub update_base: Cycles,
    /// One instruction of a wasm32 module.
    pub instruction: Cycles,
    /// One instruction of a wasm64 module: twice as much.
    pub instruction_wasm64: Cycles,
    /// A call to another canister, its response included.
    pub call_base: Cycles,
    /// One byte of such a call or response.
    pub call_byte: Cycles,
    /// An ingress message.
    pub ingress_base: Cycles,
    /// One byte of it.
    pub ingress_byte: Cycles,
    /// One GiB for one second.
    pub gib_second: Cycles,
    /// One percent of compute allocation for one second.
    pub compute_percent_second: Cycles,
    /// Nodes of this subnet.
    pub nodes: u64,
}

impl Fees {
    /// The table for a subnet of `nodes` nodes. Rounds down, as the published 34-node column does.
    pub const fn for_nodes(nodes: u64) -> Self {
        const fn scaled(base: u128, nodes: u64) -> Cycles {
            Cycles(base * nodes as u128 / REFERENCE_NODES)
        }
        Self {
            canister_creation: scaled(500_000_000_000, nodes),
            update_base: scaled(5_000_000, nodes),
            instruction: Cycles(1),
            instruction_wasm64: Cycles(2),
            call_base: scaled(260_000, nodes),
            call_byte: scaled(1_000, nodes),
            ingress_base: scaled(1_200_000, nodes),
            ingress_byte: scaled(2_000, nodes),
            gib_second: scaled(127_000, nodes),
            compute_percent_second: scaled(10_000_000, nodes),
            nodes,
        }
    }

    /// A subnet on which everything is free (system subnets, and limits-lifted benchmarks).
    pub const fn free(nodes: u64) -> Self {
        let z = Cycles(0);
        Self {
            canister_creation: z,
            update_base: z,
            instruction: z,
            instruction_wasm64: z,
            call_base: z,
            call_byte: z,
            ingress_base: z,
            ingress_byte: z,
            gib_second: z,
            compute_percent_second: z,
            nodes,
        }
    }

    /// Execution of `instructions`, base fee included.
    pub fn execution(&self, instructions: Instructions, wasm64: bool) -> Cycles {
        self.update_base.saturating_add(self.instructions(instructions, wasm64))
    }
    /// Execution of `instructions` without the base fee. On subnets of other sizes than 13 the total scales, rounded down:
    /// instructions * fee * n / 13.
    pub fn instructions(&self, instructions: Instructions, wasm64: bool) -> Cycles {
        let fee = if wasm64 { self.instruction_wasm64 } else { self.instruction };
        Cycles(u128::from(instructions.0).saturating_mul(fee.0).saturating_mul(u128::from(self.nodes)))
            .over(REFERENCE_NODES as u64)
    }
    /// Receiving an ingress message of `bytes` (method name and argument).
    pub fn ingress(&self, bytes: Bytes) -> Cycles {
        self.ingress_base.saturating_add(self.ingress_byte.times(u128::from(bytes.0)))
    }
    /// Sending `bytes` in a call or response, without the base fee.
    pub fn transmission(&self, bytes: Bytes) -> Cycles {
        self.call_byte.times(u128::from(bytes.0))
    }
    /// Holding `bytes` for `nanos` nanoseconds, rounded down.
    pub fn storage(&self, bytes: Bytes, nanos: u64) -> Cycles {
        // bytes * fee * ns / (GiB * s): at most 2^41 * 2^20 * 2^64 < 2^128.
        Cycles((u128::from(bytes.0) * self.gib_second.0 * u128::from(nanos)) >> 30).over(1_000_000_000)
    }
    /// Holding `percent` of compute for `nanos` nanoseconds, rounded down.
    pub fn compute(&self, percent: u64, nanos: u64) -> Cycles {
        Cycles(self.compute_percent_second.0 * u128::from(percent) * u128::from(nanos)).over(1_000_000_000)
    }
}

/// How often storage and compute are charged: every 10 s of block time (A `config/src/subnet_config.rs`).
pub const CHARGE_PERIOD_NANOS: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_34_node_column_of_the_published_table_holds() {
        let f = Fees::for_nodes(34);
        assert_eq!(f.canister_creation, Cycles(1_307_692_307_692));
        assert_eq!(f.update_base, Cycles(13_076_923));
        assert_eq!(f.call_base, Cycles(680_000));
        assert_eq!(f.call_byte, Cycles(2_615));
        assert_eq!(f.ingress_base, Cycles(3_138_461));
        assert_eq!(f.ingress_byte, Cycles(5_230));
        assert_eq!(f.gib_second, Cycles(332_153));
        assert_eq!(f.compute_percent_second, Cycles(26_153_846));
        assert_eq!(f.instructions(Instructions(1_000_000_000), false), Cycles(2_615_384_615));
    }
}
