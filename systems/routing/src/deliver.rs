//! Local delivery: calls and responses from the outbox into queues.
//!
//! A request that cannot be delivered becomes a reject response with all its cycles; a response is always delivered, and where its
//! canister is gone its cycles are burned.

use crate::active::ActiveSet;
use crate::directory::Directory;
use crate::queues::{Place, QueueFull, check_place, enqueue, place_of};
use crate::state::{CurrentRound, Deadlines, Input, ManagementInbox, ManagementLines, Outbox, Tally, Touched};
use cyclotron_execution::Outgoing;
use cyclotron_execution::management::Line;
use cyclotron_execution::reject::{no_such_canister, too_few_cycles_attached};
use cyclotron_types::canister::{CyclesBalance, InputQueue, RunState, SharedSettings};
use cyclotron_types::ids::{CanisterId, MessageIx};
use cyclotron_types::message::{CallKind, Message, Request, Response, ResponsePayload};
use cyclotron_types::reject::{ErrorCode, Reject};
use cyclotron_world::prelude::*;

/// What delivery needs of a canister.
#[derive(QueryData)]
#[query_data(mutable)]
pub struct Mailbox {
    /// Where messages wait.
    pub queue: &'static mut InputQueue,
    /// Whether it takes any.
    pub run_state: &'static RunState,
    /// What a call must at least carry.
    pub settings: &'static SharedSettings,
    /// Where late refunds go.
    pub balance: &'static mut CyclesBalance,
}

/// Makes room in the message pool for everything that this round may deliver next. Cost: nothing in the steady state.
pub fn reserve_slots(world: &mut World) {
    let count = world.resource::<Outbox>().0.len() + world.resource::<Input>().0.ingress.len();
    // A timed-out call takes a slot more, and a request that bounces takes the slot of its reject.
    let due = world.resource::<Deadlines>().open.len();
    Pool::<Message>::reserve(world, count + due, || Message::Vacant);
}

/// Moves everything in the outbox to where it goes, in order; rejects of undeliverable requests included.
#[allow(clippy::too_many_arguments)]
pub fn deliver_outbox(
    round: Res<CurrentRound>,
    directory: Res<Directory>,
    mut outbox: ResMut<Outbox>,
    mut inbox: ResMut<ManagementInbox>,
    mut lines: ResMut<ManagementLines>,
    mut active: ResMut<ActiveSet>,
    mut deadlines: ResMut<Deadlines>,
    mut tally: ResMut<Tally>,
    mut touched: ResMut<Touched>,
    mut pool: ResMut<Pool<Message>>,
    mut slots: Query<&mut Message>,
    mut canisters: Query<Mailbox>,
) {
    for outgoing in outbox.0.drain(..) {
        let response = match outgoing {
            Outgoing::Request(request) => {
                if let CallKind::BestEffort { deadline } = request.kind {
                    deadlines.open.insert((deadline, request.sender, request.callback));
                }
                let slots_max = round.0.subnet.limits.queue_slots;
                let receiver = request.receiver;
                let refused = if is_management(&round, receiver) {
                    match lines.enter(Line::CallsOf(request.sender), slots_max) {
                        Ok(()) => {
                            inbox.0.push_back(Message::Request(request));
                            continue;
                        }
                        Err(full) => Err((queue_full(&request, full), request)),
                    }
                } else {
                    match directory.entity(receiver).and_then(|e| canisters.get_mut(e).ok()) {
                        None => Err((no_such_canister(receiver), request)),
                        Some(mut mailbox) => place(&mut mailbox, request, slots_max, &mut pool, &mut slots),
                    }
                };
                match refused {
                    Ok(()) => {
                        active.insert(receiver, directory.ix(receiver).expect("the canister was found"));
                        continue;
                    }
                    Err((reject, request)) => bounce(request, reject),
                }
            }
            Outgoing::Response(response) => response,
        };
        let mut late = false;
        if let CallKind::BestEffort { deadline } = response.kind {
            deadlines.open.remove(&(deadline, response.originator, response.callback));
            late = deadlines.timed_out.remove(&(response.originator, response.callback));
        }
        let Some(entity) = directory.entity(response.originator) else {
            tally.burned = tally.burned.saturating_add(response.refund);
            continue;
        };
        let mut mailbox = canisters.get_mut(entity).expect("a listed canister has a mailbox");
        if late {
            let lost = mailbox.balance.0.put(response.refund);
            tally.burned = tally.burned.saturating_add(lost);
            touched.0.insert(response.originator);
            continue;
        }
        let originator = response.originator;
        store(&mut mailbox.queue, Message::Response(response), &mut pool, &mut slots);
        active.insert(originator, directory.ix(originator).expect("the canister was found"));
    }
}

/// Whether calls to this principal go to the management canister: `aaaaa-aa`, or the subnet's own id.
pub(crate) fn is_management(round: &CurrentRound, receiver: CanisterId) -> bool {
    receiver == CanisterId::MANAGEMENT || receiver.principal() == round.0.subnet.subnet
}

type Refused = (Reject, Request);

#[allow(clippy::result_large_err, reason = "the request goes back to be bounced; it is moved once")]
fn place(
    mailbox: &mut MailboxItem<'_, '_>,
    request: Request,
    slots_max: u32,
    pool: &mut Pool<Message>,
    slots: &mut Query<&mut Message>,
) -> Result<(), Refused> {
    let id = request.receiver;
    let required = mailbox.settings.minimum_incoming_canister_call_cycles;
    let reject = match *mailbox.run_state {
        RunState::Stopping(_) => Some(Reject::new(ErrorCode::CanisterStopping, format!("Canister {id} is stopping"))),
        RunState::Stopped => Some(Reject::new(ErrorCode::CanisterStopped, format!("Canister {id} is stopped"))),
        RunState::Running if request.payment < required && request.sender != id => {
            Some(too_few_cycles_attached(id, request.payment, required))
        }
        RunState::Running => None,
    };
    if let Some(reject) = reject {
        return Err((reject, request));
    }
    if let Err(full) = check_place(&mailbox.queue, Place::RequestOf(request.sender), slots_max) {
        return Err((queue_full(&request, full), request));
    }
    store(&mut mailbox.queue, Message::Request(request), pool, slots);
    Ok(())
}

fn queue_full(request: &Request, full: QueueFull) -> Reject {
    let Request { sender, receiver, .. } = request;
    let text = format!("{} calls of canister {sender} wait at canister {receiver} already", full.waiting);
    Reject::new(ErrorCode::CanisterQueueFull, text)
}

/// Stores the message in the pool and puts it in the queue. Its place has been checked, its slot reserved.
pub(crate) fn store(
    queue: &mut InputQueue,
    message: Message,
    pool: &mut Pool<Message>,
    slots: &mut Query<&mut Message>,
) {
    let take_place = place_of(&message);
    match pool.put(slots, message) {
        Ok(slot) => enqueue(queue, take_place, MessageIx(slot)),
        Err(message) => unreachable!("no slot was reserved for {message:?}"),
    }
}

fn bounce(request: Request, reject: Reject) -> Response {
    Response {
        originator: request.sender,
        respondent: request.receiver,
        callback: request.callback,
        refund: request.payment,
        payload: ResponsePayload::Reject(reject),
        kind: request.kind,
    }
}
