//! Row types of media.

use serde::{Deserialize, Serialize};
use vatra_store::{impl_value, key_newtype};

use crate::clock::Millis;

/// The name of a blob: the SHA-256 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId(pub [u8; 32]);
key_newtype!(BlobId([u8; 32]));

impl BlobId {
    /// Reads 64 lower-case hexadecimal digits; `None` for anything else.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        // `from_str_radix` takes a sign; the way back shows it.
        Some(Self(id)).filter(|id| id.to_string() == hex)
    }
}

impl std::fmt::Display for BlobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a blob is, beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// Its length in bytes.
    pub size: u64,
    /// When a row last began to name it.
    pub created: Millis,
}
impl_value!(BlobRow);

/// What a media id stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRow {
    /// The user who uploaded or reserved it; the name of a server if it is media of another, or if this one has found it by itself.
    pub uploader: String,
    /// When the id was given.
    pub created: Millis,
    /// Its content, or until when it may come.
    pub state: MediaState,
}
impl_value!(MediaRow);

/// Whether a media id has content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaState {
    /// Reserved; the content may be uploaded until `expires`.
    Pending {
        /// When the id stops being valid, in milliseconds since the Unix epoch.
        expires: Millis,
    },
    /// Uploaded. Never changes again.
    Stored(MediaContent),
}

/// What was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaContent {
    /// Where its bytes are.
    pub blob: BlobId,
    /// Its length in bytes.
    pub size: u64,
    /// The content type, as the uploader gave it.
    pub content_type: String,
    /// The file name, as the uploader gave it.
    pub filename: Option<String>,
}

/// Why media is kept from everyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// The admin who has said so.
    pub by: String,
    /// When.
    pub at: Millis,
}
impl_value!(QuarantineRow);

/// Which thumbnail of a blob: width and height asked for (rounded to those this server makes; `u32::MAX` is the whole
/// picture), and its form: 1 if it is cropped to their ratio, and 2 if it may move, added.
pub type ThumbnailKey = (BlobId, u32, u32, u8);

/// A thumbnail that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailRow {
    /// Where its bytes are: the picture's own blob if that is good enough as it is.
    pub blob: BlobId,
    /// Its length in bytes.
    pub size: u64,
    /// Its content type: `image/png` or `image/jpeg`, `image/gif` if it moves, or `image/webp` for the picture itself.
    pub content_type: String,
    /// When it was made.
    pub created: Millis,
}
impl_value!(ThumbnailRow);

#[cfg(test)]
mod tests {
    use super::BlobId;

    #[test]
    fn a_blob_id_is_64_lower_case_digits() {
        let id = BlobId([0xa7; 32]);
        assert_eq!(BlobId::from_hex(&id.to_string()), Some(id));
        for bad in [
            "",
            "a7",
            &"A7".repeat(32),
            &"+7".repeat(32),
            &"..".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(BlobId::from_hex(bad), None, "{bad}");
        }
    }
}
