//! Every limit of the protocol that Cyclotron holds to, in one table.
//!
//! Sources: SPEC = ic-interface-spec 0.66; DD = dfinity/developer-docs `docs/references/resource-limits.md`; A = dfinity/ic `rs/config`,
//! October 2024, newer where said.

use crate::units::{Bytes, Cycles, Instructions, Seconds};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Controllers of one canister. SPEC #ic-create_canister.
pub const CONTROLLERS_MAX: usize = 10;
/// Viewers in a visibility list. SPEC #ic-canister_settings.
pub const VIEWERS_MAX: usize = 10;
/// Environment variables of one canister. DD.
pub const ENVIRONMENT_VARIABLES_MAX: usize = 20;
/// Bytes of a variable's name, and of its value. DD.
pub const ENVIRONMENT_VARIABLE_BYTES_MAX: usize = 128;
/// SPEC #ic-canister_settings: 30 days.
pub const FREEZING_THRESHOLD_DEFAULT: Seconds = Seconds(2_592_000);
/// SPEC #ic-canister_settings.
pub const RESERVED_CYCLES_LIMIT_DEFAULT: Cycles = Cycles(5_000_000_000_000);
/// A `config/src/execution_environment.rs`: 3 GiB (the specification says none).
pub const WASM_MEMORY_LIMIT_DEFAULT: Bytes = Bytes(3 * GIB);
/// Log kept by default. SPEC #ic-fetch_canister_logs: 4 KiB.
pub const LOG_BYTES_DEFAULT: Bytes = Bytes(4 * KIB);
/// Largest log that settings may ask for (newer dfinity/ic).
pub const LOG_BYTES_MAX: Bytes = Bytes(2 * MIB);
/// Changes kept of a canister. SPEC #ic-canister_info: at least 20.
pub const HISTORY_MAX: usize = 20;
/// Wasm heap of a 32-bit module. DD.
pub const HEAP_BYTES_MAX_32: Bytes = Bytes(4 * GIB);
/// Wasm heap of a 64-bit module. DD.
pub const HEAP_BYTES_MAX_64: Bytes = Bytes(6 * GIB);
/// Stable memory of a canister. DD.
pub const STABLE_BYTES_MAX: Bytes = Bytes(500 * GIB);
/// Memory of a subnet. DD.
pub const SUBNET_BYTES_MAX: Bytes = Bytes(2048 * GIB);
/// Certified data. SPEC #system-api-certified-data.
pub const CERTIFIED_DATA_BYTES_MAX: usize = 32;
/// One chunk of the chunk store. SPEC #ic-upload_chunk.
pub const CHUNK_BYTES_MAX: usize = MIB as usize;
/// Chunks in a store: 100 MiB of module. SPEC #ic-upload_chunk names the store's limit by the module's.
pub const CHUNKS_MAX: usize = 100;

/// Slots between two canisters, each direction. DD.
pub const QUEUE_SLOTS_MAX: u32 = 500;
/// Ingress messages waiting for one canister. A `replicated_state/src/canister_state/queues.rs`.
pub const INGRESS_QUEUE_MAX: u32 = 5_000;
/// Ingress argument. DD.
pub const INGRESS_BYTES_MAX: Bytes = Bytes(2 * MIB);
/// Argument of a call within the subnet. DD.
pub const REQUEST_BYTES_MAX: Bytes = Bytes(10 * MIB);
/// Argument of a call to another subnet, and any replicated reply. DD.
pub const REPLY_BYTES_MAX: Bytes = Bytes(2 * MIB);
/// Reply of a query. DD.
pub const QUERY_REPLY_BYTES_MAX: Bytes = Bytes(3 * MIB);
/// Method name in a call. SPEC #system-api-call.
pub const METHOD_NAME_BYTES_MAX: usize = 20_000;
/// Reject message kept of a canister's own. A `embedders`.
pub const REJECT_MESSAGE_BYTES_MAX: usize = 8 * KIB as usize;
/// Longest deadline of a best-effort call. A `embedders/src/wasmtime_embedder/system_api.rs`.
pub const CALL_TIMEOUT_MAX: Seconds = Seconds(300);

/// An update, reply callback, heartbeat or timer. DD.
pub const MESSAGE_INSTRUCTIONS_MAX: Instructions = Instructions(40_000_000_000);
/// `install_code`. DD.
pub const INSTALL_INSTRUCTIONS_MAX: Instructions = Instructions(300_000_000_000);
/// A query. DD.
pub const QUERY_INSTRUCTIONS_MAX: Instructions = Instructions(5_000_000_000);
/// All of a composite query. PROTOCOL A5.
pub const COMPOSITE_QUERY_INSTRUCTIONS_MAX: Instructions = Instructions(5_000_000_000);
/// Counted for each call that a composite query makes, besides its own. A `config/src/execution_environment.rs`.
pub const QUERY_CALL_OVERHEAD: Instructions = Instructions(50_000_000);
/// Depth of composite queries. PROTOCOL A5.
pub const COMPOSITE_QUERY_DEPTH_MAX: usize = 6;
/// `canister_inspect_message`. DD.
pub const INSPECT_INSTRUCTIONS_MAX: Instructions = Instructions(200_000_000);
/// One slice of a long message. A `config/src/subnet_config.rs`.
pub const SLICE_INSTRUCTIONS_MAX: Instructions = Instructions(2_000_000_000);
/// All messages of one scheduler core in a round: largest slice and 2 B more (newer dfinity/ic).
pub const ROUND_INSTRUCTIONS_MAX: Instructions = Instructions(4_000_000_000);
/// Scheduler cores, whatever the machine has. DD.
pub const SCHEDULER_CORES: usize = 4;
/// Counted into the round for every message. A `subnet_config.rs`.
pub const ROUND_OVERHEAD_PER_MESSAGE: Instructions = Instructions(2_000_000);
/// Suspended executions kept at the end of a round. A `subnet_config.rs`.
pub const PAUSED_EXECUTIONS_MAX: usize = 4;
/// `stop_canister` gives up after five minutes. PROTOCOL A5.
pub const STOP_TIMEOUT: Seconds = Seconds(300);
/// Sum of compute allocations in percent. DD.
pub const COMPUTE_ALLOCATION_TOTAL_MAX: u64 = 299;

/// Longest time that a request's expiry may lie ahead. DD `references/resource-limits.md`: "up to 5 minutes".
pub const INGRESS_EXPIRY_MAX: Seconds = Seconds(300);
/// Drift allowed on top of it. A `validator`.
pub const INGRESS_EXPIRY_DRIFT: Seconds = Seconds(30);
/// Ingress messages in one batch. PROTOCOL A2.
pub const INGRESS_PER_BATCH_MAX: usize = 1_000;
/// Statuses that the ingress history may hold: bounded by memory of 4 GiB (PROTOCOL A3); this is the count at 4 KiB each.
pub const INGRESS_HISTORY_MAX: usize = 1 << 20;

/// Stable memory, in whole pages of 4 KiB, that one message may touch. DD.
pub const STABLE_TOUCHED_BYTES_MAX: Bytes = Bytes(2 * GIB);
/// Likewise while installing or upgrading. DD.
pub const STABLE_TOUCHED_BYTES_MAX_UPGRADE: Bytes = Bytes(8 * GIB);
/// Likewise in a query. DD.
pub const STABLE_TOUCHED_BYTES_MAX_QUERY: Bytes = Bytes(GIB);

const _: () = assert!(SLICE_INSTRUCTIONS_MAX.0 <= MESSAGE_INSTRUCTIONS_MAX.0);
const _: () = assert!(SLICE_INSTRUCTIONS_MAX.0 <= ROUND_INSTRUCTIONS_MAX.0);
const _: () = assert!(MESSAGE_INSTRUCTIONS_MAX.0 <= INSTALL_INSTRUCTIONS_MAX.0);
const _: () = assert!(LOG_BYTES_DEFAULT.0 <= LOG_BYTES_MAX.0);
const _: () = assert!(HEAP_BYTES_MAX_32.0 <= HEAP_BYTES_MAX_64.0);
const _: () = assert!(STABLE_TOUCHED_BYTES_MAX.0 <= STABLE_TOUCHED_BYTES_MAX_UPGRADE.0);
