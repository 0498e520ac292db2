//! What is read of a room's current state without its tree: the flat index, memberships and counts. For a room that is entered they
//! are written in chunks that nobody sees.

use std::collections::BTreeMap;

use ruma::{UserId, events::TimelineEventType};
use vatra_store::{Batch, Direction, Range};

use super::{CHUNK, write_bulk};
use crate::{
    event::pdu::Pdu,
    rooms::{
        RoomError, RoomGuard,
        append::{PendingMembership, membership_of},
        receive::{ReceiveError, Receiver},
    },
    schema::{self, EventSid, Membership, RoomSid, StateChange, StateKeySid, StateRoot},
};

impl Receiver {
    /// The flat index and the memberships of other servers' users. Gives the changes that concern local users: those happen in the
    /// batch that makes the room visible.
    pub(super) async fn index(
        &self,
        guard: &RoomGuard,
        root: StateRoot,
    ) -> Result<Vec<StateChange>, ReceiveError> {
        let inner = self.inner();
        let room = guard.room.sid;
        let mut counts = self.sweep(room).await?;
        let mut servers: BTreeMap<String, i64> = BTreeMap::new();
        let mut local = Vec::new();
        let entries = inner.trees.entries(&inner.store.view(), root).await?;
        for chunk in entries.chunks(CHUNK) {
            local.extend(
                self.index_chunk(room, chunk, &mut counts, &mut servers)
                    .await?,
            );
        }
        let mut batch = Batch::new();
        for (membership, count) in counts {
            batch.put(&schema::MEMBER_COUNTS, &(room, membership), &count);
        }
        let everyone: i64 = servers.values().sum();
        servers.insert(String::new(), everyone);
        for (server, count) in servers {
            batch.put(&schema::JOINED_SERVERS, &(room, server), &count);
        }
        write_bulk(inner, batch).await?;
        Ok(local)
    }

    async fn index_chunk(
        &self,
        room: RoomSid,
        chunk: &[(StateKeySid, EventSid)],
        counts: &mut BTreeMap<Membership, i64>,
        servers: &mut BTreeMap<String, i64>,
    ) -> Result<Vec<StateChange>, ReceiveError> {
        let inner = self.inner();
        let sids: Vec<EventSid> = chunk.iter().map(|(_, sid)| *sid).collect();
        let events = inner.events.get_many(&inner.store.view(), &sids).await?;
        let member = |pdu: &Pdu| {
            let user = (pdu.kind == TimelineEventType::RoomMember).then_some(&pdu.state_key);
            UserId::parse(user?.as_deref()?).ok()
        };
        let users: Vec<_> = events
            .iter()
            .flatten()
            .filter_map(|event| member(&event.pdu))
            .collect();
        inner.ids.intern_users(&users).await?;
        let mut local = Vec::new();
        let mut batch = Batch::new();
        for ((key, _), event) in chunk.iter().zip(events) {
            let event = event.ok_or(RoomError::UnknownEvent)?;
            let user = member(&event.pdu);
            if let Some(user) = &user
                && user.server_name() == inner.signer.server_name()
            {
                local.push(StateChange {
                    key: *key,
                    old: None,
                    new: Some(event.sid),
                });
                continue;
            }
            let name = event.pdu.state_key.clone().unwrap_or_default();
            let row = (room, event.pdu.kind.to_string(), name);
            batch.put(&schema::CURRENT_STATE, &row, &event.sid);
            let Some(user) = user else { continue };
            let membership = membership_of(&event.pdu).unwrap_or(Membership::Leave);
            *counts.entry(membership).or_default() += 1;
            if membership == Membership::Join {
                let server = user.server_name().to_string();
                *servers.entry(server).or_default() += 1;
            }
            let (user, sid) = (inner.ids.intern_user(&user).await?, event.sid);
            batch.put(&schema::ROOM_MEMBERS, &(room, membership, user), &sid);
            let pending = PendingMembership::new(membership);
            batch.put_at_position(&schema::MEMBERSHIPS, move |position| {
                ((user, room), pending.row(None, sid, position))
            });
        }
        write_bulk(inner, batch).await?;
        Ok(local)
    }

    /// Removes what an import that did not end has left. Counts those who stay: local users who were told of the room from outside.
    async fn sweep(&self, room: RoomSid) -> Result<BTreeMap<Membership, i64>, ReceiveError> {
        let inner = self.inner();
        let view = inner.store.view();
        let range = Range::prefix(&(room,));
        let rows = view
            .range(
                &schema::ROOM_MEMBERS,
                range.clone(),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let mut counts: BTreeMap<Membership, i64> =
            Membership::ALL.into_iter().map(|it| (it, 0)).collect();
        for chunk in rows.chunks(CHUNK) {
            let mut batch = Batch::new();
            for ((_, membership, user), _) in chunk {
                let id = inner.ids.user_id(*user).await?;
                if id.is_some_and(|id| id.server_name() == inner.signer.server_name()) {
                    *counts.entry(*membership).or_default() += 1;
                } else {
                    batch.delete(&schema::ROOM_MEMBERS, &(room, *membership, *user));
                    batch.delete(&schema::MEMBERSHIPS, &(*user, room));
                }
            }
            write_bulk(inner, batch).await?;
        }
        let mut batch = Batch::new();
        batch.delete_range(&schema::CURRENT_STATE, range.clone());
        batch.delete_range(&schema::JOINED_SERVERS, range);
        write_bulk(inner, batch).await?;
        Ok(counts)
    }
}
