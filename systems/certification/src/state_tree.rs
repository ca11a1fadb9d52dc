//! The content of the state tree.

use crate::certificate::Seal;
use crate::leaves::{self, SubnetMetrics};
use cyclotron_tree::{LabeledTree, Lookup, PathError};
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::message::IngressStatus;
use cyclotron_types::units::Time;
use cyclotron_types::{Principal, PrincipalSet};
use cyclotron_wire::leb128;
use std::collections::BTreeMap;

/// Labels that recur in every subtree, sorted.
const DICTIONARY: &[&[u8]] = &[
    b"canister",
    b"canister_creation_timestamp",
    b"canister_ranges",
    b"certified_data",
    b"controllers",
    b"error_code",
    b"last_install_timestamp",
    b"metadata",
    b"metrics",
    b"module_hash",
    b"node",
    b"public_key",
    b"reject_code",
    b"reject_message",
    b"reply",
    b"request_status",
    b"status",
    b"subnet",
    b"time",
    b"type",
];

/// Ranges in one shard of `/canister_ranges`. dfinity/ic `canonical_state/src/lazy_tree_conversion.rs`, 2025.
const RANGES_PER_SHARD: usize = 5;

/// What the state tree shows of a canister.
#[derive(Clone, Copy, Debug)]
pub struct CanisterFacts<'a> {
    /// The controllers.
    pub controllers: &'a PrincipalSet,
    /// The certified data; no user can read it, only the canister's queries can.
    pub certified_data: &'a [u8],
    /// When the canister was created, if recorded.
    pub created: Option<Time>,
    /// The installed code; `None` for an empty canister.
    pub code: Option<CodeFacts<'a>>,
}

/// What the state tree shows of installed code.
#[derive(Clone, Copy, Debug)]
pub struct CodeFacts<'a> {
    /// SHA-256 of the module as it was installed.
    pub module_hash: &'a [u8; 32],
    /// When it was installed or upgraded, or a snapshot was loaded, if recorded.
    pub installed: Option<Time>,
    /// Names and contents of the `icp:public` and `icp:private` sections. Names are distinct.
    pub metadata: &'a [(&'a str, &'a [u8])],
}

/// What the state tree shows of a subnet.
#[derive(Clone, Copy, Debug)]
pub struct SubnetFacts<'a> {
    /// Its BLS key, DER-encoded.
    pub public_key: &'a [u8],
    /// `application`, `system`, `verified_application` or `cloud_engine`.
    pub subnet_type: &'a str,
    /// Closed intervals of canister ids, sorted and disjoint.
    pub canister_ranges: &'a [(Principal, Principal)],
    /// Its nodes and their Ed25519 keys, DER-encoded.
    pub nodes: &'a [(Principal, &'a [u8])],
}

/// The state tree of one subnet. See the crate's head for how it is used.
pub struct StateTree {
    pub(crate) tree: LabeledTree,
    pub(crate) seal: Option<Seal>,
    pub(crate) root_subnet: Principal,
    pub(crate) canister_ranges: BTreeMap<Principal, Vec<(Principal, Principal)>>,
    pub(crate) delegation: Option<crate::Delegation>,
}

impl StateTree {
    /// Makes a tree with nothing in it. `root_subnet` is the subnet whose key the clients know.
    pub fn new(root_subnet: Principal) -> Self {
        Self {
            tree: LabeledTree::new(DICTIONARY),
            seal: None,
            root_subnet,
            canister_ranges: BTreeMap::new(),
            delegation: None,
        }
    }

    /// Returns the number of values in the tree.
    pub fn leaves(&self) -> usize {
        self.tree.len()
    }

    /// Returns the bytes of memory that the tree holds.
    pub fn memory_bytes(&self) -> usize {
        self.tree.memory_bytes()
    }

    /// Sets `/time`.
    pub fn set_time(&mut self, time: Time) {
        self.set(&[b"time"], &leb128(time.0));
    }

    /// Sets everything that the tree shows of a canister; facts that are as they were cost a comparison.
    /// Spec: ic-interface-spec #state-tree-canister-information.
    pub fn upsert_canister(&mut self, canister: CanisterId, facts: &CanisterFacts<'_>) {
        self.seal = None;
        let canister: [&[u8]; 2] = [b"canister", canister.as_slice()];
        let is_new = self.tree.lookup(&canister) == Lookup::Absent;
        let controllers = leaves::controllers(facts.controllers.iter());
        let created = facts.created.map(|time| leb128(time.0));
        let installed = facts.code.and_then(|code| code.installed).map(|time| leb128(time.0));
        let metadata = facts.code.map_or(&[][..], |code| code.metadata);
        let values: [(&[u8], Option<&[u8]>); 5] = [
            (b"certified_data", Some(facts.certified_data)),
            (b"controllers", Some(&controllers)),
            (b"canister_creation_timestamp", created.as_deref()),
            (b"last_install_timestamp", installed.as_deref()),
            (b"module_hash", facts.code.as_ref().map(|code| &code.module_hash[..])),
        ];
        let sections: Vec<[&[u8]; 2]> = metadata.iter().map(|(name, _)| [&b"metadata"[..], name.as_bytes()]).collect();
        let contents = metadata.iter().map(|(_, content)| *content);
        let values_there = values.iter().filter_map(|(label, value)| Some((std::slice::from_ref(label), (*value)?)));
        let there: Vec<(&[&[u8]], &[u8])> =
            values_there.chain(sections.iter().map(|path| &path[..]).zip(contents)).collect();
        expect_written(self.tree.insert_below(&canister, &there));
        if !is_new {
            for (label, _) in values.iter().filter(|(_, value)| value.is_none()) {
                self.tree.remove(&[canister[0], canister[1], label]);
            }
            self.remove_other_metadata(canister, metadata);
        }
    }

    fn remove_other_metadata(&mut self, canister: [&[u8]; 2], kept: &[(&str, &[u8])]) {
        let directory = [canister[0], canister[1], b"metadata"];
        let mut stale: Vec<Vec<u8>> = Vec::new();
        self.tree.for_each_child(&directory, |name, _| {
            if !kept.iter().any(|(kept, _)| kept.as_bytes() == name) {
                stale.push(name.to_vec());
            }
        });
        for name in stale {
            self.tree.remove(&[directory[0], directory[1], directory[2], &name]);
        }
    }

    /// Sets a canister's certified data.
    pub fn set_certified_data(&mut self, canister: CanisterId, data: &[u8]) {
        self.set(&[b"canister", canister.as_slice(), b"certified_data"], data);
    }

    /// Sets a canister's controllers.
    pub fn set_controllers(&mut self, canister: CanisterId, controllers: &PrincipalSet) {
        let controllers = leaves::controllers(controllers.iter());
        self.set(&[b"canister", canister.as_slice(), b"controllers"], &controllers);
    }

    /// Removes a canister; tells whether it was there.
    pub fn remove_canister(&mut self, canister: CanisterId) -> bool {
        self.remove(&[b"canister", canister.as_slice()])
    }

    /// Sets the status of a request.
    /// Spec: ic-interface-spec #state-tree-request-status.
    pub fn upsert_request_status(&mut self, request: MessageId, status: &IngressStatus) {
        self.seal = None;
        let request: [&[u8]; 2] = [b"request_status", &request.0];
        let (name, answer) = match status {
            IngressStatus::Received => ("received", &[][..]),
            IngressStatus::Processing => ("processing", &[][..]),
            IngressStatus::Replied(_) => ("replied", &[&b"reply"[..]][..]),
            IngressStatus::Rejected(_) => ("rejected", &[&b"reject_code"[..], b"reject_message", b"error_code"][..]),
            IngressStatus::Done => ("done", &[][..]),
        };
        if self.tree.lookup(&request) == Lookup::Subtree {
            for label in [&b"reply"[..], b"reject_code", b"reject_message", b"error_code"] {
                if !answer.contains(&label) {
                    self.tree.remove(&[request[0], request[1], label]);
                }
            }
        }
        let name: (&[&[u8]], &[u8]) = (&[b"status"], name.as_bytes());
        let outcome = match status {
            IngressStatus::Replied(reply) => self.tree.insert_below(&request, &[name, (&[b"reply"], reply)]),
            IngressStatus::Rejected(reject) => {
                let error = reject.error_code().to_string();
                self.tree.insert_below(
                    &request,
                    &[
                        name,
                        (&[b"reject_code"], &leb128(reject.code as u64)),
                        (&[b"reject_message"], reject.message.as_bytes()),
                        (&[b"error_code"], error.as_bytes()),
                    ],
                )
            }
            _ => self.tree.insert_below(&request, &[name]),
        };
        expect_written(outcome);
    }

    /// Removes the statuses of requests; those that are not there are passed over.
    pub fn remove_request_statuses<'a>(&mut self, requests: impl IntoIterator<Item = &'a MessageId>) {
        for request in requests {
            self.remove(&[b"request_status", &request.0]);
        }
    }

    /// Sets everything but the metrics that the tree shows of a subnet, its canister ranges in both forms.
    /// Spec: ic-interface-spec #state-tree-subnet, #state-tree-canister-ranges.
    pub fn upsert_subnet(&mut self, subnet: Principal, facts: &SubnetFacts<'_>) {
        let ranges = facts.canister_ranges;
        let ordered = ranges.iter().flat_map(|(first, last)| [first, last]);
        assert!(ordered.is_sorted(), "canister ranges are sorted");
        let id = subnet.as_slice();
        self.set(&[b"subnet", id, b"public_key"], facts.public_key);
        self.set(&[b"subnet", id, b"type"], facts.subnet_type.as_bytes());
        self.set(&[b"subnet", id, b"canister_ranges"], &leaves::canister_ranges(ranges));
        self.remove(&[b"subnet", id, b"node"]);
        for (node, key) in facts.nodes {
            self.set(&[b"subnet", id, b"node", node.as_slice(), b"public_key"], key);
        }
        self.remove(&[b"canister_ranges", id]);
        for shard in ranges.chunks(RANGES_PER_SHARD) {
            self.set(&[b"canister_ranges", id, shard[0].0.as_slice()], &leaves::canister_ranges(shard));
        }
        self.canister_ranges.insert(subnet, ranges.to_vec());
    }

    /// Sets `/subnet/<subnet>/metrics`.
    pub fn set_subnet_metrics(&mut self, subnet: Principal, metrics: &SubnetMetrics) {
        self.set(&[b"subnet", subnet.as_slice(), b"metrics"], &leaves::subnet_metrics(metrics));
    }

    /// Sets the delegation that goes into every certificate; a root subnet has none.
    pub fn set_delegation(&mut self, delegation: Option<crate::Delegation>) {
        self.delegation = delegation;
    }

    fn set(&mut self, path: &[&[u8]], value: &[u8]) {
        self.seal = None;
        expect_written(self.tree.insert(path, value));
    }

    fn remove(&mut self, path: &[&[u8]]) -> bool {
        self.seal = None;
        self.tree.remove(path)
    }
}

/// The state tree's paths are prefix-free by construction, and their labels are bounded: a refusal is a fault of this module.
fn expect_written(outcome: Result<(), PathError>) {
    if let Err(error) = outcome {
        panic!("the state tree refused a path: {error}");
    }
}
