//! Who has read what. <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use std::collections::{BTreeMap, HashSet};

use ruma::{EventId, OwnedUserId, events::receipt::ReceiptThread};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use vatra_store::{Batch, CommitError, Direction, Position, Range, Store};

use super::super::{Reader, Room, RoomError, visible::Viewer};
use crate::{
    clock::SharedClock,
    schema::{self, ReceiptKey, ReceiptRow, RoomOrder, RoomSid, UserSid, topic},
};

/// Who has read what.
#[derive(Clone)]
pub struct Receipts {
    store: Store,
    clock: SharedClock,
}

impl Receipts {
    /// The receipts in `store`.
    pub(super) fn new(store: Store, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// Sets a user's receipt; for an event of another room, [`RoomError::UnknownEvent`].
    /// One that would go back behind the present one of its type and thread is ignored.
    pub async fn set(
        &self,
        reader: &Reader,
        room: RoomSid,
        user: UserSid,
        kind: &str,
        thread: &ReceiptThread,
        event: &EventId,
    ) -> Result<(), RoomError> {
        let order = match reader.event_anywhere(event).await? {
            Some(event) if event.room != room => return Err(RoomError::UnknownEvent),
            found => found.map(|event| event.order),
        };
        let key: ReceiptKey = (
            room,
            user,
            kind.to_owned(),
            thread.as_str().unwrap_or_default().to_owned(),
        );
        // Whoever sets the same receipt meanwhile makes it try again.
        while !self.replace(&key, order, event).await? {}
        Ok(())
    }

    /// Writes a receipt in place of the one that stands there; says whether that still did.
    async fn replace(
        &self,
        key: &ReceiptKey,
        order: Option<RoomOrder>,
        event: &EventId,
    ) -> Result<bool, RoomError> {
        let (room, user) = (key.0, key.1);
        let old = self.store.view().get(&schema::RECEIPTS, key).await?;
        // An event this server does not have (yet) cannot be compared; it is believed.
        let order = order.unwrap_or_else(|| old.as_ref().map_or(RoomOrder(0), |old| old.order));
        if old.as_ref().is_some_and(|old| {
            old.order > order || (old.order == order && old.event_id == event.as_str())
        }) {
            return Ok(true);
        }
        let mut batch = Batch::new();
        match old {
            Some(old) => {
                batch.assert_equals(&schema::RECEIPTS, key, &old);
                batch.delete(&schema::RECEIPT_LOG, &(room, old.position, user));
            }
            None => {
                batch.assert_absent(&schema::RECEIPTS, key);
            }
        }
        let (ts, event_id) = (self.clock.now(), event.to_string());
        let (row, logged) = (key.clone(), key.clone());
        batch.put_at_position(&schema::RECEIPTS, move |position| {
            (
                row,
                ReceiptRow {
                    event_id,
                    order,
                    ts,
                    position,
                },
            )
        });
        batch.put_at_position(&schema::RECEIPT_LOG, move |position| {
            ((room, position, user), logged)
        });
        batch.wake(topic::room(room));
        batch.wake(topic::receipts(room));
        batch.wake(topic::own_receipts(user));
        match self.store.write(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::AssertFailed) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The receipts of a room that changed after a position.
    pub async fn changed(
        &self,
        reader: &Reader,
        room: RoomSid,
        since: Position,
    ) -> Result<Vec<(ReceiptKey, ReceiptRow)>, RoomError> {
        let view = reader.view();
        let range = Range::prefix(&(room,)).after(&(room, since));
        let log = view
            .range(&schema::RECEIPT_LOG, range, Direction::Forward, usize::MAX)
            .await?;
        let keys: HashSet<ReceiptKey> = log.into_iter().map(|(_, key)| key).collect();
        let keys: Vec<ReceiptKey> = keys.into_iter().collect();
        let rows = view.get_many(&schema::RECEIPTS, &keys).await?;
        let found = keys.into_iter().zip(rows);
        Ok(found.filter_map(|(key, row)| Some((key, row?))).collect())
    }

    /// The receipt event of a room: what changed after `since`, or all of it. Private receipts are shown to their owner only.
    /// Reads nothing if nobody has read on since.
    pub async fn event(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        room: RoomSid,
        since: Option<Position>,
    ) -> Result<Option<Box<RawValue>>, RoomError> {
        if since.is_some_and(|since| !self.store.changed_since(topic::receipts(room), since)) {
            return Ok(None);
        }
        let view = reader.view();
        let rows: Vec<(ReceiptKey, ReceiptRow)> = match since {
            None => {
                view.range(
                    &schema::RECEIPTS,
                    Range::prefix(&(room,)),
                    Direction::Forward,
                    usize::MAX,
                )
                .await?
            }
            Some(since) => self.changed(reader, room, since).await?,
        };
        // By event, then type, then user.
        let mut content: BTreeMap<String, BTreeMap<String, BTreeMap<OwnedUserId, Value>>> =
            BTreeMap::new();
        for ((_, user, kind, thread), row) in rows {
            if kind == "m.read.private" && user != viewer.sid {
                continue;
            }
            let Some(user) = reader.user_id(user).await? else {
                continue;
            };
            let users = content
                .entry(row.event_id)
                .or_default()
                .entry(kind)
                .or_default();
            // The event has room for one receipt of a user and type: the unthreaded one says more.
            if thread.is_empty() {
                users.insert(user, json!({ "ts": row.ts }));
            } else {
                users
                    .entry(user)
                    .or_insert_with(|| json!({ "ts": row.ts, "thread_id": thread }));
            }
        }
        if content.is_empty() {
            return Ok(None);
        }
        Ok(to_raw_value(&json!({ "type": "m.receipt", "content": content })).ok())
    }

    /// How far a user has read a room, in each of these threads (a thread's root, the main timeline, or unthreaded): the
    /// furthest of their public and private receipts. One batched read.
    pub async fn read_up_to<const N: usize>(
        &self,
        reader: &Reader,
        room: &Room,
        user: UserSid,
        threads: [&ReceiptThread; N],
    ) -> Result<[Option<RoomOrder>; N], RoomError> {
        let keys: Vec<ReceiptKey> = threads
            .iter()
            .flat_map(|thread| {
                let thread = thread.as_str().unwrap_or_default();
                ["m.read", "m.read.private"]
                    .map(|kind| (room.sid, user, kind.to_owned(), thread.to_owned()))
            })
            .collect();
        let rows = reader.view().get_many(&schema::RECEIPTS, &keys).await?;
        let mut pairs = rows.chunks(2);
        Ok(threads.map(|_| {
            let pair = pairs.next().into_iter().flatten();
            pair.flatten().map(|row| row.order).max()
        }))
    }
}
