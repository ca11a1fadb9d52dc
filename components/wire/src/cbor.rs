//! The part of CBOR (RFC 8949) that requests and answers use: unsigned integers, byte and text strings, arrays, maps, one
//! tag, null.
//!
//! Reading is driven by the expected shape: nothing is skipped, nothing is built, nesting goes exactly as deep as the shape
//! does, and strings are borrowed. Lengths may be definite or not for arrays and maps; strings must be of one piece.

use crate::error::DecodeError;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;
/// Says "what follows is CBOR". RFC 8949, section 3.4.6.
const SELF_DESCRIBE: u64 = 55_799;

const fn type_name(initial: u8) -> &'static str {
    match initial >> 5 {
        0 => "an unsigned integer",
        1 => "a negative integer",
        2 => "a byte string",
        3 => "a text string",
        4 => "an array",
        5 => "a map",
        6 => "a tag",
        _ => "a simple value",
    }
}

/// Elements left in an array or map that is being read.
#[derive(Clone, Copy, Debug)]
pub struct Elements {
    left: Option<u64>,
}

impl Elements {
    /// How many there are, where the encoding says so.
    pub const fn declared(self) -> Option<u64> {
        self.left
    }
}

/// Reads items off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub const fn position(&self) -> usize {
        self.at
    }

    fn initial(&self) -> Result<u8, DecodeError> {
        self.bytes.get(self.at).copied().ok_or(DecodeError::Truncated { at: self.at })
    }

    fn take(&mut self, length: usize, start: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(DecodeError::Truncated { at: start })?;
        self.at += length;
        Ok(taken)
    }

    /// Reads an item's head if it is of major type `major`: its argument, or `None` for an indefinite length.
    fn head(&mut self, major: u8, field: &'static str, expected: &'static str) -> Result<Option<u64>, DecodeError> {
        let start = self.at;
        let initial = self.initial()?;
        if initial >> 5 != major {
            return Err(DecodeError::WrongType { field, expected, found: type_name(initial), at: start });
        }
        self.at += 1;
        let width = match initial & 31 {
            small @ 0..=23 => return Ok(Some(u64::from(small))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 if matches!(major, BYTES | TEXT | ARRAY | MAP) => return Ok(None),
            _ => return Err(DecodeError::Unsupported { what: "malformed CBOR head", at: start }),
        };
        let argument = self.take(width, start)?.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
        Ok(Some(argument))
    }

    /// Reads the self-describing tag if it is there.
    pub fn self_describe_tag(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        if self.initial()? >> 5 != TAG {
            return Ok(());
        }
        match self.head(TAG, "request", "a map")? {
            Some(SELF_DESCRIBE) => Ok(()),
            _ => Err(DecodeError::Unsupported { what: "a tag other than 55799", at: start }),
        }
    }

    /// Reads null if it is next.
    pub fn null(&mut self) -> bool {
        let is_null = self.bytes.get(self.at) == Some(&NULL);
        if is_null {
            self.at += 1;
        }
        is_null
    }

    /// Reads an unsigned integer.
    pub fn unsigned(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let at = self.at;
        self.head(UNSIGNED, field, "an unsigned integer")?
            .ok_or(DecodeError::Unsupported { what: "malformed CBOR head", at })
    }

    fn string(&mut self, major: u8, field: &'static str, expected: &'static str) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        let Some(length) = self.head(major, field, expected)? else {
            return Err(DecodeError::Unsupported { what: "a string of several pieces", at: start });
        };
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated { at: start })?;
        self.take(length, start)
    }

    /// Reads a byte string.
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.string(BYTES, field, "a byte string")
    }

    /// Reads a text string.
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.at;
        let bytes = self.string(TEXT, field, "a text string")?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8 { field, at })
    }

    /// Reads the head of an array; [`Self::next`] leads through its elements.
    pub fn array(&mut self, field: &'static str) -> Result<Elements, DecodeError> {
        Ok(Elements { left: self.head(ARRAY, field, "an array")? })
    }

    /// Reads the head of a map; [`Self::next`] leads through its pairs.
    pub fn map(&mut self, field: &'static str) -> Result<Elements, DecodeError> {
        Ok(Elements { left: self.head(MAP, field, "a map")? })
    }

    /// Whether another element (or pair) follows; reads the closing mark of an indefinite length.
    pub fn next(&mut self, elements: &mut Elements) -> Result<bool, DecodeError> {
        match &mut elements.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.initial()? == BREAK => {
                self.at += 1;
                elements.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// Succeeds if nothing is left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.at < self.bytes.len() { Err(DecodeError::TrailingBytes { at: self.at }) } else { Ok(()) }
    }
}

/// Appends items in the shortest encoding to a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts with the self-describing tag, as every body does.
    pub fn tagged() -> Self {
        let mut writer = Self::default();
        writer.head(TAG, SELF_DESCRIBE);
        writer
    }

    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let major = major << 5;
        let be = argument.to_be_bytes();
        match argument {
            0..=23 => self.out.push(major | be[7]),
            24..=0xff => self.out.extend_from_slice(&[major | 24, be[7]]),
            0x100..=0xffff => {
                self.out.push(major | 25);
                self.out.extend_from_slice(&be[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(major | 26);
                self.out.extend_from_slice(&be[4..]);
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend_from_slice(&be);
            }
        }
        self
    }

    /// Writes an unsigned integer.
    pub fn unsigned(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }
    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64).raw(value)
    }
    /// Writes a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64).raw(value.as_bytes())
    }
    /// Opens an array of `length` elements, which the caller writes next.
    pub fn array(&mut self, length: usize) -> &mut Self {
        self.head(ARRAY, length as u64)
    }
    /// Opens a map of `length` pairs, which the caller writes next.
    pub fn map(&mut self, length: usize) -> &mut Self {
        self.head(MAP, length as u64)
    }
    /// Writes bytes that are CBOR already.
    pub fn raw(&mut self, cbor: &[u8]) -> &mut Self {
        self.out.extend_from_slice(cbor);
        self
    }
    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

// The reader never meets a simple value except null: floats, booleans and undefined have no place in a request.
const _: () = assert!(NULL >> 5 == SIMPLE);
