//! What execution is told about its subnet and about the round; read-only, the same on every node.
//!
//! Enters: numbers of `cyclotron_types::limits`, possibly lifted by configuration. Leaves: [`SubnetConfig`], [`RoundEnv`].
//! Never here: state.

use crate::machine::Machine;
use cyclotron_types::Principal;
use cyclotron_types::fees::Fees;
use cyclotron_types::limits;
use cyclotron_types::units::{Bytes, Cycles, Height, Instructions, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Instruction limits of one kind of message: all of it, and one slice of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstructionLimits {
    /// The whole message.
    pub message: Instructions,
    /// Until it is suspended.
    pub slice: Instructions,
}

impl InstructionLimits {
    /// A message that runs in one slice.
    pub const fn unsliced(message: Instructions) -> Self {
        Self { message, slice: message }
    }
}

/// Limits that a subnet's configuration may lift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionLimits {
    /// Updates, replicated queries, callbacks and system tasks.
    pub message: InstructionLimits,
    /// `install_code`, all its hooks together.
    pub install: InstructionLimits,
    /// One non-replicated query.
    pub query: Instructions,
    /// All of a composite query's calls.
    pub composite_query: Instructions,
    /// `canister_inspect_message`.
    pub inspect: Instructions,
    /// Part of a callback's instructions kept for its cleanup, in percent.
    pub cleanup_percent: u64,
    /// Stable memory that one message may touch.
    pub stable_touched: Bytes,
    /// Likewise while installing.
    pub stable_touched_install: Bytes,
    /// Likewise in a query.
    pub stable_touched_query: Bytes,
    /// Argument of a call.
    pub request_bytes: Bytes,
    /// Replicated reply.
    pub reply_bytes: Bytes,
    /// Reply of a query.
    pub query_reply_bytes: Bytes,
    /// Calls outstanding between two canisters.
    pub queue_slots: u32,
    /// Memory of the subnet.
    pub subnet_memory: Bytes,
    /// Usage of the subnet's memory from which growing reserves cycles.
    pub reservation_from: Bytes,
}

impl Default for ExecutionLimits {
    fn default() -> Self {
        Self {
            message: InstructionLimits {
                message: limits::MESSAGE_INSTRUCTIONS_MAX,
                slice: limits::SLICE_INSTRUCTIONS_MAX,
            },
            install: InstructionLimits {
                message: limits::INSTALL_INSTRUCTIONS_MAX,
                slice: limits::SLICE_INSTRUCTIONS_MAX,
            },
            query: limits::QUERY_INSTRUCTIONS_MAX,
            composite_query: limits::COMPOSITE_QUERY_INSTRUCTIONS_MAX,
            inspect: limits::INSPECT_INSTRUCTIONS_MAX,
            // dfinity/ic `execution_environment/src/execution/response.rs`, RESERVED_CLEANUP_INSTRUCTIONS_IN_PERCENT.
            cleanup_percent: 5,
            stable_touched: limits::STABLE_TOUCHED_BYTES_MAX,
            stable_touched_install: limits::STABLE_TOUCHED_BYTES_MAX_UPGRADE,
            stable_touched_query: limits::STABLE_TOUCHED_BYTES_MAX_QUERY,
            request_bytes: limits::REQUEST_BYTES_MAX,
            reply_bytes: limits::REPLY_BYTES_MAX,
            query_reply_bytes: limits::QUERY_REPLY_BYTES_MAX,
            queue_slots: limits::QUEUE_SLOTS_MAX,
            subnet_memory: limits::SUBNET_BYTES_MAX,
            // PROTOCOL A7: reservation starts at 750 GiB.
            reservation_from: Bytes(750 << 30),
        }
    }
}

/// What holds for the subnet until an operator changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetConfig {
    /// The subnet's principal (`ic0.subnet_self_*`).
    pub subnet: Principal,
    /// DER-encoded root key of the network (`ic0.root_key_*`).
    pub root_key: Vec<u8>,
    /// Prices; `fees.nodes` is the subnet's size.
    pub fees: Fees,
    /// Limits.
    pub limits: ExecutionLimits,
}

impl SubnetConfig {
    /// Cycles set aside for running the largest callback when a call is made. Spec: MAX_CYCLES_PER_RESPONSE.
    pub fn prepaid_execution(&self, wasm64: bool) -> Cycles {
        self.fees.execution(self.limits.message.message, wasm64)
    }

    /// Cycles set aside for transmitting the largest response.
    pub fn prepaid_transmission(&self) -> Cycles {
        self.fees.transmission(limits::REPLY_BYTES_MAX)
    }
}

/// What holds for one round.
#[derive(Clone, Debug)]
pub struct RoundEnv {
    /// The subnet.
    pub subnet: Arc<SubnetConfig>,
    /// Engine, seats and stable memories of this process.
    pub machine: Arc<Machine>,
    /// Block time.
    pub time: Time,
    /// The batch's height.
    pub height: Height,
    /// The round's randomness.
    pub randomness: [u8; 32],
    /// Memory that all canisters of the subnet use, allocations counted in full, at the start of the round.
    pub memory_used: Bytes,
    /// Memory that one message may still take from the subnet: the caller splits what is free among the scheduler cores, so that the
    /// sum cannot exceed it whatever runs side by side.
    pub memory_available: Bytes,
}
