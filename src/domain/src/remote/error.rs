//! What can go wrong when another server is asked, as reasons.

use http::StatusCode;
use ruma::{
    OwnedServerName, RoomVersionId,
    api::error::{ErrorBody, ErrorCode, ErrorKind, RetryAfter, StandardErrorBody},
};

use super::transport::TransportError;
use crate::clock::Millis;

/// Why there is no usable answer of another server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// The server was not reached, or its answer broke off.
    #[error("{0}")]
    Unreachable(#[from] TransportError),
    /// The server was not asked, since it has not answered lately.
    #[error("the server has not answered lately and is left alone for a while")]
    BackingOff {
        /// When it is asked again.
        retry_at: Millis,
    },
    /// The server said no.
    #[error("the other server answered {0}")]
    Answered(Refusal),
    /// The answer is not what was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// The request cannot be written or signed.
    #[error("the request cannot be written: {0}")]
    Unwritable(String),
    /// This server speaks with no others.
    #[error("this server speaks with no others")]
    Closed,
    /// The destination is this server.
    #[error("{0} is this server")]
    Ourselves(OwnedServerName),
}

impl RemoteError {
    /// The refusal, if the server answered at all.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Answered(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the server answered with this errcode.
    pub fn is_code(&self, code: &ErrorCode) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code == *code)
    }
}

/// What a server says when it says no: only what may be told on. Its message is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The errcode, if it is one of [`Refusal::KNOWN`]; else `M_UNKNOWN`.
    pub code: ErrorCode,
    /// With `M_INCOMPATIBLE_ROOM_VERSION`: the room's version.
    pub room_version: Option<RoomVersionId>,
    /// With `M_LIMIT_EXCEEDED`: how long to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.status.as_u16(), self.code)
    }
}

impl Refusal {
    /// The errcodes of another server that mean to a client of ours what they mean to this server.
    pub const KNOWN: [ErrorCode; 12] = [
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::LimitExceeded,
        ErrorCode::Unrecognized,
        ErrorCode::InvalidParam,
        ErrorCode::UnsupportedRoomVersion,
        ErrorCode::IncompatibleRoomVersion,
        ErrorCode::UnableToAuthorizeJoin,
        ErrorCode::UnableToGrantJoin,
        ErrorCode::TooLarge,
        ErrorCode::InviteBlocked,
        ErrorCode::NotYetUploaded,
    ];

    /// Reads an answer that is no success.
    pub(super) fn read(status: StatusCode, body: ErrorBody) -> Self {
        let mut refusal = Self {
            status,
            code: ErrorCode::Unknown,
            room_version: None,
            retry_after_ms: None,
        };
        let ErrorBody::Standard(StandardErrorBody { kind, .. }) = body else {
            return refusal;
        };
        let code = kind.errcode();
        if Self::KNOWN.contains(&code) {
            refusal.code = code;
        }
        match kind {
            ErrorKind::IncompatibleRoomVersion(data) => {
                refusal.room_version = Some(data.room_version);
            }
            ErrorKind::LimitExceeded(data) => {
                refusal.retry_after_ms = match data.retry_after {
                    Some(RetryAfter::Delay(wait)) => u64::try_from(wait.as_millis()).ok(),
                    _ => None,
                };
            }
            _ => {}
        }
        refusal
    }
}
