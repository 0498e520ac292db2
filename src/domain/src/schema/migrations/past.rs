//! Lists the events that stand in no log: of before gaps.

use vatra_store::{Batch, Direction, MigrationFuture, Position, Range, Store};

use super::super::{EVENTS, EventSid, PAST, TIMELINE};

/// How many events are read at once.
const PAGE: usize = 1_000;

pub(super) fn list_past(store: Store) -> MigrationFuture {
    Box::pin(async move { fill(&store).await.map_err(|error| error.to_string()) })
}

async fn fill(store: &Store) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let view = store.view();
    let mut range = Range::all();
    loop {
        let rows = view
            .range(&TIMELINE, range, Direction::Forward, PAGE)
            .await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = Range::all().after(last);
        let sids: Vec<EventSid> = rows.iter().map(|(_, sid)| *sid).collect();
        let events = view.get_many(&EVENTS, &sids).await?;
        let mut batch = Batch::new();
        for (sid, event) in sids.iter().zip(events) {
            if event.is_some_and(|row| row.head.position == Position::ZERO) {
                batch.put(&PAST, &(Position::ZERO, *sid), &());
            }
        }
        if !batch.is_empty() {
            store.write(batch).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use bytes::Bytes;
    use vatra_store::{MemoryEngine, Options};

    use super::*;
    use crate::schema::{EventHead, EventRow, EventTail, RoomOrder, RoomSid, Status};

    #[tokio::test]
    async fn an_older_store_lists_what_stands_in_no_log() {
        let engine = Arc::new(MemoryEngine::new());
        let old = Store::open(engine.clone(), Options::default(), &[])
            .await
            .unwrap();
        let room = RoomSid(3);
        let mut batch = Batch::new();
        for number in 1..=1_500 {
            let sid = EventSid(number);
            // Every third was filled in.
            let position = if number % 3 == 0 { 0 } else { number };
            let head = EventHead {
                room,
                version: "12".to_owned(),
                event_id: format!("${number}"),
                status: Status::Visible,
                position: Position(position),
                order: RoomOrder(number),
                root_before: None,
                replaces: None,
                redacted_by: None,
                transaction: None,
                tail: EventTail::default(),
            };
            let pdu = Bytes::from_static(b"{}");
            batch.put(&EVENTS, &sid, &EventRow { head, pdu });
            batch.put(&TIMELINE, &(room, RoomOrder(number)), &sid);
        }
        old.write(batch).await.unwrap();
        old.close().await;

        let store = Store::open(engine, Options::default(), super::super::ALL)
            .await
            .unwrap();
        let listed = store
            .view()
            .range(&PAST, Range::all(), Direction::Forward, usize::MAX)
            .await
            .unwrap();
        let listed: Vec<u64> = listed.into_iter().map(|((_, sid), ())| sid.0).collect();
        assert_eq!(listed.len(), 500);
        assert!(listed.iter().all(|number| number % 3 == 0));
    }
}
