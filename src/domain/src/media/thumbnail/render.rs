//! Making one thumbnail: read, shrink, turn, write. Blocking and hungry; runs on the blocking pool.
//!
//! The picture's format is told by its first bytes, never by what the uploader called it, and only four formats have a
//! decoder at all. Pixels and memory are judged from the header, before anything is decoded.

use std::io::{self, SeekFrom};

use image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageError, ImageFormat, Limits,
    codecs::{
        gif::{GifDecoder, Repeat},
        jpeg::{JpegDecoder, JpegEncoder},
        png::{PngDecoder, PngEncoder},
        webp::WebPDecoder,
    },
    imageops::FilterType,
    metadata::Orientation,
};

use super::{
    moving::repeat,
    plain::is_plain,
    sizes::{Plan, Wanted},
};
use crate::media::{MediaError, SeekRead};

const JPEG_QUALITY: u8 = 82;

/// What a picture may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) pixels: u64,
    pub(super) memory_bytes: u64,
    /// How many pictures an animation may have, and how many pixels all together, if its thumbnail is to move.
    pub(super) frames: usize,
    pub(super) frames_pixels: u64,
}

/// A thumbnail.
pub(super) enum Rendered {
    /// The picture itself does: it is no larger, does not move, and carries nothing but a picture.
    Itself(&'static str),
    /// A new file.
    Made(Vec<u8>, &'static str),
}

/// Makes a thumbnail that stands still. `wanted` is a size from the list.
pub(super) fn render(
    source: Box<dyn SeekRead>,
    wanted: Wanted,
    bounds: Bounds,
) -> Result<Rendered, MediaError> {
    let picture = Picture::open(source, bounds)?;
    let plan = picture.plan(wanted);
    let whole = plan.kept == picture.decoder.get().dimensions();
    if whole && picture.plain {
        return Ok(Rendered::Itself(picture.format.to_mime_type()));
    }
    let (format, orientation) = (picture.format, picture.orientation);
    let decoded = DynamicImage::from_decoder(picture.decoder.still()).map_err(refused)?;
    let (bytes, content_type) =
        encode(&small(decoded, plan, orientation), format).map_err(refused)?;
    Ok(Rendered::Made(bytes, content_type))
}

/// A picture as its thumbnail shows it. Shrinking comes before turning: it needs no second copy of the large picture.
pub(super) fn small(picture: DynamicImage, plan: Plan, orientation: Orientation) -> DynamicImage {
    let mut small = crop(shrink(picture, plan.scaled), plan.kept);
    small.apply_orientation(orientation);
    small
}

/// A picture whose header was read.
pub(super) struct Picture {
    pub(super) decoder: Decoder,
    pub(super) orientation: Orientation,
    pub(super) moves: bool,
    format: ImageFormat,
    /// The file holds nothing else, and stands still.
    plain: bool,
}

impl Picture {
    pub(super) fn open(mut source: Box<dyn SeekRead>, bounds: Bounds) -> Result<Self, MediaError> {
        let refused_io = |error| refused(ImageError::IoError(error));
        let format = sniff(&mut source).map_err(refused_io)?;
        let plain = is_plain(&mut source, format).map_err(refused_io)?;
        let mut limits = Limits::default();
        limits.max_alloc = Some(bounds.memory_bytes);
        let mut decoder = Decoder::open(source, format, &limits).map_err(refused)?;
        let moves = decoder.moves().map_err(refused)?;
        let pixels = pixels(decoder.get());
        let reading = decoder.get_mut();
        if pixels == 0 {
            return Err(MediaError::CannotThumbnail);
        }
        if pixels > bounds.pixels || reading.total_bytes() > bounds.memory_bytes {
            return Err(MediaError::PictureTooLarge);
        }
        reading.set_limits(limits).map_err(refused)?;
        // A broken orientation is no reason to show nothing.
        let orientation = reading.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(Self {
            decoder,
            format,
            orientation,
            plain: plain && !moves,
            moves,
        })
    }

    /// How many pixels it has.
    pub(super) fn pixels(&self) -> u64 {
        pixels(self.decoder.get())
    }

    /// What to do with the picture as it is stored.
    pub(super) fn plan(&self, wanted: Wanted) -> Plan {
        let (width, height) = self.decoder.get().dimensions();
        let turned = matches!(
            self.orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        match turned {
            true => Plan::new(wanted, (height, width)).turned(),
            false => Plan::new(wanted, (width, height)),
        }
    }
}

fn pixels(decoder: &dyn ImageDecoder) -> u64 {
    let (width, height) = decoder.dimensions();
    u64::from(width).saturating_mul(u64::from(height))
}

type Source = Box<dyn SeekRead>;

/// The decoders that there are.
pub(super) enum Decoder {
    Png(Box<PngDecoder<Source>>),
    WebP(Box<WebPDecoder<Source>>),
    Gif(Box<GifDecoder<Source>>),
    Jpeg(Box<JpegDecoder<Source>>),
}

impl Decoder {
    fn open(source: Source, format: ImageFormat, limits: &Limits) -> Result<Self, ImageError> {
        Ok(match format {
            ImageFormat::Png => {
                let decoder = PngDecoder::with_limits(source, limits.clone())?;
                Self::Png(Box::new(decoder))
            }
            ImageFormat::WebP => Self::WebP(Box::new(WebPDecoder::new(source)?)),
            ImageFormat::Gif => Self::Gif(Box::new(GifDecoder::new(source)?)),
            _ => Self::Jpeg(Box::new(JpegDecoder::new(source)?)),
        })
    }

    /// Whether the picture moves. A gif counts as moving, since only reading it whole tells.
    fn moves(&self) -> Result<bool, ImageError> {
        match self {
            Self::Png(decoder) => decoder.is_apng(),
            Self::WebP(decoder) => Ok(decoder.has_animation()),
            Self::Gif(_) => Ok(true),
            Self::Jpeg(_) => Ok(false),
        }
    }

    fn get(&self) -> &dyn ImageDecoder {
        match self {
            Self::Png(decoder) => decoder,
            Self::WebP(decoder) => decoder,
            Self::Gif(decoder) => decoder,
            Self::Jpeg(decoder) => decoder,
        }
    }

    fn get_mut(&mut self) -> &mut dyn ImageDecoder {
        match self {
            Self::Png(decoder) => decoder,
            Self::WebP(decoder) => decoder,
            Self::Gif(decoder) => decoder,
            Self::Jpeg(decoder) => decoder,
        }
    }

    fn still(self) -> Box<dyn ImageDecoder> {
        match self {
            Self::Png(decoder) => decoder,
            Self::WebP(decoder) => decoder,
            Self::Gif(decoder) => decoder,
            Self::Jpeg(decoder) => decoder,
        }
    }

    /// The pictures of an animation, each whole, and how often all are shown. `None` if the format has none.
    pub(super) fn frames(self) -> Result<Option<(Frames<'static>, Repeat)>, ImageError> {
        fn of<'a>(decoder: impl AnimationDecoder<'a>) -> Option<(Frames<'a>, Repeat)> {
            let repeat = repeat(decoder.loop_count());
            Some((decoder.into_frames(), repeat))
        }
        Ok(match self {
            Self::Png(decoder) => of(decoder.apng()?),
            Self::WebP(decoder) => of(*decoder),
            Self::Gif(decoder) => of(*decoder),
            Self::Jpeg(_) => None,
        })
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
pub(super) fn refused(error: ImageError) -> MediaError {
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
