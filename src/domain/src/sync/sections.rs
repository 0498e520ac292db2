//! The providers: what is new for one user between two positions, by section of the answer.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{
    OwnedUserId, UserId,
    api::client::filter::RoomEventFilter,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::RawValue;
use vatra_store::{Direction, Position};

use super::{
    SyncError,
    request::{StateField, SyncRequest},
    response::{
        Events, InvitedRoom, JoinedRoom, KnockedRoom, LeftRoom, RoomsSection, State, Summary,
        Timeline,
    },
    room::{Ask, Window},
};
use crate::{
    event::{client, filter},
    rooms::{
        Event, Reader, Room, Rooms,
        ephemeral::Ephemeral,
        serve::{self, Form},
        unread::Unreads,
        visible::Viewer,
    },
    schema::{EventSid, Membership, MembershipRow, RoomSid, UserSid, topic},
    users::{Ignored, Users},
};

/// Between what the client knows and what it will know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// `None`: the client knows nothing.
    pub(super) since: Option<Position>,
    pub(super) upto: Position,
    pub(super) full_state: bool,
}

impl Span {
    fn is_new(&self, position: Position) -> bool {
        self.since.is_none_or(|since| position > since)
    }
}

/// The parts that the sections are read from.
pub struct Providers {
    /// Rooms.
    pub rooms: Rooms,
    /// Account data and profiles.
    pub users: Users,
    /// Typing, receipts and presence.
    pub ephemeral: Ephemeral,
    /// Unread counts.
    pub unreads: Unreads,
}

impl Providers {
    pub(super) async fn rooms(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span,
        memberships: &[(RoomSid, MembershipRow)],
    ) -> Result<RoomsSection, SyncError> {
        let mut section = RoomsSection::default();
        for (sid, row) in memberships {
            // A membership of after the view belongs to the next answer.
            if row.position > span.upto {
                continue;
            }
            match row.membership {
                Membership::Join => {
                    if !self.joined_changed(*sid, row, span) {
                        continue;
                    }
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    if let Some(joined) = self
                        .joined(reader, viewer, request, span, &room, row)
                        .await?
                    {
                        section.join.insert(room.id.clone(), joined);
                    }
                }
                Membership::Invite if span.is_new(row.position) => {
                    if self.is_unwelcome(reader, viewer, row).await? {
                        continue;
                    }
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    let invite_state = self.stripped(reader, &room, viewer, row).await?;
                    section
                        .invite
                        .insert(room.id.clone(), InvitedRoom { invite_state });
                }
                Membership::Knock if span.is_new(row.position) => {
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    let knock_state = self.stripped(reader, &room, viewer, row).await?;
                    section
                        .knock
                        .insert(room.id.clone(), KnockedRoom { knock_state });
                }
                Membership::Leave | Membership::Ban => {
                    let asked = match span.since {
                        Some(since) => {
                            row.position > since
                                || (span.full_state && request.filter.room.include_leave)
                        }
                        None => request.filter.room.include_leave,
                    };
                    if !asked || row.forgotten {
                        continue;
                    }
                    let Some(room) = self.wanted(reader, *sid, request).await? else {
                        continue;
                    };
                    let left = self.left(reader, viewer, request, span, &room, row).await?;
                    section.leave.insert(room.id.clone(), left);
                }
                Membership::Invite | Membership::Knock => {}
            }
        }
        Ok(section)
    }

    /// Whether an invite comes from someone whom the user ignores.
    async fn is_unwelcome(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        row: &MembershipRow,
    ) -> Result<bool, SyncError> {
        let ignored = self.users.ignored(viewer.sid).await?;
        if ignored.is_empty() {
            return Ok(false);
        }
        let invite = reader.event_by_sid(row.event).await?;
        Ok(invite.is_some_and(|invite| ignored.contains(&invite.pdu.sender)))
    }

    /// Whether anything at all may be new in a joined room: a comparison of integers.
    fn joined_changed(&self, room: RoomSid, row: &MembershipRow, span: Span) -> bool {
        let Some(since) = span.since else { return true };
        span.full_state
            || row.position > since
            || self.rooms.store().changed_since(topic::room(room), since)
    }

    /// The room, unless the filter leaves it out.
    async fn wanted(
        &self,
        reader: &Reader,
        sid: RoomSid,
        request: &SyncRequest,
    ) -> Result<Option<Arc<Room>>, SyncError> {
        let Some(room) = reader.room_by_sid(sid).await? else {
            return Ok(None);
        };
        let filter = &request.filter.room;
        let listed = filter
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(&room.id));
        Ok((listed && !filter.not_rooms.contains(&room.id)).then_some(room))
    }

    async fn joined(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span,
        room: &Arc<Room>,
        row: &MembershipRow,
    ) -> Result<Option<JoinedRoom>, SyncError> {
        // Who joins after `since` knows nothing of the room, though the timeline may go back before the join.
        let newly = span.is_new(row.position);
        let since = if newly { None } else { span.since };
        let ignored = self.users.ignored(viewer.sid).await?;
        let window = ask(reader, viewer, &ignored, request)
            .window(room, since, span.upto, span.full_state)
            .await?;
        let members_changed = newly
            || span.full_state
            || window
                .state
                .iter()
                .chain(&window.events)
                .any(|event| event.pdu.kind.to_string() == "m.room.member");

        let mut joined = JoinedRoom {
            ephemeral: self.ephemeral(reader, viewer, request, room, since).await?,
            account_data: self
                .room_account_data(reader, viewer, request, room, span.since.filter(|_| !newly))
                .await?,
            ..JoinedRoom::default()
        };
        let nothing = window.events.is_empty()
            && window.state.is_empty()
            && joined.ephemeral.is_empty()
            && joined.account_data.is_empty();
        if nothing && !newly && !span.full_state {
            return Ok(None);
        }
        if members_changed {
            joined.summary = summary(reader, viewer, room).await?;
        }
        let rules = self.users.shared_push_rules(viewer.sid).await?;
        let receipts = &self.ephemeral.receipts;
        let unread = self
            .unreads
            .of(reader, receipts, (rules, ignored), viewer, room)
            .await?;
        if request.filter.room.timeline.unread_thread_notifications {
            joined.unread_notifications = Some(unread.main.into());
            let threads = unread.threads.into_iter();
            joined.unread_thread_notifications = threads
                .map(|(root, counts)| (root, counts.into()))
                .collect();
        } else {
            joined.unread_notifications = Some(unread.total().into());
        }
        (joined.timeline, joined.state) =
            self.render(reader, viewer, request, room, window).await?;
        Ok(Some(joined))
    }

    async fn left(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span,
        room: &Arc<Room>,
        row: &MembershipRow,
    ) -> Result<LeftRoom, SyncError> {
        // Someone who was joined at `since` is told what happened until they left; others get the leaving and its state.
        let upto = row.position.min(span.upto);
        let since = span
            .since
            .filter(|_| !span.full_state)
            .filter(|since| row.joined_until > *since);
        let ignored = self.users.ignored(viewer.sid).await?;
        let mut window = ask(reader, viewer, &ignored, request)
            .window(room, since, upto, span.full_state)
            .await?;
        if !row.was_joined() {
            // An invite refused or withdrawn: the room's history is none of theirs.
            let own = reader.event_by_sid(row.event).await?;
            window = Window {
                events: own.into_iter().collect(),
                limited: false,
                prev_batch: None,
                state: Vec::new(),
            };
        }
        let (timeline, state) = self.render(reader, viewer, request, room, window).await?;
        Ok(LeftRoom { timeline, state })
    }

    async fn render(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        room: &Arc<Room>,
        window: Window,
    ) -> Result<(Timeline, State), SyncError> {
        let form = Form::for_filter(&request.filter, self.users.clock().clone());
        let events = serve::events(reader, viewer, room, &window.events, &form).await?;
        let state = Events {
            events: serve::events(reader, viewer, room, &window.state, &form).await?,
        };
        let prev_batch = window.prev_batch.map(|token| token.to_string());
        let timeline = Timeline {
            events,
            limited: window.limited,
            prev_batch,
        };
        let state = match request.state {
            StateField::Before => State::Before(state),
            StateField::After => State::After(state),
            StateField::AfterUnstable => State::AfterUnstable(state),
        };
        Ok((timeline, state))
    }

    /// What an invited or knocking user may know of a room, and their own member event.
    async fn stripped(
        &self,
        reader: &Reader,
        room: &Room,
        viewer: &Viewer,
        row: &MembershipRow,
    ) -> Result<Events, SyncError> {
        let root = reader.root_at(room.sid, row.position).await?;
        let mut events: Vec<Box<RawValue>> = Vec::new();
        for kind in STRIPPED {
            if let Some(event) = reader
                .state_at_key(root, &StateEventType::from(kind), "")
                .await?
            {
                events.push(client::stripped_json(&event.pdu));
            }
        }
        if let Some(member) = reader.event_by_sid(row.event).await? {
            let inviter = member.pdu.sender.clone();
            if inviter != viewer.user
                && let Some(event) = reader
                    .state_at_key(root, &StateEventType::RoomMember, inviter.as_str())
                    .await?
            {
                events.push(client::stripped_json(&event.pdu));
            }
            events.push(client::stripped_json(&member.pdu));
        }
        Ok(Events { events })
    }

    async fn ephemeral(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        room: &Room,
        since: Option<Position>,
    ) -> Result<Events, SyncError> {
        let wanted = &request.filter.room.ephemeral;
        let mut events = Vec::new();
        if filter::room_type_matches(wanted, &room.id, "m.typing")
            && let Some(typing) = self.ephemeral.typing.event(room.sid, since)
        {
            events.push(typing);
        }
        if filter::room_type_matches(wanted, &room.id, "m.receipt")
            && let Some(receipts) = self
                .ephemeral
                .receipts
                .event(reader, viewer, room.sid, since)
                .await?
        {
            events.push(receipts);
        }
        Ok(Events { events })
    }

    async fn room_account_data(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        room: &Room,
        since: Option<Position>,
    ) -> Result<Events, SyncError> {
        let wanted: &RoomEventFilter = &request.filter.room.account_data;
        let data = self
            .users
            .room_account_data_since(reader.view(), viewer.sid, room.sid, since)
            .await?;
        let events = data
            .into_iter()
            .filter(|(kind, _)| filter::room_type_matches(wanted, &room.id, kind));
        Ok(Events {
            events: events.map(|(_, event)| event).collect(),
        })
    }

    pub(super) async fn account_data(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span,
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

    pub(super) async fn presence(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span,
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

/// How many newcomers of a room are looked for.
const MET: usize = 100;

/// State that says what a room is, for those outside. <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
const STRIPPED: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.tombstone",
];

fn ask<'a>(
    reader: &'a Reader,
    viewer: &'a Viewer,
    ignored: &'a Ignored,
    request: &'a SyncRequest,
) -> Ask<'a> {
    let filter = &request.filter.room;
    Ask {
        reader,
        viewer,
        ignored,
        timeline: &filter.timeline,
        state: &filter.state,
        state_after: request.state != StateField::Before,
    }
}

/// Heroes (only for a room without a name or alias) and counts.
async fn summary(reader: &Reader, viewer: &Viewer, room: &Room) -> Result<Summary, SyncError> {
    let joined = reader.member_count(room.sid, Membership::Join).await?;
    let invited = reader.member_count(room.sid, Membership::Invite).await?;
    let named = reader
        .state_event(room.sid, &StateEventType::RoomName, "")
        .await?
        .is_some_and(|event| says(&event, "name"))
        || reader
            .state_event(room.sid, &StateEventType::RoomCanonicalAlias, "")
            .await?
            .is_some_and(|event| says(&event, "alias"));
    let mut heroes: Vec<OwnedUserId> = Vec::new();
    if !named {
        for membership in [
            Membership::Join,
            Membership::Invite,
            Membership::Leave,
            Membership::Ban,
        ] {
            if membership == Membership::Leave && !heroes.is_empty() {
                break;
            }
            for (user, _) in reader.members(room.sid, membership, 6).await? {
                if user != viewer.sid
                    && heroes.len() < 5
                    && let Some(user) = reader.user_id(user).await?
                {
                    heroes.push(user);
                }
            }
        }
        heroes.sort();
    }
    Ok(Summary {
        heroes: (!named).then_some(heroes),
        joined: Some(joined),
        invited: Some(invited),
    })
}

/// Whether a state event's content has a string of some length at `field`.
fn says(event: &Event, field: &str) -> bool {
    let content: Option<serde_json::Map<String, serde_json::Value>> = event.pdu.content_as().ok();
    content.is_some_and(|content| {
        content
            .get(field)
            .and_then(|value| value.as_str())
            .is_some_and(|text| !text.is_empty())
    })
}
