//! Queries to the management canister.

use crate::{Query, QueryView};
use cyclotron_execution::management::{CanisterView, CanisterViewData, ManagementQuery};
use cyclotron_execution::reject::no_such_canister;
use cyclotron_routing::Directory;
use cyclotron_types::canister::{CallContexts, InputQueue};
use cyclotron_types::reject::Reject;

/// Answers a query such as `fetch_canister_logs`.
pub fn answer(view: QueryView<'_>, query: &Query) -> Result<Vec<u8>, Reject> {
    let parsed = ManagementQuery::parse(&query.method, &query.arg)?;
    let (canister, quiet) = match parsed.canister {
        None => (None, true),
        Some(id) => {
            let entity = view.world.resource::<Directory>().entity(id);
            let found = entity.and_then(|e| {
                let entity = view.world.entity(e);
                let quiet = entity.get::<InputQueue>().is_some_and(|queue| queue.messages.is_empty())
                    && entity.get::<CallContexts>().is_some_and(|calls| calls.callbacks.is_empty());
                Some((CanisterView::from(entity.get_components::<CanisterViewData>().ok()?), quiet))
            });
            let (canister, quiet) = found.ok_or_else(|| no_such_canister(id))?;
            (Some(canister), quiet)
        }
    };
    parsed.answer(&query.sender, canister, &view.env.subnet, quiet)
}
