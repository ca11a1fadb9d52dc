//! Memories whose pages lie in a store: fetched before anybody looks, given back and fetched again.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod store;

use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{
    Arena, Heap, HeapError, PageAt, PageIx, PageRun, PageSet, PageStore, SeatPool, StableMemory, StablePool, Tracking,
};
use cyclotron_types::units::WasmPages;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use store::{Store, save};

fn new() -> (Arena, Arc<Store>) {
    (Arena::new().unwrap(), Arc::new(Store::default()))
}

fn bytes(heap: &Heap, page: u32) -> u8 {
    let mut byte = [0];
    heap.read(PageIx(page).address(), &mut byte).unwrap();
    byte[0]
}

#[test]
fn a_released_heap_is_fetched_for_messages_and_views_and_changes_are_kept() {
    let (arena, store) = new();
    let pool = SeatPool::default();
    let mut heap = arena.new_heap(WasmPages(4), WasmPages(8)).unwrap();
    for page in [0_u32, 1, 17, 40] {
        heap.write(PageIx(page).address(), &[page as u8 + 1]).unwrap();
    }
    assert_eq!(save(&mut heap, &store, 1), 4);
    assert!(heap.release() && heap.absent_pages() == 4);
    assert_eq!(arena.allocated_bytes().unwrap().0, 0);

    let version = pool.publish(&mut heap);
    for tracking in [Tracking::Cards, Tracking::Protect] {
        let mut seat = pool.take(&heap, tracking).unwrap();
        seat.begin_message(&heap).unwrap();
        assert_eq!(seat.slice(PageIx(17).address(), 1).unwrap(), [18]);
        seat.write(PageIx(40).address(), &[99]).unwrap();
        seat.rollback().unwrap();
        pool.put(seat);
        assert_eq!((bytes(&heap, 40), bytes(&heap, 2)), (41, 0));
    }
    // A page that a message changed stays when the others go.
    let mut seat = pool.take(&heap, Tracking::Cards).unwrap();
    seat.begin_message(&heap).unwrap();
    seat.write(PageIx(1).address(), &[77]).unwrap();
    seat.finish();
    assert!(!heap.release(), "a message is in progress");
    seat.commit(&mut heap);
    pool.put(seat);
    assert!(heap.release());
    assert_eq!(heap.absent_pages(), 3);
    // What was published is still what views show.
    let mut seat = pool.take_view(&version, Tracking::Cards).unwrap();
    seat.begin_view(&version).unwrap();
    assert_eq!(seat.slice(PageIx(1).address(), 1).unwrap(), [2]);
    assert_eq!(seat.slice(PageIx(40).address(), 1).unwrap(), [41]);
    assert!(!heap.release(), "a view is at work");
    assert!(seat.rest_view());
    assert!(heap.release(), "a view that rests is given up");
    assert!(!seat.resume_view());
    seat.rollback().unwrap();
    assert_eq!([0, 1, 17, 40, 41].map(|page| bytes(&heap, page)), [1, 77, 18, 41, 0]);
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_and_nothing_else() {
    let (arena, store) = new();
    let shared: Arc<dyn PageStore> = Arc::clone(&store) as _;
    let mut heap = arena.new_heap(WasmPages(1), WasmPages(1)).unwrap();
    heap.lie_in(&shared, vec![PageRun { first: 3, count: 2, at: PageAt { file: 9, index: 0 } }]);
    let mut byte = [0];
    assert_eq!(heap.read(0, &mut byte), Ok(()));
    assert_eq!(heap.read(PageIx(4).address(), &mut byte), Err(HeapError::PageLost));
    let mut seat = SeatPool::default().take(&heap, Tracking::Cards).unwrap();
    for _ in 0..2 {
        assert_eq!(seat.begin_message(&heap), Err(HeapError::PageLost));
    }
}

#[test]
fn a_fork_shares_what_is_saved_and_copies_the_rest() {
    let (arena, store) = new();
    let mut heap = arena.new_heap(WasmPages(2), WasmPages(2)).unwrap();
    heap.write(0, &[1; 3 * PAGE]).unwrap();
    save(&mut heap, &store, 1);
    heap.release();
    heap.write(PAGE as u64, &[2; PAGE]).unwrap();
    let before = store.read.load(Ordering::Relaxed);
    let mut fork = heap.fork().unwrap();
    assert_eq!(store.read.load(Ordering::Relaxed), before);
    heap.write(0, &[9; 4 * PAGE]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| bytes(&fork, page)), [1, 2, 1, 0]);
    fork.write(2 * PAGE as u64, &[5; PAGE]).unwrap();
    assert_eq!(save(&mut fork, &store, 2), 2);
    fork.release();
    assert_eq!([0, 1, 2, 3].map(|page| bytes(&fork, page)), [1, 2, 5, 0]);
    assert_eq!(bytes(&heap, 2), 9);
}

#[test]
fn a_fork_of_many_changed_pages_holds_all_of_them_and_nothing_else() {
    let (arena, store) = new();
    let mut heap = arena.new_heap(WasmPages(1_024), WasmPages(1_024)).unwrap();
    heap.write(0, &vec![1; 8_192 * PAGE]).unwrap();
    save(&mut heap, &store, 1);
    // Alone, in runs, set to zero: more than one thread copies.
    let changed = |page: u32| page.is_multiple_of(3) || page % 1_000 < 150;
    let content = |page: u32| if page.is_multiple_of(7) { 0 } else { (page % 250) as u8 + 2 };
    for page in (0..9_000).filter(|page| changed(*page)) {
        heap.write(PageIx(page).address(), &[content(page); PAGE]).unwrap();
    }
    heap.release();
    let taken = heap.allocated_bytes().unwrap();
    let fork = heap.fork().unwrap();
    assert!(fork.allocated_bytes().unwrap() < taken, "pages that are all zero take nothing");
    assert_eq!(fork.unsaved(), heap.unsaved());
    for page in 0..9_100 {
        let expected = if page < 9_000 && changed(page) { content(page) } else { u8::from(page < 8_192) };
        assert_eq!((bytes(&fork, page), bytes(&heap, page)), (expected, expected), "page {page}");
    }
}

#[test]
fn whatever_happens_while_pages_are_copied_the_copy_is_the_memory_as_it_was() {
    const PAGES: u32 = 6_000;
    let (arena, store) = new();
    let pool = SeatPool::default();
    let all = |heap: &Heap, value: u8| (0..PAGES).all(|page| bytes(heap, page) == value);
    for which in 0..6 {
        let mut heap = arena.new_heap(WasmPages(512), WasmPages(512)).unwrap();
        heap.write(0, &vec![1; PAGES as usize * PAGE]).unwrap();
        let mut fork = heap.fork().unwrap();
        match which {
            0 => heap.write(0, &vec![2; PAGES as usize * PAGE]).unwrap(),
            1 => {
                for (memory, value) in [(&mut heap, 2), (&mut fork, 3)] {
                    let mut seat = pool.take(memory, Tracking::Cards).unwrap();
                    seat.begin_message(memory).unwrap();
                    seat.write(0, &vec![value; PAGES as usize * PAGE]).unwrap();
                    seat.finish();
                    seat.commit(memory);
                    pool.put(seat);
                }
                assert!(all(&heap, 2) && all(&fork, 3));
                continue;
            }
            2 => {
                save(&mut heap, &store, 1);
                assert!(heap.release());
                assert_eq!(heap.absent_pages(), u64::from(PAGES));
            }
            // Another, of the copy, before anybody has waited for it; and another of the heap.
            3 => fork = fork.fork().unwrap(),
            4 => drop(std::mem::replace(&mut fork, heap.fork().unwrap())),
            _ => {
                let version = pool.publish(&mut fork);
                let mut seat = pool.take_view(&version, Tracking::Protect).unwrap();
                seat.begin_view(&version).unwrap();
                assert!(seat.slice(0, u64::from(PAGES) * PAGE as u64).unwrap().iter().all(|byte| *byte == 1));
                seat.rollback().unwrap();
                pool.put(seat);
                drop(std::mem::replace(&mut heap, arena.new_heap(WasmPages(1), WasmPages(1)).unwrap()));
            }
        }
        assert!(all(&fork, 1), "{which}");
        assert_eq!(fork.allocated_bytes().unwrap(), u64::from(PAGES) * PAGE as u64, "{which}");
    }
    let mut stable = arena.new_stable(WasmPages(512), WasmPages(512)).unwrap();
    stable.write(0, &vec![1; PAGES as usize * PAGE]).unwrap();
    let fork = stable.fork().unwrap();
    let stables = StablePool::default();
    let mut access = stables.take(&stable);
    access.begin_message(&stable).unwrap();
    access.write(0, &vec![2; PAGES as usize * PAGE]).unwrap();
    access.commit(&mut stable);
    let mut content = vec![0; PAGES as usize * PAGE];
    fork.read(0, &mut content).unwrap();
    assert!(content.iter().all(|byte| *byte == 1));
}

#[test]
fn what_is_being_saved_is_still_the_memory_s_own() {
    let (arena, store) = new();
    let mut heap = arena.new_heap(WasmPages(1), WasmPages(1)).unwrap();
    heap.write(0, &[1; 2 * PAGE]).unwrap();
    save(&mut heap, &store, 1);
    heap.write(0, &[2; PAGE]).unwrap();
    assert_eq!(heap.begin_save().len(), 1);
    heap.release();
    let fork = heap.fork().unwrap();
    assert_eq!((bytes(&heap, 0), bytes(&fork, 0), bytes(&fork, 1)), (2, 2, 1));
    heap.not_saved();
    assert_eq!((heap.unsaved().len(), fork.unsaved().len()), (1, 1));
}

#[test]
fn who_waits_for_pages_that_another_fetches_does_not_fetch_them_again() {
    let arena = Arena::new().unwrap();
    let store = Arc::new(Store { gates: Some([Barrier::new(2), Barrier::new(2)]), ..Store::default() });
    store.pages.lock().unwrap().insert((1, 0), [1; PAGE]);
    let shared: Arc<dyn PageStore> = Arc::clone(&store) as _;
    let mut heap = arena.new_heap(WasmPages(1), WasmPages(1)).unwrap();
    heap.lie_in(&shared, vec![PageRun { first: 0, count: 1, at: PageAt { file: 1, index: 0 } }]);
    let [entered, left] = store.gates.as_ref().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bytes(&heap, 0));
        entered.wait();
        // The first reads, under the lock; the second finds the page missing and waits for the lock.
        let second = scope.spawn(|| bytes(&heap, 0));
        std::thread::sleep(Duration::from_millis(50));
        left.wait();
        // A second read would wait at the gate for ever.
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 1));
    });
    assert_eq!((store.read.load(Ordering::Relaxed), heap.absent_pages()), (1, 0));
}

/// What happens to a memory, in small numbers: pages 0 to 47.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u32, u8)>),
    RolledBack(Vec<(u32, u8)>),
    View(BTreeSet<u32>),
    Save,
    Release,
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stores = || prop::collection::vec((0u32..48, 0u8..4), 0..6);
    let step = prop_oneof![
        3 => stores().prop_map(Step::Write),
        1 => stores().prop_map(Step::RolledBack),
        2 => prop::collection::btree_set(0u32..48, 0..6).prop_map(Step::View),
        2 => Just(Step::Save),
        2 => Just(Step::Release),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memories_hold_what_a_model_holds_wherever_their_pages_are(steps in steps(), protect in any::<bool>()) {
        let (arena, store) = new();
        let shared: Arc<dyn PageStore> = Arc::clone(&store) as _;
        let (seats, stables) = (SeatPool::default(), StablePool::new());
        let size = WasmPages(3);
        let tracking = if protect { Tracking::Protect } else { Tracking::Cards };
        let mut heap = arena.new_heap(size, size).unwrap();
        let mut stable = arena.new_stable(size, size).unwrap();
        let mut model = [0u8; 48];
        let mut file = 0;
        for step in steps {
            match step {
                Step::Write(stores) | Step::RolledBack(stores) if stores.is_empty() => {}
                Step::Write(stores) => {
                    message(&seats, &stables, &mut heap, &mut stable, tracking, &stores, true);
                    for (page, byte) in stores {
                        model[page as usize] = byte;
                    }
                }
                Step::RolledBack(stores) => message(&seats, &stables, &mut heap, &mut stable, tracking, &stores, false),
                Step::View(pages) => {
                    let (version, stable_version) = (seats.publish(&mut heap), stables.publish(&mut stable));
                    let mut seat = seats.take_view(&version, Tracking::Cards).unwrap();
                    seat.begin_view(&version).unwrap();
                    let mut access = stables.take_view(&stable_version);
                    access.begin_view(&stable_version).unwrap();
                    for page in pages {
                        let mut byte = [0];
                        access.read(PageIx(page).address(), &mut byte).unwrap();
                        prop_assert_eq!(byte[0], model[page as usize]);
                        prop_assert_eq!(seat.slice(PageIx(page).address(), 1).unwrap()[0], model[page as usize]);
                        seat.write(PageIx(page).address(), &[200]).unwrap();
                        access.write(PageIx(page).address(), &[200]).unwrap();
                    }
                    seat.rollback().unwrap();
                    access.rollback().unwrap();
                    seats.put(seat);
                    stables.put(access);
                }
                Step::Save => {
                    save(&mut heap, &store, file);
                    save(&mut stable, &store, file + 1);
                    file += 2;
                }
                Step::Release => {
                    heap.release();
                    stable.release();
                }
                Step::Restore => {
                    save(&mut heap, &store, file);
                    save(&mut stable, &store, file + 1);
                    file += 2;
                    let (runs, stable_runs) = (heap.runs(), stable.runs());
                    heap = arena.new_heap(size, size).unwrap();
                    stable = arena.new_stable(size, size).unwrap();
                    heap.lie_in(&shared, runs);
                    stable.lie_in(&shared, stable_runs);
                }
            }
            let unsaved: PageSet = heap.unsaved().clone();
            prop_assert!(unsaved.iter().all(|page| page.0 < 48));
        }
        for page in 0..48 {
            prop_assert_eq!(bytes(&heap, page), model[page as usize]);
            let mut byte = [0];
            stable.read(PageIx(page).address(), &mut byte).unwrap();
            prop_assert_eq!(byte[0], model[page as usize]);
        }
    }
}

fn message(
    seats: &SeatPool,
    stables: &StablePool,
    heap: &mut Heap,
    stable: &mut StableMemory,
    tracking: Tracking,
    stores: &[(u32, u8)],
    commits: bool,
) {
    let mut seat = seats.take(heap, tracking).unwrap();
    seat.begin_message(heap).unwrap();
    let mut access = stables.take(stable);
    access.begin_message(stable).unwrap();
    for (page, byte) in stores {
        seat.write(PageIx(*page).address(), &[*byte]).unwrap();
        access.write(PageIx(*page).address(), &[*byte]).unwrap();
    }
    seat.finish();
    if commits {
        seat.commit(heap);
        access.commit(stable);
    } else {
        seat.rollback().unwrap();
        access.rollback().unwrap();
    }
    seats.put(seat);
    stables.put(access);
}
