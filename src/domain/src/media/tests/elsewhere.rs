//! Media of other servers: fetched once, bounded, and from nowhere else than said.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use http::{Request, Response, Uri};

use super::*;
use crate::remote::{ByteStream, TransportError, transport::ready};

/// Answers by path: status, content type, body. Files on the web by URL.
#[derive(Default)]
pub(super) struct Others {
    paths: HashMap<String, (u16, &'static str, Vec<u8>)>,
    web: HashMap<&'static str, Vec<u8>>,
    asked: AtomicUsize,
    fetched: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Others {
    async fn send(
        &self,
        _: &ServerName,
        request: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let found = self.paths.get(request.uri().path());
        let none = (
            404,
            "application/json",
            br#"{"errcode":"M_UNRECOGNIZED","error":"?"}"#.to_vec(),
        );
        let (status, kind, body) = found.cloned().unwrap_or(none);
        let response = Response::builder()
            .status(status)
            .header("content-type", kind);
        Ok(response.body(ready(Bytes::from(body))).unwrap())
    }

    async fn fetch(&self, url: &Uri) -> Result<Response<ByteStream>, TransportError> {
        self.fetched.lock().unwrap().push(url.to_string());
        let body = self.web.get(url.to_string().as_str()).cloned();
        let body = body.ok_or(TransportError::NotPublic([127, 0, 0, 1].into()))?;
        Ok(Response::new(ready(Bytes::from(body))))
    }
}

const PATH: &str = "/_matrix/federation/v1/media/download/abc";
const OLD_PATH: &str = "/_matrix/media/v3/download/other/abc";
const MIXED: &str = "multipart/mixed; boundary=b";

fn parts(headers: &str, file: &str) -> Vec<u8> {
    let head = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n";
    format!("{head}{headers}\r\n{file}\r\n--b--").into_bytes()
}

/// A server that has these files: by id, their content.
pub(super) fn serving_many(files: &[(&str, &str)]) -> Others {
    let path = |id| format!("/_matrix/federation/v1/media/download/{id}");
    let paths = files
        .iter()
        .map(|(id, file)| (path(id), (200, MIXED, parts("", file))));
    Others {
        paths: paths.collect(),
        ..Others::default()
    }
}

impl Others {
    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn with(others: Others) -> (Fixture, Arc<Others>) {
    let others = Arc::new(others);
    let small = |settings: &mut Settings| settings.max_upload_bytes = 1000;
    (fixture_of(small, Some(others.clone())).await, others)
}

async fn serving(headers: &str, file: &str) -> (Fixture, Arc<Others>) {
    let paths = HashMap::from([(PATH.to_owned(), (200, MIXED, parts(headers, file)))]);
    with(Others {
        paths,
        ..Others::default()
    })
    .await
}

fn uri() -> OwnedMxcUri {
    "mxc://other/abc".into()
}

#[tokio::test]
async fn a_file_is_fetched_once_however_many_ask() {
    let headers = "Content-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n";
    let (fixture, others) = serving(headers, "hello").await;
    let uri = uri();
    let asks = (0..10).map(|_| fixture.read(&uri));
    for outcome in futures::future::join_all(asks).await {
        let (download, bytes) = outcome.unwrap();
        assert_eq!(bytes, b"hello");
        assert_eq!(download.content_type, "text/plain");
        assert_eq!(download.filename.as_deref(), Some("a.txt"));
    }
    fixture.read(&uri).await.unwrap();
    assert_eq!(others.asked.load(Ordering::SeqCst), 1);
    assert!(fixture.problems(false).await.is_empty());
}

#[tokio::test]
async fn nothing_is_fetched_for_those_who_may_not_cause_it() {
    let (fixture, others) = serving("", "hello").await;
    let found = fixture
        .media
        .open(server_name!("other"), "abc", NO_WAIT, false)
        .await;
    assert!(matches!(found, Err(MediaError::NotFound)));
    for id in ["../abc", "a/b", "", "a?b", "%2e%2e"] {
        let found = fixture
            .media
            .open(server_name!("other"), id, NO_WAIT, true)
            .await;
        assert!(matches!(found, Err(MediaError::NotFound)), "{id}");
    }
    assert_eq!(others.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_too_large_or_broken_is_not_kept() {
    let (fixture, _) = serving("", &"x".repeat(1001)).await;
    assert!(matches!(
        fixture.read(&uri()).await,
        Err(MediaError::TooLarge { .. })
    ));
    assert!(fixture.files("").is_empty());
    let mut cut = parts("", "hello");
    cut.truncate(cut.len() - 6);
    for (kind, body) in [
        (MIXED, cut),
        ("text/plain", parts("", "x")),
        (MIXED, b"x".to_vec()),
    ] {
        let paths = HashMap::from([(PATH.to_owned(), (200, kind, body))]);
        let (fixture, _) = with(Others {
            paths,
            ..Others::default()
        })
        .await;
        fixture.read(&uri()).await.unwrap_err();
        assert!(fixture.files("").is_empty());
    }
}

#[tokio::test]
async fn names_that_do_not_fit_into_headers_are_left_out() {
    let headers =
        "Content-Type: text/\u{e9}\r\nContent-Disposition: attachment; filename=\"a\tb\"\r\n";
    let (fixture, _) = serving(headers, "hello").await;
    let (download, _) = fixture.read(&uri()).await.unwrap();
    assert_eq!(download.content_type, "application/octet-stream");
    assert_eq!(download.filename, None);
}

#[tokio::test]
async fn a_file_may_be_on_the_web_but_not_anywhere() {
    let located = |url: &str| {
        HashMap::from([(
            PATH.to_owned(),
            (200, MIXED, parts(&format!("Location: {url}\r\n"), "")),
        )])
    };
    let web = HashMap::from([("https://cdn.example/f", b"far".to_vec())]);
    let paths = located("https://cdn.example/f");
    let (fixture, _) = with(Others {
        paths,
        web,
        ..Others::default()
    })
    .await;
    assert_eq!(fixture.read(&uri()).await.unwrap().1, b"far");
    let paths = located("https://localhost/secret");
    let (fixture, others) = with(Others {
        paths,
        ..Others::default()
    })
    .await;
    assert!(matches!(
        fixture.read(&uri()).await,
        Err(MediaError::Remote(_))
    ));
    assert_eq!(
        others.fetched.lock().unwrap().len(),
        1,
        "judged by whoever connects"
    );
}

#[tokio::test]
async fn a_server_that_has_only_the_old_path_is_asked_there() {
    let paths = HashMap::from([(OLD_PATH.to_owned(), (200, "text/plain", b"old".to_vec()))]);
    let (fixture, others) = with(Others {
        paths,
        ..Others::default()
    })
    .await;
    assert_eq!(fixture.read(&uri()).await.unwrap().1, b"old");
    assert_eq!(others.asked.load(Ordering::SeqCst), 2);
    // Who says that there is no such file is believed.
    let none = br#"{"errcode":"M_NOT_FOUND","error":"x"}"#.to_vec();
    let paths = HashMap::from([(PATH.to_owned(), (404, "application/json", none))]);
    let (fixture, others) = with(Others {
        paths,
        ..Others::default()
    })
    .await;
    assert!(matches!(
        fixture.read(&uri()).await,
        Err(MediaError::NotFound)
    ));
    assert_eq!(others.asked.load(Ordering::SeqCst), 1);
}
