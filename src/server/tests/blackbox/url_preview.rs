//! Previews of URLs, with a real site on this machine.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

use std::{
    io::Cursor,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use image::{DynamicImage, ImageFormat};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Engine, Server, User, encoded, on_both_engines, refused, succeeds};

on_both_engines!(
    a_page_is_shown_and_its_picture_is_media_of_this_server,
    nothing_is_asked_on_this_machine_unless_the_operator_allows_it,
    a_redirect_and_a_picture_lead_to_no_place_that_is_not_allowed,
    without_the_setting_there_are_no_previews,
    sites_that_mean_no_good_cost_little_and_are_all_told_of_in_the_same_words,
);

/// A site: for each path, the bytes that it answers with.
struct Site {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Site {
    async fn start(at: &str, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move { serve(stream, &*answer).await });
            }
        });
        Self {
            address,
            connections,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What a site answers.
struct Reply {
    head: String,
    body: Vec<u8>,
    /// The body again and again.
    endless: bool,
}

fn reply(kind: &str, body: impl Into<Vec<u8>>) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
    Reply {
        head,
        body: body.into(),
        endless: false,
    }
}

fn redirect(to: &str) -> Reply {
    Reply {
        head: format!("HTTP/1.1 301 Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
        body: Vec::new(),
        endless: false,
    }
}

async fn serve(mut stream: TcpStream, answer: &(dyn Fn(&str) -> Reply + Send + Sync)) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.contains("accept-encoding: identity"), "{request}");
    assert!(
        !request.to_lowercase().contains("authorization"),
        "{request}"
    );
    let reply = answer(request.split(' ').nth(1).unwrap());
    let _ = stream.write_all(reply.head.as_bytes()).await;
    let _ = stream.write_all(&reply.body).await;
    while reply.endless && stream.write_all(&reply.body).await.is_ok() {}
}

fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(40, 30)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn preview(user: &User, url: &str) -> RequestBuilder {
    let path = format!(
        "/_matrix/client/v1/media/preview_url?url={}&ts=1",
        encoded(url)
    );
    user.request(Method::GET, &path)
}

async fn a_page_is_shown_and_its_picture_is_media_of_this_server(engine: Engine) {
    let site = Site::start("127.0.0.1:0", |path| match path {
        "/page" => reply(
            "text/html; charset=iso-8859-2",
            *b"<html><title>no</title><meta property=og:title content='\xcenceput'><meta property=og:image content='/p.png'>",
        ),
        "/p.png" => reply("application/octet-stream", png()),
        _ => redirect("/page"),
    })
    .await;
    let mut server = Server::start_with(engine, |config| {
        config.url_preview.enabled = true;
        config.url_preview.allow_loopback = true;
    })
    .await;
    let alice = server.register("alice").await;
    let shown = succeeds(preview(&alice, &site.url("/led/here"))).await;
    let uri = shown["og:image"].as_str().unwrap().to_owned();
    let expected = json!({
        "og:title": "Început", "og:image": uri, "og:image:type": "image/png", "og:image:width": 40, "og:image:height": 30,
        "matrix:image:size": png().len(),
    });
    assert_eq!(shown, expected);
    let file = format!(
        "/_matrix/client/v1/media/download/{}",
        uri.strip_prefix("mxc://").unwrap()
    );
    let answer = alice.request(Method::GET, &file).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.bytes().await.unwrap(), png());
    // From memory, for everyone.
    let bob = server.register("bob").await;
    assert_eq!(
        succeeds(preview(&bob, &site.url("/led/here#there"))).await,
        shown
    );
    assert_eq!(site.connections(), 3);

    // The old path is there with the old paths of files, for who has a token.
    let old = format!(
        "/_matrix/media/v3/preview_url?url={}",
        encoded(&site.url("/page"))
    );
    refused(alice.request(Method::GET, &old), 404, "M_NOT_FOUND").await;
    server
        .replace(|config| config.media.legacy_unauthenticated = true)
        .await;
    refused(server.request(Method::GET, &old), 401, "M_MISSING_TOKEN").await;
    let carol = server.register("carol").await;
    assert_eq!(
        succeeds(carol.request(Method::GET, &old)).await["og:title"],
        "Început"
    );
}

async fn nothing_is_asked_on_this_machine_unless_the_operator_allows_it(engine: Engine) {
    let site = Site::start("127.0.0.1:0", |_| {
        reply("text/html", "<title>secret</title>")
    })
    .await;
    let server = Server::start_with(engine, |config| config.url_preview.enabled = true).await;
    let alice = server.register("alice").await;
    let port = site.address.port();
    let mut answers = Vec::new();
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "１２７.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:{port}/");
            answers.push(refused(preview(&alice, &url), 404, "M_NOT_FOUND").await);
        }
    }
    assert_eq!(site.connections(), 0);
    answers.dedup();
    assert_eq!(answers.len(), 1, "all the same: {answers:?}");
    for url in [
        "file:///etc/passwd",
        "",
        "ftp://127.0.0.1/",
        "http://a@127.0.0.1/",
        "//127.0.0.1",
    ] {
        refused(preview(&alice, url), 400, "M_INVALID_PARAM").await;
    }
    let without = alice.request(Method::GET, "/_matrix/client/v1/media/preview_url");
    let (status, body) = crate::harness::answer(without).await;
    assert_eq!(status, 400, "{body}");
}

async fn a_redirect_and_a_picture_lead_to_no_place_that_is_not_allowed(engine: Engine) {
    let secret = Site::start("127.0.0.1:0", |path| match path {
        "/p.png" => reply("image/png", png()),
        _ => reply("text/html", "<title>secret</title>"),
    })
    .await;
    let (page, picture, oembed) = (secret.url("/"), secret.url("/p.png"), secret.url("/o"));
    let site = Site::start("127.0.0.2:0", move |path| match path {
        "/redirect" => redirect(&page),
        "/file" => redirect("file:///etc/passwd"),
        _ => reply(
            "text/html",
            format!(
                "<title>public</title><meta property=og:image content={picture}>
                <link rel=alternate type=application/json+oembed href={oembed}>"
            ),
        ),
    })
    .await;
    let server = Server::start_with(engine, |config| {
        config.url_preview.enabled = true;
        config.url_preview.allowed_networks = vec!["127.0.0.2/32".to_owned()];
    })
    .await;
    let alice = server.register("alice").await;
    let public = json!({ "og:title": "public" });
    assert_eq!(succeeds(preview(&alice, &site.url("/"))).await, public);
    for path in ["/redirect", "/file"] {
        refused(preview(&alice, &site.url(path)), 404, "M_NOT_FOUND").await;
    }
    assert_eq!((site.connections(), secret.connections()), (3, 0));
}

async fn without_the_setting_there_are_no_previews(engine: Engine) {
    let server = Server::start(engine).await;
    let alice = server.register("alice").await;
    let url = "https://example.org/";
    refused(preview(&alice, url), 404, "M_UNRECOGNIZED").await;
    let nobody = format!("/_matrix/client/v1/media/preview_url?url={}", encoded(url));
    refused(server.request(Method::GET, &nobody), 401, "M_MISSING_TOKEN").await;
}

async fn sites_that_mean_no_good_cost_little_and_are_all_told_of_in_the_same_words(engine: Engine) {
    let site = Site::start("127.0.0.1:0", |path| {
        let endless = |mut reply: Reply| {
            reply.endless = true;
            reply
        };
        match path {
            "/page" => endless(reply(
                "text/html",
                "<title>Endless</title><div><b>".repeat(100),
            )),
            "/picture" => endless(reply("image/png", png())),
            "/head" => endless(Reply {
                head: "HTTP/1.1 200 OK\r\n".to_owned(),
                ..reply("", "X-More: and more\r\n")
            }),
            "/hints" => endless(Reply {
                head: String::new(),
                ..reply("", "HTTP/1.1 103 Early Hints\r\n\r\n")
            }),
            "/bomb" => Reply {
                head:
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
                        .to_owned(),
                ..reply("", *b"\x1f\x8b\x08\0\0\0\0\0")
            },
            "/nonsense" => Reply {
                head: "220 mail.example.org ESMTP\r\n".to_owned(),
                ..reply("", "")
            },
            _ => redirect(path),
        }
    })
    .await;
    let server = Server::start_with(engine, |config| {
        config.url_preview.enabled = true;
        config.url_preview.allow_loopback = true;
        config.url_preview.max_page_bytes = 65_536;
        config.url_preview.timeout_s = 3;
    })
    .await;
    let alice = server.register("alice").await;
    assert_eq!(
        succeeds(preview(&alice, &site.url("/page"))).await["og:title"],
        "Endless"
    );
    let mut answers: Vec<Value> = Vec::new();
    for path in [
        "/picture",
        "/head",
        "/hints",
        "/bomb",
        "/nonsense",
        "/circle",
    ] {
        let asked = refused(preview(&alice, &site.url(path)), 404, "M_NOT_FOUND");
        answers.push(
            tokio::time::timeout(Duration::from_secs(15), asked)
                .await
                .unwrap(),
        );
    }
    answers.push(refused(preview(&alice, "http://127.0.0.1:1/"), 404, "M_NOT_FOUND").await);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}
