//! What a user has not read: the rows of [`schema::NOTICES`] less what was read, left or redacted meanwhile.

use std::collections::{BTreeSet, HashMap};

use vatra_store::{Batch, Direction, Position, Range};

use super::{super::FollowError, Notices};
use crate::{
    rooms::Reader,
    schema::{
        self, EventSid, Membership, MembershipRow, NoticeRow, ReceiptKey, RoomOrder, RoomSid,
        UserSid,
    },
};

/// A notice and when it happened.
pub type Notice = (Position, NoticeRow);

impl Notices {
    /// What a user is notified of and has not read, oldest first, as of now: at most some hundreds, since old ones give way. What is
    /// read, left or redacted is deleted. Four batched reads, or one if there is nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn unread(&self, user: UserSid) -> Result<Vec<Notice>, FollowError> {
        let reader = self.inner.rooms.reader();
        let range = Range::prefix(&(user,));
        let rows = reader
            .view()
            .range(&schema::NOTICES, range, Direction::Forward, usize::MAX)
            .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<Notice> = rows.into_iter().map(|((_, at), row)| (at, row)).collect();
        let members = memberships(&reader, user, &rows).await?;
        let receipts = receipts(&reader, user, &rows).await?;
        let sids: Vec<EventSid> = rows.iter().map(|(_, row)| row.event).collect();
        let events = reader.events(&sids).await?;
        let (mut unread, mut gone) = (Vec::new(), Batch::new());
        for ((at, row), event) in rows.into_iter().zip(events) {
            let there = event.is_some_and(|event| !event.is_empty());
            let member = members.get(&row.room);
            if there && stands(&row, at, member) && !is_read(&row, &receipts) {
                unread.push((at, row));
            } else {
                gone.delete(&schema::NOTICES, &(user, at));
            }
        }
        if !gone.is_empty() {
            self.inner.rooms.store().write(gone).await?;
        }
        Ok(unread)
    }
}

/// Whether the user is still in the room, or still invited by this very event.
fn stands(row: &NoticeRow, at: Position, member: Option<&MembershipRow>) -> bool {
    member.is_some_and(|member| match member.membership {
        Membership::Join => !row.invite && member.position <= at,
        Membership::Invite => row.invite && member.event == row.event,
        Membership::Knock | Membership::Leave | Membership::Ban => false,
    })
}

/// How far a user has read, by room and thread; the thread is empty for receipts of no thread.
type Receipts = HashMap<(RoomSid, String), RoomOrder>;

/// The thread of receipts of the main timeline.
const MAIN: &str = "main";

fn is_read(row: &NoticeRow, receipts: &Receipts) -> bool {
    let thread = row.thread.clone().unwrap_or_else(|| MAIN.to_owned());
    let read = |thread| {
        let order = receipts.get(&(row.room, thread));
        !row.invite && order.is_some_and(|order| *order >= row.order)
    };
    read(String::new()) || read(thread)
}

async fn memberships(
    reader: &Reader,
    user: UserSid,
    rows: &[Notice],
) -> Result<HashMap<RoomSid, MembershipRow>, FollowError> {
    let rooms: BTreeSet<RoomSid> = rows.iter().map(|(_, row)| row.room).collect();
    let keys: Vec<_> = rooms.into_iter().map(|room| (user, room)).collect();
    let found = reader.view().get_many(&schema::MEMBERSHIPS, &keys).await?;
    let found = keys.into_iter().zip(found);
    Ok(found
        .filter_map(|((_, room), row)| Some((room, row?)))
        .collect())
}

async fn receipts(
    reader: &Reader,
    user: UserSid,
    rows: &[Notice],
) -> Result<Receipts, FollowError> {
    let mut threads: BTreeSet<(RoomSid, String)> = BTreeSet::new();
    for (_, row) in rows.iter().filter(|(_, row)| !row.invite) {
        threads.insert((row.room, String::new()));
        let thread = row.thread.clone();
        threads.insert((row.room, thread.unwrap_or_else(|| MAIN.to_owned())));
    }
    let keys: Vec<ReceiptKey> = threads
        .into_iter()
        .flat_map(|(room, thread)| {
            ["m.read", "m.read.private"].map(|kind| (room, user, kind.to_owned(), thread.clone()))
        })
        .collect();
    let found = reader.view().get_many(&schema::RECEIPTS, &keys).await?;
    let mut receipts = Receipts::new();
    for ((room, _, _, thread), row) in keys.into_iter().zip(found) {
        if let Some(row) = row {
            let order = receipts.entry((room, thread)).or_insert(row.order);
            *order = row.order.max(*order);
        }
    }
    Ok(receipts)
}
