//! Pictures and files, over HTTP, against a real server on port 0.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use vatra::{
    config::Config,
    server::{Running, open_engine, start},
};
use vatra_store::MemoryEngine;

use crate::harness::{Engine, on_both_engines};

on_both_engines!(
    a_file_comes_back_with_the_headers_of_the_spec,
    a_part_of_a_file_is_sent_alone_and_what_the_client_has_is_not_sent,
    what_may_run_in_a_browser_is_never_shown_in_place,
    thumbnails_are_pictures_and_need_one,
    media_needs_a_token_unless_the_operator_serves_the_old_paths,
    what_is_too_large_or_unknown_is_refused_in_the_words_of_the_spec,
    a_reserved_id_is_filled_once_by_who_reserved_it,
    admins_keep_media_from_everyone_and_give_it_back,
    who_has_as_much_as_one_may_have_uploads_no_more,
);

struct Server {
    running: Running,
    client: Client,
    token: String,
    _folder: TempDir,
}

impl Server {
    async fn start(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        // A second test of this process finds it installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::try_it();
        config.data_dir = folder.path().join("data");
        config.media_dir = folder.path().join("media");
        config.client.listen = "127.0.0.1:0".parse().unwrap();
        config.federation.enabled = false;
        change(&mut config);
        let engine: Arc<dyn vatra_store::Engine> = match engine {
            Engine::Memory => Arc::new(MemoryEngine::new()),
            Engine::RocksDb => open_engine(&config).await.unwrap(),
        };
        let running = start(config, engine).await.unwrap();
        let client = Client::new();
        let mut server = Self {
            running,
            client,
            token: String::new(),
            _folder: folder,
        };
        server.token = server.register("alice").await;
        server
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(
            method,
            format!("http://{}/_matrix/{path}", self.running.client),
        )
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path).bearer_auth(&self.token)
    }

    async fn register(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": "correct horse battery", "auth": { "type": "m.login.dummy" } });
        let answer = self
            .request(Method::POST, "client/v3/register")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Uploads; gives `server/id`.
    async fn upload(
        &self,
        query: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> String {
        let request = self
            .request(Method::POST, &format!("media/v3/upload{query}"))
            .bearer_auth(&self.token);
        let answer = request
            .header("content-type", content_type)
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let uri = answer.json::<Value>().await.unwrap()["content_uri"]
            .as_str()
            .unwrap()
            .to_owned();
        uri.strip_prefix("mxc://").unwrap().to_owned()
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

async fn refused(request: RequestBuilder, status: u16, code: &str) {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), status);
    assert_eq!(answer.json::<Value>().await.unwrap()["errcode"], code);
}

/// A picture of one colour, 400 by 200.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(400, 200, image::Rgb([9, 99, 199]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Two pictures, 400 by 200.
fn gif() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for colour in [[9, 99, 199, 255], [199, 99, 9, 255]] {
        let picture = image::RgbaImage::from_pixel(400, 200, image::Rgba(colour));
        encoder.encode_frame(image::Frame::new(picture)).unwrap();
    }
    drop(encoder);
    bytes
}

async fn a_file_comes_back_with_the_headers_of_the_spec(engine: Engine) {
    let server = Server::start(engine, |_| {}).await;
    let id = server
        .upload(
            "?filename=a%3Bb%20%22c%22.txt",
            "Text/Plain; charset=utf-8",
            "hello",
        )
        .await;
    let answer = server
        .get(&format!("client/v1/media/download/{id}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "Text/Plain; charset=utf-8");
    assert_eq!(header(&answer, "content-length"), "5");
    assert_eq!(
        header(&answer, "content-disposition"),
        r#"inline; filename="a;b \"c\".txt""#
    );
    assert!(header(&answer, "content-security-policy").starts_with("sandbox; default-src 'none';"));
    assert_eq!(
        header(&answer, "cross-origin-resource-policy"),
        "cross-origin"
    );
    assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    assert!(header(&answer, "cache-control").contains("immutable"));
    assert_eq!(answer.text().await.unwrap(), "hello");

    let named = server
        .get(&format!("client/v1/media/download/{id}/%E2%98%95"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        header(&named, "content-disposition"),
        "inline; filename*=utf-8''%E2%98%95"
    );
    let id = server.upload("", "image/svg+xml", "<svg/>").await;
    let saved = server
        .get(&format!("client/v1/media/download/{id}"))
        .send()
        .await
        .unwrap();
    assert_eq!(header(&saved, "content-disposition"), "attachment");
    server.running.stop().await;
}

async fn a_part_of_a_file_is_sent_alone_and_what_the_client_has_is_not_sent(engine: Engine) {
    let server = Server::start(engine, |config| config.media.legacy_unauthenticated = true).await;
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(600_000).collect();
    let id = server.upload("", "video/mp4", bytes.clone()).await;
    let picture = server.upload("", "image/png", png()).await;
    let file = format!("client/v1/media/download/{id}");
    let paths = [
        file.clone(),
        format!("{file}/film.mp4"),
        format!("media/v3/download/{id}"),
        format!("client/v1/media/thumbnail/{picture}?width=32&height=32&method=crop"),
    ];
    for path in paths {
        let whole = server.get(&path).send().await.unwrap();
        assert_eq!(whole.status(), 200, "{path}");
        assert_eq!(header(&whole, "accept-ranges"), "bytes");
        let tag = header(&whole, "etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() == 66, "{tag}");
        let (size, kept) = (
            whole.content_length().unwrap(),
            header(&whole, "cache-control").to_owned(),
        );
        let content_type = header(&whole, "content-type").to_owned();
        let whole = whole.bytes().await.unwrap();

        for (range, place) in [
            ("bytes=0-0", 0..1),
            ("bytes=7-", 7..whole.len()),
            ("bytes=-5", whole.len() - 5..whole.len()),
            ("bytes=3-999999999", 3..whole.len()),
        ] {
            let part = server
                .get(&path)
                .header("range", range)
                .header("if-range", &tag);
            let part = part.send().await.unwrap();
            assert_eq!(part.status(), 206, "{path} {range}");
            let said = format!("bytes {}-{}/{size}", place.start, place.end - 1);
            assert_eq!(header(&part, "content-range"), said);
            assert_eq!(
                part.content_length(),
                Some(u64::try_from(place.len()).unwrap())
            );
            assert_eq!(header(&part, "content-type"), content_type);
            assert_eq!(header(&part, "x-content-type-options"), "nosniff");
            assert!(header(&part, "content-security-policy").starts_with("sandbox;"));
            assert!(
                part.bytes().await.unwrap() == whole[place],
                "{path} {range}"
            );
        }
        for (name, value) in [
            ("range", "bytes=0-1,4-5"),
            ("range", "bytes=9-2"),
            ("if-none-match", "\"x\""),
        ] {
            let all = server.get(&path).header(name, value).send().await.unwrap();
            assert_eq!(all.status(), 200, "{path} {value}");
            assert!(all.bytes().await.unwrap() == whole, "{path} {value}");
        }
        let other = server
            .get(&path)
            .header("range", "bytes=0-1")
            .header("if-range", "\"x\"");
        assert_eq!(other.send().await.unwrap().status(), 200, "{path}");

        let missing = server
            .get(&path)
            .header("range", "bytes=600000-")
            .send()
            .await
            .unwrap();
        assert_eq!(missing.status(), 416, "{path}");
        assert_eq!(header(&missing, "content-range"), format!("bytes */{size}"));
        assert_eq!(
            missing.json::<Value>().await.unwrap()["errcode"],
            "M_INVALID_PARAM"
        );

        let has = server
            .get(&path)
            .header("if-none-match", &tag)
            .send()
            .await
            .unwrap();
        assert_eq!(has.status(), 304, "{path}");
        assert_eq!(header(&has, "etag"), tag);
        assert_eq!(header(&has, "cache-control"), kept);
        assert!(has.bytes().await.unwrap().is_empty());

        let head = server
            .request(Method::HEAD, &path)
            .bearer_auth(&server.token);
        let head = head.send().await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert_eq!(header(&head, "content-length"), size.to_string());
        assert_eq!(header(&head, "etag"), tag);
        assert!(head.bytes().await.unwrap().is_empty());
    }
    // Nobody reads a part of what they may not read.
    let stranger = server
        .request(Method::GET, &file)
        .header("range", "bytes=0-0");
    refused(stranger, 401, "M_MISSING_TOKEN").await;
    server.running.stop().await;
}

async fn what_may_run_in_a_browser_is_never_shown_in_place(engine: Engine) {
    let server = Server::start(engine, |_| {}).await;
    let page = "<html><script>alert(1)</script></html>";
    let drawing = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    for (content_type, body, shown) in [
        ("text/html", page, false),
        ("TEXT/HTML; charset=utf-8", page, false),
        ("application/xhtml+xml", page, false),
        ("image/svg+xml", drawing, false),
        ("application/javascript", "alert(1)", false),
        ("application/pdf", "%PDF", false),
        ("multipart/related", page, false),
        // Lies: the browser is told not to look, and to run nothing.
        ("image/png", page, true),
        ("image/png", drawing, true),
        ("text/plain", page, true),
    ] {
        let id = server.upload("?filename=a.html", content_type, body).await;
        for path in [id.clone(), format!("{id}/index.html")] {
            let path = format!("client/v1/media/download/{path}");
            let answer = server.get(&path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{content_type}");
            assert_eq!(header(&answer, "content-type"), content_type);
            let kind = if shown { "inline;" } else { "attachment;" };
            assert!(
                header(&answer, "content-disposition").starts_with(kind),
                "{content_type}"
            );
            assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
            let policy = header(&answer, "content-security-policy");
            assert!(policy.starts_with("sandbox; default-src 'none'; script-src 'none';"));
        }
        // No thumbnail is made of what is no picture, whatever it says to be.
        let small = format!("client/v1/media/thumbnail/{id}?width=32&height=32");
        refused(server.get(&small), 400, "M_UNKNOWN").await;
    }
    server.running.stop().await;
}

async fn thumbnails_are_pictures_and_need_one(engine: Engine) {
    let server = Server::start(engine, |_| {}).await;
    let id = server.upload("", "text/html", png()).await;
    let thumbnail =
        |id: &str, query: &str| server.get(&format!("client/v1/media/thumbnail/{id}{query}"));
    let answer = thumbnail(&id, "?width=32&height=32&method=crop")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "content-type")),
        (200, "image/png")
    );
    assert_eq!(
        header(&answer, "content-disposition"),
        "inline; filename=thumbnail.png"
    );
    let made = image::load_from_memory(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!((made.width(), made.height()), (32, 32));
    let moving = server.upload("", "image/png", gif()).await;
    for (wish, content_type) in [
        ("", "image/png"),
        ("&animated=false", "image/png"),
        ("&animated=true", "image/gif"),
    ] {
        let query = format!("?width=32&height=32&method=crop{wish}");
        let answer = thumbnail(&moving, &query).send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), content_type, "{wish}");
        let extension = content_type.trim_start_matches("image/");
        let name = format!("inline; filename=thumbnail.{extension}");
        assert_eq!(header(&answer, "content-disposition"), name);
    }
    let lie = server.upload("", "image/png", "<html>").await;
    refused(thumbnail(&lie, "?width=32&height=32"), 400, "M_UNKNOWN").await;
    for query in [
        "",
        "?width=0&height=9",
        "?width=-1&height=9",
        "?width=x&height=9",
        "?width=9&height=9&method=stretch",
    ] {
        let answer = thumbnail(&id, query).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
    }
    server.running.stop().await;
}

async fn media_needs_a_token_unless_the_operator_serves_the_old_paths(engine: Engine) {
    for legacy in [false, true] {
        let server = Server::start(engine, |config| {
            config.media.legacy_unauthenticated = legacy
        })
        .await;
        let id = server.upload("", "image/png", png()).await;
        refused(
            server.request(Method::GET, &format!("client/v1/media/download/{id}")),
            401,
            "M_MISSING_TOKEN",
        )
        .await;
        refused(
            server.request(Method::POST, "media/v3/upload").body("x"),
            401,
            "M_MISSING_TOKEN",
        )
        .await;
        for path in [
            format!("download/{id}"),
            format!("download/{id}/x.png"),
            format!("thumbnail/{id}?width=32&height=32"),
        ] {
            for version in ["v3", "r0"] {
                let old = server.request(Method::GET, &format!("media/{version}/{path}"));
                if legacy {
                    assert_eq!(old.send().await.unwrap().status(), 200, "{version} {path}");
                } else {
                    refused(old, 404, "M_NOT_FOUND").await;
                }
            }
        }
        server.running.stop().await;
    }
}

async fn what_is_too_large_or_unknown_is_refused_in_the_words_of_the_spec(engine: Engine) {
    let server = Server::start(engine, |config| config.media.max_upload_bytes = 1000).await;
    let config = server
        .get("client/v1/media/config")
        .send()
        .await
        .unwrap()
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(config, json!({ "m.upload.size": 1000 }));
    server.upload("", "text/plain", vec![7; 1000]).await;
    let upload = |body: reqwest::Body| {
        server
            .request(Method::POST, "media/v3/upload")
            .bearer_auth(&server.token)
            .body(body)
    };
    refused(upload(vec![7; 1001].into()), 413, "M_TOO_LARGE").await;
    for path in [
        "localhost/nosuch",
        "elsewhere.example/nosuch",
        "localhost/..%2F..%2Fetc%2Fpasswd",
    ] {
        refused(
            server.get(&format!("client/v1/media/download/{path}")),
            404,
            "M_NOT_FOUND",
        )
        .await;
    }
    refused(
        server.get("client/v1/media/download/bad%20name/x"),
        400,
        "M_INVALID_PARAM",
    )
    .await;
    server.running.stop().await;
}

async fn a_reserved_id_is_filled_once_by_who_reserved_it(engine: Engine) {
    let server = Server::start(engine, |_| {}).await;
    let bob = server.register("bob").await;
    let created = server
        .request(Method::POST, "media/v1/create")
        .bearer_auth(&server.token)
        .send()
        .await
        .unwrap();
    let created = created.json::<Value>().await.unwrap();
    assert!(created["unused_expires_at"].is_u64());
    let id = created["content_uri"]
        .as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap();
    refused(
        server.get(&format!("client/v1/media/download/{id}?timeout_ms=0")),
        504,
        "M_NOT_YET_UPLOADED",
    )
    .await;
    let put = |token: &str| {
        server
            .request(Method::PUT, &format!("media/v3/upload/{id}"))
            .bearer_auth(token)
            .body("once")
    };
    refused(put(&bob), 403, "M_FORBIDDEN").await;
    assert_eq!(put(&server.token).send().await.unwrap().status(), 200);
    refused(put(&server.token), 409, "M_CANNOT_OVERWRITE_MEDIA").await;
    let read = server
        .get(&format!("client/v1/media/download/{id}"))
        .send()
        .await
        .unwrap();
    assert_eq!(header(&read, "content-type"), "application/octet-stream");
    assert_eq!(read.text().await.unwrap(), "once");
    server.running.stop().await;
}

async fn admins_keep_media_from_everyone_and_give_it_back(engine: Engine) {
    let server = Server::start(engine, |config| config.media.legacy_unauthenticated = true).await;
    let bob = server.register("bob").await;
    let (_, sid) = server.running.app.users.find("bob").await.unwrap().unwrap();
    server.running.app.users.set_admin(sid, true).await.unwrap();
    let id = server.upload("", "image/png", png()).await;
    let ask = |token: &str, what: &str, id: &str| {
        let path = format!("_synapse/admin/v1/media/{what}/{id}");
        let url = format!("http://{}/{path}", server.running.client);
        server.client.post(url).bearer_auth(token)
    };
    for what in ["quarantine", "unquarantine"] {
        refused(ask(&server.token, what, &id), 403, "M_FORBIDDEN").await;
        refused(ask("nobody", what, &id), 401, "M_UNKNOWN_TOKEN").await;
        refused(ask(&bob, what, "localhost/a.b"), 404, "M_NOT_FOUND").await;
        refused(ask(&bob, what, "a%20b/ab"), 400, "M_INVALID_PARAM").await;
    }
    let paths = [
        format!("client/v1/media/download/{id}"),
        format!("client/v1/media/download/{id}/x.png"),
        format!("client/v1/media/thumbnail/{id}?width=32&height=32"),
        format!("media/v3/download/{id}"),
    ];
    for (what, there) in [("quarantine", false), ("unquarantine", true)] {
        let answer = ask(&bob, what, &id).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({}));
        // Not even for the admin, nor for who has it already.
        for path in &paths {
            let get = server.request(Method::GET, path).bearer_auth(&bob);
            if there {
                assert_eq!(get.send().await.unwrap().status(), 200, "{path}");
            } else {
                refused(get.header("if-none-match", "*"), 404, "M_NOT_FOUND").await;
            }
        }
    }
    server.running.stop().await;
}

async fn who_has_as_much_as_one_may_have_uploads_no_more(engine: Engine) {
    let server = Server::start(engine, |config| config.media.max_bytes_per_user = 1000).await;
    let bob = server.register("bob").await;
    server.upload("", "text/plain", vec![7; 900]).await;
    let upload = |token: &str, size: usize| {
        let request = server.request(Method::POST, "media/v3/upload");
        request.bearer_auth(token).body(vec![8; size])
    };
    refused(upload(&server.token, 101), 413, "M_TOO_LARGE").await;
    assert_eq!(upload(&bob, 1000).send().await.unwrap().status(), 200);
    server.upload("", "text/plain", vec![9; 100]).await;
    refused(upload(&server.token, 1), 413, "M_TOO_LARGE").await;
    server.running.stop().await;
}
