//! Admitted calls on their way from the admission threads to the round thread, which alone may put them into the pool.

use crossbeam::channel::{Receiver, Sender, bounded};
use cyclotron_subnet::{Subnet, ingress_bytes};
use cyclotron_types::message::Ingress;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls between admission and the round thread: a batch's worth. The pool behind them is larger.
const SUBMISSIONS_MAX: usize = 1_000;

/// The sending end. Each call on its way has its place in the pool already: the round thread can put in what was submitted.
pub struct Submissions {
    sender: Sender<Ingress>,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Submissions {
    /// A way with nothing on it.
    pub fn new() -> (Self, Receiver<Ingress>) {
        let (sender, receiver) = bounded(SUBMISSIONS_MAX);
        (Self { sender, messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }, receiver)
    }

    /// Sends a call on its way if the pool has room for it besides what is on its way; tells whether it has.
    /// The caller holds the read lock on `subnet`, so that the pool's room is not taken by a round meanwhile.
    #[must_use]
    pub fn submit(&self, subnet: &Subnet, ingress: Ingress) -> bool {
        let size = ingress_bytes(&ingress);
        let messages = self.messages.fetch_add(1, Ordering::AcqRel) + 1;
        let bytes = self.bytes.fetch_add(size, Ordering::AcqRel) + size;
        let sent = subnet.has_room(messages, bytes) && self.sender.try_send(ingress).is_ok();
        if !sent {
            self.leave(size);
        }
        sent
    }

    /// Puts all calls on their way into the pool. The caller holds the write lock on `subnet`.
    pub fn drain_into(&self, submitted: &Receiver<Ingress>, subnet: &mut Subnet) {
        for ingress in submitted.try_iter() {
            self.leave(ingress_bytes(&ingress));
            subnet.submit(ingress).expect("the pool had room when the call was submitted, and only rounds use it");
        }
    }

    fn leave(&self, size: usize) {
        self.messages.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(size, Ordering::AcqRel);
    }
}
