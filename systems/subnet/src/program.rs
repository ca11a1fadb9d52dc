//! Which program makes the rounds: a part of what their results follow from.
//!
//! Enters: this program's name for itself, or that of one whose log is replayed. Leaves: what canisters see of it, and whether its rounds
//! can be made again here. Never here: a look at the environment.

use serde::{Deserialize, Serialize};

/// Version of the rules: raised by every change after which the same batches come to another state, however little.
const RULES: u32 = 1;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// What the same batches come to.
    pub rules: u32,
    /// What `subnet_info` calls the replica's version.
    pub version: String,
}

impl Program {
    /// This one.
    pub fn this() -> Self {
        Self { rules: RULES, version: env!("CARGO_PKG_VERSION").into() }
    }

    /// Whether this program makes the same rounds.
    pub fn is_like_this(&self) -> bool {
        self.rules == RULES
    }

    /// CBOR form, as logs keep it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("a program has a CBOR form, and a vector takes any bytes");
        bytes
    }

    /// Reads the CBOR form.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        ciborium::from_reader(bytes).ok()
    }
}
