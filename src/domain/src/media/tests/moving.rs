//! Thumbnails that move, and what they leave out.

use image::{
    AnimationDecoder, Delay, Frame, ImageEncoder, Rgba, RgbaImage,
    codecs::{
        gif::{GifDecoder, GifEncoder},
        png::PngEncoder,
        webp::WebPEncoder,
    },
};

use super::*;

/// What no thumbnail may hold.
const SECRET: &[u8] = b"52.5200N 13.4050E";
const COLOURS: [[u8; 4]; 3] = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]];

fn pictures(width: u32, height: u32) -> Vec<RgbaImage> {
    COLOURS
        .map(|colour| RgbaImage::from_pixel(width, height, Rgba(colour)))
        .to_vec()
}

fn gif(pictures: &[RgbaImage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for picture in pictures {
        let delay = Delay::from_numer_denom_ms(120, 1);
        let frame = Frame::from_parts(picture.clone(), 0, 0, delay);
        encoder.encode_frame(frame).unwrap();
    }
    drop(encoder);
    bytes
}

/// A chunk of a png.
fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [&name[..], data].concat();
    let mut sum = u32::MAX;
    for byte in &named {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = sum & 1 == 1;
            sum = (sum >> 1) ^ if odd { 0xedb8_8320 } else { 0 };
        }
    }
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], &named, &(!sum).to_be_bytes()].concat()
}

/// The pixels of a png.
fn png_pixels(picture: &RgbaImage) -> Vec<u8> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(
            picture,
            picture.width(),
            picture.height(),
            image::ExtendedColorType::Rgba8,
        )
        .unwrap();
    let (mut rest, mut pixels) = (&png[8..], Vec::new());
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        if &rest[4..8] == b"IDAT" {
            pixels.extend_from_slice(&rest[8..8 + length]);
        }
        rest = &rest[12 + length..];
    }
    pixels
}

/// A png that moves if it has several pictures, with other chunks after its head.
fn png(pictures: &[RgbaImage], others: &[u8]) -> Vec<u8> {
    let (width, height) = pictures[0].dimensions();
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let head = [&sides[..], &[8, 6, 0, 0, 0]].concat();
    let mut bytes = [b"\x89PNG\r\n\x1a\n", &png_chunk(b"IHDR", &head)[..], others].concat();
    let moves = pictures.len() > 1;
    if moves {
        let count = (pictures.len() as u32).to_be_bytes();
        bytes.extend(png_chunk(b"acTL", &[count, [0; 4]].concat()));
    }
    let mut number: u32 = 0;
    for (index, picture) in pictures.iter().enumerate() {
        if moves {
            let (place, delay) = ([0; 8], [0, 120, 3, 232]);
            let control = [&number.to_be_bytes()[..], &sides, &place, &delay, &[0, 0]].concat();
            bytes.extend(png_chunk(b"fcTL", &control));
            number += 1;
        }
        let pixels = png_pixels(picture);
        if index == 0 {
            bytes.extend(png_chunk(b"IDAT", &pixels));
        } else {
            bytes.extend(png_chunk(
                b"fdAT",
                &[&number.to_be_bytes()[..], &pixels].concat(),
            ));
            number += 1;
        }
    }
    bytes.extend(png_chunk(b"IEND", b""));
    bytes
}

fn webp_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_le_bytes();
    let even = if data.len() % 2 == 1 { &[0][..] } else { &[] };
    [&name[..], &length, data, even].concat()
}

/// A webp that moves if it has several pictures, with other chunks at its end.
fn webp(pictures: &[RgbaImage], flags: u8, others: &[u8]) -> Vec<u8> {
    let short = |number: u32| number.to_le_bytes()[..3].to_vec();
    let (width, height) = pictures[0].dimensions();
    let sides = [short(width - 1), short(height - 1)].concat();
    let moves = pictures.len() > 1;
    let flags = flags | if moves { 0x12 } else { 0x10 };
    let mut inner = webp_chunk(b"VP8X", &[&[flags, 0, 0, 0], &sides[..]].concat());
    if moves {
        inner.extend(webp_chunk(b"ANIM", &[0; 6]));
    }
    for picture in pictures {
        let mut one = Vec::new();
        WebPEncoder::new_lossless(&mut one)
            .write_image(picture, width, height, image::ExtendedColorType::Rgba8)
            .unwrap();
        // Behind the head of the file.
        let pixels = &one[12..];
        if moves {
            let frame = [&[0; 6], &sides[..], &short(120), &[0], pixels].concat();
            inner.extend(webp_chunk(b"ANMF", &frame));
        } else {
            inner.extend_from_slice(pixels);
        }
    }
    inner.extend_from_slice(others);
    let length = (inner.len() as u32 + 4).to_le_bytes();
    [b"RIFF", &length[..], b"WEBP", &inner].concat()
}

fn wanted(animated: bool) -> Wanted {
    Wanted {
        width: 96,
        height: 96,
        method: Method::Crop,
        animated,
    }
}

fn frames(gif: &[u8]) -> Vec<Frame> {
    let decoder = GifDecoder::new(Cursor::new(gif)).unwrap();
    decoder.into_frames().collect_frames().unwrap()
}

#[tokio::test]
async fn a_thumbnail_moves_if_that_is_wanted_and_the_picture_does() {
    let fixture = fixture().await;
    let large = pictures(300, 200);
    for (name, bytes) in [
        ("gif", gif(&large)),
        ("png", png(&large, b"")),
        ("webp", webp(&large, 0, b"")),
    ] {
        let uri = fixture.upload(&bytes).await;
        let (content_type, made) = fixture.thumbnail_of(&uri, wanted(true)).await.unwrap();
        assert_eq!(content_type, "image/gif", "{name}");
        let shown = frames(&made);
        assert_eq!(shown.len(), 3, "{name}");
        for (frame, colour) in shown.iter().zip(COLOURS) {
            assert_eq!(frame.delay().numer_denom_ms(), (120, 1), "{name}");
            assert_eq!(frame.buffer().dimensions(), (96, 96), "{name}");
            let got = frame.buffer().get_pixel(48, 48).0;
            let near = got
                .iter()
                .zip(colour)
                .all(|(got, is)| got.abs_diff(is) < 10);
            assert!(near, "{name}: {got:?} is not {colour:?}");
        }
        let (content_type, still) = fixture.thumbnail_of(&uri, wanted(false)).await.unwrap();
        assert_eq!(content_type, "image/png", "{name}");
        let still = image::load_from_memory(&still).unwrap().to_rgba8();
        let got = still.get_pixel(48, 48).0;
        let near = got
            .iter()
            .zip(COLOURS[0])
            .all(|(got, is)| got.abs_diff(is) < 10);
        assert!(near, "{name}: {got:?}");
    }
    for bytes in [
        picture(300, 200, ImageFormat::Jpeg),
        picture(300, 200, ImageFormat::Png),
        gif(&large[..1]),
    ] {
        let uri = fixture.upload(&bytes).await;
        let moving = fixture.thumbnail_of(&uri, wanted(true)).await.unwrap();
        let still = fixture.thumbnail_of(&uri, wanted(false)).await.unwrap();
        assert_eq!(moving, still);
    }
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn a_small_animation_stands_still_unless_motion_is_wanted() {
    let fixture = fixture().await;
    let small = pictures(20, 10);
    for bytes in [gif(&small), png(&small, b""), webp(&small, 0, b"")] {
        let uri = fixture.upload(&bytes).await;
        let (content_type, still) = fixture.thumbnail_of(&uri, wanted(false)).await.unwrap();
        assert_eq!(content_type, "image/png");
        assert!(!still.windows(4).any(|name| name == b"acTL"));
        let (content_type, moving) = fixture.thumbnail_of(&uri, wanted(true)).await.unwrap();
        assert_eq!(
            (content_type.as_str(), frames(&moving).len()),
            ("image/gif", 3)
        );
    }
}

#[tokio::test]
async fn what_is_transparent_stays_so_in_motion() {
    let fixture = fixture().await;
    let mut clear = pictures(300, 200);
    for picture in &mut clear {
        for (x, _, pixel) in picture.enumerate_pixels_mut() {
            pixel.0[3] = if x < 150 { 0 } else { 200 };
        }
    }
    let uri = fixture.upload(&png(&clear, b"")).await;
    let (_, made) = fixture.thumbnail_of(&uri, wanted(true)).await.unwrap();
    for frame in frames(&made) {
        let alpha = |x| frame.buffer().get_pixel(x, 48).0[3];
        assert_eq!((alpha(2), alpha(93)), (0, 255));
    }
}

#[tokio::test]
async fn an_animation_that_costs_too_much_or_breaks_off_stands_still() {
    let large = pictures(300, 200);
    let whole = gif(&large);
    let broken = &whole[..whole.len() - 40];
    type Case<'a> = (&'a str, fn(&mut Settings), &'a [u8]);
    let bounds: [Case; 4] = [
        (
            "frames",
            |settings| settings.max_animation_frames = 2,
            &whole,
        ),
        (
            "pixels",
            |settings| settings.max_animation_pixels = 150_000,
            &whole,
        ),
        (
            "memory",
            |settings| settings.max_picture_memory_bytes = 700_000,
            &whole,
        ),
        ("an end that is missing", |_| {}, broken),
    ];
    for (name, change, bytes) in bounds {
        let fixture = fixture_with(change).await;
        let uri = fixture.upload(bytes).await;
        let (content_type, _) = fixture.thumbnail_of(&uri, wanted(true)).await.unwrap();
        assert_eq!(content_type, "image/png", "{name}");
    }
}

#[tokio::test]
async fn a_picture_that_takes_too_long_is_given_up_and_its_place_given_back() {
    let fixture = fixture_with(|settings| {
        settings.max_thumbnail_time = Duration::ZERO;
        settings.concurrent_thumbnails = 1;
    })
    .await;
    let uri = fixture.upload(&gif(&pictures(900, 900))).await;
    for _ in 0..3 {
        let given_up = fixture.thumbnail_of(&uri, wanted(true)).await;
        assert!(
            matches!(given_up, Err(MediaError::PictureTooLarge)),
            "{given_up:?}"
        );
    }
}

#[tokio::test]
async fn no_thumbnail_says_where_a_picture_was_taken() {
    let fixture = fixture().await;
    let small = pictures(20, 10);
    let text = [b"Comment\0", SECRET].concat();
    let rich = [b"XML:com.adobe.xmp\0\0\0\0\0", SECRET].concat();
    let jpeg = picture(20, 10, ImageFormat::Jpeg);
    let marked = |marker: u8, name: &[u8]| {
        let data = [name, SECRET].concat();
        let length = (data.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xff, marker], &length, &data, &jpeg[2..]].concat()
    };
    let plain = png(&small[..1], b"");
    let mut told = gif(&small);
    let end = told.len() - 1;
    let comment = [&[0x21, 0xfe, SECRET.len() as u8], SECRET, &[0]].concat();
    told.splice(end..end, comment);
    for (name, bytes) in [
        (
            "exif of a jpeg",
            marked(0xe1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
        ),
        (
            "xmp of a jpeg",
            marked(0xe1, b"http://ns.adobe.com/xap/1.0/\0"),
        ),
        ("iptc of a jpeg", marked(0xed, b"Photoshop 3.0\0")),
        ("a comment of a jpeg", marked(0xfe, b"")),
        (
            "text of a png",
            png(&small[..1], &png_chunk(b"tEXt", &text)),
        ),
        ("xmp of a png", png(&small[..1], &png_chunk(b"iTXt", &rich))),
        (
            "exif of a png",
            png(&small[..1], &png_chunk(b"eXIf", SECRET)),
        ),
        ("after a png", [&plain[..], SECRET].concat()),
        (
            "exif of a webp",
            webp(&small[..1], 8, &webp_chunk(b"EXIF", SECRET)),
        ),
        (
            "xmp of a webp",
            webp(&small[..1], 4, &webp_chunk(b"XMP ", SECRET)),
        ),
        (
            "after a webp",
            [&webp(&small[..1], 0, b"")[..], SECRET].concat(),
        ),
        (
            "text of a png that moves",
            png(&small, &png_chunk(b"tEXt", &text)),
        ),
        ("a comment of a gif", told),
    ] {
        let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(holds(&bytes), "{name}");
        let uri = fixture.upload(&bytes).await;
        for animated in [false, true] {
            let (_, made) = fixture.thumbnail_of(&uri, wanted(animated)).await.unwrap();
            let picture = image::load_from_memory(&made).unwrap();
            assert_eq!((picture.width(), picture.height()), (20, 10), "{name}");
            assert!(!holds(&made), "{name}");
        }
    }
    // One that holds nothing else is its own thumbnail.
    for bytes in [plain, webp(&small[..1], 0, b"")] {
        let uri = fixture.upload(&bytes).await;
        assert!(fixture.thumbnail_of(&uri, wanted(false)).await.unwrap().1 == bytes);
    }
}
