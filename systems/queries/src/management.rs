//! Queries to the management canister.

use crate::{CertifiedState, Query, nothing_certified};
use cyclotron_execution::management::ManagementQuery;
use cyclotron_types::reject::Reject;

/// Answers a query such as `fetch_canister_logs`.
pub fn answer(state: &CertifiedState, query: &Query) -> Result<Vec<u8>, Reject> {
    let parsed = ManagementQuery::parse(&query.method, &query.arg)?;
    let env = state.env.as_ref().ok_or_else(nothing_certified)?;
    let canister = parsed.canister.map(|id| state.canister(id)).transpose()?;
    parsed.answer(&query.sender, canister.map(AsRef::as_ref), &env.subnet)
}
