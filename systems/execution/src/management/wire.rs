//! Candid at the edge: bounded decoding of arguments, encoding of answers.
//!
//! Enters: bytes from anyone. Leaves: typed arguments, or a reject. Never here: work out of proportion to the bytes, whatever
//! types they declare.
//!
//! Types come from `ic-management-canister-types`. Those below differ from it: module bytes are read as one piece instead of
//! byte by byte, and `details` of a change is present, as the interface says (the crate reads it as optional).

use candid::utils::{ArgumentDecoder, ArgumentEncoder};
use candid::{CandidType, DecoderConfig, Principal};
use cyclotron_types::reject::{ErrorCode, Reject};
use serde::{Deserialize, Serialize};

pub use ic_management_canister_types as ic;

/// Work for values that the method does not know (extra fields and arguments), in Candid's cost units.
///
/// The existing replica allows the same (dfinity/ic `rs/types/management_canister_types/src/lib.rs`).
const SKIPPING_QUOTA: usize = 10_000;
/// Bytes of the type table. The widest argument, settings with every field, takes under 600.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// Entries of the type table. The same argument has under 30.
const TYPES_MAX: usize = 200;
/// Work for any argument, besides what its bytes allow.
const DECODING_QUOTA_BASE: usize = 100_000;
/// Work for each byte of the argument: a blob costs one unit a byte, an element of a list of hashes 2 a byte.
const DECODING_QUOTA_PER_BYTE: usize = 4;
/// Longest text of a decoding error that is passed on.
const ERROR_TEXT_MAX: usize = 400;

fn decoder_config(bytes: usize) -> DecoderConfig {
    let mut config = DecoderConfig::new();
    config
        .set_decoding_quota(DECODING_QUOTA_BASE.saturating_add(bytes.saturating_mul(DECODING_QUOTA_PER_BYTE)))
        .set_skipping_quota(SKIPPING_QUOTA)
        .set_max_type_len(TYPES_MAX)
        .set_max_header_len(HEADER_BYTES_MAX)
        .set_full_error_message(false);
    config
}

fn undecodable(error: &candid::Error) -> Reject {
    let mut text = error.to_string();
    if text.len() > ERROR_TEXT_MAX {
        let end = (0..=ERROR_TEXT_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    Reject::new(ErrorCode::InvalidManagementPayload, format!("Error decoding candid: {text}"))
}

/// Reads one argument. Cost: O(bytes), whatever they declare.
///
/// Errors: `InvalidManagementPayload` when the bytes are not Candid of a subtype, or ask for more work than they pay for.
pub fn decode<'a, T: CandidType + Deserialize<'a>>(arg: &'a [u8]) -> Result<T, Reject> {
    decode_args::<(T,)>(arg).map(|(value,)| value)
}

/// Reads an empty list of arguments; further ones are skipped, as Candid's subtyping has it.
pub fn decode_nothing(arg: &[u8]) -> Result<(), Reject> {
    decode_args::<()>(arg)
}

fn decode_args<'a, T: ArgumentDecoder<'a>>(arg: &'a [u8]) -> Result<T, Reject> {
    candid::utils::decode_args_with_config(arg, &decoder_config(arg.len())).map_err(|error| undecodable(&error))
}

/// Writes one value.
///
/// Panics: never with our own types: every one of them is encodable.
pub fn encode<T: CandidType>(value: &T) -> Vec<u8> {
    encode_args((value,))
}

/// The empty answer.
pub fn encode_nothing() -> Vec<u8> {
    encode_args(())
}

fn encode_args<T: ArgumentEncoder>(args: T) -> Vec<u8> {
    candid::encode_args(args).expect("own types encode")
}

/// The one field that names the canister of most methods.
#[derive(CandidType, Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct CanisterIdArgs {
    /// The canister.
    pub canister_id: Principal,
}

/// `install_code`.
#[derive(CandidType, Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct InstallCodeArgs {
    /// Install, reinstall or upgrade.
    pub mode: ic::CanisterInstallMode,
    /// Into which canister.
    pub canister_id: Principal,
    /// The module, raw or gzipped.
    #[serde(with = "serde_bytes")]
    pub wasm_module: Vec<u8>,
    /// For `canister_init` or `canister_post_upgrade`.
    #[serde(with = "serde_bytes")]
    pub arg: Vec<u8>,
    /// Version of the calling canister.
    pub sender_canister_version: Option<u64>,
}

/// One change of `canister_info`.
#[derive(CandidType, Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Block time of the change.
    pub timestamp_nanos: u64,
    /// Version after the change.
    pub canister_version: u64,
    /// By whom.
    pub origin: ic::ChangeOrigin,
    /// What.
    pub details: ic::ChangeDetails,
}

/// Answer of `canister_info`.
#[derive(CandidType, Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct CanisterInfoResult {
    /// Changes ever.
    pub total_num_changes: u64,
    /// The newest of them, oldest first.
    pub recent_changes: Vec<Change>,
    /// SHA-256 of the module as given.
    pub module_hash: Option<serde_bytes::ByteBuf>,
    /// Controllers.
    pub controllers: Vec<Principal>,
}

/// A natural number for an answer.
pub fn nat(number: impl Into<u128>) -> candid::Nat {
    candid::Nat::from(number.into())
}

/// The number if it fits into 64 bits.
pub fn nat_to_u64(number: &candid::Nat) -> Option<u64> {
    u64::try_from(&number.0).ok()
}

/// The number if it fits into 128 bits.
pub fn nat_to_u128(number: &candid::Nat) -> Option<u128> {
    u128::try_from(&number.0).ok()
}

/// The number for people. A number of many digits is described instead: printing it would take quadratic time.
pub fn describe_nat(number: &candid::Nat) -> String {
    match number.0.bits() {
        0..=256 => number.0.to_string(),
        bits => format!("a number of {bits} bits"),
    }
}
