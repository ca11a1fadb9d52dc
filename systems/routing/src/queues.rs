//! Slots of the queues between two canisters.
//!
//! A request takes a slot at the callee until it runs; with it a slot is reserved at the caller for the response, so that a
//! response always has a place. Both are limited per pair.
//!
//! Spec: ic-interface-spec #system-api-call; limit: `limits::QUEUE_SLOTS_MAX`.

use cyclotron_types::canister::{InputQueue, QueueSlots};
use cyclotron_types::ids::{CanisterId, MessageIx};
use cyclotron_types::limits::QUEUE_SLOTS_MAX;

/// A request found the queue between two canisters full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Requests that wait there.
    pub waiting: u32,
}

/// How many more calls `caller` may make to `callee` before the slots reserved for their responses run out.
pub fn free_request_slots(caller: &InputQueue, callee: CanisterId) -> u32 {
    QUEUE_SLOTS_MAX - caller.slots.get(&callee).map_or(0, |s| s.responses)
}

/// Reserves a place at `caller` for the response of a call to `callee`.
///
/// Panics: when no slot is free; execution has been told how many there are.
pub fn reserve_response(caller: &mut InputQueue, callee: CanisterId) {
    let slots = caller.slots.entry(callee).or_default();
    assert!(slots.responses < QUEUE_SLOTS_MAX, "a call beyond the queue's limit left execution");
    slots.responses += 1;
}

/// Puts a request from `sender` at the end of the queue.
pub fn accept_request(queue: &mut InputQueue, sender: CanisterId, message: MessageIx) -> Result<(), Refused> {
    let slots = queue.slots.entry(sender).or_default();
    if slots.requests >= QUEUE_SLOTS_MAX {
        return Err(Refused { waiting: slots.requests });
    }
    slots.requests += 1;
    queue.messages.push_back(message);
    Ok(())
}

/// The request of `sender` is about to run: its slot is free again.
pub fn release_request(queue: &mut InputQueue, sender: CanisterId) {
    release(queue, sender, |slots| &mut slots.requests);
}

/// The response of `callee` takes the place that was reserved for it; the slot is free again when it runs.
///
/// Panics: when nothing was reserved, which would be a second response to one call.
pub fn accept_response(queue: &mut InputQueue, message: MessageIx) {
    queue.messages.push_back(message);
}

/// The response of `callee` is about to run: its slot is free again.
pub fn release_response(queue: &mut InputQueue, callee: CanisterId) {
    release(queue, callee, |slots| &mut slots.responses);
}

fn release(queue: &mut InputQueue, peer: CanisterId, count: impl Fn(&mut QueueSlots) -> &mut u32) {
    let slots = queue.slots.get_mut(&peer).expect("a queued message has a slot");
    let used = count(slots);
    *used = used.checked_sub(1).expect("a queued message has a slot");
    if *slots == QueueSlots::default() {
        queue.slots.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_holds_as_many_requests_as_the_limit_says_and_forgets_an_empty_pair() {
        let (mut queue, peer) = (InputQueue::default(), CanisterId::from_u64(1));
        for n in 0..QUEUE_SLOTS_MAX {
            assert_eq!(accept_request(&mut queue, peer, MessageIx(n)), Ok(()));
        }
        let full = accept_request(&mut queue, peer, MessageIx(9));
        assert_eq!(full, Err(Refused { waiting: QUEUE_SLOTS_MAX }));
        assert_eq!(accept_request(&mut queue, CanisterId::from_u64(2), MessageIx(9)), Ok(()), "other pairs are free");
        for _ in 0..QUEUE_SLOTS_MAX {
            release_request(&mut queue, peer);
        }
        assert!(!queue.slots.contains_key(&peer));
    }

    #[test]
    fn a_response_keeps_its_slot_until_it_runs() {
        let (mut queue, peer) = (InputQueue::default(), CanisterId::from_u64(1));
        reserve_response(&mut queue, peer);
        assert_eq!(free_request_slots(&queue, peer), QUEUE_SLOTS_MAX - 1);
        accept_response(&mut queue, MessageIx(0));
        assert_eq!(free_request_slots(&queue, peer), QUEUE_SLOTS_MAX - 1);
        release_response(&mut queue, peer);
        assert_eq!(free_request_slots(&queue, peer), QUEUE_SLOTS_MAX);
    }
}
