//! What is remembered of ingress messages, so that clients can ask and none runs twice.
//!
//! A status lives until its message can no longer be submitted and clients have had time to read it; then it goes, bucket by
//! bucket, without a look at the others. Replies beyond the memory limit are dropped oldest first (`done`).
//!
//! Spec: ic-interface-spec #state-tree-request-status, #http-call-overview.

use bevy_ecs::resource::Resource;
use cyclotron_types::Principal;
use cyclotron_types::ids::{CanisterId, MessageId};
use cyclotron_types::limits::INGRESS_EXPIRY_MAX;
use cyclotron_types::message::{Ingress, IngressStatus};
use cyclotron_types::units::{Bytes, Time};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One remembered message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
}

/// Remembered ingress messages by id.
#[derive(Clone, Debug, Resource)]
pub struct IngressHistory {
    entries: BTreeMap<MessageId, Entry>,
    /// Ids by the second in which they may be forgotten. An id whose entry moved on is skipped there.
    buckets: BTreeMap<u64, Vec<MessageId>>,
    /// Replied and rejected messages, oldest first, for the memory limit. A forgotten id is skipped.
    answered: VecDeque<MessageId>,
    /// Bytes of all replies and reject messages.
    bytes: u64,
    bytes_max: Bytes,
    changed: BTreeSet<MessageId>,
}

/// Memory for ingress history, PROTOCOL A3: 4 GiB.
pub const HISTORY_BYTES_MAX: Bytes = Bytes(4 << 30);

impl Default for IngressHistory {
    fn default() -> Self {
        Self::with_limit(HISTORY_BYTES_MAX)
    }
}

impl IngressHistory {
    /// An empty history that keeps at most `bytes_max` of replies and reject messages.
    pub fn with_limit(bytes_max: Bytes) -> Self {
        Self {
            entries: BTreeMap::new(),
            buckets: BTreeMap::new(),
            answered: VecDeque::new(),
            bytes: 0,
            bytes_max,
            changed: BTreeSet::new(),
        }
    }

    /// Remembers a message of this batch, kept at least until it expires. False when it is known already and must not run again.
    /// Cost: O(log n).
    pub fn receive(&mut self, ingress: &Ingress) -> bool {
        let (id, expiry) = (ingress.id, ingress.expiry);
        if self.entries.contains_key(&id) {
            return false;
        }
        let entry = Entry {
            sender: ingress.sender,
            receiver: ingress.receiver,
            effective_canister: ingress.effective_canister,
            status: IngressStatus::Received,
            until: expiry,
        };
        self.entries.insert(id, entry);
        self.buckets.entry(bucket(expiry)).or_default().push(id);
        self.changed.insert(id);
        true
    }

    /// Sets the status of a known message. A final status is kept for five more minutes, and at least until the message expires.
    /// Unknown messages and those already answered are left alone: an answer never changes.
    pub fn set(&mut self, id: MessageId, status: IngressStatus, now: Time) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.status.is_final() {
            return;
        }
        if status.is_final() {
            let until = entry.until.max(now.plus(INGRESS_EXPIRY_MAX));
            if bucket(until) != bucket(entry.until) {
                self.buckets.entry(bucket(until)).or_default().push(id);
            }
            entry.until = until;
            self.bytes += payload_bytes(&status);
            self.answered.push_back(id);
        }
        entry.status = status;
        self.changed.insert(id);
        self.drop_oldest_payloads();
    }

    fn drop_oldest_payloads(&mut self) {
        while self.bytes > self.bytes_max.0 {
            let Some(id) = self.answered.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            self.bytes -= payload_bytes(&entry.status);
            entry.status = IngressStatus::Done;
            self.changed.insert(id);
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
                let Some(entry) = self.entries.get(&id) else { continue };
                if bucket(entry.until) != second {
                    continue;
                }
                if entry.status.is_final() {
                    self.bytes -= payload_bytes(&entry.status);
                    self.entries.remove(&id);
                    self.changed.insert(id);
                    forgotten += 1;
                } else {
                    // Still running: look again in a minute.
                    let until = now.plus(cyclotron_types::units::Seconds(60));
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.until = until;
                    }
                    self.buckets.entry(bucket(until)).or_default().push(id);
                }
            }
        }
        // The order list must not outgrow what it orders.
        while self.answered.front().is_some_and(|id| !self.entries.contains_key(id)) {
            self.answered.pop_front();
        }
        forgotten
    }

    /// What is known of a message.
    pub fn get(&self, id: &MessageId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// All entries in the order of their ids, for the state hash.
    pub fn iter(&self) -> impl Iterator<Item = (&MessageId, &Entry)> {
        self.entries.iter()
    }

    /// Ids whose status changed since the last call, in order; an id that is gone has no entry.
    pub fn take_changed(&mut self) -> BTreeSet<MessageId> {
        std::mem::take(&mut self.changed)
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
        assert_eq!(history.take_changed(), BTreeSet::from([id(1)]));
    }

    #[test]
    fn an_unanswered_message_is_never_forgotten() {
        let mut history = IngressHistory::default();
        receive(&mut history, 1, S);
        history.set(id(1), IngressStatus::Processing, Time(S));
        assert_eq!(history.forget_until(Time(1_000 * S)), 0);
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Processing);
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
        let mut history = IngressHistory::with_limit(Bytes(10));
        for n in 1..=3 {
            receive(&mut history, n, S);
            history.set(id(n), IngressStatus::Replied(vec![n; 4]), Time(S));
        }
        assert_eq!(history.get(&id(1)).unwrap().status, IngressStatus::Done);
        assert_eq!(history.get(&id(2)).unwrap().status, IngressStatus::Replied(vec![2; 4]));
        assert_eq!(history.get(&id(3)).unwrap().status, IngressStatus::Replied(vec![3; 4]));
    }
}
