//! Pages, pictures and addresses that mean no good.

use std::time::Duration;

use bytes::Bytes;
use image::ImageFormat;
use serde_json::json;
use tokio::time::Instant;

use super::world::{Answer, World, picture, png};
use crate::{remote::TransportError, url_preview::PreviewError};

const PAGE: &str = "https://example.org/page";

#[tokio::test]
async fn only_urls_of_the_web_are_asked() {
    let world = World::new().await;
    for url in [
        "",
        "example.org",
        "file:///etc/passwd",
        "ftp://example.org/",
        "gopher://example.org/",
        "data:text/html,<title>a",
        "javascript:alert(1)",
        "https://",
        "https://user:pass@example.org/",
        "https://user@example.org/",
        &format!("https://example.org/{}", "a".repeat(5000)),
    ] {
        let outcome = world.try_of(url).await;
        assert!(
            matches!(outcome, Err(PreviewError::BadUrl)),
            "{url}: {outcome:?}"
        );
    }
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn every_redirect_is_judged_like_the_first_url() {
    let world = World::with(|settings| settings.deny_hosts = vec!["*.internal".to_owned()]).await;
    for (number, to) in [
        "file:///etc/passwd",
        "http://user@b.example/",
        "data:text/html,a",
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("https://a.example/{number}");
        world.leads(&from, to);
        assert!(
            matches!(
                world.try_of(&from).await,
                Err(PreviewError::Unreadable("it leads to no URL of the web"))
            ),
            "{to}"
        );
    }
    world
        .leads("https://a.example/x", "https://b.example/y")
        .leads("https://b.example/y", "//db.internal/");
    let outcome = world.try_of("https://a.example/x").await;
    assert!(
        matches!(outcome, Err(PreviewError::Excluded(_))),
        "{outcome:?}"
    );
    world
        .leads("https://a.example/p", "http://private.example/")
        .put("http://private.example/", Answer::NotPublic);
    let outcome = world.try_of("https://a.example/p").await;
    assert!(
        matches!(
            outcome,
            Err(PreviewError::Transport(TransportError::NotPublic(_)))
        ),
        "{outcome:?}"
    );
    assert!(
        !world
            .asked()
            .iter()
            .any(|url| url.contains("internal") || url.starts_with("file"))
    );
}

#[tokio::test]
async fn redirects_end() {
    let world = World::new().await;
    for number in 0..10 {
        world.leads(
            &format!("https://a.example/{number}"),
            &format!("/{}", number + 1),
        );
    }
    world.page("https://a.example/10", "<title>The end</title>");
    assert_eq!(world.of("https://a.example/5").await["og:title"], "The end");
    assert_eq!(world.asked().len(), 6);
    let outcome = world.try_of("https://a.example/4").await;
    assert!(
        matches!(outcome, Err(PreviewError::TooManyRedirects)),
        "{outcome:?}"
    );
    world.leads("https://a.example/circle", "https://a.example/circle");
    world.try_of("https://a.example/circle").await.unwrap_err();
    world.put(
        "https://a.example/nowhere",
        Answer::Head(302, "x", String::new()),
    );
    world.try_of("https://a.example/nowhere").await.unwrap_err();
}

#[tokio::test]
async fn lists_of_hosts_hold_for_pages_pictures_and_oembed() {
    let world = World::with(|settings| {
        settings.allow_hosts = vec!["*.example".to_owned()];
        settings.deny_hosts = vec!["bad.example".to_owned()];
    })
    .await;
    for url in [
        "https://other.org/",
        "https://bad.example/",
        "https://BAD.example./",
    ] {
        let outcome = world.try_of(url).await;
        assert!(
            matches!(outcome, Err(PreviewError::Excluded(_))),
            "{url}: {outcome:?}"
        );
    }
    world.page(
        "https://a.example/",
        "<title>A</title><meta property=og:image content=https://other.org/p.png>
        <link rel=alternate type=application/json+oembed href=https://bad.example/o>",
    );
    assert_eq!(
        world.of("https://a.example/").await,
        json!({ "og:title": "A" })
    );
    assert_eq!(world.asked(), ["https://a.example/"]);
}

#[tokio::test]
async fn a_picture_that_cannot_be_had_leaves_the_page_its_words() {
    let world = World::with(|settings| {
        settings.max_image_bytes = 10_000;
        settings.timeout = Duration::from_millis(300);
    })
    .await;
    let png_bytes = picture(2, 2, ImageFormat::Png);
    let huge = {
        // A header that says 60,000 by 60,000; nothing follows.
        let mut bytes = png_bytes.to_vec();
        bytes[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let sum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        Bytes::from(bytes)
    };
    for (name, answer) in [
        (
            "html",
            Answer::Body(
                "image/png",
                Bytes::from_static(b"<html><script>alert(1)</script>"),
            ),
        ),
        (
            "svg",
            Answer::Body(
                "image/svg+xml",
                Bytes::from_static(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            ),
        ),
        ("cut", Answer::Body("image/png", png_bytes.slice(..12))),
        ("huge", Answer::Body("image/png", huge)),
        ("endless", Answer::Endless("image/png", png_bytes.clone())),
        ("breaks", Answer::Breaks("image/png", png_bytes.clone())),
        ("stalls", Answer::Stalls("image/png", png_bytes)),
        ("never", Answer::Never),
        ("private", Answer::NotPublic),
        ("empty", Answer::Body("image/png", Bytes::new())),
        (
            "file",
            Answer::Head(302, "location", "file:///etc/passwd".to_owned()),
        ),
    ] {
        let (page, url) = (
            format!("https://example.org/{name}"),
            format!("https://pictures.example/{name}"),
        );
        world.put(&url, answer);
        world.page(
            &page,
            &format!("<title>{name}</title><meta property=og:image content={url}>"),
        );
        assert_eq!(world.of(&page).await, json!({ "og:title": name }));
    }
    for link in [
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "http://[bad",
        "https://u:p@a.example/p.png",
    ] {
        let page = format!("https://example.org/?{}", link.len());
        world.page(
            &page,
            &format!("<title>link</title><meta property=og:image content='{link}'>"),
        );
        assert_eq!(
            world.of(&page).await,
            json!({ "og:title": "link" }),
            "{link}"
        );
    }
    assert_eq!(world.media_rows().await, 0, "nothing is kept of them");
    assert_eq!(
        world
            .media
            .check(false, |it| panic!("{it}"))
            .await
            .unwrap()
            .blobs,
        0
    );
}

/// The checksum of a chunk of a PNG.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                (sum >> 1) ^ 0xEDB8_8320
            } else {
                sum >> 1
            }
        })
    })
}

#[tokio::test]
async fn a_picture_in_place_of_a_page_is_held_to_the_same() {
    let world = World::with(|settings| settings.max_image_bytes = 10_000).await;
    let lie = Answer::Body("image/png", Bytes::from_static(b"<html>"));
    world.put("https://a.example/lie.png", lie);
    world.put(
        "https://a.example/endless.png",
        Answer::Endless("image/png", picture(2, 2, ImageFormat::Png)),
    );
    world.try_of("https://a.example/lie.png").await.unwrap_err();
    world
        .try_of("https://a.example/endless.png")
        .await
        .unwrap_err();
    assert_eq!(world.media_rows().await, 0);
}

#[tokio::test]
async fn of_a_page_without_end_the_beginning_is_read() {
    let world = World::with(|settings| settings.max_page_bytes = 20_000).await;
    let title = Bytes::from_static(b"<title>Begins</title>");
    for (name, answer) in [
        ("endless", Answer::Endless("text/html", title.clone())),
        ("breaks", Answer::Breaks("text/html", title.clone())),
    ] {
        let url = format!("https://example.org/{name}");
        world.put(&url, answer);
        assert_eq!(world.of(&url).await["og:title"], "Begins", "{name}");
    }
    let late = format!("{}<title>Late</title>", " ".repeat(20_000));
    world.page(PAGE, &late);
    assert_eq!(world.of(PAGE).await, json!({}));
}

#[tokio::test]
async fn a_page_that_takes_too_long_has_no_preview() {
    let world = World::with(|settings| settings.timeout = Duration::from_millis(200)).await;
    let stalls = Answer::Stalls("text/html", Bytes::from_static(b"<title>a"));
    world
        .put("https://a.example/never", Answer::Never)
        .put("https://a.example/stalls", stalls);
    for path in ["never", "stalls"] {
        let outcome = world.try_of(&format!("https://a.example/{path}")).await;
        assert!(matches!(outcome, Err(PreviewError::TooSlow)), "{outcome:?}");
    }
}

#[tokio::test]
async fn when_all_places_are_taken_the_next_waits_a_while_and_may_come_again_at_once() {
    let world = World::with(|settings| settings.timeout = Duration::from_millis(200)).await;
    world.page(PAGE, "<title>Quick</title>");
    let taken = world.previews.inner.slots.acquire_many(16).await.unwrap();
    let outcome = world.try_of(PAGE).await;
    assert!(matches!(outcome, Err(PreviewError::Busy)), "{outcome:?}");
    drop(taken);
    assert_eq!(world.of(PAGE).await["og:title"], "Quick");
}

#[tokio::test]
async fn what_is_compressed_is_not_unpacked() {
    let world = World::new().await;
    world.put(
        PAGE,
        Answer::Head(200, "content-encoding", "gzip".to_owned()),
    );
    let outcome = world.try_of(PAGE).await;
    assert!(
        matches!(outcome, Err(PreviewError::Unreadable("it is compressed"))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_page_may_nest_as_deep_and_repeat_as_often_as_it_likes() {
    let world = World::new().await;
    let title = "<title>Deep</title>";
    let many = (0..90_000).fold(String::from("<a "), |tag, number| {
        format!("{tag}{number:x}= ")
    });
    let metas = (0..20_000).fold(String::new(), |all, number| {
        format!("{all}<meta name=og:{number} content=a>")
    });
    let open = "<div><b><table>".repeat(60_000);
    for (name, html) in [
        ("elements", format!("{title}{open}")),
        ("attributes", format!("{title}{many}")),
        ("metas", format!("{title}{metas}")),
        ("comment", format!("{title}<!--{}", "-".repeat(900_000))),
        (
            "entities",
            format!("{title}<p>{}", "&amp;&notit;&#x1F3E0;".repeat(40_000)),
        ),
        (
            "quotes",
            format!("{title}<meta content=\"{}", "<p>".repeat(300_000)),
        ),
        (
            "doctype",
            format!("{title}<!DOCTYPE {}", "a".repeat(900_000)),
        ),
        ("nulls", format!("{title}{}", "\0".repeat(900_000))),
    ] {
        let url = format!("https://example.org/{name}");
        world.page(&url, &html);
        let begun = Instant::now();
        let preview = world.of(&url).await;
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{name}: {:?}",
            begun.elapsed()
        );
        assert_eq!(preview["og:title"], "Deep", "{name}");
        assert!(preview.to_string().len() < 10_000, "{name}");
    }
}

#[tokio::test]
async fn a_page_leads_to_one_picture_and_one_document_and_these_to_nothing_more() {
    let world = World::new().await;
    let html = "<meta property=og:image content=https://a.example/1.png><meta property=og:image content=https://a.example/2.png>
        <meta name=twitter:image content=https://a.example/3.png><meta http-equiv=refresh content='0;url=https://a.example/4'>
        <link rel=alternate type=application/json+oembed href=/5><link rel=alternate type=application/json+oembed href=/6>
        <img src=https://a.example/7.png><script src=https://a.example/8.js></script>";
    world
        .page(PAGE, html)
        .put("https://a.example/1.png", png(1, 1))
        .page("https://example.org/5", html);
    world.of(PAGE).await;
    assert_eq!(
        world.asked(),
        [PAGE, "https://example.org/5", "https://a.example/1.png"]
    );
}
