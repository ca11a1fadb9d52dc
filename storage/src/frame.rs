//! Frames: what logs and checkpoints are made of.

use crate::StorageError;
use std::path::Path;

/// Bytes before a frame's content.
pub const FRAME_HEADER_BYTES: usize = 20;
/// Most bytes of a frame's content: above any batch, below what would hurt to read in vain.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FrameKind {
    /// What the subnet is made with; the first frame of each file.
    Configuration,
    /// The batch of a height.
    Batch,
    /// The certified root after the round of a height: 32 bytes.
    Root,
    /// The state hash after the round of a height: 32 bytes.
    StateHash,
    /// Other frames, compressed.
    Block,
    /// Of a checkpoint: what belongs to no canister.
    Subnet,
    /// Of a checkpoint: where Wasm modules are.
    Modules,
    /// Of a checkpoint: where canisters are.
    Canisters,
    /// Of a checkpoint: remembered ingress messages.
    Statuses,
    /// Of a checkpoint: its end.
    End,
    /// Of a checkpoint: the beginning of what the next frame goes on with.
    Part,
    /// The program whose rules hold for the batches that follow.
    Program,
    /// Of a checkpoint: the files of pages that it needs.
    Files,
    /// Of a manifest: files of the state, and their chunks. The number before was that of a frame in checkpoints of version 3.
    ManifestFiles = 14,
    /// Of a recording that begins at a checkpoint: which state that is.
    Beginning,
    /// Of a recording: a query that was answered on the state of a height.
    Query,
    /// Of a recording: how many queries were answered since the last such frame, and not recorded.
    QueriesLeftOut,
}

impl FrameKind {
    const ALL: [Self; 17] = [
        Self::Configuration,
        Self::Batch,
        Self::Root,
        Self::StateHash,
        Self::Block,
        Self::Subnet,
        Self::Modules,
        Self::Canisters,
        Self::Statuses,
        Self::End,
        Self::Part,
        Self::Program,
        Self::Files,
        Self::ManifestFiles,
        Self::Beginning,
        Self::Query,
        Self::QueriesLeftOut,
    ];

    /// Its number in the file.
    pub const fn number(self) -> u16 {
        self as u16 + 1
    }

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// One frame as read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// The height that it belongs to.
    pub height: u64,
    /// The rest.
    pub content: Vec<u8>,
}

/// A frame's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub length: usize,
    number: u16,
    height: u64,
    checksum: u32,
}

impl Header {
    /// `None`: no frame can begin so.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let length = u32::from_le_bytes(bytes[0..4].try_into().ok()?) as usize;
        (length <= FRAME_BYTES_MAX && bytes[6..8] == [0, 0]).then_some(Self {
            length,
            number: u16::from_le_bytes([bytes[4], bytes[5]]),
            height: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            checksum: u32::from_le_bytes(bytes[16..20].try_into().ok()?),
        })
    }

    /// Whether the content is the one that was written with this header.
    pub fn fits(&self, bytes: &[u8; FRAME_HEADER_BYTES], content: &[u8]) -> bool {
        checksum(&bytes[..16], content) == self.checksum
    }

    /// The frame, its checksum seen to be right. `at` is where the frame begins, for the error.
    pub fn into_frame(self, content: Vec<u8>, path: &Path, at: u64) -> Result<Frame, StorageError> {
        let Some(kind) = FrameKind::from_number(self.number) else {
            return Err(StorageError::UnknownFrame { path: path.to_owned(), at, number: self.number });
        };
        Ok(Frame { kind, height: self.height, content })
    }
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(content);
    crc.finalize()
}

/// Appends a frame to `out`; `content` appends what is in it.
///
/// Panics: when the content is longer than [`FRAME_BYTES_MAX`]; batches are bounded far below.
pub fn encode_frame(kind: FrameKind, height: u64, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    content(out);
    let (header, content) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
    assert!(content.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", content.len());
    header[0..4].copy_from_slice(&(content.len() as u32).to_le_bytes());
    header[4..6].copy_from_slice(&kind.number().to_le_bytes());
    header[8..16].copy_from_slice(&height.to_le_bytes());
    let checksum = checksum(&header[..16], content);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
}

/// The frames in the content of a [`FrameKind::Block`]. Errors: what is wrong with it.
pub(crate) fn unpack_block(content: &[u8], path: &Path, at: u64) -> Result<Vec<Frame>, StorageError> {
    let damaged = |what| StorageError::Damaged { path: path.to_owned(), at, what };
    let (length, packed) = content.split_at_checked(4).ok_or_else(|| damaged("a block is too short"))?;
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(damaged("a block holds more than a frame may"));
    }
    let unpacked =
        lz4_flex::block::decompress(packed, length).map_err(|_| damaged("a block cannot be decompressed"))?;
    let mut frames = Vec::new();
    let mut rest = unpacked.as_slice();
    while let Some((header, behind)) = rest.split_first_chunk() {
        let decoded = Header::decode(header).filter(|decoded| decoded.length <= behind.len());
        let decoded = decoded.ok_or_else(|| damaged("a frame in a block has a wrong header"))?;
        let (content, behind) = behind.split_at(decoded.length);
        if !decoded.fits(header, content) {
            return Err(damaged("the checksum of a frame in a block is wrong"));
        }
        let frame = decoded.into_frame(content.to_vec(), path, at)?;
        if frame.kind == FrameKind::Block {
            return Err(damaged("a block holds another"));
        }
        frames.push(frame);
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(damaged("a block ends within a frame"));
    }
    Ok(frames)
}

/// Appends a block of `frames`, which are encoded one behind the other, to `out`.
///
/// Panics: when they are longer than [`FRAME_BYTES_MAX`].
pub fn encode_block(height: u64, frames: &[u8], out: &mut Vec<u8>) {
    assert!(frames.len() <= FRAME_BYTES_MAX, "a block of {} bytes", frames.len());
    encode_frame(FrameKind::Block, height, out, |out| {
        out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
        out.extend_from_slice(&lz4_flex::block::compress(frames));
    });
}
