//! One joined or left room of the answer.

use std::sync::Arc;

use ruma::api::client::filter::RoomEventFilter;
use vatra_store::Position;

use super::{
    super::{
        SyncError,
        lazy::Round,
        request::{StateField, SyncRequest},
        response::{Events, JoinedRoom, LeftRoom, State, Timeline},
        room::{Ask, Window},
        token::BatchToken,
    },
    Providers, Span,
    summary::summary,
};
use crate::{
    event::filter,
    rooms::{
        Reader, Room,
        judging::Taste,
        serve::{self, Form},
        visible::Viewer,
    },
    schema::{MembershipRow, Status},
    users::Ignored,
};

impl Providers {
    pub(super) async fn joined(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span<'_>,
        room: &Arc<Room>,
        row: &MembershipRow,
    ) -> Result<Option<JoinedRoom>, SyncError> {
        // Who joins after `since` knows nothing of the room, though the timeline may go back before the join.
        let newly = span.is_new(row.position);
        let since = if newly { None } else { span.since };
        if since.is_some() {
            // Others wait for the same room: what they need of it as well is looked up once.
            reader.recent(room).await?;
        }
        let ignored = self.users.ignored(viewer.sid).await?;
        let mut window = ask(reader, viewer, &ignored, request, span.round)
            .window(room, since, span.upto, span.full_state)
            .await?;
        // A client that was in the room before may hold older events: what it is given now does not follow on them.
        window.limited |= newly && span.since.is_some();
        let summary_changed = newly || span.full_state || window.summary_changed;

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
        if summary_changed {
            joined.summary = summary(reader, viewer, room).await?;
        }
        let rules = self.users.shared_push_rules(viewer.sid).await?;
        let receipts = &self.ephemeral.receipts;
        let unread = self
            .unreads
            .of(
                reader,
                receipts,
                Taste { rules, ignored },
                viewer,
                room,
                row,
            )
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

    pub(super) async fn left(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        request: &SyncRequest,
        span: Span<'_>,
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
        let mut window = ask(reader, viewer, &ignored, request, span.round)
            .window(room, since, upto, span.full_state)
            .await?;
        let own = reader.event_by_sid(row.event).await?;
        let outside = own
            .as_ref()
            .is_some_and(|event| event.status != Status::Visible);
        if !row.was_joined() || outside {
            // An invite refused or withdrawn: the room's history is none of theirs. That they are out is state all the same, and
            // clients that ask for the state after the timeline read it there only.
            let events: Vec<_> = own.into_iter().collect();
            let state = match request.state {
                StateField::Before => Vec::new(),
                _ => events.clone(),
            };
            window = Window {
                events,
                limited: false,
                prev_batch: None,
                state,
                summary_changed: false,
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
        let mut form = Form::for_filter(&request.filter, self.users.clock().clone());
        form.room_id = request.room_ids;
        let events = serve::events(reader, viewer, room, &window.events, &form).await?;
        let state = Events {
            events: serve::events(reader, viewer, room, &window.state, &form).await?,
        };
        let prev_batch = window.prev_batch.map(|place| {
            let position = reader.watermark();
            BatchToken { place, position }.to_string()
        });
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
}

fn ask<'a>(
    reader: &'a Reader,
    viewer: &'a Viewer,
    ignored: &'a Ignored,
    request: &'a SyncRequest,
    round: &'a Round,
) -> Ask<'a> {
    let filter = &request.filter.room;
    Ask {
        reader,
        viewer,
        ignored,
        timeline: &filter.timeline,
        state: &filter.state,
        state_after: request.state != StateField::Before,
        round,
    }
}
