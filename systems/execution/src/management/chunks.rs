//! The chunk store: pieces of modules too large for one message.

use super::call::{ManagementContext, Running};
use super::error::ManagementError;
use super::method::Method;
use super::resources::{self, MemoryUse};
use super::wire::{self, ic};
use super::{CanisterView, check_guard};
use crate::charge;
use crate::costs::UPLOAD;
use cyclotron_types::canister::ChunkStore;
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits;
use cyclotron_types::units::{Bytes, Cycles, Instructions};
use sha2::{Digest, Sha256};

/// Charged for each chunk uploaded (dfinity/ic `rs/config/src/subnet_config.rs`, DEFAULT_UPLOAD_CHUNK_INSTRUCTIONS).
pub const UPLOAD_INSTRUCTIONS: Instructions = Instructions(200_000_000);
/// What a chunk counts for in memory, whatever its length.
const CHUNK_BYTES: Bytes = Bytes(limits::CHUNK_BYTES_MAX as u64);

/// `upload_chunk`: the canister pays for the upload and for the memory.
pub(super) fn upload_chunk(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: ic::UploadChunkArgs = wire::decode(&run.call.arg)?;
    let (env, subnet_use) = (context.env, context.canisters.subnet_use());
    let config = &env.subnet;
    let canister = context.find(run, CanisterId::from_principal(args.canister_id))?;
    check_guard(&canister, run, Method::UploadChunk)?;
    if args.chunk.len() > limits::CHUNK_BYTES_MAX {
        return Err(ManagementError::ChunkStore(format!(
            "Wasm chunk size {} exceeds the maximum chunk size of {}",
            args.chunk.len(),
            limits::CHUNK_BYTES_MAX
        )));
    }
    let hash: [u8; 32] = Sha256::digest(&args.chunk).into();
    let known = canister.chunks.0.contains_key(&hash);
    if !known && canister.chunks.0.len() >= limits::CHUNKS_MAX {
        return Err(ManagementError::ChunkStore(format!(
            "Wasm chunk store has already reached maximum capacity of {} bytes",
            limits::CHUNKS_MAX * limits::CHUNK_BYTES_MAX
        )));
    }
    let grown = if known { Bytes::ZERO } else { CHUNK_BYTES };
    let view = CanisterView::from(&canister);
    let memory = MemoryUse::of(&view).total().saturating_add(grown);
    let allocation = view.settings.memory_allocation;
    // What lies within the allocation has been taken from the subnet already.
    let taken = memory.max(allocation).saturating_sub(memory.saturating_sub(grown).max(allocation));
    let available = config.limits.subnet_memory.saturating_sub(subnet_use.memory);
    if taken > available {
        return Err(ManagementError::MemoryOversubscribed { requested: grown, available });
    }
    let fee = config.fees.execution(UPLOAD_INSTRUCTIONS, false);
    let reservation = resources::reservation(config, subnet_use.memory, taken);
    let reserved = view.reserved.0.saturating_add(reservation);
    let limit = view.settings.reserved_cycles_limit;
    if reservation > Cycles::ZERO && reserved > limit {
        let excess = reserved.saturating_sub(limit);
        return Err(ManagementError::GrowthBeyondReservation { bytes: grown, limit, excess });
    }
    let threshold = charge::freezing_threshold(&config.fees, view.settings, memory, reserved);
    let needed = threshold.saturating_add(reservation).saturating_add(fee);
    let Some(_) = canister.balance.0.checked_sub(needed) else {
        let missing = needed.saturating_sub(canister.balance.0);
        return Err(ManagementError::ChunkStore(format!(
            "Cannot upload chunk. At least {missing} additional cycles are required"
        )));
    };
    canister.balance.0 = canister.balance.0.saturating_sub(fee).saturating_sub(reservation);
    canister.reserved.0 = reserved;
    canister.chunks.0.insert(hash, args.chunk);
    run.burn(fee);
    run.effects.used = run.effects.used.saturating_add(UPLOAD_INSTRUCTIONS);
    run.effects.costs.add(env, UPLOAD, UPLOAD_INSTRUCTIONS);
    Ok(wire::encode(&ic::ChunkHash { hash: hash.to_vec() }))
}

/// `clear_chunk_store`.
pub(super) fn clear_chunk_store(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: wire::CanisterIdArgs = wire::decode(&run.call.arg)?;
    let canister = context.find(run, CanisterId::from_principal(args.canister_id))?;
    check_guard(&canister, run, Method::ClearChunkStore)?;
    canister.chunks.0.clear();
    Ok(wire::encode_nothing())
}

/// `stored_chunks`: in the order of their hashes.
pub(super) fn stored_chunks(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
) -> Result<Vec<u8>, ManagementError> {
    let args: wire::CanisterIdArgs = wire::decode(&run.call.arg)?;
    let canister = context.look(run, CanisterId::from_principal(args.canister_id))?;
    check_guard(&canister, run, Method::StoredChunks)?;
    let hashes: Vec<ic::ChunkHash> =
        canister.chunks.0.keys().map(|hash| ic::ChunkHash { hash: hash.to_vec() }).collect();
    Ok(wire::encode(&hashes))
}

/// Puts a module together. Cost: O(its bytes).
///
/// Errors: a hash that is not one or not in the store, too many chunks, or a module of another hash than the given.
pub(super) fn assemble(
    store: &ChunkStore,
    hashes: &[ic::ChunkHash],
    module_hash: &[u8],
) -> Result<Vec<u8>, ManagementError> {
    if hashes.len() > limits::CHUNKS_MAX {
        return Err(ManagementError::ChunkStore(format!(
            "{} chunks are more than the {} that a module may have",
            hashes.len(),
            limits::CHUNKS_MAX
        )));
    }
    let mut module = Vec::new();
    for given in hashes {
        let hash: &[u8; 32] = given
            .hash
            .as_slice()
            .try_into()
            .map_err(|_| ManagementError::ChunkStore("Chunk hash is invalid. The length is not 32".to_string()))?;
        let chunk = store
            .0
            .get(hash)
            .ok_or_else(|| ManagementError::ChunkStore(format!("Chunk hash {} was not found", hex(hash))))?;
        module.extend_from_slice(chunk);
    }
    let found: [u8; 32] = Sha256::digest(&module).into();
    if found[..] != *module_hash {
        let given = &module_hash[..module_hash.len().min(32)];
        return Err(ManagementError::ChunkStore(format!(
            "Wasm module hash {} does not match given hash {}",
            hex(&found),
            hex(given)
        )));
    }
    Ok(module)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
