//! Stable memories against a naive model that copies all bytes before each message.
#![allow(clippy::unwrap_used)]

use cyclotron_heap::layout::{PAGE, STABLE_PAGES_MAX};
use cyclotron_heap::{Arena, HeapError, PageIx, PageSet, StableAccess, StableMemory, StablePool, StableVersion};
use cyclotron_types::units::WasmPages;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MAXIMUM: u64 = 4;

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    Read {
        at: u64,
        length: u64,
    },
    Grow {
        delta: u64,
    },
    /// The memory is published in the middle of the message, which shows nothing of it.
    Publish,
    /// A view begins, or the one that is there ends: it lives through steps, messages and publications.
    Watch,
    Query {
        at: u64,
        bytes: Vec<u8>,
        grow: u64,
    },
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (0..=MAXIMUM * 16, -20_i64..20).prop_map(|(page, near)| (page as i64 * PAGE as i64 + near).max(0) as u64),
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 4),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..=24),
        1 => (4_000_usize..13_000, any::<u8>()).prop_map(|(n, v)| vec![v; n]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (address(), bytes()).prop_map(|(at, bytes)| Step::Write { at, bytes }),
        3 => (address(), 0_u64..9_000).prop_map(|(at, length)| Step::Read { at, length }),
        1 => (0_u64..3).prop_map(|delta| Step::Grow { delta }),
        1 => Just(Step::Publish),
        1 => Just(Step::Watch),
        1 => (address(), bytes(), 0_u64..2).prop_map(|(at, bytes, grow)| Step::Query { at, bytes, grow }),
    ]
}

/// A message in progress beside what it should be.
struct Beside {
    bytes: Vec<u8>,
    dirtied: BTreeSet<u32>,
}

impl Beside {
    fn fits(&self, at: u64, length: u64) -> bool {
        at.checked_add(length).is_some_and(|end| end <= self.bytes.len() as u64)
    }

    fn read_all(&mut self, access: &mut StableAccess) {
        self.apply(&Step::Read { at: 0, length: self.bytes.len() as u64 }, access);
    }

    fn apply(&mut self, step: &Step, access: &mut StableAccess) {
        match step {
            Step::Write { at, bytes } => {
                let length = bytes.len() as u64;
                let expected = access.pages_to_dirty(*at, length);
                let wrote = access.write(*at, bytes);
                if !self.fits(*at, length) {
                    let refused = HeapError::OutOfBounds { address: *at, length, size: self.bytes.len() as u64 };
                    assert_eq!((wrote, expected), (Err(refused), Err(refused)));
                    return;
                }
                assert_eq!(wrote, Ok(()));
                self.bytes[*at as usize..][..bytes.len()].copy_from_slice(bytes);
                let before = self.dirtied.len() as u64;
                if length > 0 {
                    self.dirtied.extend(PageIx::of(*at).0..=PageIx::of(at + length - 1).0);
                }
                assert_eq!(expected, Ok(self.dirtied.len() as u64 - before));
            }
            Step::Read { at, length } => {
                let mut into = vec![0xee; *length as usize];
                let read = access.read(*at, &mut into);
                assert_eq!(read.is_ok(), self.fits(*at, *length));
                if read.is_ok() {
                    assert!(into == self.bytes[*at as usize..][..*length as usize]);
                }
            }
            Step::Grow { delta } => {
                let old = WasmPages(self.bytes.len() as u64 / WasmPages::BYTES);
                if old.0 + delta <= MAXIMUM {
                    assert_eq!(access.grow(WasmPages(*delta)), Ok(old));
                    self.bytes.resize(((old.0 + delta) * WasmPages::BYTES) as usize, 0);
                } else {
                    assert!(access.grow(WasmPages(*delta)).is_err());
                }
            }
            Step::Query { .. } | Step::Publish | Step::Watch => {}
        }
        assert_eq!(access.dirtied_pages(), self.dirtied.len() as u64);
    }
}

/// What readers see beside the messages.
struct Readers<'p> {
    pool: &'p StablePool,
    version: StableVersion,
    published: Vec<u8>,
    /// A view at work and what it must show.
    watch: Option<(StableAccess, Beside)>,
}

impl Readers<'_> {
    fn publish(&mut self, stable: &mut StableMemory, committed: &[u8]) {
        self.version = self.pool.publish(stable);
        self.published = committed.to_vec();
    }

    fn view(&self) -> (StableAccess, Beside) {
        let mut view = self.pool.take_view(&self.version);
        view.begin_view(&self.version).unwrap();
        let mut beside = Beside { bytes: self.published.clone(), dirtied: BTreeSet::new() };
        beside.read_all(&mut view);
        (view, beside)
    }

    fn watch(&mut self) {
        match self.watch.take() {
            Some((mut view, _)) => {
                view.rollback().unwrap();
                self.pool.put(view);
            }
            None => self.watch = Some(self.view()),
        }
    }

    fn check(&mut self) {
        if let Some((view, beside)) = &mut self.watch {
            beside.read_all(view);
        }
    }

    fn query(&self, at: u64, bytes: &[u8], grow: u64) {
        let (mut view, mut beside) = self.view();
        let end = (self.published.len() as u64).saturating_sub(3);
        beside.apply(&Step::Write { at, bytes: bytes.to_vec() }, &mut view);
        beside.apply(&Step::Grow { delta: grow }, &mut view);
        beside.apply(&Step::Write { at: end, bytes: bytes.to_vec() }, &mut view);
        beside.apply(&Step::Grow { delta: grow }, &mut view);
        beside.read_all(&mut view);
        view.rollback().unwrap();
        self.pool.put(view);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stable_memory_agrees_with_whole_copies(
        initial in 0..=2_u64,
        messages in prop::collection::vec((prop::collection::vec(step(), 0..30), any::<bool>()), 1..5),
    ) {
        let (arena, pool) = (Arena::new().unwrap(), StablePool::new());
        let mut stable = arena.new_stable(WasmPages(initial), WasmPages(MAXIMUM)).unwrap();
        prop_assert!(stable.dirty().is_none(), "nobody has asked yet");
        prop_assert!(stable.take_dirty().is_empty());
        let mut committed = vec![0_u8; (initial * WasmPages::BYTES) as usize];
        let mut dirty = PageSet::new();
        let version = pool.publish(&mut stable);
        let mut readers = Readers { pool: &pool, version, published: committed.clone(), watch: None };
        for (steps, commit) in &messages {
            let mut access = pool.take(&stable);
            access.begin_message(&stable).unwrap();
            let mut beside = Beside { bytes: committed.clone(), dirtied: BTreeSet::new() };
            for step in steps {
                beside.apply(step, &mut access);
                match step {
                    Step::Publish => readers.publish(&mut stable, &committed),
                    Step::Watch => readers.watch(),
                    Step::Query { at, bytes, grow } => readers.query(*at, bytes, *grow),
                    _ => readers.check(),
                }
            }
            if *commit {
                access.commit(&mut stable);
                committed = beside.bytes;
                for page in beside.dirtied {
                    dirty.insert(PageIx(page));
                }
            } else {
                access.rollback().unwrap();
            }
            pool.put(access);
            readers.check();
            let mut bytes = vec![0xee; committed.len()];
            stable.read(0, &mut bytes).unwrap();
            prop_assert!(bytes == committed);
            prop_assert_eq!(stable.size_bytes(), committed.len() as u64);
            prop_assert_eq!(stable.dirty(), Some(&dirty));
        }
    }
}

#[test]
fn the_last_bytes_of_the_largest_stable_memory_are_written_and_rolled_back() {
    let (arena, pool) = (Arena::new().unwrap(), StablePool::new());
    let mut stable = arena.new_stable(WasmPages(0), STABLE_PAGES_MAX).unwrap();
    let mut access = pool.take(&stable);
    access.begin_message(&stable).unwrap();
    assert_eq!(access.grow(STABLE_PAGES_MAX), Ok(WasmPages(0)));
    let end = STABLE_PAGES_MAX.to_bytes().0;
    access.write(end - 8, b"the last").unwrap();
    access.write(end / 2 - 4, b"half way").unwrap();
    assert_eq!(access.dirtied_pages(), 3);
    assert!(access.write(end - 7, b"the last").is_err());
    access.commit(&mut stable);

    access.begin_message(&stable).unwrap();
    access.write(end - 8, b"not kept").unwrap();
    access.write(end - 4, b"kept").unwrap();
    assert_eq!(access.dirtied_pages(), 1);
    access.rollback().unwrap();
    let mut bytes = [0; 8];
    stable.read(end - 8, &mut bytes).unwrap();
    assert_eq!(&bytes, b"the last");
    assert_eq!(stable.allocated_bytes().unwrap(), 3 * PAGE as u64);
}

#[test]
fn an_untouched_stable_memory_is_not_mapped() {
    let (arena, pool) = (Arena::new().unwrap(), StablePool::new());
    let mut stable = arena.new_stable(STABLE_PAGES_MAX, STABLE_PAGES_MAX).unwrap();
    let mut mapped = |touch: bool| {
        let mut access = pool.take(&stable);
        access.begin_message(&stable).unwrap();
        if touch {
            access.read(0, &mut [0]).unwrap();
        }
        let mapped = access.mapped_bytes();
        access.commit(&mut stable);
        pool.put(access);
        mapped
    };
    assert_eq!((mapped(false), mapped(true)), (0, STABLE_PAGES_MAX.to_bytes().0));
}

#[test]
fn more_stable_memories_than_address_space_holds_are_used_in_turn() {
    let (arena, pool) = (Arena::new().unwrap(), StablePool::new());
    // 300 * 500 GiB is more than the 128 TiB that a process has.
    let mut stables: Vec<_> = (0..300).map(|_| arena.new_stable(STABLE_PAGES_MAX, STABLE_PAGES_MAX).unwrap()).collect();
    for _ in 0..2 {
        for stable in &mut stables {
            let mut access = pool.take(stable);
            access.begin_message(stable).unwrap();
            access.write(77, b"x").unwrap();
            access.commit(stable);
            pool.put(access);
        }
    }
    assert_eq!(arena.allocated_bytes().unwrap().1, 300 * PAGE as u64);
}
