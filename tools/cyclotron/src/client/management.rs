//! Calls to the management canister.

use super::{Mode, explain};
use crate::node::FIRST_CANISTER;
use candid::utils::ArgumentDecoder;
use candid::{CandidType, Nat, Principal, decode_args, encode_one};
use cyclotron_types::ids::CanisterId;
use ic_agent::Agent;
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, CanisterStatusResult, ChunkHash, InstallChunkedCodeArgs, InstallCodeArgs,
    ProvisionalCreateCanisterWithCyclesArgs, UpgradeFlags, UploadChunkArgs, WasmMemoryPersistence,
};

/// Larger modules do not fit in one message (2 MiB with everything around them) and go up in chunks.
const WHOLE_MODULE_MAX: usize = 1_900_000;
/// Spec: ic-interface-spec #ic-upload_chunk: at most 1 MiB.
const CHUNK_BYTES: usize = 1 << 20;

async fn call<R: for<'a> ArgumentDecoder<'a>>(
    agent: &Agent,
    effective: Principal,
    method: &str,
    arg: impl CandidType,
) -> Result<R, String> {
    let arg = encode_one(arg).map_err(|error| error.to_string())?;
    let reply = agent
        .update(&Principal::management_canister(), method)
        .with_effective_canister_id(effective)
        .with_arg(arg)
        .call_and_wait()
        .await
        .map_err(explain)?;
    decode_args(&reply).map_err(|error| format!("{method} answered with something else than it should: {error}"))
}

/// Makes a canister.
pub async fn create(agent: &Agent, cycles: Option<u128>) -> Result<Principal, String> {
    let arg = ProvisionalCreateCanisterWithCyclesArgs { amount: cycles.map(Nat::from), ..Default::default() };
    // Creation needs an id only to find the subnet: any of the node's will do.
    let any = CanisterId::from_u64(FIRST_CANISTER).principal();
    let (record,): (CanisterIdRecord,) = call(agent, any, "provisional_create_canister_with_cycles", arg).await?;
    Ok(record.canister_id)
}

/// What a canister says of itself to its controllers.
pub async fn status(agent: &Agent, canister: Principal) -> Result<CanisterStatusResult, String> {
    let (status,) = call(agent, canister, "canister_status", CanisterIdRecord { canister_id: canister }).await?;
    Ok(status)
}

/// The protocol's name for a mode.
pub fn mode(mode: Mode, keep_memory: bool) -> CanisterInstallMode {
    let flags = UpgradeFlags {
        skip_pre_upgrade: None,
        wasm_memory_persistence: keep_memory.then_some(WasmMemoryPersistence::Keep),
    };
    match mode {
        Mode::Install => CanisterInstallMode::Install,
        Mode::Reinstall => CanisterInstallMode::Reinstall,
        Mode::Upgrade => CanisterInstallMode::Upgrade(keep_memory.then_some(flags)),
    }
}

/// Puts a module in, through the chunk store when it is large.
pub async fn install(
    agent: &Agent,
    canister: Principal,
    module: Vec<u8>,
    arg: Vec<u8>,
    mode: CanisterInstallMode,
) -> Result<(), String> {
    if module.len() + arg.len() <= WHOLE_MODULE_MAX {
        let install =
            InstallCodeArgs { mode, canister_id: canister, wasm_module: module, arg, sender_canister_version: None };
        return call(agent, canister, "install_code", install).await;
    }
    let store = CanisterIdRecord { canister_id: canister };
    let () = call(agent, canister, "clear_chunk_store", &store).await?;
    let mut chunk_hashes_list = Vec::new();
    for chunk in module.chunks(CHUNK_BYTES) {
        let chunk = UploadChunkArgs { canister_id: canister, chunk: chunk.to_vec() };
        let (hash,): (ChunkHash,) = call(agent, canister, "upload_chunk", chunk).await?;
        chunk_hashes_list.push(hash);
    }
    let mut wasm_module_hash = [[0; 32]];
    cyclotron_crypto::sha256_batch(&[&module], &mut wasm_module_hash);
    let install = InstallChunkedCodeArgs {
        mode,
        target_canister: canister,
        store_canister: None,
        chunk_hashes_list,
        wasm_module_hash: wasm_module_hash[0].to_vec(),
        arg,
        sender_canister_version: None,
    };
    let () = call(agent, canister, "install_chunked_code", install).await?;
    call(agent, canister, "clear_chunk_store", &store).await
}
