//! What operators say to a running node through its socket, and what it says to them: one request and one answer a connection, each a JSON text.

use ic_principal::Principal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of both forms.
pub const CONTROL_VERSION: u32 = 1;
/// Bytes of a request at most.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4_096;
/// Bytes of an answer at most.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 4_096;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlCommand {
    /// To know where the node is.
    Status,
    /// A checkpoint of the next round, answered when it lasts.
    Checkpoint,
    /// A copy of a canister.
    ForkCanister {
        /// Of which.
        source: Principal,
        /// Its id; the next one that the subnet gives out if there is none.
        #[serde(default)]
        target: Option<Principal>,
    },
    /// Cycles out of nothing.
    AddCycles {
        /// For whom.
        canister: Principal,
        /// How many.
        amount: u128,
    },
}

/// What the node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlAnswer {
    /// Where it is.
    Status {
        /// Height of the last round.
        height: u64,
        /// Block time of it, in nanoseconds since 1970.
        time: u64,
        /// Canisters.
        canisters: u64,
        /// Messages that wait for a round.
        waiting: u64,
    },
    /// The checkpoint of this height lasts.
    Checkpoint {
        /// Its height.
        height: u64,
    },
    /// The copy exists.
    Forked {
        /// Its id.
        canister: Principal,
    },
    /// The canister has them.
    CyclesAdded {
        /// What it has now.
        balance: u128,
    },
    /// Nothing was done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Why bytes are no request, or no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// There are more than there may be.
    TooLong,
    /// They are of another version.
    Version(u64),
    /// They are not what they should be: the parser's words.
    Malformed(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it is too long"),
            Self::Version(version) => {
                write!(f, "it is of version {version}, and this program speaks version {CONTROL_VERSION}")
            }
            Self::Malformed(words) => write!(f, "it is not understood: {words}"),
        }
    }
}

impl std::error::Error for ControlError {}

/// What a form begins with, whatever its version.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<T> {
    version: u32,
    content: T,
}

fn encode<T: Serialize>(content: T) -> Vec<u8> {
    let form = Form { version: CONTROL_VERSION, content };
    serde_json::to_vec(&form).expect("the forms have a JSON form, and a vector takes any bytes")
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8], bytes_max: usize) -> Result<T, ControlError> {
    if bytes.len() > bytes_max {
        return Err(ControlError::TooLong);
    }
    let malformed = |error: serde_json::Error| ControlError::Malformed(error.to_string());
    let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version != u64::from(CONTROL_VERSION) {
        return Err(ControlError::Version(version));
    }
    serde_json::from_slice(bytes).map(|Form { content, .. }| content).map_err(malformed)
}

impl ControlCommand {
    /// The bytes of a request.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        decode(bytes, CONTROL_REQUEST_BYTES_MAX)
    }
}

impl ControlAnswer {
    /// The bytes of an answer.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        decode(bytes, CONTROL_ANSWER_BYTES_MAX)
    }
}
