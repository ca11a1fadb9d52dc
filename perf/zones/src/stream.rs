//! Frames of events on a connection: a length, then LZ4, each frame compressed with those before it in mind.

use crate::CaptureError;
use crate::protocol::{COMPRESSED_BYTES_MAX, FRAME_BYTES_MAX};
use std::io::Read;

/// How far back LZ4 refers.
const WINDOW: usize = 64 * 1024;

/// Decompresses frames.
pub(crate) struct Frames {
    /// The last bytes of what came before.
    window: Vec<u8>,
    compressed: Vec<u8>,
    frame: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { window: Vec::new(), compressed: Vec::new(), frame: vec![0; FRAME_BYTES_MAX] }
    }
}

impl Frames {
    /// Reads the next frame. Errors: also when none comes in time; a frame that has begun to come must then not be expected any more.
    pub(crate) fn read(&mut self, from: &mut impl Read) -> Result<&[u8], CaptureError> {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > COMPRESSED_BYTES_MAX {
            return Err(CaptureError::Malformed("a frame beyond the largest"));
        }
        self.compressed.resize(len, 0);
        from.read_exact(&mut self.compressed)?;
        self.decompress()
    }

    fn decompress(&mut self) -> Result<&[u8], CaptureError> {
        let len = lz4_flex::block::decompress_into_with_dict(&self.compressed, &mut self.frame, &self.window)
            .map_err(|_| CaptureError::Malformed("a frame that does not decompress"))?;
        let frame = &self.frame[..len];
        self.window.extend_from_slice(frame);
        let old = self.window.len().saturating_sub(WINDOW);
        self.window.drain(..old);
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_refer_to_the_ones_before_it() {
        let first = b"names of zones, names of plots, names of threads";
        let mut wire = Vec::new();
        let mut send = |compressed: Vec<u8>| {
            wire.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
            wire.extend_from_slice(&compressed);
        };
        send(lz4_flex::block::compress(first));
        send(lz4_flex::block::compress_with_dict(first, first));
        let mut frames = Frames::default();
        let mut wire = wire.as_slice();
        assert_eq!(frames.read(&mut wire).unwrap(), first);
        assert_eq!(frames.read(&mut wire).unwrap(), first);
        assert!(matches!(frames.read(&mut wire), Err(CaptureError::Connection(_))));
    }

    #[test]
    fn a_frame_beyond_the_largest_is_refused() {
        let wire = u32::MAX.to_le_bytes();
        assert!(matches!(Frames::default().read(&mut wire.as_slice()), Err(CaptureError::Malformed(_))));
    }
}
