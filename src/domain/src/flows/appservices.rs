//! What application services are asked: whether they are there, whether they want to make a user or an alias that somebody looks
//! for, and what they know of the networks that they bridge to.
//!
//! An answer is a stranger's JSON as any other: it is read as what was asked for, or not at all.
//! <https://spec.matrix.org/v1.19/application-service-api/#querying>

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use http::{Method, StatusCode};
use ruma::{RoomAliasId, RoomId, UserId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;
use vatra_store::Batch;

use super::{FlowError, membership::alias_target};
use crate::{
    appservice::{
        Service,
        line::{Asking, LineError, Question, encoded},
    },
    clock::{Millis, SharedClock},
    rooms::{RoomError, Rooms},
    schema,
    users::Users,
};

/// How long someone waits for a service that makes a user or a room.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long someone waits for what services know of their networks, and how long a service waits for itself.
const SHORT: Duration = Duration::from_secs(10);
/// How much of a bad answer the service is told, in characters.
const BODY: usize = 1_000;
/// The longest name of a network, in bytes.
const MAX_NETWORK: usize = 255;
/// The most that one service tells of users or places at once.
const MAX_FOUND: usize = 1_000;

/// Why a ping came back without success.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// There is no answer.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The answer is no success.
    #[error("the application service answers {status}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// The beginning of its body.
        body: String,
    },
}

/// Asks a service whether it is there; gives the milliseconds that it took.
///
/// # Errors
/// [`PingError`].
pub async fn ping(
    asking: &Asking,
    clock: &SharedClock,
    service: &Service,
    transaction: Option<&str>,
) -> Result<Millis, PingError> {
    let body = transaction.map_or_else(|| json!({}), |id| json!({ "transaction_id": id }));
    let question = Question {
        method: Method::POST,
        path: "/_matrix/app/v1/ping".to_owned(),
        legacy: None,
        body: body.to_string().into(),
    };
    let begun = clock.now();
    let answer = asking.ask(service, question, SHORT).await?;
    if !answer.status().is_success() {
        let body = String::from_utf8_lossy(answer.body());
        return Err(PingError::Status {
            status: answer.status(),
            body: body.chars().take(BODY).collect(),
        });
    }
    Ok(clock.now().saturating_sub(begun))
}

/// Somebody looks for a local user. If there is none, the services whose name it is are asked: they may make it.
///
/// # Errors
/// The store's.
pub async fn look_for_user(users: &Users, asking: &Asking, user: &UserId) -> Result<(), FlowError> {
    if users.services().is_empty()
        || user.server_name() != users.server_name()
        || users.find(user.as_str()).await?.is_some()
    {
        return Ok(());
    }
    let id = encoded(user.as_str());
    for service in users.services().all().iter().filter(|it| it.has_user(user)) {
        if exists(asking, service, &format!("users/{id}")).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Somebody looks for a local alias. If there is none, the services whose name it is are asked: they may make it.
///
/// # Errors
/// The store's.
pub async fn look_for_alias(
    rooms: &Rooms,
    users: &Users,
    asking: &Asking,
    alias: &RoomAliasId,
) -> Result<(), FlowError> {
    if users.services().is_empty()
        || alias.server_name() != users.server_name()
        || alias_target(rooms, alias).await?.is_some()
    {
        return Ok(());
    }
    let id = encoded(alias.as_str());
    for service in users
        .services()
        .all()
        .iter()
        .filter(|it| it.has_alias(alias))
    {
        if exists(asking, service, &format!("rooms/{id}")).await {
            return Ok(());
        }
    }
    Ok(())
}

async fn exists(asking: &Asking, service: &Service, path: &str) -> bool {
    let question = Question {
        method: Method::GET,
        path: format!("/_matrix/app/v1/{path}"),
        legacy: Some(format!("/{path}")),
        body: bytes::Bytes::new(),
    };
    match asking.ask(service, question, PATIENCE).await {
        Ok(answer) => answer.status().is_success(),
        Err(error) => {
            debug!(service = service.id, %error, "an application service was not asked");
            false
        }
    }
}

/// What services know of their networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// What a network is: an object.
    Protocol,
    /// Places: a list of objects.
    Location,
    /// People: a list of objects.
    User,
}

impl Known {
    fn path(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Location => "location",
            Self::User => "user",
        }
    }
}

/// Asks those services that `concerns` picks, side by side: `tail` is a network or empty, `query` as the client sent it. Gives what can be
/// read as `T`, and whose it is.
pub async fn known<T: DeserializeOwned>(
    users: &Users,
    asking: &Asking,
    concerns: impl Fn(&Service) -> bool,
    (kind, tail, query): (Known, &str, &str),
) -> Vec<(Arc<Service>, T)> {
    let services = users.services().all().iter();
    let asked = services.filter(|it| it.url.is_some() && concerns(it));
    let asked = asked.map(|service| async move {
        let tail = if tail.is_empty() {
            String::new()
        } else {
            format!("/{}", encoded(tail))
        };
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{query}")
        };
        let path = format!("thirdparty/{}{tail}{query}", kind.path());
        let question = Question {
            method: Method::GET,
            path: format!("/_matrix/app/v1/{path}"),
            legacy: Some(format!("/_matrix/app/unstable/{path}")),
            body: bytes::Bytes::new(),
        };
        let answer = asking.ask(service, question, SHORT).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let read = serde_json::from_slice(answer.body()).ok()?;
        Some((service.clone(), read))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What services tell of users or places, each as `T`; what cannot be read as that is left out.
pub async fn found<T: DeserializeOwned>(
    users: &Users,
    asking: &Asking,
    concerns: impl Fn(&Service) -> bool,
    question: (Known, &str, &str),
) -> Vec<T> {
    let lists = known::<Vec<Value>>(users, asking, concerns, question).await;
    let entries = lists.into_iter().flat_map(|(_, list)| {
        let list = list.into_iter().take(MAX_FOUND);
        list.filter_map(|entry| serde_json::from_value(entry).ok())
    });
    entries.collect()
}

/// Puts a room on a service's own list of a network, or takes it off.
///
/// # Errors
/// [`FlowError::InvalidParam`] for what names no network, [`RoomError::UnknownRoom`].
pub async fn set_listed(
    rooms: &Rooms,
    service: &Service,
    network: &str,
    room: &RoomId,
    listed: bool,
) -> Result<(), FlowError> {
    if network.is_empty() || network.len() > MAX_NETWORK {
        let message = format!("the name of a network has 1 to {MAX_NETWORK} bytes");
        return Err(FlowError::InvalidParam(message));
    }
    let room = rooms.reader().room(room).await?;
    let room = room.ok_or(RoomError::UnknownRoom)?;
    let key = (service.id.clone(), network.to_owned(), room.sid);
    let mut batch = Batch::new();
    if listed {
        batch.put(&schema::NETWORK_ROOMS, &key, &());
    } else {
        batch.delete(&schema::NETWORK_ROOMS, &key);
    }
    rooms.store().write(batch).await?;
    Ok(())
}
