//! Stores as JIT code makes them, under either way of tracking.

use std::cell::Cell;
use std::sync::Once;

use cyclotron_heap::layout::{CARD_GROUP, CARD_TABLE_BYTES, PAGE_SHIFT};
use cyclotron_heap::{Fault, Seat, SeatPtr, Tracking};

thread_local! {
    /// The seat whose message this thread runs.
    static RUNNING: Cell<Option<SeatPtr>> = const { Cell::new(None) };
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for SIGSEGV.
    let address = unsafe { (*info).si_addr() } as usize;
    let handled = RUNNING.get().is_some_and(|seat| {
        // SAFETY: RUNNING is set only around the raw accesses below, where no reference to the seat's memory exists.
        unsafe { seat.handle_fault(address) == Fault::Again }
    });
    if !handled {
        // SAFETY: restores the default action, so that the store faults again and the test dies.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Installs the fault handler for this process.
pub fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed sigaction is valid; the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
        }
    });
}

/// Stores `bytes` (at most 16) at `base + offset` as compiled code does: one test of the card of `base + (offset rounded down to a group)`.
pub fn jit_store(seat: &mut Seat, tracking: Tracking, base: u64, offset: u64, bytes: &[u8]) {
    assert!(bytes.len() <= 16 && base + offset + bytes.len() as u64 <= seat.size_bytes());
    if tracking == Tracking::Cards {
        let tested = base + (offset & !(CARD_GROUP as u64 - 1));
        // SAFETY: the card table ends at vmctx; `tested` is inside the heap.
        let card = unsafe { *seat.vmctx().sub(CARD_TABLE_BYTES).add((tested >> PAGE_SHIFT) as usize) };
        if card == 0 {
            seat.mark_store(tested);
        }
    }
    // SAFETY: inside the heap, asserted.
    let at = unsafe { seat.heap_base().add((base + offset) as usize) };
    RUNNING.set(Some(seat.as_seat_ptr()));
    for (i, byte) in bytes.iter().enumerate() {
        // SAFETY: inside the heap; a fault here is handled by `on_fault`.
        unsafe { at.add(i).write_volatile(*byte) };
    }
    RUNNING.set(None);
}

/// Loads `into.len()` bytes from `address` as compiled code does.
#[allow(dead_code, reason = "not all tests load")]
pub fn jit_load(seat: &mut Seat, address: u64, into: &mut [u8]) {
    assert!(address + into.len() as u64 <= seat.size_bytes());
    // SAFETY: inside the heap, asserted.
    let at = unsafe { seat.heap_base().add(address as usize) };
    RUNNING.set(Some(seat.as_seat_ptr()));
    for (i, byte) in into.iter_mut().enumerate() {
        // SAFETY: inside the heap; a fault here is handled by `on_fault`.
        *byte = unsafe { at.add(i).read_volatile() };
    }
    RUNNING.set(None);
}
