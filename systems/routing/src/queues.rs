//! Places in a canister's input queue.
//!
//! A request takes a place until it runs; places are limited per caller. Ingress has its own limit. A response always has a place: the
//! caller's open calls are limited when they are made.
//!
//! Spec: ic-interface-spec #system-api-call; limits: `ExecutionLimits::queue_slots`, `limits::INGRESS_QUEUE_MAX`.

use cyclotron_types::canister::{InputQueue, take};
use cyclotron_types::ids::{CanisterId, MessageIx};
use cyclotron_types::limits::INGRESS_QUEUE_MAX;
use cyclotron_types::message::Message;

/// A message found its part of the queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    /// Messages of its kind that wait there.
    pub waiting: u32,
}

/// Which limit a message counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among the ingress messages.
    Ingress,
    /// Among the requests of this caller.
    RequestOf(CanisterId),
    /// None: a response always has a place.
    Response,
}

/// The place that a message takes.
///
/// Panics: for a vacant message, which is never queued.
pub fn place_of(message: &Message) -> Place {
    match message {
        Message::Ingress(_) => Place::Ingress,
        Message::Request(request) => Place::RequestOf(request.sender),
        Message::Response(_) => Place::Response,
        Message::Vacant => unreachable!("a vacant slot is never queued"),
    }
}

/// Whether the queue has such a place left.
/// Errors: [`QueueFull`] for a request or ingress message beyond the limit.
/// `slots_max` is the limit of requests of one caller.
pub fn check_place(queue: &InputQueue, place: Place, slots_max: u32) -> Result<(), QueueFull> {
    let (waiting, limit) = match place {
        Place::RequestOf(sender) => (queue.requests.get(&sender).copied().unwrap_or(0), slots_max),
        Place::Ingress => (queue.ingress, INGRESS_QUEUE_MAX),
        Place::Response => return Ok(()),
    };
    if waiting >= limit { Err(QueueFull { waiting }) } else { Ok(()) }
}

/// Puts a message, stored at `slot`, at the end of the queue. Its place has been checked.
pub fn enqueue(queue: &mut InputQueue, place: Place, slot: MessageIx) {
    match place {
        Place::RequestOf(sender) => *queue.requests.entry(sender).or_default() += 1,
        Place::Ingress => queue.ingress += 1,
        Place::Response => {}
    }
    queue.messages.push_back(slot);
}

/// Takes the oldest slot out of the queue; `place` is what its message takes.
///
/// Panics: when the message does not have that place.
pub fn dequeue(queue: &mut InputQueue, place: Place) -> MessageIx {
    let slot = queue.messages.pop_front().expect("the message is in the queue");
    match place {
        Place::RequestOf(sender) => {
            let waiting = queue.requests.get_mut(&sender).expect("a queued request has a place");
            *waiting -= 1;
            if *waiting == 0 {
                take(&mut queue.requests, &sender);
            }
        }
        Place::Ingress => queue.ingress = queue.ingress.checked_sub(1).expect("a queued message has a place"),
        Place::Response => {}
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_types::limits::QUEUE_SLOTS_MAX;

    #[test]
    fn a_caller_has_as_many_places_as_the_limit_says_and_others_are_not_affected() {
        let mut queue = InputQueue::default();
        let place = |n| Place::RequestOf(CanisterId::from_u64(n));
        for n in 0..QUEUE_SLOTS_MAX {
            assert_eq!(check_place(&queue, place(1), QUEUE_SLOTS_MAX), Ok(()));
            enqueue(&mut queue, place(1), MessageIx(n));
        }
        assert_eq!(check_place(&queue, place(1), QUEUE_SLOTS_MAX), Err(QueueFull { waiting: QUEUE_SLOTS_MAX }));
        assert_eq!(check_place(&queue, place(2), QUEUE_SLOTS_MAX), Ok(()));
        assert_eq!(check_place(&queue, Place::Response, QUEUE_SLOTS_MAX), Ok(()));
        for n in 0..QUEUE_SLOTS_MAX {
            assert_eq!(dequeue(&mut queue, place(1)), MessageIx(n), "first in, first out");
        }
        assert_eq!(queue, InputQueue::default(), "an empty queue remembers nobody");
    }
}
