//! Typing, receipts, read markers, presence. <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    EventId, OwnedEventId, RoomId, UserId, api::error::ErrorCode, events::receipt::ReceiptThread,
    presence::PresenceState,
};
use serde::Deserialize;
use serde_json::json;
use vatra_domain::{rooms::ephemeral::MAX_STATUS, users::Requester};

use super::{
    super::{endpoint::Input, error::Error},
    membership::{require_joined, share_a_room},
    rooms::Seen,
};
use crate::wiring::App;

/// The longest that one request makes someone type.
const LONGEST_TYPING: Duration = Duration::from_secs(120);

pub(super) async fn typing(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        typing: bool,
        timeout: Option<u64>,
    }
    let body: Body = input.read()?;
    let user: &UserId = input.id(1)?;
    if user != caller.user {
        return Err(Error::forbidden("you cannot type for another user"));
    }
    let seen = require_joined(&app, &caller, input.id(0)?).await?;
    let longest = u64::try_from(LONGEST_TYPING.as_millis()).unwrap_or(u64::MAX);
    let for_ms = body
        .typing
        .then(|| body.timeout.unwrap_or(30_000).min(longest));
    app.ephemeral
        .typing
        .set(seen.room.sid, caller.user, for_ms)
        .await?;
    Ok(Json(json!({})).into_response())
}

/// `POST /rooms/{room}/receipt/{type}/{event}`.
pub(super) async fn receipt(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        thread_id: Option<String>,
    }
    let body: Body = input.read()?;
    let room: &RoomId = input.id(0)?;
    let (kind, event) = (input.arg(1), input.id(2)?);
    let seen = require_joined(&app, &caller, room).await?;
    match kind {
        "m.fully_read" if body.thread_id.is_some() => {
            return Err(Error::invalid_param("a read marker belongs to no thread"));
        }
        "m.fully_read" => fully_read(&app, &caller, &seen, event).await?,
        "m.read" | "m.read.private" => {
            let thread = thread(&seen, event, body.thread_id.as_deref()).await?;
            let (sid, receipts) = (seen.room.sid, &app.ephemeral.receipts);
            receipts
                .set(&seen.reader, sid, caller.sid, kind, &thread, event)
                .await?;
        }
        _ => return Err(Error::invalid_param("unknown type of receipt")),
    }
    Ok(Json(json!({})).into_response())
}

/// The thread a receipt names must be the event's. <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>
async fn thread(
    seen: &Seen,
    event: &EventId,
    thread: Option<&str>,
) -> Result<ReceiptThread, Error> {
    let thread = match thread {
        None => return Ok(ReceiptThread::Unthreaded),
        Some("main") => ReceiptThread::Main,
        Some(root) => {
            let root = OwnedEventId::try_from(root);
            ReceiptThread::Thread(root.map_err(|error| Error::invalid_param(&error.to_string()))?)
        }
    };
    let root = match &thread {
        ReceiptThread::Thread(root) => Some(&**root),
        _ => None,
    };
    if !seen.reader.is_in_thread(seen.room.sid, event, root).await? {
        return Err(Error::invalid_param("the event is not in that thread"));
    }
    Ok(thread)
}

pub(super) async fn read_markers(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "m.fully_read")]
        fully_read: Option<OwnedEventId>,
        #[serde(rename = "m.read")]
        read: Option<OwnedEventId>,
        #[serde(rename = "m.read.private")]
        private: Option<OwnedEventId>,
    }
    let body: Body = input.read()?;
    let seen = require_joined(&app, &caller, input.id(0)?).await?;
    if let Some(event) = &body.fully_read {
        fully_read(&app, &caller, &seen, event).await?;
    }
    for (kind, event) in [("m.read", &body.read), ("m.read.private", &body.private)] {
        if let Some(event) = event {
            let (sid, thread) = (seen.room.sid, ReceiptThread::Unthreaded);
            app.ephemeral
                .receipts
                .set(&seen.reader, sid, caller.sid, kind, &thread, event)
                .await?;
        }
    }
    Ok(Json(json!({})).into_response())
}

async fn fully_read(
    app: &App,
    caller: &Requester,
    seen: &Seen,
    event: &EventId,
) -> Result<(), Error> {
    let content = json!({ "event_id": event }).to_string();
    Ok(app
        .users
        .set_account_data(caller.sid, seen.room.sid, "m.fully_read", content)
        .await?)
}

pub(super) async fn get_presence(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let user: &UserId = input.id(0)?;
    if user != caller.user && !share_a_room(&app, &caller, user).await? {
        return Err(Error::forbidden("you share no room with that user"));
    }
    let sid = app.rooms.reader().user_sid(user).await?;
    let presence = sid.and_then(|sid| app.ephemeral.presence.get(sid));
    let content = presence.map(|presence| app.ephemeral.presence.content(&presence));
    Ok(Json(content.unwrap_or_else(|| json!({ "presence": "offline" }))).into_response())
}

pub(super) async fn set_presence(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Body {
        presence: PresenceState,
        status_msg: Option<String>,
    }
    let body: Body = input.read()?;
    let user: &UserId = input.id(0)?;
    if user != caller.user {
        return Err(Error::forbidden("the presence of another user"));
    }
    if !matches!(
        body.presence,
        PresenceState::Online | PresenceState::Offline | PresenceState::Unavailable
    ) {
        return Err(Error::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BadJson,
            "unknown presence",
        ));
    }
    if body
        .status_msg
        .as_ref()
        .is_some_and(|text| text.len() > MAX_STATUS)
    {
        let message = format!("status_msg has {MAX_STATUS} bytes at most");
        return Err(Error::bad_json(&message));
    }
    let reader = app.rooms.reader();
    app.ephemeral
        .presence
        .set(&reader, caller.sid, body.presence, Some(body.status_msg))
        .await?;
    Ok(Json(json!({})).into_response())
}
