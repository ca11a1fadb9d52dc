//! The border between an execution and what it runs for.
//!
//! Enters: calls of imported functions and questions of the engine. Leaves: results, and access to the heap through [`Caller`].
//! Never here: what a host function means.

use std::marker::PhantomData;

use cyclotron_heap::layout::HEAP_OFFSET;
use cyclotron_types::units::{Instructions, WasmPages};

use super::activation::Activation;
use super::shape::HostFn;
use crate::abi::{TrapCode, VmCtx};

/// What an execution runs for: the System API of one message, a test's imports. Owned by the execution and given back at its end.
///
/// Its methods run on the execution's own stack (at least [`super::stack::HOST_STACK_BYTES`] deep) and must not unwind.
pub trait Host: Send + 'static {
    /// Performs host function `function`. `args` holds one word a parameter (two for a vector), 32-bit values zero-extended; the result's
    /// bits are returned, or 0 when there is none.
    ///
    /// Errors: the execution traps; nothing that it did to heap, globals and tables remains. The host keeps its own reason.
    fn call(&mut self, caller: &mut Caller<'_>, function: HostFn, args: &[u64]) -> Result<u64, HostTrap>;

    /// Whether the heap may grow from `old` to `new` (limits of the module and the engine have been checked). `memory.grow` answers
    /// -1 on `Ok(false)` and traps on an error.
    fn memory_grow(&mut self, old: WasmPages, new: WasmPages) -> Result<bool, HostTrap> {
        let _ = (old, new);
        Ok(true)
    }

    /// The slice's instructions are used up, the message's are not. `used` counts from the start of the message.
    fn out_of_instructions(&mut self, used: Instructions) -> SliceVerdict {
        let _ = used;
        SliceVerdict::Suspend
    }
}

/// What to do at the end of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceVerdict {
    /// Leave; the next `resume` brings the next slice.
    Suspend,
    /// Go on at once with another slice of this size.
    Continue(Instructions),
    /// Trap with [`TrapCode::InstructionLimit`].
    Trap,
}

/// A failed host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTrap {
    /// The host's own reason, which it keeps: [`TrapCode::Host`].
    Failed,
    /// A pointer or length of the canister reaches beyond its heap: [`TrapCode::HeapOutOfBounds`].
    HeapOutOfBounds,
    /// The charge exceeded the message's limit: [`TrapCode::InstructionLimit`].
    InstructionLimit,
}

impl HostTrap {
    pub(crate) const fn code(self) -> TrapCode {
        match self {
            HostTrap::Failed => TrapCode::Host,
            HostTrap::HeapOutOfBounds => TrapCode::HeapOutOfBounds,
            HostTrap::InstructionLimit => TrapCode::InstructionLimit,
        }
    }
}

/// The calling instance as a host function sees it: its heap and its counter.
pub struct Caller<'a> {
    vmctx: *mut VmCtx,
    activation: *mut Activation,
    running: PhantomData<&'a mut Activation>,
}

impl Caller<'_> {
    /// # Safety
    /// `vmctx` is the context of `activation`, which is running, has stored its counter, and is stopped in a libcall for `'a`.
    #[inline]
    pub(super) unsafe fn new(vmctx: *mut VmCtx, activation: *mut Activation) -> Self {
        Caller { vmctx, activation, running: PhantomData }
    }

    #[inline]
    fn activation(&self) -> &Activation {
        // SAFETY: `new`'s promise; `&self` allows no mutation meanwhile.
        unsafe { &*self.activation }
    }

    #[inline]
    fn counter(&self) -> i64 {
        // SAFETY: `new`'s promise.
        unsafe { (*self.vmctx).instructions }
    }

    /// Instructions used since the start of the message, across slices.
    #[inline]
    pub fn instructions_used(&self) -> Instructions {
        Instructions(self.activation().used(self.counter()))
    }

    /// Charges the message. The slice may end after this call, never inside.
    ///
    /// Errors: [`HostTrap::InstructionLimit`] once more than the message's limit is used; the charge stays.
    #[inline]
    pub fn charge(&mut self, charge: Instructions) -> Result<(), HostTrap> {
        let charge = i64::try_from(charge.0).unwrap_or(i64::MAX);
        let left = self.counter().saturating_sub(charge);
        // SAFETY: `new`'s promise.
        unsafe { (*self.vmctx).instructions = left };
        if left < 0 && self.activation().is_over_limit(left) {
            return Err(HostTrap::InstructionLimit);
        }
        Ok(())
    }

    /// Size of the heap in bytes.
    #[inline]
    pub fn heap_bytes(&self) -> u64 {
        // SAFETY: `new`'s promise.
        unsafe { (*self.vmctx).heap_bytes }
    }

    #[inline]
    fn check(&self, address: u64, len: u64) -> Result<(), HostTrap> {
        match address.checked_add(len) {
            Some(end) if end <= self.heap_bytes() => Ok(()),
            _ => Err(HostTrap::HeapOutOfBounds),
        }
    }

    #[inline]
    fn heap(&self, address: u64) -> *mut u8 {
        self.vmctx.cast::<u8>().wrapping_add(HEAP_OFFSET + address as usize)
    }

    /// The heap's bytes `[address, address + len)`. Panics: when a page is missing and cannot be had.
    #[inline]
    pub fn read(&self, address: u64, len: u64) -> Result<&[u8], HostTrap> {
        self.check(address, len)?;
        self.activation().show_range(address, len);
        // SAFETY: `[0, heap_bytes)` is mapped, the range was checked and made readable, and the running instance is stopped in this call.
        Ok(unsafe { std::slice::from_raw_parts(self.heap(address), len as usize) })
    }

    /// The heap's bytes `[address, address + len)` for writing; their pages count as written.
    #[inline]
    pub fn write(&mut self, address: u64, len: u64) -> Result<&mut [u8], HostTrap> {
        self.check(address, len)?;
        // SAFETY: `new`'s promise; nothing else refers to the activation while `&mut self` lives.
        unsafe { (*self.activation).mark_range(address, len) };
        // SAFETY: as in `read`; the pages were saved and are writable, and `&mut self` makes this the only view.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.heap(address), len as usize) })
    }

    /// Copies `bytes` to the heap at `address`.
    #[inline]
    pub fn copy_in(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostTrap> {
        self.write(address, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }
}
