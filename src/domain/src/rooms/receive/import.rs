//! A room that this server enters: the state that a resident server gives is checked, stored where nobody sees it, and then one batch
//! makes the room visible with the join.
//!
//! The checks of thousands of events run on all cores; the rows are written in chunks that yield to everyone else's. Until the last
//! batch there is no head, so nobody can take the room for one that is there; an import that ends before is begun anew and
//! leaves nothing of the first behind. <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

mod index;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, OwnedServerSigningKeyId,
    RoomVersionId, ServerName,
    events::TimelineEventType,
    signatures::{PublicKeyMap, verify_event},
};
use serde_json::value::RawValue as RawJsonValue;
use vatra_store::Batch;

use super::{
    super::{
        Head, Inner, Room, RoomError,
        append::{NextHead, Placed},
        state::Grown,
    },
    ReceiveError, Receiver,
    outliers::{deciding, judge},
};
use crate::{
    event::{
        check::{self},
        pdu::Pdu,
    },
    remote::Keys,
    schema::{self, EventSid, HeadRow, RoomOrder, StateChange},
};

/// How many events are checked or written at once.
const CHUNK: usize = 250;
/// The most events of an answer.
const MAX_EVENTS: usize = 400_000;

/// What a resident server says a room is.
#[derive(Debug)]
pub struct Answer {
    /// The state before the join.
    pub state: Vec<Box<RawJsonValue>>,
    /// What allows it, and the join.
    pub auth_chain: Vec<Box<RawJsonValue>>,
}

impl Receiver {
    /// Makes a room known with a join that a server has accepted. `join` is the event as it is to be stored, checked.
    ///
    /// Costs about 0.2 milliseconds of CPU for each event of the answer, on all cores.
    ///
    /// # Errors
    /// [`ReceiveError::NoRoom`] if the answer is not a room that the join can be part of.
    pub async fn import(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        join: Pdu,
        answer: Answer,
    ) -> Result<(), ReceiveError> {
        let started = self.inner().clock.now();
        if answer.state.len() + answer.auth_chain.len() > MAX_EVENTS {
            return Err(ReceiveError::TooMuch("the room is too large"));
        }
        let of_state = answer.state.len();
        let events: Vec<_> = answer.state.into_iter().chain(answer.auth_chain).collect();
        let count = events.len();
        let read = self.verified_all(room, events).await?;
        let dropped = count.saturating_sub(read.len());
        let state: Vec<OwnedEventId> = read
            .iter()
            .take_while(|(place, _)| *place < of_state)
            .map(|(_, pdu)| pdu.event_id.clone())
            .collect();
        let mut events: HashMap<OwnedEventId, Pdu> = read
            .into_iter()
            .map(|(_, pdu)| (pdu.event_id.clone(), pdu))
            .collect();
        events.remove(&join.event_id);
        let _turn = self.turn(room.sid).await;
        let judged = self.inner().judge_all(room, events).await?;
        check_create(room, &judged)?;
        self.store_judged(room, &judged).await?;
        self.enter(room, join, &state).await?;
        tracing::info!(
            %origin, room = %room.id, events = count, dropped,
            millis = self.inner().clock.now().saturating_sub(started), "a room was entered",
        );
        Ok(())
    }

    /// Reads and checks events on all cores; those that are not good, or of another room, are left out. Each comes with its place.
    async fn verified_all(
        &self,
        room: &Arc<Room>,
        events: Vec<Box<RawJsonValue>>,
    ) -> Result<Vec<(usize, Pdu)>, ReceiveError> {
        let rules = Arc::clone(&room.rules);
        let read = in_parallel(numbered(events), move |(place, event)| {
            let (object, pdu) = check::read(event.get().as_bytes(), &rules).ok()?;
            let (wanted, at) = Keys::wanted_by(&object, &rules).ok()?;
            Some((place, object, pdu, wanted, at))
        })
        .await?;
        // All keys at once, then for each event those that hold at its time.
        let mut newest: BTreeMap<
            (OwnedServerName, OwnedServerSigningKeyId),
            MilliSecondsSinceUnixEpoch,
        > = BTreeMap::new();
        for (_, _, _, wanted, at) in &read {
            for key in wanted {
                let latest = newest.entry(key.clone()).or_insert(*at);
                *latest = (*latest).max(*at);
            }
        }
        let at = newest.values().max().copied();
        let all: Vec<_> = newest.into_keys().collect();
        if let Some(at) = at {
            self.keys().verifying(&all, at).await;
        }
        let mut with_keys = Vec::with_capacity(read.len());
        for (place, object, pdu, wanted, at) in read {
            let keys: PublicKeyMap = self.keys().verifying(&wanted, at).await;
            with_keys.push((place, object, pdu, keys));
        }
        let (rules, id) = (Arc::clone(&room.rules), room.id.clone());
        in_parallel(with_keys, move |(place, object, pdu, keys)| {
            let verified = verify_event(&keys, &object, &rules).ok()?;
            let pdu = check::checked(pdu, &verified, &rules).ok()?.into_pdu();
            (pdu.room_id == id).then_some((place, pdu))
        })
        .await
    }

    async fn store_judged(&self, room: &Room, judged: &[Pdu]) -> Result<(), ReceiveError> {
        let inner = self.inner();
        for chunk in judged.chunks(CHUNK) {
            let mut batch = Batch::new();
            for pdu in chunk {
                inner.put_outlier(&mut batch, room, pdu).await?;
            }
            write_bulk(inner, batch).await?;
        }
        Ok(())
    }

    /// The state is stored: the room gets its head.
    async fn enter(
        &self,
        room: &Arc<Room>,
        join: Pdu,
        state: &[OwnedEventId],
    ) -> Result<(), ReceiveError> {
        let inner = self.inner();
        let view = inner.store.view();
        let old = view.get(&schema::ROOM_HEADS, &room.sid).await?;
        let base = old.as_ref().and_then(|row| row.root);
        let mut nodes = Grown::new(inner);
        let before = inner.root_of(&view, room, state, base, &mut nodes).await?;
        let needed: Vec<OwnedEventId> = deciding(&join).collect();
        let known = inner.allowing(room, &needed).await?;
        judge(&room.rules, &join, &known)
            .map_err(|error| ReceiveError::NoRoom(error.to_string()))?;
        match inner.authorise_at(room, before, &join).await {
            Ok(()) => {}
            Err(RoomError::Forbidden(reason) | RoomError::BadContent(reason)) => {
                return Err(ReceiveError::NoRoom(reason));
            }
            Err(error) => return Err(error.into()),
        }
        let ids = std::slice::from_ref(&join.event_id);
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
        let kind = join.kind.to_string();
        let user = join.state_key.clone().unwrap_or_default();
        let key = inner.ids.intern_state_key(&kind, &user).await?;
        let replaces = inner.trees.get(&view, before, key).await?;
        let after = nodes.set(&view, before, &[(key, Some(sid))]).await?;
        self.write_nodes(&mut nodes).await?;
        let missing = self.unplaced(room, &join.prev_events).await?;

        let mut changes = vec![StateChange {
            key,
            old: replaces,
            new: Some(sid),
        }];
        let mut guard;
        if old.is_some() {
            guard = self.rooms().lock(&room.id).await?;
            let root = guard.head()?.row.root;
            changes = inner.trees.diff(&inner.store.view(), root, after).await?;
        } else {
            guard = self.rooms().claim(Arc::clone(room)).await;
            *guard.head = Some(Head::new(HeadRow {
                generation: 0,
                extremities: Vec::new(),
                root: None,
                order: RoomOrder::FIRST,
            }));
            let local = self.index(&guard, before).await?;
            changes.extend(local.into_iter().filter(|change| change.key != key));
        }
        let appended = guard
            .append(Placed {
                sid,
                root_before: before,
                root_after: Some(after),
                replaces,
                // What this server knew of the room when it left is no branch of it: it goes on from the join.
                next: NextHead {
                    extremities: vec![(sid, join.event_id.to_string(), join.depth)],
                    after: HashMap::from([(sid, after)]),
                    root: after,
                },
                changes,
                partly: old.is_none(),
                nodes,
                txn: None,
                relayed: false,
                told: true,
                missing,
                pdu: join,
            })
            .await;
        if appended.is_err() && old.is_none() {
            *guard.head = None;
        }
        drop(guard);
        let (_, ticket) = appended?;
        ticket.committed().await.map_err(RoomError::from)?;
        inner.remember(room);
        Ok(())
    }

    /// The nodes of a large state, before the batch that names its root.
    async fn write_nodes(&self, nodes: &mut Grown) -> Result<(), ReceiveError> {
        let inner = self.inner();
        let nodes = nodes.take();
        for chunk in nodes.chunks(CHUNK) {
            let mut batch = Batch::new();
            for (id, node) in chunk {
                batch.put(&schema::STATE_NODES, id, node);
            }
            write_bulk(inner, batch).await?;
        }
        let ids: Vec<_> = nodes.iter().map(|(id, _)| *id).collect();
        inner.trees.settled(&ids);
        Ok(())
    }
}

/// A room of the version that was asked for begins with a create event that says so.
fn check_create(room: &Room, judged: &[Pdu]) -> Result<(), ReceiveError> {
    #[derive(serde::Deserialize)]
    struct Create {
        #[serde(default)]
        room_version: Option<RoomVersionId>,
    }
    let no_room = |reason: &str| ReceiveError::NoRoom(reason.to_owned());
    let mut creates = judged
        .iter()
        .filter(|pdu| pdu.kind == TimelineEventType::RoomCreate && !pdu.rejected);
    let create = creates
        .next()
        .ok_or_else(|| no_room("it has no create event"))?;
    if creates.next().is_some() {
        return Err(no_room("it has two create events"));
    }
    let content: Create = create
        .content_as()
        .map_err(|_| no_room("its create event cannot be read"))?;
    if content.room_version.unwrap_or(RoomVersionId::V1) != room.version {
        return Err(no_room("it is of another version"));
    }
    Ok(())
}

async fn write_bulk(inner: &Inner, batch: Batch) -> Result<(), ReceiveError> {
    if batch.is_empty() {
        return Ok(());
    }
    let ticket = inner.store.submit_bulk(batch);
    ticket.committed().await.map_err(RoomError::from)?;
    Ok(())
}

fn numbered<T>(items: Vec<T>) -> Vec<(usize, T)> {
    items.into_iter().enumerate().collect()
}

/// Does something with many items on all cores, in chunks; what gives nothing is left out.
async fn in_parallel<T: Send + 'static, R: Send + 'static>(
    items: Vec<T>,
    work: impl Fn(T) -> Option<R> + Send + Sync + Clone + 'static,
) -> Result<Vec<R>, ReceiveError> {
    let mut chunks = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        chunks.push(items.by_ref().take(CHUNK).collect::<Vec<T>>());
    }
    let tasks: Vec<_> = chunks
        .into_iter()
        .map(|chunk| {
            let work = work.clone();
            tokio::task::spawn_blocking(move || {
                chunk.into_iter().filter_map(work).collect::<Vec<R>>()
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        let chunk = task
            .await
            .map_err(|_| ReceiveError::TooMuch("the server is shutting down"))?;
        done.extend(chunk);
    }
    Ok(done)
}
