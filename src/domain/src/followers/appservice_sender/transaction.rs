//! What is sent to a service: fixed and stored before the first attempt, the same until it is taken.
//! <https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid>

use std::time::Duration;

use http::Method;
use serde_json::{
    Value, json,
    value::{RawValue as RawJsonValue, to_raw_value},
};
use tracing::{debug, warn};
use vatra_store::Batch;

use super::{super::FollowError, Begun, Parts, Step};
use crate::{
    appservice::{
        Service,
        line::{Question, encoded},
    },
    clock::Millis,
    rooms::{
        Event, Reader,
        serve::{self, Form},
        visible::Viewer,
    },
    schema::{self, EventSid, ServiceTransactionRow, Status, UserSid},
};

/// How long a service has to take a transaction.
const PATIENCE: Duration = Duration::from_secs(60);
/// The wait after the first failure, in milliseconds.
const FIRST_WAIT_MS: Millis = 1_000;
/// The longest wait, in milliseconds: a bridge that is started again hears of it soon.
const LONGEST_WAIT_MS: Millis = 300_000;
/// After so many failures in a row the log says so once.
const TOLD_AFTER: u32 = 3;

/// A new transaction with these events and units of what passes.
pub(super) fn fixed(
    parts: &Parts,
    events: Vec<EventSid>,
    ephemeral: Vec<String>,
) -> Result<ServiceTransactionRow, FollowError> {
    let store = parts.rooms.store();
    Ok(ServiceTransactionRow {
        id: format!("{}.{}", store.epoch(), store.fresh_id()?),
        made: parts.clock.now(),
        events,
        ephemeral,
    })
}

/// Sends the transaction that waits.
pub(super) async fn attempt(
    parts: &Parts,
    service: &Service,
    begun: &mut Begun,
) -> Result<Step, FollowError> {
    let Some(waiting) = &begun.waiting else {
        return Ok(Step::More);
    };
    let body = body(parts, waiting).await?;
    let id = encoded(&waiting.id);
    let question = Question {
        method: Method::PUT,
        path: format!("/_matrix/app/v1/transactions/{id}"),
        legacy: Some(format!("/transactions/{id}")),
        body: body.to_string().into(),
    };
    let error = match parts.asking.ask(service, question, PATIENCE).await {
        Ok(answer) if answer.status().is_success() => None,
        Ok(answer) => Some(format!("it answers {}", answer.status())),
        Err(error) => Some(error.to_string()),
    };
    let mut row = begun.row.clone();
    let mut batch = Batch::new();
    let Some(error) = error else {
        debug!(
            service = service.id,
            txn = waiting.id,
            "a transaction was taken"
        );
        row.failures = 0;
        row.retry_at = 0;
        row.error = None;
        batch.delete(&schema::SERVICE_TRANSACTIONS, &service.id);
        batch.put(&schema::SERVICES, &service.id, &row);
        parts.rooms.store().write(batch).await?;
        begun.row = row;
        begun.waiting = None;
        return Ok(Step::More);
    };
    row.failures = row.failures.saturating_add(1);
    row.retry_at = parts.clock.now().saturating_add(wait(parts, row.failures));
    if row.failures == TOLD_AFTER {
        warn!(
            service = service.id,
            error, "an application service does not take what it is told; it is tried again"
        );
    }
    row.error = Some(error);
    batch.put(&schema::SERVICES, &service.id, &row);
    parts.rooms.store().write(batch).await?;
    let until = row.retry_at;
    begun.row = row;
    Ok(Step::Wait(until))
}

/// Twice as long after each failure, and between half of it and all of it.
fn wait(parts: &Parts, failures: u32) -> Millis {
    let doubled = FIRST_WAIT_MS.saturating_mul(1_u64 << failures.saturating_sub(1).min(20));
    let longest = doubled.min(LONGEST_WAIT_MS);
    let mut bytes = [0_u8; 2];
    parts.random.fill(&mut bytes);
    let part = u64::from(u16::from_le_bytes(bytes));
    longest / 2 + longest / 2 * part / u64::from(u16::MAX)
}

/// What is sent, the same each time.
async fn body(parts: &Parts, waiting: &ServiceTransactionRow) -> Result<Value, FollowError> {
    let mut body = json!({ "events": shown(parts, &waiting.events).await? });
    let units = waiting.ephemeral.iter();
    let units: Vec<Value> = units
        .filter_map(|unit| serde_json::from_str(unit).ok())
        .collect();
    if let (false, Some(body)) = (units.is_empty(), body.as_object_mut()) {
        body.insert("ephemeral".to_owned(), Value::Array(units));
    }
    Ok(body)
}

/// The events as clients see them, in order.
async fn shown(parts: &Parts, events: &[EventSid]) -> Result<Vec<Box<RawJsonValue>>, FollowError> {
    let reader = parts.rooms.reader();
    let mut shown = Vec::with_capacity(events.len());
    for event in reader.events(events).await?.into_iter().flatten() {
        match show(parts, &reader, event).await {
            Ok(event) => shown.extend(event),
            Err(error) if error.passes() => return Err(error),
            // It would keep the service from hearing anything else.
            Err(error) => warn!(%error, "an event cannot be shown to an application service"),
        }
    }
    Ok(shown)
}

async fn show(
    parts: &Parts,
    reader: &Reader,
    event: std::sync::Arc<Event>,
) -> Result<Option<Box<RawJsonValue>>, FollowError> {
    let Some(room) = reader.room_by_sid(event.room).await? else {
        return Ok(None);
    };
    // What an event adds for its viewer, it adds for who has sent it.
    let viewer = Viewer {
        sid: reader
            .user_sid(&event.pdu.sender)
            .await?
            .unwrap_or(UserSid(0)),
        user: event.pdu.sender.clone(),
        device: None,
    };
    let form = Form {
        relations: false,
        ..Form::full(parts.clock.clone())
    };
    let one = std::slice::from_ref(&event);
    let shown = serve::events(reader, &viewer, &room, one, &form).await?;
    let Some(shown) = shown.into_iter().next() else {
        return Ok(None);
    };
    if event.status == Status::Visible {
        return Ok(Some(shown));
    }
    with_room(reader, &event, shown).await.map(Some)
}

/// The member event of a room that this server is not in, with what is known of the room.
async fn with_room(
    reader: &Reader,
    event: &Event,
    shown: Box<RawJsonValue>,
) -> Result<Box<RawJsonValue>, FollowError> {
    let of = event.pdu.state_key.as_deref().unwrap_or_default();
    let user = match <&ruma::UserId>::try_from(of) {
        Ok(user) => reader.user_sid(user).await?,
        Err(_) => None,
    };
    let outside = match user {
        Some(user) => reader.outside(user, event.room).await?,
        None => None,
    };
    let Some(outside) = outside else {
        return Ok(shown);
    };
    let mut whole: Value = serde_json::from_str(shown.get()).unwrap_or_default();
    if let Some(unsigned) = whole.get_mut("unsigned").and_then(Value::as_object_mut) {
        unsigned.insert("invite_room_state".to_owned(), json!(outside.state));
    }
    Ok(to_raw_value(&whole).unwrap_or(shown))
}
