//! Pushers, and what a user has been notified of.
//! <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use vatra_domain::{
    flows::notifications::{Asked, Notification, Parts, list},
    schema::{PusherKind, PusherRow},
    users::{
        Requester,
        pushers::{SetPusher, Ways},
    },
};
use vatra_store::Position;

use super::{
    super::{endpoint::Input, error::Error},
    rooms::viewer,
};
use crate::wiring::App;

pub(super) async fn pushers(app: App, caller: Requester, _: Input) -> Result<Response, Error> {
    let pushers = app.users.pushers(caller.sid).await?;
    let shown: Vec<Value> = pushers.into_iter().map(pusher).collect();
    Ok(Json(json!({ "pushers": shown })).into_response())
}

fn pusher(row: PusherRow) -> Value {
    let mut data: Map<String, Value> = serde_json::from_str(&row.data).unwrap_or_default();
    let kind = match row.kind {
        PusherKind::Http { url } => {
            data.insert("url".to_owned(), Value::String(url));
            "http"
        }
        PusherKind::Email { .. } => "email",
    };
    let mut shown = json!({
        "kind": kind,
        "app_id": row.app_id,
        "pushkey": row.pushkey,
        "app_display_name": row.app_display_name,
        "device_display_name": row.device_display_name,
        "lang": row.lang,
        "data": data,
    });
    if let (Some(tag), Some(shown)) = (row.profile_tag, shown.as_object_mut()) {
        shown.insert("profile_tag".to_owned(), Value::String(tag));
    }
    shown
}

pub(super) async fn set(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let asked: SetPusher = input.read()?;
    let ways = Ways {
        plain_http: app.config.push.reaches_own_networks(),
        email: app.mail.is_some(),
    };
    app.users.set_pusher(&caller, asked, ways).await?;
    Ok(Json(json!({})).into_response())
}

pub(super) async fn notifications(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let number = |name: &str| match input.param(name) {
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::invalid_param(&format!("{name} is no number"))),
        },
        None => Ok(None),
    };
    let limit = number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let from = match input.param("from") {
        // Some clients send it empty for the first page.
        Some(from) if from.is_empty() => None,
        Some(_) => number("from")?,
        None => None,
    };
    let asked = Asked {
        before: from.map(Position),
        limit,
        // Other values are none that the spec knows.
        highlights: input.param("only").as_deref() == Some("highlight"),
    };
    let parts = Parts {
        rooms: &app.rooms,
        users: &app.users,
        receipts: &app.ephemeral.receipts,
    };
    let page = list(parts, &viewer(&caller), asked).await?;
    let shown: Vec<Value> = page.notifications.into_iter().map(notification).collect();
    let mut answer = json!({ "notifications": shown });
    if let (Some(next), Some(answer)) = (page.next, answer.as_object_mut()) {
        answer.insert("next_token".to_owned(), Value::String(next.0.to_string()));
    }
    Ok(Json(answer).into_response())
}

fn notification(it: Notification) -> Value {
    json!({
        "actions": it.actions, "event": it.event, "read": it.read, "room_id": it.room_id, "ts": it.ts,
    })
}
