//! What can fail here. Enters: `errno` and refused requests. Leaves: [`HeapError`]. Never here: a panic on a kernel's refusal.

use std::fmt;

use cyclotron_types::units::WasmPages;

/// Why an operation on heaps, seats or stable memories did not happen. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeapError {
    /// The kernel refused. `operation` names the system call and its purpose.
    Os {
        /// System call and purpose.
        operation: &'static str,
        /// The kernel's error number.
        errno: i32,
    },
    /// An access reaches beyond the memory.
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Number of bytes.
        length: u64,
        /// Size of the memory in bytes.
        size: u64,
    },
    /// A memory cannot become this large.
    BeyondMaximum {
        /// Requested size; saturated.
        requested: WasmPages,
        /// Largest allowed size.
        maximum: WasmPages,
    },
    /// Every slot of the arena's file is taken.
    SlotsExhausted,
    /// A message is in progress on this memory.
    Busy,
    /// The memory has been published again since this version of it.
    Outdated,
    /// One message changed more pages than an undo log can hold.
    UndoLogFull,
    /// A page that a checkpoint keeps is damaged or cannot be read.
    PageLost,
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Os { operation, errno } => {
                write!(f, "{operation}: {}", std::io::Error::from_raw_os_error(errno))?;
                if errno == libc::ENOMEM {
                    write!(f, " (memory, vm.max_map_count, RLIMIT_AS or vm.overcommit_memory = 2)")?;
                }
                Ok(())
            }
            Self::OutOfBounds { address, length, size } => {
                write!(f, "{length} bytes at {address} reach beyond the {size} bytes of the memory")
            }
            Self::BeyondMaximum { requested, maximum } => {
                write!(f, "{requested} Wasm pages requested, at most {maximum} allowed")
            }
            Self::SlotsExhausted => f.write_str("every slot of the arena is taken"),
            Self::Busy => f.write_str("a message is in progress on this memory"),
            Self::Outdated => f.write_str("the memory has a newer version"),
            Self::PageLost => f.write_str("a page of the last checkpoint cannot be read"),
            Self::UndoLogFull => f.write_str("the message changed more pages than an undo log holds"),
        }
    }
}

impl std::error::Error for HeapError {}
