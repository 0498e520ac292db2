//! oEmbed: what a provider says of a page, beside it. Its `html`, which would run anything, is not used. <https://oembed.com>

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::PreviewError;

/// What is used of a document.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) title: Option<String>,
    pub(super) author: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) picture: Option<Url>,
}

/// As it is sent: with values of any type, as providers will have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sent {
    #[serde(rename = "type")]
    kind: Value,
    title: Value,
    author_name: Value,
    provider_name: Value,
    thumbnail_url: Value,
    url: Value,
}

/// Reads a document. Links in it are relative to its own place.
pub(super) fn read(place: Url, json: &[u8]) -> Result<Document, PreviewError> {
    let unreadable = |_| PreviewError::Unreadable("it is no oEmbed document");
    let sent: Sent = serde_json::from_slice(json).map_err(unreadable)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let link = |value: &Value| place.join(value.as_str()?).ok();
    let is_photo = sent.kind.as_str() == Some("photo");
    let photo = link(&sent.url).filter(|_| is_photo);
    Ok(Document {
        title: text(&sent.title),
        author: text(&sent.author_name),
        provider: text(&sent.provider_name),
        picture: photo.or_else(|| link(&sent.thumbnail_url)),
    })
}
