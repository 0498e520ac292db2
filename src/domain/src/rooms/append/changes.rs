//! What an appended event does to the current state: the flat index, the delta, the memberships and who counts them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ruma::{UserId, events::StateEventType};
use vatra_store::{Batch, Position};

use super::{
    super::{RoomError, RoomGuard},
    Change,
};
use crate::{
    event::pdu::Pdu,
    schema::{
        self, DeltaRow, EventSid, Membership, MembershipRow, RoomSid, StateChange, StateRoot,
        UserSid,
    },
};

/// The most changes that a delta lists; of more, readers take the difference of the states.
const LISTED: usize = 2_000;

pub(in super::super) struct MemberChange {
    pub(super) user: UserSid,
    /// The user's server, if it is another one.
    elsewhere: Option<String>,
    pub(super) old: Option<PendingMembership>,
    pub(super) new: PendingMembership,
}

/// A membership row, maybe of a batch that is still on its way: its position is filled in when the batch gets one.
#[derive(Debug, Clone)]
pub(in super::super) struct PendingMembership {
    pub(super) membership: Membership,
    pub(super) position: Arc<AtomicU64>,
    joined_until: Arc<AtomicU64>,
}

impl PendingMembership {
    /// A new membership, whose position is not known yet.
    pub(in super::super) fn new(membership: Membership) -> Self {
        Self {
            membership,
            position: Arc::default(),
            joined_until: Arc::default(),
        }
    }

    /// What it is.
    pub(in super::super) fn membership(&self) -> Membership {
        self.membership
    }

    /// A row that is there.
    pub(in super::super) fn of(row: &MembershipRow) -> Self {
        Self {
            membership: row.membership,
            position: Arc::new(AtomicU64::new(row.position.0)),
            joined_until: Arc::new(AtomicU64::new(row.joined_until.0)),
        }
    }

    /// The row, now that its batch has a position (and the batches before it have theirs).
    pub(in super::super) fn row(
        &self,
        before: Option<&Self>,
        event: EventSid,
        position: Position,
    ) -> MembershipRow {
        let same = before.filter(|before| before.membership == self.membership);
        let since = same.map_or(position, |before| {
            Position(before.position.load(Ordering::Acquire))
        });
        let joined_until = if self.membership == Membership::Join {
            MembershipRow::STILL
        } else {
            match before {
                Some(before) if before.membership == Membership::Join => position,
                Some(before) => Position(before.joined_until.load(Ordering::Acquire)),
                None => Position(0),
            }
        };
        self.position.store(since.0, Ordering::Release);
        self.joined_until.store(joined_until.0, Ordering::Release);
        MembershipRow {
            membership: self.membership,
            event,
            position: since,
            forgotten: false,
            joined_until,
        }
    }
}

/// What a member event says; `None` for other events and for what the spec does not know.
pub fn membership_of(pdu: &Pdu) -> Option<Membership> {
    Membership::from_state(pdu.member()?.membership.as_ref()?)
}

/// The event being appended, whose content is not in the store yet.
pub(super) struct StateOf<'a> {
    pub(super) sid: EventSid,
    pub(super) pdu: &'a Pdu,
}

impl RoomGuard {
    /// Names the keys that change and works out what that means for memberships.
    pub(super) async fn describe(
        &mut self,
        changes: &[StateChange],
        own: StateOf<'_>,
    ) -> Result<Vec<Change>, RoomError> {
        if changes.len() > 16 {
            self.intern_members(changes).await?;
        }
        let mut described = Vec::with_capacity(changes.len());
        for change in changes {
            let name = self
                .inner
                .ids
                .state_key_name(change.key)
                .await?
                .ok_or(RoomError::UnknownEvent)?;
            let kind = StateEventType::from(name.0.as_str());
            let member = if kind == StateEventType::RoomMember {
                self.member_change(&name.1, change.new, &own).await?
            } else {
                None
            };
            described.push(Change {
                kind,
                key: name.1.clone(),
                new: change.new,
                member,
            });
        }
        Ok(described)
    }

    /// Numbers for all users at once, who would else be waited for one by one.
    async fn intern_members(&self, changes: &[StateChange]) -> Result<(), RoomError> {
        let mut users = Vec::new();
        for change in changes {
            let name = self.inner.ids.state_key_name(change.key).await?;
            let member = name.filter(|name| name.0 == "m.room.member");
            users.extend(member.and_then(|name| UserId::parse(&name.1).ok()));
        }
        Ok(self.inner.ids.intern_users(&users).await?)
    }

    async fn member_change(
        &self,
        user: &str,
        new: Option<EventSid>,
        own: &StateOf<'_>,
    ) -> Result<Option<MemberChange>, RoomError> {
        let Ok(id) = UserId::parse(user) else {
            return Ok(None);
        };
        let user = self.inner.ids.intern_user(&id).await?;
        let view = self.inner.store.view();
        let new = match new {
            Some(sid) if sid == own.sid => membership_of(own.pdu),
            Some(sid) => self
                .inner
                .events
                .get(&view, sid)
                .await?
                .and_then(|event| membership_of(&event.pdu)),
            None => None,
        };
        let elsewhere = id.server_name() != self.inner.signer.server_name();
        Ok(Some(MemberChange {
            user,
            elsewhere: elsewhere.then(|| id.server_name().to_string()),
            old: self.membership_before(user).await?,
            new: PendingMembership::new(new.unwrap_or(Membership::Leave)),
        }))
    }

    /// The membership row as of everything submitted under the room's lock.
    pub(in super::super) async fn membership_before(
        &self,
        user: UserSid,
    ) -> Result<Option<PendingMembership>, RoomError> {
        let key = (user, self.room.sid);
        if let Some(row) = self.inner.memberships.get(&key) {
            return Ok(Some(row.clone()));
        }
        let view = self.inner.store.view();
        let row = view.get(&schema::MEMBERSHIPS, &key).await?;
        Ok(row.as_ref().map(PendingMembership::of))
    }

    /// Makes the new memberships known to whoever holds the room next.
    pub(super) fn pending_members(
        &self,
        changes: &[Change],
    ) -> Vec<((UserSid, RoomSid), PendingMembership)> {
        let members = changes.iter().filter_map(|change| change.member.as_ref());
        let members: Vec<_> = members
            .map(|member| ((member.user, self.room.sid), member.new.clone()))
            .collect();
        for (key, new) in &members {
            self.inner.memberships.insert(*key, new.clone());
        }
        members
    }

    /// `facts` is `None` if not all changes are listed.
    pub(super) fn put_state(
        &self,
        batch: &mut Batch,
        root: StateRoot,
        facts: Option<Vec<StateChange>>,
        changes: &[Change],
        sid: EventSid,
    ) {
        if changes.is_empty() {
            return;
        }
        let room = self.room.sid;
        let changes_listed = facts.filter(|facts| facts.len() <= LISTED);
        let delta = DeltaRow {
            root,
            changes: changes_listed.unwrap_or_default(),
        };
        batch.put_at_position(&schema::STATE_DELTAS, move |position| {
            ((room, position), delta)
        });
        for change in changes {
            let key = (room, change.kind.to_string(), change.key.clone());
            match change.new {
                Some(event) => batch.put(&schema::CURRENT_STATE, &key, &event),
                None => batch.delete(&schema::CURRENT_STATE, &key),
            };
            if let Some(member) = &change.member {
                put_membership(batch, room, member, change.new.unwrap_or(sid));
            }
        }
    }
}

fn put_membership(batch: &mut Batch, room: RoomSid, member: &MemberChange, event: EventSid) {
    let (user, new) = (member.user, member.new.clone());
    let old = member.old.as_ref().map(|row| row.membership);
    let membership = new.membership;
    if old != Some(membership) {
        if let Some(old) = old {
            batch.delete(&schema::ROOM_MEMBERS, &(room, old, user));
            batch.add(&schema::MEMBER_COUNTS, &(room, old), -1);
        }
        batch.add(&schema::MEMBER_COUNTS, &(room, membership), 1);
        let (was, is) = (
            old == Some(Membership::Join),
            membership == Membership::Join,
        );
        match &member.elsewhere {
            Some(server) if was != is => {
                let by = if is { 1 } else { -1 };
                batch.add(&schema::JOINED_SERVERS, &(room, server.clone()), by);
                batch.add(&schema::JOINED_SERVERS, &(room, String::new()), by);
            }
            // What they were told from outside is no longer needed; who had no membership was told nothing.
            None if old.is_some() => {
                batch.delete(&schema::OUTSIDE, &(user, room));
            }
            _ => {}
        }
    }
    batch.put(&schema::ROOM_MEMBERS, &(room, membership, user), &event);
    let before = member.old.clone();
    batch.put_at_position(&schema::MEMBERSHIPS, move |position| {
        let row = new.row(before.as_ref(), event, position);
        ((user, room), row)
    });
}
