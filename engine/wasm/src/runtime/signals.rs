//! Process-wide handlers that turn faults of compiled code into traps, first stores into saved pages, looks at missing pages into fetched ones, and
//! failed checks of the instruction counter into calls of the runtime.
//!
//! Enters: SIGSEGV, SIGBUS, SIGILL, SIGFPE. Leaves: a record in the thread's current [`Activation`] and a coroutine that returns, or code that
//! goes on.
//! Faults that are not ours go to the handlers that were there before (Rust's own reports stack overflows). Never here: allocation,
//! locks, anything that a signal handler may not do; but for faults of compiled code at pages of its heap, when it may (see the heap's `shut`).
//!
//! Invariant: `CURRENT` is null or points to the activation whose coroutine this thread is running, set for exactly that time.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use cyclotron_heap::{Fault, HeapError};

use super::activation::{Activation, Exit};
use super::arch::Context;
use super::samples;
use crate::abi::TrapCode;
use crate::code;

const SIGNALS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];
/// Rust gives threads 8 KiB, of which AVX-512 state takes a third. Pages are fetched on it, from whatever store.
const ALT_STACK_BYTES: usize = 256 << 10;

static PREVIOUS: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

thread_local! {
    static CURRENT: AtomicPtr<Activation> = const { AtomicPtr::new(null_mut()) };
    static ALT_STACK: Cell<bool> = const { Cell::new(false) };
    static ALT_STACK_MEMORY: AltStack = AltStack::install();
}

/// Makes `activation` the one that this thread runs; returns the one before.
pub(crate) fn set_current(activation: *mut Activation) -> *mut Activation {
    // Two plain moves: no other thread writes it, and who samples only asks whether there is one.
    CURRENT.with(|current| {
        let before = current.load(Ordering::Relaxed);
        current.store(activation, Ordering::Relaxed);
        before
    })
}

/// The activation that this thread runs, or null.
pub(super) fn current() -> *mut Activation {
    CURRENT.with(|current| current.load(Ordering::Relaxed))
}

/// Prepares the process (once) and this thread (once) for running compiled code.
#[inline]
pub(crate) fn prepare_thread() {
    if !ALT_STACK.get() {
        prepare_thread_slow();
    }
}

#[cold]
fn prepare_thread_slow() {
    PREVIOUS.get_or_init(install_handlers);
    ALT_STACK_MEMORY.with(|_| ());
    CURRENT.with(|current| samples::add_thread(current));
    ALT_STACK.set(true);
}

fn install_handlers() -> [libc::sigaction; SIGNALS.len()] {
    SIGNALS.map(|signal| {
        // SAFETY: an all-zero sigaction is a valid value; the handler has the SA_SIGINFO signature and stays for the life of the process.
        unsafe {
            let mut ours: libc::sigaction = MaybeUninit::zeroed().assume_init();
            let mut before: libc::sigaction = MaybeUninit::zeroed().assume_init();
            ours.sa_sigaction = on_signal as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut ours.sa_mask);
            let result = libc::sigaction(signal, &raw const ours, &raw mut before);
            assert!(result == 0, "cannot install a handler for signal {signal}");
            before
        }
    })
}

/// This thread's alternate signal stack, while it lives.
struct AltStack(*mut libc::c_void);

impl AltStack {
    fn install() -> AltStack {
        // SAFETY: maps fresh memory and tells the kernel to use it for this thread's signals; dropped with the thread.
        unsafe {
            let memory = libc::mmap(
                null_mut(),
                ALT_STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert!(memory != libc::MAP_FAILED, "cannot map a signal stack");
            let stack = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: ALT_STACK_BYTES };
            let result = libc::sigaltstack(&raw const stack, null_mut());
            assert!(result == 0, "cannot install a signal stack");
            AltStack(memory)
        }
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        samples::remove_thread();
        ALT_STACK.set(false);
        // SAFETY: the memory is ours and, once disabled, unused; this thread is ending and runs no compiled code any more.
        unsafe {
            let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            libc::sigaltstack(&raw const none, null_mut());
            libc::munmap(self.0, ALT_STACK_BYTES);
        }
    }
}

unsafe extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's arguments of an SA_SIGINFO handler.
    unsafe {
        let mut machine = Context::new(context);
        if handle(signal, info, &mut machine) {
            return;
        }
        pass_on(signal, info, context);
    }
}

/// Treats a fault that is ours: true if the interrupted thread may go on.
///
/// # Safety
/// Called from the handler with its arguments.
unsafe fn handle(signal: i32, info: *mut libc::siginfo_t, machine: &mut Context) -> bool {
    let activation = current();
    // SAFETY: `info` comes from the kernel. Sent by a process (0 or less), not raised by an instruction.
    if unsafe { (*info).si_code } <= 0 {
        return false;
    }
    let is_page_fault = signal == libc::SIGSEGV || signal == libc::SIGBUS;
    // SAFETY: `info` comes from the kernel; a page fault has an address.
    let address = if is_page_fault { unsafe { (*info).si_addr() as usize } } else { 0 };
    if activation.is_null() {
        return false;
    }
    let pc = machine.pc();
    let Some(tables) = code::lookup(pc) else {
        // SAFETY: non-null means that this thread is inside that activation's coroutine; the range does not change meanwhile.
        if is_page_fault && unsafe { (*activation).guard.contains(&address) } {
            die("a host function overflowed the execution's native stack", pc, address);
        }
        return false;
    };
    // SAFETY: as above; compiled code was interrupted, so no libcall or host function holds a reference.
    let activation = unsafe { &mut *activation };
    if is_page_fault && activation.guard.contains(&address) {
        die("compiled code overflowed its native stack before its limit in slots", pc, address);
    }
    if is_page_fault {
        // SAFETY: the interrupted code is compiled code of this seat's message on this thread: it holds no lock and is in no allocation.
        match unsafe { activation.seat.as_seat_ptr().handle_fault(address) } {
            Fault::Again => return true,
            Fault::Refused(HeapError::PageLost) => die("a page of a heap that a checkpoint keeps is lost", pc, address),
            Fault::NotOurs | Fault::Refused(_) => {}
        }
    }
    // A heap byte that exists can be read and written: what remains is a kernel that has no memory or no mapping left, which other
    // replicas do not see. It must not look like the canister's failure.
    if signal == libc::SIGBUS || (is_page_fault && activation.seat.heap_address_of(address).is_some()) {
        die("the kernel refused a page of a heap: out of memory or mappings", pc, address);
    }
    // `lookup` answered, so the offset exists.
    let offset = tables.offset(pc).unwrap_or(0);
    if let Some((thunk, resume)) = tables.check_site(offset) {
        // Nothing has happened: the counter is negative, and the runtime is to say what follows from that.
        // SAFETY: compiled code was interrupted at a check; the native stack has room beyond what frames take (see `stack`).
        unsafe { machine.call_for_check(thunk, resume, activation.vmctx) };
        return true;
    }
    let Some(site) = tables.trap_site(offset).copied() else {
        die("compiled code faulted where no trap is known", pc, address);
    };
    // A null check may be a load from the first page (`TrapCode::IndirectCallToNull`).
    if is_page_fault && !activation.reservation.contains(&address) && address >= 4096 {
        die("compiled code touched memory outside its seat", pc, address);
    }
    let code = match (site.code, activation.raised.take()) {
        (TrapCode::Status, Some(reason)) => reason,
        (TrapCode::Status, None) => die("a libcall failed without a reason", pc, address),
        (code, _) => code,
    };
    // Exact by the contract: what the register holds less what straight-line code has deferred.
    let counter = machine.counter().wrapping_sub(i64::from(site.pending));
    activation.record_trap(code, counter, pc, machine.fp(), machine.sp());
    let Some(handler) = activation.trap_handler else {
        die("compiled code trapped outside a coroutine", pc, address);
    };
    if !handler.stack_ptr_in_bounds(machine.sp()) {
        die("compiled code trapped on a foreign stack", pc, address);
    }
    // SAFETY: the stack pointer lies in the coroutine; nothing on its stack needs a destructor (see `execution`), and all registers
    // named are set.
    machine.redirect(unsafe { handler.setup_trap_handler(|| Exit::Trapped) });
    true
}

/// Hands a fault that is not ours to the handler that was installed before.
///
/// # Safety
/// Called from the handler with its arguments.
unsafe fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = SIGNALS.iter().position(|known| *known == signal).and_then(|at| PREVIOUS.get().map(|all| &all[at]));
    // SAFETY: calling the previous handler as the kernel would have, by its flags.
    unsafe {
        match previous {
            Some(action) if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN => {
                if action.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(action.sa_sigaction);
                    handler(signal, info, context);
                } else {
                    let handler: unsafe extern "C" fn(i32) = std::mem::transmute(action.sa_sigaction);
                    handler(signal);
                }
            }
            _ => {
                // Back to the default: the instruction faults again and the kernel ends the process as if we had never been here.
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Ends the node: a fault of our own making. Writes without allocating.
fn die(reason: &str, pc: usize, address: usize) -> ! {
    let mut text = [0u8; 256];
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        for byte in bytes {
            if let Some(place) = text.get_mut(len) {
                *place = *byte;
                len += 1;
            }
        }
    };
    put(b"cyclotron-wasm: ");
    put(reason.as_bytes());
    for (name, value) in [(" (pc 0x", pc), (", address 0x", address)] {
        put(name.as_bytes());
        for nibble in (0..16).rev() {
            put(&[b"0123456789abcdef"[(value >> (nibble * 4)) & 15]]);
        }
    }
    put(b"); this is a fault of the node, not of a canister\n");
    // SAFETY: writes an initialised buffer to standard error, then ends the process.
    unsafe {
        libc::write(2, text.as_ptr().cast(), len);
        libc::abort()
    }
}
