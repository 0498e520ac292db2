//! Pictures that this server itself has found on the web, for previews of URLs.

use std::io::Cursor;

use bytes::Bytes;
use image::{ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};
use ruma::OwnedMxcUri;
use vatra_store::Batch;

use super::{Media, MediaError};
use crate::{
    remote::transport::ready,
    schema::{MEDIA, MediaContent, MediaRow, MediaState, USER_MEDIA_BYTES},
};

/// A picture that is media of this server now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPicture {
    /// Where.
    pub uri: OwnedMxcUri,
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`, and truly so.
    pub content_type: &'static str,
    /// Its width in pixels, as it is shown.
    pub width: u32,
    /// Its height in pixels, as it is shown.
    pub height: u32,
    /// Its length in bytes.
    pub size: u64,
}

impl Media {
    /// Stores a picture under a new id, whatever it was said to be. It is nobody's upload: the row says that it is the server's.
    ///
    /// # Errors
    /// [`MediaError::CannotThumbnail`] if it is none that clients show, [`MediaError::PictureTooLarge`] if it has too many pixels; nothing
    /// is stored then.
    pub async fn keep_found(&self, bytes: Bytes) -> Result<FoundPicture, MediaError> {
        let (format, width, height) = self.measure(bytes.clone())?;
        let content_type = format.to_mime_type();
        let (blob, size, _keeping) = self.store_blob(None, ready(bytes)).await?;
        let (key, uri) = self.new_id();
        let content = MediaContent {
            blob,
            size,
            content_type: content_type.to_owned(),
            filename: None,
        };
        let row = MediaRow {
            uploader: self.inner.settings.server_name.to_string(),
            created: self.now(),
            state: MediaState::Stored(content),
        };
        let mut batch = Batch::new();
        batch.assert_absent(&MEDIA, &key).put(&MEDIA, &key, &row);
        self.use_blob(&mut batch, blob, size);
        // Counted like a user's, but without a quota.
        let counted = i64::try_from(size).unwrap_or(i64::MAX);
        batch.add(&USER_MEDIA_BYTES, &row.uploader, counted);
        self.inner.store.write(batch).await?;
        Ok(FoundPicture {
            uri,
            content_type,
            width,
            height,
            size,
        })
    }

    /// What a picture is by its first bytes. Reads its header only.
    fn measure(&self, bytes: Bytes) -> Result<(ImageFormat, u32, u32), MediaError> {
        let none = |_| MediaError::CannotThumbnail;
        let known = [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::Gif,
            ImageFormat::WebP,
        ];
        let format = image::guess_format(&bytes).map_err(none)?;
        if !known.contains(&format) {
            return Err(MediaError::CannotThumbnail);
        }
        let settings = &self.inner.settings;
        let mut limits = Limits::default();
        limits.max_alloc = Some(settings.max_picture_memory_bytes);
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(none)?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width).saturating_mul(u64::from(height));
        if pixels == 0 {
            return Err(MediaError::CannotThumbnail);
        }
        if pixels > settings.max_picture_pixels {
            return Err(MediaError::PictureTooLarge);
        }
        let turned = matches!(
            decoder.orientation(),
            Ok(Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH)
        );
        let (width, height) = if turned {
            (height, width)
        } else {
            (width, height)
        };
        Ok((format, width, height))
    }
}
