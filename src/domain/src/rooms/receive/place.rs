//! An event finds its place: judged by its auth events, by the state before it and by the current state, then appended or put aside.
//! In the room's turn, without the network.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::events::TimelineEventType;
use vatra_store::{Batch, Position};

use super::{
    super::{
        Event, Room, RoomError, RoomGuard,
        append::{NextHead, Placed, held_key},
        event::Unrelated,
        send::following,
        state::Grown,
    },
    Gathered, Manner, ReceiveError, Receiver, Verdict,
    outliers::{deciding, judge},
    state::auth_keys,
};
use crate::{
    event::{auth, pdu::Pdu},
    schema::{self, EventSid, EventTail, HeadRow, RoomOrder, StateRoot, Status},
};

/// How often the current state is resolved outside of the guard before it is done inside.
const RACES: usize = 3;

/// How many events are looked at behind those that were put aside; an end that is further back stays one.
const MOST_PASSED: usize = 1_000;

/// An event with its place worked out, before the current state has its say.
pub(super) struct Judged {
    pub(super) pdu: Pdu,
    pub(super) sid: EventSid,
    pub(super) root_before: StateRoot,
    /// The same as before, unless it is an accepted state event.
    pub(super) root_after: StateRoot,
    pub(super) replaces: Option<EventSid>,
    pub(super) missing: Vec<ruma::OwnedEventId>,
    /// The rule that forbids it.
    pub(super) rejected: Option<String>,
    /// What it redacts does not know of it.
    pub(super) redaction: Redacting,
}

/// What becomes of a redaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redacting {
    /// It is none, or it applies, or will when its target is here.
    Allowed,
    /// It is good only if its target is of the same server, and the target is not here.
    Waits,
    /// It does not apply.
    Void,
}

impl Receiver {
    /// Judges and places one event. Everything that `gathered` holds for it is stored.
    pub(super) async fn place(
        &self,
        room: &Arc<Room>,
        pdu: Pdu,
        gathered: &Gathered,
        manner: Manner,
    ) -> Result<Verdict, ReceiveError> {
        if let Some(verdict) = self.known(room, &pdu).await? {
            return Ok(verdict);
        }
        if let Some(before) = self.missing_place(room, &pdu).await? {
            return self.fill_in(room, pdu, Vec::new(), gathered, before).await;
        }
        let mut nodes = Grown::new(self.inner());
        let (head, _) = self.head_of(room).await?;
        let judged = self
            .judged(room, pdu, gathered, head.root, &mut nodes)
            .await?;
        if let Some(reason) = judged.rejected.clone() {
            if manner.all_or_nothing {
                return Err(RoomError::Forbidden(reason).into());
            }
            self.put_aside(room, judged, nodes, Status::Rejected)
                .await?;
            return Ok(Verdict::Rejected(reason));
        }
        let (status, verdict) = match judged.redaction {
            Redacting::Allowed => return self.append(room, judged, nodes, manner).await,
            Redacting::Waits => (Status::Held, Verdict::Held),
            Redacting::Void => (Status::SoftFailed, Verdict::SoftFailed),
        };
        self.put_aside(room, judged, nodes, status).await?;
        Ok(verdict)
    }

    /// Judges an event by its auth events and by the state before it.
    pub(super) async fn judged(
        &self,
        room: &Arc<Room>,
        pdu: Pdu,
        gathered: &Gathered,
        base: StateRoot,
        nodes: &mut Grown,
    ) -> Result<Judged, ReceiveError> {
        let inner = self.inner();
        let needed: Vec<_> = deciding(&pdu).collect();
        let known = inner.allowing(room, &needed).await?;
        if known.len()
            < needed
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
        {
            return Err(ReceiveError::MissingAuth);
        }
        let mut rejected = judge(&room.rules, &pdu, &known)
            .err()
            .map(|error| error.to_string());
        let before = self.state_before(room, &pdu, gathered, base, nodes).await?;
        if rejected.is_none() {
            match inner.authorise_at(room, before.root, &pdu).await {
                Ok(()) => {}
                Err(RoomError::Forbidden(reason) | RoomError::BadContent(reason)) => {
                    rejected = Some(reason);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let view = inner.store.view();
        let ids = std::slice::from_ref(&pdu.event_id);
        let sid = match inner
            .events
            .sids(&view, ids)
            .await?
            .into_iter()
            .flatten()
            .next()
        {
            Some(sid) => sid,
            None => EventSid(inner.store.fresh_id()?),
        };
        let (mut root_after, mut replaces) = (before.root, None);
        if let (Some(key), None) = (&pdu.state_key, &rejected) {
            let key = inner
                .ids
                .intern_state_key(&pdu.kind.to_string(), key)
                .await?;
            replaces = inner.trees.get(&view, before.root, key).await?;
            root_after = nodes.set(&view, before.root, &[(key, Some(sid))]).await?;
        }
        let redaction = match rejected {
            None => self.redacting(room, &pdu, before.root).await?,
            Some(_) => Redacting::Allowed,
        };
        Ok(Judged {
            pdu,
            sid,
            root_before: before.root,
            root_after,
            replaces,
            missing: before.missing,
            rejected,
            redaction,
        })
    }

    async fn redacting(
        &self,
        room: &Room,
        pdu: &Pdu,
        root: StateRoot,
    ) -> Result<Redacting, ReceiveError> {
        let (true, Some(target)) = (
            pdu.kind == TimelineEventType::RoomRedaction,
            pdu.redacts.as_ref(),
        ) else {
            return Ok(Redacting::Allowed);
        };
        let inner = self.inner();
        if inner.may_redact_others(room, root, pdu).await? {
            return Ok(Redacting::Allowed);
        }
        let view = inner.store.view();
        let target = inner
            .events
            .by_ids(&view, std::slice::from_ref(target))
            .await?;
        Ok(match target.into_iter().flatten().next() {
            None => Redacting::Waits,
            Some(target)
                if target.room == room.sid
                    && target.pdu.sender.server_name() == pdu.sender.server_name() =>
            {
                Redacting::Allowed
            }
            Some(_) => Redacting::Void,
        })
    }

    /// The head, and the states after its extremities, as of now.
    pub(super) async fn head_of(
        &self,
        room: &Room,
    ) -> Result<(HeadRow, HashMap<EventSid, StateRoot>), ReceiveError> {
        let mut guard = self.rooms.lock(&room.id).await?;
        let after = guard.after_extremities().await?;
        Ok((guard.head()?.row.clone(), after))
    }

    /// Judges an event by the current state and appends it; what that forbids is put aside.
    async fn append(
        &self,
        room: &Arc<Room>,
        judged: Judged,
        mut nodes: Grown,
        manner: Manner,
    ) -> Result<Verdict, ReceiveError> {
        let mut races = 0;
        let (mut guard, next) = loop {
            // What the head becomes may take a resolution: that is done before the room is held, unless others are always faster.
            let (row, after) = self.head_of(room).await?;
            let next = self
                .next_head(room, &judged, &row, after, &mut nodes)
                .await?;
            let mut guard = self.rooms.lock(&room.id).await?;
            if guard.head()?.row == row {
                break (guard, next);
            }
            races += 1;
            if races > RACES {
                let row = guard.head()?.row.clone();
                let after = guard.after_extremities().await?;
                let next = self
                    .next_head(room, &judged, &row, after, &mut nodes)
                    .await?;
                break (guard, next);
            }
        };
        let mut allowed = allowed_now(&mut guard, &judged.pdu).await?;
        if allowed.is_ok() {
            allowed = guard.recommended(&judged.pdu).await?;
        }
        if let Err(reason) = allowed {
            drop(guard);
            if manner.all_or_nothing {
                return Err(RoomError::Forbidden(reason).into());
            }
            tracing::debug!(event = %judged.pdu.event_id, %reason, "an event is soft-failed");
            self.put_aside(room, judged, nodes, Status::SoftFailed)
                .await?;
            return Ok(Verdict::SoftFailed);
        }
        let inner = self.inner();
        let root = guard.head()?.row.root;
        let changes = inner
            .trees
            .diff(&inner.store.view(), root, next.root)
            .await?;
        let state = judged.pdu.state_key.is_some();
        let (event, ticket) = guard
            .append(Placed {
                sid: judged.sid,
                root_before: judged.root_before,
                root_after: state.then_some(judged.root_after),
                replaces: judged.replaces,
                next,
                changes,
                partly: false,
                nodes,
                txn: manner.txn,
                relayed: manner.relayed,
                told: manner.told,
                missing: judged.missing,
                pdu: judged.pdu,
            })
            .await?;
        drop(guard);
        ticket.committed().await.map_err(RoomError::from)?;
        if let Some(redaction) = event.redacted_by {
            self.release(room, redaction).await?;
        }
        Ok(Verdict::Visible)
    }

    /// What the next event builds on once this one is there: its state, or what the states of all branches resolve to.
    async fn next_head(
        &self,
        room: &Room,
        judged: &Judged,
        row: &HeadRow,
        mut after: HashMap<EventSid, StateRoot>,
        nodes: &mut Grown,
    ) -> Result<NextHead, ReceiveError> {
        let mut extremities = following(&row.extremities, judged.sid, &judged.pdu);
        if extremities.len() > 1 {
            let passed = self.passed_unseen(&judged.pdu).await?;
            extremities.retain(|(_, id, _)| !passed.contains(id.as_str()));
        }
        after.insert(judged.sid, judged.root_after);
        after.retain(|sid, _| extremities.iter().any(|(other, _, _)| other == sid));
        let roots: Vec<StateRoot> = after.values().copied().collect();
        let fresh = Some((judged.sid, &judged.pdu));
        let root = self
            .inner()
            .resolve(room, row.root, &roots, fresh, nodes)
            .await?;
        Ok(NextHead {
            extremities,
            after,
            root,
        })
    }

    /// What an event follows by way of events that were put aside: nothing ends there any more, although what follows is not seen.
    async fn passed_unseen(&self, pdu: &Pdu) -> Result<HashSet<String>, ReceiveError> {
        let inner = self.inner();
        let view = inner.store.view();
        let mut passed = HashSet::new();
        let mut next = pdu.prev_events.clone();
        while !next.is_empty() && passed.len() < MOST_PASSED {
            let before = inner.events.by_ids(&view, &next).await?;
            next.clear();
            for event in before.into_iter().flatten() {
                if matches!(event.status, Status::Visible | Status::Outlier) {
                    continue;
                }
                for id in &event.pdu.prev_events {
                    if passed.insert(id.to_string()) {
                        next.push(id.clone());
                    }
                }
            }
        }
        Ok(passed)
    }

    /// Stores an event that is part of the graph but not of what clients see, nor of what the next event follows.
    pub(super) async fn put_aside(
        &self,
        room: &Room,
        judged: Judged,
        mut nodes: Grown,
        status: Status,
    ) -> Result<(), ReceiveError> {
        let inner = self.inner();
        let mut pdu = judged.pdu;
        pdu.rejected = status == Status::Rejected;
        let event = Event {
            sid: judged.sid,
            room: room.sid,
            version: room.version.clone(),
            pdu: Arc::new(pdu),
            status,
            position: Position(0),
            order: RoomOrder(0),
            root_before: judged.root_before,
            replaces: judged.replaces,
            redacted_by: None,
            transaction: None,
            tail: EventTail {
                root_after: Some(judged.root_after),
                gapped: false,
                expired: false,
            },
            unrelated: Unrelated::default(),
        };
        let mut batch = Batch::new();
        let id = event.pdu.event_id.to_string();
        batch.put(&schema::EVENT_SIDS, &id, &event.sid);
        batch.put(&schema::EVENTS, &event.sid, &event.row());
        let nodes = nodes.take();
        for (id, node) in &nodes {
            batch.put(&schema::STATE_NODES, id, node);
        }
        if let (Status::Held, Some(target)) = (status, event.pdu.redacts.as_ref()) {
            let key = held_key(target, Some(event.pdu.sender.server_name()));
            batch.put(&schema::HELD_REDACTIONS, &(room.sid, key), &event.sid);
        }
        let written = inner.store.write(batch).await;
        let nodes: Vec<_> = nodes.iter().map(|(id, _)| *id).collect();
        inner.trees.settled(&nodes);
        inner.events.rewritten([event.sid]);
        written.map_err(RoomError::from)?;
        Ok(())
    }

    /// A redaction that waited for its target is shown, now that it has emptied it.
    pub(super) async fn release(
        &self,
        room: &Arc<Room>,
        redaction: EventSid,
    ) -> Result<(), ReceiveError> {
        let inner = self.inner();
        let event = inner.events.get(&inner.store.view(), redaction).await?;
        let Some(event) = event.filter(|event| event.status == Status::Held) else {
            return Ok(());
        };
        let mut guard = self.rooms.lock(&room.id).await?;
        let after = guard.after_extremities().await?;
        let row = guard.head()?.row.clone();
        let (_, ticket) = guard
            .append(Placed {
                pdu: (*event.pdu).clone(),
                sid: event.sid,
                root_before: event.root_before,
                root_after: event.tail.root_after,
                replaces: None,
                // Others may have followed it long ago: it is no extremity.
                next: NextHead {
                    extremities: row.extremities,
                    after,
                    root: row.root,
                },
                changes: Vec::new(),
                partly: false,
                nodes: Grown::new(inner),
                txn: None,
                relayed: false,
                told: false,
                missing: Vec::new(),
            })
            .await?;
        drop(guard);
        ticket.committed().await.map_err(RoomError::from)?;
        Ok(())
    }
}

/// Whether the current state allows an event; if not, the rule that says no.
async fn allowed_now(guard: &mut RoomGuard, pdu: &Pdu) -> Result<Result<(), String>, ReceiveError> {
    let keys = auth_keys(&guard.room, pdu)?;
    let state = guard.auth_state(&keys).await?;
    let allowed = auth::authorise(&guard.room.rules, pdu, |kind, key| {
        state.get(&(kind.clone(), key.to_owned())).cloned()
    });
    Ok(allowed.map_err(|error| error.to_string()))
}
