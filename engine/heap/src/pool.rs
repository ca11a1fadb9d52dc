//! Bounded sets of mapped memories, the least recently used given up first.
//!
//! Enters: memories that are about to be used. Leaves: seats and accesses that map them, warm when they were used lately.
//! Never here: a result that depends on which were warm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::{Heap, MemoryId, StableMemory};
use crate::error::HeapError;
use crate::layout::SEATS_MAX_DEFAULT;
use crate::nearby::Nearby;
use crate::seat::{Attachment, Seat, SeatShared, Tracking};
use crate::stable::{StableAccess, StableShared};
use crate::sys::Sharing;
use crate::version::{HeapVersion, StableVersion};

/// What an idle item maps; `None` maps nothing.
type Key = Option<(MemoryId, Sharing)>;

/// Idle items by what they map and by when they were last used.
#[derive(Debug)]
struct Warm<T> {
    by_use: BTreeMap<u64, (Key, T)>,
    by_key: BTreeSet<(Key, u64)>,
    uses: u64,
}

impl<T> Default for Warm<T> {
    fn default() -> Self {
        Self { by_use: BTreeMap::new(), by_key: BTreeSet::new(), uses: 0 }
    }
}

impl<T> Warm<T> {
    fn put(&mut self, key: Key, item: T) {
        self.uses += 1;
        self.by_use.insert(self.uses, (key, item));
        self.by_key.insert((key, self.uses));
    }

    /// The item last used among those that map `key`.
    fn take(&mut self, key: Key) -> Option<T> {
        let &(_, use_) = self.by_key.range((key, 0)..=(key, u64::MAX)).next_back()?;
        self.remove(use_)
    }

    fn take_oldest(&mut self) -> Option<T> {
        let (&use_, _) = self.by_use.first_key_value()?;
        self.remove(use_)
    }

    fn remove(&mut self, use_: u64) -> Option<T> {
        let (key, item) = self.by_use.remove(&use_)?;
        self.by_key.remove(&(key, use_));
        Some(item)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Critical sections only move items; a panic in one cannot leave an item half moved that is used later.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seat_key(seat: &Seat) -> Key {
    seat.attached.map(|Attachment { id, sharing, .. }| (id, sharing))
}

/// A number of seats that is bounded except by what runs: who has none to spare makes one more. Messages that are suspended hold theirs, and
/// how many that are is the scheduler's to bound; a refusal here would be seen on this node alone.
#[derive(Debug)]
pub struct SeatPool {
    /// Where a thread finds the seat that it used last.
    nearby: Nearby<Seat>,
    idle: Mutex<Warm<Seat>>,
    shared: Arc<SeatShared>,
    seats_max: usize,
}

impl Default for SeatPool {
    fn default() -> Self {
        Self::new(SEATS_MAX_DEFAULT)
    }
}

impl SeatPool {
    /// A pool of `seats_max` seats. They are made as they are needed; more than these are given up as soon as they are put back.
    pub fn new(seats_max: usize) -> Self {
        Self { nearby: Nearby::new(), idle: Mutex::default(), shared: Arc::default(), seats_max }
    }

    /// A seat that maps `heap`: the one that mapped it last if it is idle, else the least recently used.
    ///
    /// Errors: `Os`. Cost: below 1 us when warm, else 3 to 6 us; making a seat about 10 us.
    pub fn take(&self, heap: &Heap, tracking: Tracking) -> Result<Seat, HeapError> {
        let mut seat = self.any((heap.id(), Sharing::Shared))?;
        seat.attach(heap, tracking)?;
        Ok(seat)
    }

    /// As [`SeatPool::take`], for a view: stores stay private to the seat.
    pub fn take_view(&self, heap: &HeapVersion, tracking: Tracking) -> Result<Seat, HeapError> {
        let mut seat = self.any((heap.id(), Sharing::Private))?;
        seat.attach_view(heap, tracking)?;
        Ok(seat)
    }

    fn any(&self, key: (MemoryId, Sharing)) -> Result<Seat, HeapError> {
        if let Some(seat) = self.nearby.take_if(|seat| seat_key(seat) == Some(key)) {
            return Ok(seat);
        }
        let mut idle = lock(&self.idle);
        if let Some(seat) = idle.take(Some(key)).or_else(|| idle.take(None)) {
            return Ok(seat);
        }
        // At the bound an idle seat changes hands; if none is idle there is one seat more, until it comes back.
        if self.shared.alive.load(Ordering::Relaxed) >= self.seats_max
            && let Some(seat) = idle.take_oldest()
        {
            return Ok(seat);
        }
        Seat::new(Arc::clone(&self.shared))
    }

    /// Makes the heap as it is the version that views show. What a message in progress has done is not part of it.
    pub fn publish(&self, heap: &mut Heap) -> HeapVersion {
        let (version, logs) = heap.publish();
        self.shared.undo.set_aside(logs);
        version
    }

    /// Messages in progress under [`Tracking::Protect`], suspended ones included: each may hold some 1,600 mappings.
    pub fn protected_messages(&self) -> usize {
        self.shared.protected.load(Ordering::Relaxed)
    }

    /// Gives back what publications have set aside. Cost: in proportion to that.
    pub fn tidy(&self) {
        self.shared.undo.tidy();
    }

    /// Takes a seat back, still mapping its heap. Panics: when a message is in progress there.
    pub fn put(&self, seat: Seat) {
        assert!(!seat.is_busy(), "a message is in progress on this seat");
        if self.shared.alive.load(Ordering::Relaxed) > self.seats_max {
            return;
        }
        if let Some(seat) = self.nearby.put(seat) {
            lock(&self.idle).put(seat_key(&seat), seat);
        }
    }

    /// Seats alive, idle or in use.
    pub fn seats(&self) -> usize {
        self.shared.alive.load(Ordering::Relaxed)
    }
}

/// Stable accesses kept mapped while idle.
const STABLE_IDLE_MAX: usize = 1_024;
/// Address space that idle stable accesses may keep: a quarter of the 2^47 bytes.
const STABLE_IDLE_BYTES_MAX: u64 = 1 << 45;

/// Accesses to stable memories, kept mapped between messages.
#[derive(Debug, Default)]
pub struct StablePool {
    idle: Mutex<StableIdle>,
    shared: Arc<StableShared>,
}

#[derive(Debug, Default)]
struct StableIdle {
    warm: Warm<StableAccess>,
    mapped: u64,
}

impl StablePool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An access to `stable`. Cost: no system call; the memory is mapped when it is first touched.
    pub fn take(&self, stable: &StableMemory) -> StableAccess {
        self.any((stable.id(), Sharing::Shared))
    }

    /// As [`StablePool::take`], for a view: writes stay private to the access.
    pub fn take_view(&self, stable: &StableVersion) -> StableAccess {
        self.any((stable.id(), Sharing::Private))
    }

    fn any(&self, key: (MemoryId, Sharing)) -> StableAccess {
        let mut idle = lock(&self.idle);
        let Some(access) = idle.warm.take(Some(key)) else {
            return StableAccess::new(Arc::clone(&self.shared), key.0, key.1);
        };
        idle.mapped -= access.mapped_bytes();
        access
    }

    /// Makes the memory as it is the version that views show. What a message in progress has done is not part of it.
    pub fn publish(&self, stable: &mut StableMemory) -> StableVersion {
        let (version, logs) = stable.publish();
        self.shared.undo.set_aside(logs);
        version
    }

    /// Gives back what publications have set aside. Cost: in proportion to that.
    pub fn tidy(&self) {
        self.shared.undo.tidy();
    }

    /// Takes an access back, still mapped. Panics: when a message is in progress on it.
    pub fn put(&self, access: StableAccess) {
        assert!(!access.is_busy(), "a message is in progress on this access");
        let mut dropped = Vec::new();
        let mut idle = lock(&self.idle);
        idle.mapped += access.mapped_bytes();
        idle.warm.put(Some(access.key()), access);
        while idle.warm.by_use.len() > STABLE_IDLE_MAX || idle.mapped > STABLE_IDLE_BYTES_MAX {
            let Some(oldest) = idle.warm.take_oldest() else { break };
            idle.mapped -= oldest.mapped_bytes();
            dropped.push(oldest);
        }
        // Unmapping takes time: not under the lock.
        drop(idle);
    }
}
