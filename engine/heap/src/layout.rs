//! The layout of a seat, shared with JIT code. Declared once, here.
//!
//! Enters: nothing. Leaves: offsets and sizes. Offsets are relative to `vmctx`, the address that JIT code keeps in a register:
//!
//! ```text
//! vmctx - CARD_TABLE_BYTES   one byte a page: 0 = clean, not 0 = saved in this message's undo log
//! vmctx                      the VM context header, then globals: HEAP_OFFSET bytes owned by engine/wasm
//! vmctx + HEAP_OFFSET        heap byte 0; readable up to the heap's size, no access beyond
//! ... + HEAP_RESERVED_BYTES  end of the reservation
//! ```
//!
//! Never here: a number that the kernel or a configuration may change.

use cyclotron_types::limits::{HEAP_BYTES_MAX_32, HEAP_BYTES_MAX_64, STABLE_BYTES_MAX};
use cyclotron_types::units::WasmPages;

/// Size of a page: the unit of cards, undo records and dirty counts, and the smallest page of x86-64.
pub const PAGE: usize = 4_096;
/// `log2(PAGE)`: a heap address shifted right by this is its page, and its card's index.
pub const PAGE_SHIFT: u32 = 12;

/// Pages of a block: what is fetched at least when pages lie in a store, and shown to JIT code at once. A Wasm page, the unit in which heaps grow.
pub const BLOCK_PAGES: usize = 16;

/// Size of the card table, which ends at `vmctx`. One byte a page covers 8 GiB of heap addresses.
pub const CARD_TABLE_BYTES: usize = 2 << 20;
/// Distance from `vmctx` to heap byte 0. The space between holds the VM context and the globals.
pub const HEAP_OFFSET: usize = 65_536;

/// Bytes at the start of page k+1 that marking page k saves too, so that one card test covers a store that runs into page k+1.
pub const UNDO_HEAD: usize = 1_024;
/// A store whose constant offset shares a block of this many bytes with the tested offset is covered by that test.
pub const CARD_GROUP: usize = 512;
/// Widest single store of Wasm: `v128.store`.
pub const STORE_BYTES_MAX: usize = 16;

/// Heap addresses that a card exists for.
pub const CARD_REACH: u64 = (CARD_TABLE_BYTES * PAGE) as u64;
/// Address space reserved from heap byte 0: every 32-bit address plus 32-bit offset plus access size lies inside.
pub const HEAP_RESERVED_BYTES: usize = (8 << 30) + (64 << 10);
/// Address space of a whole seat.
pub const SEAT_RESERVED_BYTES: usize = CARD_TABLE_BYTES + HEAP_OFFSET + HEAP_RESERVED_BYTES;

/// `log2` of the distance between two heaps in the arena's file.
pub const HEAP_SLOT_SHIFT: u32 = 33;
/// `log2` of the distance between two stable memories in the arena's file.
pub const STABLE_SLOT_SHIFT: u32 = 39;
/// `log2` of the size of each of the arena's two sparse files. Linux allows files below 2^63 bytes.
pub const ARENA_FILE_SHIFT: u32 = 62;

/// Largest heap of a 32-bit module.
pub const HEAP_PAGES_MAX_32: WasmPages = WasmPages(HEAP_BYTES_MAX_32.0 / WasmPages::BYTES);
/// Largest heap of a 64-bit module.
pub const HEAP_PAGES_MAX_64: WasmPages = WasmPages(HEAP_BYTES_MAX_64.0 / WasmPages::BYTES);
/// Largest stable memory.
pub const STABLE_PAGES_MAX: WasmPages = WasmPages(STABLE_BYTES_MAX.0 / WasmPages::BYTES);

/// Seats that a pool holds unless told otherwise: 4,096 * 8 GiB = 2^45 of the 2^47 bytes of address space,
/// and 4 to 6 of the kernel's 65,530 mappings each.
pub const SEATS_MAX_DEFAULT: usize = 4_096;

/// Address space reserved for the undo data of one message: every page of 8 GiB in full, and a head record for each.
pub const UNDO_DATA_BYTES: usize = CARD_TABLE_BYTES * (PAGE + UNDO_HEAD);
/// Undo records of one message: every page in full, and a head record for each.
pub const UNDO_RECORDS_MAX: usize = CARD_TABLE_BYTES * 2;
/// Undo data that an idle undo log keeps allocated for the next message; what is beyond goes back to the kernel.
pub const UNDO_WARM_BYTES: usize = 32 << 20;

const _: () = assert!(PAGE == 1 << PAGE_SHIFT);
const _: () = assert!(HEAP_OFFSET.is_multiple_of(PAGE) && CARD_TABLE_BYTES.is_multiple_of(PAGE));
const _: () = assert!((WasmPages::BYTES as usize).is_multiple_of(PAGE));
const _: () = assert!(BLOCK_PAGES * PAGE == WasmPages::BYTES as usize && BLOCK_PAGES.is_power_of_two());
const _: () = assert!(HEAP_BYTES_MAX_32.0 <= HEAP_BYTES_MAX_64.0);
const _: () = assert!(HEAP_BYTES_MAX_64.0 <= CARD_REACH);
const _: () = assert!(HEAP_BYTES_MAX_64.0 <= 1 << HEAP_SLOT_SHIFT);
const _: () = assert!(STABLE_BYTES_MAX.0 <= 1 << STABLE_SLOT_SHIFT);
const _: () = assert!(HEAP_RESERVED_BYTES as u64 >= 2 * (u32::MAX as u64) + STORE_BYTES_MAX as u64);
// The tested offset is at most CARD_GROUP - 1 below the store's, so the store ends within the next page's head.
const _: () = assert!(CARD_GROUP - 1 + STORE_BYTES_MAX <= UNDO_HEAD);
const _: () = assert!(UNDO_HEAD <= PAGE);
const _: () =
    assert!(HEAP_SLOT_SHIFT < ARENA_FILE_SHIFT && STABLE_SLOT_SHIFT < ARENA_FILE_SHIFT && ARENA_FILE_SHIFT < 63);
