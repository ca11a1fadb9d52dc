//! Native stacks for executions, pooled.
//!
//! Enters: nothing. Leaves: [`PooledStack`], which returns its memory to the pool when dropped.
//! Never here: a canister's depth limit (that is `stack_left`, in Wasm terms; [`StackNeeded`] makes it come first).
//!
//! Invariant: `[limit, limit + GUARD_BYTES)` of every stack is inaccessible, the rest up to `base` is readable and writable and
//! belongs to one `PooledStack`.

use std::num::NonZeroUsize;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use corosensei::stack::{Stack, StackPointer};

use cyclotron_heap::Nearby;

use crate::abi::NATIVE_BYTES_PER_SLOT;

/// Largest stack limit in slots that an engine may be configured with: 2 Mi slots, 16 MiB if each were one word.
pub const STACK_SLOTS_MAX: usize = 2 << 20;
/// Largest native frame of one function that an ordinary stack has room for.
const FRAME_BYTES_USUAL: usize = 16 << 20;
/// Room for host functions and libcalls, which run on the same stack.
pub const HOST_STACK_BYTES: usize = 1 << 20;
/// Inaccessible bytes at the low end.
const GUARD_BYTES: usize = 64 << 10;

/// Usable bytes of a pooled stack: 2 Mi slots of 64 bytes + one largest frame + the host's room = 145 MiB. It is address space; memory is
/// what was touched. Code that needs more has a stack of its own.
const USABLE_BYTES: usize = STACK_SLOTS_MAX * NATIVE_BYTES_PER_SLOT as usize + FRAME_BYTES_USUAL + HOST_STACK_BYTES;

/// Idle stacks kept; one more is unmapped.
const IDLE_MAX: usize = 64;
/// After this many uses a stack's deep part goes back to the kernel.
const TRIM_EVERY: u32 = 256;
/// What stays resident at the base when trimmed.
const TRIM_KEEP_BYTES: usize = 64 << 10;

const _: () = assert!((GUARD_BYTES + USABLE_BYTES).is_multiple_of(4096) && USABLE_BYTES > TRIM_KEEP_BYTES);

static IDLE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// The stack that a thread used last.
static NEARBY: Nearby<Memory> = Nearby::new();
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Stacks that exist, in use or idle.
pub fn stacks_mapped() -> usize {
    MAPPED.load(Ordering::Relaxed)
}

/// What compiled code may use of a native stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackNeeded {
    /// Bytes of all frames together when the limit in slots is met.
    pub frames_bytes: usize,
    /// Bytes of the largest frame.
    pub largest_bytes: usize,
}

impl StackNeeded {
    /// Usable bytes of the stack for it: the pool's size wherever that is enough.
    fn usable_bytes(self) -> usize {
        let needed = self.frames_bytes + self.largest_bytes + HOST_STACK_BYTES;
        needed.next_multiple_of(4096).max(USABLE_BYTES)
    }
}

struct Memory {
    limit: NonZeroUsize,
    total_bytes: usize,
    uses: u32,
}

impl Memory {
    fn map(usable_bytes: usize) -> std::io::Result<Memory> {
        let total_bytes = GUARD_BYTES + usable_bytes;
        // SAFETY: a fresh private mapping at an address the kernel chooses disturbs nothing.
        let at = unsafe {
            libc::mmap(
                null_mut(),
                total_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let limit = NonZeroUsize::new(at as usize).ok_or_else(|| std::io::Error::other("stack mapped at address 0"))?;
        MAPPED.fetch_add(1, Ordering::Relaxed);
        let memory = Memory { limit, total_bytes, uses: 0 };
        // SAFETY: the range was mapped above and is ours. Without huge pages a shallow execution touches a few pages only; the advice may fail.
        unsafe {
            libc::madvise(at, total_bytes, libc::MADV_NOHUGEPAGE);
            if libc::mprotect(at, GUARD_BYTES, libc::PROT_NONE) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(memory)
    }

    fn trim(&self) {
        let start = self.limit.get() + GUARD_BYTES;
        let length = self.total_bytes - GUARD_BYTES - TRIM_KEEP_BYTES;
        // SAFETY: the range is inside this idle stack; its content is dead.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this size; nobody runs on it.
        unsafe { libc::munmap(self.limit.get() as *mut libc::c_void, self.total_bytes) };
        MAPPED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stack in use by one execution.
pub(crate) struct PooledStack(Option<Memory>);

impl PooledStack {
    /// Takes an idle stack, or maps one. Errors: the kernel's refusal to map.
    pub(crate) fn take(needed: StackNeeded) -> std::io::Result<PooledStack> {
        let usable_bytes = needed.usable_bytes();
        if usable_bytes > USABLE_BYTES {
            return Ok(PooledStack(Some(Memory::map(usable_bytes)?)));
        }
        let idle = NEARBY.take_if(|_| true).or_else(|| IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop());
        Ok(PooledStack(Some(match idle {
            Some(memory) => memory,
            None => Memory::map(USABLE_BYTES)?,
        })))
    }

    fn memory(&self) -> &Memory {
        match &self.0 {
            Some(memory) => memory,
            None => unreachable!("a stack's memory leaves it only in drop"),
        }
    }

    fn address(&self) -> usize {
        self.memory().limit.get()
    }

    /// Notes that the deep part was used: it goes back to the kernel when this stack does to the pool.
    pub(crate) fn trim_after_use(&mut self) {
        if let Some(memory) = &mut self.0 {
            memory.uses = TRIM_EVERY;
        }
    }

    /// The inaccessible range below the usable one.
    pub(crate) fn guard(&self) -> std::ops::Range<usize> {
        self.address()..self.address() + GUARD_BYTES
    }
}

impl Drop for PooledStack {
    fn drop(&mut self) {
        let Some(mut memory) = self.0.take() else { return };
        if memory.total_bytes > GUARD_BYTES + USABLE_BYTES {
            return;
        }
        memory.uses += 1;
        if memory.uses >= TRIM_EVERY {
            memory.uses = 0;
            memory.trim();
        }
        let Some(memory) = NEARBY.put(memory) else { return };
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(memory);
        }
    }
}

// SAFETY: the memory has a guard range at its low end and far more than MIN_STACK_SIZE usable bytes; both addresses are
// multiples of a page, so aligned.
unsafe impl Stack for PooledStack {
    fn base(&self) -> StackPointer {
        match NonZeroUsize::new(self.address() + self.memory().total_bytes) {
            Some(base) => base,
            None => unreachable!("a mapping does not end at address 0"),
        }
    }

    fn limit(&self) -> StackPointer {
        match NonZeroUsize::new(self.address()) {
            Some(limit) => limit,
            None => unreachable!("a mapping does not start at address 0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_room_for_what_its_code_needs_and_only_usual_ones_are_pooled() {
        for frames_bytes in [0, USABLE_BYTES, USABLE_BYTES * 10] {
            let needed = StackNeeded { frames_bytes, largest_bytes: 1 << 20 };
            let stack = PooledStack::take(needed).unwrap();
            let usable = stack.base().get() - stack.guard().end;
            assert!(usable >= frames_bytes + needed.largest_bytes + HOST_STACK_BYTES);
            // Both ends are there.
            for at in [stack.guard().end, stack.base().get() - 8] {
                // SAFETY: the address is inside the stack, which nobody runs on.
                unsafe { std::ptr::write_volatile(at as *mut u64, 1) };
            }
            drop(stack);
            let idle = IDLE.lock().unwrap();
            assert!(idle.iter().all(|memory| memory.total_bytes == GUARD_BYTES + USABLE_BYTES));
        }
    }
}
