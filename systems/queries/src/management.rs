//! Queries to the management canister.

use crate::{Query, QueryView};
use cyclotron_execution::management::{CanisterView, CanisterViewData, ManagementQuery};
use cyclotron_routing::Directory;
use cyclotron_types::canister::InputQueue;
use cyclotron_types::reject::{ErrorCode, Reject};

/// Answers a query such as `fetch_canister_logs`.
pub fn answer(view: QueryView<'_>, query: &Query) -> Result<Vec<u8>, Reject> {
    let parsed = ManagementQuery::parse(&query.method, &query.arg)?;
    let (canister, quiet) = match parsed.canister {
        None => (None, true),
        Some(id) => {
            let entity = view.world.resource::<Directory>().entity(id);
            let found = entity.and_then(|e| {
                let entity = view.world.entity(e);
                let quiet = entity.get::<InputQueue>().is_some_and(|queue| queue.messages.is_empty());
                Some((CanisterView::from(entity.get_components::<CanisterViewData>().ok()?), quiet))
            });
            let not_found = || Reject::new(ErrorCode::CanisterNotFound, format!("Canister {id} not found"));
            let (canister, quiet) = found.ok_or_else(not_found)?;
            (Some(canister), quiet)
        }
    };
    parsed.answer(&query.sender, canister, &view.env.subnet, quiet)
}
