//! Making one thumbnail: read, shrink, turn, write. Blocking and hungry; runs on the blocking pool.
//!
//! The picture's format is told by its first bytes, never by what the uploader called it, and only four formats have a
//! decoder at all. Pixels and memory are judged from the header, before anything is decoded.

use std::io::{self, SeekFrom};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, Limits,
    codecs::{
        gif::GifDecoder,
        jpeg::{JpegDecoder, JpegEncoder},
        png::{PngDecoder, PngEncoder},
        webp::WebPDecoder,
    },
    imageops::FilterType,
    metadata::Orientation,
};

use super::sizes::{Plan, Wanted};
use crate::media::{MediaError, SeekRead};

const JPEG_QUALITY: u8 = 82;

/// What a picture may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) pixels: u64,
    pub(super) memory_bytes: u64,
}

/// A thumbnail.
pub(super) enum Rendered {
    /// The picture itself does: it is no larger, does not move and carries no camera data.
    Itself(&'static str),
    /// A new file.
    Made(Vec<u8>, &'static str),
}

/// Makes a thumbnail. `wanted` is a size from the list.
pub(super) fn render(
    source: Box<dyn SeekRead>,
    wanted: Wanted,
    bounds: Bounds,
) -> Result<Rendered, MediaError> {
    let mut picture = Picture::open(source, bounds)?;
    let stored = picture.decoder.dimensions();
    let turned = matches!(
        picture.orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let shown = if turned { (stored.1, stored.0) } else { stored };
    let plan = Plan::new(wanted, shown);
    if plan.kept == shown && picture.is_plain()? {
        return Ok(Rendered::Itself(picture.format.to_mime_type()));
    }
    // Shrinking comes before turning: it needs no second copy of the large picture.
    let plan = if turned { plan.turned() } else { plan };
    let whole = DynamicImage::from_decoder(picture.decoder).map_err(refused)?;
    let mut small = crop(shrink(whole, plan.scaled), plan.kept);
    small.apply_orientation(picture.orientation);
    let (bytes, content_type) = encode(&small, picture.format).map_err(refused)?;
    Ok(Rendered::Made(bytes, content_type))
}

/// A picture whose header was read.
struct Picture {
    decoder: Box<dyn ImageDecoder>,
    format: ImageFormat,
    orientation: Orientation,
    moves: bool,
}

impl Picture {
    fn open(mut source: Box<dyn SeekRead>, bounds: Bounds) -> Result<Self, MediaError> {
        let format = sniff(&mut source)
            .map_err(ImageError::IoError)
            .map_err(refused)?;
        let mut limits = Limits::default();
        limits.max_alloc = Some(bounds.memory_bytes);
        let (mut decoder, moves) = decoder(source, format, &limits).map_err(refused)?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width).saturating_mul(u64::from(height));
        if pixels == 0 {
            return Err(MediaError::CannotThumbnail);
        }
        if pixels > bounds.pixels || decoder.total_bytes() > bounds.memory_bytes {
            return Err(MediaError::PictureTooLarge);
        }
        decoder.set_limits(limits).map_err(refused)?;
        // A broken orientation is no reason to show nothing.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(Self {
            decoder,
            format,
            orientation,
            moves,
        })
    }

    /// True if the file as it is may stand for its thumbnail.
    fn is_plain(&mut self) -> Result<bool, MediaError> {
        let exif = self.decoder.exif_metadata().map_err(refused)?;
        Ok(!self.moves && exif.is_none())
    }
}

/// The format, by the first bytes. `Unsupported` if it is none that is decoded here.
fn sniff(source: &mut Box<dyn SeekRead>) -> io::Result<ImageFormat> {
    let start = source.fill_buf()?;
    let decoded = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ];
    let format = image::guess_format(start)
        .ok()
        .filter(|format| decoded.contains(format));
    source.seek(SeekFrom::Start(0))?;
    format.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The format's decoder, and whether the picture moves. A gif counts as moving, since only reading it whole tells.
fn decoder(
    source: Box<dyn SeekRead>,
    format: ImageFormat,
    limits: &Limits,
) -> Result<(Box<dyn ImageDecoder>, bool), ImageError> {
    Ok(match format {
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(source, limits.clone())?;
            let moves = decoder.is_apng()?;
            (Box::new(decoder), moves)
        }
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(source)?;
            let moves = decoder.has_animation();
            (Box::new(decoder), moves)
        }
        ImageFormat::Gif => (Box::new(GifDecoder::new(source)?), true),
        _ => (Box::new(JpegDecoder::new(source)?), false),
    })
}

/// Shrinks in two steps when much is to go: averaging is fast and good down to twice the size, where a finer filter
/// takes over.
fn shrink(picture: DynamicImage, (width, height): (u32, u32)) -> DynamicImage {
    let twice = (width.saturating_mul(2), height.saturating_mul(2));
    if (picture.width(), picture.height()) == (width, height) {
        picture
    } else if picture.width() > twice.0 && picture.height() > twice.1 {
        picture.thumbnail_exact(twice.0, twice.1).resize_exact(
            width,
            height,
            FilterType::CatmullRom,
        )
    } else {
        picture.resize_exact(width, height, FilterType::CatmullRom)
    }
}

fn crop(picture: DynamicImage, (width, height): (u32, u32)) -> DynamicImage {
    let left = picture.width().saturating_sub(width) / 2;
    let top = picture.height().saturating_sub(height) / 2;
    if (left, top) == (0, 0) && (picture.width(), picture.height()) == (width, height) {
        return picture;
    }
    picture.crop_imm(left, top, width, height)
}

/// Photographs (jpeg, and webp without transparency) stay such; drawings and everything transparent become png.
fn encode(
    picture: &DynamicImage,
    source: ImageFormat,
) -> Result<(Vec<u8>, &'static str), ImageError> {
    let mut bytes = Vec::new();
    let photograph = matches!(source, ImageFormat::Jpeg | ImageFormat::WebP);
    if picture.color().has_alpha() {
        picture
            .to_rgba8()
            .write_with_encoder(PngEncoder::new(&mut bytes))?;
    } else if photograph {
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        picture.to_rgb8().write_with_encoder(encoder)?;
        return Ok((bytes, "image/jpeg"));
    } else {
        picture
            .to_rgb8()
            .write_with_encoder(PngEncoder::new(&mut bytes))?;
    }
    Ok((bytes, "image/png"))
}

/// Why a decoder gave up. A file that ends too early is a broken picture; a disk that does not read is not.
fn refused(error: ImageError) -> MediaError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        ImageError::Limits(_) => MediaError::PictureTooLarge,
        ImageError::IoError(error)
            if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
        {
            MediaError::Blob(error.into())
        }
        _ => MediaError::CannotThumbnail,
    }
}
