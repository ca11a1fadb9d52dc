//! Seats against a naive model that copies the whole heap before each message.
#![allow(clippy::unwrap_used)]

mod common;

use common::{install_handler, jit_store};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{Arena, Heap, HeapError, HeapVersion, PageIx, PageSet, Seat, SeatPool, Tracking};
use cyclotron_types::units::WasmPages;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Store {
        base: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    Fill {
        at: u64,
        value: u8,
        length: u64,
    },
    Copy {
        to: u64,
        from: u64,
        length: u64,
    },
    Mark {
        at: u64,
        length: u64,
    },
    Grow {
        delta: u64,
    },
    /// The heap is published in the middle of the message, which shows nothing of it.
    Publish,
    /// A view begins, or the one that is there ends: it lives through steps, messages and publications.
    Watch,
    /// A query on a view while the message is suspended.
    Query {
        at: u64,
        bytes: Vec<u8>,
        grow: u64,
    },
}

#[derive(Clone, Debug)]
struct MessageSteps {
    steps: Vec<Step>,
    commit: bool,
    detach_after: bool,
    publish_after: bool,
}

const MAXIMUM: u64 = 5;

/// Addresses close to page boundaries, up to a little beyond the largest heap.
fn address() -> impl Strategy<Value = u64> {
    (prop_oneof![14_u64..19, 0..=MAXIMUM * 16], -40_i64..600)
        .prop_map(|(page, near)| (page as i64 * PAGE as i64 + near).max(0) as u64)
}

/// Base and offset of a store: often so that the tested card is the page's before.
fn store_address() -> impl Strategy<Value = (u64, u64)> {
    let across = (prop_oneof![14_u64..19, 1..=MAXIMUM * 16], 1_u64..512, 0_u64..511, 0_u64..3)
        .prop_map(|(page, below, offset, groups)| (page * PAGE as u64 - below, offset + groups * 512));
    prop_oneof![3 => across, 1 => (address(), 0_u64..3_000)]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..40, 2 => 4_000_u64..13_000, 1 => Just(65_536_u64)]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Often zeros, so that many stores change nothing.
    prop_oneof![prop::collection::vec(any::<u8>(), 1..=16), prop::collection::vec(Just(0_u8), 1..=16)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (store_address(), bytes()).prop_map(|((base, offset), bytes)| Step::Store { base, offset, bytes }),
        2 => (address(), length(), any::<u8>()).prop_map(|(at, n, v)| Step::Write { at, bytes: vec![v; n as usize] }),
        1 => (address(), 0_u8..2, length()).prop_map(|(at, value, length)| Step::Fill { at, value, length }),
        1 => (address(), address(), length()).prop_map(|(to, from, length)| Step::Copy { to, from, length }),
        1 => (address(), length()).prop_map(|(at, length)| Step::Mark { at, length }),
        1 => (0_u64..3).prop_map(|delta| Step::Grow { delta }),
        1 => Just(Step::Publish),
        2 => Just(Step::Watch),
        1 => (address(), bytes(), 0_u64..2).prop_map(|(at, bytes, grow)| Step::Query { at, bytes, grow }),
    ]
}

fn message() -> impl Strategy<Value = MessageSteps> {
    (prop::collection::vec(step(), 0..80), any::<[bool; 3]>()).prop_map(
        |(steps, [commit, detach_after, publish_after])| MessageSteps { steps, commit, detach_after, publish_after },
    )
}

fn changed_pages(before: &[u8], after: &[u8]) -> Vec<PageIx> {
    let mut padded = before.to_vec();
    padded.resize(after.len(), 0);
    let pages = padded.chunks(PAGE).zip(after.chunks(PAGE)).enumerate();
    pages.filter(|(_, (b, a))| a != b).map(|(i, _)| PageIx(i as u32)).collect()
}

fn in_range(size: usize, at: u64, length: u64) -> bool {
    at.checked_add(length).is_some_and(|end| end <= size as u64)
}

/// Applies a step to the seat and to the model; both must agree on whether it is in bounds.
fn apply(step: &Step, seat: &mut Seat, model: &mut Vec<u8>, tracking: Tracking) {
    match step {
        Step::Store { base, offset, bytes } => {
            let at = base + offset;
            if !in_range(model.len(), at, bytes.len() as u64) {
                // Compiled code would mark, then trap in the guard.
                seat.mark_store(at);
                return;
            }
            jit_store(seat, tracking, *base, *offset, bytes);
            model[at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        Step::Write { at, bytes } => {
            let fits = in_range(model.len(), *at, bytes.len() as u64);
            assert_eq!(seat.write(*at, bytes).is_ok(), fits);
            if fits {
                model[*at as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        Step::Fill { at, value, length } => {
            let fits = in_range(model.len(), *at, *length);
            assert_eq!(seat.fill(*at, *value, *length).is_ok(), fits);
            if fits {
                model[*at as usize..][..*length as usize].fill(*value);
            }
        }
        Step::Copy { to, from, length } => {
            let fits = in_range(model.len(), *to, *length) && in_range(model.len(), *from, *length);
            assert_eq!(seat.copy(*to, *from, *length).is_ok(), fits);
            if fits {
                model.copy_within(*from as usize..(*from + *length) as usize, *to as usize);
            }
        }
        Step::Mark { at, length } => {
            assert_eq!(seat.mark(*at, *length).is_ok(), in_range(model.len(), *at, *length));
        }
        Step::Grow { delta } => {
            let old = WasmPages(model.len() as u64 / WasmPages::BYTES);
            let new = WasmPages(old.0 + delta);
            if new.0 <= MAXIMUM {
                assert_eq!(seat.grow(WasmPages(*delta)), Ok(old));
                model.resize(new.to_bytes().0 as usize, 0);
            } else {
                let refused = HeapError::BeyondMaximum { requested: new, maximum: WasmPages(MAXIMUM) };
                assert_eq!(seat.grow(WasmPages(*delta)), Err(refused));
            }
        }
        Step::Query { .. } | Step::Publish | Step::Watch => {}
    }
    assert_eq!(seat.size_bytes(), model.len() as u64);
}

/// What readers see beside the messages.
struct Readers<'p> {
    pool: &'p SeatPool,
    tracking: Tracking,
    version: HeapVersion,
    published: Vec<u8>,
    /// A view at work and what it must show.
    watch: Option<(Seat, Vec<u8>)>,
    /// A view that rests and what it showed.
    resting: Option<(Seat, Vec<u8>)>,
}

impl Readers<'_> {
    fn publish(&mut self, heap: &mut Heap, committed: &[u8]) {
        let outdated = std::mem::replace(&mut self.version, self.pool.publish(heap));
        self.published = committed.to_vec();
        let mut late = self.pool.take_view(&outdated, self.tracking).unwrap();
        assert_eq!(late.begin_view(&outdated), Err(HeapError::Outdated));
        self.pool.put(late);
    }

    fn view(&self) -> Seat {
        let mut view = self.pool.take_view(&self.version, self.tracking).unwrap();
        view.begin_view(&self.version).unwrap();
        assert!(view.slice(0, self.published.len() as u64).unwrap() == self.published, "a view shows the version");
        view
    }

    fn watch(&mut self) {
        match self.watch.take() {
            Some((mut view, _)) => {
                view.rollback().unwrap();
                self.pool.put(view);
            }
            None => self.watch = Some((self.view(), self.published.clone())),
        }
    }

    fn check(&self) {
        if let Some((view, bytes)) = &self.watch {
            assert!(view.slice(0, bytes.len() as u64).unwrap() == bytes, "a view shows its version to its end");
        }
    }

    /// The view that rests, if it shows its version still; it must if nobody has written since.
    fn resumed(&mut self) -> Option<(Seat, Vec<u8>)> {
        let (mut view, bytes) = self.resting.take()?;
        if view.resume_view() {
            assert!(view.slice(0, bytes.len() as u64).unwrap() == bytes, "a view that is resumed shows its version");
            return Some((view, bytes));
        }
        view.rollback().unwrap();
        self.pool.put(view);
        None
    }

    /// Runs a query that writes; leaves no trace, but perhaps a view that rests. Whether it went on with such a view.
    fn query(&mut self, at: u64, bytes: &[u8], grow: u64) -> bool {
        let resumed = self.resumed();
        let is_resumed = resumed.is_some();
        let (mut view, version) = resumed.unwrap_or_else(|| (self.view(), self.published.clone()));
        let (tracking, mut model) = (self.tracking, version.clone());
        apply(&Step::Grow { delta: grow }, &mut view, &mut model, tracking);
        assert!(view.slice(0, model.len() as u64).unwrap() == model, "what a view grows by is zero");
        apply(&Step::Store { base: at, offset: 0, bytes: bytes.to_vec() }, &mut view, &mut model, tracking);
        apply(&Step::Write { at: at / 2, bytes: bytes.to_vec() }, &mut view, &mut model, tracking);
        assert!(view.slice(0, model.len() as u64).unwrap() == model);
        assert_eq!(view.finish().pages_changed, changed_pages(&version, &model).len() as u64);
        if view.rest_view() {
            assert!(tracking == Tracking::Cards && model.len() == version.len());
            self.resting = Some((view, version));
        } else {
            view.rollback().unwrap();
            self.pool.put(view);
        }
        is_resumed
    }
}

/// Reads around the message in progress.
fn check_committed(heap: &Heap, committed: &[u8]) {
    let mut bytes = vec![0xee; committed.len()];
    heap.committed(|committed| committed.read(0, &mut bytes)).unwrap();
    assert!(bytes == committed, "a read around the message shows the state before it");
    assert_eq!(nonzero(heap), nonzero_model(committed));
}

fn nonzero(heap: &Heap) -> Vec<(PageIx, Vec<u8>)> {
    let mut pages = Vec::new();
    heap.committed(|heap| heap.each_nonzero_page(|page, bytes| pages.push((page, bytes.to_vec())))).unwrap();
    pages
}

fn nonzero_model(bytes: &[u8]) -> Vec<(PageIx, Vec<u8>)> {
    let pages = bytes.chunks(PAGE).enumerate().filter(|(_, b)| b.iter().any(|&x| x != 0));
    pages.map(|(i, b)| (PageIx(i as u32), b.to_vec())).collect()
}

fn run(initial: u64, messages: &[MessageSteps], tracking: Tracking) {
    install_handler();
    let arena = Arena::new().unwrap();
    // A neighbour in front and one behind: their bytes must never move.
    let mut fence = arena.new_heap(WasmPages(1), WasmPages(1)).unwrap();
    fence.write(65_530, b"fence.").unwrap();
    let mut heap = arena.new_heap(WasmPages(initial), WasmPages(MAXIMUM)).unwrap();
    heap.take_dirty();
    let pool = SeatPool::new(2);
    let mut committed = vec![0_u8; (initial * WasmPages::BYTES) as usize];
    let mut dirty = PageSet::new();
    let version = pool.publish(&mut heap);
    let mut readers =
        Readers { pool: &pool, tracking, version, published: committed.clone(), watch: None, resting: None };

    for message in messages {
        let mut seat = pool.take(&heap, tracking).unwrap();
        seat.begin_message(&heap).unwrap();
        let mut model = committed.clone();
        for step in &message.steps {
            apply(step, &mut seat, &mut model, tracking);
            match step {
                Step::Publish => readers.publish(&mut heap, &committed),
                Step::Watch => readers.watch(),
                Step::Query { at, bytes, grow } => {
                    readers.query(*at, bytes, *grow);
                    let rests = readers.resting.is_some();
                    assert_eq!(readers.query(*at, bytes, *grow), rests, "nobody has written since it rests");
                    check_committed(&heap, &committed);
                }
                _ => readers.check(),
            }
        }
        assert!(seat.slice(0, model.len() as u64).unwrap() == model, "the message sees its own bytes");
        let expected = changed_pages(&committed, &model);
        assert_eq!(seat.finish().pages_changed, expected.len() as u64);
        assert_eq!(seat.changed_pages(), expected);
        if message.commit {
            seat.commit(&mut heap);
            committed = model;
            for page in expected {
                dirty.insert(page);
            }
        } else {
            seat.rollback().unwrap();
        }
        if message.detach_after {
            seat.detach().unwrap();
        }
        pool.put(seat);
        readers.check();
        if message.publish_after {
            readers.publish(&mut heap, &committed);
        }
        assert_eq!(heap.size_bytes(), committed.len() as u64);
        assert_eq!(heap.dirty(), Some(&dirty));
        let mut bytes = vec![0xee; committed.len()];
        heap.read(0, &mut bytes).unwrap();
        assert!(bytes == committed, "at rest are the committed bytes");
    }
    let copy = heap.fork().unwrap();
    assert_eq!(nonzero(&copy), nonzero_model(&committed));
    let mut bytes = [0; 6];
    fence.read(65_530, &mut bytes).unwrap();
    assert_eq!(&bytes, b"fence.");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cards_agree_with_whole_copies(initial in 0..=3_u64, messages in prop::collection::vec(message(), 1..5)) {
        run(initial, &messages, Tracking::Cards);
    }

    #[test]
    fn protection_agrees_with_whole_copies(initial in 0..=3_u64, messages in prop::collection::vec(message(), 1..5)) {
        run(initial, &messages, Tracking::Protect);
    }
}
