//! The bytes of a query, and of how many were left out.

use super::batch::{Rest, put_bytes, put_principal};
use cyclotron_types::query::{FollowsFrom, Query};
use cyclotron_types::reject::Reject;
use sha2::{Digest, Sha256};

/// A query that a node has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedQuery {
    /// What the answer follows from.
    pub follows_from: FollowsFrom,
    /// Hash of the answer: [`answer_hash`].
    pub answer: [u8; 32],
    /// What was asked.
    pub query: Query,
}

/// Hash by which answers are compared.
pub fn answer_hash(outcome: &Result<Vec<u8>, Reject>) -> [u8; 32] {
    let hash = Sha256::new();
    match outcome {
        Ok(reply) => hash.chain_update([0]).chain_update(reply),
        Err(reject) => hash.chain_update([1, reject.code as u8]).chain_update(&reject.message),
    }
    .finalize()
    .into()
}

impl RecordedQuery {
    /// Appends its bytes, the height of the state excepted, which is in its frame's header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.follows_from {
            FollowsFrom::State => 0,
            FollowsFrom::Certificate => 1,
            FollowsFrom::Moment => 2,
        });
        out.extend_from_slice(&self.answer);
        put_principal(self.query.sender, out);
        put_principal(self.query.receiver.principal(), out);
        put_bytes(self.query.method.as_bytes(), out);
        put_bytes(&self.query.arg, out);
    }

    /// Reads them. `None`: these are not the bytes of one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let follows_from = match rest.array()? {
            [0] => FollowsFrom::State,
            [1] => FollowsFrom::Certificate,
            [2] => FollowsFrom::Moment,
            _ => return None,
        };
        let answer = rest.array()?;
        let (sender, receiver) = (rest.principal()?, rest.canister()?);
        let query = Query { sender, receiver, method: rest.text()?, arg: rest.bytes()?.to_vec() };
        rest.0.is_empty().then_some(Self { follows_from, answer, query })
    }
}

/// Reads how many queries were left out. `None`: it does not say.
pub fn decode_left_out(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// Block time of a batch, without a look at the rest of it. `None`: it has none.
pub fn time_of_batch(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_le_bytes)
}
