//! What happens when the kernel refuses. One test: limits and mappings belong to the whole process.
#![allow(clippy::unwrap_used)]

mod common;

use common::{install_handler, jit_store};
use cyclotron_heap::layout::PAGE;
use cyclotron_heap::{Arena, HeapError, SeatPool, StablePool, Tracking};
use cyclotron_types::units::WasmPages;

/// Uses up the process's mappings while it lives: every second page of a range gets a protection of its own.
struct AllMappings {
    at: *mut libc::c_void,
    length: usize,
}

impl AllMappings {
    fn take() -> Self {
        let length = 200_000 * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses the address.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        for page in (0..length / PAGE).step_by(2) {
            // SAFETY: inside the range just mapped, which nobody else uses.
            if unsafe { libc::mprotect(at.add(page * PAGE), PAGE, libc::PROT_READ) } != 0 {
                return Self { at, length };
            }
        }
        panic!("the kernel allows more than 200,000 mappings: this test needs a larger range");
    }
}

impl Drop for AllMappings {
    fn drop(&mut self) {
        // SAFETY: the range is owned.
        unsafe { libc::munmap(self.at, self.length) };
    }
}

fn out_of_memory<T>(result: Result<T, HeapError>) -> bool {
    matches!(result, Err(HeapError::Os { errno: libc::ENOMEM, .. }))
}

#[test]
fn refusals_are_errors_and_what_was_there_stays() {
    install_handler();
    let (arena, pool, stables) = (Arena::new().unwrap(), SeatPool::default(), StablePool::new());
    let mut heap = arena.new_heap(WasmPages(10), WasmPages(20)).unwrap();
    let mut stable = arena.new_stable(WasmPages(10), WasmPages(20)).unwrap();
    heap.write(5 * PAGE as u64, b"before").unwrap();
    let mut seat = pool.take(&heap, Tracking::Protect).unwrap();
    seat.begin_message(&heap).unwrap();
    let mut access = stables.take(&stable);

    let all = AllMappings::take();
    // Page 5 cannot become a mapping of its own: the whole heap is saved and becomes writable.
    jit_store(&mut seat, Tracking::Protect, 5 * PAGE as u64, 0, b"during");
    jit_store(&mut seat, Tracking::Protect, 90 * PAGE as u64, 0, b"during");
    assert_eq!(seat.finish().pages_changed, 2);
    assert!(out_of_memory(pool.take(&arena.new_heap(WasmPages(1), WasmPages(1)).unwrap(), Tracking::Cards)));
    assert_eq!(pool.seats(), 1, "a seat that could not be made does not count");
    access.begin_message(&stable).unwrap();
    assert!(out_of_memory(access.write(7, b"x")));
    access.rollback().unwrap();
    drop(all);

    seat.rollback().unwrap();
    let mut bytes = [0; 6];
    heap.read(5 * PAGE as u64, &mut bytes).unwrap();
    assert_eq!(&bytes, b"before");
    seat.begin_message(&heap).unwrap();
    jit_store(&mut seat, Tracking::Protect, 5 * PAGE as u64, 0, b"after.");
    assert_eq!(seat.finish().pages_changed, 1);
    seat.commit(&mut heap);
    pool.put(seat);

    // No more address space than is mapped now: with a limit below that, even replacing a mapping is refused.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = libc::rlimit { rlim_cur: pages * PAGE as u64, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid rlimit of this process.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    let mut other = arena.new_heap(WasmPages(1), WasmPages(1)).unwrap();
    assert!(out_of_memory(pool.take_view(&pool.publish(&mut other), Tracking::Cards)));
    access.begin_message(&stable).unwrap();
    let refused = access.write(7, b"x");
    assert!(out_of_memory(refused));
    assert!(refused.unwrap_err().to_string().contains("mmap of "));
    access.commit(&mut stable);
    assert!(stable.unsaved().is_empty());
    // A seat that is there goes on working.
    let mut seat = pool.take(&heap, Tracking::Protect).unwrap();
    seat.begin_message(&heap).unwrap();
    assert_eq!(seat.slice(5 * PAGE as u64, 6).unwrap(), b"after.");
    assert_eq!(seat.grow(WasmPages(5)), Ok(WasmPages(10)));
    seat.write(14 << 16, b"grown").unwrap();
    seat.commit(&mut heap);
    assert_eq!(heap.size(), WasmPages(15));
}
