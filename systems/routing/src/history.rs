//! What is remembered of ingress messages, so that clients can ask and none runs twice.
//!
//! A status lives until its message can no longer be submitted and clients have had time to read it; then it goes, bucket by
//! bucket, without a look at the others. Replies beyond the memory limit are dropped oldest first (`done`).
//!
//! Spec: ic-interface-spec #state-tree-request-status, #http-call-overview.

use bevy_ecs::resource::Resource;
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::limits::{INGRESS_EXPIRY_MAX, INGRESS_HISTORY_MAX};
use cyclotron_types::message::{Ingress, IngressStatus};
use cyclotron_types::units::{Bytes, Seconds, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map};
use std::sync::Arc;

/// One remembered message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who sent it; nobody else may read its status.
    pub sender: Principal,
    /// Whom it calls.
    pub receiver: CanisterId,
    /// The canister under which it was submitted, if any.
    pub effective_canister: Option<CanisterId>,
    /// Its fate.
    pub status: IngressStatus,
    /// Until when it is kept; moves when the message is answered.
    pub until: Time,
    /// Its place among all answered messages: the reply of the lowest goes first when memory is short. Zero before it is answered.
    pub place: u64,
}

/// Remembered ingress messages by id.
#[derive(Clone, Debug, Resource)]
pub struct IngressHistory {
    /// Never iterated but to be sorted: the order of a hash map is no replica's business.
    entries: HashMap<MessageId, Slot>,
    /// Ids by the second in which they may be forgotten. An id whose entry moved on is skipped there.
    buckets: BTreeMap<u64, Vec<MessageId>>,
    /// Replied and rejected messages, oldest first, for the memory limit. A forgotten id is skipped.
    answered: VecDeque<MessageId>,
    /// Messages ever answered: the newest one's place.
    answered_count: u64,
    /// Bytes of all replies and reject messages, and [`ENTRY_BYTES`] for each entry.
    bytes: u64,
    bytes_max: Bytes,
    entries_max: usize,
    /// Each once, unless it went and came again.
    changed: Vec<MessageId>,
}

#[derive(Clone, Debug)]
struct Slot {
    /// Shared with who has asked for all; it is copied when it changes then.
    entry: Arc<Entry>,
    /// Whether it is listed as changed.
    changed: bool,
}

impl Slot {
    fn note_change(&mut self, id: MessageId, changed: &mut Vec<MessageId>) {
        if !std::mem::replace(&mut self.changed, true) {
            changed.push(id);
        }
    }
}

/// Memory for ingress history, PROTOCOL A3: 4 GiB.
pub const HISTORY_BYTES_MAX: Bytes = Bytes(4 << 30);
/// What an entry counts for besides its payload: an id, three principals, a time, and its place in the lists.
const ENTRY_BYTES: u64 = 256;

/// Messages for which there is always room.
const ROOM_MIN: usize = 1_024;

const _: () = assert!(INGRESS_HISTORY_MAX as u64 * ENTRY_BYTES < HISTORY_BYTES_MAX.0, "entries leave room for replies");

impl Default for IngressHistory {
    fn default() -> Self {
        Self::with_limits(HISTORY_BYTES_MAX, INGRESS_HISTORY_MAX)
    }
}

impl IngressHistory {
    /// An empty history of at most `entries_max` messages, that drops replies and reject messages when they and the entries come to more
    /// than `bytes_max`.
    pub fn with_limits(bytes_max: Bytes, entries_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            buckets: BTreeMap::new(),
            answered: VecDeque::new(),
            answered_count: 0,
            bytes: 0,
            bytes_max,
            entries_max,
            changed: Vec::new(),
        }
    }

    /// Whether no more messages can be remembered, and so none taken.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.entries_max
    }

    /// Remembers a message of this batch, kept at least until it expires. False when it is known already and must not run again, or
    /// when the history is full.
    pub fn receive(&mut self, ingress: &Ingress) -> bool {
        let (id, expiry) = (ingress.id, ingress.expiry);
        if self.is_full() {
            return false;
        }
        let hash_map::Entry::Vacant(place) = self.entries.entry(id) else { return false };
        let entry = Entry {
            sender: ingress.sender,
            receiver: ingress.receiver,
            effective_canister: ingress.effective_canister,
            status: IngressStatus::Received,
            until: expiry,
            place: 0,
        };
        place.insert(Slot { entry: Arc::new(entry), changed: true });
        self.bytes += ENTRY_BYTES;
        self.buckets.entry(bucket(expiry)).or_default().push(id);
        self.changed.push(id);
        true
    }

    /// Sets the status of a known message. A final status is kept for five more minutes, and at least until the message expires.
    /// Unknown messages and those already answered are left alone: an answer never changes.
    pub fn set(&mut self, id: MessageId, status: IngressStatus, now: Time) {
        let Some(slot) = self.entries.get_mut(&id) else { return };
        if slot.entry.status.is_final() {
            return;
        }
        slot.note_change(id, &mut self.changed);
        let entry = Arc::make_mut(&mut slot.entry);
        if status.is_final() {
            let until = entry.until.max(now.plus(INGRESS_EXPIRY_MAX));
            if bucket(until) != bucket(entry.until) {
                self.buckets.entry(bucket(until)).or_default().push(id);
            }
            entry.until = until;
            self.bytes += payload_bytes(&status);
            self.answered.push_back(id);
            self.answered_count += 1;
            entry.place = self.answered_count;
        }
        entry.status = status;
        self.drop_oldest_payloads();
    }

    fn drop_oldest_payloads(&mut self) {
        while self.bytes > self.bytes_max.0 {
            let Some(id) = self.answered.pop_front() else { return };
            let Some(slot) = self.entries.get_mut(&id) else { continue };
            self.bytes -= payload_bytes(&slot.entry.status);
            Arc::make_mut(&mut slot.entry).status = IngressStatus::Done;
            slot.note_change(id, &mut self.changed);
        }
    }

    /// Forgets what need not be remembered at `now`. An unanswered message stays. Returns how many went.
    /// Cost: O(forgotten).
    pub fn forget_until(&mut self, now: Time) -> usize {
        let mut forgotten = 0;
        while let Some(first) = self.buckets.first_entry() {
            // A bucket goes when its whole second has passed.
            if *first.key() >= now.to_seconds() {
                break;
            }
            let second = *first.key();
            for id in first.remove() {
                let Some(slot) = self.entries.get_mut(&id) else { continue };
                if bucket(slot.entry.until) != second {
                    continue;
                }
                slot.note_change(id, &mut self.changed);
                if slot.entry.status.is_final() {
                    self.bytes -= payload_bytes(&slot.entry.status) + ENTRY_BYTES;
                    self.entries.remove(&id);
                    forgotten += 1;
                } else {
                    // Still running: look again in a minute.
                    let until = now.plus(Seconds(60));
                    Arc::make_mut(&mut slot.entry).until = until;
                    self.buckets.entry(bucket(until)).or_default().push(id);
                }
            }
        }
        // The order list must not outgrow what it orders.
        while self.answered.front().is_some_and(|id| !self.entries.contains_key(id)) {
            self.answered.pop_front();
        }
        self.give_room_back();
        forgotten
    }

    /// Keeps room for four times as many messages at most: a busy time passes. Cost: nothing mostly, else O(remembered).
    fn give_room_back(&mut self) {
        let enough = 4 * self.entries.len().max(ROOM_MIN);
        if self.entries.capacity() > enough {
            self.entries.shrink_to(enough / 2);
        }
        if self.answered.capacity() > enough {
            self.answered.shrink_to(enough / 2);
        }
    }

    /// What is known of a message.
    pub fn get(&self, id: &MessageId) -> Option<&Entry> {
        self.entries.get(id).map(|slot| &*slot.entry)
    }

    /// All ids, sorted, for the state hash. Cost: O(n log n).
    pub fn ids(&self) -> BTreeSet<MessageId> {
        self.entries.keys().copied().collect()
    }

    /// All entries as they are now, in no order, without a copy of any.
    pub fn share(&self) -> Vec<(MessageId, Arc<Entry>)> {
        self.entries.iter().map(|(id, slot)| (*id, Arc::clone(&slot.entry))).collect()
    }

    /// The history that had these entries when so many messages had been answered. All of them are listed as changed.
    pub fn of_entries(entries: impl IntoIterator<Item = (MessageId, Entry)>, answered_count: u64) -> Self {
        let mut history = Self { answered_count, ..Self::default() };
        let mut answered = Vec::new();
        for (id, entry) in entries {
            history.bytes += ENTRY_BYTES + payload_bytes(&entry.status);
            history.buckets.entry(bucket(entry.until)).or_default().push(id);
            if matches!(entry.status, IngressStatus::Replied(_) | IngressStatus::Rejected(_)) {
                answered.push((entry.place, id));
            }
            history.changed.push(id);
            history.entries.insert(id, Slot { entry: Arc::new(entry), changed: true });
        }
        answered.sort_unstable();
        history.answered = answered.into_iter().map(|(_, id)| id).collect();
        history
    }

    /// Messages ever answered: with the places of its entries, this gives the order in which replies go.
    pub fn answered_count(&self) -> u64 {
        self.answered_count
    }

    /// Ids whose entry changed since the last call, sorted; an id that is gone has no entry.
    pub fn take_changed(&mut self) -> Vec<MessageId> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for id in &changed {
            if let Some(slot) = self.entries.get_mut(id) {
                slot.changed = false;
            }
        }
        changed
    }

    /// Remembered messages.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn bucket(time: Time) -> u64 {
    time.to_seconds()
}

fn payload_bytes(status: &IngressStatus) -> u64 {
    match status {
        IngressStatus::Replied(reply) => reply.len() as u64,
        IngressStatus::Rejected(reject) => reject.message.len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn receive(history: &mut IngressHistory, n: u8, expiry: u64) -> bool {
        history.receive(&Ingress {
            id: id(n),
            sender: Principal::anonymous(),
            receiver: CanisterId::from_u64(1),
            effective_canister: None,
            method: "m".into(),
            arg: vec![],
            expiry: Time(expiry),
            nonce_bytes: 0,
        })
    }

    fn id(n: u8) -> MessageId {
        MessageId([n; 32])
    }

    #[test]
    fn a_message_is_received_once_while_it_is_remembered() {
        let mut history = IngressHistory::default();
        assert!(receive(&mut history, 1, 100 * S));
        assert!(!receive(&mut history, 1, 100 * S));
        history.set(id(1), IngressStatus::Replied(vec![1]), Time(10 * S));
        assert_eq!(history.forget_until(Time(300 * S)), 0, "kept for five minutes after the answer");
        assert_eq!(history.forget_until(Time(312 * S)), 1);
        assert!(history.is_empty() && history.answered.is_empty() && history.buckets.is_empty() && history.bytes == 0);
        assert_eq!(history.take_changed(), [id(1)]);
    }

    #[test]
    fn room_for_many_messages_is_given_back_when_they_are_forgotten() {
        let mut history = IngressHistory::default();
        for n in 0..8 * ROOM_MIN as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            history.receive(&Ingress {
                id: MessageId(id),
                sender: Principal::anonymous(),
                receiver: CanisterId::from_u64(1),
                effective_canister: None,
                method: "m".into(),
                arg: vec![],
                expiry: Time(S),
                nonce_bytes: 0,
            });
            history.set(MessageId(id), IngressStatus::Replied(vec![]), Time(S));
        }
        let room = |history: &IngressHistory| (history.entries.capacity(), history.answered.capacity());
        assert!(room(&history).0.min(room(&history).1) >= 8 * ROOM_MIN);
        assert_eq!(history.forget_until(Time(1_000 * S)), 8 * ROOM_MIN);
        assert!(room(&history).0.max(room(&history).1) <= 4 * ROOM_MIN, "{:?}", room(&history));
    }

    #[test]
    fn an_unanswered_message_is_never_forgotten() {
        let mut history = IngressHistory::default();
        receive(&mut history, 1, S);
        history.set(id(1), IngressStatus::Processing, Time(S));
        history.take_changed();
        assert_eq!(history.forget_until(Time(1_000 * S)), 0);
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Processing);
        assert_eq!(history.take_changed(), [id(1)], "it is kept longer now, which is part of the state");
        history.set(id(1), IngressStatus::Replied(vec![]), Time(1_000 * S));
        assert_eq!(history.forget_until(Time(1_302 * S)), 1);
    }

    #[test]
    fn an_answer_never_changes() {
        let mut history = IngressHistory::default();
        receive(&mut history, 1, S);
        history.set(id(1), IngressStatus::Replied(vec![7]), Time(S));
        history.set(id(1), IngressStatus::Processing, Time(S));
        history.set(id(1), IngressStatus::Replied(vec![8]), Time(S));
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Replied(vec![7]));
    }

    #[test]
    fn beyond_its_memory_the_oldest_reply_becomes_done() {
        let mut history = IngressHistory::with_limits(Bytes(3 * ENTRY_BYTES + 10), 3);
        for n in 1..=3 {
            receive(&mut history, n, S);
            history.set(id(n), IngressStatus::Replied(vec![n; 4]), Time(S));
        }
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Done);
        assert_eq!(history.get(&id(2)).unwrap().status, IngressStatus::Replied(vec![2; 4]));
        assert_eq!(history.get(&id(3)).unwrap().status, IngressStatus::Replied(vec![3; 4]));
    }

    #[test]
    fn the_place_of_an_entry_says_whose_reply_goes_first() {
        let mut history = IngressHistory::with_limits(Bytes(3 * ENTRY_BYTES + 8), 10);
        assert_eq!([1, 2, 3].map(|n| receive(&mut history, n, S)), [true; 3]);
        for n in [2, 1, 3] {
            history.set(id(n), IngressStatus::Replied(vec![n; 4]), Time(S));
        }
        let places = [1, 2, 3].map(|n| history.get(&id(n)).unwrap().place);
        assert_eq!((places, history.answered_count()), ([2, 1, 3], 3));
        assert_eq!(history.get(&id(2)).unwrap().status, IngressStatus::Done);
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Replied(vec![1; 4]));
    }

    #[test]
    fn a_full_history_takes_no_more_until_something_is_forgotten() {
        let mut history = IngressHistory::with_limits(HISTORY_BYTES_MAX, 2);
        for n in 1..=3 {
            receive(&mut history, n, S);
        }
        assert!(history.is_full() && history.get(&id(3)).is_none());
        history.set(id(1), IngressStatus::Replied(vec![]), Time(S));
        history.forget_until(Time(1_000 * S));
        receive(&mut history, 3, 2_000 * S);
        assert!(history.get(&id(3)).is_some());
    }

    #[test]
    fn a_history_of_the_same_entries_goes_on_in_the_same_way() {
        let mut history = IngressHistory::default();
        for n in 0..20 {
            receive(&mut history, n, (100 + u64::from(n % 3)) * S);
        }
        for n in [7, 3, 19, 0] {
            history.set(id(n), IngressStatus::Replied(vec![n; 50]), Time(50 * S));
        }
        history.set(id(4), IngressStatus::Processing, Time(50 * S));
        let entries: Vec<_> = history.share().into_iter().map(|(id, entry)| (id, (*entry).clone())).collect();
        let mut again = IngressHistory::of_entries(entries, history.answered_count());
        assert_eq!(again.answered, history.answered, "the oldest answer goes first");
        assert_eq!(
            (again.bytes, again.len(), again.answered_count),
            (history.bytes, history.len(), history.answered_count)
        );
        assert_eq!(again.take_changed().len(), 20);
        let later = Time(1_000 * S);
        assert_eq!(again.forget_until(later), history.forget_until(later));
        let sorted = |history: &IngressHistory| history.share().into_iter().collect::<BTreeMap<_, _>>();
        assert_eq!(sorted(&again), sorted(&history));
    }

    #[test]
    fn what_was_shared_stays_as_it_was() {
        let mut history = IngressHistory::default();
        receive(&mut history, 1, 100 * S);
        let shared = history.share();
        history.set(id(1), IngressStatus::Replied(vec![1]), Time(S));
        assert_eq!(shared[0].1.status, IngressStatus::Received);
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Replied(vec![1]));
    }
}
