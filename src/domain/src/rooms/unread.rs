//! Unread counts: how many events after a user's receipt notify them, and how many highlight.
//!
//! A read over the events after the receipt, each judged by the user's push rules with the state at hand. One's own event counts
//! as a receipt. <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use ruma::{events::receipt::ReceiptThread, push::Ruleset};
use vatra_store::Direction;

use super::{Event, Reader, Room, RoomError, ephemeral::Receipts, visible::Viewer};
use crate::{
    event::relation::Relation,
    push::{self, Context},
    schema::{Membership, RoomOrder},
};

/// How many events after a receipt are judged; a count that reaches it stays there.
const JUDGED: usize = 200;

/// Counts of notifying and highlighting events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that notify.
    pub notify: u64,
    /// Those of them that highlight.
    pub highlight: u64,
}

/// A room's counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Of the main timeline if threads were asked for, else of the whole room.
    pub room: Counts,
    /// Of each thread, by its root.
    pub threads: BTreeMap<String, Counts>,
}

/// Counts what a user has not read of a room.
pub async fn of(
    reader: &Reader,
    receipts: &Receipts,
    rules: &Ruleset,
    viewer: &Viewer,
    room: &Arc<Room>,
    threads: bool,
) -> Result<Unread, RoomError> {
    let everywhere = receipts
        .read_up_to(reader, room, viewer.sid, &ReceiptThread::Unthreaded)
        .await?;
    let main = receipts
        .read_up_to(reader, room, viewer.sid, &ReceiptThread::Main)
        .await?;
    let joined = reader.membership(viewer.sid, room.sid).await?;
    let since_join = match joined {
        Some(row) => reader.order_at(room.sid, row.position).await?,
        None => None,
    };
    let from = [everywhere, since_join]
        .into_iter()
        .flatten()
        .max()
        .map_or(Bound::Unbounded, Bound::Excluded);
    let newest = reader
        .timeline(
            room.sid,
            from,
            Bound::Unbounded,
            Direction::Backward,
            JUDGED,
        )
        .await?;
    if newest.is_empty() {
        return Ok(Unread::default());
    }
    let context = Context {
        user: viewer.user.clone(),
        display_name: display_name(reader, viewer, room).await?,
        members: reader.member_count(room.sid, Membership::Join).await?,
        power: reader.power_levels(room).await.ok(),
        room: room.id.clone(),
    };
    let mut unread = Unread::default();
    let mut own_in_thread: BTreeMap<String, RoomOrder> = BTreeMap::new();
    let mut own_in_main: Option<RoomOrder> = None;
    for event in newest {
        let thread = thread_of(&event);
        if event.pdu.sender == viewer.user {
            match thread {
                Some(thread) => {
                    own_in_thread.entry(thread).or_insert(event.order);
                }
                None => own_in_main = own_in_main.or(Some(event.order)),
            }
            continue;
        }
        let read = match &thread {
            None => own_in_main
                .max(main)
                .is_some_and(|read| read >= event.order),
            Some(thread) => {
                let own = own_in_thread.get(thread).copied();
                let receipt = match ruma::EventId::parse(thread.as_str()) {
                    Ok(root) => {
                        receipts
                            .read_up_to(reader, room, viewer.sid, &ReceiptThread::Thread(root))
                            .await?
                    }
                    Err(_) => None,
                };
                own.max(receipt).is_some_and(|read| read >= event.order)
            }
        };
        if read || event.redacted_by.is_some() {
            continue;
        }
        let outcome = push::evaluate(rules, &event.pdu, &context);
        if !outcome.notify {
            continue;
        }
        let counts = match thread {
            Some(thread) if threads => unread.threads.entry(thread).or_default(),
            _ => &mut unread.room,
        };
        counts.notify += 1;
        counts.highlight += u64::from(outcome.highlight);
    }
    Ok(unread)
}

/// The thread an event is in, by its root's id.
fn thread_of(event: &Event) -> Option<String> {
    let relation = Relation::of(&event.pdu)?;
    (relation.rel_type == "m.thread").then(|| relation.event_id.to_string())
}

async fn display_name(reader: &Reader, viewer: &Viewer, room: &Room) -> Result<String, RoomError> {
    let kind = ruma::events::StateEventType::RoomMember;
    let member = reader
        .state_event(room.sid, &kind, viewer.user.as_str())
        .await?;
    let content: Option<serde_json::Map<String, serde_json::Value>> =
        member.and_then(|event| event.pdu.content_as().ok());
    let name = content.and_then(|content| Some(content.get("displayname")?.as_str()?.to_owned()));
    Ok(name.unwrap_or_else(|| viewer.user.localpart().to_owned()))
}
