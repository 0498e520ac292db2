//! Filling the gaps of the room order: events that came before those this server knows, asked for when someone reads so far back.
//!
//! Filled-in events are visible, but not new: they stand in the room order before the gap's event and have no place in the log, so
//! that neither /sync nor any follower takes them for something that happens now.

use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use ruma::{
    OwnedEventId, OwnedServerName, ServerName, UInt,
    api::federation::backfill::get_backfill::v1 as get_backfill,
};
use vatra_store::{Batch, Direction, Position};

use super::{
    super::{
        Event, Room, RoomError,
        append::{put_gap, put_place},
        event::Unrelated,
        state::Grown,
    },
    Gathered, ReceiveError, Receiver,
    fetch::oldest_first,
    place::{Judged, Redacting},
};
use crate::{
    event::{pdu::Pdu, redact},
    remote::Bounds,
    schema::{self, EventTail, GapRow, RoomOrder, Status},
};

/// How many events are asked for.
const PAGE: u32 = 100;
/// How many servers are asked before it is given up.
const SERVERS: usize = 3;

impl Receiver {
    /// Fills a gap, as far as one page goes. Says how many events were filled in: none if no server gave any.
    ///
    /// # Errors
    /// The store's.
    pub async fn backfill(&self, room: &Arc<Room>, at: RoomOrder) -> Result<usize, ReceiveError> {
        let Some(gap) = self.gap(room, at).await? else {
            return Ok(0);
        };
        for server in self.servers_for(room, &gap).await? {
            let (key, own) = ((server.clone(), room.sid), self.rooms.server_name());
            if server == own {
                continue;
            }
            let _asking = super::turn(&self.asking, key).await;
            let Some(gap) = self.gap(room, at).await? else {
                return Ok(0);
            };
            match self.fill_from(&server, room, at, &gap).await {
                Ok(0) => {}
                Ok(filled) => return Ok(filled),
                Err(ReceiveError::Room(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(%server, room = %room.id, %error, "a gap is not filled");
                }
            }
        }
        Ok(0)
    }

    /// Who is asked: the server of the event after the gap first.
    async fn servers_for(
        &self,
        room: &Room,
        gap: &GapRow,
    ) -> Result<Vec<OwnedServerName>, ReceiveError> {
        let reader = self.rooms.reader();
        let event = reader.event_by_sid(gap.event).await?;
        let first = event.map(|event| event.pdu.sender.server_name().to_owned());
        let mut servers: Vec<OwnedServerName> = first.into_iter().collect();
        for server in reader.other_servers(room.sid, 20).await? {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers.retain(|server| *server != self.rooms.server_name());
        servers.truncate(SERVERS);
        Ok(servers)
    }

    async fn fill_from(
        &self,
        server: &ServerName,
        room: &Arc<Room>,
        at: RoomOrder,
        gap: &GapRow,
    ) -> Result<usize, ReceiveError> {
        let missing: Vec<OwnedEventId> = gap
            .missing
            .iter()
            .filter_map(|id| OwnedEventId::try_from(id.as_str()).ok())
            .collect();
        let request =
            get_backfill::Request::new(room.id.clone(), missing.clone(), UInt::from(PAGE));
        let bounds = Bounds {
            limit_bytes: 8 << 20,
            ..Bounds::urgent()
        };
        let answer = self.remote.call_within(server, request, bounds).await;
        let events = match answer {
            Ok(answer) => answer.pdus,
            Err(error) => {
                tracing::debug!(%server, room = %room.id, %error, "there is no backfill to be had");
                return Ok(0);
            }
        };
        let most = 2 * usize::try_from(PAGE).unwrap_or(100);
        let found: HashMap<OwnedEventId, Pdu> = self
            .checked_all(room, events, most)
            .await
            .into_iter()
            .map(|pdu| (pdu.event_id.clone(), pdu))
            .collect();
        let mut gathered = Gathered::default();
        // What only comes before an event that has its place already belongs to another gap.
        let found = self.unplaced_of(room, found).await?;
        let events = oldest_first(found, &missing);
        self.states_of_oldest(server, room, &events, &mut gathered)
            .await?;
        let _turn = self.turn(room.sid).await;
        self.store_outliers(room, std::mem::take(&mut gathered.outliers))
            .await?;
        self.fill(room, events, &gathered, at).await
    }

    /// Those that have no place yet.
    pub(super) async fn unplaced_of(
        &self,
        room: &Room,
        mut events: HashMap<OwnedEventId, Pdu>,
    ) -> Result<HashMap<OwnedEventId, Pdu>, ReceiveError> {
        let ids: Vec<OwnedEventId> = events.keys().cloned().collect();
        let unplaced: HashSet<OwnedEventId> =
            self.unplaced(room, &ids).await?.into_iter().collect();
        events.retain(|id, _| unplaced.contains(id));
        Ok(events)
    }

    /// The states before those events that follow what is neither here nor among them.
    async fn states_of_oldest(
        &self,
        server: &ServerName,
        room: &Room,
        events: &[Pdu],
        gathered: &mut Gathered,
    ) -> Result<(), ReceiveError> {
        let among: HashSet<&OwnedEventId> = events.iter().map(|pdu| &pdu.event_id).collect();
        let mut states = 0;
        for pdu in events {
            let outside = pdu.prev_events.iter().filter(|id| !among.contains(id));
            let outside: Vec<OwnedEventId> = outside.cloned().collect();
            if !self.unplaced(room, &outside).await?.is_empty() {
                states += 1;
                if states > 8 {
                    return Err(ReceiveError::TooMuch("too many branches are missing"));
                }
                let state = self.state_at(server, room, &pdu.event_id, gathered).await?;
                gathered.before.insert(pdu.event_id.clone(), state);
            }
        }
        // Those among them that allow others are no outliers.
        let mut with = Gathered {
            between: events.to_vec(),
            outliers: std::mem::take(&mut gathered.outliers),
            ..Gathered::default()
        };
        for pdu in events {
            self.auth_events(server, room, pdu, &mut with).await?;
        }
        gathered.outliers = with.outliers;
        Ok(())
    }

    /// Judges events, oldest first, and gives them places right before `at`. What of the gap they do not fill is a gap still.
    pub(super) async fn fill(
        &self,
        room: &Arc<Room>,
        events: Vec<Pdu>,
        gathered: &Gathered,
        at: RoomOrder,
    ) -> Result<usize, ReceiveError> {
        let inner = self.inner();
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let first = at.0.saturating_sub(count);
        let reader = self.rooms.reader();
        let (from, to) = (Bound::Included(RoomOrder(first)), Bound::Excluded(at));
        let taken = reader
            .timeline(room.sid, from, to, Direction::Backward, 1)
            .await?;
        if !taken.is_empty() {
            return Err(ReceiveError::TooMuch("there is no room left in the gap"));
        }
        let (head, _) = self.head_of(room).await?;
        let mut filled = 0;
        let mut released = Vec::new();
        let followed: HashSet<OwnedEventId> = events
            .iter()
            .flat_map(|pdu| pdu.prev_events.iter().cloned())
            .collect();
        for (order, pdu) in (first..).zip(events) {
            let mut nodes = Grown::new(inner);
            let id = pdu.event_id.clone();
            let judged = self
                .judged(room, pdu, gathered, head.root, &mut nodes)
                .await;
            match judged {
                Ok(judged) if judged.rejected.is_some() => {
                    self.put_aside(room, judged, nodes, Status::Rejected)
                        .await?;
                }
                Ok(judged) => {
                    released.extend(self.insert(room, judged, nodes, RoomOrder(order)).await?);
                    filled += 1;
                }
                Err(ReceiveError::Room(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(event = %id, %error, "an event of long ago is not taken");
                }
            }
        }
        self.shrink_gap(room, at).await?;
        self.pass_by(room, &followed).await?;
        for redaction in released {
            self.release(room, redaction).await?;
        }
        Ok(filled)
    }

    /// One event gets its place in the room order, and none in the log. Gives the redaction that had waited for it.
    async fn insert(
        &self,
        room: &Room,
        judged: Judged,
        mut nodes: Grown,
        order: RoomOrder,
    ) -> Result<Option<schema::EventSid>, ReceiveError> {
        let inner = self.inner();
        let held = inner.held_redaction(room.sid, &judged.pdu).await?;
        let mut pdu = judged.pdu;
        if held.is_some() {
            pdu = redact::redact(&pdu, &room.rules).map_err(RoomError::from)?;
        }
        let event = Event {
            sid: judged.sid,
            room: room.sid,
            version: room.version.clone(),
            pdu: Arc::new(pdu),
            status: if judged.redaction == Redacting::Void {
                Status::SoftFailed
            } else {
                Status::Visible
            },
            position: Position(0),
            order,
            root_before: judged.root_before,
            replaces: judged.replaces,
            redacted_by: held.as_ref().map(|redaction| redaction.sid),
            transaction: None,
            tail: EventTail {
                root_after: Some(judged.root_after),
                gapped: !judged.missing.is_empty(),
                expired: false,
            },
            unrelated: Unrelated::default(),
        };
        let mut batch = Batch::new();
        let id = event.pdu.event_id.to_string();
        batch.put(&schema::EVENT_SIDS, &id, &event.sid);
        batch.put(&schema::EVENTS, &event.sid, &event.row());
        if event.status == Status::Visible {
            put_place(&mut batch, &event);
            let sid = event.sid;
            batch.put_at_position(&schema::PAST, move |position| ((position, sid), ()));
            // What clients do not see relates to nothing.
            inner.put_relation(&mut batch, &event).await?;
        }
        let nodes = nodes.take();
        for (id, node) in &nodes {
            batch.put(&schema::STATE_NODES, id, node);
        }
        put_gap(&mut batch, &event, &judged.missing);
        batch.delete(&schema::MISSING, &(room.sid, id));
        let emptied = inner.put_redaction(&mut batch, room, &event).await?;
        let written = inner.store.write(batch).await;
        let nodes: Vec<_> = nodes.iter().map(|(id, _)| *id).collect();
        inner.trees.settled(&nodes);
        let emptied = emptied.map(|event| event.sid);
        inner
            .events
            .rewritten([event.sid].into_iter().chain(emptied));
        written.map_err(RoomError::from)?;
        Ok(held.map(|redaction| redaction.sid))
    }

    /// Forward extremities that events of long ago turn out to have followed are none any more. If that would change the current
    /// state they stay until the next event follows them: the state changes with events only.
    async fn pass_by(
        &self,
        room: &Room,
        followed: &HashSet<OwnedEventId>,
    ) -> Result<(), ReceiveError> {
        let inner = self.inner();
        let mut guard = self.rooms.lock(&room.id).await?;
        let old = guard.head()?.row.clone();
        let passed = |id: &str| followed.iter().any(|followed| followed == id);
        let mut new = old.clone();
        new.extremities.retain(|(_, id, _)| !passed(id));
        if new.extremities.len() == old.extremities.len() || new.extremities.is_empty() {
            return Ok(());
        }
        let mut after = guard.after_extremities().await?;
        after.retain(|sid, _| new.extremities.iter().any(|(other, _, _)| other == sid));
        let roots: Vec<schema::StateRoot> = after.values().copied().collect();
        let mut nodes = Grown::new(inner);
        let root = inner
            .resolve(room, old.root, &roots, None, &mut nodes)
            .await?;
        let view = inner.store.view();
        if !inner.trees.diff(&view, old.root, root).await?.is_empty() {
            return Ok(());
        }
        new.generation += 1;
        let poison = guard.head()?.poison();
        let mut batch = Batch::new();
        batch.assert_equals(&schema::ROOM_HEADS, &room.sid, &old);
        batch.put(&schema::ROOM_HEADS, &room.sid, &new);
        batch.on_failure(move || poison.store(true, std::sync::atomic::Ordering::Release));
        let ticket = inner.store.submit(batch);
        let head = guard.head_mut()?;
        head.row = new;
        head.after = after;
        drop(guard);
        ticket.committed().await.map_err(RoomError::from)?;
        Ok(())
    }
}
