//! The management canister, `aaaaa-aa`: life and settings of canisters.
//!
//! Enters: calls of canisters and users, one at a time, and the canisters of the subnet through [`Canisters`]. Leaves: changed canisters,
//! and [`ManagementEffects`] to route. Never here: a change by a call that is rejected, fees for what was executed and log lines excepted;
//! cycles made or lost other than listed.
//!
//! [`execute_management`] runs between the parallel phases of a round. A call is answered at once, or
//! - an installation is suspended at its slice's end ([`ManagementStep::Suspended`]) and continued by [`resume_install`],
//! - a stop waits for open call contexts ([`finish_stopping`], [`expire_stopping`]),
//! - `raw_rand`, and what must not disturb a suspended message, is tried again in the next round.
//!
//! Admission and induction use [`effective_canister`], [`ingress_allowed`] and [`check_ingress_sender`]; queries use
//! [`ManagementQuery`].

mod call;
mod chunks;
mod code;
mod create;
mod error;
mod fork;
mod history;
mod ids;
mod lifecycle;
mod method;
mod random;
mod resources;
mod settings;
mod status;
mod view;
mod wire;

#[cfg(test)]
mod tests;

pub use call::{
    Answer, Canisters, Line, ManagementCall, ManagementContext, ManagementEffects, ManagementOrigin, ManagementStep,
    NodeFacts,
};
pub use chunks::UPLOAD_INSTRUCTIONS;
pub use code::{PendingInstall, resume_install};
pub use create::PROVISIONAL_CYCLES_DEFAULT;
pub use error::ManagementError;
pub use fork::{Forked, fork_canister};
pub use history::{environment_hash, memory as history_memory};
pub use ids::{CanisterIds, IdError, IdRange};
pub use lifecycle::{expire_stopping, finish_stopping, uninstall, uninstall_exhausted};
pub use method::{
    EffectiveCanister, Entry, Guard, Guarded, Method, check_ingress_sender, effective_canister, ingress_allowed,
    sender_canister_version,
};
pub use random::RandomStream;
pub use resources::{MemoryUse, SubnetUse};
pub use status::{ManagementQuery, StatusFacts, canister_info, canister_metadata, canister_status};
pub use view::CanisterView;

use crate::reject::ingress_timed_out;
use crate::{CanisterMut, Paused};
use call::{Running, payload};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::message::ResponsePayload;
use lifecycle::Stop;
use method::query_only;
use wire::ic;

/// How a method's body ended.
enum Body {
    Reply(Vec<u8>),
    Waiting,
    /// The answer must not be known in this round.
    NextRound,
    /// The canister is in the middle of a message.
    Busy,
    Suspended(code::Terms),
}

/// Executes one call, or its first slice.
///
/// Cost: O(argument) and what the method does; module code runs for at most one slice.
pub fn execute_management(context: &mut ManagementContext<'_>, mut call: ManagementCall) -> ManagementStep {
    let mut run = Running { call: &mut call, effects: ManagementEffects::default() };
    let result = match body(context, &mut run) {
        Ok(again @ (Body::NextRound | Body::Busy)) => {
            assert_eq!(run.effects, ManagementEffects::default(), "a call that comes again has done nothing");
            call.deferred |= matches!(again, Body::NextRound);
            return ManagementStep::NextRound(call);
        }
        Ok(Body::Suspended(terms)) => {
            let effects = run.effects;
            return ManagementStep::Suspended { pending: Box::new(PendingInstall::new(call, terms)), effects };
        }
        Ok(Body::Waiting) => return ManagementStep::Waiting(run.effects),
        Ok(Body::Reply(bytes)) => Ok(bytes),
        Err(error) => Err(error),
    };
    finish(run, payload(result))
}

/// Answers the call, first of all answers. What is left of the payment goes back.
fn finish(mut run: Running<'_>, payload: ResponsePayload) -> ManagementStep {
    let refund = std::mem::take(&mut run.call.payment);
    let answer = run.call.origin.answer(payload, refund);
    run.effects.answers.insert(0, answer);
    ManagementStep::Done(run.effects)
}

fn body(context: &mut ManagementContext<'_>, run: &mut Running<'_>) -> Result<Body, ManagementError> {
    if let ManagementOrigin::Ingress { id, .. } = run.call.origin
        && run.call.expiry < context.env.time
    {
        return Err(ingress_timed_out(id).into());
    }
    let method = method::method(&run.call.method)?;
    match (method.entry(), &run.call.origin) {
        (Entry::QueryOnly, _) => return Err(query_only(method).into()),
        (Entry::CanistersOnly, ManagementOrigin::Ingress { .. }) => {
            ingress_allowed(&run.call.method)?;
        }
        _ => {}
    }
    if is_busy(context, run) {
        return Ok(Body::Busy);
    }
    let reply = match method {
        Method::CreateCanister => create::create_canister(context, run),
        Method::ProvisionalCreateCanisterWithCycles => {
            check_provisional(context)?;
            create::provisional_create(context, run)
        }
        Method::ProvisionalTopUpCanister => {
            check_provisional(context)?;
            create::provisional_top_up(context, run)
        }
        Method::DepositCycles => create::deposit_cycles(context, run),
        Method::UpdateSettings => {
            let result = create::update_settings(context, run);
            if !matches!(result, Err(ManagementError::NotController { .. })) {
                create::charge_later(context, run);
            }
            result
        }
        Method::StartCanister => lifecycle::start_canister(context, run),
        Method::StopCanister => {
            return Ok(match lifecycle::stop_canister(context, run)? {
                Stop::Answered(bytes) => Body::Reply(bytes),
                Stop::Waiting => Body::Waiting,
            });
        }
        Method::InstallCode | Method::InstallChunkedCode => {
            let started = match method {
                Method::InstallCode => code::install_code(context, run)?,
                _ => code::install_chunked_code(context, run)?,
            };
            return Ok(match started {
                code::Started::Done(bytes) => Body::Reply(bytes),
                code::Started::Suspended(terms) => Body::Suspended(terms),
            });
        }
        Method::UninstallCode => lifecycle::uninstall_code(context, run),
        Method::DeleteCanister => lifecycle::delete_canister(context, run),
        Method::UploadChunk => chunks::upload_chunk(context, run),
        Method::ClearChunkStore => chunks::clear_chunk_store(context, run),
        Method::StoredChunks => chunks::stored_chunks(context, run),
        Method::CanisterStatus | Method::CanisterInfo | Method::CanisterMetadata => read(context, run, method),
        Method::SubnetInfo => subnet_info(context, run),
        Method::RawRand => {
            wire::decode_nothing(&run.call.arg)?;
            if !run.call.deferred {
                return Ok(Body::NextRound);
            }
            Ok(wire::encode(&serde_bytes::ByteBuf::from(context.random.next_bytes())))
        }
        method => Err(ManagementError::NotBuilt(method.name())),
    };
    reply.map(Body::Reply)
}

fn check_provisional(context: &ManagementContext<'_>) -> Result<(), ManagementError> {
    if context.node.provisional {
        return Ok(());
    }
    // dfinity/ic conceals these methods where they are not to be used.
    let error = cyclotron_types::reject::ErrorCode::CanisterMethodNotFound;
    Err(cyclotron_types::reject::Reject::new(error, "Sender not authorized to use method.").into())
}

/// Whether the canister that the call is about runs a long message, which the call must not come between.
fn is_busy(context: &mut ManagementContext<'_>, run: &Running<'_>) -> bool {
    let canister = run.call.disturbs.and_then(|id| context.canisters.get(id));
    canister.is_some_and(|canister| !matches!(canister.paused, Paused::None))
}

/// Holds the call to the method's caller rule.
fn check_guard(canister: &CanisterMut<'_>, run: &Running<'_>, method: Method) -> Result<(), ManagementError> {
    let caller = run.caller();
    if CanisterView::from(canister).guarded().admits(method.guard(), &caller) {
        return Ok(());
    }
    Err(ManagementError::NotController { canister: canister.id, controllers: canister.controllers.0.clone(), caller })
}

fn read(
    context: &mut ManagementContext<'_>,
    run: &mut Running<'_>,
    method: Method,
) -> Result<Vec<u8>, ManagementError> {
    let (id, changes, name) = match method {
        Method::CanisterInfo => {
            let args: ic::CanisterInfoArgs = wire::decode(&run.call.arg)?;
            (args.canister_id, args.num_requested_changes.unwrap_or(0), String::new())
        }
        Method::CanisterMetadata => {
            let args: ic::CanisterMetadataArgs = wire::decode(&run.call.arg)?;
            (args.canister_id, 0, args.name)
        }
        _ => (wire::decode::<wire::CanisterIdArgs>(&run.call.arg)?.canister_id, 0, String::new()),
    };
    let id = CanisterId::from_principal(id);
    let quiet = !context.canisters.has_messages(id);
    let env = context.env;
    let canister = context.look(run, id)?;
    check_guard(&canister, run, method)?;
    let view = CanisterView::from(&canister);
    match method {
        Method::CanisterInfo => Ok(wire::encode(&canister_info(&view, changes))),
        Method::CanisterMetadata => Ok(wire::encode(&canister_metadata(&view, &run.caller(), &name)?)),
        _ => Ok(wire::encode(&canister_status(&StatusFacts::of(&view, quiet), &env.subnet))),
    }
}

fn subnet_info(context: &mut ManagementContext<'_>, run: &mut Running<'_>) -> Result<Vec<u8>, ManagementError> {
    let args: ic::SubnetInfoArgs = wire::decode(&run.call.arg)?;
    if args.subnet_id != context.env.subnet.subnet {
        return Err(ManagementError::SubnetNotFound(args.subnet_id));
    }
    Ok(wire::encode(&ic::SubnetInfoResult {
        replica_version: context.node.replica_version.clone(),
        registry_version: context.node.registry_version,
    }))
}
