//! Where a call or query goes, and whether the URL says so too.
//!
//! Spec: ic-interface-spec #http-effective-canister-id, #http-effective-subnet-id.

use crate::admit::Config;
use crate::error::AdmissionError;
use cyclotron_execution::management::{ManagementQuery, effective_canister};
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_wire::{CallContent, RequestType, Target};

/// The canister that a call or query of the management canister is about.
fn named_canister(method: &str, is_call: bool, arg: &[u8]) -> Result<CanisterId, Reject> {
    let named =
        if is_call { effective_canister(method, arg)?.named } else { ManagementQuery::parse(method, arg)?.canister };
    // Methods that name none are not asked for one; another such method would be rejected like an argument without the field.
    named.ok_or_else(|| {
        Reject::new(ErrorCode::InvalidManagementPayload, format!("Method {method} is about no canister"))
    })
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
    // Its own id names the subnet's management canister too, as in dfinity/ic (`ingress_messages.rs`, `is_addressed_to_subnet`).
    let is_management = [Principal::management_canister(), config.subnet_id].contains(&content.canister_id);
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
        named_canister(content.method_name, is_call, content.arg)
            .map_err(|reject| AdmissionError::Rejected { id, reject })?
            .principal()
    } else {
        content.canister_id
    };
    if expected != found {
        return Err(AdmissionError::EffectiveCanister { expected, found });
    }
    Ok(Some(CanisterId::from_principal(expected)))
}
