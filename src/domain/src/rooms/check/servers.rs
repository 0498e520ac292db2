//! How many joined users other servers have in a room, against the members of the room.

use std::collections::BTreeMap;

use ruma::{ServerName, UserId};
use vatra_store::{Range, View};

use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{JOINED_SERVERS, Membership, ROOM_MEMBERS, ROOMS, RoomSid, USER_IDS, UserSid},
};

pub(super) async fn check(audit: &mut Audit<'_>, own: &ServerName) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rooms = Pages::new(&ROOMS, PAGE);
    while let Some(page) = rooms.next(&view, audit).await? {
        for (room, _) in page {
            let mut counted = count(audit, &view, room, own).await?;
            let mut rows = Pages::within(&JOINED_SERVERS, Range::prefix(&(room,)), PAGE);
            while let Some(page) = rows.next(&view, audit).await? {
                for (key, stored) in page {
                    // Who has nobody left has a row of zero.
                    let wanted = counted.remove(&key.1).unwrap_or(0);
                    audit.row_is(&JOINED_SERVERS, &key, Some(&stored), Some(&wanted));
                }
            }
            let missing = counted.into_iter();
            let missing = missing.map(|(server, count)| ((room, server), count));
            audit
                .rows_are(&view, &JOINED_SERVERS, missing.collect())
                .await?;
        }
    }
    Ok(())
}

/// The joined users of other servers by server, and under the empty name all of them. Memory: a name for each server in the room.
async fn count(
    audit: &mut Audit<'_>,
    view: &View,
    room: RoomSid,
    own: &ServerName,
) -> Result<BTreeMap<String, i64>, AuditError> {
    let mut counted = BTreeMap::new();
    let joined = Range::prefix(&(room, Membership::Join));
    let mut members = Pages::within(&ROOM_MEMBERS, joined, PAGE);
    while let Some(page) = members.next(view, audit).await? {
        let users: Vec<UserSid> = page.iter().map(|((_, _, user), _)| *user).collect();
        // Who has no name was reported.
        let names = Audit::read_many(view, &USER_IDS, &users).await?;
        for name in names.into_iter().flatten() {
            let Ok(user) = UserId::parse(&name) else {
                continue;
            };
            if user.server_name() != own {
                *counted.entry(user.server_name().to_string()).or_insert(0) += 1;
                *counted.entry(String::new()).or_insert(0) += 1;
            }
        }
    }
    Ok(counted)
}
