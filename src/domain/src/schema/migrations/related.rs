//! Lists the events that others relate to.

use vatra_store::{Batch, Direction, MigrationFuture, Range, Store};

use super::super::{RELATED, RELATIONS};

/// How many rows a step reads and writes at once.
const PAGE: usize = 1_000;

pub(super) fn list_related(store: Store) -> MigrationFuture {
    Box::pin(async move {
        let mut range = Range::all();
        loop {
            let rows = store
                .view()
                .range(&RELATIONS, range, Direction::Forward, PAGE)
                .await
                .map_err(|error| error.to_string())?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = Range::all().after(last);
            let mut batch = Batch::new();
            for ((room, target, _), _) in rows {
                batch.put(&RELATED, &(room, target), &());
            }
            store
                .write(batch)
                .await
                .map_err(|error| error.to_string())?;
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use vatra_store::{MemoryEngine, Options};

    use super::*;
    use crate::schema::{EventSid, RelationRow, RoomOrder, RoomSid, UserSid};

    #[tokio::test]
    async fn an_older_store_lists_what_is_related_to() {
        let engine = Arc::new(MemoryEngine::new());
        let old = Store::open(engine.clone(), Options::default(), &[])
            .await
            .unwrap();
        let row = RelationRow {
            event: EventSid(7),
            rel_type: "m.annotation".to_owned(),
            kind: "m.reaction".to_owned(),
            sender: UserSid(1),
            key: None,
        };
        let room = RoomSid(3);
        let mut batch = Batch::new();
        for order in 1..=2_500 {
            let target = format!("$target{}", order / 2);
            batch.put(&RELATIONS, &(room, target, RoomOrder(order)), &row);
        }
        old.write(batch).await.unwrap();
        old.close().await;

        let store = Store::open(engine, Options::default(), super::super::ALL)
            .await
            .unwrap();
        let range = Range::prefix(&(room,));
        let listed = store
            .view()
            .range(&RELATED, range, Direction::Forward, usize::MAX)
            .await
            .unwrap();
        assert_eq!(listed.len(), 1_251);
    }
}
