//! Where the threads are that run compiled code: asked by a signal, answered by its handler into a place of the thread's own.
//!
//! Enters: SIGPROF. Leaves: the program counters of the compiled frames on the thread's stack, innermost first. Never here, in the handler:
//! allocation, locks, a system call, a write to anything but the thread's place.
//!
//! Invariants. `PLACE` is null or points to the box in `THREADS` of this thread, which is there until the thread has set it to null. The
//! handler alone writes the frames of a place that is not `full`, and the sampler alone reads those of one that is.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::activation::Activation;
use super::arch::Context;
use super::signals;
use crate::code::CodeTables;

/// Innermost frames that a sample keeps.
const FRAMES_MAX: usize = 128;
/// Bytes of stack that a host function may have between it and the compiled code that called it; beyond them its sample has no frames.
const HOST_FRAMES_BYTES: usize = 32 << 10;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawFrame {
    /// Code of the node that compiled code has called.
    Host,
    /// Compiled code.
    Code {
        /// Which; see [`CodeTables::serial`].
        serial: u64,
        /// Offset in it.
        offset: u32,
    },
}

/// Where a thread's handler leaves a sample.
struct Place {
    full: AtomicBool,
    frames: UnsafeCell<([RawFrame; FRAMES_MAX], usize)>,
}

struct Thread {
    id: i32,
    /// What the thread runs; valid while the entry is there.
    current: *const AtomicPtr<Activation>,
    place: Box<Place>,
}

// SAFETY: the pointer is to an atomic that outlives the entry, and the place is shared as its invariant says.
unsafe impl Send for Thread {}

static THREADS: Mutex<Vec<Thread>> = Mutex::new(Vec::new());

thread_local! {
    static PLACE: Cell<*const Place> = const { Cell::new(null()) };
}

fn threads() -> MutexGuard<'static, Vec<Thread>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread_id() -> i32 {
    // SAFETY: takes nothing, changes nothing.
    unsafe { libc::gettid() }
}

/// Makes this thread one that can be asked. `current` is where it notes what it runs.
pub(super) fn add_thread(current: *const AtomicPtr<Activation>) {
    let frames = UnsafeCell::new(([RawFrame::Host; FRAMES_MAX], 0));
    let place = Box::new(Place { full: AtomicBool::new(false), frames });
    let mut threads = threads();
    PLACE.set(&raw const *place);
    threads.push(Thread { id: thread_id(), current, place });
}

/// Ends that; before the thread does.
pub(super) fn remove_thread() {
    let id = thread_id();
    let mut threads = threads();
    PLACE.set(null());
    threads.retain(|thread| thread.id != id);
}

/// Installs the handler, for good: a signal may still be under way when nobody asks any more.
pub(crate) fn install() -> std::io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid value; the handler has the SA_SIGINFO signature and stays for the life of the process.
        let result = unsafe {
            let mut ours: libc::sigaction = MaybeUninit::zeroed().assume_init();
            ours.sa_sigaction = on_signal as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigemptyset(&raw mut ours.sa_mask);
            libc::sigaction(libc::SIGPROF, &raw const ours, std::ptr::null_mut())
        };
        if result != 0 {
            outcome = Err(std::io::Error::last_os_error());
        }
    });
    outcome
}

/// Hands on what threads, by their ids, have answered since the last call, then asks those that run compiled code now: `None` for those that
/// do not. Returns how many were asked.
pub(crate) fn ask(mut answer: impl FnMut(i32, Option<&[RawFrame]>)) -> usize {
    let mut asked = 0;
    // Held throughout: no thread ends meanwhile.
    for thread in threads().iter() {
        if thread.place.full.load(Ordering::Acquire) {
            {
                // SAFETY: the place is full: only we look at its frames.
                let (frames, len) = unsafe { &*thread.place.frames.get() };
                answer(thread.id, Some(&frames[..*len]));
            }
            thread.place.full.store(false, Ordering::Release);
        }
        // SAFETY: the entry is there, so the thread's variable is.
        let current = unsafe { (*thread.current).load(Ordering::Relaxed) };
        if current.is_null() {
            answer(thread.id, None);
        } else {
            // SAFETY: a signal to a thread of this process, which has a handler for it.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.id, libc::SIGPROF) };
            asked += usize::from(sent == 0);
        }
    }
    asked
}

unsafe extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (place, activation) = (PLACE.get(), signals::current());
    if place.is_null() || activation.is_null() {
        return;
    }
    // SAFETY: not null: the box is there until this thread has set the pointer to null.
    let place = unsafe { &*place };
    if place.full.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: the kernel's argument of an SA_SIGINFO handler.
    let machine = unsafe { Context::new(context) };
    // SAFETY: not null means that this thread is at that activation's coroutine; neither its range of stack nor its module changes
    // meanwhile. There is no reference to the whole activation, which the interrupted code may have.
    let (stack, tables) = unsafe { (&(*activation).stack, (*activation).module.code().tables()) };
    // Elsewhere while it goes over to the coroutine or comes back, or in another handler.
    if !stack.contains(&machine.sp()) {
        return;
    }
    // SAFETY: the place is not full: only this handler looks at its frames, and the signal is blocked while it runs.
    let (frames, len) = unsafe { &mut *place.frames.get() };
    *len = 0;
    let mut push = |frame| {
        if let Some(at) = frames.get_mut(*len) {
            *at = frame;
            *len += 1;
        }
    };
    // SAFETY: `stack` is this thread's and its stack pointer lies in it.
    unsafe { walk(&machine, stack, tables, &mut push) };
    if *len > 0 {
        place.full.store(true, Ordering::Release);
    }
}

/// Walks the compiled frames of an interrupted coroutine. Addresses of other modules than its own, which earlier coroutines may have left
/// on the stack, are nothing to it: that code may be gone.
///
/// # Safety
/// `stack` is the coroutine's stack, `machine` was interrupted on it; nothing runs there meanwhile.
unsafe fn walk(machine: &Context, stack: &Range<usize>, tables: &CodeTables, push: &mut impl FnMut(RawFrame)) {
    let frame_of = |pc| Some(RawFrame::Code { serial: tables.serial(), offset: tables.offset(pc)? });
    let is_call = |back| tables.offset(back).is_some_and(|offset| tables.call_site(offset).is_some());
    // SAFETY: whole words between the stack pointer and the end of the stack are mapped.
    let word = |at: usize| unsafe { (at as *const usize).read() };
    let (low, high) = (machine.sp().next_multiple_of(8), stack.end.saturating_sub(16));
    let is_frame = |fp: usize| fp >= low && fp <= high && fp.is_multiple_of(8);
    let mut fp = machine.fp();
    match frame_of(machine.pc()) {
        Some(frame) => push(frame),
        None => {
            push(RawFrame::Host);
            // The node's own functions keep no frame pointers: the innermost frame of compiled code is where a return address of a call in
            // compiled code lies behind a pointer further up.
            let mut called_from = None;
            let mut at = low;
            let end = high.min(low.saturating_add(HOST_FRAMES_BYTES));
            loop {
                if at > end {
                    return;
                }
                let (saved, back) = (word(at), word(at + 8));
                if is_call(back) {
                    if is_frame(saved) && saved > at {
                        break;
                    }
                    called_from.get_or_insert(back);
                }
                at += 8;
            }
            if let Some(frame) = called_from.and_then(|back| frame_of(back - 1)) {
                push(frame);
            }
            fp = at;
        }
    }
    while is_frame(fp) {
        let (next, back) = (word(fp), word(fp + 8));
        let Some(frame) = frame_of(back.wrapping_sub(1)) else { return };
        push(frame);
        if next <= fp {
            return;
        }
        fp = next;
    }
}
