//! Media over the in-memory engine and a folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

use std::{io::Cursor, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use ruma::{OwnedMxcUri, ServerName, UserId, server_name, user_id};
use tempfile::TempDir;
use vatra_store::{Batch, MemoryEngine, Options, Range, Store};

use super::*;
use crate::{
    clock::ManualClock,
    event::signer::Signer,
    random::SystemRandom,
    remote::{self, Transport},
    schema::{BLOB_USES, BlobId, MEDIA, THUMBNAILS, migrations},
};

mod carry;
mod checks;
mod elsewhere;
mod moving;
mod purges;
mod quarantine;
mod thumbnails;
mod uploads;

const NO_WAIT: Duration = Duration::ZERO;

struct Fixture {
    media: Media,
    store: Store,
    clock: Arc<ManualClock>,
    folder: TempDir,
}

async fn fixture_with(change: impl FnOnce(&mut Settings)) -> Fixture {
    fixture_of(change, None).await
}

/// One that reaches other servers like this.
async fn fixture_of(
    change: impl FnOnce(&mut Settings),
    others: Option<Arc<dyn Transport>>,
) -> Fixture {
    let store = Store::open(
        Arc::new(MemoryEngine::new()),
        Options::default(),
        migrations(),
    )
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path().to_owned()).await.unwrap();
    let clock = ManualClock::new(1_000_000);
    let mut settings = Settings::new(server_name!("test").to_owned());
    change(&mut settings);
    let remote = others.map(|transport| {
        let key = Signer::generate();
        let name = server_name!("test").to_owned();
        Remote::new(remote::Parts {
            store: store.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            signer: Arc::new(Signer::from_der(name, &key, "1".to_owned()).unwrap()),
            transport,
        })
    });
    let media = Media::new(
        store.clone(),
        Arc::new(blobs),
        clock.clone(),
        Arc::new(SystemRandom),
        settings,
        remote,
    );
    Fixture {
        media,
        store,
        clock,
        folder,
    }
}

async fn fixture() -> Fixture {
    fixture_with(|_| {}).await
}

fn by(user: &UserId) -> Upload {
    Upload {
        uploader: user.to_owned(),
        content_type: None,
        filename: None,
        announced_bytes: None,
    }
}

fn body(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
    let pieces: Vec<_> = bytes
        .chunks(10_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces)
}

impl Fixture {
    async fn upload(&self, bytes: &[u8]) -> OwnedMxcUri {
        self.media
            .upload(by(user_id!("@alice:test")), body(bytes))
            .await
            .unwrap()
    }

    async fn read(&self, uri: &OwnedMxcUri) -> Result<(Download, Vec<u8>), MediaError> {
        let (server, id) = uri.parts().unwrap();
        let download = self.media.open(server, id, NO_WAIT, true).await?;
        let bytes = collect(download.file.whole().await?).await;
        Ok((download, bytes))
    }

    async fn thumbnail(
        &self,
        uri: &OwnedMxcUri,
        width: u32,
        height: u32,
        method: Method,
    ) -> Result<(String, Vec<u8>), MediaError> {
        let wanted = Wanted {
            width,
            height,
            method,
            animated: false,
        };
        self.thumbnail_of(uri, wanted).await
    }

    async fn thumbnail_of(
        &self,
        uri: &OwnedMxcUri,
        wanted: Wanted,
    ) -> Result<(String, Vec<u8>), MediaError> {
        let (server, id) = uri.parts().unwrap();
        let thumbnail = self
            .media
            .thumbnail(server, id, wanted, NO_WAIT, true)
            .await?;
        let bytes = collect(thumbnail.file.whole().await?).await;
        Ok((thumbnail.content_type, bytes))
    }

    fn files(&self, below: &str) -> Vec<std::path::PathBuf> {
        fn walk(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, out)
                } else {
                    out.push(path)
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.folder.path().join(below), &mut out);
        out
    }

    async fn problems(&self, repair: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        let summary = self
            .media
            .check(repair, |problem| problems.push(problem))
            .await
            .unwrap();
        assert_eq!(summary.problems, problems.len() as u64);
        problems
    }
}

async fn collect(mut reader: BlobReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = reader.stream.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(bytes.len() as u64, reader.size);
    bytes
}

/// Left half red, right half blue.
fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let red_blue = |x, _| {
        if x < width / 2 {
            Rgb([255, 0, 0])
        } else {
            Rgb([0, 0, 255])
        }
    };
    let picture = DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, red_blue));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}
