//! A web that the tests write.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Response, Uri};
use image::{DynamicImage, ImageFormat};
use ruma::server_name;
use serde_json::Value;
use tempfile::TempDir;
use vatra_store::{MemoryEngine, Options, Range, Store};

use crate::{
    clock::ManualClock,
    media::{self, LocalBlobs, Media},
    random::SystemRandom,
    remote::{ByteStream, TransportError},
    schema::{MEDIA, migrations},
    url_preview::{Parts, PreviewError, Settings, UrlPreviews, Web},
};

/// How an address answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// With a body of a type.
    Body(&'static str, Bytes),
    /// With a status and a header.
    Head(u16, &'static str, String),
    /// With a body of a type that begins like this and has no end.
    Endless(&'static str, Bytes),
    /// With a body that begins like this and never goes on.
    Stalls(&'static str, Bytes),
    /// With a body that breaks off after this.
    Breaks(&'static str, Bytes),
    /// Not at all.
    Never,
    /// It is no address that is connected to.
    NotPublic,
}

#[derive(Default)]
pub(super) struct Net {
    pages: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Web for Net {
    async fn get(
        &self,
        url: &Uri,
        _: &'static str,
    ) -> Result<Response<ByteStream>, TransportError> {
        let url = url.to_string();
        self.asked.lock().unwrap().push(url.clone());
        let answer = self.pages.lock().unwrap().get(&url).cloned();
        let typed = |kind: &str, body: ByteStream| {
            let response = Response::builder().header("content-type", kind);
            Ok(response.body(body).unwrap())
        };
        let first = |bytes: Bytes| stream::iter(Some(Ok(bytes)));
        match answer {
            None => Ok(Response::builder().status(404).body(empty()).unwrap()),
            Some(Answer::Body(kind, bytes)) => {
                let pieces: Vec<_> = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
                typed(kind, Box::pin(stream::iter(pieces.into_iter().map(Ok))))
            }
            Some(Answer::Head(status, name, value)) => Ok(Response::builder()
                .status(status)
                .header(name, value)
                .body(empty())
                .unwrap()),
            Some(Answer::Endless(kind, bytes)) => {
                let rest = stream::repeat(Bytes::from_static(&[b' '; 1000])).map(Ok);
                typed(kind, Box::pin(first(bytes).chain(rest)))
            }
            Some(Answer::Stalls(kind, bytes)) => {
                typed(kind, Box::pin(first(bytes).chain(stream::pending())))
            }
            Some(Answer::Breaks(kind, bytes)) => {
                let broken = stream::iter(Some(Err(TransportError::Broken("gone".to_owned()))));
                typed(kind, Box::pin(first(bytes).chain(broken)))
            }
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::NotPublic) => Err(TransportError::NotPublic("10.0.0.1".parse().unwrap())),
        }
    }
}

fn empty() -> ByteStream {
    Box::pin(stream::empty())
}

pub(super) struct World {
    net: Arc<Net>,
    pub(super) previews: UrlPreviews,
    pub(super) clock: Arc<ManualClock>,
    store: Store,
    pub(super) media: Media,
    _folder: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), migrations())
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(1_000_000);
        let media = Media::new(
            store.clone(),
            Arc::new(LocalBlobs::open(folder.path().to_owned()).await.unwrap()),
            clock.clone(),
            Arc::new(SystemRandom),
            media::Settings::new(server_name!("test").to_owned()),
            None,
        );
        let mut settings = Settings {
            allow_hosts: Vec::new(),
            deny_hosts: Vec::new(),
            max_page_bytes: 1 << 20,
            max_image_bytes: 1 << 20,
            timeout: Duration::from_secs(20),
            keep_ms: 3_600_000,
        };
        change(&mut settings);
        let net = Arc::new(Net::default());
        let previews = UrlPreviews::new(Parts {
            web: net.clone(),
            media: media.clone(),
            clock: clock.clone(),
            settings,
        });
        Self {
            net,
            previews,
            clock,
            store,
            media,
            _folder: folder,
        }
    }

    pub(super) fn put(&self, url: &str, answer: Answer) -> &Self {
        let pages = &self.net.pages;
        pages.lock().unwrap().insert(url.to_owned(), answer);
        self
    }

    /// A page of UTF-8.
    pub(super) fn page(&self, url: &str, html: &str) -> &Self {
        let html = Bytes::copy_from_slice(html.as_bytes());
        self.put(url, Answer::Body("text/html; charset=utf-8", html))
    }

    pub(super) fn leads(&self, from: &str, to: &str) -> &Self {
        self.put(from, Answer::Head(302, "location", to.to_owned()))
    }

    pub(super) async fn try_of(&self, url: &str) -> Result<Value, PreviewError> {
        let preview = self.previews.of(url).await?;
        Ok(serde_json::from_str(preview.get()).unwrap())
    }

    pub(super) async fn of(&self, url: &str) -> Value {
        self.try_of(url).await.unwrap()
    }

    /// What was asked for, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.net.asked.lock().unwrap().clone()
    }

    /// How many media there are.
    pub(super) async fn media_rows(&self) -> usize {
        let view = self.store.view();
        let forward = vatra_store::Direction::Forward;
        view.range(&MEDIA, Range::all(), forward, 100)
            .await
            .unwrap()
            .len()
    }
}

/// A picture.
pub(super) fn picture(width: u32, height: u32, format: ImageFormat) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(width, height)
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner().into()
}

pub(super) fn png(width: u32, height: u32) -> Answer {
    Answer::Body("image/png", picture(width, height, ImageFormat::Png))
}
