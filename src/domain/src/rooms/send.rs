//! Sending: an event of a local user is built on the room's head, authorised against the current state and appended.

mod unsent;

use std::{collections::HashMap, sync::Arc};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use vatra_store::{Batch, Ticket};

use super::{
    Event, Head, Room, RoomError, RoomGuard, Rooms,
    append::{NextHead, Placed},
    state::Grown,
};
use crate::{
    event::{
        auth,
        build::{self, Draft, Placement},
        pdu::Pdu,
    },
    schema::{self, EventSid, HeadRow, RoomOrder, RoomRow, RoomSid, StateChange, UserSid},
};

/// How many rooms a user can make with equal create events at once.
const CREATE_ATTEMPTS: u64 = 1000;

/// Identifies a client's transaction: one device, one endpoint (with room and type), one transaction id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnKey {
    /// Whose device.
    pub user: UserSid,
    /// The device; empty for callers without one.
    pub device: String,
    /// The endpoint with its path arguments, such as `send/!room/m.room.message`.
    pub endpoint: String,
    /// The transaction id.
    pub id: String,
}

impl TxnKey {
    pub(super) fn row_key(&self) -> (UserSid, String, String, String) {
        (
            self.user,
            self.device.clone(),
            self.endpoint.clone(),
            self.id.clone(),
        )
    }
}

/// An event that was submitted, or the one that an earlier request of the same transaction made.
#[derive(Debug)]
pub struct Sent {
    /// Its id.
    pub event_id: OwnedEventId,
    /// The event; `None` if an earlier request made it.
    pub event: Option<Arc<Event>>,
    ticket: Option<Ticket>,
}

impl Sent {
    /// Waits until the event is on disk and visible. Nobody may be told of it before.
    pub async fn durable(self) -> Result<OwnedEventId, RoomError> {
        if let Some(ticket) = self.ticket {
            ticket.committed().await?;
        }
        Ok(self.event_id)
    }
}

impl Rooms {
    /// Locks, sends and waits until the event is durable; `Receiver::send_one` also asks the room's policy server, if there is one. When the batch is lost to a failed
    /// neighbour, the event is rebuilt once on the reloaded head.
    pub async fn send_one(
        &self,
        room: &RoomId,
        draft: Draft,
        txn: Option<TxnKey>,
    ) -> Result<OwnedEventId, RoomError> {
        self.send_one_at(room, draft, txn, None).await
    }

    /// The same with another time of sending than now; the event stands where it would stand otherwise.
    /// <https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging>
    pub async fn send_one_at(
        &self,
        room: &RoomId,
        draft: Draft,
        txn: Option<TxnKey>,
        sent: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<OwnedEventId, RoomError> {
        let first = {
            let mut guard = self.lock(room).await?;
            self.send_at(&mut guard, draft.clone(), txn.clone(), sent, true)
                .await?
        };
        match first.durable().await {
            Err(RoomError::Raced) => {
                let again = {
                    let mut guard = self.lock(room).await?;
                    self.send_at(&mut guard, draft, txn, sent, true).await?
                };
                again.durable().await
            }
            other => other,
        }
    }

    /// Builds, authorises and submits an event of a local user; no policy server is asked for what belongs to a larger whole. The caller drops the guard and then awaits
    /// [`Sent::durable`].
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] with the auth rule that says no; [`RoomError::Unbuildable`] for what cannot be an event.
    pub async fn send(
        &self,
        guard: &mut RoomGuard,
        draft: Draft,
        txn: Option<TxnKey>,
    ) -> Result<Sent, RoomError> {
        self.send_at(guard, draft, txn, None, false).await
    }

    /// The same, unless the room's policy server is to be asked.
    ///
    /// # Errors
    /// As [`Rooms::send`], and [`RoomError::Unasked`].
    pub async fn send_unasked(
        &self,
        guard: &mut RoomGuard,
        draft: Draft,
    ) -> Result<Sent, RoomError> {
        self.send_at(guard, draft, None, None, true).await
    }

    async fn send_at(
        &self,
        guard: &mut RoomGuard,
        draft: Draft,
        txn: Option<TxnKey>,
        sent: Option<MilliSecondsSinceUnixEpoch>,
        asking: bool,
    ) -> Result<Sent, RoomError> {
        if let Some(event_id) = self.sent_before(txn.as_ref()).await? {
            return Ok(Sent {
                event_id,
                event: None,
                ticket: None,
            });
        }
        if asking {
            guard.nobody_is_asked(&draft).await?;
        }
        self.check_redaction(guard, &draft).await?;
        let state_key = match &draft.state_key {
            Some(key) => Some((
                self.inner
                    .ids
                    .intern_state_key(&draft.kind.to_string(), key)
                    .await?,
                key.clone(),
            )),
            None => None,
        };
        let kind = draft.kind.clone();
        let pdu = self.build_on(guard, draft, sent).await?;

        let own = match state_key {
            Some((key, name)) => {
                let old = guard
                    .state_event(&StateEventType::from(kind.to_string()), &name)
                    .await?;
                Some(Own {
                    key,
                    old: old.map(|event| event.sid),
                })
            }
            None => None,
        };
        guard.append_own(pdu, own, txn).await
    }

    /// The event that an earlier request of a transaction made.
    pub(super) async fn sent_before(
        &self,
        txn: Option<&TxnKey>,
    ) -> Result<Option<OwnedEventId>, RoomError> {
        let Some(txn) = txn else {
            return Ok(None);
        };
        let view = self.inner.store.view();
        let row = view.get(&schema::TRANSACTIONS, &txn.row_key()).await?;
        let id = row.map(|row| OwnedEventId::try_from(row.event_id));
        id.transpose().map_err(|_| RoomError::UnknownEvent)
    }

    /// Builds an event on the head and checks that the current state allows it. It is sent now, unless `sent` says otherwise.
    async fn build_on(
        &self,
        guard: &mut RoomGuard,
        draft: Draft,
        sent: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<Pdu, RoomError> {
        let (mut placement, state) = self.placement(guard, &draft).await?;
        placement.origin_server_ts = sent.unwrap_or(placement.origin_server_ts);
        let pdu = build::build(draft, &placement, &self.inner.signer)?;
        auth::authorise(&placement.rules, &pdu, |kind, key| {
            state.get(&(kind.clone(), key.to_owned())).cloned()
        })?;
        Ok(pdu)
    }

    /// Where an event would stand that is built now, and the state that decides on it.
    async fn placement(
        &self,
        guard: &mut RoomGuard,
        draft: &Draft,
    ) -> Result<(Placement, Deciding), RoomError> {
        let rules = Arc::clone(&guard.room.rules);
        let keys = auth_keys(draft, &rules)?;
        let mut state = guard.auth_state(&keys).await?;
        let auth_events = keys
            .iter()
            .filter_map(|key| state.get(key))
            .map(|pdu| pdu.event_id.clone())
            .collect();
        // From version 12 on the create event is no auth event, but the rules still read it.
        state.extend(
            guard
                .auth_state(&[(StateEventType::RoomCreate, String::new())])
                .await?,
        );
        let head = guard.head()?;
        let placement = Placement {
            room_id: Some(guard.room.id.clone()),
            rules,
            prev_events: head.prev_events(),
            auth_events,
            depth: head.next_depth(),
            origin_server_ts: crate::clock::to_ruma(self.inner.clock.now()),
        };
        Ok((placement, state))
    }

    /// Makes a room with its create event and hands out its guard; the caller sends the rest of the room's first
    /// events under it.
    pub async fn create(
        &self,
        version: &ruma::RoomVersionId,
        room_id: Option<ruma::OwnedRoomId>,
        create: Draft,
    ) -> Result<(RoomGuard, Sent), RoomError> {
        self.create_with(version, room_id, create, &|_, _| {}).await
    }

    /// The same, with rows that are written only together with the room: if an assert of theirs fails there is no room.
    ///
    /// # Errors
    /// [`RoomError::Raced`] if an assert fails.
    pub async fn create_with(
        &self,
        version: &ruma::RoomVersionId,
        room_id: Option<ruma::OwnedRoomId>,
        create: Draft,
        rows: &(dyn Fn(&mut Batch, &Room) + Sync),
    ) -> Result<(RoomGuard, Sent), RoomError> {
        let rules = Arc::new(version.rules().ok_or(RoomError::UnsupportedVersion)?);
        let key = self.inner.ids.intern_state_key("m.room.create", "").await?;
        let mut placement = Placement {
            room_id,
            rules,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: crate::clock::to_ruma(self.inner.clock.now()),
        };
        let mut attempt = 0;
        let (pdu, room) = loop {
            match self.found(version, &placement, create.clone(), rows).await {
                // From version 12 on the room id is the create event's hash: equal events of one millisecond would be one
                // room. The later one is of the next free millisecond.
                Err(RoomError::Raced)
                    if placement.room_id.is_none() && attempt < CREATE_ATTEMPTS =>
                {
                    attempt += 1;
                    placement.origin_server_ts =
                        crate::clock::to_ruma(self.inner.clock.now().saturating_add(attempt));
                }
                founded => break founded?,
            }
        };

        let mut guard = self.claim(Arc::clone(&room)).await;
        let row = HeadRow {
            generation: 0,
            extremities: Vec::new(),
            root: None,
            order: RoomOrder::FIRST,
        };
        *guard.head = Some(Head::new(row));
        let sent = guard
            .append_own(pdu, Some(Own { key, old: None }), None)
            .await?;
        self.inner.remember(&room);
        Ok((guard, sent))
    }

    /// Builds a create event and writes down its room, if there is none of that id yet.
    ///
    /// # Errors
    /// [`RoomError::Raced`] if there is.
    async fn found(
        &self,
        version: &ruma::RoomVersionId,
        placement: &Placement,
        create: Draft,
        rows: &(dyn Fn(&mut Batch, &Room) + Sync),
    ) -> Result<(Pdu, Arc<Room>), RoomError> {
        let pdu = build::build(create, placement, &self.inner.signer)?;
        auth::authorise(&placement.rules, &pdu, |_, _| None)?;
        let sid = RoomSid(self.inner.store.fresh_id()?);
        let room = Arc::new(Room::new(sid, pdu.room_id.clone(), version.as_str())?);
        let row = RoomRow {
            room_id: room.id.to_string(),
            version: version.to_string(),
        };
        let mut batch = Batch::new();
        batch.assert_absent(&schema::ROOM_SIDS, &row.room_id);
        batch.put(&schema::ROOM_SIDS, &row.room_id, &sid);
        batch.put(&schema::ROOMS, &sid, &row);
        rows(&mut batch, &room);
        self.inner.store.write(batch).await?;
        Ok((pdu, room))
    }

    /// From room version 3 on the auth rules let every redaction pass, and each server decides whether to apply it: ours is
    /// not even made unless its sender may redact the target.
    async fn check_redaction(&self, guard: &mut RoomGuard, draft: &Draft) -> Result<(), RoomError> {
        if draft.kind != TimelineEventType::RoomRedaction {
            return Ok(());
        }
        let Some(target) = draft.redacts.clone() else {
            return Ok(());
        };
        let view = self.inner.store.view();
        let sid = view.get(&schema::EVENT_SIDS, &target.to_string()).await?;
        let target = match sid {
            Some(sid) => self.inner.events.get(&view, sid).await?,
            None => None,
        };
        if target
            .as_ref()
            .is_some_and(|event| event.room != guard.room.sid)
        {
            return Err(RoomError::UnknownEvent);
        }
        if target
            .as_ref()
            .is_some_and(|event| event.pdu.sender == draft.sender)
        {
            return Ok(());
        }
        // With the power, even an event that this server has not got can be redacted: it may be known elsewhere.
        let power = guard.power_levels().await?;
        if power.user_can_redact_event_of_other(&draft.sender) {
            return Ok(());
        }
        if target.is_none() {
            return Err(RoomError::UnknownEvent);
        }
        Err(RoomError::Forbidden(
            "you may not redact the events of others in this room".to_owned(),
        ))
    }
}

/// The state that decides on an event.
type Deciding = HashMap<(StateEventType, String), Arc<Pdu>>;

/// A state key that an event of our own sets.
struct Own {
    key: crate::schema::StateKeySid,
    old: Option<EventSid>,
}

fn auth_keys(
    draft: &Draft,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, RoomError> {
    Ok(auth::auth_types(
        &draft.kind,
        &draft.sender,
        draft.state_key.as_deref(),
        &draft.content,
        rules,
    )?)
}

impl RoomGuard {
    /// Appends an event that was built on this head and changes at most its own key of the current state.
    async fn append_own(
        &mut self,
        pdu: Pdu,
        own: Option<Own>,
        txn: Option<TxnKey>,
    ) -> Result<Sent, RoomError> {
        let event_id = pdu.event_id.clone();
        let sid = EventSid(self.inner.store.fresh_id()?);
        let row = &self.head()?.row;
        let (root_before, extremities) = (row.root, row.extremities.clone());
        let mut nodes = Grown::new(&self.inner);
        let mut root = root_before;
        let mut changes = Vec::new();
        if let Some(Own { key, old }) = &own {
            let view = self.inner.store.view();
            root = nodes.set(&view, root, &[(*key, Some(sid))]).await?;
            changes.push(StateChange {
                key: *key,
                old: *old,
                new: Some(sid),
            });
        }
        let next = NextHead {
            extremities: following(&extremities, sid, &pdu),
            after: HashMap::from([(sid, root)]),
            root,
        };
        let (event, ticket) = self
            .append(Placed {
                sid,
                root_before,
                root_after: own.as_ref().map(|_| root),
                replaces: own.and_then(|own| own.old),
                next,
                changes,
                partly: false,
                nodes,
                txn,
                relayed: false,
                told: false,
                missing: Vec::new(),
                pdu,
            })
            .await?;
        Ok(Sent {
            event_id,
            event: Some(event),
            ticket: Some(ticket),
        })
    }
}

/// The forward extremities once an event has followed some of them.
pub(super) fn following(
    extremities: &[(EventSid, String, u64)],
    sid: EventSid,
    pdu: &Pdu,
) -> Vec<(EventSid, String, u64)> {
    let prev = &pdu.prev_events;
    let mut extremities = extremities.to_vec();
    extremities.retain(|(_, id, _)| !prev.iter().any(|prev| prev == id.as_str()));
    extremities.push((sid, pdu.event_id.to_string(), pdu.depth));
    extremities
}
