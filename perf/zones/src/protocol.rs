//! Numbers and forms of Tracy's protocol, version 82. Source: Tracy's `TracyProtocol.hpp` and `TracyQueue.hpp`, whose structs are packed.

use crate::CaptureError;

/// The version of the protocol.
pub const PROTOCOL: u32 = 82;

pub(crate) const SHIBBOLETH: &[u8; 8] = b"TracyPrf";
pub(crate) const HANDSHAKE_WELCOME: u8 = 1;
pub(crate) const HANDSHAKE_OTHER_VERSION: u8 = 2;
/// Bytes of a frame before compression, at most.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a compressed frame, at most.
pub(crate) const COMPRESSED_BYTES_MAX: usize = FRAME_BYTES_MAX + FRAME_BYTES_MAX / 255 + 16;
pub(crate) const WELCOME_BYTES: usize = 1_170;
/// What follows the welcome of a program that keeps nothing until a profiler connects.
pub(crate) const ON_DEMAND_BYTES: usize = 16;
pub(crate) const FLAG_ON_DEMAND: u8 = 1;

/// Times in fewer bytes begin where those of still fewer end.
pub(crate) const OFFSET_16_BITS: i64 = 1 << 16;
pub(crate) const OFFSET_32_BITS: i64 = (1 << 16) + (1 << 32);

/// Questions to the program.
#[derive(Clone, Copy)]
pub(crate) enum Query {
    /// No question: none will come.
    Terminate = 0,
    String = 1,
    ThreadName = 2,
    SourceLocation = 3,
    PlotName = 4,
}

impl Query {
    pub(crate) fn encode(self, address: u64) -> [u8; 13] {
        let mut packet = [0; 13];
        packet[0] = self as u8;
        packet[1..9].copy_from_slice(&address.to_le_bytes());
        packet
    }
}

/// Kinds of events, as far as they are looked into.
pub(crate) mod kind {
    pub(crate) const ZONE_BEGIN: u8 = 19;
    pub(crate) const ZONE_BEGIN_32: u8 = 20;
    pub(crate) const ZONE_BEGIN_16: u8 = 21;
    pub(crate) const ZONE_END: u8 = 25;
    pub(crate) const ZONE_END_32: u8 = 26;
    pub(crate) const ZONE_END_16: u8 = 27;
    pub(crate) const PLOT_INT: u8 = 55;
    pub(crate) const PLOT_FLOAT: u8 = 56;
    pub(crate) const PLOT_DOUBLE: u8 = 57;
    pub(crate) const TERMINATE: u8 = 73;
    pub(crate) const THREAD: u8 = 75;
    pub(crate) const FRAME_MARK: u8 = 83;
    pub(crate) const SOURCE_LOCATION: u8 = 87;
    pub(crate) const SINGLE_STRING: u8 = 112;
    pub(crate) const SECOND_STRING: u8 = 113;
    pub(crate) const SINGLE_STRING_8: u8 = 114;
    pub(crate) const SECOND_STRING_8: u8 = 115;
    pub(crate) const STRING: u8 = 119;
    pub(crate) const THREAD_NAME: u8 = 120;
    pub(crate) const PLOT_NAME: u8 = 121;
    pub(crate) const FRAME_IMAGE: u8 = 126;
    pub(crate) const SYMBOL_CODE: u8 = 129;
    pub(crate) const SOURCE_CODE: u8 = 130;
}

/// Bytes of each kind of event, its own byte included, before any string.
#[rustfmt::skip]
pub(crate) const EVENT_BYTES: [u8; 132] = [
    1, 1, 10, 13, 10, 13, 9, 9, 9, 1, 1, 1, 13, 9, 7, 13,
    9, 7, 10, 17, 13, 11, 17, 13, 11, 9, 5, 3, 17, 17, 13, 17,
    17, 17, 5, 27, 27, 21, 21, 27, 27, 21, 21, 21, 21, 24, 24, 16,
    16, 16, 24, 24, 16, 16, 16, 25, 21, 25, 23, 16, 12, 2, 10, 10,
    13, 1, 1, 1, 25, 13, 15, 13, 3, 1, 1, 5, 26, 18, 1, 17,
    5, 4, 9, 17, 17, 17, 13, 32, 22, 13, 17, 17, 20, 17, 20, 28,
    17, 13, 25, 17, 17, 17, 17, 17, 17, 17, 16, 18, 1, 5, 1, 17,
    1, 1, 1, 1, 9, 9, 24, 9, 9, 9, 9, 9, 9, 9, 9, 9,
    9, 9, 9, 9,
];

/// What a program says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// Nanoseconds of one tick of its clock.
    pub ns_per_tick: f64,
    /// Its process.
    pub pid: u64,
    /// Whether it keeps nothing until a profiler connects.
    pub on_demand: bool,
    /// Its name.
    pub program: String,
    /// Its machine, in lines.
    pub host: String,
}

impl Welcome {
    pub(crate) fn decode(bytes: &[u8; WELCOME_BYTES]) -> Result<Welcome, CaptureError> {
        let mut bytes = Bytes(bytes);
        let ns_per_tick = f64::from_bits(bytes.u64()?);
        // Begin and end of initialization, resolution, epoch, time of the program's file.
        bytes.take(5 * 8)?;
        let pid = bytes.u64()?;
        // Sampling period.
        bytes.take(8)?;
        let flags = bytes.u8()?;
        // Architecture, manufacturer and number of the processor.
        bytes.take(1 + 12 + 4)?;
        let program = c_string(bytes.take(64)?);
        let host = c_string(bytes.take(1024)?);
        if !ns_per_tick.is_finite() || ns_per_tick <= 0.0 {
            return Err(CaptureError::Malformed("a clock that does not advance"));
        }
        Ok(Welcome { ns_per_tick, pid, on_demand: flags & FLAG_ON_DEMAND != 0, program, host })
    }
}

fn c_string(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], CaptureError> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(CaptureError::Malformed("an event that is cut off"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        self.take(N)?.try_into().map_err(|_| CaptureError::Malformed("an event that is cut off"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CaptureError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CaptureError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CaptureError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CaptureError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CaptureError> {
        self.array().map(i64::from_le_bytes)
    }
}

const _: () = assert!(WELCOME_BYTES == 8 * 8 + 1 + 1 + 12 + 4 + 64 + 1024);
