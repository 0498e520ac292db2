//! What a preview says: chosen from what the page and its oEmbed document say, and made fit to be shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use super::{oembed::Document, page::Page};
use crate::media::FoundPicture;

/// The longest title, and the longest of everything else, in characters.
const MAX_TITLE: usize = 300;
const MAX_TEXT: usize = 1000;

/// Where a page names its picture, best first.
const PICTURES: [&str; 5] = [
    "og:image:secure_url",
    "og:image",
    "og:image:url",
    "twitter:image",
    "twitter:image:src",
];

/// A preview in the making. As JSON it is what clients get.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Card {
    /// By the names of OpenGraph's properties.
    shown: BTreeMap<String, Value>,
    #[serde(skip)]
    page: Option<Place>,
}

/// Where the page is, and what it leads to.
#[derive(Debug)]
struct Place {
    url: Url,
    oembed: Option<Url>,
    picture: Option<Url>,
}

impl Card {
    /// What a page says. `url` is where it was found.
    pub(super) fn of(url: Url, page: Page) -> Self {
        let base = page.base.as_deref().and_then(|base| url.join(base).ok());
        let base = base.unwrap_or_else(|| url.clone());
        let link = |text: &str| base.join(text.trim()).ok();
        let meta = |name: &str| page.meta.get(name).map(String::as_str);
        let named = PICTURES.iter().find_map(|name| meta(name));
        let picture = named.or(page.picture.as_deref()).and_then(link);
        let oembed = page.oembed.as_deref().and_then(link);
        let mut card = Self::default();
        for (name, value) in &page.meta {
            match &**name {
                "og:url" => card.set_url(link(value)),
                name if is_shown(name) => card.set(name, value),
                _ => {}
            }
        }
        for (name, other) in [
            ("og:title", meta("twitter:title")),
            ("og:description", meta("twitter:description")),
            ("og:description", meta("description")),
            ("og:description", Some(&*page.text)),
            ("og:title", Some(&*page.title)),
        ] {
            card.set(name, other.unwrap_or_default());
        }
        card.page = Some(Place {
            url,
            oembed,
            picture,
        });
        card
    }

    /// Adds what an oEmbed document says, where the page says nothing.
    pub(super) fn add(&mut self, document: Document) {
        self.set("og:title", &document.title.unwrap_or_default());
        self.set("og:description", &document.author.unwrap_or_default());
        self.set("og:site_name", &document.provider.unwrap_or_default());
        if let Some(page) = &mut self.page {
            page.picture = page.picture.take().or(document.picture);
        }
    }

    /// Adds the picture, which is this server's media now.
    pub(super) fn show(&mut self, picture: &FoundPicture) {
        let shown = &mut self.shown;
        shown.insert("og:image".to_owned(), json!(picture.uri));
        shown.insert("og:image:type".to_owned(), json!(picture.content_type));
        shown.insert("og:image:width".to_owned(), json!(picture.width));
        shown.insert("og:image:height".to_owned(), json!(picture.height));
        shown.insert("matrix:image:size".to_owned(), json!(picture.size));
    }

    /// Where the page is, for the log.
    pub(super) fn place(&self) -> &str {
        self.page.as_ref().map_or("", |page| page.url.as_str())
    }

    /// Where the page's oEmbed document is.
    pub(super) fn oembed(&self) -> Option<Url> {
        self.page.as_ref()?.oembed.clone()
    }

    /// Where the page's picture is.
    pub(super) fn picture(&self) -> Option<Url> {
        self.page.as_ref()?.picture.clone()
    }

    /// Sets a property that has no value yet.
    fn set(&mut self, name: &str, text: &str) {
        let most = if name == "og:title" {
            MAX_TITLE
        } else {
            MAX_TEXT
        };
        let text = tidied(text, most);
        if !text.is_empty() && !self.shown.contains_key(name) {
            self.shown.insert(name.to_owned(), Value::String(text));
        }
    }

    fn set_url(&mut self, url: Option<Url>) {
        let web = |url: &Url| matches!(url.scheme(), "http" | "https");
        if let Some(url) = url.filter(web) {
            self.shown.insert("og:url".to_owned(), json!(url.as_str()));
        }
    }
}

/// Which properties are shown as they are. Not those of pictures, of which there is a copy here; and not those of sound and video: a client that plays
/// them from where they are tells that place who looks at it.
fn is_shown(name: &str) -> bool {
    let is_media = |kind| {
        name == kind
            || name
                .strip_prefix(kind)
                .is_some_and(|it| it.starts_with(':'))
    };
    let media = ["og:image", "og:video", "og:audio"]
        .into_iter()
        .any(is_media);
    name.starts_with("og:") && (!media || name == "og:image:alt")
}

/// A text on one line, no longer than `most` characters.
fn tidied(text: &str, most: usize) -> String {
    let mut tidied = String::new();
    let words = text.split(|it: char| it.is_whitespace() || it.is_control());
    for word in words.filter(|word| !word.is_empty()) {
        if !tidied.is_empty() {
            tidied.push(' ');
        }
        tidied.push_str(word);
    }
    if tidied.chars().count() > most {
        tidied = tidied.chars().take(most.saturating_sub(1)).collect();
        tidied.push('…');
    }
    tidied
}
