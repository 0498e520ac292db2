//! Why something about a room could not be done.

use vatra_store::{CommitError, StoreError};

use crate::{
    event::{auth::AuthError, build::BuildError, pdu::PduError},
    ids::IdError,
};

/// Reasons only; `http/error.rs` says what clients are told.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// No such room on this server.
    #[error("the room is not known to this server")]
    UnknownRoom,
    /// No such event in the room, or not one the user may see.
    #[error("no such event, or it is not visible to you")]
    UnknownEvent,
    /// The room version is none this server knows.
    #[error("this server does not support the room version")]
    UnsupportedVersion,
    /// The auth rules forbid the event.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody could send an event with that content.
    #[error("{0}")]
    BadContent(String),
    /// The event cannot be built: too large, not canonical JSON, or of a wrong shape.
    #[error(transparent)]
    Unbuildable(#[from] BuildError),
    /// An event in the store cannot be read.
    #[error(transparent)]
    Pdu(#[from] PduError),
    /// States of the room cannot be made one.
    #[error("the room's states cannot be resolved: {0}")]
    Unresolvable(String),
    /// The room's policy server must be asked first; see `Receiver::send_one_at`.
    #[error("the room's policy server must be asked")]
    Unasked,
    /// Another writer came first and the retry lost too.
    #[error("the room changed meanwhile")]
    Raced,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the batch: whether it happened is unknown.
    #[error(transparent)]
    Commit(CommitError),
}

impl From<CommitError> for RoomError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::AssertFailed => Self::Raced,
            other => Self::Commit(other),
        }
    }
}

impl From<IdError> for RoomError {
    fn from(error: IdError) -> Self {
        match error {
            IdError::Store(error) => Self::Store(error),
            IdError::Commit(error) => Self::from(error),
        }
    }
}

impl From<AuthError> for RoomError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Forbidden(reason) => Self::Forbidden(reason),
            AuthError::BadContent(reason) => Self::BadContent(reason),
        }
    }
}
