//! What previews say of pages that mean well.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use image::ImageFormat;
use ruma::OwnedMxcUri;
use serde_json::{Value, json};

use super::world::{Answer, World, picture, png};

const PAGE: &str = "https://example.org/a/page.html";

#[tokio::test]
async fn a_page_is_shown_by_what_it_says_of_itself() {
    let world = World::new().await;
    world.put("https://example.org/a/test.png", png(30, 20)).page(
        PAGE,
        r#"<html prefix="og: http://ogp.me/ns#"><head><title>Another title</title>
        <meta property="og:title" content="  The&nbsp;Rock &amp;
           roll" /><meta property="og:title" content="The second">
        <meta property="og:type" content="video.movie"><meta property="og:url" content="/title/1#top">
        <meta property="og:image" content="test.png"><meta property="og:image:width" content="9999">
        <meta property="og:image:alt" content="A rock">
        <meta property="og:video" content="https://tracker.example/v.mp4">
        <meta property="og:audio:url" content="https://tracker.example/a.ogg"></head>"#,
    );
    let mut preview = world.of(PAGE).await;
    let image = preview["og:image"].take();
    let expected = json!({
        "og:title": "The Rock & roll", "og:type": "video.movie", "og:url": "https://example.org/title/1#top",
        "og:image": null, "og:image:alt": "A rock", "og:image:type": "image/png",
        "og:image:width": 30, "og:image:height": 20,
        "matrix:image:size": picture(30, 20, ImageFormat::Png).len(),
    });
    assert_eq!(preview, expected, "and neither video nor sound");
    // The picture is media of this server.
    let uri: OwnedMxcUri = image.as_str().unwrap().into();
    let (server, id) = uri.parts().unwrap();
    let file = world
        .media
        .open(server, id, Duration::ZERO, false)
        .await
        .unwrap();
    assert_eq!(
        (server.as_str(), &*file.content_type),
        ("test", "image/png")
    );
    assert_eq!(
        world
            .media
            .check(false, |it| panic!("{it}"))
            .await
            .unwrap()
            .media,
        1
    );
}

#[tokio::test]
async fn cards_titles_and_text_stand_in_for_what_is_missing() {
    let world = World::new().await;
    world.put(
        "https://pictures.example/x.gif",
        Answer::Body("text/plain", picture(3, 4, ImageFormat::Gif)),
    );
    world.page(
        PAGE,
        r#"<base href="https://pictures.example/"><meta name="twitter:title" content="A card">
        <meta name="Twitter:Description" content="of few words"><meta name="twitter:image" content="x.gif">
        <meta name="description" content="not this"><title>nor this</title>"#,
    );
    let card = world.of(PAGE).await;
    assert_eq!(
        (&card["og:title"], &card["og:description"]),
        (&json!("A card"), &json!("of few words"))
    );
    assert_eq!(card["og:image:type"], "image/gif", "by its bytes");

    let plain = "https://example.org/plain";
    let long = "This paragraph is the first that says something worth telling.";
    world.page(
        plain,
        &format!(
            "<title>A &lt;b&gt; title</title><script>document.write('<title>no</title><p>{long}')</script>
            <style><p></style><nav><p>{long} In a menu.</p></nav><textarea><p>{long} Typed.</p></textarea>
            <p>Short.</p><p>{long}<br>And <b>goes</b> on.</p><title>Later</title>"
        ),
    );
    let expected =
        json!({ "og:title": "A <b> title", "og:description": format!("{long} And goes on.") });
    assert_eq!(world.of(plain).await, expected);
}

#[tokio::test]
async fn an_oembed_document_says_what_the_page_does_not() {
    let world = World::new().await;
    let document = json!({
        "type": "rich", "version": 1.0, "title": "From the document", "author_name": "Ana", "provider_name": "Example",
        "thumbnail_url": "t.png", "html": "<script>alert(1)</script>", "url": "https://elsewhere.example/never",
        "thumbnail_width": "wide",
    });
    let json_of = |document: &Value| Answer::Body("application/json", document.to_string().into());
    world
        .put("https://api.example/o?u=1&v=2", json_of(&document))
        .put("https://api.example/t.png", png(5, 6))
        .page(
            PAGE,
            r#"<meta property="og:title" content="From the page">
            <link rel="alternate nofollow" TYPE="application/json+oembed" href="https://api.example/o?u=1&amp;v=2">"#,
        );
    let preview = world.of(PAGE).await;
    assert_eq!(preview["og:title"], "From the page");
    assert_eq!(
        (&preview["og:site_name"], &preview["og:description"]),
        (&json!("Example"), &json!("Ana"))
    );
    assert_eq!(
        (
            &preview["og:image:width"],
            preview.to_string().contains("<script")
        ),
        (&json!(5), false)
    );

    // A photo is its own picture; and a document that is none changes nothing.
    let photo = json!({ "type": "photo", "url": "https://api.example/t.png", "thumbnail_url": "https://api.example/none" });
    world
        .put("https://api.example/photo", json_of(&photo))
        .page(
            "https://example.org/photo",
            "<link rel=alternate type=application/json+oembed href=https://api.example/photo>",
        );
    assert_eq!(
        world.of("https://example.org/photo").await["og:image:height"],
        6
    );
    world.put("https://api.example/bad", Answer::Body("application/json", Bytes::from_static(b"[{}]"))).page(
        "https://example.org/bad",
        "<title>Still</title><link rel=alternate type=application/json+oembed href=https://api.example/bad>",
    );
    assert_eq!(
        world.of("https://example.org/bad").await,
        json!({ "og:title": "Still" })
    );
}

#[tokio::test]
async fn a_picture_is_its_own_preview_and_other_files_have_none() {
    let world = World::new().await;
    world
        .put(
            "http://example.org/p.jpg",
            Answer::Body("image/jpeg", picture(7, 8, ImageFormat::Jpeg)),
        )
        .put(
            "http://example.org/f.pdf",
            Answer::Body("application/pdf", Bytes::from_static(b"%PDF")),
        );
    let preview = world.of("http://example.org/p.jpg").await;
    assert_eq!(
        (&preview["og:image:type"], &preview["og:image:height"]),
        (&json!("image/jpeg"), &json!(8))
    );
    assert_eq!(world.of("http://example.org/f.pdf").await, json!({}));
}

#[tokio::test]
async fn a_page_is_fetched_once_however_many_ask_and_again_after_a_while() {
    let world = World::new().await;
    world.page(PAGE, "<title>Before</title>");
    let with_fragments = ["#a", "#b", ""].map(|fragment| format!("{PAGE}{fragment}"));
    let asking = with_fragments.iter().map(|url| world.of(url));
    let previews = futures::future::join_all(asking).await;
    assert!(
        previews.iter().all(|it| it["og:title"] == "Before"),
        "{previews:?}"
    );
    world.page(PAGE, "<title>After</title>");
    world.clock.advance(3_599_999);
    assert_eq!(world.of(PAGE).await["og:title"], "Before");
    assert_eq!(world.asked(), [PAGE]);
    world.clock.advance(1);
    assert_eq!(world.of(PAGE).await["og:title"], "After");

    // That there is none is kept for a minute.
    let missing = "https://example.org/missing";
    world.try_of(missing).await.unwrap_err();
    world.page(missing, "<title>Found</title>");
    world.clock.advance(59_999);
    world.try_of(missing).await.unwrap_err();
    world.clock.advance(1);
    assert_eq!(world.of(missing).await["og:title"], "Found");
}

#[tokio::test]
async fn who_asks_and_goes_away_has_asked_for_the_next() {
    let world = World::new().await;
    world.page(PAGE, "<title>There</title>");
    let gone = world.previews.of(PAGE).now_or_never();
    assert!(gone.is_none(), "before the answer");
    assert_eq!(world.of(PAGE).await["og:title"], "There");
    assert_eq!(world.asked(), [PAGE]);
}

#[tokio::test]
async fn long_texts_are_cut() {
    let world = World::new().await;
    let long = "ă".repeat(1200);
    world.page(
        PAGE,
        &format!(
            "<meta property=og:title content={long}><meta property=og:description content={long}>"
        ),
    );
    let preview = world.of(PAGE).await;
    let length = |name: &str| preview[name].as_str().unwrap().chars().count();
    assert_eq!((length("og:title"), length("og:description")), (300, 1000));
}
