//! Whether a file holds a picture and nothing else, so that it may stand for its own thumbnail.
//!
//! Thumbnails are seen by more people than pictures, and must not say where a photograph was taken. Places stand in Exif, in
//! XMP, in IPTC and in comments, each in several kinds of chunk: so what is known to be harmless is let through, not what is
//! known to be harmful kept back. A jpeg is always made anew.

use std::io::{self, SeekFrom};

use image::ImageFormat;

use crate::media::SeekRead;

/// What a png may have: what its pixels are, and how they are shown.
const PNG: [&[u8; 4]; 12] = [
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"cHRM", b"gAMA", b"iCCP", b"pHYs",
    b"sBIT", b"sRGB",
];
/// The same for a webp.
const WEBP: [&[u8; 4]; 5] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"];
/// A file of more chunks than this is none that a picture editor writes.
const MAX_CHUNKS: usize = 10_000;

/// Reads the heads of a file's chunks, from its beginning, and goes back there.
pub(super) fn is_plain(source: &mut dyn SeekRead, format: ImageFormat) -> io::Result<bool> {
    let plain = match format {
        ImageFormat::Png => {
            source.seek(SeekFrom::Start(8))?;
            png(source)
        }
        ImageFormat::WebP => {
            source.seek(SeekFrom::Start(12))?;
            webp(source)
        }
        _ => Ok(false),
    };
    source.seek(SeekFrom::Start(0))?;
    match plain {
        // It ends in the middle of something.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other,
    }
}

fn png(source: &mut dyn SeekRead) -> io::Result<bool> {
    for _ in 0..MAX_CHUNKS {
        let (mut length, mut name) = ([0; 4], [0; 4]);
        source.read_exact(&mut length)?;
        source.read_exact(&mut name)?;
        if !PNG.contains(&&name) {
            return Ok(false);
        }
        // The checksum stands behind.
        pass(source, u64::from(u32::from_be_bytes(length)) + 4)?;
        if &name == b"IEND" {
            return Ok(source.fill_buf()?.is_empty());
        }
    }
    Ok(false)
}

fn webp(source: &mut dyn SeekRead) -> io::Result<bool> {
    for _ in 0..MAX_CHUNKS {
        if source.fill_buf()?.is_empty() {
            return Ok(true);
        }
        let (mut name, mut length) = ([0; 4], [0; 4]);
        source.read_exact(&mut name)?;
        source.read_exact(&mut length)?;
        if !WEBP.contains(&&name) {
            return Ok(false);
        }
        let length = u64::from(u32::from_le_bytes(length));
        // Chunks begin at even places.
        pass(source, length + length % 2)?;
    }
    Ok(false)
}

/// Goes over bytes that must be there.
fn pass(source: &mut dyn SeekRead, length: u64) -> io::Result<()> {
    let Some(before_last) = length.checked_sub(1) else {
        return Ok(());
    };
    source.seek(SeekFrom::Current(
        before_last.try_into().unwrap_or(i64::MAX),
    ))?;
    source.read_exact(&mut [0])
}
