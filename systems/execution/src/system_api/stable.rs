//! Stable memory: `stable64_*` and `stable_*`.

use super::cycles::Taken;
use super::{Answered, Entry, NOTHING, SystemApi};
use crate::machine::{engine_failure, replicated_failure};
use crate::reject::Failure;
use cyclotron_heap::HeapError;
use cyclotron_types::host_costs::STABLE_DIRTY_PAGE;
use cyclotron_types::limits::STABLE_BYTES_MAX;
use cyclotron_types::units::{Bytes, Instructions, WasmPages};
use cyclotron_wasm::runtime::Caller;

/// 4 GiB in pages: the most that 32-bit functions can address.
const PAGES_MAX_32: u64 = 1 << 16;
/// Bytes of a stable page as limits count it.
const PAGE_BYTES: u64 = 4_096;
/// -1 of `stable_grow` and of `stable64_grow`.
const GROW_FAILED_32: u64 = u32::MAX as u64;
const GROW_FAILED_64: u64 = u64::MAX;

fn trapped(reason: &str) -> Failure {
    Failure::Trapped { reason: reason.into(), backtrace: Vec::new() }
}

#[cold]
fn out_of_bounds() -> Failure {
    trapped("stable memory out of bounds")
}

/// What the memory's refusal means to the message. A query may fail for a reason of this machine alone.
#[cold]
fn refused(error: HeapError, entry: Entry) -> Failure {
    match error {
        HeapError::OutOfBounds { .. } => out_of_bounds(),
        error if entry.is_replicated() => replicated_failure(error),
        error => engine_failure(error),
    }
}

/// Modules that import a stable function always have an access.
#[cold]
fn no_stable() -> Failure {
    Failure::Engine("stable memory is not at hand".into())
}

/// `stable_*` called on a memory that it cannot address.
#[cold]
fn too_big_for_32_bit() -> Failure {
    trapped("32 bit stable memory api used on a memory larger than 4GB")
}

impl SystemApi {
    pub(super) fn stable_pages(&self) -> u64 {
        self.stable.as_ref().map_or(0, |stable| stable.size().0)
    }

    pub(super) fn stable_size_32(&self) -> Answered {
        match self.stable_pages() {
            pages if pages > PAGES_MAX_32 => Err(too_big_for_32_bit().into()),
            pages => Ok(pages),
        }
    }

    pub(super) fn stable_read_32(&mut self, caller: &mut Caller<'_>, dst: u64, offset: u64, size: u64) -> Answered {
        self.stable_size_32()?;
        self.stable_read(caller, dst, offset, size)
    }

    pub(super) fn stable_write_32(&mut self, caller: &mut Caller<'_>, offset: u64, src: u64, size: u64) -> Answered {
        self.stable_size_32()?;
        self.stable_write(caller, offset, src, size)
    }

    pub(super) fn stable_read(&mut self, caller: &mut Caller<'_>, dst: u64, offset: u64, size: u64) -> Answered {
        let (limit, entry) = (self.memory.stable_limit, self.identity.entry);
        let Self { stable: Some(stable), memory, .. } = self else { return Err(no_stable().into()) };
        if offset.checked_add(size).is_none_or(|end| end > stable.size().to_bytes().0) {
            return Err(out_of_bounds().into());
        }
        let into = caller.write(dst, size)?;
        if memory.stable_touched.touch(offset, size) > limit.0 / PAGE_BYTES {
            return Err(Failure::StableAccessLimit { limit }.into());
        }
        stable.read(offset, into).map_err(|error| refused(error, entry))?;
        NOTHING
    }

    #[inline]
    pub(super) fn stable_write(&mut self, caller: &mut Caller<'_>, offset: u64, src: u64, size: u64) -> Answered {
        let (limit, entry) = (self.memory.stable_limit, self.identity.entry);
        let Self { stable: Some(stable), memory, .. } = self else { return Err(no_stable().into()) };
        let fresh = stable.pages_to_dirty(offset, size).map_err(|error| refused(error, entry))?;
        // Installations keep their pages over several parts.
        let dirtied = stable.dirtied_pages().saturating_add(fresh);
        if memory.stable_touched.touch(offset, size).max(dirtied) > limit.0 / PAGE_BYTES {
            return Err(Failure::StableAccessLimit { limit }.into());
        }
        if fresh > 0 {
            caller.charge(Instructions(STABLE_DIRTY_PAGE.0.saturating_mul(fresh)))?;
        }
        stable.write(offset, caller.read(src, size)?).map_err(|error| refused(error, entry))?;
        NOTHING
    }

    pub(super) fn stable_grow_32(&mut self, delta: u64) -> Answered {
        let old = self.stable_size_32()?;
        if old + delta > PAGES_MAX_32 {
            return Ok(GROW_FAILED_32);
        }
        Ok(self.grow_stable(delta)?.unwrap_or(GROW_FAILED_32))
    }

    pub(super) fn stable_grow(&mut self, delta: u64) -> Answered {
        Ok(self.grow_stable(delta)?.unwrap_or(GROW_FAILED_64))
    }

    /// Grows by `delta` pages and returns the size before; `None` when there is no memory.
    fn grow_stable(&mut self, delta: u64) -> Answered<Option<u64>> {
        let old = self.stable_pages();
        let Some(new) = old.checked_add(delta).filter(|pages| WasmPages(*pages).to_bytes() <= STABLE_BYTES_MAX) else {
            return Ok(None);
        };
        if delta > 0 && self.take_memory(Bytes(WasmPages(new - old).to_bytes().0))? == Taken::OutOfMemory {
            return Ok(None);
        }
        let entry = self.identity.entry;
        let stable = self.stable.as_mut().ok_or_else(no_stable)?;
        stable.grow(WasmPages(delta)).map_err(|error| refused(error, entry))?;
        Ok(Some(old))
    }
}
