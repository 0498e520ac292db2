//! One room's part of /sync: its timeline window and the state that goes with it.
//!
//! A *window* is what a client learns of a room between two positions of the log: the newest events, whether some are left
//! out (`limited`), and the state, chosen so that the state, then the timeline, gives the room's state at the end.

use std::{collections::HashSet, sync::Arc};

use ruma::{
    OwnedUserId,
    api::client::filter::{LazyLoadOptions, RoomEventFilter},
    events::{StateEventType, TimelineEventType},
};
use vatra_store::{Direction, Position};

use super::{lazy::Round, token::OrderToken};
use crate::{
    event::filter,
    rooms::{Event, Reader, Room, RoomError, visible::Viewer},
    schema::{EventSid, RoomOrder, StateRoot},
    users::Ignored,
};

/// How many events a window has when the client does not say.
pub(super) const DEFAULT_LIMIT: usize = 10;
/// How many it has at most.
pub(super) const MAX_LIMIT: usize = 1_000;
/// How many log rows a window reads at most to fill its limit with events that pass the filter.
const MAX_SCAN: usize = 5_000;

/// What is asked of a room.
pub(super) struct Ask<'a> {
    pub(super) reader: &'a Reader,
    pub(super) viewer: &'a Viewer,
    pub(super) timeline: &'a RoomEventFilter,
    pub(super) state: &'a RoomEventFilter,
    /// Whose messages are left out.
    pub(super) ignored: &'a Ignored,
    /// The state at the end of the window instead of at its start.
    pub(super) state_after: bool,
    /// Which members the client has been sent.
    pub(super) round: &'a Round,
}

/// The events of a room between two positions, and the state around them.
pub(super) struct Window {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) limited: bool,
    pub(super) prev_batch: Option<OrderToken>,
    pub(super) state: Vec<Arc<Event>>,
    /// Whether what clients name the room by may have changed: its members, its name, its alias.
    pub(super) summary_changed: bool,
}

impl Ask<'_> {
    /// The window of a room after `since` (`None`: from the beginning, with the full state) up to `upto`.
    /// `full` asks for the whole state though the timeline starts at `since`.
    pub(super) async fn window(
        &self,
        room: &Room,
        since: Option<Position>,
        upto: Position,
        full: bool,
    ) -> Result<Window, RoomError> {
        let (events, limited, oldest) = self.events(room, since, upto).await?;
        let prev_batch = match oldest {
            Some(order) => Some(OrderToken::before(order)),
            None => self
                .reader
                .order_at(room.sid, upto)
                .await?
                .map(OrderToken::after),
        };
        let end = self.reader.root_at(room.sid, upto).await?;
        let start = match events.first() {
            Some(first) => first.root_before,
            None => end,
        };
        let wanted = if self.state_after { end } else { start };
        let known = match since {
            Some(since) if !full => self.reader.root_at(room.sid, since).await?,
            _ => None,
        };
        let mut state = self.changed(known, wanted).await?;
        let summary_changed = state.iter().chain(&events).any(|event| {
            matches!(
                event.pdu.kind,
                TimelineEventType::RoomMember
                    | TimelineEventType::RoomName
                    | TimelineEventType::RoomCanonicalAlias
            )
        });
        // Who is sent everything of the room is sent its members too.
        let anew = full || since.is_none();
        self.filter_state(room, &mut state, (wanted, anew), &events)
            .await?;
        Ok(Window {
            events,
            limited,
            prev_batch,
            state,
            summary_changed,
        })
    }

    /// The newest events that pass the filter and that the viewer may see, oldest first; whether there are older ones that
    /// the client has not seen; and the order of the oldest row that was taken.
    async fn events(
        &self,
        room: &Room,
        since: Option<Position>,
        upto: Position,
    ) -> Result<(Vec<Arc<Event>>, bool, Option<RoomOrder>), RoomError> {
        let limit = self.timeline.limit.map_or(DEFAULT_LIMIT, |limit| {
            usize::try_from(limit).unwrap_or(MAX_LIMIT)
        });
        let limit = limit.min(MAX_LIMIT);
        let after = since.unwrap_or(Position(0));
        let mut newest_first: Vec<Arc<Event>> = Vec::new();
        let mut oldest = None;
        let mut before = upto;
        let mut scanned = 0;
        loop {
            let page = (limit + 1 - newest_first.len()).clamp(10, 200);
            let rows = self
                .reader
                .log(room.sid, after, before, Direction::Backward, page)
                .await?;
            scanned += rows.len();
            let done = rows.len() < page;
            if let Some((position, _)) = rows.last() {
                before = Position(position.0.saturating_sub(1));
            }
            let sids: Vec<EventSid> = rows.iter().map(|(_, row)| row.event).collect();
            let events: Vec<Arc<Event>> = self
                .reader
                .events(&sids)
                .await?
                .into_iter()
                .flatten()
                .collect();
            let visible = self.viewer.visible(self.reader, room, &events).await?;
            for (event, visible) in events.into_iter().zip(visible) {
                // What they make of the room's state is not hidden.
                let hushed =
                    event.pdu.state_key.is_none() && self.ignored.contains(&event.pdu.sender);
                if !visible
                    || hushed
                    || !filter::room_event_matches(self.timeline, &room.id, &event.pdu)
                {
                    continue;
                }
                if newest_first.len() == limit {
                    newest_first.reverse();
                    return Ok((newest_first, true, oldest));
                }
                oldest = Some(event.order);
                let gap = event.tail.gapped && self.reader.is_gap(room.sid, event.order).await?;
                newest_first.push(event);
                if gap {
                    // Events before it are missing here: the client asks for them, and then this server asks others.
                    newest_first.reverse();
                    return Ok((newest_first, true, oldest));
                }
            }
            if done || scanned >= MAX_SCAN {
                newest_first.reverse();
                return Ok((newest_first, !done, oldest));
            }
        }
    }

    /// The state events that lead from what the client knows to what it shall know.
    async fn changed(
        &self,
        known: StateRoot,
        wanted: StateRoot,
    ) -> Result<Vec<Arc<Event>>, RoomError> {
        let changes = self.reader.diff(known, wanted).await?;
        let sids: Vec<EventSid> = changes
            .into_iter()
            .filter_map(|change| change.new)
            .collect();
        let events = self.reader.events(&sids).await?;
        Ok(events.into_iter().flatten().collect())
    }

    /// Leaves of some state events what the client asks for, and adds the members that the timeline mentions if it loads them
    /// lazily; `anew`: all of them.
    async fn filter_state(
        &self,
        room: &Room,
        events: &mut Vec<Arc<Event>>,
        (wanted, anew): (StateRoot, bool),
        timeline: &[Arc<Event>],
    ) -> Result<(), RoomError> {
        if let LazyLoadOptions::Enabled {
            include_redundant_members,
        } = self.state.lazy_load_options
        {
            let mut wanted_members: HashSet<OwnedUserId> = timeline
                .iter()
                .map(|event| event.pdu.sender.clone())
                .collect();
            wanted_members.insert(self.viewer.user.clone());
            // Who asks for the state after the timeline takes no state from the timeline: those whom it brought or sent away are told here.
            if self.state_after {
                let members = timeline
                    .iter()
                    .filter(|event| event.pdu.kind == TimelineEventType::RoomMember)
                    .filter_map(|event| event.pdu.state_key.as_deref());
                wanted_members.extend(members.filter_map(|user| OwnedUserId::try_from(user).ok()));
            }
            events.retain(|event| {
                let member = (event.pdu.kind == TimelineEventType::RoomMember)
                    .then_some(event.pdu.state_key.as_deref());
                member
                    .flatten()
                    .is_none_or(|user| wanted_members.iter().any(|wanted| wanted == user))
            });
            let redundant = anew || include_redundant_members;
            self.add_members(events, wanted, &wanted_members, redundant)
                .await?;
        }
        events.retain(|event| filter::room_event_matches(self.state, &room.id, &event.pdu));
        if !self.state.lazy_load_options.is_disabled() {
            let members = events
                .iter()
                .filter(|event| event.pdu.kind == TimelineEventType::RoomMember);
            self.round.sends(members.map(|event| event.sid));
        }
        events.sort_by_key(|event| event.order);
        Ok(())
    }

    /// Members that the timeline mentions and the difference does not: a client that loads members lazily may not know them. Those
    /// that it has been sent before are left out, unless `redundant`.
    async fn add_members(
        &self,
        events: &mut Vec<Arc<Event>>,
        root: StateRoot,
        wanted: &HashSet<OwnedUserId>,
        redundant: bool,
    ) -> Result<(), RoomError> {
        for user in wanted {
            let there = events.iter().any(|event| {
                event.pdu.kind == TimelineEventType::RoomMember
                    && event.pdu.state_key.as_deref() == Some(user.as_str())
            });
            if there {
                continue;
            }
            if let Some(event) = self
                .reader
                .state_at_key(root, &StateEventType::RoomMember, user.as_str())
                .await?
                .filter(|event| redundant || !self.round.knows(event.sid))
            {
                events.push(event);
            }
        }
        Ok(())
    }
}
