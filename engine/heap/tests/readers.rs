//! Views at work on other threads while messages write, trap, commit and are published.
#![allow(clippy::unwrap_used)]

mod common;

use common::{install_handler, jit_store};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{Arena, HeapError, HeapVersion, Seat, SeatPool, StablePool, StableVersion, Tracking};
use cyclotron_types::units::WasmPages;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const PAGES: u64 = 96;
const SIZE: WasmPages = WasmPages(PAGES * PAGE as u64 / WasmPages::BYTES);
const ROUNDS: u64 = 300;

/// Where the round's number stands in each page: some in its head, some behind.
fn place(page: u64) -> u64 {
    page * PAGE as u64 + (page * 200) % (PAGE as u64 - 8)
}

/// The messages of a round: what they write everywhere, and whether they commit. One is undone, one is not the round's last.
fn messages(round: u64) -> [(u64, bool); 3] {
    [(u64::MAX, false), (u64::MAX - 1, true), (round, true)]
}

struct Published<V> {
    version: Mutex<(Arc<V>, u64)>,
    over: AtomicBool,
    views: AtomicU64,
}

impl<V> Published<V> {
    fn new(version: V) -> Self {
        let version = Mutex::new((Arc::new(version), 0));
        Self { version, over: AtomicBool::new(false), views: AtomicU64::new(0) }
    }

    /// Lets `look` see one version after the other until the writer is done.
    fn read(&self, look: impl Fn(&V, u64) -> Result<(), HeapError>) {
        let _ends = Ends(&self.over);
        while !self.over.load(Ordering::Acquire) {
            let (version, round) = self.version.lock().unwrap().clone();
            match look(&version, round) {
                Ok(()) => {
                    self.views.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert_eq!(error, HeapError::Outdated),
            }
        }
    }

    /// Lets two readers `look` while `round` runs the messages of one round after the other and publishes what they leave.
    fn race(&self, look: impl Fn(&V, u64) -> Result<(), HeapError> + Sync, mut round: impl FnMut(u64) -> V)
    where
        V: Send + Sync,
    {
        std::thread::scope(|scope| {
            scope.spawn(|| self.read(&look));
            scope.spawn(|| self.read(&look));
            let _ends = Ends(&self.over);
            let mut number = 0;
            while self.goes_on(number) {
                number += 1;
                let version = Arc::new(round(number));
                *self.version.lock().unwrap() = (version, number);
            }
        });
    }

    /// Whether the writer is to make another round: until there have been enough, and readers have seen some of them, or one has failed.
    fn goes_on(&self, round: u64) -> bool {
        let enough = round >= ROUNDS && self.views.load(Ordering::Relaxed) >= 100;
        !enough && !self.over.load(Ordering::Acquire)
    }
}

/// Ends the others when its thread ends, whether or not it has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn write_all(seat: &mut Seat, tracking: Tracking, value: u64) {
    for page in 0..PAGES {
        let base = place(page).saturating_sub(500);
        jit_store(seat, tracking, base, place(page) - base, &value.to_le_bytes());
    }
}

fn check_heaps(messages_by: Tracking, views_by: Tracking) {
    install_handler();
    let (arena, pool) = (Arena::new().unwrap(), SeatPool::new(8));
    let mut heap = arena.new_heap(SIZE, SIZE).unwrap();
    let published = Published::new(pool.publish(&mut heap));
    let look = |version: &HeapVersion, round: u64| {
        let mut view = pool.take_view(version, views_by)?;
        if let Err(error) = view.begin_view(version) {
            pool.put(view);
            return Err(error);
        }
        for pass in 0..20 {
            for page in 0..PAGES {
                let bytes = view.slice(place(page), 8).unwrap();
                let value = u64::from_le_bytes(bytes.try_into().unwrap());
                assert_eq!(value, round, "page {page} in pass {pass}");
            }
            std::thread::yield_now();
        }
        // It rests and goes on, as long as nobody writes: then it shows what it showed.
        let mut resumed = 0;
        while resumed < 100 && view.rest_view() && view.resume_view() {
            view.write(place(resumed % PAGES), &u64::MAX.to_le_bytes()).unwrap();
            assert!((0..PAGES).all(|page| {
                let bytes = view.slice(place(page), 8).unwrap();
                page == resumed % PAGES || bytes == round.to_le_bytes()
            }));
            resumed += 1;
        }
        view.rollback().unwrap();
        pool.put(view);
        Ok(())
    };
    published.race(look, |round| {
        for (value, commit) in messages(round) {
            let mut seat = pool.take(&heap, messages_by).unwrap();
            seat.begin_message(&heap).unwrap();
            write_all(&mut seat, messages_by, value);
            if commit {
                seat.commit(&mut heap);
            } else {
                seat.rollback().unwrap();
            }
            pool.put(seat);
        }
        pool.publish(&mut heap)
    });
}

#[test]
fn views_never_see_what_messages_do_under_cards() {
    check_heaps(Tracking::Cards, Tracking::Cards);
}

#[test]
fn views_never_see_what_messages_do_under_protection() {
    check_heaps(Tracking::Protect, Tracking::Protect);
}

#[test]
fn views_under_cards_never_see_what_messages_do_under_protection() {
    check_heaps(Tracking::Protect, Tracking::Cards);
}

#[test]
fn views_of_stable_memory_never_see_what_messages_do() {
    let (arena, pool) = (Arena::new().unwrap(), StablePool::new());
    let mut stable = arena.new_stable(SIZE, SIZE).unwrap();
    let published = Published::new(pool.publish(&mut stable));
    let look = |version: &StableVersion, round: u64| {
        let mut view = pool.take_view(version);
        if let Err(error) = view.begin_view(version) {
            pool.put(view);
            return Err(error);
        }
        for pass in 0..20 {
            for page in 0..PAGES {
                let mut bytes = [0; 8];
                view.read(place(page), &mut bytes).unwrap();
                assert_eq!(u64::from_le_bytes(bytes), round, "page {page} in pass {pass}");
            }
            std::thread::yield_now();
        }
        view.rollback().unwrap();
        pool.put(view);
        Ok(())
    };
    published.race(look, |round| {
        for (value, commit) in messages(round) {
            let mut access = pool.take(&stable);
            access.begin_message(&stable).unwrap();
            (0..PAGES).for_each(|page| access.write(place(page), &value.to_le_bytes()).unwrap());
            if commit {
                access.commit(&mut stable);
            } else {
                access.rollback().unwrap();
            }
            pool.put(access);
        }
        pool.publish(&mut stable)
    });
}
