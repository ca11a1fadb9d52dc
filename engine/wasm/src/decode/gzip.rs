//! Modules may come gzipped.
//!
//! Enters: bytes from outside. Leaves: the module's bytes, at most as many as allowed. Never here: trust in the size that
//! the footer states.

use std::borrow::Cow;
use std::io::Read;

use cyclotron_types::units::Bytes;

use crate::validate::ModuleError;

const WASM_MAGIC: &[u8] = b"\0asm";
/// RFC 1952: two magic bytes, then compression method 8, deflate.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b\x08";
/// RFC 1952: header and footer take eight bytes each, at least.
const GZIP_MIN_BYTES: usize = 16;

/// The Wasm in `bytes`, which is either Wasm or one gzip member that holds it.
///
/// Errors: neither; larger than `max`; a stream that is broken or not as long as its footer says.
/// Cost: never more than `max` + 1 bytes are produced, whatever the stream says.
pub fn inflate(bytes: &[u8], max: Bytes) -> Result<Cow<'_, [u8]>, ModuleError> {
    let too_large = |size: u64| ModuleError::ModuleTooLarge { size, allowed: max.0 };
    if bytes.starts_with(WASM_MAGIC) {
        let size = bytes.len() as u64;
        return if size > max.0 { Err(too_large(size)) } else { Ok(Cow::Borrowed(bytes)) };
    }
    if !bytes.starts_with(GZIP_MAGIC) {
        return Err(ModuleError::UnknownFormat);
    }
    if bytes.len() < GZIP_MIN_BYTES {
        return Err(ModuleError::GzipTooShort);
    }
    let mut footer = [0u8; 4];
    footer.copy_from_slice(&bytes[bytes.len() - 4..]);
    let stated = u64::from(u32::from_le_bytes(footer));
    if stated > max.0 {
        return Err(too_large(stated));
    }
    // What is reserved up front is bounded by what was sent: deflate expands at most 1,032 times.
    let mut out = Vec::with_capacity(usize::try_from(stated).unwrap_or(0).min(bytes.len().saturating_mul(1_032)));
    flate2::read::GzDecoder::new(bytes)
        .take(stated + 1)
        .read_to_end(&mut out)
        .map_err(|e| ModuleError::Gzip { message: e.to_string() })?;
    let actual = out.len() as u64;
    if actual != stated {
        return Err(ModuleError::GzipSize { stated, actual });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const MAX: Bytes = Bytes(1 << 20);

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn wasm_passes_as_it_is_and_gzip_is_unpacked() {
        let wasm = b"\0asm\x01\0\0\0".to_vec();
        assert_eq!(inflate(&wasm, MAX).unwrap(), Cow::Borrowed(&wasm[..]));
        assert_eq!(inflate(&gzip(&wasm), MAX).unwrap().as_ref(), &wasm[..]);
    }

    #[test]
    fn sizes_over_the_limit_are_refused_before_unpacking() {
        let big = vec![0u8; MAX.0 as usize + 1];
        let error = inflate(&gzip(&big), MAX).unwrap_err();
        assert_eq!(error, ModuleError::ModuleTooLarge { size: MAX.0 + 1, allowed: MAX.0 });
        let wasm = [WASM_MAGIC, &big].concat();
        assert!(matches!(inflate(&wasm, MAX), Err(ModuleError::ModuleTooLarge { .. })));
    }

    #[test]
    fn a_bomb_with_a_false_footer_stops_at_the_stated_size() {
        let mut bomb = gzip(&vec![0u8; 8 << 20]);
        let footer = bomb.len() - 4;
        bomb[footer..].copy_from_slice(&100u32.to_le_bytes());
        assert_eq!(inflate(&bomb, MAX).unwrap_err(), ModuleError::GzipSize { stated: 100, actual: 101 });
    }

    #[test]
    fn broken_streams_are_refused() {
        assert_eq!(inflate(b"", MAX).unwrap_err(), ModuleError::UnknownFormat);
        assert_eq!(inflate(b"\x7fELF", MAX).unwrap_err(), ModuleError::UnknownFormat);
        assert_eq!(inflate(&GZIP_MAGIC.repeat(2), MAX).unwrap_err(), ModuleError::GzipTooShort);
        let good = gzip(b"\0asm\x01\0\0\0");
        for len in 0..good.len() {
            assert!(inflate(&good[..len], MAX).is_err(), "{len}");
        }
        for ix in 10..good.len() - 4 {
            let mut bad = good.clone();
            bad[ix] ^= 0xff;
            assert!(inflate(&bad, MAX).is_err(), "{ix}");
        }
    }
}
