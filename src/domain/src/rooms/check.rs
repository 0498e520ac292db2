//! What `vatra check` needs of rooms: whether events can be read, and rows agree.
//!
//! For a store that nobody writes to, or any view of one: everything is read from one view. `--repair` writes derived rows
//! (index rows of events, counters of members) and never an event.

use std::collections::HashMap;

use ruma::RoomVersionId;
use vatra_store::{Batch, Direction, Key, Map, Range, StoreError, Value, View};

use super::{RoomError, Rooms};
use crate::{
    event::pdu::Pdu,
    schema::{
        EVENT_SIDS, EVENTS, EventRow, EventSid, MEMBER_COUNTS, MEMBERSHIPS, ROOM_LOG, ROOM_MEMBERS,
        Status, TIMELINE,
    },
};

const PAGE: usize = 1000;

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An event's bytes cannot be read. Restore a backup.
    #[error("event {0}: {1}")]
    Unreadable(String, String),
    /// An event's bytes give another id than the one it is stored under. Restore a backup.
    #[error("event {stored}: its content has the id {computed}")]
    WrongId {
        /// The id of its row.
        stored: String,
        /// The id of its content.
        computed: String,
    },
    /// An index row of an event is missing or names another event. `--repair` writes it anew.
    #[error("event {0}: its row in {1} is missing or wrong")]
    WrongIndex(String, &'static str),
    /// A membership by user has no row by room, or the other way round. `--repair` writes the row by room anew.
    #[error("room {0}, user {1}: the membership by user and the one by room differ")]
    WrongMembership(u64, u64),
    /// A counter of members is wrong. `--repair` writes the true one.
    #[error("room {room}: counted as {stored} members with one membership, has {counted}")]
    WrongCount {
        /// The room's number.
        room: u64,
        /// What the counter says.
        stored: i64,
        /// What the rows say.
        counted: i64,
    },
}

/// What was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CheckSummary {
    /// Events.
    pub events: u64,
    /// Memberships.
    pub memberships: u64,
    /// Problems reported.
    pub problems: u64,
}

impl Rooms {
    /// Reads every event and membership and reports what does not agree; see [`Problem`] for what `repair` mends.
    /// Memory: 40 bytes a room; time: that of reading and hashing all events once.
    ///
    /// # Errors
    /// [`RoomError::Store`] if the store cannot be read, [`RoomError::Commit`] if a repair is not taken.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem) + Send,
    ) -> Result<CheckSummary, RoomError> {
        let view = self.store().view();
        let mut summary = CheckSummary::default();
        let mut mend = Batch::new();
        let mut problems = 0;
        let mut report = |problem| {
            problems += 1;
            report(problem);
        };
        let mut rest = Some(Range::all());
        while let Some(page) = next(&view, &EVENTS, &mut rest).await? {
            for (sid, row) in page {
                summary.events += 1;
                if let Some(problem) = unreadable(&row) {
                    report(problem);
                }
                check_index(&view, sid, &row, &mut mend, &mut report).await?;
            }
        }
        summary.memberships = check_members(&view, &mut mend, &mut report).await?;
        summary.problems = problems;
        if repair {
            self.store().write(mend).await?;
        }
        Ok(summary)
    }
}

/// Whether an event can be read, and has the id that it is stored under.
fn unreadable(row: &EventRow) -> Option<Problem> {
    let stored = row.head.event_id.clone();
    let version = RoomVersionId::try_from(row.head.version.as_str()).ok();
    let Some(rules) = version.and_then(|version| version.rules()) else {
        let problem = format!("room version {} is unknown", row.head.version);
        return Some(Problem::Unreadable(stored, problem));
    };
    match Pdu::parse(row.pdu.clone(), &rules, None) {
        Ok(pdu) if pdu.event_id.as_str() == stored => None,
        Ok(pdu) => Some(Problem::WrongId {
            stored,
            computed: pdu.event_id.to_string(),
        }),
        Err(error) => Some(Problem::Unreadable(stored, error.to_string())),
    }
}

async fn check_index(
    view: &View,
    sid: EventSid,
    row: &EventRow,
    mend: &mut Batch,
    report: &mut impl FnMut(Problem),
) -> Result<(), StoreError> {
    let head = &row.head;
    let id = &head.event_id;
    if view.get(&EVENT_SIDS, id).await? != Some(sid) {
        report(Problem::WrongIndex(id.clone(), EVENT_SIDS.name()));
        mend.put(&EVENT_SIDS, id, &sid);
    }
    if head.status != Status::Visible {
        return Ok(());
    }
    let place = (head.room, head.order);
    if view.get(&TIMELINE, &place).await? != Some(sid) {
        report(Problem::WrongIndex(id.clone(), TIMELINE.name()));
        mend.put(&TIMELINE, &place, &sid);
    }
    // What was filled into a gap was never news.
    if head.position == vatra_store::Position(0) {
        return Ok(());
    }
    let logged = view.get(&ROOM_LOG, &(head.room, head.position)).await?;
    if logged.is_none_or(|logged| logged.event != sid) {
        report(Problem::WrongIndex(id.clone(), ROOM_LOG.name()));
        let row = crate::schema::LogRow {
            room: head.room,
            event: sid,
            order: head.order,
        };
        mend.put(&ROOM_LOG, &(head.room, head.position), &row);
    }
    Ok(())
}

/// Memberships by user are the truth here; rows by room and counters follow from them.
async fn check_members(
    view: &View,
    mend: &mut Batch,
    report: &mut impl FnMut(Problem),
) -> Result<u64, StoreError> {
    let (mut read, mut counted) = (0, HashMap::<_, i64>::new());
    let mut rest = Some(Range::all());
    while let Some(page) = next(view, &MEMBERSHIPS, &mut rest).await? {
        for ((user, room), row) in page {
            read += 1;
            let key = (room, row.membership, user);
            if view.get(&ROOM_MEMBERS, &key).await? != Some(row.event) {
                report(Problem::WrongMembership(room.0, user.0));
                mend.put(&ROOM_MEMBERS, &key, &row.event);
            }
        }
    }
    let mut rest = Some(Range::all());
    while let Some(page) = next(view, &ROOM_MEMBERS, &mut rest).await? {
        for ((room, membership, user), _) in page {
            let by_user = view.get(&MEMBERSHIPS, &(user, room)).await?;
            if by_user.is_some_and(|row| row.membership == membership) {
                *counted.entry((room, membership)).or_default() += 1;
            } else {
                report(Problem::WrongMembership(room.0, user.0));
                mend.delete(&ROOM_MEMBERS, &(room, membership, user));
            }
        }
    }
    let mut rest = Some(Range::all());
    while let Some(page) = next(view, &MEMBER_COUNTS, &mut rest).await? {
        for (key, stored) in page {
            let counted = counted.remove(&key).unwrap_or(0);
            if stored != counted {
                report(Problem::WrongCount {
                    room: key.0.0,
                    stored,
                    counted,
                });
                mend.put(&MEMBER_COUNTS, &key, &counted);
            }
        }
    }
    for (key, counted) in counted {
        report(Problem::WrongCount {
            room: key.0.0,
            stored: 0,
            counted,
        });
        mend.put(&MEMBER_COUNTS, &key, &counted);
    }
    Ok(read)
}

/// The next page of a map's rows; `None` at the end.
async fn next<K: Key, V: Value>(
    view: &View,
    map: &Map<K, V>,
    rest: &mut Option<Range>,
) -> Result<Option<Vec<(K, V)>>, StoreError> {
    let Some(range) = rest.take() else {
        return Ok(None);
    };
    let page = view.range(map, range, Direction::Forward, PAGE).await?;
    if page.len() == PAGE {
        *rest = page.last().map(|(key, _)| Range::all().after(key));
    }
    Ok(Some(page))
}
