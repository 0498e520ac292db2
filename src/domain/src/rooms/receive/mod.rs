//! Receiving: an event of another server is checked, placed and judged, and gets its status.
//!
//! 1. *Without any lock*, since this asks other servers: form, signatures and hash (`event/check`, `Keys`); whether the room's policy server
//!    recommends it (`policy`); the events before it that are not here, and those that allow it (`fetch`). All of that is bounded in events, bytes and time.
//! 2. *In the room's turn*, without the network: outliers are judged by what allows them and stored (`outliers`); the event is
//!    judged by its auth events, by the state before it, and by the current state (`place`), and appended or put aside.
//!
//! The turn belongs to one event at a time, and nobody waits for the network in it, so that a slow server holds up nobody
//! else. Local users do not wait for it at all: they take the room's guard, which is held only for the last step.
//!
//! Also here: `backfill`, which fills the gaps of the room order from the newest event down.
//!
//! Called by `federation` (what others send) and `flows` (what a local user waits for).
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

mod backfill;
mod fetch;
mod gaps;
pub mod import;
pub(super) mod outliers;
mod place;
mod policy;
mod state;

use std::{collections::HashMap, sync::Arc};

use dashmap::DashMap;
use ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue as RawJsonValue;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Inner, Room, RoomError, Rooms, TxnKey};
use crate::{
    event::{
        check::{self, Dropped},
        pdu::Pdu,
    },
    remote::{KeyError, Keys, Remote, RemoteError},
    schema::RoomSid,
};

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was here before.
    Known,
    /// It is part of the room, and clients see it.
    Visible,
    /// It is valid where it stands, but the room has gone on without its sender: nobody is shown it.
    SoftFailed,
    /// A redaction whose target is not here.
    Held,
    /// The auth rules forbid it.
    Rejected(String),
}

/// Why an event is not taken. It may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is no event of this room version, or beyond a limit.
    #[error(transparent)]
    Dropped(#[from] Dropped),
    /// Its signatures do not hold.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is of another room.
    #[error("the event is of another room")]
    WrongRoom,
    /// Events before it are not here, and the server that sent it does not tell.
    #[error("events before it are missing")]
    MissingBefore,
    /// Events that allow it are not here.
    #[error("events that allow it are missing")]
    MissingAuth,
    /// It would cost too much to take it.
    #[error("{0}")]
    TooMuch(&'static str),
    /// What a server says the room is cannot be it.
    #[error("the other server's answer is no such room: {0}")]
    NoRoom(String),
    /// The room's policy server does not recommend it, or cannot be asked.
    #[error("the room's policy server: {0}")]
    Policy(RemoteError),
    /// Something about the room.
    #[error(transparent)]
    Room(#[from] RoomError),
}

impl From<vatra_store::StoreError> for ReceiveError {
    fn from(error: vatra_store::StoreError) -> Self {
        Self::Room(error.into())
    }
}

impl From<crate::ids::IdError> for ReceiveError {
    fn from(error: crate::ids::IdError) -> Self {
        Self::Room(error.into())
    }
}

/// Locks by what they are for.
type Turns<K> = DashMap<K, Arc<Mutex<()>>>;

/// Receives events of other servers. Cheap to clone.
#[derive(Clone)]
pub struct Receiver {
    rooms: Rooms,
    remote: Remote,
    keys: Keys,
    /// One event at a time is placed in a room.
    turns: Arc<Turns<RoomSid>>,
    /// One gap at a time is asked of a server for a room.
    asking: Arc<Turns<(OwnedServerName, RoomSid)>>,
    /// Rooms that are being joined, and what was told of them meanwhile.
    joining: Arc<DashMap<OwnedRoomId, Vec<Told>>>,
    /// A room is joined once at a time.
    joins: Arc<Turns<OwnedRoomId>>,
}

/// An event that a server told of.
type Told = (OwnedServerName, Box<RawJsonValue>);

/// The most events that wait for a join.
const MAX_TOLD: usize = 500;

/// What was gathered about an event before it is placed.
#[derive(Default)]
struct Gathered {
    /// Events between what is here and the event, oldest first.
    between: Vec<Pdu>,
    /// Known for their content only.
    outliers: HashMap<OwnedEventId, Pdu>,
    /// The states after events that are not here.
    after: HashMap<OwnedEventId, Vec<OwnedEventId>>,
    /// The states before events that follow some that are not here.
    before: HashMap<OwnedEventId, Vec<OwnedEventId>>,
}

/// How an event comes.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// This server lets it in itself, and tells the room's other servers of it.
    pub relayed: bool,
    /// Another server has let it in, and tells the others of it.
    pub told: bool,
    /// Someone waits to hear that it is part of the room: unless it is visible, nothing is stored.
    pub all_or_nothing: bool,
    /// A local client's transaction made it.
    pub txn: Option<TxnKey>,
}

impl Receiver {
    /// Receives into `rooms`.
    pub fn new(rooms: Rooms, remote: Remote, keys: Keys) -> Self {
        Self {
            rooms,
            remote,
            keys,
            turns: Arc::default(),
            asking: Arc::default(),
            joining: Arc::default(),
            joins: Arc::default(),
        }
    }

    /// Waits until no other local user is joining a room through another server.
    pub async fn join_turn(&self, room: &RoomId) -> OwnedMutexGuard<()> {
        turn(&self.joins, room.to_owned()).await
    }

    /// A room is being joined: what others tell of it is kept until [`Receiver::joined`].
    pub fn joining(&self, room: &RoomId) {
        self.joining.entry(room.to_owned()).or_default();
    }

    /// Keeps an event for later if its room is being joined; gives it back if it is not.
    pub fn keep_for_join(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event: Box<RawJsonValue>,
    ) -> Option<Box<RawJsonValue>> {
        let Some(mut told) = self.joining.get_mut(room) else {
            return Some(event);
        };
        if told.len() < MAX_TOLD {
            told.push((origin.to_owned(), event));
        }
        None
    }

    /// The join is there, or has failed: what was told meanwhile is taken.
    pub async fn joined(&self, room: &RoomId) {
        let told = self.joining.remove(room).map(|(_, told)| told);
        let Ok(known) = self.joined_room(room).await else {
            return;
        };
        for (origin, event) in told.into_iter().flatten() {
            let (id, outcome) = self.receive(&origin, &known, &event).await;
            if let Err(error) = outcome {
                tracing::debug!(%origin, ?id, %error, "an event told during a join is not taken");
            }
        }
    }

    /// The rooms.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// How others are asked.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The keys of others.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Takes an event that a server tells of, with what is missing before it. The event's id is known even if it is not
    /// taken, as long as it has the form of one.
    pub async fn receive(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        event: &RawJsonValue,
    ) -> (Option<OwnedEventId>, Result<Verdict, ReceiveError>) {
        let (object, pdu) = match check::read(event.get().as_bytes(), &room.rules) {
            Ok(read) => read,
            Err(error) => return (None, Err(error.into())),
        };
        let id = pdu.event_id.clone();
        let outcome = self.receive_read(origin, room, &object, pdu).await;
        (Some(id), outcome)
    }

    async fn receive_read(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        object: &CanonicalJsonObject,
        pdu: Pdu,
    ) -> Result<Verdict, ReceiveError> {
        if let Some(verdict) = self.known(room, &pdu).await? {
            return Ok(verdict);
        }
        if self.is_past(room, &pdu).await? {
            return Ok(Verdict::Known);
        }
        let pdu = self.verified(room, object, pdu).await?;
        self.take(origin, room, pdu, Manner::default()).await
    }

    /// Takes an event whose form, signatures and hash were checked (or which this server has made).
    ///
    /// # Errors
    /// With [`Manner::all_or_nothing`], what is not visible is [`RoomError::Forbidden`].
    pub async fn take(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        pdu: Pdu,
        manner: Manner,
    ) -> Result<Verdict, ReceiveError> {
        let pdu = self.asked_for(room, pdu).await?;
        let mut gathered = self.gather(origin, room, &pdu).await?;
        let _turn = self.turn(room.sid).await;
        self.store_outliers(room, std::mem::take(&mut gathered.outliers))
            .await?;
        let between = std::mem::take(&mut gathered.between);
        if self
            .unplaced(room, std::slice::from_ref(&pdu.event_id))
            .await?
            .is_empty()
        {
            return Ok(Verdict::Known);
        }
        if let Some(before) = self.missing_place(room, &pdu).await? {
            return self.fill_in(room, pdu, between, &gathered, before).await;
        }
        for between in between {
            let id = between.event_id.clone();
            let outcome = self
                .place(room, between, &gathered, Manner::default())
                .await;
            if let Err(error) = outcome {
                tracing::debug!(%origin, event = %id, %error, "an event before another is not taken");
            }
        }
        self.place(room, pdu, &gathered, manner).await
    }

    /// Checks form, limits, signatures and hash of an event as received; gives what to go on with.
    ///
    /// # Errors
    /// Why it is dropped.
    pub async fn check(&self, room: &Room, event: &RawJsonValue) -> Result<Pdu, ReceiveError> {
        let (object, pdu) = check::read(event.get().as_bytes(), &room.rules)?;
        self.verified(room, &object, pdu).await
    }

    async fn verified(
        &self,
        room: &Room,
        object: &CanonicalJsonObject,
        pdu: Pdu,
    ) -> Result<Pdu, ReceiveError> {
        if pdu.room_id != room.id {
            return Err(ReceiveError::WrongRoom);
        }
        let verified = self.keys.check_event(object, &room.rules).await?;
        Ok(check::checked(pdu, &verified, &room.rules)?.into_pdu())
    }

    /// What became of an event that was placed before.
    async fn known(&self, room: &Room, pdu: &Pdu) -> Result<Option<Verdict>, ReceiveError> {
        let inner = self.inner();
        let view = inner.store.view();
        let ids = std::slice::from_ref(&pdu.event_id);
        let known = inner.events.by_ids(&view, ids).await?;
        let known = known.into_iter().flatten().next();
        Ok(known
            .filter(|event| event.room == room.sid && event.has_state())
            .map(|_| Verdict::Known))
    }

    /// Waits for the room's turn.
    pub(super) async fn turn(&self, room: RoomSid) -> OwnedMutexGuard<()> {
        turn(&self.turns, room).await
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.rooms.inner
    }
}

/// A lock of the map's, which forgets those nobody holds when it has many.
async fn turn<K: std::hash::Hash + Eq>(turns: &Turns<K>, key: K) -> OwnedMutexGuard<()> {
    if turns.len() > 10_000 {
        turns.retain(|_, held| Arc::strong_count(held) > 1);
    }
    let mine = Arc::clone(&turns.entry(key).or_default());
    mine.lock_owned().await
}

impl Receiver {
    /// A room that this server is in.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`] if it is not.
    pub async fn joined_room(&self, room: &RoomId) -> Result<Arc<Room>, RoomError> {
        let reader = self.rooms.reader();
        let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
        if reader.server_is_in(room.sid, None).await? {
            Ok(room)
        } else {
            Err(RoomError::UnknownRoom)
        }
    }
}
