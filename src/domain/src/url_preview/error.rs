//! Why there is no preview: reasons, without HTTP.

use crate::{media::MediaError, remote::TransportError};

/// Why there is no preview. Cheap to clone, since everyone who waits for one gets the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PreviewError {
    /// It is no `http` or `https` URL, or one that carries a login.
    #[error("this is no URL of the web")]
    BadUrl,
    /// The operator does not have this host asked.
    #[error("the settings exclude the host {0}")]
    Excluded(String),
    /// Too many previews are being made.
    #[error("too many previews are being made")]
    Busy,
    /// It took too long.
    #[error("no answer in time")]
    TooSlow,
    /// One redirect led to another, and so on.
    #[error("too many redirects")]
    TooManyRedirects,
    /// The answer is not 200.
    #[error("the answer is {0}")]
    Status(u16),
    /// The answer cannot be used.
    #[error("{0}")]
    Unreadable(&'static str),
    /// There is no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The picture is none, or cannot be stored.
    #[error(transparent)]
    Media(#[from] MediaError),
}

impl PreviewError {
    /// Whether it may be otherwise in a moment, for reasons of this server's own.
    pub(super) fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::Media(
                    MediaError::Unwritable(_) | MediaError::Commit(_) | MediaError::Store(_)
                )
        )
    }
}
