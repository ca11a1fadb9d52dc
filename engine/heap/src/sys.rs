//! The system calls of this crate, and the owners of what they give.
//!
//! Enters: sizes, offsets, protections. Leaves: [`Region`] (address space) and [`File`](std::fs::File) ranges, or [`HeapError`].
//! Invariant owned here: a `Region` owns its whole address range, so that mapping inside it disturbs nobody else.
//! Never here: a decision about what to map.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use crate::error::HeapError;
use crate::layout::PAGE;

/// What a mapping allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    None,
    Read,
    ReadWrite,
}

impl Access {
    fn flags(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// Whether writes reach the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Sharing {
    Shared,
    Private,
}

pub(crate) fn os_error(operation: &'static str) -> HeapError {
    HeapError::Os { operation, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
}

fn io_error(operation: &'static str, error: &std::io::Error) -> HeapError {
    HeapError::Os { operation, errno: error.raw_os_error().unwrap_or(0) }
}

/// An owned range of address space; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: a Region is an address range of the process, tied to no thread.
unsafe impl Send for Region {}
// SAFETY: all methods that change the mapping take `&mut self`.
unsafe impl Sync for Region {}

impl Region {
    /// Takes `length` bytes of address space, anonymous, not yet backed by memory.
    pub(crate) fn reserve(length: usize, access: Access, operation: &'static str) -> Result<Self, HeapError> {
        assert!(length > 0 && length.is_multiple_of(PAGE));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses the address; no existing mapping is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, access.flags(), flags, -1, 0) };
        Self::adopt(at, length, operation)
    }

    /// Maps `length` bytes of `file` at an address chosen by the kernel.
    pub(crate) fn map_file(
        file: &File,
        offset: u64,
        length: usize,
        access: Access,
        sharing: Sharing,
        operation: &'static str,
    ) -> Result<Self, HeapError> {
        assert!(length > 0 && length.is_multiple_of(PAGE) && offset.is_multiple_of(PAGE as u64));
        let flags = sharing_flags(sharing) | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses the address; no existing mapping is touched.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), length, access.flags(), flags, file.as_raw_fd(), offset as libc::off_t)
        };
        Self::adopt(at, length, operation)
    }

    fn adopt(at: *mut libc::c_void, length: usize, operation: &'static str) -> Result<Self, HeapError> {
        match NonNull::new(at.cast::<u8>()) {
            Some(base) if at != libc::MAP_FAILED => Ok(Self { base, length }),
            _ => Err(os_error(operation)),
        }
    }

    /// Start of the range.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The same, known not to be null.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of the range.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    fn at(&self, start: usize, length: usize) -> *mut libc::c_void {
        assert!(start.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        assert!(start.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: start <= self.length, asserted above, so the address stays inside the owned range.
        unsafe { self.base.as_ptr().add(start).cast() }
    }

    /// Replaces `[start, start + length)` by a range of `file`.
    pub(crate) fn place_file(
        &mut self,
        start: usize,
        length: usize,
        file: &File,
        offset: u64,
        access: Access,
        sharing: Sharing,
    ) -> Result<(), HeapError> {
        if length == 0 {
            return Ok(());
        }
        let flags = sharing_flags(sharing) | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the target lies inside the owned range (asserted in `at`), so MAP_FIXED replaces only our own mapping.
        let at = unsafe {
            libc::mmap(self.at(start, length), length, access.flags(), flags, file.as_raw_fd(), offset as libc::off_t)
        };
        if at == libc::MAP_FAILED { Err(os_error("mmap of a memory's file range")) } else { Ok(()) }
    }

    /// Replaces `[start, start + length)` by zeros that no file backs.
    pub(crate) fn place_anonymous(&mut self, start: usize, length: usize, access: Access) -> Result<(), HeapError> {
        if length == 0 {
            return Ok(());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the target lies inside the owned range (asserted in `at`), so MAP_FIXED replaces only our own mapping.
        let at = unsafe { libc::mmap(self.at(start, length), length, access.flags(), flags, -1, 0) };
        if at == libc::MAP_FAILED { Err(os_error("mmap of anonymous pages")) } else { Ok(()) }
    }

    /// Changes what `[start, start + length)` allows. Async-signal-safe.
    pub(crate) fn protect(&mut self, start: usize, length: usize, access: Access) -> Result<(), HeapError> {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the range is owned (asserted in `at`); who holds references into it is the caller's to know.
        let status = unsafe { libc::mprotect(self.at(start, length), length, access.flags()) };
        if status == 0 { Ok(()) } else { Err(os_error("mprotect of a seat")) }
    }

    /// Drops private copies in `[start, start + length)`: anonymous pages read zero again, private file pages read the file.
    pub(crate) fn discard(&mut self, start: usize, length: usize) -> Result<(), HeapError> {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the range is owned (asserted in `at`); MADV_DONTNEED changes contents, never mappings.
        let status = unsafe { libc::madvise(self.at(start, length), length, libc::MADV_DONTNEED) };
        if status == 0 { Ok(()) } else { Err(os_error("madvise(MADV_DONTNEED)")) }
    }

    /// Asks for 4 KiB pages only. A refusal (a kernel without huge pages) is what we want already.
    pub(crate) fn avoid_huge_pages(&mut self) {
        // SAFETY: the whole range is owned; the advice changes no contents.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.length, libc::MADV_NOHUGEPAGE) };
    }

    /// Asks for 2 MiB pages where possible: one fault instead of 512. Without them all works, slower.
    pub(crate) fn prefer_huge_pages(&mut self) {
        // SAFETY: the whole range is owned; the advice changes no contents.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) };
    }

    /// Makes a region that is one mapping longer, moving it if need be: zeros follow an anonymous one, the bytes that follow in the file the
    /// mapping of a file. Addresses into it are invalid afterwards.
    pub(crate) fn extend(&mut self, length: usize, operation: &'static str) -> Result<(), HeapError> {
        assert!(length >= self.length && length.is_multiple_of(PAGE));
        // SAFETY: the old range is owned and no reference into it outlives `&mut self`; the kernel chooses where it moves.
        let at = unsafe { libc::mremap(self.base.as_ptr().cast(), self.length, length, libc::MREMAP_MAYMOVE) };
        match NonNull::new(at.cast::<u8>()) {
            Some(base) if at != libc::MAP_FAILED => {
                self.base = base;
                self.length = length;
                Ok(())
            }
            _ => Err(os_error(operation)),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is owned and its owner is going away.
        let status = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert_eq!(status, 0);
    }
}

/// Changes what whole pages allow. Async-signal-safe.
///
/// # Safety
/// The pages are the caller's; no reference into them needs what is taken away.
pub(crate) unsafe fn allow(at: *mut u8, length: usize, access: Access) -> Result<(), HeapError> {
    if length == 0 {
        return Ok(());
    }
    // SAFETY: changes what the pages allow, not what they hold; the rest is the caller's promise.
    let status = unsafe { libc::mprotect(at.cast(), length, access.flags()) };
    if status == 0 { Ok(()) } else { Err(os_error("mprotect of a seat's pages")) }
}

/// Lets whole pages be written to; false when the kernel refuses.
pub(crate) fn make_writable(at: *mut u8, length: usize) -> bool {
    // SAFETY: changes what the pages allow, not what they hold; the caller knows that they are mapped and whose they are.
    unsafe { libc::mprotect(at.cast(), length, libc::PROT_READ | libc::PROT_WRITE) == 0 }
}

/// Does what a store to the page at `at` would do, but for the store; false when the page does not allow stores at this moment, and always on kernels
/// before 5.14.
pub(crate) fn write_fault(at: *mut u8) -> bool {
    // SAFETY: changes no contents; the caller knows that the page is mapped and whose it is.
    unsafe { libc::madvise(at.cast(), PAGE, libc::MADV_POPULATE_WRITE) == 0 }
}

fn sharing_flags(sharing: Sharing) -> i32 {
    match sharing {
        Sharing::Shared => libc::MAP_SHARED,
        Sharing::Private => libc::MAP_PRIVATE,
    }
}

/// Makes an unnamed file in memory of `1 << shift` bytes, all holes.
pub(crate) fn sparse_file(name: &'static std::ffi::CStr, shift: u32) -> Result<File, HeapError> {
    // SAFETY: `name` is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(os_error("memfd_create"));
    }
    // SAFETY: `fd` was just created and nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(1 << shift).map_err(|e| io_error("ftruncate of an arena", &e))?;
    Ok(file)
}

/// Gives the memory of `[offset, offset + length)` back; it reads as zeros afterwards.
pub(crate) fn punch_hole(file: &File, offset: u64, length: u64) -> Result<(), HeapError> {
    if length == 0 {
        return Ok(());
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    loop {
        // SAFETY: a system call on an open file; mappings of the range read zeros afterwards, they stay valid.
        let status = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as libc::off_t, length as libc::off_t) };
        if status == 0 {
            return Ok(());
        }
        let error = os_error("fallocate(FALLOC_FL_PUNCH_HOLE)");
        if !matches!(error, HeapError::Os { errno: libc::EINTR, .. }) {
            return Err(error);
        }
    }
}

/// The first allocated range at or after `from` and before `end`, page-aligned; `None` when only holes are left.
pub(crate) fn next_data(file: &File, from: u64, end: u64) -> Result<Option<(u64, u64)>, HeapError> {
    if from >= end {
        return Ok(None);
    }
    // SAFETY: a system call on an open file; its position is used by nobody (reads and writes pass offsets).
    let start = unsafe { libc::lseek(file.as_raw_fd(), from as libc::off_t, libc::SEEK_DATA) };
    if start < 0 {
        let error = os_error("lseek(SEEK_DATA)");
        return if matches!(error, HeapError::Os { errno: libc::ENXIO, .. }) { Ok(None) } else { Err(error) };
    }
    let start = start as u64;
    if start >= end {
        return Ok(None);
    }
    // SAFETY: as above.
    let stop = unsafe { libc::lseek(file.as_raw_fd(), start as libc::off_t, libc::SEEK_HOLE) };
    if stop < 0 { Err(os_error("lseek(SEEK_HOLE)")) } else { Ok(Some((start, (stop as u64).min(end)))) }
}

pub(crate) fn read_at(file: &File, offset: u64, into: &mut [u8]) -> Result<(), HeapError> {
    file.read_exact_at(into, offset).map_err(|e| io_error("pread of an arena", &e))
}

pub(crate) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> Result<(), HeapError> {
    file.write_all_at(bytes, offset).map_err(|e| io_error("pwrite to an arena", &e))
}
