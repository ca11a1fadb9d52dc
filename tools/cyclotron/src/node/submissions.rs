//! Admitted calls on their way from the admission threads to the round thread, which alone may put them into the pool.

use crossbeam::channel::{Receiver, Sender, unbounded};
use cyclotron_subnet::{PoolLoad, Subnet, ingress_bytes};
use cyclotron_types::message::Ingress;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Messages and their bytes, counted by several threads.
#[derive(Default)]
struct Load {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// The sending end. Each call on its way has its place in the pool already: the round thread can put in what was submitted.
pub struct Submissions {
    sender: Sender<Ingress>,
    /// On the way, bounded by the pool's room.
    under_way: Load,
    /// In the pool; the round thread alone sets it. What moves from the way into the pool is counted twice for a moment, never not at all.
    pool: Load,
}

impl Submissions {
    /// A way with nothing on it.
    pub fn new() -> (Self, Receiver<Ingress>) {
        let (sender, receiver) = unbounded();
        (Self { sender, under_way: Load::default(), pool: Load::default() }, receiver)
    }

    /// Sends a call on its way if the pool has room for it besides what is on its way; tells whether it has.
    #[must_use]
    pub fn submit(&self, ingress: Ingress) -> bool {
        let size = ingress_bytes(&ingress);
        let messages = self.under_way.messages.fetch_add(1, Ordering::AcqRel) + 1;
        let bytes = self.under_way.bytes.fetch_add(size, Ordering::AcqRel) + size;
        let load = PoolLoad {
            messages: messages + self.pool.messages.load(Ordering::Acquire),
            bytes: bytes + self.pool.bytes.load(Ordering::Acquire),
        };
        let sent = load.fits() && self.sender.send(ingress).is_ok();
        if !sent {
            self.leave(PoolLoad { messages: 1, bytes: size });
        }
        sent
    }

    /// Puts all calls on their way into the pool.
    pub fn drain_into(&self, submitted: &Receiver<Ingress>, subnet: &mut Subnet) {
        let mut moved = PoolLoad::default();
        for ingress in submitted.try_iter().take(submitted.len()) {
            moved.messages += 1;
            moved.bytes += ingress_bytes(&ingress);
            subnet.submit(ingress).expect("the pool had room when the call was submitted, and only rounds use it");
        }
        self.pool_is(subnet.pool_load());
        self.leave(moved);
    }

    /// Takes up what the pool holds now.
    pub fn pool_is(&self, load: PoolLoad) {
        self.pool.messages.store(load.messages, Ordering::Release);
        self.pool.bytes.store(load.bytes, Ordering::Release);
    }

    fn leave(&self, load: PoolLoad) {
        self.under_way.messages.fetch_sub(load.messages, Ordering::AcqRel);
        self.under_way.bytes.fetch_sub(load.bytes, Ordering::AcqRel);
    }
}
