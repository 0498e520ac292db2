//! When events were sent, and which are replies in threads.

use serde::Deserialize;
use serde_json::value::RawValue;
use vatra_store::{Batch, Direction, MigrationFuture, Range, Store};

use super::super::{EVENT_TIMES, EVENTS, EventSid, THREAD_REPLIES, TIMELINE};

/// How many events are read at once.
const PAGE: usize = 1_000;

#[derive(Deserialize)]
struct Wire {
    origin_server_ts: u64,
    #[serde(default)]
    state_key: Option<String>,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: RelatesTo,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: String,
    event_id: String,
}

/// When each event was sent, and which of them are replies in threads.
pub(super) fn times_and_threads(store: Store) -> MigrationFuture {
    Box::pin(async move { fill(&store).await.map_err(|error| error.to_string()) })
}

async fn fill(store: &Store) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let view = store.view();
    let mut range = Range::all();
    loop {
        let rows = view
            .range(&TIMELINE, range.clone(), Direction::Forward, PAGE)
            .await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = Range::all().after(last);
        let sids: Vec<EventSid> = rows.iter().map(|(_, sid)| *sid).collect();
        let events = view.get_many(&EVENTS, &sids).await?;
        let mut batch = Batch::new();
        for (((room, order), sid), event) in rows.iter().zip(events) {
            let Some(Ok(wire)) = event.map(|row| serde_json::from_slice::<Wire>(&row.pdu)) else {
                continue;
            };
            let key = (*room, wire.origin_server_ts, *order);
            batch.put(&EVENT_TIMES, &key, sid);
            let relation = serde_json::from_str::<Content>(wire.content.get()).ok();
            if let Some(Content { relates_to }) = relation
                && relates_to.rel_type == "m.thread"
                && wire.state_key.is_none()
            {
                batch.put(&THREAD_REPLIES, &(*room, *order), &relates_to.event_id);
            }
        }
        store.write(batch).await?;
    }
}
