//! The beginning of a round: time-outs, and the batch's ingress into queues.

use crate::active::ActiveSet;
use crate::deliver::{Mailbox, is_management, store};
use crate::directory::Directory;
use crate::history::IngressHistory;
use crate::queues::{Place, QueueFull, check_place};
use crate::state::{Answered, CurrentRound, Deadlines, Input, ManagementInbox, ManagementLines, Tally, Touched};
use cyclotron_execution::management::{Line, effective_canister};
use cyclotron_execution::reject::{no_such_canister, out_of_cycles};
use cyclotron_execution::{CanisterData, CanisterMut, charge_ingress, settle};
use cyclotron_types::canister::{CallContexts, RunState};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::limits::INGRESS_QUEUE_MAX;
use cyclotron_types::message::{CallKind, Ingress, IngressStatus, Message, Response, ResponsePayload};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_types::units::Cycles;
use cyclotron_world::prelude::*;

/// Forgets ingress statuses whose time has come. Cost: O(forgotten).
pub fn forget_statuses(round: Res<CurrentRound>, mut history: ResMut<IngressHistory>) {
    history.forget_until(round.0.time);
}

/// Answers best-effort calls whose deadline has passed with `SYS_UNKNOWN`. Cost: O(timed out).
///
/// Spec: ic-interface-spec #system-api-call (best-effort responses).
pub fn time_out_calls(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    mut deadlines: ResMut<Deadlines>,
    mut active: ResMut<ActiveSet>,
    mut pool: ResMut<Pool<Message>>,
    mut slots: Query<&mut Message>,
    mut canisters: Query<(Mailbox, &CallContexts)>,
) {
    while let Some(&(deadline, id, callback)) = deadlines.open.first() {
        if deadline > round.0.time {
            return;
        }
        deadlines.open.pop_first();
        let Some((mut mailbox, contexts)) = directory.entity(id).and_then(|e| canisters.get_mut(e).ok()) else {
            continue;
        };
        let Some(call) = contexts.callbacks.get(&callback) else { continue };
        deadlines.timed_out.insert((id, callback));
        let response = Response {
            originator: id,
            respondent: call.callee,
            callback,
            refund: Cycles::ZERO,
            payload: ResponsePayload::Reject(Reject::new(ErrorCode::DeadlineExpired, "Call deadline has expired.")),
            kind: CallKind::BestEffort { deadline },
        };
        store(&mut mailbox.queue, Message::Response(response), &mut pool, &mut slots);
        active.insert(id, directory.ix(id).expect("the canister was found"));
    }
}

/// Puts the batch's ingress messages into queues, in block order. One that is known already is skipped, as are all while the history can
/// remember no more; one that cannot be paid or taken is answered with a reject at once.
///
/// Spec: ic-interface-spec #http-call-overview.
#[allow(clippy::too_many_arguments)]
pub fn induct_ingress(
    mut input: ResMut<Input>,
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    mut history: ResMut<IngressHistory>,
    mut answered: ResMut<Answered>,
    mut inbox: ResMut<ManagementInbox>,
    mut lines: ResMut<ManagementLines>,
    mut active: ResMut<ActiveSet>,
    mut tally: ResMut<Tally>,
    mut touched: ResMut<Touched>,
    mut pool: ResMut<Pool<Message>>,
    mut slots: Query<&mut Message>,
    mut canisters: bevy_ecs::system::ParamSet<(Query<CanisterData>, Query<Mailbox>)>,
) {
    let (now, slots_max) = (round.0.time, round.0.subnet.limits.queue_slots);
    for ingress in input.0.ingress.drain(..) {
        if ingress.expiry < now || !history.receive(&ingress) {
            continue;
        }
        let id = ingress.id;
        let paid = pay(&ingress, &round, &directory, &mut canisters.p0(), &mut tally, &mut touched);
        let taken = paid.and_then(|()| {
            if is_management(&round, ingress.receiver) {
                let line = Line::IngressAbout(ingress.effective_canister);
                let max = if ingress.effective_canister.is_some() { slots_max } else { INGRESS_QUEUE_MAX };
                lines.enter(line, max).map_err(|full| ingress_queue_full(ingress.receiver, full))?;
                inbox.0.push_back(Message::Ingress(ingress));
                return Ok(());
            }
            let mut mailboxes = canisters.p1();
            let receiver = ingress.receiver;
            let mut mailbox = directory
                .entity(receiver)
                .and_then(|e| mailboxes.get_mut(e).ok())
                .ok_or_else(|| no_such_canister(receiver))?;
            may_take(receiver, &mailbox.queue, mailbox.run_state)?;
            store(&mut mailbox.queue, Message::Ingress(ingress), &mut pool, &mut slots);
            active.insert(receiver, directory.ix(receiver).expect("the canister was found"));
            Ok(())
        });
        if let Err(reject) = taken {
            let status = IngressStatus::Rejected(reject);
            history.set(id, status, now);
            answered.0.push(id);
        }
    }
}

fn pay(
    ingress: &Ingress,
    round: &CurrentRound,
    directory: &Directory,
    canisters: &mut Query<CanisterData>,
    tally: &mut Tally,
    touched: &mut Touched,
) -> Result<(), Reject> {
    let payer = if is_management(round, ingress.receiver) {
        effective_canister(&ingress.method, &ingress.arg)?.payer
    } else {
        Some(ingress.receiver)
    };
    let Some(payer) = payer else { return Ok(()) };
    let item =
        directory.entity(payer).and_then(|e| canisters.get_mut(e).ok()).ok_or_else(|| no_such_canister(payer))?;
    touched.0.insert(payer);
    let (fees, mut canister) = (&round.0.subnet.fees, CanisterMut::from(item));
    let settled = settle(fees, &mut canister, round.0.time);
    tally.burned = tally.burned.saturating_add(settled.burned);
    let fee = charge_ingress(fees, &mut canister, ingress).map_err(out_of_cycles)?;
    tally.burned = tally.burned.saturating_add(fee);
    Ok(())
}

fn may_take(id: CanisterId, queue: &cyclotron_types::canister::InputQueue, run_state: &RunState) -> Result<(), Reject> {
    match run_state {
        RunState::Running => {}
        RunState::Stopping(_) => {
            return Err(Reject::new(ErrorCode::CanisterStopping, format!("Canister {id} is stopping")));
        }
        RunState::Stopped => return Err(Reject::new(ErrorCode::CanisterStopped, format!("Canister {id} is stopped"))),
    }
    check_place(queue, Place::Ingress, 0).map_err(|full| ingress_queue_full(id, full))
}

fn ingress_queue_full(id: CanisterId, full: QueueFull) -> Reject {
    let text = format!("{} ingress messages wait at canister {id} already", full.waiting);
    Reject::new(ErrorCode::CanisterQueueFull, text)
}
