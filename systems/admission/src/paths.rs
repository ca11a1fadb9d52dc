//! Which paths of the state tree a read_state request may ask for, where and by whom.
//!
//! Spec: ic-interface-spec #http-read-state.

use crate::admit::Config;
use crate::authentication::Targets;
use crate::error::AdmissionError;
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_wire::{ApiVersion, Target};

/// What must hold in the state for a read_state request to be answered; whoever holds the state checks it and, where it does
/// not hold, answers with [`Condition::refusal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The request `id` is unknown, or `sender` sent it, its effective canister (or subnet) is `target`, and its callee is
    /// among `callees` where these are given.
    OwnRequest {
        /// The request asked about.
        id: MessageId,
        /// Who asks.
        sender: Principal,
        /// The URL's target.
        target: Target,
        /// Callees that the asker's delegations allow, in ascending order.
        callees: Option<Vec<CanisterId>>,
    },
    /// The canister does not exist, or has no such custom section, or the section is public, or `sender` is a controller.
    ReadableMetadata {
        /// The canister.
        canister: CanisterId,
        /// The section's name without `icp:public ` or `icp:private `.
        name: String,
        /// Who asks.
        sender: Principal,
    },
}

impl Condition {
    /// The error to answer when the condition does not hold.
    pub fn refusal(&self) -> AdmissionError {
        match self {
            Self::OwnRequest { .. } => AdmissionError::ForbiddenPath {
                reason: "The status of a request can be read only by its sender and under its own effective id",
            },
            Self::ReadableMetadata { name, .. } => {
                AdmissionError::PrivateMetadata { name: name.chars().take(100).collect() }
            }
        }
    }
}

const fn forbidden(reason: &'static str) -> AdmissionError {
    AdmissionError::ForbiddenPath { reason }
}

const fn malformed(reason: &'static str) -> AdmissionError {
    AdmissionError::MalformedPath { reason }
}

/// The state a walk over the paths of one request keeps.
struct Walk<'a> {
    sender: Principal,
    target: Target,
    version: ApiVersion,
    targets: &'a Targets,
    config: &'a Config,
    request: Option<MessageId>,
    ranges_subnet: Option<&'a [u8]>,
    conditions: Vec<Condition>,
}

/// Checks every path of a request; returns what the state has to decide.
pub(crate) fn check_paths(
    paths: &[Vec<&[u8]>],
    sender: Principal,
    (version, target): (ApiVersion, Target),
    targets: &Targets,
    config: &Config,
) -> Result<Vec<Condition>, AdmissionError> {
    if let Target::Subnet(found) = target
        && found != config.subnet_id
    {
        return Err(AdmissionError::EffectiveSubnet { expected: config.subnet_id, found });
    }
    let conditions = Vec::new();
    let mut walk = Walk { sender, target, version, targets, config, request: None, ranges_subnet: None, conditions };
    for (position, path) in paths.iter().enumerate() {
        walk.check_path(path, position)?;
    }
    Ok(walk.conditions)
}

impl<'a> Walk<'a> {
    fn check_path(&mut self, path: &[&'a [u8]], position: usize) -> Result<(), AdmissionError> {
        match path {
            [b"time"]
            | [b"api_boundary_nodes"]
            | [b"api_boundary_nodes", _]
            | [b"api_boundary_nodes", _, b"domain" | b"ipv4_address" | b"ipv6_address"]
            | [b"subnet"]
            | [b"subnet", _]
            | [b"subnet", _, b"public_key" | b"type" | b"node"]
            | [b"subnet", _, b"node", _]
            | [b"subnet", _, b"node", _, b"public_key"] => Ok(()),
            [b"canister_ranges", subnet] => self.check_canister_ranges(subnet),
            [b"subnet", subnet, b"canister_ranges"] => self.check_old_canister_ranges(subnet),
            [b"subnet", subnet, b"metrics"] => self.check_metrics(subnet),
            [b"request_status", id]
            | [b"request_status", id, b"status" | b"reply" | b"reject_code" | b"reject_message" | b"error_code"] => {
                self.check_request_status(id)
            }
            [
                b"canister",
                canister,
                b"module_hash" | b"controllers" | b"canister_creation_timestamp" | b"last_install_timestamp",
            ] => self.check_canister(canister).map(drop),
            [b"canister", canister, b"metadata", name] => self.check_metadata(canister, name),
            _ => Err(AdmissionError::UnknownPath { position }),
        }
    }

    fn check_canister_ranges(&mut self, subnet: &'a [u8]) -> Result<(), AdmissionError> {
        if matches!(self.target, Target::Canister(_)) {
            return Err(forbidden("/canister_ranges can be read at the subnet endpoint only"));
        }
        if self.ranges_subnet.is_some_and(|other| other != subnet) {
            return Err(malformed("all paths below /canister_ranges must name one subnet"));
        }
        self.ranges_subnet = Some(subnet);
        Ok(())
    }

    fn check_old_canister_ranges(&self, subnet: &[u8]) -> Result<(), AdmissionError> {
        if self.version == ApiVersion::V2 || subnet == self.config.root_subnet_id.as_slice() {
            return Ok(());
        }
        Err(forbidden("/subnet/ID/canister_ranges of a subnet other than the root can be read at v2 endpoints only"))
    }

    fn check_metrics(&self, subnet: &[u8]) -> Result<(), AdmissionError> {
        match self.target {
            Target::Subnet(target) if target.as_slice() == subnet => Ok(()),
            _ => Err(forbidden("/subnet/ID/metrics can be read at the endpoint of the same subnet only")),
        }
    }

    fn check_request_status(&mut self, id: &[u8]) -> Result<(), AdmissionError> {
        let id = id.try_into().map(MessageId).map_err(|_| malformed("a request id has 32 bytes"))?;
        match self.request {
            Some(other) if other != id => {
                return Err(malformed("all paths below /request_status must name one request"));
            }
            Some(_) => return Ok(()),
            None => self.request = Some(id),
        }
        let callees = match self.targets {
            Targets::All => None,
            Targets::Only(callees) => Some(callees.clone()),
        };
        self.conditions.push(Condition::OwnRequest { id, sender: self.sender, target: self.target, callees });
        Ok(())
    }

    fn check_canister(&self, canister: &[u8]) -> Result<CanisterId, AdmissionError> {
        let canister =
            Principal::try_from_slice(canister).map_err(|_| malformed("a canister id has at most 29 bytes"))?;
        match self.target {
            Target::Canister(target) if target == canister => Ok(CanisterId::from_principal(canister)),
            Target::Canister(found) => Err(AdmissionError::EffectiveCanister { expected: canister, found }),
            Target::Subnet(_) => Err(forbidden("/canister can be read at the canister endpoint only")),
        }
    }

    fn check_metadata(&mut self, canister: &[u8], name: &[u8]) -> Result<(), AdmissionError> {
        let canister = self.check_canister(canister)?;
        let name = std::str::from_utf8(name).map_err(|_| malformed("the name of a custom section is UTF-8"))?;
        self.conditions.push(Condition::ReadableMetadata { canister, name: name.to_owned(), sender: self.sender });
        Ok(())
    }
}
