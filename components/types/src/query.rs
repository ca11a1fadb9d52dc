//! Queries as plain data.

use crate::Principal;
use crate::ids::CanisterId;

/// One query call, admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who asks.
    pub sender: Principal,
    /// The canister asked, or the management canister.
    pub receiver: CanisterId,
    /// Its method.
    pub method: String,
    /// The argument.
    pub arg: Vec<u8>,
}

/// What the answer to a query follows from, besides the query itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FollowsFrom {
    /// The certified state of one height alone: whoever has that state gives the same answer.
    #[default]
    State,
    /// Also a certificate that the canister has looked at, whose signature only the subnet can make.
    Certificate,
    /// Also how far the query had come whenever a round ended: it has started over, or was given up.
    Moment,
}
