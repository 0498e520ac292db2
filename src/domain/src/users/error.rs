//! Why something about an account could not be done.

use vatra_store::{CommitError, StoreError};

use crate::{appservice::Exclusive, ids::IdError, mail::templates::TemplateError};

/// Reasons only; `http/error.rs` says what clients are told.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The name is taken, or was.
    #[error("that user name is taken")]
    NameTaken,
    /// The name is not one a user may have.
    #[error(
        "a user name has only a-z, 0-9 and . _ = - / + and at most 255 bytes with the server's name"
    )]
    BadName,
    /// The name is an application service's, or none of its own.
    #[error(transparent)]
    Exclusive(#[from] Exclusive),
    /// The password is not strong enough.
    #[error("a password has at least {} characters", super::passwords::SHORTEST)]
    WeakPassword,
    /// User or password is wrong; which of them is not said.
    #[error("wrong user name or password")]
    WrongPassword,
    /// The account is deactivated.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The account is locked.
    #[error("this account has been locked")]
    Locked,
    /// The account is suspended, and this is not among what its user may do.
    #[error("you cannot do this while your account is suspended")]
    Suspended,
    /// Whom an identity provider vouches for has an account.
    #[error("that identity has an account")]
    IdentityInUse,
    /// The token that a guest is to register with is none of a guest.
    #[error("guest_access_token is no guest's")]
    NoGuest,
    /// A guest registers by another name than they have.
    #[error(
        "a guest who registers keeps their name: username is to be the local part of their user id"
    )]
    NotTheGuest,
    /// Who asks is no admin, or asks for what admins may not do to each other.
    #[error("{0}")]
    NotForYou(&'static str),
    /// A user of another server.
    #[error("that user is not of this server")]
    Elsewhere,
    /// No such account, device, filter or piece of data.
    #[error("not found")]
    NotFound,
    /// A profile would grow beyond 64 KiB.
    #[error("the profile would be larger than 64 KiB")]
    ProfileTooLarge,
    /// A profile field's name is longer than 255 bytes.
    #[error("the name of a profile field is longer than 255 bytes")]
    KeyTooLarge,
    /// A value is not of the shape that its name asks for.
    #[error("{0}")]
    BadValue(&'static str),
    /// The device's name is longer than 255 bytes.
    #[error("the name of a device has at most 255 bytes")]
    DeviceNameTooLong,
    /// The id is none that a device may have, or the name of a cross-signing key.
    #[error("no device can have that id")]
    BadDeviceId,
    /// The user has as many devices as one may have.
    #[error("there are too many devices: log out of some")]
    TooManyDevices,
    /// The refresh token is unknown or used up.
    #[error("unknown refresh token")]
    UnknownRefreshToken,
    /// What should be an e-mail address is none.
    #[error("that is no e-mail address")]
    BadEmail,
    /// Something of a request for a validation is not of the form that it must have.
    #[error("{0}")]
    BadValidation(&'static str),
    /// There is no session with this id and secret, for this purpose, whose address was validated.
    #[error("the e-mail address has not been validated")]
    EmailNotValidated,
    /// The address is another account's.
    #[error("that e-mail address is in use")]
    EmailInUse,
    /// The user has as many addresses as one may have.
    #[error("there are too many e-mail addresses: remove some")]
    TooManyEmails,
    /// A letter cannot be made.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The password could not be hashed.
    #[error("passwords cannot be hashed: {0}")]
    Hashing(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the rows.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<IdError> for UsersError {
    fn from(error: IdError) -> Self {
        match error {
            IdError::Store(error) => Self::Store(error),
            IdError::Commit(error) => Self::Commit(error),
        }
    }
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthFailure {
    /// No such token (any more).
    #[error("unknown access token")]
    Unknown,
    /// The token has run out; the client may refresh it.
    #[error("the access token has expired")]
    Expired,
    /// An application service names something that is no user id.
    #[error("user_id is no user id")]
    NoUserId,
    /// An application service names a user who is not in its namespaces.
    #[error("the application service may not act as this user")]
    NotItsUser,
    /// An application service names a user whom it has not registered yet.
    #[error("the application service has not registered this user")]
    NotRegistered,
    /// An application service names a user whose account has ended.
    #[error("this account has been deactivated")]
    Deactivated,
    /// An application service names a device that the user does not have.
    #[error("the user has no such device")]
    UnknownDevice,
    /// The account is locked; the token stays.
    #[error("this account has been locked")]
    Locked,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
