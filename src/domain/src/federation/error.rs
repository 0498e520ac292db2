//! Why another server's request is not done.

use ruma::RoomVersionId;
use vatra_store::StoreError;

use crate::rooms::{RoomError, receive::ReceiveError};

/// Reasons only; `http/error.rs` says what servers are told.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// No such room or event here.
    #[error("this server knows no such {0}")]
    Unknown(&'static str),
    /// The server may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// The request is not what it should be.
    #[error("{0}")]
    InvalidParam(String),
    /// The server does not know the room's version.
    #[error("the room is of a version that the server does not know")]
    IncompatibleVersion(RoomVersionId),
    /// This server does not know the room's version.
    #[error("this server does not know that room version")]
    UnsupportedVersion,
    /// This server cannot tell whether the user may join.
    #[error("this server cannot tell whether the user may join")]
    UnableToAuthorise,
    /// The user may join, but nobody here has the power to let them in.
    #[error("nobody of this server has the power to let the user in")]
    UnableToGrant,
    /// The user wants no invites.
    #[error("that user takes no invites")]
    InviteBlocked,
    /// Something about the room.
    #[error(transparent)]
    Room(RoomError),
}

impl FederationError {
    pub(super) fn invalid(reason: impl std::fmt::Display) -> Self {
        Self::InvalidParam(reason.to_string())
    }
}

impl From<RoomError> for FederationError {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::UnknownRoom => Self::Unknown("room"),
            RoomError::UnknownEvent => Self::Unknown("event"),
            RoomError::Forbidden(reason) => Self::Forbidden(reason),
            other => Self::Room(other),
        }
    }
}

impl From<StoreError> for FederationError {
    fn from(error: StoreError) -> Self {
        Self::Room(error.into())
    }
}

impl From<ReceiveError> for FederationError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Room(error) => error.into(),
            other => Self::invalid(other),
        }
    }
}
