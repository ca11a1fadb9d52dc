//! Where a call or query goes, and whether the URL says so too.
//!
//! Spec: ic-interface-spec #http-effective-canister-id, #http-effective-subnet-id.

use crate::admit::Config;
use crate::error::AdmissionError;
use candid::de::{DecoderConfig, IDLDeserialize};
use candid::{CandidType, Principal};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_wire::{CallContent, RequestType, Target};
use serde::Deserialize;

#[derive(CandidType, Deserialize)]
struct CanisterArgument {
    canister_id: Principal,
}

#[derive(CandidType, Deserialize)]
struct TargetCanisterArgument {
    target_canister: Principal,
}

/// Work that skipping the fields of one argument may take beside [`SKIPPING_QUOTA_PER_BYTE`], in candid's units (1 a byte of a
/// blob, 3 and more a small value, even one that takes no bytes).
const SKIPPING_QUOTA: usize = 50_000;
/// Further units for each byte of the argument, so that work stays in proportion to what a client had to send.
const SKIPPING_QUOTA_PER_BYTE: usize = 2;
/// Candid's other count takes what is skipped 50 times; the field that is wanted takes little.
const DECODING_PER_SKIPPING: usize = 50;
/// For the argument's types and the field that is wanted.
const DECODING_QUOTA: usize = 1_000_000;

fn decode<T: CandidType + for<'de> Deserialize<'de>>(arg: &[u8]) -> candid::Result<T> {
    let skipping = SKIPPING_QUOTA.saturating_add(arg.len().saturating_mul(SKIPPING_QUOTA_PER_BYTE));
    let decoding = DECODING_QUOTA.saturating_add(skipping.saturating_mul(DECODING_PER_SKIPPING));
    let mut config = DecoderConfig::new();
    config.set_decoding_quota(decoding).set_skipping_quota(skipping).set_full_error_message(false);
    IDLDeserialize::new_with_config(arg, &config)?.get_value()
}

/// The canister that a call to the management canister is about.
fn named_canister(method: &str, is_call: bool, arg: &[u8]) -> candid::Result<Principal> {
    if is_call && method == "install_chunked_code" {
        return decode::<TargetCanisterArgument>(arg).map(|argument| argument.target_canister);
    }
    decode::<CanisterArgument>(arg).map(|argument| argument.canister_id)
}

/// Checks that the URL's target is the request's destination; returns the canister that the request is about, if it is about
/// one that exists already.
pub(crate) fn check_destination(
    content: &CallContent<'_>,
    request_type: RequestType,
    id: MessageId,
    target: Target,
    config: &Config,
) -> Result<Option<CanisterId>, AdmissionError> {
    let is_call = request_type == RequestType::Call;
    let is_management = content.canister_id == Principal::management_canister();
    let names_no_canister = is_management
        && match content.method_name {
            "create_canister" | "provisional_create_canister_with_cycles" => is_call,
            "list_canisters" => !is_call,
            _ => false,
        };
    let found = match target {
        Target::Subnet(_) if !names_no_canister => {
            let takes = if is_call { "canister creation" } else { "list_canisters" };
            return Err(AdmissionError::SubnetEndpoint { takes });
        }
        Target::Subnet(found) if found != config.subnet_id => {
            return Err(AdmissionError::EffectiveSubnet { expected: config.subnet_id, found });
        }
        Target::Subnet(_) => return Ok(None),
        Target::Canister(_) if names_no_canister => return Ok(None),
        Target::Canister(found) => found,
    };
    let expected = if is_management {
        named_canister(content.method_name, is_call, content.arg).map_err(|error| {
            let method = content.method_name.chars().take(100).collect::<String>();
            let message = format!("The argument of the management method {method:?} names no canister: {error}");
            AdmissionError::Rejected { id, reject: Reject::new(ErrorCode::InvalidManagementPayload, message) }
        })?
    } else {
        content.canister_id
    };
    if expected != found {
        return Err(AdmissionError::EffectiveCanister { expected, found });
    }
    Ok(Some(CanisterId::from_principal(expected)))
}
