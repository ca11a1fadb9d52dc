//! A client of a node in a test: ic-agent as anyone uses it, and management calls in one line each.
#![allow(dead_code, reason = "each test file uses its part")]

use candid::utils::ArgumentDecoder;
use candid::{CandidType, Decode, Encode, Nat, Principal, decode_args};
use cyclotron_conformance::{TestNode, program};
use cyclotron_types::ids::CanisterId;
use ic_agent::identity::BasicIdentity;
use ic_agent::{Agent, AgentError, Identity};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, ChunkHash, InstallChunkedCodeArgs, InstallCodeArgs,
    ProvisionalCreateCanisterWithCyclesArgs, UploadChunkArgs,
};
use std::path::PathBuf;

/// The node's program, built by cargo for these tests.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_cyclotron");

/// A folder that is not there yet. Its name is short, as that of a node's socket in it must be.
pub fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("cyclotron-{name}-{}", std::process::id()));
    let _none_yet = std::fs::remove_dir_all(&path);
    path
}

/// Runs the program; its output, or what it says of its failure.
pub fn run(arguments: &[&str]) -> Result<String, String> {
    let output = program(PROGRAM, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Ends a node in order; its state directory.
pub fn end(mut node: TestNode) -> PathBuf {
    node.interrupt();
    assert!(node.wait().success());
    node.kill()
}

/// The number of the first canister of a local network.
pub const FIRST_CANISTER: u64 = 0x8000_0000_0010_0000;

/// The id of the canister with this number.
pub fn canister_id(number: u64) -> Principal {
    CanisterId::from_u64(number).principal()
}

/// A key of its own for each number.
pub fn key(number: u8) -> BasicIdentity {
    BasicIdentity::from_raw_key(&[number; 32])
}

/// An agent that trusts the root key of the node's banner and verifies query signatures.
pub fn agent(node: &TestNode, identity: impl Identity + 'static) -> Agent {
    let agent = Agent::builder()
        .with_url(&node.banner.api)
        .with_identity(identity)
        .with_verify_query_signatures(true)
        .build()
        .unwrap();
    agent.set_root_key(hex::decode(&node.banner.root_key).unwrap());
    agent
}

/// Calls the management canister.
pub async fn manage<R: for<'a> ArgumentDecoder<'a>>(
    agent: &Agent,
    effective: Principal,
    method: &str,
    arg: impl CandidType,
) -> Result<R, AgentError> {
    let reply = agent
        .update(&Principal::management_canister(), method)
        .with_effective_canister_id(effective)
        .with_arg(Encode!(&arg).unwrap())
        .call_and_wait()
        .await?;
    Ok(decode_args(&reply).unwrap())
}

/// Makes a canister.
pub async fn create(agent: &Agent) -> Principal {
    let arg = ProvisionalCreateCanisterWithCyclesArgs::default();
    // Any canister id of the subnet leads a creation to it.
    let any = canister_id(FIRST_CANISTER);
    let (record,): (CanisterIdRecord,) =
        manage(agent, any, "provisional_create_canister_with_cycles", arg).await.unwrap();
    record.canister_id
}

/// Puts code into a canister.
pub async fn install(
    agent: &Agent,
    canister_id: Principal,
    mode: CanisterInstallMode,
    wasm_module: &[u8],
    arg: &[u8],
) -> Result<(), AgentError> {
    let wasm_module = wasm_module.to_vec();
    let arg = InstallCodeArgs { mode, canister_id, wasm_module, arg: arg.to_vec(), sender_canister_version: None };
    manage(agent, canister_id, "install_code", arg).await
}

/// Puts code into a canister that does not fit in one message.
pub async fn install_chunked(agent: &Agent, canister: Principal, wasm: &[u8], hash: Vec<u8>) {
    let mut chunk_hashes_list = Vec::new();
    for chunk in wasm.chunks(1 << 20) {
        let arg = UploadChunkArgs { canister_id: canister, chunk: chunk.to_vec() };
        let (hash,): (ChunkHash,) = manage(agent, canister, "upload_chunk", arg).await.unwrap();
        chunk_hashes_list.push(hash);
    }
    let arg = InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Install,
        target_canister: canister,
        store_canister: None,
        chunk_hashes_list,
        wasm_module_hash: hash,
        arg: vec![],
        sender_canister_version: None,
    };
    let () = manage(agent, canister, "install_chunked_code", arg).await.unwrap();
}

/// A new canister with this code.
pub async fn install_new(agent: &Agent, wasm: &[u8]) -> Principal {
    let canister = create(agent).await;
    install(agent, canister, CanisterInstallMode::Install, wasm, &Encode!().unwrap()).await.unwrap();
    canister
}

/// Calls an update method whose argument and reply are one value each.
pub async fn update<R: for<'a> ArgumentDecoder<'a>>(
    agent: &Agent,
    canister: Principal,
    method: &str,
    arg: Vec<u8>,
) -> Result<R, AgentError> {
    let reply = agent.update(&canister, method).with_arg(arg).call_and_wait().await?;
    Ok(decode_args(&reply).unwrap())
}

/// Calls a query method; the agent verifies the node's signature.
pub async fn query<R: for<'a> ArgumentDecoder<'a>>(
    agent: &Agent,
    canister: Principal,
    method: &str,
    arg: Vec<u8>,
) -> Result<R, AgentError> {
    let reply = agent.query(&canister, method).with_arg(arg).call_with_verification().await?;
    Ok(decode_args(&reply).unwrap())
}

/// Adds one to a counter.
pub async fn increment(agent: &Agent, canister: Principal) -> u64 {
    let reply = agent.update(&canister, "increment").with_arg(Encode!().unwrap()).call_and_wait().await.unwrap();
    u64::try_from(Decode!(&reply, Nat).unwrap().0).unwrap()
}

/// What a counter shows.
pub async fn count(agent: &Agent, canister: Principal) -> u64 {
    let (count,): (Nat,) = query(agent, canister, "get", Encode!().unwrap()).await.unwrap();
    u64::try_from(count.0).unwrap()
}

/// The error code of a reject, such as `IC0503`, and its message.
pub fn reject(error: AgentError) -> (String, String) {
    match error {
        AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => {
            (reject.error_code.unwrap_or_default(), reject.reject_message)
        }
        other => panic!("no reject but {other}"),
    }
}
