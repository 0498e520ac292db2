//! Previews of URLs: what a page says of itself (OpenGraph, Twitter cards, oEmbed, its title and text) and its picture, which
//! becomes media of this server. Clients ask for it instead of the page, so that no page learns who reads of it.
//!
//! The server's handler calls [`UrlPreviews::of`]. Everything here is the word of strangers twice over: the URL is a user's, what it
//! leads to anybody's.
//!
//! # Invariants
//!
//! - Every request, after each redirect too, and for pictures and oEmbed as for pages, goes through `fetch`: its scheme and host are judged there,
//!   and the addresses that it connects to by [`Web`].
//! - A page leads to one oEmbed document and one picture at most, and these to nothing more.
//! - Bytes, time, redirects, and what is under way at a time are bounded; a page is read by a tokenizer, which does not mind how deep it nests.
//! - However many ask for one URL it is fetched once; what was found is kept in memory for a while, and that there was nothing a shorter while.
//!   Nothing is stored but pictures.
//! - Who asks learns that there is no preview, never why: else they could ask what this server can reach.
//!
//! # To extend
//!
//! What more a page can say of itself is gathered in `page`, and `card` chooses from it what a preview says.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>.

mod card;
mod charset;
mod error;
mod fetch;
mod hosts;
mod kept;
mod oembed;
mod page;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use serde_json::value::{RawValue, to_raw_value};
use tokio::{sync::Semaphore, time::timeout};
use tracing::debug;
use url::Url;

use self::{
    card::Card,
    fetch::{Fetched, Fetcher, Kind},
    kept::Kept,
};
pub use self::{error::PreviewError, fetch::Web, hosts::is_pattern};
use crate::{
    clock::{Millis, SharedClock},
    media::{FoundPicture, Media},
};

/// How many previews are made at a time.
const SIDE_BY_SIDE: usize = 16;
/// The longest URL that is looked at, in bytes.
const MAX_URL: usize = 4096;
/// The largest oEmbed document, in bytes.
const MAX_OEMBED_BYTES: usize = 64 << 10;

/// A preview, as JSON.
pub type Preview = Arc<RawValue>;

/// What an operator can set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Hosts that are asked and no others, as patterns such as `example.org` or `*.example.org`; empty: all.
    pub allow_hosts: Vec<String>,
    /// Hosts that are not asked.
    pub deny_hosts: Vec<String>,
    /// How much of a page is read, in bytes.
    pub max_page_bytes: usize,
    /// The largest picture, in bytes.
    pub max_image_bytes: usize,
    /// How long a page may take, and after it what it leads to.
    pub timeout: Duration,
    /// For how long a preview is kept, in milliseconds.
    pub keep_ms: Millis,
}

/// What previews are made with.
pub struct Parts {
    /// The network.
    pub web: Arc<dyn Web>,
    /// Where pictures go.
    pub media: Media,
    /// The time.
    pub clock: SharedClock,
    /// What an operator can set.
    pub settings: Settings,
}

struct Inner {
    fetcher: Fetcher,
    media: Media,
    settings: Settings,
    slots: Semaphore,
    kept: Kept,
}

/// Makes previews. Cheap to clone.
#[derive(Clone)]
pub struct UrlPreviews {
    inner: Arc<Inner>,
}

impl UrlPreviews {
    /// Puts the parts together. No I/O.
    pub fn new(parts: Parts) -> Self {
        let settings = parts.settings;
        let inner = Inner {
            fetcher: Fetcher::new(parts.web, &settings),
            media: parts.media,
            slots: Semaphore::new(SIDE_BY_SIDE),
            kept: Kept::new(parts.clock, settings.keep_ms),
            settings,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The preview of a URL, which may be empty. Takes twice [`Settings::timeout`] at most, and waits as long as that for its turn.
    ///
    /// # Errors
    /// If the URL is none of the web, and if it cannot be had.
    pub async fn of(&self, url: &str) -> Result<Preview, PreviewError> {
        if url.len() > MAX_URL {
            return Err(PreviewError::BadUrl);
        }
        let mut url: Url = url.parse().map_err(|_| PreviewError::BadUrl)?;
        url.set_fragment(None);
        self.inner.fetcher.check(&url)?;
        let made = self.clone();
        let make = |url: Url| async move { made.make(url).await };
        self.inner.kept.get(url, make).await
    }

    async fn make(self, url: Url) -> Result<Preview, PreviewError> {
        let place = url.to_string();
        let outcome = self.make_card(url).await;
        let outcome = outcome.and_then(|card| {
            let json = to_raw_value(&card).map_err(|_| PreviewError::Unreadable("it is no JSON"));
            json.map(Arc::from)
        });
        if let Err(error) = &outcome {
            debug!(url = place, %error, "no preview");
        }
        outcome
    }

    async fn make_card(&self, url: Url) -> Result<Card, PreviewError> {
        let patience = self.inner.settings.timeout;
        let slot = timeout(patience, self.inner.slots.acquire()).await;
        // An error inside would mean that the semaphore is closed, which it never is.
        let _slot = slot.map_err(|_| PreviewError::Busy)?;
        let first = timeout(patience, self.first(url)).await;
        let mut card = match first.map_err(|_| PreviewError::TooSlow)?? {
            First::Card(card) => *card,
            First::Picture(picture) => {
                let mut card = Card::default();
                card.show(&picture);
                return Ok(card);
            }
        };
        // What a page leads to is no reason not to show the page.
        let more = timeout(patience, self.add_more(&mut card)).await;
        if more.is_err() {
            debug!(url = %card.place(), "what a page leads to takes too long");
        }
        Ok(card)
    }

    /// What the URL itself leads to.
    async fn first(&self, url: Url) -> Result<First, PreviewError> {
        let fetched = self.inner.fetcher.follow(url, Kind::Page).await?;
        if fetched.is_picture() {
            return Ok(First::Picture(self.keep(fetched).await?));
        }
        if !fetched.is_page() {
            return Ok(First::Card(Box::default()));
        }
        let (url, content_type) = (fetched.url.clone(), fetched.content_type.clone());
        let bytes = fetched
            .beginning(self.inner.settings.max_page_bytes)
            .await?;
        let read = move || {
            let text = charset::decode(&bytes, content_type.as_deref());
            page::read(&text)
        };
        let page = tokio::task::spawn_blocking(read).await;
        let page = page.map_err(|_| PreviewError::Unreadable("it cannot be parsed"))?;
        Ok(First::Card(Box::new(Card::of(url, page))))
    }

    /// What the page leads to: an oEmbed document, and a picture.
    async fn add_more(&self, card: &mut Card) {
        if let Some(url) = card.oembed() {
            match self.oembed(url).await {
                Ok(document) => card.add(document),
                Err(error) => debug!(url = %card.place(), %error, "no oEmbed"),
            }
        }
        if let Some(url) = card.picture() {
            match self.picture(url).await {
                Ok(picture) => card.show(&picture),
                Err(error) => debug!(url = %card.place(), %error, "no picture"),
            }
        }
    }

    async fn oembed(&self, url: Url) -> Result<oembed::Document, PreviewError> {
        let fetched = self.inner.fetcher.follow(url, Kind::Oembed).await?;
        let place = fetched.url.clone();
        let bytes = fetched.whole(MAX_OEMBED_BYTES).await?;
        oembed::read(place, &bytes)
    }

    async fn picture(&self, url: Url) -> Result<FoundPicture, PreviewError> {
        let fetched = self.inner.fetcher.follow(url, Kind::Picture).await?;
        self.keep(fetched).await
    }

    fn keep(
        &self,
        fetched: Fetched,
    ) -> impl Future<Output = Result<FoundPicture, PreviewError>> + Send {
        let (media, limit) = (
            self.inner.media.clone(),
            self.inner.settings.max_image_bytes,
        );
        async move {
            let bytes = fetched.whole(limit).await?;
            Ok(media.keep_found(bytes).await?)
        }
    }
}

/// What a URL leads to.
enum First {
    Card(Box<Card>),
    Picture(FoundPicture),
}

impl std::fmt::Debug for UrlPreviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UrlPreviews({:?})", self.inner.settings)
    }
}
