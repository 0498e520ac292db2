//! Why something about keys could not be done.

use vatra_store::{CommitError, StoreError};

use crate::ids::IdError;

/// Reasons only; `http/error.rs` says what clients are told.
#[derive(Debug, thiserror::Error)]
pub enum E2eeError {
    /// The request is not of the right shape.
    #[error("{0}")]
    BadJson(String),
    /// Keys that name another user or device, or contradict what is stored.
    #[error("{0}")]
    InvalidParam(String),
    /// A signature does not match.
    #[error("{0}")]
    InvalidSignature(String),
    /// There is no master key to sign the others.
    #[error("there is no master key: upload one first, or with the others")]
    NoMasterKey,
    /// A key has the id of a device, or the other way round.
    #[error("that id is taken by a device or a key")]
    IdInUse,
    /// More than a request or a device may have.
    #[error("{0}")]
    TooLarge(String),
    /// More than a user may have.
    #[error("{0}")]
    TooMany(&'static str),
    /// No such backup, key or device.
    #[error("{0}")]
    NotFound(&'static str),
    /// Keys go into the newest backup only.
    #[error("that is not the current backup")]
    WrongVersion {
        /// The current one.
        current: String,
    },
    /// The device was removed meanwhile.
    #[error("there is no such device any more")]
    DeviceGone,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the rows.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<IdError> for E2eeError {
    fn from(error: IdError) -> Self {
        match error {
            IdError::Store(error) => Self::Store(error),
            IdError::Commit(error) => Self::Commit(error),
        }
    }
}

/// Why one signature of many was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The key is not known.
    #[error("no such key")]
    NotFound,
    /// The object is not the key that is known, or the signature does not match.
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// It is not a signed object at all.
    #[error("{0}")]
    BadJson(String),
}
