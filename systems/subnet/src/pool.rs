//! The Local world of one node: admitted ingress that waits for a block, as entities.
//!
//! Enters: ingress that admission has authenticated. Leaves: the payload of the next batch, oldest first.
//! Never here: anything that other nodes must agree on.

use cyclotron_types::ids::MessageId;
use cyclotron_types::limits::{INGRESS_BYTES_MAX, INGRESS_PER_BATCH_MAX};
use cyclotron_types::message::Ingress;
use cyclotron_types::units::Time;
use cyclotron_world::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// Messages that may wait; beyond it clients are told to come back.
pub const POOL_MESSAGES_MAX: usize = 20_000;
/// Bytes of arguments that may wait.
pub const POOL_BYTES_MAX: usize = 256 << 20;
/// Bytes of ingress in one batch. PROTOCOL A2: 4 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

// Besides its method and argument a message takes three principals and some numbers in the log.
const _: () = assert!(PAYLOAD_BYTES_MAX + INGRESS_PER_BATCH_MAX * 256 < cyclotron_storage::FRAME_BYTES_MAX);
const _: () = assert!(INGRESS_BYTES_MAX.0 as usize <= PAYLOAD_BYTES_MAX, "any admitted message fits in a batch");

/// The schedule of the Local world.
#[derive(ScheduleLabel, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolTick;

/// One admitted message; a vacant pooled entity holds none.
#[derive(Component, Debug)]
pub(crate) struct Pending(Option<Ingress>);

/// Order of arrival and what is known, by id.
#[derive(Resource, Debug, Default)]
pub(crate) struct Waiting {
    arrival: VecDeque<MessageId>,
    slots: BTreeMap<MessageId, u32>,
    bytes: usize,
}

/// Time of the tick, as the clock port gave it, and how many messages the batch may take.
#[derive(Resource, Debug)]
pub(crate) struct Tick {
    now: Time,
    messages_max: usize,
}

/// What the tick chose.
#[derive(Resource, Debug, Default)]
pub(crate) struct Payload(Vec<Ingress>);

/// What waits in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolLoad {
    /// Messages.
    pub messages: usize,
    /// Their bytes: [`ingress_bytes`].
    pub bytes: usize,
}

impl PoolLoad {
    /// Whether a pool can hold as much.
    pub const fn fits(self) -> bool {
        self.messages <= POOL_MESSAGES_MAX && self.bytes <= POOL_BYTES_MAX
    }
}

/// The pool takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFull(
    /// What waits.
    pub PoolLoad,
);

/// The Local world and its schedule.
pub struct IngressPool {
    world: World,
    tick: Schedule,
}

impl Default for IngressPool {
    fn default() -> Self {
        let mut world = World::new();
        world.init_resource::<Pool<Pending>>();
        world.init_resource::<Waiting>();
        world.init_resource::<Payload>();
        world.insert_resource(Tick { now: Time::ZERO, messages_max: 0 });
        let mut tick = round_schedule(PoolTick);
        tick.add_systems((drop_expired, choose_payload).chain());
        Self { world, tick }
    }
}

impl IngressPool {
    /// Adds a message; one that waits already is left as it is.
    /// Errors: [`PoolFull`], and nothing changed.
    pub fn insert(&mut self, ingress: Ingress) -> Result<(), PoolFull> {
        let waiting = self.world.resource::<Waiting>();
        if waiting.slots.contains_key(&ingress.id) {
            return Ok(());
        }
        let load = self.load();
        let size = ingress_bytes(&ingress);
        if !(PoolLoad { messages: load.messages + 1, bytes: load.bytes + size }).fits() {
            return Err(PoolFull(load));
        }
        Pool::<Pending>::reserve(&mut self.world, 1, || Pending(None));
        let id = ingress.id;
        let stored = self.world.run_system_cached_with(store, ingress);
        let slot = stored.expect("the system runs on this world").expect("a slot was reserved");
        let mut waiting = self.world.resource_mut::<Waiting>();
        waiting.slots.insert(id, slot);
        waiting.arrival.push_back(id);
        waiting.bytes += size;
        Ok(())
    }

    /// What waits.
    pub fn load(&self) -> PoolLoad {
        let waiting = self.world.resource::<Waiting>();
        PoolLoad { messages: waiting.slots.len(), bytes: waiting.bytes }
    }

    /// Takes the payload of the next batch: the oldest messages that have not expired at `now`, within the batch's limits.
    pub fn take_payload(&mut self, now: Time, messages_max: usize) -> Vec<Ingress> {
        self.world.insert_resource(Tick { now, messages_max: messages_max.min(INGRESS_PER_BATCH_MAX) });
        self.tick.run(&mut self.world);
        std::mem::take(&mut self.world.resource_mut::<Payload>().0)
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.world.resource::<Waiting>().slots.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The Local world and its schedule, for the page that lists systems.
    pub(crate) fn parts(&mut self) -> (&mut World, &mut Schedule) {
        (&mut self.world, &mut self.tick)
    }
}

/// Bytes that a message takes of the pool's.
pub fn ingress_bytes(ingress: &Ingress) -> usize {
    ingress.arg.len() + ingress.method.len()
}

fn store(
    bevy_ecs::system::In(ingress): bevy_ecs::system::In<Ingress>,
    mut pool: ResMut<Pool<Pending>>,
    mut slots: Query<&mut Pending>,
) -> Option<u32> {
    pool.put(&mut slots, Pending(Some(ingress))).ok()
}

/// Forgets messages whose expiry has passed: they could never be included.
fn drop_expired(
    tick: Res<Tick>,
    mut waiting: ResMut<Waiting>,
    mut pool: ResMut<Pool<Pending>>,
    mut slots: Query<&mut Pending>,
) {
    let waiting = &mut *waiting;
    waiting.arrival.retain(|id| {
        let slot = waiting.slots[id];
        let entity = pool.entity(slot).expect("a waiting message has a slot");
        let expired = slots.get(entity).is_ok_and(|p| p.0.as_ref().is_some_and(|i| i.expiry < tick.now));
        if expired {
            waiting.slots.remove(id);
            let pending = pool.take(&mut slots, slot, Pending(None));
            waiting.bytes -= pending.0.as_ref().map_or(0, ingress_bytes);
        }
        !expired
    });
}

/// Moves the oldest messages into the payload, until one does not fit.
fn choose_payload(
    tick: Res<Tick>,
    mut waiting: ResMut<Waiting>,
    mut pool: ResMut<Pool<Pending>>,
    mut payload: ResMut<Payload>,
    mut slots: Query<&mut Pending>,
) {
    let mut room = PAYLOAD_BYTES_MAX;
    while payload.0.len() < tick.messages_max {
        let Some(id) = waiting.arrival.front().copied() else { break };
        let slot = waiting.slots[&id];
        let entity = pool.entity(slot).expect("a waiting message has a slot");
        let bytes = slots.get(entity).ok().and_then(|p| p.0.as_ref().map(ingress_bytes)).unwrap_or(0);
        if bytes > room {
            break;
        }
        room -= bytes;
        waiting.arrival.pop_front();
        waiting.slots.remove(&id);
        waiting.bytes -= bytes;
        if let Some(ingress) = pool.take(&mut slots, slot, Pending(None)).0 {
            payload.0.push(ingress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_types::Principal;
    use cyclotron_types::ids::CanisterId;

    fn ingress(n: u32, expiry: u64, bytes: usize) -> Ingress {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Ingress {
            id: MessageId(id),
            sender: Principal::anonymous(),
            receiver: CanisterId::from_u64(1),
            effective_canister: Some(CanisterId::from_u64(1)),
            method: "m".into(),
            arg: vec![0; bytes],
            expiry: Time(expiry),
            nonce_bytes: 0,
        }
    }

    #[test]
    fn the_payload_is_the_oldest_messages_that_have_not_expired() {
        let mut pool = IngressPool::default();
        for (n, expiry) in [(3, 10), (1, 100), (2, 100), (1, 100)] {
            pool.insert(ingress(n, expiry, 1)).unwrap();
        }
        assert_eq!(pool.len(), 3, "a message that waits is not added twice");
        let payload = pool.take_payload(Time(50), 10);
        assert_eq!(payload, [ingress(1, 100, 1), ingress(2, 100, 1)]);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_payload_keeps_to_its_bytes_and_count_and_the_rest_waits() {
        let mut pool = IngressPool::default();
        for n in 0..5 {
            pool.insert(ingress(n, 100, 1 << 20)).unwrap();
        }
        assert_eq!(pool.take_payload(Time(0), 10).len(), 3, "four and their method names exceed 4 MiB");
        assert_eq!(pool.take_payload(Time(0), 1).len(), 1);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_full_pool_refuses_and_keeps_what_it_has() {
        let mut pool = IngressPool::default();
        for n in 0..u32::try_from(POOL_MESSAGES_MAX).unwrap() {
            pool.insert(ingress(n, 100, 0)).unwrap();
        }
        assert!(pool.insert(ingress(u32::MAX, 100, 0)).is_err());
        assert_eq!(pool.insert(ingress(0, 100, 0)), Ok(()), "one that waits already is no news");
        assert_eq!(pool.len(), POOL_MESSAGES_MAX);
    }

    #[test]
    fn room_is_what_fits_by_number_and_by_bytes() {
        let mut pool = IngressPool::default();
        let one = ingress(0, 100, (1 << 20) - 1);
        pool.insert(one.clone()).unwrap();
        let (messages, bytes) = (POOL_MESSAGES_MAX - 1, POOL_BYTES_MAX - ingress_bytes(&one));
        let load = pool.load();
        let with = |m: usize, b: usize| PoolLoad { messages: load.messages + m, bytes: load.bytes + b };
        assert!(with(messages, bytes).fits());
        assert!(!with(messages + 1, bytes).fits() && !with(messages, bytes + 1).fits());
        for n in 1..256 {
            pool.insert(ingress(n, 100, (1 << 20) - 1)).unwrap();
        }
        assert_eq!(pool.insert(ingress(256, 100, 0)), Err(PoolFull(PoolLoad { messages: 256, bytes: POOL_BYTES_MAX })));
    }
}
