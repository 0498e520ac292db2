//! Thumbnails that move: each picture of an animation is made smaller, and all become a gif.
//!
//! One picture is in memory at a time, beside the gif.

use image::{
    DynamicImage, Frame, Frames, ImageError, RgbaImage,
    codecs::gif::{GifEncoder, Repeat},
    metadata::LoopCount,
};

use super::{
    render::{Bounds, Picture, Rendered, refused, small},
    sizes::Wanted,
};
use crate::media::{MediaError, SeekRead};

/// The most pixels of the pictures that are written: finding their colours costs more than reading them.
const WRITTEN_PIXELS: u64 = 24_000_000;
/// How much memory a decoder takes for a pixel: it has the picture before, the one that it reads, and the one that it gives.
const BYTES_A_PIXEL: u64 = 12;
/// How fast colours are found, from 1 (best) to 30 (fastest).
const SPEED: i32 = 20;

/// Makes a gif that moves. `None` if the picture does not move, or is more than that may cost, or is broken after its
/// beginning: then its first picture stands for it.
pub(super) fn render(
    source: Box<dyn SeekRead>,
    wanted: Wanted,
    bounds: Bounds,
) -> Result<Option<Rendered>, MediaError> {
    let picture = Picture::open(source, bounds)?;
    if !picture.moves || picture.pixels().saturating_mul(BYTES_A_PIXEL) > bounds.memory_bytes {
        return Ok(None);
    }
    let (plan, orientation) = (picture.plan(wanted), picture.orientation);
    let Some((frames, repeat)) = picture.decoder.frames().map_err(refused)? else {
        return Ok(None);
    };
    match encode(frames, repeat, bounds, |frame| {
        small(frame, plan, orientation)
    }) {
        Ok(gif) => Ok(gif.map(|gif| Rendered::Made(gif, "image/gif"))),
        Err(error) => match refused(error) {
            // The disk does not read, or the time is over.
            error @ MediaError::Blob(_) => Err(error),
            _ => Ok(None),
        },
    }
}

/// The gif; `None` if it would cost more than it may, or if there is only one picture.
fn encode(
    frames: Frames<'_>,
    repeat: Repeat,
    bounds: Bounds,
    shrink: impl Fn(DynamicImage) -> DynamicImage,
) -> Result<Option<Vec<u8>>, ImageError> {
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut gif, SPEED);
    encoder.set_repeat(repeat)?;
    let (mut count, mut read, mut written) = (0, 0_u64, 0_u64);
    for frame in frames {
        let frame = frame?;
        let delay = frame.delay();
        read = read.saturating_add(pixels(frame.buffer()));
        let frame = shrink(DynamicImage::ImageRgba8(frame.into_buffer())).into_rgba8();
        written = written.saturating_add(pixels(&frame));
        count += 1;
        if count > bounds.frames || read > bounds.frames_pixels || written > WRITTEN_PIXELS {
            return Ok(None);
        }
        encoder.encode_frame(Frame::from_parts(opaque(frame), 0, 0, delay))?;
    }
    drop(encoder);
    Ok((count > 1).then_some(gif))
}

fn pixels(picture: &RgbaImage) -> u64 {
    u64::from(picture.width()).saturating_mul(u64::from(picture.height()))
}

/// A gif's pixels are there or not: nothing between.
fn opaque(mut picture: RgbaImage) -> RgbaImage {
    for pixel in picture.pixels_mut() {
        let [.., alpha] = &mut pixel.0;
        *alpha = if *alpha < 128 { 0 } else { 255 };
    }
    picture
}

/// How often a gif is to be shown.
pub(super) fn repeat(count: LoopCount) -> Repeat {
    match count {
        LoopCount::Infinite => Repeat::Infinite,
        LoopCount::Finite(count) => Repeat::Finite(u16::try_from(count.get()).unwrap_or(u16::MAX)),
    }
}
