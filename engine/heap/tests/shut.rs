//! Heaps of which pages are missing: what is looked at is fetched, by JIT code and by the host, in messages and in views, and little else.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{install_handler, jit_load, jit_store};
use cyclotron_heap::layout::{BLOCK_PAGES, PAGE};
use cyclotron_heap::{Arena, Fault, Heap, HeapError, PageAt, PageIx, PageRun, PageStore, Seat, SeatPool, Tracking};
use cyclotron_types::units::WasmPages;
use proptest::prelude::*;
use store::{Store, save};

const BOTH: [Tracking; 2] = [Tracking::Cards, Tracking::Protect];

/// Every page begins with its index; counts what is read, and fails from one page on.
#[derive(Debug)]
struct Numbers {
    read: AtomicU64,
    reads: AtomicU64,
    damaged: AtomicU64,
}

impl PageStore for Numbers {
    fn read(&self, at: PageAt, into: &mut [u8]) -> Result<(), String> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        for (n, page) in into.as_chunks_mut::<PAGE>().0.iter_mut().enumerate() {
            let index = u64::from(at.index) + n as u64;
            if index == self.damaged.load(Ordering::Relaxed) {
                return Err(format!("page {index} is damaged"));
            }
            page.fill(0);
            page[..8].copy_from_slice(&index.to_le_bytes());
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn hold(&self, _file: u32) -> Arc<()> {
        // All of it stays.
        Arc::default()
    }
}

impl Numbers {
    fn new() -> Arc<Self> {
        Arc::new(Self { read: AtomicU64::new(0), reads: AtomicU64::new(0), damaged: AtomicU64::new(u64::MAX) })
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// A heap that lies in a store whole; page n holds n + 1.
fn cold(arena: &Arena, store: &Arc<Numbers>, size: WasmPages) -> Heap {
    let shared: Arc<dyn PageStore> = Arc::clone(store) as _;
    let mut heap = arena.new_heap(size, size).unwrap();
    let count = (size.0 as usize * BLOCK_PAGES) as u32;
    heap.lie_in(&shared, vec![PageRun { first: 0, count, at: PageAt { file: 1, index: 1 } }]);
    heap
}

const GIB_4: WasmPages = WasmPages(65_536);

fn load(seat: &mut Seat, page: u64) -> u64 {
    let mut bytes = [0; 8];
    jit_load(seat, page * PAGE as u64, &mut bytes);
    u64::from_le_bytes(bytes)
}

fn at(page: u64) -> u64 {
    page * PAGE as u64
}

#[test]
fn three_pages_of_4_gib_cost_three_blocks_however_they_are_looked_at() {
    install_handler();
    type Look = fn(&mut Seat, Tracking, u64);
    let looks: [Look; 6] = [
        |seat, _, page| assert_eq!(load(seat, page), page + 1),
        |seat, _, page| assert_eq!(seat.slice(at(page), 2).unwrap(), &(page + 1).to_le_bytes()[..2]),
        |seat, tracking, page| jit_store(seat, tracking, at(page), 8, &[1; 16]),
        |seat, _, page| seat.write(at(page) + 8, &[1]).unwrap(),
        |seat, _, page| seat.fill(at(page) + 8, 1, 1).unwrap(),
        |seat, _, page| seat.copy(at(page) + 8, at(page), 8).unwrap(),
    ];
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(4));
    for tracking in BOTH {
        for look in looks {
            for is_view in [false, true] {
                let store = Numbers::new();
                let mut heap = cold(&arena, &store, GIB_4);
                let version = pool.publish(&mut heap);
                let mut seat = if is_view {
                    let mut seat = pool.take_view(&version, tracking).unwrap();
                    seat.begin_view(&version).unwrap();
                    seat
                } else {
                    let mut seat = pool.take(&heap, tracking).unwrap();
                    seat.begin_message(&heap).unwrap();
                    seat
                };
                assert_eq!(store.read(), 0);
                for page in [5, 500_000, 1_000_000] {
                    look(&mut seat, tracking, page);
                    assert_eq!(load(&mut seat, page), page + 1);
                }
                assert_eq!(store.read(), 3 * BLOCK_PAGES as u64);
                // What was opened stays open; what another seat has fetched is not read again.
                if !is_view {
                    seat.finish();
                    seat.commit(&mut heap);
                    seat.begin_message(&heap).unwrap();
                    let at = seat.heap_base() as usize + 5 * PAGE;
                    // SAFETY: the seat is alive, and no reference to its memory is held.
                    let fault = unsafe { seat.as_seat_ptr().handle_fault(at) };
                    // Under protection an open page may be saved.
                    assert_eq!(fault == Fault::NotOurs, tracking == Tracking::Cards);
                }
                seat.rollback().unwrap();
                let version = pool.publish(&mut heap);
                let mut view = pool.take_view(&version, Tracking::Cards).unwrap();
                view.begin_view(&version).unwrap();
                assert_eq!(load(&mut view, 5), 6);
                assert_eq!(store.read(), 3 * BLOCK_PAGES as u64);
                view.rollback().unwrap();
                assert_eq!(heap.absent_pages(), (1 << 20) - 3 * BLOCK_PAGES as u64);
                pool.put(view);
                pool.put(seat);
            }
        }
    }
}

#[test]
fn who_goes_through_a_heap_reads_ahead_and_each_page_once() {
    install_handler();
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(4));
    for tracking in BOTH {
        for backwards in [false, true] {
            let store = Numbers::new();
            let heap = cold(&arena, &store, WasmPages(1_024));
            let pages = 1_024 * BLOCK_PAGES as u64;
            let mut seat = pool.take(&heap, tracking).unwrap();
            seat.begin_message(&heap).unwrap();
            let mut faults = 0;
            for page in 0..pages {
                let page = if backwards { pages - 1 - page } else { page };
                let before = store.read();
                assert_eq!(load(&mut seat, page), page + 1);
                faults += u64::from(store.read() > before);
            }
            assert_eq!((store.read(), heap.absent_pages()), (pages, 0));
            // Four for each 4 MiB.
            assert_eq!(faults, 4 * pages / 1_024);
            seat.rollback().unwrap();
            // Nothing is missing any more: one mapping again.
            seat.begin_message(&heap).unwrap();
            assert_eq!(load(&mut seat, 77), 78);
            seat.rollback().unwrap();
            pool.put(seat);
        }
    }
}

#[test]
fn few_scattered_looks_read_at_most_four_times_what_they_asked_for() {
    install_handler();
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(4));
    let store = Numbers::new();
    let heap = cold(&arena, &store, GIB_4);
    let mut seat = pool.take(&heap, Tracking::Cards).unwrap();
    seat.begin_message(&heap).unwrap();
    let mut seed = 1_u64;
    for n in 1..=900 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let page = (seed >> 33) % (1 << 20);
        assert_eq!(load(&mut seat, page), page + 1);
        assert!(store.read() <= 4 * n * BLOCK_PAGES as u64, "{n}: {}", store.read());
    }
    seat.rollback().unwrap();
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn heaps_that_are_looked_at_everywhere_take_a_bounded_number_of_mappings() {
    install_handler();
    let arena = Arena::new().unwrap();
    for tracking in BOTH {
        let (pool, store) = (SeatPool::new(64), Numbers::new());
        let before = mappings();
        let mut seats = Vec::new();
        for _ in 0..6 {
            let heap = cold(&arena, &store, WasmPages(8_192));
            let mut seat = pool.take(&heap, tracking).unwrap();
            seat.begin_message(&heap).unwrap();
            for page in (0..1_500).map(|n| n * 83) {
                assert_eq!(load(&mut seat, page), page + 1);
            }
            seats.push((heap, seat));
        }
        assert!(mappings() - before < 2 * (4_096 + 6 * 32), "{}", mappings() - before);
        // All of them have many: they are shut between messages, and show the same again without reading it.
        let read = store.read();
        for (heap, seat) in &mut seats {
            seat.finish();
            seat.commit(heap);
        }
        assert!(mappings() - before < 2 * 4_096, "{}", mappings() - before);
        for (heap, seat) in &mut seats {
            seat.begin_message(heap).unwrap();
            assert_eq!(load(seat, 83), 84);
            seat.rollback().unwrap();
        }
        assert_eq!(store.read(), read);
    }
}

#[test]
fn a_lost_page_is_refused_whoever_looks_and_the_others_are_there() {
    install_handler();
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(4));
    for tracking in BOTH {
        let store = Numbers::new();
        let heap = cold(&arena, &store, WasmPages(256));
        let mut seat = pool.take(&heap, tracking).unwrap();
        seat.begin_message(&heap).unwrap();
        store.damaged.store(500 + 1, Ordering::Relaxed);
        assert_eq!(load(&mut seat, 3), 4);
        let lost = |page: u64, seat: &mut Seat| {
            assert_eq!(seat.slice(at(page), 1), Err(HeapError::PageLost));
            assert_eq!(seat.slice_mut(at(page), 1), Err(HeapError::PageLost));
            assert_eq!(seat.copy(0, at(page), 1), Err(HeapError::PageLost));
            let address = seat.heap_base() as usize + at(page) as usize;
            // SAFETY: the seat is alive, and no reference to its memory is held.
            let fault = unsafe { seat.as_seat_ptr().handle_fault(address) };
            assert_eq!(fault, Fault::Refused(HeapError::PageLost), "{page}");
        };
        // The whole block, again and again.
        for _ in 0..2 {
            lost(500, &mut seat);
            lost(500 / 16 * 16, &mut seat);
        }
        assert_eq!(load(&mut seat, 512), 513);
        // At each fetch; so far apart that none is of a larger block.
        for page in (576..4_096).step_by(80) {
            store.damaged.store(page + 8, Ordering::Relaxed);
            lost(page, &mut seat);
            store.damaged.store(u64::MAX, Ordering::Relaxed);
            assert_eq!(load(&mut seat, page + 7), page + 8);
        }
        assert_eq!(load(&mut seat, 500), 501);
        assert_eq!(seat.finish().pages_changed, 0);
        seat.rollback().unwrap();
        pool.put(seat);
    }
}

#[test]
fn a_message_and_views_look_at_one_heap_at_once() {
    install_handler();
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(8));
    for tracking in BOTH {
        let store = Numbers::new();
        let mut heap = cold(&arena, &store, WasmPages(256));
        let pages = 256 * BLOCK_PAGES as u64;
        let version = pool.publish(&mut heap);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..3_u64 {
                let (pool, version, done) = (&pool, &version, &done);
                scope.spawn(move || {
                    let mut seed = n;
                    while !done.load(Ordering::Relaxed) {
                        let mut view = pool.take_view(version, tracking).unwrap();
                        view.begin_view(version).unwrap();
                        for _ in 0..200 {
                            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            let page = (seed >> 33) % pages;
                            assert_eq!(load(&mut view, page), page + 1, "the version, whatever the message stores");
                            if seed >> 60 == 1 {
                                jit_store(&mut view, tracking, at(page), 0, &(page + 1).to_le_bytes());
                                jit_store(&mut view, tracking, at(page), 100, &[1]);
                            }
                        }
                        view.rollback().unwrap();
                        pool.put(view);
                    }
                });
            }
            let mut seat = pool.take(&heap, tracking).unwrap();
            for round in 0..20_u64 {
                seat.begin_message(&heap).unwrap();
                for n in 0..100 {
                    let page = (n * 2_654_435_761 + round * 97) % pages;
                    jit_store(&mut seat, tracking, at(page), 0, &[round as u8; 8]);
                }
                seat.finish();
                if round % 3 == 0 { seat.rollback().unwrap() } else { seat.commit(&mut heap) }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(store.read() <= pages, "no page is read twice");
    }
}

/// Pages of the model's heap: more than are fetched at once because they are few.
const PAGES: u32 = 512;

#[derive(Clone, Debug)]
enum Step {
    /// Stores, as JIT code or as the host; whether they are kept; and what a view reads meanwhile.
    Message {
        stores: Vec<(u32, u8, bool)>,
        keep: bool,
        viewed: Vec<u32>,
    },
    /// What a view reads, and stores to if it is odd; whether it rests and goes on.
    View(Vec<u32>, bool),
    Publish,
    Grow,
    Save,
    Release,
    Restore,
    Fork,
    Committed(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = 0..PAGES + 16;
    let pages = || prop::collection::vec(page.clone(), 0..8);
    let stores = prop::collection::vec((page.clone(), 0u8..4, any::<bool>()), 1..8);
    let step = prop_oneof![
        6 => (stores, prop::bool::weighted(0.7), pages()).prop_map(|(stores, keep, viewed)| Step::Message { stores, keep, viewed }),
        4 => (pages(), any::<bool>()).prop_map(|(pages, rests)| Step::View(pages, rests)),
        3 => Just(Step::Publish),
        1 => Just(Step::Grow),
        4 => Just(Step::Save),
        4 => Just(Step::Release),
        2 => Just(Step::Restore),
        1 => Just(Step::Fork),
        1 => page.clone().prop_map(Step::Committed),
    ];
    prop::collection::vec(step, 1..30)
}

/// The byte of a page that the model knows.
fn byte(seat: &mut Seat, page: u32, by_host: bool) -> u8 {
    let address = PageIx(page).address() + 1_500;
    if by_host {
        return seat.slice(address, 1).unwrap()[0];
    }
    let mut byte = [0];
    jit_load(seat, address, &mut byte);
    byte[0]
}

fn check_model(steps: Vec<Step>, tracking: Tracking) -> Result<(), TestCaseError> {
    let (arena, store) = (Arena::new().unwrap(), Arc::new(Store::default()));
    let shared: Arc<dyn PageStore> = Arc::clone(&store) as _;
    // One seat: it changes hands between views and messages.
    let pools = [SeatPool::new(1), SeatPool::new(8)];
    let maximum = WasmPages(64);
    let mut heap = arena.new_heap(WasmPages(u64::from(PAGES) / 16), maximum).unwrap();
    let mut model = vec![0u8; PAGES as usize];
    for page in 0..PAGES {
        if page % 7 != 3 {
            heap.write(PageIx(page).address() + 1_500, &[page as u8]).unwrap();
            model[page as usize] = page as u8;
        }
    }
    save(&mut heap, &store, 1);
    let (mut file, mut published) = (2, model.clone());
    let mut version = pools[0].publish(&mut heap);
    for (n, step) in steps.into_iter().enumerate() {
        let pool = &pools[n % 2];
        match step {
            Step::Message { stores, keep, viewed } => {
                let mut seat = pool.take(&heap, tracking).unwrap();
                seat.begin_message(&heap).unwrap();
                let mut view = pools[1].take_view(&version, tracking).unwrap();
                view.begin_view(&version).unwrap();
                let mut after = model.clone();
                let mut viewed = viewed.into_iter();
                for (page, value, by_host) in stores {
                    let Some(place) = after.get_mut(page as usize) else { continue };
                    prop_assert_eq!(byte(&mut seat, page, by_host), *place);
                    let address = PageIx(page).address() + 1_500;
                    *place = value;
                    match by_host {
                        true => seat.write(address, &[value]).unwrap(),
                        false => jit_store(&mut seat, tracking, address, 0, &[value]),
                    }
                    if let Some(page) = viewed.next().filter(|page| (*page as usize) < published.len()) {
                        prop_assert_eq!(byte(&mut view, page, by_host), published[page as usize]);
                    }
                }
                let changed = (0..after.len()).filter(|page| after[*page] != model[*page]).count();
                prop_assert_eq!(seat.finish().pages_changed, changed as u64);
                if keep {
                    seat.commit(&mut heap);
                    model = after;
                } else {
                    seat.rollback().unwrap();
                }
                for page in viewed.filter(|page| (*page as usize) < published.len()) {
                    prop_assert_eq!(byte(&mut view, page, false), published[page as usize]);
                }
                view.rollback().unwrap();
                pool.put(seat);
                pools[1].put(view);
            }
            Step::View(pages, rests) => {
                let mut view = pool.take_view(&version, tracking).unwrap();
                view.begin_view(&version).unwrap();
                for turn in 0..2 {
                    for page in pages.iter().copied().filter(|page| (*page as usize) < published.len()) {
                        prop_assert_eq!(byte(&mut view, page, turn == 1), published[page as usize]);
                    }
                    for page in pages.iter().copied().filter(|page| page % 2 == 1 && (*page as usize) < published.len())
                    {
                        jit_store(&mut view, tracking, PageIx(page).address(), 1_500, &[200]);
                        prop_assert_eq!(byte(&mut view, page, turn == 1), 200);
                    }
                    if turn == 1 || !rests || !view.rest_view() {
                        break;
                    }
                    if pages.len() % 2 == 1 && heap.release() {
                        prop_assert!(!view.resume_view());
                        break;
                    }
                    prop_assert!(view.resume_view());
                }
                view.rollback().unwrap();
                pool.put(view);
            }
            Step::Publish => {
                version = pool.publish(&mut heap);
                published = model.clone();
            }
            Step::Grow if heap.size() < maximum => {
                let mut seat = pool.take(&heap, tracking).unwrap();
                seat.begin_message(&heap).unwrap();
                let first = seat.grow(WasmPages(1)).unwrap().0 as u32 * 16;
                jit_store(&mut seat, tracking, PageIx(first + 2).address(), 1_500, &[9]);
                prop_assert_eq!((byte(&mut seat, first, false), byte(&mut seat, first + 2, true)), (0, 9));
                prop_assert_eq!(byte(&mut seat, 20, false), model[20]);
                seat.finish();
                if n % 3 == 0 {
                    seat.rollback().unwrap();
                } else {
                    seat.commit(&mut heap);
                    model.resize(model.len() + 16, 0);
                    model[first as usize + 2] = 9;
                }
                pool.put(seat);
            }
            Step::Grow => {}
            Step::Save => {
                let before = store.read.load(Ordering::Relaxed);
                save(&mut heap, &store, file);
                prop_assert_eq!(store.read.load(Ordering::Relaxed), before, "what is saved is there");
                file += 1;
            }
            Step::Release => {
                heap.release();
            }
            Step::Restore => {
                save(&mut heap, &store, file);
                file += 1;
                let runs = heap.runs();
                heap = arena.new_heap(heap.size(), maximum).unwrap();
                heap.lie_in(&shared, runs);
                version = pool.publish(&mut heap);
                published = model.clone();
            }
            Step::Fork => {
                let before = store.read.load(Ordering::Relaxed);
                heap = heap.fork().unwrap();
                prop_assert_eq!(store.read.load(Ordering::Relaxed), before, "a fork reads nothing");
                version = pool.publish(&mut heap);
                published = model.clone();
            }
            Step::Committed(page) => {
                let Some(expected) = model.get(page as usize) else { continue };
                let mut content = [0; PAGE];
                heap.committed(|heap| heap.read(PageIx(page).address(), &mut content)).unwrap();
                prop_assert_eq!(content[1_500], *expected);
            }
        }
    }
    let absent = heap.absent_pages();
    let mut hashed = vec![0; model.len()];
    heap.committed(|heap| heap.each_nonzero_page(|page, content| hashed[page.0 as usize] = content[1_500])).unwrap();
    prop_assert_eq!(&hashed, &model);
    prop_assert_eq!(heap.absent_pages(), absent, "who reads all of it brings nothing into memory");
    let mut seat = pools[0].take(&heap, tracking).unwrap();
    seat.begin_message(&heap).unwrap();
    for (page, expected) in model.iter().enumerate() {
        prop_assert_eq!(byte(&mut seat, page as u32, false), *expected);
    }
    seat.rollback().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn seats_show_what_a_model_holds_whatever_is_missing(steps in steps(), protect in any::<bool>()) {
        install_handler();
        check_model(steps, if protect { Tracking::Protect } else { Tracking::Cards })?;
    }
}
