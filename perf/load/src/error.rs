//! Why a workload is not driven.

use crate::mix::Mix;
use cyclotron_storage::StorageError;
use std::fmt;

/// Why a workload is not driven.
#[derive(Debug)]
pub enum LoadFailed {
    /// The mix has transfers, and there is no code of a ledger.
    NoLedger,
    /// A recording holds updates, and the mix has none.
    NoUpdates(Mix),
    /// The URL is none that can be driven.
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No node answers.
    Unreachable {
        /// Where.
        url: String,
        /// What happened instead.
        reason: String,
    },
    /// The canisters could not be made.
    SetUp(String),
    /// So many requests cannot be signed before the first leaves: they would be void when they are sent.
    TooLong {
        /// Seconds at most.
        seconds_max: u64,
    },
    /// The subnet of a recording cannot be made here, or this process gets no thread.
    Machine(String),
    /// The recording cannot be written.
    Storage(StorageError),
}

impl fmt::Display for LoadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLedger => f.write_str(
                "the mix transfers needs the Wasm module of an ICRC ledger, which is not part of this program: one is \
                 examples/ledger_canister/ledger_canister.wasm in the source package pocket-ic of PyPI",
            ),
            Self::NoUpdates(mix) => write!(f, "a recording holds updates, and the mix {mix} has none"),
            Self::Url { url, reason } => write!(f, "{url} cannot be driven: {reason}"),
            Self::Unreachable { url, reason } => write!(f, "no node answers at {url}: {reason}"),
            Self::SetUp(what) => write!(f, "the canisters of the mix cannot be made: {what}"),
            Self::TooLong { seconds_max } => {
                write!(f, "requests that are signed before the first leaves are void after {seconds_max} s")
            }
            Self::Machine(what) => f.write_str(what),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadFailed {}
