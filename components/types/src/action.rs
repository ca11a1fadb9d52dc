//! What an operator or a test may do to the Replicated world besides messages, and what becomes of it.

use crate::ids::CanisterId;
use crate::units::{Bytes, Cycles};
use std::fmt;

/// One thing to do, as part of a batch; on a live network there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorAction {
    /// Adds cycles to a canister out of nothing.
    AddCycles {
        /// To whom.
        canister: CanisterId,
        /// How many.
        amount: Cycles,
    },
    /// Makes a copy of a canister, cycles included, that goes on under an id of its own.
    ForkCanister {
        /// Of whom.
        source: CanisterId,
        /// Its id; the next one that the subnet gives out if there is none.
        target: Option<CanisterId>,
    },
}

/// What an action did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionDone {
    /// The canister has so many cycles now.
    CyclesAdded {
        /// Its balance.
        balance: Cycles,
    },
    /// The copy exists.
    Forked {
        /// Its id.
        canister: CanisterId,
    },
}

/// Why an action did nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionRefused {
    /// There is no such canister.
    NoSuchCanister(CanisterId),
    /// The canister serves calls, or waits for answers to calls of its own: who is answered could not be the same for both.
    OpenCalls {
        /// Whose.
        canister: CanisterId,
        /// Calls that it serves.
        serves: u64,
        /// Calls that it has made.
        made: u64,
    },
    /// Messages wait in the canister's queue.
    MessagesWait(CanisterId),
    /// A message of the canister, or an installation of its code, is under way.
    Busy(CanisterId),
    /// The canister is stopping, and somebody waits for that.
    Stopping(CanisterId),
    /// The id is not one of the subnet's.
    IdNotHosted(CanisterId),
    /// A canister has the id, or had it.
    IdTaken(CanisterId),
    /// The subnet has given out all of its ids.
    OutOfIds,
    /// The subnet's memory does not hold the copy.
    OutOfMemory {
        /// What it takes, its allocation if that is more.
        required: Bytes,
        /// What is free.
        available: Bytes,
    },
    /// The subnet cannot allocate as much compute to the copy as the canister has.
    OutOfCompute {
        /// Percent of a core.
        required: u64,
        /// What is free.
        available: u64,
    },
}

impl fmt::Display for ActionRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCanister(id) => write!(f, "there is no canister {id}"),
            Self::OpenCalls { canister, serves, made } => write!(
                f,
                "canister {canister} serves {serves} calls and waits for {made} answers; try again when there are none (a stopped canister has none)"
            ),
            Self::MessagesWait(id) => write!(f, "messages wait in the queue of canister {id}; try again in a moment"),
            Self::Busy(id) => write!(f, "canister {id} is in the middle of a message or an installation"),
            Self::Stopping(id) => write!(f, "canister {id} is stopping; try again when it has stopped"),
            Self::IdNotHosted(id) => write!(f, "the id {id} is none of this subnet"),
            Self::IdTaken(id) => write!(f, "the id {id} is taken: a canister has it or had it"),
            Self::OutOfIds => write!(f, "the subnet has given out all of its canister ids"),
            Self::OutOfMemory { required, available } => {
                write!(f, "the copy takes {required} of the subnet's memory, and {available} are free")
            }
            Self::OutOfCompute { required, available } => {
                write!(f, "the copy needs a compute allocation of {required} %, and {available} % are free")
            }
        }
    }
}

impl std::error::Error for ActionRefused {}
