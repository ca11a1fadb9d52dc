//! Why bytes are not a request.

use std::fmt;

/// What is wrong with a body, and where. `at` counts bytes from the body's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The body ends inside an item.
    Truncated {
        /// Where the item begins.
        at: usize,
    },
    /// Bytes follow the last item.
    TrailingBytes {
        /// Where they begin.
        at: usize,
    },
    /// CBOR that is malformed, or well formed but of a kind no request uses.
    Unsupported {
        /// The kind.
        what: &'static str,
        /// Where it is.
        at: usize,
    },
    /// A value of another type than the field has.
    WrongType {
        /// The field.
        field: &'static str,
        /// Its type.
        expected: &'static str,
        /// The type found.
        found: &'static str,
        /// Where it is.
        at: usize,
    },
    /// A field that the map does not have.
    UnknownField {
        /// The map.
        map: &'static str,
        /// The field's name, cut to 40 characters.
        name: String,
    },
    /// A field that comes twice.
    DuplicateField {
        /// The map.
        map: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A required field that is not there.
    MissingField {
        /// The map.
        map: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Text that is not UTF-8.
    InvalidUtf8 {
        /// The field.
        field: &'static str,
        /// Where the text begins.
        at: usize,
    },
    /// More bytes or elements than the field may have.
    TooLong {
        /// The field.
        field: &'static str,
        /// How many there are (or, of an array without a length, how many had been read).
        length: u64,
        /// How many there may be.
        max: usize,
    },
    /// `request_type` is none of the three.
    UnknownRequestType {
        /// What it is, cut to 40 characters.
        found: String,
    },
    /// `permissions` of a delegation is neither "queries" nor "all".
    UnknownPermissions {
        /// What it is, cut to 40 characters.
        found: String,
    },
}

/// The first 40 characters of `text`, so that an error never echoes a body.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at } => write!(f, "the body ends inside the item at byte {at}"),
            Self::TrailingBytes { at } => write!(f, "bytes follow the request at byte {at}"),
            Self::Unsupported { what, at } => write!(f, "{what} at byte {at}"),
            Self::WrongType { field, expected, found, at } => {
                write!(f, "`{field}` must be {expected}, found {found} at byte {at}")
            }
            Self::UnknownField { map, name } => write!(f, "`{map}` has no field {name:?}"),
            Self::DuplicateField { map, field } => write!(f, "`{map}` has the field `{field}` twice"),
            Self::MissingField { map, field } => write!(f, "`{map}` lacks the field `{field}`"),
            Self::InvalidUtf8 { field, at } => write!(f, "`{field}` is not UTF-8 at byte {at}"),
            Self::TooLong { field, length, max } => write!(f, "`{field}` is too long: {length}, at most {max}"),
            Self::UnknownRequestType { found } => {
                write!(f, "`request_type` must be \"call\", \"query\" or \"read_state\", found {found:?}")
            }
            Self::UnknownPermissions { found } => {
                write!(f, "`permissions` must be \"queries\" or \"all\", found {found:?}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}
