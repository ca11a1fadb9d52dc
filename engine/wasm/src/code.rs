//! Executable memory: one reserved region of address space, modules copied in, never writable and executable at once.
//!
//! Enters: a [`CompiledModule`]. Leaves: [`Code`], its bytes mapped read-execute until dropped; [`lookup`], which maps a
//! program counter to the tables of its module without a lock, so that a signal handler may call it.
//! Never here: what a trap means (see `runtime`).
//!
//! Invariants. The region is divided into granules; a granule belongs to at most one live [`Code`]. `OWNERS[g]` is null or
//! points to the [`CodeTables`] of the live owner of granule `g`; it is set after the pages became read-execute and cleared before
//! they are unmapped. A thread runs inside a module only while it keeps that module alive, so a pointer read for
//! its own program counter stays valid while the thread looks at it.

use std::fmt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::compiled::{CallSite, CheckSite, CompiledFunction, CompiledModule, TrapSite};

/// Smallest unit of code memory: four 4 KiB pages, so that the owner table stays at 32 MiB of untouched address space.
const GRANULE: usize = 16 << 10;
/// Address space reserved for code: room for a million modules of 64 KiB.
const REGION_BYTES: usize = 64 << 30;
const GRANULES: usize = REGION_BYTES / GRANULE;
/// `ud2` and its like are two bytes on x86-64; `int3` fills what lies after the last function so that a stray jump stops.
const FILL: u8 = 0xcc;

/// Why code could not be made executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeError {
    /// The operating system refused to map or protect memory; the number is `errno`.
    System(i32),
    /// The region has no run of free granules for this many bytes.
    Full(usize),
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodeError::System(errno) => write!(f, "cannot map code memory: errno {errno}"),
            CodeError::Full(bytes) => write!(f, "no room for {bytes} bytes of code"),
        }
    }
}

impl std::error::Error for CodeError {}

/// The tables that explain a module's code, at an address that does not move while the code is mapped.
#[derive(Debug)]
pub struct CodeTables {
    /// No other code of this process has it, not even at the same address later.
    serial: u64,
    /// Address of the first byte.
    start: usize,
    /// Bytes of code (the mapping is rounded up to whole granules).
    len: usize,
    /// Defined functions in function-index order; also sorted by offset.
    functions: Vec<CompiledFunction>,
    /// Functions' offsets sorted, with their position in `functions`.
    by_offset: Vec<(u32, u32)>,
    traps: Vec<TrapSite>,
    checks: Vec<CheckSite>,
    check_thunk: u32,
    calls: Vec<CallSite>,
    /// Number of imported functions: what a position in `functions` adds to become a function index.
    imported: u32,
}

impl CodeTables {
    /// A number that no other code of this process has.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The offset of `pc` in the module's code, if it lies inside.
    pub fn offset(&self, pc: usize) -> Option<u32> {
        let offset = pc.checked_sub(self.start)?;
        (offset < self.len).then_some(offset as u32)
    }

    /// The trap site at exactly `offset`.
    pub fn trap_site(&self, offset: u32) -> Option<&TrapSite> {
        let at = self.traps.binary_search_by_key(&offset, |site| site.offset).ok()?;
        self.traps.get(at)
    }

    /// Of the check that leads to `offset`: the addresses of the thunk to call and of the instruction to go on at.
    pub fn check_site(&self, offset: u32) -> Option<(usize, usize)> {
        let at = self.checks.binary_search_by_key(&offset, |site| site.offset).ok()?;
        let address = |offset: u32| self.start + offset as usize;
        Some((address(self.check_thunk), address(self.checks.get(at)?.resume)))
    }

    /// The call whose return address is at `return_offset`.
    pub fn call_site(&self, return_offset: u32) -> Option<&CallSite> {
        let at = self.calls.binary_search_by_key(&return_offset, |site| site.return_offset).ok()?;
        self.calls.get(at)
    }

    /// The index (imports counted) of the function whose code holds `offset`.
    pub fn function_at(&self, offset: u32) -> Option<u32> {
        let after = self.by_offset.partition_point(|(start, _)| *start <= offset);
        let (start, position) = *self.by_offset.get(after.checked_sub(1)?)?;
        let function = self.functions.get(position as usize)?;
        (offset - start < function.len).then_some(position + self.imported)
    }

    /// Address of the first byte of code.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes of code.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the module has no code at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the tables themselves.
    pub fn table_bytes(&self) -> usize {
        size_of_val(&*self.functions)
            + size_of_val(&*self.by_offset)
            + size_of_val(&*self.traps)
            + size_of_val(&*self.checks)
            + size_of_val(&*self.calls)
    }

    /// Code ranges of the defined functions, in function-index order, for profilers.
    pub fn functions(&self) -> &[CompiledFunction] {
        &self.functions
    }
}

/// A module's code, mapped read-execute; unmapped when dropped.
#[derive(Debug)]
pub struct Code {
    tables: Box<CodeTables>,
    first: usize,
    granules: usize,
    /// Offsets of import wrappers.
    import_wrappers: Vec<u32>,
    /// Offsets of entry trampolines by type.
    entry_trampolines: Vec<u32>,
}

struct Region {
    base: usize,
    owners: usize,
    free: Mutex<FreeList>,
}

/// Free granules: runs that were given back, and the never-used tail.
struct FreeList {
    runs: Vec<(usize, usize)>,
    tail: usize,
}

static REGION: OnceLock<Result<Region, CodeError>> = OnceLock::new();
/// Bounds for `lookup`, readable in a signal handler; 0 until the region exists.
static REGION_BASE: AtomicUsize = AtomicUsize::new(0);
static OWNERS: AtomicPtr<AtomicPtr<CodeTables>> = AtomicPtr::new(null_mut());
/// What the next code is numbered.
static SERIAL: AtomicU64 = AtomicU64::new(0);
/// Granules in use, for leak tests and metrics.
static GRANULES_USED: AtomicUsize = AtomicUsize::new(0);

/// Bytes of code memory in use by all modules of this process.
pub fn code_bytes_mapped() -> usize {
    GRANULES_USED.load(Ordering::Relaxed) * GRANULE
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn reserve(bytes: usize, protection: i32) -> Result<usize, CodeError> {
    // SAFETY: a fresh private anonymous mapping at an address the kernel chooses disturbs nothing.
    let at = unsafe {
        libc::mmap(null_mut(), bytes, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0)
    };
    if at == libc::MAP_FAILED { Err(CodeError::System(errno())) } else { Ok(at as usize) }
}

fn region() -> Result<&'static Region, CodeError> {
    let region = REGION.get_or_init(|| {
        let base = reserve(REGION_BYTES, libc::PROT_NONE)?;
        let owners = reserve(GRANULES * size_of::<AtomicPtr<CodeTables>>(), libc::PROT_READ | libc::PROT_WRITE)?;
        OWNERS.store(owners as *mut AtomicPtr<CodeTables>, Ordering::Release);
        REGION_BASE.store(base, Ordering::Release);
        Ok(Region { base, owners, free: Mutex::new(FreeList { runs: Vec::new(), tail: 0 }) })
    });
    region.as_ref().map_err(Clone::clone)
}

impl Region {
    fn owner(&self, granule: usize) -> &'static AtomicPtr<CodeTables> {
        assert!(granule < GRANULES, "granule beyond the code region");
        // SAFETY: the owner table has GRANULES zeroed entries (a null AtomicPtr), is never unmapped, and `granule` is in range.
        unsafe { &*(self.owners as *const AtomicPtr<CodeTables>).add(granule) }
    }

    fn take(&self, granules: usize) -> Option<usize> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = free.runs.iter().position(|(_, len)| *len >= granules) {
            let (start, len) = free.runs[at];
            if len == granules {
                free.runs.swap_remove(at);
            } else {
                free.runs[at] = (start + granules, len - granules);
            }
            return Some(start);
        }
        let start = free.tail;
        let end = start.checked_add(granules).filter(|end| *end <= GRANULES)?;
        free.tail = end;
        Some(start)
    }

    fn give(&self, start: usize, granules: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut start, mut end) = (start, start + granules);
        // Merge with neighbours so that room for large modules comes back.
        let mut at = 0;
        while at < free.runs.len() {
            let (other, len) = free.runs[at];
            if other + len == start {
                start = other;
                free.runs.swap_remove(at);
            } else if end == other {
                end += len;
                free.runs.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if end == free.tail {
            free.tail = start;
        } else {
            free.runs.push((start, end - start));
        }
    }
}

impl Code {
    /// Copies `module`'s machine code into executable memory and makes its tables known to [`lookup`].
    ///
    /// `imported` is the number of imported functions. Cost: two system calls and a copy.
    pub fn publish(module: CompiledModule, imported: u32) -> Result<Code, CodeError> {
        let region = region()?;
        let bytes = module.code.len();
        let granules = bytes.max(1).div_ceil(GRANULE);
        let first = region.take(granules).ok_or(CodeError::Full(bytes))?;
        let start = region.base + first * GRANULE;
        if let Err(error) = write_protected(start, granules * GRANULE, &module.code) {
            region.give(first, granules);
            return Err(error);
        }
        let mut by_offset: Vec<(u32, u32)> =
            module.functions.iter().enumerate().map(|(at, function)| (function.offset, at as u32)).collect();
        by_offset.sort_unstable();
        let tables = Box::new(CodeTables {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            start,
            len: bytes,
            functions: module.functions,
            by_offset,
            traps: module.traps,
            checks: module.checks,
            check_thunk: module.check_thunk,
            calls: module.calls,
            imported,
        });
        let address = std::ptr::from_ref::<CodeTables>(&tables).cast_mut();
        for granule in first..first + granules {
            region.owner(granule).store(address, Ordering::Release);
        }
        GRANULES_USED.fetch_add(granules, Ordering::Relaxed);
        Ok(Code {
            tables,
            first,
            granules,
            import_wrappers: module.import_wrappers,
            entry_trampolines: module.entry_trampolines,
        })
    }

    /// Address of the code of function `index` (imports first, then defined functions).
    pub fn function(&self, index: u32) -> Option<*const u8> {
        let offset = match index.checked_sub(self.tables.imported) {
            None => *self.import_wrappers.get(index as usize)?,
            Some(defined) => self.tables.functions.get(defined as usize)?.offset,
        };
        Some((self.tables.start + offset as usize) as *const u8)
    }

    /// Address of the entry trampoline for functions of type `type_index`.
    pub fn entry_trampoline(&self, type_index: u32) -> Option<*const u8> {
        let offset = *self.entry_trampolines.get(type_index as usize)?;
        Some((self.tables.start + offset as usize) as *const u8)
    }

    /// Offsets of the wrappers of imported functions, and of what enters and helps all functions, in the order of the code.
    pub(crate) fn beside_functions(&self) -> (&[u32], Option<u32>) {
        (&self.import_wrappers, self.entry_trampolines.iter().min().copied())
    }

    /// The machine code.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `write_protected` has put this many bytes there, which stay mapped readable and unchanged until `self` is dropped.
        unsafe { std::slice::from_raw_parts(self.tables.start as *const u8, self.tables.len) }
    }

    /// A copy of what was published; `type_ids` are with the module.
    pub fn to_compiled(&self, type_ids: &[u32]) -> CompiledModule {
        let tables = &self.tables;
        CompiledModule {
            code: self.bytes().to_vec(),
            functions: tables.functions.clone(),
            import_wrappers: self.import_wrappers.clone(),
            entry_trampolines: self.entry_trampolines.clone(),
            traps: tables.traps.clone(),
            checks: tables.checks.clone(),
            check_thunk: tables.check_thunk,
            calls: tables.calls.clone(),
            type_ids: type_ids.to_vec(),
        }
    }

    /// The tables that explain this code.
    pub fn tables(&self) -> &CodeTables {
        &self.tables
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        let Ok(region) = region() else { return };
        for granule in self.first..self.first + self.granules {
            region.owner(granule).store(null_mut(), Ordering::Release);
        }
        let start = region.base + self.first * GRANULE;
        // SAFETY: this range belongs to `self` alone, nobody runs in it (a runner keeps the module alive); a fresh
        // inaccessible mapping replaces it and keeps the reservation.
        let at = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                self.granules * GRANULE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        assert!(at != libc::MAP_FAILED, "cannot release code memory: errno {}", errno());
        GRANULES_USED.fetch_sub(self.granules, Ordering::Relaxed);
        region.give(self.first, self.granules);
    }
}

/// Makes `[start, start + len)` hold `code` and then filler, first writable, then read-execute.
fn write_protected(start: usize, len: usize, code: &[u8]) -> Result<(), CodeError> {
    assert!(code.len() <= len);
    // SAFETY: the caller owns the range, which lies inside the region; it is not executable while it is written, and not
    // writable once it is executable.
    unsafe {
        if libc::mprotect(start as *mut libc::c_void, len, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return Err(CodeError::System(errno()));
        }
        std::ptr::copy_nonoverlapping(code.as_ptr(), start as *mut u8, code.len());
        // Only to the end of the last touched page: the rest of the granule stays untouched memory.
        let end = code.len().next_multiple_of(4096).min(len);
        std::ptr::write_bytes((start + code.len()) as *mut u8, FILL, end - code.len());
        if libc::mprotect(start as *mut libc::c_void, len, libc::PROT_READ | libc::PROT_EXEC) != 0 {
            return Err(CodeError::System(errno()));
        }
    }
    Ok(())
}

/// The tables of the module whose code contains `pc`; lock-free, for signal handlers.
///
/// The reference is valid while that module lives: ask only about code that the calling thread is running or has on its stack.
pub fn lookup(pc: usize) -> Option<&'static CodeTables> {
    let base = REGION_BASE.load(Ordering::Acquire);
    let offset = pc.checked_sub(base).filter(|offset| base != 0 && *offset < REGION_BYTES)?;
    let owners = OWNERS.load(Ordering::Acquire);
    // SAFETY: a non-zero base was stored after the owner table, which has one entry for every granule of the region.
    let tables = unsafe { (*owners.add(offset / GRANULE)).load(Ordering::Acquire) };
    // SAFETY: owners are set to the tables of a live module; the caller keeps that module alive.
    let tables = unsafe { tables.as_ref() }?;
    tables.offset(pc).map(|_| tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(code: Vec<u8>) -> CompiledModule {
        let len = code.len() as u32;
        CompiledModule {
            code,
            functions: vec![CompiledFunction { offset: 0, len, frame_bytes: 0, stack_slots: 1 }],
            traps: vec![],
            checks: vec![],
            check_thunk: 0,
            ..CompiledModule::default()
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn published_code_runs_and_is_found_until_dropped() {
        // mov eax, 42; ret
        let code = Code::publish(module(vec![0xb8, 42, 0, 0, 0, 0xc3]), 0).unwrap();
        let address = code.function(0).unwrap();
        // SAFETY: the bytes above are a complete function of this type.
        let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(address) };
        assert_eq!(function(), 42);
        let pc = address as usize;
        assert_eq!(lookup(pc).and_then(|tables| tables.function_at(0)), Some(0));
        assert!(lookup(pc + 6).is_none(), "beyond the code");
        drop(code);
        assert!(lookup(pc).is_none());
    }

    #[test]
    fn code_is_never_writable_and_executable() {
        let code = Code::publish(module(vec![0xc3; 100_000]), 0).unwrap();
        let start = code.function(0).unwrap() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps
            .lines()
            .find(|line| {
                let (from, rest) = line.split_once('-').unwrap();
                let to = rest.split(' ').next().unwrap();
                let hex = |text| usize::from_str_radix(text, 16).unwrap();
                (hex(from)..hex(to)).contains(&start)
            })
            .unwrap();
        assert!(line.contains(" r-xp "), "{line}");
        assert!(!maps.lines().any(|line| line.contains(" rwx")), "{maps}");
    }
}
