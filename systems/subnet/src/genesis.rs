//! What a subnet is made with: all that its state depends on besides its batches.
//!
//! Enters: an operator's choice, once. Leaves: the same, to every log and recording of the subnet. Never here: how a process runs it.

use crate::subnet::SchedulingOptions;
use cyclotron_execution::SubnetConfig;
use cyclotron_execution::management::IdRange;
use cyclotron_types::Principal;
use serde::{Deserialize, Serialize};

/// What a subnet is made with. Two subnets with the same genesis and the same batches have the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Prices, limits, names.
    pub config: SubnetConfig,
    /// The subnet's BLS key, DER-encoded: roots are signed with its secret key.
    pub public_key: Vec<u8>,
    /// `application`, `system`, `verified_application` or `cloud_engine`.
    pub subnet_type: String,
    /// The nodes and their Ed25519 keys, DER-encoded.
    pub nodes: Vec<(Principal, Vec<u8>)>,
    /// Canister ids that the subnet gives out, in this order.
    pub ranges: Vec<IdRange>,
    /// Canister ids that it hosts too, but gives only to those who ask for one of them (`specified_id`).
    pub reserved_ranges: Vec<IdRange>,
    /// Scheduler cores and their budgets.
    pub scheduling: SchedulingOptions,
    /// Whether cycles can be made out of nothing (`provisional_*`): on networks of their own, never on a live one.
    pub provisional: bool,
}

impl Genesis {
    /// CBOR form, as logs keep it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("a genesis has a CBOR form, and a vector takes any bytes");
        bytes
    }

    /// Reads the CBOR form. Errors: in words; also when a field is there that this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        ciborium::from_reader(bytes).map_err(|error| format!("what the subnet was made with cannot be read: {error}"))
    }
}
