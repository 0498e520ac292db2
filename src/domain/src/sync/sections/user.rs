//! What is of no room: the user's account data, and the presence of people they share a room with.

use std::collections::BTreeSet;

use ruma::{UserId, events::TimelineEventType};
use vatra_store::{Direction, Position};

use super::{
    super::{SyncError, request::SyncRequest, response::Events},
    Providers, Span,
};
use crate::{
    event::filter,
    rooms::{Reader, visible::Viewer},
    schema::{EventSid, Membership, MembershipRow, RoomSid, UserSid, topic},
};

/// How many newcomers of a room are looked for.
const MET: usize = 100;

impl Providers {
    pub(in crate::sync) async fn account_data(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span<'_>,
    ) -> Result<Events, SyncError> {
        if let Some(since) = span.since
            && !self
                .rooms
                .store()
                .changed_since(topic::user(viewer.sid), since)
        {
            return Ok(Events::default());
        }
        let data = self
            .users
            .account_data_since(reader.view(), viewer.sid, span.since)
            .await?;
        let wanted = &request.filter.account_data;
        let events = data
            .into_iter()
            .filter(|(kind, _)| filter::type_matches(wanted, kind));
        Ok(Events {
            events: events.map(|(_, event)| event).collect(),
        })
    }

    /// Whom a user has met since: those who joined one of their rooms, and those in the rooms they joined themselves.
    async fn newcomers(
        &self,
        reader: &Reader,
        since: Position,
        upto: Position,
        memberships: &[(RoomSid, MembershipRow)],
    ) -> Result<BTreeSet<UserSid>, SyncError> {
        let mut met = BTreeSet::new();
        for (room, row) in memberships {
            if row.membership != Membership::Join {
                continue;
            }
            if row.position > since {
                let members = reader.members(*room, Membership::Join, MET).await?;
                met.extend(members.into_iter().map(|(user, _)| user));
            } else if self.rooms.store().changed_since(topic::room(*room), since) {
                let rows = reader
                    .log(*room, since, upto, Direction::Backward, MET)
                    .await?;
                let sids: Vec<EventSid> = rows.into_iter().map(|(_, row)| row.event).collect();
                for event in reader.events(&sids).await?.into_iter().flatten() {
                    if event.pdu.kind == TimelineEventType::RoomMember
                        && let Some(user) = event.pdu.state_key.as_deref()
                        && let Ok(user) = <&UserId>::try_from(user)
                        && let Some(user) = reader.user_sid(user).await?
                        && reader.is_joined(user, *room).await?
                    {
                        met.insert(user);
                    }
                }
            }
        }
        Ok(met)
    }

    pub(in crate::sync) async fn presence(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span<'_>,
        memberships: &[(RoomSid, MembershipRow)],
    ) -> Result<Events, SyncError> {
        let presence = &self.ephemeral.presence;
        let newcomers = match span.since {
            Some(since) if presence.enabled() => {
                self.newcomers(reader, since, span.upto, memberships)
                    .await?
            }
            _ => BTreeSet::new(),
        };
        let wanted = &request.filter.presence;
        let events = presence
            .events(reader, viewer, wanted, span.since, &newcomers, memberships)
            .await?;
        Ok(Events { events })
    }
}
