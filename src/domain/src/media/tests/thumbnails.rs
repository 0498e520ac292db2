//! Thumbnails of every format, and pictures that are refused.

use super::*;

#[tokio::test]
async fn thumbnails_of_every_format_are_pictures_of_the_asked_size() {
    let fixture = fixture().await;
    for (format, expected) in [
        (ImageFormat::Png, "image/png"),
        (ImageFormat::Jpeg, "image/jpeg"),
        (ImageFormat::Gif, "image/png"),
        (ImageFormat::WebP, "image/jpeg"),
    ] {
        let uri = fixture.upload(&picture(1000, 500, format)).await;
        for (method, wanted, got) in [
            (Method::Crop, (32, 32), (32, 32)),
            (Method::Crop, (90, 90), (96, 96)),
            (Method::Scale, (320, 240), (480, 240)),
            (Method::Scale, (800, 600), (1000, 500)),
        ] {
            let (content_type, bytes) = fixture
                .thumbnail(&uri, wanted.0, wanted.1, method)
                .await
                .unwrap();
            let made = image::load_from_memory(&bytes).unwrap().to_rgb8();
            assert_eq!(made.dimensions(), got, "{format:?} {method:?} {wanted:?}");
            let is_whole = got == (1000, 500) && format != ImageFormat::Gif;
            assert_eq!(
                content_type,
                if is_whole {
                    format.to_mime_type()
                } else {
                    expected
                }
            );
            let (left, right) = (made.get_pixel(1, 1), made.get_pixel(got.0 - 2, 1));
            assert!(
                left[0] > 200 && left[2] < 60 && right[2] > 200 && right[0] < 60,
                "{format:?} {left:?} {right:?}"
            );
        }
    }
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn a_small_picture_is_its_own_thumbnail() {
    let fixture = fixture().await;
    let bytes = picture(20, 10, ImageFormat::Png);
    let uri = fixture.upload(&bytes).await;
    for method in [Method::Crop, Method::Scale] {
        assert!(fixture.thumbnail(&uri, 32, 32, method).await.unwrap().1 == bytes);
    }
    assert_eq!(fixture.files("blobs").len(), 1);
    assert_eq!(fixture.problems(false).await, []);
}

/// A jpeg whose Exif says that it is to be turned by 90 degrees clockwise.
fn turned_jpeg(width: u32, height: u32) -> Vec<u8> {
    let plain = picture(width, height, ImageFormat::Jpeg);
    let tiff: &[u8] = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = (tiff.len() as u16 + 2).to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, tiff, &plain[2..]].concat()
}

#[tokio::test]
async fn the_orientation_of_a_photograph_is_applied() {
    let fixture = fixture().await;
    for (width, height, got) in [(1000, 500, (320, 640)), (20, 10, (10, 20))] {
        let uri = fixture.upload(&turned_jpeg(width, height)).await;
        let (content_type, bytes) = fixture
            .thumbnail(&uri, 320, 240, Method::Scale)
            .await
            .unwrap();
        assert_eq!(content_type, "image/jpeg");
        let made = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(made.dimensions(), got);
        let (top, bottom) = (made.get_pixel(2, 1), made.get_pixel(2, got.1 - 2));
        assert!(
            top[0] > 150 && bottom[2] > 150,
            "red was left and is now on top: {top:?} {bottom:?}"
        );
        assert!(!bytes.windows(4).any(|window| window == b"Exif"));
    }
}

#[tokio::test]
async fn what_is_no_picture_or_a_hostile_one_is_refused() {
    let fixture = fixture_with(|settings| settings.max_picture_pixels = 100_000).await;
    let png = picture(300, 300, ImageFormat::Png);
    let mut lying = picture(10, 10, ImageFormat::Png);
    lying[16..24].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0x7f, 0xff]);
    let bomb = picture(400, 300, ImageFormat::Png);
    let truncated = &png[..png.len() / 2];
    let cases: [(&str, &[u8], bool); 7] = [
        ("nothing", b"", false),
        ("html", b"<html><script>alert(1)</script></html>", false),
        ("svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", false),
        ("bmp", b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", false),
        ("truncated", truncated, false),
        ("a checksum that does not match", &lying, false),
        ("too many pixels", &bomb, true),
    ];
    for (name, bytes, too_large) in cases {
        let mut upload = by(user_id!("@alice:test"));
        upload.content_type = Some("image/png".to_owned());
        let uri = fixture.media.upload(upload, body(bytes)).await.unwrap();
        match fixture.thumbnail(&uri, 32, 32, Method::Crop).await {
            Err(MediaError::PictureTooLarge) => assert!(too_large, "{name}"),
            Err(MediaError::CannotThumbnail) => assert!(!too_large, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let uri = fixture.upload(&png).await;
    assert!(fixture.thumbnail(&uri, 0, 32, Method::Crop).await.is_err());
    assert!(fixture.thumbnail(&uri, 32, 32, Method::Crop).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thumbnail_asked_for_by_many_is_made_once() {
    let fixture = fixture().await;
    let uri = fixture.upload(&picture(900, 900, ImageFormat::Png)).await;
    let asks = (0..20).map(|_| fixture.thumbnail(&uri, 96, 96, Method::Crop));
    let made = futures::future::join_all(asks).await;
    assert!(made.iter().all(Result::is_ok));
    let rows = fixture
        .store
        .view()
        .range(
            &THUMBNAILS,
            Range::all(),
            vatra_store::Direction::Forward,
            9,
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    // A second making would have failed its batch's assert, or counted its blob twice.
    assert_eq!(
        fixture
            .store
            .view()
            .get(&BLOB_USES, &rows[0].1.blob)
            .await
            .unwrap(),
        Some(1)
    );
    assert_eq!(fixture.files("tmp").len(), 0);
}
