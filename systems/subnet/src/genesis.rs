//! What a subnet is made with: all that its state depends on besides its batches.
//!
//! Enters: an operator's choice, once. Leaves: the same, to every log and recording of the subnet. Never here: how a process runs it.

use crate::subnet::SchedulingOptions;
use cyclotron_execution::SubnetConfig;
use cyclotron_execution::management::IdRange;
use cyclotron_types::Principal;
use serde::{Deserialize, Serialize};

/// More scheduler cores than any subnet has.
const CORES_MAX: usize = 1_024;
/// More nodes than the Internet Computer has.
pub const NODES_MAX: u64 = 10_000;

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

    /// Reads the CBOR form. Errors: in words; also when a field is there that this program does not know, or no subnet can be made with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let genesis: Self = ciborium::from_reader(bytes)
            .map_err(|error| format!("what the subnet was made with cannot be read: {error}"))?;
        match genesis.fault() {
            Some(what) => Err(format!("no subnet can be made as it is said: {what}")),
            None => Ok(genesis),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let mut ranges = [&self.ranges[..], &self.reserved_ranges].concat();
        ranges.sort_unstable();
        let ordered: Vec<u64> = ranges.iter().flat_map(|range| [range.first, range.last]).collect();
        let apart = ranges.windows(2).all(|pair| pair[0].last < pair[1].first);
        if !ordered.is_sorted() || !apart {
            return Some("its canister ranges are not ranges, or overlap");
        }
        if !(1..=CORES_MAX).contains(&self.scheduling.cores) {
            return Some("its number of scheduler cores");
        }
        if !(1..=NODES_MAX).contains(&self.config.fees.nodes) {
            return Some("its number of nodes");
        }
        None
    }
}
