//! Memberships against the member events of the current state; members by room and their counts against the memberships.

use ruma::UserId;
use vatra_store::{Position, Range, View};

use super::{
    super::append::membership_of,
    events::{EVENTS_PAGE, parse},
    trees::{Found, Trees},
};
use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{
        CURRENT_STATE, EVENTS, EventRow, EventSid, MEMBER_COUNTS, MEMBERSHIPS, Membership,
        MembershipRow, ROOM_HEADS, ROOM_MEMBERS, RoomSid, STATE_DELTAS, STATE_KEY_SIDS, USER_IDS,
        USER_SIDS, UserSid,
    },
};

const MEMBER: &str = "m.room.member";

/// Gives how many memberships there are.
pub(super) async fn check(audit: &mut Audit<'_>, trees: &mut Trees) -> Result<u64, AuditError> {
    from_state(audit, trees).await?;
    let memberships = to_state(audit, trees).await?;
    by_room(audit).await?;
    counts(audit).await?;
    Ok(memberships)
}

/// Every member event of a current state has its membership.
async fn from_state(audit: &mut Audit<'_>, trees: &mut Trees) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&CURRENT_STATE, EVENTS_PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let members: Vec<_> = page
            .into_iter()
            .filter(|((_, kind, user), _)| kind == MEMBER && UserId::parse(user).is_ok())
            .map(|((room, _, user), event)| (room, user, event))
            .collect();
        let users: Vec<String> = members.iter().map(|(_, user, _)| user.clone()).collect();
        let sids = Audit::read_many(&view, &USER_SIDS, &users).await?;
        let events: Vec<EventSid> = members.iter().map(|(.., event)| *event).collect();
        let events = Audit::read_many(&view, &EVENTS, &events).await?;
        for (((room, user, sid), number), event) in members.iter().zip(sids).zip(events) {
            let Some(number) = number else {
                audit.damaged(&USER_SIDS, user, "is a member of a room, has no number");
                continue;
            };
            // An event that is not there or cannot be read was reported.
            let Some(membership) = event.as_ref().and_then(said) else {
                continue;
            };
            let key = (number, *room);
            let found = Audit::read(&view, &MEMBERSHIPS, &key).await?;
            let fits = found.as_ref().is_some_and(|found| {
                let joined = membership == Membership::Join;
                found.membership == membership
                    && found.event == *sid
                    && joined == (found.joined_until == MembershipRow::STILL)
            });
            if !fits {
                let wanted = replay(&view, trees, *room, user, found.as_ref()).await?;
                audit.row_is(&MEMBERSHIPS, &key, found.as_ref(), wanted.as_ref());
            }
        }
    }
    Ok(())
}

/// Who has no member event in the current state is no member. Gives how many memberships there are.
async fn to_state(audit: &mut Audit<'_>, trees: &mut Trees) -> Result<u64, AuditError> {
    let view = audit.view();
    let mut count = 0;
    let mut rows = Pages::new(&MEMBERSHIPS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let users: Vec<UserSid> = page.iter().map(|((user, _), _)| *user).collect();
        let users = Audit::read_many(&view, &USER_IDS, &users).await?;
        for (((number, room), row), user) in page.into_iter().zip(users) {
            count += 1;
            let Some(user) = user else {
                audit.damaged(&USER_IDS, &number, "has a membership and no name");
                continue;
            };
            let key = (room, MEMBER.to_owned(), user);
            let said = Audit::read(&view, &CURRENT_STATE, &key).await?.is_some();
            // A room without a head is one that this server is not in: its invites stand by themselves.
            if said
                || row.membership == Membership::Leave
                || Audit::read(&view, &ROOM_HEADS, &room).await?.is_none()
            {
                continue;
            }
            let wanted = replay(&view, trees, room, &key.2, Some(&row)).await?;
            audit.row_is(&MEMBERSHIPS, &(number, room), Some(&row), wanted.as_ref());
        }
    }
    Ok(count)
}

/// The membership as the changes of the room's state have made it; `None` if the user was never in that state. What
/// only the row knew, whether the user has forgotten the room, is taken from `old`.
async fn replay(
    view: &View,
    trees: &mut Trees,
    room: RoomSid,
    user: &str,
    old: Option<&MembershipRow>,
) -> Result<Option<MembershipRow>, AuditError> {
    let name = (MEMBER.to_owned(), user.to_owned());
    let Some(key) = Audit::read(view, &STATE_KEY_SIDS, &name).await? else {
        return Ok(None);
    };
    let mut row: Option<MembershipRow> = None;
    let mut range = Range::prefix(&(room,));
    loop {
        let page = view
            .range(
                &STATE_DELTAS,
                range.clone(),
                vatra_store::Direction::Forward,
                PAGE,
            )
            .await?;
        let Some((last, _)) = page.last() else { break };
        range = range.after(last);
        for ((_, position), delta) in &page {
            let listed = delta.changes.iter().find(|change| change.key == key);
            let new = match listed {
                Some(change) => Some(change.new),
                // Very many changes are not listed: the state after them tells.
                None if delta.changes.is_empty() => {
                    match trees.find(view, delta.root, key).await? {
                        Found::Event(event) if event != row.map(|row| row.event) => Some(event),
                        _ => None,
                    }
                }
                None => None,
            };
            if let Some(new) = new {
                row = Some(changed(view, row, *position, new).await?);
            }
        }
    }
    Ok(row.map(|row| MembershipRow {
        forgotten: row.membership == Membership::Leave && old.is_some_and(|old| old.forgotten),
        ..row
    }))
}

/// What a change of the state makes of a membership; the same as when the event was appended.
async fn changed(
    view: &View,
    before: Option<MembershipRow>,
    position: Position,
    event: Option<EventSid>,
) -> Result<MembershipRow, AuditError> {
    let said = match event {
        Some(event) => Audit::read(view, &EVENTS, &event)
            .await?
            .as_ref()
            .and_then(said),
        None => None,
    };
    let membership = said.unwrap_or(Membership::Leave);
    let same = before.filter(|before| before.membership == membership);
    let joined_until = match before {
        _ if membership == Membership::Join => MembershipRow::STILL,
        Some(before) if before.membership == Membership::Join => position,
        Some(before) => before.joined_until,
        None => Position(0),
    };
    Ok(MembershipRow {
        membership,
        event: event
            .or(before.map(|before| before.event))
            .unwrap_or(EventSid(0)),
        position: same.map_or(position, |same| same.position),
        forgotten: false,
        joined_until,
    })
}

/// The membership that an event speaks of; `Leave` for what the spec does not know, `None` for what cannot be read.
fn said(row: &EventRow) -> Option<Membership> {
    Some(membership_of(&parse(row)?).unwrap_or(Membership::Leave))
}

async fn by_room(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&MEMBERSHIPS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|((user, room), row)| ((room, row.membership, user), row.event))
            .collect();
        audit.rows_are(&view, &ROOM_MEMBERS, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&ROOM_MEMBERS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page
            .iter()
            .map(|((room, _, user), _)| (*user, *room))
            .collect();
        let memberships = Audit::read_many(&view, &MEMBERSHIPS, &keys).await?;
        for ((key, event), row) in page.iter().zip(memberships) {
            if row.is_none_or(|row| row.membership != key.1) {
                audit.row_is(&ROOM_MEMBERS, key, Some(event), None);
            }
        }
    }
    Ok(())
}

async fn counts(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut counted: Option<((RoomSid, Membership), i64)> = None;
    let mut rows = Pages::new(&ROOM_MEMBERS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let mut wanted = Vec::new();
        for ((room, membership, _), _) in page {
            match &mut counted {
                Some((key, count)) if *key == (room, membership) => *count += 1,
                _ => wanted.extend(counted.replace(((room, membership), 1))),
            }
        }
        audit.rows_are(&view, &MEMBER_COUNTS, wanted).await?;
    }
    audit
        .rows_are(&view, &MEMBER_COUNTS, counted.into_iter().collect())
        .await?;
    let view = audit.view();
    let mut rows = Pages::new(&MEMBER_COUNTS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        for (key, stored) in page.into_iter().filter(|(_, stored)| *stored != 0) {
            let range = Range::prefix(&key);
            let first = view
                .first(&ROOM_MEMBERS, range, vatra_store::Direction::Forward)
                .await?;
            if first.is_none() {
                audit.row_is(&MEMBER_COUNTS, &key, Some(&stored), Some(&0));
            }
        }
    }
    Ok(())
}
