//! Calls of v3 and v4 that wait for their certificate.

use cyclotron_net::Reply;
use cyclotron_types::ids::MessageId;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a synchronous call waits before it is answered 202. PROTOCOL A9: 10 s.
pub const SYNC_WAIT: Duration = Duration::from_secs(10);

struct Waiting {
    reply: Reply,
    until: Instant,
}

#[derive(Default)]
struct Calls {
    waiting: BTreeMap<MessageId, Vec<Waiting>>,
    /// Nobody waits longer than this: the node stops.
    end: Option<Instant>,
}

/// Replies by the message that they wait for. Bounded by the server's connections: each waits for one answer.
#[derive(Default)]
pub struct SyncCalls(Mutex<Calls>);

impl SyncCalls {
    fn with<R>(&self, run: impl FnOnce(&mut Calls) -> R) -> R {
        run(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Keeps a reply until its message is answered or time runs out.
    pub fn wait(&self, id: MessageId, reply: Reply) {
        let waiting = Waiting { reply, until: Instant::now() + SYNC_WAIT };
        self.with(|calls| calls.waiting.entry(id).or_default().push(waiting));
    }

    /// Lets nobody wait beyond `end`.
    pub fn hurry(&self, end: Instant) {
        self.with(|calls| calls.end = Some(end));
    }

    /// Takes those who wait for a message.
    pub fn take(&self, id: &MessageId) -> Vec<Reply> {
        let waiting = self.with(|calls| calls.waiting.remove(id)).unwrap_or_default();
        waiting.into_iter().map(|w| w.reply).collect()
    }

    /// Takes those who have waited too long, and forgets those whose client has gone. Cost: O(waiting).
    pub fn take_overdue(&self, now: Instant) -> Vec<Reply> {
        let mut overdue = Vec::new();
        self.with(|calls| {
            let end = calls.end.is_some_and(|end| end <= now);
            calls.waiting.retain(|_, waiting| {
                for w in std::mem::take(waiting) {
                    if end || w.until <= now {
                        overdue.push(w.reply);
                    } else if !w.reply.is_abandoned() {
                        waiting.push(w);
                    }
                }
                !waiting.is_empty()
            });
        });
        overdue
    }
}
