//! Logs: the batches of a subnet in the order of their heights. The input log of a node and a recording are the same format.
//!
//! Enters: frames, through a [`LogWriter`]. Leaves: the same frames, through a [`LogReader`]. Never here: what a batch does.

mod batch;
mod beginning;
mod query;
mod reader;
mod segment;
mod trim;
mod writer;

pub use batch::{decode_batch, encode_batch};
pub use beginning::Beginning;
pub use query::{RecordedQuery, answer_hash, decode_left_out, time_of_batch};
pub use reader::LogReader;
pub(crate) use reader::heights;
pub use trim::{Trimmed, first_height, trim};
pub use writer::{LOG_FILE_BYTES, LogWriter, Written};

const EXTENSION: &str = ".log";

/// Name of the file whose first batch has this height: names sort as heights do.
pub(crate) fn file_name(first_height: u64) -> String {
    format!("{first_height:016x}{EXTENSION}")
}

/// The height in a file's name, if it is one of a log's.
fn height_of_name(name: &str) -> Option<u64> {
    let height = u64::from_str_radix(name.strip_suffix(EXTENSION)?, 16).ok()?;
    (file_name(height) == name).then_some(height)
}
