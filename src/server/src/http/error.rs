//! The table from reasons to what clients are told: status, errcode, message. Failures of our own are logged here, once.

use std::{fmt::Display, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use ruma::api::{client::uiaa::UiaaInfo, error::ErrorCode};
use serde_json::{Map, Value, json};
use tracing::{debug, error};
use vatra_domain::{
    appservice::line::LineError,
    e2ee::E2eeError,
    federation::{FederationError, transaction::TransactionError},
    flows::{FlowError, appservices::PingError, keys::KeysError},
    media::MediaError,
    remote::RemoteError,
    rooms::RoomError,
    search::SearchError,
    sync::SyncError,
    url_preview::PreviewError,
    users::{AuthFailure, UsersError, pushers::PusherError},
};
use vatra_store::{CommitError, StoreError};

/// An error as it goes to a client.
#[derive(Debug)]
pub(crate) struct Error {
    status: StatusCode,
    body: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error with a status, an errcode and a message for people.
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Display) -> Self {
        let mut body = Map::new();
        body.insert("errcode".to_owned(), Value::String(code.to_string()));
        body.insert("error".to_owned(), Value::String(message.to_string()));
        Self {
            status,
            body,
            retry_after: None,
        }
    }

    /// The same with another field.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.body.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn forbidden(message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// What guests may not do.
    pub(crate) fn no_guests(message: impl Display) -> Self {
        let code = ErrorCode::GuestAccessForbidden;
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn not_found(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    /// The same for who may not know that there is something; `hidden` says that there is nothing.
    pub(crate) fn hiding(self, hidden: Self) -> Self {
        match self.status {
            StatusCode::FORBIDDEN => hidden,
            _ => self,
        }
    }

    pub(crate) fn bad_json(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadJson, message)
    }

    pub(crate) fn not_json(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::NotJson, message)
    }

    pub(crate) fn invalid_param(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, message)
    }

    pub(crate) fn missing_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::MissingToken,
            "an access token is needed",
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, message)
    }

    pub(crate) fn unrecognized(status: StatusCode) -> Self {
        Self::new(
            status,
            ErrorCode::Unrecognized,
            "this server does not know that request",
        )
    }

    /// Too many requests: try again after `wait`.
    pub(crate) fn limited(wait: Duration) -> Self {
        // Rounded up: who comes back at once is too early.
        let millis =
            u64::try_from(wait.as_millis()).map_or(u64::MAX, |wait| wait.saturating_add(1));
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::LimitExceeded,
            "too many requests",
        )
        .with("retry_after_ms", json!(millis));
        error.retry_after = Some(wait);
        error
    }

    /// The server itself failed. The client is told no details; the log is.
    pub(crate) fn internal(reason: &dyn Display) -> Self {
        error!(%reason, "a request failed inside the server");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unknown,
            "the server failed; try again later",
        )
    }

    /// The store does not write now: what was asked may or may not have happened.
    fn unavailable(reason: &dyn Display) -> Self {
        error!(%reason, "a request could not be stored");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unknown,
            "the server cannot write now; try again later",
        )
    }

    /// More authentication is needed. <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>
    pub(crate) fn uiaa(info: &UiaaInfo) -> Self {
        let body = match serde_json::to_value(info) {
            Ok(Value::Object(body)) => body,
            _ => Map::new(),
        };
        Self {
            status: StatusCode::UNAUTHORIZED,
            body,
            retry_after: None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(Value::Object(self.body))).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).to_string();
            if let Ok(value) = HeaderValue::from_str(&seconds) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        Self::unavailable(&error)
    }
}

impl From<AuthFailure> for Error {
    fn from(failure: AuthFailure) -> Self {
        let unknown = |soft| {
            Self::new(StatusCode::UNAUTHORIZED, ErrorCode::UnknownToken, &failure)
                .with("soft_logout", json!(soft))
        };
        match &failure {
            AuthFailure::Unknown => unknown(false),
            AuthFailure::Expired => unknown(true),
            AuthFailure::NoUserId => Self::invalid_param(&failure.to_string()),
            AuthFailure::NotItsUser | AuthFailure::NotRegistered => Self::forbidden(&failure),
            AuthFailure::Deactivated => {
                Self::new(StatusCode::FORBIDDEN, ErrorCode::UserDeactivated, &failure)
            }
            AuthFailure::UnknownDevice => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::from("M_UNKNOWN_DEVICE"),
                &failure,
            ),
            AuthFailure::Locked => UsersError::Locked.into(),
            AuthFailure::Store(error) => Self::internal(error),
        }
    }
}

impl From<UsersError> for Error {
    fn from(error: UsersError) -> Self {
        let (status, code) = match &error {
            UsersError::Locked => {
                return Self::new(StatusCode::UNAUTHORIZED, ErrorCode::UserLocked, error)
                    .with("soft_logout", json!(true));
            }
            UsersError::Suspended => (StatusCode::FORBIDDEN, ErrorCode::UserSuspended),
            UsersError::IdentityInUse => (StatusCode::BAD_REQUEST, ErrorCode::UserInUse),
            UsersError::NoGuest => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            UsersError::NotTheGuest => (StatusCode::BAD_REQUEST, ErrorCode::InvalidUsername),
            UsersError::NotForYou(_) => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            UsersError::Elsewhere => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            UsersError::NameTaken => (StatusCode::BAD_REQUEST, ErrorCode::UserInUse),
            UsersError::Exclusive(_) => (StatusCode::BAD_REQUEST, ErrorCode::Exclusive),
            UsersError::BadName => (StatusCode::BAD_REQUEST, ErrorCode::InvalidUsername),
            UsersError::WeakPassword => (StatusCode::BAD_REQUEST, ErrorCode::WeakPassword),
            UsersError::WrongPassword => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            UsersError::Deactivated => (StatusCode::FORBIDDEN, ErrorCode::UserDeactivated),
            UsersError::NotFound => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            UsersError::ProfileTooLarge => (StatusCode::BAD_REQUEST, ErrorCode::ProfileTooLarge),
            UsersError::KeyTooLarge => (StatusCode::BAD_REQUEST, ErrorCode::KeyTooLarge),
            UsersError::BadValue(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadJson),
            UsersError::DeviceNameTooLong => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge),
            UsersError::BadDeviceId => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            UsersError::TooManyDevices => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            UsersError::UnknownRefreshToken => (StatusCode::UNAUTHORIZED, ErrorCode::UnknownToken),
            UsersError::BadEmail | UsersError::BadValidation(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam)
            }
            UsersError::EmailNotValidated => {
                (StatusCode::BAD_REQUEST, ErrorCode::ThreepidAuthFailed)
            }
            UsersError::EmailInUse => (StatusCode::BAD_REQUEST, ErrorCode::ThreepidInUse),
            UsersError::TooManyEmails => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            UsersError::Template(_) | UsersError::Hashing(_) | UsersError::Store(_) => {
                return Self::internal(&error);
            }
            UsersError::Commit(_) => return Self::unavailable(&error),
        };
        Self::new(status, code, error)
    }
}

impl From<PusherError> for Error {
    fn from(error: PusherError) -> Self {
        let (status, code) = match error {
            PusherError::Missing(_) => (StatusCode::BAD_REQUEST, ErrorCode::MissingParam),
            PusherError::BadLength(_)
            | PusherError::UnknownKind
            | PusherError::BadUrl
            | PusherError::NoEmail
            | PusherError::NotMailApp
            | PusherError::BadWish(_) => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            PusherError::NotYourEmail => (StatusCode::BAD_REQUEST, ErrorCode::ThreepidNotFound),
            PusherError::TooMany => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            PusherError::DeviceGone => (StatusCode::UNAUTHORIZED, ErrorCode::UnknownToken),
            PusherError::Users(error) => return error.into(),
            PusherError::Store(error) => return error.into(),
            PusherError::Commit(error) => return error.into(),
        };
        Self::new(status, code, error)
    }
}

impl From<KeysError> for Error {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::E2ee(error) => error.into(),
            KeysError::Room(error) => error.into(),
        }
    }
}

impl From<E2eeError> for Error {
    fn from(error: E2eeError) -> Self {
        let (status, code) = match &error {
            E2eeError::BadJson(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadJson),
            E2eeError::InvalidParam(_) => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            E2eeError::InvalidSignature(_) => (
                StatusCode::BAD_REQUEST,
                ErrorCode::from("M_INVALID_SIGNATURE"),
            ),
            E2eeError::NoMasterKey => (StatusCode::BAD_REQUEST, ErrorCode::MissingParam),
            E2eeError::IdInUse | E2eeError::TooMany(_) => {
                (StatusCode::FORBIDDEN, ErrorCode::Forbidden)
            }
            E2eeError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge),
            E2eeError::NotFound(_) => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            E2eeError::WrongVersion { current } => {
                let current = json!(current);
                let code = ErrorCode::WrongRoomKeysVersion;
                return Self::new(StatusCode::FORBIDDEN, code, &error)
                    .with("current_version", current);
            }
            E2eeError::DeviceGone => (StatusCode::UNAUTHORIZED, ErrorCode::UnknownToken),
            E2eeError::Store(_) => return Self::internal(&error),
            E2eeError::Commit(_) => return Self::unavailable(&error),
        };
        Self::new(status, code, error)
    }
}

impl From<MediaError> for Error {
    fn from(error: MediaError) -> Self {
        let (status, code) = match &error {
            MediaError::TooLarge { .. }
            | MediaError::OverQuota { .. }
            | MediaError::PictureTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge),
            MediaError::BrokenBody(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unknown),
            MediaError::BadName(_) => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            MediaError::NotFound => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            MediaError::NotYetUploaded => (StatusCode::GATEWAY_TIMEOUT, ErrorCode::NotYetUploaded),
            MediaError::NotCreator => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            MediaError::AlreadyUploaded => (StatusCode::CONFLICT, ErrorCode::CannotOverwriteMedia),
            MediaError::TooManyPending { retry_after_ms } => {
                return Self::limited(Duration::from_millis(*retry_after_ms));
            }
            MediaError::Remote(error) => return error.clone().into(),
            MediaError::CannotThumbnail => (StatusCode::BAD_REQUEST, ErrorCode::Unknown),
            MediaError::Damaged(_) | MediaError::Blob(_) | MediaError::Store(_) => {
                return Self::internal(&error);
            }
            MediaError::Commit(_) | MediaError::Unwritable(_) => return Self::unavailable(&error),
        };
        Self::new(status, code, error)
    }
}

/// Why there is no preview is in the log: whoever asks could else find out what this server can reach.
impl From<PreviewError> for Error {
    fn from(error: PreviewError) -> Self {
        match error {
            PreviewError::BadUrl => Self::invalid_param("this is no URL of the web"),
            PreviewError::Busy => Self::limited(Duration::from_secs(5)),
            PreviewError::Media(error @ (MediaError::Store(_) | MediaError::Commit(_))) => {
                error.into()
            }
            PreviewError::Media(error @ MediaError::Unwritable(_)) => error.into(),
            _ => Self::not_found("there is no preview of this URL"),
        }
    }
}

impl From<FlowError> for Error {
    fn from(error: FlowError) -> Self {
        let (status, code) = match error {
            FlowError::Room(error) => return error.into(),
            FlowError::Users(error) => return error.into(),
            FlowError::Remote(error) => return error.into(),
            FlowError::Receive(_) => (StatusCode::BAD_GATEWAY, ErrorCode::Unknown),
            FlowError::NoServers => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            FlowError::InvalidRoomState(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::InvalidRoomState)
            }
            FlowError::BadRequest(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadJson),
            FlowError::InvalidParam(_) => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            FlowError::StillThere => (StatusCode::BAD_REQUEST, ErrorCode::Unknown),
            FlowError::BadAlias(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadAlias),
            FlowError::Exclusive(_) => (StatusCode::BAD_REQUEST, ErrorCode::Exclusive),
            FlowError::AliasTaken => (StatusCode::BAD_REQUEST, ErrorCode::RoomInUse),
            FlowError::UnknownAlias => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            FlowError::ServerNotices => (
                StatusCode::FORBIDDEN,
                ErrorCode::CannotLeaveServerNoticeRoom,
            ),
            FlowError::NoGuests => (StatusCode::FORBIDDEN, ErrorCode::GuestAccessForbidden),
            FlowError::InviteBlocked => (StatusCode::FORBIDDEN, ErrorCode::InviteBlocked),
            FlowError::BadState(_) => (StatusCode::FORBIDDEN, ErrorCode::BadState),
        };
        Self::new(status, code, error)
    }
}

/// What another server says is told on by its errcode; its status is its own affair.
impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        let bad_gateway =
            |message: &dyn Display| Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, message);
        let refusal = match &error {
            RemoteError::Answered(refusal) => refusal,
            RemoteError::Unreachable(_)
            | RemoteError::BackingOff { .. }
            | RemoteError::Unreadable(_) => {
                debug!(%error, "another server gave no answer");
                return bad_gateway(
                    &"the other server cannot be reached, or gave no usable answer",
                );
            }
            RemoteError::Closed | RemoteError::Ourselves(_) => {
                return Self::not_found("this server knows nothing of it");
            }
            RemoteError::Unwritable(_) => return Self::internal(&error),
        };
        let status = match refusal.code {
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Forbidden
            | ErrorCode::UnableToAuthorizeJoin
            | ErrorCode::UnableToGrantJoin
            | ErrorCode::InviteBlocked => StatusCode::FORBIDDEN,
            ErrorCode::IncompatibleRoomVersion | ErrorCode::UnsupportedRoomVersion => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::NotYetUploaded => StatusCode::GATEWAY_TIMEOUT,
            _ => return bad_gateway(&error),
        };
        let answer = Self::new(status, refusal.code.clone(), "the other server refuses");
        match &refusal.room_version {
            Some(version) => answer.with("room_version", json!(version)),
            None => answer,
        }
    }
}

impl From<FederationError> for Error {
    fn from(error: FederationError) -> Self {
        let (status, code) = match &error {
            FederationError::Unknown(_) => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            FederationError::Forbidden(_) => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            FederationError::InviteBlocked => (StatusCode::FORBIDDEN, ErrorCode::InviteBlocked),
            FederationError::InvalidParam(_) => (StatusCode::BAD_REQUEST, ErrorCode::InvalidParam),
            FederationError::IncompatibleVersion(version) => {
                let (status, version) = (StatusCode::BAD_REQUEST, json!(version));
                return Self::new(status, ErrorCode::IncompatibleRoomVersion, &error)
                    .with("room_version", version);
            }
            FederationError::UnsupportedVersion => {
                (StatusCode::BAD_REQUEST, ErrorCode::UnsupportedRoomVersion)
            }
            FederationError::UnableToAuthorise => {
                (StatusCode::BAD_REQUEST, ErrorCode::UnableToAuthorizeJoin)
            }
            FederationError::UnableToGrant => {
                (StatusCode::BAD_REQUEST, ErrorCode::UnableToGrantJoin)
            }
            FederationError::Room(_) => {
                return match error {
                    FederationError::Room(error) => error.into(),
                    other => Self::internal(&other),
                };
            }
        };
        Self::new(status, code, error)
    }
}

impl From<TransactionError> for Error {
    fn from(error: TransactionError) -> Self {
        match &error {
            TransactionError::Refused(reason) => Self::invalid_param(reason),
            TransactionError::TooMany => Self::limited(Duration::from_secs(5)),
            TransactionError::Store(error) => Self::internal(error),
            TransactionError::Commit(error) => Self::unavailable(error),
        }
    }
}

/// <https://spec.matrix.org/v1.19/application-service-api/#pinging>
impl From<PingError> for Error {
    fn from(error: PingError) -> Self {
        let (status, code) = match &error {
            PingError::Line(LineError::NoUrl) => (StatusCode::BAD_REQUEST, ErrorCode::UrlNotSet),
            PingError::Line(LineError::TimedOut) => {
                (StatusCode::GATEWAY_TIMEOUT, ErrorCode::ConnectionTimeout)
            }
            PingError::Line(LineError::Unreachable(_)) => {
                (StatusCode::BAD_GATEWAY, ErrorCode::ConnectionFailed)
            }
            PingError::Status { status, body } => {
                let answer = Self::new(StatusCode::BAD_GATEWAY, ErrorCode::BadStatus, &error);
                let answer = answer.with("status", json!(status.as_u16()));
                return answer.with("body", json!(body));
            }
        };
        Self::new(status, code, error)
    }
}

impl From<SyncError> for Error {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Room(error) => error.into(),
            SyncError::Users(error) => error.into(),
            SyncError::Store(error) => error.into(),
        }
    }
}

impl From<SearchError> for Error {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::TooLong(_) | SearchError::TooMany(_) | SearchError::BadToken => {
                Self::invalid_param(&error.to_string())
            }
            SearchError::NotReady => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, error)
            }
            SearchError::Index(error) => Self::internal(&error),
            SearchError::Room(error) => error.into(),
        }
    }
}

impl From<RoomError> for Error {
    fn from(error: RoomError) -> Self {
        let (status, code) = match &error {
            // Whether a room exists is none of an outsider's business.
            RoomError::UnknownRoom | RoomError::Forbidden(_) | RoomError::Unasked => {
                (StatusCode::FORBIDDEN, ErrorCode::Forbidden)
            }
            RoomError::BadContent(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadJson),
            RoomError::UnknownEvent => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            RoomError::UnsupportedVersion => {
                (StatusCode::BAD_REQUEST, ErrorCode::UnsupportedRoomVersion)
            }
            RoomError::Unbuildable(build) => match build {
                vatra_domain::event::build::BuildError::TooLarge
                | vatra_domain::event::build::BuildError::FieldTooLong(_) => {
                    (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge)
                }
                _ => (StatusCode::BAD_REQUEST, ErrorCode::BadJson),
            },
            RoomError::Raced | RoomError::Commit(_) => return Self::unavailable(&error),
            RoomError::Pdu(_) | RoomError::Store(_) | RoomError::Unresolvable(_) => {
                return Self::internal(&error);
            }
        };
        Self::new(status, code, error)
    }
}
