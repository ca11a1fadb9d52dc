//! Bytes at rest: the state directory, the node's keys, logs, checkpoints, and compiled code. `FORMAT.md` beside this crate is the authority for every byte.
//!
//! Enters: a path, through a [`Disk`](cyclotron_ports::Disk). Leaves: the keys, and a directory that no other process uses.
//! Never here: a damaged file repaired, replaced or guessed at; a secret in a message.

#![forbid(unsafe_code)]

pub mod checkpoint;
mod directory;
mod error;
mod fork;
mod frame;
mod input;
mod key_file;
pub mod log;
pub mod manifest;
pub mod module_cache;

pub use directory::{NodeKeys, StateDirectory};
pub use error::StorageError;
pub use fork::ForkedDirectory;
pub use frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Frame, FrameKind, encode_block, encode_frame};
pub use key_file::KeyKind;
